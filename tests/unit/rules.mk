# Every tests/unit/test_*.cc becomes two programs, plain and with ASan + UBSan,
# test_X and test_X.asan. All link kmod/core; those that include a header of
# daemon/ link svd's modules too (daemon/rules.mk: DAEMON_SRC, DAEMON_LIB, SVD_LIBS).
# `make unit` builds them into build/tests/unit and `make suite-unit` runs them,
# but for those of svd's modules with sanitizers, which take GCC as long as all
# else: unit-asan, build/tests/unit-asan and suite-unit-asan, in check-full.
include mk/core.mk

UNIT_OUT := $(BUILD)/tests/unit
UNIT_SRC := $(sort $(wildcard tests/unit/test_*.cc))
UNIT_TESTS := $(UNIT_SRC:tests/unit/%.cc=$(UNIT_OUT)/%)
UNIT_OF_DAEMON := $(shell grep -l '^.include "daemon/' /dev/null $(UNIT_SRC))
UNIT_CXXFLAGS := -std=c++20 -g1 -O1 -Wall -Wextra -Werror -I.
# Under sanitizers GCC 12 takes the insides of std::regex for uninitialized.
UNIT_ASAN_FLAGS = $(UNIT_CXXFLAGS) $(SANITIZE) -Wno-maybe-uninitialized
# Optimizing a test under sanitizers takes GCC as long as all else; svd's modules, which do the work, are optimized.
$(UNIT_OF_DAEMON:tests/unit/%.cc=$(UNIT_OUT)-deps/%.asan.o): UNIT_ASAN_FLAGS += -O0
UNIT_LIBS := -lgtest_main -lgtest -lpthread
DAEMON_LIB_ASAN := $(BUILD)/daemon-asan/libsvd.a

UNIT_OF_CORE := $(filter-out $(UNIT_OF_DAEMON),$(UNIT_SRC))
UNIT_CORE_ASAN := $(UNIT_OF_CORE:tests/unit/%.cc=$(UNIT_OUT)/%.asan)
UNIT_DAEMON_ASAN := $(UNIT_OF_DAEMON:tests/unit/%.cc=$(UNIT_OUT)-asan/%.asan)

.PHONY: unit-asan
unit: $(UNIT_TESTS) $(UNIT_CORE_ASAN)
unit-asan: $(UNIT_DAEMON_ASAN)

# Libraries in link order: svd's use the core's.
$(UNIT_OF_DAEMON:tests/unit/%.cc=$(UNIT_OUT)/%): $(DAEMON_LIB)
$(UNIT_DAEMON_ASAN): $(DAEMON_LIB_ASAN)
$(UNIT_OF_DAEMON:tests/unit/%.cc=$(UNIT_OUT)/%) $(UNIT_DAEMON_ASAN): UNIT_LIBS += $(SVD_LIBS)

UNIT_OBJ := $(UNIT_OUT)-deps

$(UNIT_OBJ)/%.o: tests/unit/%.cc tests/unit/rules.mk
	@mkdir -p $(@D)
	$(CXX) $(UNIT_CXXFLAGS) -MMD -MP -c -o $@ $<

$(UNIT_OBJ)/%.asan.o: tests/unit/%.cc tests/unit/rules.mk
	@mkdir -p $(@D)
	$(CXX) $(UNIT_ASAN_FLAGS) -MMD -MP -c -o $@ $<

$(UNIT_TESTS): $(UNIT_OUT)/%: $(UNIT_OBJ)/%.o $(CORE_LIB)
	@mkdir -p $(@D)
	$(CXX) $(UNIT_CXXFLAGS) -o $@ $< $(filter-out $(CORE_LIB),$(filter %.a,$^)) $(CORE_LIB) $(UNIT_LIBS)

$(UNIT_CORE_ASAN): $(UNIT_OUT)/%.asan: $(UNIT_OBJ)/%.asan.o
$(UNIT_DAEMON_ASAN): $(UNIT_OUT)-asan/%.asan: $(UNIT_OBJ)/%.asan.o
$(UNIT_CORE_ASAN) $(UNIT_DAEMON_ASAN): $(CORE_LIB_ASAN)
	@mkdir -p $(@D)
	$(CXX) $(UNIT_ASAN_FLAGS) -o $@ $(filter %.o,$^) $(filter-out $(CORE_LIB_ASAN),$(filter %.a,$^)) $(CORE_LIB_ASAN) $(UNIT_LIBS)

.SECONDARY: $(UNIT_SRC:tests/unit/%.cc=$(UNIT_OBJ)/%.o) $(UNIT_SRC:tests/unit/%.cc=$(UNIT_OBJ)/%.asan.o)

$(BUILD)/daemon-asan/%.o: %.cc
	@mkdir -p $(@D)
	$(CXX) $(CPPFLAGS) $(UNIT_ASAN_FLAGS) -MMD -MP -c -o $@ $<

$(DAEMON_LIB_ASAN): $(DAEMON_SRC:%.cc=$(BUILD)/daemon-asan/%.o)
	@rm -f $@
	$(AR) rcs $@ $^

-include $(wildcard $(UNIT_OBJ)/*.d) $(DAEMON_SRC:%.cc=$(BUILD)/daemon-asan/%.d)
