#!/usr/bin/env python3
"""Draws docs/figures/*.svg and prints the worked example of docs/algorithm.md, from a selection made by a few lines of
plain Python. Needs nothing but Python 3.9. Sections refer to docs/algorithm.md."""

from pathlib import Path

FIGURES = Path(__file__).resolve().parent.parent / "docs" / "figures"

# The worked example: one tile, 32 tokens, scores small enough to follow by eye.
NUM_LEVELS, POOL, TOPK, SEQ_LEN = 3, 2, 3, 32
S_QK = [3, 1, 4, 2, 2, 5, 1, 3, 4, 2, 3, 1, 2, 6, 3, 5, 1, 2, 4, 3, 5, 9, 7, 2, 3, 1, 2, 4, 6, 2, 1, 3]
S_KQ = [2, 4, 1, 3, 1, 2, 6, 3, 2, 1, 5, 2, 7, 3, 4, 7, 3, 5, 2, 1, 8, 4, 2, 6, 2, 3, 1, 5, 4, 6, 2, 1]
SHOWN_TOKEN = 14


# --- the algorithm ---------------------------------------------------------------------------------------------------


def entry_score(scores, level, entry):
    """Section (ii): the highest score in the window of an entry."""
    window = POOL**level
    return max(scores[entry * window : (entry + 1) * window])


