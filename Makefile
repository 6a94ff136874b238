# Everything one does here, each with one command on a bare Debian 12 that has cargo and root.

.DEFAULT_GOAL := help
SHELL := /bin/bash
TARGET := $(or $(CARGO_TARGET_DIR),target)

# What the compiler needs: aws-lc and libFuzzer are C and C++.
BUILD_PACKAGES := build-essential ca-certificates
SERVER_PACKAGES := memcached postgresql-15 nginx
TEST_PACKAGES := $(BUILD_PACKAGES) $(SERVER_PACKAGES) pgbouncer pgbadger openssl python3-venv curl wrk slowhttptest apache2-utils chromium haproxy \
    ruby ruby-dalli php-cli php-memcached sasl2-bin libsasl2-modules
SUITE_PACKAGES := $(TEST_PACKAGES) libpq-dev dpkg-dev
BENCH_PACKAGES := $(BUILD_PACKAGES) $(SERVER_PACKAGES) nutcracker pgbouncer haproxy wrk nghttp2-client

CARGO_DENY_VERSION := 0.18.9
CARGO_FUZZ_VERSION := 0.13.2
FUZZ_SECONDS := 60

.PHONY: help demo test bench suites regress conformance tiers histories mutants fuzz image tools

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

demo: ## Start real servers, put the three proxies in front, show what they do, stay up to try by hand
	@scripts/packages.sh $(BUILD_PACKAGES) $(SERVER_PACKAGES)
	cargo build --workspace --bins
	@GROOVE_BUILT=1 $(TARGET)/debug/demo

test: tools ## Linters, unit, property, invariant, integration and Python tests; the last line counts them
	@scripts/test.sh

bench: ## Compare with nutcracker, pgbouncer, nginx and haproxy; BENCH="--only http --rounds 3" narrows it
	@scripts/packages.sh $(BENCH_PACKAGES)
	cargo build --release --package groove-memcached --package groove-postgres --package groove-http \
	    --package groove-integration --bin groove-memcached --bin groove-postgres --bin groove-http --bin bench
	@GROOVE_BUILT=1 $(TARGET)/release/bench $(BENCH)

suites: tools ## Run the suites of client libraries alone; target/suites has what each test did
	cargo build --workspace --bins
	GROOVE_BUILT=1 cargo test --package groove-integration suites

# One after the other: each has its own servers, and pg_regress opens twenty sessions at a time. The packages of two
# libraries have no tests: GROOVE_PSYCOPG and GROOVE_NODE_POSTGRES name checkouts of their sources, or say `none`.
# GROOVE_BINARIES names a folder with another groove-postgres to test. Two runs at a time in one target folder disturb
# each other.
regress: tools ## Suites of PostgreSQL's and its clients', direct and proxied; target/suites/postgres.md compares
	@scripts/packages.sh $(SUITE_PACKAGES)
	@command -v npm >/dev/null || scripts/packages.sh nodejs npm # who has another Node.js keeps it
	cargo build --package groove-postgres
	@rm -f $(TARGET)/suites/*.md
	@GROOVE_BUILT=1 cargo test --package groove-integration --test postgres --no-fail-fast -- \
	    --include-ignored --test-threads 1 suites:: regress:: dump:: ; status=$$?; \
	    cat $(TARGET)/suites/*.md > $(TARGET)/suites/postgres; mv $(TARGET)/suites/postgres $(TARGET)/suites/postgres.md; \
	    exit $$status

conformance: ## Ask nginx and HAProxy what ours is asked too: writes docs/http-conformance.md anew
	@scripts/packages.sh $(BUILD_PACKAGES) nginx haproxy
	cargo build --package groove-http
	GROOVE_BUILT=1 GROOVE_CONFORMANCE=write cargo test --package groove-integration --test http conformance

tiers: ## A gigabyte over a quarter of one in memory and a disk behind: every value is found
	@scripts/packages.sh $(BUILD_PACKAGES) $(SERVER_PACKAGES)
	cargo build --workspace --bins
	GROOVE_BUILT=1 cargo test --package groove-integration --test memcached tiers -- --include-ignored --nocapture

histories: ## Check what many clients see while servers come, go and die; HISTORIES="--operations 20M" makes it long
	@scripts/packages.sh $(BUILD_PACKAGES) $(SERVER_PACKAGES)
	cargo build --release --package groove-memcached --package groove-integration \
	    --bin groove-memcached --bin memcached-checker
	@GROOVE_BUILT=1 $(TARGET)/release/memcached-checker $(HISTORIES)

# Those of proxies/memcached/src/program/mutants.rs that a short run shows; others need longer ones, or only the
# simulation sees them. A build of its own, so that no other has them. The latter need few keys that all clients are at,
# and sidecars that are apart in time on purpose (program/lag.rs); without a mistake nothing is caught there.
MUTANTS := plain-set late-stub set-fill
MUTANTS_APART := none plain-set no-kill lost-is-done plain-append
APART := --sizes 5 --keys 24 --steady-keys 300 --keys-per-second 10 --lag-ms 2000 --operations 60k
mutants: ## Make the same mistakes in a resize on purpose: the check must catch each
	@scripts/packages.sh $(BUILD_PACKAGES) $(SERVER_PACKAGES)
	cargo build --target-dir $(TARGET)/mutants --features groove-memcached/mutants --package groove-memcached \
	    --package groove-integration --bin groove-memcached --bin memcached-checker
	@for mutant in $(MUTANTS); do \
	    echo "== $$mutant"; \
	    GROOVE_BUILT=1 $(TARGET)/mutants/debug/memcached-checker --no-kill --mutant $$mutant || exit 1; \
	done
	@for mutant in $(MUTANTS_APART); do \
	    echo "== $$mutant, sidecars apart"; mistake="--mutant $$mutant"; [ $$mutant != none ] || mistake=; \
	    GROOVE_BUILT=1 $(TARGET)/mutants/debug/memcached-checker --no-kill $(APART) $$mistake || exit 1; \
	done

# On the stable compiler: coverage without a sanitizer. Without link-time optimization, which costs minutes a target.
fuzz: export CARGO_PROFILE_RELEASE_LTO := off
fuzz: $(TARGET)/tools/bin/cargo-fuzz ## Run every fuzz target for FUZZ_SECONDS (60) each
	@scripts/packages.sh $(BUILD_PACKAGES)
	$< build --sanitizer none
	@for target in $$($< list); do \
	    echo "== $$target"; \
	    $< run --sanitizer none $$target -- -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

image: ## Build the container image with the three binaries
	@scripts/image.sh

tools: $(TARGET)/tools/bin/cargo-deny ## Install what the tests need: packages of Debian's and cargo-deny
	@scripts/packages.sh $(TEST_PACKAGES)
	@command -v npm >/dev/null || scripts/packages.sh nodejs npm # who has another Node.js keeps it

# Debug builds: the tools run for seconds and would compile for minutes.
$(TARGET)/tools/bin/cargo-deny:
	@scripts/packages.sh $(BUILD_PACKAGES)
	cargo install --quiet --locked --debug --root $(TARGET)/tools cargo-deny@$(CARGO_DENY_VERSION)

$(TARGET)/tools/bin/cargo-fuzz:
	@scripts/packages.sh $(BUILD_PACKAGES)
	cargo install --quiet --locked --debug --root $(TARGET)/tools cargo-fuzz@$(CARGO_FUZZ_VERSION)
