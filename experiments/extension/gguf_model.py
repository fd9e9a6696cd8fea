"""A Llama model of a GGUF file as a folder of transformers. Needs the package gguf, numpy and safetensors."""

import json

import gguf
import numpy
from safetensors.numpy import save_file

NAMES = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj",
         "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
OUTER_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
SPECIAL = 3  # gguf.TokenType.CONTROL


def write_model(file, folder):
    reader = gguf.GGUFReader(file)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    if fields["general.architecture"] != "llama":
        raise ValueError(f"'{file}': architecture {fields['general.architecture']}; llama is read")
    tensors = dict(converted(tensor, fields) for tensor in reader.tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    for name, content in (("config.json", config(fields, "lm_head.weight" not in tensors)), ("tokenizer.json", tokenizer(fields)),
                          ("tokenizer_config.json", tokenizer_config(fields)),
                          ("generation_config.json", special_ids(fields))):
        (folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def converted(tensor, fields):
    """Name and fp32 values. GGUF has the rows of q and k in the order that turns neighbours, transformers turns halves."""
    stem, _, kind = tensor.name.rpartition(".")
    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
    if not stem.startswith("blk."):
        return f"{OUTER_NAMES[stem]}.{kind}", values
    _, layer, part = stem.split(".")
    if part in ("attn_q", "attn_k"):
        heads = fields["llama.attention.head_count" + ("_kv" if part == "attn_k" else "")]
        rows, columns = values.shape
        values = values.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
    return f"model.layers.{layer}.{NAMES[part]}.{kind}", numpy.ascontiguousarray(values)


def special_ids(fields):
    return {f"{name}_token_id": fields[f"tokenizer.ggml.{'padding' if name == 'pad' else name}_token_id"]
            for name in ("bos", "eos", "pad")}


def config(fields, tied):
    heads = fields["llama.attention.head_count"]
    epsilon = fields["llama.attention.layer_norm_rms_epsilon"]
    return special_ids(fields) | {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float32", "hidden_act": "silu",
        "vocab_size": len(fields["tokenizer.ggml.tokens"]), "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"], "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": heads, "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "head_dim": fields["llama.embedding_length"] // heads, "max_position_embeddings": fields["llama.context_length"],
        "rms_norm_eps": float(str(numpy.float32(epsilon))), "rope_theta": fields["llama.rope.freq_base"],
        "tie_word_embeddings": tied, "attention_bias": False, "mlp_bias": False}


def tokenizer(fields):
    """That of SmolLM2: byte-level BPE whose digits stand alone."""
    if (fields["tokenizer.ggml.model"], fields["tokenizer.ggml.pre"]) != ("gpt2", "smollm"):
        raise ValueError(f"tokenizer {fields['tokenizer.ggml.model']}, {fields['tokenizer.ggml.pre']}; gpt2, smollm is read")
    tokens = fields["tokenizer.ggml.tokens"]
    special = [{"id": number, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
                "special": True}
               for number, (token, kind) in enumerate(zip(tokens, fields["tokenizer.ggml.token_type"], strict=True)) if kind == SPECIAL]
    bytes_of = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, bytes_of]},
            "post_processor": None, "decoder": bytes_of,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                      "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                      "vocab": {token: number for number, token in enumerate(tokens)},
                      "merges": [merge.split(" ") for merge in fields["tokenizer.ggml.merges"]]}}


def tokenizer_config(fields):
    tokens = fields["tokenizer.ggml.tokens"]
    return {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
            "model_max_length": fields["llama.context_length"], "chat_template": fields["tokenizer.chat_template"]} | {
        f"{name}_token": tokens[number] for name, number in ((key.removesuffix("_token_id"), value)
                                                             for key, value in special_ids(fields).items())}
