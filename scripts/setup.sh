#!/usr/bin/env bash
# Makes this checkout ready to build: tools and libraries from Debian or Ubuntu, a virtual environment with torch.
# Does nothing where all is there already. Usage: scripts/setup.sh [test | fuzz]
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf 'setup: %s\n' "$*" >&2; }

# 0. What torch has no build for.
case "$(ldd --version 2>&1 || true)" in
  *musl*) say "this system's C library is musl (as Alpine's), and torch needs glibc: take Debian, Ubuntu or RHEL"; exit 1 ;;
esac
[ "$(uname -m)" = x86_64 ] || say "this machine is $(uname -m); only x86_64 is tested"

# 1. Debian packages, each known by a command or a header that it brings.
missing=()
have_header() { echo "#include <$1>" | c++ -std=c++20 -fsyntax-only -x c++ - 2>/dev/null; }
command -v make >/dev/null || missing+=(make)
command -v python3 >/dev/null || missing+=(python3)
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
command -v ninja >/dev/null || missing+=(ninja-build)
command -v cmake >/dev/null || missing+=(cmake)
command -v ccache >/dev/null || missing+=(ccache)
libraries=(CLI/CLI.hpp:libcli11-dev nlohmann/json.hpp:nlohmann-json3-dev toml++/toml.h:libtomlplusplus-dev
  xxhash.h:libxxhash-dev gtest/gtest.h:libgtest-dev gmock/gmock.h:libgmock-dev)
if command -v c++ >/dev/null; then
  for pair in "${libraries[@]}"; do have_header "${pair%%:*}" || missing+=("${pair##*:}"); done
else
  missing+=(g++ "${libraries[@]##*:}")
fi
if [ "${1:-}" = fuzz ] && ! echo 'extern "C" int LLVMFuzzerTestOneInput(const char*, long) { return 0; }' |
  clang++ -fsanitize=fuzzer,address -o /dev/null -x c++ - 2>/dev/null; then
  missing+=(clang "$(apt-cache depends clang 2>/dev/null | sed -n 's/.* clang-\([0-9]*\)$/libclang-rt-\1-dev/p' | head -n 1)")
fi
if ((${#missing[@]})); then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  else
    say "these Debian packages are missing; install them and run this again:"
    say "  sudo apt-get install ${missing[*]}"
    exit 1
  fi
fi

# 2. Versions that an old release may fall short of.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }
gxx=$(c++ -dumpfullversion -dumpversion)
at_least "$gxx" 12 || { say "c++ is version $gxx; C++20 needs g++ 12 or newer (sudo apt-get install g++-12, then set CXX)"; exit 1; }
python=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
at_least "$python" 3.10 || { say "python3 is version $python; torch 2.11 needs 3.10 or newer"; exit 1; }

# 3. The virtual environment, remade only when a requirements file changed.
requirements=(-r requirements.txt)
stamp=.venv/requirements.stamp
cat_files=(requirements.txt requirements-headers.txt)
if [ "${1:-}" = test ]; then
  requirements+=(-r requirements-test.txt)
  cat_files+=(requirements-test.txt)
  stamp=.venv/requirements-test.stamp
fi
cmake_version=$(cmake --version | sed -n '1s/[^0-9]*//p')
if ! at_least "$cmake_version" 3.25; then
  say "cmake $cmake_version is older than 3.25: taking a newer one from PyPI"
  requirements+=("cmake>=3.25,<4")
fi
if ! cat "${cat_files[@]}" | cmp -s - "$stamp"; then
  say "installing ${cat_files[*]} into .venv (torch is about 5 GB; a few minutes)"
  [ -x .venv/bin/python ] || python3 -m venv .venv  # --no-compile: Python compiles what it imports, a small part of it
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile "${requirements[@]}"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps -r requirements-headers.txt ||
    say "no requirements-headers.txt here: deterministic attention on CUDA will be FlashAttention-2"
  cat requirements.txt requirements-headers.txt >.venv/requirements.stamp
  cat "${cat_files[@]}" >"$stamp"
fi
