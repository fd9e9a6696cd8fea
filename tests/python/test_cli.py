"""The program as a user meets it: exit codes, messages, --help, --print-config, completion."""

import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from conftest import LIGHTHOUSE, ROOT

COMMANDS = ["train", "launch", "eval", "audit", "generate", "export", "bench", "init", "plan", "info", "completion"]

pytestmark = pytest.mark.usefixtures("lighthouse")


def run(*arguments, **options):
    return subprocess.run([LIGHTHOUSE, *map(str, arguments)], capture_output=True, text=True, timeout=300, **options)


def check_refused(result, *parts, exit_code=2):
    """A refusal is one line on standard error that starts with the command's name, and nothing on standard output."""
    assert result.returncode == exit_code, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("lighthouse")
    assert result.stderr.count("\n") == 1, result.stderr
    for part in parts:
        assert part in result.stderr


def print_config(*arguments):
    result = run("train", *arguments, "--print-config")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


@pytest.mark.parametrize("command", [[], *[[name] for name in COMMANDS], ["bench", "attention"], ["completion", "zsh"]],
                         ids=lambda command: "-".join(command) or "lighthouse")
def test_help_of_every_command(command):
    result = run(*command, "--help")
    assert result.returncode == 0
    assert result.stderr == ""
    assert "Usage: " + " ".join(["lighthouse", *command]) in result.stdout
    assert "--help" in result.stdout


@pytest.mark.parametrize("command", [*[[name] for name in COMMANDS], ["bench", "attention"]], ids=lambda command: "-".join(command))
def test_every_command_has_examples_that_are_read(command):
    text = run(*command, "--help").stdout
    examples = [line.split("#")[0].replace("source <(", "").replace(")", "").split("|")[0]
                for line in text.split("Examples:\n")[1].splitlines() if "lighthouse" in line]
    assert examples
    for example in examples:
        program, *words = shlex.split(example)
        assert program == "lighthouse" and words[: len(command)] == command
        if command == ["launch"]:  # the rest is train's
            words = words[: words.index("train")]
        for option in (word for word in words if word.startswith("--")):
            assert re.search(rf"^  {re.escape(option)}\b", text, re.MULTILINE), option


def test_help_has_one_style():
    for command in [*[[name] for name in COMMANDS], ["bench", "attention"]]:
        text = run(*command, "--help").stdout
        for word in (" INT ", " FLOAT ", " TEXT [", " INT [", " FLOAT [", "REQUIRED"):
            assert word not in text, (command, word)
    assert "SDPA at S" in run("bench", "attention", "--help").stdout


def test_top_level_help_lists_the_commands_and_exit_codes():
    text = run("--help").stdout
    for command in COMMANDS:
        assert f"\n  {command} " in text
    assert "0 done, 1 failed, 2 wrong usage" in text


def test_train_help_lists_every_key():
    text = run("train", "--help").stdout
    for section, keys in tomllib.loads(print_config()).items():
        for key in keys:
            assert f"\n  --{section}.{key} " in text


def test_version():
    result = run("--version")
    assert (result.returncode, result.stdout.split()[0]) == (0, "lighthouse")


@pytest.mark.parametrize("config", ["quick.toml", "paper.toml"])
def test_printed_configuration_reads_back_as_the_same(config, tmp_path):
    first = print_config("--config", ROOT / "configs" / config)
    assert tomllib.loads(first)["training"]["seq_len"] in (4096, 98304)
    copy = tmp_path / "copy.toml"
    copy.write_text(first)
    assert print_config("--config", copy) == first


def test_printed_configuration_is_resolved():
    text = print_config("--training.steps=500", "--model.dim", "64", "--model.preset", "paper", "--data.path=a=b",
                        "--attention.full_attention_layers", "0,1,28,29", "--data.extensions=")
    config = tomllib.loads(text)
    assert config["training"]["steps"] == 500
    assert (config["model"]["dim"], config["model"]["num_layers"]) == (64, 30)
    assert config["data"]["path"] == "a=b"
    assert config["data"]["extensions"] == []
    assert config["attention"]["full_attention_layers"] == [0, 1, 28, 29]


def test_the_last_of_a_repeated_option_counts():
    config = tomllib.loads(print_config("--training.seed", "3", "--training.seed", "4"))
    assert config["training"]["seed"] == 4


