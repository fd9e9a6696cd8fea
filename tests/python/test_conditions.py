"""What the operating system does to the program: closed descriptors, limits, signals, readers that leave, narrow terminals,
folders in which runs and corpora lie together. tests/cpp/train/conditions_test.cpp has what needs no process of its own."""

import fcntl
import itertools
import json
import os
import pty
import re
import resource
import signal
import struct
import subprocess
import termios
import time

import pytest

TINY = {"model.dim": 32, "model.num_layers": 2, "model.num_heads": 2, "model.num_kv_heads": 1, "model.head_dim": 16,
        "model.ffn_dim": 48, "attention.topk": 4, "training.seq_len": 64, "training.steps": 6,
        "training.lighthouse_steps": 4, "training.device": "cpu", "training.threads": 1, "optimizer.warmup_steps": 2,
        "validation.sequences": 2, "logging.sample_tokens": 0}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "t.txt"
    path.write_text("the light house stands at sea, far from land. " * 2000)
    return path


def train_command(program, corpus, run, **keys):
    values = TINY | {"data.path": corpus, "logging.run_dir": run} | {
        key.replace("__", "."): value for key, value in keys.items()}
    return [str(program), "train", *(str(text) for key, value in values.items() for text in (f"--{key}", value))]


def run(command, **options):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120, **options)


def steps_of(folder):
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(lighthouse, corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    result = run(train_command(lighthouse, corpus, folder))
    assert result.returncode == 0, result.stderr
    return folder


# ---- descriptors ----------------------------------------------------------------------------------------------------

CLOSED = [closed for count in (1, 2, 3) for closed in itertools.combinations((0, 1, 2), count)]


def with_closed(closed, command, **options):
    redirections = " ".join(f"{descriptor}>&-" for descriptor in closed)
    return run(["bash", "-c", f'exec "$@" {redirections}', "bash", *command], **options)


@pytest.mark.parametrize("closed", CLOSED, ids=str)
def test_messages_never_get_into_files_of_a_run(lighthouse, corpus, tmp_path, closed):
    result = with_closed(closed, train_command(lighthouse, corpus, tmp_path / "run"))
    assert result.returncode == 0, result.stderr
    assert steps_of(tmp_path / "run") == list(range(1, 7))
    assert (tmp_path / "run" / "lock").read_text().isdigit()
    for path in (tmp_path / "run").iterdir():
        assert path.is_dir() or b"with Lighthouse attention, then" not in path.read_bytes(), path


def test_no_command_minds_closed_descriptors(lighthouse, corpus, trained, tmp_path):
    for words in (["eval", "--run", trained], ["generate", "--run", trained, "--prompt", "a", "--max-tokens", 3],
                  ["export", "--run", trained, "--output", tmp_path / "model"], ["info"],
                  ["plan", "--device", "h200"], ["completion", "bash"]):
        assert with_closed((0, 1, 2), [lighthouse, *words]).returncode == 0, words
    json.loads((tmp_path / "model" / "config.json").read_text())


# ---- limits ---------------------------------------------------------------------------------------------------------


def small_files(num_bytes):
    """For a child: files end at so many bytes, with the signal that says so as any shell leaves it."""
    def prepare():
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))
    return prepare


def test_a_limit_of_file_sizes_is_an_error_in_words(lighthouse, corpus, tmp_path):
    result = run(train_command(lighthouse, corpus, tmp_path / "run"), preexec_fn=small_files(60_000))
    assert result.returncode == 1
    assert "File too large" in result.stderr and "step 6 could not be saved" in result.stderr
    assert steps_of(tmp_path / "run") == list(range(1, 7))


def test_every_file_that_is_too_large_is_named(lighthouse, corpus, trained, tmp_path):
    result = run([lighthouse, "export", "--run", trained, "--output", tmp_path / "model"], preexec_fn=small_files(20_000))
    assert result.returncode == 1 and "model.safetensors': File too large" in result.stderr
    assert not (tmp_path / "model").exists()
    result = run([*train_command(lighthouse, corpus, tmp_path / "run", checkpoint__interval=0, checkpoint__asynchronous="false"),
                  "--profile", tmp_path / "trace.json", "--profile-steps", "2:3"], preexec_fn=small_files(20_000))
    assert result.returncode == 1 and f"cannot write the trace '{tmp_path / 'trace.json'}': File too large" in result.stderr
    for words in (["info"], ["generate", "--run", trained, "--prompt", "a", "--max-tokens", 300], ["train", "--help"]):
        with open(tmp_path / "output", "w") as output:
            result = subprocess.run([str(word) for word in (lighthouse, *words)], stdout=output, stderr=subprocess.PIPE, text=True,
                                    timeout=120, preexec_fn=small_files(100))
        assert result.returncode == 1, words
        assert "cannot write to standard output: File too large" in result.stderr


