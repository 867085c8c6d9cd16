/* A small kernel for dma-bufs that writes down every SYNC; plain C, so that no exception can come between. */
#ifndef POINTS_KERNEL_H
#define POINTS_KERNEL_H

enum { KERNEL_NOT_MINE = -2, KERNEL_MOST_CALLS = 4096 };

struct kernel_call {
    int fd;
    unsigned long long flags;
    unsigned long long file; /* the inode: tells a number that was closed and used again from the file that it was */
    int error;               /* 0, or the errno of a refusal */
};

/* Forget everything. */
void kernel_reset(void);

/* Refuse `times` STARTs (or ENDs) with `error`, after `after` of them have succeeded. */
void kernel_refuse(int end, int error, int times, int after);

/* What ioctl(2) answers: -1 with errno, or KERNEL_NOT_MINE for a request of some other driver. */
int kernel_ioctl(int fd, unsigned long request, void *argument);

/* The SYNCs of open files, in order; more than KERNEL_MOST_CALLS are counted and not kept. */
int kernel_calls(const struct kernel_call **calls);

/* How many SYNCs came for a descriptor that was not open. */
int kernel_strays(void);

#endif