WRONG_USAGE = {
    "no command": ([], ["lighthouse: no command given"]),
    "unknown command": (["trian"], ["trian: unknown command; did you mean train?"]),
    "no command below": (["completion"], ["lighthouse completion: no command given"]),
    "unknown command below": (["completion", "bsh"], ["did you mean bash?"]),
    "unknown option": (["info", "--jsn"], ["lighthouse info: --jsn: unknown option; did you mean --json?"]),
    "unknown short option": (["-x"], ["-x: unknown option"]),
    "stray argument": (["train", "corpus.txt"], ["corpus.txt: unexpected argument", "lighthouse train --help"]),
    "misspelt key": (["train", "--model.num_head", "3"], ["--model.num_head: ", "did you mean --model.num_heads?"]),
    "key without section": (["train", "--steps", "3"], ["did you mean --training.steps?"]),
    "key of another section": (["train", "--model.steps", "3"], ["did you mean --training.steps?"]),
    "value missing": (["train", "--training.steps"], ["--training.steps: needs a value"]),
    "value empty": (["train", "--training.steps="], ['--training.steps "": must be an integer at least 1']),
    "value of another type": (["train", "--training.steps", "ten"], ["--training.steps ten: must be an integer"]),
    "value out of range": (["train", "--model.num_heads=0"], ["--model.num_heads 0", "from 1 to 4096"]),
    "negative value": (["train", "--training.seed", "-1"], ["--training.seed -1: must be an integer at least 0"]),
    "keys that do not fit": (["train", "--model.num_kv_heads", "3"], ["model.num_heads = 4", "model.num_kv_heads = 3"]),
    "no corpus": (["train"], ["data.path", "--data.path"]),
    "missing corpus": (["train", "--data.path", "/no/such/corpus"], ["/no/such/corpus"]),
    "missing configuration": (["train", "--config", "no-such.toml"], ["no-such.toml", "No such file"]),
    "folder as configuration": (["train", "--config", "/"], ["/: is a folder"]),
    "unknown resume": (["train", "--resume", "maybe"], ["--resume", "auto", "never"]),
    "eval of nothing": (["eval"], ["--run"]),
    "eval of no run": (["eval", "--run", "/no/such/run"], ["/no/such/run"]),
    "generate from nothing": (["generate"], ["--run"]),
    "generate from no run": (["generate", "--run", "/no/such/run", "--prompt", "x"], ["/no/such/run"]),
    "plan of a wrong value": (["plan", "--training.recompute", "ful"], ["--training.recompute ful: ", "mean full?"]),
    "plan of keys that do not fit": (["plan", "--training.offload=true"], ["training.offload", 'recompute = "full"']),
    "plan with a wrong file": (["plan", "--config", "no-such.toml"], ["lighthouse plan: no-such.toml"]),
    "plan for an unknown device": (["plan", "--device", "h300"], ["--device h300: not known", "h200, h100"]),
    "plan without the memory": (["plan", "--device", "a100"], ["--device a100: give its memory", "--memory 80"]),
    "plan for no memory": (["plan", "--device", "h200", "--memory", "0"], ["--memory"]),
    "plan with half of a data sheet": (["plan", "--device", "h200", "--device-tflops", "900"], ["--device-bandwidth"]),
    "plan of too few levels": (["plan", "--attention.num_levels", "0"], ["--attention.num_levels 0", "from 1 to 8"]),
    "export of nothing": (["export"], ["--run"]),
    "key beyond 64 bits": (["train", "--training.seed", "9" * 20], [f"--training.seed {'9' * 20}: must be an integer at least 0",
                                                                    "at most 9223372036854775807"]),
    "repeated option": (["generate", "--run", "a", "--run", "b"], ["lighthouse generate: --run: is given twice; give it once"]),
    "corpus of another option": (["eval", "--model", "m", "--data", "d", "--seq-len", "-4"], ["--seq-len -4: must be an integer"]),
    "empty configuration": (["train", "--config", ""], ['--config "": must be the name of a file']),
    "empty profile": (["train", "--profile="], ['--profile "": must be the name of a file']),
    "empty run": (["eval", "--run", ""], ['--run "": must be the name of a folder']),
    "empty corpus": (["eval", "--model", "m", "--data", ""], ['--data "": must be the name of a file or a folder']),
    "empty output": (["export", "--run", "r", "--output", ""], ['--output "": must be the name of a folder']),
    "options behind --": (["train", "--", "--training.steps", "4"], ["--training.steps: stands behind --"]),
    "two models to measure": (["eval", "--run", "r", "--model", "m"], ["--run and --model: give one of them"]),
    "eval of no model": (["eval", "--model", "no-such", "--data", "d", "--seq-len", "16"],
                         ["--model: 'no-such' is no folder with a config.json"]),
    "audit of no model": (["audit", "--model", "no-such", "--data", "d"], ["--model: 'no-such' is no folder with a config.json"]),
    "missing validation": (["train", "--data.path", __file__, "--data.validation_path", "no-such"],
                           ["no-such", "set data.validation_path to"]),
    "control characters": (["trian\x1b[31m\x07\x9b"], ["trian\ufffd[31m\ufffd\ufffd: unknown command"]),
}