def test_a_limit_of_cpu_time_stops_the_run_saved(lighthouse, corpus, tmp_path):
    limit = lambda: resource.setrlimit(resource.RLIMIT_CPU, (2, 60))  # noqa: E731
    result = run(train_command(lighthouse, corpus, tmp_path / "run", training__steps=1_000_000), preexec_fn=limit)
    assert result.returncode == 0, result.stderr
    assert "stopped by SIGXCPU after step" in result.stderr


# ---- signals and readers --------------------------------------------------------------------------------------------


started = []


@pytest.fixture(autouse=True)
def nothing_goes_on():
    """A test that fails leaves no run behind."""
    yield
    while started:
        started.pop().kill()


def start(command, run, steps=3, **options):
    """A run in progress, with so many steps done."""
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               **options)
    started.append(process)
    deadline = time.monotonic() + 120
    while not (run / "metrics.jsonl").exists() or len(steps_of(run)) < steps:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1", "SIGUSR2"])
def test_signals_that_ask_for_an_end_stop_the_run_saved(lighthouse, corpus, tmp_path, name):
    number = getattr(signal, name)
    process = start(train_command(lighthouse, corpus, tmp_path / "run", training__steps=1_000_000), tmp_path / "run",
                    preexec_fn=lambda: signal.signal(number, signal.SIG_DFL))  # these tests may run under nohup
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert f"stopped by {name} after step {steps_of(tmp_path / 'run')[-1]}, which is saved" in errors


def test_keys_change_by_name(lighthouse, corpus, tmp_path):
    command = train_command(lighthouse, corpus, tmp_path / "run", training__steps=6, optimizer__schedule="constant")
    assert run(command).returncode == 0
    longer = train_command(lighthouse, corpus, tmp_path / "run", training__steps=9, optimizer__schedule="constant",
                           optimizer__learning_rate=1e-5)
    refused = run(longer)
    assert refused.returncode == 2 and "optimizer.learning_rate (" in refused.stderr and "(--change)" in refused.stderr
    for keys, message in {"attention.topc": "--change attention.topc: unknown key; did you mean attention.topk?",
                          ",optimizer.eps": "--change : unknown key",
                          "model.dim": "--change model.dim: a run keeps it"}.items():
        refused = run([*longer, "--change", keys])
        assert refused.returncode == 2 and message in refused.stderr, refused.stderr
    goes_on = run([*longer, "--change", "optimizer.learning_rate,optimizer.eps"])
    assert goes_on.returncode == 0 and goes_on.stderr.count("the run goes on with optimizer.learning_rate (") == 1
    again = run([*longer, "--change", "optimizer.learning_rate"])
    assert again.returncode == 0 and "the run goes on with" not in again.stderr
    [change] = json.loads((tmp_path / "run/run.json").read_text())["changes"]
    assert change["key"] == "optimizer.learning_rate" and change["step"] == 6 and float(change["after"]) == 1e-5


def test_nohup_keeps_a_run_alive(lighthouse, corpus, tmp_path):
    ignore = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731
    process = start(train_command(lighthouse, corpus, tmp_path / "run", training__steps=40), tmp_path / "run",
                    preexec_fn=ignore)
    process.send_signal(signal.SIGHUP)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "done: 40 steps" in errors


def test_a_signal_while_a_run_is_opened_ends_it_in_words(lighthouse, corpus, tmp_path):
    """The first line of the log is written when the run is open; what came before is heard of then."""
    (tmp_path / "many").mkdir()
    for number in range(5_000):
        (tmp_path / "many" / f"{number}.txt").write_text("the light house stands at sea. ")
    process = subprocess.Popen(train_command(lighthouse, tmp_path / "many", tmp_path / "run"), stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    started.append(process)
    maps = f"/proc/{process.pid}/fd"
    deadline = time.monotonic() + 60
    while not any("many" in link for link in open_files(maps)):  # it lists the corpus
        assert process.poll() is None and time.monotonic() < deadline
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "stopped by SIGTERM before the first step; there is nothing to save" in errors


def signals_of(process, kind):
    """A set of numbers in /proc: blocked (SigBlk), caught (SigCgt)."""
    mask = int(re.search(rf"{kind}:\s*(\w+)", open(f"/proc/{process.pid}/status").read())[1], 16)
    return {number for number in range(1, 65) if mask & (1 << (number - 1))}


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"])
def test_a_signal_while_the_libraries_are_loaded_waits_for_the_program(lighthouse, corpus, tmp_path, name):
    process = subprocess.Popen(train_command(lighthouse, corpus, tmp_path / "run"), stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True)
    started.append(process)
    number = getattr(signal, name)
    while number not in signals_of(process, "SigBlk"):
        assert process.poll() is None
    assert number not in signals_of(process, "SigCgt")
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert f"stopped by {name} before the first step; there is nothing to save" in errors


def test_signals_reach_a_run_that_goes_on_and_other_commands(lighthouse, corpus, tmp_path):
    process = start(train_command(lighthouse, corpus, tmp_path / "run", training__steps=1_000_000), tmp_path / "run")
    stops = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU}
    assert not stops & signals_of(process, "SigBlk") and stops <= signals_of(process, "SigCgt")
    other = subprocess.Popen([lighthouse, "info"], stdout=subprocess.DEVNULL)
    started.append(other)
    other.send_signal(signal.SIGTERM)
    assert other.wait(timeout=60) == -signal.SIGTERM


