// SPDX-License-Identifier: GPL-2.0
// daemon/base's log: fields for the journal, and that nobody who reads it can make svd wait.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <set>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/base/journal_socket.h"
#include "daemon/base/log.h"
#include "daemon/base/log_budget.h"

namespace svd {
namespace {

// A socket where journald's would be, and a pipe as standard error.
class Log : public testing::Test {
 protected:
	void SetUp() override
	{
		char path[] = "/tmp/svctl-log-XXXXXX";
		directory_ = mkdtemp(path);
		socket_ = directory_ + "/socket";
		journal_.reset(socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0));
		sockaddr_un address{};
		address.sun_family = AF_UNIX;
		socket_.copy(address.sun_path, sizeof(address.sun_path) - 1);
		ASSERT_EQ(bind(journal_.get(), reinterpret_cast<sockaddr *>(&address), sizeof(address)), 0);
		int ends[2];
		ASSERT_EQ(pipe2(ends, O_NONBLOCK), 0);
		pipe_.reset(ends[0]);
		stderr_.reset(dup(STDERR_FILENO));
		dup2(ends[1], STDERR_FILENO);
		fcntl(STDERR_FILENO, F_SETFL, 0);	// who waits there waits for ever
		close(ends[1]);
		log::use_journal(socket_);
	}
	void TearDown() override
	{
		dup2(stderr_.get(), STDERR_FILENO);
		log::use_journal("/nowhere");
		std::filesystem::remove_all(directory_);
	}
	std::string entry()
	{
		char text[65536];
		const ssize_t n = recv(journal_.get(), text, sizeof(text), 0);
		return n < 0 ? "" : std::string(text, static_cast<size_t>(n));
	}
	std::string on_stderr()
	{
		std::string all;
		char text[65536];
		for (ssize_t n; (n = read(pipe_.get(), text, sizeof(text))) > 0;)
			all.append(text, static_cast<size_t>(n));
		return all;
	}

	std::string directory_, socket_;
	UniqueFd journal_, pipe_, stderr_;
};

TEST_F(Log, message_has_the_fields_of_its_scopes)
{
	{
		const log::Scope pool({"tank", "", ""});
		{
			const log::Scope member({"", "", "/dev/sdb"});
			log::warning(Id::kPoolFull, "no space on {}", "it");
		}
		EXPECT_EQ(entry(), "MESSAGE=no space on it [SV-POOL-FULL]\nPRIORITY=4\nSYSLOG_IDENTIFIER=svd\nSV_POOL=tank\n"
				   "SV_DEVICE=/dev/sdb\nSV_CODE=SV-POOL-FULL\nMESSAGE_ID=" + message_id(Id::kPoolFull) + "\n");
		const log::Scope volume({"", "train", ""});
		log::notice("created");
		EXPECT_EQ(entry(), "MESSAGE=created\nPRIORITY=5\nSYSLOG_IDENTIFIER=svd\nSV_POOL=tank\nSV_VOLUME=train\n");
	}
	log::info("idle");
	EXPECT_EQ(entry(), "MESSAGE=idle\nPRIORITY=6\nSYSLOG_IDENTIFIER=svd\n");
	EXPECT_EQ(on_stderr(), "");
}

TEST_F(Log, what_runs_by_turns_keeps_its_own_scope)
{
	const log::Scope mine({"tank", "", ""});
	log::About outer = log::swap_about({"other", "", ""});
	{
		const log::Scope inner({"", "v", ""});
		const log::About stopped = log::swap_about(outer);
		log::info("a");
		EXPECT_NE(entry().find("SV_POOL=tank\n"), std::string::npos);
		outer = log::swap_about(stopped);
		log::info("b");
		EXPECT_NE(entry().find("SV_POOL=other\nSV_VOLUME=v\n"), std::string::npos);
	}
	log::swap_about(outer);
	log::info("c");
	EXPECT_NE(entry().find("SYSLOG_IDENTIFIER=svd\nSV_POOL=tank\n"), std::string::npos);
}

TEST_F(Log, without_a_journal_it_goes_to_stderr)
{
	log::use_journal("/nowhere");
	log::error(Id::kPoolFull, "two\nlines");
	EXPECT_EQ(on_stderr(), "<3>two lines [SV-POOL-FULL]\n");
}

TEST_F(Log, waits_for_nobody_and_counts_what_nobody_took)
{
	const unsigned long before = log::dropped();
	const auto began = std::chrono::steady_clock::now();
	int written = 0;
	for (; log::dropped() < before + 100 && written < 100000; written++)
		log::notice("{} {}", written, std::string(written % 2 == 0 ? 10 : 3000, 'x'));
	EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(20));
	ASSERT_EQ(log::dropped(), before + 100);

