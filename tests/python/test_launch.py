"""Several processes that train together, as a user starts them: lighthouse launch, and what other launchers set."""

import json
import os
import signal
import socket
import subprocess
import time

import pytest
from safetensors.numpy import load_file

from trained_run import words

KEYS = {"model.dim": 32, "model.num_layers": 2, "model.num_heads": 2, "model.num_kv_heads": 1, "model.head_dim": 16,
        "model.ffn_dim": 48, "attention.topk": 4, "training.seq_len": 64, "training.steps": 8,
        "training.lighthouse_steps": 5, "training.gradient_accumulation": 4, "training.accumulation": "tree",
        "training.device": "cpu", "training.threads": 1, "optimizer.warmup_steps": 3, "validation.interval": 5,
        "validation.sequences": 2, "checkpoint.interval": 4, "logging.sample_tokens": 10}
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "MASTER_"))}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text(words(20000, seed=1))
    return path


@pytest.fixture
def options(corpus, tmp_path):
    def of(run="run", **changed):
        keys = KEYS | {"data.path": corpus, "logging.run_dir": tmp_path / run} | {
            key.replace("__", "."): value for key, value in changed.items()}
        return [str(text) for key, value in keys.items() for text in (f"--{key}", value)]
    return of


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(program, arguments, **variables):
    return subprocess.Popen([program, *arguments], env=ENVIRONMENT | variables, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def ranks(program, arguments_of_ranks):
    """What torchrun starts: exit code, output and errors of each."""
    port, count = free_port(), len(arguments_of_ranks)
    started = [start(program, arguments, RANK=str(rank), WORLD_SIZE=str(count), MASTER_ADDR="127.0.0.1",
                     MASTER_PORT=str(port)) for rank, arguments in enumerate(arguments_of_ranks)]
    ended = [process.communicate(timeout=120) for process in started]
    return [(process.returncode, *texts) for process, texts in zip(started, ended)]


def weights(run):
    newest = sorted((run / "checkpoints").iterdir())[-1]
    return {name: tensor for file in newest.glob("model*.safetensors") for name, tensor in load_file(file).items()}


def test_launch_trains_as_one_process_does(lighthouse, options, tmp_path):
    alone = subprocess.run([lighthouse, "train", *options("alone")], env=ENVIRONMENT, capture_output=True, text=True,
                           timeout=120)
    assert alone.returncode == 0, alone.stderr
    shared = subprocess.run([lighthouse, "launch", "-n", "2", "train", *options("shared")], env=ENVIRONMENT,
                            capture_output=True, text=True, timeout=120)
    assert shared.returncode == 0, shared.stderr
    of_alone, of_shared = weights(tmp_path / "alone"), weights(tmp_path / "shared")
    assert of_alone.keys() == of_shared.keys()
    assert all((of_alone[name] == of_shared[name]).all() for name in of_alone)
    assert shared.stderr.count("run folder") == 1 and shared.stderr.count("done: 8 steps") == 1, "one log"
    assert "2 processes, each with micro-batches of its own" in shared.stderr
    assert json.loads((tmp_path / "shared" / "run.json").read_text())["processes"] == {"data": 2, "context": 1}
    assert shared.stdout.count("sample:") == 1
    texts = [subprocess.run([lighthouse, "generate", "--run", tmp_path / run, "--prompt", "the light", "--greedy",
                             "--max-tokens", "10"], capture_output=True, text=True, timeout=60).stdout
             for run in ("alone", "shared")]
    assert texts[0] and texts[0] == texts[1], "what reads runs reads those of several processes"


def test_processes_share_sequences(lighthouse, options):
    keys = options(parallel__context=2, attention__topk=6, attention__tile_topk=2, training__seq_len=96)
    shared = subprocess.run([lighthouse, "launch", "-n", "2", "train", *keys], env=ENVIRONMENT, capture_output=True,
                            text=True, timeout=120)
    assert shared.returncode == 0, shared.stderr
    assert "2 processes, of which 2 share each sequence, from " in shared.stderr
    assert "shares evenly" in shared.stderr and shared.stderr.count("done: 8 steps") == 1


def launch_two_that_train(lighthouse, options, tmp_path, **changed):
    """Returns when they have made three steps."""
    process = start(lighthouse, ["launch", "-n", "2", "train", *options(training__steps=100000, **changed)])
    metrics = tmp_path / "run" / "metrics.jsonl"
    while not metrics.exists() or metrics.read_text().count("\n") < 3:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    return process


def test_launcher_of_two_ends_with_a_checkpoint_on_a_signal(lighthouse, options, tmp_path):
    process = launch_two_that_train(lighthouse, options, tmp_path)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert errors.count("stopped by SIGTERM after step") == 1
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) >= 1


def children_of(process):
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
    return [int(child) for child in children.stdout.split()]


