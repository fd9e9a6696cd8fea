#!/usr/bin/env bash
# Builds the wheel once and tests it in a fresh virtual environment for each version of torch (about 5 GB each, kept in
# build/wheel-test for the next time). Usage: scripts/test_wheel.sh [TORCH_VERSION ...]
set -euo pipefail
cd "$(dirname "$0")/.."
versions=("$@")
((${#versions[@]})) || versions=(2.10.0 2.11.0)
folder=$PWD/build/wheel-test
torch_root=$(.venv/bin/python -c 'import importlib.util as u, os; print(os.path.dirname(u.find_spec("torch").origin))')

# Without build isolation: that would download a torch of its own for its headers.
[ -x "$folder/builder/bin/python" ] || python3 -m venv "$folder/builder"
"$folder/builder/bin/python" -m pip install --quiet scikit-build-core ninja
rm -f "$folder"/*.whl
"$folder/builder/bin/python" -m pip wheel --quiet --no-build-isolation --no-deps --wheel-dir "$folder" \
  --config-settings=cmake.define.TORCH_ROOT="$torch_root" .
wheel=$(ls "$folder"/*.whl)
echo "test_wheel: $(basename "$wheel"), $(stat --format=%s "$wheel") bytes, built with $torch_root/version.py:" \
  "$(sed -n "s/^__version__ = //p" "$torch_root/version.py")"

for version in "${versions[@]}"; do
  python=$folder/torch-$version/bin/python
  [ -x "$python" ] || python3 -m venv "$folder/torch-$version"
  "$python" -m pip install --quiet "torch==$version" numpy pytest safetensors
  "$python" -m pip install --quiet --force-reinstall --no-deps "$wheel"
  echo "test_wheel: torch $version"
  (cd "$folder" && env -u PYTHONPATH -u LIGHTHOUSE_LIBRARY "$python" -m lighthouse_attention)
  "$folder/torch-$version/bin/lighthouse-report" --help >/dev/null
  (cd "$folder" && env -u PYTHONPATH -u LIGHTHOUSE_LIBRARY "$python" ../../examples/quickstart.py | tail -n 1)
  # No build: what compares with the C++ operator library, which is of one torch, is skipped.
  env -u PYTHONPATH -u LIGHTHOUSE_LIBRARY LIGHTHOUSE_BUILD=/nonexistent "$python" -m pytest -q -p no:cacheprovider \
    tests/python/test_{attention,operators,compile,errors,module,package}.py
done
