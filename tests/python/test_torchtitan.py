"""torchtitan 0.3: its Llama 3 debug model with lighthouse attention, in both stages, with packed documents."""

import collections
import json
import types

import pytest
import torch
import torch._dynamo.testing
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("torchtitan", reason="torchtitan is not installed")
from lighthouse_attention import gathered_length, library, lighthouse_attention  # noqa: E402
import torchtitan_context_cases  # noqa: E402
from lighthouse_attention import torchtitan as integration  # noqa: E402
from lighthouse_attention import torchtitan_context  # noqa: E402
from ranks import environment, preloaded, run_ranks  # noqa: E402
from torchtitan.distributed import activation_checkpoint  # noqa: E402
from torchtitan.models.common.attention import VarlenMetadata, create_varlen_metadata_for_document  # noqa: E402

preloaded.append("torchtitan_on_cpu")
Attention = integration.LighthouseInnerAttention
LENGTHS = [100, 1, 155]


def positions_of(lengths, batch=1):
    return torch.cat([torch.arange(length) for length in lengths])[None].expand(batch, -1).contiguous()


def inputs(batch=2, seq_len=256):
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(batch, seq_len, heads, 16, generator=generator) for heads in (4, 2, 2)]


def config(**options):
    return integration.use_lighthouse(integration.llama3_debugmodel_lighthouse(), **options)


def test_plain_rows_are_those_of_the_function():
    q, k, v = inputs()
    module = Attention.Config(topk=8).build()
    expected = lighthouse_attention(q, k, v, topk=8, softmax_scale=0.2)
    assert torch.equal(module(q, k, v, scale=0.2, enable_gqa=True), expected)
    plain = create_varlen_metadata_for_document(positions_of([256], batch=2))
    assert torch.equal(module(q, k, v, attention_masks=plain, scale=0.2), expected)


@pytest.mark.parametrize("host", [False, True])
def test_documents_are_apart(host):
    q, k, v = inputs()
    metadata = create_varlen_metadata_for_document(positions_of(LENGTHS, batch=2), include_host_offsets=host)
    module = Attention.Config(topk=8, num_levels=2).build()  # one tile: every document has the budget of both rows, 16
    ours = module(q, k, v, attention_masks=metadata)
    for row in range(2):
        parts = zip(*(x[row:row + 1].split(LENGTHS, 1) for x in (q, k, v, ours)))
        for *part, expected in parts:
            assert torch.equal(lighthouse_attention(*part, topk=16, num_levels=2), expected)


@pytest.mark.parametrize(("enabled", "span"), [(True, None), (False, None), (True, 20)])
def test_compiled_layers_take_any_documents(enabled, span):
    module = Attention.Config(topk=8, num_levels=2, enabled=enabled, span=span).build()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(module, fullgraph=True, backend=counter, dynamic=True)
    for lengths in (LENGTHS, [50, 206], [10, 20, 30, 196]):
        results = []
        for layer in (module, compiled):
            qkv = [x.requires_grad_() for x in inputs()]
            out = layer(*qkv, attention_masks=create_varlen_metadata_for_document(positions_of(lengths, batch=2)))
            results.append((out, *torch.autograd.grad(out.square().sum(), qkv)))
        assert all(map(torch.equal, *results))
    assert counter.frame_count == 1


def test_disabled_is_dense():
    q, k, v = inputs()
    module = Attention.Config(enabled=False).build()
    heads = [x.transpose(1, 2) for x in (q, k, v)]
    expected = F.scaled_dot_product_attention(*heads, is_causal=True, enable_gqa=True).transpose(1, 2)
    assert torch.equal(module(q, k, v), expected)


@pytest.mark.parametrize("lengths", [[256], LENGTHS])
def test_a_layer_with_a_window_sees_the_latest_tokens_of_its_document(lengths):
    q, k, v = inputs()
    metadata = create_varlen_metadata_for_document(positions_of(lengths, batch=2))
    module = Attention.Config(span=20).build()
    token, document = torch.arange(256), torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    distance = token[:, None] - token
    seen = (distance >= 0) & (distance < 20) & (document[:, None] == document)
    heads = [x.transpose(1, 2) for x in (q, k, v)]
    for module.enabled, mask in [(True, seen), (False, (distance >= 0) & (document[:, None] == document))]:
        expected = F.scaled_dot_product_attention(*heads, mask, scale=0.2, enable_gqa=True).transpose(1, 2)
        torch.testing.assert_close(module(q, k, v, attention_masks=metadata, scale=0.2), expected)


def test_debug_model_trains_in_both_stages():
    titan = config(topk=4, lighthouse_steps=10, full_attention_layers=(0,))
    torch.manual_seed(1)
    model = titan.model_spec.model.build()
    model.init_states()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    tokens = (torch.arange(257) * 7 % 200)[None]
    positions = positions_of(LENGTHS)
    losses = []
    trainer = trainer_of(model, titan)

    def train_step(self, data_iterator):
        masks = model.get_attention_masks(positions)
        assert isinstance(masks, VarlenMetadata)
        logits = model(tokens[:, :-1], positions=positions, attention_masks=masks)
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[0, 1:])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())

    for trainer.step in range(1, 21):
        before = {layer.attention.inner_attention.enabled for layer in model.layers.values()}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(integration.Trainer, "train_step", train_step)
            integration.LighthouseTrainer.train_step(trainer, iter([]))
        after = {layer.attention.inner_attention.enabled for layer in model.layers.values()}
        assert after == ({True, False} if trainer.step <= 10 else {False}), (before, trainer.step)
    assert losses[9] < 0.9 * losses[0] and losses[19] < 0.9 * losses[9], losses


