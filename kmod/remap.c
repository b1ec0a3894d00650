// SPDX-License-Identifier: GPL-2.0
/*
 * A bio's way through a volume. sv_volume_map() runs in the submitter's context and never sleeps; sv_io_run() does
 * the same from the pool's worker (defer.c), piece by piece; sv_volume_end_io() runs in any context, once for each
 * time the bio was sent down, and once more after a commit or the worker ended it.
 *
 * Order kept: plan and srcu_down_read() of the member in one RCU section [I2]; sv_write_done() before anything goes
 * up [I3] [I11]; srcu_up_read() exactly once for each plan that said REMAP.
 */
#include <linux/device-mapper.h>
#include <linux/ktime.h>

#include "sv.h"
#include "trace.h"

static struct sv_io *sv_io_of(struct bio *bio)
{
	return dm_per_bio_data(bio, sizeof(struct sv_io));
}

static struct bio *sv_bio_of(struct sv_io *io)
{
	return dm_bio_from_per_bio_data(io, sizeof(struct sv_io));
}

static enum sv_write_class sv_class_of(struct bio *bio)
{
	if (bio->bi_opf & (REQ_META | REQ_PRIO))
		return SV_WRITE_META;
	return bio->bi_opf & REQ_FUA ? SV_WRITE_FUA : SV_WRITE_NORMAL;
}

/* Of what is not a flush. */
static __always_inline enum sv_io_class sv_io_class_of(enum req_op op)
{
	static_assert((__force u32)REQ_OP_READ == SV_IO_READ && (__force u32)REQ_OP_WRITE == SV_IO_WRITE);

	return min_t(u32, (__force u32)op, SV_IO_DISCARD);
}

static __always_inline enum sv_plan sv_io_ask(struct sv_io *io, struct bio *bio, enum req_op op, u64 block, u32 blocks)
{
	struct sv_volume *v = io->target->vol->core;

	switch (op) {
	case REQ_OP_READ:
		return sv_plan_read(v, block, blocks, &io->piece);
	case REQ_OP_WRITE:
		return sv_plan_write(v, block, blocks, sv_class_of(bio), &io->piece);
	default:
		return sv_plan_discard(v, block, blocks, op == REQ_OP_WRITE_ZEROES, &io->piece);
	}
}

/*
 * Plans what begins at @iter. After REMAP the member's SRCU is held. Inline in the way of each read and each write,
 * where @op is known: nothing is asked of it there.
 */
static __always_inline enum sv_plan sv_io_plan(struct sv_io *io, struct bio *bio, enum req_op op,
					       const struct bvec_iter *iter)
{
	u64 block = iter->bi_sector / SV_BLOCK_SECTORS;		/* the target begins at 0: sv_vtarget_check() */
	u32 blocks = iter->bi_size >> SV_BLOCK_SHIFT;
	enum sv_plan plan;

	rcu_read_lock();
	plan = sv_io_ask(io, bio, op, block, blocks);
	/* Only reads are sent to members of a read-only pool, so the plan holds nothing that must be given back. */
	if (plan == SV_PLAN_REMAP && unlikely(!io->target->pool->disks[io->piece.member]->dev.bdev))
		plan = SV_PLAN_IOERR;
	if (plan == SV_PLAN_REMAP) {
		struct sv_disk *d = io->target->pool->disks[io->piece.member];

		io->srcu_idx = srcu_down_read(&d->srcu);
		__release(&d->srcu);	/* as sparse sees it: it goes over to the io */
		io->planned = true;
		io->row = sv_latency_row_of(&io->target->vol->latency, sv_io_class_of(op), d->tier);
		io->write = op != REQ_OP_READ;
	}
	rcu_read_unlock();
	if (trace_sv_map_enabled())
		trace_sv_map(io->target->vol->id, (__force u32)op, block, blocks, plan, io->piece.member,
			     io->piece.sector);
	return plan;
}

