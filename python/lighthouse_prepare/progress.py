"""How far it is: a bar on a terminal, a line now and then elsewhere."""

import sys
import time

from .errors import library

LINE_SECONDS = 10
BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} of files{postfix}, {remaining} left"


class Progress:
    """A context. Percentages are of the files as they lie on disk, rates of text and tokens since the start."""

    def __init__(self, total, done):
        self.total, self.disk, self.stream = total, done, sys.stderr
        self.text_bytes = self.tokens = 0
        self.begin = self.shown = time.monotonic()
        self.bar = None
        if self.stream.isatty():
            tqdm = library("tqdm", "tqdm").tqdm
            self.bar = tqdm(total=total, initial=done, unit="B", unit_scale=True, file=self.stream, bar_format=BAR)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.bar:
            self.bar.close()

    def add(self, encoded, tokens):
        self.text_bytes += encoded.text_bytes
        self.tokens += tokens
        forward = encoded.disk - self.disk
        self.disk = encoded.disk
        if self.bar:
            self.bar.set_postfix_str(self.rates(), refresh=False)
            self.bar.update(forward)
        elif time.monotonic() - self.shown >= LINE_SECONDS:
            self.shown = time.monotonic()
            self.say(f"{self.disk / max(self.total, 1):.0%} of {self.total / 1e6:,.1f} MB, {self.rates()}")

    def rates(self):
        seconds = max(time.monotonic() - self.begin, 1e-9)
        return f"{self.text_bytes / 1e6 / seconds:.1f} MB/s of text, {self.tokens / seconds:,.0f} tokens/s"

    def say(self, text):
        if self.bar:
            self.bar.write(f"lighthouse-prepare: {text}", file=self.stream)
        else:
            print(f"lighthouse-prepare: {text}", file=self.stream, flush=True)
