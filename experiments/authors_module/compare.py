#!/usr/bin/env python3
"""Stage one against the authors' module: loss curves of the same steps from the same weights on the same batches.

    python experiments/authors_module/compare.py --corpus .corpus/two_stage/train --authors CHECKOUT --output FOLDER

Arms: our C++ trainer; a plain PyTorch Llama with our operator; the same with the authors' module, from a checkout of
github.com/ighoshsubho/lighthouse-attention, which is never committed (without --authors that arm is left out). What bf16 and
the order of sums do to such a curve is measured beside them: the Llama with our operator once more, and with another kernel
for the attention in its middle. FOLDER/curves.json has every loss; a table of their differences is printed.

The model is that of ladder A (docs/experiments.md), 5M parameters at N = 32,768 with k = N / 64, within the limits of their
code: norm scorer, cover_prefix off, one KV head for each query head."""
import argparse
import contextlib
import json
import math
import shlex
import statistics
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import authors
import llama

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "experiments/two_stage"))
import plan  # noqa: E402

NO_STEP = 1e-30  # a rate at which a step changes no weight: the export then has those of step 0
NOISE = ("ours", "ours again", "ours, other kernel")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, default=ROOT / "build/release/bin/lighthouse", help="lighthouse")
    parser.add_argument("--corpus", type=Path, required=True, help="folder of text; its first bytes are trained on")
    parser.add_argument("--authors", type=Path, help="checkout of the authors' repository")
    parser.add_argument("--output", type=Path, required=True, help="folder to make: curves.json, and the trainer's runs")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="other options of lighthouse train")
    return parser.parse_args()


def write_text(corpus, size, path):
    """The first `size` bytes of the corpus, files in byte order of their paths."""
    text = b""
    for file in sorted((file for file in corpus.rglob("*") if file.is_file()), key=lambda file: str(file).encode()):
        text += file.read_bytes()[:size - len(text)]
        if len(text) == size:
            path.write_bytes(text)
            return text
    sys.exit(f"'{corpus}' has {len(text)} bytes, and {size} are needed; give more text or fewer --steps")


class Trainer:
    """`lighthouse train` with the options of this comparison."""

    def __init__(self, arguments):
        self.program, self.output = arguments.program, arguments.output
        changes = {"attention.cover_prefix": "false", "optimizer.learning_rate": 1e-3, "optimizer.warmup_steps": 20}
        run = plan.make_run("a2", "authors", arguments.seed, changes)
        self.options = run.options | {
            "training.steps": arguments.steps, "training.lighthouse_steps": arguments.steps, "logging.interval": 1,
            "checkpoint.interval": 0} | dict(setting.split("=", 1) for setting in arguments.set)
        self.seq_len = int(self.options["training.seq_len"])

    def call(self, *command):
        command = [str(part) for part in (self.program, *command)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{shlex.join(command)}: exit code {done.returncode}\n{done.stderr}")

    def train(self, name, **changes):
        """The run folder, and the configuration of the run."""
        folder = self.output / name
        options = self.options | {"data.path": self.output / "text", "data.format": "text", "logging.run_dir": folder}
        options |= {key.replace("__", "."): value for key, value in changes.items()}
        self.call("train", "--config", ROOT / "experiments/two_stage/two_stage.toml",
                  *(part for key, value in options.items() for part in (f"--{key}", value)))
        return folder, tomllib.loads((folder / "config.toml").read_text())

    def export_step_0(self):
        """The folder of a model with the weights that every run of this seed starts from."""
        run, _ = self.train("step_0", training__steps=1, training__lighthouse_steps=1, optimizer__learning_rate=NO_STEP,
                         optimizer__warmup_steps=0)
        self.call("export", "--run", run, "--output", self.output / "weights")
        return self.output / "weights"


def our_attention(config):
    from lighthouse_attention import lighthouse_attention

    keys = ("num_levels", "pooling_factor", "topk", "tile_topk", "cover_prefix")
    return lambda q, k, v: lighthouse_attention(q, k, v, **{key: config["attention"][key] for key in keys})


def inner_attention(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def attentions(arguments, config):
    """{arm: attention}, [B, N, H, d] three times -> [B, N, H, d]."""
    found = dict.fromkeys(NOISE, our_attention(config))
    if arguments.authors:
        authors.check_limits(config["attention"], config["model"], config["training"]["seq_len"])
        found["theirs"] = authors.attention_of(authors.load(arguments.authors), inner_attention, config["attention"])
    return found


def train_llamas(arms, weights, text, config, seconds):
    """{arm: losses}; adds the time of each to `seconds`."""
    device = "cpu" if config["training"]["device"] == "cpu" else "cuda"
    dtype = torch.bfloat16 if config["training"]["precision"] == "bf16" else torch.float32
    other = SDPBackend.FLASH_ATTENTION if device == "cuda" else SDPBackend.MATH
    curves = {}
    for name, attention in arms.items():
        start = time.monotonic()
        with sdpa_kernel(other) if name == "ours, other kernel" else contextlib.nullcontext():
            curves[name] = llama.train(llama.Llama(weights, attention, dtype, device), text, config, device)
        seconds[name] = time.monotonic() - start
        print(f"{name}: {len(curves[name])} steps, {seconds[name]:.0f} s, last loss {curves[name][-1]:.4f}", flush=True)
    return curves


def mean_size(curve, base):
    return statistics.fmean(abs(loss - other) for loss, other in zip(curve, base, strict=True))


def print_table(curves):
    """Differences of the curves, and how large they are against those of equal programs."""
    print(f"\n{'loss less loss, nats':30} {'mean size':>10} {'largest':>10} {'mean of last quarter':>21}")
    pairs = [(name, "ours") for name in curves if name != "ours"] + [("trainer", "theirs")] * ("theirs" in curves)
    for name, base in pairs:
        differences = [loss - other for loss, other in zip(curves[name], curves[base])]
        last = differences[-max(len(differences) // 4, 1):]
        print(f"{name + ' - ' + base:30} {mean_size(curves[name], curves[base]):10.6f} {max(map(abs, differences)):10.6f} "
              f"{statistics.fmean(last):+21.6f}")
    noise = max(mean_size(curves[name], curves["ours"]) for name in NOISE[1:])
    print(f"mean sizes over that of the noise, {noise:.6f}: " + ", ".join(
        f"{name} - {base} {mean_size(curves[name], curves[base]) / noise if noise else math.nan:.2f}"
        for name, base in pairs if name not in NOISE))


def main():
    arguments = parse_arguments()
    arguments.output.mkdir(parents=True)
    trainer = Trainer(arguments)
    text = write_text(arguments.corpus, arguments.steps * trainer.seq_len + 1, arguments.output / "text")
    weights = trainer.export_step_0()
    start = time.monotonic()
    run, config = trainer.train("trainer")
    seconds = {"trainer": time.monotonic() - start}
    curves = {"trainer": [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]}
    curves |= train_llamas(attentions(arguments, config), weights, text, config, seconds)
    kept = {section: config[section] for section in ("model", "attention", "training", "optimizer")}  # without paths
    record = {"date": time.strftime("%Y-%m-%d"), "torch": torch.__version__, "config": kept, "seconds": seconds,
              "card": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu", "losses": curves}
    (arguments.output / "curves.json").write_text(json.dumps(record, indent=1) + "\n")
    print_table(curves)


if __name__ == "__main__":
    main()
