// SPDX-License-Identifier: GPL-2.0
// Each layer is the head of one volume or that of one snapshot, and lies above an older one or none. [I26]
#include "daemon/catalogue/check_layers.h"

#include <fmt/format.h>

#include <map>

#include "daemon/catalogue/catalogue_impl.h"
#include "daemon/catalogue/layers.h"

namespace svd {

static constexpr size_t kMaxLines = 10000;

void Findings::add(std::string line)
{
	if (lines_.size() < kMaxLines)
		lines_.push_back(std::move(line));
	else
		more_++;
}

std::vector<std::string> Findings::lines() &&
{
	if (more_ > 0)
		lines_.push_back(fmt::format("and {} more", more_));
	return std::move(lines_);
}

namespace {

class LayerChecker {
 public:
	LayerChecker(Catalogue &catalogue, Database &db, Findings &findings)
		: catalogue_(catalogue), db_(db), findings_(findings)
	{
	}
	Result<LayerTable> run();

 private:
	template <typename... Args>
	void found(fmt::format_string<Args...> f, Args &&...args)
	{
		findings_.add(fmt::format(f, std::forward<Args>(args)...));
	}
	Status read();
	void volume(const VolumeRow &v);
	void snapshot(const SnapshotRow &s);
	void waiting(const SnapshotRow &s);
	void layer(const LayerRow &l);
	void claim(uint32_t layer, uint64_t size, bool head);

	Catalogue &catalogue_;
	Database &db_;
	Findings &findings_;
	uint64_t next_volume_ = 0;
	uint64_t next_layer_ = 0;
	std::map<uint32_t, LayerRow> layers_;
	std::unordered_map<uint32_t, VolumeRow> volumes_;
	LayerTable table_;  // of those that a volume or a snapshot has
};

Status LayerChecker::read()
{
	SV_ASSIGN(next_volume_, db_.number("SELECT next_volume FROM pool"));
	SV_ASSIGN(next_layer_, db_.number("SELECT next_layer FROM pool"));
	SV_ASSIGN(const std::vector<LayerRow> layers, all_layers(db_));
	for (const LayerRow &l : layers)
		layers_[l.layer] = l;
	return {};
}

void LayerChecker::claim(uint32_t layer, uint64_t size, bool head)
{
	if (!table_.emplace(layer, LayerFacts{extents_in(size), head}).second)
		found("layer {}: more than one volume or snapshot has it", layer);
}

void LayerChecker::volume(const VolumeRow &v)
{
	if (Status s = check_volume_name(v.name); !s)
		found("volume {}: {}", v.id, s.error().message());
	if (v.id >= next_volume_)
		found("volume {}: its number is still to be given", v.id);
	volumes_[v.id] = v;
	claim(v.layer, v.size, true);
	const auto head = layers_.find(v.layer);
	if (head == layers_.end() || head->second.volume != v.id)
		found("volume {}: its head layer {} is missing", v.id, v.layer);
	else if (v.owned_since != head->second.lowest())
		found("volume {}: it owns from layer {} on, its head {} begins with {}", v.id, v.owned_since, v.layer,
		      head->second.lowest());
}

// Pending, and the volume still writes the layer.
void LayerChecker::waiting(const SnapshotRow &s)
{
	const auto v = volumes_.find(s.volume);
	if (v == volumes_.end() || v->second.layer != s.layer)
		found("snapshot {}: volume {} does not write layer {}", s.id, s.volume, s.layer);
}

void LayerChecker::snapshot(const SnapshotRow &s)
{
	if (Status name = check_name("snapshot", s.name, SV_SNAPSHOT_NAME_MAX); !name)
		found("snapshot {}: {}", s.id, name.error().message());
	if (s.id >= next_volume_ || s.next_layer >= next_layer_)
		found("snapshot {}: its number or layer is still to be given", s.id);
	if (volumes_.contains(s.id))
		found("snapshot {}: a volume has its number", s.id);
	if (s.state != SnapshotState::kDone && s.state != SnapshotState::kPending && s.state != SnapshotState::kDeleting)
		found("snapshot {}: there is no state {}", s.id, static_cast<int>(s.state));
	const auto of = volumes_.find(s.volume);
	if (s.state == SnapshotState::kDone && (of == volumes_.end() || of->second.state != VolumeState::kActive))
		found("snapshot {}: its volume {} is not there, or is being deleted", s.id, s.volume);
	const bool begun = layers_.contains(s.next_layer);
	if (s.state == SnapshotState::kPending && !begun) {
		waiting(s);
		return;
	}
	claim(s.layer, s.size, false);
	const auto own = layers_.find(s.layer);
	if (own == layers_.end() || own->second.volume != s.volume)
		found("snapshot {}: its layer {} is missing", s.id, s.layer);
	if (begun && layers_[s.next_layer].parent != s.layer)
		found("snapshot {}: layer {} does not lie above its layer {}", s.id, s.next_layer, s.layer);
}

void LayerChecker::layer(const LayerRow &l)
{
	if (!table_.contains(l.layer))
		found("layer {}: no volume and no snapshot has it", l.layer);
	if (l.layer == 0 || l.layer >= next_layer_ || l.lowest() > l.layer)
		found("layer {}: its number, or its lowest, {}, cannot be", l.layer, l.lowest());
	if (l.parent == 0)
		return;
	if (l.parent >= l.lowest())
		found("layer {}: it begins with {}, not above its parent {}", l.layer, l.lowest(), l.parent);
	if (!layers_.contains(l.parent))
		found("layer {}: its parent {} is missing", l.layer, l.parent);
	if (const auto below = table_.find(l.parent); below != table_.end() && below->second.head)
		found("layer {}: it lies above {}, which a volume writes", l.layer, l.parent);
}

Result<LayerTable> LayerChecker::run()
{
	SV_TRY(read());
	SV_ASSIGN(const std::vector<VolumeRow> volumes, catalogue_.volumes());
	for (const VolumeRow &v : volumes)
		volume(v);
	SV_ASSIGN(const std::vector<SnapshotRow> snapshots, catalogue_.snapshots());
	for (const SnapshotRow &s : snapshots)
		snapshot(s);
	for (const auto &[number, row] : layers_)
		layer(row);
	return std::move(table_);
}

}  // namespace

Result<LayerTable> check_layers(Catalogue &catalogue, Database &db, Findings &findings)
{
	return LayerChecker(catalogue, db, findings).run();
}

}  // namespace svd
