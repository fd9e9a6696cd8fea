"""lighthouse plan: what it prints and how it exits. The formulas themselves are tested in tests/cpp/plan."""

import json
import subprocess
import sys

import pytest

from conftest import ROOT

PAPER = ["--config", ROOT / "configs" / "paper.toml"]
GIB = 2**30


@pytest.fixture
def plan(lighthouse):
    def run(*arguments, exit_code=0):
        result = subprocess.run([lighthouse, "plan", *map(str, arguments)], capture_output=True, text=True, timeout=60)
        assert result.returncode == exit_code, result.stderr
        return result

    return run


@pytest.fixture
def report(plan):
    return lambda *arguments, **options: json.loads(plan(*arguments, "--json", **options).stdout)


def test_the_paper_fits_an_h200(report):
    paper = report(*PAPER, "--device", "h200")
    assert paper["fits"] and paper["alternatives"] == []
    assert paper["parameters"] == 267_973_632
    assert paper["tokens_per_step"] == 32 * 98304
    lighthouse, dense = paper["stages"]
    assert (lighthouse["stage"], lighthouse["attention"], lighthouse["steps"]) == (1, "lighthouse", 10000)
    assert (dense["stage"], dense["attention"], dense["steps"]) == (2, "dense", 6000)
    assert 41 * GIB < lighthouse["memory_bytes"]["total"] < 45 * GIB < dense["memory_bytes"]["total"]
    assert lighthouse["seconds"]["total"] < dense["seconds"]["total"] / 4
    assert 0.4 < lighthouse["mfu"] < 0.7


def test_control_characters_of_a_device_do_not_reach_the_terminal(plan):
    name = ["--device", "a\x1b[31m\nb\udcff", "--memory", "80"]
    assert plan(*name).stdout.startswith("device   a\ufffd[31m\ufffdb\ufffd, 80.0 GiB\n")
    assert json.loads(plan(*name, "--json").stdout)["device"]["name"] == "a\ufffd[31m\ufffdb\ufffd"
    refused = plan("--device", "a\x1b[31m", "--memory", "0.1", exit_code=1)
    assert "\x1b" not in refused.stdout + refused.stderr and "a\ufffd[31m has " in refused.stderr


def test_the_parts_add_up(report):
    for stage in report(*PAPER, "--device", "h200")["stages"]:
        memory, seconds = stage["memory_bytes"], stage["seconds"]
        parts = ["weights", "moments", "gradients", "copies", "kept", "temporaries", "workspace", "overhead"]
        assert sum(memory[part] for part in parts) == memory["total"]
        total = seconds.pop("total")
        assert sum(seconds.values()) == pytest.approx(total)
        assert stage["tokens_per_s"] == pytest.approx(32 * 98304 / total)


def test_what_does_not_fit_exits_with_1_and_says_what_would(plan, report):
    options = [*PAPER, "--device", "h100", "--memory", "30"]
    result = plan(*options, exit_code=1)
    assert result.stderr.startswith("lighthouse plan: does not fit: it takes about 58.")
    assert result.stderr.endswith("and h100 has 30.0 GiB\n")
    assert "these do, cheapest first:\n  --training.recompute full" in result.stdout
    refused = report(*options, exit_code=1)
    assert not refused["fits"]
    for alternative in refused["alternatives"]:
        assert alternative["memory_bytes"] <= 30 * GIB
        assert alternative["step_seconds"] > 0
        changed = report(*options, *alternative["options"].split())
        assert changed["memory_bytes"] == alternative["memory_bytes"]
    longest = refused["largest_seq_len"]
    assert report(*options, "--training.seq_len", longest)["fits"]
    assert not report(*options, "--training.seq_len", longest + 1024, exit_code=1)["fits"]


def test_keys_change_the_plan(report):
    def total(*options):
        return report(*PAPER, "--device", "h200", *options)["memory_bytes"]

    assert total("--training.recompute", "selective") < total()
    full = total("--training.recompute=full")
    offloaded = report(*PAPER, "--device", "h200", "--training.recompute=full", "--training.offload=true",
                       "--checkpoint.asynchronous=false")
    assert offloaded["memory_bytes"] < full
    assert offloaded["stages"][0]["memory_bytes"]["host"] == 30 * 98304 * 1024 * 2
    some = report(*PAPER, "--device", "h200", "--training.recompute=full", "--training.offload=true",
                  "--training.offload_layers=10", "--checkpoint.asynchronous=false")
    assert offloaded["memory_bytes"] < some["memory_bytes"] < full
    assert some["stages"][0]["memory_bytes"]["host"] == 10 * 98304 * 1024 * 2


def test_what_waits_on_the_host_must_fit_there(plan, report):
    options = [*PAPER, "--device", "h200", "--training.recompute=full", "--training.offload=true", "--training.seq_len=524288"]
    unlimited = report(*options)
    assert unlimited["fits"] and unlimited["host_memory_bytes"] is None
    needed = unlimited["host_bytes"]
    assert report(*options, "--host-memory", needed / GIB + 0.01)["fits"]
    half = report(*options, "--host-memory", needed / GIB / 2, exit_code=1)
    assert not half["fits"] and half["memory_bytes"] == unlimited["memory_bytes"]
    assert [list(way["settings"]) for way in half["alternatives"]] == [["checkpoint.asynchronous", "training.recompute_layers"]]
    for way in half["alternatives"]:
        assert report(*options, "--host-memory", needed / GIB / 2, *way["options"].split())["memory_bytes"] == way["memory_bytes"]
    message = plan(*options, "--host-memory", 1, exit_code=1).stderr
    assert "of the host, which has 1.0 GiB for each GPU" in message
    two = [*options, "--world-size", 2, "--parallel.context", 2]  # of which both are on one host
    assert report(*two, "--host-memory", 300)["host_memory_bytes"] == 150 * GIB
    assert "is of the machine that a GPU is in" in plan(*PAPER, "--device", "cpu", "--host-memory", 9, exit_code=2).stderr


