#include "kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <linux/dma-heap.h>
#include <linux/sync_file.h>
#include <linux/udmabuf.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct refusal {
    int error, times, after;
};

static struct kernel_call calls[KERNEL_MOST_CALLS];
static struct refusal refusals[2];
static int count, strays;

void kernel_reset(void)
{
    count = strays = 0;
    memset(refusals, 0, sizeof refusals);
}

void kernel_refuse(int end, int error, int times, int after)
{
    refusals[!!end] = (struct refusal){error, times, after};
}

int kernel_calls(const struct kernel_call **out)
{
    *out = calls;
    return count;
}

int kernel_strays(void) { return strays; }

static int answer(int error)
{
    errno = error;
    return -1;
}

static int sync_ioctl(int fd, const struct dma_buf_sync *sync)
{
    struct stat file;
    int error = 0;
    struct refusal *refusal = &refusals[!!(sync->flags & DMA_BUF_SYNC_END)];

    if (fstat(fd, &file)) {
        strays++;
        return -1;
    }
    if (refusal->after)
        refusal->after--;
    else if (refusal->times) {
        refusal->times--;
        error = refusal->error;
    }
    if (count < KERNEL_MOST_CALLS)
        calls[count] = (struct kernel_call){fd, sync->flags, file.st_ino, error};
    count++;
    return error ? answer(error) : 0;
}

/* A buffer is a memfd: of its own from a heap, the caller's from udmabuf, as there. */
static int heap_buffer(struct dma_heap_allocation_data *data)
{
    int fd = memfd_create("heap buffer", MFD_CLOEXEC);

    if (fd < 0)
        return -1;
    if (ftruncate(fd, (off_t)data->len)) {
        close(fd);
        return -1;
    }
    data->fd = (unsigned)fd;
    return 0;
}

int kernel_ioctl(int fd, unsigned long request, void *argument)
{
    if (request == DMA_BUF_IOCTL_SYNC)
        return sync_ioctl(fd, argument);
    if (request == DMA_BUF_SET_NAME_A || request == DMA_BUF_SET_NAME_B) {
        if (fcntl(fd, F_GETFD) < 0)
            return -1;
        return argument ? 0 : answer(EFAULT);
    }
    if (request == UDMABUF_CREATE)
        return fcntl((int)((struct udmabuf_create *)argument)->memfd, F_DUPFD_CLOEXEC, 0);
    if (request == DMA_HEAP_IOCTL_ALLOC)
        return heap_buffer(argument);
    if (request == DMA_BUF_IOCTL_EXPORT_SYNC_FILE) {
        /* An eventfd that can be read is, to poll(2), a fence that has signalled. */
        ((struct dma_buf_export_sync_file *)argument)->fd = eventfd(1, EFD_CLOEXEC);
        return ((struct dma_buf_export_sync_file *)argument)->fd < 0 ? -1 : 0;
    }
    if (request == DMA_BUF_IOCTL_IMPORT_SYNC_FILE)
        return fcntl(((struct dma_buf_import_sync_file *)argument)->fd, F_GETFD) < 0 ? -1 : 0;
    if (request == SYNC_IOC_FILE_INFO) {
        ((struct sync_file_info *)argument)->status = 1;
        return 0;
    }
    return KERNEL_NOT_MINE;
}
