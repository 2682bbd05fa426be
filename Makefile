# make demo: an annotated dataset from text, and a page that shows it.
# make quick: lint, types and the fast tests, within a minute.   make test: everything.   make coverage: with branch coverage.
# make smoke: every recipe in small.
# make bench: what is missing of docs/results.md.   make bench-quick: four rows of it with one seed.   make spine: the decoder.
PYTHON ?= python3
WORKERS ?= 2
ROWS ?= benchmarks/results/rows
VENV := .venv
RUN := $(VENV)/bin/

.PHONY: demo quick test coverage lint docs smoke bench bench-quick spine clean

demo: $(VENV)/installed
	$(RUN)datasetdm demo

quick: lint
	$(RUN)pytest -n $(WORKERS) --dist worksteal -m "not slow"

test: lint
	$(RUN)pytest -n $(WORKERS) --dist worksteal

coverage: $(VENV)/installed-dev
	$(RUN)pytest -n $(WORKERS) --dist worksteal --cov --cov-report=term:skip-covered

lint: $(VENV)/installed-dev
	$(RUN)ruff check .
	$(RUN)ruff format --check .
	$(RUN)ty check

docs: $(VENV)/installed-dev
	$(RUN)sphinx-build -q -W docs docs/_build

smoke: $(VENV)/installed-dev
	for recipe in $$($(RUN)datasetdm recipes --names); do \
	  $(RUN)datasetdm run $$recipe --smoke --out smoke/$$recipe || exit 1; done

bench: $(VENV)/installed-dev
	$(RUN)python -m benchmarks.students --rows $(ROWS)
	$(RUN)python -m benchmarks.students --rows $(ROWS) --report

bench-quick: $(VENV)/installed-dev
	$(RUN)python -m benchmarks.students --quick

spine: $(VENV)/installed-dev
	$(RUN)python -m benchmarks.spine --json benchmarks/results/spine.json

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(RUN)python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(RUN)python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(VENV)/installed $@

clean:
	rm -rf $(VENV) demo smoke docs/_build
