// SPDX-License-Identifier: GPL-2.0
// The text of dump.cc becomes a catalogue again. Each line is checked as it comes; the first bad one refuses all of it.
#include <fmt/format.h>

#include <charconv>
#include <istream>

#include "daemon/catalogue/catalogue_impl.h"
#include "daemon/catalogue/dump.h"
#include "daemon/catalogue/layers.h"

namespace svd {

namespace {

class Restorer {
 public:
	Restorer(Catalogue &catalogue, Database &db, std::istream &in, Pace &pace)
		: catalogue_(catalogue), db_(db), pages_(db, pace), in_(in), pace_(pace)
	{
	}
	Status run();

 private:
	Status check_target();
	Status line();
	Status pool();
	Status journal();
	Status next();
	Status member();
	Status volume();
	Status map();
	Status hole();
	Status partial();
	Status end();
	Status claim_slots(uint64_t member, uint64_t first, uint64_t count);
	Status claim_indexes(const VolumeRow &v, uint64_t index, uint64_t count);
	Result<const VolumeRow *> volume_of(uint64_t id);
	Result<std::string_view> word();
	Result<uint64_t> number(uint64_t max);
	bool more();
	Error bad(std::string cause) const;

	Catalogue &catalogue_;
	Database &db_;
	PageStore pages_;
	std::istream &in_;
	Pace &pace_;
	uint64_t read_ = 0;  // bytes
	std::string text_;
	std::string_view rest_;
	uint64_t line_ = 0;
	bool end_ = false;
	std::vector<MemberRow> members_;
	std::vector<std::vector<bool>> used_;  // slots, by member
	std::unordered_map<uint64_t, VolumeRow> volumes_;
	uint64_t next_extent_ = 1;
	uint64_t next_volume_ = 1;
	uint64_t next_layer_ = 1;
};

Error Restorer::bad(std::string cause) const
{
	return Error(Code::kUsage, "restore", fmt::format("line {}", line_), std::move(cause),
		     "nothing was restored; the line must be as svctl dump writes it");
}

bool Restorer::more() { return rest_.find_first_not_of(" \r") != std::string_view::npos; }

Result<std::string_view> Restorer::word()
{
	if (!more())
		return bad("it ends too early");
	rest_.remove_prefix(rest_.find_first_not_of(" \r"));
	const size_t n = std::min(rest_.find_first_of(" \r"), rest_.size());
	const std::string_view w = rest_.substr(0, n);
	rest_.remove_prefix(n);
	return w;
}

Result<uint64_t> Restorer::number(uint64_t max)
{
	SV_ASSIGN(const std::string_view w, word());
	uint64_t v = 0;
	const auto [end, ec] = std::from_chars(w.data(), w.data() + w.size(), v);
	if (ec != std::errc() || end != w.data() + w.size() || v > max)
		return bad(fmt::format("'{}' is not a number from 0 to {}", w.substr(0, 40), max));
	return v;
}

Status Restorer::check_target()
{
	SV_ASSIGN(const uint64_t volumes, db_.number("SELECT count(*) FROM volumes"));
	SV_ASSIGN(const uint64_t pages, db_.number("SELECT count(*) FROM extent_pages"));
	if (volumes != 0 || pages != 0)
		return Error(Code::kBusy, "restore", "pool", "it already has volumes", "restore into a new pool");
	SV_ASSIGN(members_, catalogue_.members());
	for (const MemberRow &m : members_)
		used_.emplace_back(m.nr_slots);
	return {};
}

// Only the policies come from the text: name, uuid and incarnation belong to this pool.
Status Restorer::pool()
{
	SV_ASSIGN(PoolRow p, catalogue_.pool());
	SV_TRY(word());
	SV_TRY(word());
	SV_TRY(number(~0ull));
	SV_TRY(number(~0ull));
	SV_TRY(number(~0ull));
	SV_ASSIGN(const uint64_t no_space, number(UINT32_MAX));
	SV_ASSIGN(const uint64_t commit, number(UINT32_MAX));
	p.no_space_ms = static_cast<uint32_t>(no_space);
	p.commit_ms = static_cast<uint32_t>(commit);
	p.pass_discards = false;
	if (more()) {
		SV_ASSIGN(const std::string_view discard, word());
		if (discard != "pass")
			return bad(fmt::format("'{}' is not 'pass', which may stand there", discard.substr(0, 20)));
		p.pass_discards = true;
	}
	return catalogue_.set_pool(p);
}

// Means something only for the ring that it was written about, and only forward: what lies before this catalogue's own
// position was trimmed, and must not be applied to what is restored.
Status Restorer::journal()
{
	SV_ASSIGN(const PoolRow p, catalogue_.pool());
	SV_ASSIGN(const uint64_t incarnation, number(~0ull));
	SV_ASSIGN(const uint64_t seq, number(~0ull));
	SV_ASSIGN(const uint64_t off, number(~0ull));
	SV_ASSIGN(const uint64_t crc, number(UINT32_MAX));
	SV_ASSIGN(const sv_ring_cursor now, catalogue_.applied());
	if (incarnation != p.incarnation || seq < now.seq)
		return {};
	SV_ASSIGN(Query q, db_.query("UPDATE pool SET applied_seq = ?, applied_off = ?, applied_crc = ?"));
	return q.bind(seq).bind(off).bind(crc).run();
}

Status Restorer::next()
{
	SV_ASSIGN(const uint64_t volume, number(SV_VOLUME_ID_MAX + 1ull));
	SV_ASSIGN(const uint64_t layer, number(kTombstone));
	next_volume_ = std::max(next_volume_, volume);
	next_layer_ = std::max(next_layer_, layer);
	return {};
}

Status Restorer::member()
{
	SV_ASSIGN(const uint64_t index, number(SV_MAX_MEMBERS - 1));
	SV_TRY(word());
	SV_TRY(number(SV_MAX_TIERS - 1));
	SV_TRY(word());
	SV_ASSIGN(const uint64_t slots, number(SV_MAX_SLOTS));
	SV_TRY(number(UINT32_MAX));
	if (index >= members_.size())
		return bad(fmt::format("this pool has no member {}", index));
	if (slots > members_[index].nr_slots)
		return bad(fmt::format("member {} has {} slots here, {} are needed", index, members_[index].nr_slots,
				       slots));
	return {};
}

Status Restorer::volume()
{
	VolumeRow v;
	SV_ASSIGN(const uint64_t id, number(SV_VOLUME_ID_MAX));
	SV_ASSIGN(const std::string_view name, word());
	v.name = name;
	SV_ASSIGN(v.size, number(INT64_MAX));
	SV_ASSIGN(const std::string_view state, word());
	SV_ASSIGN(const uint64_t layer, number(kTombstone - 1));
	SV_ASSIGN(const uint64_t owned, number(layer));
	SV_ASSIGN(v.created, number(~0ull));
	SV_ASSIGN(const uint64_t flags, number(UINT32_MAX));
	SV_ASSIGN(v.tiers, number(~0ull));
	if (more()) {
		SV_ASSIGN(const std::string_view manual, word());
		if (manual != "manual")
			return bad(fmt::format("'{}' is not 'manual', which may stand there", manual.substr(0, 20)));
		v.autoactivate = v.active = false;
	}
	if (Status s = check_volume_name(v.name); !s)
		return bad(s.error().message());
	if (id == 0 || layer == 0 || v.size == 0 || v.size % SV_BLOCK_SIZE != 0 ||
	    extents_in(v.size) > uint64_t{1} << SV_INDEX_BITS)
		return bad("number, layer or size are out of range");
	if (state != "active" && state != "deleting")
		return bad(fmt::format("'{}' is no state of a volume", state.substr(0, 20)));
	v.id = static_cast<uint32_t>(id);
	v.state = state == "active" ? VolumeState::kActive : VolumeState::kDeleting;
	v.layer = static_cast<uint32_t>(layer);
	v.owned_since = static_cast<uint32_t>(owned);
	v.flags = static_cast<uint32_t>(flags);
	SV_ASSIGN(Query q, db_.query("INSERT INTO volumes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"));
	Status s = insert_layer(db_, {v.layer, v.id, 0, 0});
	if (s)
		s = q.bind(v.id).bind(std::string_view(v.name)).bind(v.size).bind(static_cast<uint64_t>(v.state))
			    .bind(v.layer).bind(v.owned_since).bind(v.created).bind(v.flags).bind(v.tiers)
			    .bind(v.autoactivate).bind(v.active).run();
	if (!s && s.error().code == Code::kBusy)
		return bad("its number, name or layer is already used");
	SV_TRY(std::move(s));
	next_volume_ = std::max<uint64_t>(next_volume_, id + 1);
	next_layer_ = std::max<uint64_t>(next_layer_, layer + 1);
	volumes_[id] = std::move(v);
	return {};
}

Result<const VolumeRow *> Restorer::volume_of(uint64_t id)
{
	const auto v = volumes_.find(id);
	if (v == volumes_.end())
		return bad(fmt::format("there is no line before it for volume {}", id));
	return &v->second;
}

Status Restorer::claim_slots(uint64_t member, uint64_t first, uint64_t count)
{
	if (member >= used_.size() || first > used_[member].size() || count > used_[member].size() - first)
		return bad(fmt::format("this pool has no such slots of member {}", member));
	for (uint64_t slot = first; slot < first + count; slot++) {
		if (used_[member][slot])
			return bad(fmt::format("slot {} of member {} is used twice", slot, member));
		used_[member][slot] = true;
	}
	return {};
}

Status Restorer::claim_indexes(const VolumeRow &v, uint64_t index, uint64_t count)
{
	const uint64_t extents = extents_in(v.size);
	if (count == 0 || index > extents || count > extents - index)
		return bad(fmt::format("volume {} ends at index {}", v.id, extents));
	return {};
}

Status Restorer::map()
{
	SV_ASSIGN(const uint64_t id, number(SV_VOLUME_ID_MAX));
	SV_ASSIGN(const uint64_t index, number(~0ull));
	SV_ASSIGN(const uint64_t count, number(UINT32_MAX));
	SV_ASSIGN(const uint64_t member, number(SV_MAX_MEMBERS - 1));
	SV_ASSIGN(const uint64_t slot, number(SV_MAX_SLOTS));
	uint64_t extent = next_extent_;
	uint64_t gen = 1;
	if (more()) {
		SV_ASSIGN(extent, number(kTombstone - 1));
		SV_ASSIGN(gen, number(UINT16_MAX));
	}
	SV_ASSIGN(const VolumeRow *v, volume_of(id));
	SV_TRY(claim_indexes(*v, index, count));
	SV_TRY(claim_slots(member, slot, count));
	if (extent == 0 || extent + count > kTombstone)
		return bad("its extent numbers are out of range");
	for (uint64_t i = 0; i < count; i++) {
		if (i % kEntriesOfPage == kEntriesOfPage - 1)	// a line may stand for very many
			SV_TRY(pace_.breathe());
		SV_TRY(pages_.relieve());
		const auto number = static_cast<uint32_t>(extent + i);
		SV_ASSIGN(uint32_t *mapped, pages_.map_entry(v->layer, index + i, true));
		SV_ASSIGN(ExtentEntry *entry, pages_.extent(number, true));
		if (*mapped != 0 || entry->live())
			return bad(fmt::format("index {} or extent {} is mapped twice", index + i, number));
		*mapped = number;
		*entry = {static_cast<uint32_t>(slot + i), static_cast<uint16_t>(gen), static_cast<uint8_t>(member),
			  ExtentEntry::kLive};
	}
	next_extent_ = std::max(next_extent_, extent + count);
	return {};
}

Status Restorer::hole()
{
	SV_ASSIGN(const uint64_t id, number(SV_VOLUME_ID_MAX));
	SV_ASSIGN(const uint64_t index, number(~0ull));
	SV_ASSIGN(const uint64_t count, number(~0ull));
	SV_ASSIGN(const VolumeRow *v, volume_of(id));
	SV_TRY(claim_indexes(*v, index, count));
	for (uint64_t i = 0; i < count; i++) {
		if (i % kEntriesOfPage == kEntriesOfPage - 1)	// a line may stand for very many
			SV_TRY(pace_.breathe());
		SV_TRY(pages_.relieve());
		SV_ASSIGN(uint32_t *mapped, pages_.map_entry(v->layer, index + i, true));
		if (*mapped != 0)
			return bad(fmt::format("index {} is mapped too", index + i));
		*mapped = kTombstone;
	}
	return {};
}

Status Restorer::partial()
{
	SV_ASSIGN(const uint64_t extent, number(kTombstone - 1));
	SV_ASSIGN(const std::string_view hex, word());
	Partial partial;
	ValidBits &bits = partial.valid;
	if (hex.size() != 64)
		return bad("its valid bits are not 64 hexadecimal digits");
	for (size_t w = 0; w < 4; w++) {
		const char *p = hex.data() + (3 - w) * 16;
		const auto [end, ec] = std::from_chars(p, p + 16, bits.word[w], 16);
		if (ec != std::errc() || end != p + 16)
			return bad("its valid bits are not 64 hexadecimal digits");
	}
	SV_TRY(pages_.relieve());
	SV_ASSIGN(ExtentEntry *entry, pages_.extent(static_cast<uint32_t>(extent), true));
	if (!entry->live() || entry->partial() || bits.all())
		return bad(fmt::format("extent {} is not mapped, or named twice, or not partial", extent));
	entry->flags |= ExtentEntry::kPartial;
	pages_.set_partial(static_cast<uint32_t>(extent), partial);
	return {};
}

Status Restorer::end()
{
	end_ = true;
	return {};
}

Status Restorer::line()
{
	if (end_)
		return bad("it stands behind the line 'end'");
	SV_ASSIGN(const std::string_view what, word());
	Status s = what == "map"       ? map()
		   : what == "partial" ? partial()
		   : what == "hole"    ? hole()
		   : what == "volume"  ? volume()
		   : what == "member"  ? member()
		   : what == "pool"    ? pool()
		   : what == "journal" ? journal()
		   : what == "next"    ? next()
		   : what == "end"     ? end()
				       : Status(bad(fmt::format("'{}' is no item of a dump", what.substr(0, 40))));
	if (s && more())
		return bad("it has too many words");
	return s;
}

Status Restorer::run()
{
	SV_TRY(check_target());
	bool header = false;
	while (std::getline(in_, text_)) {
		line_++;
		if (in_.eof())	// half a line may read as a whole one
			return bad("it does not end with a newline: the text was cut off");
		read_ += text_.size() + 1;
		SV_TRY(pace_.step(read_));
		rest_ = text_;
		if (!more() || text_[0] == '#')
			continue;
		if (!header && rest_ != kDumpHeader)
			return bad(fmt::format("a dump begins with '{}'", kDumpHeader));
		if (header)
			SV_TRY(line());
		header = true;
	}
	if (in_.bad() || !header)
		return bad("the dump is empty or cannot be read");
	if (!end_)
		return bad("no line 'end' follows it: the text was cut off");
	SV_TRY(pages_.flush());
	SV_ASSIGN(Query q, db_.query("UPDATE pool SET next_volume = ?, next_layer = ?"));
	return q.bind(next_volume_).bind(next_layer_).run();
}

}  // namespace

Status Catalogue::restore(std::istream &in, Pace &pace)
{
	ToTheEnd paced(pace);
	const PacedRegion region(impl_->db->region(), paced);
	return impl_->large_transaction([&] { return Restorer(*this, *impl_->db, in, pace).run(); });
}

}  // namespace svd
