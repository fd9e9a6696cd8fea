"""What follows training: generate, export and audit; and bench attention. On one small run that all tests share."""

import json

import pytest
import torch
import transformers

from trained_run import SEQ_LEN, WORDS, Trained, words


@pytest.fixture(scope="module")
def trained(lighthouse, tmp_path_factory):
    return Trained(lighthouse, tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "model"
    paths = trained("export", "--output", folder).splitlines()
    assert paths == [str(folder / name) for name in ("model.safetensors", "config.json", "generation_config.json",
                                                     "tokenizer.json", "tokenizer_config.json")]
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.rsplit("/", 1)[1] for path in paths)
    return folder


# ---- train ----------------------------------------------------------------------------------------------------------


def test_train_ends_with_losses_run_folder_and_a_sample(trained):
    lines = trained.output.splitlines()
    by_step = {line["step"]: line for line in trained.metrics()}
    report = [line["switch"] for line in by_step.values() if "switch" in line][-1]
    assert lines[0].split() == ["loss", "before", "the", "switch", "last"]
    assert lines[1].startswith("training ") and f"{report['pre_switch_loss']:.4f}" in lines[1]
    assert lines[2].split() == ["validation,", "lighthouse", f"{by_step[40]['validation_loss_lighthouse']:.4f}",
                                f"{by_step[60]['validation_loss_lighthouse']:.4f}"]
    assert lines[3].split()[:4] == ["validation,", "dense", f"{by_step[40]['validation_loss']:.4f}",
                                    f"{by_step[60]['validation_loss']:.4f}"]
    assert lines[4] == f"run folder: {trained.folder}"
    assert "sample: 64 tokens of text, then 40 of the model" in lines
    sample = trained.output.split("\n----\n")[1].removesuffix("\n")
    assert len(sample.encode()) >= 64 + 40


def test_finished_run_shows_the_same_and_adds_nothing(trained):
    before = trained.metrics()
    result = trained.run("train", *trained.options, run=False)
    assert result.returncode == 0
    lines = iter(trained.output.splitlines())  # of which only the table of speeds is missing: no step was run
    assert all(line in lines for line in result.stdout.decode().splitlines())
    assert "tokens/s" in trained.output and "tokens/s" not in result.stdout.decode()
    assert "all steps are done already" in result.stderr.decode()
    assert trained.metrics() == before


def test_resume_never_does_not_touch_a_run(trained):
    errors = trained.refusal("train", *trained.options, "--resume", "never", run=False)
    assert "the run folder holds a run already" in errors


def test_more_steps_are_another_run(trained):
    assert "training.steps (60 in the checkpoint, 70 now)" in trained.refusal(
        "train", *trained.options, "--training.steps", 70, run=False)


def test_dense_training_has_no_switch(trained, tmp_path):
    text = trained("train", *trained.options, "--logging.run_dir", tmp_path / "run", "--training.steps", 4,
                   "--training.lighthouse_steps", 0, "--logging.sample_tokens", 0, run=False)
    assert "lighthouse" not in text and "recovered" not in text and "sample" not in text


# ---- generate -------------------------------------------------------------------------------------------------------


def test_generated_text_goes_on_from_the_prompt(trained):
    text = trained("generate", "--prompt", "the light house ", "--max-tokens", 200, "--temperature", 0.5)
    assert text.startswith("the light house ") and text.endswith("\n")
    assert len(text) == len("the light house ") + 200 + 1  # in bytes of ASCII, as the corpus has
    assert set(text[:-1]) <= set(" ".join(WORDS))


def test_the_same_seed_gives_the_same_text(trained):
    def sample(*arguments):
        return trained("generate", "--prompt", "ships ", "--max-tokens", 100, *arguments)

    assert sample() == sample("--seed", 1)
    assert sample() != sample("--seed", 2)
    assert sample("--greedy") == sample("--greedy", "--seed", 2)
    # Of a nucleus this small only the likeliest token is left.
    assert sample("--greedy") == sample("--top-p", 1e-6)


