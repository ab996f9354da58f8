// SPDX-License-Identifier: GPL-2.0
/*
 * A kernel module that pins user memory for the long term on request, through each of the functions that give such
 * pins out, and lets go of it in process context, in a kworker, or in an RCU callback. It stands for every driver that
 * pinwatch does not know.
 *
 * It is built without the headers of any kernel: what it needs of one are exported functions whose parameters are the
 * same from 6.1 to 7.3 (or have more, which are passed too), and structs that have not changed in ten years. The rest
 * (struct module's layout, the offset of mmap_lock, FOLL_LONGTERM) is filled in by `mkpins module load` from the running
 * kernel's own BTF. It has no version: it is loaded by force, as `modprobe --force` does.
 *
 * Written to /sys/module/pintest/parameters/command:
 *   pin SLOT HOW PID ADDRESS PAGES BATCH FLAGS FD    HOW: 0 pages, 1 fast, 2 remote, 3 unlocked, 4 folios of FD
 *   release SLOT WHERE                               WHERE: 0 here, 1 kworker, 2 RCU callback
 *   adopt SLOT HOW ARRAY NUMBER                      what a module that was unloaded had pinned
 * Read from /sys/module/pintest/parameters/slots: SLOT HOW ARRAY NUMBER, a line for each slot in use.
 */

typedef unsigned long ulong;
typedef unsigned short u16;
typedef signed char s8;
typedef unsigned char u8;

#define SLOTS 64
#define WEAK __attribute__((weak))
#define NULL ((void *)0)
#define EINVAL 22
#define ENOMEM 12
#define ENOSYS 38

struct page;
struct folio;
struct file;
struct mm_struct;
struct pid;
struct task_struct;
struct workqueue_struct;

/* include/linux/moduleparam.h */
struct kernel_param;
struct kernel_param_ops {
	unsigned int flags;
	int (*set)(const char *value, const struct kernel_param *param);
	int (*get)(char *buffer, const struct kernel_param *param);
	void (*free)(void *arg);
};
struct kernel_param {
	const char *name;
	void *module;
	const struct kernel_param_ops *ops;
	const u16 perm;
	s8 level;
	u8 flags;
	void *arg;
};

/* include/linux/workqueue_types.h, include/linux/types.h */
struct work {
	ulong data;
	void *next, *prev;
	void (*function)(struct work *work);
};
struct rcu {
	void *next;
	void (*function)(struct rcu *head);
};

extern long pin_user_pages(ulong start, ulong number, unsigned int flags, struct page **pages, void *vmas);
extern int pin_user_pages_fast(ulong start, int number, unsigned int flags, struct page **pages);
extern long pin_user_pages_remote(struct mm_struct *mm, ulong start, ulong number, unsigned int flags,
				  struct page **pages, void *vmas_or_locked, int *locked);
extern long pin_user_pages_unlocked(ulong start, ulong number, struct page **pages, unsigned int flags);
extern WEAK long memfd_pin_folios(struct file *file, long start, long end, struct folio **folios, unsigned int most,
				  ulong *offset);
extern void unpin_user_pages(struct page **pages, ulong number);
extern WEAK void unpin_folios(struct folio **folios, ulong number);
extern void down_read(void *lock);
extern void up_read(void *lock);
extern struct pid *find_get_pid(int number);
extern void put_pid(struct pid *pid);
extern struct task_struct *get_pid_task(struct pid *pid, int type);
extern struct mm_struct *get_task_mm(struct task_struct *task);
extern void mmput(struct mm_struct *mm);
extern struct file *fget(unsigned int fd);
extern void fput(struct file *file);
extern WEAK void *vmalloc(ulong size);
extern WEAK void *vmalloc_noprof(ulong size);
extern void vfree(const void *memory);
extern int sscanf(const char *text, const char *format, ...);
extern int sprintf(char *buffer, const char *format, ...);
extern WEAK struct workqueue_struct *system_wq;
extern WEAK struct workqueue_struct *system_percpu_wq;
extern _Bool queue_work_on(int cpu, struct workqueue_struct *queue, struct work *work);
extern void call_rcu(struct rcu *head, void (*function)(struct rcu *head));
extern void rcu_barrier(void);
extern const struct kernel_param_ops param_ops_ulong;

static ulong mmap_lock;
static ulong longterm;

static struct slot {
	struct work work;
	struct rcu rcu;
	struct page **pages;
	ulong number;
	unsigned int how;
} slots[SLOTS];

static void let_go(struct slot *slot)
{
	if (slot->how == 4)
		unpin_folios((struct folio **)slot->pages, slot->number);
	else
		unpin_user_pages(slot->pages, slot->number);
	slot->number = 0;
}

static void let_go_later(struct work *work)
{
	let_go((struct slot *)work);
}

static void let_go_in_rcu(struct rcu *head)
{
	let_go((struct slot *)((char *)head - __builtin_offsetof(struct slot, rcu)));
}

