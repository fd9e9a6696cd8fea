"""trl, where it is installed: a reference that the trainer loads, the switch, and rows that end in padding."""

import copy
import math
import uuid

import pytest
import torch

transformers = pytest.importorskip("transformers", minversion="5")
trl = pytest.importorskip("trl", reason="trl is not installed")
datasets = pytest.importorskip("datasets")
pytest.importorskip("peft")
import trainer_context_cases  # noqa: E402
from huggingface_models import MODELS, ONE_TILE, make  # noqa: E402
from lighthouse_attention import huggingface  # noqa: E402
from ranks import run_ranks  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402

ARGUMENTS = dict(max_steps=4, report_to=[], use_cpu=True, bf16=False, logging_steps=1)


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    """datasets pickles what it is given to name its cache."""
    monkeypatch.setattr(datasets.fingerprint.Hasher, "hash", staticmethod(lambda value: uuid.uuid4().hex))


@pytest.fixture
def base(request, tmp_path):
    """(folder, tokenizer) of a model that knows nothing of lighthouse."""
    letters = {chr(97 + index): 3 + index for index in range(26)}
    tokenizer = Tokenizer(models.WordLevel({"<pad>": 0, "<bos>": 1, "<eos>": 2} | letters, unk_token="<eos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")
    tokenizer.save_pretrained(tmp_path / "base")
    make(request.param, "sdpa").save_pretrained(tmp_path / "base")
    return tmp_path / "base", tokenizer


def word(length, seed):
    return "".join(chr(97 + index) for index in torch.randint(26, (length,), generator=torch.Generator().manual_seed(seed)).tolist())


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="lighthouse", dtype=torch.float32)


def losses(trainer):
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("way", ["loaded again", "deepcopy", "configuration", "folder"])
@pytest.mark.parametrize("base", MODELS, indirect=True)
def test_dpo_begins_at_ln_2_and_stays_there(base, way, tmp_path):
    """At a rate of nothing, through the switch; prompts and answers of uneven lengths."""
    folder, tokenizer = base
    rows = [dict(prompt=word(40 + 3 * seed, seed), chosen=word(20 + 5 * seed, seed + 50), rejected=word(90 - 4 * seed, seed + 99))
            for seed in range(8)]
    if way == "folder":
        huggingface.prepare(transformers.AutoConfig.from_pretrained(folder), **ONE_TILE).save_pretrained(folder)
    model = huggingface.prepare(load(folder), **({} if way == "folder" else ONE_TILE))
    own = dict(model_init_kwargs=dict(config=model.config)) if way == "configuration" else {}
    arguments = trl.DPOConfig(tmp_path, learning_rate=1e-12, per_device_train_batch_size=4, gradient_checkpointing=True, **ARGUMENTS, **own)
    trainer = trl.DPOTrainer(model, copy.deepcopy(model) if way == "deepcopy" else None, args=arguments,
                             train_dataset=datasets.Dataset.from_list(rows), processing_class=tokenizer)
    trainer.add_callback(huggingface.SwitchToDense(2, trainer.ref_model))
    assert losses(trainer) == pytest.approx([math.log(2)] * 4, abs=1e-6)
    assert model.config._attn_implementation == trainer.ref_model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("packing", [dict(), dict(packing=True, packing_strategy="wrapped"), dict(packing=True, packing_strategy="bfd")],
                         ids=["none", "wrapped", "bfd"])
@pytest.mark.parametrize("base", ["qwen3"], indirect=True)
def test_sft(base, packing, tmp_path):
    folder, tokenizer = base
    rows = datasets.Dataset.from_list([dict(text=word(40 + 17 * seed, seed)) for seed in range(12)])
    arguments = trl.SFTConfig(tmp_path, max_length=256, per_device_train_batch_size=2, learning_rate=1e-2, **ARGUMENTS, **packing)
    trainer = trl.SFTTrainer(huggingface.prepare(load(folder), **ONE_TILE), args=arguments, train_dataset=rows, processing_class=tokenizer)
    assert all(map(math.isfinite, losses(trainer)))


def test_ranks_share_packed_rows():
    """Losses of two ranks are those of one process, with DDP and with FSDP2."""
    names = ["sft", "sft-fsdp2"]
    [alone] = run_ranks(1, trainer_context_cases.run, names[:1])
    assert len(alone["sft"]) == trainer_context_cases.STEPS
    for rank in run_ranks(2, trainer_context_cases.run, names):
        for name in names:
            assert rank[name] == pytest.approx(alone["sft"], rel=1e-6)