def test_prompt_from_a_file(trained, tmp_path):
    (tmp_path / "prompt").write_text("far from\nland; ")
    text = trained("generate", "--prompt-file", tmp_path / "prompt", "--max-tokens", 5)
    assert text.startswith("far from\nland; ")


def test_output_is_utf_8_whatever_the_model_says(trained):
    text = trained("generate", "--prompt", "é ", "--max-tokens", 300, "--temperature", 50)
    assert text.startswith("é ")
    assert "\N{REPLACEMENT CHARACTER}" in text
    assert not [char for char in text if ord(char) < 32 and char not in "\t\n"]


def test_no_tokens_are_the_prompt_alone(trained):
    assert trained("generate", "--prompt", "sea", "--max-tokens", 0) == "sea\n"


def test_exported_model_generates_the_same(trained, exported):
    arguments = ("--prompt", "ships see ", "--max-tokens", 60, "--greedy")
    assert trained("generate", *arguments) == trained("generate", "--model", exported, *arguments, run=False)


def test_other_vocabularies_are_token_numbers(trained, foreign_model):
    text = trained("generate", "--model", foreign_model, "--prompt", "1 299", "--max-tokens", 3, run=False)
    assert text.startswith("1 299 ") and len(text.split()) == 5
    assert "vocabulary is not of bytes" in trained.refusal("generate", "--model", foreign_model, "--prompt", "hi",
                                                           run=False)
    assert "token 300" in trained.refusal("generate", "--model", foreign_model, "--prompt", "300", run=False)


WRONG_GENERATE = {
    "no prompt": ([], "--prompt"),
    "two prompts": (["--prompt", "a", "--prompt-file", "b"], "--prompt and --prompt-file: give one of them"),
    "two models": (["--prompt", "a", "--model", "b"], "--run and --model: give one of them"),
    "number beyond 64 bits": (["--prompt", "9" * 20, "--numbers"], f"as 17 4 2005: '{'9' * 20}' is beyond 64 bits\n"),
    "no number": (["--prompt", "1 b", "--numbers"], "as 17 4 2005: 'b' is none\n"),
    "temperature of 0": (["--prompt", "a", "--temperature", 0], "--temperature 0: must be a finite number above 0"),
    "negative temperature": (["--prompt", "a", "--temperature", -1], "temperature -1"),
    "top-p of 0": (["--prompt", "a", "--top-p", 0], "--top-p 0: must be"),
    "top-p above 1": (["--prompt", "a", "--top-p", 1.5], "--top-p 1.5: must be"),
    "negative length": (["--prompt", "a", "--max-tokens", -1], "--max-tokens -1: must be an integer at least 0"),
    "length that is no number": (["--prompt", "a", "--max-tokens", "many"], "--max-tokens"),
    "negative seed": (["--prompt", "a", "--seed", -1], "--seed"),
    "unknown device": (["--prompt", "a", "--device", "tpu"], "--device"),
}


@pytest.mark.parametrize("case", WRONG_GENERATE)
def test_wrong_generate_is_named(trained, case):
    arguments, part = WRONG_GENERATE[case]
    assert part in trained.refusal("generate", *arguments)


def test_missing_prompt_file_is_named(trained):
    assert "no-such-file" in trained.refusal("generate", "--prompt-file", "no-such-file")
    assert "--prompt-file" in trained.refusal("generate", "--prompt-file", "/")
    assert "no-such-model" in trained.refusal("generate", "--model", "no-such-model", "--prompt", "a", run=False)


# ---- export ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_transformers_has_the_loss_that_eval_measures(trained, exported, tmp_path):
    model = transformers.AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float64).eval()
    assert (type(model).__name__, model.config.max_position_embeddings) == ("LlamaForCausalLM", SEQ_LEN)
    text = words(200, seed=3).encode()[:5 * SEQ_LEN + 1]
    (tmp_path / "text").write_bytes(text)
    ours = json.loads(trained("eval", "--data", tmp_path / "text", "--sequences", 5, "--attention", "dense", "--json"))
    tokens = torch.tensor(list(text))
    logits = model(tokens[:-1].view(5, SEQ_LEN)).logits.flatten(0, 1)
    theirs = torch.nn.functional.cross_entropy(logits, tokens[1:]).item()
    # A mean over roundings of fp32, at most some tens in a row in a model of two layers.
    assert ours["validation_loss"] == pytest.approx(theirs, rel=100 * torch.finfo(torch.float32).eps)