static void sv_io_redirect(struct sv_io *io, struct bio *bio)
{
	bio_set_dev(bio, io->target->pool->disks[io->piece.member]->dev.bdev);
	bio->bi_iter.bi_sector = io->piece.sector;
}

/* Of the member. Readahead that fails is nobody's error: md's RAID 5 fails it where it would have to wait. */
static bool sv_io_is_error(struct sv_io *io, blk_status_t status)
{
	return status != BLK_STS_OK && status != BLK_STS_AGAIN && status != BLK_STS_NOTSUPP &&
	       !(sv_bio_of(io)->bi_opf & REQ_RAHEAD);
}

/* The piece has ended: what the plan took is given back, first the space, then the member. */
static __always_inline void sv_io_written(struct sv_io *io, blk_status_t status)
{
	io->planned = false;
	if (io->write)
		sv_write_done(io->target->vol->core, &io->piece, status == BLK_STS_OK);
}

static __always_inline void sv_io_release(struct sv_io *io, blk_status_t status)
{
	struct sv_kpool *kp = io->target->pool;
	struct sv_disk *d = kp->disks[io->piece.member];

	sv_io_written(io, status);
	__acquire(&d->srcu);	/* from the io */
	srcu_up_read(&d->srcu, io->srcu_idx);
	if (unlikely(sv_io_is_error(io, status)))
		atomic64_inc(&d->errors);
	if (io->piece.resv)		/* otherwise there is nothing to record */
		sv_commit_arm(kp);
}

/* Ends the bio, through sv_volume_end_io(), where it may still wait for a commit. */
void sv_io_end(struct sv_io *io, blk_status_t status)
{
	struct bio *bio = sv_bio_of(io);

	io->iter.bi_size = 0;
	bio->bi_status = status;
	bio_endio(bio);
}

static blk_status_t sv_plan_status(enum sv_plan plan)
{
	return plan == SV_PLAN_NOSPC ? BLK_STS_NOSPC : BLK_STS_IOERR;
}

/* ---- in the submitter's context ---- */

static void sv_io_wait_done(struct sv_waiter *w)
{
	struct sv_io *io = container_of(w, struct sv_io, waiter);

	io->committed = true;
	sv_io_end(io, errno_to_blk_status(w->ticket.error));
}

/* Not inline, as all in map() and end_io() that few bios need: the others then save fewer registers. */
static noinline int sv_map_flush(struct sv_io *io)
{
	struct sv_kpool *kp = io->target->pool;	/* dm holds the table as long as map() runs, and that holds kp */
	u32 member;

	io->row = SV_IO_FLUSH;
	if (!sv_flush_ticket_begin(io->target->vol->core, &io->waiter.ticket, &member)) {
		io->committed = true;
		sv_io_end(io, BLK_STS_OK);
	} else if (member < SV_MAX_MEMBERS) {
		sv_commit_flush(kp->disks[member]);
	} else {
		sv_commit_queue(kp);
	}
	return DM_MAPIO_SUBMITTED;		/* io may be gone */
}

static noinline int sv_map_defer(struct sv_io *io, struct bio *bio)
{
	if (bio->bi_opf & REQ_NOWAIT) {
		sv_defer_refill(io->target->pool);	/* what it lacks may be that; the worker never sees it */
		bio_wouldblock_error(bio);
		return DM_MAPIO_SUBMITTED;
	}
	io->iter = bio->bi_iter;
	trace_sv_defer(io->target->vol->id, (__force u32)bio_op(bio), io->iter.bi_sector, io->iter.bi_size);
	sv_defer_io(io->target->pool, io);
	return DM_MAPIO_SUBMITTED;
}

static int sv_map_no_space(struct sv_io *io, struct bio *bio)
{
	struct sv_kpool *kp = io->target->pool;

	sv_kpool_tell(kp);
	if (sv_pool_no_space_ms(kp->core))
		return sv_map_defer(io, bio);
	sv_io_end(io, BLK_STS_NOSPC);
	return DM_MAPIO_SUBMITTED;
}

