// SPDX-License-Identifier: GPL-2.0
// See region.h for what is promised and when. Blocks are numbered from the start of main; the WAL follows main.
#include "daemon/catalogue/region.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "kmod/core/port.h"
#include "daemon/base/log.h"

namespace svd {

static constexpr uint64_t kSumsPerBlock = kBlockSize / sizeof(uint32_t);
static constexpr size_t kMaxDirty = 1024;  // blocks gathered before they are written
static constexpr size_t kRunBlocks = 256;

static const char kCheckHint[] = "run 'svctl check' on the pool; restore the catalogue from a dump if it cannot be read";

static std::string where(const CatalogueCopy &c)
{
	return fmt::format("catalogue on {} at {}", c.device->name(), c.offset);
}

static uint32_t checksum(RegionSuperblockDisk sb)
{
	sb.crc = 0;
	return sv_crc32c(0, &sb, sizeof(sb));
}

static std::span<uint8_t> bytes_of(RegionSuperblockDisk &sb)
{
	return {reinterpret_cast<uint8_t *>(&sb), sizeof(sb)};
}

static Status check_place(const CatalogueCopy &c)
{
	if (c.offset % kBlockSize != 0 || c.length % kBlockSize != 0 || c.length < kRegionMin)
		return Error(Code::kFailure, "use", where(c),
			     fmt::format("a region of {} bytes is too small or not made of whole blocks", c.length));
	if (c.offset > c.device->size() || c.length > c.device->size() - c.offset)
		return Error(Code::kNeedsCheck, "use", where(c), "the device ends before the region does",
			     "the device may have shrunk or been replaced");
	return {};
}

// main takes 45 %, the WAL the rest: a transaction that rewrites every page of a full database fits into it.
static RegionSuperblockDisk layout(uint64_t len, uint32_t copies, const Uuid &uuid)
{
	RegionSuperblockDisk sb = {};
	memcpy(sb.magic, kRegionMagic, sizeof(sb.magic));
	memcpy(sb.pool_uuid, uuid.bytes.data(), sizeof(sb.pool_uuid));
	const uint64_t blocks = len / kBlockSize - kRegionHeadBlocks;
	const uint64_t sum_blocks = (blocks + kSumsPerBlock) / (kSumsPerBlock + 1) + 1;
	const uint64_t data = blocks - sum_blocks;
	sb.version = kRegionVersion;
	sb.region_len = len;
	sb.sum_off = kRegionHeadBlocks * kBlockSize;
	sb.main_off = sb.sum_off + sum_blocks * kBlockSize;
	sb.main_cap = data * 45 / 100 * kBlockSize;
	sb.wal_off = sb.main_off + sb.main_cap;
	sb.wal_cap = data * kBlockSize - sb.main_cap;
	sb.copies = copies;
	sb.in_sync = (1u << copies) - 1;
	return sb;
}

// Empty: valid for this pool and place. Otherwise what is wrong with it.
static std::string refuse(const RegionSuperblockDisk &sb, const CatalogueCopy &c, const Uuid &uuid, bool read_only)
{
	if (memcmp(sb.magic, kRegionMagic, sizeof(sb.magic)) != 0)
		return "there is no superblock";
	if (checksum(sb) != sb.crc)
		return "the superblock's checksum is wrong";
	if (sb.version != kRegionVersion || sb.incompat != 0)
		return "it was written by a newer version of svd";
	if (sb.ro_compat != 0 && !read_only)
		return "a newer version of svd allows this one to read it only";
	if (memcmp(sb.pool_uuid, uuid.bytes.data(), sizeof(sb.pool_uuid)) != 0)
		return "it belongs to pool " + Uuid::from_bytes(sb.pool_uuid).str();
	const RegionSuperblockDisk want = layout(c.length, 1, uuid);
	const bool same_layout = sb.region_len == c.length && sb.sum_off == want.sum_off &&
				 sb.main_off == want.main_off && sb.main_cap == want.main_cap &&
				 sb.wal_off == want.wal_off && sb.wal_cap == want.wal_cap;
	if (!same_layout || sb.main_size > sb.main_cap || sb.wal_size > sb.wal_cap)
		return "the superblock's layout does not fit the region";
	if (sb.copies < 1 || sb.copies > 2 || sb.copy >= sb.copies)
		return "the superblock's number of copies makes no sense";
	return {};
}

struct Candidate {
	std::optional<RegionSuperblockDisk> sb;
	uint32_t slot = 0;
	bool both = false;  // the slots agree
	std::string why;    // without sb
};

// The newer valid one of a copy's two slots: a slot torn by a crash leaves the other.
static Candidate read_superblock(const CatalogueCopy &c, const Uuid &uuid, bool read_only)
{
	Candidate best;
	for (uint32_t slot = 0; slot < 2; slot++) {
		RegionSuperblockDisk sb = {};
		if (Status s = c.device->read(c.offset + slot * kBlockSize, bytes_of(sb)); !s) {
			best.why = s.error().message();
			continue;
		}
		const std::string why = refuse(sb, c, uuid, read_only);
		if (why.empty()) {
			best.both = best.sb && best.sb->seq == sb.seq;
			if (!best.sb || sb.seq > best.sb->seq) {
				best.sb = sb;
				best.slot = slot;
			}
		} else if (best.why.empty() || best.why == "there is no superblock") {
			best.why = why;
		}
	}
	return best;
}

Result<std::unique_ptr<Region>> Region::format(std::span<const CatalogueCopy> copies, const Uuid &pool_uuid)
{
	if (copies.empty() || copies.size() > 2)
		return Error(Code::kFailure, "create catalogue", "", "it needs one or two copies");
	uint64_t len = copies[0].length;
	for (const CatalogueCopy &c : copies) {
		SV_TRY(check_place(c));
		if (c.length != len)
			return Error(Code::kFailure, "create", where(c), "the copies differ in length");
	}
	std::unique_ptr<Region> region(
		new Region(layout(len, static_cast<uint32_t>(copies.size()), pool_uuid), false));
	const uint64_t blocks = (region->now_.main_cap + region->now_.wal_cap) / kBlockSize;
	const uint64_t sums = (blocks + kSumsPerBlock - 1) / kSumsPerBlock * kSumsPerBlock;
	const Block zero{};
	for (uint32_t i = 0; i < copies.size(); i++) {
		for (uint64_t slot = 0; slot < 2; slot++)
			SV_TRY(copies[i].device->write(copies[i].offset + slot * kBlockSize, zero));
		SV_TRY(copies[i].device->sync());
		region->copies_.push_back({copies[i], i, true, 1, std::vector<uint32_t>(sums)});
	}
	SV_TRY(region->write_superblock(region->now_));
	return region;
}

// Which of the copies to believe: valid, in sync by its own word, and the newest.
static std::optional<size_t> choose(const std::vector<Candidate> &found)
{
	std::optional<size_t> best;
	for (size_t i = 0; i < found.size(); i++) {
		const auto &sb = found[i].sb;
		if (sb && (sb->in_sync >> sb->copy & 1) != 0 && (!best || sb->seq > found[*best].sb->seq))
			best = i;
	}
	return best;
}

Result<std::unique_ptr<Region>> Region::open(std::span<const CatalogueCopy> copies, const Uuid &pool_uuid,
					     const Catalogue::OpenOptions &options)
{
	std::vector<Candidate> found;
	std::string reasons;
	for (const CatalogueCopy &c : copies) {
		if (Status s = check_place(c); !s)
			found.push_back({std::nullopt, 0, false, s.error().cause});
		else
			found.push_back(read_superblock(c, pool_uuid, options.read_only));
		if (!found.back().sb)
			reasons += fmt::format("{}{}: {}", reasons.empty() ? "" : "; ", where(c), found.back().why);
	}
	const std::optional<size_t> best = choose(found);
	if (!best)
		return Error(Code::kNeedsCheck, "open catalogue", "",
			     reasons.empty() ? "no copy of it is up to date" : reasons, kCheckHint)
			.with(Id::kCatalogueDamaged);
	const RegionSuperblockDisk sb = *found[*best].sb;
	if ((sb.flags & kRegionReady) == 0)
		return Error(Code::kNeedsCheck, "open", where(copies[*best]), "its creation was interrupted",
			     "create the pool again");
	if (copies.size() < sb.copies && !options.allow_missing && (sb.in_sync & ~(1u << sb.copy)) != 0)
		return Error(Code::kNeedsCheck, "open catalogue", "", "one of its two copies is missing",
			     "bring the missing member back, or activate with --read-only --missing");
	if (copies.size() > sb.copies)
		return Error(Code::kNeedsCheck, "open catalogue", "",
			     fmt::format("{} copies were given, it has {}", copies.size(), sb.copies));
	if (copies.size() == 2 && found[0].sb && found[1].sb && found[0].sb->copy == found[1].sb->copy)
		return Error(Code::kNeedsCheck, "open catalogue", "", "both copies claim to be the same one",
			     "one of the devices is a clone of the other: detach it");

	std::unique_ptr<Region> region(new Region(sb, options.read_only));
	for (size_t i = 0; i < copies.size(); i++) {
		const uint32_t index = i == *best ? sb.copy : 1 - sb.copy;
		region->copies_.push_back({copies[i], index, i == *best, found[i].slot, {}});
	}
	SV_TRY(region->load_sums(region->copies_[*best]));
	for (size_t i = 0; i < copies.size(); i++) {
		if (i == *best)
			continue;
		Copy &other = region->copies_[i];
		const bool same = found[i].sb && found[i].sb->seq == sb.seq && (sb.in_sync >> other.index & 1) != 0;
		if (same && region->load_sums(other).ok()) {
			other.live = true;
		} else if (!options.read_only) {
			const log::Scope scope({"", "", copies[i].device->name()});
			log::warning(Id::kCatalogueCopyStale, "{} is out of date or damaged ({}): copying the other one to it",
				     where(copies[i]), found[i].sb ? "older" : found[i].why);
			SV_TRY(region->resync(region->copies_[*best], other));
		}
	}
	// Records that a missing copy is stale, and makes both slots of every superblock good again.
	const bool torn = std::any_of(found.begin(), found.end(), [](const Candidate &c) { return !c.both; });
	if (!options.read_only && (torn || copies.size() < sb.copies))
		SV_TRY(region->write_superblock(region->durable_));
	return region;
}

uint32_t Region::in_sync() const
{
	uint32_t mask = 0;
	for (size_t i = 0; i < copies_.size(); i++)
		mask |= copies_[i].live ? 1u << i : 0;
	return mask;
}

bool Region::any_live() const
{
	return std::any_of(copies_.begin(), copies_.end(), [](const Copy &c) { return c.live; });
}

Status Region::load_sums(Copy &copy)
{
	const uint64_t blocks = (now_.main_cap + now_.wal_cap) / kBlockSize;
	copy.sums.assign((blocks + kSumsPerBlock - 1) / kSumsPerBlock * kSumsPerBlock, 0);
	std::span<uint8_t> bytes(reinterpret_cast<uint8_t *>(copy.sums.data()), copy.sums.size() * sizeof(uint32_t));
	return copy.place.device->read(copy.place.offset + now_.sum_off, bytes);
}

bool Region::fits(const Copy &copy, uint64_t block, std::span<const uint8_t> data) const
{
	return copy.sums[block] == sv_crc32c(0, data.data(), data.size());
}

// ---- bringing a copy up to date ----

Status Region::copy_blocks(Copy &from, Copy &to, uint64_t first, uint64_t count)
{
	AlignedBuffer buffer(kRunBlocks * kBlockSize);
	for (uint64_t done = 0; done < count;) {
		const uint64_t n = std::min<uint64_t>(kRunBlocks, count - done);
		const std::span<uint8_t> data = buffer.span().first(n * kBlockSize);
		const uint64_t at = place_of(first + done);
		SV_TRY(from.place.device->read(from.place.offset + at, data));
		SV_TRY(to.place.device->write(to.place.offset + at, data));
		done += n;
	}
	return {};
}

// Blocks are copied as they are, with their checksums: a damaged one stays recognizable. A failure of the target
// leaves it out of sync; one of the source is an error.
Status Region::resync(Copy &from, Copy &to)
{
	to.sums = from.sums;
	const std::span<const uint8_t> sums(reinterpret_cast<const uint8_t *>(to.sums.data()),
					    to.sums.size() * sizeof(uint32_t));
	// Until all is copied the target must not look valid, whatever happens to the source meanwhile.
	const Block zero{};
	const log::Scope scope({"", "", to.place.device->name()});
	auto attempt = [&]() -> Status {
		for (uint64_t slot = 0; slot < 2; slot++)
			SV_TRY(to.place.device->write(to.place.offset + slot * kBlockSize, zero));
		SV_TRY(to.place.device->sync());
		SV_TRY(to.place.device->write(to.place.offset + now_.sum_off, sums));
		SV_TRY(copy_blocks(from, to, base(File::kMain), (now_.main_size + kBlockSize - 1) / kBlockSize));
		SV_TRY(copy_blocks(from, to, base(File::kWal), (now_.wal_size + kBlockSize - 1) / kBlockSize));
		return to.place.device->sync();
	};
	if (Status s = attempt(); !s)
		log::error(Id::kCatalogueCopyLost, "{} stays out of date: {}", where(to.place), s.error().message());
	else
		to.live = true;
	return write_superblock(durable_);
}

// ---- failing copies ----

// Records on the survivors that this copy is out of date [I32].
Status Region::drop(Copy &copy, const Error &why)
{
	copy.live = false;
	const log::Scope scope({"", "", copy.place.device->name()});
	log::error(Id::kCatalogueCopyLost, "{} failed and is no longer used: {}", where(copy.place), why.message());
	if (any_live())
		return write_superblock(durable_);
	failed_ = why;
	return Error(why).within("keep", "catalogue: its last copy failed");
}

template <typename Op>
Status Region::on_all(Op op)
{
	if (failed_)
		return Error(*failed_).within("use", "catalogue after its last copy failed");
	for (Copy &copy : copies_) {
		if (!copy.live)
			continue;
		const Status ignored = pace_->breathe();
		if (Status s = op(copy); !s)
			SV_TRY(drop(copy, s.error()));
	}
	return {};
}

// If a copy fails here, drop() writes a newer superblock to the survivor, with the same sizes.
Status Region::write_superblock(RegionSuperblockDisk next)
{
	next.in_sync = 0;
	for (const Copy &copy : copies_)
		next.in_sync |= copy.live ? 1u << copy.index : 0;
	next.seq = durable_.seq + 1;
	// Before it is written: should a copy fail, the next superblock must have a higher number and these sizes.
	durable_ = next;
	return on_all([this, next](Copy &copy) -> Status {
		RegionSuperblockDisk sb = next;
		if (durable_.seq != next.seq)
			return {};  // a newer one is written already
		sb.copy = copy.index;
		sb.crc = checksum(sb);
		for (const uint32_t slot : {1 - copy.good_slot, copy.good_slot}) {
			SV_TRY(copy.place.device->write(copy.place.offset + slot * kBlockSize, bytes_of(sb)));
			SV_TRY(copy.place.device->sync());
		}
		return {};
	});
}

// ---- reading ----

Status Region::damaged(uint64_t block) const
{
	const bool main = block < base(File::kWal);
	return Error(Code::kNeedsCheck, "read", "catalogue",
		     fmt::format("block {} of {} is damaged in every copy", main ? block : block - base(File::kWal),
				 main ? "the database" : "the WAL"),
		     kCheckHint).with(Id::kCatalogueDamaged);
}

void Region::repair(Copy &copy, uint64_t block, std::span<const uint8_t> data, const std::string &why)
{
	if (read_only_)
		return;
	const log::Scope scope({"", "", copy.place.device->name()});
	log::warning(Id::kCatalogueRepaired, "{}: repairing block {} from the other copy: {}", where(copy.place), block, why);
	copy.sums[block] = sv_crc32c(0, data.data(), data.size());
	dirty_sums_.insert(block / kSumsPerBlock);
	unsynced_ = true;
	if (Status s = copy.place.device->write(copy.place.offset + place_of(block), data); !s)
		if (Status d = drop(copy, s.error()); !d)
			log::error(d.error().id(), "{}", d.error().message());
}

static void tell_damaged(const CatalogueCopy &place, uint64_t block, const std::string &why)
{
	const log::Scope scope({"", "", place.device->name()});
	log::error(Id::kCatalogueDamaged, "{}: block {}: {}", where(place), block, why);
}

Status Region::read_block(uint64_t block, std::span<uint8_t> data, bool verify)
{
	std::vector<std::pair<Copy *, std::string>> bad;	// and why
	for (Copy &copy : copies_) {
		if (!copy.live)
			continue;
		Status s = copy.place.device->read(copy.place.offset + place_of(block), data);
		if (s.ok() && (!verify || fits(copy, block, data))) {
			for (const auto &[other, why] : bad) {
				repair(*other, block, data, why);
			}
			return {};
		}
		bad.emplace_back(&copy, s.ok() ? "its checksum is wrong" : s.error().message());
	}
	for (const auto &[copy, why] : bad)
		tell_damaged(copy->place, block, why);
	return damaged(block);
}

// Bad in every copy is no fault yet: after a crash the WAL may still hold the block. Reading it will tell.
void Region::scrub_block(uint64_t block)
{
	Block data;
	Block sound;
	bool found = false;
	std::vector<Copy *> bad;
	for (Copy &copy : copies_) {
		if (!copy.live)
			continue;
		if (copy.place.device->read(copy.place.offset + place_of(block), data).ok() && fits(copy, block, data)) {
			sound = data;
			found = true;
		} else {
			bad.push_back(&copy);
		}
	}
	for (Copy *copy : bad)
		if (found)
			repair(*copy, block, sound, "it cannot be read, or its checksum is wrong");
}

Status Region::scrub(Pace &pace)
{
	uint64_t done = 0;
	pace.begin({"reading the catalogue", 0, (size(File::kMain) + size(File::kWal)) / kBlockSize, "blocks"});
	for (const File file : {File::kMain, File::kWal})
		for (uint64_t at = 0; at < size(file); at += kBlockSize) {
			if (!dirty_.contains(base(file) + at / kBlockSize))
				scrub_block(base(file) + at / kBlockSize);
			SV_TRY(pace.step(++done));
		}
	return sync();
}

Status Region::read(File file, uint64_t offset, std::span<uint8_t> data, bool verify)
{
	if (failed_)
		return Error(*failed_).within("read", "catalogue after its last copy failed");
	Block whole;
	for (size_t done = 0; done < data.size();) {
		const uint64_t block = base(file) + (offset + done) / kBlockSize;
		const size_t in = (offset + done) % kBlockSize;
		const size_t n = std::min(data.size() - done, kBlockSize - in);
		const std::span<uint8_t> part = data.subspan(done, n);
		done += n;
		if (const auto dirty = dirty_.find(block); dirty != dirty_.end()) {
			memcpy(part.data(), dirty->second->data() + in, n);
			continue;
		}
		SV_TRY(read_block(block, whole, verify));
		memcpy(part.data(), whole.data() + in, n);
	}
	return {};
}

// ---- writing ----

Result<Region::Block *> Region::dirty_block(uint64_t block, bool keep_old)
{
	auto it = dirty_.find(block);
	if (it == dirty_.end()) {
		auto data = std::make_unique<Block>();
		if (keep_old)
			SV_TRY(read_block(block, *data, true));
		it = dirty_.emplace(block, std::move(data)).first;
	}
	return it->second.get();
}

// A file grows by a gap: what lies there must read as zeroes and fit its checksums.
Status Region::fill_gap(File file, uint64_t from, uint64_t to)
{
	for (uint64_t block = (from + kBlockSize - 1) / kBlockSize; block < (to + kBlockSize - 1) / kBlockSize; block++) {
		SV_ASSIGN(Block *data, dirty_block(base(file) + block, false));
		data->fill(0);
	}
	return {};
}

Status Region::write(File file, uint64_t offset, std::span<const uint8_t> data)
{
	if (failed_)
		return Error(*failed_).within("write", "catalogue after its last copy failed");
	if (offset > capacity(file) || data.size() > capacity(file) - offset)
		return Error(Code::kNoSpace, "write", "catalogue",
			     fmt::format("its region is full ({} bytes for {})", capacity(file),
					 file == File::kMain ? "the database" : "the WAL"),
			     "delete volumes that are not needed");
	if (offset > size(file))
		SV_TRY(truncate(file, offset));
	const uint64_t old_size = size(file);
	for (size_t done = 0; done < data.size();) {
		const uint64_t at = offset + done;
		const size_t in = at % kBlockSize;
		const size_t n = std::min(data.size() - done, kBlockSize - in);
		const bool keep_old = n < kBlockSize && at - in < old_size;
		SV_ASSIGN(Block *block, dirty_block(base(file) + at / kBlockSize, keep_old));
		memcpy(block->data() + in, data.data() + done, n);
		done += n;
	}
	uint64_t &logical = file == File::kMain ? now_.main_size : now_.wal_size;
	logical = std::max(logical, offset + data.size());
	unsynced_ = true;
	return read_only_ || dirty_.size() < kMaxDirty ? Status() : flush_blocks();
}

Status Region::truncate(File file, uint64_t size)
{
	uint64_t &logical = file == File::kMain ? now_.main_size : now_.wal_size;
	if (size > logical) {
		SV_TRY(fill_gap(file, logical, size));
	} else {
		const uint64_t keep = base(file) + (size + kBlockSize - 1) / kBlockSize;
		const uint64_t end = base(file) + capacity(file) / kBlockSize;
		dirty_.erase(dirty_.lower_bound(keep), dirty_.lower_bound(end));
	}
	unsynced_ = unsynced_ || size != logical;
	logical = size;
	return {};
}

Status Region::flush_run(uint64_t first, std::span<const uint8_t> data)
{
	const uint64_t blocks = data.size() / kBlockSize;
	for (uint64_t i = 0; i < blocks; i++) {
		const uint32_t sum = sv_crc32c(0, data.data() + i * kBlockSize, kBlockSize);
		for (Copy &copy : copies_)
			if (copy.live)
				copy.sums[first + i] = sum;
		dirty_sums_.insert((first + i) / kSumsPerBlock);
	}
	return on_all([&](Copy &copy) { return copy.place.device->write(copy.place.offset + place_of(first), data); });
}

Status Region::flush_blocks()
{
	if (dirty_.empty())
		return {};
	// Overwriting what a durable WAL holds: it must end before that first.
	const uint64_t wal = base(File::kWal);
	if (const auto it = dirty_.lower_bound(wal);
	    it != dirty_.end() && (it->first - wal) * kBlockSize < durable_.wal_size) {
		RegionSuperblockDisk shorter = durable_;
		shorter.wal_size = (it->first - wal) * kBlockSize;
		SV_TRY(write_superblock(shorter));
	}
	AlignedBuffer run(kRunBlocks * kBlockSize);
	for (auto it = dirty_.begin(); it != dirty_.end();) {
		const uint64_t first = it->first;
		uint64_t n = 0;
		for (; it != dirty_.end() && it->first == first + n && n < kRunBlocks; ++it, n++)
			memcpy(run.data() + n * kBlockSize, it->second->data(), kBlockSize);
		SV_TRY(flush_run(first, run.span().first(n * kBlockSize)));
	}
	dirty_.clear();
	return {};
}

Status Region::flush_sums()
{
	for (const uint64_t block : dirty_sums_) {
		SV_TRY(on_all([&](Copy &copy) {
			const std::span<const uint8_t> data(
				reinterpret_cast<const uint8_t *>(copy.sums.data() + block * kSumsPerBlock), kBlockSize);
			return copy.place.device->write(copy.place.offset + now_.sum_off + block * kBlockSize, data);
		}));
	}
	dirty_sums_.clear();
	return {};
}

Status Region::sync()
{
	if (failed_)
		return Error(*failed_).within("sync", "catalogue after its last copy failed");
	if (!unsynced_ || read_only_)
		return {};
	SV_TRY(flush_blocks());
	SV_TRY(flush_sums());
	SV_TRY(on_all([](Copy &copy) { return copy.place.device->sync(); }));
	if (now_.main_size != durable_.main_size || now_.wal_size != durable_.wal_size) {
		RegionSuperblockDisk next = durable_;
		next.main_size = now_.main_size;
		next.wal_size = now_.wal_size;
		SV_TRY(write_superblock(next));
	}
	unsynced_ = false;
	return {};
}

Status Region::set_ready()
{
	SV_TRY(sync());
	RegionSuperblockDisk next = durable_;
	next.flags |= kRegionReady;
	return write_superblock(next);
}

}  // namespace svd
