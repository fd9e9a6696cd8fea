"""lighthouse eval as a user runs it. What the numbers are is checked by tests/cpp/eval."""

import json
import math
import resource
import shutil

import pytest
from safetensors.numpy import load_file, save_file

from trained_run import SEQ_LEN, Trained, words

PROMPTS = ("--lengths", "256,320", "--trials", 7)


@pytest.fixture(scope="module")
def trained(lighthouse, tmp_path_factory):
    return Trained(lighthouse, tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "model"
    trained("export", "--output", folder)
    return folder


def result_of(trained, *arguments, **options):
    return json.loads(trained("eval", *arguments, "--json", **options))


# ---- losses ---------------------------------------------------------------------------------------------------------


def test_eval_measures_what_training_did(trained):
    result = result_of(trained, "--sequences", 2)
    assert (result["format"], result["run"], result["step"], result["stage"]) == (1, str(trained.folder), 60, 2)
    assert (result["seq_len"], result["sequences"], result["targets"]) == (SEQ_LEN, 2, 2 * SEQ_LEN)
    assert result["validation_loss"] == trained.metrics()[-1]["validation_loss"]
    assert result["validation_loss_lighthouse"] > 0
    text = trained("eval", "--sequences", 2)
    assert f"dense       {result['validation_loss']:.4f} nats" in text
    assert f"perplexity {math.exp(result['validation_loss_lighthouse']):.3f}" in text


def test_sample_is_spread_and_seeded(trained):
    def indices(*arguments):
        result = result_of(trained, "--sequences", 8, "--attention", "dense", *arguments)
        assert (result["corpus"]["sequences"], result["bytes_per_token"]) == (8, 1)
        available = result["corpus"]["available"]
        sample = [sequence["index"] for sequence in result["tasks"]["loss"]["dense"]["sequences"]]
        assert all(8 * index // available in (part - 1, part, part + 1) for part, index in enumerate(sample))
        return sample

    assert indices() == indices("--seed", 1) != indices("--seed", 2)


def test_all_fields_of_losses(trained):
    result = result_of(trained, "--task", "loss,position", "--context", 16, "--sequences", 5)
    assert list(result["tasks"]) == ["loss", "position", "context"]
    for attention in ("dense", "lighthouse"):
        loss, buckets = result["tasks"]["loss"][attention], result["tasks"]["position"][attention]
        assert loss["bits_per_byte"] == pytest.approx(loss["loss"] / math.log(2))
        assert loss["standard_error"] > 0 and loss["targets"] == 5 * SEQ_LEN
        assert [(bucket["begin"], bucket["end"]) for bucket in buckets] == [(0, 64)]
        assert buckets[0]["loss"] == pytest.approx(loss["loss"])
    context = result["tasks"]["context"]
    assert (context["length"], context["targets"]) == (16, 5 * (SEQ_LEN - 16))
    assert context["difference"] == pytest.approx(context["limited"] - context["full"])


def test_eval_of_one_attention(trained):
    assert "validation_loss_lighthouse" not in result_of(trained, "--attention", "dense")
    result = result_of(trained, "--attention", "lighthouse")
    assert "validation_loss" not in result and list(result["tasks"]["loss"]) == ["lighthouse"]


def test_eval_on_other_text_and_sizes(trained, tmp_path):
    (tmp_path / "other.txt").write_text(words(500, seed=2))
    tokens = (tmp_path / "other.txt").stat().st_size
    result = result_of(trained, "--data", tmp_path / "other.txt", "--sequences", 1000)
    assert result["targets"] == (tokens - 1) // SEQ_LEN * SEQ_LEN
    assert result["corpus"]["path"] == str(tmp_path / "other.txt")
    longer = result_of(trained, "--seq-len", 256, "--sequences", 1, "--task", "loss", "--task", "position")
    assert longer["targets"] == 256
    assert [bucket["end"] for bucket in longer["tasks"]["position"]["dense"]] == [64, 128, 256]


def test_exported_model_has_the_loss_of_its_run(trained, exported, tmp_path):
    (tmp_path / "text").write_text(words(300, seed=4))
    text = ("--data", tmp_path / "text")
    run = result_of(trained, *text, "--attention", "dense")
    model = result_of(trained, "--model", exported, *text, "--seq-len", SEQ_LEN, run=False)
    assert model["validation_loss"] == run["validation_loss"]
    assert model["corpus"] == run["corpus"]
    assert (model["model"], model["step"], model["stage"]) == (str(exported), None, None)
    assert "model" in trained("eval", "--model", exported, *text, "--seq-len", SEQ_LEN, run=False)


def test_other_content_of_the_same_size_is_noticed(trained, tmp_path):
    corpus = tmp_path / "corpus.txt"
    run = Trained(trained.program, tmp_path, **{"training.steps": 2, "training.lighthouse_steps": 1,
                                                "optimizer.warmup_steps": 0, "logging.sample_tokens": 0})
    run("eval", "--sequences", 1)
    corpus.write_bytes(corpus.read_bytes().swapcase())
    errors = run.refusal("eval")
    assert str(corpus) in errors and "not the same bytes" in errors and "--data" in errors
    assert "not the same bytes" in run.refusal("train", *run.options, run=False)
    assert "not the same bytes" in run.refusal("audit", "--sequences", 2)
    run("eval", "--data", corpus, "--sequences", 1)
    corpus.write_bytes(corpus.read_bytes()[1:])
    assert f'"{corpus.name}" has {corpus.stat().st_size} bytes instead of {corpus.stat().st_size + 1}' in run.refusal("eval")


# ---- prompts --------------------------------------------------------------------------------------------------------


def test_what_is_not_finite_is_no_right_answer(trained, tmp_path):
    trained("export", "--output", tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    result = json.loads(trained("eval", "--model", tmp_path / "model", "--task", "passkey", "--lengths", 256, "--trials", 20, "--json", run=False))
    [length] = result["tasks"]["passkey"]["lengths"]
    assert (length["correct"], length["trials"], length["log_probability"]) == (0, 20, None)


def test_all_fields_of_synthetic_tasks(trained):
    result = result_of(trained, "--task", "passkey,multikey", "--task", "copy", *PROMPTS)
    assert "corpus" not in result and "validation_loss" not in result
    for name in ("passkey", "multikey"):
        task = result["tasks"][name]
        assert [length["length"] for length in task["lengths"]] == [256, 320]
        assert [cell["depth"] for cell in task["cells"][:7]] == [0, 0.15, 0.3, 0.5, 0.7, 0.85, 1]
        for cell in task["cells"] + task["lengths"]:
            low, high = cell["interval"]
            assert low <= cell["accuracy"] == cell["correct"] / cell["trials"] <= high
            assert cell["log_probability"] < 0
    assert result["tasks"]["multikey"]["keys"] == 4
    assert [cell["distance"] for cell in result["tasks"]["copy"]["cells"]] == [192, 256]
    assert result["tasks"]["copy"]["chance_bits"] == 4
    assert result == result_of(trained, "--task", "passkey,multikey,copy", *PROMPTS)
    text = trained("eval", "--task", "passkey,copy", *PROMPTS)
    assert "passkey: right digits by depth" in text and "bits a byte" in text


def test_what_is_given_twice_is_measured_once(trained):
    result = result_of(trained, "--task", "passkey,passkey", "--lengths", "320,256,320", "--depths", "50,0,50", "--trials", 4)
    assert [(cell["length"], cell["depth"]) for cell in result["tasks"]["passkey"]["cells"]] == [(320, 0.5), (320, 0), (256, 0.5), (256, 0)]


def test_prompts_filled_from_the_corpus(trained):
    result = result_of(trained, "--task", "copy", "--filler", "corpus", *PROMPTS)
    assert result["corpus"]["available"] > 0
    assert result["tasks"]["copy"] != result_of(trained, "--task", "copy", *PROMPTS)["tasks"]["copy"]


def test_show_prints_prompts_without_a_model(trained):
    text = trained("eval", "--task", "passkey", "--show", 1, "--lengths", 300, run=False)
    assert text.startswith("Somewhere in this text is a pass key.") and text.count("[answer: ") == 1
    lines = trained("eval", "--task", "multikey,copy", "--show", 2, "--lengths", 400, "--json", run=False).splitlines()
    prompts = [json.loads(line) for line in lines]
    assert [prompt["task"] for prompt in prompts] == ["multikey"] * 2 + ["copy"] * 2
    assert all(len(prompt["text"] + prompt["answer"]) == 401 for prompt in prompts)
    assert all(prompt["answer"] in prompt["text"] for prompt in prompts)
    assert "house" in trained("eval", "--task", "copy", "--show", 1, "--lengths", 300, "--filler", "corpus")


# ---- wrong use ------------------------------------------------------------------------------------------------------

WRONG_EVAL = {
    "unknown attention": (["--attention", "sparse"], "--attention"),
    "no sequences": (["--sequences", 0], "--sequences 0"),
    "empty sequences": (["--seq-len", 0], "--seq-len 0: must be an integer from 1"),
    "missing corpus": (["--data", "/no/such/corpus"], "/no/such/corpus"),
    "too short a corpus": (["--seq-len", 1 << 20], "tokens"),
    "unknown task": (["--task", "paskey"], "did you mean passkey?"),
    "context as long as the sequence": (["--context", SEQ_LEN], f"--context {SEQ_LEN}"),
    "no context": (["--context", 0], "--context 0"),
    "prompts that are too short": (["--task", "passkey", "--lengths", 30], "at least"),
    "negative length": (["--task", "copy", "--lengths", -1], "--lengths -1"),
    "depth above all": (["--task", "passkey", "--depths", "50,101"], "--depths 101"),
    "no trials": (["--task", "passkey", "--trials", 0], "--trials 0"),
    "one key": (["--task", "multikey", "--keys", 1, *PROMPTS], "2 to 10"),
    "prompts of no task": (["--lengths", 512], "--task passkey"),
    "corpus that no task reads": (["--task", "passkey", "--data", "x"], "--filler corpus"),
    "synthetic with Lighthouse": (["--task", "copy", "--attention", "lighthouse"], "dense"),
    "nothing to show": (["--show", 1], "--task passkey"),
    "run and model": (["--model", "x"], "--run and --model: give one of them"),
}


@pytest.mark.parametrize("case", WRONG_EVAL)
def test_wrong_eval_is_named(trained, case):
    arguments, part = WRONG_EVAL[case]
    assert part in trained.refusal("eval", *arguments)


def test_wrong_models_are_named(trained, exported, tmp_path):
    def refusal(*arguments, **options):
        return trained.refusal("eval", *arguments, run=False, **options)

    model = ("--model", exported)
    assert "--run RUN" in refusal()
    assert "--data PATH" in refusal(*model)
    assert "--seq-len" in refusal(*model, "--data", "x")
    assert "--seq-len" in refusal(*model, "--task", "passkey")
    assert "no options of Lighthouse" in refusal(*model, "--data", "x", "--seq-len", 8, "--attention", "both")
    assert "not a run folder" in refusal("--run", tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text(trained.config())
    assert "no checkpoint" in refusal("--run", tmp_path / "run")


def test_vocabulary_of_no_bytes(trained, foreign_model):
    assert "the model has 300 tokens and no tokenizer" in trained.refusal("eval", "--model", foreign_model, "--task", "passkey",
                                                          *PROMPTS, run=False)


def test_out_of_memory_is_explained(trained):
    def little():  # for data; libraries do not count
        resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))

    errors = trained.refusal("eval", "--task", "passkey", "--lengths", 1 << 23, "--trials", 1, exit_code=1,
                             preexec_fn=little)
    assert "out of memory in task passkey" in errors and "--lengths" in errors


def test_damaged_checkpoint_is_named_and_the_one_before_taken(trained, tmp_path):
    shutil.copytree(trained.folder, tmp_path / "run")
    older, newest = sorted((tmp_path / "run" / "checkpoints").glob("step-*"))
    (newest / "model.safetensors").write_bytes((newest / "model.safetensors").read_bytes()[:-1])
    result = trained.run("eval", "--run", tmp_path / "run", "--json", run=False)
    assert result.returncode == 0
    assert json.loads(result.stdout)["step"] == int(older.name.removeprefix("step-"))
    assert newest.name in result.stderr.decode() and "model.safetensors" in result.stderr.decode()
    (older / "model.safetensors").unlink()
    result = trained.run("eval", "--run", tmp_path / "run", run=False)
    assert result.returncode == 1 and b"model.safetensors" in result.stderr
