# Two commands do all the set-up: `make app` and `make test`.

# The newest Python here that all wheels exist for; `make PYTHON=...` takes another.
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
  $$python -c 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
    && echo $$python && break; done)
VENV := .venv
PIP_FLAGS := --disable-pip-version-check --quiet
# Tests run on all cores, a file in one process: its fixtures (an app, a browser) are made once.
WORKERS := --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: app test lint docs bundles clean

app: $(VENV)/.app
	$(VENV)/bin/python app.py

test:
	@$(MAKE) --no-print-directory --jobs=2 $(VENV)/.test chromium
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports --no-logo
	$(VENV)/bin/python -m pytest $(WORKERS)

lint: $(VENV)/.test
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# The site, in docs/_build/html; it runs the tutorials. Warnings are errors.
docs: $(VENV)/.docs
	$(VENV)/bin/sphinx-build -W -n --keep-going -q -d docs/_build/doctrees docs docs/_build/html
	@echo "docs/_build/html/index.html"

# The default bundles and all that is measured of them, again, after the small CLIP's weights have
# changed. Hours on two cores.
bundles: $(VENV)/.app
	$(VENV)/bin/python -m export run --model artifacts/mini-vit --out artifacts/mini-vit --overwrite --restart \
	  --storage float16 --gallery-mb 2.4
	$(VENV)/bin/python -m export run --model artifacts/mini-rn --out artifacts/mini-rn --overwrite --restart \
	  --storage float16 --gallery-mb 1.4 --top-k 50
	for bundle in mini-vit mini-rn; do \
	  $(VENV)/bin/python -m export evaluate labels --bundle artifacts/$$bundle \
	  && $(VENV)/bin/python -m export evaluate cues --bundle artifacts/$$bundle \
	  && $(VENV)/bin/python -m research segmentation presence --bundle artifacts/$$bundle \
	  && $(VENV)/bin/python -m research labels --bundle artifacts/$$bundle \
	  && $(VENV)/bin/python -m research concepts --bundle artifacts/$$bundle \
	  && $(VENV)/bin/python -m research shift --bundle artifacts/$$bundle \
	  && $(VENV)/bin/python -m research mending --bundle artifacts/$$bundle \
	  && $(VENV)/bin/python -m export refresh-card --bundle artifacts/$$bundle --opening || exit 1; \
	done
	$(VENV)/bin/python -m research papers --out artifacts/report
	$(VENV)/bin/python -m research figures

# The browser tests drive Debian's Chromium; without root they are skipped, and say so.
.PHONY: chromium
chromium:
	@if command -v chromium >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "Installing chromium for the browser tests"; \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null \
	    || echo "chromium could not be installed: the browser tests will be skipped"; \
	else echo "no chromium: the browser tests will be skipped"; fi

$(VENV)/.app: requirements.txt
	@[ -x $(VENV)/bin/pip ] || $(or $(PYTHON),false) -m venv $(VENV) \
	  || { echo "Python 3.11 to 3.13 with venv is needed: apt-get install python3 python3-venv"; exit 1; }
	@echo "Installing into $(VENV) with $$($(VENV)/bin/python --version) (several GB with PyTorch, a few minutes)"
	$(VENV)/bin/pip install $(PIP_FLAGS) -r requirements.txt
	@touch $@

$(VENV)/.test: requirements.txt tests/requirements.txt $(VENV)/.app
	$(VENV)/bin/pip install $(PIP_FLAGS) -r tests/requirements.txt
	@touch $@

$(VENV)/.docs: docs/requirements.txt $(VENV)/.app
	$(VENV)/bin/pip install $(PIP_FLAGS) -r docs/requirements.txt
	@touch $@

clean:
	rm -rf $(VENV) docs/_build .pytest_cache .ruff_cache .import_linter_cache