def test_a_first_rank_that_stands_still_is_noticed(lighthouse, options, tmp_path):
    """It hosts the store, from whose socket c10d reads for ever."""
    process = launch_two_that_train(lighthouse, options, tmp_path, parallel__timeout=5)
    first, second = children_of(process)
    os.kill(first, signal.SIGSTOP)
    begin = time.monotonic()
    while os.path.exists(f"/proc/{second}") and "State:\tZ" not in open(f"/proc/{second}/status").read():
        assert time.monotonic() < begin + 30, "the other rank waits for ever"
        time.sleep(0.1)
    for signal_number in (signal.SIGCONT, signal.SIGKILL):
        os.kill(first, signal_number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "rank 1: 'step " in errors and "the store of the ranks does not answer: rank 0, or the launcher" in errors


def test_a_port_at_which_nobody_answers_is_given_up(lighthouse, options):
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        begin = time.monotonic()
        process = start(lighthouse, ["train", *options(parallel__timeout=4)], RANK="1", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
                        MASTER_PORT=str(mute.getsockname()[1]))
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2 and "rank 1 cannot reach rank 0 at 127.0.0.1:" in errors
    assert time.monotonic() < begin + 15


@pytest.mark.parametrize("name", ["SIGTERM", "SIGXCPU"])
def test_signals_while_ranks_start_are_answered(lighthouse, options, name):
    process = start(lighthouse, ["train", *options(parallel__timeout=6)], RANK="0", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))
    while "waiting for rank 1" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(getattr(signal, name))
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0 and f"stopped by {name} before the first step; there is nothing to save" in errors


