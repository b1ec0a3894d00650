// SPDX-License-Identifier: GPL-2.0
// See codes.h.
#include "daemon/base/codes.h"

#include <algorithm>
#include <iterator>
#include <string>

#include <fmt/format.h>

namespace svd {

namespace {

constexpr CodeText kCodes[] = {
	{Id::kFailure, "SV-FAILURE", Severity::kWarning, "a command failed",
	 "Something failed that has no code of its own: the message says what, on which object, and why. Exit code 1.",
	 "Look for earlier messages of svd and of the kernel: journalctl -u svd -k."},
	{Id::kUsage, "SV-USAGE", Severity::kInfo, "the command cannot be understood",
	 "A word, an option, a name or a size is not what the command takes. Nothing was changed. Exit code 2.",
	 "svctl COMMAND --help says what it takes, with an example."},
	{Id::kNotFound, "SV-NOT-FOUND", Severity::kInfo, "there is no such pool, volume or device",
	 "The message names what was looked for. Nothing was changed. Exit code 3.",
	 "svctl list shows what there is; svctl scan looks for pools on devices that svd was not told of."},
	{Id::kPermission, "SV-PERMISSION", Severity::kInfo, "this is not allowed",
	 "The caller may not use svd's socket, or a device cannot be written to. Nothing was changed. Exit code 4.",
	 "Run svctl as root, or as a user in the group that the message names; of a device: blockdev --getro DEVICE."},
	{Id::kBusy, "SV-BUSY", Severity::kInfo, "it is in use, or in conflict with what is there",
	 "A device or a volume is in use, holds something, or has that name already. Nothing was changed. Exit code 5.",
	 "The message says by what, and of a volume how that is ended; lsblk DEVICE. To destroy what a device holds, name it with "
	 "--wipe of svctl create-pool or svctl add-device."},
	{Id::kNoSpace, "SV-NO-SPACE", Severity::kWarning, "there is no space for this",
	 "A device is too small, or the pool has no room for what the command needs. Exit code 6.",
	 "svctl list shows free space; svctl add-device adds some."},
	{Id::kNeedsCheck, "SV-NEEDS-CHECK", Severity::kCritical, "something on the devices is damaged",
	 "What svd read contradicts its checksum or itself. svd does not guess: it leaves everything as it is. Exit code 7.",
	 "svctl status, svctl check POOL and journalctl -u svd say where. Replace the device, or restore from a dump."},
	{Id::kMissingFeature, "SV-MISSING-FEATURE", Severity::kCritical, "the kernel module or a feature is missing",
	 "dm-sv is not loaded, not built for this kernel, or older or newer than what the command needs. Exit code 8.",
	 "modprobe dm-sv, and what journalctl -k says to it; install module and daemon of one version."},
	{Id::kUnreachable, "SV-UNREACHABLE", Severity::kCritical, "svd cannot be reached",
	 "Nothing answers on svd's socket. Pools that are up go on without svd, but nobody makes free space usable again, "
	 "and no command works. Exit code 20.",
	 "systemctl status svd; systemctl start svd."},
	{Id::kTimeout, "SV-TIMEOUT", Severity::kWarning, "svd did not answer in time",
	 "The command was sent; svd may still carry it out. A device that hangs holds svd up, too. Exit code 21.",
	 "systemctl status svd says what it waits for; svctl status and svctl list show what came of it; --timeout waits longer."},

	{Id::kMemberMissing, "SV-MEMBER-MISSING", Severity::kCritical, "a member of a pool is missing",
	 "No device with that member's label was found. Without all its members a pool does not come up, since what is "
	 "written could contradict what the missing one holds.",
	 "Attach the device; svd notices, or svctl scan. To read what is there: svctl activate POOL --read-only --missing."},
	{Id::kMemberDuplicate, "SV-MEMBER-DUPLICATE", Severity::kCritical, "two devices say that they are the same member",
	 "One is a copy of the other (a clone, a snapshot, a second path without multipath). svd cannot tell which is the one "
	 "that was written to last, and uses neither.",
	 "Take one of them away (its cable, or the clone or snapshot that it is); then svctl scan."},
	{Id::kMemberReused, "SV-MEMBER-REUSED", Severity::kCritical, "a member holds something else now",
	 "The label at the device's front is gone and something else lies there; only the copy at its end is left.",
	 "If that came there by mistake, and may be lost: wipefs -a DEVICE takes its signature away, and svctl activate POOL gives the "
	 "device back to the pool. Otherwise leave it alone: svctl activate POOL --read-only --missing reads what the other members have."},
	{Id::kMemberWrong, "SV-MEMBER-WRONG", Severity::kCritical, "a member is not the device that the catalogue knows",
	 "Its label has the right number and pool, but another identity: a device that was replaced or restored from a copy.",
	 "Attach the pool's own device; svctl scan."},
	{Id::kMemberPending, "SV-MEMBER-PENDING", Severity::kWarning, "a new member is not in use yet",
	 "The device has its label and belongs to the pool, but catalogue or kernel have not taken it so far. svd tries again by "
	 "itself.",
	 "svctl list shows when its space is there; the journal says why it took so long."},
	{Id::kMemberFailing, "SV-MEMBER-FAILING", Severity::kCritical, "a member has I/O errors",
	 "Reads, writes or flushes of the device failed. It ends when there was none for 24 hours, or the pool has been taken "
	 "down. The number counts from the pool's activation.",
	 "smartctl -a DEVICE and journalctl -k say what fails. Replace the device, or what it is connected by."},
	{Id::kEvacuationStalled, "SV-EVACUATION-STALLED", Severity::kWarning, "a device does not become empty",
	 "It was to be emptied, and for some time nothing could be moved off it: the other devices have too little room, or it cannot be "
	 "read. Nothing new is put on it, and what lies there is used as before. svd tries again every now and then.",
	 "svctl add-device POOL TIER=DEVICE, or delete files and run fstrim. Where SV-MEMBER-FAILING names it, too: journalctl -k says what "
	 "cannot be read. svctl evacuate-device POOL DEVICE --undo has it used as before."},
	{Id::kLabelDamaged, "SV-LABEL-DAMAGED", Severity::kCritical, "a device has a damaged label",
	 "The label and its copy contradict their checksums, or the device is smaller than its label says. svd does not use "
	 "the device; the pool that it belonged to misses a member.",
	 "If the device was cut short, give it its size back, then svctl scan. Otherwise replace it."},
	{Id::kLabelRepaired, "SV-LABEL-REPAIRED", Severity::kWarning, "a damaged label was written anew",
	 "A label or its copy contradicted its checksum. The other one was good, and both are again.",
	 "Something wrote to the device, or it is failing: smartctl -a DEVICE."},
	{Id::kDiscardFailed, "SV-DISCARD-FAILED", Severity::kWarning, "a member did not take a discard",
	 "The pool passes discards down to its members, and this one answered with an error. Its space is used again all the same; "
	 "no data is affected. It is said once for each device until the pool comes up again, and again if the error changes.",
	 "journalctl -k says what the device does not like. svctl set-pool POOL --discard keep passes nothing down."},

	{Id::kActivationFailed, "SV-ACTIVATION-FAILED", Severity::kCritical, "a pool did not come up",
	 "Its members are there, and something else failed: the message says what. svd tries again every now and then.",
	 "svctl activate POOL tries now; journalctl -u svd has what came before."},
	{Id::kCheckpointFailed, "SV-CHECKPOINT-FAILED", Severity::kCritical, "a checkpoint failed",
	 "What the kernel recorded could not be brought into the catalogue. I/O goes on, until the journal is full; what was "
	 "freed cannot be used again meanwhile. svd repeats the checkpoint.",
	 "svctl check POOL; journalctl -u svd -k says which device fails."},
	{Id::kPoolFull, "SV-POOL-FULL", Severity::kCritical, "a pool is full",
	 "Writes that need new space fail with ENOSPC. Reads, overwrites and flushes go on, and a little is kept for file "
	 "systems' logs, so that they stay mounted.",
	 "svctl add-device POOL TIER=DEVICE, or delete files and run fstrim, or delete volumes."},
	{Id::kSpaceLow, "SV-SPACE-LOW", Severity::kWarning, "a pool's space runs low",
	 "Of its space more than svd's --low-space says is used (80 %). It begins there and ends two points below. Volumes are "
	 "thin: what file systems show as free may be more than the pool has.",
	 "svctl add-device POOL TIER=DEVICE, or delete files and run fstrim, or delete volumes."},
	{Id::kSpaceCritical, "SV-SPACE-CRITICAL", Severity::kCritical, "a pool is nearly full",
	 "Of its space more than the second number of svd's --low-space is used (95 %). Once it is full, writes that need new "
	 "space fail.",
	 "Now: svctl add-device POOL TIER=DEVICE, or delete files and run fstrim, or delete volumes."},
	{Id::kFullSoon, "SV-FULL-SOON", Severity::kWarning, "a pool will be full within a day",
	 "It fills so fast that it lasts for less than 24 hours, by what it took in the last two hours and in the last quarter of "
	 "an hour, whichever is less. It ends when that has been more than 36 hours for a quarter of an hour. svd forgets what "
	 "was when it is restarted.",
	 "svctl list shows which volume grows (-o +percent); svctl add-device POOL TIER=DEVICE makes room."},
	{Id::kPoolFailed, "SV-POOL-FAILED", Severity::kCritical, "the kernel stopped a pool",
	 "A write to its journal failed on all copies. Nothing is acknowledged any more, so that nothing is lost that was.",
	 "journalctl -k names the device. Replace or reattach it, then svctl deactivate POOL; svctl activate POOL."},
	{Id::kPoolReadOnly, "SV-POOL-READ-ONLY", Severity::kInfo, "a pool is up for reading only",
	 "It was activated with --read-only, and nothing may change.",
	 "With all its members: svctl deactivate POOL; svctl activate POOL."},
	{Id::kPoolRemoved, "SV-POOL-REMOVED", Severity::kCritical, "a pool's device was removed, and not by svctl",
	 "Somebody removed the pool from the kernel (dmsetup remove). Its data is where it was.",
	 "svctl activate POOL."},
	{Id::kPoolNameTwice, "SV-POOL-NAME-TWICE", Severity::kWarning, "two pools have one name",
	 "The one that is up keeps the name. If neither is, neither comes up by itself: which one a mount from /etc/fstab "
	 "found would depend on which devices came first.",
	 "svctl import-pool UUID --rename NEW gives one of them another name; svctl scan shows the UUIDs."},
	{Id::kPoolForeign, "SV-POOL-FOREIGN", Severity::kWarning, "another host holds a pool whose devices are here",
	 "Its labels name that host. It is not brought up here: two hosts that write to one pool destroy it. A host finds its "
	 "own pools so after its /etc/machine-id has changed.",
	 "There: svctl export-pool POOL, then here: svctl import-pool POOL. If that host will not use it again: svctl "
	 "import-pool POOL --force."},
	{Id::kPoolExported, "SV-POOL-EXPORTED", Severity::kInfo, "no host holds a pool whose devices are here",
	 "It was exported, to be carried to another host.",
	 "svctl import-pool POOL takes it and brings it up."},
	{Id::kDataUnreadable, "SV-DATA-UNREADABLE", Severity::kCritical, "a part of a volume cannot be read",
	 "It lies on members that are missing; reading it is an I/O error.",
	 "svctl show POOL/VOLUME lists the ranges. Attach the members, or restore the files that lie there from a backup."},
	{Id::kStateDiffers, "SV-STATE-DIFFERS", Severity::kCritical, "kernel and catalogue differ",
	 "svctl check compared what the kernel serves with what the catalogue says, and they are not the same.",
	 "Take a backup of the volumes while the pool is up, then report it with svctl check's output and svctl dump."},
	{Id::kSnapshotLate, "SV-SNAPSHOT-LATE", Severity::kWarning, "snapshots of a volume are late",
	 "The volume has a schedule, and for ten minutes a snapshot has been due that nobody made. Those that there are stay until others "
	 "take their place.",
	 "svctl run-schedules makes what is due now, or says why it cannot; systemctl enable --now svctl-schedule.timer."},
	{Id::kKernelSilent, "SV-KERNEL-SILENT", Severity::kCritical, "the kernel does not answer for a pool",
	 "svd asked the pool's control device for its state and got an error.",
	 "dmsetup status; journalctl -k."},
	{Id::kModuleVersion, "SV-MODULE-VERSION", Severity::kCritical, "module and daemon do not fit together",
	 "The loaded dm-sv speaks another version of the control channel than svd.",
	 "Install module and daemon of one version; then svctl deactivate each POOL, modprobe -r dm-sv, systemctl restart svd, or reboot."},
	{Id::kModuleMissing, "SV-MODULE-MISSING", Severity::kCritical, "a kernel has no module dm-sv that fits it",
	 "Pools do not come up with that kernel. It is looked for in each installed kernel's modules.dep, so that this is "
	 "known before it is booted. DKMS builds the module where that kernel's headers are installed.",
	 "apt install linux-headers-RELEASE dm-sv-dkms; dkms autoinstall -k RELEASE. Why it does not build is in "
	 "/var/lib/dkms/dm-sv/VERSION/build/make.log."},
	{Id::kModuleRefused, "SV-MODULE-REFUSED", Severity::kCritical, "the kernel does not take the module dm-sv",
	 "Secure Boot, module.sig_enforce or lockdown: the module is not signed with a key that the kernel knows, or nobody "
	 "may load modules any more.",
	 "mokutil --import /var/lib/dkms/mok.pub, reboot, and confirm the key there. docs/operations/install.md says more."},
	{Id::kMetricsUnavailable, "SV-METRICS-UNAVAILABLE", Severity::kWarning, "svd cannot serve its metrics",
	 "It cannot listen at the address of its option --metrics. Pools are served nevertheless, and svd tries again by itself.",
	 "ss -ltnp shows who listens there; svd --metrics ADDRESS:PORT takes another port. svctl metrics works in any case."},
	{Id::kLabelLeft, "SV-LABEL-LEFT", Severity::kWarning, "a device may be left with a label of a pool that is not there",
	 "A pool could not be made, and its label could not be taken off the device again. svd may find it there, as a member of a "
	 "pool that lacks the others.",
	 "Once the device can be written to: svctl create-pool --wipe makes a pool of it that is there."},
	{Id::kLinkMissing, "SV-LINK-MISSING", Severity::kWarning, "a volume has no link in /dev/sv",
	 "The volume is up as /dev/mapper/sv-POOL-VOLUME, but something is in the way of /dev/sv/POOL/VOLUME, or /dev cannot be "
	 "written to.",
	 "ls -l /dev/sv /dev/sv/POOL; remove what is not a link, then svctl deactivate POOL/VOLUME; svctl activate POOL/VOLUME."},

	{Id::kJournalDamaged, "SV-JOURNAL-DAMAGED", Severity::kCritical, "a pool's journal is damaged",
	 "The last changes cannot be read from any copy, and without them the catalogue would contradict the data. The pool "
	 "stays down.",
	 "If a device was away or failing, bring it back; svctl activate POOL. Otherwise svctl create-pool anew, and svctl restore a dump, "
	 "and the files from backups."},
	{Id::kJournalCopyDamaged, "SV-JOURNAL-COPY-DAMAGED", Severity::kWarning, "one copy of a journal cannot be read, or lacks its end",
	 "A part of it contradicts its checksum, a device does not answer, or the copy was cut off or given up some time before the "
	 "pool went down. svd looks whether the other copy will do.",
	 "The message names the device: smartctl -a DEVICE."},
	{Id::kJournalCopyLost, "SV-JOURNAL-COPY-LOST", Severity::kCritical, "a pool writes its journal to one member only",
	 "Writing the other copy failed or took too long, and the kernel goes on without it. If the remaining member fails as "
	 "well, the last writes are lost.",
	 "journalctl -k names the device. Replace or reattach it; svctl deactivate POOL and activate POOL use both again."},
	{Id::kJournalTorn, "SV-JOURNAL-TORN", Severity::kWarning, "the end of a journal was torn and dropped",
	 "The last batch was written in part only. A power cut does that, and nothing is lost that was acknowledged.",
	 "If there was no power cut, the device is damaged and the last writes are lost: smartctl -a DEVICE."},
	{Id::kJournalPressure, "SV-JOURNAL-PRESSURE", Severity::kWarning, "a pool's journal fills faster than it is emptied",
	 "More than half of it has been in use for a minute, and no less than a minute before; it ends below three eighths. When "
	 "it is full, writes that need a record wait. svd empties it at a quarter: it is held up by a device that is slow or "
	 "fails, or by a long check or dump.",
	 "svctl jobs, svctl status, and journalctl -u svd -k say what holds it up."},
	{Id::kCatalogueDamaged, "SV-CATALOGUE-DAMAGED", Severity::kCritical, "a pool's catalogue is damaged",
	 "A block of it cannot be read from any copy.",
	 "svctl check POOL says what is affected. Restore the pool from a dump."},
	{Id::kCatalogueCopyStale, "SV-CATALOGUE-COPY-STALE", Severity::kWarning, "one copy of a catalogue was out of date",
	 "Its member was away, or that copy was damaged. svd writes it anew from the other one; the journal says if that fails.",
	 "Nothing, if the member had been away. Otherwise: smartctl -a DEVICE."},
	{Id::kCatalogueCopyLost, "SV-CATALOGUE-COPY-LOST", Severity::kCritical, "one copy of a catalogue is no longer used",
	 "Writing to it failed. The catalogue goes on with the other copy, if there is one.",
	 "The message names the device. Replace or reattach it; svctl deactivate POOL; svctl activate POOL writes the copy anew."},
	{Id::kCatalogueRepaired, "SV-CATALOGUE-REPAIRED", Severity::kWarning, "a block of the catalogue was repaired",
	 "It could not be read from one copy or contradicted its checksum; the other copy had it.",
	 "A device that needs this more than once is failing: smartctl -a DEVICE."},

	{Id::kDeviceHangs, "SV-DEVICE-HANGS", Severity::kWarning, "svd waits for a device",
	 "A member has not answered for 10 s or longer, or the kernel while it waits for one, or udev. svd does one thing at a "
	 "time: until that ends, no command is answered, for any pool. I/O goes on in the kernel, but for what needs that device. "
	 "Restarting svd would not help, and systemd's watchdog does not do it: the next svd would wait for the same.",
	 "The message names device or pool, systemctl status svd what it waits for now. journalctl -k: a path that failed, a "
	 "controller that resets, a device-mapper device that somebody left suspended (dmsetup info)."},
	{Id::kSvdStuck, "SV-SVD-STUCK", Severity::kCritical, "svd runs in a circle",
	 "It has made no step for 10 s or longer and waits for nothing: a fault of svd's own. Pools go on in the kernel. systemd's "
	 "watchdog ends svd after WatchdogSec= of its unit, with a core dump where the host keeps those, and starts it anew.",
	 "Report it, with journalctl -u svd and the core dump: coredumpctl info svd."},
	{Id::kHostUnknown, "SV-HOST-UNKNOWN", Severity::kCritical, "this host has no identity",
	 "svd makes the identity by which pools know their host of /etc/machine-id, which is missing or empty. Without one no pool "
	 "comes up here, and none can be made.",
	 "systemd-machine-id-setup; systemctl restart svd. Or give svd one of its own: svd --host-id UUID."},
	{Id::kStateUnwritable, "SV-STATE-UNWRITABLE", Severity::kWarning, "svd cannot write to its directory",
	 "A file in the directory of svd's option --state-dir (/run/svctl) cannot be made. Pools are served; what such a file says is "
	 "lost when svd ends: that a pool is to stay down, or by which path a member was seen last.",
	 "findmnt -T /run/svctl; df -h -i /run/svctl; ls -l /run/svctl."},
	{Id::kUdevSilent, "SV-UDEV-SILENT", Severity::kWarning, "svd does not hear of devices that come",
	 "udev's events cannot be received. Pools whose devices are there are served; devices that come later are not noticed.",
	 "svctl scan looks for them; systemctl restart svd tries again to listen to udev."},
	{Id::kUnprotected, "SV-UNPROTECTED", Severity::kWarning, "svd is not safe from the host's lack of memory",
	 "It could not lock its memory, be exempt from the OOM killer, or tell the kernel that writing to disks depends on it. Where "
	 "memory is short svd may wait for a disk that waits for svd, or be killed.",
	 "systemctl restart svd starts it with the rights of its unit; as a user's process, or in a container, it may not have them."},
	{Id::kClientRefused, "SV-CLIENT-REFUSED", Severity::kWarning, "svd cannot take another client",
	 "It has no file descriptor, or the kernel no memory, for one more connection. Those that there are go on, and svd tries "
	 "again a second later.",
	 "ss -xp shows who is connected to svd.sock; free -m."},
	{Id::kClientClosed, "SV-CLIENT-CLOSED", Severity::kWarning, "svd has closed a client's connection",
	 "The client sent half a message or did not read its answer for long, sent what is none, or others came while there was "
	 "room for no more. Nobody else is affected.",
	 "The message says whose it was and why: ps -p PID. Of svctl: type the command again."},
	{Id::kLogDropped, "SV-LOG-DROPPED", Severity::kWarning, "messages of svd were dropped",
	 "Nobody took them: journald was stopped or slow, and svd waits for no logger. What was said then is lost; what is wrong "
	 "still is in svctl status.",
	 "svctl status; systemctl status systemd-journald."},
};
static_assert(std::size(kCodes) == static_cast<size_t>(Id::kCount));

constexpr bool in_order()
{
	for (size_t i = 0; i < std::size(kCodes); i++)
		if (static_cast<size_t>(kCodes[i].id) != i)
			return false;
	return true;
}
static_assert(in_order());

std::string folded(std::string_view code)
{
	std::string text(code);
	std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return toupper(c); });
	return text.starts_with("SV-") ? text : "SV-" + text;
}

}	// namespace

std::span<const CodeText> all_codes() { return kCodes; }

const CodeText &code_text(Id id) { return kCodes[static_cast<size_t>(id)]; }

const char *code_of(Id id) { return code_text(id).code; }

// A UUID of version 8: 64 bits that stand for svctl, and 64 of FNV-1a of the code.
std::string message_id(Id id)
{
	constexpr uint64_t kSvctl = 0x2d8c6f1e7b428c55;
	uint64_t hash = 0xcbf29ce484222325;
	for (const char c : std::string_view(code_of(id)))
		hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
	return fmt::format("{:016x}{:016x}", kSvctl, (hash & ~(3ull << 62)) | 2ull << 62);
}

const char *severity_name(Severity severity)
{
	switch (severity) {
	case Severity::kInfo:
		return "info";
	case Severity::kWarning:
		return "warning";
	case Severity::kCritical:
		return "critical";
	}
	return "unknown";
}

const CodeText *find_code(std::string_view code)
{
	const auto found = std::find_if(std::begin(kCodes), std::end(kCodes), [wanted = folded(code)](const CodeText &text) {
		return wanted == text.code;
	});
	return found == std::end(kCodes) ? nullptr : found;
}

}	// namespace svd
