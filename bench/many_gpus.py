"""`lighthouse train` on 1, 2, 4, … GPUs of one machine: seconds of a step in both stages, and how much of linear that is.

    python bench/many_gpus.py --corpus FOLDER --ranks 1 2 4 >many_gpus.jsonl

Every case is trained for some steps on one GPU and on W: with `context` W ranks share its sequence, with `data` each has a
sequence of its own. Efficiency is t1 / (W tW) for `context`, t1 / tW for `data`; medians, without the first two steps of a
stage. One GPU is each that there are, at the same time, and t1 that of the slowest, which several wait for. One JSON line each.
`--tiny` has sizes for the CPU, to try the script. `--trace` records a step of stage one of the first GPU, and says how long its
collectives took and how long nothing else ran meanwhile, what each kind of kernels took, and how long nothing ran at all."""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SKIPPED = 2  # first steps of a stage, which allocate and choose plans
# Of a kernel's name in small letters, the first that fits: cuDNN's and FlashAttention's, cuBLAS's, ours.
KINDS = {"collectives": ("nccl",), "attention": ("sdpa", "flash", "fmha"), "products": ("gemm", "nvjet", "xmma", "cutlass"),
         "ours": ("lighthouse",), "rest": ("",)}
PAPER = {"model.preset": "paper", "attention.num_levels": 3, "attention.pooling_factor": 4, "training.precision": "bf16"}
LLAMA_8B_LAYER = {"model.dim": 4096, "model.num_heads": 32, "model.num_kv_heads": 8, "model.head_dim": 128,
                  "model.ffn_dim": 14336, "model.vocab_size": 256, "training.precision": "bf16"}
NO_DENSE_LAYERS = {"attention.full_attention_layers": "[]"}
PAPER_DENSE_LAYERS = {"attention.full_attention_layers": "0,1,28,29"}
LEVELS_4 = {"attention.num_levels": 4, "attention.topk": 4096}


@dataclass
class Case:
    name: str
    seq_len: int
    options: dict = field(default_factory=dict)
    stage_one: int = 8  # steps
    stage_two: int = 6
    modes: tuple = ("context",)
    alone: bool = True  # whether it fits one GPU


CASES = [
    Case("paper 98,304, dense {0,1,28,29}", 98304, PAPER | PAPER_DENSE_LAYERS, modes=("context", "data")),
    Case("paper 98,304, no dense layers", 98304, PAPER | NO_DENSE_LAYERS, stage_two=0),
    Case("paper 262,144, dense {0,1,28,29}", 262144, PAPER | PAPER_DENSE_LAYERS | {"training.recompute": "full"}, 5, 0),
    Case("paper 524,288, no dense layers", 524288, PAPER | NO_DENSE_LAYERS | LEVELS_4 | {"training.recompute": "full"}, 4, 0),
    Case("paper 1,048,576, no dense layers", 1048576, PAPER | NO_DENSE_LAYERS | LEVELS_4 | {"training.recompute": "full"},
         4, 0, alone=False),
    Case("four layers of Llama 3 8B 262,144", 262144,
         LLAMA_8B_LAYER | NO_DENSE_LAYERS | LEVELS_4 | {"model.num_layers": 4, "training.recompute": "full"}, 4, 0),
    # 139 GiB on each of four H200s, by the plan; a few minutes, so with --limit 400
    Case("Llama 3 8B 1,048,576", 1048576,
         {"model.preset": "llama3-8b", "training.precision": "bf16", "training.recompute": "full", "training.offload": "true",
          "training.offload_layers": 8} | NO_DENSE_LAYERS | LEVELS_4, 4, 0, alone=False),
]
TINY = {"model.dim": 32, "model.num_layers": 2, "model.num_heads": 4, "model.num_kv_heads": 4, "model.head_dim": 8,
        "model.ffn_dim": 64, "model.vocab_size": 256, "training.device": "cpu", "training.precision": "fp32", "attention.topk": 8, "attention.tile_topk": 2,
        "training.threads": 1}
TINY_CASES = [Case("tiny", 512, TINY, 4, 4, ("context", "data"))]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, default=ROOT / "build/release/bin/lighthouse", help="lighthouse")
    parser.add_argument("--corpus", type=Path, required=True, help="text to train on")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2], help="numbers of GPUs (1 2)")
    parser.add_argument("--cases", nargs="+", type=int, help="indices of cases (all)")
    parser.add_argument("--limit", type=float, default=150, help="seconds that one run may take (150)")
    parser.add_argument("--trace", action="store_true", help="seconds by kind of kernel, and those not hidden")
    parser.add_argument("--tiny", action="store_true", help="small sizes on the CPU")
    return parser.parse_args()


def command(program, case, mode, ranks, corpus, run_dir):
    options = {"attention.topk": case.seq_len // 64, "training.seq_len": case.seq_len, "training.batch_size": 1,
               "training.steps": case.stage_one + case.stage_two, "training.lighthouse_steps": case.stage_one,
               "training.device": "cuda", "optimizer.warmup_steps": 1, "validation.interval": 0, "validation.sequences": 1,
               "checkpoint.interval": 0, "logging.interval": 1, "logging.timing_interval": 0, "logging.sample_tokens": 0,
               "logging.tensorboard": "false", "logging.run_dir": run_dir, "data.path": corpus} | case.options
    start = ["train"]
    if ranks > 1:
        start = ["launch", "-n", ranks, "train"]
        options[f"parallel.{mode}"] = ranks
        if mode == "data":
            options["training.gradient_accumulation"] = ranks
    return [str(program), *map(str, start)] + [part for key, value in options.items() for part in (f"--{key}", str(value))]


