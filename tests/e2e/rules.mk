# svd and svctl with ASan + UBSan, which check-full runs all of tests/e2e with.
# Objects and library are those of the unit tests (tests/unit/rules.mk).
E2E_ASAN := $(BUILD)/bin-asan

e2e-asan: $(E2E_ASAN)/svd $(E2E_ASAN)/svctl

$(E2E_ASAN)/svd: $(BUILD)/daemon-asan/daemon/main.o $(DAEMON_LIB_ASAN) $(CORE_LIB_ASAN)
	@mkdir -p $(@D)
	$(CXX) $(UNIT_ASAN_FLAGS) -o $@ $^ $(SVD_LIBS)

$(E2E_ASAN)/svctl: $(CLI_SRC:%.cc=$(BUILD)/daemon-asan/%.o) $(DAEMON_LIB_ASAN) $(CORE_LIB_ASAN)
	@mkdir -p $(@D)
	$(CXX) $(UNIT_ASAN_FLAGS) -o $@ $^ $(SVD_LIBS)

-include $(BUILD)/daemon-asan/daemon/main.d $(CLI_SRC:%.cc=$(BUILD)/daemon-asan/%.d)
