"""The benchmarks in Python run, small and on the CPU, and count what they say they count."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest
from ranks import run_program, run_ranks

pytest.importorskip("transformers", minversion="5")
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("more", [[], ["--keep-activations", "--full-attention-layers", "0"]], ids=["checkpointed", "kept"])
def test_huggingface_llama(tmp_path, more):
    arguments = ["--device", "cpu", "--seq-len", 256, "--layers", 2, "--hidden", 64, "--heads", 4, "--head-dim", 16,
                 "--vocabulary", 100, "--steps", 2, "--warm-up", 1, "--json", tmp_path / "results.json", *more]
    result = subprocess.run([sys.executable, ROOT / "bench" / "huggingface_llama.py", *map(str, arguments)], check=True,
                            capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"})
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["parameters"] == 2 * 64 * 100 + 2 * (64 * 64 * 3 + 3 * 64 * 192 + 2 * 64) + 64
    assert (results["topk"], results["rows"]) == (4, 16 + 2 * 4 * 4)
    assert results["flops"]["sdpa_attention"] > results["flops"]["lighthouse_attention"]
    for name in ("lighthouse", "sdpa"):
        losses = results[name]["losses"]
        assert len(results[name]["seconds"]) == 2 and len(losses) == 3
        assert abs(losses[0] - math.log(100)) < 0.2
    assert f"lighthouse / sdpa: {results['ratio']:.2f}" in result.stdout


def run_bench(name, arguments):
    sys.path.insert(0, str(ROOT / "bench"))
    return run_program(str(ROOT / "bench" / name), arguments)


def test_many_gpus_alone_and_shared(lighthouse, tmp_path):
    (tmp_path / "text.txt").write_text("the light house stands at sea, far from land. " * 200)
    result = subprocess.run([sys.executable, ROOT / "bench/many_gpus.py", "--program", lighthouse, "--corpus", tmp_path / "text.txt", "--tiny"],
                            check=True, capture_output=True, text=True, timeout=300)
    alone, shared, dealt = map(json.loads, result.stdout.splitlines())
    assert [record["mode"] for record in (alone, shared, dealt)] == ["alone", "context", "data"]
    assert shared["losses"][0] == pytest.approx(alone["losses"][0], rel=1e-6)
    assert shared["losses"] == pytest.approx(alone["losses"], rel=5e-3)  # rounding decides which of equal scores are taken
    assert shared["stage_one_efficiency"] == pytest.approx(alone["stage_one_s"] / (2 * shared["stage_one_s"]), abs=1e-4)
    assert dealt["stage_two_efficiency"] == pytest.approx(alone["stage_two_s"] / dealt["stage_two_s"], abs=1e-4)


def test_what_a_trace_of_many_gpus_says(tmp_path):
    sys.path.insert(0, str(ROOT / "bench"))
    import many_gpus
    names = {"cudnn_generated_fort_native_sdpa_sm90_flash_fprop": (0, 40), "nvjet_tst_128x256": (40, 30), "ncclDevKernel_SendRecv": (60, 20),
             "void lighthouse::cuda::gather_rows_kernel": (100, 10), "Memcpy DtoD": (105, 10), "host work": (0, 500)}
    events = [{"name": name, "ts": ts, "dur": dur, "cat": "cpu_op" if name == "host work" else "kernel"} for name, (ts, dur) in names.items()]
    (tmp_path / "trace.json").write_text(json.dumps({"traceEvents": events}))
    said = many_gpus.trace_seconds(tmp_path / "trace.json")
    assert said["kinds_s"] == {"collectives": 2e-5, "attention": 4e-5, "products": 3e-5, "ours": 1e-5, "rest": 1e-5}
    assert (said["collectives_s"], said["exposed_s"], said["idle_s"]) == (2e-5, 1e-5, 2e-5)


def test_context_parallel():
    names = [f"500m-{attention}-{way}" for attention in ("lighthouse", "dense") for way in ("alone", "heads")]
    output, silent = run_ranks(2, run_bench, "context_parallel.py", ["--tiny", "--cases", *names, "500m-dense-ring"], with_group=False)
    results = {result["case"]: result for result in map(json.loads, output.splitlines())}
    assert silent == "" and list(results) == [*names, "500m-dense-ring"] and "no kernel" in results["500m-dense-ring"]["skipped"]
    # From the second step on rounding decides which of equal scores are taken, and processors round differently.
    for attention, bound in (("lighthouse", 5e-3), ("dense", 1e-6)):
        alone, heads = (results[f"500m-{attention}-{way}"] for way in ("alone", "heads"))
        assert heads["losses"][0] == pytest.approx(alone["losses"][0], rel=1e-6)
        assert heads["losses"] == pytest.approx(alone["losses"], rel=bound)
        assert heads["efficiency"] == pytest.approx(median(alone["seconds"]) / (2 * median(heads["seconds"])))
        assert heads["tokens_per_s"] == pytest.approx(512 / median(heads["seconds"]))


def test_prepare_throughput(tmp_path):
    from prepare_corpora import byte_level_bpe, json_lines, texts, write
    byte_level_bpe().save(str(tmp_path / "tokenizer.json"))
    write(tmp_path / "a.jsonl", json_lines(texts(50, seed=1)))
    subprocess.run([sys.executable, ROOT / "bench" / "prepare_throughput.py", tmp_path / "a.jsonl", "--tokenizer",
                    tmp_path / "tokenizer.json", "--processes", "1", "--turns", "2", "--json", tmp_path / "results.json"], check=True,
                   capture_output=True, timeout=120)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["tokens"]["prepare"] == results["tokens"]["encode_batch"] > 1000
    for turns in results["turns"].values():
        assert len(turns) == 2 and all(0 < seconds for turn in turns for seconds in turn)
