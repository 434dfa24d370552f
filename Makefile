# Builds and tests meinheld. `make help` lists the targets.
#
# PYTHON selects the interpreter. Each version has a virtual environment of its
# own, .venv-X.Y.Z, with the wheel that was built for it.

PYTHON ?= python3

SHELL := /bin/sh
.DELETE_ON_ERROR:
.SUFFIXES:

# A debug build has a `d` behind its version.
python_version := $(shell $(PYTHON) -c 'import platform, sys; \
	print(platform.python_version() + "d" * hasattr(sys, "gettotalrefcount"))' 2>/dev/null)
VENV := .venv-$(python_version)
venv_python := $(CURDIR)/$(VENV)/bin/python

# The Rust tests of the extension module link libpython, which need not lie
# where the loader looks.
python_libdir := $(shell $(PYTHON) -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))' 2>/dev/null)
cargo_test_env := LD_LIBRARY_PATH="$(python_libdir)$${LD_LIBRARY_PATH:+:$$LD_LIBRARY_PATH}"

# The build never downloads a toolchain, and builds for the interpreter asked for.
export MATURIN_NO_INSTALL_RUST := 1
export PYO3_PYTHON := $(venv_python)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport PYTHONPATH PYTHONHOME

sources := Cargo.toml Cargo.lock pyproject.toml LICENSE README.md \
	$(shell find meinheld-coro meinheld-core meinheld-py -type f \
		! -path '*/target/*' ! -path '*/__pycache__/*' ! -name '*.so')

# Stops with the one line of tools/check-prerequisites, and exit status 2.
require = $(if $(missing),$(error $(missing)),@:)
missing = $(shell tools/check-prerequisites $(1) '$(PYTHON)')

.PHONY: help
help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22
	@echo 'PYTHON=… selects another interpreter (now: $(PYTHON) $(python_version)).'

.PHONY: chat
chat: $(VENV)/.installed $(VENV)/.chat ## Build, then run the chat example on 127.0.0.1:8000
	@exec $(VENV)/bin/python examples/chat/chat.py

.PHONY: test
test: check-test ## Run every test, Rust and Python
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory test-rust
	@$(MAKE) --no-print-directory test-python

.PHONY: lint
lint: check-test $(VENV)/.test ## Check the format, the style, the lints and the types
	cargo fmt --all --check
	$(VENV)/bin/mypy
	cargo test --quiet --locked --test tidy
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --quiet --locked --no-deps --workspace --document-private-items

.PHONY: test-rust
test-rust: check-test $(VENV)/.build ## Run the Rust tests (with cargo-nextest if it is there)
	@if cargo nextest --version >/dev/null 2>&1; then \
		set -x; $(cargo_test_env) cargo nextest run --locked --workspace; \
	else \
		set -x; $(cargo_test_env) cargo test --locked --workspace --lib --bins --tests --examples; \
	fi
	$(cargo_test_env) cargo test --locked --workspace --doc
	RUSTFLAGS='--cfg meinheld_portable' cargo test --quiet --locked --target-dir target/portable -p meinheld-coro --lib
	RUSTFLAGS='--cfg meinheld_portable' cargo test --quiet --locked --target-dir target/portable \
		--test coro_tasks --test coro_local --test coro_shutdown --test coro_continuation

.PHONY: test-python
test-python: check-test $(VENV)/.installed $(VENV)/.test ## Run the Python tests against the built wheel
	$(VENV)/bin/python -m pytest $(TESTS)

.PHONY: test-pythons
test-pythons: ## Build and test on every CPython that can be had, some from a newer Debian
	tools/test-pythons

STRESS_SECONDS ?= 60
.PHONY: stress
stress: $(VENV)/.installed $(VENV)/.test ## Random walks for STRESS_SECONDS (60), memory that runs out, then 100,000 requests of each kind for leaks
	STRESS_SECONDS=$(STRESS_SECONDS) $(VENV)/bin/python -m pytest -s tests/python/test_stress.py tests/python/test_memory.py tests/python/test_memory_first.py
	LEAK_REQUESTS=100000 $(VENV)/bin/python -m pytest -s tests/python/test_leaks.py --timeout 1800

.PHONY: bench-switch
bench-switch: $(VENV)/.installed $(VENV)/.test ## What a switch costs from Python, beside greenlet's
	$(VENV)/bin/python benches/switch.py

.PHONY: venv
venv:
	@echo $(VENV)

.PHONY: soak
soak: $(VENV)/.installed ## Fire at a server: slow clients, floods, aborts (SOAK_SECONDS=10 scales)
	$(VENV)/bin/python tests/soak $(SOAK)

.PHONY: bench-instructions
bench-instructions: $(VENV)/.installed ## Count the instructions of a request, by valgrind (COUNT='w1 w4' selects, COUNT=--check)
	@command -v valgrind >/dev/null || { echo 'no valgrind: apt-get install valgrind'; exit 2; }
	$(VENV)/bin/python benches/instructions $(COUNT)

