#!/usr/bin/env python3
"""The tests that need a GPU under the four tools of compute-sanitizer, several processes at a time.

    scripts/gpu_sanitize.py BUILD [--tools memcheck,racecheck] [--tests REGEX] [--jobs 4] [--logs FOLDER]

The tests are those that ctest runs by `-L cuda`, cut in shards; tests of the largest tensors are run by memcheck alone, in the end, one
after the other; a thousand repeats are five. What a tool leaves out is said in TOOLS. Exits with 1 where a tool finds something, a test
fails or one is not ended.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

OURS = ["--kernel-name", "kns=lighthouse"]  # kernels that are looked at: those of libraries take most of the time


@dataclasses.dataclass(frozen=True)
class Tool:
    options: list
    tests: str = ""  # a regular expression of names
    without: str = ""  # cases, as googletest filters them


# initcheck takes what TMA stores for memory that nobody wrote, and so all that the matrix products and attentions of cuBLAS and cuDNN make
# on Hopper: it looks at programs without them. Under ctest all read memory full of NaN (tests/support/nan_memory.cpp). Torch's own
# sums over columns that are no multiple of 128 read places of their workspace that they then leave out. racecheck ends with an error of
# its own at matrix products in bf16; the kernels of the decoder are those that nn_test and ops_test run.
PRODUCTS = "*EmbeddingTest*BFloat16"
TOOLS = {
    "memcheck": Tool(["--report-api-errors", "no"]),  # tests ask for more memory than there is
    "racecheck": Tool(OURS, tests="^(?!model|decoder|audit)", without=PRODUCTS),
    "synccheck": Tool(OURS),
    "initcheck": Tool([], tests="^(stages|gla|turned_gather|nn)", without=PRODUCTS + ":*SplitNormTest*3072_1156*"),
}
LARGE = "LargeTest.*:LargeCuda.*:LongAttentionCuda.*"
# 300 steps do not end in four minutes under a tool, and the same kernels run in the other Faults.*.
SLOW = "Faults.ThreeHundredStepsEndWithTheBitsOfAQuietRun"
CASES_OF_A_SHARD = 12
SUMMARY = re.compile(r"(?:ERROR|RACECHECK) SUMMARY: (\d+)")
PASSED = re.compile(r"\[  PASSED  \] (\d+) test")
NO_CALL = "terminated before first instrumented API call"  # said with exit code 255 where no test of a shard calls the GPU


class Test:
    """A test of ctest: its name, program, filter of googletest and environment."""

    def __init__(self, entry):
        self.name, command = entry["name"], entry["command"]
        self.program = command[0]
        filters = [word.split("=", 1)[1] for word in command if word.startswith("--gtest_filter=")]
        self.filter = filters[0] if filters else "*"
        variables = [p["value"] for p in entry["properties"] if p["name"] == "ENVIRONMENT"]
        self.environment = os.environ | {"LIGHTHOUSE_REQUIRE_GPU": "1", "LIGHTHOUSE_TEST_REPEATS": "5"}
        self.environment |= dict(pair.split("=", 1) for pair in (variables[0] if variables else []))
        self.environment.pop("LIGHTHOUSE_TEST_MEMORY", None)  # 4 GiB of each process, which initcheck would take for written

    def cases(self, tool, large):
        """The filter of its large cases, or of all others that the tool looks at."""
        if large:
            return LARGE if self.filter.startswith(("*", "-")) else ""
        without = ":".join(filter(None, (LARGE, SLOW, TOOLS[tool].without)))
        return self.filter + (":" if "-" in self.filter else "-") + without

    def count(self, tool, large=False):
        """How many cases that are."""
        command = [self.program, "--gtest_list_tests", f"--gtest_filter={self.cases(tool, large)}"]
        lines = subprocess.run(command, capture_output=True, text=True, env=self.environment).stdout.splitlines()
        return sum(line.startswith("  ") for line in lines)


def read_tests(build, listing, pattern):
    if listing:
        text = Path(listing).read_text()
    else:
        command = ["ctest", "--test-dir", build, "-L", "cuda", "--show-only=json-v1"]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    tests = [Test(entry) for entry in json.loads(text)["tests"]]
    return [test for test in tests if re.search(pattern, test.name)]


def run(command, log, environment, seconds):
    """The exit code, or None where it did not end in time; nothing that it started goes on."""
    with open(log, "w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return None


def is_good(code, text, found, passed):
    """Whether all tests of a shard passed and the tool found nothing, or had nothing to look at."""
    if code == 255 and not found and NO_CALL in text:
        return bool(passed) and "[  FAILED  ]" not in text
    return code == 0 and bool(found) and not any(found)


def run_shard(tool, test, shard, shards, options, large=False):
    """(tool, name of the test, cases that passed, what the tool found, whether all is good)."""
    command = ["compute-sanitizer", "--tool", tool, *TOOLS[tool].options, "--target-processes", "all", "--error-exitcode", "86"]
    command += [test.program, f"--gtest_filter={test.cases(tool, large)}"]
    log = options.logs / f"{tool}.{test.name}.{'large' if large else shard}.log"
    start = time.monotonic()
    code = run(command, log, test.environment | {"GTEST_TOTAL_SHARDS": str(shards), "GTEST_SHARD_INDEX": str(shard)}, options.timeout)
    text = log.read_text(errors="replace")
    found = [int(number) for number in SUMMARY.findall(text)]
    passes = [int(number) for number in PASSED.findall(text)]
    passed = sum(passes)
    ended = "not ended" if code is None else f"exit {code}"
    took = time.monotonic() - start
    print(f"{tool:9} {test.name:24} {shard + 1}/{shards}: {passed} passed, {sum(found)} found, {ended}, {took:.0f} s", flush=True)
    return tool, test.name, passed, sum(found), is_good(code, text, found, passes)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--tools", default=",".join(TOOLS))
    parser.add_argument("--tests", default="", help="a regular expression of names")
    parser.add_argument("--listing", help="what ctest --show-only=json-v1 printed, where there is no build tree")
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for a shard")
    parser.add_argument("--logs", type=Path)
    options = parser.parse_args()
    if not shutil.which("compute-sanitizer"):
        sys.exit("gpu_sanitize: no compute-sanitizer on PATH; it comes with CUDA, in its bin folder")
    options.logs = options.logs or Path(options.build) / "sanitizer"
    options.logs.mkdir(parents=True, exist_ok=True)

    tests = read_tests(options.build, options.listing, options.tests)
    if not tests:
        sys.exit("gpu_sanitize: no test of a GPU in this build; make build where there is nvcc")
    print(f"left out: {SLOW}, whose 300 steps do not end in four minutes under a tool; the other Faults.* run the same kernels")
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        shards = []
        for tool in options.tools.split(","):
            for test in (test for test in tests if re.search(TOOLS[tool].tests, test.name)):
                count = max(1, -(-test.count(tool) // CASES_OF_A_SHARD))
                shards += [pool.submit(run_shard, tool, test, shard, count, options) for shard in range(count)]
        results = [shard.result() for shard in shards]
    if "memcheck" in options.tools:
        results += [run_shard("memcheck", test, 0, 1, options, large=True) for test in tests if test.count("memcheck", large=True)]
    for tool in options.tools.split(","):
        mine = [result for result in results if result[0] == tool]
        bad = sorted({result[1] for result in mine if not result[4]})
        words = f"{tool}: {sum(result[2] for result in mine)} tests, {sum(result[3] for result in mine)} found"
        print(words + (f"; not good: {', '.join(bad)}" if bad else ""))
    sys.exit(any(not result[4] for result in results))


if __name__ == "__main__":
    main()
