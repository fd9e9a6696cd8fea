"""transformers: layers that do not exist, values of other kinds, and inputs that do not fit are refused in words; what is taken is kept in
plain Python, as JSON has it."""

import json

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers", minversion="5")
from huggingface_models import SIZES, logits_of, make, tokens  # noqa: E402
from lighthouse_attention import huggingface  # noqa: E402

TWO_LAYERS = "the model has 2 layers, 0 to 1"
LAYERS = {  # the layers: what the message must say
    "behind the last": ([0, 9], ["has layer 9", TWO_LAYERS]),
    "negative": ([-1], ["has layer -1", TWO_LAYERS]),
    "a text": ("1", ["is '1'; it must be a list of layers"]),
    "a number": (0, ["is 0; it must be a list of layers"]),
    "nothing": (None, ["is None; it must be a list of layers"]),
    "a fraction": ([0.5], ["a layer of", "is 0.5; it must be an integer"]),
    "a name": (["a"], ["is 'a'; it must be an integer"]),
    "a boolean": ([True], ["is True; it must be an integer"]),
    "an array of floats": (np.array([0.0]), ["it must be an integer"]),
    "a matrix": (np.array([[0]]), ["it must be a list of layers"]),
}
OPTIONS = {f"{option}, {what}": ({option: value, **more}, ["prepare: ", option, *words]) for what, (value, words) in LAYERS.items()
           for option, more in (("full_attention_layers", {}), ("window_layers", dict(span=5)))} | {
    "layers behind the last": (dict(layers={9: dict(topk=4)}), ["prepare: layers has layer 9", TWO_LAYERS]),
    "layers, negative": (dict(layers={-1: dict(topk=4)}), ["prepare: layers has layer -1", TWO_LAYERS]),
    "layers by name": (dict(layers={"first": dict(topk=4)}), ["a layer of layers is 'first'; it must be an integer"]),
    "layers, a list": (dict(layers=[dict(topk=4)]), ["prepare: layers is [", "{layer index: {option: value}}"]),
    "layers, numbers": (dict(layers={0: 4}), ["prepare: layers is {0: 4}", "{layer index: {option: value}}"]),
    "topk": (dict(topk=True), ["prepare: topk is True; it must be an integer"]),
    "topk of a layer": (dict(layers={0: dict(topk="a")}), ["prepare: topk is 'a'; it must be an integer"]),
    "cover_prefix": (dict(cover_prefix="x"), ["prepare: cover_prefix is 'x'; it must be True or False"]),
    "packed": (dict(packed=None), ["prepare: packed is None; it must be True or False"]),
    "span": (dict(window_layers=[0], span="a"), ["prepare: span is 'a'; it must be an integer"]),
}


def refused(call, *parts):
    with pytest.raises(ValueError) as error:
        call()
    assert all(part in str(error.value) for part in parts), error.value


@pytest.mark.parametrize(("options", "parts"), OPTIONS.values(), ids=OPTIONS)
def test_options(options, parts):
    for model in (make(), make().config):
        refused(lambda: huggingface.prepare(model, **options), *parts)
        assert not getattr(getattr(model, "config", model), "lighthouse", None)


def test_layers_count_once():
    model = huggingface.prepare(make(), full_attention_layers=[1, 1], topk=4)
    assert model.config.lighthouse["full_attention_layers"] == [1]


PLAIN = [dict(topk=np.int64(4)), dict(topk=torch.tensor(4)), dict(tile_topk=np.int32(64), dilation=np.uint8(2)),
         dict(cover_prefix=np.bool_(False)), dict(packed=np.bool_(False)), dict(full_attention_layers=np.array([1])),
         dict(full_attention_layers=torch.tensor([1])), dict(full_attention_layers=range(1)),
         dict(window_layers=(np.int64(0),), span=np.int64(4)),
         dict(layers={np.int64(0): dict(topk=np.int64(3), scorer=np.str_("dilated"))})]


@pytest.mark.parametrize("options", PLAIN, ids=str)
def test_values_of_any_kind_are_saved(options, tmp_path):
    model = huggingface.prepare(make(), **(dict(topk=4) | options))
    model.save_pretrained(tmp_path)
    kept = json.loads((tmp_path / "config.json").read_text())["lighthouse"]
    assert kept == model.config.lighthouse
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="lighthouse")
    assert torch.equal(logits_of(again, input_ids=tokens()), logits_of(model, input_ids=tokens()))


