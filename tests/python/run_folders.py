"""Made-up run folders for tests of lighthouse-report: what `train` and `eval --json` leave behind, with losses that follow
a power law. By hand: python run_folders.py FOLDER [SEEDS]"""

import json
import math
import random
import sys
from pathlib import Path

CONFIG = """[model]
preset = "tiny"
dim = 256

[attention]
topk = {topk}
scorer = "norm"
full_attention_layers = []

[training]
steps = {steps}
lighthouse_steps = {lighthouse_steps}
seq_len = 32768
seed = {seed}

[optimizer]
learning_rate = {learning_rate}
schedule = "constant"

[data]
path = "corpus"
seed = {seed}

[logging]
run_dir = "{name}"
"""
TOKENS = 65536  # of a step


def make_run(folder, name, seed=1, steps=400, lighthouse_steps=0, done=None, gain=0.02, learning_rate=2e-3, topk=512,
             corpus="c0ffee", evaluated=True, old=False):
    """One run folder. done: steps so far, None: all; gain: how much lower than dense it ends; old: as runs wrote before
    metrics.jsonl had train_seconds and checkpoints knew the text."""
    run = Path(folder) / name
    run.mkdir(parents=True)
    run.joinpath("config.toml").write_text(CONFIG.format(topk=topk, steps=steps, lighthouse_steps=lighthouse_steps, seed=seed,
                                                         learning_rate=learning_rate, name=name))
    lines = list(metrics(seed, steps, lighthouse_steps, gain, old))[:done]
    run.joinpath("metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    checkpoint = run / "checkpoints" / f"step-{lines[-1]['step']:08}"
    checkpoint.mkdir(parents=True)
    state = {"fingerprint": f"{corpus}-{seed}", "content": corpus, "device": "cuda:0", "threads": 8}
    if old:
        del state["content"]
    checkpoint.joinpath("state.json").write_text(json.dumps(state))
    if evaluated and done is None:
        run.joinpath("eval.json").write_text(json.dumps(evaluation(lines[-1], seed, lighthouse_steps, corpus)))
    return run


def metrics(seed, steps, lighthouse_steps, gain, old):
    batches = random.Random(seed)  # the same for all runs of a seed
    own = random.Random(1000 * seed + lighthouse_steps)
    level, seconds, validating = 1.1 + 0.06 * batches.gauss(0, 1), 0.0, 0.0
    for step in range(1, steps + 1):
        stage = 1 if step <= lighthouse_steps else 2
        speed = (2.4e5 if stage == 1 else 9e4) * own.uniform(0.97, 1.03)
        seconds += TOKENS / speed
        curve = level + 4.4 * (1 + step / 3) ** -0.75
        record = {"step": step, "stage": stage, "loss": curve + 0.04 * batches.gauss(0, 1) - (0.03 if stage == 1 else 0),
                  "learning_rate": 2e-3, "grad_norm": 0.4 + 20 / (step + 5) + 0.05 * own.random(), "tokens": step * TOKENS,
                  "tokens_per_s": speed, "time": seconds + validating}
        if not old:
            record |= {"train_seconds": seconds, "peak_memory": (11 if stage == 1 else 14) * 2**30}
        if seed == 2 and step == 23:
            record |= {"loss": 7.2, "grad_norm": 83.0, "spike": "loss 7.2 is far above its recent median 2.6"}
        if step % 20 == 0 or step in (steps, lighthouse_steps):
            validating += 3.0
            record |= validation(curve, step, stage, lighthouse_steps, gain, own)
        yield record


def validation(curve, step, stage, lighthouse_steps, gain, own):
    after = step - lighthouse_steps
    above = 0.0
    if lighthouse_steps:
        above = 1.6 * step / (step + 30) if stage == 1 else 0.6 * math.exp(-after / 8) - gain * (1 - math.exp(-after / 40))
    losses = {"validation_loss": curve + above + 0.004 * own.gauss(0, 1)}
    if lighthouse_steps:
        losses["validation_loss_lighthouse"] = curve - 0.02 + (0.0006 * after if stage == 2 else 0)
    return losses


def evaluation(last, seed, lighthouse_steps, corpus):
    text, own = random.Random(0), random.Random(1000 * seed + lighthouse_steps)
    sequences = [{"index": index, "loss": last["validation_loss"] + 0.2 * text.gauss(0, 1) + 0.01 * own.gauss(0, 1)}
                 for index in range(0, 640, 10)]
    mean = sum(sequence["loss"] for sequence in sequences) / len(sequences)
    loss = {"loss": mean, "bits_per_byte": mean / math.log(2), "standard_error": 0.025, "sequences": sequences}
    edges = [0, *(64 * 2**power for power in range(10))]
    buckets = [{"begin": begin, "end": end, "loss": mean - 0.15 + 1.5 / math.log2(end), "standard_error": 0.02}
               for begin, end in zip(edges, edges[1:])]
    cells = [{"length": length, "depth": depth, "trials": 10, "correct": own.randint(1, 9)}
             for length in (512, 2048, 4096, 8192, 16384, 32768) for depth in (0.0, 0.15, 0.3, 0.5, 0.7, 0.85, 1.0)]
    copies = [{"distance": 2**power, "bits_per_byte": 0.2 + 0.3 * (power - 8) + 0.1 * own.random(), "standard_error": 0.05}
              for power in range(8, 16)]
    tasks = {"loss": {"dense": loss}, "position": {"dense": buckets}, "passkey": {"cells": cells},
             "multikey": {"cells": cells, "keys": 4},
             "copy": {"cells": copies, "chance_bits": 4.0}, "context": {"length": 4096, "difference": 0.05}}
    if lighthouse_steps:
        tasks["loss"]["lighthouse"] = {**loss, "loss": mean + 0.01}
    return {"format": 1, "run": "runs/mine", "step": last["step"], "stage": 2, "seq_len": 32768, "tasks": tasks,
            "corpus": {"path": "corpus", "fingerprint": corpus, "sequences": 64, "available": 640}}


if __name__ == "__main__":
    for number in range(1, int(sys.argv[2] if len(sys.argv) > 2 else 3) + 1):
        make_run(sys.argv[1], f"dense-{number}", number)
        make_run(sys.argv[1], f"two-stage-{number}", number, lighthouse_steps=250)
