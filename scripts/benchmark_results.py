"""JSON lines of the benchmarks, by case."""

import json
from pathlib import Path

from benchmark_targets import Case


class CaseResults:
    """The lines of one case, by what they measured."""

    def __init__(self, case):
        self.case = case
        self.lines = {}

    def ms(self, what):
        line = self.lines.get(what)
        return line["median_ms"] if line else None

    def overhead(self, measured):
        return _ratio(self.ms(f"lighthouse {measured}"), self.ms(f"sdpa_at_s {measured}"))

    def speed_up(self, measured):
        return _ratio(self.ms(f"dense {measured}"), self.ms(f"lighthouse {measured}"))

    def field(self, name, contestant="lighthouse"):
        return self.lines.get(f"{contestant} forward+backward", {}).get(name)

    def any_line(self):
        return next(iter(self.lines.values()))

    def stages(self):
        return {what[len("stage ") :]: line for what, line in self.lines.items() if what.startswith("stage ")}

    @property
    def is_paper_shape(self):
        n, scorer, num_levels, pooling_factor, topk = self.case
        return (scorer, num_levels, pooling_factor, topk) == ("norm", 3, 4, n // 64)


class Results:
    """All lines of a run on CUDA. Of two lines for the same thing the later one counts."""

    def __init__(self, lines):
        self.cases = {}
        self.crossovers = {}
        self.flex_window = None
        self.machine = None
        for line in lines:
            if line["bench"] == "flex_attention_window":
                self.flex_window = line
            elif line.get("device") == "cuda":
                self._add(line)
        if self.machine is None:
            raise SystemExit("benchmark_report: no results of `lighthouse bench attention --device cuda` in the file")

    def _add(self, line):
        self.machine = line
        if line["what"].startswith("crossover "):
            self.crossovers[line["what"][len("crossover ") :]] = line["crossover_len"]
            return
        case = Case(*(line[name] for name in Case._fields))
        self.cases.setdefault(case, CaseResults(case)).lines[line["what"]] = line

    def measured_cases(self):
        return [results for results in self.cases.values() if "failed" not in results.lines]

    def failed_cases(self):
        return [results for results in self.cases.values() if "failed" in results.lines]


def read_results(path):
    text = Path(path).read_text()
    return Results([json.loads(line) for line in text.splitlines() if line.strip()])


def _ratio(numerator, denominator):
    return None if numerator is None or denominator is None else numerator / denominator
