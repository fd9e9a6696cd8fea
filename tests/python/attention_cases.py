"""Inputs and comparisons that several tests share: sizes that no block divides, grouped heads, strides, packed documents,
every scorer."""

from dataclasses import dataclass, field

import torch


@dataclass
class Case:
    batch: int = 2
    seq_len: int = 203
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 24
    layout: dict = field(default_factory=lambda: dict(num_levels=3, pooling_factor=2, topk=10, tile_topk=4))
    scorer: str = "norm"
    dilation: int = 4
    cu_seqlens: list = None
    cover_prefix: bool = True
    softmax_scale: float = None
    transposed: bool = False
    given: str = None  # "scores" or "selection", made elsewhere

    def tensors(self, dtype=torch.float32, seed=0):
        """q, k, v, grad_out."""
        generator = torch.Generator().manual_seed(seed)

        def tensor(heads):
            shape = [self.batch, self.seq_len, heads, self.head_dim]
            if self.transposed:
                shape[1], shape[2] = shape[2], shape[1]
            x = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
            return x.transpose(1, 2) if self.transposed else x

        return tensor(self.num_heads), tensor(self.num_kv_heads), tensor(self.num_kv_heads), tensor(self.num_heads)

    def gate(self):
        shape = (self.batch, self.seq_len, self.num_heads)
        return -torch.rand(shape, generator=torch.Generator().manual_seed(9)) if self.scorer == "gla" else None

    def options(self):
        """Keyword arguments of lighthouse_attention."""
        options = dict(self.layout, scorer=self.scorer, dilation=self.dilation, gate=self.gate(),
                       cover_prefix=self.cover_prefix, cu_seqlens=self.cu_seqlens, softmax_scale=self.softmax_scale)
        if self.given:
            shape = (self.batch, self.num_kv_heads, self.seq_len)
            scores = [torch.rand(shape, generator=torch.Generator().manual_seed(seed)) for seed in (7, 8)]
            options["scores"] = tuple(scores)
        return options


def flat(options):
    """The options of lighthouse_attention as the C++ operator takes them."""
    s_qk, s_kq = options.get("scores") or (None, None)
    return {key: value for key, value in options.items() if key != "scores"} | dict(s_qk=s_qk, s_kq=s_kq)


def results_of(function, q, k, v, grad_out):
    """The output of function(q, k, v), and its gradients."""
    q, k, v = (x.detach().requires_grad_() for x in (q, k, v))
    out = function(q, k, v)
    return [out.detach(), *torch.autograd.grad(out, (q, k, v), grad_out)]


def check_equal(actual, expected):
    """That two such results have the same bits."""
    for name, ours, theirs in zip(("o", "dq", "dk", "dv"), actual, expected):
        assert ours.dtype == theirs.dtype and torch.equal(ours, theirs), f"{name} differs"


PACKED = dict(batch=1, cu_seqlens=[0, 1, 70, 70, 150, 203])
CASES = {
    "plain": Case(num_kv_heads=4),
    "grouped": Case(),
    "one-kv-head": Case(num_kv_heads=1),
    "transposed": Case(transposed=True),
    "one-level": Case(layout=dict(num_levels=1, pooling_factor=2, topk=1, tile_topk=128)),
    "deep": Case(layout=dict(num_levels=5, pooling_factor=2, topk=7, tile_topk=3)),
    "wide": Case(layout=dict(num_levels=2, pooling_factor=16, topk=3, tile_topk=128)),
    "one-token": Case(seq_len=1),
    "full": Case(layout=dict(num_levels=3, pooling_factor=2, topk=100, tile_topk=128)),
    "full-packed": Case(layout=dict(num_levels=3, pooling_factor=2, topk=100, tile_topk=128), scorer="dilated", **PACKED),
    "odd-heads": Case(head_dim=7),
    "uncovered": Case(cover_prefix=False),
    "scale": Case(softmax_scale=0.3),
    "packed": Case(**PACKED),
    "dilated": Case(scorer="dilated", dilation=3),
    "dilated-packed": Case(scorer="dilated", **PACKED),
    "gla": Case(scorer="gla"),
    "gla-packed": Case(scorer="gla", dilation=2, **PACKED),
    "scores": Case(given="scores"),
}
