"""Runs whose stage 1 has a control in place of Lighthouse Attention (attention.method), as a user makes them."""

import json

import pytest

from trained_run import SEQ_LEN, Trained

METHODS = {"short": 16, "window": 12}


@pytest.fixture(scope="module", params=METHODS)
def trained(request, lighthouse, tmp_path_factory):
    return Trained(lighthouse, tmp_path_factory.mktemp(request.param), **{
        "attention.method": request.param, "attention.span": METHODS[request.param], "training.steps": 12,
        "training.lighthouse_steps": 8, "training.batch_size": 2, "validation.interval": 4, "logging.sample_tokens": 0})


def method_of(trained):
    return trained.options[trained.options.index("--attention.method") + 1]


def test_it_is_validated_with_dense_attention_alone(trained):
    assert [line["stage"] for line in trained.metrics()] == [1] * 8 + [2] * 4
    assert all(line.get("validation_loss_lighthouse") is None for line in trained.metrics())
    assert trained.metrics()[-1]["validation_loss"] > 0
    assert "validation, dense" in trained.output and "validation, lighthouse" not in trained.output
    assert f"stage 1 {method_of(trained)}" in trained.output


def test_it_is_evaluated_with_dense_attention_alone(trained):
    result = json.loads(trained("eval", "--sequences", 2, "--json"))
    assert result["validation_loss"] == trained.metrics()[-1]["validation_loss"]
    assert list(result["tasks"]["loss"]) == ["dense"]
    assert json.loads(trained("eval", "--seq-len", SEQ_LEN // 2 + 1, "--json"))["validation_loss"] > 0
    for attention in ("lighthouse", "both"):
        assert f'attention.method = "{method_of(trained)}"' in trained.refusal("eval", "--attention", attention)


def test_nothing_of_it_can_be_audited(trained):
    assert f'attention.method = "{method_of(trained)}" selects nothing' in trained.refusal("audit")


def test_a_plan_counts_fewer_pairs_in_stage_1(trained):
    stages = json.loads(trained("plan", "--config", trained.folder / "config.toml", "--json", run=False))["stages"]
    assert [stage["attention"] for stage in stages] == [method_of(trained), "dense"]
    assert stages[0]["flops"] < stages[1]["flops"]
    assert stages[0]["memory_bytes"]["kept"] == stages[1]["memory_bytes"]["kept"]


def test_documents_can_be_packed(lighthouse, tmp_path):
    for method, span in METHODS.items():
        (tmp_path / method).mkdir()
        run = Trained(lighthouse, tmp_path / method, **{
            "attention.method": method, "attention.span": span, "data.packing": "documents",
            "data.validation_fraction": 0, "training.steps": 3, "training.lighthouse_steps": 2, "training.batch_size": 1,
            "logging.sample_tokens": 0})
        assert len(run.metrics()) == 3


def test_windows_stand_between_lighthouse_layers(lighthouse, tmp_path):
    run = Trained(lighthouse, tmp_path, **{
        "attention.window_layers": 0, "attention.span": 12, "training.steps": 12, "training.lighthouse_steps": 8,
        "training.batch_size": 2, "validation.interval": 4, "logging.sample_tokens": 0})
    validated = [line for line in run.metrics() if line.get("validation_loss") is not None]
    assert all(line["validation_loss_lighthouse"] > 0 for line in validated)
    assert list(json.loads(run("eval", "--sequences", 2, "--json"))["tasks"]["loss"]) == ["dense", "lighthouse"]
    assert "in 1 of 2 layers" in run("audit", "--sequences", 2)
