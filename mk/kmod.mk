# Builds dm-sv.ko out of the tree, from links to kmod/'s files: kbuild puts its
# objects beside the sources, and builds for several kernels must not mix.

KERNEL_DIR = $(BUILD)/kernels/$(KVER)
KREL = $(shell cat $(KERNEL_DIR)/release 2>/dev/null)
KERNEL_HEADERS = $(KERNEL_DIR)/headers
KMOD_OUT = $(BUILD)/kmod/$(KREL)
# C=1 checks with sparse, on what is compiled anew.
KMOD_FLAGS ?= W=1

kmod: deps
	@$(if $(wildcard kmod/Kbuild kmod/Makefile),$(MAKE) kmod-module,echo "kmod: nothing to build yet")

.PHONY: kmod-module
kmod-module:
	@mkdir -p $(KMOD_OUT)/src
	@cp -rsfT $(abspath kmod) $(KMOD_OUT)/src
	@find $(KMOD_OUT)/src -xtype l -delete
	+$(MAKE) -C $(KERNEL_HEADERS) M=$(abspath $(KMOD_OUT))/src $(KMOD_FLAGS) modules
	@cp -u $(KMOD_OUT)/src/dm-sv.ko $(KMOD_OUT)/dm-sv.ko
