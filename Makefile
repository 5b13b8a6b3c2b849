# Reeve: one command a line. Each installs what it lacks from the distribution, or says in one line
# what to install.

CARGO ?= cargo
TARGET := target/x86_64-unknown-linux-gnu
export REEVE_REVISION := $(shell git rev-parse --short=12 HEAD 2>/dev/null)

# Where 'make install' puts things; a package is staged with DESTDIR.
PREFIX ?= /usr/local
DESTDIR ?=

.PHONY: help run test conformance soak bench build release install dist deb lint fmt deny doc install-deps \
	install-lint install-lab clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | column -t -s "$$(printf '\t')"

install-deps: ## Install the compiler and what the build needs
	@tools/install

install-lint: ## Install what 'make lint' needs beside: rustfmt, clippy
	@tools/install lint

install-lab: ## Install what the lab needs: QEMU, busybox, kernel packages
	@tests/lab/install

build: install-deps ## Build everything, unoptimised
	$(CARGO) build --workspace --all-targets

release: install-deps ## Build the static binaries
	$(CARGO) build --release -p reeve-worker -p reeve-gateway -p reeved

install: ## Install what 'make release' built below PREFIX (/usr/local), as root; DESTDIR stages
	@packaging/install --bin $(TARGET)/release --destdir "$(DESTDIR)" --prefix "$(PREFIX)"

dist: release ## Make a tarball of the static binaries and what installs them, in target/dist
	@packaging/build-dist --bin $(TARGET)/release --version "$$(tools/version)" --out target/dist

deb: release ## Make the Debian package, in target/dist
	@version="$$(tools/version)-1" && packaging/build-deb --bin $(TARGET)/release \
		--version "$$version" --out "target/dist/reeve_$${version}_amd64.deb"

run: release ## Boot the built-in guest in a sandboxed worker
	$(TARGET)/release/reeve run

# What tests alone may do: end a worker at a named step of its start, try what its filters deny.
TEST_FEATURES := --features reeved/fault-points,reeve-worker/attack-points,reeve-ipc/client

test: install-deps install-lab ## Run every test, the lab's included
	$(CARGO) build --workspace --all-targets $(TEST_FEATURES)
	$(CARGO) test --workspace $(TEST_FEATURES) --no-fail-fast

conformance: install-deps install-lab ## Compare virsh's answers, command by command, with libvirtd's; prints the table
	$(CARGO) build --workspace --bins $(TEST_FEATURES)
	$(CARGO) test --workspace $(TEST_FEATURES) --test conformance -- --nocapture

soak: install-deps install-lab ## Run the long counts: fuzzing, repeated starts, repeated pauses
	tools/soak

bench: install-deps ## Measure beside the floor and the installed peers; writes target/bench.json
	$(CARGO) build --release -p reeved -p reeve-worker -p reeve-gateway -p reeve-benches
	$(TARGET)/release/bench

lint: install-lint ## Formatting, clippy, licences and advisories, documentation
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets $(TEST_FEATURES) -- -D warnings
	$(MAKE) --no-print-directory doc deny

deny: ## Licences, advisories, duplicates
	@tools/deny

fmt: install-lint ## Format the tree
	$(CARGO) fmt --all

doc: ## Build the documentation
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items

clean: ## Remove what was built
	$(CARGO) clean
