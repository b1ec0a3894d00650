// SPDX-License-Identifier: GPL-2.0
// The functions that SQLite calls. Each translates one call to Region and an Error to an SQLite code.
#include "daemon/catalogue/vfs.h"

#include <fmt/format.h>
#include <sqlite3.h>

#include <atomic>
#include <cstring>
#include <new>

namespace svd {

namespace {

struct RawFile {
	sqlite3_file base;  // must be first
	RegionVfs *vfs;
	Region::File which;
};

RawFile &raw(sqlite3_file *f) { return *reinterpret_cast<RawFile *>(f); }

int code_of(RawFile &f, const Status &s, int io_code)
{
	if (s)
		return SQLITE_OK;
	f.vfs->set_error(s.error());
	switch (s.error().code) {
	case Code::kNoSpace:
		return SQLITE_FULL;
	case Code::kNeedsCheck:
		return SQLITE_IOERR_CORRUPTFS;
	default:
		return io_code;
	}
}

int raw_close(sqlite3_file *) { return SQLITE_OK; }

int raw_read(sqlite3_file *file, void *data, int bytes, sqlite3_int64 offset)
{
	RawFile &f = raw(file);
	Region &region = f.vfs->region();
	const uint64_t at = static_cast<uint64_t>(offset);
	const uint64_t size = region.size(f.which);
	const size_t want = static_cast<size_t>(bytes);
	const size_t have = at >= size ? 0 : std::min<uint64_t>(want, size - at);
	// Before SQLite has recovered the WAL it reads the first 100 bytes of the database for the page size. A crash
	// in a checkpoint may have torn that page; its content is in the WAL, and a sector of it is old or new.
	const bool verify = f.which == Region::File::kWal || want >= kBlockSize;
	std::span<uint8_t> out(static_cast<uint8_t *>(data), want);
	if (Status s = region.read(f.which, at, out.first(have), verify); !s)
		return code_of(f, s, SQLITE_IOERR_READ);
	if (have == want)
		return SQLITE_OK;
	memset(out.data() + have, 0, want - have);
	return SQLITE_IOERR_SHORT_READ;
}

int raw_write(sqlite3_file *file, const void *data, int bytes, sqlite3_int64 offset)
{
	RawFile &f = raw(file);
	const std::span<const uint8_t> in(static_cast<const uint8_t *>(data), static_cast<size_t>(bytes));
	return code_of(f, f.vfs->region().write(f.which, static_cast<uint64_t>(offset), in), SQLITE_IOERR_WRITE);
}

int raw_truncate(sqlite3_file *file, sqlite3_int64 size)
{
	RawFile &f = raw(file);
	return code_of(f, f.vfs->region().truncate(f.which, static_cast<uint64_t>(size)), SQLITE_IOERR_TRUNCATE);
}

int raw_sync(sqlite3_file *file, int)
{
	RawFile &f = raw(file);
	return code_of(f, f.vfs->region().sync(), SQLITE_IOERR_FSYNC);
}

int raw_size(sqlite3_file *file, sqlite3_int64 *size)
{
	RawFile &f = raw(file);
	*size = static_cast<sqlite3_int64>(f.vfs->region().size(f.which));
	return SQLITE_OK;
}

// The pool's members are locked (BlockFile), and one thread uses a catalogue: there is nobody to lock out.
int raw_lock(sqlite3_file *, int) { return SQLITE_OK; }
int raw_reserved(sqlite3_file *, int *held)
{
	*held = 0;
	return SQLITE_OK;
}
int raw_control(sqlite3_file *, int, void *) { return SQLITE_NOTFOUND; }
int raw_sector(sqlite3_file *) { return static_cast<int>(kBlockSize); }
int raw_characteristics(sqlite3_file *) { return 0; }

const sqlite3_io_methods *methods()
{
	static const sqlite3_io_methods m = [] {
		sqlite3_io_methods v = {};
		v.iVersion = 1;
		v.xClose = raw_close;
		v.xRead = raw_read;
		v.xWrite = raw_write;
		v.xTruncate = raw_truncate;
		v.xSync = raw_sync;
		v.xFileSize = raw_size;
		v.xLock = raw_lock;
		v.xUnlock = raw_lock;
		v.xCheckReservedLock = raw_reserved;
		v.xFileControl = raw_control;
		v.xSectorSize = raw_sector;
		v.xDeviceCharacteristics = raw_characteristics;
		return v;
	}();
	return &m;
}

RegionVfs &owner(sqlite3_vfs *v) { return *static_cast<RegionVfs *>(v->pAppData); }

std::optional<Region::File> file_named(const char *name)
{
	if (name && strcmp(name, "main.db") == 0)
		return Region::File::kMain;
	if (name && strcmp(name, "main.db-wal") == 0)
		return Region::File::kWal;
	return std::nullopt;
}

int vfs_open(sqlite3_vfs *v, const char *name, sqlite3_file *file, int flags, int *out_flags)
{
	file->pMethods = nullptr;
	const std::optional<Region::File> which = file_named(name);
	if (!which)
		return SQLITE_CANTOPEN;
	RawFile *f = new (file) RawFile{};  // in SQLite's memory
	f->base.pMethods = methods();
	f->vfs = &owner(v);
	f->which = *which;
	if (out_flags)
		*out_flags = flags;
	return SQLITE_OK;
}

int vfs_delete(sqlite3_vfs *v, const char *name, int)
{
	const std::optional<Region::File> which = file_named(name);
	if (!which)
		return SQLITE_IOERR_DELETE_NOENT;
	Region &region = owner(v).region();
	if (Status s = region.truncate(*which, 0); !s) {
		owner(v).set_error(s.error());
		return SQLITE_IOERR_DELETE;
	}
	return SQLITE_OK;
}

int vfs_access(sqlite3_vfs *v, const char *name, int, int *out)
{
	const std::optional<Region::File> which = file_named(name);
	*out = which && owner(v).region().size(*which) > 0;
	return SQLITE_OK;
}

int vfs_full_path(sqlite3_vfs *, const char *name, int room, char *out)
{
	sqlite3_snprintf(room, out, "%s", name);
	return SQLITE_OK;
}

}  // namespace

RegionVfs::RegionVfs(Region &region) : region_(region)
{
	static std::atomic<unsigned> next{0};
	name_ = fmt::format("svraw-{}", next++);
	const sqlite3_vfs *os = sqlite3_vfs_find(nullptr);
	vfs_ = std::make_unique<sqlite3_vfs>(*os);  // randomness, sleep and time are the system's
	vfs_->iVersion = 1;
	vfs_->szOsFile = sizeof(RawFile);
	vfs_->pNext = nullptr;
	vfs_->zName = name_.c_str();
	vfs_->pAppData = this;
	vfs_->xOpen = vfs_open;
	vfs_->xDelete = vfs_delete;
	vfs_->xAccess = vfs_access;
	vfs_->xFullPathname = vfs_full_path;
	vfs_->xDlOpen = nullptr;
	vfs_->xDlError = nullptr;
	vfs_->xDlSym = nullptr;
	vfs_->xDlClose = nullptr;
	sqlite3_vfs_register(vfs_.get(), 0);
}

RegionVfs::~RegionVfs() { sqlite3_vfs_unregister(vfs_.get()); }

std::optional<Error> RegionVfs::take_error() { return std::exchange(error_, std::nullopt); }

}  // namespace svd