CONFIGURED = {
    "a number": (5, ["lighthouse: config.lighthouse is a int; it must be a dictionary"]),
    "a list": ([], ["lighthouse: config.lighthouse is a list"]),
    "an unknown option": (dict(topk=4, top_k=4), ["config.lighthouse has the option 'top_k'; options are topk"]),
    "topk": (dict(topk="a"), ["lighthouse: topk is 'a'; it must be an integer"]),
    "a layer": (dict(full_attention_layers=[-1]), ["full_attention_layers has layer -1; layers are numbered from 0 on"]),
}


@pytest.mark.parametrize(("value", "parts"), CONFIGURED.values(), ids=CONFIGURED)
def test_options_of_a_configuration(value, parts, tmp_path):
    """When the model is built; or when it is called, where they came after. Another attention does not look at them."""
    config = transformers.LlamaConfig(**SIZES, lighthouse=value)
    refused(lambda: transformers.AutoModelForCausalLM.from_config(config, attn_implementation="lighthouse"), *parts)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    logits_of(model, input_ids=tokens())
    if value != CONFIGURED["a layer"][0] and value != CONFIGURED["topk"][0]:
        model.set_attn_implementation("lighthouse")
        refused(lambda: logits_of(model, input_ids=tokens()), *parts)


def test_what_is_no_model():
    for model in (None, "folder", torch.nn.Linear(2, 2)):
        refused(lambda: huggingface.prepare(model), f"prepare: model is a {type(model).__name__}; it must be a model of transformers")
    refused(lambda: huggingface.SwitchToDense(3, 5), "SwitchToDense: a int is given beside the step")


@pytest.mark.parametrize("step", ["a", None, 1.5, True])
def test_steps(step):
    refused(lambda: huggingface.SwitchToDense(step), f"SwitchToDense: step is {step!r}; it must be an integer")


INPUTS = {
    "a longer mask": (dict(attention_mask=torch.ones(2, 129)), ["attention_mask is [2, 129]; it must be [2, 128]"]),
    "a shorter mask": (dict(attention_mask=torch.ones(2, 127)), ["attention_mask is [2, 127]; it must be [2, 128]"]),
    "a mask of fractions": (dict(attention_mask=torch.full((2, 128), 0.5)), ["attention_mask has values that are no integers"]),
    "a mask of large fractions": (dict(attention_mask=torch.full((2, 128), 1.5)), ["attention_mask has values that are no integers"]),
    "a mask that is no number": (dict(attention_mask=torch.full((2, 128), torch.nan)), ["attention_mask has values that are no integers"]),
    "an array as mask": (dict(attention_mask=np.ones((2, 128))), ["attention_mask is a ndarray; it must be a tensor"]),
    "a list as mask": (dict(attention_mask=[[1] * 128] * 2), ["attention_mask is a list; it must be a tensor"]),
    "a shorter seq_idx": (dict(seq_idx=torch.zeros(2, 127)), ["seq_idx is [2, 127]; it must be [2, 128]"]),
    "an array as seq_idx": (dict(seq_idx=np.zeros((2, 128))), ["seq_idx is a ndarray; it must be a tensor"]),
    "offsets of floats": (dict(cu_seq_lens_q=torch.tensor([0.0, 128.0, 256.0])), ["an offset of cu_seq_lens_q is 0.0", "an integer"]),
    "a matrix of offsets": (dict(cu_seq_lens_q=torch.tensor([[0, 128, 256]])), ["cu_seq_lens_q is of shape [1, 3]", "1-dimensional"]),
}


@pytest.mark.parametrize(("inputs", "parts"), INPUTS.values(), ids=INPUTS)
def test_inputs(inputs, parts):
    refused(lambda: logits_of(make(), input_ids=tokens(), **inputs), "lighthouse: ", *parts)


# Meta tensors have shapes, and no values to read documents from.


def test_meta_tensors():
    """transformers itself reads position_ids where there is no cache."""
    model, row = huggingface.prepare(make(), topk=4).to("meta"), tokens().to("meta")
    refused(lambda: model(input_ids=row), "input_ids is on meta", "prepare(model, packed=False)")
    huggingface.prepare(model, packed=False)
    model(input_ids=row, labels=row).loss.backward()
    assert all(parameter.grad.shape == parameter.shape for parameter in model.parameters())
    refused(lambda: model(input_ids=row, attention_mask=row), "attention_mask is on meta", "leave out attention_mask")


def test_windows_compile_into_one_graph():
    torch.compiler.reset()
    model = huggingface.prepare(make(), topk=4, window_layers=[1], span=5, packed=False)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert torch.equal(logits_of(compiled, input_ids=tokens()), logits_of(model, input_ids=tokens()))
