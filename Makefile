# farsearch needs Python 3.10 or newer, make and a package registry; everything else is installed into .venv.
#
#   PYTHON=python3.12                     another Python to make .venv with
#   PIP_ARGS="--extra-index-url URL"      further arguments of pip install, for example the index of another torch build
#   PYTEST_ARGS="-k pattern tests/far"    further arguments of pytest
#   PAPER_ARGS="--data-dir glue"          what `make paper` trains instead of the paper's model and tasks, for a GPU
#   BOARD_PYTHON=PATH                     the Python 3.6 of `make test-board`, where it is not on the path or in pyenv

PYTHON ?= python3
PIP_ARGS ?=
BOARD_PYTHON ?=
PYTEST_ARGS ?=

# `make demo`: a complete search in a few minutes on two cores, with a model and data that are installed with it.
DEMO ?= run --device jetson-nano --task reviews --model minilm --study demo --epochs 3 --n-trials 6

# `make paper`: the tasks of FAR's paper with its model, all rows, from the hub. docs/benchmarks.md has smaller ones.
PAPER_ARGS ?= --model distilbert-base-uncased --train-samples all --epochs 3 --batch-size 16 \
	--task cola --task mnli --task qnli --task qqp --task sst2 --task squad_v2

# Tests that need more than the install: `make test` leaves them out, `make test-rest` runs them alone.
REST = real_data or service or browser or board or slow
MARKERS ?= not ($(REST))
# One process a core; the tests themselves hold torch to one thread. Files are begun in the order of tests/conftest.py.
PYTEST = -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# The caller's Python environment must not reach the project's.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo paper test test-all test-rest test-board test-wheel check format docs wheel constraints clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.installed-demo ## install, then run a whole search on the embedded sample
	.venv/bin/farsearch $(DEMO)

paper: .venv/.installed-demo ## install, then train the methods of FAR's paper, beside its figures (PAPER_ARGS; needs a GPU or hours)
	.venv/bin/python -m benchmarks.paper $(PAPER_ARGS)

test: .venv/.installed-dev ## install, then run all tests that need nothing but the install
	.venv/bin/python $(PYTEST) -m "$(MARKERS)" $(PYTEST_ARGS)

test-all: .venv/.installed-dev ## the same, and those that need real data, services, a browser or time
	.venv/bin/python $(PYTEST) $(PYTEST_ARGS)

test-rest: .venv/.installed-dev ## install, then run only the tests of `make test-all` that `make test` leaves out
	.venv/bin/python $(PYTEST) -m "$(REST)" $(PYTEST_ARGS)

test-board: .venv/.installed-dev .venv-board/.installed ## run the code for boards under Python 3.6 and torch 1.10
	FARSEARCH_BOARD_PYTHON=.venv-board/bin/python .venv/bin/python $(PYTEST) -m board $(PYTEST_ARGS)

test-wheel: .venv/.installed-dev ## build the wheel and run the tests against it
	@bash tools/test_wheel.sh $(PYTEST) -m "$(MARKERS)" $(PYTEST_ARGS)

check: .venv/.installed-dev ## lint, format, types, and who may import whom
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/mypy --platform win32 --cache-dir .mypy_cache/win32 farsearch
	.venv/bin/lint-imports

format: .venv/.installed-dev ## format the code and apply the linter's fixes
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

docs: .venv/.installed-docs ## build the manual into build/site, without a network
	NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs --quiet build --strict
	@echo "the manual is build/site/index.html; to search in it: python3 -m http.server -d build/site"

wheel: .venv/.installed-dev ## build source archive and wheel into dist/
	PIP_CONSTRAINT=constraints.txt .venv/bin/python -m build

constraints: ## pin the versions that the ranges of pyproject.toml resolve to (needs uv; UV_ARGS=--upgrade for newer versions)
	printf 'hatchling\neditables\npip\n' | uv pip compile pyproject.toml - --all-extras --universal --python-version 3.10 \
		--no-annotate --custom-compile-command "make constraints" --quiet $(UV_ARGS) -o constraints.txt

clean: ## remove .venv, .venv-board, build products and caches; studies stay
	rm -rf .venv .venv-board build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find farsearch tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written after a complete install, so that an interrupted one is repeated.
.venv/.installed-%: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "farsearch: there is no $(PYTHON) here; install Python 3.10 or newer and add PYTHON=<its path>" >&2; exit 1; }
	@$(PYTHON) tools/make_venv.py $* $(PIP_ARGS)
	@touch $@

.venv-board/.installed: tests/board/requirements.txt
	@BOARD_PYTHON="$(BOARD_PYTHON)" bash tools/make_board_venv.sh $(PIP_ARGS)
	@touch $@
