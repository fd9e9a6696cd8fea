"""A run of milliseconds a step, which the programs of this folder disturb, and how they are called."""

import argparse
import subprocess
import sys
from pathlib import Path

KEYS = {"model.dim": 32, "model.num_layers": 2, "model.num_heads": 2, "model.num_kv_heads": 1, "model.head_dim": 16,
        "model.ffn_dim": 48, "attention.topk": 4, "training.seq_len": 64, "training.steps": 150, "training.lighthouse_steps": 100,
        "training.device": "cpu", "training.threads": 1, "optimizer.warmup_steps": 2, "validation.sequences": 2,
        "validation.interval": 10, "checkpoint.interval": 5, "logging.sample_tokens": 2000}


def command(lighthouse, corpus, run, others=None):
    """Of a tiny run; `others`: keys that are not as here."""
    keys = KEYS | (others or {}) | {"data.path": corpus, "logging.run_dir": run}
    return [lighthouse, "train", *(str(word) for key, value in keys.items() for word in (f"--{key}", value))]


def write_corpus(path):
    path.write_text("the light house stands at sea, far from land. " * 2000)
    return path


def main(experiment, description, count, devices=(), **program):
    """experiment(PATH, count, seed) of a program that is called with --count, --seed and `program`: an option and its default path; with
    device= too, by --device, where there are several."""
    [(option, default)] = program.items()
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=count)
    parser.add_argument(f"--{option}", type=Path, default=Path(default))
    parser.add_argument("--seed", type=int, default=1)
    if devices:
        parser.add_argument("--device", choices=devices, default=devices[0])
    arguments = parser.parse_args()
    chosen = {"device": arguments.device} if devices else {}
    try:
        experiment(getattr(arguments, option).resolve(), arguments.count, arguments.seed, **chosen)
    except (AssertionError, subprocess.TimeoutExpired) as failure:
        sys.exit(f"{Path(sys.argv[0]).stem}: {failure}")
