// SPDX-License-Identifier: GPL-2.0
// The catalogue's raw region: two small "files", the main database and its WAL, on one or two copies of a region of
// a member. Owns the region's format (docs/format-catalogue.md), the mirroring, and the checksum of every block.
// Called by the VFS only.
//
// What is durable when:
// - Writes are gathered in memory. sync() writes them and their checksums to every copy, syncs the copies, and then,
//   if a size changed, writes a superblock and syncs again. Only what lies below the superblock's sizes exists after
//   a crash, so a WAL never has a torn tail: all of it is sound, or the region is damaged.
// - A block of the WAL below the durable size is overwritten only after a superblock with a smaller size is durable.
// - Blocks of the main database are overwritten only while the WAL holds their new content (SQLite's checkpoint),
//   until sync() has made block and checksum durable. So a block that does not fit its checksum, and that is read,
//   is damage: the other copy answers and repairs it.
// - Opened read-only nothing is written: what changes stays in memory and is lost at the end, as if it had been synced
//   to a copy of the region. So recovery can apply the journal of a pool that must not be touched.
// - A copy that fails is recorded as out of sync on the survivor before the operation that met the failure returns
//   [I32]. When no copy is left, every later operation fails.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "daemon/base/block_file.h"
#include "daemon/base/result.h"
#include "daemon/base/uuid.h"
#include "daemon/catalogue/catalogue.h"

namespace svd {

inline constexpr char kRegionMagic[9] = "svcatlg\n";
inline constexpr uint32_t kRegionVersion = 1;
inline constexpr uint32_t kRegionReady = 1u << 0;  // flags: the database in it is complete
inline constexpr uint64_t kRegionMin = 1u << 20;
inline constexpr uint64_t kRegionHeadBlocks = 16;  // superblock slots 0 and 1, the rest reserved

// In two slots of 4 KiB. An update writes one, syncs, writes the other, syncs: a torn write leaves the previous
// superblock, and damage to one slot later leaves the other. Little-endian; crc over the 4 KiB with crc zero.
struct RegionSuperblockDisk {
	uint8_t magic[8];
	uint32_t version;
	uint32_t crc;
	uint64_t compat;
	uint64_t ro_compat;
	uint64_t incompat;
	uint8_t pool_uuid[16];
	uint64_t seq;         // the highest valid one counts
	uint64_t region_len;  // bytes
	uint64_t sum_off;     // checksums: one CRC32C (le32) for each block of main, then of WAL
	uint64_t main_off;
	uint64_t main_cap;
	uint64_t wal_off;
	uint64_t wal_cap;
	uint64_t main_size;  // logical sizes in bytes
	uint64_t wal_size;
	uint32_t copies;   // 1 or 2
	uint32_t copy;     // which one this is
	uint32_t in_sync;  // bit mask of copies that hold what this superblock describes
	uint32_t flags;    // kRegion*
	uint8_t reserved[3952];
};
static_assert(sizeof(RegionSuperblockDisk) == kBlockSize);
static_assert(offsetof(RegionSuperblockDisk, seq) == 56);
static_assert(offsetof(RegionSuperblockDisk, in_sync) == 136);

class Region {
 public:
	enum class File { kMain, kWal };

	static Result<std::unique_ptr<Region>> format(std::span<const CatalogueCopy> copies, const Uuid &pool_uuid);
	static Result<std::unique_ptr<Region>> open(std::span<const CatalogueCopy> copies, const Uuid &pool_uuid,
						    const Catalogue::OpenOptions &options);

	uint64_t size(File file) const { return file == File::kMain ? now_.main_size : now_.wal_size; }
	uint64_t capacity(File file) const { return file == File::kMain ? now_.main_cap : now_.wal_cap; }
	uint64_t length() const { return now_.region_len; }
	bool read_only() const { return read_only_; }
	uint32_t in_sync() const;  // mask of the copies as given

	// Kept between transfers from now on, also within SQLite's calls: nobody else may use this catalogue then. A
	// transfer itself comes to its end.
	void set_pace(Pace &pace) { pace_ = &pace; }

	// offset + data within size(). verify false: also returns blocks that do not fit their checksum.
	Status read(File file, uint64_t offset, std::span<uint8_t> data, bool verify = true);
	Status write(File file, uint64_t offset, std::span<const uint8_t> data);  // kNoSpace behind the capacity
	Status truncate(File file, uint64_t size);
	Status sync();
	Status set_ready();
	Status scrub(Pace &pace);  // reads every block of every copy, and repairs what the other copy has sound

 private:
	using Block = std::array<uint8_t, kBlockSize>;

	struct Copy {
		CatalogueCopy place;
		uint32_t index = 0;  // in the superblock's masks
		bool live = false;
		uint32_t good_slot = 1;      // superblock slot that is valid: the other is written first
		std::vector<uint32_t> sums;  // by block of main and WAL; a multiple of kSumsPerBlock
	};

	Region(const RegionSuperblockDisk &sb, bool read_only) : durable_(sb), now_(sb), read_only_(read_only) {}

	uint64_t base(File file) const { return file == File::kMain ? 0 : now_.main_cap / kBlockSize; }
	uint64_t place_of(uint64_t block) const { return now_.main_off + block * kBlockSize; }
	bool any_live() const;
	Status damaged(uint64_t block) const;

	Status load_sums(Copy &copy);
	Status resync(Copy &from, Copy &to);
	Status copy_blocks(Copy &from, Copy &to, uint64_t first, uint64_t count);
	bool fits(const Copy &copy, uint64_t block, std::span<const uint8_t> data) const;
	Status read_block(uint64_t block, std::span<uint8_t> data, bool verify);
	void scrub_block(uint64_t block);
	void repair(Copy &copy, uint64_t block, std::span<const uint8_t> data, const std::string &why);
	Result<Block *> dirty_block(uint64_t block, bool keep_old);
	Status fill_gap(File file, uint64_t from, uint64_t to);

	template <typename Op>
	Status on_all(Op op);  // on each live copy; drops those that fail
	Status drop(Copy &copy, const Error &why);
	Status flush_blocks();
	Status flush_run(uint64_t first, std::span<const uint8_t> data);
	Status flush_sums();
	Status write_superblock(RegionSuperblockDisk next);

	std::vector<Copy> copies_;
	RegionSuperblockDisk durable_;  // as on the copies
	RegionSuperblockDisk now_;      // with the sizes that readers see
	std::map<uint64_t, std::unique_ptr<Block>> dirty_;
	std::set<uint64_t> dirty_sums_;  // blocks of the checksum area
	bool unsynced_ = false;
	bool read_only_;
	std::optional<Error> failed_;
	Pace *pace_ = &NoPace::instance();
};

}  // namespace svd