static int sv_map_zero(struct sv_io *io, struct bio *bio)
{
	zero_fill_bio(bio);
	sv_io_end(io, BLK_STS_OK);
	return DM_MAPIO_SUBMITTED;
}

static void sv_map_accept(struct sv_io *io, struct bio *bio)
{
	u32 sectors = io->piece.blocks * SV_BLOCK_SECTORS;

	if (sectors >= bio_sectors(bio))
		return;
	dm_accept_partial_bio(bio, sectors);
	io->bytes = sectors << SECTOR_SHIFT;
}

/* What is not simply sent to where it lies. */
static noinline int sv_map_rest(struct sv_io *io, struct bio *bio, enum sv_plan plan)
{
	/* Somebody else may have made the extent meanwhile: one more look is cheaper than the worker. */
	if (plan == SV_PLAN_DEFER)
		plan = sv_io_plan(io, bio, bio_op(bio), &bio->bi_iter);
	if (io->piece.resv)		/* it may have taken from the reserves; the worker fills them by itself */
		sv_defer_refill(io->target->pool);
	switch (plan) {
	case SV_PLAN_REMAP:
		sv_map_accept(io, bio);
		sv_io_redirect(io, bio);
		return DM_MAPIO_REMAPPED;
	case SV_PLAN_ZERO:
		sv_map_accept(io, bio);
		return sv_map_zero(io, bio);
	case SV_PLAN_DEFER:
	case SV_PLAN_HELD:
	case SV_PLAN_RING:
		return sv_map_defer(io, bio);
	case SV_PLAN_NOSPC:
		return sv_map_no_space(io, bio);
	default:
		sv_io_end(io, sv_plan_status(plan));
		return DM_MAPIO_SUBMITTED;
	}
}

static __always_inline int sv_map_data(struct sv_io *io, struct bio *bio, enum req_op op)
{
	enum sv_plan plan = sv_io_plan(io, bio, op, &bio->bi_iter);

	if (unlikely(plan != SV_PLAN_REMAP || io->piece.resv ||
		     io->piece.blocks != bio->bi_iter.bi_size >> SV_BLOCK_SHIFT))
		return sv_map_rest(io, bio, plan);
	sv_io_redirect(io, bio);
	return DM_MAPIO_REMAPPED;
}

static noinline int sv_map_nothing(struct sv_io *io)
{
	sv_io_end(io, BLK_STS_OK);
	return DM_MAPIO_SUBMITTED;
}

/* What is not set here is set before it is looked at: clearing all of it would cost as much as finding the extent. */
static void sv_io_init(struct sv_io *io, struct dm_target *ti, struct bio *bio)
{
	io->target = ti->private;
	io->iter.bi_size = 0;
	io->piece = (struct sv_piece){};
	io->waiter.done = sv_io_wait_done;
	io->start = ktime_get_ns();
	io->bytes = bio->bi_iter.bi_size;
	io->row = sv_io_class_of(bio_op(bio));
	io->planned = false;
	io->write = false;
	io->fua = bio->bi_opf & REQ_FUA;
	io->pieces = false;
	io->committed = false;
	io->waits = false;
	io->zero_by_hand = false;
}

int sv_volume_map(struct dm_target *ti, struct bio *bio)
{
	struct sv_io *io = sv_io_of(bio);

	sv_io_init(io, ti, bio);
	if (bio->bi_opf & REQ_PREFLUSH)
		return sv_map_flush(io);
	if (unlikely((bio->bi_iter.bi_sector | bio_sectors(bio)) % SV_BLOCK_SECTORS))
		return DM_MAPIO_KILL;
	if (unlikely(!bio->bi_iter.bi_size))
		return sv_map_nothing(io);
	switch (bio_op(bio)) {
	case REQ_OP_READ:
		return sv_map_data(io, bio, REQ_OP_READ);
	case REQ_OP_WRITE:
		return sv_map_data(io, bio, REQ_OP_WRITE);
	case REQ_OP_DISCARD:
	case REQ_OP_WRITE_ZEROES:
		io->pieces = true;
		return sv_map_defer(io, bio);
	default:
		return DM_MAPIO_KILL;
	}
}

