# Everything that a contributor runs. Each target does its own set-up.

.DEFAULT_GOAL := help
.PHONY: help setup demo test check lab vm-images bench fuzz

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## see the main job: VLANs, router, three KVM guests, who reaches whom
	@tests/demo

test: ## run all tests: pure, in private namespaces, and in the kernel lab
	@tests/all

check: ## formatting, lints and documentation, warnings denied
	cargo fmt --check
	cargo clippy --quiet --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --quiet --no-deps
	shellcheck -x -S warning tests/all tests/summary tests/untouched tests/demo tests/setup tests/tiny-guest tests/lab/run tests/lab/inside tests/lab/initramfs vm-images/tiny/build \
		benches/run benches/inside benches/by-ip benches/networks fuzz/run

setup: ## install what is missing to build, test and demonstrate (Debian, Ubuntu)
	@tests/setup

# The command reaches the script through the environment, and as it is written: make and the shell would each take
# their share of its dollar signs and quotes. (make itself exits 2 when it fails; tests/lab/run gives the code.)
unexport CMD
export LAB_COMMAND := $(value CMD)
lab: ## run a command in a virtual machine with a stock kernel: make lab CMD='ip -br link'
	@if [ -n "$$LAB_COMMAND" ]; then exec tests/lab/run "$$LAB_COMMAND"; else exec tests/lab/run; fi

vm-images: ## build the small guest that the tests and the demonstration boot
	@vm-images/tiny/build

fuzz: ## feed random texts to every reader, FUZZ_SECONDS=600 for each; what the usual tests don't do
	@fuzz/run

bench: ## measure vmnet beside ip in private namespaces; prints the tables of docs/performance.md
	@benches/run
