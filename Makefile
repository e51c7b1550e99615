# The project's own commands. `make demo` and `make test` need nothing set up by hand.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.PHONY: setup demo test lint deny test-torch bench soak

setup: ## install what a machine must have; each step is skipped when it is there
	@.make/setup.sh

demo: setup ## from nothing to a real answer: build, sign a repository, install, call
	@.make/demo.sh

test: setup ## the default test suite: no GPU, no internet beyond package registries
	@.make/test.sh

lint: ## rustfmt, clippy, ruff
	@.make/lint.sh

deny: ## crates: known vulnerabilities, licences, sources (compiles cargo-deny once; HOB_ADVISORIES names a clone of the database)
	@.make/deny.sh

test-torch: setup ## what needs the multi-gigabyte torch environment
	@tests/reference/test_torch.sh

bench: setup ## benchmarks with floors and peers in the same run; figures go to target/bench/results.jsonl
	@.make/bench.sh

soak: setup ## longer runs: many rounds of the fault tests, and an hour of fuzzing; PIECES="storms units ..." runs some of it
	@.make/soak.sh $(PIECES)

.PHONY: embed
embed: setup ## the crate as apps take it: combinations of features, and the app of examples/embed (minutes the first time)
	@.make/embed.sh