/* ---- in the worker ---- */

/* Sends the planned piece. */
static void sv_io_send(struct sv_io *io, struct bio *bio)
{
	struct sv_disk *d = io->target->pool->disks[io->piece.member];
	u32 bytes = io->piece.blocks << SV_BLOCK_SHIFT;

	if (bytes < io->iter.bi_size)
		io->pieces = true;
	io->waits = false;
	io->zero_by_hand = bio_op(bio) == REQ_OP_WRITE_ZEROES && !bdev_write_zeroes_sectors(d->dev.bdev);
	bio->bi_iter = io->iter;
	bio->bi_iter.bi_size = bytes;
	bio->bi_status = BLK_STS_OK;
	bio_advance_iter(bio, &io->iter, bytes);
	sv_io_redirect(io, bio);
	sv_defer_send(d, bio);
}

static void sv_io_zero(struct sv_io *io, struct bio *bio)
{
	u32 bytes = io->piece.blocks << SV_BLOCK_SHIFT;

	if (bio_op(bio) == REQ_OP_READ) {
		bio->bi_iter = io->iter;
		bio->bi_iter.bi_size = bytes;
		zero_fill_bio(bio);
	} else {
		sv_commit_arm(io->target->pool);
	}
	io->waits = false;
	bio_advance_iter(bio, &io->iter, bytes);
}

/*
 * Goes on with a deferred bio. GONE: it was sent or has ended, io must not be touched. Otherwise the caller keeps
 * it, makes what is missing (HELD: nothing is), and runs it again.
 */
enum sv_run sv_io_run(struct sv_io *io)
{
	struct bio *bio = sv_bio_of(io);

	if (io->planned) {		/* the member refused it */
		sv_defer_send(io->target->pool->disks[io->piece.member], bio);
		return SV_RUN_GONE;
	}
	while (io->iter.bi_size) {
		enum sv_plan plan = sv_io_plan(io, bio, bio_op(bio), &io->iter);

		switch (plan) {
		case SV_PLAN_REMAP:
			sv_io_send(io, bio);
			return SV_RUN_GONE;
		case SV_PLAN_ZERO:
			sv_io_zero(io, bio);
			break;
		case SV_PLAN_DEFER:
			return SV_RUN_DEFER;
		case SV_PLAN_HELD:
			return SV_RUN_HELD;
		case SV_PLAN_RING:
			return SV_RUN_RING;
		case SV_PLAN_NOSPC:
			return SV_RUN_NOSPC;
		default:
			sv_io_end(io, sv_plan_status(plan));
			return SV_RUN_GONE;
		}
		cond_resched();
	}
	sv_io_end(io, BLK_STS_OK);
	return SV_RUN_GONE;
}

/* In the member's own work, which may block on it. Zeroes are written here where the member has no command for them. */
void sv_io_submit(struct bio *bio)
{
	struct sv_io *io = sv_io_of(bio);
	struct block_device *bdev = io->target->pool->disks[io->piece.member]->dev.bdev;
	int ret;

	if (likely(!io->zero_by_hand)) {
		submit_bio_noacct(bio);
		return;
	}
	ret = blkdev_issue_zeroout(bdev, io->piece.sector, io->piece.blocks * SV_BLOCK_SECTORS, GFP_NOIO,
				   BLKDEV_ZERO_NOUNMAP);
	bio->bi_status = errno_to_blk_status(ret);
	bio_endio(bio);
}

/* ---- ends ---- */

/*
 * This bio will be sent or ended again, as if it had not been sent before: what bio_endio() did for the member must not
 * be done twice; and a bio that the member has split has counted its parts down to 0, where the next split expects 1.
 */
static void sv_bio_keep(struct bio *bio)
{
	bio_clear_flag(bio, BIO_QOS_THROTTLED);
	bio_clear_flag(bio, BIO_QOS_MERGED);
	atomic_set(&bio->__bi_remaining, 1);
}

