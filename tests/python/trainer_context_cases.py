"""What ranks train in test_huggingface_trainers.py and test_trl.py: tiny models of transformers by its Trainer, PEFT, accelerate and TRL,
with DDP and FSDP2, with rows that ranks share and with rows of their own. Each returns the losses of its steps."""

import os
import tempfile

import accelerate
import peft
import pytest
import tokenizers
import torch
import torch.distributed as dist
import transformers
from accelerate.state import AcceleratorState, DistributedType, GradientState, PartialState
from huggingface_models import POSITIONS, make, noise
from lighthouse_attention import huggingface, switch_to_dense
from torch.distributed.fsdp import FSDPModule

OPTIONS = dict(topk=16, tile_topk=4, num_levels=2, full_attention_layers=[0])
LAYER = "LlamaDecoderLayer"  # what FSDP2 shards
STEPS, SWITCH = 4, 2  # dense from this step on


class Trainer(huggingface.SharedRows, transformers.Trainer):
    pass


def groups(cp):
    """Of `cp` ranks each; None where ranks have rows of their own."""
    if cp is None:
        return None
    return dist.init_device_mesh("cpu", (dist.get_world_size() // cp, cp), mesh_dim_names=("dp", "cp"))["cp"]


def prepared(cp):
    """A model; the first layer is dense, as its ties are decided by rounding (docs/python.md)."""
    return huggingface.prepare(make(), **OPTIONS, group=groups(cp))


def adapted(cp):
    """With LoRA, whose weights torch draws: none is zero."""
    torch.manual_seed(4)
    return peft.get_peft_model(prepared(cp), peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))


def arguments_of(kind, folder, cp, fsdp, **more):
    """Two rows a step, over all ranks."""
    batch = 2 * (cp or 1) // dist.get_world_size()
    sharded = dict(fsdp=True, fsdp_config=dict(version=2, transformer_layer_cls_to_wrap=LAYER)) if fsdp else {}
    return kind(folder, max_steps=STEPS, logging_steps=1, per_device_train_batch_size=batch, seed=3, learning_rate=1e-3, use_cpu=True,
                save_strategy="no", report_to=[], **sharded, **more)


def losses_of(trainer, fsdp):
    trainer.train()
    assert fsdp == any(isinstance(module, FSDPModule) for module in trainer.model_wrapped.modules())
    return [record["loss"] for record in trainer.state.log_history if "loss" in record]


def by_trainer(cp, fsdp, model=prepared):
    """Every other row has targets in its second half only: with two ranks that share it, one of them has none."""
    rows = [dict(input_ids=row, labels=row.clone(), number=7) for row in noise(8)]
    for row in rows[1::2]:
        row["labels"][:70] = -100
    with tempfile.TemporaryDirectory() as folder:
        kind = Trainer if cp else transformers.Trainer
        trainer = kind(model(cp), arguments_of(transformers.TrainingArguments, folder, cp, fsdp), train_dataset=rows,
                       callbacks=[huggingface.SwitchToDense(SWITCH)])
        return losses_of(trainer, fsdp)


def by_lora(cp, fsdp):
    return by_trainer(cp, fsdp, adapted)


def by_sft(cp, fsdp):
    """Texts of uneven lengths that TRL packs."""
    import datasets
    import trl

    class SFTTrainer(huggingface.SharedRows, trl.SFTTrainer):
        pass

    datasets.disable_caching()
    model = tokenizers.models.WordLevel({"<pad>": 0, "<bos>": 1, "<eos>": 2} | {str(token): token for token in range(3, 61)}, "<pad>")
    model = tokenizers.Tokenizer(model)
    model.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=model, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")
    texts = [dict(text=" ".join(map(str, row[:20 + 9 * index].tolist()))) for index, row in enumerate(noise(12))]
    with tempfile.TemporaryDirectory() as folder:
        options = arguments_of(trl.SFTConfig, folder, cp, fsdp, packing=True, max_length=128, gradient_checkpointing=True, bf16=False)
        trainer = SFTTrainer(prepared(cp), options, train_dataset=datasets.Dataset.from_list(texts), processing_class=tokenizer,
                             callbacks=[huggingface.SwitchToDense(SWITCH)])
        return losses_of(trainer, fsdp)


def by_accelerate(cp, fsdp):
    """One packed row a step, or plain rows of each rank; a loop of one's own."""
    plugin = accelerate.FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="transformer_based_wrap",
                                                       transformer_cls_names_to_wrap=[LAYER]) if fsdp else None
    accelerator = accelerate.Accelerator(cpu=True, fsdp_plugin=plugin)
    model = prepared(cp)
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=1e-3))
    assert isinstance(model, FSDPModule) == fsdp
    losses = []
    for step in range(STEPS):
        if step == SWITCH:
            switch_to_dense(model)
        if cp:
            row = noise(1, seed=step)
            batch = huggingface.shard_batch(model, dict(input_ids=row, labels=row, position_ids=POSITIONS))
        else:
            row = noise(2, seed=step).chunk(accelerator.num_processes)[accelerator.process_index]
            batch = dict(input_ids=row, labels=row, num_items_in_batch=torch.tensor(2 * 127))
        loss = model(**batch, use_cache=False).loss
        accelerator.backward(loss * accelerator.num_processes)  # DDP and FSDP2 average
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(accelerator.reduce(loss.detach(), "sum").item())
    return losses


CASES = {  # what trains, and whether ranks share rows
    "trainer": (by_trainer, True), "trainer-fsdp2": (by_trainer, True), "lora": (by_lora, True), "lora-fsdp2": (by_lora, True),
    "trainer-own-rows": (by_trainer, False), "trainer-own-rows-fsdp2": (by_trainer, False),
    "accelerate": (by_accelerate, True), "accelerate-fsdp2": (by_accelerate, True), "accelerate-own-rows-fsdp2": (by_accelerate, False),
    "sft": (by_sft, True), "sft-fsdp2": (by_sft, True)}


def init_on_the_cpu(state, *arguments, **named):
    """accelerate takes its FSDP plugin for ranks on GPUs only."""
    original_init(state, *arguments, **named)
    if state.distributed_type == DistributedType.MULTI_CPU:
        state.distributed_type = DistributedType.MULTI_GPU


original_init = PartialState.__init__


def run(names):
    """{name: losses}; two ranks share a row where ranks do."""
    results, size = {}, dist.get_world_size()
    for name in names:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        function, shared = CASES[name]
        fsdp = size > 1 and name.endswith("fsdp2")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "environ", dict(os.environ))  # where accelerate keeps what it was told
            if fsdp:
                patch.setattr(PartialState, "__init__", init_on_the_cpu)
            results[name] = function(min(size, 2) if shared else None, fsdp)
    return results
