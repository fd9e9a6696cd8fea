"""torch.compile with cu_seqlens as a tensor: one graph for any packed documents, with the bits of eager mode."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch._dynamo.testing
from attention_cases import CASES, PACKED, Case, check_equal, results_of
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts
from torch.utils.flop_counter import FlopCounterMode
import lighthouse_attention as lighthouse
from lighthouse_attention.module import dense_attention

lighthouse_attention = lighthouse.lighthouse_attention
operator = torch.ops.lighthouse._packed_attention
pytestmark = pytest.mark.usefixtures("fresh_compiler")

# Six offsets each, of which some end with empty documents as a buffer of fixed length does; then other numbers of them.
BOUNDS = [[0, 1, 70, 70, 150, 203], [0, 50, 203, 203, 203, 203], [0, 0, 101, 150, 202, 203], [0, 203, 203, 203, 203, 203]]
OTHER_NUMBERS = [[0, 203], [0, 60, 203], [0, 3, 4, 60, 70, 90, 150, 170, 203]]
PACKED_CASES = {
    "norm": CASES["packed"],
    "one-kv-head": Case(num_kv_heads=1, **PACKED),
    "odd-heads": Case(head_dim=7, **PACKED),
    "transposed": Case(transposed=True, **PACKED),
    "uncovered": Case(cover_prefix=False, **PACKED),
    "scale": Case(softmax_scale=0.3, **PACKED),
    "scores": Case(given="scores", **PACKED),
    "dilated": CASES["dilated-packed"],
    "gla": CASES["gla-packed"],
    "full": CASES["full-packed"],
}


def options_of(case):
    return {name: value for name, value in case.options().items() if name != "cu_seqlens"}


def check_documents(function, bounds, backend="aot_eager", dynamic=True, case=CASES["packed"], dtype=torch.float32):
    """Compiles function(q, k, v, cu_seqlens), runs it with each of the offsets, as a tensor, against eager mode with the list. Returns
    how many graphs there were after each."""
    counter = torch._dynamo.testing.CompileCounterWithBackend(backend)
    compiled = torch.compile(function, fullgraph=True, backend=counter, dynamic=dynamic)
    counts = []
    for number, offsets in enumerate(bounds):
        tensors = replace(case, seq_len=offsets[-1]).tensors(dtype, seed=number)
        check_equal(results_of(partial(compiled, cu_seqlens=torch.tensor(offsets)), *tensors),
                    results_of(partial(function, cu_seqlens=offsets), *tensors))
        counts.append(counter.frame_count)
    return counts


@pytest.mark.parametrize("name", PACKED_CASES)
def test_one_graph_for_all_documents(name):
    case = PACKED_CASES[name]
    counts = check_documents(partial(lighthouse_attention, **options_of(case)), BOUNDS + OTHER_NUMBERS, case=case)
    assert len(set(counts)) == 1  # torch begins anew for a softmax_scale, and counts that


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_types(dtype):
    function = partial(lighthouse_attention, **CASES["packed"].layout)
    assert check_documents(function, BOUNDS, dynamic=False, dtype=dtype) == [1] * len(BOUNDS)


@pytest.mark.parametrize("dynamic", [True, False])
def test_generated_code(dynamic):
    """With PyTorch's own compiler (inductor), inside a function with something to fuse around the attention."""
    layout = CASES["packed"].layout

    def function(q, k, v, cu_seqlens):
        return lighthouse_attention(q * 2, k, v, cu_seqlens=cu_seqlens, **layout) * 2

    bounds = BOUNDS + OTHER_NUMBERS if dynamic else BOUNDS
    assert check_documents(function, bounds, "inductor", dynamic) == [1] * len(bounds)


def test_the_second_number_of_documents_makes_it_dynamic():
    function = partial(lighthouse_attention, **CASES["packed"].layout)
    counts = check_documents(function, BOUNDS + OTHER_NUMBERS, dynamic=None)
    assert counts == [1] * len(BOUNDS) + [2] * len(OTHER_NUMBERS)