/*
 * Both are true if the bio ends when a commit has, and may have by now, as may the last device of the pool be gone.
 * What keeps kp is the RCU section, which sv_commit_stop() waits for.
 */
static noinline bool sv_io_flush_ended(struct sv_io *io, struct bio *bio)
{
	struct sv_kpool *kp = io->target->pool;
	bool waits;

	sv_bio_keep(bio);
	rcu_read_lock();
	waits = sv_flush_ticket(io->target->vol->core, &io->waiter.ticket);
	if (waits)
		sv_commit_queue(kp);	/* io may be gone */
	rcu_read_unlock();
	return waits;
}

/* The only piece of a FUA write. The member's SRCU keeps its partial until the ticket has looked at the own bits. */
static noinline bool sv_io_fua_ended(struct sv_io *io, struct bio *bio)
{
	struct sv_kpool *kp = io->target->pool;
	struct sv_disk *d = kp->disks[io->piece.member];
	int srcu_idx = io->srcu_idx;
	bool waits, resv = io->piece.resv;

	sv_bio_keep(bio);
	rcu_read_lock();
	sv_io_written(io, BLK_STS_OK);
	waits = sv_fua_ticket(io->target->vol->core, &io->piece, &io->waiter.ticket);
	__acquire(&d->srcu);	/* from the io, which may be gone */
	srcu_up_read(&d->srcu, srcu_idx);
	if (waits)
		sv_commit_queue(kp);
	else if (resv)
		sv_commit_arm(kp);
	rcu_read_unlock();
	return waits;
}

/* The worker goes on with it. */
static noinline int sv_io_again(struct sv_io *io, struct bio *bio)
{
	sv_bio_keep(bio);
	sv_defer_io(io->target->pool, io);
	return DM_ENDIO_INCOMPLETE;
}

static bool sv_refused_zeroes(const struct sv_io *io, struct bio *bio, blk_status_t status)
{
	return bio_op(bio) == REQ_OP_WRITE_ZEROES && !io->zero_by_hand &&
	       (status == BLK_STS_NOTSUPP || status == BLK_STS_TARGET);
}

/*
 * The bio goes up. What comes again, by the submitter or by device-mapper, is counted then. With sv_io_init()'s part
 * this is some 110 instructions a bio, two thirds of them in the two reads of the clock (x86, TSC).
 */
static void sv_io_account(struct sv_io *io, blk_status_t status)
{
	if (unlikely(status == BLK_STS_AGAIN || status == BLK_STS_DM_REQUEUE))
		return;
	sv_latency_count(&io->target->vol->latency, io->row, io->bytes, ktime_get_ns() - io->start,
			 status == BLK_STS_OK);
}

/* Whether the bio may go up: DM_ENDIO_*. */
static int sv_io_ended_once(struct sv_io *io, struct bio *bio, blk_status_t *error)
{
	if (io->committed)
		return DM_ENDIO_DONE;
	if (io->planned) {
		if (unlikely(sv_refused_zeroes(io, bio, *error))) {
			io->zero_by_hand = true;
			return sv_io_again(io, bio);
		}
		if (io->fua && !io->pieces && !*error)
			return sv_io_fua_ended(io, bio) ? DM_ENDIO_INCOMPLETE : DM_ENDIO_DONE;
		sv_io_release(io, *error);
	}
	if (*error)
		return DM_ENDIO_DONE;
	if (io->iter.bi_size)
		return sv_io_again(io, bio);
	if (io->fua)
		return sv_io_flush_ended(io, bio) ? DM_ENDIO_INCOMPLETE : DM_ENDIO_DONE;
	return DM_ENDIO_DONE;
}

int sv_volume_end_io(struct dm_target *ti, struct bio *bio, blk_status_t *error)
{
	struct sv_io *io = sv_io_of(bio);
	int ret = sv_io_ended_once(io, bio, error);

	if (ret == DM_ENDIO_DONE)
		sv_io_account(io, *error);
	return ret;
}
