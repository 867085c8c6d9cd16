/* What is asked of a dma-buf's mapping after mmap: advice, msync, mremap, mincore. The kernel's answers, on the fake and on a
 * real one alike. */
#include "dmabuf.h"
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#define PAGE 4096
#define SIZE (4 * PAGE)

enum { ANSWERED = 0, HEAP_ALONE = -1 };
static const struct { int advice, heap; } rows[] = {
	{ MADV_NORMAL, 0 }, { MADV_RANDOM, 0 }, { MADV_WILLNEED, 0 }, { MADV_DONTNEED, EINVAL }, { MADV_FREE, EINVAL },
	{ MADV_REMOVE, ENODEV }, { MADV_DONTFORK, 0 }, { MADV_DOFORK, HEAP_ALONE }, { MADV_MERGEABLE, 0 },
	{ MADV_UNMERGEABLE, 0 }, { MADV_HUGEPAGE, 0 }, { MADV_NOHUGEPAGE, 0 }, { MADV_DONTDUMP, 0 }, { MADV_DODUMP, EINVAL },
	{ MADV_WIPEONFORK, EINVAL }, { MADV_KEEPONFORK, 0 }, { MADV_COLD, EINVAL }, { MADV_PAGEOUT, EINVAL },
	{ 22 /* MADV_POPULATE_READ */, EINVAL }, { 23 /* MADV_POPULATE_WRITE */, EINVAL },
	{ 24 /* MADV_DONTNEED_LOCKED */, EINVAL }, { 25 /* MADV_COLLAPSE */, EINVAL },
	{ 102 /* MADV_GUARD_INSTALL */, EINVAL }, { 103 /* MADV_GUARD_REMOVE */, EINVAL }, { 99, EINVAL },
};

static void advise(int fd, int is_heap)
{
	for (size_t place = 0; place < sizeof(rows) / sizeof(*rows); place++) {
		unsigned char *bytes = map(fd, SIZE);
		int advice = rows[place].advice, code = rows[place].heap;
		CHECK(bytes);
		memset(bytes, 7, SIZE);
		if (code == HEAP_ALONE)
			code = is_heap ? EINVAL : 0;
		for (int page = 0; page < 4; page += 3) {
			errno = 0;
			int said = madvise(bytes + page * PAGE, PAGE, advice) ? errno : 0;
			if (said != code) {
				printf("madvise %d of a %s: %d, not %d\n", advice, is_heap ? "heap's" : "udmabuf", said, code);
				exit(9);
			}
		}
		CHECK(!madvise(bytes, 0, MADV_DONTNEED));
		REFUSED(EINVAL, madvise(bytes + 1, PAGE, MADV_DONTNEED));
		CHECK(bytes[0] == 7 && bytes[SIZE - 1] == 7);
		munmap(bytes, SIZE);
	}
}

/* By process_madvise(), as a manager of memory gives it. */
static void others_advice(unsigned char *bytes)
{
	int pidfd = syscall(SYS_pidfd_open, getpid(), 0);
	void *own = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct iovec ranges[] = { { own, SIZE }, { bytes, SIZE } }, buffer_first[] = { { bytes, SIZE }, { own, SIZE } };
	CHECK(pidfd >= 0);
	REFUSED(EINVAL, syscall(SYS_process_madvise, pidfd, buffer_first, 2, MADV_COLD, 0));
	REFUSED(EINVAL, syscall(SYS_process_madvise, pidfd, buffer_first, 1, MADV_PAGEOUT, 0));
	REFUSED(EINVAL, syscall(SYS_process_madvise, pidfd, buffer_first, 1, MADV_REMOVE, 0));
	REFUSED(EINVAL, syscall(SYS_process_madvise, pidfd, buffer_first, 1, MADV_COLD, 1));
	CHECK(syscall(SYS_process_madvise, pidfd, ranges, 2, MADV_COLD, 0) == SIZE);
	CHECK(syscall(SYS_process_madvise, pidfd, ranges, 2, MADV_WILLNEED, 0) == 2 * SIZE);
	CHECK(!munmap(own, SIZE) && !close(pidfd));
}