def test_length_and_topk_change_with_the_documents():
    def function(q, k, v, cu_seqlens):
        return lighthouse_attention(q, k, v, cu_seqlens=cu_seqlens, topk=q.shape[1] // 16, pooling_factor=2, tile_topk=8)

    bounds = [[0, 50, 203], [0, 64], [0, 500, 700, 1000], [0, 7, 18]]  # of the last nothing gets shorter
    assert check_documents(function, bounds) == [1] * len(bounds)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8])
def test_offsets_of_other_types(dtype):
    case = CASES["packed"]
    compiled = torch.compile(partial(lighthouse_attention, **case.layout), fullgraph=True, backend="aot_eager")
    check_equal(results_of(partial(compiled, cu_seqlens=torch.tensor(case.cu_seqlens, dtype=dtype)), *case.tensors()),
                results_of(partial(lighthouse_attention, cu_seqlens=case.cu_seqlens, **case.layout), *case.tensors()))


@pytest.mark.parametrize("inside", [True, False])
def test_under_autocast(inside):
    case = CASES["dilated-packed"]

    def function(q, k, v, cu_seqlens):
        with torch.autocast("cpu", torch.bfloat16, enabled=inside):
            return lighthouse_attention(q, k, v, cu_seqlens=cu_seqlens, **options_of(case))

    with torch.autocast("cpu", torch.bfloat16, enabled=not inside):
        check_documents(function, BOUNDS[:2], case=case)


def test_some_tensors_need_no_gradient():
    case = CASES["gla-packed"]
    q, k, v, grad_out = case.tensors()
    options = options_of(case)
    compiled = torch.compile(lighthouse_attention, fullgraph=True, backend="aot_eager")
    results = []
    for function, offsets in ((compiled, torch.tensor(case.cu_seqlens)), (lighthouse_attention, case.cu_seqlens)):
        value = v.detach().requires_grad_()
        out = function(q, k, value, cu_seqlens=offsets, **options)
        results.append((out, *torch.autograd.grad(out, value, grad_out)))
    assert all(map(torch.equal, *results))
    options["gate"].requires_grad_()
    assert not compiled(q, k, v, cu_seqlens=torch.tensor(case.cu_seqlens), **options).requires_grad


@pytest.mark.parametrize("selective", [False, True])
def test_checkpointed(selective):
    case = CASES["gla-packed"]

    def keep(context, called, *arguments, **options):
        return CheckpointPolicy.MUST_SAVE if called == operator.default else CheckpointPolicy.PREFER_RECOMPUTE

    contexts = dict(context_fn=partial(create_selective_checkpoint_contexts, keep)) if selective else {}
    options = options_of(case)

    def attention(q, k, v, cu_seqlens):
        return lighthouse_attention(q, k, v, cu_seqlens=cu_seqlens, **options).sin()

    def function(q, k, v, cu_seqlens):
        return checkpoint(attention, q, k, v, cu_seqlens, use_reentrant=False, **contexts)

    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(function, fullgraph=True, backend=counter)
    for number, offsets in enumerate(BOUNDS):
        tensors = case.tensors(seed=number)
        check_equal(results_of(partial(compiled, cu_seqlens=torch.tensor(offsets)), *tensors),
                    results_of(partial(attention, cu_seqlens=offsets), *tensors))
    assert counter.frame_count == 1


def test_the_module_in_both_stages():
    module = lighthouse.LighthouseAttention(**CASES["packed"].layout)
    assert check_documents(module, BOUNDS) == [1] * len(BOUNDS)
    module.enabled = False
    assert check_documents(module, BOUNDS + OTHER_NUMBERS) == [1] * len(BOUNDS + OTHER_NUMBERS)


