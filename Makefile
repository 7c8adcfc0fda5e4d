# Everything that a contributor runs. Each target does its own set-up.

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long check lab vm-images bench fuzz install uninstall

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## see the main job: VLANs, router, three KVM guests, who reaches whom
	@tests/demo

test: ## run all tests: pure, in private namespaces, and in the kernel lab
	@tests/all

test-long: ## every kill, fault and signal point, where `make test` takes a sample; Debian under KVM: an hour, as root
	@tests/long

# Every shell script of ours, one a line.
scripts = \
	benches/boot \
	benches/by-ip \
	benches/hosts \
	benches/inside \
	benches/libvirt \
	benches/libvirt-networks \
	benches/model \
	benches/networks \
	benches/run \
	fuzz/run \
	tests/all \
	tests/cloud-init/unpack \
	tests/demo \
	tests/lab/initramfs \
	tests/lab/inside \
	tests/lab/run \
	tests/long \
	tests/setup \
	tests/summary \
	tests/tiny-guest \
	tests/untouched \
	vm-images/debian/build \
	vm-images/debian/disk \
	vm-images/debs.sh \
	vm-images/tiny/build

check: ## formatting, lints and documentation, warnings denied
	cargo fmt --check
	cargo clippy --quiet --all-targets --features libvirt -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --quiet --no-deps --features libvirt
	shellcheck -x -S warning $(scripts)

setup: ## install what is missing to build, test and demonstrate (Debian, Ubuntu)
	@tests/setup

# The command reaches the script through the environment, and as it is written: make and the shell would each take
# their share of its dollar signs and quotes. (make itself exits 2 when it fails; tests/lab/run gives the code.)
unexport CMD
export LAB_COMMAND := $(value CMD)
lab: ## run a command in a virtual machine with a stock kernel: make lab CMD='ip -br link'
	@if [ -n "$$LAB_COMMAND" ]; then exec tests/lab/run "$$LAB_COMMAND"; else exec tests/lab/run; fi

vm-images: ## build the guests that tests and the demonstration boot: the small one and Debian
	@vm-images/tiny/build
	@vm-images/debian/build

fuzz: ## feed random texts to every reader, FUZZ_SECONDS=600 for each; what the usual tests don't do
	@fuzz/run

bench: ## measure vmnet beside ip in private namespaces; prints the tables of docs/performance.md
	@benches/run

# Where things go; DESTDIR is put before each for packages. BINARY is built where it is not there.
PREFIX ?= /usr/local
BINARY ?= target/release/vmnet
# Guests of libvirt need vmnet-libvirt beside vmnet; LIBVIRT=no leaves it out, and libvirt's headers are not needed.
LIBVIRT ?= yes
features = $(if $(filter no,$(LIBVIRT)),,--features libvirt)
door = $(if $(filter no,$(LIBVIRT)),,$(dir $(BINARY))vmnet-libvirt)
bin = $(DESTDIR)$(PREFIX)/bin/vmnet
unit = $(DESTDIR)$(PREFIX)/lib/systemd/system/vmnet.service
guests = $(DESTDIR)$(PREFIX)/lib/systemd/system/vmnet-guests.service
after = $(DESTDIR)$(PREFIX)/lib/systemd/system/vmnet-libvirt.service
page = $(DESTDIR)$(PREFIX)/share/man/man1/vmnet.1
bash = $(DESTDIR)$(PREFIX)/share/bash-completion/completions/vmnet
zsh = $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_vmnet
fish = $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/vmnet.fish

install: $(BINARY) $(door) ## install programs, systemd units, manual page and completions below PREFIX
	install -d $(dir $(bin) $(unit) $(page) $(bash) $(zsh) $(fish))
	install -m 755 $(BINARY) $(bin)
	$(if $(door),install -m 755 $(door) $(bin)-libvirt)
	sed 's|/usr/local/bin/vmnet|$(PREFIX)/bin/vmnet|' systemd/vmnet.service >$(unit)
	sed 's|/usr/local/bin/vmnet|$(PREFIX)/bin/vmnet|' systemd/vmnet-guests.service >$(guests)
	sed 's|/usr/local/bin/vmnet|$(PREFIX)/bin/vmnet|' systemd/vmnet-libvirt.service >$(after)
	$(BINARY) man >$(page)
	$(BINARY) completions bash >$(bash)
	$(BINARY) completions zsh >$(zsh)
	$(BINARY) completions fish >$(fish)
	chmod 644 $(unit) $(guests) $(after) $(page) $(bash) $(zsh) $(fish)

uninstall: ## remove what install put there; labs, ledgers and disks stay
	rm -f $(bin) $(bin)-libvirt $(unit) $(guests) $(after) $(page) $(bash) $(zsh) $(fish)

target/release/vmnet target/release/vmnet-libvirt:
	cargo build --release $(features)
