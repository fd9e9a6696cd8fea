"""What `lighthouse bench attention --suite paper` is held against: the project's targets on one NVIDIA H200, and the
authors' code measured there (PyTorch 2.11, CUDA 13.0, cuDNN 9.19; bf16, B = 1, H = 8, d = 128; medians of 9 in ms)."""

from typing import Callable, NamedTuple, Optional


class Case(NamedTuple):
    seq_len: int
    scorer: str
    num_levels: int
    pooling_factor: int
    topk: int

    def __str__(self):
        shape = f"L={self.num_levels} p={self.pooling_factor} k={self.topk:,}"
        return f"{self.seq_len:,}, {self.scorer}, {shape}"


class Theirs(NamedTuple):
    forward_ms: float
    both_ms: float
    overhead_forward: float
    overhead_both: float
    speed_up: float
    extra_mib: int


AUTHORS = {
    Case(8192, "norm", 3, 4, 128): Theirs(0.857, 2.25, 8.40, 8.50, 0.49, 128),
    Case(16384, "norm", 3, 4, 256): Theirs(0.775, 2.26, 8.34, 3.70, 1.49, 255),
    Case(32768, "norm", 3, 4, 512): Theirs(1.13, 2.84, 5.05, 3.82, 4.82, 509),
    Case(65536, "norm", 3, 4, 1024): Theirs(1.85, 4.86, 3.06, 2.28, 11.4, 1019),
    Case(98304, "norm", 3, 4, 1536): Theirs(2.91, 8.14, 2.42, 1.92, 15.4, 1528),
    Case(131072, "norm", 3, 4, 2048): Theirs(4.24, 12.4, 2.13, 1.70, 18.3, 2037),
    Case(262144, "norm", 3, 4, 4096): Theirs(11.7, 40.4, 1.47, 1.30, 23.1, 4074),
    Case(98304, "norm", 3, 2, 1536): Theirs(4.77, 15.8, 1.50, 1.28, 7.91, 1806),
    Case(32768, "dilated", 3, 4, 512): Theirs(4.96, 8.72, 22.20, 11.73, 1.57, 656),
    Case(98304, "dilated", 3, 4, 1536): Theirs(25.6, 37.6, 21.28, 8.85, 3.32, 1968),
}

FLEX_WINDOW_MS = 7.52  # sliding window of 1,744 tokens, forward + backward, N = 98,304; used where none was measured
STAGE_SHARE = 0.75  # of the copy rate, at N >= 98,304
STAGE_MIN_LEN = 98304
SELECT_MS = 0.040


class Target(NamedTuple):
    case: Case
    what: str
    value: Callable  # of the case's results (benchmark_results.CaseResults), None where it was not measured
    relation: str  # ≤, ≥ or >
    limit: float
    authors: Optional[str] = None


def _mib(num_bytes):
    return None if num_bytes is None else num_bytes / 2**20


_PAPER = {n: Case(n, "norm", 3, 4, n // 64) for n in (8192, 32768, 98304, 262144, 524288)}
_MILLION = Case(1048576, "norm", 4, 4, 4096)
_DILATED = Case(98304, "dilated", 3, 4, 1536)
_GLA = Case(98304, "gla", 3, 4, 1536)


def _overheads(seq_len, forward, both, speed_up, relation="≥"):
    case = _PAPER[seq_len]
    theirs = AUTHORS.get(case)
    told = [f"{x:.3g}" for x in theirs[2:5]] if theirs else ["does not run"] * 3
    return [
        Target(case, "forward overhead", lambda r: r.overhead("forward"), "≤", forward, told[0]),
        Target(case, "forward+backward overhead", lambda r: r.overhead("forward+backward"), "≤", both, told[1]),
        Target(case, "speed-up over dense", lambda r: r.speed_up("forward+backward"), relation, speed_up, told[2]),
    ]


TARGETS = [
    *_overheads(8192, 2.5, 2.2, 1.5, relation=">"),
    Target(_PAPER[8192], "the same in a CUDA graph", lambda r: r.speed_up("forward+backward in graph"), "≥", 2.5),
    *_overheads(32768, 1.9, 1.4, 12),
    *_overheads(98304, 1.36, 1.16, 25),
    Target(_PAPER[98304], "extra memory, MiB", lambda r: _mib(r.field("extra_bytes")), "≤", 950, "1,528"),
    Target(_PAPER[98304], "kept for backward, MiB", lambda r: _mib(r.field("kept_bytes")), "≤", 165),
    *_overheads(262144, 1.13, 1.06, 28),
    *_overheads(524288, 1.065, 1.03, 29),
    Target(_MILLION, "forward+backward overhead", lambda r: r.overhead("forward+backward"), "≤", 1.11, "does not run"),
    Target(_DILATED, "forward+backward, ms", lambda r: r.ms("lighthouse forward+backward"), "≤", 22.5, "37.6"),
    Target(_DILATED, "speed-up over dense", lambda r: r.speed_up("forward+backward"), "≥", 5.5, "3.32"),
    Target(_GLA, "scorer alone, ms", lambda r: r.ms("stage gla scores"), "≤", 0.9, "2.1 (usual library)"),
]
