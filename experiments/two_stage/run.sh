#!/usr/bin/env bash
# The experiment of docs/experiments.md, or its next piece: builds the program and the corpus where they are missing, makes
# the runs that are left, at most 25 minutes of them, and says where the plan stands. Call it again until all are made.
#   experiments/two_stage/run.sh [--minutes 25] [--only 'a-*'] [--list] …      (run.py --help)
set -euo pipefail
cd "$(dirname "$0")/../.."
python=.venv/bin/python
[ -x "$python" ] || python=python3
if [[ " $* " != *" --list"* && " $* " != *" --help "* ]]; then
  if [[ " $* " != *" --program "* && ! -x build/release/bin/lighthouse ]]; then
    scripts/setup.sh
    make --no-print-directory build/release/build.ninja
    cmake --build build/release --target lighthouse_cli
  fi
  if [[ " $* " != *" --corpus "* ]]; then
    for corpus in $("$python" experiments/two_stage/run.py --list-corpora "$@"); do
      if [ -e ".corpus/$corpus/train" ]; then continue; fi
      if [ -e ".corpus/$corpus.tar.xz" ]; then
        "$python" experiments/two_stage/corpus.py unpack ".corpus/$corpus.tar.xz" ".corpus/$corpus"
      else
        case $corpus in two_stage) package=llvm-toolchain-14 ;; *) package=$corpus ;; esac
        "$python" experiments/two_stage/corpus.py build ".corpus/$corpus" --package "$package"
      fi
    done
  fi
fi
exec "$python" experiments/two_stage/run.py "$@"
