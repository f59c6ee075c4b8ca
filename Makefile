# Every command of the project. Each makes what it needs, on a fresh machine too: a C compiler, make and Python 3.11
# to 3.14 with venv are all that must be there.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
SOURCES = $(wildcard src/*/*.pyx src/*/*.pxi src/*/*.h) setup.py pyproject.toml
.DEFAULT_GOAL = help

help:           ## this list
	@grep -hE '^[a-z0-9-]+: .*##' $(MAKEFILE_LIST) | sed 's/:[^#]*##/\t/' | expand -t 18

demo: $(VENV)/.demo  ## train, forecast and stream a real series; writes out/demo.png
	$(BIN)/python -m fastrnn demo

test: $(VENV)/.test  ## the suite but for its slow parts, on all CPUs: some minutes
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

test-slow: $(VENV)/.test  ## what the suite has beside: sweeps, real training runs, kills, type checkers
	$(BIN)/python -m pytest -n auto --dist worksteal -m slow

test-all: test test-slow  ## the whole suite

bench: $(VENV)/.bench  ## fastrnn beside PyTorch, ONNX Runtime, OpenVINO and JAX; writes out/peers.json, out/peers.png
	$(BIN)/python benchmarks/peers.py
	$(BIN)/python benchmarks/precision.py --json out/precision.json

precision: $(VENV)/.bench  ## int8, bfloat16 beside the narrow forms of ONNX Runtime, LiteRT, OpenVINO, PyTorch; what they cost models
	$(BIN)/python benchmarks/precision.py --json out/precision.json
	$(BIN)/python benchmarks/narrow_models.py --json out/narrow_models.json

before: $(VENV)/.test  ## this checkout beside an earlier one, bits and times: make before COMMIT=HEAD~1
	$(BIN)/python benchmarks/before.py $(COMMIT)

cycles: $(VENV)/.test  ## small networks, fixed costs, threads, packed batches: each target, met or MISSED
	$(BIN)/python benchmarks/cycles.py --json out/cycles.json

small: $(VENV)/.bench  ## steps and short blocks of small networks beside RTNeural, ONNX Runtime, torch and 0c7e2e8
	$(BIN)/python benchmarks/small.py --json out/small.json $(if $(RTNEURAL),--rtneural $(RTNEURAL))

options: $(VENV)/.test  ## cells with options beside the plain cell and NumPy
	$(BIN)/python benchmarks/options.py

accelerate: $(VENV)/.test  ## training steps of PyTorch models, before and after fastrnn.pytorch.accelerate
	$(BIN)/python benchmarks/accelerate.py

ppo: $(VENV)/.test  ## RecurrentPPO of sb3-contrib, step by step and in whole sequences: steps a second
	$(BIN)/python benchmarks/recurrent_ppo.py

training: $(VENV)/.test  ## whole epochs beside PyTorch: time and losses
	$(BIN)/python benchmarks/training.py

m4: $(VENV)/.test  ## forecasts of M4's hourly and weekly series beside naive ones: sMAPE, MASE
	$(BIN)/python benchmarks/m4.py --auto --precision int8 bfloat16

series: $(VENV)/.series-bench  ## default forecasts of many series beside simple methods: errors, intervals, time, memory
	$(BIN)/python benchmarks/series.py --json out/series.json

series-neural: $(VENV)/.series-bench $(VENV)/.series-neural  ## and two networks of neuralforecast on the panels
	$(BIN)/python benchmarks/series.py --only neural --seeds 0 --json out/series.json

nab: $(VENV)/.test  ## anomalies of the Numenta benchmark: the published score, baselines beside
	$(BIN)/python benchmarks/nab.py

# Packages whose files hold labelled series, at the versions that were measured; only the code of GutenTAG is run.
LABELLED = aeon==1.6.0 sktime==1.2.0 streamad==0.3.1 pvanalytics==0.2.2 timeeval-gutentag==1.5.0 neurokit2==0.1.2
anomalies: $(VENV)/.anomalies-bench build/labelled  ## false alarms, alarms after a glitch, labelled series beside six detectors
	FASTRNN_ANOMALIES=build/labelled $(BIN)/python benchmarks/anomalies.py --cache build/anomalies --json out/anomalies.json

build/labelled: $(VENV)/.anomalies-bench
	rm -rf $@.part
	$(BIN)/python -m pip install -q --no-deps --target $@.part $(LABELLED)
	mv $@.part $@

streams: $(VENV)/.test  ## what one observation costs: streamed forecasts and anomaly scores
	$(BIN)/python benchmarks/streams.py

pool: $(VENV)/.test  ## pools of 4,096 live streams beside the batched layer and solo streams; a million keys with a store
	$(BIN)/python benchmarks/pool.py --json out/pool.json

gradients: $(VENV)/.test  ## vanishing gradients, and which cell learns from 20 to 500 steps back (some ten minutes)
	$(BIN)/python examples/vanishing_gradients.py --full --plot out/vanishing_gradients.png

kills: $(VENV)/.test  ## 200 kills of a training run: each resumes, the last weights are those of a run never killed
	$(BIN)/python tests/campaigns/kills.py

file-kills: $(VENV)/.test  ## 1,000 kills of save, export, checkpoint and convert: the old or the new file, whole; no draft stays
	$(BIN)/python tests/campaigns/file_kills.py

scale-kills: $(VENV)/.test  ## 100 kills of runs over many series: workers, drivers, a full disk; the same bytes at the end
	$(BIN)/python tests/campaigns/scale_kills.py

scale: $(VENV)/.test  ## many series by every engine, a million series out of core: each target, met or MISSED
	$(BIN)/python benchmarks/scale.py --json out/scale.json

ranks: $(VENV)/.test  ## training on several processes: overhead, speed, equal bits of processes and MPI, a cost model
	$(BIN)/python benchmarks/ranks.py --json out/ranks.json

dropin: $(VENV)/.build  ## g2p_en, g2pM, madmom and nagisa with fastrnn in place of their own loops (installs them from PyPI)
	$(BIN)/python benchmarks/dropin.py

parts: $(VENV)/.test  ## micro-benchmarks of the parts
	$(BIN)/python -m pytest benchmarks/test_parts.py --benchmark-columns=median,iqr,rounds

lint: $(VENV)/.lint  ## ruff, cython-lint, types, stubs against the compiled modules, docstrings
	$(BIN)/ruff check .
	PATH="$(abspath $(BIN)):$$PATH" cython-lint src/*/*.pyx src/*/*.pxi
	$(BIN)/python -m mypy
	$(BIN)/python tests/package/check_docstrings.py
	$(BIN)/python -m mypy.stubtest fastrnn._core --ignore-disjoint-bases --mypy-config-file pyproject.toml

exhaustive: $(VENV)/.test  ## tanh and sigmoid over all 2^32 float32 inputs, every instruction set (some ten minutes)
	$(BIN)/python tests/campaigns/exhaustive.py

exhaustive-slice: $(VENV)/.test  ## one in 256 of those inputs
	$(BIN)/python tests/campaigns/exhaustive.py --stride 256

load: $(VENV)/.test  ## under load: forks, threads, Ctrl-C everywhere, 10^9 steps, clocks, quotas (some hours; PARTS="forks cpus")
	$(BIN)/python tests/campaigns/load.py $(PARTS)

load-slice: $(VENV)/.test  ## a little of each of its parts, without judging times
	$(BIN)/python tests/campaigns/load.py --slice

mutants: $(VENV)/.test  ## planted faults, one at a time: the tests named for each must catch it (some ten minutes)
	$(BIN)/python tests/campaigns/mutants.py

mutants-slice: $(VENV)/.test  ## six of those faults, one of them compiled, by a seed that is printed
	$(BIN)/python tests/campaigns/mutants.py --slice $(SEED) --processes 1

machines: $(VENV)/.test  ## x86-64 without AVX to AVX-512, aarch64, musl, clang, Python 3.11 to 3.14: each builds, its slice passes
	$(BIN)/python tests/campaigns/machines.py

machines-slice: $(VENV)/.test  ## every cell, option, direction and precision on emulated CPUs with less than AVX-512
	$(BIN)/python tests/campaigns/machines.py --short

pythons: $(VENV)/.test  ## Python 3.11 to 3.14, each with the oldest NumPy it may have and with the newest
	$(BIN)/python tests/campaigns/machines.py pythons

free-threaded: $(VENV)/.test  ## tests of threads and the suite's core on a Python without a GIL, which is built where there is none
	$(BIN)/python tests/campaigns/free_threaded.py

free-threaded-tsan: $(VENV)/.test  ## tests with threads on a Python without a GIL under ThreadSanitizer; clang builds both
	$(BIN)/python tests/campaigns/free_threaded.py --tsan

free-threaded-slice: $(VENV)/.test  ## the tests of threads on a Python without a GIL, where there is one on the PATH
	$(BIN)/python tests/campaigns/free_threaded.py --slice --found

EXECUTIONS ?= 2000000
fuzz: fuzz-files fuzz-api $(VENV)/.test  ## all fuzzers; junk arguments to every public call, broken files of every format, for long
	FASTRNN_FUZZ_EXAMPLES=20000 $(BIN)/python -m pytest tests/kernels/test_fuzz.py
	FASTRNN_FUZZ_FILES=20000 FASTRNN_FUZZ_LIMIT=1 $(BIN)/python -m pytest tests -k mutat

fuzz-files: $(VENV)/.test $(VENV)/.fuzz  ## every reader of model files by atheris, EXECUTIONS times each; goes on where it ended
	$(BIN)/python tests/campaigns/fuzz_files.py --executions $(EXECUTIONS)

CASES ?= 500000
fuzz-api: $(VENV)/.test  ## CASES random cases of the array API against the float64 oracle, from number FIRST on
	$(BIN)/python tests/campaigns/fuzz_api.py --cases $(CASES) $(if $(FIRST),--first $(FIRST))

# The same suite's core on a build of another kind, laid in a folder of its own that PYTHONPATH puts first.
VARIANT_TESTS = $(addprefix tests/kernels/test_,kernels.py options.py packed.py promises.py bad_input.py bad_options.py fuzz.py) \
	tests/nn/test_modules.py tests/training/test_optim.py
scalar: $(VENV)/.test  ## the suite's core on a build without vector extensions
	FASTRNN_SCALAR=1 $(BIN)/python setup.py -q build --build-base build/scalar --build-lib build/scalar/lib
	PYTHONPATH=build/scalar/lib $(BIN)/pytest $(VARIANT_TESTS) $(SLICE)

debug: $(VENV)/.test  ## the suite's core on a build with bounds, overflow and None checks and C assertions
	FASTRNN_DEBUG=1 $(BIN)/python setup.py -q build --build-base build/debug --build-lib build/debug/lib
	PYTHONPATH=build/debug/lib $(BIN)/pytest $(VARIANT_TESTS) $(SLICE)

asan: $(VENV)/.test  ## the suite's core under AddressSanitizer, UBSan and LeakSanitizer, with gcc and with clang
	$(BIN)/python tests/campaigns/sanitizers.py asan $(if $(COMPILER),--compiler $(COMPILER))

tsan: $(VENV)/.test  ## tests with threads under ThreadSanitizer, with gcc and with clang
	$(BIN)/python tests/campaigns/sanitizers.py tsan $(if $(COMPILER),--compiler $(COMPILER))

asan-slice: $(VENV)/.test  ## some tests of one instruction set under AddressSanitizer and UBSan, with gcc
	$(BIN)/python tests/campaigns/sanitizers.py asan --compiler gcc --slice

tsan-slice: $(VENV)/.test  ## some tests with threads of one instruction set under ThreadSanitizer, with gcc
	$(BIN)/python tests/campaigns/sanitizers.py tsan --compiler gcc --slice

coverage: $(VENV)/.test  ## the whole suite, then which lines of Python it ran: the worst files, the total, fails under 97 %
	rm -rf build/coverage/python && mkdir -p build/coverage/python
	$(BIN)/coverage run -m pytest -n auto --dist worksteal $(SLICE); tests=$$?; \
	$(BIN)/coverage combine -q; $(BIN)/coverage report --sort=cover --fail-under=97 && exit $$tests

# Not optimised, calls take ten times as long: of each test function some cases, and none whose signals come by the clock.
COVERAGE_TESTS = tests/kernels tests/nn tests/training tests/scale/test_pool.py $(addprefix tests/pytorch/test_pytorch_,\
	modules.py in_place.py manners.py short_calls.py) -k "not signals_whose_handlers and not another_thread_steps"
coverage-compiled: $(VENV)/.test  ## which lines of the compiled modules the suite's core runs: each file, the total, fails under 95 %
	FASTRNN_COVERAGE=1 CC=gcc $(BIN)/python setup.py -q build --build-base build/coverage --build-lib build/coverage/lib
	find build/coverage -name '*.gcda' -delete
	PYTHONPATH=$(CURDIR)/build/coverage/lib:$(CURDIR)/tests/support FASTRNN_SAMPLE=8 \
	$(BIN)/pytest -p sampled -m "not slow" $(COVERAGE_TESTS) $(SLICE)
	$(BIN)/python tests/campaigns/compiled_coverage.py build/coverage

docs: $(VENV)/.docs  ## the documentation, into build/docs; a warning is an error
	$(BIN)/python -m sphinx -q -W --keep-going -n -b html docs build/docs

# Archives whose times are the last commit's: the same sources give the same wheel, to the byte.
BUILD = SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct 2>/dev/null || date +%s)} $(BIN)/python -m build -q
sdist: $(VENV)/.package  ## the source distribution; writes dist/
	rm -rf dist && $(BUILD) --sdist

wheel: $(VENV)/.package  ## the sdist, the wheel built from it alone, a smoke test beside NumPy alone; writes dist/
	rm -rf dist && $(BUILD)
	$(PYTHON) -m venv dist/venv && dist/venv/bin/python -m pip install -q dist/*.whl
	$(PYTHON) tests/support/wheel_check.py dist

reproducible: $(VENV)/.package  ## the last commit built twice in different surroundings: the same bytes (some minutes)
	$(BIN)/python tests/campaigns/reproducible.py

clean:          ## everything made
	rm -rf $(VENV) build dist out docs/generated fastrnn/*.so *.egg-info

# ---- The environment: a stamp for each set of requirements -----------------------------------------

$(VENV)/.venv:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.package: $(VENV)/.venv
	$(BIN)/python -m pip install -q build
	touch $@

# One installation after the other, so that the checks may run side by side.
environment: $(VENV)/.test $(VENV)/.lint $(VENV)/.docs $(VENV)/.package  ## what the checks of .ci/run need

$(VENV)/.build: $(VENV)/.venv $(SOURCES)
	$(BIN)/python -m pip install -q 'setuptools>=77' 'cython>=3.1,<3.4' 'numpy>=2.0' wheel
	$(BIN)/python -m pip install -q --no-build-isolation -e .
	touch $@

mpi-environment: $(VENV)/.mpi  ## mpi4py, for the tests with MPI; needs an MPI library

EXTRAS = demo test fuzz bench anomalies-bench series-bench series-neural lint docs mpi
$(EXTRAS:%=$(VENV)/.%): $(VENV)/.%: $(VENV)/.build
	$(BIN)/python -m pip install -q --no-build-isolation -e '.[$*]'
	touch $@

# Every target with a plain name is a command, not a file.
.PHONY: $(shell sed -n 's/^\([a-z0-9-]*\):.*/\1/p' $(MAKEFILE_LIST))