# Peers that cannot be installed are left out of the comparison, which says so.
.PHONY: bench
bench: $(VENV)/.peers $(VENV)/.wheel ## Compare with other servers (BENCH='--rounds 1 --only hello')
	$(VENV)-peers/bin/python -m pip install --quiet --force-reinstall --no-deps --no-index $(VENV)/wheel/*.whl
	$(VENV)-peers/bin/python benches/compare $(BENCH)

.PHONY: bench-rust
bench-rust: check-build $(VENV)/.build ## Time the switch, heads, environs and responses (criterion; BENCH='environ' selects)
	$(cargo_test_env) cargo bench --locked --workspace --benches -- $(BENCH)

.PHONY: autobahn
autobahn: $(VENV)/.installed $(VENV)-autobahn/.made ## Run the Autobahn cases against WebSockets (AUTOBAHN='-i 6.*' selects)
	$(VENV)/bin/python tests/autobahn $(VENV)-autobahn/bin/kosoku -p 2 $(AUTOBAHN)

.PHONY: wheel
wheel: $(VENV)/.wheel ## Build the wheel into dist/
	@mkdir -p dist && cp $(VENV)/wheel/*.whl dist/ && ls dist/*.whl

# The connection target switches stacks, which the address sanitizer does not follow.
FUZZ_SECONDS ?= 60
fuzz_sanitizer = $(if $(filter connection,$(1)),none,address)
fuzz_targets := head chunked response connection websocket

.PHONY: fuzz $(addprefix fuzz-,$(fuzz_targets))
fuzz: $(addprefix fuzz-,$(fuzz_targets)) ## Run each fuzz target with libFuzzer for FUZZ_SECONDS (60)

# What is found is kept in fuzz/corpus, which is not committed, and in fuzz/artifacts.
$(addprefix fuzz-,$(fuzz_targets)): fuzz-%:
	@cargo +nightly fuzz --version >/dev/null 2>&1 || { \
		echo 'no cargo-fuzz on a nightly Rust: rustup toolchain install nightly && cargo install cargo-fuzz --locked'; exit 2; }
	@mkdir -p fuzz/corpus/$*
	cargo +nightly fuzz run --sanitizer $(call fuzz_sanitizer,$*) $* fuzz/corpus/$* tests/corpus/$* -- \
		-dict=tests/corpus/tokens.dict -max_len=2048 -timeout=20 -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1

# The switch is unknown to valgrind: a coroutine's stack is far from the last one,
# and overruns within it are not seen. coro_threads stalls under it and is left out.
valgrind_runner := valgrind --quiet --error-exitcode=9 --leak-check=full \
	--show-leak-kinds=definite --errors-for-leak-kinds=definite --max-stackframe=60000

.PHONY: valgrind
valgrind: ## Run the unit tests and some of the behaviour under valgrind
	@command -v valgrind >/dev/null || { echo 'no valgrind: apt-get install valgrind'; exit 2; }
	REPLAY_WHOLE=1 CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER='$(valgrind_runner)' \
		cargo test --locked -p meinheld-coro -p meinheld-core --lib -- --test-threads=1
	CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER='$(valgrind_runner)' \
		cargo test --locked --test coro_continuation --test coro_channel --test coro_local \
		--test http_keep_alive --test http_bodies --test http_departure -- --test-threads=1

.PHONY: deny
deny: ## Check licences, advisories and sources of the dependencies
	@cargo deny --version >/dev/null 2>&1 || { echo 'no cargo-deny: cargo install cargo-deny --locked'; exit 2; }
	cargo deny check

.PHONY: clean
clean: ## Remove what was built, and the virtual environments
	rm -rf target fuzz/target dist .cache .venv-*

.PHONY: check-build check-test
check-build:
	$(call require,build)
check-test:
	$(call require,test)

# Stamps: each says that one thing is in the virtual environment.

$(VENV)/.build: requirements/build.txt | check-build
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet -r requirements/build.txt
	@touch $@

$(VENV)/.chat: requirements/chat.txt | $(VENV)/.build
	$(VENV)/bin/python -m pip install --quiet -r requirements/chat.txt
	@touch $@

$(VENV)/.test: requirements/test.txt requirements/build.txt requirements/chat.txt | $(VENV)/.build
	$(VENV)/bin/python -m pip install --quiet -r requirements/test.txt
	@touch $@

$(VENV)/.peers: requirements/bench.txt tools/install-peers | $(VENV)/.build
	$(PYTHON) -m venv $(VENV)-peers
	tools/install-peers $(VENV)-peers
	@touch $@

$(VENV)/.wheel: $(sources) | $(VENV)/.build
	rm -rf $(VENV)/wheel
	$(VENV)/bin/maturin build --release --locked --interpreter $(venv_python) --out $(VENV)/wheel
	@touch $@

$(VENV)/.installed: $(VENV)/.wheel
	$(VENV)/bin/python -m pip install --quiet --force-reinstall --no-deps --no-index $(VENV)/wheel/*.whl
	@touch $@

$(VENV)-autobahn/.made: requirements/autobahn.txt | check-build
	$(PYTHON) -m venv $(VENV)-autobahn
	$(VENV)-autobahn/bin/python -m pip install --quiet -r requirements/autobahn.txt
	@touch $@
