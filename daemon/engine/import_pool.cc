// SPDX-License-Identifier: GPL-2.0
// export-pool and import-pool: a pool goes to another host, or gets another name. What a crash between two steps leaves
// is said in holder.cc; the kill points are where tests try it.
#include <fmt/core.h>

#include "daemon/base/log.h"
#include "daemon/engine/engine.h"
#include "daemon/engine/kill_point.h"

namespace svd {

// Killed before the first label is written, svd brings the pool up again; after it, the pool is exported, and the
// command may be repeated for the rest of the labels.
Result<Json> Engine::export_pool(const std::string &name, bool dry_run)
{
	rescan();
	SV_ASSIGN(Pool *const pool, find_pool(name));
	SV_TRY(refuse_job(*pool, "export"));
	const Hold hold = hold_of(*pool);
	if (hold == Hold::kElsewhere || hold == Hold::kDisputed)
		return Error{Code::kBusy, "export pool", name, held_by(*pool), how_to_take(*pool)};
	if (pool->handed_over({}, pool->name()))
		return done("no change", fmt::format("pool {}: no change", name));
	SV_TRY(pool->refuse_hand_over("export pool"));
	if (pool->up()) {
		SV_TRY(pool_to_change(pool->uuid().str()));
		SV_TRY(pool->refuse_open_volumes("export pool"));
	}
	if (dry_run)
		return done("dry run", fmt::format("pool {} would be exported", name));
	SV_TRY(pool->deactivate());
	kill_point("export-down");
	SV_TRY(pool->hand_over({}, pool->name()));
	pool->clear_problem();
	keep_down(pool->uuid(), false);
	log::notice("pool {} is exported", pool->name());
	return done("exported", fmt::format("pool {} is exported: its devices may be taken to another host", name));
}

// A pool is named among those that another host holds or has exported first: one of the name may be up here.
Result<Pool *> Engine::find_to_import(const std::string &name, const std::string &rename)
{
	const auto others = pools_named(name, [this](const Pool &pool) {
		return pool.down() && hold_of(pool) != Hold::kHere; });
	if (!others.empty())
		return choose_pool(name, others);
	auto found = find_pool(name);
	if (found.ok() || found.error().code != Code::kNotFound || rename.empty())
		return found;
	const auto renamed = pools_named(rename, [this](const Pool &pool) { return hold_of(pool) == Hold::kHere; });
	return renamed.size() == 1 ? Result<Pool *>(renamed[0]) : found;	// done already
}

Status Engine::refuse_name(const char *attempt, const Pool &pool, const std::string &name) const
{
	const Pool *const other = namesake(pool, name);
	if (other == nullptr)
		return {};
	return Error{Code::kBusy, attempt, pool.uuid().str(), fmt::format("this host has another pool named {}", name),
		     fmt::format("svctl import-pool {} --rename NEW", pool.uuid().str())};
}

// Why the pool cannot be had, or not without --force. What is up is taken only where its labels name another host: the
// kernel went on while this host's machine-id, or somebody with --force, changed that.
Status Engine::refuse_import(const Pool &pool, const std::string &to, bool force) const
{
	const Hold hold = hold_of(pool);
	if ((hold == Hold::kElsewhere || hold == Hold::kDisputed) && !force)
		return Error{Code::kBusy, "import pool", pool.name(), held_by(pool), how_to_take(pool)};
	if (pool.up() && (to != pool.name() || pool.state() == PoolState::kReadOnly))
		return Error{Code::kBusy, "import pool", pool.name(), "it is up",
			     "svctl deactivate " + reference(pool) + " first"};
	SV_TRY(refuse_no_host("import pool", pool.name()));
	SV_TRY(refuse_name("import pool", pool, to));
	return pool.refuse_hand_over("import pool");
}

Status Engine::refuse_no_host(const char *attempt, const std::string &name) const
{
	if (!options_.host.id.is_zero())
		return {};
	return Error{Code::kMissingFeature, attempt, name, "this host has no id: /etc/machine-id is missing or empty",
		     kHostNeedsId}.with(Id::kHostUnknown);
}

Result<Json> Engine::import_pool(const std::string &name, const std::string &rename, bool force, bool dry_run, Job *job)
{
	if (!rename.empty())
		SV_TRY(check_pool_name(rename));
	rescan();
	SV_ASSIGN(Pool *const pool, find_to_import(name, rename));
	SV_TRY(refuse_job(*pool, "import"));
	const Hold hold = hold_of(*pool);
	const std::string to = rename.empty() ? pool->name() : rename;
	if (pool->up() && hold == Hold::kHere && to == pool->name())
		return done("no change", fmt::format("pool {}: no change", to));
	SV_TRY(refuse_import(*pool, to, force));
	SV_TRY(kernel_.probe());
	if (to != pool->name())
		SV_TRY(pool->refuse_rename(to));
	if (dry_run) {
		Json json = done("dry run", fmt::format("pool {} would be imported", to));
		if (hold == Hold::kElsewhere || hold == Hold::kDisputed)
			json["destroys"] = {fmt::format("all data of pool {}, if another host still uses it: {}. Two hosts "
							"that write to a pool destroy it", pool->name(), held_by(*pool))};
		return json;
	}
	return no_longer_down(*pool, [&] { return take_pool(*pool, to, job); });
}

// Killed before the first label is written, svd leaves the pool as it was; after it, this host holds the pool and svd
// brings it up when it is back. A pool that does not come up is given back.
Result<Json> Engine::take_pool(Pool &pool, const std::string &name, Job *job)
{
	const Holder before = pool.holder();
	const std::string called = pool.name();
	const bool ours = pool.handed_over(options_.host, name);
	if (!ours)
		SV_TRY(pool.hand_over(options_.host, name));
	kill_point("import-held");
	log::notice("pool {} ({}) is held by this host now; before: {}", name, pool.uuid().str(),
		    before.host.id.is_zero() ? "exported" : before.host.str());
	const Claim claim(pool, job);
	const Status up = pool.activate({}, pace_of(job));
	if (!up.ok() && !ours && !before.rival)
		give_pool_back(pool, before.host, called);
	SV_TRY(up);
	return done("imported", fmt::format("pool {} is imported and active", name));
}

// The labels say again what they said before it was imported; not while the kernel may have the pool. Of two hosts that
// had taken it neither has it back.
void Engine::give_pool_back(Pool &pool, const Host &host, const std::string &name)
{
	const auto running = kernel_.running(pool.uuid());
	if (!running.ok() || running.value().exists)
		return;
	const Status given = pool.hand_over(host, name);
	if (!given.ok()) {
		log::error(given.error().id(), "pool {}: {}", pool.name(), given.error().message());
		return;
	}
	pool.clear_problem();
	log::notice("pool {} ({}) did not come up, and is given back: {}", name, pool.uuid().str(),
		    host.id.is_zero() ? "exported" : "to host " + host.str());
}

}	// namespace svd
