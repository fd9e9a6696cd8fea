"""The plan of runs: which there are, in which order, and what the trainer is told. docs/experiments.md says why."""
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Run:
    """One run: two_stage.toml with `options`, as `lighthouse train` takes them."""

    ladder: str
    arm: str
    seed: int
    options: dict = field(hash=False)

    @property
    def name(self):
        return f"{self.ladder}-{self.arm}-s{self.seed}"


@dataclass(frozen=True)
class Ladder:
    """A model, a length and a number of steps; `share` of them are stage one."""

    dim: int
    layers: int
    heads: int
    ffn: int
    seq_len: int
    batch: int
    steps: int
    warmup: int
    rate_steps: int     # of the dense runs that find the rate; 0: FIXED_RATE
    interval: int       # steps between validations
    sequences: int      # of a validation
    share: float = 0.625
    rope_theta: float = 10_000.0  # the paper's
    corpus: str = "two_stage"     # a folder of .corpus

    def options(self, steps):
        return {
            "model.dim": self.dim, "model.num_layers": self.layers, "model.num_heads": self.heads,
            "model.num_kv_heads": self.heads, "model.ffn_dim": self.ffn, "model.rope_theta": self.rope_theta,
            "attention.topk": self.seq_len // 64,
            "training.seq_len": self.seq_len, "training.batch_size": self.batch, "training.steps": steps,
            "training.lighthouse_steps": round(self.share * steps),
            "optimizer.warmup_steps": self.warmup,
            "validation.interval": self.interval, "validation.sequences": self.sequences,
        }


LADDERS = {
    # 5M parameters, 200M tokens
    "a": Ladder(dim=256, layers=6, heads=2, ffn=704, seq_len=32768, batch=2, steps=3052, warmup=200,
                rate_steps=1000, interval=100, sequences=32),
    # The same on 400M tokens in four times as many steps: an amendment, docs/experiments.md says why.
    "a2": Ladder(dim=256, layers=6, heads=2, ffn=704, seq_len=32768, batch=1, steps=12208, warmup=200,
                 rate_steps=4000, interval=400, sequences=32),
    # 15M parameters, 262M tokens
    "b": Ladder(dim=384, layers=8, heads=3, ffn=1024, seq_len=65536, batch=1, steps=4000, warmup=200,
                rate_steps=1000, interval=200, sequences=16),
    # B's model at the paper's length on the text of E, 295M tokens: the fifth amendment says why.
    "c": Ladder(dim=384, layers=8, heads=3, ffn=1024, seq_len=98304, batch=1, steps=3000, warmup=200,
                rate_steps=750, interval=300, sequences=10, rope_theta=500_000.0, corpus="llvm-releases"),
    # The paper's 268M parameters, 15M tokens: speed, switch and recovery only.
    "d": Ladder(dim=1024, layers=30, heads=8, ffn=1536, seq_len=98304, batch=1, steps=152, warmup=30,
                rate_steps=0, interval=19, sequences=4, corpus="llvm-releases"),
    # A2 on text whose far context is worth something.
    "e": Ladder(dim=256, layers=6, heads=2, ffn=704, seq_len=32768, batch=1, steps=12208, warmup=200,
                rate_steps=3000, interval=400, sequences=32, rope_theta=500_000.0, corpus="llvm-releases"),
}
SEEDS = {"a": 6, "a2": 6, "b": 3, "c": 2, "d": 1, "e": 4}
RATES = (1e-3, 2e-3, 4e-3)
FIXED_RATE = 2e-3  # the paper's, where no rate is looked for
RATE_SEED = 100  # not one of the seeds that are compared

DENSE = {"training.lighthouse_steps": 0}
MAIN_ARMS = {"dense": DENSE, "two-stage": {}}