static void change(int fd)
{
	unsigned char *bytes = map(fd, SIZE), seen[4] = { 9, 9, 9, 9 };
	memset(bytes, 7, SIZE);
	REFUSED(EINVAL, msync(bytes, SIZE, MS_SYNC));
	REFUSED(EINVAL, msync(bytes, SIZE, MS_SYNC | MS_ASYNC));
	CHECK(!msync(bytes, SIZE, MS_ASYNC) && !msync(bytes, 0, MS_SYNC));
	CHECK(!mincore(bytes, SIZE, seen) && !seen[0] && !seen[3]);
	CHECK(!mlock(bytes, SIZE) && !munlock(bytes, SIZE));
	void *closed = mmap(NULL, SIZE, PROT_NONE, MAP_SHARED, fd, 0);
	CHECK(closed != MAP_FAILED && !mlock(closed, SIZE) && !munlock(closed, SIZE) && !munmap(closed, SIZE));
	others_advice(bytes);
	REFUSED(EFAULT, mremap(bytes, SIZE, 2 * SIZE, MREMAP_MAYMOVE));
	REFUSED(EFAULT, mremap(bytes, 0, SIZE, MREMAP_MAYMOVE));
	REFUSED(EINVAL, mremap(bytes, SIZE, SIZE, MREMAP_MAYMOVE | 4 /* MREMAP_DONTUNMAP */));
	REFUSED(EINVAL, mremap(bytes, SIZE, 2 * SIZE, 64));
	CHECK(!mprotect(bytes, SIZE, PROT_READ) && !mprotect(bytes, SIZE, PROT_READ | PROT_EXEC));
	CHECK(!mprotect(bytes, SIZE, PROT_READ | PROT_WRITE));
	CHECK(mremap(bytes, SIZE, PAGE, 0) == bytes && bytes[0] == 7);
	CHECK(munmap(bytes, PAGE) == 0);
}

/* What is no dma-buf's is answered as ever. */
static void others(void)
{
	int memfd = memfd_create("other", 0), node = open("/dev/dma_heap/system", O_RDWR | O_CLOEXEC);
	CHECK(!ftruncate(memfd, SIZE));
	unsigned char *bytes = map(memfd, SIZE), seen[4], *memory;
	bytes[0] = 1;
	CHECK(!msync(bytes, SIZE, MS_SYNC) && !mincore(bytes, SIZE, seen) && seen[0] == 1);
	CHECK(!madvise(bytes, SIZE, MADV_DONTNEED) && bytes[0] == 1 && !madvise(bytes, SIZE, MADV_REMOVE) && !bytes[0]);
	CHECK(mremap(bytes, SIZE, 2 * SIZE, MREMAP_MAYMOVE) != MAP_FAILED);
	memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memory[0] = 1;
	CHECK(!madvise(memory, SIZE, MADV_DONTNEED) && !memory[0]);
	CHECK((memory = mremap(memory, SIZE, 64 * SIZE, MREMAP_MAYMOVE)) != MAP_FAILED);
	REFUSED(ENOMEM, madvise((void *)PAGE, PAGE, MADV_DONTNEED));
	/* Opened for reading alone: nothing of it is there to be written back. */
	struct dma_heap_allocation_data data = { .len = SIZE, .fd_flags = O_RDONLY | O_CLOEXEC };
	CHECK(!ioctl(node, DMA_HEAP_IOCTL_ALLOC, &data));
	bytes = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, data.fd, 0);
	CHECK(bytes != MAP_FAILED && !msync(bytes, SIZE, MS_SYNC));
	REFUSED(EACCES, madvise(bytes, SIZE, MADV_REMOVE));
	REFUSED(EACCES, mprotect(bytes, SIZE, PROT_READ | PROT_WRITE));
}

