# Plain `make` lists the targets; each installs what it needs by ./setup.sh.

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help run demo test wasm reproduce fmt lint audit mutants bench clean

# Databases of tests are synced to disk hundreds of times a second, and a disk that is shared may stop for a minute.
# Where there are 2 GB of memory for files, they go there, unless TMPDIR says otherwise.
IN_MEMORY = if [ -z "$$TMPDIR" ] && [ "$$(df --output=avail /dev/shm 2>/dev/null | tail -1)" -ge 2000000 ] 2>/dev/null; then export TMPDIR=/dev/shm; fi;

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

run: programs ## control plane on 127.0.0.1:8780, Envoy with the filter on 127.0.0.1:8080; state in .keystile/; Ctrl-C stops
	@target/debug/run

demo: programs ## a tour that ends by itself: issue, 200, revoke, 401, with measured times
	@target/debug/demo

test: ## every check that CI runs
	./setup.sh rust envoy postgres wrk node deny
	cargo fmt --all --check
	$(MAKE) lint
	$(MAKE) wasm
	tests/sets/build.sh
	cargo build --locked --workspace --all-targets
	$(IN_MEMORY) cargo test --locked --workspace
	@if [ "$$(id -u)" = 0 ]; then cargo test --locked --workspace --lib -- --ignored; \
	  else echo "Not run, as they need root: tests that give files to another user"; fi
	$(MAKE) reproduce
	tests/audit.sh
	$(MAKE) audit

wasm: ## target/wasm/keystile.wasm, and its SHA-256
	@plugin/proxy-wasm/build.sh

reproduce: wasm ## builds the filter once more, in another folder, and compares
	@plugin/proxy-wasm/reproduce.sh

fmt: ## formats the sources
	cargo fmt --all

lint: ## clippy on everything, warnings are errors
	@./setup.sh rust
	cargo clippy --locked --workspace --all-targets -- -D warnings

audit: ## licences, bans, sources, advisories; ADVISORY_DB=DIR names a clone of the advisory database where it can't be fetched
	@./setup.sh rust deny
	@./audit.sh

mutants: ## changes the functions that .cargo/mutants.toml lists, one at a time; a test must fail each time (an hour)
	@./setup.sh rust mutants
	@./mutants.sh

bench: wasm ## target/bench/report.md: every figure beside its peer's; ONLY="streams tokens" for parts (requests, structures, scale-100m, propagation, waiting, streams, tokens), FLAGS=--quick to try it
	@./setup.sh envoy wrk node
	@tests/sets/build.sh
	@cargo build --locked --release --package keystile --package keystile-tests --bin keystile --bin bench
	@target/release/bench $(FLAGS) $(ONLY)

clean: ## removes everything built or fetched
	rm -rf target

.PHONY: programs
programs: wasm
	@./setup.sh envoy
	@cargo build --locked --package keystile --package keystile-tests --bin keystile --bin run --bin demo
