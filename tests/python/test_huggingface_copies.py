"""A model of transformers under lighthouse holds its state in its modules and its config: what is made of it gives what it
gives, and leaves it alone."""

import copy
import gc
import io
import json
import pickle
import subprocess
import sys
import threading
import weakref

import pytest
import torch

transformers = pytest.importorskip("transformers", minversion="5")
from huggingface_models import MODELS, ONE_TILE, SIZES, logits_of, make, noise, other, prepared, warnings_of  # noqa: E402
from lighthouse_attention import huggingface, switch_to_dense  # noqa: E402


def saved(model, folder):
    model.save_pretrained(folder)
    return folder


def torch_saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def averaged(model):
    return torch.optim.swa_utils.AveragedModel(model, use_buffers=True)


def loaded(model, folder, **options):
    return transformers.AutoModelForCausalLM.from_pretrained(saved(model, folder), **options)


def switched(model, folder):
    again = loaded(model, folder)
    again.set_attn_implementation("lighthouse")
    return again


def prepared_again(model, folder):
    return huggingface.prepare(loaded(model, folder, attn_implementation="lighthouse"))


COPIES = {
    "deepcopy": lambda model, folder: copy.deepcopy(model),
    "a copy of a copy": lambda model, folder: copy.deepcopy(copy.deepcopy(model)),
    "copy": lambda model, folder: copy.copy(model),
    "pickle": lambda model, folder: pickle.loads(pickle.dumps(model)),
    "torch.save": lambda model, folder: torch_saved(model),
    "moving average": lambda model, folder: averaged(model),
    "from_pretrained": lambda model, folder: loaded(model, folder, attn_implementation=model.config._attn_implementation),
    "from_pretrained, then set_attn_implementation": switched,
    "from_pretrained, then prepare": prepared_again,
    "from_config": lambda model, folder: from_config(model),
}


def from_config(model):
    again = transformers.AutoModelForCausalLM.from_config(copy.deepcopy(model.config), attn_implementation="lighthouse")
    again.load_state_dict(model.state_dict())
    return again


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("kind", MODELS)
def test_copies_give_what_the_original_gives(kind, way, tmp_path):
    model = prepared(kind, layers={1: dict(topk=9)}).eval()
    first, second = noise(1, seed=1), noise(1, seed=2)
    expected = [logits_of(model, input_ids=row) for row in (first, second)]
    copies = [COPIES[way](model, tmp_path) for _ in range(2)]
    assert torch.equal(logits_of(copies[0], input_ids=first), expected[0])
    for _ in range(2):  # the other knows nothing of the first, nor of an earlier forward
        assert torch.equal(logits_of(copies[1], input_ids=second), expected[1])
    assert torch.equal(logits_of(model, input_ids=second), expected[1])
    huggingface.prepare(model)
    huggingface.prepare(copies[0])
    assert torch.equal(logits_of(copies[0], input_ids=second), expected[1])


def test_a_copy_has_a_life_of_its_own():
    """As the teacher, or the reference, of a model that goes on."""
    model = prepared("qwen3").eval()
    expected = logits_of(model, input_ids=noise())
    reference = copy.deepcopy(model)
    huggingface.prepare(model, topk=30, num_levels=3)
    assert not torch.equal(logits_of(model, input_ids=noise()), expected)
    switch_to_dense(model)
    assert torch.equal(logits_of(reference, input_ids=noise()), expected)
    watch = weakref.ref(model)
    del model
    gc.collect()
    assert watch() is None
    assert torch.equal(logits_of(reference, input_ids=noise()), expected)


def test_another_process_needs_no_import_of_its_own(tmp_path):
    """As spawn, Ray and torch.load do: the file brings the attention with it."""
    model = prepared("qwen3").eval()
    torch.save((model, noise(), logits_of(model, input_ids=noise())), tmp_path / "model.pt")
    program = (f"import torch; model, row, expected = torch.load({str(tmp_path / 'model.pt')!r}, weights_only=False)\n"
               "with torch.no_grad(): assert torch.allclose(model(input_ids=row, use_cache=False).logits, expected, atol=1e-5)")
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr


def test_prepare_keeps_what_it_is_not_told(tmp_path):
    model = prepared(topk=2, full_attention_layers=[1], layers={0: dict(scorer="dilated")}, packed=False)
    again = loaded(model, tmp_path, attn_implementation="lighthouse")
    options = dict(model.config.lighthouse)
    assert huggingface.prepare(again).config.lighthouse == options
    assert huggingface.prepare(again, topk=5).config.lighthouse == options | dict(topk=5)
    assert huggingface.prepare(again, topk=None, layers={}).config.lighthouse == options | dict(topk=None, layers={})


def prepared_before_the_switch(folder):
    model = huggingface.prepare(transformers.AutoModelForCausalLM.from_pretrained(folder), **ONE_TILE)
    model.set_attn_implementation("lighthouse")
    return model


