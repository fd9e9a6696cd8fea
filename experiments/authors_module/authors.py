"""The authors' module from a checkout of their repository, without the torchtitan that it is a patch of."""
import importlib.util
import sys
import types
from pathlib import Path

PACKAGE = "torchtitan.models.llama3.model"
SOURCES = ("lighthouse_selection_cuda", "lighthouse_selection")  # the second imports the first


def load(checkout):
    """Their lighthouse_selection module."""
    for name in SOURCES:
        path = Path(checkout) / "src" / f"{name}.py"
        if not path.exists():
            raise FileNotFoundError(f"'{path}' is missing; give a checkout of the authors' repository, with src/{name}.py")
    parts = PACKAGE.split(".")
    for end in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:end]), types.ModuleType(".".join(parts[:end])))
    if importlib.util.find_spec("einops") is None:  # only scorers other than norm call it
        sys.modules["einops"] = types.ModuleType("einops")
        sys.modules["einops"].rearrange = None
    for name in SOURCES:
        spec = importlib.util.spec_from_file_location(f"{PACKAGE}.{name}", Path(checkout) / "src" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    return module


def check_limits(attention, model, seq_len):
    """What their code cannot do, before anything is trained."""
    tiles = attention["topk"] // 128
    coarsest = seq_len // attention["pooling_factor"] ** (attention["num_levels"] - 1)
    limits = {
        "attention.scorer must be norm": attention["scorer"] == "norm",
        "attention.tile_topk must be 128": attention["tile_topk"] == 128,
        "attention.topk must be a multiple of 128": attention["topk"] % 128 == 0,
        "attention.cover_prefix must be false": not attention["cover_prefix"],
        "attention.full_attention_layers must be empty": not attention["full_attention_layers"],
        "model.num_kv_heads must be model.num_heads": model["num_kv_heads"] == model["num_heads"],
        "seq_len / F / tiles must be a multiple of 64, and at least 128":
            tiles > 0 and coarsest % (64 * tiles) == 0 and coarsest // tiles >= 128,
    }
    broken = [limit for limit, holds in limits.items() if not holds]
    if broken:
        raise ValueError("the authors' code takes other settings: " + "; ".join(broken))


def attention_of(module, inner, attention):
    """Their attention as a callable on [B, N, H, d]. `inner(q, k, v)`: causal attention on [B, H, S, d]."""
    levels, pool, topk = attention["num_levels"], attention["pooling_factor"], attention["topk"]
    scorer = module.DialatedLighthouseNormScorer(pooling_factor=pool, levels=levels)
    local = module.LighthouseLocal(attention=inner, scorer=scorer, num_levels=levels, pooling_factor=pool, topk=topk)
    return lambda q, k, v: local(q, k, v).transpose(1, 2)
