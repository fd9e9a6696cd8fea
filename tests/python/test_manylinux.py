"""LIGHTHOUSE_MANYLINUX: a program that is linked so asks for nothing newer, and what replaces newer functions works."""

import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

LIBRARIES = ROOT / "cmake" / "manylinux" / "libraries.py"

PROGRAM = r"""
#include <sys/stat.h>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <iostream>
#include <memory>
#include <mutex>
#include <sstream>
#include <thread>

struct Counted {
  Counted() { std::cout << "constructed" << std::endl; }
  ~Counted() { std::cout << "destroyed" << std::endl; }
} counted;
__attribute__((constructor)) void initialise(int argc, char**, char** environment) {
  std::printf("initialised %d%s\n", argc, environment ? "" : " without an environment");  // before std::cout is
}

void wait(int milliseconds) {
  using Clock = std::chrono::steady_clock;
  std::mutex mutex;
  std::condition_variable condition;
  std::unique_lock lock(mutex);
  const auto begin = Clock::now();
  const auto status = condition.wait_for(lock, std::chrono::milliseconds(milliseconds));
  const bool full = Clock::now() - begin >= std::chrono::milliseconds(milliseconds - 1);
  std::cout << milliseconds << (status == std::cv_status::timeout && full ? " passed" : " was cut short") << std::endl;
}

int main(int, char** argv) {
  for (const int milliseconds : {1, 250, 1001}) wait(milliseconds);
  struct stat file {}, link {};
  std::cout << stat("/proc/self/exe", &file) << S_ISREG(file.st_mode) << lstat("/proc/self/exe", &link) << S_ISLNK(link.st_mode)
            << std::endl;
  std::ostringstream text;
  text << std::exp(double(*std::make_shared<int>(0)));
  std::thread([&] { text << " from a thread"; }).join();
  std::cout << text.str() << std::endl;
  try {
    (void)std::stod(argv[0]);
  } catch (const std::invalid_argument& error) {
    std::cout << "caught " << error.what() << std::endl;
  }
}
"""


def run(*command):
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    compiler = shutil.which("c++")
    if not compiler or run(compiler, "-dumpversion").strip() != "12":
        pytest.skip("LIGHTHOUSE_MANYLINUX is for g++ 12 (Debian 12)")
    folder = tmp_path_factory.mktemp("manylinux")
    run(sys.executable, LIBRARIES, compiler, folder / "libraries")
    (folder / "program.cpp").write_text(PROGRAM)
    [options] = re.findall(r"add_link_options\(-L\$\{_libraries\} ([^)]*)\)", (ROOT / "cmake" / "Manylinux.cmake").read_text())
    linker = [option.replace("LINKER:", "-Wl,") for option in options.split()]
    run(compiler, "-std=c++20", "-O1", "-pie", "-fPIE", folder / "program.cpp", "-o", folder / "program", f"-L{folder}/libraries", *linker)
    return folder / "program"


def test_it_starts_waits_and_ends_as_any(program):
    assert run(program).splitlines() == ["initialised 1", "constructed", "1 passed", "250 passed", "1001 passed", "0101", "1 from a thread",
                                         "caught stod", "destroyed"]


def test_it_asks_for_nothing_newer(program):
    asked = set(re.findall(r"Name: (\w+?)_([\d.]+)", run("readelf", "--wide", "--version-info", program)))
    newest = {"GLIBC": (2, 28), "GLIBCXX": (3, 4, 24), "CXXABI": (1, 3, 11), "GCC": (7, 0, 0)}
    assert {name for name, _ in asked} == set(newest)
    assert [version for version in asked if tuple(map(int, version[1].split("."))) > newest[version[0]]] == []
