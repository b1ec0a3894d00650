// SPDX-License-Identifier: GPL-2.0
/*
 * The control device of a pool, /dev/svctl-<pool uuid>: takes commands by ioctl and by io_uring, brings their payload
 * into kernel memory once, and gives it to sv_cmd() in core/cmd.c, which checks it. uapi/sv.h is the protocol.
 *
 * One opener for writing at a time. Who opened it for reading only gets the ops that answer without changing
 * anything, and they go by the current epoch. io_uring commands are carried out by io_uring's own workers, which may
 * sleep; so both entrances are the same function.
 */
#include <linux/capability.h>
#include <linux/device-mapper.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "sv.h"

/* ---- payload ---- */

/* Answering ops whose first element says where to begin, or how long to wait. */
static u32 sv_elements_in(const struct sv_cmd *c)
{
	if (!sv_op_answers(c->op))
		return c->count;
	switch (c->op) {
	case SV_OP_WAIT:
	case SV_OP_LIST_FREED:
	case SV_OP_DUMP_EXTENTS:
	case SV_OP_DUMP_PARTIALS:
	case SV_OP_DUMP_MAP:
	case SV_OP_DUMP_NEWER:
	case SV_OP_HISTOGRAMS:
		return min_t(u32, c->count, 1);
	default:
		return 0;
	}
}

static int sv_copy_in(const struct sv_cmd *c, u32 size, u8 *payload)
{
	const u8 __user *from = u64_to_user_ptr(c->addr);
	u32 i, n = sv_elements_in(c);
	int ret;

	if (c->size == size)
		return copy_from_user(payload, from, (size_t)n * size) ? -EFAULT : 0;
	for (i = 0; i < n; i++) {
		ret = copy_struct_from_user(payload + (size_t)i * size, size, from + (size_t)i * c->size, c->size);
		if (ret)
			return ret;
	}
	return 0;
}

static int sv_copy_out(const struct sv_cmd *c, u32 size, const u8 *payload)
{
	u8 __user *to = u64_to_user_ptr(c->addr);
	u32 i, n = min_t(u32, size, c->size);

	for (i = 0; i < c->count; i++, to += c->size, payload += size)
		if (copy_to_user(to, payload, n) || (c->size > n && clear_user(to + n, c->size - n)))
			return -EFAULT;
	return 0;
}

/* As user space counts them; our structs may have grown since. */
static bool sv_payload_fits(const struct sv_cmd *c, u32 size)
{
	return c->size && (u64)c->count * c->size <= SV_CMD_MAX &&
	       (u64)c->count * size <= (u64)SV_CMD_MAX * SV_CMD_GROWTH;
}

/* ---- ops that need more than sv_cmd() ---- */

static int sv_wait_events(struct sv_kpool *kp, const struct sv_event *e)
{
	long left = wait_event_interruptible_timeout(kp->events_wait,
						     READ_ONCE(kp->dead) || sv_pool_has_events(kp->core),
						     msecs_to_jiffies(e->timeout_ms));

	return left < 0 ? -EINTR : 0;
}

static int sv_call(struct sv_kpool *kp, struct sv_cmd *c, void *payload, u64 *members)
{
	int ret;

	mutex_lock(&kp->cmd_lock);
	ret = sv_cmd(kp->core, c->op, c->epoch, payload, &c->count, &c->done, members);
	if (!ret && c->op == SV_OP_ATTACH)
		kp->epoch = ((struct sv_attach *)payload)->epoch;
	mutex_unlock(&kp->cmd_lock);
	return ret;
}

/* Whatever became of it, what it set aside must go through its grace periods. */
static int sv_call_recycle(struct sv_kpool *kp, struct sv_cmd *c, void *payload)
{
	u64 members = 0;
	int ret;

	mutex_lock(&kp->recycle_lock);
	ret = sv_call(kp, c, payload, &members);
	if (c->done) {
		sv_kpool_wait_readers(kp, members);
		mutex_lock(&kp->cmd_lock);
		sv_recycle_finish(kp->core);
		mutex_unlock(&kp->cmd_lock);
	} else {
		sv_recycle_finish(kp->core);
	}
	mutex_unlock(&kp->recycle_lock);
	return ret;
}

/* The steps are the core's (core/snapshot.c), the waits between them ours. */
static int sv_take_snapshot(struct sv_kpool *kp)
{
	u64 members;
	int ret, again;

	if (sv_snapshot_volume(kp->core, 1))
		synchronize_rcu_expedited();	/* of several the writes wait */
	while ((ret = sv_snapshot_switch(kp->core, &members)) == -EAGAIN)
		sv_commit_make_room(kp);
	sv_defer_kick(kp);
	if (!ret) {
		sv_kpool_wait_readers(kp, members);
		ret = sv_commit_flush_cut(kp);
	}
	do {
		mutex_lock(&kp->cmd_lock);
		again = sv_snapshot_finish(kp->core, !ret);
		mutex_unlock(&kp->cmd_lock);
		if (again)
			sv_commit_make_room(kp);
	} while (again);
	return ret ? ret : sv_commit_records(kp);
}

