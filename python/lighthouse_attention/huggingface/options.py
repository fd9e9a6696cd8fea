"""The options of a model's lighthouse attention. They are in `config.lighthouse`, and so in a saved config.json."""

from .. import library
from ..functional import integer, layout_of, require
from ..window import check_window_layers

NAME = "lighthouse"
OF_A_LAYER = dict(topk=None, num_levels=3, pooling_factor=4, tile_topk=128, scorer="norm", dilation=4, cover_prefix=True)
OF_A_MODEL = dict(full_attention_layers=(), window_layers=(), span=None, layers={}, packed=True)
SCORERS = ("norm", "dilated")  # gla needs the input of the block, which transformers does not hand to an attention


def configured(config):
    """{} of a configuration that was never prepared."""
    return getattr(config, NAME, None) or {}


def configure(config, options):
    """Writes config.lighthouse: `options`, else what is there, else the defaults."""
    known = OF_A_LAYER | OF_A_MODEL
    unknown = set(options) - set(known)
    require(not unknown, f"prepare: there is no option '{min(unknown, default='')}'; options are {', '.join(known)}")
    options = known | configured(config) | options
    layers = {str(layer): dict(own) for layer, own in (options["layers"] or {}).items()}
    for own in [{}, *layers.values()]:
        unknown = set(own) - set(OF_A_LAYER)
        require(not unknown, f"prepare: layers has the option '{min(unknown, default='')}'; options are {', '.join(OF_A_LAYER)}")
        check({name: options[name] for name in OF_A_LAYER} | own)
    dense, windows, span = (options[name] for name in ("full_attention_layers", "window_layers", "span"))
    check_window_layers("prepare", dense, windows, span)
    config.lighthouse = options | dict(layers=layers, full_attention_layers=sorted(dense), window_layers=sorted(windows))


def check(options):
    topk = 1 if options["topk"] is None else options["topk"]
    library.plan("prepare", 1, layout_of("prepare", options["num_levels"], options["pooling_factor"], topk, options["tile_topk"]))
    require(options["scorer"] in SCORERS, f"prepare: scorer is '{options['scorer']}'; with transformers it must be "
            f"{' or '.join(SCORERS)}")
    require(integer("prepare", "dilation", options["dilation"]) >= 1, f"prepare: dilation is {options['dilation']}; it must be at least 1")


def options_of(layer, seq_len):
    """Keyword arguments of lighthouse_attention for a layer; None for another one."""
    options = configured(layer.config)
    index = getattr(layer, "layer_idx", None)
    if index in options.get("full_attention_layers", ()) or span_of(layer) is not None:
        return None
    options = options | options.get("layers", {}).get(str(index), {})
    options = {name: options[name] for name in OF_A_LAYER if name in options}
    if options.get("topk") is None:
        options["topk"] = -(-seq_len // 64)
    return options


def span_of(layer):
    """Tokens of the window of a layer that has one in stage one, else None."""
    options = configured(layer.config)
    return options["span"] if getattr(layer, "layer_idx", None) in options.get("window_layers", ()) else None


def may_be_packed(config):
    return configured(config).get("packed", True)