def trainer_of(model, titan):
    """What train_step looks at of a trainer."""
    trainer = object.__new__(integration.LighthouseTrainer)
    trainer.model_parts, trainer.config = [model], titan
    return trainer


def test_configuration():
    titan = integration.llama3_debugmodel_lighthouse()
    assert isinstance(titan, integration.LighthouseTrainer.Config) and titan.lighthouse_steps == 8
    layers = [layer.attention.inner_attention for layer in titan.model_spec.model.layers]
    assert [layer.enabled for layer in layers] == [False, True, True, True, True, False]
    assert len({id(layer) for layer in layers}) == len(layers)
    layers = [layer.attention.inner_attention for layer in config(window_layers=(0, 2), span=64).model_spec.model.layers]
    assert [layer.span for layer in layers] == [64, None, 64, None, None, None] and all(layer.enabled for layer in layers)


@pytest.mark.parametrize(("preset", "seq_len", "num_rows"), [
    ("llama3_8b_lighthouse", 131072, 24576), ("llama3_8b_lighthouse_256k", 262144, 49152),
    ("llama3_8b_lighthouse_512k", 524288, 98304), ("llama3_8b_lighthouse_1m", 1048576, 65536)])
def test_eight_gpus_share_a_row_of_the_8b_model_evenly(preset, seq_len, num_rows):
    titan = getattr(integration, preset)()
    layers = [layer.attention.inner_attention for layer in titan.model_spec.model.layers]
    assert len(layers) == 32 and sum(layer.enabled for layer in layers) == 28
    heads = titan.model_spec.model.layers[0].attention
    assert (heads.n_heads % 8, heads.n_kv_heads % 8, titan.training.local_batch_size) == (0, 0, 1)
    assert titan.training.seq_len == seq_len <= titan.model_spec.model.max_seq_len
    sizes = layers[2].build().layout_of(seq_len, 1)
    assert gathered_length(seq_len, **sizes) == num_rows
    layout = [sizes[name] for name in ("num_levels", "pooling_factor", "topk", "tile_topk")]
    assert library.token_offsets("test", seq_len, layout, None, 8) == [rank * seq_len // 8 for rank in range(9)]


def test_is_found_by_the_command_line(monkeypatch):
    from torchtitan.config.manager import ConfigManager
    titan = ConfigManager().parse_args(["--module", "lighthouse_attention.torchtitan", "--config",
                                        "llama3_debugmodel_lighthouse", "--lighthouse_steps", "3"])
    assert titan.lighthouse_steps == 3


def test_wrong_options():
    for options, message in [(dict(topk=0), "topk is 0"), (dict(scorer="gla"), "norm or dilated"),
                             (dict(window_size=(128, 0)), "window_size"), (dict(span=0), "span is 0"), (dict(cover_prefix="x"), "cover_prefix is 'x'"),
                             (dict(dilation=0), "dilation is 0"), (dict(topk=True), "topk is True")]:
        with pytest.raises(ValueError, match=message):
            Attention.Config(**options).build()
    with pytest.raises(ValueError, match="use_lighthouse: layer 0 is in full_attention_layers and in window_layers"):
        config(full_attention_layers=(0,), window_layers=(0, 1), span=64)
    for layers, words in [([-1], "has layer -1; the model has 6 layers, 0 to 5"), ([6], "has layer 6"), ("1", "is '1'; it must be a list"),
                          ([0.5], "is 0.5; it must be an integer")]:
        with pytest.raises(ValueError, match=f"use_lighthouse: .*full_attention_layers {words}"):
            config(full_attention_layers=layers)
        with pytest.raises(ValueError, match=f"use_lighthouse: .*window_layers {words}"):
            config(window_layers=layers, span=64)
    with pytest.raises(ValueError, match="give both or neither"):
        config(window_layers=(0, 1))
    with pytest.raises(ValueError, match="must be VarlenMetadata"):
        Attention.Config().build()(*inputs(), attention_masks=types.SimpleNamespace())
    with pytest.raises(ValueError, match="out_transform"):
        Attention.Config().build()(*inputs(), out_transform=lambda out, lse: out)


def train(size, *runs):
    """[losses and norms of gradients of the steps, as each rank has them] of each run."""
    runs = [(environment(size)["MASTER_PORT"], options) for options in runs]
    ranks = run_ranks(size, torchtitan_context_cases.train_each, runs, with_group=False)
    return [torch.tensor(run) for run in zip(*ranks)]


@pytest.mark.skipif(torch.accelerator.is_available(), reason="the ranks are those of a CPU")
def test_ranks_that_share_rows_train_as_one_process():
    """torchtitan's trainer with FSDP2 and packed documents, in both stages, with ranks that have no targets: CP2, with selective
    activation checkpointing; CP2 x DP2, and with HSDP."""
    [[alone]] = train(1, dict(batch=4))
    two = dict(cp=2, batch=2)
    runs = [*train(2, two, two | dict(selective=True)),
            *train(4, dict(cp=2, batch=1), dict(cp=2, batch=1, replicate=2))]
    assert len(alone) == torchtitan_context_cases.STEPS and len(runs) == 4
    for run in runs:
        check_steps(run, alone)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="the ranks are those of a CPU")
