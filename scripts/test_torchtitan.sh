#!/usr/bin/env bash
# Tests lighthouse_attention.torchtitan with torchtitan 0.3 and a torch that it takes, newer than that of .venv, on the library
# of build/release (run `make build` first). Kept in build/torchtitan-test for the next time (6 GB).
# Usage: scripts/test_torchtitan.sh [--install | pytest arguments]
#   --install: nothing but those downloads, for which no build is needed
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$PWD/build/torchtitan-test
python=$folder/bin/python
if [ ! -e "$folder/ready" ]; then
  rm -rf "$folder"
  python3 -m venv "$folder"
  "$python" -m pip install --quiet --disable-pip-version-check --no-compile "torch==2.15.0" "torchtitan==0.3.0" "$(grep '^pytest==' requirements-test.txt)" \
    "$(grep '^transformers' requirements-test.txt)"
  touch "$folder/ready"
fi
[ "${1:-}" != --install ] || exit 0
export LIGHTHOUSE_BUILD=${LIGHTHOUSE_BUILD:-$PWD/build/release} OMP_NUM_THREADS=1
"$python" -c 'import torch, importlib.metadata as m; print("test_torchtitan: torchtitan", m.version("torchtitan"), "with torch", torch.__version__)'
"$python" -m pytest -q -p no:cacheprovider tests/python/test_torchtitan.py "$@"
