# The only entry to building and testing. `make check` on a bare Debian 12, as
# root, installs what it needs. KVER chooses the kernel that the module is built
# for and the guests run (6.12, 6.1, debug); V=1 shows commands.

KVER ?= 6.12
BUILD := build
VM_RUN := /usr/bin/python3 tests/vm/run --kernel $(KVER)
VM_FLAGS ?=

# Builds use all CPUs unless make was told otherwise.
BUILD_ALL = $(MAKE) $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$(shell nproc))

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory
.PHONY: all deps kmod daemon cli man unit lint bench demo check check-full check-debug soak vm-check clean

all: kmod daemon cli man

# --- what the machine needs ---------------------------------------------------

deps: $(BUILD)/.deps-$(KVER)

APT := mk/apt.sh mk/backports.py

$(BUILD)/.deps-%: mk/deps.sh $(APT)
	@mkdir -p $(@D)
	mk/deps.sh $(BUILD) $*
	@touch $@

# Not packaged: built here, once.
$(BUILD)/.deps-debug: mk/deps.sh mk/debug-kernel.sh mk/debug.config $(APT)
	@mkdir -p $(@D)
	mk/deps.sh $(BUILD)
	mk/debug-kernel.sh $(BUILD)
	@touch $@

include mk/kmod.mk mk/install.mk mk/deb.mk
-include kmod/rules.mk daemon/rules.mk cli/rules.mk docs/man/rules.mk tests/unit/rules.mk tests/e2e/rules.mk tests/lint/rules.mk

# --- tests --------------------------------------------------------------------

# A part whose rules are not there yet adds nothing.
daemon cli man unit:

# Runs what the packages install.
demo: deps
	+@$(MAKE) deb guest-root
	@tests/demo/run --kernel $(KVER)

lint: suite-lint

# Each suite runs to its end whatever the others found; tests/summary adds up
# their last lines and fails if one failed, gave no count, passed nothing or, but
# for MAY_SKIP=1, skipped something.
CHECK_SUITES = unit model e2e lint build vm
FULL_SUITES = unit unit-asan model e2e-full e2e-asan lint build-full vm-full vm-6.1 demo

check: deps
	+@$(BUILD_ALL) all unit
	@tests/summary $(BUILD)/check $(foreach s,$(CHECK_SUITES),$(s)='$(MAKE) suite-$(s)')

check-full: deps
	+@$(BUILD_ALL) all unit unit-asan e2e-asan deb
	@tests/summary $(BUILD)/check-full $(foreach s,$(FULL_SUITES),$(s)='$(MAKE) suite-$(s)')

check-debug: deps
	+@$(BUILD_ALL) all KVER=debug
	@tests/summary $(BUILD)/check-debug vm-debug='$(MAKE) suite-vm-debug KVER=debug'

.PHONY: suite-unit suite-unit-asan suite-e2e suite-e2e-full suite-e2e-asan suite-model suite-lint suite-build suite-build-full suite-vm suite-vm-full suite-vm-6.1 suite-vm-debug suite-demo guest-root

suite-unit:
	@tests/run-unit $(BUILD)/tests/unit

# Those of svd's modules, under ASan and UBSan.
suite-unit-asan: unit-asan
	@tests/run-unit $(BUILD)/tests/unit-asan

suite-e2e:
	@tests/e2e/run

# With a dump of ten million extents instead of 200,000.
suite-e2e-full:
	@DUMP_EXTENTS=10000000 tests/e2e/run

# Under ASan and UBSan.
suite-e2e-asan: e2e-asan
	@BIN_DIR=$(abspath $(BUILD))/bin-asan tests/e2e/run

suite-model:
	@tests/model/run

suite-lint:
	@tests/run-lint

# dm-sv without a warning, of gcc with W=1 and of sparse: for these kernels, and for
# the newest packaged one, in a chroot.
suite-build: $(BUILD)/.deps-6.1 $(BUILD)/.deps-6.12
	@tests/run-builds 6.1 6.12

suite-build-full: $(BUILD)/.deps-6.1 $(BUILD)/.deps-6.12
	@tests/run-builds 6.1 6.12 --newest

suite-vm: guest-root
	@$(VM_RUN) $(VM_FLAGS)

# Packages are built before, so that no test's time limit counts that.
suite-vm-full: guest-root deb
	@/usr/bin/python3 tests/vm/packages.py
	@$(VM_RUN) --full $(VM_FLAGS)

# Debian's own kernel: the module alone, and full guests that are installed, rebooted, and hand their disks on.
ON_6.1 = ^(module|bios)\.|^(host\.fstab|import\.|service\.what_make_install|snapshots\.snapshots_stay)
suite-vm-6.1: $(BUILD)/.deps-6.1 guest-root
	@$(MAKE) kmod KVER=6.1
	@$(VM_RUN) --kernel 6.1 --full -k '$(ON_6.1)' $(VM_FLAGS)

suite-demo: guest-root
	@tests/demo/run --kernel $(KVER)

suite-vm-debug:
	@$(VM_RUN) --debug $(VM_FLAGS)

# The Debian of guests with systemd.
guest-root:
	@mk/guest-root.sh $(BUILD)

# Power cuts under load, as many as SOAK_CUTS says, a tenth as many while extents are folded, and rebuilt states;
# SEED=N repeats a run. SOAK_BOOTS boots of a machine that mounts a volume. And DKMS, which compiles in the guest.
soak: export SOAK_CUTS ?= 200
soak: export SOAK_BOOTS ?= 20
soak: deps guest-root
	+@$(BUILD_ALL) all
	@$(VM_RUN) --full -k '^(crash\.|host\.fstab_|packages\.dkms_|snapshots\.power_cuts_)' $(VM_FLAGS)

# The data path next to its peers: docs/performance.md. PROFILE=WORKLOAD: where its instructions go, by function.
bench: deps
	+@$(BUILD_ALL) all
	@/usr/bin/python3 tests/bench/run --kernel $(KVER) $(if $(PROFILE),--profile $(PROFILE)) $(BENCH_FLAGS)

vm-check: deps
	+@$(BUILD_ALL) all
	@$(MAKE) suite-vm

clean:
	find $(BUILD) -mindepth 1 -maxdepth 1 ! -name kernels ! -name tools ! -name guest-root ! -name '.deps-*' -exec rm -rf {} + 2>/dev/null || true
