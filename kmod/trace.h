/* SPDX-License-Identifier: GPL-2.0 */
/* Tracepoints, group "sv". Fields are what one needs to follow one bio or one commit, no more. */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM sv

#if !defined(SV_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define SV_TRACE_H

#include <linux/tracepoint.h>

/* The answer to one plan: op is the bio's, plan an enum sv_plan, sector lies on the member. */
TRACE_EVENT(sv_map,
	TP_PROTO(u32 volume, u32 op, u64 block, u32 blocks, int plan, u32 member, u64 sector),
	TP_ARGS(volume, op, block, blocks, plan, member, sector),
	TP_STRUCT__entry(
		__field(u64, block)
		__field(u64, sector)
		__field(u32, volume)
		__field(u32, op)
		__field(u32, blocks)
		__field(u32, member)
		__field(int, plan)
	),
	TP_fast_assign(
		__entry->block = block;
		__entry->sector = sector;
		__entry->volume = volume;
		__entry->op = op;
		__entry->blocks = blocks;
		__entry->member = member;
		__entry->plan = plan;
	),
	TP_printk("volume=%u op=%u block=%llu blocks=%u plan=%d member=%u sector=%llu",
		  __entry->volume, __entry->op, __entry->block, __entry->blocks, __entry->plan,
		  __entry->member, __entry->sector)
);

/* A bio goes to the worker. */
TRACE_EVENT(sv_defer,
	TP_PROTO(u32 volume, u32 op, u64 sector, u32 bytes),
	TP_ARGS(volume, op, sector, bytes),
	TP_STRUCT__entry(
		__field(u64, sector)
		__field(u32, volume)
		__field(u32, op)
		__field(u32, bytes)
	),
	TP_fast_assign(
		__entry->sector = sector;
		__entry->volume = volume;
		__entry->op = op;
		__entry->bytes = bytes;
	),
	TP_printk("volume=%u op=%u sector=%llu bytes=%u",
		  __entry->volume, __entry->op, __entry->sector, __entry->bytes)
);

/* The flush of a member has ended. */
TRACE_EVENT(sv_flush,
	TP_PROTO(u32 member, bool failed),
	TP_ARGS(member, failed),
	TP_STRUCT__entry(
		__field(u32, member)
		__field(bool, failed)
	),
	TP_fast_assign(
		__entry->member = member;
		__entry->failed = failed;
	),
	TP_printk("member=%u failed=%d", __entry->member, __entry->failed)
);

/* A batch lies in the ring, on the members of ok. */
TRACE_EVENT(sv_batch,
	TP_PROTO(u64 off, u32 len, u64 ok),
	TP_ARGS(off, len, ok),
	TP_STRUCT__entry(
		__field(u64, off)
		__field(u64, ok)
		__field(u32, len)
	),
	TP_fast_assign(
		__entry->off = off;
		__entry->ok = ok;
		__entry->len = len;
	),
	TP_printk("off=%llu len=%u ok=%#llx", __entry->off, __entry->len, __entry->ok)
);

/* A FOLD or a MOVE has ended: extents that it is done with, copies that failed, members that could not be flushed. */
TRACE_EVENT(sv_copied,
	TP_PROTO(bool move, u32 done, u32 failed, u64 not_flushed),
	TP_ARGS(move, done, failed, not_flushed),
	TP_STRUCT__entry(
		__field(u64, not_flushed)
		__field(u32, done)
		__field(u32, failed)
		__field(bool, move)
	),
	TP_fast_assign(
		__entry->not_flushed = not_flushed;
		__entry->done = done;
		__entry->failed = failed;
		__entry->move = move;
	),
	TP_printk("%s done=%u failed=%u not_flushed=%#llx", __entry->move ? "move" : "fold", __entry->done,
		  __entry->failed, __entry->not_flushed)
);

/* enum sv_mode, old and new. */
TRACE_EVENT(sv_mode,
	TP_PROTO(int from, int to),
	TP_ARGS(from, to),
	TP_STRUCT__entry(
		__field(int, from)
		__field(int, to)
	),
	TP_fast_assign(
		__entry->from = from;
		__entry->to = to;
	),
	TP_printk("from=%d to=%d", __entry->from, __entry->to)
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
