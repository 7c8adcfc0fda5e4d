# Everything that a contributor runs. What the targets need is installed by `make setup`.

.DEFAULT_GOAL := help
.PHONY: help setup lab vm-images

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

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
