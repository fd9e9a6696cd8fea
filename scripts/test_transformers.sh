#!/usr/bin/env bash
# Tests the Hugging Face adapter with the oldest and the newest transformers that pyproject.toml allows, on the torch of .venv
# and the library of build/release (run `make build` first); and with these and older ones that what lighthouse writes, transformers
# reads, and the other way round. Each is kept in build/transformers-test for the next time (0.3 GB).
# Usage: scripts/test_transformers.sh [VERSION ...]
set -euo pipefail
cd "$(dirname "$0")/.."
allowed=$(sed -n 's/.*"\(transformers>=[^"]*\)".*/\1/p' pyproject.toml)
oldest=${allowed#*>=}
versions=("$@")
((${#versions[@]})) || versions=(4.48.0 4.53.0 4.57.3 "${oldest%,*}" newest)

for version in "${versions[@]}"; do
  folder=$PWD/build/transformers-test/$version
  wanted=transformers==$version
  if [ "$version" = newest ]; then
    wanted=$allowed
    rm -rf "$folder"
  fi
  if [ ! -d "$folder" ]; then
    .venv/bin/python -m pip install --quiet --target "$folder" "$wanted" psutil
    .venv/bin/python -m pip install --quiet --target "$folder" --no-deps accelerate peft # they would bring a torch of their own
  fi
  export PYTHONPATH=$folder LIGHTHOUSE_BUILD=${LIGHTHOUSE_BUILD:-$PWD/build/release}
  .venv/bin/python -c 'import torch, transformers as t; print("test_transformers: transformers", t.__version__, "with torch", torch.__version__)'
  tests=(tests/python/test_{families,export}.py)
  [[ $version == 4.* ]] || tests+=(tests/python/test_huggingface*.py)
  OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -p no:cacheprovider "${tests[@]}"
done