def open_files(folder):
    links = []
    for name in os.listdir(folder):
        try:
            links.append(os.readlink(f"{folder}/{name}"))
        except OSError:  # closed meanwhile
            pass
    return links


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_during_the_sample_ends_it_in_words(lighthouse, corpus, tmp_path, name):
    process = subprocess.Popen(train_command(lighthouse, corpus, tmp_path / "run", logging__sample_tokens=1_000_000),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    started.append(process)
    while b"sample: 64 tokens" not in process.stdout.readline():
        assert process.poll() is None
    time.sleep(0.1)
    process.send_signal(getattr(signal, name))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert f"the sample was stopped by {name}; the run is done and saved" in errors.decode()


def test_a_topk_that_keeps_every_token_is_said(lighthouse, corpus, tmp_path):
    result = run(train_command(lighthouse, corpus, tmp_path / "run", attention__topk=64, training__steps=2,
                               training__lighthouse_steps=1))
    assert "warning: attention.topk keeps all 64 tokens of a sequence" in result.stderr
    result = run(train_command(lighthouse, corpus, tmp_path / "other", training__steps=2, training__lighthouse_steps=1))
    assert result.returncode == 0 and "keeps all" not in result.stderr


def test_memory_that_is_not_there_is_said_without_places_in_torch(lighthouse, corpus, tmp_path):
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (9 << 30, 9 << 30))  # noqa: E731
    for words in (train_command(lighthouse, corpus, tmp_path / "run", model__dim=1 << 20, model__ffn_dim=1 << 20),
                  [lighthouse, "bench", "attention", "--device", "cpu", "--seq-len", 1_000_000, "--batch", 10_000]):
        result = run(words, preexec_fn=limit)
        assert result.returncode == 1, result.stderr
        assert "allocate" in result.stderr and "enforce fail" not in result.stderr + result.stdout


def test_a_reader_that_leaves_costs_nothing(lighthouse, corpus, tmp_path):
    words = " ".join(f"'{word}'" for word in train_command(lighthouse, corpus, tmp_path / "run"))
    result = run(["bash", "-c", f"{words} 2>&1 | head -1; exit ${{PIPESTATUS[0]}}"])
    assert result.returncode == 0
    assert steps_of(tmp_path / "run") == list(range(1, 7))
    assert (tmp_path / "run" / "checkpoints" / "step-00000006" / "manifest.json").exists()


# ---- terminals ------------------------------------------------------------------------------------------------------