WINDOWS = {"full": None, "window": lighthouse.SlidingWindow(20), "scaled": lighthouse.SlidingWindow(20, 0.3)}


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_all_tokens_and_windows(window, backend):
    """Dense attention, documents apart, and in a window, with grouped heads."""
    case = Case(num_heads=4, num_kv_heads=2, **PACKED)
    counts = check_documents(partial(dense_attention, attention=WINDOWS[window]), BOUNDS + OTHER_NUMBERS, backend, case=case)
    assert len(set(counts)) == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_module_with_a_window_in_both_stages(dtype):
    module = lighthouse.SlidingWindowAttention(20)
    assert check_documents(module, BOUNDS, dynamic=False, dtype=dtype) == [1] * len(BOUNDS)
    module.enabled = False
    assert check_documents(module, BOUNDS, dynamic=False, dtype=dtype) == [1] * len(BOUNDS)


# Wrong arguments. What depends on values is found when the operator runs, in the words of eager mode.

WRONG_OFFSETS = [
    [0, 50, 202], [1, 50, 203], [0, 60, 50, 203], [0], [], [0.0, 203.0], [[0, 203]], [True, False],
]


@pytest.mark.parametrize("offsets", WRONG_OFFSETS, ids=str)
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_wrong_offsets_are_refused_in_the_words_of_eager_mode(offsets, backend):
    tensors, layout = CASES["packed"].tensors()[:3], CASES["packed"].layout
    offsets = torch.tensor(offsets, dtype=None if offsets else torch.int64)
    with pytest.raises(ValueError) as eager:
        lighthouse_attention(*tensors, cu_seqlens=offsets, **layout)
    compiled = torch.compile(partial(lighthouse_attention, **layout), fullgraph=True, backend=backend)
    with pytest.raises(ValueError) as error:
        compiled(*tensors, cu_seqlens=offsets)
    assert str(error.value) == str(eager.value)


@pytest.mark.parametrize("offsets", WRONG_OFFSETS, ids=str)
def test_wrong_offsets_of_all_tokens_too(offsets):
    tensors, offsets = CASES["packed"].tensors()[:3], torch.tensor(offsets, dtype=None if offsets else torch.int64)
    with pytest.raises(ValueError) as eager:
        dense_attention(*tensors, cu_seqlens=offsets)
    with pytest.raises(ValueError) as error:
        torch.compile(dense_attention, fullgraph=True, backend="aot_eager")(*tensors, cu_seqlens=offsets)
    assert str(error.value) == str(eager.value)


@pytest.mark.parametrize(("options", "batch"), [(dict(topk=0), 1), (dict(pooling_factor=3), 1), (dict(num_levels=9), 1), ({}, 2)])
def test_other_arguments_are_refused_in_the_words_of_eager_mode(options, batch):
    tensors, options = Case(batch=batch).tensors()[:3], CASES["packed"].layout | options
    with pytest.raises(ValueError) as eager:
        lighthouse_attention(*tensors, cu_seqlens=[0, 50, 203], **options)
    compiled = torch.compile(partial(lighthouse_attention, **options), fullgraph=True, backend="aot_eager")
    with pytest.raises(ValueError) as error:
        compiled(*tensors, cu_seqlens=torch.tensor([0, 50, 203]))
    assert str(error.value) == str(eager.value)


@pytest.mark.parametrize("name", ["selection", "attention"])
def test_what_needs_a_list(name):
    case = CASES["packed"]
    given = dict(selection=torch.arange(203, dtype=torch.int32).expand(1, 2, -1), attention=lighthouse.SlidingWindow(8))
    function = partial(lighthouse_attention, **case.layout, **{name: given[name]})
    with pytest.raises(Exception, match=f"`{name}` is given; leave that out, or pass a list"):
        torch.compile(function, fullgraph=True, backend="aot_eager")(*case.tensors()[:3], cu_seqlens=torch.tensor(case.cu_seqlens))


