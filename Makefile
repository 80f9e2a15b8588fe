# One command each; `make test` and `make demo` bring what they need. Host and guests are built apart, never as one workspace: together
# they would ask for other features of what they share, and everything below would be built twice.
.PHONY: help setup setup-build plugins build demo test chaos soak attacks fuzz lint bench backlog clean
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what is missing to build and test
	@bash tests/services/setup.sh test

setup-build:
	@bash tests/services/setup.sh build

plugins: setup-build ## build the two plugins into target/guests
	@tests/guests/build.sh plugins

build: plugins ## build the release binary, target/release/tidegate
	cargo build --locked --release

demo: plugins ## run a pipeline on an in-process broker
	cargo run --locked --quiet -- demo

test: setup ## run every test, on a real broker
	cargo test --locked --no-fail-fast -p tidegate-sdk -p search -p csv-sink -p stamp
	cargo test --locked --no-fail-fast

chaos: setup ## 1,000,000 records under fire; TIDEGATE_CHAOS_SEED, _RECORDS, _RUNS
	TIDEGATE_CHAOS_RECORDS=$${TIDEGATE_CHAOS_RECORDS:-1000000} cargo test --locked --test chaos -- --nocapture s1_nothing

soak: setup build ## run at a steady rate while hosts are killed; TIDEGATE_SOAK_MINUTES, _RATE, TIDEGATE_BIN
	TIDEGATE_SOAK_MINUTES=$${TIDEGATE_SOAK_MINUTES:-30} TIDEGATE_BIN=$${TIDEGATE_BIN:-target/release/tidegate} \
	cargo test --locked --test chaos -- --nocapture --exact soak::s15_memory_stays_flat_at_a_steady_rate

fuzz: setup-build ## fuzz what takes bytes from outside, 10 minutes each; TIDEGATE_FUZZ_SECONDS, _TARGET
	@bash tests/fuzz/run.sh

attacks: setup ## measure what each hostile plugin costs the one beside it
	TIDEGATE_ATTACKS=every cargo test --locked --test plugin_faults -- --nocapture --exact measure::nothing_is_left_behind

lint: setup-build ## format, clippy, licences and advisories
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --workspace --exclude tidegate --exclude fuzz --all-targets -- -D warnings
	cargo clippy --locked -p fuzz --features host --all-targets -- -D warnings
	cargo clippy --locked -p fuzz --features sdk --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then cargo deny --all-features check; \
	else echo "cargo-deny is missing: cargo install --locked cargo-deny" >&2; exit 1; fi

bench: setup ## measure Kafka to files beside a bare consumer
	cargo bench --locked --bench pipeline

backlog: setup build ## measure memory and speed over a backlog; TIDEGATE_BACKLOG_RECORDS, _CASES, _PARTITIONS, TIDEGATE_BIN
	TIDEGATE_BIN=$${TIDEGATE_BIN:-target/release/tidegate} cargo bench --locked --profile dev --bench backlog

clean: ## remove everything that was built or fetched
	cargo clean
