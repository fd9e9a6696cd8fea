#!/usr/bin/env bash
# Both wheels for manylinux_2_28 and the sdist, into dist/; auditwheel says that the wheels are what their names say.
# Usage: scripts/make_wheels.sh [ARCHITECTURES]: all (the default), as LIGHTHOUSE_CUDA_ARCHITECTURES takes them, or none: without CUDA
set -euo pipefail
cd "$(dirname "$0")/.."
architectures=${1:-all}
cuda=ON
[ "$architectures" != none ] || cuda=OFF
limit=100000000  # PyPI takes 100 MB
builder=$PWD/build/wheel-builder plain=$PWD/build/wheel-plain program=$PWD/build/wheel-program
torch_root=$(.venv/bin/python -c 'import importlib.util as u, os; print(os.path.dirname(u.find_spec("torch").origin))')
export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1  # what both wheels need is compiled once, and messages name files without this folder
say() { printf 'make wheel: %s\n' "$*" >&2; }

[ -x "$builder/bin/python" ] || python3 -m venv "$builder"
export PATH=$builder/bin:$PATH
python -m pip install --quiet --disable-pip-version-check -r requirements-wheel.txt
rm -rf "$plain" dist && mkdir -p "$plain" dist
# Without build isolation: that would download a torch of its own for its headers.
wheel=(python -m pip wheel --quiet --disable-pip-version-check --no-build-isolation --no-deps --no-cache-dir --wheel-dir "$plain")
options=("LIGHTHOUSE_CUDA=$cuda"
  "LIGHTHOUSE_CUDA_ARCHITECTURES=${architectures/#none/native}" LIGHTHOUSE_MANYLINUX=ON LIGHTHOUSE_WERROR=ON "TORCH_ROOT=$torch_root")

say "the package, kernels for $architectures; those for all take the longest"
python -c 'import scikit_build_core.build as build; build.build_sdist("dist")'
"${wheel[@]}" --config-settings=build-dir=build/wheel-package "${options[@]/#/--config-settings=cmake.define.}" .

say "the program"
cmake -G Ninja -S . -B "$program" -DLIGHTHOUSE_TESTS=OFF -DPython3_EXECUTABLE="$PWD/.venv/bin/python" "${options[@]/#/-D}" >/dev/null
cmake --build "$program" --target lighthouse_cli
"${wheel[@]}" --config-settings=cmake.define.LIGHTHOUSE_BUILD="$program" packaging/cli

for file in "$plain"/*.whl; do
  auditwheel repair --plat manylinux_2_28_x86_64 --only-plat --wheel-dir dist \
    --exclude 'libtorch*.so' --exclude 'libc10*.so' --exclude 'libcudart.so.*' "$file"
done
for file in dist/*; do
  size=$(stat --format=%s "$file")
  say "$file, $size bytes"
  ((size <= limit)) || { say "$file is larger than $limit bytes, which PyPI does not take"; exit 1; }
done
