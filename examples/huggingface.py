"""Trains a causal decoder of transformers in two stages: python examples/huggingface.py --model Qwen/Qwen3-0.6B --text FILE.

Without --model a tiny Llama with random weights, over the bytes of the file."""
import argparse
import pathlib

import torch
import transformers
from lighthouse_attention import huggingface

parser = argparse.ArgumentParser()
parser.add_argument("--model", help="name or folder; its tokenizer is used")
parser.add_argument("--text", type=pathlib.Path, default=pathlib.Path(__file__))
parser.add_argument("--seq-len", type=int, default=256)
parser.add_argument("--topk", type=int, help="default: seq_len / 64")
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--stage-one", type=int, default=15, help="steps with lighthouse attention")
options = parser.parse_args()

text = options.text.read_text(errors="replace")
if options.model:
    model = transformers.AutoModelForCausalLM.from_pretrained(options.model, attn_implementation="lighthouse",
                                                              dtype=torch.bfloat16)
    tokens = torch.tensor(transformers.AutoTokenizer.from_pretrained(options.model)(text)["input_ids"])
else:
    config = transformers.LlamaConfig(vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=4,
                                      num_attention_heads=4, num_key_value_heads=2, head_dim=16)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="lighthouse")
    tokens = torch.tensor(list(text.encode()))
device = "cuda" if torch.cuda.is_available() else "cpu"
last = model.config.num_hidden_layers - 1
huggingface.prepare(model.to(device), topk=options.topk, full_attention_layers=[0, last])

rows = tokens[: len(tokens) // options.seq_len * options.seq_len].view(-1, options.seq_len)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4 if options.model else 3e-3)
for step in range(options.steps):
    if step == options.stage_one:
        model.set_attn_implementation("sdpa")
        print("stage two: dense attention")
    row = rows[step % len(rows)][None].to(device)
    loss = model(input_ids=row, labels=row, use_cache=False).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step + 1}: loss {loss.item():.3f}")
