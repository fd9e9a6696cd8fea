"""What ranks compute in test_huggingface_context.py: losses and gradients of a tiny Llama whose rows they share, against the
same model on one process."""

import copy
import functools
import pickle

import torch
import torch.distributed as dist
from context_cases import refused, run
from huggingface_models import NUMBERS, POSITIONS, make, noise
from lighthouse_attention import huggingface, switch_to_dense
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

# The first layer is dense: its ties are decided by rounding (docs/python.md).
OPTIONS = dict(topk=16, tile_topk=4, num_levels=2, full_attention_layers=[0])


def labelled(tokens, **more):
    return dict(input_ids=tokens, labels=tokens.clone(), **more)


def last_half_is_masked():
    batch = labelled(noise(1))
    batch["labels"][:, 60:] = -100
    return batch


BATCHES = {
    "plain": lambda: labelled(noise(2)),
    "packed": lambda: labelled(noise(1), position_ids=POSITIONS),
    "numbers": lambda: labelled(noise(1), attention_mask=NUMBERS),
    "padded": lambda: labelled(noise(1), attention_mask=(torch.arange(128) < 107).long()[None]),
    "masked": last_half_is_masked,
}


def one_process(model, batch):
    """Loss and gradients, over the targets of the batch."""
    model.zero_grad()
    loss = model(**batch, use_cache=False).loss
    loss.backward()
    return [loss.detach(), *(parameter.grad for parameter in model.parameters())]


def of_ranks(model, batch):
    """The same of this rank, to be summed."""
    model.zero_grad()
    loss = model(**huggingface.shard_batch(model, batch), use_cache=False).loss
    loss.backward()
    return [loss.detach(), *(parameter.grad for parameter in model.parameters())]


def summed(results):
    for x in results:
        dist.all_reduce(x)
    return results


def check_close(ours, theirs):
    for ours, theirs in zip(ours, theirs, strict=True):
        assert (ours - theirs).norm() <= 1e-6 * max(1, theirs.norm()), (ours, theirs)


def models(kind="llama", **options):
    options = OPTIONS | options
    return huggingface.prepare(make(kind), **options), huggingface.prepare(make(kind), **options, group=dist.group.WORLD)


def check(name, kind="llama", **options):
    """Both stages."""
    alone, shared = models(kind, **options)
    theirs = one_process(alone, BATCHES[name]())
    check_close(summed(of_ranks(shared, BATCHES[name]())), theirs)
    assert [switch_to_dense(model) for model in (alone, shared)] == [1, 1] and switch_to_dense(shared) == 0
    ours, theirs = summed(of_ranks(shared, BATCHES[name]())), one_process(alone, BATCHES[name]())
    if name not in ("numbers", "padded"):  # of which "sdpa" knows nothing
        check_close(ours, theirs)


def copies():
    alone, shared = models()
    theirs = one_process(alone, BATCHES["packed"]())
    for model in (copy.deepcopy(shared), pickle.loads(pickle.dumps(shared))):
        check_close(summed(of_ranks(model, BATCHES["packed"]())), theirs)


def checkpointed():
    alone, shared = models()
    theirs = one_process(alone, BATCHES["plain"]())
    shared.train().gradient_checkpointing_enable(dict(use_reentrant=False))
    check_close(summed(of_ranks(shared, BATCHES["plain"]())), theirs)


def ddp():
    """DistributedDataParallel averages what is to be summed."""
    alone, shared = models()
    theirs = one_process(alone, BATCHES["packed"]())
    wrapped = DistributedDataParallel(shared)
    loss = wrapped(**huggingface.shard_batch(wrapped, BATCHES["packed"]()), use_cache=False).loss
    (loss * dist.get_world_size()).backward()
    check_close([parameter.grad for parameter in shared.parameters()], theirs[1:])


def fsdp():
    alone, shared = models()
    theirs = one_process(alone, BATCHES["packed"]())
    mesh = dist.init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in shared.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(shared, mesh=mesh)
    loss, *gradients = of_ranks(shared, BATCHES["packed"]())
    check_close([gradient.full_tensor() * dist.get_world_size() for gradient in gradients], theirs[1:])


