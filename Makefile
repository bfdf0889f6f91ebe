# Everything goes through .venv, which is made from requirements.lock by the first target that needs it.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help run test check bench proto test-vm test-image test-systemd soak lock clean .venv

BIN := .venv/bin
STAMP := .venv/.complete

help:
	@echo 'make run         start the daemon, run a program and a hostile one through it, stop it'
	@echo 'make test        every test but those of the next three lines (as root: in all three modes)'
	@echo 'make test-vm     the tests of the sandbox itself on a second kernel (Linux 6.1, cgroup v2), emulated'
	@echo 'make test-systemd  the shipped unit under a real systemd (root)'
	@echo 'make test-image  build the container image and run a program in it (root)'
	@echo 'make check       style, types, API lint and compatibility, generated code, import direction'
	@echo 'make bench       measure beside bubblewrap, crun and firejail'
	@echo 'make soak        long runs: floods, kills, reloads'
	@echo 'make proto       generate sandboxd/rpc/v1 from proto/'
	@echo 'make lock        resolve requirements.lock anew'

.venv: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@python=$$(.ci/find-python) && echo "setting up .venv with $$python" && "$$python" -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(BIN)/python -c 'import pyseccomp, regopy' 2>/dev/null || \
	{ echo 'a library of the system is missing; install it: apt-get install libseccomp2 libatomic1' >&2; exit 1; }
	@touch $@

run: $(STAMP)
	@$(BIN)/python examples/demo.py

# The spawner's tests fork in a process of their own: gRPC's library aborts one in which a fork fails.
test: $(STAMP)
	@status=0; \
	$(BIN)/python -m pytest tests/unit/spawner $(PYTEST_ARGS) || status=1; \
	$(BIN)/python -m pytest --ignore=tests/unit/spawner $(PYTEST_ARGS) || status=1; \
	exit $$status

test-vm: $(STAMP)
	$(BIN)/python -m pytest -m vm tests/vm $(PYTEST_ARGS)

test-systemd: $(STAMP)
	$(BIN)/python -m pytest -m systemd tests/deploy $(PYTEST_ARGS)

test-image: $(STAMP)
	$(BIN)/python -m pytest -m image tests/image $(PYTEST_ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/buf lint
	$(BIN)/buf breaking --against proto/baseline.binpb
	$(BIN)/python proto/generate.py --check
	$(BIN)/python -m pytest --quiet tests/unit/test_imports.py tests/unit/test_mirror.py

bench: $(STAMP)
	$(BIN)/python -m bench $(BENCH_ARGS)

soak: $(STAMP)
	$(BIN)/python -m bench.soak $(SOAK_ARGS)

proto: $(STAMP)
	$(BIN)/python proto/generate.py

# A clean resolve of what pyproject.toml allows; the pins of this file are what CI and `make run` install.
lock:
	@directory=$$(mktemp -d) && trap 'rm -rf "$$directory"' EXIT && python=$$(.ci/find-python) \
	&& "$$python" -m venv "$$directory/venv" \
	&& "$$directory/venv/bin/python" -m pip install --quiet --upgrade pip \
	&& "$$directory/venv/bin/python" -m pip install --quiet --group dev --editable . \
	&& { echo '# Made by `make lock` from pyproject.toml. Do not edit.'; \
	     "$$directory/venv/bin/python" -m pip freeze --all --exclude-editable; } >"$$directory/lock" \
	&& cp "$$directory/lock" requirements.lock

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
