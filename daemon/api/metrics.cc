// SPDX-License-Identifier: GPL-2.0
// See metrics.h. The tables are what is exported; a family's samples stand together, as the format wants it.
#include "daemon/api/metrics.h"

#include <algorithm>
#include <bit>
#include <fstream>
#include <initializer_list>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include "daemon/base/log.h"

namespace svd {

namespace {

// Exact for integers.
struct Number {
	Number(uint64_t value) : text(fmt::format("{}", value)) {}
	Number(uint32_t value) : text(fmt::format("{}", value)) {}
	Number(bool value) : text(value ? "1" : "0") {}
	Number(double value) : text(fmt::format("{}", value)) {}
	std::string text;
};
using Value = std::optional<Number>;	// nothing: there is no such sample
using Labels = std::initializer_list<std::pair<const char *, std::string>>;

template <typename... Of> struct Metric {
	const char *name;
	const char *type;
	const char *help;
	Value (*value)(const Of &...);
};

class Page {
public:
	void family(const char *name, const char *type, const char *help)
	{
		name_ = name;
		fmt::format_to(std::back_inserter(text_), "# HELP {0} {1}\n# TYPE {0} {2}\n", name, help, type);
	}

	void sample(Labels labels, const Value &value, const char *suffix = "")
	{
		if (!value)
			return;
		text_ += name_;
		text_ += suffix;
		char before = '{';
		for (const auto &[key, text] : labels) {
			fmt::format_to(std::back_inserter(text_), "{}{}=\"{}\"", before, key, label_value(text));
			before = ',';
		}
		fmt::format_to(std::back_inserter(text_), "{}{}\n", labels.size() > 0 ? "} " : " ", value->text);
	}

	template <typename Metrics, typename Samples> void families(const Metrics &metrics, Samples samples)
	{
		for (const auto &metric : metrics) {
			family(metric.name, metric.type, metric.help);
			samples(metric.value);
		}
	}

