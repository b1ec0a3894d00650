// SPDX-License-Identifier: GPL-2.0
// See mounts.h.
#include "daemon/base/mounts.h"

#include <map>
#include <sstream>

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "daemon/base/files.h"

namespace svd {

namespace fs = std::filesystem;

std::string unescaped(const std::string &text)
{
	std::string out;
	for (size_t i = 0; i < text.size(); i++) {
		const auto octal = [&](size_t k) { return text[i + k] >= '0' && text[i + k] <= '7'; };
		if (text[i] == '\\' && i + 3 < text.size() && octal(1) && octal(2) && octal(3)) {
			out += static_cast<char>(std::stoi(text.substr(i + 1, 3), nullptr, 8));
			i += 3;
		} else {
			out += text[i];
		}
	}
	return out;
}

// A line: id, parent, device, root, mount point, options, optional fields, "-", type, source, options.
std::vector<Mount> read_mounts(std::istream &mountinfo)
{
	std::vector<Mount> all;
	for (std::string line; std::getline(mountinfo, line);) {
		std::istringstream fields(line);
		std::string parent, directory, word, type;
		Mount mount;
		fields >> mount.id >> parent >> mount.number >> directory >> mount.path;
		while (fields >> word && word != "-")
			;
		if (!(fields >> type >> mount.source))
			continue;
		mount.path = unescaped(mount.path);
		mount.source = unescaped(mount.source);
		all.push_back(std::move(mount));
	}
	return all;
}

// By which it may have been opened.
static std::set<std::string> names_of(const fs::path &sysfs)
{
	std::set<std::string> names = {"/dev/" + sysfs.filename().string()};
	if (const std::string mapped = first_line(sysfs / "dm/name"); !mapped.empty())
		names.insert("/dev/mapper/" + mapped);
	return names;
}

static void add_upon(const fs::path &link, const fs::path &root, std::set<std::string> &all)
{
	std::error_code ignored;
	const fs::path sysfs = fs::canonical(link, ignored);
	const std::string number = first_line(sysfs / "dev");
	if (number.empty() || !all.insert(number).second)
		return;
	for (const fs::path &holder : entries(sysfs / "holders"))
		add_upon(holder, root, all);
	for (const fs::path &part : entries(sysfs))
		if (fs::exists(part / "partition", ignored))
			add_upon(part, root, all);
	const std::set<std::string> names = names_of(sysfs);	// a loop device is no holder
	for (const fs::path &loop : entries(root / "sys/block"))
		if (loop.filename().string().starts_with("loop") && names.contains(first_line(loop / "loop/backing_file")))
			add_upon(loop, root, all);
}

std::set<std::string> devices_upon(const std::string &number, const fs::path &root)
{
	std::set<std::string> all;
	add_upon(root / "sys/dev/block" / number, root, all);
	return all;
}

static bool is_named(const std::set<std::string> &devices, const std::set<std::string> &names, const std::string &source)
{
	struct stat st {};
	return names.contains(source) || (stat(source.c_str(), &st) == 0 && S_ISBLK(st.st_mode) &&
					  devices.contains(std::to_string(major(st.st_rdev)) + ":" + std::to_string(minor(st.st_rdev))));
}

std::vector<FileSystem> file_systems_on(const std::set<std::string> &devices, const std::vector<Mount> &mounts, const fs::path &root)
{
	std::set<std::string> names;
	for (const std::string &number : devices) {
		std::error_code ignored;
		names.merge(names_of(fs::canonical(root / "sys/dev/block" / number, ignored)));
	}
	std::map<std::string, FileSystem> found;
	for (const Mount &mount : mounts)
		if (devices.contains(mount.number) || (mount.number.starts_with("0:") && is_named(devices, names, mount.source)))
			found[mount.number].push_back(mount);
	std::vector<FileSystem> all;
	for (auto &[number, one] : found)
		all.push_back(std::move(one));
	return all;
}

}	// namespace svd
