"""lighthouse-prepare beside encode_batch of tokenizers: the same lines of JSON, by the same tokenizer, in turns.

    PYTHONPATH=python python bench/prepare_throughput.py text.jsonl --tokenizer tokenizer.json [--processes 2] [--turns 3] [--json FILE]

Both are whole commands, from reading to the end of the last process: `prepare` writes a data set, `encode_batch` is a program that
reads all lines, encodes them in one call with as many threads, and keeps the tokens to itself. Medians of the turns."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ENCODE_BATCH = """
import json, sys, tokenizers
tokenizer = tokenizers.Tokenizer.from_file(sys.argv[1])
texts = [json.loads(line)["text"] for line in open(sys.argv[2], "rb")]
print(sum(map(len, tokenizer.encode_batch(texts, add_special_tokens=False))) + len(texts))
"""


def measured(command, environment):
    """(seconds, seconds of processors, output) of a program and all that it starts."""
    begin = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen([sys.executable, *map(str, command)], stdout=output, stderr=subprocess.DEVNULL,
                                   env=os.environ | environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        if status:
            sys.exit(f"{command[:2]} failed")
        output.seek(0)
        return seconds, usage.ru_utime + usage.ru_stime, output.read().decode()


def prepare(options, folder):
    *times, _ = measured(["-m", "lighthouse_prepare", options.source, "--tokenizer", options.tokenizer, "--output", folder / "tokens",
                          "--overwrite", "--validation", 0, "--processes", options.processes], {})
    manifest = json.loads((folder / "tokens" / "manifest.json").read_text())
    return times, manifest["data"]["train"]["statistics"]["tokens"]


def encode_batch(options, _):
    *times, output = measured(["-c", ENCODE_BATCH, options.tokenizer, options.source],
                              {"TOKENIZERS_PARALLELISM": "true", "RAYON_NUM_THREADS": str(options.processes)})
    return times, int(output)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    turns = {run.__name__: [] for run in (prepare, encode_batch)}
    tokens = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.turns):
            for run in (prepare, encode_batch):
                times, tokens[run.__name__] = run(options, Path(folder))
                turns[run.__name__].append(times)
    size = options.source.stat().st_size
    print(f"{size / 1e6:.1f} MB, {options.processes} processes, load {os.getloadavg()[0]:.1f} at the end")
    print(f"{'':>12}  {'wall s':>8}  {'processor s':>11}  {'MB/s':>6}  tokens")
    for name, times in turns.items():
        wall, processor = (statistics.median(column) for column in zip(*times))
        print(f"{name:>12}  {wall:>8.2f}  {processor:>11.2f}  {size / 1e6 / wall:>6.2f}  {tokens[name]:,}")
    if options.json:
        results = {"bytes": size, "processes": options.processes, "turns": turns, "tokens": tokens}
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
