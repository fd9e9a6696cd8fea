#!/usr/bin/env python3
"""Lets an allocation of a tensor's memory fail at random points of runs: start, building, step, validation, saving, sample.

    python tests/robust/memory.py --count 20 --build build/release
    python tests/robust/memory.py --count 20 --device cuda      # of the device's memory, tensor by tensor and in the allocator's blocks

Each run must say where, end with exit 1 (in the sample, when all is saved, with 0), leave whole checkpoints only, and end
with the bits of an undisturbed run when the same command is given again.
"""

import json
import os
import random
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

from tiny_run import command, main, write_corpus

KEYS = {"training.steps": 12, "training.lighthouse_steps": 8, "validation.interval": 5, "checkpoint.interval": 3,
        "checkpoint.keep": 20, "logging.sample_tokens": 40}
PLACES = {"opening": "out of memory while the run is opened, which changes no checkpoint: ",
          "copies for checkpoints": "of host memory to copy checkpoints to (out of memory: ",
          "step": ", which did not reach the weights: ", "validation": "out of memory in the validation after step ",
          "saving": "is not saved: out of memory", "sample": "warning: out of memory in the sample: "}
GO_ON = ("saving", "sample")
KEYS_ON_CUDA = {"training.device": "cuda", "training.deterministic": "true", "model.head_dim": 64, "training.seq_len": 512,
                "attention.topk": 64}  # what stock kernels take, and bits to compare
RAW = ("[enforce fail", "terminate called", "[json.exception", "c10::", "Exception raised from")


def environment_of(device, number):
    """By which allocations are counted. On a GPU in turns every tensor's, and those of blocks that are kept for the next ones."""
    if device == "cpu":
        return {}
    return {"LIGHTHOUSE_ALLOCATIONS_OF": "cuda", "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:False"} | (
        {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"} if number % 2 else {})


def run(lighthouse, build, corpus, folder, device, number, fail=None, count=None):
    environment = os.environ | {"LD_PRELOAD": str(build / "tests/robust/libfail_allocation.so"), "OMP_NUM_THREADS": "1"}
    environment |= environment_of(device, number)
    keys = KEYS if device == "cpu" else KEYS | KEYS_ON_CUDA
    if fail is not None:
        environment["LIGHTHOUSE_FAIL_ALLOCATION"] = str(fail)
    if count is not None:
        environment["LIGHTHOUSE_COUNT_ALLOCATIONS"] = str(count)
    return subprocess.run(command(lighthouse, corpus, folder, keys), capture_output=True, text=True, timeout=120, env=environment)


def checkpoints(folder):
    """What the manifests of a run say of the tensors, by step."""
    manifests = [json.loads(path.read_text()) for path in folder.glob("checkpoints/step-*/manifest.json")]
    return {manifest["step"]: [file["tensors"] for file in manifest["files"]] for manifest in manifests}


def place_of(result):
    """Where memory ran out, as the run says."""
    for raw in RAW:
        assert raw not in result.stderr, result.stderr[-1500:]
    found = [place for place, words in PLACES.items() if words in result.stderr]
    assert len(found) == 1, f"exit {result.returncode}, places {found}: {result.stderr[-1500:]}"
    assert result.returncode == (0 if found[0] in GO_ON else 1), result.stderr[-1500:]
    return found[0]


def ranges_of(total):
    """Of the allocations of a run: those of the start, those of the end with the sample, and all."""
    return (0, total // 50), (total * 4 // 5, total), (0, total)


def experiment(build, count, seed=1, report=print, device="cpu"):
    lighthouse, source, places = build / "bin/lighthouse", random.Random(seed), Counter()
    with tempfile.TemporaryDirectory(prefix="lighthouse-memory-") as name:
        folder = Path(name)
        corpus = write_corpus(folder / "t.txt")
        totals = []
        for number in range(1 if device == "cpu" else 2):
            whole = run(lighthouse, build, corpus, folder / f"whole{number}", device, number, count=folder / "count")
            assert whole.returncode == 0, whole.stderr
            totals.append(int((folder / "count").read_text()))
        expected = checkpoints(folder / "whole0")
        for number in range(count):
            target = folder / str(number)
            fail = source.randrange(*ranges_of(totals[number % len(totals)])[number % 3])
            result = run(lighthouse, build, corpus, target, device, number, fail)
            places[place_of(result)] += 1
            for step, tensors in checkpoints(target).items():
                assert tensors == expected[step], f"allocation {fail}: other bits in step {step}"
            again = run(lighthouse, build, corpus, target, device, number)
            assert again.returncode == 0, f"allocation {fail}: {again.stderr[-1500:]}"
            assert checkpoints(target)[12] == expected[12], f"allocation {fail}: other bits at the end"
    for place, number in places.most_common():
        report(f"{number:5} {place}")
    report(f"of {' and '.join(map(str, totals))} allocations of a run")
    return places


if __name__ == "__main__":
    main(experiment, __doc__, 20, devices=("cpu", "cuda"), build="build/release")
