"""Time against length, double logarithmic, as SVG. Needs nothing but Python."""

import math

from benchmark_targets import AUTHORS, Case

WIDTH, HEIGHT = 760, 460
LEFT, RIGHT, TOP, BOTTOM = 70, 170, 40, 50
INK, FAINT = "#222222", "#dddddd"
LABEL_HEIGHT = 15
SERIES = (
    ("dense", "#d62728", "dense forward+backward"),
    ("authors' code", "#8a8a8a", None),
    ("lighthouse", "#1f77b4", "lighthouse forward+backward"),
    ("SDPA at S", "#fdae6b", "sdpa_at_s forward+backward"),
)


class Scale:
    """Positions of a logarithmic axis from whole powers of `base`."""

    def __init__(self, values, base, begin, end):
        self.base = base
        self.low = math.floor(math.log(min(values), base) + 1e-9)
        self.high = max(math.ceil(math.log(max(values), base) - 1e-9), self.low + 1)
        self.begin, self.end = begin, end

    def __call__(self, value):
        share = (math.log(value, self.base) - self.low) / (self.high - self.low)
        return self.begin + share * (self.end - self.begin)

    def ticks(self):
        return [float(self.base) ** power for power in range(self.low, self.high + 1)]


def points_of(results, what):
    """(N, ms) of the cases of the paper's shape; of the authors' code where `what` is None."""
    points = []
    for case_results in results.measured_cases():
        if not case_results.is_paper_shape:
            continue
        theirs = AUTHORS.get(Case(*case_results.case))
        ms = case_results.ms(what) if what else theirs.both_ms if theirs else None
        if ms is not None:
            points.append((case_results.case.seq_len, ms))
    return sorted(points)


def text(x, y, content, anchor="middle", size=12, fill=INK):
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{fill}">{content}</text>'


def line(x1, y1, x2, y2, color):
    return f'<path d="M{x1:.1f} {y1:.1f} L{x2:.1f} {y2:.1f}" stroke="{color}" fill="none"/>'


def axes(x_scale, y_scale):
    parts = []
    for n in x_scale.ticks():
        x = x_scale(n)
        parts += [line(x, TOP, x, HEIGHT - BOTTOM, FAINT), text(x, HEIGHT - BOTTOM + 18, f"{n / 1024:g}K")]
    for ms in y_scale.ticks():
        y = y_scale(ms)
        parts += [line(LEFT, y, WIDTH - RIGHT, y, FAINT), text(LEFT - 8, y + 4, f"{ms:g}", anchor="end")]
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, "tokens N"))
    parts.append(text(LEFT - 8, TOP - 16, "ms", anchor="end"))
    return parts


def label_heights(ends):
    """Where the names of curves stand: at their ends, moved down where one would lie over another."""
    heights = list(ends)
    lowest = float("-inf")
    for i in sorted(range(len(ends)), key=ends.__getitem__):
        heights[i] = lowest = max(ends[i], lowest + LABEL_HEIGHT)
    return heights


def curve(points, x_scale, y_scale, name, label_y, color):
    positions = [(x_scale(n), y_scale(ms)) for n, ms in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in positions)
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>' for x, y in positions]
    x = positions[-1][0]
    return [f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>', *dots,
            text(x + 8, label_y + 4, name, anchor="start", fill=color)]


def draw(results):
    """The figure as text; empty where fewer than two lengths were measured."""
    series = [(name, color, points_of(results, what)) for name, color, what in SERIES]
    series = [(name, color, points) for name, color, points in series if points]
    everything = [point for _, _, points in series for point in points]
    if len({n for n, _ in everything}) < 2:
        return ""
    x_scale = Scale([n for n, _ in everything], 2, LEFT, WIDTH - RIGHT)
    y_scale = Scale([ms for _, ms in everything], 10, HEIGHT - BOTTOM, TOP)
    title = "Forward and backward of one attention layer, L = 3, p = 4, k = N / 64"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
        f' role="img" font-family="Helvetica, Arial, sans-serif">',
        f"<title>{title}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff" rx="8"/>',
        text((LEFT + WIDTH - RIGHT) / 2, 20, title, size=13),
        *axes(x_scale, y_scale),
    ]
    labels = label_heights([y_scale(points[-1][1]) for _, _, points in series])
    for (name, color, points), label_y in zip(series, labels):
        parts += curve(points, x_scale, y_scale, name, label_y, color)
    return "\n".join([*parts, "</svg>"]) + "\n"
