// SPDX-License-Identifier: GPL-2.0
// The words of a dump, line by line. An error names the line that it is about.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <string_view>

#include "daemon/base/pace.h"
#include "daemon/base/result.h"

namespace svd {

class DumpReader {
 public:
	DumpReader(std::istream &in, Pace &pace) : in_(in), pace_(pace) {}

	// The next line that has an item, behind the header; false behind the last one. Its steps count bytes.
	Result<bool> next();
	bool more() const;  // words in this line
	bool next_is(std::string_view word) const;
	Result<std::string_view> word();
	Result<uint64_t> number(uint64_t max);
	Result<uint32_t> number32(uint32_t max);
	uint64_t line() const { return line_; }
	Error bad(std::string cause) const { return bad(line_, std::move(cause)); }
	static Error bad(uint64_t line, std::string cause);

 private:
	std::istream &in_;
	Pace &pace_;
	uint64_t read_ = 0;  // bytes
	std::string text_;
	std::string_view rest_;
	uint64_t line_ = 0;
	bool header_ = false;
};

}  // namespace svd