static int sv_call_snapshot(struct sv_kpool *kp, struct sv_cmd *c, void *payload)
{
	u64 members;
	int ret;

	mutex_lock(&kp->snapshot_lock);
	ret = sv_call(kp, c, payload, &members);
	if (!ret)
		ret = sv_take_snapshot(kp);
	mutex_unlock(&kp->snapshot_lock);
	return ret;
}

/* FOLD or MOVE. What may wait for other members is done before any write is held. */
static int sv_call_copy(struct sv_kpool *kp, struct sv_cmd *c, void *payload, const struct sv_relocation *steps)
{
	u64 members;
	int ret;

	mutex_lock(&kp->recycle_lock);	/* what is copied to stays whose it is */
	ret = sv_copy_prepare(kp);
	if (!ret)
		ret = sv_call(kp, c, payload, &members);
	if (!ret)
		c->done = sv_relocate(kp, steps, members, &ret);
	if (!ret && c->done)
		sv_kpool_wait_readers(kp, members);	/* as for FREE */
	mutex_unlock(&kp->recycle_lock);	/* only now may LIST_FREED tell */
	return ret;
}

/*
 * Reads that were planned before may still be on their way to what is free now. They may take long, and svd may pass a
 * discard down before it asks for RECYCLE.
 */
static int sv_call_free(struct sv_kpool *kp, struct sv_cmd *c, void *payload)
{
	u64 members;
	int ret = sv_call(kp, c, payload, &members);

	members = sv_freed_members(kp->core, payload, c->done);
	if (members)
		sv_kpool_wait_readers(kp, members);
	return ret;
}

/* Not what a FOLD or MOVE has just given up: its readers may not have gone yet. */
static int sv_call_list_freed(struct sv_kpool *kp, struct sv_cmd *c, void *payload)
{
	u64 members;
	int ret;

	mutex_lock(&kp->recycle_lock);
	ret = sv_call(kp, c, payload, &members);
	mutex_unlock(&kp->recycle_lock);
	return ret;
}

/* The core does not see the members' I/O. */
static void sv_fill_errors(struct sv_kpool *kp, struct sv_member_state *s, u32 count)
{
	u32 i;

	for (i = 0; i < count; i++)
		if (s[i].member < kp->nr_disks)
			s[i].errors = atomic64_read(&kp->disks[s[i].member]->errors);
}

static void sv_fill_features(struct sv_hello *h)
{
#ifdef SV_HAVE_URING_CMD
	h->features |= SV_FEATURE_URING;
#endif
}

static void sv_after(struct sv_kpool *kp, const struct sv_cmd *c, void *payload)
{
	switch (c->op) {
	case SV_OP_HELLO:
		sv_fill_features(payload);
		break;
	case SV_OP_MEMBERS:
		sv_fill_errors(kp, payload, c->count);
		break;
	case SV_OP_ACTIVATE:
	case SV_OP_VOLUME_DROP:
		sv_kpool_check_mode(kp);
		break;
	case SV_OP_CLOSE:
	case SV_OP_GRANT:
	case SV_OP_TRIM:
	case SV_OP_RECYCLE:
	case SV_OP_POLICY:
		sv_defer_kick(kp);
		break;
	}
}

/* The pool cannot be stopped meanwhile. */
static int sv_execute_alive(struct sv_kpool *kp, struct sv_cmd *c, void *payload)
{
	u64 members;
	int ret;

	if (c->op == SV_OP_COMMIT || c->op == SV_OP_ATTACH) {
		ret = sv_commit_wait(kp);
		/* A session may begin on a failed pool, to see that it is. */
		if (ret && c->op == SV_OP_COMMIT)
			return ret;
	}
	if (c->op == SV_OP_RECYCLE)
		ret = sv_call_recycle(kp, c, payload);
	else if (c->op == SV_OP_LIST_FREED)
		ret = sv_call_list_freed(kp, c, payload);
	else if (c->op == SV_OP_SNAPSHOT)
		ret = sv_call_snapshot(kp, c, payload);
	else if (c->op == SV_OP_FOLD)
		ret = sv_call_copy(kp, c, payload, &sv_fold_steps);
	else if (c->op == SV_OP_MOVE)
		ret = sv_call_copy(kp, c, payload, &sv_move_steps);
	else if (c->op == SV_OP_FREE)
		ret = sv_call_free(kp, c, payload);
	else
		ret = sv_call(kp, c, payload, &members);
	if (!ret || c->done)
		sv_after(kp, c, payload);
	return ret;
}

static int sv_execute(struct sv_kpool *kp, struct sv_cmd *c, void *payload)
{
	int ret;

	if (c->op == SV_OP_WAIT && c->count) {
		ret = sv_wait_events(kp, payload);
		if (ret)
			return ret;
	}
	down_read(&kp->alive);
	ret = kp->dead ? -ENODEV : sv_execute_alive(kp, c, payload);
	up_read(&kp->alive);
	return ret;
}

