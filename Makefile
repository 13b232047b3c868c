# Towpath's tasks. `make demo` and `make test` do all the set-up themselves.
#
# Owns: .venv (the project, installed editable, and what its tests need) and
# build/<kind>. Both are made again only when pyproject.toml or a source changed.
# Needs: Python >= 3.11 with its headers, a C compiler, and a package index as
# pip is configured to use it.

PYTHON ?= python3
VENV ?= .venv
JOBS ?= $(shell nproc)
FUZZ_SECONDS ?= 30
SOAK_SECONDS ?= 3600
PYTEST_ARGS ?=
WORKERS ?= 2

BIN := $(VENV)/bin
PY := $(BIN)/python
PYTEST := $(PY) -m pytest $(PYTEST_ARGS)
# Whole files are shared out, those with daemons first: they share nodes within a file, and wait a lot.
SHARED_OUT := -n $(WORKERS) --dist loadfile --no-loadscope-reorder
FORMATTED := engine fastpath bench examples tools setup.py  # tests keep their tables of bytes as they were laid out
UNIT_TESTS ?= tests/fastpath

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help build probes test demo check lint format bench bench-e2e bench-peers bench-cni debug asan tsan fuzz soak model cov docs wheel sdist clean distclean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# -- set-up ------------------------------------------------------------------
# Each stamp stands for what has been installed into the environment.
$(VENV)/.created: pyproject.toml tools/create-venv tools/requirements
	@tools/create-venv "$(PYTHON)" "$(VENV)"
	@touch $@

$(VENV)/.runtime: $(VENV)/.created
	@$(PY) setup.py -q build_ext --inplace
	@echo "installing towpath into $(VENV)"
	@FASTPATH_BUILD=none $(PY) -m pip install -q --no-build-isolation --config-settings editable_mode=compat -e .
	@touch $@

$(VENV)/.test: $(VENV)/.runtime
	@echo "installing what the tests need into $(VENV)"
	@for extra in test lint; do $(PY) tools/requirements $$extra; done | xargs -d '\n' $(PY) -m pip install -q
	@touch $@

build: $(VENV)/.runtime  ## compile the data plane in place (release)
	@$(PY) setup.py -q build_ext --inplace

probes: $(VENV)/.test
	@FASTPATH_PROBES=1 $(PY) setup.py -q build_ext --inplace

# -- the two commands --------------------------------------------------------
demo: build  ## three nodes and six pods exchange packets on this machine
	@$(BIN)/towpath demo $(DEMO_ARGS)

# Style is judged last and never keeps the tests from running; either can fail the whole.
test: probes  ## install what tests need, run all but the slow campaigns, then ruff and mypy
	@tools/system-packages
	@status=0; $(PYTEST) $(SHARED_OUT) -m 'not slow' || status=1; $(MAKE) --no-print-directory lint || status=1; \
	    tools/system-packages --report; exit $$status

check: probes lint  ## what to run before a commit: no root, nothing slow
	@$(PYTEST) -q $(SHARED_OUT) -m 'not root and not slow'

lint: $(VENV)/.test  ## ruff and strict mypy
	@status=0; $(BIN)/ruff check --quiet --output-format concise . || status=1; \
	    $(BIN)/ruff format --check --quiet --output-format concise $(FORMATTED) || status=1; $(BIN)/mypy --no-error-summary || status=1; exit $$status

format: $(VENV)/.test  ## let ruff lay out the Python files
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet $(FORMATTED)

# -- deeper ------------------------------------------------------------------
bench: probes  ## pytest-benchmark; JSON with the machine into docs/benchmarks
	@$(PY) -c 'import sys, fastpath; sys.exit(fastpath.BUILD != "release" and f"not a release build: {fastpath.BUILD}")'
	@mkdir -p docs/benchmarks
	@$(PYTEST) bench --benchmark-enable --benchmark-only -o faulthandler_timeout=0 --timeout 0 \
	    --benchmark-json docs/benchmarks/$$(date -u +%Y-%m-%d)-$$($(PY) -c 'import platform; print(platform.machine())').json

$(VENV)/.bench: $(VENV)/.test
	@$(PY) -m pip install -q $$($(PY) tools/requirements bench)
	@touch $@

# BENCH_ARGS: --quick for a look, names of suites, --pairs, --seconds; `python -m bench.e2e --help` has all.
bench-e2e: build $(VENV)/.bench  ## root: beside the kernel, in turn; JSON, table and plots into docs/benchmarks
	@$(PY) -m bench.e2e $(BENCH_ARGS)

