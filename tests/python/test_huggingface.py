"""transformers: tiny decoders train in both stages; what is refused; checkpoints to and from C++."""

import json
import subprocess

import pytest
import torch
import torch._dynamo.testing

transformers = pytest.importorskip("transformers", minversion="5")
from huggingface_models import MODELS, POSITIONS, SIZES, logits_of, make, other, tokens, warnings_of  # noqa: E402
from lighthouse_attention import huggingface, lighthouse_attention, switch_to_dense, token_scores  # noqa: E402

@pytest.mark.parametrize("kind", MODELS)
def test_trains_in_both_stages(kind):
    model = huggingface.prepare(make(kind), topk=4, num_levels=2, full_attention_layers=[1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for step in range(40):
        if step == 20:
            assert switch_to_dense(model) == 1 and model.config._attn_implementation == "sdpa"
        loss = model(input_ids=tokens(seed=step), labels=tokens(seed=step)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert all(torch.isfinite(torch.tensor(losses)))
    assert losses[19] < 0.9 * losses[0] and losses[39] < 0.9 * losses[19], losses
    dense = make(kind, "sdpa")
    dense.load_state_dict(model.state_dict())
    assert torch.equal(logits_of(model, input_ids=tokens()), logits_of(dense, input_ids=tokens()))


@pytest.mark.parametrize("kind", MODELS)
def test_one_level_is_dense(kind):
    """With one level every token is a row: the logits of "sdpa", to roundings of fp32."""
    lighthouse, dense = huggingface.prepare(make(kind), num_levels=1), make(kind, "sdpa")
    exact = logits_of(make(kind, "eager").double(), input_ids=tokens())
    theirs = (logits_of(dense, input_ids=tokens()) - exact).abs().max()
    assert (logits_of(lighthouse, input_ids=tokens()) - exact).abs().max() <= 2 * theirs + 1e-6


@pytest.mark.parametrize("kind", MODELS)
def test_windows_between_lighthouse_layers(kind, tmp_path):
    """Those of transformers' own sliding window, in a layer of the model's."""
    model = huggingface.prepare(make(kind), topk=4, window_layers=[1], span=5)
    model.save_pretrained(tmp_path)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="lighthouse")
    assert torch.equal(logits_of(again, input_ids=tokens()), logits_of(model, input_ids=tokens()))

    windows = huggingface.prepare(make(kind).double(), window_layers=[0, 1], span=5)
    mask = torch.ones(tokens().shape[1], tokens().shape[1]).tril().triu(-4).bool()[None, None]
    theirs = logits_of(make(kind, "sdpa").double(), input_ids=tokens(), attention_mask=mask)
    torch.testing.assert_close(logits_of(windows, input_ids=tokens()), theirs)
    switch_to_dense(windows)
    assert torch.equal(logits_of(windows, input_ids=tokens()), logits_of(make(kind, "sdpa").double(), input_ids=tokens()))


@pytest.mark.parametrize(("options", "words"), [
    (dict(window_layers=[1]), "span is None and window_layers are .1.; give both or neither"), (dict(span=5), "give both or neither"),
    (dict(window_layers=[1], span=0), "span is 0; it must be at least 1"),
    (dict(window_layers=[1], span=5, full_attention_layers=[0, 1]), "layer 1 is in full_attention_layers and in window_layers")])
def test_windows_that_are_refused(options, words):
    model = make("llama")
    with pytest.raises(ValueError, match=words):
        huggingface.prepare(model, **options)
    assert not getattr(model.config, "lighthouse", None)


OTHERS = {"Gemma": {}, "Gemma3Text": {}, "GPTNeoX": {}, "Granite": {}, "Mixtral": {}, "Olmo2": {}, "OPT": dict(word_embed_proj_dim=64),
          "Phi3": {}, "Qwen2": {}, "SmolLM3": {}, "Qwen3Moe": dict(num_experts=4, num_experts_per_tok=2)}


@pytest.mark.parametrize("name", OTHERS)
def test_other_decoders(name):
    model = huggingface.prepare(other(name, **OTHERS[name]), topk=4)
    model(input_ids=tokens(), labels=tokens(), use_cache=False).loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None)


@pytest.mark.parametrize(("name", "what"), [("Gemma2", "softcap"), ("GptOss", "s_aux")])
def test_decoders_that_need_more_than_stock_attention_are_refused(name, what):
    config = getattr(transformers, f"{name}Config")(**SIZES)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="lighthouse")
    with pytest.raises(ValueError, match=f"{name}Attention uses {what}.*use 'eager'"):
        model(input_ids=tokens())


