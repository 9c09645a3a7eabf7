# Every target sets up .venv by itself: a fresh machine needs Python 3.10 or newer (with its headers), a C compiler and make.
#   make PYTHON=python3.12 test     another interpreter (remove .venv first)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
SOURCES := $(wildcard aimlite/_ext/*.pyx aimlite/_ext/*.pxd aimlite/_ext/*.h) aimlite/query/aimql.lark aimlite/query/tables.py
EXTENSIONS := aimlite._ext.keys aimlite._ext.blocks aimlite._ext.journal aimlite._ext.packed aimlite._ext.recorder aimlite._ext.relay

.PHONY: demo test stress check bench bench-peers bench-codecs bench-scaling bench-compare docs sanitize fuzz clean

test: $(VENV)/.built  ## every test but the long ones
	$(PYTEST) -n auto --dist worksteal

demo: $(VENV)/.built  ## eight small trainings into one repo, then their curves
	$(BIN)/python -m aimlite.demo

stress: $(VENV)/.built  ## kills, many processes, damage, long loops at full counts; then random bytes into every decoder
	AIMLITE_STRESS=1 $(PYTEST) tests/stress tests/storage tests/archive tests/objects tests/capture/test_terminal.py \
	    tests/sdk/test_archives.py tests/sdk/test_artifacts.py tests/sdk/test_deletion.py tests/sdk/test_objects.py tests/sdk/test_transfer.py
	AIMLITE_FUZZ_SECONDS=$${AIMLITE_FUZZ_SECONDS:-60} $(PYTEST) -m fuzz tests/ext tests/query tests/storage tests/sdk

check: $(VENV)/.built  ## style, types, stubs, layers, docs
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest --mypy-config-file pyproject.toml \
	    --allowlist tests/stubtest_allowlist.txt --ignore-unused-allowlist $(EXTENSIONS)
	$(PYTEST) tests/test_layers.py tests/test_docs.py

bench: $(VENV)/.built  ## benchmarks: the environment, then one line per operation
	$(BIN)/python benchmarks/bench.py

# Each peer gets an environment of its own under build/peers, which needs a package index. PEERS_OPTIONS='--write docs/benchmarks.md' keeps the table.
bench-peers: $(VENV)/.built  ## aimlite beside Aim, Runicorn, TensorBoard, MLflow, W&B, Trackio and two floors
	$(BIN)/python benchmarks/peers/peers.py $(PEERS_OPTIONS)

bench-codecs: $(VENV)/.built  ## the codec of blocks beside pcodec, Blosc2 and zstd
	$(BIN)/python benchmarks/block_codecs.py $(CODECS_OPTIONS)

bench-scaling: $(VENV)/.built  ## cost per operation over writers, runs and points
	$(BIN)/python benchmarks/scaling.py $(SCALING_OPTIONS)

bench-compare: $(VENV)/.built  ## the benchmarks on this working tree and on the commit REF, in turns
	@[ -n "$(REF)" ] || { echo 'say with which commit: make bench-compare REF=main'; exit 2; }
	$(BIN)/python benchmarks/compare.py $(REF) $(COMPARE_OPTIONS)

docs: $(VENV)/.built  ## run every example of README.md and docs/
	$(PYTEST) tests/test_docs.py tests/sdk/test_types_page.py aimlite --doctest-modules

# A copy, so that the slow build never replaces the one in use. Needs gcc on Linux.
sanitize: $(VENV)/.built  ## the tests of _ext under the address and undefined-behaviour sanitizers
	rm -rf build/sanitize
	mkdir -p build/sanitize
	cp -R aimlite tests docs pyproject.toml setup.py README.md LICENSE build/sanitize/
	rm -f build/sanitize/aimlite/_ext/*.c build/sanitize/aimlite/_ext/*.so
	cd build/sanitize && AIMLITE_DEBUG=sanitize ../../$(BIN)/python setup.py -q build_ext --inplace
	cd build/sanitize && LD_PRELOAD="$$($(CC) -print-file-name=libasan.so)" PYTHONMALLOC=malloc \
	    ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	    ../../$(PYTEST) -p no:cacheprovider --capture=sys tests/ext

fuzz: $(VENV)/.built  ## random bytes into every decoder and random queries, AIMLITE_FUZZ_SECONDS long each
	AIMLITE_FUZZ_SECONDS=$${AIMLITE_FUZZ_SECONDS:-300} $(PYTEST) -m fuzz tests/ext tests/query tests/storage tests/sdk

clean:  ## .venv and everything built
	rm -rf $(VENV) build dist *.egg-info aimlite/_ext/*.c aimlite/_ext/*.so aimlite/query/aimql_tables.json

$(VENV)/.installed: pyproject.toml setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check 'setuptools>=77' 'cython>=3.0.11' 'lark>=1.2'
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-build-isolation -e '.[dev,plot]'
	touch $@

# The editable install builds the extensions in place; what changed since is built here.
$(VENV)/.built: $(VENV)/.installed $(SOURCES)
	[ -z "$$(find $(SOURCES) -newer $<)" ] || $(BIN)/python setup.py -q build_ext --inplace
	touch $@
