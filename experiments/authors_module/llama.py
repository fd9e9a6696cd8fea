"""A plain Llama in PyTorch, trained as `lighthouse train` trains: same weights, batches, precision, AdamW and rate."""
import json

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

MASK = 2**64 - 1


def mix(value):
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def shuffled(size, seed, epoch=0):
    """The order in which the trainer visits `size` sequences (src/data/shuffle.h)."""
    key = mix(mix(seed) ^ epoch)
    half_bits = max((size.bit_length() + 1) // 2, 4)
    mask = (1 << half_bits) - 1

    def permute(value):
        left, right = value >> half_bits, value & mask
        for step in range(6):
            left, right = right, left ^ (mix(key ^ mix(step << 32 ^ right)) & mask)
        return left << half_bits | right

    order = []
    for index in range(size):
        value = permute(index)
        while value >= size:
            value = permute(value)
        order.append(value)
    return order


class Llama:
    """Parameters are fp32, products and attention in `dtype`; norms, RoPE and loss are computed in fp32.

    `attention(q, k, v)`: [B, N, H, d] three times -> [B, N, H, d].
    """

    def __init__(self, folder, attention, dtype, device):
        self.config = json.loads((folder / "config.json").read_text())
        self.attention, self.dtype = attention, dtype
        self.parameters = {name: tensor.to(device).requires_grad_()
                           for name, tensor in load_file(folder / "model.safetensors").items()}

    def product(self, x, name):
        return F.linear(x, self.parameters[name + ".weight"].to(self.dtype))

    def norm(self, x, name):
        weight = self.parameters[name + ".weight"]
        return F.rms_norm(x.float(), weight.shape, weight, self.config["rms_norm_eps"]).to(self.dtype)

    def rotated(self, x, cos, sin):
        first, second = x.float().chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(self.dtype)

    def rotation(self, length, device):
        """Cosine and sine, [N, 1, d / 2]."""
        head_dim = self.config["head_dim"]
        theta = (self.config.get("rope_parameters") or self.config)["rope_theta"]
        exponents = torch.arange(0, head_dim, 2, device=device).float() / head_dim
        angles = torch.arange(length, device=device).float()[:, None] * torch.pow(theta, exponents).reciprocal()
        return angles.cos()[:, None], angles.sin()[:, None]

    def loss(self, tokens, targets):
        """Mean cross-entropy in nats of targets [B, N] given tokens [B, N]."""
        rotation = self.rotation(tokens.shape[1], tokens.device)
        x = F.embedding(tokens, self.parameters["model.embed_tokens.weight"].to(self.dtype))
        for layer in range(self.config["num_hidden_layers"]):
            name = f"model.layers.{layer}."
            normed = self.norm(x, name + "input_layernorm")
            q, k, v = (self.product(normed, f"{name}self_attn.{part}_proj").unflatten(-1, (-1, self.config["head_dim"]))
                       for part in "qkv")
            out = self.attention(self.rotated(q, *rotation), self.rotated(k, *rotation), v)
            x = x + self.product(out.flatten(2), name + "self_attn.o_proj")
            normed = self.norm(x, name + "post_attention_layernorm")
            gated = F.silu(self.product(normed, name + "mlp.gate_proj")) * self.product(normed, name + "mlp.up_proj")
            x = x + self.product(gated, name + "mlp.down_proj")
        logits = self.product(self.norm(x, "model.norm"), "lm_head").float()
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def train(model, text, config, device):
    """The loss of every step of stage one over bytes `text`. `config` is the trainer's, as config.toml has it."""
    training, optimizer = config["training"], config["optimizer"]
    seq_len, steps, clip = training["seq_len"], training["steps"], optimizer["clip_norm"]
    order = shuffled((len(text) - 1) // seq_len, config["data"]["seed"])
    stream = torch.frombuffer(bytearray(text), dtype=torch.uint8).long().to(device)
    parameters = list(model.parameters.values())
    adam = torch.optim.AdamW(
        [{"params": [p for p in parameters if p.dim() >= 2], "weight_decay": optimizer["weight_decay"]},
         {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0}],
        betas=(optimizer["beta1"], optimizer["beta2"]), eps=optimizer["eps"], fused=True)
    losses = []
    for step in range(steps):
        begin = order[step] * seq_len
        tokens, targets = stream[None, begin:begin + seq_len], stream[None, begin + 1:begin + seq_len + 1]
        loss = model.loss(tokens, targets)
        loss.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters]).item()
        for group in adam.param_groups:
            group["lr"] = optimizer["learning_rate"] * min(1.0, (step + 1) / max(optimizer["warmup_steps"], 1))
        if norm > clip:
            torch._foreach_mul_([p.grad for p in parameters], clip / norm)
        adam.step()
        adam.zero_grad()
        losses.append(loss.item())
    return losses