bench-peers: build $(VENV)/.bench  ## the same beside flannel, wireguard-go and nebula, which Go installs
	@$(PY) -m bench.e2e peers --name $$(date -u +%Y-%m-%d)-peers $(BENCH_ARGS)

# A kind of build that is not a release is a tree of its own, tests included,
# and is run from inside it: nothing of the checkout can be imported by mistake.
define tree
	@FASTPATH_BUILD=$(1) FASTPATH_PROBES=1 $(PY) setup.py -q build
	@find build/$(1)/tree/tests -name '*.py' -delete
	@tar -c --exclude='*.so' --exclude=__pycache__ tests pyproject.toml | tar -x -C build/$(1)/tree
	@cd build/$(1)/tree && $($(1)_run) -c 'import fastpath; assert fastpath.BUILD == "$(1)", fastpath.__file__'
endef
python = PYTHONPATH=. $(CURDIR)/$(PY)
library = $(shell $(or $(CC),cc) -print-file-name=$(1).so)
debug_run = $(python)
cov_run = $(python)
asan_run = LD_PRELOAD="$(call library,libasan) $(call library,libubsan)" PYTHONMALLOC=malloc \
    ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 $(python)
tsan_run = TSAN_OPTIONS=exitcode=66:suppressions=$(CURDIR)/tests/tsan.supp setarch -R env LD_PRELOAD="$(call library,libtsan)" $(python)
# A sanitizer writes its report to the real stderr, so that stays uncaptured.
UNITS = -m pytest --capture=sys $(PYTEST_ARGS) -m 'not root and not slow' $(UNIT_TESTS)

bench-cni: build $(VENV)/.bench  ## root: ADD and DEL beside the reference bridge plugin, in turn; into docs/benchmarks
	@$(PY) -m bench.cni $(BENCH_ARGS)

debug: $(VENV)/.test  ## the tests of fastpath/ on a debug build
	$(call tree,debug)
	@cd build/debug/tree && $(debug_run) $(UNITS)

asan: $(VENV)/.test  ## the same under AddressSanitizer and UBSan
	$(call tree,asan)
	@cd build/asan/tree && $(asan_run) $(UNITS)

tsan: $(VENV)/.test  ## the same under ThreadSanitizer
	$(call tree,tsan)
	@cd build/tsan/tree && $(tsan_run) $(UNITS)

fuzz: $(VENV)/.test  ## each tests/fuzz/fuzz_*.py for FUZZ_SECONDS a target; they bring their own sanitizers
	@for target in tests/fuzz/fuzz_*.py; do \
	    [ -e "$$target" ] || { echo "there is no fuzz target under tests/fuzz" >&2; exit 1; }; \
	    echo "== $$target"; \
	    $(python) -m "tests.fuzz.$$(basename "$$target" .py)" --seconds $(FUZZ_SECONDS) || exit; \
	done

soak: probes  ## the tests marked slow, each stretched to SOAK_SECONDS
	@SOAK_SECONDS=$(SOAK_SECONDS) $(PYTEST) -m slow --timeout 0

model: $(VENV)/.created  ## Spin on tests/model/*.pml: the design holds, every seeded mutant is caught
	@$(PY) tools/run-models tests/model

cov: $(VENV)/.test  ## line coverage of engine/ and fastpath/, .pxd included, as HTML in build/cov/html
	@$(PY) -m pip install -q $$($(PY) tools/requirements cov)
	$(call tree,cov)
	@cp -r build/cov/c/. build/cov/tree
	@cd build/cov/tree && $(cov_run) $(CURDIR)/tools/run-coverage $(PYTEST_ARGS) -m 'not slow' $(UNIT_TESTS) $(wildcard tests/engine)

docs: build  ## the reference of the Python packages as HTML in build/docs
	@$(PY) -m pip install -q $$($(PY) tools/requirements docs)
	@$(BIN)/pdoc -o build/docs engine fastpath

# -- packages ----------------------------------------------------------------
wheel: $(VENV)/.created  ## build a wheel into dist/, isolated as pip does it
	@$(PY) -m pip wheel -q --no-deps -w dist .

sdist: $(VENV)/.created  ## build a source distribution into dist/
	@$(PY) setup.py -q sdist

clean:  ## remove what was built, keep the environment
	@rm -rf build dist *.egg-info
	@find fastpath tests -name '*.so' -delete
	@rm -f engine/cni/shim/towpath-cni

distclean: clean
	@rm -rf $(VENV)
