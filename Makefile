# make demo: an annotated dataset from text, and a page that shows it.   make test: lint, types, tests.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/

.PHONY: demo test bench clean

demo: $(VENV)/installed
	$(RUN)datasetdm demo

test: $(VENV)/installed-dev
	$(RUN)ruff check .
	$(RUN)ruff format --check .
	$(RUN)ty check
	$(RUN)pytest

bench: $(VENV)/installed-dev
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
	rm -rf $(VENV) demo
