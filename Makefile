# rmtlib. Every target sets up what it needs in .venv; `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
RMTLIB := $(BIN)/python -m rmtlib.cli
JUPYTER_BOOK := $(BIN)/python -c 'from jupyter_book.cli.main import main; main()'
CONSTRAINTS ?= constraints.txt
ARTIFACTS := $(filter-out tutorial explore,$(basename $(notdir $(wildcard notebooks/*.ipynb))))
GENERATED := out book/_build book/_generated .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The scripts in .venv/bin, and where pip has noted rmtlib to be, are absolute: a folder that was moved uses neither.
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))

# LONG=1 of babilong-time: the rows that read the scale's longest contexts.
CHOSEN := $(or $(ROWS),$(if $(LONG),*-long))
SELECTION := $(if $(SCALE),--scale '$(SCALE)') $(if $(SEEDS),--seeds '$(SEEDS)') \
             $(if $(CHOSEN),--rows '$(CHOSEN)') $(if $(TASKS),--tasks '$(TASKS)') $(if $(PRECISION),--precision '$(PRECISION)')
RUN_FLAGS := $(SELECTION) $(if $(JOBS),--jobs '$(JOBS)') $(if $(TIME_BUDGET),--time-budget '$(TIME_BUDGET)') \
             $(if $(FRESH),--fresh)
PARAMETERS := $(foreach name,SCALE SEEDS TASKS PRECISION,$(if $($(name)),-p $(name) '$($(name))')) $(if $(CHOSEN),-p ROWS '$(CHOSEN)')

# A misspelt variable would silently be no variable at all: one on the command line that looks like one of ours is said.
OURS := SCALE SEEDS ROWS LONG TASKS PRECISION JOBS TIME_BUDGET FRESH PYTEST_ARGS BENCH_ARGS STRESS STRESS_ARGS PYTHON CONSTRAINTS
GIVEN := $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name)))
MEANT := $(if $(filter-out $(OURS),$(GIVEN)),$(shell \
    plain() { tr -d '_-' <<<"$${1^^}"; }; \
    for name in $(filter-out $(OURS),$(GIVEN)); do for ours in $(OURS); do name_=$$(plain "$$name"); ours_=$$(plain $$ours); \
        if [ "$${name_%S}" = "$${ours_%S}" ]; then echo "unknown variable $$name: did you mean $$ours?"; fi; done; done))
$(if $(MEANT),$(error $(MEANT)))

TARGETS := tutorial explore test test-book test-peers bench stress rehearse book report export lab lint clean setup help
.PHONY: $(TARGETS) $(ARTIFACTS)

help:
	@echo "Artifacts: trains what runs/ does not hold yet, then leaves figure, table and notebook in out/<artifact>/"
	@for artifact in $(ARTIFACTS); do echo "  make $$artifact"; done
	@echo "    SCALE=smoke|small|medium|gpu|paper  size of the runs (default: gpu with a GPU, else small)"
	@echo "    SEEDS=3                      runs of each row"
	@echo "    TASKS=qa1,qa2  ROWS='qa*'    which rows"
	@echo "    PRECISION=bf16               the float32 runs of scale paper in bf16: other runs"
	@echo "    LONG=1                       babilong-time alone: the longest contexts (small 1M tokens, medium 10M, gpu and paper 50M)"
	@echo "    JOBS=2                       runs at once"
	@echo "    TIME_BUDGET=540              stop after so many seconds; the same command continues"
	@echo "    FRESH=1                      delete these runs and start over"
	@echo "The rest:"
	@echo "  make tutorial run notebooks/tutorial.ipynb, about a minute, into out/tutorial/"
	@echo "  make explore  run notebooks/explore.ipynb: attention, memory and answers of a trained model, into out/explore/"
	@echo "  make test     run the tests (PYTEST_ARGS='-k name' picks some)"
	@echo "  make bench    speed and memory against straightforward peers, into out/bench (BENCH_ARGS='--only update');"
	@echo "                BENCH_ARGS=--record also keeps it as benchmarks/record.json, the book's table; with --gpu before it,"
	@echo "                one GPU's, as benchmarks/gpu.json"
	@echo "  make rehearse a few steps, a stop and one test sample of every row's model of the scale gpu, on this machine; kept in"
	@echo "                benchmarks/rehearsal.json, the book's table, row by row: the same command goes on"
	@echo "  make stress   try to break it: kills, power cuts, full disks, hostile mirrors, damaged files; ten minutes of trials,"
	@echo "                STRESS=long an hour, into out/stress (STRESS_ARGS='--only kills --seed 7' repeats some)"
	@echo "  make book     build the report from the published records: book/_build/html/index.html"
	@echo "                (SCALE=smoke first runs every artifact at that scale and shows those runs too)"
	@echo "  make test-book  open the built book in Chromium: errors, overflow, search, filters (needs chromium)"
	@echo "  make test-peers  the tests that need lm-evaluation-harness and the package rwkv, which it installs first"
	@echo "  make report   the built book as one page to print, and as PDF (needs chromium): book/_build/report/"
	@echo "  make export   all published numbers and claims as CSV and JSON with a schema, into out/export"
	@echo "  make lab      open the notebooks in JupyterLab"
	@echo "  make lint     check style, types and that notebooks are stored without outputs"
	@echo "  make clean    delete what the targets built; keeps runs/ (trained models) and .venv"
	@echo "  make setup    only install; PYTHON=/path/to/python3.11 and CONSTRAINTS=file choose with what"

$(ARTIFACTS): $(VENV)/.ready
	@$(RMTLIB) run $@ $(RUN_FLAGS) >/dev/null
	@echo "Drawing from notebooks/$@.ipynb (about 20 seconds)"
	@$(RMTLIB) notebook $@ $(PARAMETERS) -p OUT 'out/$@' --out 'out/$@/$@.ipynb' >/dev/null
	@cat 'out/$@/summary.txt'

tutorial: $(VENV)/.ready
	@OMP_NUM_THREADS=1 $(RMTLIB) notebook tutorial >/dev/null
	@echo "The executed notebook is out/tutorial/tutorial.ipynb"

explore: $(VENV)/.ready
	@OMP_NUM_THREADS=1 $(RMTLIB) notebook explore >/dev/null
	@echo "The executed notebook is out/explore/explore.ipynb; open notebooks/explore.ipynb to choose (make lab)"

test: $(VENV)/.ready
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

rehearse: $(VENV)/.ready
	@OMP_NUM_THREADS=1 $(RMTLIB) rehearse all --scale gpu --rows '$(or $(ROWS),all)' --record benchmarks/rehearsal.json \
	    $(if $(FRESH),--fresh)

bench: $(VENV)/.ready
	@OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks $(BENCH_ARGS)

stress: $(VENV)/.ready
	$(if $(filter-out long,$(STRESS)),$(error STRESS is $(STRESS): leave it out, or say STRESS=long))
	@OMP_NUM_THREADS=1 $(BIN)/python -m stress $(if $(STRESS),--long) $(STRESS_ARGS)

book: $(VENV)/.ready
ifneq ($(SCALE),)
	@for artifact in $(ARTIFACTS); do $(RMTLIB) run "$$artifact" $(RUN_FLAGS) >/dev/null; done
endif
	@echo "Writing the pages from the records and running the notebooks (a minute or two the first time, then about half a minute)"
	@rm -rf book/_build book/_generated
	@OMP_NUM_THREADS=1 $(BIN)/python -m rmtlib.book $(if $(SCALE),--scale '$(SCALE)')
	@echo "Building the book and checking it (about a minute)"
	@mkdir -p book/_build
	@if ! $(JUPYTER_BOOK) build book -W --keep-going -q >book/_build/build.log 2>&1 </dev/null; then \
	    grep -E 'WARNING|ERROR|Error' book/_build/build.log || tail -n 20 book/_build/build.log; \
	    echo "error: the book did not build; the whole log is book/_build/build.log" >&2; exit 1; fi
	@$(BIN)/python book/check.py
	@echo "The book is book/_build/html/index.html"

test-book: $(VENV)/.ready
	@[ -f book/_build/html/index.html ] || { echo "error: no book here: make book builds it" >&2; exit 1; }
	@RMTLIB_BOOK=book/_build/html $(BIN)/python -m pytest -q -rs -n 2 tests/test_book_browser.py $(PYTEST_ARGS)

test-peers: $(VENV)/.ready
	@echo "Installing lm-evaluation-harness and rwkv into $(VENV)"
	@$(BIN)/python -m pip install -q -c $(CONSTRAINTS) -e '.[peers]'
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -rs tests/test_harness.py tests/test_rwkv.py $(PYTEST_ARGS)

report: $(VENV)/.ready
	@[ -f book/_build/html/intro.html ] || $(MAKE) book
	@$(BIN)/python book/report.py

export: $(VENV)/.ready
	@$(RMTLIB) export

lab: $(VENV)/.ready
	@$(BIN)/python -m jupyterlab --notebook-dir=notebooks $(if $(filter 0,$(shell id -u)),--allow-root)

lint: $(VENV)/.ready
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m mypy
	@$(BIN)/python -m nbstripout --verify --keep-id notebooks/*.ipynb

clean:
	@rm -rf $(GENERATED)
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
	@echo "Kept runs/ (trained models and their records) and $(VENV); delete them by hand to start from nothing."

setup: $(VENV)/.ready

.DEFAULT:
	@plain() { tr -d '_-' <<<"$${1,,}"; }; asked=$$(plain '$@'); hint='`make` lists what there is'; \
	for target in $(ARTIFACTS) $(TARGETS); do known=$$(plain $$target); \
	    if [ "$${asked%s}" = "$${known%s}" ]; then hint="did you mean $$target?"; fi; done; \
	echo "error: nothing called $@ to make: $$hint" >&2; exit 2

# 3.11 first: every torch build has it. The stamp is older than the two files when one of them changes.
# pip's lines are shown one over the other on a terminal and go to the log in any case.
NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
SHOW_LINE := awk -v tty="$$([ -t 1 ] && echo 1)" \
    'tty && /^(Collecting|Downloading|Building|Installing)/ { printf "\r\033[K  %.70s", $$0; fflush() } \
     END { if (tty) printf "\r\033[K" }'

$(VENV)/.ready: pyproject.toml $(CONSTRAINTS)
	@if ! $(BIN)/python $(NEW_ENOUGH) 2>/dev/null; then \
	    python=; \
	    for name in $(or $(PYTHON),python3.11 python3.13 python3.12 python3 python); do \
	        if "$$name" $(NEW_ENOUGH) 2>/dev/null; then python="$$name"; break; fi; done; \
	    if [ -z "$$python" ]; then \
	        echo "error: $(if $(PYTHON),PYTHON=$(PYTHON) is not,found no) Python 3.11 or newer:" \
	            "install one (Debian 12, Ubuntu 24.04: sudo apt install python3 python3-venv)" \
	            "or name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; fi; \
	    if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	        echo "error: $$python has no venv or no pip: sudo apt install python3-venv, then make $(MAKECMDGOALS) again" >&2; \
	        exit 1; fi; \
	    "$$python" -m venv --clear $(VENV); fi
	@echo "Installing into $(VENV), once: about 2 minutes and 2 GB (log: $(VENV)/install.log)"
	@if ! $(BIN)/python -m pip install --progress-bar off -c $(CONSTRAINTS) -e '.[all]' 2>&1 </dev/null \
	        | tee $(VENV)/install.log | $(SHOW_LINE); then \
	    grep -i '^error' $(VENV)/install.log | head -n 5 >&2; \
	    echo "error: the installation failed; see $(VENV)/install.log, then make $(MAKECMDGOALS) again" >&2; exit 1; fi
	@touch $@
