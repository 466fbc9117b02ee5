# Everyday tasks. `.ci/run` runs every check that must pass before a change is merged.

.PHONY: help check test lint docs flash-sale

help:
	@echo "make check       type-check the workspace"
	@echo "make test        run the tests; tests whose server is missing are skipped"
	@echo "make lint        check formatting, run clippy"
	@echo "make docs        build the API documentation, guides included"
	@echo "make flash-sale  sell 50 items to 200 customers on four servers"

check:
	cargo check --locked --workspace --all-targets

test:
	cargo test --locked --workspace

lint:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

# All features include etcd, which needs `protoc`.
docs:
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps -p dlock-macros -p dlock-runtime -p dlock-axum --all-features

flash-sale:
	cargo run --locked --release -p examples --example flash_sale
