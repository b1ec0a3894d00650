# make install, make uninstall: into this system, or with DESTDIR into a tree
# that a package is made of. The initramfs stays as it is: pools come up once
# udev runs, so the root file system itself cannot lie on one.
#
# INSTALL_KREL is the kernel that gets the module: it is built with the headers
# that this system, or make deps, has for it.

DESTDIR ?=
SBINDIR ?= /usr/sbin
MANDIR ?= /usr/share/man
BASHDIR ?= /usr/share/bash-completion/completions
ZSHDIR ?= /usr/share/zsh/vendor-completions
FISHDIR ?= /usr/share/fish/vendor_completions.d
UNITDIR ?= /lib/systemd/system
RULESDIR ?= /lib/udev/rules.d
VARLINKDIR ?= /usr/share/varlink
SYSUSERSDIR ?= /usr/lib/sysusers.d
SHAREDIR ?= /usr/share/svctl
INSTALL_KREL ?= $(shell uname -r)
MODULEDIR = /lib/modules/$(INSTALL_KREL)/updates

KNOWN_HEADERS = $(wildcard /lib/modules/$(INSTALL_KREL)/build) \
	$(foreach d,$(patsubst %/release,%,$(wildcard $(BUILD)/kernels/*/release)),$(if $(filter $(INSTALL_KREL),$(shell cat $(d)/release)),$(d)/headers))
INSTALL_HEADERS = $(firstword $(KNOWN_HEADERS))

INSTALLED_PROGRAMS = $(SBINDIR)/svd $(SBINDIR)/svctl
INSTALLED_PAGES = $(MANDIR)/man8/svd.8 $(MANDIR)/man8/svctl.8
INSTALLED_COMPLETIONS = $(BASHDIR)/svctl $(ZSHDIR)/_svctl $(FISHDIR)/svctl.fish
UNITS = svd.service svd.socket svctl-schedule.service svctl-schedule.timer
INSTALLED_SYSTEM = $(addprefix $(UNITDIR)/,$(UNITS)) $(RULESDIR)/64-svctl.rules \
	$(VARLINKDIR)/io.svctl.varlink $(SYSUSERSDIR)/svctl.conf
# What monitoring systems are given: Prometheus's rules, Grafana's dashboard, Zabbix's template and its agent's keys.
MONITORING = svctl.rules.yml grafana-svctl.json zabbix-template-svctl.yaml zabbix-agent2-svctl.conf
INSTALLED_MONITORING = $(addprefix $(SHAREDIR)/,$(MONITORING))
ENABLED = $(addprefix /etc/systemd/system/,sysinit.target.wants/svd.service sockets.target.wants/svd.socket \
	timers.target.wants/svctl-schedule.timer)

.PHONY: install install-files install-module uninstall after-install reload-system

install: install-files install-module
	@$(MAKE) after-install
	@if [ -z "$(DESTDIR)" ] && command -v systemd-sysusers > /dev/null; then \
		systemd-sysusers $(SYSUSERSDIR)/svctl.conf; \
	fi

install-files: daemon cli man
	install -d $(addprefix $(DESTDIR),$(SBINDIR) $(MANDIR)/man8 $(UNITDIR) $(RULESDIR) $(BASHDIR) $(ZSHDIR) $(FISHDIR) \
	$(VARLINKDIR) $(SYSUSERSDIR) $(SHAREDIR))
	install -m 755 $(BUILD)/bin/svd $(BUILD)/bin/svctl $(DESTDIR)$(SBINDIR)
	install -m 644 $(BUILD)/man/svd.8 $(BUILD)/man/svctl.8 $(DESTDIR)$(MANDIR)/man8
	install -m 644 $(BUILD)/completion/svctl.bash $(DESTDIR)$(BASHDIR)/svctl
	install -m 644 $(BUILD)/completion/svctl.zsh $(DESTDIR)$(ZSHDIR)/_svctl
	install -m 644 $(BUILD)/completion/svctl.fish $(DESTDIR)$(FISHDIR)/svctl.fish
	install -m 644 $(addprefix systemd/,$(UNITS)) $(DESTDIR)$(UNITDIR)
	install -m 644 udev/64-svctl.rules $(DESTDIR)$(RULESDIR)
	install -m 644 daemon/api/io.svctl.varlink $(DESTDIR)$(VARLINKDIR)
	install -m 644 systemd/svctl.sysusers $(DESTDIR)$(SYSUSERSDIR)/svctl.conf
	install -m 644 $(addprefix docs/monitoring/,$(MONITORING)) $(DESTDIR)$(SHAREDIR)

install-module:
	@test -n "$(INSTALL_HEADERS)" || { \
		echo "no headers of kernel $(INSTALL_KREL): apt install linux-headers-$(INSTALL_KREL)" >&2; exit 1; }
	@$(MAKE) kmod-module KREL=$(INSTALL_KREL) KERNEL_HEADERS=$(INSTALL_HEADERS)
	install -d $(DESTDIR)$(MODULEDIR)
	install -m 644 $(BUILD)/kmod/$(INSTALL_KREL)/dm-sv.ko $(DESTDIR)$(MODULEDIR)

# Pools stay on their devices, and up if they are: svd is stopped, volumes stay mapped. What `systemctl enable` made goes
# too, also in a tree.
uninstall:
	@if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then \
		for unit in svctl-schedule.timer svd.service svd.socket; do \
			systemctl --quiet disable --now $$unit 2> /dev/null || true; \
		done; \
	fi
	rm -f $(addprefix $(DESTDIR),$(ENABLED))
	rm -f $(addprefix $(DESTDIR),$(INSTALLED_PROGRAMS) $(INSTALLED_PAGES) $(INSTALLED_COMPLETIONS) \
		$(INSTALLED_SYSTEM) $(INSTALLED_MONITORING))
	rmdir --ignore-fail-on-non-empty $(DESTDIR)$(SHAREDIR) 2> /dev/null || true
	@for module in $(DESTDIR)/lib/modules/*/updates/dm-sv.ko; do \
		[ -e "$$module" ] || continue; \
		release=$${module%/updates/dm-sv.ko}; release=$${release##*/}; \
		echo "rm $$module"; rm "$$module" || exit 1; \
		if [ -z "$(DESTDIR)" ]; then depmod "$$release"; fi; \
	done
	@if [ -z "$(DESTDIR)" ]; then rm -rf /run/svctl; fi
	@$(MAKE) reload-system

# A tree is looked at by whoever installs it.
after-install:
	@if [ -z "$(DESTDIR)" ]; then depmod $(INSTALL_KREL); fi
	@$(MAKE) reload-system

reload-system:
	@if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then \
		systemctl daemon-reload; udevadm control --reload; \
	fi
