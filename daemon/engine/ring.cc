// SPDX-License-Identifier: GPL-2.0
// Reading a journal ring and applying its batches to the catalogue; shared by recovery and checkpoint, so that
// recovery runs what runs every day [I31]. Declared in pool.h.
#include <cerrno>

#include <fmt/core.h>

#include "daemon/engine/pool.h"

namespace svd {

namespace {

constexpr size_t kRecordsPerTransaction = 65536;

}	// namespace

RingReader::RingReader(BlockFile &file, const sv_label &label, uint64_t last_seq)
	: file_(file), offset_(label.ring_off), buffer_(SV_BATCH_MAX)
{
	ring_.len = label.ring_len;
	ring_.incarnation = label.incarnation;
	ring_.last_seq = last_seq;
	ring_.read = &RingReader::read;
	ring_.ctx = this;
	ring_.buf = buffer_.data();
}

int RingReader::read(void *context, u64 offset, void *buffer, u32 length)
{
	auto *self = static_cast<RingReader *>(context);
	return self->file_.read(self->offset_ + offset, {static_cast<uint8_t *>(buffer), length}).ok() ? 0 : -EIO;
}

int RingReader::next(sv_ring_cursor *cursor, const void **batch, const char **why)
{
	return sv_ring_next(&ring_, cursor, batch, why);
}

Status BatchApplier::add(const void *batch, const sv_ring_cursor &reached)
{
	u32 position = 0;
	sv_rec record;
	const char *why = nullptr;
	int more;
	while ((more = sv_batch_next(batch, &position, &record, &why)) > 0)
		records_.push_back(record);
	if (more < 0)
		return Error{Code::kNeedsCheck, "read", fmt::format("journal batch {}", reached.seq), why, ""};
	reached_ = reached;
	pending_ = true;
	batches_++;
	return records_.size() < kRecordsPerTransaction ? Status() : finish();
}

Status BatchApplier::finish()
{
	if (!pending_)
		return {};
	auto stats = catalogue_.apply_batch(records_, reached_);
	if (!stats.ok())
		return stats.error();
	outgrown_.insert(outgrown_.end(), stats.value().outgrown.begin(), stats.value().outgrown.end());
	records_.clear();
	pending_ = false;
	return {};
}

}	// namespace svd
