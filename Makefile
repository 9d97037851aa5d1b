# Everything runs in .venv, which is made on first use and brought up to date when pyproject.toml changes.
PYTHON ?= python3
PYTEST_ARGS ?= -n 2 --dist loadfile

VENV := .venv
BIN := $(VENV)/bin
PACKAGES := $(VENV)/.packages
READY := $(VENV)/.installed

# What must hold with every version of Python, Numba, NumPy and SciPy that pyproject.toml allows
VERSION_TESTS := tests/api/test_solve.py tests/api/test_pullback.py tests/adjoints/test_discrete.py \
	tests/compile/test_assumptions.py tests/compile/test_cache.py tests/compile/test_fallbacks.py tests/compile/test_trusted.py \
	tests/derivation/test_programs.py tests/derivation/test_texts.py tests/derivation/test_refusals.py \
	tests/compile/test_fused.py::test_failures_are_reported_as_in_the_portable_tier
# Jacobians of residuals beside other libraries
JACOBIANS := --quick --tolerances 1e-4 1e-6 1e-8 --errors 1e-4 1e-6 --no-startup
# The newest Python at hand, on the path or installed by pyenv
NEWEST_PYTHON ?= $(shell for one in python3.14 python3.13 python3.12 $$(ls ~/.pyenv/versions/3.1[2-4].*/bin/python3 2>/dev/null | sort -rV); \
	do $$one -c "" 2>/dev/null && echo $$one && break; done)

.PHONY: demo test test-slow test-cuda test-lowest test-newest lint docs package bench compare clean venv
.DELETE_ON_ERROR:

# It compiles no more than it needs, in less time than all kernels take
demo: $(PACKAGES)
	$(BIN)/python examples/hare_lynx.py

test: $(READY)
	$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow -n 2 --dist worksteal

# No GPU needed: the kernels in numba-cuda's simulator, compiled for the CPU, and compiled to PTX. In an environment of its own.
test-cuda: .venv-cuda/.installed
	NUMBA_ENABLE_CUDASIM=1 NUMBA_DISABLE_JIT=1 .venv-cuda/bin/python -m pytest -n 2 --dist worksteal tests/cuda/test_simulator.py tests/cuda/test_simulator_jumps.py
	.venv-cuda/bin/python -m pytest -n 2 tests/cuda --ignore tests/cuda/test_simulator.py --ignore tests/cuda/test_simulator_jumps.py

# The lowest versions that pyproject.toml allows
test-lowest: .venv-lowest/.installed
	.venv-lowest/bin/python -m pytest -m "not slow" $(PYTEST_ARGS) $(VERSION_TESTS)

# The newest versions there are
test-newest: .venv-newest/.installed
	.venv-newest/bin/python -m pytest -m "not slow" $(PYTEST_ARGS) $(VERSION_TESTS)

lint: $(READY)-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY)-docs
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

# What is to be published: an archive of the sources and a wheel, which works where nothing else of the checkout is
package: $(READY)-package
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*
	$(PYTHON) -m venv dist/venv
	dist/venv/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	cd dist && venv/bin/python -I ../tests/project/installed.py

bench: $(READY)-bench
	$(BIN)/asv run --python=same --show-stderr

compare: $(READY)-compare
	$(BIN)/python -m adjode.precompile
	$(BIN)/python -m benchmarks.compare --output docs/measured
	$(BIN)/python -m benchmarks.compare --problems rober hires pollu brusselator_2d --output docs/measured/stiff
	$(BIN)/python -m benchmarks.compare --problems J_lv_series J_spiral $(JACOBIANS) --output docs/measured/jacobian
	$(BIN)/python -m benchmarks.compare --problems J_rober J_hires J_pollu $(JACOBIANS) --contenders cvodes diffrax "Jacobian, Radau" \
		--output docs/measured/jacobian_stiff

venv: $(READY)

clean:
	rm -rf adjode/_precompiled build dist docs/_build examples/output benchmarks/.asv .coverage .pytest_cache .hypothesis .mypy_cache .ruff_cache \
		.import_linter_cache
	find adjode benchmarks tests examples docs -name __pycache__ -prune -exec rm -rf {} +

$(PACKAGES): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[plot,test]"
	touch $@

$(READY): $(PACKAGES)
	$(BIN)/python -m adjode.precompile
	touch $@

# nvcc brings the assembler that reads what is compiled
.venv-cuda/.installed: pyproject.toml
	test -x .venv-cuda/bin/python || $(PYTHON) -m venv .venv-cuda
	.venv-cuda/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[cuda,test]" "cuda-toolkit[nvcc]==13.*"
	touch $@

.venv-lowest/.installed: pyproject.toml
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[test]" \
		$$($(PYTHON) -c "import tomllib; needed = tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies']; \
			print(*(one.split(',')[0].replace('>=', '==') for one in needed))")
	touch $@

.venv-newest/.installed: pyproject.toml
	test -x .venv-newest/bin/python || $(or $(NEWEST_PYTHON),$(PYTHON)) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --editable ".[test]"
	touch $@

$(READY)-%: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$*]"
	touch $@
