// SPDX-License-Identifier: GPL-2.0
// What check() finds in a catalogue with snapshots, and its dump and restore.
#include <gtest/gtest.h>

#include "daemon/catalogue/catalogue.h"
#include "tests/support/snapshot_bench.h"

namespace svd {

namespace {

std::string lines_of(Catalogue &c)
{
	std::string all;
	for (const auto lines = c.check().value(); const std::string &line : lines)
		all += line + "\n";
	return all;
}

}  // namespace

TEST(Check, finds_every_inconsistency_of_layers)
{
	const auto findings = [](const std::string &sql) {
		SnapshotBench b;
		const VolumeRow v = b.volume("a");
		b.must({b.map(v, 0, 1), b.map(v, 1, 2)});
		b.snapshot(v, "s");
		b.must({b.over(v, 0, 3, 1)});
		b.snapshot(v, "t");
		b.must({b.over(v, 0, 4, 3)});
		b.damage(sql);
		return lines_of(*b.c);
	};
	const std::pair<const char *, const char *> cases[] = {
		{"SELECT 1", ""},
		{"UPDATE layers SET parent = 9 WHERE layer = 2", "layer 2: its parent 9 is missing\n"},
		{"UPDATE layers SET parent = 3 WHERE layer = 2", "layer 2: it begins with 2, not above its parent 3\n"},
		{"UPDATE layers SET low = 1 WHERE layer = 2", "layer 2: it begins with 1, not above its parent 1\n"},
		{"UPDATE layers SET low = 3 WHERE layer = 2", "layer 2: its number, or its lowest, 3, cannot be\n"},
		{"UPDATE layers SET volume = 9 WHERE layer = 2", "snapshot 3: its layer 2 is missing\n"},
		{"UPDATE layers SET volume = 9 WHERE layer = 3", "volume 1: its head layer 3 is missing\n"},
		{"UPDATE pool SET next_layer = 3", "layer 3: its number, or its lowest, 3, cannot be\n"},
		{"UPDATE pool SET next_volume = 3", "snapshot 3: its number or layer is still to be given\n"},
		{"UPDATE pool SET next_volume = 1", "volume 1: its number is still to be given\n"},
		{"UPDATE volumes SET owned_since = 2", "volume 1: it owns from layer 2 on, its head 3 begins with 3\n"},
		{"UPDATE volumes SET layer = 2, owned_since = 2", "layer 2: more than one volume or snapshot has it\n"},
		{"UPDATE volumes SET layer = 2, owned_since = 2", "layer 3: it lies above 2, which a volume writes\n"},
		{"DELETE FROM snapshots WHERE id = 2", "layer 1: no volume and no snapshot has it\n"},
		{"UPDATE snapshots SET id = 1 WHERE id = 2", "snapshot 1: a volume has its number\n"},
		{"UPDATE snapshots SET layer = 1", "layer 1: more than one volume or snapshot has it\n"},
		{"UPDATE snapshots SET name = '-' WHERE id = 2", "snapshot 2: cannot use '-' as name of a snapshot"},
		{"UPDATE snapshots SET state = 7 WHERE id = 2", "snapshot 2: there is no state 7\n"},
		{"UPDATE snapshots SET volume = 9 WHERE id = 2", "snapshot 2: its volume 9 is not there, or is being deleted\n"},
		{"UPDATE volumes SET state = 1", "snapshot 3: its volume 1 is not there, or is being deleted\n"},
		{"UPDATE snapshots SET state = 1 WHERE id = 2", "snapshot 2: volume 1 does not write layer 1\n"},
		{"UPDATE snapshots SET next_layer = 3 WHERE id = 2", "snapshot 2: layer 3 does not lie above its layer 1\n"},
		{"UPDATE partials SET parent = 4 WHERE extent = 4", "partial extent 4: it is among its own parents\n"},
		{"UPDATE partials SET parent = 4 WHERE extent = 3", "it is among its own parents\n"},
		{"UPDATE partials SET parent = 9 WHERE extent = 4", "partial extent 4: its parent 9 is not there\n"},
		{"UPDATE partials SET parent = 4 WHERE extent = 3",
		 "layer 3 index 0: extent 4 may be written, and is a parent\n"},
		{"INSERT INTO freeing (extent, gen) VALUES (2, 2)", "extent 2: the kernel is to free it, and it is there\n"},
		{"DELETE FROM map_pages WHERE key >> 31 = 2", "extent 3: no volume maps it\n"},
		{"UPDATE map_pages SET key = (7 << 31) WHERE key >> 31 = 2", "belongs to layer 7, which no volume has\n"},
		// The flags of extents 1, 2 ... are bytes 15, 23 ... of their page.
		{"UPDATE extent_pages SET data = substr(data, 1, 15) || x'05' || substr(data, 17)",
		 "extent 1: it is marked as an orphan, and a layer maps it\n"},
		{"UPDATE extent_pages SET data = substr(data, 1, 40) || x'0900000005000005' || substr(data, 49)",
		 "extent 5: no layer maps it, and no partial extent has it as parent\n"},
	};
	for (const auto &[sql, line] : cases) {
		const std::string all = findings(sql);
		if (*line == 0)
			EXPECT_EQ(all, "");
		else
			EXPECT_NE(all.find(line), std::string::npos) << sql << "\n" << all;
	}
}

TEST(Dump, of_snapshots_is_an_identity)
{
	SnapshotBench b;
	const VolumeRow v = b.volume("a");
	b.must({b.map(v, 0, 1), b.map(v, 1, 2), b.map(v, 2, 9)});
	const SnapshotRow s = b.snapshot(v, "s");
	b.must({b.over(v, 0, 3, 1), b.hole(v, 1), b.hole(v, 2)});
	const SnapshotRow t = b.snapshot(v, "t");
	b.clone("c", t);
	b.must({b.over(v, 0, 4, 3)});
	b.remove(s);
	b.c->begin_delete_snapshot(t.id).ok();
	ASSERT_TRUE(b.c->set_held(b.snapshot(v, "held").id, true).ok());
	const SnapshotRow half = b.begin(v, "half");
	b.must({layer_rec(half)});
	b.begin(b.volume("b"), "wanted");
	const std::string text = b.dump();
	for (const char *line : {"snapshot 3 1 t 1099511627776 deleting 2 1 0 0 1700000000\nmap 3 0 1 0 3 3 3\n",
				 "snapshot 5 1 held 1099511627776 done 3 3 2 0 1700000000 held\n",
				 "snapshot 6 1 half 1099511627776 pending 5 5 3 6 1700000000\n",
				 "volume 4 c 1099511627776 active 4 4 0 0 18446744073709551615 over 2\n",
				 "wanted 8 7 wanted 1099511627776 7 8 1700000000\n", "orphan 1 1 0 1\n",
				 "partial 4 0000000000000000000000000000000000000000000000000000000000000000 3\n",
				 "freeing 2 2\nfreeing 9 9\n"})
		EXPECT_NE(text.find(line), std::string::npos) << line << text;
	b.create_anew();
	const Status restored = b.restore(text);
	ASSERT_TRUE(restored.ok()) << restored.error().message();
	EXPECT_EQ(b.dump(), text);
	expect_sound(*b.c);
}

TEST(Dump, bad_text_of_snapshots_is_refused_with_its_line)
{
	SnapshotBench b;
	const std::string before = b.dump();
	const std::string head = "svctl-dump 1\nsnapshot 2 1 s 1048576 done 1 1 0 0 7\nvolume 1 a 1048576 active 3 3 0 0 0 over 1\n"
				 "map 2 0 1 0 0 1 1\nmap 1 0 1 0 1 2 1\norphan 3 1 0 2\n";
	const std::string bits(64, '0');
	const std::string good = head + "wanted 9 1 w 1048576 3 4 7\npartial 2 " + bits + " 3\nfreeing 9 1\nend\n";
	for (const std::string line :
	     {"snapshot 2 1 t 1048576 done 2 2 0 0 7", "snapshot 4 1 s 1048576 done 2 2 0 0 7",
	      "snapshot 4 1 t 1048576 done 1 1 0 0 7", "snapshot 4 1 t 1048576 done 2 2 2 0 7",
	      "snapshot 4 1 t 1048576 done 2 1 1 0 7", "snapshot 4 1 t 1048576 done 5 5 4 0 7",
	      "snapshot 4 1 t 1048576 gone 2 2 0 0 7", "snapshot 4 1 t 1048576 done 2 2 0 0 7 hold",
	      "snapshot 4 1 a@b 1048576 done 2 2 0 0 7", "snapshot 4 1 t 1000 done 2 2 0 0 7",
	      "snapshot 0 1 t 1048576 done 2 2 0 0 7", "snapshot 4 1 t 1048576 done 2 0 0 0 7",
	      "volume 4 b 1048576 active 4 4 0 0 0 over 2", "volume 4 b 1048576 active 4 4 0 0 0 over",
	      "volume 4 b 1048576 active 4 1 0 0 0 over 1", "volume 4 b 1048576 active 4 4 0 0 0 under 1",
	      "wanted 4 1 w 1048576 2 5 7", "wanted 4 1 s 1048576 3 5 7", "wanted 4 9 w 1048576 3 5 7",
	      "wanted 2 1 w 1048576 3 5 7", "wanted 4 1 w 1048576 3 3 7", "map 2 1 1 0 5 9 1", "orphan 1 1 0 9",
	      "orphan 0 1 0 9", "orphan 9 1 0 0", "orphan 9 1 7 9", "partial 2 00 3", "freeing 3 1", "freeing 0 1", "end"}) {
		const Status s = b.restore(head + line + "\n");
		ASSERT_FALSE(s.ok()) << line;
		EXPECT_EQ(s.error().code, Code::kUsage) << line;
		EXPECT_NE(s.error().message().find("line 7"), std::string::npos) << line << ": " << s.error().message();
		EXPECT_EQ(b.dump(), before);
	}
	// What is seen at the end only.
	for (const std::string lines :
	     {"snapshot 4 9 t 1048576 done 2 2 0 0 7", "snapshot 4 2 t 1048576 done 2 2 0 0 7",
	      "snapshot 4 9 t 1048576 done 2 2 0 0 7\nvolume 9 b 1048576 deleting 5 5 0 0 0",
	      "snapshot 4 1 t 1048576 pending 2 2 0 0 7", "snapshot 4 1 t 1048576 pending 2 2 0 6 7",
	      "snapshot 4 1 t 1048576 pending 2 2 0 3 7", "snapshot 4 1 t 1048576 done 2 2 0 3 7",
	      "wanted 4 1 t 1048576 3 5 7\nvolume 9 b 1048576 active 5 5 0 0 0"}) {
		const Status s = b.restore(head + lines + "\npartial 2 " + bits + " 3\nend\n");
		ASSERT_FALSE(s.ok()) << lines;
		EXPECT_EQ(s.error().code, Code::kUsage) << lines;
		EXPECT_NE(s.error().message().find("line 7:"), std::string::npos) << lines << ": " << s.error().message();
	}
	for (const std::string parent : {"2", "9", "x"}) {
		std::istringstream in(head + "partial 2 " + bits + " " + parent + "\n");
		EXPECT_EQ(b.c->restore(in).error().code, Code::kUsage) << parent;
	}
	EXPECT_TRUE(b.restore(good).ok());
	expect_sound(*b.c);
}

}  // namespace svd
