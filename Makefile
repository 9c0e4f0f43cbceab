# Everything runs in .venv, which is made when it is missing or when what it is made from changes.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
# The real TensorRT bindings of three majors, for tests that hold our code to them; they run nothing.
BINDINGS := .venv/bindings
BINDINGS_8 := tensorrt-bindings==8.6.1
BINDINGS_10 := tensorrt-cu12-bindings==10.16.1.11
BINDINGS_11 := tensorrt-cu12-bindings==11.4.0.106
# A real Triton, whose python backend answers nothing right with numpy 2, so it has an environment of its own; and the
# load generator that only older wheels of its client hold.
TRITON := .venv/triton
TRITON_PACKAGES := nvidia-pytriton==0.7.0 'numpy<2' onnxruntime tokenizers 'tritonclient[http,grpc]'
PERF_ANALYZER := .venv/perf_analyzer
# KServe's own description of its kinds; its package needs too much to be installed, and is only read.
KSERVE := .venv/kserve
# What lists the packages and asks for advisories, apart from them.
AUDIT := .venv/audit
# Where pip gets torch from, such as: --index-url URL-of-the-CPU-builds
PIP_TORCH ?=
# Processes that share the tests, one for each processor, and further options of pytest, such as: PYTEST='-k serve'
JOBS ?= $(shell nproc)
PYTEST ?=
# Files run in the order of tests/conftest.py; xdist would take those with the most tests first.
RUN_TESTS = $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
# Options of the benchmark, such as: --only 'ort INT8' -o FILE.json
BENCH ?=


.PHONY: demo test test-rest test-all lint bench bench-gpu reference pictures sbom audit clean
demo: $(INSTALLED)
	$(BIN)/toolchain demo

# The default suite; what it leaves out; and both, with as many examples as hypothesis tries by itself, and without tests
# that are short forms of others.
test: $(INSTALLED) $(BINDINGS)/installed $(KSERVE)/installed
	$(RUN_TESTS) $(PYTEST)

test-rest: $(INSTALLED) $(TRITON)/installed $(PERF_ANALYZER)/installed
	$(RUN_TESTS) -m "slow or stress" $(PYTEST)

test-all: $(INSTALLED) $(BINDINGS)/installed $(TRITON)/installed $(PERF_ANALYZER)/installed $(KSERVE)/installed
	$(RUN_TESTS) -m "not short" --hypothesis-profile all $(PYTEST)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(INSTALLED) $(TRITON)/installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bench]' \
	|| echo "No OpenVINO for this machine: it is left out."
	$(BIN)/python benchmarks/run.py $(BENCH)
	$(BIN)/python benchmarks/serving/run.py $(BENCH_SERVING)

bench-gpu: $(INSTALLED)
	$(BIN)/python benchmarks/gpu/run.py

# docs/reference/ from the code, and docs/img/ from a run on the demo (needs Chromium).
reference: $(INSTALLED)
	$(BIN)/python docs/reference/make.py

pictures: $(INSTALLED)
	$(BIN)/python docs/img/tree.py
	$(BIN)/python docs/img/make.py

# A bill of materials (CycloneDX) of what .venv holds, and known advisories against the versions that are tested
# together; the second asks PyPI over the network, and fails if PyPI does not know a package.
sbom: $(INSTALLED) $(AUDIT)/installed
	$(AUDIT)/bin/cyclonedx-py environment $(BIN)/python --output-file sbom.cdx.json

audit: $(AUDIT)/installed
	$(AUDIT)/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict

# torch comes first and by itself: where a CPU build is on offer (see README), it is kept.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt $(PIP_TORCH) torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

# Each in a folder of its own: all are imported as tensorrt_bindings. Those of 8 exist up to Python 3.11 only.
$(BINDINGS)/installed: $(INSTALLED) Makefile
	rm -rf $(BINDINGS)
	{ $(BIN)/python -m pip install --quiet --no-deps --target $(BINDINGS)/10 $(BINDINGS_10) \
	&& $(BIN)/python -m pip install --quiet --no-deps --target $(BINDINGS)/11 $(BINDINGS_11) \
	&& { $(BIN)/python -m pip install --quiet --no-deps --target $(BINDINGS)/8 $(BINDINGS_8) || true; } \
	&& touch $@; } || echo "No TensorRT bindings for this machine: their tests are skipped."

$(TRITON)/installed: $(INSTALLED) Makefile
	rm -rf $(TRITON)
	{ $(PYTHON) -m venv $(TRITON) && $(TRITON)/bin/python -m pip install --quiet $(TRITON_PACKAGES) && touch $@; } \
	|| echo "No Triton for this machine: its tests are skipped."

$(PERF_ANALYZER)/installed: $(INSTALLED) Makefile
	rm -rf $(PERF_ANALYZER)
	{ $(BIN)/python -m pip download --quiet --no-deps --dest $(PERF_ANALYZER) tritonclient==2.50.0 && touch $@; } \
	|| echo "No perf_analyzer for this machine: its tests are skipped."

$(KSERVE)/installed: $(INSTALLED) Makefile
	rm -rf $(KSERVE)
	{ $(BIN)/python -m pip install --quiet --no-deps --target $(KSERVE) kserve==0.21.0 && touch $@; } \
	|| echo "No KServe for this machine: its test is skipped."

$(AUDIT)/installed: Makefile
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet cyclonedx-bom==7.5.0 pip-audit==2.10.1
	touch $@

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache
