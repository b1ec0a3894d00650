// SPDX-License-Identifier: GPL-2.0
// daemon/base: sizes, UUIDs, errors, block files.
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "daemon/base/block_file.h"
#include "daemon/base/memory_device.h"
#include "daemon/base/units.h"
#include "daemon/base/uuid.h"

using namespace svd;

TEST(Codes, every_text_is_there_and_found_by_its_code)
{
	for (const svd::CodeText &text : svd::all_codes()) {
		EXPECT_EQ(svd::find_code(text.code), &text);
		EXPECT_EQ(&svd::code_text(text.id), &text);
		EXPECT_GT(std::string(text.explanation).size(), 20u) << text.code;
		EXPECT_GT(std::string(text.remedy).size(), 10u) << text.code;
	}
	EXPECT_EQ(svd::find_code("pool-full"), svd::find_code("SV-POOL-FULL"));
	EXPECT_EQ(svd::find_code("SV-NIX"), nullptr);
	EXPECT_EQ(svd::find_code(""), nullptr);
}

TEST(Codes, error_has_its_own_or_that_of_its_kind)
{
	const svd::Error busy(svd::Code::kBusy, "it is in use");
	EXPECT_EQ(busy.id(), svd::Id::kBusy);
	const svd::Error own = svd::Error(svd::Code::kBusy, "two").with(svd::Id::kMemberDuplicate).within("use", "tank");
	EXPECT_EQ(own.id(), svd::Id::kMemberDuplicate);
	EXPECT_EQ(own.code, svd::Code::kBusy);
}

TEST(Units, parses_binary_and_decimal_units)
{
	const std::pair<const char *, uint64_t> cases[] = {
		{"10G", 10 * kGiB},	{"10GiB", 10 * kGiB},	{"10GB", 10000000000ull}, {"10g", 10 * kGiB},
		{"1T", kTiB},		{"512K", 512 * kKiB},	{"3M", 3 * kMiB},	  {"1.5T", kTiB * 3 / 2},
		{"4096B", 4096},	{"1 TiB", kTiB},	{"2TB", 2000000000000ull}, {"0.5K", 512},
		{"7E", 7ull << 60},	{"9223372036854775807B", INT64_MAX},
	};
	for (const auto &[text, bytes] : cases) {
		auto r = parse_size(text);
		ASSERT_TRUE(r.ok()) << text << ": " << r.error().message();
		EXPECT_EQ(r->v, bytes) << text;
	}
}

TEST(Units, refuses_what_is_no_size)
{
	for (const char *text : {"", "10", "0G", "0.0K", "-1G", "-1", "G", "1.G", ".5G", "1.2.3G", "10X", "10GBB", "10 G B",
				 "8E", "9223372036854775808B", "99999999999999999999999999G", "0.3B", "1e3G", " 10G",
				 "1.1111111111111111111G", "10\xff"}) {
		auto r = parse_size(text);
		ASSERT_FALSE(r.ok()) << text;
		EXPECT_EQ(r.error().code, Code::kUsage);
		EXPECT_FALSE(r.error().hint.empty());
	}
}

TEST(Units, message_of_a_bare_number_says_what_to_write)
{
	EXPECT_EQ(parse_size("10").error().message(),
		  "cannot read size '10': it has no unit (write for example 10G or 10GiB for 10 * 2^30 bytes, 10GB for "
		  "10 * 10^9)");
}

TEST(Units, formats_sizes_rounded_down)
{
	EXPECT_EQ(format_size(Bytes(0)), "0 B");
	EXPECT_EQ(format_size(Bytes(1023)), "1023 B");
	EXPECT_EQ(format_size(Bytes(kTiB * 3 / 2)), "1.5 TiB");
	EXPECT_EQ(format_size(Bytes(10 * kGiB)), "10 GiB");
	EXPECT_EQ(format_size(Bytes(kGiB - 1)), "1023.99 MiB");
	EXPECT_EQ(format_size(Bytes(UINT64_MAX)), "15.99 EiB");
}

TEST(Units, what_is_formatted_whole_parses_back)
{
	for (uint64_t v = 1; v < uint64_t{1} << 62; v *= 2)
		EXPECT_EQ(parse_size(format_size(Bytes(v)))->v, v);
}

