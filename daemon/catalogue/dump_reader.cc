// SPDX-License-Identifier: GPL-2.0
// Words and numbers of text that may be anything.
#include "daemon/catalogue/dump_reader.h"

#include <fmt/format.h>

#include <charconv>
#include <istream>

#include "daemon/catalogue/dump.h"

namespace svd {

Error DumpReader::bad(uint64_t line, std::string cause)
{
	return Error(Code::kUsage, "restore", fmt::format("line {}", line), std::move(cause),
		     "nothing was restored; the line must be as svctl dump writes it");
}

Result<bool> DumpReader::next()
{
	while (std::getline(in_, text_)) {
		line_++;
		if (in_.eof())	// half a line may read as a whole one
			return bad("it does not end with a newline: the text was cut off");
		read_ += text_.size() + 1;
		SV_TRY(pace_.step(read_));
		rest_ = text_;
		if (!more() || text_[0] == '#')
			continue;
		if (header_)
			return true;
		if (rest_ != kDumpHeader)
			return bad(fmt::format("a dump begins with '{}'", kDumpHeader));
		header_ = true;
	}
	if (in_.bad() || !header_)
		return bad("the dump is empty or cannot be read");
	return false;
}

bool DumpReader::more() const { return rest_.find_first_not_of(" \r") != std::string_view::npos; }

bool DumpReader::next_is(std::string_view word) const
{
	DumpReader ahead(*this);
	const auto next = ahead.word();
	return next.ok() && next.value() == word;
}

Result<std::string_view> DumpReader::word()
{
	if (!more())
		return bad("it ends too early");
	rest_.remove_prefix(rest_.find_first_not_of(" \r"));
	const size_t n = std::min(rest_.find_first_of(" \r"), rest_.size());
	const std::string_view w = rest_.substr(0, n);
	rest_.remove_prefix(n);
	return w;
}

Result<uint64_t> DumpReader::number(uint64_t max)
{
	SV_ASSIGN(const std::string_view w, word());
	uint64_t v = 0;
	const auto [end, ec] = std::from_chars(w.data(), w.data() + w.size(), v);
	if (ec != std::errc() || end != w.data() + w.size() || v > max)
		return bad(fmt::format("'{}' is not a number from 0 to {}", w.substr(0, 40), max));
	return v;
}

Result<uint32_t> DumpReader::number32(uint32_t max)
{
	SV_ASSIGN(const uint64_t v, number(max));
	return static_cast<uint32_t>(v);
}

}  // namespace svd
