# The two commands: `make train` and `make test`. Everything else is in docs/development.md and CONTRIBUTING.md.
SHELL := /bin/bash
PATH := $(CURDIR)/.venv/bin:$(PATH)
export PATH
export NINJA_STATUS = [%f/%t, %e s] # what a build shows of itself: files done, files in all, seconds
# Warnings are errors under the compiler that is tested most, or by WERROR=ON.
WERROR ?= $(if $(filter 12,$(shell c++ -dumpversion)),ON,OFF)
CONFIGURE = cmake -G Ninja -S . -DPython3_EXECUTABLE=$(CURDIR)/.venv/bin/python -DLIGHTHOUSE_WERROR=$(WERROR)
CORPUS = $(shell .venv/bin/python -c 'import importlib.util as u, os; print(os.path.dirname(u.find_spec("torch").origin))')/include
RUN ?= runs/quick
ARGS ?=

.PHONY: train test docs gpu-test gpu-sanitize gpu-bench wheel release-check check-architectures build complete build-cpu build-sanitize \
        test-release test-sanitize test-threads test-python test-torchtitan fuzz setup setup-test format check-format tidy clean

## Train a small decoder in two stages on the C++ headers of the installed torch. ARGS changes keys:
##   make train ARGS="--training.steps 20 --training.lighthouse_steps 12"
train: setup
	@[ -e build/release/build.ninja ] || $(CONFIGURE) -B build/release -DLIGHTHOUSE_CUDA=GPU -DLIGHTHOUSE_BENCH=OFF >/dev/null
	@echo "train: compiling the program, a few minutes on two cores; later calls compile what changed"
	@cmake --build build/release --target lighthouse_cli
	@build/release/bin/lighthouse train --config configs/quick.toml --data.path "$(CORPUS)" --logging.run_dir $(RUN) $(ARGS)

## Every test that this machine can run.
test: setup-test
	@$(MAKE) --no-print-directory check-format test-release test-python test-sanitize
	@echo "make test: all passed"

## On a machine with a GPU: the tests that need one; and these under each tool of compute-sanitizer. Both fail where no GPU is seen.
gpu-test gpu-sanitize: export LIGHTHOUSE_REQUIRE_GPU := 1
gpu-test: build
	ctest --test-dir build/release -L cuda --no-tests=error --output-on-failure --timeout 900
	LIGHTHOUSE_BUILD=$(CURDIR)/build/release python -m pytest -q tests/python/test_gpu.py
JOBS ?= 4
gpu-sanitize: build
	python scripts/gpu_sanitize.py build/release --jobs $(JOBS)

## On a machine with a GPU: every case of the benchmark into build/bench.jsonl, and from that the CUDA part of
## docs/benchmarks.md and the times of docs/tuning.md. Under ten minutes. A case that fails is named there, and fails the command.
gpu-bench: setup complete
	@cmake --build build/release --target lighthouse_cli
	@build/release/bin/lighthouse bench attention --device cuda --suite paper --check --output build/bench.jsonl; \
	  result=$$?; python bench/flex_attention_window.py >>build/bench.jsonl; \
	  python scripts/benchmark_report.py build/bench.jsonl && exit $$result

## The kernels for every GPU of the table in docs/python.md, and a look for spilled registers.
check-architectures: setup-test
	@$(CONFIGURE) -B build/architectures -DLIGHTHOUSE_CUDA=ON -DLIGHTHOUSE_CUDA_ARCHITECTURES=all -DLIGHTHOUSE_TESTS=OFF >/dev/null
	@cmake --build build/architectures --target lighthouse_stages lighthouse_nn
	LIGHTHOUSE_BUILD=$(CURDIR)/build/architectures python -m pytest -q tests/python/test_cuda_kernels.py

## The documentation as a site: build/site/index.html, which opens without a server.
docs: setup-test
	NO_MKDOCS_2_WARNING=1 python -m mkdocs build --strict

## dist/: both wheels for manylinux_2_28, with the kernels for every GPU of the table in docs/python.md, and the sdist. On Debian 12
## with nvcc 12.9 or newer. ARCHITECTURES=90a-real for one GPU, none for the CPU alone.
ARCHITECTURES ?= all
wheel: setup
	@scripts/make_wheels.sh "$(ARCHITECTURES)"

## Before a release is tagged: version, changelog, documentation and its links, examples, notebook, licences, both wheels in an empty
## environment, and the package's under the oldest and the newest torch (12 GB of downloads).
release-check: build check-architectures wheel
	python scripts/release_check.py
	OMP_NUM_THREADS=1 LIGHTHOUSE_BUILD=$(CURDIR)/build/release LIGHTHOUSE_WHEELS=$(CURDIR)/dist python -m pytest -q tests/python/test_{release,site,docs,wheels}.py
	scripts/test_wheel.sh

setup:
	@scripts/setup.sh
setup-test:
	@scripts/setup.sh test

