# One command each; `make test` and `make demo` bring what they need.
.PHONY: help setup setup-build build demo test lint bench clean
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what is missing to build and test
	@bash tests/services/setup.sh test

setup-build:
	@bash tests/services/setup.sh build

build: setup-build ## build the release binary, target/release/tidegate
	cargo build --locked --release

demo: setup-build ## run a pipeline on an in-process broker
	cargo run --locked --quiet -- demo

test: setup ## run every test, on a real broker
	cargo test --locked --workspace

lint: setup-build ## format, clippy, licences and advisories
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then cargo deny --all-features check; \
	else echo "cargo-deny is missing: cargo install --locked cargo-deny" >&2; exit 1; fi

bench: setup ## measure how fast the source reads
	cargo bench --locked --bench source

clean: ## remove everything that was built or fetched
	cargo clean
