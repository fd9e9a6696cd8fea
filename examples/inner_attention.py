"""Other attentions in the middle: a chosen backend of SDPA, FlexAttention, FlashAttention-4. Prints how far each is from the
default. An attention gets q [B, H, S, d], k and v [B, H_kv, S, d] and must be causal by row."""
import importlib.util

import torch
from lighthouse_attention import gathered_length, lighthouse_attention
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPE = torch.bfloat16 if DEVICE == "cuda" else torch.float32
LAYOUT = dict(num_levels=3, pooling_factor=4, topk=32)
torch.manual_seed(0)
q, k, v = (torch.randn(1, 2048, heads, 64, device=DEVICE, dtype=DTYPE) for heads in (4, 2, 2))
ROWS = gathered_length(q.shape[1], **LAYOUT)


def math_sdpa(q, k, v):
    with sdpa_kernel(SDPBackend.MATH):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


CAUSAL = create_block_mask(lambda batch, head, row, column: row >= column, None, None, ROWS, ROWS, device=DEVICE)
compiled_flex_attention = torch.compile(flex_attention)


def flex(q, k, v):
    return compiled_flex_attention(q, k, v, block_mask=CAUSAL, enable_gqa=True)


def flash_attention_4(q, k, v):
    from flash_attn.cute import flash_attn_func  # [B, S, H, d]
    out = flash_attn_func(*(x.transpose(1, 2) for x in (q, k, v)), causal=True)
    return (out[0] if isinstance(out, tuple) else out).transpose(1, 2)


def has_flash_attention_4():
    try:
        return DEVICE == "cuda" and importlib.util.find_spec("flash_attn.cute") is not None
    except ImportError:
        return False


with torch.no_grad():
    default = lighthouse_attention(q, k, v, **LAYOUT)
    for attention in (math_sdpa, flex, flash_attention_4):
        if attention is flash_attention_4 and not has_flash_attention_4():
            print("flash_attention_4: skipped, it needs a GPU and the package flash-attn-4")
            continue
        out = lighthouse_attention(q, k, v, attention=attention, **LAYOUT)
        print(f"{attention.__name__}: largest difference {(out - default).abs().max().item():.1e}")