def test_attention_is_that_of_the_function(monkeypatch):
    calls = []

    def record(q, k, v, **options):
        calls.append(options)
        return lighthouse_attention(q, k, v, **options)

    monkeypatch.setattr(huggingface, "lighthouse_attention", record)
    model = huggingface.prepare(make(num_hidden_layers=4), topk=5, pooling_factor=2, full_attention_layers=[0],
                                layers={2: dict(topk=9, scorer="dilated")})
    logits_of(model, input_ids=tokens())
    assert [call["topk"] for call in calls] == [5, 9, 5]
    assert [call["scorer"] for call in calls] == ["norm", "dilated", "norm"]
    assert all(call["softmax_scale"] == 0.25 for call in calls)


def test_without_prepare_topk_is_a_64th():
    prepared, plain = huggingface.prepare(make(), topk=2), make()
    assert torch.equal(logits_of(prepared, input_ids=tokens()), logits_of(plain, input_ids=tokens()))


def test_options_survive_a_checkpoint(tmp_path):
    model = huggingface.prepare(make(), topk=4, num_levels=2, layers={1: dict(topk=8)})
    model.save_pretrained(tmp_path)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="lighthouse")
    assert torch.equal(logits_of(again, input_ids=tokens()), logits_of(model, input_ids=tokens()))


# QK-norm.


def test_qk_norm_scores_what_goes_into_the_norm(monkeypatch):
    model = huggingface.prepare(make("qwen3"), topk=4)
    layer = model.model.layers[0].self_attn
    x = torch.randn(2, 128, 64)
    seen = []

    def record(q, k, v, *, scores, **options):
        seen.append(scores)
        return lighthouse_attention(q, k, v, scores=scores, **options)

    monkeypatch.setattr(huggingface, "lighthouse_attention", record)
    with torch.no_grad():
        layer(x, position_embeddings=(torch.ones(1, 128, 16), torch.zeros(1, 128, 16)), attention_mask=None)
        q, k, v = (projection(x).unflatten(-1, (-1, 16)) for projection in (layer.q_proj, layer.k_proj, layer.v_proj))
    assert all(map(torch.equal, seen[0], token_scores(q, k, v)))


def test_qk_norm_warns_where_it_is_not_prepared(monkeypatch):
    plain = make("qwen3", "sdpa")  # and never asked for lighthouse while it was built
    plain.set_attn_implementation("lighthouse")
    messages = warnings_of(lambda: logits_of(plain, input_ids=tokens()), monkeypatch)
    assert "has QK-norm" in messages[0] and "prepare(model)" in messages[0]
    assert not warnings_of(lambda: logits_of(make("qwen3"), input_ids=tokens()), monkeypatch)
    assert not warnings_of(lambda: logits_of(huggingface.prepare(plain), input_ids=tokens()), monkeypatch)
    assert not warnings_of(lambda: logits_of(make(), input_ids=tokens()), monkeypatch)


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_gradient_checkpointing_selects_the_same(kind):
    gradients = []
    for checkpointing in (False, True):
        model = huggingface.prepare(make(kind), topk=4).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(input_ids=tokens(), labels=tokens(), use_cache=False).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(map(torch.equal, *gradients))


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_compiles_into_one_graph(kind):
    torch.compiler.reset()
    model = huggingface.prepare(make(kind), topk=4, packed=False)
    expected = logits_of(model, input_ids=tokens())
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert torch.equal(logits_of(compiled, input_ids=tokens()), expected)
    with pytest.raises(ValueError, match="packed=False"):
        model(input_ids=tokens(1), position_ids=POSITIONS, use_cache=False)


def test_compiles_into_one_graph_for_all_lengths():
    """k is N / 64 rounded up, a symbol of the graph as N is."""
    torch.compiler.reset()
    model = huggingface.prepare(make(), packed=False)
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=True)
    counts = []
    for seq_len in (512, 300, 777):
        row = torch.randint(model.config.vocab_size, (1, seq_len))
        gradients = []
        for each in (model, compiled):
            each(input_ids=row, labels=row, use_cache=False).loss.backward()
            gradients.append([parameter.grad for parameter in model.parameters()])
            model.zero_grad()
        assert all(map(torch.equal, *gradients))
        counts.append(counter.frame_count)
    assert len(set(counts)) == 1  # torch begins anew for the scale of the attention, and counts that


# What is refused.


def padded():
    mask = torch.ones(2, 128, dtype=torch.long)
    mask[0, :3] = 0
    return mask


