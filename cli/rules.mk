# svctl. Of the daemon it needs base only.

CLI_SRC := $(wildcard cli/*.cc)

COMPLETIONS := $(addprefix $(BUILD)/completion/svctl.,bash zsh fish)

cli: $(BUILD)/bin/svctl $(COMPLETIONS)

$(BUILD)/bin/svctl: $(CLI_SRC:%.cc=$(DAEMON_OBJ)/%.o) $(DAEMON_LIB)
	@mkdir -p $(@D)
	$(CXX) $(CXXFLAGS) $(LDFLAGS) -o $@ $^ -lfmt -lblkid

$(COMPLETIONS): $(BUILD)/completion/svctl.%: $(BUILD)/bin/svctl
	@mkdir -p $(@D)
	$(BUILD)/bin/svctl --completion $* > $@

-include $(CLI_SRC:%.cc=$(DAEMON_OBJ)/%.d)
