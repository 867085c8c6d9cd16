/* One call of each kind, checked; the argument says which kind. */
#include "dmabuf.h"
#include <dirent.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
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
	else if (!strcmp(kind, "exec")) exec_again(arguments[0]);
	else if (!strcmp(kind, "executed") && count > 3) executed(arguments[2], arguments[3]);
	else return 8;
	return 0;
}