/* ---- one command ---- */

static bool sv_op_reads_only(u32 op)
{
	return sv_op_answers(op) && op != SV_OP_ATTACH && op != SV_OP_COMMIT && op != SV_OP_WAIT;
}

static int sv_command_run(struct sv_kpool *kp, struct sv_cmd *c)
{
	u32 size = sv_op_size(c->op), room = c->count;
	void *payload;
	int ret;

	if (!size)
		return -EOPNOTSUPP;
	if (c->flags || c->reserved || !sv_payload_fits(c, size))
		return -EINVAL;
	/* Its size is the caller's choice: no word in the log where there is not so much. */
	payload = kvzalloc(max_t(size_t, (size_t)c->count * size, size), GFP_KERNEL | __GFP_NOWARN);
	if (!payload)
		return -ENOMEM;
	ret = sv_copy_in(c, size, payload);
	if (!ret)
		ret = sv_execute(kp, c, payload);
	if (!ret && sv_op_answers(c->op)) {
		c->count = min(c->count, room);
		ret = sv_copy_out(c, size, payload);
	} else {
		c->count = 0;
	}
	kvfree(payload);
	return ret;
}

static int sv_command(struct file *file, struct sv_cmd __user *user)
{
	struct sv_kpool *kp = file->private_data;
	struct sv_cmd c;
	int ret;

	if (copy_from_user(&c, user, sizeof(c)))
		return -EFAULT;
	c.done = 0;
	if (!(file->f_mode & FMODE_WRITE)) {
		if (!sv_op_reads_only(c.op))
			return -EPERM;
		c.epoch = READ_ONCE(kp->epoch);
	}
	ret = sv_command_run(kp, &c);
	if (copy_to_user(user, &c, sizeof(c)))
		return -EFAULT;
	return ret;
}

/* ---- file operations ---- */

static int sv_dev_open(struct inode *inode, struct file *file)
{
	struct sv_kpool *kp = container_of(file->private_data, struct sv_kpool, misc);

	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	if ((file->f_mode & FMODE_WRITE) && atomic_cmpxchg(&kp->writers, 0, 1))
		return -EBUSY;
	/* misc_open() excludes misc_deregister(), so the pool still holds its own reference. */
	kref_get(&kp->ref);
	file->private_data = kp;
	return nonseekable_open(inode, file);
}

static int sv_dev_release(struct inode *inode, struct file *file)
{
	struct sv_kpool *kp = file->private_data;

	if (file->f_mode & FMODE_WRITE)
		atomic_set(&kp->writers, 0);
	sv_kpool_put(kp);
	return 0;
}

static long sv_dev_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	if (cmd != SV_IOC_CMD)
		return -ENOTTY;
	return sv_command(file, (struct sv_cmd __user *)arg);
}

static __poll_t sv_dev_poll(struct file *file, poll_table *wait)
{
	struct sv_kpool *kp = file->private_data;

	poll_wait(file, &kp->events_wait, wait);
	if (READ_ONCE(kp->dead))
		return EPOLLHUP | EPOLLERR;
	return sv_pool_has_events(kp->core) ? EPOLLIN | EPOLLRDNORM : 0;
}

#ifdef SV_HAVE_URING_CMD
/* The first try must not sleep: io_uring asks again from a worker, in the same address space. */
static int sv_dev_uring_cmd(struct io_uring_cmd *ucmd, unsigned int issue_flags)
{
	if (issue_flags & IO_URING_F_NONBLOCK)
		return -EAGAIN;
	if (ucmd->cmd_op != SV_IOC_CMD)
		return -ENOTTY;
	return sv_command(ucmd->file, u64_to_user_ptr(READ_ONCE(ucmd->sqe->addr)));
}
#endif

static const struct file_operations sv_dev_fops = {
	.owner = THIS_MODULE,
	.open = sv_dev_open,
	.release = sv_dev_release,
	.unlocked_ioctl = sv_dev_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.poll = sv_dev_poll,
#ifdef SV_HAVE_URING_CMD
	.uring_cmd = sv_dev_uring_cmd,
#endif
};

int sv_cmd_dev_register(struct sv_kpool *kp)
{
	int ret;

	snprintf(kp->misc_name, sizeof(kp->misc_name), "svctl-%pUb", &kp->uuid);
	kp->misc.minor = MISC_DYNAMIC_MINOR;
	kp->misc.name = kp->misc_name;
	kp->misc.fops = &sv_dev_fops;
	kp->misc.mode = 0600;
	ret = misc_register(&kp->misc);
	if (ret)
		DMERR("pool %pUb: cannot register control device: error %d", &kp->uuid, ret);
	return ret;
}

void sv_cmd_dev_unregister(struct sv_kpool *kp)
{
	misc_deregister(&kp->misc);
}
