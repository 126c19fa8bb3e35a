# make run    install into .venv and run etc/ulogd.conf in the foreground
# make demo   the same with flows of a network that does not exist (etc/demo.conf): no privilege, no traffic needed
# make test   all tests; as root on Debian it first installs the peers that live tests meet
# make docs   the documents as HTML, in build/site
# make man    man pages in build/man, completion for bash and zsh in build/completion
# make package  sdist, wheel, Debian package and OCI image in dist (ARGS="python deb": these alone)
# make unit | live | soak | clean
# make bench  what traffic of many shapes costs, beside other programs, as a table (ARGS=--quick: seconds; ARGS=--list)
# make lint   ruff check, ruff format --check, mypy (its exceptions stand in pyproject.toml)
# make fuzz   every decoder for SECONDS (60) each, or TARGET=name alone; crashes are kept in _fuzz
#
# PYTHON=/path/to/python3 chooses the interpreter, ARGS="..." is handed to run, the tests and the benchmarks.

PYTHON ?= python3
ARGS ?=
TARGET ?=
SECONDS ?= 60
VENV := .venv
PY := $(VENV)/bin/python
# Tests of what has compiled kernels: they run with and without.
WITH_KERNELS := $(addprefix tests.unit.,kernels ipfix core aggregation netfilter packets plugins.outputs plugins.filters)
# A default editable install keeps the twistd plugin from being found; compat puts this folder on the path.
INSTALL := $(PY) -m pip install -qq --disable-pip-version-check --config-settings editable_mode=compat -e

.PHONY: run demo docs man test unit live bench fuzz lint soak package clean

run: $(VENV)/installed
	@echo "make: running etc/ulogd.conf; Ctrl-C ends it. Ask it from another terminal: $(VENV)/bin/ulogd-tw top -c etc/ulogd.conf"
	@ULOGD_TW_PRINT_TOKEN=1 exec $(VENV)/bin/twistd -n --pidfile= ulogd -c etc/ulogd.conf $(ARGS)

demo: $(VENV)/installed
	@echo "make: running etc/demo.conf; Ctrl-C ends it. Ask it from another terminal: $(VENV)/bin/ulogd-tw top -c etc/demo.conf"
	@ULOGD_TW_PRINT_TOKEN=1 exec $(VENV)/bin/twistd -n --pidfile= ulogd -c etc/demo.conf $(ARGS)

# The peers first: a C compiler is among them, for the kernels.
test:
	tests/install-peers
	@$(MAKE) --no-print-directory $(VENV)/installed-test
	@echo "make: what has compiled kernels, tested without them"
	@ULOGD_TW_KERNELS=off $(PY) -m tests.run $(ARGS) $(WITH_KERNELS)
	@$(PY) -m tests.run $(ARGS)

unit: $(VENV)/installed-test
	@$(PY) -m tests.run $(ARGS) tests.unit

live: $(VENV)/installed-test
	tests/install-peers
	@$(PY) -m tests.run $(ARGS) tests.live

bench: $(VENV)/installed-test
	tests/install-peers
	@$(PY) -m benchmarks $(ARGS)

fuzz: $(VENV)/installed-test
	$(PY) -m tests.fuzz $(TARGET) --seconds $(SECONDS)

soak: $(VENV)/installed-test
	tests/install-peers
	@ULOGD_TW_SOAK=1 HYPOTHESIS_EXAMPLES=2000 $(PY) -m tests.run $(ARGS)

docs: $(VENV)/installed-docs
	$(VENV)/bin/mkdocs build --strict --quiet

man: $(VENV)/installed-man
	@$(PY) -m ulogd_tw.operating.manual build

package: $(VENV)/installed-man $(VENV)/installed-dev
	MANUAL_PYTHON=$(PY) release/make-packages dist $(ARGS)
	$(VENV)/bin/twine check --strict dist/*.whl dist/ulogd_tw-*.tar.gz

lint: $(VENV)/installed-test $(VENV)/installed-dev docs
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(PY) -m tests.typecheck

clean:
	rm -rf $(VENV) build dist *.egg-info .ruff_cache .mypy_cache _trial_temp* _fuzz
	find . -name __pycache__ -prune -exec rm -rf {} +
	find . -name dropin.cache -delete

# Each stamp is older than setup.cfg when the dependencies have to be installed again.
$(VENV)/installed: setup.cfg pyproject.toml setup.py $(wildcard ulogd_tw/kernels/*.[ch]) ulogd_tw/kernels/build.py
	@if [ ! -x $(PY) ]; then $(CHECK_PYTHON) fi
	@if [ ! -x $(PY) ]; then echo "make: making $(VENV)"; $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }; fi
	@echo "make: installing ulogd_tw and the libraries it needs into $(VENV) (a minute at most)"
	@$(INSTALL) .[console]
	@$(PY) -m compileall -q ulogd_tw twisted
	@$(PY) -c 'import ulogd_tw.kernels as k; k.active() or print("make: the compiled kernels are left out, NumPy does their work:", k.why_not())'
	@touch $@

$(VENV)/installed-%: $(VENV)/installed
	@echo "make: installing what [$*] needs into $(VENV)"
	@$(INSTALL) .[$*]
	@touch $@

define CHECK_PYTHON
	command -v "$(PYTHON)" >/dev/null || { \
	    echo "make: $(PYTHON) not found: apt-get install python3 python3-venv" >&2; exit 1; }; \
	"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "make: $$("$(PYTHON)" -V) is too old: Python 3.11 or later is needed (Debian 12 or later: apt-get install" \
	        "python3 python3-venv); PYTHON=/path/to/python3 chooses another one" >&2; exit 1; }; \
	"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { \
	    echo "make: $(PYTHON) has no venv: apt-get install python3-venv" >&2; exit 1; };
endef
