# The entry points. `make demo` and `make test` do all their set-up on Debian or Ubuntu with rustup, and say what they do.

SHELL := /bin/bash
.DEFAULT_GOAL := help
SETUP := tests/setup/setup.sh
GUESTS := redact json-filter validate
WASM_DIR := target/wasm32-unknown-unknown/guest

.PHONY: help demo test lint bench fuzz soak plugins clients clients-table

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Variables: make demo KEEP=1 (leave it running) INPUT=file.jsonl (your own records); make bench ARGS=…"

demo: target/setup/toolchain target/setup/packages target/setup/python $(if $(INPUT),,target/setup/flights) plugins ## real flights: plugins, tiering, a view, kill -9
	cargo build --release -p millstream
	@INPUT="$(INPUT)" KEEP="$(KEEP)" target/venv/bin/python tests/demo/demo.py

test: target/setup/toolchain target/setup/packages target/setup/python clients plugins ## every test, with real clients
	@tests/setup/test.sh

clients: target/setup/packages ## Apache Kafka's jars and tools, and the JavaScript clients, for the tests
	@tests/setup/kafka.sh
	@tests/setup/js.sh

clients-table: ## README's table of clients and features, from the last test run
	@target/venv/bin/python tests/setup/clients_table.py target/test-report/clients.jsonl README.md

lint: target/setup/toolchain ## format, clippy, shell scripts, licences
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --workspace --test e2e -- -D warnings
	@if command -v shellcheck >/dev/null; then shellcheck .ci/run tests/setup/*.sh; else echo "shellcheck is not installed; skipped"; fi
	@if command -v cargo-deny >/dev/null; then cargo deny check; else echo "cargo-deny is not installed; skipped"; fi

bench: target/setup/toolchain target/setup/packages target/setup/python plugins ## speed against baselines of the same run
	cargo build --release -p millstream
	cargo run --release -p millstream-bench -- $(ARGS)

fuzz: target/setup/toolchain ## damaged bytes for every decoder and reader, a minute each (SECONDS_EACH=…)
	MILLSTREAM_FUZZ_SECONDS=$(or $(SECONDS_EACH),60) cargo test -p millstream-protocol -p millstream-log -p millstream-core -p millstream-server -p millstream-tiered -p millstream-abi fuzz_ -- --nocapture

soak: target/setup/packages target/setup/python ## groups, transactions, compaction and crashes at once for ten minutes (SOAK_SECONDS=…), and its history checked
	cargo build --workspace --bins
	env MILLSTREAM_SOAK_SECONDS=$(or $(SOAK_SECONDS),600) MILLSTREAM_BIN=$(CURDIR)/target/debug/millstream MILLSTREAM_PYTHON=$(CURDIR)/target/venv/bin/python \
		cargo test -p millstream-e2e --test e2e -- --nocapture soak

plugins: target/setup/toolchain ## build the ready-made plugins into target/plugins
	env -u RUSTFLAGS cargo build --config plugins/guest.toml --profile guest --target wasm32-unknown-unknown $(GUESTS:%=-p millstream-%)
	@mkdir -p target/plugins
	@for guest in $(GUESTS); do cp "$(WASM_DIR)/millstream_$${guest//-/_}.wasm" "target/plugins/$$guest.wasm"; done

target/setup/toolchain target/setup/packages target/setup/python target/setup/flights: target/setup/%: $(SETUP)
	@$(SETUP) $*

target/setup/python: tests/setup/requirements.txt target/setup/packages
target/setup/flights: tests/demo/flights.py target/setup/python
