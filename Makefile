# The commands of this project. `make` alone lists them.

CARGO_FLAGS := --locked
BINARY := target/debug/digitalmistress
# What `make soak` asks of tests that are in the suite too. One at a time: memory and time are looked at.
SOAK := DM_TEST_KILLS=1000 DM_TEST_LEAVERS=10000
SOAKED := process::kill process::leaving --nocapture --test-threads=1

.PHONY: help run test golden deny bench soak fuzz test-peers

help:
	@echo "make run         build and start everything on this machine (http://localhost:8080)"
	@echo "make test        format, lints, documentation, every test on SQLite and PostgreSQL, the JavaScript client"
	@echo "make golden      write the checked-in documents and snapshots anew from the code"
	@echo "make deny        judge the tree of dependencies: bans, licences, sources (needs cargo-deny)"
	@echo "make bench       measure; docs/performance.md says what"
	@echo "make soak        a thousand kill -9 under load, ten thousand clients that leave, on both engines"
	@echo "make fuzz        fuzz the provider's stream (needs a nightly toolchain and cargo-fuzz)"
	@echo "make test-peers  foreign programs as peers: two providers, a mail server, Stripe and its library, nginx (needs Python 3, PyPI and a C++ compiler; openssl and nginx for the last)"

run:
	cargo run --release $(CARGO_FLAGS) -- dev

test:
	scripts/test

golden:
	UPDATE_GOLDEN=1 INSTA_UPDATE=always cargo test $(CARGO_FLAGS)

deny:
	cargo deny --locked check bans licenses sources

bench:
	cargo bench $(CARGO_FLAGS) --bench performance
	cargo bench $(CARGO_FLAGS) --bench streams
	cargo bench $(CARGO_FLAGS) --bench identity
	cargo bench $(CARGO_FLAGS) --bench billing

soak:
	$(SOAK) cargo test $(CARGO_FLAGS) --test api -- $(SOAKED)
	$(SOAK) scripts/with-postgres cargo test $(CARGO_FLAGS) --test api -- $(SOAKED)

fuzz:
	scripts/fuzz

test-peers:
	cargo test $(CARGO_FLAGS) --no-run --test api
	DM_BIN=$(BINARY) node --test --test-reporter=spec tests/peers/*.test.mjs