def with_others_in_the_folder(folder):
    huggingface.prepare(transformers.AutoConfig.from_pretrained(folder), topk=40, num_levels=3).save_pretrained(folder)
    return huggingface.prepare(load(folder), **ONE_TILE)


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="lighthouse")


NAMED = {
    "prepared": lambda folder: huggingface.prepare(load(folder), **ONE_TILE),
    "prepared before the switch": prepared_before_the_switch,
    "prepared twice": lambda folder: huggingface.prepare(huggingface.prepare(load(folder), topk=40), **ONE_TILE),
    "others in the folder": with_others_in_the_folder,
    "copied": lambda folder: pickle.loads(pickle.dumps(copy.deepcopy(huggingface.prepare(load(folder), **ONE_TILE)))),
}


@pytest.mark.parametrize("way", NAMED)
@pytest.mark.parametrize("kind", MODELS)
def test_the_name_of_the_attention_has_the_options(kind, way, tmp_path):
    """As trl's trainers load a reference: of the model they copy config._attn_implementation, and nothing else."""
    model = NAMED[way](saved(make(kind, "sdpa"), tmp_path)).eval()
    name = model.config._attn_implementation
    assert name == "lighthouse" and json.dumps(name) == '"lighthouse"'
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation=name)
    assert torch.equal(logits_of(reference, input_ids=noise()), logits_of(model, input_ids=noise()))
    assert reference.config.lighthouse == model.config.lighthouse and reference.config.lighthouse["topk"] == ONE_TILE["topk"]
    again = loaded(reference, tmp_path / "again", attn_implementation="lighthouse")
    assert torch.equal(logits_of(again, input_ids=noise()), logits_of(model, input_ids=noise()))
    huggingface.prepare(reference, topk=9)
    assert model.config.lighthouse["topk"] == ONE_TILE["topk"]


def test_a_model_of_several_parts_has_the_options_in_its_name(tmp_path):
    text = {name: value for name, value in SIZES.items() if name != "attention_dropout"}
    vision = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, image_size=28, patch_size=14)
    config = transformers.Gemma3Config(text_config=text | dict(sliding_window=128), vision_config=vision, mm_tokens_per_image=4)
    torch.manual_seed(3)
    saved(transformers.Gemma3ForConditionalGeneration(config), tmp_path)
    lighthouse = dict(text_config="lighthouse", vision_config="eager")
    model, other = (transformers.Gemma3ForConditionalGeneration.from_pretrained(tmp_path, attn_implementation=lighthouse) for _ in range(2))
    huggingface.prepare(model, **ONE_TILE)
    assert model.config.text_config._attn_implementation.options == model.config.text_config.lighthouse
    named = dict(text_config=model.config.text_config._attn_implementation, vision_config="eager")
    reference = transformers.Gemma3ForConditionalGeneration.from_pretrained(tmp_path, attn_implementation=named)
    expected = logits_of(model.eval(), input_ids=noise())
    assert torch.equal(logits_of(reference, input_ids=noise()), expected)
    assert not torch.equal(logits_of(other.eval(), input_ids=noise()), expected)


def test_torch_compile_reads_a_plain_name():
    torch.compiler.reset()
    model = prepared("qwen3", packed=False).eval()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(3):
            assert torch.equal(logits_of(compiled, input_ids=noise()), logits_of(model, input_ids=noise()))


@pytest.mark.parametrize("kind", MODELS)
def test_options_in_a_folder_reach_who_loads_it_again(kind, tmp_path):
    """As trl's trainers do for a reference: only attn_implementation is copied."""
    folder = saved(make(kind, "sdpa"), tmp_path)
    huggingface.prepare(transformers.AutoConfig.from_pretrained(folder), **ONE_TILE).save_pretrained(folder)
    model, reference = (transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="lighthouse") for _ in range(2))
    assert torch.equal(logits_of(reference, input_ids=noise()), logits_of(model, input_ids=noise()))
    assert reference.config.lighthouse["topk"] == ONE_TILE["topk"]


