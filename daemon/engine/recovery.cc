// SPDX-License-Identifier: GPL-2.0
// Bringing a pool up: open members and catalogue, apply what the journal has beyond the catalogue, and load the
// kernel; or, where the kernel still serves the pool after svd died, only catch up with it.
#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fmt/core.h>

#include "daemon/base/log.h"
#include "daemon/catalogue/map_sources.h"
#include "daemon/catalogue/used_slots.h"
#include "daemon/engine/pool.h"
#include "daemon/kernel/dm_kernel.h"
#include "daemon/kernel/probe.h"

namespace svd {

namespace {

constexpr auto kTryEvery = std::chrono::seconds(5);

struct CopyState {
	uint32_t member = 0;
	uint64_t last_seq = 0;
	uint64_t later_seq = 0;		// behind damage
	bool torn = false;
	int error = 0;
	const char *why = "";
};

// How far one copy of the journal goes behind what is applied.
CopyState survey(uint32_t member, RingReader reader, const sv_ring_cursor &applied)
{
	CopyState copy;
	copy.member = member;
	sv_ring_cursor cursor = applied;
	const void *batch = nullptr;
	do
		copy.last_seq = cursor.seq;
	while ((copy.error = reader.next(&cursor, &batch, &copy.why)) > 0);
	copy.torn = reader.torn();
	copy.later_seq = reader.later_seq();
	if (copy.error != 0 || copy.last_seq > applied.seq)
		return copy;
	const int held = reader.holds(applied, &copy.why);
	if (held == 0)
		copy.why = "it is lost: even the last batch that the catalogue has of it is gone";
	copy.error = held == 0 ? -EBADMSG : std::min(held, 0);
	return copy;
}

// Makes the batch on the other copy the same, if it is not. [I19]
Status mirror_batch(BlockFile &to, const sv_label &label, const void *batch)
{
	const uint64_t offset = label.ring_off + le64_to_cpu(static_cast<const sv_batch_disk *>(batch)->offset);
	const std::span<const uint8_t> bytes(static_cast<const uint8_t *>(batch), sv_batch_len(batch));
	AlignedBuffer there(bytes.size());
	if (to.read(offset, there.span()).ok() && std::memcmp(there.data(), bytes.data(), bytes.size()) == 0)
		return {};
	return to.write(offset, bytes);
}

}	// namespace

Status Pool::activate(How how, Pace &pace)
{
	if (up())
		return {};
	tried_ = Clock::now();
	tried_with_ = members_.size();
	pace_ = &pace;
	if (down())
		state_ = PoolState::kActivating;
	const log::Scope scope({name_});
	Status result = bring_up(how);
	pace_ = &NoPace::instance();
	set_problem(result, Id::kActivationFailed);
	if (!result.ok()) {
		take_back_devices();
		close_all();
		return result;
	}
	state_ = read_only_ ? PoolState::kReadOnly : PoolState::kActive;
	last_checkpoint_ = Clock::now();
	catalogue_->release_memory();
	log::notice("pool {} is up{}", name_, read_only_ ? ", read-only" : "");
	return {};
}

bool Pool::worth_a_try(Clock::time_point now) const
{
	return members_.size() != tried_with_ || now - tried_ >= kTryEvery;
}

// Of a pool that did not come up nothing stays behind that would hold its members.
void Pool::take_back_devices()
{
	if (!channel_ || !made_device_)
		return;
	const auto all = devices();
	note(all.ok() ? remove_devices(all.value()) : all.error());
}

std::string Pool::missing_list() const
{
	std::string list;
	for (const uint32_t member : missing())
		list += (list.empty() ? "" : "; ") + missing_text(member);
	return list;
}

const MemberRow *Pool::missing_row(uint32_t index) const
{
	const auto row = known_.find(index);
	return row == known_.end() ? nullptr : &row->second;
}

std::string Pool::last_path(uint32_t index) const
{
	const auto path = last_paths_.find(index);
	if (path == last_paths_.end() || access(path->second.c_str(), F_OK) == 0)
		return "";	// what is there now is another one
	return path->second;
}

std::string Pool::missing_text(uint32_t index) const
{
	std::string known;
	if (const MemberRow *const row = missing_row(index))
		known = fmt::format("tier {}, UUID {}", row->tier_name, row->uuid.str());
	if (const auto path = last_paths_.find(index); path != last_paths_.end())
		known += fmt::format("{}last seen as {}{}", known.empty() ? "" : ", ", path->second,
				     last_path(index).empty() ? ", where no label of it can be read now" : "");
	return fmt::format("member {} of {} is missing{}", index, nr_members(), known.empty() ? "" : " (" + known + ")");
}

// The labels of the others do not tell of them. Where the catalogue cannot be read, nothing is known, and whoever brings the
// pool up is told why.
void Pool::learn_of_missing()
{
	const std::vector<uint32_t> gone = missing();
	if (std::all_of(gone.begin(), gone.end(), [this](uint32_t index) { return known_.contains(index); }))
		return;
	std::ignore = look_into_catalogue(true, [this]() -> Status {
		SV_ASSIGN(const auto rows, catalogue_->members());
		for (const MemberRow &row : rows)
			known_[row.member] = row;
		return {};
	});
}

Status Pool::look_into_catalogue(bool allow_missing, const std::function<Status()> &look)
{
	read_only_ = true;
	const PoolState state = state_;		// down, or being brought up: others look at that meanwhile
	Status done = open_members();
	if (done.ok())
		done = open_catalogue(allow_missing);
	if (done.ok())
		done = look();
	close_all();
	state_ = state;
	return done;
}

// Read-write only with all members [I33].
Status Pool::refuse_missing() const
{
	const std::string list = missing_list();
	if (list.empty())
		return {};
	return Error{Code::kNotFound, "activate pool", name_, list,
		     fmt::format("attach it, then: svctl activate {0}; to read what is there: svctl activate {0} --read-only "
				 "--missing", name_)}.with(Id::kMemberMissing);
}

Status Pool::refuse_activation(How how)
{
	SV_TRY(kernel_.probe());
	SV_ASSIGN(const RunningPool running, kernel_.running(uuid_));
	learn_of_missing();
	return refuse_activation(how, running);
}

Status Pool::refuse_activation(How how, const RunningPool &running) const
{
	if (!conflict_.empty())
		return Error{Code::kBusy, "activate pool", name_, conflict_, "take one of them away"}.with(Id::kMemberDuplicate);
	if (running.exists && how.read_only && !running.read_only)
		return Error{Code::kBusy, "activate pool", name_, "the kernel serves it, and writes to it", "svctl activate " + name_};
	if (!how.missing && !running.read_only)
		SV_TRY(refuse_missing());
	for (const auto &[index, member] : members_) {
		if (sv_label_read_only(&member.label) && !how.read_only && !running.read_only)
			return Error{Code::kMissingFeature, "activate pool", name_,
				     member.path + " was written by a newer version that this one may only read",
				     "svctl activate " + name_ + " --read-only"};
		if (member.label_state == LabelState::kFrontBad)
			SV_TRY(refuse_reused(member));
	}
	return {};
}

Status Pool::bring_up(How how)
{
	SV_TRY(kernel_.probe());
	SV_ASSIGN(const RunningPool running, kernel_.running(uuid_));
	learn_of_missing();
	SV_TRY(refuse_activation(how, running));
	SV_TRY(end_discards("activate pool", {}));	// of before its device was removed
	discards_.forget();
	discards_.open();
	discard_errors_.clear();
	// svd was restarted over a read-only pool: that it stays, and members may be missing.
	if (running.read_only)
		how = {true, true};
	read_only_ = how.read_only;  // volume devices are made on the way
	made_device_ = !running.exists;
	found_up_ = running.exists;
	if (running.exists) {	// who has the control device is alone with the pool: before anything is written
		SV_ASSIGN(channel_, kernel_.open_pool(spec(), true));
	}
	SV_TRY(open_members());
	SV_TRY(open_catalogue(how.missing));
	SV_TRY(compare_members(how.missing));
	SV_TRY(catalogue_name());
	if (read_only_ || !running.exists)
		SV_TRY(recover_journal());
	SV_TRY(find_damage());
	if (!running.exists) {
		SV_ASSIGN(channel_, kernel_.open_pool(spec(), false));
	}
	SV_TRY(load_kernel(running.exists));
	return read_only_ ? Status() : catalogue_->keep_repairs();
}

// svd died while it loaded the pool: no volume can have a device yet, so begin again.
Status Pool::reopen_channel()
{
	SV_TRY(channel_->remove());
	channel_.reset();
	SV_ASSIGN(channel_, kernel_.open_pool(spec(), false));
	SV_ASSIGN(const auto attach, channel_->ask<sv_attach>(SV_OP_ATTACH));
	channel_->set_epoch(attach.epoch);
	return {};
}

void Pool::close_all()
{
	channel_.reset();
	catalogue_.reset();
	absent_.clear();
	tell(watch_.stop());
	look_due_ = {};
	damage_.clear();
	for (auto &[index, member] : members_)
		member.file.reset();
	state_ = PoolState::kDown;
	discards_.close();
	trimmed_ = false;
	to_drop_.clear();	// activation drops what the catalogue does not have
	to_own_.clear();
	merging_ = unresolved_ = false;
	fold_ = {};
}

// Who makes something else of a member destroys the label at its front; the copy at its end outlives that.
Status Pool::refuse_reused(const Member &member) const
{
	SV_ASSIGN(const std::string found, foreign_signature(member.path));
	if (found.empty())
		return {};
	return Error{Code::kNeedsCheck, "use member", member.path,
		     fmt::format("it holds {}, and of its label only the copy is left", found),
		     "if that came there by mistake, and may be lost: wipefs -a " + member.path +
			     ", then svctl activate " + name_ + ", and the pool has it back; otherwise leave the device alone"}.with(Id::kMemberReused);
}

Status Pool::open_members()
{
	for (auto &[index, member] : members_) {
		const log::Scope scope({name_, "", member.path});
		const auto mode = read_only_ ? BlockFile::Mode::kReadOnly : BlockFile::Mode::kReadWrite;
		SV_ASSIGN(member.file, BlockFile::open(member.path, mode));
		if (member.label_state == LabelState::kSound || read_only_)
			continue;
		log::warning(Id::kLabelRepaired, "pool {}: label of {} is damaged{}", name_, member.path,
			     member.label_state == LabelState::kFrontBad ? "; written anew from its copy" :
									   " in its copy; copy written anew");
		SV_TRY(write_label(*member.file, member.label));
		member.label_state = LabelState::kSound;
	}
	return {};
}

Status Pool::open_catalogue(bool missing)
{
	std::vector<CatalogueCopy> copies;
	for (uint32_t index : with_flag(SV_LABEL_HAS_CATALOGUE)) {
		Member &member = members_.at(index);
		copies.push_back({member.file.get(), member.label.cat_off, member.label.cat_len});
	}
	if (copies.empty())
		return Error{Code::kNotFound, "read the catalogue of pool", name_, "it is on members that are missing",
			     "attach one of them: nothing can be read without it"}.with(Id::kMemberMissing);
	SV_ASSIGN(catalogue_, Catalogue::open(copies, uuid_, {read_only_, missing}));
	return {};
}

// The catalogue's members must be those that the labels describe. A member that only has its label was being added
// when svd died: its label is what made it a member.
Status Pool::compare_members(bool missing)
{
	SV_ASSIGN(const auto rows, catalogue_->members());
	for (const MemberRow &row : rows) {
		const auto found = members_.find(row.member);
		if (found == members_.end() && missing) {
			absent_[row.member] = row;
			continue;
		}
		if (found == members_.end() ||
		    std::memcmp(found->second.label.member_uuid, row.uuid.bytes.data(), row.uuid.bytes.size()) != 0)
			return Error{Code::kNeedsCheck, "activate pool", name_,
				     fmt::format("member {} is not the device that the catalogue knows", row.member), ""}
				.with(Id::kMemberWrong);
	}
	return catalogue_new_members();
}

Status Pool::catalogue_new_members()
{
	SV_ASSIGN(const auto rows, catalogue_->members());
	for (const auto &[index, member] : members_) {
		if (index < rows.size())
			continue;
		SV_TRY(catalogue_->add_member({index, Uuid::from_bytes(member.label.member_uuid), member.label.tier,
					       member.label.tier_name, member.label.nr_slots, member.label.flags}));
	}
	return {};
}

// The labels have the pool's name: import-pool gives it another.
Status Pool::catalogue_name()
{
	SV_ASSIGN(PoolRow row, catalogue_->pool());
	if (read_only_ || row.name == name_)
		return {};
	row.name = name_;
	return catalogue_->set_pool(row);
}

// The longest undamaged copy comes first; the answer is how far it goes. A damaged one may be repaired from it only if it had
// nothing more.
Result<uint64_t> Pool::choose_copies(const sv_ring_cursor &cursor, std::vector<uint32_t> *order)
{
	std::vector<CopyState> copies;
	for (uint32_t index : with_flag(SV_LABEL_HAS_RING))
		copies.push_back(survey(index, RingReader(*members_.at(index).file, members_.at(index).label, 0),
					cursor));
	if (copies.empty() && !absent_.empty())
		return Error{Code::kNotFound, "read the journal of pool", name_, "it is on members that are missing",
			     "attach one of them: nothing can be read without it"}.with(Id::kMemberMissing);
	if (copies.empty())
		return Error{Code::kNeedsCheck, "activate pool", name_, "no member has a journal", ""}
			.with(Id::kJournalDamaged);
	std::stable_sort(copies.begin(), copies.end(), [](const CopyState &a, const CopyState &b) {
		return a.error == b.error ? a.last_seq > b.last_seq : a.error == 0;
	});
	const CopyState &best = copies[0];
	std::string damage;
	bool refuse = best.error < 0;
	for (const CopyState &copy : copies) {
		const std::string &path = members_.at(copy.member).path;
		const log::Scope scope({name_, "", path});
		order->push_back(copy.member);
		refuse = refuse || std::max(copy.last_seq, copy.later_seq) > best.last_seq;
		if (copy.error < 0) {
			damage += fmt::format("{}journal on {}: {}", damage.empty() ? "" : "; ", path, copy.why);
			log::warning(Id::kJournalCopyDamaged, "pool {}: journal on {}: {}", name_, path, copy.why);
		} else if (copy.torn && copy.last_seq == best.last_seq) {
			log::warning(Id::kJournalTorn, "pool {}: journal on {}: its last batch, {}, is torn and dropped. A power cut does that; "
				     "if there was none, the device is damaged and the last writes are lost",
				     name_, path, copy.last_seq + 1);
		}
	}
	if (refuse)
		return Error{Code::kNeedsCheck, "activate pool", name_, damage,
			     "svd does not guess: bring the device back, or make the pool anew and restore a dump"}
			.with(Id::kJournalDamaged);
	for (const CopyState &copy : copies) {	// a batch was under way when power failed: more than that was lost in another way
		const std::string &path = members_.at(copy.member).path;
		const log::Scope scope({name_, "", path});
		if (copy.error == 0 && best.last_seq - copy.last_seq > 1)
			log::warning(Id::kJournalCopyDamaged, "pool {}: journal on {}: it ends {} batches before the other copy{}", name_, path,
				     best.last_seq - copy.last_seq, read_only_ ? "" : ", and is completed from that");
	}
	return best.last_seq;
}

Status Pool::recover_journal()
{
	SV_ASSIGN(sv_ring_cursor cursor, catalogue_->applied());
	std::vector<uint32_t> order;
	SV_ASSIGN(const uint64_t last_seq, choose_copies(cursor, &order));
	return cursor.seq == last_seq ? Status() : replay(order, last_seq, &cursor);
}

// Applies the first copy's batches from the cursor on, up to last_seq, and writes them to the other where it differs. Of a
// read-only pool neither reaches a member: the catalogue changes in memory.
Status Pool::replay(const std::vector<uint32_t> &copies, uint64_t last_seq, sv_ring_cursor *cursor)
{
	Member &source = members_.at(copies[0]);
	RingReader reader(*source.file, source.label, last_seq);
	BatchApplier applier(*catalogue_);
	const void *batch = nullptr;
	const char *why = "";
	int more;
	while ((more = reader.next(cursor, &batch, &why)) > 0) {
		for (size_t i = 1; i < copies.size() && !read_only_; i++)
			SV_TRY(mirror_batch(*members_.at(copies[i]).file, members_.at(copies[i]).label, batch));
		SV_TRY(applier.add(batch, *cursor));
	}
	if (more < 0)
		return Error{Code::kNeedsCheck, "read the journal on", source.path, why, ""}.with(Id::kJournalDamaged);
	for (size_t i = 1; i < copies.size() && !read_only_; i++)
		SV_TRY(members_.at(copies[i]).file->sync());
	SV_TRY(applier.finish());
	if (applier.batches() > 0)
		log::notice("pool {}: {} journal batches recovered, up to {}", name_, applier.batches(), cursor->seq);
	return {};
}

// Which extents lie on missing members, and where volumes map them.
// What shows through a partial extent may lie elsewhere.
Status Pool::find_lost_parents(std::vector<bool> &lost)
{
	std::map<uint32_t, uint32_t> parents;
	SV_TRY(catalogue_->for_each_partial([&](std::span<const sv_partial_bits> some) -> Status {
		for (const sv_partial_bits &p : some)
			if (p.parent != 0)
				parents[p.extent] = p.parent;
		return {};
	}));
	for (const auto &[extent, parent] : parents) {
		size_t hops = 0;
		for (auto at = parents.find(extent); at != parents.end() && !lost[extent] && hops++ < parents.size();
		     at = parents.find(at->second))
			lost[extent] = at->second < lost.size() && lost[at->second];
	}
	return {};
}

Status Pool::find_damage()
{
	if (absent_.empty())
		return {};
	std::vector<bool> lost;
	SV_TRY(catalogue_->for_each_extent([&](std::span<const sv_extent> some) -> Status {
		lost.resize(some.back().extent + 1);
		for (const sv_extent &e : some)
			lost[e.extent] = absent_.contains(e.member);
		return {};
	}));
	SV_TRY(find_lost_parents(lost));
	SV_ASSIGN(const auto volumes, catalogue_->volumes());
	for (const VolumeRow &volume : volumes) {
		Damage &damage = damage_[volume.id];
		SV_TRY(catalogue_->for_each_map(volume.id, [&](std::span<const sv_map_entry> some) -> Status {
			for (const sv_map_entry &e : some) {
				damage.mapped += e.extent != 0;
				if (e.extent < lost.size() && lost[e.extent])
					damage.add(e.index);
			}
			return {};
		}));
	}
	return {};
}

void Pool::Damage::add(uint64_t index)
{
	extents++;
	if (!ranges.empty() && ranges.back().first + ranges.back().second == index)
		ranges.back().second++;
	else if (ranges.size() < kMostRanges)
		ranges.push_back({index, 1});
}

Status Pool::finish_deletions()
{
	SV_ASSIGN(const auto volumes, catalogue_->volumes());
	for (const VolumeRow &volume : volumes) {
		if (volume.state != VolumeState::kDeleting)
			continue;
		for (;;) {
			SV_ASSIGN(const DeleteProgress progress, catalogue_->delete_step(volume.id));
			if (progress.done)
				break;
		}
	}
	return {};
}

// The kernel went on while svd was dead.
Status Pool::catch_up()
{
	log::notice("pool {}: the kernel serves it already{}", name_, read_only_ ? ", read-only" : ", catching up");
	if (!read_only_) {
		SV_TRY(tell_policy());
		SV_TRY(tell_closed());
		SV_TRY(checkpoint());
		SV_TRY(catalogue_->resolve_pending());
		SV_TRY(finish_deletions());
		SV_TRY(reconcile_volumes());
		restore_views();
		SV_TRY(find_deleted_snapshots());
		SV_TRY(find_unadmitted());
		note(admit_members());	// repeated
	} else {
		SV_TRY(find_active_volumes());
	}
	return create_volume_devices();
}

// svd died while it added a member: the kernel does not know it, or knows it without any slot of it. A kernel that does
// not tell the latter is taken to have the slots: were they granted twice it would refuse them; so they are free space
// only when the pool comes up again.
Status Pool::find_unadmitted()
{
	SV_ASSIGN(const auto hello, channel_->ask<sv_hello>(SV_OP_HELLO));
	const bool tells = (hello.features & SV_FEATURE_KNOWN) != 0;
	std::vector<sv_member_state> there(SV_MAX_MEMBERS);
	SV_ASSIGN(const auto answer, channel_->command(SV_OP_MEMBERS, there.data(), sizeof(there[0]), SV_MAX_MEMBERS));
	const uint64_t newest = newest_label().generation;
	for (auto &[index, member] : members_) {
		member.granted = index < answer.count && (!tells || (there[index].flags & SV_MEMBER_KNOWN) != 0);
		member.admitted = member.granted && member.label.generation == newest;
	}
	return {};
}

Status Pool::load_kernel(bool existed)
{
	SV_ASSIGN(const auto hello, channel_->ask<sv_hello>(SV_OP_HELLO));
	if (hello.abi != SV_ABI_VERSION)
		return Error{Code::kMissingFeature, "use dm-sv for pool", name_,
			     fmt::format("it speaks ABI {}, svd {}", hello.abi, SV_ABI_VERSION),
			     "install module and daemon of one version"}.with(Id::kModuleVersion);
	features_ = hello.features;
	SV_ASSIGN(const auto attach, channel_->ask<sv_attach>(SV_OP_ATTACH));
	channel_->set_epoch(attach.epoch);
	SV_ASSIGN(const sv_ring_cursor applied, catalogue_->applied());
	SV_TRY(refuse_old_module_for_snapshots());
	SV_TRY(refuse_old_module_for_fragments());
	SV_TRY(find_leaving());
	if (attach.state == SV_STATE_ACTIVE)
		return catch_up();
	if (existed)
		SV_TRY(reopen_channel());
	SV_TRY(catalogue_->begin_session());	// before it is up: who dies then leaves that to be caught up with
	SV_TRY(catalogue_->resolve_pending());
	if (!read_only_)
		SV_TRY(finish_deletions());
	SV_TRY(catalogue_->clear_freeing());	// this kernel never had them
	SV_TRY(find_deleted_snapshots());
	SV_TRY(channel_->tell(SV_OP_JOURNAL, sv_journal_pos{applied.seq + 1, applied.off, applied.prev_crc, 0}));
	SV_TRY(load_volumes());
	SV_ASSIGN(const auto members, catalogue_->members());
	UsedSlots used(members);
	SV_TRY(load_maps(&used));
	SV_TRY(load_grants(used));
	SV_TRY(tell_policy());
	SV_TRY(tell_closed());
	SV_TRY(channel_->tell(SV_OP_ACTIVATE, sv_activate{read_only_ ? 1u : 0u, 0}));
	if (!read_only_) {
		SV_TRY(find_unadmitted());
		note(admit_members());
	}
	return create_volume_devices();
}

Status Pool::load_volumes()
{
	SV_ASSIGN(const auto volumes, catalogue_->volumes());
	std::vector<sv_volume_info> infos;
	for (const VolumeRow &volume : volumes)
		infos.push_back(volume_info(volume));
	return channel_->tell_all(SV_OP_VOLUME_CREATE, infos);
}

// svd died between a change to the catalogue and the same one to the kernel: the catalogue is right.
Status Pool::reconcile_volumes()
{
	SV_ASSIGN(const auto there, volumes_in_kernel());
	SV_ASSIGN(const auto volumes, catalogue_->volumes());
	const auto same_id = [](uint32_t id) { return [id](const auto &other) { return other.id == id; }; };
	SV_ASSIGN(const auto shown, active_snapshots());
	for (const sv_volume_info &info : there)
		if (std::none_of(volumes.begin(), volumes.end(), same_id(info.id)) &&
		    std::none_of(shown.begin(), shown.end(), same_id(info.id)))
			SV_TRY(drop_from_kernel(info.id));
	for (const VolumeRow &volume : volumes) {
		const auto found = std::find_if(there.begin(), there.end(), same_id(volume.id));
		const bool half = found != there.end() && (found->flags & SV_VOLUME_SHARING) != 0;
		if (half)
			SV_TRY(drop_from_kernel(volume.id));
		if (half || found == there.end())
			SV_TRY(load_volume(volume));
		else if (found->size < volume.size)
			SV_TRY(channel_->tell(SV_OP_VOLUME_RESIZE, volume_info(volume)));
		if (found != there.end() && found->layer == volume.layer && found->owned_since > volume.owned_since)
			to_own_.push_back({volume.id, volume.layer, volume.owned_since});
	}
	return {};
}

// Their slots are gathered on the way, for load_grants().
Status Pool::load_maps(UsedSlots *used)
{
	SV_ASSIGN(const uint64_t last, catalogue_->highest_extent());
	pace_->begin({"loading extents", 0, last, "extents"});
	SV_TRY(catalogue_->for_each_extent([&](std::span<sv_extent> some) -> Status {
		SV_TRY(pace_->step(some.front().extent));
		SV_TRY(used->add(some));
		return channel_->tell_all(SV_OP_EXTENTS, some);
	}));
	pace_->begin({"loading partial extents", 0, last, "extents"});
	SV_TRY(catalogue_->for_each_partial([&](std::span<sv_partial_bits> some) -> Status {
		SV_TRY(pace_->step(some.front().extent));
		SV_TRY(used->add(some));
		return channel_->tell_all(SV_OP_PARTIALS, some);
	}));
	SV_ASSIGN(const auto volumes, catalogue_->volumes());
	pace_->begin({"loading maps", 0, volumes.size(), "volumes"});
	SV_ASSIGN(MapSources sources, catalogue_->map_sources());
	for (size_t i = 0; i < volumes.size(); i++) {
		SV_TRY(pace_->step(i));
		SV_TRY(load_map(volume_info(volumes[i]), sources));
		sources.add(volumes[i].id, volumes[i].layer, volumes[i].size);
	}
	return {};
}

Status Pool::load_grants(const UsedSlots &used)
{
	std::vector<sv_grant> grants;
	for (const FreeRange &range : used.free_ranges())
		grants.push_back({range.member, range.first, range.count, 0});
	return channel_->tell_all(SV_OP_GRANT, grants);
}

// What a read-only pool's catalogue says was true when somebody last wrote to the pool.
Status Pool::find_active_volumes()
{
	SV_ASSIGN(const auto volumes, catalogue_->volumes());
	for (const VolumeRow &volume : volumes) {
		SV_ASSIGN(const bool exists, channel_->volume_exists(volume_spec(volume)));
		if (exists != volume.active)
			SV_TRY(catalogue_->set_active(volume.id, exists));
	}
	SV_ASSIGN(const auto snapshots, catalogue_->snapshots());
	for (const SnapshotRow &snapshot : snapshots) {
		if (snapshot.state != SnapshotState::kDone)
			continue;
		SV_ASSIGN(const VolumeRow of, catalogue_->volume(snapshot.volume));
		SV_ASSIGN(const bool exists, channel_->volume_exists(snapshot_spec(of, snapshot)));
		if (!exists)
			SV_TRY(drop_from_kernel(snapshot.id));	// it may have been loaded in part
		if (exists != snapshot.active)
			SV_TRY(catalogue_->set_snapshot_active(snapshot.id, exists));
	}
	return {};
}

// For one whose name no device can have the pool does not stay down.
Status Pool::create_volume_devices()
{
	SV_ASSIGN(const auto volumes, catalogue_->volumes());
	for (const VolumeRow &volume : volumes) {
		if (volume.state != VolumeState::kActive || !volume.active)
			continue;
		const Status named = check_device_name(name_, volume.name);
		note(named);
		SV_TRY(named.ok() ? channel_->create_volume(volume_spec(volume)) : catalogue_->set_active(volume.id, false));
	}
	return {};
}

}	// namespace svd