# tests/cpp/cli/number_option_test.cpp has what each of them refuses.
NUMBERS = {
    "generate --seed -1": "must be an integer at least 0",
    "generate --temperature nan": "must be a finite number above 0",
    "eval --lengths 10,0x10": "must be an integer from 1 to 1073741824",
    "eval --depths 50,101": "must be a finite number from 0 to 100",
    "audit --tile-topk 0": "must be an integer at least 1",
    "bench attention --seq-len 99999999999999999999": "must be an integer at least 1 and at most 9223372036854775807",
    "plan --memory -5": "must be a finite number above 0 and at most 1000000",
    "plan --world-size 0": "must be an integer from 1 to 1048576",
    "launch --processes 1025 train": "must be an integer from 1 to 1024",
}


@pytest.mark.parametrize("words", NUMBERS)
def test_numbers_are_refused_in_one_way(words):
    option, value = words.removesuffix(" train").split()[-2:]
    check_refused(run(*words.split()), f"{option} {value.split(',')[-1]}: {NUMBERS[words]}")


@pytest.mark.parametrize("path", ["a pipe", "/dev/zero", "/dev/urandom"])
def test_a_configuration_without_an_end_is_refused(path, tmp_path):
    os.mkfifo(tmp_path / "a pipe")
    check_refused(run("train", "--config", path, cwd=tmp_path), f"{path}: is no regular file")
    (tmp_path / "long.toml").write_text("#" * (1 << 20) + "\n")
    check_refused(run("plan", "--config", "long.toml", cwd=tmp_path), "long.toml: has 1048577 bytes", "at most 1048576")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_pipes_in_the_place_of_a_model_are_refused(name, tmp_path):
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_text('{"model_type": "llama"')
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    check_refused(run("train", "--data.path", tmp_path / name), "is neither a file nor a folder")
    if name == "config.json":
        check_refused(run("generate", "--model", tmp_path, "--prompt", "a"), "config.json' is not a regular file", exit_code=1)
    else:
        result = run("generate", "--model", tmp_path, "--prompt", "a")
        check_refused(result, "config.json: not JSON: parse error at line 1", exit_code=1)
        assert "json.exception" not in result.stderr


def model_folder(folder):
    config = {"model_type": "llama", "vocab_size": 256, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
              "num_attention_heads": 1}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_eval_and_audit_speak_of_their_own_options(tmp_path):
    result = run("audit", "--model", model_folder(tmp_path), "--data", "/no/such/corpus", "--seq-len", 8)
    assert result.returncode != 0 and "data.path" not in result.stderr


@pytest.mark.parametrize("words", ["eval --seq-len 8 --data d", "audit --seq-len 8 --data d", "generate --prompt a",
                                   "bench attention"])
def test_commands_speak_of_their_own_device(words, tmp_path):
    if json.loads(run("info", "--json").stdout)["cuda"]["devices"]:
        pytest.skip("there is a GPU, which is not refused")
    model = [] if words.startswith("bench") else ["--model", model_folder(tmp_path)]
    result = run(*words.split(), *model, "--device", "cuda")
    check_refused(result, "--device cuda: this build has no CUDA or the machine no GPU")
    assert "training.device" not in result.stderr


# Tables within one another ended the program when they were destroyed.
DEEP = {"key": "a" + ".a" * 520_000 + " = 1", "header": "[a" + ".a" * 500_000 + "]", "spaces": "a" + " . a" * 200_000 + "=1",
        "list": "[model]\ndim = " + "[" * 100_000, "table": "[model]\ndim = " + "{a=" * 100_000}


@pytest.mark.parametrize("name", DEEP)
def test_a_deep_configuration_is_refused(name, tmp_path):
    (tmp_path / "config.toml").write_text(DEEP[name])
    check_refused(run("plan", "--config", "config.toml", cwd=tmp_path), "config.toml:", "more than 32")
    result = run("generate", "--run", tmp_path, "--prompt", "a")
    check_refused(result, "config.toml:", "more than 32")
    assert len(result.stderr) < 1000


def test_long_names_do_not_flood_the_terminal(tmp_path):
    (tmp_path / "c.toml").write_text("[model]\n" + "x" * 900_000 + " = 1\n")
    result = run("plan", "--config", "c.toml", cwd=tmp_path)
    check_refused(result, "c.toml:2: model.xxx", "unknown key")
    assert len(result.stderr) < 1000
    result = run("train", "--training.steps", "9" * 100_000)
    assert result.returncode == 2 and len(result.stderr) < 20_000


@pytest.mark.parametrize("case", WRONG_USAGE)
def test_wrong_usage_is_named(case, tmp_path):
    arguments, parts = WRONG_USAGE[case]
    check_refused(run(*arguments, cwd=tmp_path), *parts)
    assert list(tmp_path.iterdir()) == [], "a refused command left files behind"


