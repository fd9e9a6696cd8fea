"""Digests of what attention and training compute, to compare two trees bit for bit:

    python scripts/bits.py --root OLD >old; python scripts/bits.py --root NEW >new; diff old new

Operators run through the Python package (ROOT/python with the library of BUILD), training through the program of BUILD:
every scorer with grouped heads, packed rows, fp32 and bf16, a given selection; 30 steps with Lighthouse attention and 20
dense. On CUDA another attention than PyTorch's stands in the middle, since cuDNN's backward varies, and training is
deterministic. Under a minute."""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

LAYOUT = dict(num_levels=3, pooling_factor=4, topk=9, tile_topk=4)
OFFSETS = [0, 100, 101, 101, 396, 517]
MODEL = {"model.dim": 64, "model.num_layers": 3, "model.num_heads": 4, "model.num_kv_heads": 2, "model.head_dim": 32,
         "model.ffn_dim": 96, "attention.topk": 8, "attention.tile_topk": 4, "training.seq_len": 251, "training.steps": 50,
         "training.lighthouse_steps": 30, "training.batch_size": 2, "training.deterministic": "true", "training.threads": 1,
         "optimizer.warmup_steps": 3, "validation.interval": 25, "checkpoint.interval": 0, "logging.sample_tokens": 0}
PACKED = {"data.packing": "documents", "training.batch_size": 1}
WIDE = {"model.num_heads": 8, "model.num_kv_heads": 8, "model.head_dim": 64, "training.precision": "bf16"}  # RoPE in gather
RUNS = {"norm": {}, "norm packed": PACKED, "norm bf16 recomputed": {"training.precision": "bf16", "training.recompute": "full"},
        "norm wide packed": {**WIDE, **PACKED}, "dilated": {"attention.scorer": "dilated"},
        "gla packed": {"attention.scorer": "gla", **PACKED}, "random": {"attention.scorer": "random"},
        "norm qk_norm": {"model.family": "qwen3"}, "one topk a layer": {"attention.topk_per_layer": "4,8,16"}}


def digest(*tensors):
    import torch
    sha = hashlib.sha256()
    for x in tensors:
        x = x.detach().cpu().contiguous()
        sha.update(f"{x.dtype} {list(x.shape)}".encode() + x.view(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()[:16]


def plain_attention(q, k, v):
    """Causal attention whose gradients repeat their bits everywhere."""
    import torch
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = (q.float() @ k.float().transpose(2, 3)) * q.shape[3] ** -0.5
    hidden = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device).triu(1)
    return (scores.masked_fill(hidden, float("-inf")).softmax(3) @ v.float()).to(q.dtype)


def tensors_of(seq_len, heads, head_dim, dtype, device):
    import torch
    generator = torch.Generator().manual_seed(seq_len + heads[1] + head_dim)
    batch = 1 if seq_len == OFFSETS[-1] else 2
    shapes = [(batch, seq_len, number, head_dim) for number in (heads[0], heads[1], heads[1], heads[0])]
    *qkv, dout = (torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype) for shape in shapes)
    gate = -torch.rand(shapes[0][:3], generator=generator).to(device)
    return qkv, dout, gate


def attention_digests(device):
    import torch
    from lighthouse_attention import lighthouse_attention, select, token_scores
    middle = {} if device == "cpu" else {"attention": plain_attention}
    for heads, head_dim in (((4, 2), 24), ((8, 8), 64), ((16, 8), 128)):
        for offsets, seq_len in ((None, 203), (OFFSETS, OFFSETS[-1])):
            for dtype in (torch.float32, torch.bfloat16, torch.float64):
                qkv, dout, gate = tensors_of(seq_len, heads, head_dim, dtype, device)
                for scorer in ("norm", "dilated", "gla"):
                    options = dict(scorer=scorer, dilation=3, gate=gate if scorer == "gla" else None, cu_seqlens=offsets)
                    scores = token_scores(*qkv, **options)
                    selection = select(*scores, cu_seqlens=offsets, **LAYOUT)
                    for given in ({}, {"scores": scores}, {"selection": selection}):
                        if given and scorer != "norm":
                            continue
                        inputs = [x.detach().requires_grad_() for x in qkv]
                        chosen = {"cu_seqlens": offsets} | given if given else options
                        out = lighthouse_attention(*inputs, **chosen, **LAYOUT, **middle)
                        gradients = torch.autograd.grad(out, inputs, dout)
                        print("attention", heads, head_dim, seq_len, dtype, scorer, *given, digest(*scores, selection),
                              digest(out), digest(*gradients), flush=True)


def text():
    """Documents of pseudo-random words, a file each."""
    state, words = 1, []
    for _ in range(6000):
        state = (state * 1103515245 + 12345) % 2**31
        words.append("abcdefghijklmnopqrst"[state >> 12 & 15:][:1 + (state >> 16) % 4])
    return [" ".join(words[i:i + 37]) for i in range(0, len(words), 37)]


def training_digests(program, device):
    from safetensors import safe_open
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "text").mkdir()
        for number, document in enumerate(text()):
            (folder / "text" / f"{number:04}.txt").write_text(document)
        for run, changed in RUNS.items():
            keys = MODEL | changed | {"data.path": folder / "text", "logging.run_dir": folder / run, "training.device": device}
            command = [program, "train", *(str(part) for key, value in keys.items() for part in (f"--{key}", value))]
            done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "MKL_CBWR": "COMPATIBLE"})
            if done.returncode:
                sys.exit(f"{run}: {done.stderr}")
            for path in sorted((folder / run).rglob("*.safetensors")):
                with safe_open(path, "pt") as file:
                    print("training", run, path.name, digest(*(file.get_tensor(key) for key in sorted(file.keys()))), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1], help="the tree")
    parser.add_argument("--build", type=Path, help="its build folder; default: build/release in the tree")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--part", choices=("attention", "training"), help="one of the two parts alone")
    options = parser.parse_args()
    build = options.build or options.root / "build" / "release"
    os.environ["LIGHTHOUSE_LIBRARY"] = str(build / "src" / "stable" / "liblighthouse_stable.so")
    os.environ.setdefault("MKL_CBWR", "COMPATIBLE")
    sys.path.insert(0, str(options.root / "python"))
    import torch
    torch.set_num_threads(1)
    if options.part != "training":
        attention_digests(options.device)
    if options.part != "attention":
        training_digests(build / "bin" / "lighthouse", options.device)


if __name__ == "__main__":
    main()
