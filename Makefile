# Everything that a contributor runs. What the targets need is installed by `make setup`.

.DEFAULT_GOAL := help
.PHONY: help setup lab vm-images

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is missing to build, test and demonstrate (Debian, Ubuntu)
	@tests/setup

# The command reaches the script through the environment: make and the shell would each take their share of its quotes.
export CMD
lab: ## run a command in a virtual machine with a stock kernel: make lab CMD='ip -br link'
	@if [ -n "$$CMD" ]; then exec tests/lab/run "$$CMD"; else exec tests/lab/run; fi

vm-images: ## build the small guest that the tests and the demonstration boot
	@vm-images/tiny/build
