"""The tokenizer of a run and of its export makes of a text what its corpus was made of, whatever it was taken from."""

import io
import json
import os
import subprocess
import sys

import pytest
from prepare_corpora import END, byte_level_bpe, json_lines, read_documents, run, texts, write
from trained_run import KEYS

sentencepiece = pytest.importorskip("sentencepiece")
tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

STEPS = {"training.steps": 1, "training.lighthouse_steps": 0, "training.batch_size": 1, "validation.interval": 0, "optimizer.warmup_steps": 0,
         "logging.sample_tokens": 0, "training.threads": 1, "data.validation_fraction": 0, "attention.topk": 4}
HARD = ("The attention", "  two leading", "a\nb", "tab\tx", "caf\u00e9 \u2014 na\u00efve \U0001f600", "x  y   z", " ", "\n\n",
        "1 2 34", "<s>", "</s> text", "\ufb01 ligature", "e\u0301", "\ud55c\uad6d \u1112\u1161\u11ab", "ships see it. ",
        "", "\uff21", "{x: 1}", "\u3000wide", "a" * 50)


def command(program, *arguments):
    result = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=300,
                            env={**os.environ, "LIGHTHOUSE_PYTHON": sys.executable})
    assert result.returncode == 0, result.stderr
    return result


def exported(lighthouse, folder, tokens, **keys):
    """A run of one step on `tokens`, and its export."""
    vocabulary = json.loads((tokens / "manifest.json").read_text())["vocab_size"]
    options = KEYS | STEPS | {"data.path": tokens / "train", "model.vocab_size": vocabulary, "logging.run_dir": folder / "run"} | keys
    command(lighthouse, "train", *(word for key, value in options.items() for word in (f"--{key}", value)))
    return folder / "run", command(lighthouse, "export", "--run", folder / "run", "--output", folder / "model", "--overwrite")


def prepared(folder, documents, tokenizer, *options):
    write(folder / "corpus.jsonl", json_lines(documents))
    result = run(folder / "corpus.jsonl", "--tokenizer", tokenizer, "--output", folder / "tokens", "--validation", 0,
                 "--processes", 1, *options)
    assert result.returncode == 0, result.stderr
    return folder / "tokens"


def piece_model(**options):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(texts(200, seed=3) + ["a < b > c / d unk"] * 20), model_writer=model, vocab_size=400,
                                             minloglevel=2, num_threads=1, **options)
    return model.getvalue()


PIECES = {"bpe": {"model_type": "bpe", "byte_fallback": True},
          "unigram": {"model_type": "unigram", "hard_vocab_limit": False, "character_coverage": 1.0},
          "llama": {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity",
                    "remove_extra_whitespaces": False}}


@pytest.mark.parametrize("family, pieces", [("llama", "bpe"), ("llama", "unigram"), ("llama", "llama"), ("qwen2", "bpe"),
                                            ("qwen3", "llama"), ("smollm3", "unigram"), ("mistral", "llama")])
def test_pieces_are_those_of_sentencepiece(lighthouse, tmp_path, family, pieces):
    model = piece_model(**PIECES[pieces])
    write(tmp_path / "my.model", model)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    documents = [text for text in (*HARD, *texts(40, seed=4)) if processor.encode(text)]  # others are left out
    tokens = prepared(tmp_path, documents, tmp_path / "my.model")
    made, _ = exported(lighthouse, tmp_path, tokens, **{"model.family": family})
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    for text, document in zip(documents, read_documents(tokens / "train")):
        assert tokenizer(text)["input_ids"] + [2] == document.tolist(), text
        if processor.unk_id() not in document:  # which sentencepiece shows as a question mark
            assert tokenizer.decode(document[:-1]) == processor.decode(document[:-1].tolist())
    assert (tokenizer.eos_token_id, tokenizer("")["input_ids"], len(tokenizer)) == (2, [], processor.vocab_size())
    assert (tmp_path / "model" / "tokenizer.model").read_bytes() == model
    for source in (["--run", made], ["--model", tmp_path / "model"]):
        written = command(lighthouse, "generate", *source, "--prompt", "ships see", "--max-tokens", 0)
        assert written.stdout == "ships see\n"


