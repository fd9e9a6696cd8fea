"""LighthouseAttention, and the switch to stage two."""

import pytest
import torch
import torch.nn.functional as F
from attention_cases import CASES, Case
import lighthouse_attention as lighthouse

LighthouseAttention, switch_to_dense = lighthouse.LighthouseAttention, lighthouse.switch_to_dense


def module_of(case, **options):
    return LighthouseAttention(**case.layout, scorer=case.scorer, dilation=case.dilation, **options)


def dense(q, k, v, scale=None):
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True, scale=scale).transpose(1, 2)


@pytest.mark.parametrize("name", ["grouped", "packed", "dilated", "gla"])
def test_is_the_function(name):
    case = CASES[name]
    q, k, v, _ = case.tensors()
    ours = module_of(case)(q, k, v, gate=case.gate(), cu_seqlens=case.cu_seqlens)
    assert torch.equal(ours, lighthouse.lighthouse_attention(q, k, v, **case.options()))


def test_has_no_state():
    module = module_of(Case())
    assert not list(module.parameters()) and not module.state_dict()
    assert "topk=10" in repr(module) and "enabled=True" in repr(module)


def test_disabled_is_dense():
    q, k, v, _ = Case().tensors()
    module = module_of(Case(), softmax_scale=0.2)
    module.enabled = False
    assert torch.equal(module(q, k, v), dense(q, k, v, 0.2))


def test_disabled_keeps_documents_apart():
    case = CASES["packed"]
    q, k, v, _ = case.tensors()
    module = module_of(case)
    module.enabled = False
    ours = module(q, k, v, cu_seqlens=case.cu_seqlens)
    for begin, end in zip(case.cu_seqlens, case.cu_seqlens[1:]):
        if end > begin:
            assert torch.equal(ours[:, begin:end], dense(*(x[:, begin:end] for x in (q, k, v))))


def test_options_are_checked_when_it_is_made():
    for options, message in [(dict(topk=0), "topk is 0"), (dict(topk=8, scorer="x"), "scorer is 'x'"),
                             (dict(topk=8, pooling_factor=3), "pooling_factor is 3"),
                             (dict(topk=8, dilation=0), "dilation is 0")]:
        with pytest.raises(ValueError, match=message):
            LighthouseAttention(**options)


class Decoder(torch.nn.Module):
    """Two layers with options of their own, the second dense."""

    def __init__(self):
        super().__init__()
        self.projection = torch.nn.Linear(96, 96)
        self.first = LighthouseAttention(topk=4, num_levels=2, pooling_factor=4)
        self.second = LighthouseAttention(topk=8, num_levels=3, pooling_factor=2)

    def forward(self, x):
        for attention in (self.first, self.second):
            heads = self.projection(x).unflatten(-1, (4, 24))
            x = x + attention(heads, heads, heads).flatten(2)
        return x


def test_switch_in_training():
    model = torch.nn.Sequential(Decoder(), Decoder())
    state = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randn(1, 64, 96, generator=torch.Generator().manual_seed(1))
    stage_one = model(x)
    assert switch_to_dense(model) == 4
    assert not torch.equal(model(x), stage_one)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert switch_to_dense(model) == 0  # again
    model(x).sum().backward()


def test_switch_of_a_compiled_model():
    torch.compiler.reset()
    model = Decoder()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = torch.randn(1, 64, 96, generator=torch.Generator().manual_seed(1))
    for _ in range(2):
        assert torch.equal(compiled(x), model(x))
        switch_to_dense(model)


def test_nothing_to_switch():
    with pytest.raises(ValueError, match="no LighthouseAttention"):
        switch_to_dense(torch.nn.Linear(2, 2))
