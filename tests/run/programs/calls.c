/* One call of each kind, checked; the argument says which kind. */
#include "dmabuf.h"
#include <dirent.h>
#include <linux/openat2.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#define SIZE (1 << 16)

static void heap(void)
{
	int fd = heap_buffer(SIZE);
	CHECK(fd >= 0);
	CHECK(lseek(fd, 0, SEEK_END) == SIZE);
	unsigned char *bytes = map(fd, SIZE);
	CHECK(bytes && !bytes[5]);
	CHECK(!sync_once(fd, START | RW));
	memset(bytes, 7, SIZE);
	CHECK(!sync_once(fd, END | RW));
	REFUSED(EINVAL, sync_once(fd, 0));
	REFUSED(EINVAL, sync_once(fd, 8 | RW));
	REFUSED(ENOTTY, ioctl(fd, _IO('b', 77)));
	CHECK(!munmap(bytes, SIZE) && !close(fd));
	REFUSED(EBADF, sync_once(fd, START | RW));
	REFUSED(EBADF, close(fd));
}

static void shared_pages(void)
{
	int memfd = sealed_memfd(SIZE), fd = udmabuf(memfd, 0, SIZE);
	CHECK(memfd >= 0 && fd >= 0);
	unsigned char *file = map(memfd, SIZE), *bytes = map(fd, SIZE);
	CHECK(file && bytes);
	REFUSED(EINVAL, sync_once(fd, END | RW));
	CHECK(!sync_once(fd, START | RW));
	file[100] = 42;
	CHECK(bytes[100] == 42);
	bytes[SIZE - 1] = 43;
	CHECK(file[SIZE - 1] == 43);
	CHECK(!sync_once(fd, END | RW));
	CHECK(lseek(memfd, 0, SEEK_END) == SIZE);
	CHECK(fcntl(memfd, F_GET_SEALS) == F_SEAL_SHRINK);
}

/* Two ranges of one memfd in the other order, and one of another memfd. */
static void pieces(void)
{
	int one = sealed_memfd(SIZE), two = sealed_memfd(SIZE), device = open("/dev/udmabuf", O_RDWR);
	struct {
		struct udmabuf_create_list head;
		struct udmabuf_create_item items[3];
	} list = { { .flags = UDMABUF_FLAGS_CLOEXEC, .count = 3 },
		   { { one, 0, 8192, 4096 }, { one, 0, 0, 4096 }, { two, 0, 4096, 8192 } } };
	int fd = ioctl(device, UDMABUF_CREATE_LIST, &list);
	CHECK(fd >= 0);
	CHECK(lseek(fd, 0, SEEK_END) == 16384);
	unsigned char *first = map(one, SIZE), *second = map(two, SIZE), *bytes = map(fd, 16384);
	CHECK(bytes);
	first[8192 + 3] = 1, first[3] = 2, second[4096 + 3] = 3, second[8192 + 3] = 4;
	CHECK(bytes[3] == 1 && bytes[4096 + 3] == 2 && bytes[8192 + 3] == 3 && bytes[12288 + 3] == 4);
	bytes[4096] = 9;
	CHECK(first[0] == 9);
	unsigned char *part = mmap(NULL, 8192, PROT_READ, MAP_SHARED, fd, 4096);
	CHECK(part != MAP_FAILED && part[3] == 2 && part[4096 + 3] == 3);
	REFUSED(EINVAL, mmap(NULL, 8192, PROT_READ, MAP_SHARED, fd, 12288));
	REFUSED(EINVAL, mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0));
	int offset = udmabuf(one, 8192, 4096);
	CHECK(offset >= 0 && map(offset, 4096)[3] == 1);
}