	// All that was taken is there, by one way or the other, and the next message is followed by the count.
	int found = 0;
	while (!entry().empty())
		found++;
	const std::string text = on_stderr();
	found += static_cast<int>(std::count(text.begin(), text.end(), '\n'));
	EXPECT_EQ(found, written - 100);
	log::notice("back");
	EXPECT_EQ(entry(), "MESSAGE=back\nPRIORITY=5\nSYSLOG_IDENTIFIER=svd\n");
	EXPECT_EQ(entry(), "MESSAGE=100 earlier messages were dropped: nobody took them [SV-LOG-DROPPED]\nPRIORITY=4\n"
			   "SYSLOG_IDENTIFIER=svd\nSV_CODE=SV-LOG-DROPPED\nMESSAGE_ID=" + message_id(Id::kLogDropped) + "\n");
	log::notice("again");
	EXPECT_EQ(entry(), "MESSAGE=again\nPRIORITY=5\nSYSLOG_IDENTIFIER=svd\n");
	EXPECT_EQ(entry(), "");
}

TEST_F(Log, reader_of_stderr_that_has_gone_ends_nobody)
{
	log::use_journal("/nowhere");
	pipe_.reset();
	const unsigned long before = log::dropped();
	log::notice("to nobody");	// a SIGPIPE would be the end of this
	EXPECT_EQ(log::dropped(), before + 1);
}

TEST(LogBudget, some_at_once_then_one_now_and_then_with_the_number_of_those_left_out)
{
	LogBudget budget;
	LogBudget::Clock::time_point now(std::chrono::hours(100));
	for (int i = 0; i < LogBudget::kMost; i++)
		EXPECT_EQ(budget.take(now), 0u);
	for (int i = 0; i < 7; i++)
		EXPECT_EQ(budget.take(now), std::nullopt);
	now += LogBudget::kRefill;
	EXPECT_EQ(budget.take(now), 7u);
	EXPECT_EQ(budget.take(now), std::nullopt);
	now += 1000 * LogBudget::kRefill;
	EXPECT_EQ(budget.take(now), 1u);
	for (int i = 1; i < LogBudget::kMost; i++)
		EXPECT_EQ(budget.take(now), 0u);
	EXPECT_EQ(budget.take(now), std::nullopt);
}

TEST(JournalEntry, value_with_lines_makes_no_other_field)
{
	JournalEntry entry;
	entry.add("SV_POOL", "a\nPRIORITY=0");
	entry.add("SV_VOLUME", "");
	EXPECT_EQ(entry.bytes(), std::string("SV_POOL\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\n", 29));
}

TEST(JournalSocket, journal_is_known_by_device_and_inode_of_its_stream)
{
	struct stat st {};
	ASSERT_EQ(fstat(STDERR_FILENO, &st), 0);
	const std::string stream = fmt::format("{}:{}", st.st_dev, st.st_ino);
	EXPECT_TRUE(leads_to_journal(STDERR_FILENO, stream.c_str()));
	EXPECT_FALSE(leads_to_journal(STDERR_FILENO, (stream + "0").c_str()));
	EXPECT_FALSE(leads_to_journal(STDERR_FILENO, nullptr));
	EXPECT_FALSE(leads_to_journal(-1, stream.c_str()));
	EXPECT_FALSE(JournalSocket::open(std::string(200, 'x')));
}

TEST(Codes, message_ids_are_distinct_and_never_change)
{
	std::set<std::string> ids;
	for (const CodeText &text : all_codes()) {
		EXPECT_EQ(message_id(text.id).size(), 32u);
		EXPECT_TRUE(ids.insert(message_id(text.id)).second) << text.code;
	}
	EXPECT_EQ(message_id(Id::kPoolFull), "2d8c6f1e7b428c55bd1d4b0a74ca3f79");
}

}	// namespace
}	// namespace svd