def test_windows_on_ranks_train_as_in_one_process():
    [[alone]] = train(1, dict(batch=4, span=40))
    [run] = train(2, dict(cp=2, batch=2, span=40))
    check_steps(run, alone)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="the ranks are those of a CPU")
def test_tensor_parallel_ranks_train_as_one_process():
    [[alone]] = train(1, dict(batch=4))
    runs = [*train(2, dict(tp=2, batch=4)), *train(4, dict(tp=2, cp=2, batch=2))]
    for run in runs:
        check_steps(run, alone)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="the ranks are those of a CPU")
def test_checkpoints_resume_with_any_number_of_ranks(tmp_path):
    """Saved by two ranks after every step; in stage one, resumed by two ranks and by one."""
    saved, resumed = dict(cp=2, batch=2, folder=str(tmp_path)), dict(folder=str(tmp_path), load_step=1)
    ranks, again = train(2, saved, saved | resumed)
    [alone] = train(1, dict(batch=4) | resumed)
    assert (tmp_path / "checkpoint" / "step-1").is_dir() and again.shape[1] == alone.shape[1] == ranks.shape[1] - 1
    check_steps(again, ranks[0, 1:])
    check_steps(alone, ranks[0, 1:])


@pytest.mark.skipif(torch.accelerator.is_available(), reason="the ranks are those of a CPU")
def test_bench_times_both_stages():
    first, second = run_ranks(2, torchtitan_context_cases.bench, "--debug-model", "--layers", "2", "--seq-len", "512", "--steps", "1",
                              with_group=False)
    one, two = map(json.loads, first.splitlines())
    assert second == "" and (one["stage"], two["stage"]) == ("one", "two")
    for stage in (one, two):
        assert (stage["ranks"], stage["seq_len"], stage["layers"], len(stage["losses"])) == (2, 512, 2, 3)
        assert stage["tokens_per_s"] == pytest.approx(512 / stage["seconds"], rel=0.05)


def check_steps(ranks, expected):
    for steps in ranks:
        torch.testing.assert_close(steps[:, 0], expected[:, 0], rtol=1e-6, atol=0)  # losses
        torch.testing.assert_close(steps[:, 1], expected[:, 1], rtol=1e-5, atol=0)  # norms of gradients


class Calls(TorchDispatchMode):
    """Counts operators that run."""

    def __init__(self):
        super().__init__()
        self.of = collections.Counter()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.of[operator] += 1
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize(("policy", "scored"), [(activation_checkpoint.SelectiveAC, 2), (integration.SelectiveAC, 1)])
def test_selective_activation_checkpointing_keeps_the_selection(policy, scored):
    class Block(torch.nn.Module):
        def forward(self, q, k, v):
            return lighthouse_attention(q, k, v, topk=8)

    block = policy.Config().build()._wrap_block(Block())
    q, k, v = (x.requires_grad_() for x in inputs())
    with Calls() as calls:
        block(q, k, v).sum().backward()
    assert calls.of[torch.ops.lighthouse._gather_by_norm.default] == scored
    direct = torch.autograd.grad(lighthouse_attention(q, k, v, topk=8).sum(), (q, k, v))
    assert all(map(torch.equal, (q.grad, k.grad, v.grad), direct))


@pytest.mark.parametrize(("cp", "options", "message"), [
    (1, dict(spmd_backend="spmd_types"), None), (2, {}, None), (2, dict(pp=2), "pipeline_parallel_degree is 2"),
    (2, dict(spmd_backend="spmd_types"), "spmd_backend is 'spmd_types'; it must be 'partial_dtensor'")])
def test_what_goes_with_context_parallelism(cp, options, message):
    sizes = dict(dp_replicate=1, dp_shard=1, tp=1, pp=1, ep=1, spmd_backend="partial_dtensor") | options
    dims = torchtitan_context.ParallelDims(**sizes, cp=cp, world_size=cp * sizes["pp"])
    titan = config(topk=4)
    titan.parallelism.context_parallel_degree, titan.validator.enable = cp, False
    if message:
        with pytest.raises(ValueError, match=message):
            torchtitan_context.shared_dims(titan, dims)
        return
    shared = torchtitan_context.shared_dims(titan, dims)
    assert (shared.cp, shared.cp_enabled, titan.parallelism.context_parallel_degree) == (cp, False, 1)
    titan.validator.enable = True
    if cp > 1:
        with pytest.raises(ValueError, match="validator.enable is set"):
            torchtitan_context.shared_dims(titan, dims)
