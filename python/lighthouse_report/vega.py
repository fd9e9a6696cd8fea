"""Pieces of a Vega-Lite specification: charts and tables of one look."""

WIDTH, HEIGHT, GAP = 550, 270, 90  # of a chart, and between the two of a row, in pixels
PAGE_WIDTH = 2 * WIDTH + GAP
ROW_HEIGHT = 21                    # of a table
INK, MUTED, FAINT = "#222222", "#5f5f5f", "#d8d8d8"
# Okabe and Ito's colours, which colour-blind readers tell apart; yellow is left out, being too light for lines.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
ROW = {"content": "data"}          # what a mark tells when pointed at: all of its row

CONFIG = {
    "font": "Helvetica, Arial, sans-serif", "background": "white", "padding": 24,
    "view": {"stroke": None},
    "title": {"anchor": "start", "frame": "group", "fontSize": 14, "color": INK, "subtitleColor": MUTED, "subtitleFontSize": 11,
              "subtitlePadding": 4, "offset": 10},
    "axis": {"labelColor": MUTED, "titleColor": INK, "titleFontWeight": "normal", "titleFontSize": 12, "labelFontSize": 11,
             "gridColor": "#ececec", "domainColor": "#9a9a9a", "tickColor": "#9a9a9a", "labelFlush": False},
    "legend": {"orient": "top", "title": None, "labelFontSize": 12, "labelColor": INK, "symbolStrokeWidth": 2.5,
               "symbolSize": 180, "offset": 6},
}


def colour_of_arms(arms, shown=None):
    """The same colours in every chart; `shown`: the arms in its legend, all by default."""
    names = [arm.name for arm in arms]
    palette = {"range": COLOURS} if len(names) <= len(COLOURS) else {"scheme": "tableau20"}
    columns = 3 if max(map(len, names)) <= 22 else 2
    legend = {"symbolType": "stroke", "symbolOpacity": 1, "columns": columns, "labelLimit": WIDTH / columns - 40,
              "values": names if shown is None else [arm.name for arm in shown]}
    return {"field": "arm", "type": "nominal", "scale": {"domain": names, **palette}, "legend": legend}


def style_of_attention(dense, ahead):
    """Solid for dense attention, dashed and lighter for what looks ahead, with a legend in the chart that says so."""
    def channel(of_dense, of_ahead):
        return {"field": "attention", "type": "nominal", "scale": {"domain": [dense, ahead], "range": [of_dense, of_ahead]},
                "legend": {"orient": "top-right", "symbolType": "stroke", "symbolStrokeColor": INK,
                           "labelLimit": 260}}
    return {"strokeDash": channel([1, 0], [5, 3]), "opacity": channel(1, 0.55)}


def quantity(field, title, log=None, domain=None, zero=False, **axis):
    """A quantitative channel with what its axis says; log: the base of a logarithmic scale."""
    scale = {"zero": zero}
    if log:
        scale.update(type="log", base=log)
    if domain:
        scale.update(domain=domain, nice=False)
    return {"field": field, "type": "quantitative", "title": title, "scale": scale, "axis": axis}


def rounded(rows):
    """Six digits, which no eye can tell from more, in a fraction of the bytes."""
    return [{key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in row.items()} for row in rows]


def chart(title, subtitle, layers, height=HEIGHT):
    return {"title": {"text": title, "subtitle": subtitle}, "width": WIDTH, "height": height, "layer": layers}


def marks(rows, mark, **channels):
    """A layer of its own rows."""
    return {"data": {"values": rounded(rows)}, "mark": mark, "encoding": channels}


def points(rows, mark, **channels):
    return marks(rows, {"type": "point", "filled": True, "opacity": 1, "tooltip": ROW, **mark}, **channels)


def curves(rows, split=None, band=True, clip=False, **channels):
    """Mean lines, with a band from low to high, and thin lines of single runs. `split`: a field that splits lines."""
    channels["detail"] = [{"field": field} for field in ("line", split) if field]
    low_to_high = {"y": {**channels["y"], "field": "low"}, "y2": {"field": "high"}}

    def layer(which, mark, **more):
        return {"transform": [{"filter": which}], "mark": {"clip": clip, **mark}, "encoding": channels | more}

    means, singles = "datum.line === 'mean'", "datum.line !== 'mean'"
    layers = [layer(means, {"type": "area", "opacity": 0.16}, **low_to_high)] if band else []
    layers += [layer(means, {"type": "line", "strokeWidth": 2, "tooltip": ROW}),
               layer(singles, {"type": "line", "strokeWidth": 0.9, "opacity": 0.7})]
    return {"data": {"values": rounded(rows)}, "layer": layers}


def table(title, subtitle, columns, rows):
    """Text in columns. `columns`: [(head, width in pixels)], where a head may have a line for a group of columns above its
    own; `rows`: lists of texts."""
    heads = [head.split("\n") for head, _ in columns]
    head_lines = max(map(len, heads))
    lines = head_lines + len(rows)
    cells, x = [], 0
    for index, (_, width) in enumerate(columns):
        texts = [""] * (head_lines - len(heads[index])) + heads[index] + [row[index] for row in rows]
        cells += [{"x": x, "line": line, "text": text, "head": line < head_lines,
                   "width": width - 10 if line >= head_lines - 1 else PAGE_WIDTH} for line, text in enumerate(texts) if text]
        x += width
    across = {"field": "x", "type": "quantitative", "axis": None, "scale": {"domain": [0, PAGE_WIDTH], "nice": False}}
    down = {"field": "line", "type": "quantitative", "axis": None,
            "scale": {"domain": [-0.5, lines - 0.5], "reverse": True, "nice": False, "zero": False}}
    rules = marks([{"line": line + 0.5} for line in range(head_lines - 1, lines)], {"type": "rule", "color": FAINT}, y=down)
    texts = marks(cells, {"type": "text", "align": "left", "fontSize": 12, "limit": {"expr": "datum.width"}, "tooltip": True},
                  x=across, y=down, text={"field": "text"},
                  color={"condition": {"test": "datum.head", "value": MUTED}, "value": INK})
    return {"title": {"text": title, "subtitle": subtitle}, "width": PAGE_WIDTH, "height": ROW_HEIGHT * lines,
            "layer": [rules, texts]}
