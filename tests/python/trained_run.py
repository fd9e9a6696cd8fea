"""A small run for the tests of what follows training, and the program as a user runs it."""

import json
import subprocess

import numpy as np

SEQ_LEN = 64
KEYS = {"model.dim": 32, "model.num_layers": 2, "model.num_heads": 2, "model.num_kv_heads": 1, "model.head_dim": 16,
        "model.ffn_dim": 48, "attention.topk": 4, "training.seq_len": SEQ_LEN, "training.steps": 60,
        "training.lighthouse_steps": 40, "training.batch_size": 8, "training.device": "cpu", "training.threads": 2,
        "optimizer.learning_rate": 1e-2, "optimizer.warmup_steps": 3, "validation.interval": 20,
        "validation.sequences": 2, "logging.sample_tokens": 40}
WORDS = "the light house stands at sea, far from land; ships see it.".split()


def words(count, seed):
    return " ".join(WORDS[index] for index in np.random.default_rng(seed).integers(len(WORDS), size=count))


class Trained:
    """A finished run."""

    def __init__(self, program, folder, **changed):
        self.program, self.folder = program, folder / "run"
        (folder / "corpus.txt").write_text(words(20000, seed=1))
        options = KEYS | changed | {"data.path": folder / "corpus.txt", "logging.run_dir": self.folder}
        self.options = [str(text) for key, value in options.items() for text in (f"--{key}", value)]
        self.output = self("train", *self.options, run=False)

    def run(self, command, *arguments, run=True, **options):
        given = ["--run", self.folder] if run else []
        return subprocess.run([self.program, *command.split(), *map(str, [*given, *arguments])], capture_output=True,
                              timeout=300, **options)

    def __call__(self, command, *arguments, **options):
        """Standard output of a command that goes well."""
        result = self.run(command, *arguments, **options)
        assert result.returncode == 0, result.stderr.decode()
        return result.stdout.decode()  # strictly: it is UTF-8

    def refusal(self, command, *arguments, exit_code=2, **options):
        result = self.run(command, *arguments, **options)
        errors = result.stderr.decode()
        assert (result.returncode, result.stdout) == (exit_code, b""), errors
        assert errors.startswith(f"lighthouse {command}: ") and errors.count("\n") == 1, errors
        return errors

    def metrics(self):
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]

    def config(self):
        return (self.folder / "config.toml").read_text()