# What else takes about as little time: does Lighthouse do more? On ladder A2, seeds 1 and 2, before all ablations.
TIME_SHARE = 0.532  # two-stage over dense, seconds of steps, as ladder A measured it
CONTROLS = {
    "dense-fewer": DENSE | {"training.steps": TIME_SHARE},
    "short": {"attention.method": "short", "attention.span": 4096},   # N / 8
    "window": {"attention.method": "window", "attention.span": 576},  # S^2 / 2 = N * 576 with the S of the two-stage arm
}

# The same on ladder B, by the second amendment of docs/experiments.md.
B_CONTROLS = {
    "short": {"attention.method": "short", "attention.span": 8192},
    "window": {"attention.method": "window", "attention.span": 1152},
}

# The better of those controls, at the paper's length, by the fifth amendment.
C_CONTROLS = {"short": {"attention.method": "short", "attention.span": 12288}}

# Windows between Lighthouse layers there, by the sixth: S^2 / 2 = N * 1,728.
C_WINDOW_LAYERS = {"window-layers": {"attention.window_layers": "0,2,4,6", "attention.span": 1728}}

# What ends well in one seed and not in another, in new seeds, by the seventh; without dense training, which never did.
C_NEW_SEEDS = (3, 4, 5)
CAME_THROUGH = 0.1  # nats that far context is worth

# Is it the windows alone? By the eighth, in every layer; and windows between Lighthouse layers in the paper's model.
C_WINDOW = {"window": {"attention.method": "window", "attention.span": 1728}}
D_WINDOW_LAYERS = {"window-layers": {"attention.window_layers": ",".join(map(str, range(0, LADDERS["d"].layers, 2))),
                                     "attention.span": 1728}}

# Windows between Lighthouse layers, on ladder A2 with two seeds, by the third amendment, and on ladder E.
WINDOW_LAYERS = {
    "window-layers": {"attention.window_layers": "0,2,4", "attention.span": CONTROLS["window"]["attention.span"]},
}

# Ladder E: does Lighthouse keep what these leave out in stage one? Every seed; seeds 1 and 2 with all arms come first.
E_CONTROLS = {arm: CONTROLS[arm] for arm in ("window", "short")} | WINDOW_LAYERS

# What short sequences have and Lighthouse lacks, by the fourth amendment: near tokens exactly, or more pairs. Ladder E, two seeds,
# after all of its own.
E_MIXTURES = {
    "wide-window": {"attention.method": "window", "attention.span": CONTROLS["short"]["attention.span"]},
    "wide-window-layers": WINDOW_LAYERS["window-layers"] | {"attention.span": CONTROLS["short"]["attention.span"]},
    "topk-16th": {"attention.topk": 2048},
}

# One line each in docs/experiments.md; on ladder A2, seeds 1 and 2. The paper's own setting has dense layers: they come
# before the headline, all else after it.
FIRST_ABLATIONS = {
    "dense-layers-2": {"attention.full_attention_layers": "0,5"},
}
ABLATIONS = {
    "levels-2": {"attention.num_levels": 2},
    "levels-4": {"attention.num_levels": 4},
    "pool-2": {"attention.pooling_factor": 2},
    "pool-8": {"attention.pooling_factor": 8},
    "topk-512th": {"attention.topk": 64},
    "topk-128th": {"attention.topk": 256},
    "topk-16th": {"attention.topk": 2048},
    "scorer-dilated": {"attention.scorer": "dilated"},
    "scorer-gla": {"attention.scorer": "gla"},
    "scorer-random": {"attention.scorer": "random"},
    "tile-32": {"attention.tile_topk": 32},
    "tile-whole": {"attention.tile_topk": 512},
    "no-cover-prefix": {"attention.cover_prefix": "false"},
    "dense-layers-4": {"attention.full_attention_layers": "0,1,4,5"},
    "large-k": {"attention.pooling_factor": 2, "attention.topk": 2048},
    "split-50": {"training.lighthouse_steps": 0.5},
    "split-75": {"training.lighthouse_steps": 0.75},
    "split-87": {"training.lighthouse_steps": 0.875},
    "cosine": {"optimizer.schedule": "cosine"},
    "dense-cosine": {"optimizer.schedule": "cosine", **DENSE},
    "wsd": {"optimizer.schedule": "wsd"},
    "dense-wsd": {"optimizer.schedule": "wsd", **DENSE},
    "documents": {"data.packing": "documents"},
    "dense-documents": {"data.packing": "documents", **DENSE},
}


