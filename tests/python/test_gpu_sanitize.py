"""scripts/gpu_sanitize.py with stand-ins for compute-sanitizer and for a program of tests: what must fail does."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/gpu_sanitize.py"
# Runs what stands behind its options, and finds what FOUND says.
SANITIZER = """#!/usr/bin/env python3
import os, subprocess, sys
program = next(i for i, word in enumerate(sys.argv) if word.endswith("_test"))
print(" ".join(sys.argv[1:program]))
code = subprocess.run(sys.argv[program:]).returncode
if "NO_CALL" in os.environ:  # as it ends where no call of the GPU was made, whatever the program's code
    print("========= Error: Target application terminated before first instrumented API call")
    sys.exit(255)
print(f"========= ERROR SUMMARY: {os.environ['FOUND']} errors")
sys.exit(code or (86 if os.environ["FOUND"] != "0" else 0))
"""
PROGRAM = """#!/usr/bin/env python3
import os, sys, time
cases = [] if "--gtest_filter=LargeTest.*:LargeCuda.*:LongAttentionCuda.*" in sys.argv else range(30)
if "--gtest_list_tests" in sys.argv:
    print("Suite.\\n" + "".join(f"  Case/{i}\\n" for i in cases))
    sys.exit()
time.sleep(float(os.environ.get("SLEEP", "0")))
print(sys.argv[1], os.environ["GTEST_TOTAL_SHARDS"], os.environ["LIGHTHOUSE_REQUIRE_GPU"], os.environ["KIND"],
      os.environ.get("LIGHTHOUSE_TEST_MEMORY"))
print("[  PASSED  ] 10 tests.")
if os.environ.get("CODE"):
    print("[  FAILED  ] 1 test, listed below:")
sys.exit(int(os.environ.get("CODE", "0")))
"""


@pytest.fixture
def sanitize(tmp_path):
    for name, text in (("compute-sanitizer", SANITIZER), ("stages_test", PROGRAM), ("decoder_test", PROGRAM)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    tests = [{"name": name, "command": [str(tmp_path / name), "--gtest_brief=1", "--gtest_filter=*"],
              "properties": [{"name": "ENVIRONMENT", "value": ["KIND=a=b", "LIGHTHOUSE_TEST_MEMORY=nan"]}]}
             for name in ("stages_test", "decoder_test")]
    (tmp_path / "tests.json").write_text(json.dumps({"tests": tests}))

    def call(*options, code=0, **environment):
        command = [sys.executable, SCRIPT, tmp_path, "--listing", tmp_path / "tests.json", "--logs", tmp_path / "logs", *options]
        variables = os.environ | {"FOUND": "0", "PATH": f"{tmp_path}:{os.environ['PATH']}"} | environment
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=100, env=variables)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    return call


def test_every_tool_looks_at_its_tests_in_shards(sanitize, tmp_path):
    out = sanitize()
    assert re.findall(r"^(\w+): (\d+) tests, 0 found$", out, re.M) == [
        ("memcheck", "60"), ("racecheck", "30"), ("synccheck", "60"), ("initcheck", "30")]  # the decoder's kernels: see there
    assert len(list((tmp_path / "logs").glob("racecheck.stages_test.*.log"))) == 3
    log = (tmp_path / "logs" / "racecheck.stages_test.0.log").read_text()
    assert "--kernel-name kns=lighthouse" in log and "-LargeTest.*" in log and "3 1 a=b None" in log


@pytest.mark.parametrize("environment", [{"FOUND": "7"}, {"CODE": "1"}])
def test_what_is_found_or_fails_is_named_and_fails(sanitize, environment):
    out = sanitize("--tools", "synccheck", "--tests", "stages", code=1, **environment)
    assert "not good: stages_test" in out and ("21 found" in out) == ("FOUND" in environment)


def test_tests_without_a_call_of_the_gpu_are_good_where_they_passed(sanitize):
    options = ("--tools", "memcheck", "--tests", "stages")
    assert "memcheck: 30 tests, 0 found\n" in sanitize(*options, NO_CALL="1")
    assert "not good: stages_test" in sanitize(*options, code=1, NO_CALL="1", CODE="1")


def test_what_takes_too_long_under_a_tool_is_left_out_and_said(sanitize, tmp_path):
    out = sanitize("--tools", "memcheck", "--tests", "stages")
    assert out.startswith("left out: Faults.ThreeHundredStepsEndWithTheBitsOfAQuietRun, whose")
    log = (tmp_path / "logs" / "memcheck.stages_test.0.log").read_text()
    assert ":Faults.ThreeHundredStepsEndWithTheBitsOfAQuietRun" in log


def test_what_does_not_end_fails(sanitize):
    assert "not ended" in sanitize("--tools", "synccheck", "--tests", "stages", "--timeout", "0.5", "--jobs", "3", code=1, SLEEP="5")


def test_a_sanitizer_that_is_not_there_is_named(sanitize, tmp_path):
    (tmp_path / "compute-sanitizer").unlink()
    sanitize(code=1, PATH=str(tmp_path))


def test_no_test_is_a_failure(sanitize):
    sanitize("--tests", "none", code=1)