def test_pieces_without_a_tokenizer_json_are_not_exported(lighthouse, tmp_path):
    write(tmp_path / "my.model", piece_model(model_type="unigram", hard_vocab_limit=False, treat_whitespace_as_suffix=True))
    write(tmp_path / "corpus.jsonl", json_lines(texts(40, seed=4)))
    result = run(tmp_path / "corpus.jsonl", "--tokenizer", tmp_path / "my.model", "--output", tmp_path / "tokens", "--validation", 0,
                 "--processes", 1)
    assert result.returncode == 0 and "no tokenizer.json does the same (it writes spaces in another way)" in result.stderr
    _, result = exported(lighthouse, tmp_path, tmp_path / "tokens")
    assert "warning: the tokenizer is not exported" in result.stderr and "--tokenizer FOLDER" in result.stderr
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"model.safetensors", "config.json", "generation_config.json"}
    command(lighthouse, "export", "--run", tmp_path / "run", "--output", tmp_path / "model", "--overwrite", "--tokenizer",
            tmp_path / "tokens" / "tokenizer")
    assert (tmp_path / "model" / "tokenizer.model").exists()


def begin_first():
    """A tokenizer that puts <s> before each text by itself."""
    tokenizer = byte_level_bpe([END, "<s>", "<stop>"])
    tokenizer.post_processor = tokenizers.processors.Sequence([
        tokenizers.processors.ByteLevel(trim_offsets=False),
        tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])])
    return tokenizer


@pytest.mark.parametrize("begin", [None, "<s>"])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_begins_are_those_of_the_corpus(lighthouse, tmp_path, begin, family):
    begin_first().save(str(tmp_path / "tokenizer.json"))
    documents = texts(40, seed=4)
    tokens = prepared(tmp_path, documents, tmp_path / "tokenizer.json", "--end-of-text", END,
                      *(["--begin-of-text", begin] if begin else []))
    made, _ = exported(lighthouse, tmp_path, tokens, **{"model.family": family})
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    for text, document in zip(documents, read_documents(tokens / "train")):
        assert tokenizer(text)["input_ids"] + [0] == document.tolist()
    config = transformers.AutoConfig.from_pretrained(tmp_path / "model")
    assert (config.eos_token_id, config.bos_token_id) == (0, 1 if begin else None)
    for source in (["--run", made], ["--model", tmp_path / "model"]):
        written = command(lighthouse, "generate", *source, "--prompt", "ships see", "--max-tokens", 0).stdout
        assert written == ("<s>" if begin else "") + "ships see\n"


def test_settings_of_chats_are_not_carried_over(lighthouse, tmp_path):
    """Of the tokenizer, nor of the model of which the run begins."""
    model = tmp_path / "chat"
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=begin_first(), eos_token="<stop>", pad_token=END,
                                                chat_template="{{ messages }}")
    fast.save_pretrained(model)
    sizes = {"vocab_size": 400, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
             "num_key_value_heads": 1, "head_dim": 16, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    llama = transformers.AutoModelForCausalLM.from_config(transformers.LlamaConfig(**sizes))
    llama.generation_config = transformers.GenerationConfig(bos_token_id=1, eos_token_id=[2, 0], do_sample=True, temperature=0.6,
                                                            top_p=0.9, repetition_penalty=1.1)
    llama.save_pretrained(model)
    tokens = prepared(tmp_path, texts(40, seed=4), model, "--end-of-text", END)
    theirs = {"dim": 32, "ffn_dim": 48, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "head_dim": 16, "rope_theta": 10000,
              "rms_norm_eps": 1e-6}
    exported(lighthouse, tmp_path, tokens, **{"training.initial_weights": model},
             **{f"model.{key}": value for key, value in theirs.items()})
    generation = json.loads((tmp_path / "model" / "generation_config.json").read_text())
    assert generation == {"bos_token_id": None, "do_sample": True, "eos_token_id": 0, "pad_token_id": 0}
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    assert (tokenizer.chat_template, tokenizer.eos_token) == (None, END)
    assert not list((tmp_path / "model").glob("*.jinja"))
    command(lighthouse, "export", "--run", tmp_path / "run", "--output", tmp_path / "model", "--overwrite", "--tokenizer", model)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "model").chat_template == "{{ messages }}"
