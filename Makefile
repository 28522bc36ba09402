# `make demo` and `make test` work alone on a machine that has Python 3.10 or newer and pip.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CHECK_TORCH := import torch, torchvision.ops as o; o.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)

.PHONY: demo test lint type docs docs-serve clean

demo: $(VENV)/.nern
	$(BIN)/nern train digits output=$$(mktemp -d)/digits

test: $(VENV)/.nern-dev
	$(MAKE) lint type docs
	$(BIN)/python -m pytest --numprocesses 2

lint: $(VENV)/.nern-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

type: $(VENV)/.nern-dev
	$(BIN)/mypy

docs: $(VENV)/.nern-dev
	$(BIN)/mkdocs build --strict --quiet

docs-serve: $(VENV)/.nern-dev
	$(BIN)/mkdocs serve

# torch and torchvision are installed by one call from one index, so that pip picks builds that fit together; a build
# of torch that was already there and does not fit is replaced.
$(VENV)/.nern: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable .
	@$(BIN)/python -c "$(CHECK_TORCH)" 2>/dev/null || { echo "torch and torchvision do not fit together; installing both again"; \
	  $(BIN)/pip install --quiet --force-reinstall torch torchvision && $(BIN)/python -c "$(CHECK_TORCH)"; }
	touch $@

$(VENV)/.nern-dev: $(VENV)/.nern
	$(BIN)/pip install --quiet --editable ".[test,lint,docs]"
	touch $@

clean:
	rm -rf $(VENV) build dist site
