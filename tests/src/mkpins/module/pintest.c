// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * A driver that pins user memory for the long term on request, through each of the functions that give such pins out,
 * and lets go of it in process context, in a kworker, or in an RCU callback. It stands for every driver that pinwatch
 * does not know. It keeps what it pinned by itself: neither closing /dev/pintest nor unloading the module lets go of it,
 * as drivers have been seen to do.
 *
 * The structs and numbers of its ioctls are written down a second time in ioctl.rs.
 */
#include <linux/fs.h>
#include <linux/file.h>
#include <linux/ioctl.h>
#include <linux/memfd.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pid.h>
#include <linux/rcupdate.h>
#include <linux/sched/mm.h>
#include <linux/uaccess.h>
#include <linux/version.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>

#define SLOTS 64

enum how { BY_PAGES, BY_FAST, BY_REMOTE, BY_UNLOCKED, BY_FOLIOS };
enum where { IN_PROCESS, IN_KWORKER, IN_RCU };

struct pintest_pin {
	__u32 how;
	__u32 flags;	/* FOLL_*, beside FOLL_LONGTERM */
	__u64 address;	/* for BY_FOLIOS the place in the file, in bytes */
	__u64 pages;
	__u64 batch;	/* pages in one call */
	__s32 pid;	/* BY_REMOTE: whose memory */
	__s32 fd;	/* BY_FOLIOS: the file */
	__u32 slot;	/* answer */
	__u32 unused;
};

struct pintest_release {
	__u32 slot;
	__u32 where;
};

struct pintest_slot {
	__u32 slot;
	__u32 how;
	__u64 array;
	__u64 number;	/* 0: nothing is pinned */
};

#define PINTEST_PIN	_IOWR('P', 1, struct pintest_pin)
#define PINTEST_RELEASE	_IOW('P', 2, struct pintest_release)
#define PINTEST_LOOK	_IOWR('P', 3, struct pintest_slot)
#define PINTEST_ADOPT	_IOW('P', 4, struct pintest_slot)

static struct slot {
	struct work_struct work;
	struct rcu_head rcu;
	/* Pages, or folios. */
	void **array;
	/* Of them; 0: the slot is free. */
	unsigned long number;
	enum how how;
} slots[SLOTS];

/* Between callers; that a slot is let go of elsewhere is told by its number alone. */
static DEFINE_MUTEX(lock);

static void unpin(struct slot *slot)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 11, 0)
	if (slot->how == BY_FOLIOS)
		unpin_folios((struct folio **)slot->array, slot->number);
	else
#endif
		unpin_user_pages((struct page **)slot->array, slot->number);
	smp_store_release(&slot->number, 0);
}

static void unpin_in_kworker(struct work_struct *work)
{
	unpin(container_of(work, struct slot, work));
}

static void unpin_in_rcu(struct rcu_head *head)
{
	unpin(container_of(head, struct slot, rcu));
}

static long by_pages(unsigned long start, unsigned long number, unsigned int flags, struct page **pages)
{
	long got;

	mmap_read_lock(current->mm);
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 5, 0)
	got = pin_user_pages(start, number, flags, pages);
#else
	got = pin_user_pages(start, number, flags, pages, NULL);
#endif
	mmap_read_unlock(current->mm);
	return got;
}

static long by_remote(pid_t number_of_task, unsigned long start, unsigned long number, unsigned int flags,
		      struct page **pages)
{
	struct pid *pid = find_get_pid(number_of_task);
	struct task_struct *task = get_pid_task(pid, PIDTYPE_PID);
	struct mm_struct *mm = task ? get_task_mm(task) : NULL;
	long got = -ESRCH;

	if (mm) {
		mmap_read_lock(mm);
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 5, 0)
		got = pin_user_pages_remote(mm, start, number, flags, pages, NULL);
#else
		got = pin_user_pages_remote(mm, start, number, flags, pages, NULL, NULL);
#endif
		mmap_read_unlock(mm);
		mmput(mm);
	}
	if (task)
		put_task_struct(task);
	put_pid(pid);
	return got;
}

static long by_folios(int fd, loff_t start, unsigned long number, struct folio **folios)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 11, 0)
	struct file *file = fget(fd);
	pgoff_t offset;
	long got;

	if (!file)
		return -EBADF;
	got = memfd_pin_folios(file, start, start + (loff_t)number * PAGE_SIZE - 1, folios, number, &offset);
	fput(file);
	return got;
#else
	return -ENOSYS;
#endif
}

/* One call: how many pages, or folios, it has pinned. */
static long pin_some(struct slot *slot, const struct pintest_pin *wanted, u64 start, u64 number)
{
	unsigned int flags = wanted->flags | FOLL_LONGTERM;
	void **at = slot->array + slot->number;

	switch (slot->how) {
	case BY_PAGES:
		return by_pages(start, number, flags, (struct page **)at);
	case BY_FAST:
		return pin_user_pages_fast(start, number, flags, (struct page **)at);
	case BY_REMOTE:
		return by_remote(wanted->pid, start, number, flags, (struct page **)at);
	case BY_UNLOCKED:
		return pin_user_pages_unlocked(start, number, (struct page **)at, flags);
	case BY_FOLIOS:
		return by_folios(wanted->fd, start, number, (struct folio **)at);
	}
	return -EINVAL;
}