def cascade(s_qk, s_kq):
    """Section (iii), cover_prefix on: (level, candidates, A, B) from the coarsest level down to level 1."""
    candidates = list(range(SEQ_LEN // POOL ** (NUM_LEVELS - 1)))
    for level in range(NUM_LEVELS - 1, 0, -1):
        by_qk = sorted(candidates, key=lambda entry: (entry != 0, -entry_score(s_qk, level, entry), entry))
        taken_qk = by_qk[: (TOPK + 1) // 2]
        rest = [entry for entry in candidates if entry not in taken_qk]
        by_kq = sorted(rest, key=lambda entry: (-entry_score(s_kq, level, entry), entry))
        taken_kq = by_kq[: TOPK // 2]
        yield level, candidates, taken_qk, taken_kq
        candidates = [POOL * entry + child for entry in sorted(taken_qk + taken_kq) for child in range(POOL)]


def expanded_entries(s_qk, s_kq):
    return {(level, entry) for level, _, by_qk, by_kq in cascade(s_qk, s_kq) for entry in by_qk + by_kq}


def gathered_order(expanded):
    """Section (iv): the post-order walk of the expanded forest, as a list of (level, entry)."""

    def walk(level, entry):
        if (level, entry) in expanded:
            for child in range(POOL):
                yield from walk(level - 1, POOL * entry + child)
        yield level, entry

    coarsest = NUM_LEVELS - 1
    return [row for entry in range(SEQ_LEN // POOL**coarsest) for row in walk(coarsest, entry)]


def flat_entry(level, entry):
    return sum(SEQ_LEN // POOL**finer for finer in range(level)) + entry


def rows_of_token(rows, token):
    """Section (vi): the rows that are added to a token, finest first."""
    entries = [(level, (token + 1) // POOL**level - 1) for level in range(NUM_LEVELS)]
    return [rows.index(entry) for entry in entries if entry in rows]


# --- drawing ---------------------------------------------------------------------------------------------------------

LEAF, SUMMARY, ABSENT, INK, FAINT, ACCENT = "#9ecae1", "#fdae6b", "#ffffff", "#222222", "#8a8a8a", "#d62728"


class Drawing:
    def __init__(self, width, height, title):
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
            f' role="img" font-family="Helvetica, Arial, sans-serif">',
            f"<title>{title}</title>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
            f'<path d="M0 0 L8 4 L0 8 z" fill="{INK}"/></marker></defs>',
        ]
        self.rect(0, 0, width, height, "#ffffff", stroke="none", radius=8)

    def rect(self, x, y, width, height, fill, stroke=INK, radius=0, dash=""):
        dash = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius}" fill="{fill}"'
            f' stroke="{stroke}" stroke-width="0.8"{dash}/>'
        )

    def text(self, x, y, content, size=12, anchor="middle", fill=INK, bold=False):
        weight = ' font-weight="bold"' if bold else ""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}" fill="{fill}"{weight}>{content}</text>'
        )

    def arrow(self, x1, y1, x2, y2):
        self.parts.append(
            f'<path d="M{x1:g} {y1:g} L{x2:g} {y2:g}" stroke="{INK}" stroke-width="1.4" fill="none" marker-end="url(#tip)"/>'
        )

    def polygon(self, points, fill, stroke=INK, dash=""):
        dash = f' stroke-dasharray="{dash}"' if dash else ""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        self.parts.append(f'<polygon points="{path}" fill="{fill}" stroke="{stroke}" stroke-width="0.8"{dash}/>')

    def save(self, name):
        FIGURES.mkdir(parents=True, exist_ok=True)
        (FIGURES / name).write_text("\n".join(self.parts + ["</svg>"]) + "\n")


def draw_pyramid(drawing, rows, expanded, x, y, cell, height, gap, labels):
    for level in range(NUM_LEVELS - 1, -1, -1):
        top = y + (NUM_LEVELS - 1 - level) * (height + gap)
        window = POOL**level
        entries = range(SEQ_LEN // window)
        for entry in sorted(entries, key=lambda entry: (level, entry) in rows):  # solid outlines over dashed ones
            present = (level, entry) in rows
            fill = SUMMARY if (level, entry) in expanded else LEAF if present else ABSENT
            left = x + entry * window * cell
            drawing.rect(left, top, window * cell, height, fill, INK if present else "#cccccc", dash="" if present else "2 2")
            if labels:
                middle = left + window * cell / 2
                drawing.text(middle, top - 4, entry, 9, fill=FAINT)
                if present:
                    drawing.text(middle, top + height / 2 + 4, rows.index((level, entry)), 11, bold=True)


def draw_scatter(drawing, rows, expanded, x, y, cell, height, gap, labels):
    for row, (level, entry) in enumerate(rows):
        begin = (entry + 1) * POOL**level - 1
        end = min(begin + POOL**level, SEQ_LEN)
        top = y + (NUM_LEVELS - 1 - level) * (height + gap)
        fill = SUMMARY if (level, entry) in expanded else LEAF
        drawing.rect(x + begin * cell, top, (end - begin) * cell, height, fill)
        if labels:
            drawing.text(x + (begin + 0.5) * cell, top + height / 2 + 4, row, 11, bold=True)


def draw_gathered_order(rows, expanded):
    x, cell, height = 92, 27, 24
    width = x + SEQ_LEN * cell + 24
    drawing = Drawing(width, 500, "The gathered order: post-order of the expanded forest")
    drawing.text(20, 30, "pyramid: number inside = row in the gathered sequence, number above = entry i of its level", 13, "start")
    for level in range(NUM_LEVELS):
        for top in (56, 372):
            drawing.text(20, top + (NUM_LEVELS - 1 - level) * 42 + 16, f"level {level}", 12, "start")
    draw_pyramid(drawing, rows, expanded, x, 56, cell, height, 18, labels=True)

    drawing.text(20, 212, f"gathered sequence: S = {len(rows)} rows for N = {SEQ_LEN} tokens, entries (l, i)", 13, "start")
    row_cell = SEQ_LEN * cell / len(rows)
    drawing.text(20, 246, "entry", 12, "start")
    drawing.text(20, 272, "row", 12, "start")
    for row, (level, entry) in enumerate(rows):
        fill = SUMMARY if (level, entry) in expanded else LEAF
        drawing.rect(x + row * row_cell, 228, row_cell, 28, fill)
        drawing.text(x + (row + 0.5) * row_cell, 246, f"{level},{entry}", 11)
        drawing.text(x + (row + 0.5) * row_cell, 272, row, 11, bold=True)
    drawing.rect(x, 288, 14, 12, LEAF)
    drawing.text(x + 20, 298, "leaf: stands for its whole window", 12, "start")
    drawing.rect(x + 250, 288, 14, 12, SUMMARY)
    drawing.text(x + 270, 298, "summary: expanded, follows its descendants", 12, "start")
    drawing.rect(x + 560, 288, 14, 12, ABSENT, "#aaaaaa", dash="2 2")
    drawing.text(x + 580, 298, "not gathered", 12, "start")

    caption = "scatter-back: the tokens that each row is added to; it begins at the last token of the entry's window"
    drawing.text(20, 346, caption, 13, "start")
    draw_scatter(drawing, rows, expanded, x, 372, cell, height, 18, labels=True)
    for token in range(SEQ_LEN):
        shown = token == SHOWN_TOKEN
        drawing.text(x + (token + 0.5) * cell, 492, token, 9, fill=ACCENT if shown else FAINT, bold=shown)
    drawing.text(20, 492, "token", 12, "start")
    drawing.rect(x + SHOWN_TOKEN * cell, 364, cell, 116, "none", ACCENT)
    drawing.save("gathered-order.svg")


def draw_idea(rows, expanded):
    cell, height, gap = 7.5, 16, 6
    length = SEQ_LEN * cell
    short = len(rows) * cell
    left, middle, right, top = 30, 355, 590, 78
    drawing = Drawing(860, 344, "Lighthouse Attention: pool, select, attend over a short sequence, scatter back")
    heads = [("1  pool into a pyramid, select", left), ("2  causal attention", middle), ("3  add rows back to tokens", right)]
    for text, x in heads:
        drawing.text(x, 30, text, 14, "start", bold=True)

    drawing.text(left, 62, "q, k, v: means over windows", 12, "start", FAINT)
    draw_pyramid(drawing, rows, expanded, left, top, cell, height, gap, labels=False)
    bottom = top + NUM_LEVELS * (height + gap) + 10
    drawing.text(left, bottom, "N tokens at level 0", 12, "start")
    drawing.rect(left, bottom + 14, 12, 11, SUMMARY)
    drawing.text(left + 18, bottom + 24, "expanded: kept, and its children too", 12, "start")
    drawing.rect(left, bottom + 34, 12, 11, LEAF)
    drawing.text(left + 18, bottom + 44, "kept as it is", 12, "start")
    drawing.rect(left, bottom + 54, 12, 11, ABSENT, "#aaaaaa", dash="2 2")
    drawing.text(left + 18, bottom + 64, "stood for by a coarser entry", 12, "start")

    drawing.arrow(left + length + 12, top + 30, middle - 14, top + 30)
    drawing.text((left + length + middle) / 2, top + 22, "gather", 12)
    drawing.text(middle, 62, "S rows, in causal order", 12, "start", FAINT)
    for row, entry in enumerate(rows):
        drawing.rect(middle + row * cell, top, cell, height, SUMMARY if entry in expanded else LEAF)
    base = top + height + 12 + 0.6 * length
    for side, fill, dash in ((0.6 * length, "none", "3 2"), (0.6 * short, "#d9d9d9", "")):
        drawing.polygon([(middle, base - side), (middle + side, base), (middle, base)], fill, dash=dash)
    drawing.text(middle + 0.18 * short, base - 0.12 * short, "S² / 2", 12)
    drawing.text(middle + 0.46 * length, base - 0.32 * length, "dense: N² / 2", 12, "start", FAINT)

    drawing.arrow(middle + short + 14, top + 30, right - 12, top + 30)
    drawing.text((middle + short + right) / 2, top + 22, "scatter", 12)
    drawing.text(right, 62, "each from its window's last token on", 12, "start", FAINT)
    draw_scatter(drawing, rows, expanded, right, top, cell, height, gap, labels=False)
    drawing.text(right, bottom, "o: N outputs, sums of at most L rows", 12, "start")

    y = 284
    split = 30 + 0.7 * 560
    drawing.rect(30, y, split - 30, 26, "#e8eef5")
    drawing.rect(split, y, 590 - split, 26, "#e3e3e3")
    drawing.text((30 + split) / 2, y + 18, "stage 1: Lighthouse Attention", 13)
    drawing.text((split + 590) / 2, y + 18, "stage 2: dense", 13)
    drawing.arrow(594, y + 13, 640, y + 13)
    drawing.text(648, y + 18, "a plain dense Llama checkpoint", 13, "start")
    caption = "one run: the same weights, optimizer state, data position and schedule on both sides of the switch"
    drawing.text(30, y + 46, caption, 12, "start", FAINT)
    drawing.save("idea.svg")


# --- the worked example as text --------------------------------------------------------------------------------------


def print_example(rows):
    for name, scores in (("s_qk", S_QK), ("s_kq", S_KQ)):
        for level in range(NUM_LEVELS):
            print(f"{name} level {level}:", *[entry_score(scores, level, i) for i in range(SEQ_LEN // POOL**level)])
    for level, candidates, by_qk, by_kq in cascade(S_QK, S_KQ):
        print(f"level {level}: candidates {candidates}, A = {sorted(by_qk)}, B = {by_kq}")
    print(f"S = {len(rows)}")
    print("rows:", *[f"({level},{entry})" for level, entry in rows])
    print("flat entries:", *[flat_entry(level, entry) for level, entry in rows])
    print(f"token {SHOWN_TOKEN}: rows {rows_of_token(rows, SHOWN_TOKEN)}")
    print("tokens without a row:", [token for token in range(SEQ_LEN) if not rows_of_token(rows, token)])
    later = list(S_QK)
    later[29] = 10
    for level, _, by_qk, by_kq in cascade(later, S_KQ):
        print(f"with s_qk[29] = 10, level {level}: A = {sorted(by_qk)}, B = {by_kq}")


if __name__ == "__main__":
    EXPANDED = expanded_entries(S_QK, S_KQ)
    ROWS = gathered_order(EXPANDED)
    draw_gathered_order(ROWS, EXPANDED)
    draw_idea(ROWS, EXPANDED)
    print_example(ROWS)