def test_a_reference_without_options_is_named(monkeypatch):
    messages = warnings_of(lambda: logits_of(make().eval(), input_ids=noise()), monkeypatch)
    assert "never prepared" in messages[0] and "DPO" in messages[0]


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_threads(kind):
    """One model in several threads, and another beside it, each with rows of its own."""
    models = [prepared(kind).eval(), prepared(kind, topk=20).eval()]
    rows = [noise(1, seed=seed) for seed in range(4)]
    positions = [torch.cat([torch.arange(length) for length in (at, 128 - at)])[None] for at in (20, 40, 60, 80)]
    expected = [[logits_of(model, input_ids=row, position_ids=told) for row, told in zip(rows, positions)] for model in models]
    wrong = []

    def work(thread):
        for turn in range(12):
            which, row = turn % 2, (turn + thread) % 4
            ours = logits_of(models[which], input_ids=rows[row], position_ids=positions[row])
            if (ours - expected[which][row]).abs().max() > 1e-5:
                wrong.append((thread, turn))

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("where", ["q_norm", "k_norm", "o_proj"])
def test_an_error_in_a_forward_leaves_nothing(where):
    model = prepared("qwen3").eval()
    expected = logits_of(model, input_ids=noise(1, seed=2))
    part = getattr(model.model.layers[1].self_attn, where)

    def fail(*arguments):
        raise RuntimeError("out of memory")

    handle = part.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        logits_of(model, input_ids=noise(1, seed=1))
    handle.remove()
    copied = copy.deepcopy(model)
    assert torch.equal(logits_of(model, input_ids=noise(1, seed=2)), expected)
    assert torch.equal(logits_of(copied, input_ids=noise(1, seed=2)), expected)


@pytest.mark.parametrize("attention", ["lighthouse", "sdpa"])
def test_nothing_is_kept_after_a_forward(attention):
    model = huggingface.prepare(make("qwen3"), topk=4, full_attention_layers=[0])
    model.set_attn_implementation(attention)
    seen = []
    model.model.layers[1].self_attn.q_proj.register_forward_hook(lambda module, arguments, output: seen.append(weakref.ref(output)))
    before = {name: dict(vars(module)) for name, module in model.named_modules()}
    logits_of(model, input_ids=noise())
    assert {name: vars(module) for name, module in model.named_modules()} == before
    assert seen[0]() is None


class Wrapped(torch.nn.Module):
    """A norm within another module, as PEFT wraps those that it trains."""

    def __init__(self, norm):
        super().__init__()
        self.original, self.trained = norm, copy.deepcopy(norm)

    def forward(self, x):
        return self.trained(x)


@pytest.mark.parametrize("order", ["prepared", "wrapped"])
def test_norms_that_another_library_wraps(order):
    model = make("qwen3")
    expected = logits_of(huggingface.prepare(copy.deepcopy(model), **ONE_TILE), input_ids=noise())
    if order == "prepared":
        huggingface.prepare(model, **ONE_TILE)
    for layer in model.model.layers:
        layer.self_attn.q_norm = Wrapped(layer.self_attn.q_norm)
    if order == "wrapped":
        huggingface.prepare(model, **ONE_TILE)
    assert torch.equal(logits_of(model, input_ids=noise()), expected)


def test_lora(tmp_path):
    peft = pytest.importorskip("peft")
    model = prepared("qwen3").eval()
    expected = logits_of(model, input_ids=noise())
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "k_proj"], modules_to_save=["q_norm"])
    adapted = peft.get_peft_model(copy.deepcopy(model), config).eval()
    assert torch.equal(logits_of(adapted, input_ids=noise()), expected)
    assert torch.equal(logits_of(copy.deepcopy(adapted), input_ids=noise()), expected)
    assert torch.equal(logits_of(huggingface.prepare(adapted), input_ids=noise()), expected)
    assert switch_to_dense(adapted) == 1 and adapted.config._attn_implementation == "sdpa"


@pytest.fixture
def one_process():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("wrap", [averaged, torch.nn.parallel.DistributedDataParallel], ids=["moving average", "DistributedDataParallel"])
def test_within_wrappers(wrap, one_process):
    """They know no config."""
    expected = logits_of(prepared("qwen3").eval(), input_ids=noise())
    wrapper = wrap(make("qwen3").eval())
    assert huggingface.prepare(wrapper, **ONE_TILE) is wrapper
    assert torch.equal(logits_of(wrapper, input_ids=noise()), expected)
    assert switch_to_dense(wrapper) == 1 and wrapper.module.config._attn_implementation == "sdpa"


QK_NORMS = {"Gemma3Text": {}, "Olmo2": {}, "Qwen3Moe": dict(num_experts=4, num_experts_per_tok=2), "Persimmon": dict(qk_layernorm=True),
            "StableLm": dict(qk_layernorm=True), "Cohere": dict(use_qk_norm=True)}


@pytest.mark.parametrize("name", QK_NORMS)
def test_other_qk_norms(name, tmp_path, monkeypatch):
    """Names and shapes of norms differ: none falls back to norms after the norm, whether prepared or loaded again."""
    model = huggingface.prepare(other(name, **QK_NORMS[name]), **ONE_TILE)
    messages = warnings_of(lambda: logits_of(model, input_ids=noise()), monkeypatch)
    again = loaded(model, tmp_path, attn_implementation="lighthouse")
    messages += warnings_of(lambda: logits_of(again, input_ids=noise()), monkeypatch)
    assert not any("QK-norm" in message for message in messages)
    assert torch.equal(logits_of(again, input_ids=noise()), logits_of(model.eval(), input_ids=noise()))
