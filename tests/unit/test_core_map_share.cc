// Maps that share nodes (kmod/core/map.c, share.c): several volumes at random against a std::map each, with readers that stay in
// nodes while others write; and the commands by which svd makes one of them.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <random>
#include <vector>

#include "tests/support/core_pool.h"

namespace {

using sv::test::CorePool;
using Oracle = std::map<uint64_t, uint64_t>;  // entries, with those that hide

constexpr uint64_t kExtent = SV_EXTENT_SIZE;

// Pages whose readers may not have gone yet.
std::vector<void*> retired;

class CoreMapShare : public testing::Test {
 protected:
  CoreMapShare() {
    sv_page_retired = [](void* page) { retired.push_back(page); };
  }
  ~CoreMapShare() override {
    let_readers_go();
    sv_page_retired = nullptr;
  }

  struct Reader {
    const sv_node* node;
    std::array<uint64_t, SV_NODE_ENTRIES> had;
  };

  // One that has come to where this index is, and stays in all nodes of its way that are frozen.
  void enter(const sv_volume* v, uint64_t index) {
    const sv_node* n = v->root->node;
    for (uint32_t level = v->root->depth; n; n = level > 1 ? n->child[sv_node_slot(index, --level)] : nullptr)
      if (*sv_page_word(n) & SV_NODE_FROZEN) {
        Reader r{.node = n, .had = {}};
        std::memcpy(r.had.data(), n->entry, sizeof(n->entry));
        readers_.push_back(r);
      }
  }

  void let_readers_go() {
    for (const Reader& r : readers_) EXPECT_EQ(0, std::memcmp(r.had.data(), r.node->entry, sizeof(r.node->entry))) << "written under a reader";
    readers_.clear();
    for (void* page : retired) sv_page_free(page);
    retired.clear();
  }

  void install(sv_volume* v, Oracle& oracle, uint64_t index, uint64_t entry) {
    ASSERT_EQ(0, sv_pool_refill(p_.pool));
    sv_lock_flags_t f;
    sv_lock(&p_.pool->lock, f);
    const uint32_t needed = sv_map_nodes_needed(v, index), had = p_.pool->nr_nodes;
    sv_map_install(v, index, entry);
    EXPECT_GE(needed, had - p_.pool->nr_nodes) << index;
    EXPECT_EQ(0u, sv_map_nodes_needed(v, index));
    sv_unlock(&p_.pool->lock, f);
    (void)f;
    oracle[index] = entry;
  }

  sv_volume* clone(uint32_t id, uint64_t extents, uint32_t layer = 1) {
    sv_volume_info v{.id = id, .layer = layer, .owned_since = layer, .flags = SV_VOLUME_CHAINED | SV_VOLUME_WHOLE, .size = extents * kExtent, .mapped = 0, .tiers = ~0ull};
    EXPECT_EQ(0, p_.command(SV_OP_VOLUME_CREATE, &v));
    return sv_volume_find(p_.pool, id);
  }

  void drop(uint32_t id) {
    sv_volume_info v{};
    v.id = id;
    ASSERT_EQ(0, p_.command(SV_OP_VOLUME_DROP, &v));
  }

  int share(uint32_t id, uint32_t source, uint32_t both) {
    sv_share s{.volume = id, .source = source, .layer = both, .pad = 0};
    return p_.command(SV_OP_SHARE, &s);
  }
  int end(uint32_t id) { return share(id, 0, 0); }

  // Each node has the owners that it says, and nothing newer below it; and there are as many as are counted.
  void check_nodes() {
    std::map<const sv_node*, uint64_t> owners;
    std::map<const sv_node*, uint32_t> newest;
    for (const sv_volume* v = p_.pool->volumes; v; v = v->next) walk(v->root->node, v->root->depth, owners, newest);
    EXPECT_EQ(p_.pool->node_count, owners.size());
    for (const auto& [n, count] : owners) {
      // A last owner's copy takes over what is below: then nothing but that is below the old one.
      ASSERT_EQ(count, (*sv_page_word(n) & SV_NODE_OTHERS) + 1);
      ASSERT_TRUE(count == 1 || (*sv_page_word(n) & SV_NODE_FROZEN));
    }
  }

