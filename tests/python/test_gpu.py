"""The package on a GPU: the bits of the C++ functions, CUDA graphs, packed documents, devices and streams."""

import os
from functools import partial

import pytest
import torch
import torch._dynamo.testing
from attention_cases import CASES, Case, flat, results_of
import lighthouse_attention as lighthouse
from lighthouse_attention import library
from lighthouse_attention.module import dense_attention

lighthouse_attention = lighthouse.lighthouse_attention
lacks = ""
if not torch.cuda.is_available():
    lacks = "no GPU"
elif library.built_with()["cuda"] is None:
    lacks = "the library is built without CUDA"
if lacks and os.environ.get("LIGHTHOUSE_REQUIRE_GPU"):  # make gpu-test: all skipped is not all passed
    raise RuntimeError(f"{lacks}, and LIGHTHOUSE_REQUIRE_GPU is set")
pytestmark = pytest.mark.skipif(bool(lacks), reason=lacks)
TENSORS = ("gate", "scores")


def on_gpu(case, dtype):
    """q, k, v, grad_out and options on the GPU. 16 rows of 32 channels and more: what stock kernels take."""
    options = case.options()
    for name in TENSORS:
        if isinstance(options.get(name), torch.Tensor):
            options[name] = options[name].cuda()
        elif options.get(name) is not None:
            options[name] = tuple(x.cuda() for x in options[name])
    return [x.cuda() for x in case.tensors(dtype)], options


def check_results(actual, expected):
    """Equal outputs, and gradients but for the order in which stock attention's backward adds, which may be any."""
    assert torch.equal(actual[0], expected[0])
    for ours, theirs in zip(actual[1:], expected[1:]):
        assert (ours - theirs).abs().max() <= 2**-6 * theirs.abs().max()


RUNS = [(name, dtype) for name in CASES for dtype in (torch.float32, torch.bfloat16)]


@pytest.mark.parametrize(("name", "dtype"), RUNS, ids=str)
def test_bits_of_the_cpp_functions(cpp, name, dtype):
    """Outputs are equal. Gradients of stock attention may add in another order from run to run; those of v in fp32, a sum of
    some hundred products of order 1, then differ by a few roundings of each."""
    tensors, options = on_gpu(CASES[name], dtype)
    ours, theirs = (results_of(partial(function, **given), *tensors)
                    for function, given in ((lighthouse_attention, options), (cpp.attention, flat(options))))
    assert torch.equal(ours[0], theirs[0])
    for mine, other in zip(ours[1:], theirs[1:]):
        assert (mine - other).abs().max() <= 64 * torch.finfo(dtype).eps * other.abs().max()


@pytest.mark.parametrize("name", ["grouped", "deep", "packed", "gla"])
def test_a_cuda_graph_replays_it(name):
    (q, k, v, _), options = on_gpu(CASES[name], torch.bfloat16)
    stream = torch.cuda.Stream()
    with torch.no_grad(), torch.cuda.stream(stream):
        lighthouse_attention(q, k, v, **options)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        out = lighthouse_attention(q, k, v, **options)
    for tensor in (q, k, v):
        tensor.copy_(torch.randn_like(tensor))
    graph.replay()
    with torch.no_grad():
        assert torch.equal(out, lighthouse_attention(q, k, v, **options))


def test_forward_and_backward_are_graphed():
    """By PyTorch's helper, for rows that are too short to hide what Python takes."""
    (q, k, v, grad_out), options = on_gpu(Case(seq_len=1024, head_dim=64), torch.bfloat16)
    function = partial(lighthouse_attention, **options)
    samples = tuple(torch.randn_like(x).requires_grad_() for x in (q, k, v))
    graphed = torch.cuda.make_graphed_callables(function, samples)
    for _ in range(2):
        inputs = [torch.randn_like(x).requires_grad_() for x in (q, k, v)]
        check_results(*(results_of(call, *inputs, grad_out) for call in (graphed, function)))


def test_runs_on_the_current_stream():
    (q, k, v, _), options = on_gpu(CASES["grouped"], torch.bfloat16)
    expected = lighthouse_attention(q, k, v, **options)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)
        copies = [x.clone() for x in (q, k, v)]
        ours = lighthouse_attention(*copies, **options)
    stream.synchronize()
    assert torch.equal(ours, expected)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
def test_runs_where_its_tensors_are():
    (q, k, v, _), options = on_gpu(CASES["grouped"], torch.bfloat16)
    ours = lighthouse_attention(*(x.to("cuda:1") for x in (q, k, v)), **options)
    assert ours.device.index == 1 and torch.cuda.current_device() == 0
    assert torch.equal(ours.cpu(), lighthouse_attention(q, k, v, **options).cpu())


def test_wrong_selections_are_named():
    (q, k, v, _), _ = on_gpu(CASES["grouped"], torch.float32)
    layout = CASES["grouped"].layout
    selection = lighthouse.select(*lighthouse.token_scores(q, k, v), **layout)
    selection[0, 1, 1] = selection[0, 1, 0]
    with pytest.raises(ValueError, match="KV head 1, row 1"):
        lighthouse_attention(q, k, v, selection=selection, **layout)


