"""The options of a model's lighthouse attention. They are in `config.lighthouse`, and so in a saved config.json."""

from .. import library
from ..checks import boolean, integer
from ..errors import require
from ..functional import layout_of
from ..window import checked_layers, layer_index

NAME = "lighthouse"
OF_A_LAYER = dict(topk=None, num_levels=3, pooling_factor=4, tile_topk=128, scorer="norm", dilation=4, cover_prefix=True)
OF_A_MODEL = dict(full_attention_layers=(), window_layers=(), span=None, layers={}, packed=True)
SCORERS = ("norm", "dilated")  # gla needs the input of the block, which transformers does not hand to an attention


def configured(config):
    """{} of a configuration that was never prepared."""
    options = getattr(config, NAME, None)
    if options is None:
        return {}
    require(isinstance(options, dict), f"lighthouse: config.lighthouse is a {type(options).__name__}; it must be a dictionary of options, "
            "as prepare writes it, or None")
    check_known("lighthouse: config.lighthouse", options, OF_A_LAYER | OF_A_MODEL)
    return options


def unchecked(config):
    """The same for what does not use them."""
    options = getattr(config, NAME, None)
    return options if isinstance(options, dict) else {}


def check_known(where, options, known):
    unknown = [name for name in options if name not in known]
    require(not unknown, f"{where} has the option '{unknown[0] if unknown else ''}'; options are {', '.join(known)}")


def configure(config, options):
    """Writes config.lighthouse: `options`, else what is there, else the defaults."""
    known = OF_A_LAYER | OF_A_MODEL
    unknown = set(options) - set(known)
    require(not unknown, f"prepare: there is no option '{min(unknown, default='')}'; options are {', '.join(known)}")
    num_layers = getattr(config, "num_hidden_layers", None)
    config.lighthouse = checked("prepare", configured(config) | options, num_layers if isinstance(num_layers, int) else None)


def check_configured(config):
    """Of a model that is built or loaded; it may have other layers than the one that was prepared."""
    checked("lighthouse", configured(config), None)


def checked(name, options, num_layers):
    """All options of a model in plain Python, as JSON has them."""
    options = OF_A_LAYER | OF_A_MODEL | options
    common, layers = {option: options[option] for option in OF_A_LAYER}, {}
    given = {} if options["layers"] is None else options["layers"]
    require(isinstance(given, dict) and all(isinstance(own, dict) for own in given.values()), f"{name}: layers is {given!r}; it must be "
            "{layer index: {option: value}}")
    for layer, own in given.items():
        layer = layer_index(name, "layers", int(layer) if isinstance(layer, str) and layer.isdecimal() else layer, num_layers)
        check_known(f"{name}: layers", own, OF_A_LAYER)
        layers[str(layer)] = {option: value for option, value in check(common | own, name).items() if option in own}
    dense, windows, span = checked_layers(name, options["full_attention_layers"], options["window_layers"], options["span"], num_layers)
    return check(common, name) | dict(full_attention_layers=dense, window_layers=windows, span=span, layers=layers,
                                      packed=boolean(name, "packed", options["packed"]))


def check(options, name="prepare"):
    """The options of a layer in plain Python."""
    layout = layout_of(name, options["num_levels"], options["pooling_factor"], 1 if options["topk"] is None else options["topk"],
                       options["tile_topk"])
    library.plan(name, 1, layout)
    num_levels, pooling_factor, topk, tile_topk = layout
    require(options["scorer"] in SCORERS, f"{name}: scorer is '{options['scorer']}'; with transformers it must be {' or '.join(SCORERS)}")
    dilation = integer(name, "dilation", options["dilation"])
    require(dilation >= 1, f"{name}: dilation is {dilation}; it must be at least 1")
    return dict(topk=None if options["topk"] is None else topk, num_levels=num_levels, pooling_factor=pooling_factor, tile_topk=tile_topk,
                scorer=str(options["scorer"]), dilation=dilation, cover_prefix=boolean(name, "cover_prefix", options["cover_prefix"]))


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
