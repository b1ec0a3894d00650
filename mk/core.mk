# kmod/core for user space: the same C files as in dm-sv.ko, as a library for svd
# and the tests, and once more with sanitizers. Whoever links it includes this
# file and names $(CORE_LIB) (or $(CORE_LIB_ASAN)) as a prerequisite.
ifndef CORE_SRC

CORE_LIB := $(BUILD)/core/libsvcore.a
CORE_LIB_ASAN := $(BUILD)/core-asan/libsvcore.a
CORE_SRC := $(sort $(wildcard kmod/core/*.c))
# Without -Wunused-parameter, as in the kernel: tables of functions have them.
CORE_CFLAGS := -std=gnu11 -g -O2 -Wall -Wextra -Wno-unused-parameter -Werror -fno-strict-aliasing
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer

$(CORE_LIB): $(CORE_SRC:kmod/core/%.c=$(BUILD)/core/%.o)
$(CORE_LIB_ASAN): $(CORE_SRC:kmod/core/%.c=$(BUILD)/core-asan/%.o)
$(CORE_LIB) $(CORE_LIB_ASAN):
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/core/%.o: kmod/core/%.c mk/core.mk
	@mkdir -p $(@D)
	$(CC) $(CORE_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/core-asan/%.o: kmod/core/%.c mk/core.mk
	@mkdir -p $(@D)
	$(CC) $(CORE_CFLAGS) $(SANITIZE) -MMD -MP -c -o $@ $<

-include $(wildcard $(BUILD)/core/*.d $(BUILD)/core-asan/*.d)

endif