TEST(Uuid, text_and_back)
{
	const Uuid u = Uuid::random();
	EXPECT_EQ(*Uuid::parse(u.str()), u);
	EXPECT_EQ(u.str().size(), 36u);
	EXPECT_EQ(u.bytes[6] >> 4, 4);
	EXPECT_NE(Uuid::random(), u);
	EXPECT_EQ(Uuid::parse("01234567-89AB-cdef-0123-456789abcdef")->str(), "01234567-89ab-cdef-0123-456789abcdef");
	for (const char *bad : {"", "01234567", "01234567-89ab-cdef-0123-456789abcdeg", "0123456789abcdef0123456789abcdef0000",
				"01234567-89ab-cdef-0123-456789abcdef0"})
		EXPECT_FALSE(Uuid::parse(bad).ok()) << bad;
}

TEST(Error, keeps_code_and_hint_within_an_outer_one)
{
	Error inner(Code::kNoSpace, "write", "/dev/x", "it is full", "delete something");
	const Error outer = std::move(inner).within("create volume", "tank/a");
	EXPECT_EQ(outer.message(), "cannot create volume tank/a: cannot write /dev/x: it is full (delete something)");
	EXPECT_EQ(outer.exit_code(), 6);
	EXPECT_EQ(Error(Code::kBusy, "plain").message(), "plain");
	for (const auto &[error, code] : {std::pair(EACCES, Code::kPermission), {ENOENT, Code::kNotFound}, {ENOTDIR, Code::kNotFound},
					  {ELOOP, Code::kUsage}, {ENAMETOOLONG, Code::kUsage}, {EIO, Code::kFailure}})
		EXPECT_EQ(errno_error(error, "open", "x").code, code) << strerror(error);
}

TEST(BlockFile, reads_what_was_written_and_refuses_ranges)
{
	const std::string path = std::filesystem::temp_directory_path() / ("svctl-test-base-" + std::to_string(getpid()));
	std::ofstream(path).close();
	std::filesystem::resize_file(path, 64 * kBlockSize);
	{
		auto file = BlockFile::open(path, BlockFile::Mode::kExclusive);
		ASSERT_TRUE(file.ok()) << file.error().message();
		BlockDevice &d = **file;
		EXPECT_EQ(d.size(), 64 * kBlockSize);
		std::vector<uint8_t> data(3 * kBlockSize + 1, 0x5a), back(3 * kBlockSize + 1);
		// Unaligned memory on purpose.
		const std::span<uint8_t> from = std::span(data).subspan(1), to = std::span(back).subspan(1);
		ASSERT_TRUE(d.write(kBlockSize, from).ok());
		ASSERT_TRUE(d.sync().ok());
		ASSERT_TRUE(d.read(kBlockSize, to).ok());
		EXPECT_TRUE(std::equal(from.begin(), from.end(), to.begin()));
		EXPECT_FALSE(d.read(62 * kBlockSize, to).ok());
		EXPECT_FALSE(d.read(~0ull << 12, to).ok());
		EXPECT_FALSE(d.write(1, from).ok());
	}
	std::filesystem::remove(path);
	EXPECT_EQ(BlockFile::open(path, BlockFile::Mode::kReadOnly).error().code, Code::kNotFound);
	EXPECT_FALSE(BlockFile::open("/dev/null", BlockFile::Mode::kReadOnly).ok());
}

TEST(MemoryDevice, crash_keeps_what_was_synced_and_may_lose_the_rest)
{
	const std::vector<uint8_t> one(kBlockSize, 1), two(kBlockSize, 2);
	bool kept = false, lost = false, torn = false;
	for (uint64_t seed = 0; seed < 64; seed++) {
		MemoryDevice d("mem", 4 * kBlockSize);
		ASSERT_TRUE(d.write(0, one).ok());
		ASSERT_TRUE(d.sync().ok());
		ASSERT_TRUE(d.write(0, two).ok());
		d.crash(seed);
		std::vector<uint8_t> back(kBlockSize);
		ASSERT_TRUE(d.read(0, back).ok());
		const auto twos = std::count(back.begin(), back.end(), 2);
		ASSERT_EQ(std::count(back.begin(), back.end(), 1) + twos, static_cast<long>(kBlockSize));
		(twos == 0 ? lost : twos == kBlockSize ? kept : torn) = true;
	}
	EXPECT_TRUE(kept && lost && torn);
}