def test_ranks_with_folders_of_their_own_are_refused(lighthouse, options, tmp_path):
    """A relative name in other working folders: each would save its part where nobody finds it."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b" / "mine").mkdir(parents=True)
    arguments = ["train", *options(parallel__timeout=8)]
    arguments[arguments.index("--logging.run_dir") + 1] = "mine"
    port = str(free_port())
    started = [subprocess.Popen([lighthouse, *arguments], cwd=tmp_path / folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
                                env=ENVIRONMENT | {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port})
               for rank, folder in enumerate("ab")]
    errors = [process.communicate(timeout=60)[1] for process in started]
    assert [process.returncode for process in started] == [2, 2], errors
    assert "do not agree on logging.run_dir" in errors[0] and "rank 1 has\n  'mine', another folder" in errors[0] and not errors[1]
    assert [path.name for path in (tmp_path / "a" / "mine").iterdir()] == ["lock"], "nothing is written"


def test_rank_that_is_killed_is_named_and_ends_the_launch(lighthouse, options, tmp_path):
    process = launch_two_that_train(lighthouse, options, tmp_path)
    os.kill(children_of(process)[1], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert "rank 1 was ended by signal 9" in errors
    assert "rank 0: 'step " in errors and "rank 1 is dead or stopped; last seen in 'step " in errors
    record = tmp_path / "run" / "collectives-rank-0.json"
    assert f"its last collectives are in {record}" in errors
    assert "gloo:" in record.read_text() and json.loads(record.read_text())["entries"], "what the flight recorder has"


def test_wrong_starts_are_said_once(lighthouse, options, tmp_path):
    def refused(*arguments_of_ranks):
        first, *others = ranks(lighthouse, [["train", *arguments] for arguments in arguments_of_ranks])
        assert first[0] == 2 and first[2].startswith("lighthouse train: "), first
        assert all(other == (2, "", "") for other in others), others
        return first[2]

    assert "3 processes, but 2 were started" in refused(*2 * [options(parallel__data=3)])
    assert "training.gradient_accumulation = 1" in refused(*2 * [options(training__gradient_accumulation=1)])
    assert "rank 1 has\n  seed = 7" in refused(options(), options(training__seed=7))
    assert "rank 1 cannot start" in refused(options(), options(data__path="/no/such/corpus"))
    assert "rank 1 cannot start" in refused(options(), options(training__steps=0))
    assert "--training.steps 0: must be" in refused(*2 * [options(training__steps=0)])
    assert "--training.step: unknown option; did you mean --training.steps?" in refused(*2 * [["--training.step", "8"]])
    assert "--config: needs a value" in refused(*2 * [["--config"]])
    assert "rank 1 cannot start: --nonsense: unknown option" in refused(options(), [*options(), "--nonsense"])
    assert "--profile-steps" in refused(*2 * [[*options(), "--profile-steps", "1:2"]])
    assert "rank 1 cannot start: --profile-steps" in refused(options(), [*options(), "--profile-steps", "1:2"])
    assert not (tmp_path / "run" / "config.toml").exists()


def test_wrong_variables_of_a_launcher_are_said_once(lighthouse, options):
    for rank, errors in ("0", "lighthouse train: launch: RANK is set, but WORLD_SIZE is not"), ("3", ""):
        process = start(lighthouse, ["train", *options()], RANK=rank)
        said = process.communicate(timeout=60)[1]
        assert process.returncode == 2 and said.startswith(errors) and bool(said) == bool(errors), said


def test_wrong_variables_of_one_process_are_said(lighthouse, options):
    """They ended with exit code 2 and without a word."""
    for variables, words in (({"RANK": "5", "WORLD_SIZE": "2"}, "RANK = '5'; must be an integer from 0 to 1"),
                             ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "7"}, "LOCAL_RANK = '7'; must be an integer from 0 to 1")):
        process = start(lighthouse, ["train", *options()], **variables)
        said = process.communicate(timeout=60)[1]
        assert process.returncode == 2 and said.startswith("lighthouse train: launch: ") and words in said, said


def test_ranks_of_other_numbers_are_named_at_once(lighthouse, options):
    """They waited for one another, and then said that the other had not started."""
    begin, port = time.monotonic(), free_port()
    started = [start(lighthouse, ["train", *options(parallel__timeout=100)], RANK=str(rank), WORLD_SIZE=str(size),
                     MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)) for rank, size in ((0, 2), (1, 3))]
    said = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [2, 2] and time.monotonic() - begin < 40, said
    assert said == ["lighthouse train: rank 1 was started as one of 3, rank 0 as one of 2; start all ranks with the same WORLD_SIZE\n", ""]


@pytest.mark.parametrize("address, says", [("127.0.0.1", False), ("0.0.0.0", True)], ids=["of this machine", "of any"])
def test_a_first_rank_that_ends_while_others_are_waited_for(lighthouse, options, address, says):
    """The others ended with exit code 1 and "Connection reset by peer". On one machine its own end is what is said."""
    port, said = free_port(), []
    first, second = (start(lighthouse, ["train", *options(parallel__timeout=100)], RANK=str(rank), WORLD_SIZE="3", MASTER_ADDR=address,
                           MASTER_PORT=str(port)) for rank in (0, 1))
    for line in first.stderr:  # ten seconds later, when the second is there
        said.append(line)
        if "waiting for rank 2 of 3" in line:
            break
    first.kill()
    first.communicate(timeout=60)
    words = second.communicate(timeout=60)[1]
    assert second.returncode == 2 and (f"rank 1 has lost rank 0 at {address}:{port}, where the ranks find one another" in words) == says, words
    assert words.count("\n") == int(says)


def test_launch_given_two_numbers_says_so(lighthouse):
    result = subprocess.run([lighthouse, "launch", "-n", "2", "-n", "3", "train"], env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (2, "lighthouse launch: --processes: is given twice; give it once; see 'lighthouse launch --help'\n")


@pytest.mark.parametrize("rank, address, waits, ends", [
    (0, "127.0.0.1", "rank 0: waiting for rank 1 of 2 at 127.0.0.1:", "rank 1 of 2 did not start within 4 s"),
    (1, "127.0.0.1", "rank 1: waiting for rank 0 at 127.0.0.1:", "rank 1 cannot reach rank 0 at 127.0.0.1:"),
    (0, "no-such-host.invalid", "rank 0: waiting for rank 0 at no-such-host", "finds no host 'no-such-host.invalid' (MASTER_ADDR)"),
    (1, "no-such-host.invalid", "rank 1: waiting for rank 0 at no-such-host", "finds no host 'no-such-host.invalid' (MASTER_ADDR)")])
def test_a_process_alone_says_what_it_waits_for_and_gives_up(lighthouse, options, rank, address, waits, ends):
    begin = time.monotonic()
    process = start(lighthouse, ["train", *options(parallel__timeout=4)], RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR=address,
                    MASTER_PORT=str(free_port()))
    said = process.communicate(timeout=60)[1]
    assert time.monotonic() - begin < 40, "four seconds and the start of a busy machine"
    assert process.returncode == 2 and said.startswith(f"lighthouse train: {waits}") and ends in said, said
    assert said.count("\n") == 2


def test_a_port_that_is_taken_is_said_once(lighthouse, options):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        process = start(lighthouse, ["train", *options()], RANK="0", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
                        MASTER_PORT=str(other.getsockname()[1]))
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2 and errors.count("\n") == 1, errors
    assert errors.startswith("lighthouse train: rank 0 cannot open port"), errors


def test_wrong_uses_of_launch_are_refused(lighthouse, options):
    def refused(*arguments):
        result = subprocess.run([lighthouse, "launch", *arguments], env=ENVIRONMENT, capture_output=True, text=True,
                                timeout=60)
        assert result.returncode == 2 and result.stdout == "", result
        return result.stderr

    assert "lighthouse launch -n 2 train" in refused("-n", "2")
    assert "eval: not a command to launch" in refused("-n", "2", "eval", "--run", "r")
    for count in ("0", "1025"):
        assert f"--processes {count}: must be an integer from 1 to 1024" in refused("-n", count, "train", *options())
    assert "give how many processes to start, as -n 2" in refused("train", *options())


def test_several_processes_without_a_launcher_are_asked_for(lighthouse, options):
    result = subprocess.run([lighthouse, "train", *options(parallel__data=2)], env=ENVIRONMENT, capture_output=True,
                            text=True, timeout=60)
    assert result.returncode == 2
    assert "2 processes, but 1 was started; start 2 (lighthouse launch -n 2 train" in result.stderr
