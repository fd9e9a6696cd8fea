"""transformers' Trainer on ranks that share rows; run by test_huggingface_context.py."""

import tempfile

import torch
import torch.distributed as dist
import transformers
from huggingface_models import make, noise
from lighthouse_attention import huggingface


class Trainer(huggingface.SharedRows, transformers.Trainer):
    pass


def train(cp):
    """Losses of the steps: two rows each, one of which has targets in its second half only."""
    dist.init_process_group()
    mesh = dist.init_device_mesh("cpu", (dist.get_world_size() // cp, cp), mesh_dim_names=("dp", "cp"))
    model = huggingface.prepare(make(), topk=16, tile_topk=4, num_levels=2, full_attention_layers=[0], group=mesh["cp"])
    rows = [dict(input_ids=row, labels=row.clone()) for row in noise(8)]
    for row in rows[1::2]:
        row["labels"][:70] = -100  # the first of two ranks has no target
    with tempfile.TemporaryDirectory() as folder:
        batch = 2 * cp // dist.get_world_size()
        options = transformers.TrainingArguments(folder, max_steps=6, logging_steps=1, per_device_train_batch_size=batch, seed=3,
                                                 learning_rate=1e-3, use_cpu=True, save_strategy="no", report_to=[])
        trainer = Trainer(model, options, train_dataset=rows, callbacks=[huggingface.SwitchToDense(4)])
        trainer.train()
    return [record["loss"] for record in trainer.state.log_history if "loss" in record]