  static uint32_t walk(const sv_node* n, uint32_t level, std::map<const sv_node*, uint64_t>& owners, std::map<const sv_node*, uint32_t>& newest) {
    if (!n) return 0;
    if (owners[n]++) return newest[n];
    uint32_t found = 0;
    for (uint32_t i = 0; i < SV_NODE_ENTRIES; i++)
      found = std::max(found, level > 1 ? walk(n->child[i], level - 1, owners, newest) : sv_entry_layer(n->entry[i]));
    EXPECT_GE(sv_node_newest(n), found);
    newest[n] = found;
    return found;
  }

  static void compare(const sv_volume* v, const Oracle& oracle) {
    for (const auto& [index, entry] : oracle) ASSERT_EQ(entry, sv_map_lookup(v, index)) << v->id << " at " << index;
    size_t found = 0;
    for (uint64_t at = 0; at != SV_MAP_END;)
      if (sv_map_next(v, &at, 0)) {
        ASSERT_EQ(1u, oracle.count(at)) << v->id << " at " << at;
        found++, at++;
      }
    size_t of_layers = 0;
    for (const auto& [index, entry] : oracle) of_layers += sv_entry_layer(entry) != 0;
    ASSERT_EQ(of_layers, found);
  }

  CorePool p_{{{.slots = 4096, .ring = true}}, false};
  std::vector<Reader> readers_;
};

TEST_F(CoreMapShare, volumes_that_share_agree_with_an_oracle_each_and_readers_see_what_they_came_for) {
  for (unsigned seed = 0; seed < 40; seed++) {
    std::mt19937_64 r(seed);
    std::map<uint32_t, Oracle> oracles;
    uint32_t next_id = seed * 1000 + 1;
    const uint64_t extents = seed % 2 ? 3000 : 600'000;  // two levels, or three
    clone(next_id, extents);
    oracles[next_id++] = {};
    for (int i = 0; i < 600; i++) {
      auto it = oracles.begin();
      std::advance(it, r() % oracles.size());
      const uint32_t id = it->first;
      sv_volume* v = sv_volume_find(p_.pool, id);
      switch (r() % 16) {
      case 0:
        if (oracles.size() < 6) {
          clone(next_id, r() % 4 ? extents : extents * 600, 2);  // some are deeper
          const bool fits = sv_volume_find(p_.pool, next_id)->root->depth >= v->root->depth;
          ASSERT_EQ(fits ? 0 : -EINVAL, share(next_id, id, 1));
          if (fits) {
            sv_volume_find(p_.pool, next_id)->sharing = false;  // all that it has is right here
            oracles[next_id] = it->second;
          } else {
            oracles[next_id] = {};
          }
          next_id++;
        }
        break;
      case 1:
        if (oracles.size() > 1) {
          let_readers_go();  // those of the volume have, and one that is in its nodes only is one of them
          drop(id);
          oracles.erase(it);
        }
        break;
      case 2:
        let_readers_go();
        break;
      case 3: {
        sv_volume_info grown{};
        grown.id = id;
        grown.size = (r() % 8 ? extents : extents * 600) * kExtent;
        ASSERT_EQ(0, p_.command(SV_OP_VOLUME_RESIZE, &grown));
        break;
      }
      case 4:
        for (const auto& [other, oracle] : oracles) compare(sv_volume_find(p_.pool, other), oracle);
        check_nodes();
        break;
      default: {
        const uint64_t index = r() % 3 ? r() % 600 : r() % extents;
        enter(v, index);
        install(v, it->second, index, sv_entry_make(r() % 5 ? static_cast<uint32_t>(1 + r() % 100) : 0, static_cast<uint32_t>(r() % 9)));
      }
      }
    }
    for (const auto& [id, oracle] : oracles) {
      compare(sv_volume_find(p_.pool, id), oracle);
      check_nodes();
      drop(id);
      let_readers_go();
    }
    ASSERT_EQ(0u, p_.pool->node_count);
  }
}

TEST_F(CoreMapShare, what_is_newer_than_a_layer_is_found_without_what_is_not) {
  sv_volume* v = clone(1, 1 << 20);
  Oracle oracle;
  std::mt19937_64 r(7);
  for (uint32_t i = 0; i < 3000; i++) install(v, oracle, r() % (1 << 20), sv_entry_make(i % 10 ? i : 0, 1 + (i > 2900) * (i % 5)));
  for (uint32_t above = 0; above < 7; above++) {
    std::vector<uint64_t> want, got;
    for (const auto& [index, entry] : oracle)
      if (sv_entry_layer(entry) > above) want.push_back(index);
    std::vector<sv_map_entry> some(7);
    for (uint64_t from = 0;;) {
      uint32_t n = 0;
      some[0] = {.index = from, .volume = 1, .extent = 0, .layer = above, .pad = 0};
      ASSERT_EQ(0, p_.command(SV_OP_DUMP_NEWER, some.data(), static_cast<uint32_t>(some.size()), &n));
      if (!n) break;
      for (uint32_t i = 0; i < n; i++) {
        got.push_back(some[i].index);
        EXPECT_EQ(oracle[some[i].index], sv_entry_make(some[i].extent, some[i].layer));
      }
      from = got.back() + 1;
    }
    EXPECT_EQ(want, got) << above;
  }
}

// ---- the commands ----

class CoreShare : public CoreMapShare {
 protected:
  // Extents 1 to 600, at 0 to 599 of volume 1, whose head is layer 3; the first 500 are of layer 1, and 20 of layer 2.
  CoreShare() {
    std::vector<sv_extent> extents;
    for (uint32_t i = 0; i < 700; i++) extents.push_back({.extent = i + 1, .slot = i, .member = 0, .gen = 1, .flags = 0});
    EXPECT_EQ(0, p_.command(SV_OP_EXTENTS, extents.data(), 700));
    sv_grant rest{.member = 0, .first = 700, .count = 4096 - 700, .pad = 0};
    EXPECT_EQ(0, p_.command(SV_OP_GRANT, &rest));
    sv_volume_info v{.id = 1, .layer = 3, .owned_since = 3, .flags = SV_VOLUME_CHAINED | SV_VOLUME_WHOLE, .size = 1000 * kExtent, .mapped = 0, .tiers = ~0ull};
    EXPECT_EQ(0, p_.command(SV_OP_VOLUME_CREATE, &v));
    std::vector<sv_map_entry> map;
    for (uint32_t i = 0; i < 600; i++) map.push_back({.index = i, .volume = 1, .extent = i + 1, .layer = i < 500 ? 1u : i < 520 ? 2u : 3u, .pad = 0});
    map.push_back({.index = 600, .volume = 1, .extent = 0, .layer = 3, .pad = 0});
    EXPECT_EQ(0, p_.command(SV_OP_MAP, map.data(), 601));
  }