@pytest.mark.parametrize("function", [
    lambda q, k, v, offsets: lighthouse.token_scores(q, k, v, cu_seqlens=offsets),
    lambda q, k, v, offsets: lighthouse.select(*lighthouse.token_scores(q, k, v), cu_seqlens=offsets, topk=8, num_levels=2,
                                               pooling_factor=2),
    lambda q, k, v, offsets: lighthouse.gathered_length(203, cu_seqlens=offsets, topk=8, num_levels=2, pooling_factor=2),
])
def test_other_functions_need_a_list(function):
    with pytest.raises(Exception, match="whose values a compiled graph does not know; pass a list"):
        torch.compile(function, fullgraph=True, backend="aot_eager")(*CASES["packed"].tensors()[:3], torch.tensor([0, 50, 203]))


@pytest.mark.parametrize("function", [partial(lighthouse_attention, **CASES["packed"].layout), dense_attention])
def test_second_derivatives_are_refused(function):
    case = CASES["packed"]
    q, k, v, grad_out = case.tensors()
    compiled = torch.compile(function, fullgraph=True, backend="eager")
    out = compiled(q.requires_grad_(), k, v, cu_seqlens=torch.tensor(case.cu_seqlens))
    with pytest.raises(NotImplementedError, match="no second derivatives"):
        torch.autograd.grad(out, q, grad_out, create_graph=True)


# The operators.


def arguments_of(case, requires_grad):
    q, k, v, grad_out = case.tensors()
    s_qk, s_kq = case.options().get("scores") or (None, None)
    qkv = [x.requires_grad_(requires_grad) for x in (q, k, v)]
    rest = [torch.tensor(case.cu_seqlens), list(case.layout.values()), case.scorer, case.dilation, case.gate(), s_qk, s_kq, True, None]
    return grad_out, *qkv, *rest


@pytest.mark.parametrize("name", ["norm", "transposed", "scores", "gla", "full"])
def test_opcheck(name):
    torch.library.opcheck(operator.default, arguments_of(PACKED_CASES[name], requires_grad=True)[1:])
    torch.library.opcheck(torch.ops.lighthouse._packed_attention_backward.default, arguments_of(PACKED_CASES[name], requires_grad=False))


@pytest.mark.parametrize("span", [0, 20])
@pytest.mark.parametrize("name", ["norm", "transposed", "odd-heads"])
def test_opcheck_of_all_tokens(name, span):
    grad_out, q, k, v, cu_seqlens, *_ = arguments_of(PACKED_CASES[name], requires_grad=True)
    ops = torch.ops.lighthouse
    torch.library.opcheck(ops._packed_documents.default, (cu_seqlens, 1, q.shape[1]))
    documents = ops._packed_documents(cu_seqlens, 1, q.shape[1])
    torch.library.opcheck(ops._packed_full_attention.default, (q, k, v, documents, None, span))
    q, k, v = (x.detach() for x in (q, k, v))
    results = ops._packed_full_attention(q, k, v, documents, None, span)
    arguments = (grad_out, q, k, v, *results, documents, None, span)
    torch.library.opcheck(ops._packed_full_attention_backward.default, arguments)
    assert all(x.is_contiguous() for x in (*results, *ops._packed_full_attention_backward(*arguments)))


@pytest.mark.parametrize("name", ["norm", "transposed", "full"])
def test_results_are_contiguous(name):
    grad_out, *arguments = arguments_of(PACKED_CASES[name], requires_grad=False)
    results = [operator(*arguments), *torch.ops.lighthouse._packed_attention_backward(grad_out, *arguments)]
    assert all(x.is_contiguous() for x in results)


def test_beneath_a_dispatch_mode():
    """Such modes, a count of FLOPs here, turn autograd off for what they call. torch 2.15 runs no compiled function within."""
    case = CASES["packed"]
    rest = arguments_of(case, requires_grad=False)[4:]
    expected = results_of(partial(lighthouse_attention, cu_seqlens=case.cu_seqlens, **case.layout), *case.tensors())
    with FlopCounterMode(display=False):
        check_equal(results_of(lambda *qkv: operator(*qkv, *rest), *case.tensors()), expected)