def on_terminal(command, columns, **environment):
    """What a terminal of so many columns is sent on standard error."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in (os.environ | environment).items() if value is not None}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs, env=environment)
    os.close(theirs)
    text = b""
    try:
        while part := os.read(ours, 65536):
            text += part
    except OSError:  # the other end was closed
        pass
    os.close(ours)
    assert process.wait(timeout=60) == 0
    return text.decode()


@pytest.mark.parametrize("columns", [20, 40, 200])
def test_the_bar_fits_the_terminal(lighthouse, corpus, tmp_path, columns):
    text = on_terminal(train_command(lighthouse, corpus, tmp_path / "run"), columns, TERM="xterm", NO_COLOR="")
    bars = [bar.removeprefix("\033[K") for bar in text.replace("\n", "\r").split("\r") if bar.startswith("\033[K")]
    bars = [bar for bar in bars if "/6 " in bar]
    assert bars and all(len(bar) < min(columns, 80) for bar in bars), bars


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"TERM": ""}, {"TERM": None}, {"TERM": "xterm", "NO_COLOR": "1"}], ids=str)
def test_plain_terminals_get_plain_lines(lighthouse, corpus, tmp_path, environment):
    text = on_terminal(train_command(lighthouse, corpus, tmp_path / "run"), 80, **environment)
    assert "\033" not in text and "\r" not in text.replace("\r\n", "\n")
    assert "stage 2 dense 6/6 loss" in text


# ---- paths ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, words", [("loop", "Too many levels of symbolic links"), ("a" * 300, "File name too long")],
                         ids=["loop", "long"])
def test_paths_that_cannot_be_are_named(lighthouse, corpus, tmp_path, name, words):
    path = tmp_path / name
    if name == "loop":
        path.symlink_to(path)
    for command in (train_command(lighthouse, path, tmp_path / "run"), [lighthouse, "eval", "--run", path],
                    train_command(lighthouse, corpus, tmp_path / "run", data__validation_path=path),
                    train_command(lighthouse, corpus, tmp_path / "weights", training__initial_weights=path),
                    [lighthouse, "generate", "--model", path, "--prompt", "a"],
                    [lighthouse, "export", "--run", path, "--output", tmp_path / "m"]):
        result = run(command)
        assert result.returncode == 2 and f"{path}" in result.stderr and f"': {words}" in result.stderr
        assert "filesystem error" not in result.stderr
    assert not (tmp_path / "run").exists()


# ---- corpora --------------------------------------------------------------------------------------------------------


def test_a_run_beside_its_corpus_goes_on(lighthouse, corpus, tmp_path):
    (tmp_path / "t.txt").write_text(corpus.read_text())
    command = train_command(lighthouse, ".", "runs/mine", training__steps=1_000_000, checkpoint__interval=2)
    process = start(command, tmp_path / "runs" / "mine", cwd=tmp_path)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    stopped = steps_of(tmp_path / "runs" / "mine")[-1]
    (tmp_path / ".DS_Store").write_text("x")
    process = start(command, tmp_path / "runs" / "mine", steps=stopped + 1, cwd=tmp_path)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert f"resumed at step {stopped}\n" in errors
    fresh = run(train_command(lighthouse, ".", "runs/other"), cwd=tmp_path)
    assert fresh.returncode == 0, fresh.stderr
    assert (tmp_path / "runs" / "other" / "corpus.txt").read_text() == f'{len(corpus.read_text())} "t.txt"\n'
    (tmp_path / "u.txt").write_text("new")
    refused = run(command, cwd=tmp_path)
    assert refused.returncode == 2 and '"u.txt" is new' in refused.stderr


def test_a_run_in_its_corpus_goes_on(lighthouse, corpus, tmp_path):
    (tmp_path / "t.txt").write_text(corpus.read_text())
    command = train_command(lighthouse, tmp_path, tmp_path)
    assert run(command).returncode == 0
    again = run(command)
    assert again.returncode == 0 and "all steps are done already" in again.stderr, again.stderr


def test_a_corpus_that_is_cut_short_is_an_error_in_words(lighthouse, corpus, tmp_path):
    (tmp_path / "t.txt").write_text(corpus.read_text())
    process = start(train_command(lighthouse, tmp_path / "t.txt", tmp_path / "run", training__steps=1_000_000), tmp_path / "run")
    os.truncate(tmp_path / "t.txt", 1000)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "t.txt" in errors and "1000 now" in errors
    step = int(re.search(r"goes on from step (\d+)\n", errors)[1])
    assert step - steps_of(tmp_path / "run")[-1] in (0, 1), "one that is done and not logged: its validation met the end"
    assert (tmp_path / "run" / "checkpoints" / f"step-{step:08}" / "manifest.json").exists()


@pytest.mark.parametrize("name, remedy", [("a.npy", "Megatron-LM"), ("a.ds", "datatrove"), ("a.idx", ".bin"),
                                          ("a.gz", "decompress"), ("a.jsonl.zst", "decompress"), ("a.parquet", "text"),
                                          ("a.tar.xz", "unpack"), ("a.TBZ2", "unpack"), ("a.bz2", "decompress"),
                                          ("a.bin", ".idx"), ("a.pt", "weights"), ("a.xlsx", "table"), ("a.png", "image")])
def test_what_is_not_text_is_refused_by_name(lighthouse, corpus, tmp_path, name, remedy):
    (tmp_path / name).write_text(corpus.read_text())
    for path in (tmp_path / name, tmp_path):
        result = run(train_command(lighthouse, path, tmp_path / "run"))
        assert result.returncode == 2 and name in result.stderr and remedy in result.stderr
    result = run(train_command(lighthouse, corpus, tmp_path / "run", data__validation_path=tmp_path / name))
    assert result.returncode == 2 and name in result.stderr
    assert not (tmp_path / "run").exists()