static void paths(void)
{
	struct stat state;
	CHECK(!stat("/dev/udmabuf", &state) && S_ISCHR(state.st_mode));
	CHECK(!lstat("/dev/dma_heap/system", &state) && S_ISCHR(state.st_mode));
	CHECK(!stat("/dev/dma_heap", &state) && S_ISDIR(state.st_mode));
	REFUSED(ENOENT, stat("/dev/dma_heap/nonsense", &state));
	CHECK(!access("/dev/udmabuf", R_OK | W_OK));
	REFUSED(EACCES, access("/dev/udmabuf", X_OK));
	REFUSED(ENOENT, open("/dev/dma_heap/nonsense", O_RDWR));
	int fd = open("/dev/udmabuf", O_RDWR);
	CHECK(fd >= 0 && !fstat(fd, &state) && S_ISCHR(state.st_mode));
	CHECK((fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR && !(fcntl(fd, F_GETFD) & FD_CLOEXEC));
	CHECK(!chdir("/dev") && (fd = open("udmabuf", O_RDONLY | O_CLOEXEC)) >= 0);
	CHECK((fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY && (fcntl(fd, F_GETFD) & FD_CLOEXEC));
	int folder = open("/dev", O_PATH | O_DIRECTORY);
	CHECK(openat(folder, "./dma_heap/system", O_RDWR) >= 0);
	char link[] = "/tmp/dmasync-link-XXXXXX", name[64], text[64] = "";
	CHECK(mkdtemp(link));
	snprintf(name, sizeof(name), "%s/camera", link);
	CHECK(!symlink("/dev/dma_heap/system", name) && open(name, O_RDWR) >= 0 && !unlink(name));
	CHECK(!symlink("/dev", name));
	snprintf(name, sizeof(name), "%s/camera/udmabuf", link);
	CHECK(open(name, O_RDWR) >= 0);
	*strrchr(name, '/') = 0;
	CHECK(!unlink(name) && !rmdir(link));
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	CHECK(open(name, O_RDWR) >= 0 && readlink(name, text, 64) == 12 && !strcmp(text, "/dev/udmabuf"));
	fd = heap_buffer(SIZE);
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	REFUSED(ENXIO, open(name, O_RDWR));
	CHECK(readlink(name, text, 64) == 8 && !memcmp(text, "/dmabuf:", 8));
	CHECK(!fstat(fd, &state) && state.st_size == SIZE);
	CHECK(open("/dev/null", O_RDWR) >= 0 && !stat("/dev/null", &state));
}

/* The folder lists so many names. */
static void folder(int count)
{
	DIR *heaps = opendir("/dev/dma_heap");
	CHECK(heaps);
	for (int round = 0; round < 2; round++) {
		int system = 0, others = 0; /* "." and ".." among them */
		struct dirent *entry;
		while ((entry = readdir(heaps)))
			if (!strcmp(entry->d_name, "system"))
				system++;
			else
				others++;
		CHECK(system == 1 && system + others == count);
		rewinddir(heaps);
	}
	CHECK(openat(dirfd(heaps), "system", O_RDWR) >= 0);
	closedir(heaps);
}

static void duplicates(void)
{
	int fd = heap_buffer(SIZE), one = dup(fd), two = dup2(fd, 33), three = dup3(fd, 34, O_CLOEXEC);
	int four = fcntl(fd, F_DUPFD_CLOEXEC, 0), five = fcntl(fd, F_DUPFD, 0);
	CHECK(one >= 0 && two == 33 && three == 34 && four >= 0 && five >= 0);
	CHECK(!(fcntl(one, F_GETFD) & FD_CLOEXEC) && (fcntl(three, F_GETFD) & FD_CLOEXEC));
	CHECK((fcntl(four, F_GETFD) & FD_CLOEXEC) && !(fcntl(five, F_GETFD) & FD_CLOEXEC));
	CHECK(!close(fd));
	int all[] = { one, two, three, four, five };
	for (int i = 0; i < 5; i++) {
		CHECK(!sync_once(all[i], START | RW) && !sync_once(all[i], END | RW));
		CHECK(!close(all[i]));
		REFUSED(EBADF, sync_once(all[i], START | RW));
	}
	fd = heap_buffer(SIZE);
	int other = open("/dev/null", O_RDWR);
	CHECK(dup2(other, fd) == fd);
	REFUSED(ENOTTY, sync_once(fd, START | RW));
	fd = heap_buffer(SIZE);
	CHECK(!syscall(SYS_close_range, fd, fd + 1, 0));
	REFUSED(EBADF, sync_once(fd, START | RW));
}

static void refused(void)
{
	int fd = heap_buffer(SIZE), memfd = sealed_memfd(SIZE), device = open("/dev/udmabuf", O_RDWR);
	REFUSED(ESPIPE, lseek(device, 0, SEEK_END));
	REFUSED(EINVAL, lseek(fd, 1, SEEK_SET));
	REFUSED(EINVAL, ftruncate(fd, 0));
	REFUSED(EINVAL, fcntl(fd, F_GET_SEALS));
	REFUSED(EFAULT, ioctl(fd, DMA_BUF_IOCTL_SYNC, (void *)8));
	REFUSED(EINVAL, ioctl(fd, DMA_BUF_SET_NAME, "a name that is far longer than thirty-two bytes"));
	CHECK(!ioctl(fd, DMA_BUF_SET_NAME, "short"));
	REFUSED(EINVAL, mmap(NULL, 2 * SIZE, PROT_READ, MAP_SHARED, fd, 0));
	struct udmabuf_create create = { .memfd = memfd, .offset = 100, .size = SIZE };
	REFUSED(EINVAL, ioctl(device, UDMABUF_CREATE, &create));
	create = (struct udmabuf_create){ .memfd = 0x7fffffff, .size = SIZE };
	REFUSED(EBADFD, ioctl(device, UDMABUF_CREATE, &create));
	create = (struct udmabuf_create){ .memfd = device, .size = SIZE };
	REFUSED(EBADFD, ioctl(device, UDMABUF_CREATE, &create));
	create = (struct udmabuf_create){ .memfd = memfd, .size = SIZE };
	/* The last bytes before a hole are too few for the structure. */
	unsigned char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(!munmap(pages + 4096, 4096));
	memcpy(pages + 4096 - 8, &create, 8);
	REFUSED(EFAULT, ioctl(device, UDMABUF_CREATE, pages + 4096 - 8));
	int buffer = ioctl(device, UDMABUF_CREATE, &create);
	CHECK(buffer >= 0);
	REFUSED(EBUSY, fcntl(memfd, F_ADD_SEALS, F_SEAL_WRITE));
	CHECK(!close(buffer));
	int read_only = open("/dev/dma_heap/system", O_RDONLY);
	struct dma_heap_allocation_data data = { .len = SIZE, .fd_flags = O_RDONLY };
	CHECK(!ioctl(read_only, DMA_HEAP_IOCTL_ALLOC, &data));
	REFUSED(EACCES, mmap(NULL, SIZE, PROT_WRITE, MAP_SHARED, data.fd, 0));
	CHECK(mmap(NULL, SIZE, PROT_READ, MAP_SHARED, data.fd, 0) != MAP_FAILED);
}

static void sync_files(void)
{
	int fd = heap_buffer(SIZE);
	struct dma_buf_export_sync_file out = { RW, -1 };
	CHECK(!ioctl(fd, DMA_BUF_IOCTL_EXPORT_SYNC_FILE, &out) && out.fd >= 0);
	struct pollfd wanted = { out.fd, POLLIN };
	CHECK(poll(&wanted, 1, 0) == 1 && wanted.revents == POLLIN);
	struct sync_fence_info fences[4] = { { { 0 } } };
	struct sync_file_info info = { .num_fences = 4, .sync_fence_info = (unsigned long)fences };
	CHECK(!ioctl(out.fd, SYNC_IOC_FILE_INFO, &info) && info.num_fences == 1 && info.status == 1);
	CHECK(fences[0].status == 1 && *fences[0].driver_name);
	struct sync_merge_data both = { .name = "both", .fd2 = out.fd };
	CHECK(!ioctl(out.fd, SYNC_IOC_MERGE, &both) && both.fence >= 0 && both.fd2 == out.fd);
	struct dma_buf_import_sync_file in = { WRITE, both.fence };
	CHECK(!ioctl(fd, DMA_BUF_IOCTL_IMPORT_SYNC_FILE, &in));
	in.fd = fd;
	REFUSED(EINVAL, ioctl(fd, DMA_BUF_IOCTL_IMPORT_SYNC_FILE, &in));
	CHECK(!close(both.fence) && !close(out.fd));
}

static void send_one(int over, int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec byte = { "x", 1 };
	struct msghdr message = { .msg_iov = &byte, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);
	*head = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
	memcpy(CMSG_DATA(head), &fd, sizeof(int));
	CHECK(sendmsg(over, &message, 0) == 1);
}

static int receive_one(int over)
{
	char control[CMSG_SPACE(sizeof(int))], text[1];
	struct iovec byte = { text, 1 };
	struct msghdr message = { .msg_iov = &byte, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	int fd;
	CHECK(recvmsg(over, &message, 0) == 1);
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
	return fd;
}

/* What the child gets by fork, over a socket and through a pidfd is the parent's buffer. */
static void travel(void)
{
	int pair[2], fd = heap_buffer(SIZE), sent = heap_buffer(SIZE), memfd = sealed_memfd(SIZE);
	int shared = udmabuf(memfd, 0, SIZE), taken = heap_buffer(SIZE);
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	unsigned char *bytes = map(fd, SIZE), *others = map(sent, SIZE);
	bytes[1] = 1;
	others[1] = 2;
	map(shared, SIZE)[1] = 3;
	map(taken, SIZE)[1] = 4;
	pid_t parent = getpid(), child = fork();
	if (!child) {
		close(sent), close(shared), close(taken);
		int got = receive_one(pair[1]), udma = receive_one(pair[1]);
		CHECK(!sync_once(fd, START | RW) && map(fd, SIZE)[1] == 1 && !sync_once(fd, END | RW));
		CHECK(!sync_once(got, START | RW) && map(got, SIZE)[1] == 2);
		map(got, SIZE)[2] = 5;
		CHECK(!sync_once(got, END | RW));
		CHECK(lseek(udma, 0, SEEK_END) == SIZE);
		CHECK(!sync_once(udma, START | RW) && map(udma, SIZE)[1] == 3 && !sync_once(udma, END | RW));
		int process = syscall(SYS_pidfd_open, parent, 0), number = taken;
		int ours = syscall(SYS_pidfd_getfd, process, number, 0);
		CHECK(ours >= 0 && !sync_once(ours, START | READ) && map(ours, SIZE)[1] == 4 && !sync_once(ours, END | READ));
		_exit(0);
	}
	send_one(pair[0], sent);
	send_one(pair[0], shared);
	CHECK(!close(sent) && !close(shared));
	int status;
	CHECK(waitpid(child, &status, 0) == child && status == 0);
	CHECK(others[2] == 5);
}

/* Across exec a descriptor lives unless it is to be closed. */
static void exec_again(char *self)
{
	int stays = heap_buffer(SIZE), goes = heap_buffer(SIZE);
	char numbers[2][16];
	CHECK(!fcntl(stays, F_SETFD, 0));
	snprintf(numbers[0], 16, "%d", stays);
	snprintf(numbers[1], 16, "%d", goes);
	execl(self, self, "executed", numbers[0], numbers[1], NULL);
	CHECK(0);
}

static void executed(char *stays, char *goes)
{
	CHECK(!sync_once(atoi(stays), START | RW) && !sync_once(atoi(stays), END | RW));
	REFUSED(EBADF, sync_once(atoi(goes), START | RW));
	CHECK(heap_buffer(SIZE) == atoi(goes));
}

/* What has no code for bytes refuses them, in the kernel's order; a file that stands for it must not take them. */
static void no_bytes(void)
{
	int memfd = sealed_memfd(SIZE), files[] = { heap_buffer(SIZE), udmabuf(memfd, 0, SIZE), udmabuf(memfd, 4096, 4096) };
	char bytes[8] = "bytes";
	struct iovec vector = { bytes, sizeof(bytes) };
	loff_t offset = 0;
	int ends[2];
	CHECK(!pipe(ends) && write(ends[1], "!", 1) == 1);
	for (int i = 0; i < 3; i++) {
		int fd = files[i];
		struct statfs system;
		struct stat state;
		CHECK(fd >= 0 && map(fd, 4096));
		REFUSED(EINVAL, read(fd, bytes, 8));
		REFUSED(EINVAL, write(fd, bytes, 0));
		REFUSED(EINVAL, readv(fd, &vector, 1));
		REFUSED(EINVAL, writev(fd, &vector, 1));
		REFUSED(ESPIPE, pread(fd, bytes, 8, 0));
		REFUSED(EINVAL, pread(fd, bytes, 8, -1));
		REFUSED(ESPIPE, pwrite(fd, bytes, 8, 0));
		REFUSED(ESPIPE, preadv(fd, &vector, 1, 0));
		REFUSED(EINVAL, preadv2(fd, &vector, 1, -1, 0));
		REFUSED(ESPIPE, pwritev2(fd, &vector, 1, 0, 0));
		REFUSED(EINVAL, fsync(fd));
		REFUSED(EINVAL, fdatasync(fd));
		REFUSED(EINVAL, fallocate(fd, 0, 0, 0));
		REFUSED(ENODEV, fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096));
		REFUSED(EINVAL, sendfile(ends[1], fd, NULL, 8));
		REFUSED(ESPIPE, sendfile(ends[1], fd, &offset, 8));
		REFUSED(EINVAL, splice(fd, NULL, ends[1], NULL, 8, 0));
		REFUSED(EINVAL, splice(ends[0], NULL, fd, NULL, 1, 0));
		REFUSED(EINVAL, copy_file_range(fd, NULL, fd, NULL, 8, 0));
		REFUSED(EINVAL, fcntl(fd, F_SETFL, O_DIRECT));
		REFUSED(EINVAL, fcntl(fd, F_SETLEASE, F_RDLCK));
		REFUSED(EINVAL, fcntl(fd, F_DUPFD, -1));
		REFUSED(EINVAL, lseek(fd, 0, -1));
		CHECK(!fstatfs(fd, &system) && system.f_type == 0x444d4142);
		CHECK(!fstat(fd, &state) && state.st_blocks == state.st_size / 512);
		char name[64];
		snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
		CHECK(!stat(name, &state) && !(state.st_mode & S_IFMT));
		REFUSED(EINVAL, truncate(name, 0));
	}
	int read_only = open("/dev/dma_heap/system", O_RDONLY);
	struct dma_heap_allocation_data data = { .len = SIZE, .fd_flags = O_RDONLY };
	CHECK(!ioctl(read_only, DMA_HEAP_IOCTL_ALLOC, &data));
	REFUSED(EBADF, write(data.fd, bytes, 8));
	REFUSED(EBADF, write(read_only, bytes, 8));
	REFUSED(EINVAL, read(read_only, bytes, 8));
	int device = open("/dev/udmabuf", O_RDWR);
	REFUSED(EINVAL, pread(device, bytes, 8, 0));
	struct dma_buf_export_sync_file out = { RW, -1 };
	CHECK(!ioctl(files[0], DMA_BUF_IOCTL_EXPORT_SYNC_FILE, &out));
	REFUSED(EINVAL, read(out.fd, bytes, 8));
	REFUSED(EBADF, write(out.fd, bytes, 8));
	REFUSED(EBADF, fcntl(out.fd, F_GETPIPE_SZ));
}

/* After dup2() and over a socket numbers are low: the buffer is what it was. */
static void low_numbers(void)
{
	int fd = heap_buffer(SIZE), low = dup2(fd, 40), set = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event wanted = { EPOLLIN }, got;
	unsigned char *bytes = map(low, SIZE);
	CHECK(low == 40 && bytes);
	REFUSED(EINVAL, ftruncate(low, 0));
	REFUSED(ENODEV, fallocate(low, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096));
	REFUSED(EINVAL, fcntl(low, F_GET_SEALS));
	CHECK(!epoll_ctl(set, EPOLL_CTL_ADD, low, &wanted) && epoll_wait(set, &got, 1, 0) == 1);
	CHECK(lseek(low, 0, SEEK_END) == SIZE);
	bytes[SIZE - 1] = 1;
	CHECK(!sync_once(low, START | RW) && !sync_once(low, END | RW));
}

/* Arguments as wide as they get. */
static void wide(void)
{
	int fd = heap_buffer(SIZE), memfd = sealed_memfd(SIZE), device = open("/dev/udmabuf", O_RDWR);
	REFUSED(EOVERFLOW, mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, -4096));
	REFUSED(ENOMEM, mmap(NULL, -1, PROT_READ, MAP_SHARED, fd, 0));
	REFUSED(EINVAL, mmap(NULL, 1ul << 40, PROT_READ, MAP_SHARED, fd, 0));
	REFUSED(ENOTTY, ioctl(device, DMA_BUF_IOCTL_SYNC, NULL));
	REFUSED(ENOTTY, ioctl(device, DMA_BUF_SET_NAME, NULL));
	int one = udmabuf(memfd, 0, 4096);
	REFUSED(EBUSY, fcntl(memfd, F_ADD_SEALS, F_SEAL_WRITE));
	REFUSED(EINVAL, fcntl(memfd, F_ADD_SEALS, F_SEAL_WRITE | 0x1000));
	CHECK(!fcntl(memfd, F_ADD_SEALS, F_SEAL_SEAL));
	REFUSED(EPERM, fcntl(memfd, F_ADD_SEALS, F_SEAL_WRITE));
	struct {
		struct udmabuf_create_list head;
		struct udmabuf_create_item items[2];
	} list = { { .flags = UDMABUF_FLAGS_CLOEXEC, .count = 2 }, { { memfd, 0, 8192, 4096 }, { memfd, 0, 0, 4096 } } };
	int two = ioctl(device, UDMABUF_CREATE_LIST, &list);
	unsigned char *bytes = map(two, 8192);
	CHECK(one >= 0 && bytes);
	REFUSED(EEXIST, mmap(bytes, 8192, PROT_READ, MAP_SHARED | MAP_FIXED_NOREPLACE, two, 0));
}

/* Nothing is open at the end that a parent, or nobody, would have to close. */
static void closed(void)
{
	int fd = heap_buffer(SIZE), status;
	CHECK(dup2(fd, 40) == 40 && !close(fd));
	CHECK(!sync_once(40, START | RW) && !sync_once(40, END | RW) && !close(40));
	fd = heap_buffer(SIZE);
	if (!fork()) {
		CHECK(!sync_once(fd, START | RW) && !sync_once(fd, END | RW));
		_exit(0); /* with what it inherited */
	}
	CHECK(wait(&status) > 0 && !status && !close(fd));
}

static long open_how(int folder, const char *path, long flags, long resolve, long size)
{
	struct open_how how[2] = { { .flags = flags, .resolve = resolve } };
	return syscall(SYS_openat2, folder, path, how, size);
}

/* Ways to a node that do not lead there. */
static void odd_paths(void)
{
	int folder = open("/dev", O_RDONLY | O_DIRECTORY);
	struct stat state;
	struct statx more;
	char target[64];
	CHECK(!chdir("/") && open("dev/udmabuf", O_RDWR) >= 0 && open("/proc/self/cwd/dev/udmabuf", O_RDWR) >= 0);
	CHECK(open("/proc/self/root/dev/udmabuf", O_RDWR | O_CREAT, 0600) >= 0);
	REFUSED(ENOENT, open("/dev/no-such-folder/../udmabuf", O_RDWR));
	REFUSED(ENOTDIR, open("/dev/null/../udmabuf", O_RDWR));
	CHECK(open("/dev/dma_heap/../udmabuf", O_RDWR) >= 0);
	REFUSED(ENOTDIR, stat("/dev/udmabuf/", &state));
	REFUSED(ENOTDIR, access("/dev/udmabuf/below", F_OK));
	CHECK(!stat("/dev/dma_heap/", &state) && S_ISDIR(state.st_mode));
	REFUSED(EINVAL, readlink("/dev/udmabuf", target, 64));
	REFUSED(EINVAL, readlink("/dev/dma_heap", target, 64));
	CHECK(realpath("/dev/dma_heap/../dma_heap/system", NULL));
	REFUSED(EISDIR, open("/dev/dma_heap", O_RDWR | O_CREAT, 0600));
	REFUSED(EINVAL, truncate("/dev/udmabuf", 0));
	REFUSED(EINVAL, open_how(AT_FDCWD, "/dev/udmabuf", O_RDWR, 0, 23));
	REFUSED(EINVAL, open_how(AT_FDCWD, "/dev/udmabuf", O_RDWR, 1 << 12, 24));
	REFUSED(EINVAL, open_how(AT_FDCWD, "/dev/udmabuf", O_RDWR | 1l << 40, 0, 24));
	REFUSED(EXDEV, open_how(AT_FDCWD, "/dev/udmabuf", O_RDWR, RESOLVE_BENEATH, 24));
	REFUSED(EXDEV, open_how(folder, "../dev/udmabuf", O_RDWR, RESOLVE_BENEATH, 24));
	CHECK(open_how(folder, "udmabuf", O_RDWR, RESOLVE_BENEATH, sizeof(struct open_how[2])) >= 0);
	CHECK(open_how(folder, "/udmabuf", O_RDWR, RESOLVE_IN_ROOT, 24) >= 0);
	CHECK(open_how(folder, "../../dma_heap/../udmabuf", O_RDWR, RESOLVE_IN_ROOT, 24) >= 0);
	CHECK(open_how(folder, "/dma_heap", O_RDONLY | O_DIRECTORY, RESOLVE_IN_ROOT, 24) >= 0);
	REFUSED(ENOENT, open_how(folder, "/dev/udmabuf", O_RDWR, RESOLVE_IN_ROOT, 24));
	REFUSED(ENOTDIR, open_how(folder, "/udmabuf/", O_RDWR, RESOLVE_IN_ROOT, 24));
	REFUSED(ENOTDIR, open_how(folder, "null/../udmabuf", O_RDWR, RESOLVE_IN_ROOT, 24));
	REFUSED(EINVAL, open_how(folder, "udmabuf", O_RDWR, RESOLVE_IN_ROOT | RESOLVE_BENEATH, 24));
	REFUSED(ELOOP, open_how(AT_FDCWD, "/proc/self/root/dev/udmabuf", O_RDWR, RESOLVE_NO_SYMLINKS, 24));
	REFUSED(EINVAL, fstatat(AT_FDCWD, "/dev/udmabuf", &state, 0x80000));
	REFUSED(EINVAL, statx(AT_FDCWD, "/dev/udmabuf", 0, 0x80000000, &more));
	REFUSED(EINVAL, syscall(SYS_faccessat2, AT_FDCWD, "/dev/udmabuf", R_OK, 0x10000));
	char link[] = "/tmp/dmasync-link-XXXXXX", name[64];
	CHECK(mkdtemp(link));
	snprintf(name, sizeof(name), "%s/camera", link);
	CHECK(!symlink("/dev/udmabuf", name) && open(name, O_RDWR) >= 0);
	REFUSED(ELOOP, open(name, O_RDWR | O_NOFOLLOW));
	REFUSED(ELOOP, open_how(AT_FDCWD, name, O_RDWR, RESOLVE_NO_SYMLINKS, 24));
	CHECK(!lstat(name, &state) && S_ISLNK(state.st_mode) && !stat(name, &state) && S_ISCHR(state.st_mode));
	CHECK(readlink(name, target, 64) == 12 && !unlink(name) && !rmdir(link));
}

/* With every number taken, what is open goes on to work. */
static void full(void)
{
	struct rlimit few = { 60, 60 };
	int fds[64], count = 0;
	CHECK(!setrlimit(RLIMIT_NOFILE, &few));
	while (count < 64 && (fds[count] = heap_buffer(4096)) >= 0)
		count++;
	CHECK(errno == EMFILE && count > 8);
	CHECK(!close(fds[0]) && (fds[0] = dup(fds[1])) >= 0);
	for (int fd; (fd = dup(fds[1])) >= 0;)
		;
	REFUSED(EMFILE, open("/dev/dma_heap/nonsense", O_RDWR));
	for (int i = 0; i < count; i++)
		CHECK(!sync_once(fds[i], START | RW) && !sync_once(fds[i], END | RW));
}

int main(int count, char **arguments)
{
	char *kind = arguments[1];
	if (!strcmp(kind, "heap")) heap();
	else if (!strcmp(kind, "shared_pages")) shared_pages();
	else if (!strcmp(kind, "pieces")) pieces();
	else if (!strcmp(kind, "paths")) paths();
	else if (!strcmp(kind, "folder")) folder(count > 2 ? atoi(arguments[2]) : 7);
	else if (!strcmp(kind, "duplicates")) duplicates();
	else if (!strcmp(kind, "refused")) refused();
	else if (!strcmp(kind, "sync_files")) sync_files();
	else if (!strcmp(kind, "travel")) travel();
	else if (!strcmp(kind, "no_bytes")) no_bytes();
	else if (!strcmp(kind, "low_numbers")) low_numbers();
	else if (!strcmp(kind, "wide")) wide();
	else if (!strcmp(kind, "odd_paths")) odd_paths();
	else if (!strcmp(kind, "full")) full();
	else if (!strcmp(kind, "closed")) closed();
	else if (!strcmp(kind, "exec")) exec_again(arguments[0]);
	else if (!strcmp(kind, "executed") && count > 3) executed(arguments[2], arguments[3]);
	else return 8;
	return 0;
}
