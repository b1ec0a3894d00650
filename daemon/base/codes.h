// SPDX-License-Identifier: GPL-2.0
// The codes of all that svd and svctl report: problems of pools, warnings in the journal, errors. A code never changes its
// meaning: people search for it, and monitoring alerts by it. `svctl explain CODE` prints what is here; tests/lint/codes.py
// sees to it that each one is used.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace svd {

enum class Severity { kInfo, kWarning, kCritical };

enum class Id {
	// Kinds of errors; result.h's Code.
	kFailure,
	kUsage,
	kNotFound,
	kPermission,
	kBusy,
	kNoSpace,
	kNeedsCheck,
	kMissingFeature,
	kUnreachable,
	kTimeout,
	// Members.
	kMemberMissing,
	kMemberDuplicate,
	kMemberReused,
	kMemberWrong,
	kMemberPending,
	kMemberFailing,
	kEvacuationStalled,
	kLabelDamaged,
	kLabelRepaired,
	kDiscardFailed,
	// Pools.
	kActivationFailed,
	kCheckpointFailed,
	kPoolFull,
	kSpaceLow,
	kSpaceCritical,
	kFullSoon,
	kPoolFailed,
	kPoolReadOnly,
	kPoolRemoved,
	kPoolNameTwice,
	kPoolForeign,
	kPoolExported,
	kDataUnreadable,
	kStateDiffers,
	kSnapshotLate,
	kKernelSilent,
	kModuleVersion,
	kModuleMissing,
	kModuleRefused,
	kMetricsUnavailable,
	kLabelLeft,
	kLinkMissing,
	// Copies of journal and catalogue.
	kJournalDamaged,
	kJournalCopyDamaged,
	kJournalCopyLost,
	kJournalTorn,
	kJournalPressure,
	kCatalogueDamaged,
	kCatalogueCopyStale,
	kCatalogueCopyLost,
	kCatalogueRepaired,
	// svd itself.
	kDeviceHangs,
	kSvdStuck,
	kHostUnknown,
	kStateUnwritable,
	kUdevSilent,
	kUnprotected,
	kClientRefused,
	kClientClosed,
	kLogDropped,
	kCount,
};

struct CodeText {
	Id id;
	const char *code;		// "SV-POOL-FULL"
	Severity severity;
	const char *title;
	const char *explanation;
	const char *remedy;		// what to do
};

std::span<const CodeText> all_codes();		// in the order of Id
const CodeText &code_text(Id id);
const char *code_of(Id id);
// The journal's MESSAGE_ID of messages with that code, 32 hexadecimal digits. Made of the code's text: as constant as that.
std::string message_id(Id id);
const char *severity_name(Severity severity);
// In any case, and with or without "SV-".
const CodeText *find_code(std::string_view code);

}	// namespace svd