static long batch(struct slot *slot, int pid, ulong start, ulong number, unsigned int flags, int fd)
{
	struct page **pages = slot->pages + slot->number;
	struct mm_struct *mm;
	struct pid *whose;
	struct file *file;
	ulong offset;
	long got;

	switch (slot->how) {
	case 1:
		return pin_user_pages_fast(start, (int)number, flags, pages);
	case 3:
		return pin_user_pages_unlocked(start, number, pages, flags);
	case 4:
		if (!memfd_pin_folios)
			return -ENOSYS;
		file = fget((unsigned int)fd);
		if (!file)
			return -EINVAL;
		got = memfd_pin_folios(file, (long)start, (long)(start + number * 4096 - 1), (struct folio **)pages,
				       (unsigned int)number, &offset);
		fput(file);
		return got;
	}
	whose = find_get_pid(pid);
	mm = whose ? get_task_mm(get_pid_task(whose, 1)) : NULL;
	put_pid(whose);
	if (!mm)
		return -EINVAL;
	down_read((char *)mm + mmap_lock);
	if (slot->how == 0)
		got = pin_user_pages(start, number, flags, pages, NULL);
	else
		got = pin_user_pages_remote(mm, start, number, flags, pages, NULL, NULL);
	up_read((char *)mm + mmap_lock);
	mmput(mm);
	return got;
}

static int pin(struct slot *slot, int pid, ulong start, ulong number, ulong most, unsigned int flags, int fd)
{
	ulong done = 0, size = number * sizeof(void *);
	long got = 0;

	slot->pages = vmalloc_noprof ? vmalloc_noprof(size) : vmalloc(size);
	if (!slot->pages)
		return -ENOMEM;
	slot->number = 0;
	while (done < number) {
		ulong wanted = number - done < most ? number - done : most;

		got = batch(slot, pid, start + done * 4096, wanted, flags | (unsigned int)longterm, fd);
		if (got <= 0)
			break;
		slot->number += (ulong)got;
		/* Folios are of any size: all of those that were asked for are there. */
		done += slot->how == 4 ? wanted : (ulong)got;
	}
	if (done == number)
		return 0;
	if (slot->number)
		let_go(slot);
	vfree(slot->pages);
	slot->pages = NULL;
	return got < 0 ? (int)got : -EINVAL;
}

static int command(const char *text, const struct kernel_param *param)
{
	unsigned int number, how, flags;
	ulong address, pages, most;
	struct slot *slot;
	int pid, fd;

	if (sscanf(text, "release %u %u", &number, &how) == 2 && number < SLOTS) {
		slot = &slots[number];
		if (!slot->number)
			return -EINVAL;
		if (how == 1) {
			slot->work.next = slot->work.prev = &slot->work.next;
			slot->work.function = let_go_later;
			queue_work_on(0, &system_percpu_wq ? system_percpu_wq : system_wq, &slot->work);
		} else if (how == 2) {
			call_rcu(&slot->rcu, let_go_in_rcu);
		} else {
			let_go(slot);
		}
		return 0;
	}
	if (sscanf(text, "pin %u %u %d %lu %lu %lu %u %d", &number, &how, &pid, &address, &pages, &most, &flags, &fd) == 8 &&
	    number < SLOTS && how <= 4 && pages && most) {
		slot = &slots[number];
		if (slot->number)
			return -EINVAL;
		if (slot->pages)
			vfree(slot->pages);
		slot->how = how;
		return pin(slot, pid, address, pages, most, flags, fd);
	}
	if (sscanf(text, "adopt %u %u %lu %lu", &number, &how, &address, &pages) == 4 && number < SLOTS) {
		slot = &slots[number];
		slot->how = how;
		slot->pages = (struct page **)address;
		slot->number = pages;
		return 0;
	}
	return -EINVAL;
}

static int show(char *buffer, const struct kernel_param *param)
{
	int length = 0, i;

	for (i = 0; i < SLOTS; i++)
		if (slots[i].number)
			length += sprintf(buffer + length, "%d %u %lu %lu\n", i, slots[i].how, (ulong)slots[i].pages,
					  slots[i].number);
	return length;
}

static const struct kernel_param_ops command_ops = { .set = command };
static const struct kernel_param_ops show_ops = { .get = show };

extern char __this_module[];
#define PARAM(Name, Ops, Perm, Arg)                                                                                            \
	static const char name_##Name[] = "pintest." #Name;                                                                    \
	static struct kernel_param param_##Name __attribute__((used, section("__param"), aligned(8))) = {                      \
		name_##Name + 8, __this_module, Ops, Perm, -1, 0, Arg                                                          \
	}
PARAM(command, &command_ops, 0200, NULL);
PARAM(slots, &show_ops, 0400, NULL);
PARAM(mmap_lock, &param_ops_ulong, 0400, &mmap_lock);
PARAM(longterm, &param_ops_ulong, 0400, &longterm);

int init_module(void)
{
	return 0;
}

/* Drivers have been unloaded with pins still held. */
void cleanup_module(void)
{
	rcu_barrier();
}

/* The kernel reads these sections; `mkpins module load` fills in what depends on the kernel. */
__asm__(".pushsection .modinfo, \"a\"\n"
	".asciz \"license=GPL\"\n"
	".asciz \"name=pintest\"\n"
	".popsection\n"
	/* struct module: bigger than any; cut to size. Its two pointers are moved to their places. */
	".pushsection .gnu.linkonce.this_module, \"aw\"\n"
	".balign 64\n"
	".globl __this_module\n"
	"__this_module:\n"
	".quad init_module\n"
	".quad cleanup_module\n"
	".skip 8176\n"
	".popsection\n");
