# Each target makes .venv and installs what it needs; a second call reuses it.
# Needs only make and Python 3.11 or newer. PYTHON=python3.12 chooses another.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: verify test fuzz models runtime-bugs arm shown mutants mutants-refimpl mutants-trackers lint types figures learn pictures clean

verify: .venv/installed
	$(BIN)/mobileinst verify

# One thread each: the workers share the cores, and each has the tests of a file, which share what they make,
# but for what another takes in the end. Bytecode is kept: tests start hundreds of processes.
test: .venv/installed-test
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not runtimes" -n auto --dist worksteal $(PYTEST_ARGS)

# 15 times the cases of `make test`, and how they ended.
fuzz: .venv/installed-test
	MOBILEINST_FUZZ_CASES=300000 OMP_NUM_THREADS=1 $(BIN)/python -P -m pytest -q -rP -n auto tests/fuzz $(PYTEST_ARGS)

# Whether docs/trust.md shows what its commands print; needs ../shared/data and what .ci/run installs.
shown: .venv/installed-test
	$(BIN)/python -P tests/support/shown.py docs/trust.md

# Real models from packages, and exports of torchvision and timm, judged: docs/models.md; needs npm.
models: .venv/installed
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[models]'
	$(BIN)/python -P -m conformance.evidence.models

# Small graphs that released versions of ONNX Runtime compute wrongly, judged in each: docs/runtime-bugs.md.
runtime-bugs: .venv/installed
	$(BIN)/python -P -m conformance.evidence.runtime_bugs

# MobileInst on Arm's kernels, float32 and float16, under qemu: docs/runtimes.md; needs apt and dpkg, not root.
arm: .venv/installed
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[ncnn,mnn]'
	$(BIN)/python -P -m conformance.evidence.arm $(ARM_ARGS)

mutants: mutants-refimpl mutants-trackers

# 200 mutants of the reference against its tests: an hour on two cores.
mutants-refimpl: .venv/installed-mutants
	$(BIN)/python -P tests/support/mutants.py refimpl tests/refimpl tests/golden/test_golden_set.py tests/golden/test_trained.py

# Mutants of the reference tracker and of docs/examples/tracker.js against check-tracker's properties; needs npm.
mutants-trackers: .venv/installed-mutants
	npm install --silent --no-save --prefix .venv/stryker @stryker-mutator/instrumenter@9.6.1
	OMP_NUM_THREADS=1 $(BIN)/python -P tests/support/mutant_trackers.py

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed-test
	$(BIN)/mypy

# How long functions are, what is documented and annotated, circles of imports, lines of code.
figures: .venv/installed-test
	$(BIN)/python tests/support/figures.py

# The chapters of docs/learn as notebooks, in the browser.
learn: .venv/installed
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[learn]' 'notebook>=7'
	$(BIN)/python tests/support/chapters.py --notebooks build/learn
	$(BIN)/jupyter notebook build/learn/00.ipynb

# The pictures of the README, each as its command makes it.
pictures: .venv/installed
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[browser]'
	$(BIN)/python tests/support/readme_pictures.py

clean:
	rm -rf .venv build *.egg-info

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; call make PYTHON=…")'
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	touch $@

.venv/installed-test: .venv/installed
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[test,dev]'
	touch $@

.venv/installed-mutants: .venv/installed-test
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[mutants]'
	touch $@
