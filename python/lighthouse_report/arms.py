"""Arms: runs that differ in their seeds only. Their names say how they differ from each other."""

from collections import Counter
from dataclasses import dataclass

from .errors import ReportError, UsageError
from .text import drawable

# What neither weights nor losses depend on, or, as seeds and the place of the corpus, what an arm has several of.
IGNORED_SECTIONS = ("logging.", "checkpoint.", "parallel.")
IGNORED = ("model.preset", "training.seed", "training.device", "training.threads", "data.seed", "data.path", "data.format",
           "data.validation_path")
# What runs did before there were keys for it.
BEFORE = {"attention.method": "lighthouse", "attention.span": 0, "training.accumulation": "sequence"}


@dataclass(frozen=True)
class Arm:
    name: str
    runs: list

    @property
    def settings(self):
        return settings(self.runs[0])

    @property
    def dense(self):
        return self.runs[0].lighthouse_steps == 0

    @property
    def switches(self):
        return 0 < self.runs[0].lighthouse_steps < self.runs[0].steps


def settings(run):
    """The configuration as far as it decides what an arm is; a dense run does not use [attention]."""
    unused = IGNORED_SECTIONS + (("attention.",) if run.lighthouse_steps == 0 else ())
    config = BEFORE | run.config
    return {key: value for key, value in config.items() if key not in IGNORED and not key.startswith(unused)}


def differing_keys(all_settings):
    """Keys that have more than one value among those settings that know them."""
    keys = dict.fromkeys(key for each in all_settings for key in each)
    return [key for key in keys if len({repr(each[key]) for each in all_settings if key in each}) > 1]


def make_arms(runs, baseline=None):
    """Arms in order of appearance, with the baseline first: the arm of that name, else the first dense one. `runs` is a
    list of (name or None, run)."""
    groups = []  # [name or None, runs]
    for name, run in runs:
        same = (group for group in groups
                if (group[0] == name if name else group[0] is None and settings(group[1][0]) == settings(run)))
        group = next(same, None)
        if group is None:
            groups.append((name, [run]))
        else:
            group[1].append(run)
    names = automatic_names([group[0] for _, group in groups])
    arms = [Arm(drawable(name or automatic), group) for (name, group), automatic in zip(groups, names)]
    check(arms)
    return baseline_first(arms, baseline)


def check(arms):
    for name, count in Counter(arm.name for arm in arms).items():
        if count > 1:
            raise ReportError(f"two arms are called '{name}'; name one of them: NAME=RUN")
    for arm in arms:
        differing = differing_keys([settings(run) for run in arm.runs])
        if differing:
            raise ReportError(f"arm '{arm.name}': its runs differ in {', '.join(differing)}; runs of one arm differ in their "
                              "seeds only: give them different names")
        for run in arm.runs:
            check_corpus(arm.runs[0], run)
        by_seed = {}
        for run in arm.runs:
            other = by_seed.setdefault(run.seeds, run)
            if other is not run:
                raise ReportError(f"arm '{arm.name}': {other.path} and {run.path} have the same configuration and seed "
                                  f"{run.seed_name}; leave one out, or name them apart: NAME={run.path}")


def check_corpus(first, second):
    other = first.other_corpus(second)
    if other:
        raise ReportError(f"{first.path} and {second.path}: of different corpora (fingerprints {other[0]} and {other[1]}), so "
                          "their losses cannot be compared; report them on pages of their own")


def baseline_first(arms, name):
    if name is not None and name not in [arm.name for arm in arms]:
        raise UsageError(f"--baseline {name}: no such arm; there are {', '.join(repr(arm.name) for arm in arms)}")
    chosen = next((arm for arm in arms if (arm.name == name if name is not None else arm.dense)), arms[0])
    return [chosen] + [arm for arm in arms if arm is not chosen]


def automatic_names(firsts):
    """A name for each arm, given a run of each: its kind, and where it differs from most other arms."""
    all_settings = [settings(run) for run in firsts]
    names = []
    for run, own in zip(firsts, all_settings):
        parts = [kind(run)]
        for key, value in own.items():
            values = [repr(each[key]) for each in all_settings if each is not own and key in each]
            usual = Counter(values).most_common(1)[0][0] if values else repr(value)
            if repr(value) != usual and key != "training.lighthouse_steps":  # which the kind tells
                parts.append(f"{key.rpartition('.')[2]} {shown(value)}")
        names.append(", ".join(parts))
    return names


def kind(run):
    share = run.lighthouse_steps / run.steps
    return "dense" if share == 0 else "Lighthouse only" if share == 1 else f"two-stage {100 * share:.4g} %"


def shown(value):
    """A value of the configuration as one reads it."""
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
