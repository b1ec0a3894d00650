# The lints are run by tests/run-lint; this fetches what one of them needs.
CHECKPATCH := $(BUILD)/checkpatch/scripts/checkpatch.pl

suite-lint: $(CHECKPATCH)

$(CHECKPATCH): mk/checkpatch.sh $(BUILD)/.deps-6.12
	mk/checkpatch.sh $(BUILD) 6.12
	@touch $@