/* A memfd's mappings and its udmabuf's, by several names and in two processes: each has its own answer. */
static void both(int memfd, int buffer)
{
	unsigned char *before = map(memfd, SIZE), *its = map(buffer, SIZE), *mine = map(memfd, SIZE), *again = map(buffer, SIZE);
	int status;
	pid_t child = 1;
	for (int round = 0; round < 2; round++) {
		mine[0] = 7;
		CHECK(!madvise(mine, SIZE, MADV_DONTNEED) && !madvise(before, SIZE, MADV_COLD) && mine[0] == 7);
		REFUSED(EINVAL, madvise(its, SIZE, MADV_DONTNEED));
		REFUSED(EINVAL, madvise(again, SIZE, MADV_COLD));
		REFUSED(ENODEV, madvise(again, PAGE, MADV_REMOVE));
		CHECK(!msync(mine, SIZE, MS_SYNC));
		REFUSED(EINVAL, msync(its, SIZE, MS_SYNC));
		CHECK(!round || child || (exit(0), 0));
		child = round ? child : fork();
		CHECK(child >= 0);
	}
	CHECK(waitpid(child, &status, 0) == child && !status);
	/* Elsewhere, over another, and in place of another. */
	unsigned char *room = mmap(NULL, 2 * SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(mremap(its, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, room) == room);
	REFUSED(EINVAL, madvise(room, SIZE, MADV_DONTNEED));
	CHECK(mmap(mine, SIZE, PROT_READ, MAP_SHARED | MAP_FIXED, buffer, 0) == mine);
	REFUSED(EINVAL, madvise(mine, SIZE, MADV_DONTNEED));
	CHECK(!munmap(again, SIZE));
	CHECK(mmap(again, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == again);
	again[0] = 9;
	CHECK(!madvise(again, SIZE, MADV_DONTNEED) && !again[0] && before[0] == 7);
	/* One goes, and another comes where it was. */
	CHECK(!munmap(mine, SIZE) && mmap(mine, SIZE, PROT_READ, MAP_SHARED | 0x100000 /* NOREPLACE */, memfd, 0) == mine);
	CHECK(!madvise(mine, SIZE, MADV_DONTNEED));
	CHECK(!munmap(mine, SIZE) && mmap(mine, SIZE, PROT_READ, MAP_SHARED | 0x100000, buffer, 0) == mine);
	REFUSED(EINVAL, madvise(mine, SIZE, MADV_DONTNEED));
}

static int holders(int fd)
{
	char path[64], text[512] = "", *count;
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	int info = open(path, O_RDONLY);
	CHECK(info >= 0 && read(info, text, sizeof(text) - 1) > 0 && !close(info) && (count = strstr(text, "count:\t")));
	return atoi(count + strlen("count:\t"));
}

/* Advice and protection split a mapping, and each part holds the buffer: none becomes one with another again. */
static void counts(int fd)
{
	int none = holders(fd);
	unsigned char *bytes = map(fd, SIZE);
	CHECK(bytes && holders(fd) == none + 1);
	CHECK(!madvise(bytes + PAGE, PAGE, MADV_RANDOM) && holders(fd) == none + 3);
	CHECK(!madvise(bytes + PAGE, PAGE, MADV_NORMAL) && holders(fd) == none + 3);
	CHECK(!madvise(bytes, SIZE, MADV_DONTDUMP) && holders(fd) == none + 3);
	CHECK(!mprotect(bytes, PAGE, PROT_READ) && holders(fd) == none + 3);
	CHECK(!mprotect(bytes + 2 * PAGE, PAGE, PROT_READ) && holders(fd) == none + 4);
	CHECK(!mprotect(bytes, SIZE, PROT_READ | PROT_WRITE) && holders(fd) == none + 4);
	CHECK(!munmap(bytes + PAGE, PAGE) && holders(fd) == none + 3);
	unsigned char seen[4];
	REFUSED(ENOMEM, mincore(bytes, SIZE, seen));
	REFUSED(ENOMEM, mlock(bytes, SIZE));
	CHECK(!mincore(bytes + 2 * PAGE, 2 * PAGE, seen));
	unsigned char *other = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, SIZE - PAGE);
	CHECK(other != MAP_FAILED && holders(fd) == none + 4 && !munmap(other, PAGE));
	CHECK(!munmap(bytes, SIZE) && holders(fd) == none);
}

/* What advice and MAP_STACK made of a mapping, it is elsewhere too: the same advice about a part splits nothing. */
static void moved(int fd)
{
	int none = holders(fd);
	for (int flags = MAP_SHARED; flags <= (MAP_SHARED | MAP_STACK); flags += MAP_STACK) {
		unsigned char *bytes = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, flags, fd, 0);
		unsigned char *room = mmap(NULL, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		int parts = flags & MAP_STACK ? 1 : 3;
		CHECK(bytes != MAP_FAILED && !madvise(bytes, SIZE, MADV_DONTFORK) && !madvise(bytes, SIZE, MADV_RANDOM));
		CHECK(mremap(bytes, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, room) == room && holders(fd) == none + 1);
		CHECK(!madvise(room + PAGE, PAGE, MADV_DONTFORK) && !madvise(room + PAGE, PAGE, MADV_RANDOM));
		CHECK(holders(fd) == none + 1);
		CHECK(!madvise(room + PAGE, PAGE, MADV_NOHUGEPAGE) && holders(fd) == none + parts);
		CHECK(!munmap(room, SIZE) && holders(fd) == none);
	}
}

int main(int count, char **arguments)
{
	int heap = heap_buffer(SIZE), memfd = sealed_memfd(2 * SIZE), other = sealed_memfd(SIZE);
	int part = udmabuf(memfd, PAGE, SIZE), whole = udmabuf(other, 0, SIZE);
	CHECK(heap >= 0 && part >= 0 && whole >= 0);
	if (count > 1 && !strcmp(arguments[1], "both")) {
		both(other, whole), both(memfd, part);
		return 0;
	}
	if (count > 1 && !strcmp(arguments[1], "behind")) {
		unsigned char *room = mmap(NULL, 2 * SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		CHECK(mmap(room + SIZE, SIZE, PROT_READ, MAP_SHARED | MAP_FIXED, heap, 0) == room + SIZE);
		return madvise(room, 2 * SIZE, MADV_DONTNEED) ? errno : 0;
	}
	if (count > 1 && !strcmp(arguments[1], "counts")) {
		counts(heap), counts(part), counts(whole);
		return 0;
	}
	if (count > 1 && !strcmp(arguments[1], "moved")) {
		moved(heap), moved(part), moved(whole);
		return 0;
	}
	advise(heap, 1), advise(part, 0), advise(whole, 0);
	change(heap), change(part), change(whole);
	others();
	return 0;
}