  int tell(uint64_t index, uint32_t extent, uint32_t layer, uint32_t volume = 2) {
    sv_map_entry e{.index = index, .volume = volume, .extent = extent, .layer = layer, .pad = 0};
    return p_.command(SV_OP_MAP, &e);
  }

  std::vector<uint64_t> newer(uint32_t volume, uint32_t layer) {
    std::vector<sv_map_entry> some(1000);
    some[0] = {.index = 0, .volume = volume, .extent = 0, .layer = layer, .pad = 0};
    uint32_t n = 0;
    EXPECT_EQ(0, p_.command(SV_OP_DUMP_NEWER, some.data(), 1000, &n));
    std::vector<uint64_t> indexes;
    for (uint32_t i = 0; i < n; i++) indexes.push_back(some[i].index);
    return indexes;
  }

  uint32_t live() {
    std::vector<sv_extent> extents(2000);
    extents[0].extent = 0;
    uint32_t n = 0, freed = 0;
    EXPECT_EQ(0, p_.command(SV_OP_DUMP_EXTENTS, extents.data(), 2000, &n));
    for (uint32_t i = 0; i < n; i++) freed += (extents[i].flags & SV_EXTENT_FREED) != 0;
    return n - freed;
  }
};

TEST_F(CoreShare, a_clone_of_an_older_snapshot_is_made_of_what_differs) {
  sv_volume* c = clone(2, 1000, 4);
  ASSERT_EQ(0, share(2, 1, 1));
  EXPECT_EQ(600u, c->mapped);
  const auto differ = newer(2, 1);
  ASSERT_EQ(101u, differ.size());
  EXPECT_EQ(500u, differ.front());
  EXPECT_EQ(600u, differ.back());
  const uint64_t before = p_.pool->node_count;
  for (const uint64_t index : differ) ASSERT_EQ(0, tell(index, index == 510 ? 601u : 0u, index == 510 ? 1u : 0u));
  ASSERT_EQ(0, tell(700, 650, 4));
  EXPECT_EQ(before + 3, p_.pool->node_count) << "its top, and the two leaves";
  ASSERT_EQ(0, end(2));
  EXPECT_EQ(502u, c->mapped);
  for (uint64_t i = 0; i < 1000; i++) {
    const uint32_t want = i < 500 ? static_cast<uint32_t>(i + 1) : i == 510 ? 601u : i == 700 ? 650u : 0u;
    EXPECT_EQ(want, sv_entry_extent(sv_map_lookup(c, i))) << i;
    EXPECT_EQ(i < 600 ? i + 1 : 0, sv_entry_extent(sv_map_lookup(sv_volume_find(p_.pool, 1), i))) << i;
  }
}

TEST_F(CoreShare, what_a_volume_writes_and_unmaps_is_found_by_the_next_that_shares_its_map) {
  p_.activate();
  sv_volume* v = sv_volume_find(p_.pool, 1);
  sv_piece piece{};
  ASSERT_EQ(SV_PLAN_REMAP, sv_plan_write(v, 10 * SV_EXTENT_BLOCKS, 1, SV_WRITE_NORMAL, &piece));
  sv_write_done(v, &piece, true);
  ASSERT_EQ(SV_PLAN_ZERO, sv_plan_discard(v, 20 * SV_EXTENT_BLOCKS, SV_EXTENT_BLOCKS, false, &piece));
  ASSERT_EQ(SV_PLAN_ZERO, sv_plan_discard(v, 550 * SV_EXTENT_BLOCKS, SV_EXTENT_BLOCKS, false, &piece));
  clone(2, 1000, 4);
  ASSERT_EQ(0, share(2, 1, 2));
  const auto differ = newer(2, 2);
  EXPECT_TRUE(std::ranges::binary_search(differ, 10u));
  EXPECT_TRUE(std::ranges::binary_search(differ, 20u));
  EXPECT_TRUE(std::ranges::binary_search(differ, 550u));
}

TEST_F(CoreShare, a_volume_goes_on_while_its_map_is_shared_and_neither_sees_the_other) {
  p_.activate();
  sv_volume* v = sv_volume_find(p_.pool, 1);
  sv_volume* c = clone(2, 1000, 4);
  ASSERT_EQ(0, share(2, 1, 2));
  for (const uint64_t index : newer(2, 2)) ASSERT_EQ(0, tell(index, 0, 0));
  ASSERT_EQ(0, end(2));
  sv_piece piece{};
  for (uint64_t i = 0; i < 500; i += 3) {
    ASSERT_EQ(0, sv_pool_refill(p_.pool));
    ASSERT_EQ(SV_PLAN_ZERO, sv_plan_discard(i % 2 ? v : c, i * SV_EXTENT_BLOCKS, SV_EXTENT_BLOCKS, false, &piece));
    EXPECT_EQ(i % 2 ? 0u : i + 1, sv_entry_extent(sv_map_lookup(v, i)));
    EXPECT_EQ(i % 2 ? i + 1 : 0u, sv_entry_extent(sv_map_lookup(c, i)));
  }
  check_nodes();
}

TEST_F(CoreShare, a_discard_without_nodes_waits_for_them) {
  p_.activate();
  sv_volume* c = clone(2, 1000, 4);
  ASSERT_EQ(0, share(2, 1, 2));
  for (const uint64_t index : newer(2, 2)) ASSERT_EQ(0, tell(index, 0, 0));
  ASSERT_EQ(0, end(2));
  ASSERT_EQ(0, sv_pool_refill(p_.pool));
  const uint32_t had = p_.pool->nr_nodes;
  sv_node* reserve = p_.pool->nodes;
  p_.pool->nodes = nullptr;
  p_.pool->nr_nodes = 0;
  sv_piece piece{};
  EXPECT_EQ(SV_PLAN_DEFER, sv_plan_discard(c, 0, SV_EXTENT_BLOCKS, false, &piece));
  EXPECT_EQ(1u, sv_entry_extent(sv_map_lookup(c, 0)));
  p_.pool->nodes = reserve;
  p_.pool->nr_nodes = had;
  EXPECT_EQ(SV_PLAN_ZERO, sv_plan_discard(c, 0, SV_EXTENT_BLOCKS, false, &piece));
  EXPECT_EQ(0u, sv_entry_extent(sv_map_lookup(c, 0)));
}

TEST_F(CoreShare, until_the_end_nobody_uses_it) {
  p_.activate();
  clone(2, 1000, 4);
  ASSERT_EQ(0, share(2, 1, 3));
  EXPECT_EQ(-EBUSY, sv_volume_open(sv_volume_find(p_.pool, 2)));
  sv_snapshot s{.volume = 2, .layer = 9, .job = 1};
  EXPECT_EQ(-EBUSY, p_.command(SV_OP_SNAPSHOT, &s));
  sv_own own{.volume = 2, .owned_since = 1, .flags = 0, .layer = 4};
  EXPECT_EQ(-EBUSY, p_.command(SV_OP_OWN, &own));
  clone(3, 1000, 5);
  EXPECT_EQ(-EBUSY, share(3, 2, 3)) << "what it shows is not true yet";
  EXPECT_EQ(-EBUSY, share(2, 1, 3));
  sv_volume_info infos[4] = {};
  uint32_t n = 0;
  ASSERT_EQ(0, p_.command(SV_OP_VOLUMES, infos, 4, &n));
  for (uint32_t i = 0; i < n; i++) EXPECT_EQ(infos[i].id == 2, (infos[i].flags & SV_VOLUME_SHARING) != 0);
  for (const uint64_t index : newer(2, 3)) ASSERT_EQ(0, tell(index, 0, 0));
  ASSERT_EQ(0, end(2));
  EXPECT_EQ(0, sv_volume_open(sv_volume_find(p_.pool, 2)));
  sv_volume_close(sv_volume_find(p_.pool, 2));
}

TEST_F(CoreShare, what_cannot_be_shared) {
  sv_volume_info other{.id = 5, .layer = 1, .owned_since = 1, .flags = 0, .size = 1000 * kExtent, .mapped = 0, .tiers = ~0ull};
  ASSERT_EQ(0, p_.command(SV_OP_VOLUME_CREATE, &other));
  clone(2, 1000, 4);
  clone(3, 100, 4);
  EXPECT_EQ(-ENOENT, share(2, 99, 3));
  EXPECT_EQ(-ENOENT, share(99, 1, 3));
  EXPECT_EQ(-ENOENT, end(99));
  EXPECT_EQ(-EINVAL, share(2, 2, 3));
  EXPECT_EQ(-EINVAL, end(2)) << "it has not begun";
  EXPECT_EQ(-EINVAL, share(5, 1, 3)) << "it sees only what is its own";
  EXPECT_EQ(-EINVAL, share(2, 1, 4)) << "that layer is its own";
  EXPECT_EQ(-EINVAL, share(2, 1, 0)) << "they have none in common";
  EXPECT_EQ(-EINVAL, share(2, 5, 3)) << "an older svd has loaded it, without what hides";
  EXPECT_EQ(-EINVAL, share(3, 1, 3)) << "the source is deeper";
  EXPECT_EQ(-EEXIST, share(1, 2, 3)) << "it has a map";
  p_.activate();
  ASSERT_EQ(0, sv_volume_open(sv_volume_find(p_.pool, 2)));
  EXPECT_EQ(-EBUSY, share(2, 1, 3));
  sv_volume_close(sv_volume_find(p_.pool, 2));
}

TEST_F(CoreShare, extents_that_only_look_like_its_own_end_it_in_an_error) {
  sv_volume_info v{.id = 2, .layer = 5, .owned_since = 2, .flags = SV_VOLUME_CHAINED | SV_VOLUME_WHOLE, .size = 1000 * kExtent, .mapped = 0, .tiers = ~0ull};
  ASSERT_EQ(0, p_.command(SV_OP_VOLUME_CREATE, &v));
  ASSERT_EQ(0, share(2, 1, 1));
  EXPECT_EQ(-EUCLEAN, end(2));
  EXPECT_EQ(-EEXIST, tell(510, 511, 2)) << "another volume maps it";
  ASSERT_EQ(0, tell(510, 650, 2));
  EXPECT_EQ(-EINVAL, tell(510, 651, 2)) << "told twice";
  EXPECT_EQ(-EINVAL, tell(509, 651, 2)) << "out of order";
  EXPECT_EQ(-EUCLEAN, end(2));
  for (uint64_t index = 511; index <= 600; index++) ASSERT_EQ(0, tell(index, 0, 0));
  EXPECT_EQ(-EUCLEAN, end(2)) << "500 to 509 were passed over";
  drop(2);
  ASSERT_EQ(0, p_.command(SV_OP_VOLUME_CREATE, &v));
  EXPECT_EQ(0, tell(510, 650, 2)) << "it is nobody's again";
  drop(2);
  ASSERT_EQ(0, p_.command(SV_OP_VOLUME_CREATE, &v));
  ASSERT_EQ(0, share(2, 1, 1));
  for (const uint64_t index : newer(2, 1)) ASSERT_EQ(0, tell(index, index == 511 ? 652u : 0u, index == 511 ? 2u : 0u));
  EXPECT_EQ(0, end(2));
}

TEST_F(CoreShare, what_hides_of_another_is_told_too) {
  clone(2, 1000, 4);
  ASSERT_EQ(0, share(2, 1, 3));
  EXPECT_EQ(0, end(2)) << "of layer 3 they have all in common";
  clone(3, 1000, 4);
  ASSERT_EQ(0, share(3, 1, 2));
  for (uint64_t index = 520; index < 600; index++) ASSERT_EQ(0, tell(index, 0, 0, 3));
  EXPECT_EQ(-EUCLEAN, end(3)) << "at 600 something is hidden";
  ASSERT_EQ(0, tell(600, 0, 0, 3));
  EXPECT_EQ(0, end(3));
}

TEST_F(CoreShare, a_volume_that_is_being_cut_is_not_shared_into) {
  p_.activate();
  sv_volume* c = clone(2, 1000, 4);
  c->snapshotting = true;  // between the steps of SNAPSHOT
  EXPECT_EQ(-EBUSY, share(2, 1, 3));
  c->snapshotting = false;
  EXPECT_EQ(0, share(2, 1, 3));
}

TEST_F(CoreShare, one_dropped_before_its_end_frees_nothing) {
  sv_volume_info v{.id = 2, .layer = 5, .owned_since = 2, .flags = SV_VOLUME_CHAINED | SV_VOLUME_WHOLE, .size = 1000 * kExtent, .mapped = 0, .tiers = ~0ull};
  ASSERT_EQ(0, p_.command(SV_OP_VOLUME_CREATE, &v));
  ASSERT_EQ(0, share(2, 1, 1));
  ASSERT_EQ(0, tell(510, 650, 2));
  const uint32_t before = live();
  drop(2);
  EXPECT_EQ(before, live());
  drop(1);
  EXPECT_EQ(before - 80, live()) << "that had 80 of its own";
}

// The source may have grown since what both have.
TEST_F(CoreShare, what_lies_beyond_its_end_is_cleared) {
  sv_volume* c = clone(2, 520, 4);
  ASSERT_EQ(0, share(2, 1, 2));
  for (const uint64_t index : newer(2, 2)) ASSERT_EQ(0, tell(index, 0, 0));
  EXPECT_EQ(-EINVAL, tell(700, 650, 4)) << "beyond its end";
  EXPECT_EQ(-EINVAL, tell(1 << 18, 0, 0)) << "beyond its map";
  ASSERT_EQ(0, end(2));
  EXPECT_EQ(520u, c->mapped);
  for (uint64_t i = 520; i < 1000; i++) EXPECT_EQ(0u, sv_entry_extent(sv_map_lookup(c, i)));
}

TEST_F(CoreShare, a_map_that_is_not_shared_keeps_what_hides) {
  EXPECT_EQ(sv_entry_make(0, 3), sv_map_lookup(sv_volume_find(p_.pool, 1), 600));
  EXPECT_EQ(-EINVAL, tell(900, 0, 0, 1)) << "only where another volume's is replaced";
  EXPECT_EQ(-EEXIST, tell(600, 690, 3, 1));
  EXPECT_EQ(600u, sv_volume_find(p_.pool, 1)->mapped);
}

}  // namespace
