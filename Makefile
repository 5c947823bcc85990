# Plain `make` lists the targets; each installs what it needs by ./setup.sh.

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help run demo test wasm module npm reproduce sanitizer fmt lint audit mutants bench clean

# `make run HOST=module` and `make demo HOST=module` run the filter as a native module of Envoy.
# Some shells set a variable of this name to that of the machine, so only the command line counts.
FILTER_HOST = $(if $(filter command,$(origin HOST)),$(HOST),wasm)
export KEYSTILE_FILTER_HOST = $(FILTER_HOST)

# Tests sync databases hundreds of times a second, and a shared disk can stall for a minute. If /dev/shm has 2 GB free and
# TMPDIR is not set, the databases are in memory.
IN_MEMORY = if [ -z "$$TMPDIR" ] && [ "$$(df --output=avail /dev/shm 2>/dev/null | tail -1)" -ge 2000000 ] 2>/dev/null; then export TMPDIR=/dev/shm; fi;

# Compiles the workspace with clippy, whose warnings are errors. The dependencies are compiled once, while `cargo clippy` would
# analyze them a second time, for four minutes. What ships is not compiled this way, because clippy turns optimizations off.
LINTED = CLIPPY_ARGS=-Dwarnings RUSTC_WORKSPACE_WRAPPER=clippy-driver

# Most tests wait for processes and disks, so twice as many run at a time as there are cores.
THREADS = RUST_TEST_THREADS=$$(( $$(nproc) * 2 ))

help: ## prints this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

run: programs ## starts the control plane on 127.0.0.1:8780 and Envoy with the filter on 127.0.0.1:8080; state in .keystile/; HOST=module: native
	@target/debug/run

demo: programs ## runs a tour with measured times: issue, 200, revoke, 401
	@target/debug/demo

test: ## runs every check that CI runs
	./setup.sh rust clippy envoy postgres wrk node npm_build npm_test deny
	cargo fmt --all --check
	$(MAKE) wasm module
	tests/sets/build.sh
	$(LINTED) cargo build --locked --workspace --all-targets
	BINDGEN=target/debug/keystile-bindgen $(MAKE) npm
	target/debug/keystile-words .
	$(IN_MEMORY) $(THREADS) $(LINTED) cargo test --locked --workspace
	$(IN_MEMORY) $(THREADS) $(LINTED) tests/hosts.sh
	$(IN_MEMORY) $(MAKE) sanitizer
	@if [ "$$(id -u)" = 0 ]; then $(LINTED) cargo test --locked --workspace --lib -- --ignored; \
	  else echo "Skipped, because they require root: tests that give files to another user"; fi
	plugin/javascript/test/test.sh
	CARGO_TARGET_DIR=target/fastly cargo check --quiet --locked --manifest-path plugin/fastly/Cargo.toml
	$(MAKE) reproduce
	tests/audit.sh
	$(MAKE) audit

wasm: ## builds target/wasm/keystile.wasm and prints its SHA-256
	@plugin/proxy-wasm/build.sh

module: ## builds target/module/libkeystile.so, the filter as a native module of Envoy, and prints its SHA-256
	@plugin/envoy-module/build.sh

sanitizer: ## runs the tests of the native module's border to Envoy with an address sanitizer
	@plugin/envoy-module/sanitizer.sh

npm: ## builds the JavaScript package, target/npm/, and prints its size and SHA-256
	@plugin/javascript/build.sh

reproduce: wasm module npm ## builds the filter, for both hosts, and the JavaScript package again in another folder and compares them
	@plugin/reproduce.sh

fmt: ## formats the sources
	cargo fmt --all

lint: ## runs clippy (warnings are errors) and the word list of tests/words
	@./setup.sh rust clippy
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo run --locked --quiet --package keystile-words -- .

audit: ## checks licenses, bans, sources and advisories; ADVISORY_DB=DIR is a clone of the advisory database, if it can't be fetched
	@./setup.sh rust deny
	@./audit.sh

mutants: ## changes the functions that .cargo/mutants.toml lists, one at a time; a test must fail each time (an hour)
	@./setup.sh rust mutants
	@./mutants.sh

bench: wasm module npm ## measures into target/bench/report.md, beside peers; ONLY="streams tokens" selects parts (docs/benchmarks.md), FLAGS=--quick is a trial
	@./setup.sh envoy wrk node npm_test postgres
	@cargo build --locked --package keystile-tests --bin forge
	@tests/sets/build.sh
	@cargo build --locked --release --package keystile --package keystile-tests --bin keystile --bin bench
	@target/release/bench $(FLAGS) $(ONLY)

clean: ## removes everything that was built or fetched
	rm -rf target

.PHONY: programs
programs: $(FILTER_HOST)
	@./setup.sh envoy
	@cargo build --locked --package keystile --package keystile-tests --bin keystile --bin run --bin demo
