// SPDX-License-Identifier: GPL-2.0
// Small looks into /sys, /proc and directories that change meanwhile. Nothing throws: what cannot be read is not there.
#pragma once

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace svd {

inline std::string first_line(const std::filesystem::path &path)
{
	std::string line;
	std::ifstream file(path);
	std::getline(file, line);
	return line;
}

// Sorted.
inline std::vector<std::filesystem::path> entries(const std::filesystem::path &directory)
{
	std::error_code error;
	std::vector<std::filesystem::path> all;
	for (std::filesystem::directory_iterator i(directory, error), end; !error && i != end; i.increment(error))
		all.push_back(i->path());
	std::sort(all.begin(), all.end());
	return all;
}

}	// namespace svd
