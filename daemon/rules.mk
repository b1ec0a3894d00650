# svd, and the library that its unit tests link: everything of daemon/ but main.cc.

DAEMON_OBJ := $(BUILD)/daemon
DAEMON_LIB := $(BUILD)/lib/libsvd.a
DAEMON_SRC := $(filter-out daemon/main.cc,$(wildcard daemon/base/*.cc daemon/catalogue/*.cc daemon/kernel/*.cc \
	daemon/engine/*.cc daemon/api/*.cc))
CXXFLAGS ?= -O2 -g1
SVD_CXXFLAGS = $(CPPFLAGS) $(CXXFLAGS) -std=c++20 -Wall -Wextra -Werror -I. -MMD -MP
SVD_LIBS = -lsqlite3 -lfmt -lblkid -lfdisk -ldevmapper -lsystemd -ludev -lkmod -lpthread
include mk/core.mk

daemon: $(BUILD)/bin/svd

$(DAEMON_OBJ)/daemon/api/commands.o $(BUILD)/daemon-asan/daemon/api/commands.o: CPPFLAGS += -DSV_VERSION='"$(VERSION)"'
$(DAEMON_OBJ)/daemon/api/commands.o $(BUILD)/daemon-asan/daemon/api/commands.o: mk/debian/changelog

$(DAEMON_OBJ)/%.o: %.cc
	@mkdir -p $(@D)
	$(CXX) $(SVD_CXXFLAGS) -c $< -o $@

# It has the descriptions of the interfaces in it.
$(DAEMON_OBJ)/daemon/api/interface.o $(BUILD)/daemon-asan/daemon/api/interface.o: $(wildcard daemon/api/*.varlink)

$(DAEMON_LIB): $(DAEMON_SRC:%.cc=$(DAEMON_OBJ)/%.o)
	@mkdir -p $(@D)
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/bin/svd: $(DAEMON_OBJ)/daemon/main.o $(DAEMON_LIB) $(CORE_LIB)
	@mkdir -p $(@D)
	$(CXX) $(CXXFLAGS) $(LDFLAGS) -o $@ $^ $(SVD_LIBS)

-include $(DAEMON_SRC:%.cc=$(DAEMON_OBJ)/%.d) $(DAEMON_OBJ)/daemon/main.d
