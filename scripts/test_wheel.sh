#!/usr/bin/env bash
# Tests the package's wheel of make wheel with the oldest torch and transformers that pyproject.toml allows, and with the newest
# there are: a fresh virtual environment for each torch, of about 6 GB, kept in build/wheel-test for the next time.
# Usage: scripts/test_wheel.sh [TORCH_VERSION ...]
set -euo pipefail
cd "$(dirname "$0")/.."
allowed() { sed -n "s/.*\"\($1>=[^\"]*\)\".*/\1/p" pyproject.toml | tail -n 1; }
oldest() { allowed "$1" | sed 's/.*>=//; s/,.*//'; }
oldest_torch=$(oldest torch).0
versions=("$@")
((${#versions[@]})) || versions=("$oldest_torch" "$(.venv/bin/python -m pip index versions torch 2>/dev/null | sed -n '1s/torch (\(.*\))/\1/p')")
folder=$PWD/build/wheel-test

wheel=$(ls dist/lighthouse_attention-*.whl) || { echo "test_wheel: dist/ has no wheel of the package: make wheel" >&2; exit 1; }
wheel=$PWD/$wheel

for version in "${versions[@]}"; do
  python=$folder/torch-$version/bin/python
  [ -x "$python" ] || python3 -m venv "$folder/torch-$version"
  transformers=$(allowed transformers)
  [ "$version" = "$oldest_torch" ] && transformers=transformers==$(oldest transformers)
  "$python" -m pip install --quiet --upgrade "torch==$version" "$transformers" accelerate peft numpy safetensors "$(grep '^pytest==' requirements-test.txt)"
  "$python" -m pip install --quiet --force-reinstall --no-deps "$wheel"
  echo "test_wheel: torch $version, $("$python" -c 'import transformers; print("transformers", transformers.__version__)')"
  (cd "$folder" && env -u PYTHONPATH -u LIGHTHOUSE_LIBRARY "$python" -m lighthouse_attention)
  "$folder/torch-$version/bin/lighthouse-report" --help >/dev/null
  "$folder/torch-$version/bin/lighthouse-prepare" --help >/dev/null
  test -x "$folder/torch-$version/bin/lighthouse-init"
  (cd "$folder" && env -u PYTHONPATH -u LIGHTHOUSE_LIBRARY "$python" ../../examples/quickstart.py | tail -n 1)
  # No build: what compares with the C++ operator library, which is of one torch, is skipped.
  env -u PYTHONPATH -u LIGHTHOUSE_LIBRARY LIGHTHOUSE_BUILD=none "$python" -m pytest -q -p no:cacheprovider \
    tests/python/test_{attention,compile,compile_documents,context,docs,errors,gpu,inner,module,operators,package,torchtitan,trl}.py tests/python/test_huggingface*.py
done