@pytest.mark.parametrize("name", ["grouped", "packed", "dilated-packed", "gla"])
def test_compiles(name):
    torch.compiler.reset()
    (q, k, v, _), options = on_gpu(CASES[name], torch.bfloat16)
    compiled = torch.compile(lighthouse_attention, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert torch.equal(compiled(q, k, v, **options), lighthouse_attention(q, k, v, **options))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("name", ["packed", "gla-packed"])
def test_one_graph_for_all_documents(name, device):
    torch.compiler.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(lighthouse_attention, fullgraph=True, backend=counter)
    tensors, options = on_gpu(CASES[name], torch.bfloat16)
    for offsets in ([0, 1, 70, 70, 150, 203], [0, 100, 101, 103, 180, 203], [0, 203, 203, 203, 203, 203]):
        options["cu_seqlens"] = torch.tensor(offsets, device=device)
        check_results(*(results_of(partial(call, **options), *tensors) for call in (compiled, lighthouse_attention)))
    assert counter.frame_count == 1


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("head_dim", [32, 36])
@pytest.mark.parametrize("window", [None, lighthouse.SlidingWindow(20)], ids=str)
def test_one_graph_for_all_documents_in_full(window, head_dim, dtype, device):
    torch.compiler.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    function = partial(dense_attention, attention=window)
    compiled = torch.compile(function, fullgraph=True, backend=counter)
    tensors, _ = on_gpu(Case(batch=1, num_heads=4, num_kv_heads=2, head_dim=head_dim), dtype)
    for offsets in ([0, 1, 70, 70, 150, 203], [0, 100, 101, 103, 180, 203], [0, 203, 203, 203, 203, 203]):
        offsets = torch.tensor(offsets, device=device)
        check_results(*(results_of(partial(call, cu_seqlens=offsets), *tensors) for call in (compiled, function)))
    assert counter.frame_count == 1


def test_one_graph_for_all_lengths():
    torch.compiler.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    function = partial(lighthouse_attention, **Case().layout)
    compiled = torch.compile(function, fullgraph=True, backend=counter, dynamic=True)
    for seq_len in (203, 512, 96, 4096):
        tensors = on_gpu(Case(batch=3, seq_len=seq_len, head_dim=64), torch.bfloat16)[0]
        check_results(*(results_of(call, *tensors) for call in (compiled, function)))
    assert counter.frame_count == 1


def sliced(x, begin):
    """x as a view of a wider tensor, from channel `begin` on: rows that need not start at multiples of 16 bytes."""
    wide = torch.zeros(*x.shape[:3], x.shape[3] + 3, dtype=x.dtype, device=x.device)
    view = wide[..., begin:begin + x.shape[3]]
    return view.copy_(x)


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize(("heads", "head_dim", "scorer", "offsets"), [
    ((2, 1), 32, "dilated", None), ((2, 1), 32, "norm", None), ((2, 2), 33, "dilated", None), ((4, 2), 36, "dilated", None),
    ((1, 1), 32, "dilated", None), ((6, 2), 20, "norm", [0, 300, 301, 549]), ((2, 1), 32, "dilated", [0, 1, 549]),
    ((2, 1), 264, "norm", None)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("begin", [0, 1])
def test_heads_that_stock_kernels_would_refuse(enabled, heads, head_dim, scorer, offsets, dtype, begin):
    """As with contiguous tensors, and near fp64 there."""
    case = Case(batch=1 if offsets else 2, seq_len=549, num_heads=heads[0], num_kv_heads=heads[1], head_dim=head_dim)
    q, k, v, grad_out = (x.cuda() for x in case.tensors(dtype))
    module = lighthouse.LighthouseAttention(topk=183, num_levels=4, pooling_factor=8, scorer=scorer)
    module.enabled = enabled
    selection = lighthouse.select(*lighthouse.token_scores(q, k, v, scorer=scorer, cu_seqlens=offsets), topk=183, num_levels=4,
                                  pooling_factor=8, cu_seqlens=offsets) if enabled else None
    expected = results_of(partial(module, cu_seqlens=offsets, selection=selection), q, k, v, grad_out)
    q, k, v, grad_out = (sliced(x, begin) for x in (q, k, v, grad_out))
    results = results_of(partial(module, cu_seqlens=offsets, selection=selection), q, k, v, grad_out)
    for ours, right in zip(results, expected):
        assert (ours - right).abs().max() <= 64 * torch.finfo(dtype).eps * right.abs().max()
    module(q, k, v, cu_seqlens=offsets)  # and with scores of its own


@pytest.mark.parametrize("head_dim", [64, 20])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("offsets", [None, [0, 300, 300, 301, 1000]])
def test_sliding_windows(dtype, head_dim, offsets):
    generator = torch.Generator().manual_seed(5)
    tensors = [torch.randn([1, 1000, heads, head_dim], generator=generator).to(dtype) for heads in (4, 2, 2, 4)]
    function = partial(lighthouse.SlidingWindowAttention(65), cu_seqlens=offsets)
    exact = results_of(function, *(x.double() for x in tensors))
    for ours, right in zip(results_of(function, *(x.cuda() for x in tensors)), exact):
        assert (ours.cpu().double() - right).norm() <= 8 * torch.finfo(dtype).eps * right.norm()  # in fp32 5 on an H200