TEXTS = ["hello", "é Ā <0x00> </s>\n\t  x", "日本 \U0001f642", "", " a  b ", "\0x", "line\r\nend ", "Ġ Ċ"]


def test_exported_bytes_have_a_tokenizer(exported):
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    assert len(tokenizer) == tokenizer.vocab_size == 256
    for text in TEXTS:
        assert tokenizer(text)["input_ids"] == list(text.encode())
        assert tokenizer.decode(list(text.encode())) == text
    assert tokenizer.decode(list(b"a\xffb\xe6\x97")) == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"
    config = transformers.AutoConfig.from_pretrained(exported)
    assert [tokenizer.bos_token_id, tokenizer.eos_token_id] == [config.bos_token_id, config.eos_token_id] == [0, 0]
    text = transformers.pipeline("text-generation", model=str(exported), device="cpu")(
        "the light ", max_new_tokens=20, do_sample=False)[0]["generated_text"]
    assert text.startswith("the light ") and len(text.encode()) >= 30


def test_bf16_weights_are_half_as_long(trained, exported, tmp_path):
    trained("export", "--output", tmp_path / "half", "--dtype", "bf16")
    weights = "model.safetensors"
    assert (tmp_path / "half" / weights).stat().st_size < 0.6 * (exported / weights).stat().st_size
    assert json.loads((tmp_path / "half" / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_export_does_not_overwrite_what_is_there(trained, tmp_path):
    trained("export", "--output", tmp_path / "model")
    message = trained.refusal("export", "--output", tmp_path / "model")
    assert "is not empty" in message and "--overwrite" in message
    trained("export", "--output", tmp_path / "model", "--overwrite")
    (tmp_path / "model" / "notes.txt").write_text("mine")
    assert "notes.txt" in trained.refusal("export", "--output", tmp_path / "model", "--overwrite")
    assert (tmp_path / "model" / "notes.txt").read_text() == "mine"


def test_export_leaves_folders_of_other_names_alone(trained, tmp_path):
    """It removed what was called as the folder that it replaces is for a moment."""
    (tmp_path / "model.replaced").mkdir()
    (tmp_path / "model.replaced" / "notes.txt").write_text("mine")
    (tmp_path / "model").mkdir()
    for options in ([], ["--overwrite"]):
        trained("export", "--output", tmp_path / "model", *options)
        assert (tmp_path / "model.replaced" / "notes.txt").read_text() == "mine"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model.replaced"]


def test_wrong_export_leaves_nothing(trained, tmp_path):
    (tmp_path / "file").write_text("")
    assert "is not a folder" in trained.refusal("export", "--output", tmp_path / "file")
    assert "--output" in trained.refusal("export")
    assert "--dtype" in trained.refusal("export", "--output", tmp_path / "model", "--dtype", "fp8")
    assert "not a run folder" in trained.refusal("export", "--run", tmp_path, "--output", tmp_path / "model", run=False)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# ---- audit ----------------------------------------------------------------------------------------------------------

AUDIT = ("--sequences", 3, "--changes", 2)


def test_audit_measures_held_and_free_selections(trained):
    result = json.loads(trained("audit", "--json", "--loss", "--tile-topk", "4,2", *AUDIT))
    assert (result["step"], result["seq_len"], result["sequences"], result["causal"]) == (60, SEQ_LEN, 3, True)
    held, free = result["selection_held"], result["selection_free"]
    assert all(held[name]["outputs"] > 0 and held[name]["moved"] == held[name]["max_delta"] == 0
               for name in ("one_later_token", "all_later_tokens", "replayed", "dense"))
    assert [(tile["tile_topk"], tile["tiles"], tile["tile_tokens"]) for tile in free] == [(2, 2, 32), (4, 1, SEQ_LEN)]
    assert all(0 < tile["one_later_token"]["max_distance"] < tile["tile_tokens"] for tile in free)
    assert free[1]["loss"]["by_distance_to_cut"][0]["targets"] == 3 * 2
    text = trained("audit", *AUDIT)
    assert "selection held\n" in text and "selection free, one later token changed\n" in text and "own - other" not in text


def test_audit_of_an_exported_model_takes_attention_and_text(trained, exported):
    options = ("--model", exported, "--data", trained.folder.parent / "corpus.txt", "--seq-len", SEQ_LEN,
               "--attention.topk", 3, "--attention.scorer", "dilated", *AUDIT, "--json")
    result = json.loads(trained("audit", *options, run=False))
    assert (result["model"], result["causal"], result["attention"]["scorer"]) == (str(exported), True, "dilated")
    assert [tile["tile_topk"] for tile in result["selection_free"]] == [3]


WRONG_AUDIT = {
    "dense layers only": (["--attention.full_attention_layers", "0,1"], "name all 2 layers"),
    "nothing to select": (["--seq-len", 16], "16 tokens gather"),
    "gates that are not there": (["--attention.scorer", "gla"], "gates"),
    "one sequence": (["--sequences", 1], "--sequences 1"),
    "a tile of nothing": (["--tile-topk", "4,0"], "--tile-topk"),
    "unknown key": (["--attention.top", 4], "did you mean --attention.topk?"),
    "two models": (["--model", "x"], "--run and --model: give one of them"),
}


@pytest.mark.parametrize("case", WRONG_AUDIT)
def test_wrong_audit_is_named(trained, case):
    arguments, part = WRONG_AUDIT[case]
    assert part in trained.refusal("audit", *arguments)


def test_audit_of_a_model_needs_text(trained, exported):
    assert "--data" in trained.refusal("audit", "--model", exported, run=False)


# ---- bench ----------------------------------------------------------------------------------------------------------

BENCH = ("--seq-len", "256,128", "--head-dim", 16, "--seconds", 0.01, "--check")


def test_bench_prints_a_table_and_writes_json_lines(trained, tmp_path):
    text = trained("bench attention", *BENCH, "--output", tmp_path / "results.jsonl", run=False)
    assert "growth of forward+backward" in text and "128 to 256" in text
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert all(line["commit"] and line["what"] for line in lines)
    measured = [line for line in lines if "median_ms" in line]  # the others say from where on ours is faster
    assert {line["seq_len"] for line in measured} == {128, 256}
    assert all(line["median_ms"] >= 0 for line in measured)


def test_bench_takes_the_device_that_train_would_and_says_what_it_does(trained):
    result = trained.run("bench attention", *BENCH, run=False)
    assert result.returncode == 0
    device = "cuda" if torch.cuda.is_available() else "cpu"
    assert f"causal attention, {device} " in result.stdout.decode()
    assert [line.split(",")[0] for line in result.stderr.decode().splitlines()] == ["case 1 of 2: N=128", "case 2 of 2: N=256"]


WRONG_BENCH = {
    "unknown device": (["--device", "tpu"], "--device"),
    "unknown dtype": (["--dtype", "int8"], "--dtype"),
    "unknown scorer": (["--scorer", "best"], "--scorer"),
    "pooling factor of 3": (["--pooling-factor", 3], "3"),
    "nine levels": (["--num-levels", 9], "9"),
    "heads that do not divide": (["--num-kv-heads", 3], "num_kv_heads 3"),
    "length of 0": (["--seq-len", 0], "--seq-len 0: must be an integer at least 1"),
    "no time": (["--seconds", 0], "--seconds 0: must be"),
    "unwritable results": (["--output", "/no/such/folder/results.jsonl"], "/no/such/folder"),
    "a folder for results": (["--output", "/tmp"], "--output /tmp: is there and not a file"),
}


@pytest.mark.parametrize("case", WRONG_BENCH)
def test_wrong_bench_is_named(trained, case):
    arguments, part = WRONG_BENCH[case]
    message = trained.refusal("bench attention", *arguments, run=False)
    assert part in message and "case 1" not in message, "before anything is measured"