def test_a_run_of_one_stage_has_one_column(plan, report):
    for options, attention in (["--training.lighthouse_steps", "0"], "dense"), (
            ["--training.lighthouse_steps", "16000"], "lighthouse"):
        assert [stage["attention"] for stage in report(*PAPER, "--device", "h200", *options)["stages"]] == [attention]
        assert f", {attention}\n" in plan(*PAPER, "--device", "h200", *options).stdout


def test_validation_has_its_time(plan, report):
    options = [*PAPER, "--device", "h200", "--validation.sequences", "8", "--validation.interval", "0"]
    validation = report(*options)["validation"]
    assert (validation["sequences"], validation["count"]) == (8, 2)
    assert 8 < validation["seconds"] < 20  # forward of 98,304 tokens, dense and Lighthouse
    assert "a validation reads 8 sequences in " in plan(*options).stdout


def test_without_a_profile_there_is_memory_but_no_time(plan, report):
    options = [*PAPER, "--device", "a100", "--memory", "80"]
    a100 = report(*options)
    assert a100["fits"] and a100["device"]["profile"] is None
    assert a100["stages"][0]["seconds"] is None and a100["run_seconds"] is None and a100["validation"] is None
    assert "h200, h100" in a100["why_no_time"]
    assert "time: there is no profile of a100" in plan(*options).stdout
    rough = [*options, "--device-tflops", "312", "--device-bandwidth", "2.0"]
    assert report(*rough)["device"] == {"name": "a100", "memory_bytes": 80 * GIB, "profile": "a100", "measured": False}
    assert report(*rough)["stages"][0]["seconds"]["total"] > 0
    assert "; times are rough, by the profile " in plan(*rough).stdout


def test_any_gpu_with_its_memory(report):
    for name in ("rtx4090", "NVIDIA GeForce RTX 5090", "mi300x"):
        planned = report(*PAPER, "--device", name, "--memory", "96")
        assert planned["fits"] and planned["run_seconds"] is None
        assert (planned["device"]["name"], planned["device"]["memory_bytes"]) == (name, 96 * GIB)


def test_this_machine(plan, report):
    assert report("--device", "cpu")["fits"]
    assert report()["device"]["memory_bytes"] > GIB
    assert "the CPU" in plan("--training.device", "cpu").stdout


def test_ranks_share_the_work(plan, report):
    options = [*PAPER, "--device", "h100", "--parallel.context", "2"]
    two = report(*options, "--world-size", "2")
    assert report(*options) == two, "parallel.context says as much"
    assert (two["ranks"]["data"], two["ranks"]["context"], two["ranks"]["node_size"]) == (1, 2, 2)
    for stage in two["stages"]:
        assert 0.5 < stage["efficiency"] < 1
        assert stage["traffic"]["sum of gradients"]["bytes"] == pytest.approx(2 * two["parameters"], rel=0.01)
        assert stage["traffic"]["all-to-all of rows for heads"]["collectives"] == 32 * 30 * 2
        seconds = dict(stage["seconds"])
        total = seconds.pop("total")
        assert sum(seconds.values()) == pytest.approx(total)
        assert stage["tokens_per_s"] == pytest.approx(32 * 98304 / total)
    alone = report(*PAPER, "--device", "h100")
    assert "ranks" not in alone and two["memory_bytes"] < alone["memory_bytes"]
    text = plan(*options).stdout
    assert "ranks    2: parallel.data 1, parallel.context 2, in nodes of 2" in text
    assert "measured between two H100s: all-to-all 31 GB/s at 4 MB, 165 GB/s at 36 MB" in text
    assert "between nodes, assumed: 50 GB/s" in text


def test_the_fastest_way_that_fits_is_taken(plan, report):
    options = [*PAPER, "--device", "h100", "--world-size", "16"]
    planned = report(*options)
    first, *others = planned["ranks"]["shares"]
    assert planned["fits"] and first["step_seconds"] == min(share["step_seconds"] for share in planned["ranks"]["shares"])
    again = report(*PAPER, "--device", "h100", *first["options"].split())
    assert again["memory_bytes"] == first["memory_bytes"] and len(others) == 3
    assert "ways to share, the fastest that fits first:\n  " + first["options"] in plan(*options).stdout
    slow = report(*options, "--nodes", "16")
    assert slow["stages"][0]["seconds"]["gradients"] > planned["stages"][0]["seconds"]["gradients"]


@pytest.mark.parametrize("options, words", [
    (["--world-size", "6", "--parallel.context", "4"], "parallel.data = 1 and parallel.context = 4 are 4 ranks"),
    (["--world-size", "8", "--nodes", "3"], "--nodes 3: 8 ranks do not divide into so many nodes"),
    (["--world-size", "7"], "7 ranks cannot share this run"),
    (["--world-size", "64", "--parallel.data", "64"], "parallel.data = 64: must be at most training.gradient_accumulation = 32"),
    (["--parallel.context", "16"], "12 tiles for 16 ranks"),
    (["--world-size", "0"], "--world-size"),
])
def test_what_ranks_cannot_share_is_refused(plan, options, words):
    few = ["--training.gradient_accumulation", "6", "--attention.topk", "512"] if "7" in options else []  # sequences, tiles
    assert words in plan(*PAPER, "--device", "h100", *few, *options, exit_code=2).stderr


def test_the_tables_of_scaling_are_what_is_planned(lighthouse):
    result = subprocess.run([sys.executable, ROOT / "scripts" / "scaling_table.py", "--check", "--lighthouse", lighthouse],
                            capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
