# svctl. Of the daemon it needs base only.

CLI_SRC := $(wildcard cli/*.cc)

cli: $(BUILD)/bin/svctl

$(BUILD)/bin/svctl: $(CLI_SRC:%.cc=$(DAEMON_OBJ)/%.o) $(DAEMON_LIB)
	@mkdir -p $(@D)
	$(CXX) $(CXXFLAGS) -o $@ $^ -lfmt

-include $(CLI_SRC:%.cc=$(DAEMON_OBJ)/%.d)
