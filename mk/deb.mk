# make deb: Debian packages of the tree, in build/deb. mk/debian is what dpkg
# wants as debian/; its changelog is the one source of the version.

VERSION := $(shell sed -n '1s/^[^(]*(\([^)]*\)).*/\1/p' mk/debian/changelog)
DEB_SOURCES = $(shell mk/files.sh Makefile mk/*.mk mk/deb.sh mk/debian kmod daemon cli systemd udev docs/man docs/monitoring)

.PHONY: deb

deb: deps $(BUILD)/deb/.built

$(BUILD)/deb/.built: $(DEB_SOURCES)
	mk/deb.sh $(BUILD)
	@touch $@