def make_run(ladder, arm, seed, changes, steps=None):
    """`changes` may give training.steps as a share of the ladder's, lighthouse_steps (a float) as one of the run's."""
    steps = steps or LADDERS[ladder].steps
    if "training.steps" in changes:
        steps = round(changes["training.steps"] * steps)
    options = LADDERS[ladder].options(steps) | changes | {"training.steps": steps}
    if isinstance(options["training.lighthouse_steps"], float):
        options["training.lighthouse_steps"] = round(options["training.lighthouse_steps"] * steps)
    return Run(ladder, arm, seed, options | {"training.seed": seed, "data.seed": seed})


def rate_run(ladder, rate):
    """Dense and shorter: the best of these has the rate of all arms of its ladder."""
    return make_run(ladder, f"rate-{rate:g}", RATE_SEED, DENSE | {"optimizer.learning_rate": rate},
                    LADDERS[ladder].rate_steps)


def rates(losses):
    """Those to try, given the losses {rate: loss} of those that were tried: one more where the best is at the end."""
    if len(losses) < len(RATES):
        return RATES
    best = min(RATES, key=losses.get)
    if best == RATES[0]:
        return (best / 2, *RATES)
    return (*RATES, 2 * best) if best == RATES[-1] else RATES


def main_pairs(ladder):
    """Both arms of each seed. They take turns in coming first, so that neither always has the warmer card."""
    pairs = []
    for seed in range(1, SEEDS[ladder] + 1):
        pair = [make_run(ladder, arm, seed, changes) for arm, changes in MAIN_ARMS.items()]
        pairs.append(pair if seed % 2 else pair[::-1])
    return pairs


def with_seeds(ladder, arms, seeds=(1, 2)):
    return [[make_run(ladder, arm, seed, changes)] for arm, changes in arms.items() for seed in seeds]


def far_jobs():
    """Ladder E in two halves, each with all arms of its seeds."""
    pairs = main_pairs("e")
    return (pairs[:2] + with_seeds("e", E_CONTROLS) + pairs[2:] + with_seeds("e", E_CONTROLS, range(3, SEEDS["e"] + 1)))


def long_jobs():
    """The paper's length: ladder C by seeds, with all arms of each, and D."""
    by_seed = [[pair, *with_seeds("c", C_CONTROLS, (seed,))] for seed, pair in enumerate(main_pairs("c"), 1)]
    return ([job for jobs in by_seed for job in jobs] + main_pairs("d") + with_seeds("d", C_CONTROLS, (1,))
            + with_seeds("c", C_WINDOW_LAYERS) + new_long_jobs()
            + with_seeds("c", C_WINDOW, (*C_NEW_SEEDS, 1, 2)) + with_seeds("d", D_WINDOW_LAYERS, (1,)))


def seeds_of(ladder):
    """All that its runs have."""
    return [*range(1, SEEDS[ladder] + 1), *(C_NEW_SEEDS if ladder == "c" else ())]


def new_long_jobs():
    """New seeds of ladder C, each with all first stages before the next."""
    arms = C_WINDOW_LAYERS | C_CONTROLS | {"two-stage": MAIN_ARMS["two-stage"]}
    return [job for seed in C_NEW_SEEDS for job in with_seeds("c", arms, (seed,))]


def jobs():
    """Lists of runs that one card makes one after another, in the order of the plan, without those for rates."""
    return (main_pairs("a") + main_pairs("a2") + with_seeds("a2", CONTROLS | FIRST_ABLATIONS) + main_pairs("b")
            + with_seeds("b", B_CONTROLS) + with_seeds("a2", WINDOW_LAYERS) + far_jobs() + long_jobs()
            + with_seeds("e", E_MIXTURES) + with_seeds("a2", ABLATIONS))
