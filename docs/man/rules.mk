# The man pages: the prose of docs/man with what the programs' own tables of commands and options say.

MAN_PAGES := $(BUILD)/man/svctl.8 $(BUILD)/man/svd.8

man: $(MAN_PAGES)

$(MAN_PAGES): $(BUILD)/man/%.8: docs/man/%.8.in $(BUILD)/bin/%
	@mkdir -p $(@D)
	$(BUILD)/bin/$* --man > $@.generated
	sed -e '/@GENERATED@/{r $@.generated' -e 'd}' $< > $@
	@rm $@.generated