	std::string take() { return std::move(text_); }

private:
	std::string name_;
	std::string text_;
};

// How long a valid character of UTF-8 is that begins here; 0: there is none.
size_t character_at(const std::string &text, size_t at)
{
	const auto byte = [&](size_t i) { return static_cast<unsigned char>(at + i < text.size() ? text[at + i] : 0); };
	const auto follows = [&](size_t i) { return (byte(i) & 0xc0) == 0x80; };
	if (byte(0) < 0x80)
		return 1;
	if (byte(0) >= 0xc2 && byte(0) < 0xe0)
		return follows(1) ? 2 : 0;
	if (byte(0) >= 0xe0 && byte(0) < 0xf0) {
		const bool overlong = byte(0) == 0xe0 && byte(1) < 0xa0;
		const bool surrogate = byte(0) == 0xed && byte(1) >= 0xa0;
		return follows(1) && follows(2) && !overlong && !surrogate ? 3 : 0;
	}
	const bool out_of_range = (byte(0) == 0xf0 && byte(1) < 0x90) || (byte(0) == 0xf4 && byte(1) >= 0x90);
	return byte(0) >= 0xf0 && byte(0) < 0xf5 && follows(1) && follows(2) && follows(3) && !out_of_range ? 4 : 0;
}

// ---- svd ----

constexpr Metric<SelfFacts> kSelf[] = {
	{"svctl_clients", "gauge", "Clients that are connected to svd's Varlink socket.",
	 [](const SelfFacts &s) -> Value { return s.clients; }},
	{"svctl_jobs", "gauge", "Jobs that run: activation, import, check, dump, show-space, restore.", [](const SelfFacts &s) -> Value { return s.jobs; }},
	{"svctl_log_lines_dropped_total", "counter", "Lines of svd's log that nobody took in time.",
	 [](const SelfFacts &s) -> Value { return s.dropped_lines; }},
	{"process_resident_memory_bytes", "gauge", "Memory of svd that is resident.",
	 [](const SelfFacts &s) -> Value { return s.resident; }},
	{"process_cpu_seconds_total", "counter", "CPU time that svd has used, user and system.",
	 [](const SelfFacts &s) -> Value { return s.cpu_seconds; }},
};

// ---- pools ----

constexpr const char *kStates[] = {"active", "read-only", "down", "activating", "restoring", "exported", "foreign"};
constexpr const char *kModes[] = {"write", "out-of-space", "read-only", "fail"};	// enum sv_mode

constexpr Metric<PoolFacts> kPools[] = {
	{"svctl_pool_members", "gauge", "Members that the pool has by its labels.",
	 [](const PoolFacts &p) -> Value { return p.nr_members; }},
	{"svctl_pool_missing_members", "gauge", "Those of them that no device was found for.",
	 [](const PoolFacts &p) -> Value { return p.missing; }},
	{"svctl_pool_size_bytes", "gauge", "Space for data on the members that are there.",
	 [](const PoolFacts &p) -> Value { return p.size; }},
	{"svctl_pool_seconds_to_full", "gauge", "When the pool will be full, if it goes on as in the last two hours, and as in the last quarter of an hour, "
	 "whichever is slower. None while it does not grow, or is known for less than an hour.",
	 [](const PoolFacts &p) -> Value { return p.seconds_to_full ? Value(*p.seconds_to_full) : Value(); }},
	{"svctl_checkpoints_total", "counter", "Checkpoints that were done.",
	 [](const PoolFacts &p) -> Value { return p.checkpoints.done; }},
	{"svctl_checkpoint_failures_total", "counter", "Checkpoints that failed.",
	 [](const PoolFacts &p) -> Value { return p.checkpoints.failed; }},
	{"svctl_checkpoint_seconds_total", "counter", "Time that all checkpoints took.",
	 [](const PoolFacts &p) -> Value { return p.checkpoints.seconds; }},
	{"svctl_checkpoint_last_duration_seconds", "gauge", "Time that the last checkpoint took that was done.",
	 [](const PoolFacts &p) -> Value { return p.checkpoints.done > 0 ? Value(p.checkpoints.last_seconds) : Value(); }},
	{"svctl_checkpoint_last_success_timestamp_seconds", "gauge", "When the last checkpoint was done, since 1970.",
	 [](const PoolFacts &p) -> Value {
		 return p.checkpoints.done > 0 ? Value(static_cast<uint64_t>(p.checkpoints.last)) : Value(); }},
};

// While the kernel has the pool.
constexpr Metric<PoolFacts, sv_state> kServed[] = {
	{"svctl_pool_used_bytes", "gauge", "Space that is taken.", [](const PoolFacts &p, const sv_state &s) -> Value {
		 return p.size - std::min(p.size, uint64_t{s.free_slots} << SV_EXTENT_SHIFT); }},
	{"svctl_pool_free_bytes", "gauge", "Space that writes may take.",
	 [](const PoolFacts &, const sv_state &s) -> Value { return uint64_t{s.free_slots} << SV_EXTENT_SHIFT; }},
	{"svctl_pool_freed_extents", "gauge", "Extents that were freed and wait for a checkpoint to be free space.",
	 [](const PoolFacts &, const sv_state &s) -> Value { return uint64_t{s.freed_extents}; }},
	{"svctl_pool_partial_extents", "gauge", "Extents of which some blocks were written and others not.",
	 [](const PoolFacts &, const sv_state &s) -> Value { return uint64_t{s.partials}; }},
	{"svctl_pool_kernel_memory_bytes", "gauge", "Kernel memory for map, extents and bitmaps.",
	 [](const PoolFacts &, const sv_state &s) -> Value { return uint64_t{s.memory}; }},
	{"svctl_journal_size_bytes", "gauge", "Size of the journal's ring.",
	 [](const PoolFacts &, const sv_state &s) -> Value { return uint64_t{s.ring_bytes}; }},
	{"svctl_journal_used_bytes", "gauge", "What of the ring is in use, with what is reserved.",
	 [](const PoolFacts &, const sv_state &s) -> Value { return uint64_t{s.ring_used}; }},
	{"svctl_journal_reserved_bytes", "gauge", "What of the ring is reserved for records to come.",
	 [](const PoolFacts &, const sv_state &s) -> Value { return uint64_t{s.ring_reserved}; }},
	{"svctl_journal_commits_total", "counter", "Batches that were committed to the journal.",
	 [](const PoolFacts &, const sv_state &s) -> Value { return uint64_t{s.commits}; }},
	{"svctl_journal_records_total", "counter", "Records in them.",
	 [](const PoolFacts &, const sv_state &s) -> Value { return uint64_t{s.records}; }},
	{"svctl_journal_written_bytes_total", "counter", "Bytes of them, for one copy.",
	 [](const PoolFacts &, const sv_state &s) -> Value { return uint64_t{s.journal_bytes}; }},
};

constexpr Metric<CatalogueSpace> kCatalogues[] = {
	{"svctl_catalogue_size_bytes", "gauge", "Room for the catalogue.",
	 [](const CatalogueSpace &c) -> Value { return c.size; }},
	{"svctl_catalogue_used_bytes", "gauge", "What of it is used.",
	 [](const CatalogueSpace &c) -> Value { return c.used; }},
};

void add_states(Page &page, const EngineFacts &engine)
{
	page.family("svctl_pool_info", "gauge", "1 for each pool, with its UUID.");
	for (const PoolFacts &pool : engine.pools)
		page.sample({{"pool", pool.name}, {"uuid", pool.uuid}}, Number(true));
	page.family("svctl_pool_state", "gauge", "1 for the state that the pool is in, 0 for the others.");
	for (const PoolFacts &pool : engine.pools)
		for (const char *state : kStates)
			page.sample({{"pool", pool.name}, {"state", state}}, Number(pool.state == state));
	page.family("svctl_pool_mode", "gauge", "1 for the mode that the kernel has the pool in, 0 for the others.");
	for (const PoolFacts &pool : engine.pools)
		for (size_t i = 0; pool.kernel && i < std::size(kModes); i++)
			page.sample({{"pool", pool.name}, {"mode", kModes[i]}}, Number(pool.kernel->mode == i));
}

void add_pools(Page &page, const EngineFacts &engine)
{
	add_states(page, engine);
	page.families(kPools, [&](auto value) {
		for (const PoolFacts &pool : engine.pools)
			page.sample({{"pool", pool.name}}, value(pool));
	});
	page.families(kServed, [&](auto value) {
		for (const PoolFacts &pool : engine.pools)
			if (pool.kernel)
				page.sample({{"pool", pool.name}}, value(pool, *pool.kernel));
	});
	page.families(kCatalogues, [&](auto value) {
		for (const PoolFacts &pool : engine.pools)
			if (pool.catalogue)
				page.sample({{"pool", pool.name}}, value(*pool.catalogue));
	});
}

// ---- tiers, members, volumes ----

struct TierFacts {
	uint64_t members = 0;
	uint64_t size = 0;
	uint64_t free = 0;
	bool up = false;
};

constexpr Metric<TierFacts> kTiers[] = {
	{"svctl_tier_members", "gauge", "Members of the tier that are there.",
	 [](const TierFacts &t) -> Value { return t.members; }},
	{"svctl_tier_size_bytes", "gauge", "Their space for data.", [](const TierFacts &t) -> Value { return t.size; }},
	{"svctl_tier_used_bytes", "gauge", "What of it is taken.",
	 [](const TierFacts &t) -> Value { return t.up ? Value(t.size - t.free) : Value(); }},
	{"svctl_tier_free_bytes", "gauge", "What of it is free.",
	 [](const TierFacts &t) -> Value { return t.up ? Value(t.free) : Value(); }},
};

constexpr Metric<PoolFacts, MemberFacts> kMembers[] = {
	{"svctl_member_present", "gauge", "1 if the member's device is there, 0 if the pool is up without it.",
	 [](const PoolFacts &, const MemberFacts &m) -> Value { return m.present; }},
	{"svctl_member_size_bytes", "gauge", "Space for data on the member.",
	 [](const PoolFacts &, const MemberFacts &m) -> Value { return m.size; }},
	{"svctl_member_free_bytes", "gauge", "What of it is free.", [](const PoolFacts &p, const MemberFacts &m) -> Value {
		 return p.kernel && m.present ? Value(m.free) : Value(); }},
	{"svctl_member_errors_total", "counter", "Reads, writes and flushes of the member that failed, since the pool is up.",
	 [](const PoolFacts &p, const MemberFacts &m) -> Value { return p.kernel && m.present ? Value(m.errors) : Value(); }},
	{"svctl_member_journal_copy", "gauge", "1: the member's copy of the journal is written; 0: it was lost. None without "
	 "a copy.",
	 [](const PoolFacts &p, const MemberFacts &m) -> Value {
		 return p.kernel && m.journal ? Value(!m.journal_lost) : Value(); }},
	{"svctl_member_catalogue_copy", "gauge", "1: the member's copy of the catalogue is in use; 0: it was lost. None "
	 "without a copy.",
	 [](const PoolFacts &p, const MemberFacts &m) -> Value {
		 return p.kernel && m.catalogue ? Value(!m.catalogue_lost) : Value(); }},
};

constexpr Metric<VolumeFacts> kVolumes[] = {
	{"svctl_volume_size_bytes", "gauge", "Size of the volume.", [](const VolumeFacts &v) -> Value { return v.size; }},
	{"svctl_volume_mapped_bytes", "gauge", "Extents of it that are mapped, 1 MiB each; those that only small writes were made to take less.",
	 [](const VolumeFacts &v) -> Value { return v.mapped; }},
	{"svctl_volume_unreadable_extents", "gauge", "Extents of it that lie on missing members.",
	 [](const VolumeFacts &v) -> Value { return v.unreadable; }},
};

void add_tiers(Page &page, const EngineFacts &engine)
{
	std::map<std::pair<std::string, std::string>, TierFacts> tiers;
	for (const PoolFacts &pool : engine.pools)
		for (const MemberFacts &member : pool.members) {
			TierFacts &tier = tiers[{pool.name, member.tier}];
			tier.up = pool.kernel.has_value();
			tier.members += member.present ? 1 : 0;
			tier.size += member.present ? member.size : 0;
			tier.free += member.free;
		}
	page.families(kTiers, [&](auto value) {
		for (const auto &[name, tier] : tiers)
			page.sample({{"pool", name.first}, {"tier", name.second}}, value(tier));
	});
}

void add_members(Page &page, const EngineFacts &engine)
{
	page.families(kMembers, [&](auto value) {
		for (const PoolFacts &pool : engine.pools)
			for (const MemberFacts &member : pool.members)
				page.sample({{"pool", pool.name}, {"tier", member.tier}, {"member", fmt::format("{}", member.index)},
					     {"device", member.device}}, value(pool, member));
	});
}

void add_volumes(Page &page, const EngineFacts &engine)
{
	page.families(kVolumes, [&](auto value) {
		for (const PoolFacts &pool : engine.pools)
			for (const VolumeFacts &volume : pool.volumes)
				page.sample({{"pool", pool.name}, {"volume", volume.name}}, value(volume));
	});
}

// ---- latency ----

constexpr double kSecond = 1e9;		// ns

// The kernel's buckets are halves of powers of two: what is exported are powers of four, from 4 us to 69 s.
bool is_exported(uint64_t end)
{
	return std::has_single_bit(end) && std::countr_zero(end) % 2 == 0 && end >= 4096;
}

void add_histogram(Page &page, const std::string &pool, const std::string &volume, const sv_histogram &h)
{
	const std::string op = io_class_name(h.io_class);
	uint64_t seen = 0;
	for (uint32_t i = 0; i < SV_HISTOGRAM_BUCKETS; i++) {
		seen += h.buckets[i];
		if (const auto end = bucket_end(i); end && is_exported(*end))
			page.sample({{"pool", pool}, {"volume", volume}, {"op", op},
				     {"le", fmt::format("{}", static_cast<double>(*end) / kSecond)}}, Number(seen), "_bucket");
	}
	page.sample({{"pool", pool}, {"volume", volume}, {"op", op}, {"le", "+Inf"}}, Number(seen), "_bucket");
	page.sample({{"pool", pool}, {"volume", volume}, {"op", op}}, Number(static_cast<double>(h.ns) / kSecond), "_sum");
	page.sample({{"pool", pool}, {"volume", volume}, {"op", op}}, Number(seen), "_count");
}

// What there was of one class of I/O of a volume, of all tiers.
struct ClassFacts {
	const std::string &pool;
	const std::string &volume;
	sv_histogram total;
};

std::vector<ClassFacts> used_classes(const EngineFacts &engine)
{
	std::vector<ClassFacts> all;
	for (const PoolFacts &pool : engine.pools)
		for (const VolumeFacts &volume : pool.volumes)
			for (uint32_t c = 0; volume.latency && c < SV_IO_CLASSES; c++)
				if (const sv_histogram total = volume.latency->total(static_cast<sv_io_class>(c)); total.ios > 0)
					all.push_back({pool.name, volume.name, total});
	return all;
}

constexpr Metric<sv_histogram> kIo[] = {
	{"svctl_volume_io_bytes_total", "counter", "Bytes of I/O of the volume that went well.",
	 [](const sv_histogram &h) -> Value { return uint64_t{h.bytes}; }},
	{"svctl_volume_io_errors_total", "counter", "I/O of the volume that failed.",
	 [](const sv_histogram &h) -> Value { return uint64_t{h.errors}; }},
};

void add_latency(Page &page, const EngineFacts &engine)
{
	const std::vector<ClassFacts> classes = used_classes(engine);
	page.family("svctl_volume_io_duration_seconds", "histogram", "How long I/O of the volume took, as its users see it.");
	for (const ClassFacts &one : classes)
		add_histogram(page, one.pool, one.volume, one.total);
	page.families(kIo, [&](auto value) {
		for (const ClassFacts &one : classes)
			page.sample({{"pool", one.pool}, {"volume", one.volume}, {"op", io_class_name(one.total.io_class)}},
				    value(one.total));
	});
}

// ---- problems ----

void add_problems(Page &page, const EngineFacts &engine)
{
	std::map<Severity, uint64_t> counts;
	std::set<std::string> told;	// what has the same labels is one sample
	page.family("svctl_problem", "gauge", "1 for each code, pool, volume and device that svctl status names.");
	for (const Problem &problem : engine.problems) {
		const CodeText &code = code_text(problem.id);
		counts[code.severity]++;
		if (told.insert(fmt::format("{}\n{}\n{}\n{}", code.code, problem.pool, problem.volume, problem.device)).second)
			page.sample({{"code", code.code}, {"severity", severity_name(code.severity)}, {"pool", problem.pool},
				     {"volume", problem.volume}, {"device", problem.device}}, Number(true));
	}
	page.family("svctl_problems", "gauge", "Problems that svctl status names.");
	for (const Severity severity : {Severity::kInfo, Severity::kWarning, Severity::kCritical})
		page.sample({{"severity", severity_name(severity)}}, Number(counts[severity]));
}

}	// namespace

std::string label_value(const std::string &text)
{
	std::string out;
	for (size_t at = 0; at < text.size();) {
		const size_t length = character_at(text, at);
		if (length == 0)
			out += '?';
		else if (text[at] == '\n')
			out += "\\n";
		else if (text[at] == '"' || text[at] == '\\')
			out += {'\\', text[at]};
		else
			out += text.substr(at, length);
		at += std::max<size_t>(length, 1);
	}
	return out;
}

SelfFacts self_facts()
{
	SelfFacts self;
	self.dropped_lines = log::dropped();
	uint64_t pages = 0;
	std::ifstream("/proc/self/statm") >> pages >> pages;
	self.resident = pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
	rusage used{};
	getrusage(RUSAGE_SELF, &used);
	self.cpu_seconds = static_cast<double>(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
			   static_cast<double>(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
	return self;
}

std::string metrics_text(const EngineFacts &engine, const SelfFacts &self)
{
	Page page;
	page.family("svctl_build_info", "gauge", "1, with the version of svd.");
	page.sample({{"version", self.version}}, Number(true));
	page.families(kSelf, [&](auto value) { page.sample({}, value(self)); });
	add_problems(page, engine);
	add_pools(page, engine);
	add_tiers(page, engine);
	add_members(page, engine);
	add_volumes(page, engine);
	if (engine.latency)
		add_latency(page, engine);
	return page.take();
}

}	// namespace svd