static long pin_all(struct slot *slot, const struct pintest_pin *wanted)
{
	u64 done = 0;
	long got = 0;

	/* What was here before has been let go of. */
	vfree(slot->array);
	slot->array = vmalloc(array_size(wanted->pages, sizeof(void *)));
	if (!slot->array)
		return -ENOMEM;
	slot->how = wanted->how;
	while (done < wanted->pages) {
		u64 number = min(wanted->pages - done, wanted->batch);

		got = pin_some(slot, wanted, wanted->address + done * PAGE_SIZE, number);
		if (got <= 0)
			break;
		slot->number += got;
		/* Folios are of any size: all that was asked for is in them. */
		done += slot->how == BY_FOLIOS ? number : got;
	}
	if (done == wanted->pages)
		return 0;
	if (slot->number)
		unpin(slot);
	return got ?: -EFAULT;
}

static struct slot *slot_of(u32 number)
{
	return number < SLOTS ? &slots[number] : NULL;
}

static long pin(struct pintest_pin *wanted)
{
	if (wanted->how > BY_FOLIOS || !wanted->pages || wanted->pages > INT_MAX || !wanted->batch)
		return -EINVAL;
	for (wanted->slot = 0; wanted->slot < SLOTS; wanted->slot++)
		if (!smp_load_acquire(&slots[wanted->slot].number))
			return pin_all(&slots[wanted->slot], wanted);
	return -ENOSPC;
}

static long release(const struct pintest_release *wanted)
{
	struct slot *slot = slot_of(wanted->slot);

	if (!slot || !smp_load_acquire(&slot->number))
		return -EINVAL;
	switch (wanted->where) {
	case IN_PROCESS:
		unpin(slot);
		return 0;
	case IN_KWORKER:
		schedule_work(&slot->work);
		return 0;
	case IN_RCU:
		call_rcu(&slot->rcu, unpin_in_rcu);
		return 0;
	}
	return -EINVAL;
}

static long look(struct pintest_slot *wanted)
{
	struct slot *slot = slot_of(wanted->slot);

	if (!slot)
		return -EINVAL;
	wanted->number = smp_load_acquire(&slot->number);
	wanted->how = slot->how;
	wanted->array = (unsigned long)slot->array;
	return 0;
}

/* Takes over what the module had pinned before it was unloaded. */
static long adopt(const struct pintest_slot *wanted)
{
	struct slot *slot = slot_of(wanted->slot);

	if (!slot || slot->number)
		return -EINVAL;
	slot->how = wanted->how;
	slot->array = (void **)(unsigned long)wanted->array;
	smp_store_release(&slot->number, wanted->number);
	return 0;
}

static long pintest_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	void __user *user = (void __user *)argument;
	union {
		struct pintest_pin pin;
		struct pintest_release release;
		struct pintest_slot slot;
	} wanted = {};
	long result = -ENOTTY;

	if (_IOC_SIZE(command) > sizeof(wanted))
		return -ENOTTY;
	if (copy_from_user(&wanted, user, _IOC_SIZE(command)))
		return -EFAULT;
	mutex_lock(&lock);
	switch (command) {
	case PINTEST_PIN:
		result = pin(&wanted.pin);
		break;
	case PINTEST_RELEASE:
		result = release(&wanted.release);
		break;
	case PINTEST_LOOK:
		result = look(&wanted.slot);
		break;
	case PINTEST_ADOPT:
		result = adopt(&wanted.slot);
		break;
	}
	mutex_unlock(&lock);
	if (!result && (_IOC_DIR(command) & _IOC_READ) && copy_to_user(user, &wanted, _IOC_SIZE(command)))
		return -EFAULT;
	return result;
}

static const struct file_operations pintest_operations = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = pintest_ioctl,
};

static struct miscdevice pintest_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "pintest",
	.fops = &pintest_operations,
	.mode = 0600,
};

static int __init pintest_start(void)
{
	int at;

	for (at = 0; at < SLOTS; at++)
		INIT_WORK(&slots[at].work, unpin_in_kworker);
	return misc_register(&pintest_device);
}

static void __exit pintest_end(void)
{
	int at;

	misc_deregister(&pintest_device);
	for (at = 0; at < SLOTS; at++)
		flush_work(&slots[at].work);
	rcu_barrier();
	/* What is pinned stays so, with the array that tells of it. */
	for (at = 0; at < SLOTS; at++)
		if (!slots[at].number)
			vfree(slots[at].array);
}

module_init(pintest_start);
module_exit(pintest_end);
MODULE_DESCRIPTION("Pins user memory for the long term on request, for the tests of pinwatch");
MODULE_LICENSE("Dual MIT/GPL");