# What a tree that make train made lacks.
complete: build/release/build.ninja
	@! grep -qs 'LIGHTHOUSE_CUDA:STRING=GPU' build/release/CMakeCache.txt || \
	  $(CONFIGURE) -B build/release -DLIGHTHOUSE_CUDA=AUTO -DLIGHTHOUSE_BENCH=ON >/dev/null
build/release/build.ninja: CMakeLists.txt
	@$(CONFIGURE) -B build/release >/dev/null
build/cpu/build.ninja: CMakeLists.txt
	@$(CONFIGURE) -B build/cpu -DLIGHTHOUSE_CUDA=OFF -DLIGHTHOUSE_TESTS=OFF >/dev/null
build/thread/build.ninja: CMakeLists.txt
	@$(CONFIGURE) -B build/thread -DLIGHTHOUSE_CUDA=OFF -DLIGHTHOUSE_SANITIZE=thread -DCMAKE_BUILD_TYPE=RelWithDebInfo >/dev/null
build/sanitize/build.ninja: CMakeLists.txt
	@$(CONFIGURE) -B build/sanitize -DLIGHTHOUSE_CUDA=OFF -DLIGHTHOUSE_SANITIZE=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo >/dev/null

## build/release: with CUDA where nvcc is found; build/cpu: the program without; build/sanitize: without, and all tests
## with address and undefined-behaviour sanitizers.
build: setup-test complete
	@cmake --build build/release
build-cpu: setup-test build/cpu/build.ninja
	@cmake --build build/cpu
build-sanitize: setup-test build/sanitize/build.ninja
	@cmake --build build/sanitize

test-release: build
	ctest --test-dir build/release -LE cuda -j 2 --output-on-failure --timeout 900
	ctest --test-dir build/release -L cuda --output-on-failure --timeout 900
test-python: build
	OMP_NUM_THREADS=1 LIGHTHOUSE_BUILD=$(CURDIR)/build/release python -m pytest -q -n 2 --dist loadfile tests/python
## torchtitan and the torch that it needs: 6 GB more, and a few minutes.
test-torchtitan: build
	@scripts/test_torchtitan.sh
# The tests that start threads of our own. torch is not compiled for this: its locks are not looked at, and one OpenMP thread
# starts no others. Tests fork beside the saver's thread, and ask for more memory than there is. Of the tests of ranks the one of a
# thread of ours: exceptions of gloo's threads look like races in the others. It ends a process whose threads stand still.
test-threads: export TSAN_OPTIONS = suppressions=$(CURDIR)/tests/support/thread_sanitizer.txt detect_deadlocks=0 die_after_fork=0 allocator_may_return_null=1 report_thread_leaks=0
test-threads: setup-test build/thread/build.ninja
	@cmake --build build/thread --target stages_test train_test parallel_test
	ctest --test-dir build/thread -R '^(stages|train)_test$$' --output-on-failure --timeout 1800
	build/thread/tests/cpp/parallel/parallel_test --gtest_brief=1 --gtest_filter='Lookout.*'
test-sanitize: build-sanitize
	ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 ctest --test-dir build/sanitize -j 2 --output-on-failure --timeout 1800

## libFuzzer on every harness of tests/robust, FUZZ_SECONDS each, one on each core at a time, with the address and undefined-behaviour
## sanitizers of clang. Inputs that are new are kept in build/fuzz/corpus; what ends a harness is left beside it.
FUZZ_SECONDS ?= 600
fuzz:
	@scripts/setup.sh fuzz
	@cmake -G Ninja -S tests/robust -B build/fuzz -DPython3_EXECUTABLE=$(CURDIR)/.venv/bin/python -DCMAKE_CXX_COMPILER=clang++ >/dev/null
	@cmake --build build/fuzz
	@ls tests/robust/seeds | xargs -P $$(nproc) -I NAME tests/robust/fuzz.sh NAME $(FUZZ_SECONDS)

SOURCES = $(shell git ls-files '*.h' '*.cpp' '*.cu' '*.cuh')
format:
	clang-format -i $(SOURCES)
check-format:
	@clang-format --version | grep -q 'version 14\.' || { echo "check-format: the format is that of clang-format 14: make setup-test" >&2; exit 1; }
	@clang-format --dry-run -Werror $(SOURCES)
# clang-tidy over every .cpp that is compiled without CUDA, on all cores; fails where it finds something. Nothing is compiled: clang reads
# the headers itself, not those that g++ precompiles, and takes omp.h of g++. TIDY: a part, as TIDY=src/train
build/tidy/build.ninja: CMakeLists.txt
	@$(CONFIGURE) -B build/tidy -DLIGHTHOUSE_CUDA=OFF -DLIGHTHOUSE_PRECOMPILE=OFF >/dev/null
TIDY ?= .
tidy: setup-test build/tidy/build.ninja
	@cmake --build build/tidy --target lighthouse_commit >/dev/null
	@run-clang-tidy.py -p build/tidy -quiet -hide-progress -extra-arg=-idirafter$$(c++ -print-file-name=include) -j $$(nproc) $(TIDY)
clean:
	rm -rf build
