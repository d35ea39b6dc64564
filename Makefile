# Two commands: `make demo` and `make test`. Everything is installed into .venv and nowhere else.
PYTHON ?= python3
VENV := .venv/bin/python
# The models of the tests are tiny: threads that wait for each other make them slower, many times beside another job.
ONE := OMP_NUM_THREADS=1
STATE := { cat pyproject.toml constraints.txt && pwd; }

.PHONY: demo test trust lint install clean

demo: install
	$(VENV) -m opcd_agents demo

# Two files of tests at a time: each is held to one thread, and two cores are what is counted on.
test: lint
	$(ONE) $(VENV) -m pytest -n 2 --dist loadfile

trust: install
	OPCD_TRUST=full $(ONE) $(VENV) -m pytest tests/trust

lint: install
	$(VENV) -m ruff check
	$(VENV) -m pyright --project pyproject.toml

install:
	@if ! $(VENV) -c 'import pip' 2>/dev/null; then \
		"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
			echo "wanted Python 3.11 or newer, got $$("$(PYTHON)" --version 2>&1 | head -n 1) as $(PYTHON); try: make PYTHON=/path/to/python3.11" >&2; \
			exit 3; \
		}; \
		rm -rf .venv && "$(PYTHON)" -m venv .venv; \
	fi
	@$(STATE) | cmp -s - .venv/.installed || { \
		$(VENV) -m pip install --disable-pip-version-check -c constraints.txt -e ".[dev]" && $(STATE) > .venv/.installed; \
	}

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