REFUSED = {
    "padding": (dict(), dict(attention_mask=padded()), ["hides 3 of 256 tokens", "padding_side", "DataCollatorWithFlattening"]),
    "dense": (dict(), dict(attention_mask=torch.ones(2, 1, 128, 128, dtype=torch.bool).tril()),
              ["dense attention_mask of shape [2, 1, 128, 128]", "position_ids"]),
    "window": (dict(kind="mistral", sliding_window=100), dict(), ["sliding window of 100", "row has 128"]),
    "dropout": (dict(attention_dropout=0.1), dict(), ["attention dropout 0.1", "config.attention_dropout = 0"]),
}


@pytest.mark.parametrize(("sizes", "inputs", "parts"), REFUSED.values(), ids=REFUSED)
def test_refuses(sizes, inputs, parts):
    model = make(**sizes).train()
    with pytest.raises(ValueError) as error:
        model(input_ids=tokens(), **inputs)
    assert all(part in str(error.value) for part in parts), error.value


def test_a_mask_that_hides_nothing_is_taken():
    model = make()
    assert torch.equal(logits_of(model, input_ids=tokens(), attention_mask=torch.ones(2, 128)),
                       logits_of(model, input_ids=tokens()))


def test_generation_is_dense():
    model = make()
    with pytest.raises(ValueError, match="set_attn_implementation"):
        model.generate(tokens(1, 20), max_new_tokens=3, do_sample=False)
    model.set_attn_implementation("sdpa")
    assert model.generate(tokens(1, 20), max_new_tokens=3, do_sample=False).shape[1] > 20


def test_wrong_options():
    for options, message in [(dict(topk=0), "topk is 0"), (dict(scorer="gla"), "scorer is 'gla'.*norm or dilated"),
                             (dict(layers={0: dict(k=3)}), "option 'k'; options are topk"),
                             (dict(top_k=3), "no option 'top_k'; options are topk"),
                             (dict(layers={0: dict(num_levels=9)}), "num_levels is 9")]:
        with pytest.raises(ValueError, match=message):
            huggingface.prepare(make(), **options)


# The switch, and checkpoints.


def test_callback_is_a_function_of_the_step():
    callback, model = huggingface.SwitchToDense(3), make()
    for step in range(6):
        callback.on_step_begin(None, transformers.TrainerState(global_step=step), None, model=model)
        assert model.config._attn_implementation == ("lighthouse" if step < 3 else "sdpa")
    resumed = make()
    callback.on_step_begin(None, transformers.TrainerState(global_step=5), None, model=resumed)
    assert resumed.config._attn_implementation == "sdpa"
    with pytest.raises(ValueError, match="step is -1"):
        huggingface.SwitchToDense(-1)


def test_callback_in_the_trainer(tmp_path):
    pytest.importorskip("accelerate", reason="transformers.Trainer needs accelerate")
    seen = []

    class Record(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            seen.append(model.config._attn_implementation)

    rows = [dict(input_ids=row, labels=row) for row in tokens(8)]
    arguments = transformers.TrainingArguments(tmp_path, max_steps=4, per_device_train_batch_size=2, report_to=[], use_cpu=True)
    transformers.Trainer(make(), arguments, train_dataset=rows, callbacks=[huggingface.SwitchToDense(2), Record()]).train()
    assert seen == ["lighthouse"] * 2 + ["sdpa"] * 2


def run(program, *arguments):
    subprocess.run([program, *map(str, arguments)], check=True, timeout=300)


def test_a_model_of_the_cpp_trainer_goes_on_here(export_fixture, tmp_path):
    """Its exported folder trains with "lighthouse", and its dense logits are those of test_export.py."""
    run(export_fixture, "make", tmp_path, "fp32", "model.vocab_size=97", "model.dim=64", "model.num_layers=2",
        "model.num_heads=4", "model.num_kv_heads=2", "model.head_dim=16", "model.ffn_dim=96")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "exported", attn_implementation="lighthouse")
    before = model(input_ids=tokens(), labels=tokens()).loss
    before.backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    assert model(input_ids=tokens(), labels=tokens()).loss < before


def test_a_model_trained_here_is_read_by_the_cpp_library(export_fixture, tmp_path):
    from safetensors.torch import load_file
    model = huggingface.prepare(make(), topk=4)
    model(input_ids=tokens(), labels=tokens()).loss.backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    model.save_pretrained(tmp_path / "model")
    assert "lighthouse" in json.loads((tmp_path / "model" / "config.json").read_text())
    run(export_fixture, "load", tmp_path / "model", tmp_path / "outputs.safetensors")
    outputs = load_file(tmp_path / "outputs.safetensors")
    switch_to_dense(model)
    expected = logits_of(model, input_ids=outputs["tokens"])
    exact = logits_of(model.double(), input_ids=outputs["tokens"])
    bound = 2 * (expected - exact).abs().max() + 1e-6
    assert (outputs["logits"] - exact).abs().max() <= bound