def test_control_characters_of_a_key_do_not_reach_the_terminal(tmp_path):
    (tmp_path / "c.toml").write_text('[model]\n"d\\u001b[31m\\n" = 3\n')
    check_refused(run("train", "--config", "c.toml", cwd=tmp_path), 'c.toml:2: model."d\\u001b[31m\\u000a": unknown key')


def test_wrong_file_is_named_with_its_line(tmp_path):
    (tmp_path / "small.toml").write_text("[model]\ndim = 64\nnum_head = 4\n")
    result = run("train", "--config", "small.toml", cwd=tmp_path)
    check_refused(result, "lighthouse train: small.toml:3: model.num_head: unknown key; did you mean model.num_heads?")


def test_info_names_what_is_there():
    info = json.loads(run("info", "--json").stdout)
    assert info["torch"].startswith("2.")
    assert info["cuda"]["devices"] or info["cuda"]["why_not"]
    assert bool(info["cuda"]["architectures"]) == info["cuda"]["compiled"]
    assert set(info["attention"]["kernels"]) == {"bfloat16", "float16", "float32"}
    text = run("info").stdout
    assert "torch" in text and "llama3-8b" in text


def test_a_reader_that_leaves_is_not_a_crash():
    result = subprocess.run(f"'{LIGHTHOUSE}' train --help | true; exit ${{PIPESTATUS[0]}}", shell=True,
                            executable="/bin/bash", capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written_is_a_failure():
    with open("/dev/full", "w") as full:
        result = subprocess.run([LIGHTHOUSE, "info"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert result.returncode == 1
    assert "cannot write to standard output" in result.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_is_valid(shell, tmp_path):
    result = run("completion", shell)
    assert result.returncode == 0
    script = tmp_path / "completion"
    script.write_text(result.stdout)
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here to read the script")
    subprocess.run([shell, "-n", script], check=True, timeout=60)


def complete_in_bash(*words):
    """The completions that bash offers for the last of the words."""
    program = (
        f"source <('{LIGHTHOUSE}' completion bash); COMP_WORDS=({' '.join(words)!s}); "
        "COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 )); _lighthouse; echo \"${COMPREPLY[@]}\""
    )
    return subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True, timeout=60).stdout.split()


def test_bash_completes_commands_options_and_values():
    assert complete_in_bash("lighthouse", "tr") == ["train"]
    assert complete_in_bash("lighthouse", "train", "--training.lig") == ["--training.lighthouse_steps"]
    assert complete_in_bash("lighthouse", "train", "--training.precision", "b") == ["bf16"]
    assert complete_in_bash("lighthouse", "train", "--config", "''") == []  # files, which bash adds itself
    assert complete_in_bash("lighthouse", "bench", "a") == ["attention"]
    assert complete_in_bash("lighthouse", "plan", "--device", "h") == ["h200", "h100"]
    assert complete_in_bash("lighthouse", "plan", "--training.recompute", "s") == ["selective"]


def test_bash_completes_after_an_equals_sign():
    """Which is a word of its own to bash."""
    assert complete_in_bash("lighthouse", "train", "--training.precision", "=", "b") == ["bf16"]
    assert complete_in_bash("lighthouse", "train", "--training.precision", "=") == ["fp32", "bf16"]
    assert complete_in_bash("lighthouse", "train", "--training.steps", "=", "t") == []


def test_bash_adds_file_names_only_where_they_are_wanted():
    """`compopt +o default` takes readline's file names away; outside of a completion it says so."""
    script = run("completion", "bash").stdout

    def takes_away(*words):
        program = (f"{script}\ncompopt() {{ echo \"compopt $*\"; }}; "
                   f"COMP_WORDS=({' '.join(words)}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 )); _lighthouse")
        return "compopt +o default" in subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True,
                                                      timeout=60).stdout

    for option in ("--training.steps", "--training.precision", "--logging.interval"):
        assert takes_away("lighthouse", "train", option, "=", "5") and takes_away("lighthouse", "train", option, "5")
    for option in ("--config", "--data.path", "--logging.run_dir", "--training.initial_weights", "--profile"):
        assert not takes_away("lighthouse", "train", option, "=", "5") and not takes_away("lighthouse", "train", option, "5")
    assert not takes_away("lighthouse", "export", "--run", "r") and not takes_away("lighthouse", "eval", "--data", "=", "r")


def test_zsh_completion_can_be_sourced_first():
    """Before compinit, which alone defines compdef."""
    text = run("completion", "zsh").stdout
    assert text.startswith("#compdef lighthouse\n")
    assert "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }" in text
    if shutil.which("zsh"):
        subprocess.run(["zsh", "-f", "-c", text], check=True, timeout=60)
