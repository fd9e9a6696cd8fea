"""The plan of runs: which there are, in which order, and what the trainer is told. docs/experiments.md says why."""
from dataclasses import dataclass, field

SEQ_LEN = 65536
STEPS = 192            # of one sequence each: 12.6M tokens
STAGE_ONE = 0.625      # share of the steps
TIME_STEPS = 2.18      # as many times the steps take two stages as long as dense training, by `lighthouse plan` on an H100
RATE, HIGH_RATE = 3e-4, 1e-3
SHARES = {"code": 0.65, "prose": 0.35}
BEFORE = ("as-it-is", "new-base")  # the model before training, with its own RoPE and with the new one


@dataclass(frozen=True)
class Run:
    """extension.toml with `options`, as `lighthouse train` takes them; of BEFORE nothing is trained."""

    arm: str
    seed: int
    options: dict = field(hash=False)
    before: tuple = field(default=(), hash=False)  # what it begins stage one with: options of equal parts before its own

    @property
    def name(self):
        return self.arm if self.arm in BEFORE else f"{self.arm}-s{self.seed}"

    def phases(self):
        """The options of each part, one start of the trainer each."""
        stage_one, parts = self.options["training.lighthouse_steps"], len(self.before) + 1
        ends = [round(stage_one * part / parts) for part in range(1, parts)]
        return [self.options | options | {"training.steps": end, "training.lighthouse_steps": end, "optimizer.schedule": "constant"}
                for end, options in zip(ends, self.before)] + [self.options]

    def changing(self):
        """Keys in which its parts differ."""
        return sorted({key for options in self.before for key in options})


def arms(seq_len, layers):
    """What each changes; a share of steps stands for so many."""
    odd_layers = ",".join(map(str, range(1, layers, 2)))
    dense, high = {"training.lighthouse_steps": 0}, {"optimizer.learning_rate": HIGH_RATE}
    return {
        "dense": dense,
        "two-stage": {},
        "two-stage-time": {"training.steps": TIME_STEPS},
        "short": {"attention.method": "short", "attention.span": seq_len // 8},  # the model's own length, then the new one
        "half-layers": {"attention.full_attention_layers": odd_layers},
        "topk-16th": {"attention.topk": seq_len // 16},
        "dense-high": dense | high,
        "two-stage-high": high,
    }


def later_arms(seq_len, layers):
    """Of the amendment: {arm: (what it changes, what it begins with)}."""
    odd_layers = ",".join(map(str, range(1, layers, 2)))
    return {
        "shrinking": ({}, ({"attention.topk": seq_len // 16}, {"attention.topk": seq_len // 32})),
        "growing": ({}, ({"attention.full_attention_layers": odd_layers},
                         {"attention.full_attention_layers": ",".join(map(str, range(1, layers, 4)))})),
        "window-layers": ({"attention.window_layers": odd_layers, "attention.span": seq_len // 8}, ()),  # the model's own length
    }


def make_run(arm, seed, changes, seq_len, steps, before=()):
    steps = round(changes.get("training.steps", 1) * steps)
    options = {
        "training.seq_len": seq_len, "training.lighthouse_steps": round(STAGE_ONE * steps),
        "attention.topk": seq_len // 64, "optimizer.learning_rate": RATE,
        "optimizer.warmup_steps": max(1, steps // 10), "optimizer.decay_steps": max(1, steps // 5),
        "validation.interval": max(1, steps // 2), "validation.sequences": 4,
    } | changes | {"training.steps": steps, "training.seed": seed, "data.seed": seed}
    return Run(arm, seed, options, before)


def runs(layers, seq_len=SEQ_LEN, steps=STEPS):
    """In the order of the plan: all arms with seed 1, then the three that the headline compares with seed 2, then those of the amendment."""
    changes = arms(seq_len, layers)
    first = [make_run(arm, 1, changes[arm], seq_len, steps) for arm in changes]
    second = [make_run(arm, 2, changes[arm], seq_len, steps) for arm in ("two-stage", "dense", "two-stage-time")]
    later = [make_run(arm, 1, changes, seq_len, steps, before) for arm, (changes, before) in later_arms(seq_len, layers).items()]
    return [Run(arm, 0, {}) for arm in BEFORE] + first + second + later
