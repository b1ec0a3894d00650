// SPDX-License-Identifier: GPL-2.0
// Labels on devices: reading one or its copy, writing both, and looking through all devices for them. The codec is
// kmod/core's.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "daemon/base/block_file.h"
#include "kmod/core/label.h"

namespace svd {

enum class LabelState {
	kSound,
	kFrontBad,	// damaged, or older than the copy
	kCopyBad,	// likewise
};

struct FoundMember {
	std::string path;		// the device with the label
	sv_label label;			// the better of the two
	LabelState state = LabelState::kSound;
	std::string named;		// as the user named it: the disk around the partition, a link
};

// nullopt: no label. kNeedsCheck: there is one that must not be used, and why.
Result<std::optional<FoundMember>> read_label(const std::string &path);
Status write_label(BlockDevice &device, const sv_label &label);	// copy first
Status erase_label(BlockDevice &device, const sv_label &label);
Status erase_label_at(BlockDevice &device, uint64_t offset);	// one of the two

// Has udev look at the device anew. It does so by itself when a writer closes it, but not while it is busy with it.
void tell_udev(const std::string &path);

// What udev is to know of a member, as it reads it from a program: one NAME=VALUE a line.
std::string udev_properties(const FoundMember &member);

// By another than a pool of ours, as multipath takes paths, and md the halves of a mirror: its bytes are those of the
// device that took it.
bool taken_by_another(const std::string &path);

// All block devices of this machine that could be members.
std::vector<std::string> list_block_devices();

}	// namespace svd