def stage_seconds(lines, stage):
    """Median seconds of a step; None without enough of them."""
    times = [line["train_seconds"] for line in lines if line["stage"] == stage]
    steps = [after - before for before, after in zip(times, times[1:])][SKIPPED - 1:]
    return statistics.median(steps) if steps else None


def merged(spans):
    """Of spans that may overlap: those that do not."""
    result = []
    for begin, end in sorted(spans):
        if result and begin <= result[-1][1]:
            result[-1][1] = max(result[-1][1], end)
        else:
            result.append([begin, end])
    return result


def seconds_of(spans):
    return sum(end - begin for begin, end in spans) / 1e6


def kind_of(name):
    return next(kind for kind, parts in KINDS.items() if any(part in name.lower() for part in parts))


def trace_seconds(trace):
    """Of a trace of the device: while collectives ran, and while nothing else did; while each kind of kernels ran; and while nothing did,
    between the first kernel and the last."""
    spans = {kind: [] for kind in KINDS}
    for event in json.loads(trace.read_text())["traceEvents"]:
        if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset"):
            spans[kind_of(event["name"])].append((event["ts"], event["ts"] + event["dur"]))
    busy = merged([span for some in spans.values() for span in some])
    work = merged([span for kind, some in spans.items() if kind != "collectives" for span in some])
    kinds = {kind: round(seconds_of(merged(some)), 5) for kind, some in spans.items()}
    whole = (busy[-1][1] - busy[0][0]) / 1e6 if busy else 0
    return {"collectives_s": kinds["collectives"], "exposed_s": round(seconds_of(busy) - seconds_of(work), 5),
            "kinds_s": kinds, "idle_s": round(whole - seconds_of(busy), 5)}


def measure(arguments, case, mode, ranks, card=None):
    """`card`: the only one of those that are seen which is to be used."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    environment = os.environ if card is None else os.environ | {"CUDA_VISIBLE_DEVICES": seen.split(",")[card] if seen else str(card)}
    with tempfile.TemporaryDirectory() as folder:
        run_dir, trace = Path(folder) / "run", Path(folder) / "trace.json"
        start = time.monotonic()
        profile = ["--profile", str(trace), "--profile-steps", f"{case.stage_one}:{case.stage_one}"]
        try:
            result = subprocess.run(command(arguments.program, case, mode, ranks, arguments.corpus, run_dir)
                                    + (profile if arguments.trace else []),
                                    capture_output=True, text=True, timeout=arguments.limit, env=environment)
            code, messages = result.returncode, result.stderr
        except subprocess.TimeoutExpired as error:
            code, messages = 124, (error.stderr or b"").decode(errors="replace")
        metrics = run_dir / "metrics.jsonl"
        lines = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
        traced = trace_seconds(trace) if trace.exists() else {}
    lines = [line for line in lines if "loss" in line]
    record = {"case": case.name, "mode": mode if ranks > 1 else "alone", "ranks": ranks, "exit_code": code,
              "stage_one_s": stage_seconds(lines, 1), "stage_two_s": stage_seconds(lines, 2),
              "peak_memory": max((line.get("peak_memory") or 0 for line in lines), default=0),
              "losses": [line["loss"] for line in lines], "wall_s": round(time.monotonic() - start, 1)} | traced
    return record if code == 0 else record | {"messages": messages[-1500:]}


def measure_alone(arguments, case):
    """On each card at the same time: the slowest in stage one, with what the others took."""
    if arguments.tiny:
        return measure(arguments, case, "alone", 1)
    cards = range(max(arguments.ranks))
    with ThreadPoolExecutor(len(cards)) as pool:
        records = list(pool.map(lambda card: measure(arguments, case, "alone", 1, card), cards))
    slowest = max(records, key=lambda record: (record["exit_code"] != 0, record["stage_one_s"] or 0))
    return slowest | {"cards_s": [[record["stage_one_s"], record["stage_two_s"]] for record in records]}


def efficiency(alone, record):
    """Of linear, by stage."""
    shares = {}
    for stage in ("stage_one", "stage_two"):
        before, after = alone.get(f"{stage}_s"), record[f"{stage}_s"]
        if before and after:
            work = record["ranks"] if record["mode"] == "context" else 1
            shares[f"{stage}_efficiency"] = round(before / (work * after), 4)
    return shares


def main():
    arguments = parse_arguments()
    cases = TINY_CASES if arguments.tiny else CASES
    failed = False
    for index in arguments.cases if arguments.cases is not None else range(len(cases)):
        case = cases[index]
        alone = {}
        for ranks in arguments.ranks:
            for mode in case.modes if ranks > 1 else ("alone",):
                if ranks == 1 and not case.alone:
                    continue
                record = measure(arguments, case, mode, ranks) if ranks > 1 else measure_alone(arguments, case)
                if ranks == 1:
                    alone = record
                failed |= record["exit_code"] != 0
                print(json.dumps(record | efficiency(alone, record) if ranks > 1 else record), flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
