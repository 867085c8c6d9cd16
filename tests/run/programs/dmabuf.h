/* What the test programs share: short names for the calls, and checks that say what failed. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <linux/dma-buf.h>
#include <linux/dma-heap.h>
#include <linux/sync_file.h>
#include <linux/udmabuf.h>

#define CHECK(condition) \
	do { \
		if (!(condition)) { \
			printf("line %d: not %s (%s)\n", __LINE__, #condition, strerror(errno)); \
			exit(9); \
		} \
	} while (0)
/* The call fails with that errno. */
#define REFUSED(code, call) CHECK((errno = 0, (long)(call) == -1 && errno == (code)))

#define START DMA_BUF_SYNC_START
#define END DMA_BUF_SYNC_END
#define READ DMA_BUF_SYNC_READ
#define WRITE DMA_BUF_SYNC_WRITE
#define RW DMA_BUF_SYNC_RW

static inline int sync_once(int fd, unsigned long long flags)
{
	struct dma_buf_sync argument = { flags };
	return ioctl(fd, DMA_BUF_IOCTL_SYNC, &argument);
}

/* As it has to be done: EINTR and EAGAIN are tried again. */
static inline int sync_dmabuf(int fd, unsigned long long flags)
{
	int result;
	do
		result = sync_once(fd, flags);
	while (result == -1 && (errno == EINTR || errno == EAGAIN));
	return result;
}

static inline int heap_buffer(size_t size)
{
	int heap = open("/dev/dma_heap/system", O_RDWR | O_CLOEXEC);
	struct dma_heap_allocation_data data = { .len = size, .fd_flags = O_RDWR | O_CLOEXEC };
	if (heap < 0 || ioctl(heap, DMA_HEAP_IOCTL_ALLOC, &data))
		return -1;
	close(heap);
	return data.fd;
}

static inline int sealed_memfd(size_t size)
{
	int memfd = memfd_create("frames", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (memfd < 0 || ftruncate(memfd, size) || fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK))
		return -1;
	return memfd;
}

static inline int udmabuf(int memfd, size_t offset, size_t size)
{
	int device = open("/dev/udmabuf", O_RDWR | O_CLOEXEC);
	struct udmabuf_create create = { (__u32)memfd, UDMABUF_FLAGS_CLOEXEC, offset, size };
	int fd = device < 0 ? -1 : ioctl(device, UDMABUF_CREATE, &create);
	if (device >= 0)
		close(device);
	return fd;
}

static inline unsigned char *map(int fd, size_t size)
{
	void *bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	return (unsigned char *)(bytes == MAP_FAILED ? NULL : bytes);
}