# What users of other context parallelism have reported (docs/reliability.md).


def logits_of_every_token():
    """Positions for RoPE are those of tokens in their documents."""
    for batch in (BATCHES["plain"](), BATCHES["packed"]()):
        alone, shared = models()
        part = huggingface.shard_batch(shared, batch)
        whole, offsets = alone(**batch, use_cache=False).logits, part["shard_offsets"]
        begin, end = offsets[dist.get_rank():dist.get_rank() + 2]
        torch.testing.assert_close(shared(**part, use_cache=False).logits, whole[:, begin:end], rtol=1e-5, atol=1e-5)


def norm_of_gradients():
    """Of FSDP2, in fp64, with a rank that has no targets: that of one process."""
    for name in ("packed", "masked"):
        alone, shared = (model.double() for model in models())
        one_process(alone, BATCHES[name]())
        theirs = torch.nn.utils.clip_grad_norm_(alone.parameters(), 1.0)
        for module in (*shared.model.layers, shared):
            fully_shard(module, mesh=dist.init_device_mesh("cpu", (dist.get_world_size(),)))
        loss = shared(**huggingface.shard_batch(shared, BATCHES[name]()), use_cache=False).loss
        (loss * dist.get_world_size()).backward()
        ours = torch.nn.utils.clip_grad_norm_(shared.parameters(), 1.0).full_tensor()
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)


def two_models_in_one_process():
    """With other heads, other options and another group, step by step in turns."""
    mesh = dist.init_device_mesh("cpu", (1, dist.get_world_size()), mesh_dim_names=("dp", "cp"))
    sizes = dict(num_attention_heads=8, num_key_value_heads=4, head_dim=8)
    others = OPTIONS | dict(topk=8, tile_topk=2)
    pairs = [models(), [huggingface.prepare(make(**sizes), **others, group=group) for group in (None, mesh["cp"])]]
    for name in ("plain", "packed"):
        theirs = [one_process(alone, BATCHES[name]()) for alone, _ in pairs]
        losses = [shared(**huggingface.shard_batch(shared, BATCHES[name]()), use_cache=False).loss for _, shared in pairs]
        for (_, shared), loss, expected in zip(pairs, losses, theirs):
            shared.zero_grad()
            loss.backward()
            check_close(summed([loss.detach(), *(parameter.grad for parameter in shared.parameters())]), expected)


def wrong_use():
    _, shared = models()
    batch = BATCHES["plain"]()
    refused(lambda: shared(**batch), "shard_batch(model, batch)")
    refused(lambda: huggingface.shard_batch(make(), batch), "the model has no group")
    refused(lambda: huggingface.shard_batch(shared, batch | dict(pixels=3)), "the batch has 'pixels'")
    several = dict(input_ids=noise(2), position_ids=POSITIONS.expand(2, -1))
    refused(lambda: huggingface.shard_batch(shared, several), "documents", "2 rows")
    refused(lambda: huggingface.shard_batch(huggingface.prepare(shared, topk=4), batch), "1 tiles for 2 ranks")
    refused(lambda: huggingface.prepare(make().config, group=dist.group.WORLD), "configuration, which cannot hold it")
    part = huggingface.shard_batch(huggingface.prepare(shared, topk=16), batch)
    refused(lambda: shared(**part, attention_mask=torch.zeros_like(part["input_ids"])), "attention_mask for a part of a row")
    shared.set_attn_implementation("sdpa")
    refused(lambda: shared(**part), "call switch_to_dense(model)")


TESTS = {function.__name__: function for function in (wrong_use, copies, checkpointed, ddp, fsdp, logits_of_every_token,
                                                      norm_of_gradients, two_models_in_one_process)}
TESTS |= {name: functools.partial(check, name) for name in BATCHES}
TESTS["qk-norm"] = functools.partial(check, "packed", "qwen3")
TESTS["windows"] = functools.partial(check, "packed", full_attention_layers=[], window_layers=[0], span=9)


def run_all():
    return run(TESTS)
