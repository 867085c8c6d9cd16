/* Less common ways to use dma-bufs: each kind checks what the kernel answers, on the fake and on a real one alike. */
#include "dmabuf.h"
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>

#define PAGE 4096
#define SIZE (4 * PAGE)
#define DMA_BUF_MAGIC 0x444d4142

static int through_socket(int fd)
{
	int pair[2], got;
	char byte = 0, control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec part = { &byte, 1 };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair));
	header->cmsg_level = SOL_SOCKET, header->cmsg_type = SCM_RIGHTS, header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &fd, sizeof(int));
	CHECK(sendmsg(pair[0], &message, 0) == 1);
	CHECK(recvmsg(pair[1], &message, 0) == 1);
	memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
	close(pair[0]), close(pair[1]);
	return got;
}

static int is_same(int one, int other)
{
	struct stat first, second;
	CHECK(!fstat(one, &first) && !fstat(other, &second));
	return first.st_ino == second.st_ino && first.st_dev == second.st_dev;
}

/* A dma-buf that came from elsewhere is described as any other. */
static void describe(int fd)
{
	struct stat state;
	struct statx extended;
	struct statfs system;
	int other = memfd_create("other", 0), pipes[2], copy;
	CHECK(!fstat(fd, &state) && state.st_mode == 0600 && state.st_size == SIZE);
	memset(&state, 0, sizeof(state));
	CHECK(!fstatat(fd, "", &state, AT_EMPTY_PATH) && state.st_mode == 0600 && state.st_size == SIZE);
	CHECK(!statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &extended));
	CHECK(extended.stx_mode == 0600 && extended.stx_size == SIZE && extended.stx_attributes_mask == 0x303000);
	CHECK(!fstatfs(fd, &system) && system.f_type == DMA_BUF_MAGIC);
	CHECK(lseek(fd, 0, SEEK_END) == SIZE && lseek(fd, 0, SEEK_SET) == 0);
	REFUSED(EINVAL, lseek(fd, 0, SEEK_CUR));
	REFUSED(EINVAL, lseek(fd, -1, SEEK_END));
	REFUSED(EINVAL, lseek(fd, 0, SEEK_DATA));
	CHECK(fcntl(fd, F_GETFL) == O_RDWR);
	REFUSED(EINVAL, fcntl(fd, F_GET_SEALS));
	REFUSED(EINVAL, fcntl(fd, F_SETFL, O_DIRECT));
	REFUSED(EINVAL, ftruncate(fd, 0));
	REFUSED(EINVAL, fsync(fd));
	REFUSED(EINVAL, fdatasync(fd));
	REFUSED(ESPIPE, sync_file_range(fd, 0, 0, 0));
	REFUSED(ENODEV, fallocate(fd, 0, 0, PAGE));
	CHECK(!pipe(pipes) && !ftruncate(other, PAGE));
	REFUSED(EINVAL, sendfile(pipes[1], fd, NULL, 64));
	REFUSED(EINVAL, splice(fd, NULL, pipes[1], NULL, 64, 0));
	REFUSED(EINVAL, copy_file_range(other, NULL, fd, NULL, 64, 0));
	CHECK(sendfile(pipes[1], other, NULL, 64) == 64);
	CHECK((copy = dup(fd)) >= 0 && is_same(fd, copy));
	close(copy);
	CHECK((copy = fcntl(fd, F_DUPFD_CLOEXEC, 3)) >= 0 && is_same(fd, copy));
	CHECK(fcntl(copy, F_GETFD) == FD_CLOEXEC);
	CHECK(!sync_once(copy, START | RW) && !sync_once(fd, END | RW));
	close(copy), close(other), close(pipes[0]), close(pipes[1]);
}

static void received(void)
{
	int memfd = sealed_memfd(4 * SIZE), heap = heap_buffer(SIZE), first = udmabuf(memfd, 0, SIZE);
	int second = udmabuf(memfd, SIZE, SIZE), pidfd = syscall(SYS_pidfd_open, getpid(), 0);
	int sent[] = { through_socket(heap), through_socket(first), through_socket(second) };
	for (int place = 0; place < 3; place++)
		describe(sent[place]);
	CHECK(is_same(sent[0], heap) && is_same(sent[1], first) && is_same(sent[2], second));
	CHECK(!is_same(sent[1], sent[2]) && !is_same(sent[1], memfd));
	int taken = syscall(SYS_pidfd_getfd, pidfd, second, 0);
	describe(taken);
	CHECK(is_same(taken, second));
	CHECK(dup2(heap, 90) == 90 && is_same(90, heap));
	describe(90);
	CHECK(dup2(heap, 0) == 0);
	describe(0);
	/* What is no dma-buf stays what it is. */
	struct stat state;
	CHECK(!fstat(memfd, &state) && S_ISREG(state.st_mode) && state.st_size == 4 * SIZE);
	CHECK(lseek(memfd, 0, SEEK_END) == 4 * SIZE && write(memfd, "x", 1) == 1);
	int node = open("/dev/udmabuf", O_RDWR | O_NOATIME), arrived = through_socket(node);
	CHECK(fcntl(arrived, F_GETFL) == (O_RDWR | O_NOATIME | 0100000) && is_same(arrived, node));
	CHECK(!fstat(arrived, &state) && S_ISCHR(state.st_mode));
	REFUSED(ESPIPE, lseek(arrived, 0, SEEK_END));
}

/* Requests that the kernel carries out by itself. */
static void asynchronous(void)
{
	aio_context_t context = 0;
	char bytes[64];
	int fd = heap_buffer(SIZE), memfd = memfd_create("plain", 0);
	struct iocb request = { .aio_fildes = fd, .aio_buf = (unsigned long)bytes, .aio_nbytes = sizeof(bytes) };
	struct iocb *list[] = { &request };
	struct io_event event;
	CHECK(!syscall(SYS_io_setup, 4, &context));
	for (int operation = 0; operation < 9; operation++) {
		request.aio_lio_opcode = operation;
		REFUSED(EINVAL, syscall(SYS_io_submit, context, 1, list));
	}
	request.aio_fildes = through_socket(fd), request.aio_lio_opcode = IOCB_CMD_PREAD;
	REFUSED(EINVAL, syscall(SYS_io_submit, context, 1, list));
	REFUSED(EFAULT, syscall(SYS_io_submit, context, 1, (void *)8));
	request.aio_fildes = memfd, request.aio_lio_opcode = IOCB_CMD_PWRITE;
	CHECK(syscall(SYS_io_submit, context, 1, list) == 1);
	CHECK(syscall(SYS_io_getevents, context, 1, 1, &event, NULL) == 1 && event.res == sizeof(bytes));
}

static int waits_for(int epoll, unsigned events, int fd)
{
	struct epoll_event event = { events, { .fd = fd } };
	CHECK(!epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event));
	return epoll_wait(epoll, &event, 1, 10);
}

/* An epoll file that a child inherits, or that was duplicated, is the same file. */
static void epoll_inherited(void)
{
	int fd = heap_buffer(SIZE), epoll = epoll_create1(0), again = dup(epoll), status;
	struct epoll_event event = { EPOLLIN, { .u64 = 7 } }, two[2];
	REFUSED(ENOENT, epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event));
	CHECK(!epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
	REFUSED(EEXIST, epoll_ctl(again, EPOLL_CTL_ADD, fd, &event));
	CHECK(waits_for(epoll, EPOLLIN | EPOLLET, fd) == 1);
	CHECK(epoll_wait(epoll, two, 2, 10) == 1 && epoll_wait(epoll, two, 2, 10) == 1);
	CHECK(waits_for(epoll, EPOLLRDNORM | EPOLLWRNORM, fd) == 0);
	CHECK(waits_for(epoll, EPOLLIN | EPOLLONESHOT, fd) == 1 && epoll_wait(epoll, two, 2, 10) == 0);
	int copy = dup(fd);
	CHECK(!epoll_ctl(epoll, EPOLL_CTL_ADD, copy, &event));
	pid_t child = fork();
	if (!child) {
		REFUSED(EEXIST, epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
		CHECK(waits_for(epoll, EPOLLOUT, fd) == 1);
		CHECK(!epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL));
		REFUSED(ENOENT, epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL));
		exit(0);
	}
	CHECK(waitpid(child, &status, 0) == child && status == 0);
	CHECK(epoll_wait(epoll, two, 2, 10) == 1);
	REFUSED(ENOENT, epoll_ctl(again, EPOLL_CTL_DEL, fd, NULL));
	CHECK(!epoll_ctl(again, EPOLL_CTL_ADD, fd, &event));
	CHECK(epoll_wait(epoll, two, 2, 10) == 2);
}

/* By the names in /proc, and by calls that take an empty one. */
static void by_name(void)
{
	int fd = heap_buffer(SIZE);
	char path[64];
	struct statvfs system;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	CHECK(!access(path, R_OK | W_OK));
	REFUSED(EACCES, access(path, X_OK));
	CHECK(!syscall(SYS_faccessat2, fd, "", R_OK, AT_EMPTY_PATH));
	REFUSED(EACCES, syscall(SYS_faccessat2, fd, "", X_OK, AT_EMPTY_PATH));
	REFUSED(ENXIO, open(path, O_RDWR));
	REFUSED(ENOTDIR, open(path, O_RDONLY | O_DIRECTORY));
	CHECK(!fstatvfs(fd, &system) && !(system.f_flag & ~0x20UL)); /* musl shows ST_VALID, glibc does not */
	/* As a program that looks through its descriptors has it. */
	char name[16], target[64] = "";
	snprintf(name, sizeof(name), "%d", fd);
	int folder = open("/proc/self/fd", O_RDONLY | O_DIRECTORY);
	CHECK(readlinkat(folder, name, target, sizeof(target)) == 8 && !memcmp(target, "/dmabuf:", 8));
	CHECK(!chdir("/proc/self"));
	CHECK(readlink(path + strlen("/proc/self/"), target, sizeof(target)) == 8 && !memcmp(target, "/dmabuf:", 8));
	REFUSED(ENXIO, openat(folder, name, O_RDWR));
	CHECK(!chdir("/proc/self/fdinfo"));
	int info = open(name, O_RDONLY);
	CHECK(info >= 0 && read(info, target, 4) == 4 && !memcmp(target, "pos:", 4));
	/* Each descriptor and each mapping holds a buffer. */
	int counts[2];
	for (int round = 0; round < 2; round++) {
		char text[512] = "", *count;
		CHECK((info = open(name, O_RDONLY)) >= 0 && read(info, text, sizeof(text) - 1) > 0);
		CHECK((count = strstr(text, "count:\t")) != NULL);
		counts[round] = atoi(count + strlen("count:\t"));
		CHECK(dup(fd) >= 0 && map(fd, SIZE) && map(fd, PAGE));
	}
	CHECK(counts[1] == counts[0] + 3 || counts[1] == counts[0] + 4); /* on a real kernel dmasync run has one, too */
	/* A file that only looks like a descriptor's name. */
	char place[] = "/tmp/ways-XXXXXX";
	CHECK(mkdtemp(place) && !chdir(place) && !mkdir("fd", 0700));
	snprintf(path, sizeof(path), "%s/fd/%d", place, fd);
	CHECK((info = open(path, O_RDWR | O_CREAT, 0600)) >= 0 && write(info, "x", 1) == 1);
	CHECK(!access(path, R_OK) && !truncate(path, 0) && open(path, O_RDONLY) >= 0);
	REFUSED(EINVAL, readlink(path, target, sizeof(target)));
	CHECK(!unlink(path) && !rmdir("fd") && !rmdir(place));
	int made = creat("/dev/dma_heap/system", 0600);
	CHECK(made >= 0 && fcntl(made, F_GETFL) == (O_WRONLY | 0100000));
}

static void same_file_system(int fd, long kind)
{
	struct statfs by_number, by_path;
	struct stat state;
	char path[64];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	CHECK(!fstatfs(fd, &by_number) && !statfs(path, &by_path) && !fstat(fd, &state));
	CHECK(by_number.f_type == kind && by_path.f_type == kind && by_number.f_flags == by_path.f_flags);
	CHECK(state.st_rdev || (unsigned long)by_number.f_fsid.__val[0] == state.st_dev);
}

/* What nobody asks of a dma-buf, a sync file or a node, and gets its own answer to all the same. */
static void rare(void)
{
	int memfd = sealed_memfd(SIZE), heap = heap_buffer(SIZE), shared = udmabuf(memfd, 0, SIZE);
	int node = open("/dev/udmabuf", O_RDWR), folder = open("/dev/dma_heap", O_RDONLY), mount;
	struct dma_buf_export_sync_file out = { RW, -1 };
	struct { struct file_handle head; char room[128]; } handle = { .head.handle_bytes = 128 };
	char *none[] = { NULL }, path[64], byte;
	CHECK(!ioctl(heap, DMA_BUF_IOCTL_EXPORT_SYNC_FILE, &out));
	int files[] = { heap, shared, out.fd, node };
	for (int place = 0; place < 4; place++) {
		int fd = files[place], is_node = fd == node;
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		REFUSED(EACCES, fexecve(fd, none, none));
		REFUSED(EACCES, execve(path, none, none));
		REFUSED(ELOOP, syscall(SYS_execveat, AT_FDCWD, path, none, none, AT_SYMLINK_NOFOLLOW));
		REFUSED(EINVAL, syscall(SYS_execveat, fd, "", none, none, AT_EMPTY_PATH | 1));
		if (!is_node) {
			REFUSED(EOPNOTSUPP, name_to_handle_at(fd, "", &handle.head, &mount, AT_EMPTY_PATH));
			REFUSED(EOPNOTSUPP, name_to_handle_at(AT_FDCWD, path, &handle.head, &mount, AT_SYMLINK_FOLLOW));
		}
		same_file_system(fd, is_node ? 0x01021994 : fd == out.fd ? 0x09041934 : DMA_BUF_MAGIC);
		REFUSED(EPERM, setxattr(path, "user.x", "1", 1, 0));
		REFUSED(EPERM, removexattr(path, "user.x"));
		REFUSED(ENODATA, getxattr(path, "user.x", &byte, 1));
		CHECK(listxattr(path, NULL, 0) == 0);
		REFUSED(EEXIST, open(path, O_RDWR | O_CREAT | O_EXCL, 0600));
		REFUSED(EINVAL, ioctl(fd, FICLONE, fd));
		REFUSED(EXDEV, ioctl(fd, FICLONE, memfd));
		REFUSED(EXDEV, ioctl(memfd, FICLONE, fd));
		REFUSED(EBADF, ioctl(fd, FICLONE, 999));
		CHECK(!flock(fd, LOCK_EX | LOCK_NB) && !flock(fd, LOCK_UN));
		/* A place: nothing can be done with it but to ask what it is, and to open it. */
		int at = open(path, O_PATH | O_CLOEXEC);
		struct stat state, same;
		CHECK(at >= 0 && !fstat(at, &state) && !fstat(fd, &same));
		CHECK(state.st_ino == same.st_ino && state.st_mode == same.st_mode && state.st_size == same.st_size);
		CHECK(fcntl(at, F_GETFL) == O_PATH && fcntl(at, F_GETFD) == FD_CLOEXEC);
		REFUSED(EBADF, read(at, &byte, 1));
		REFUSED(EBADF, sync_once(at, START | RW));
		REFUSED(EBADF, mmap(NULL, PAGE, PROT_READ, MAP_SHARED, at, 0));
		REFUSED(EBADF, lseek(at, 0, SEEK_END));
		REFUSED(EBADF, fsync(at));
		REFUSED(EBADF, flock(at, LOCK_EX | LOCK_NB));
		REFUSED(EBADF, fcntl(at, F_GETOWN));
		REFUSED(EBADF, fchmod(at, 0600));
		REFUSED(EBADF, fgetxattr(at, "user.x", &byte, 1));
		REFUSED(EBADF, ioctl(at, FICLONE, fd));
		int copy = dup(at);
		CHECK(copy >= 0 && fcntl(copy, F_GETFL) == O_PATH && is_same(copy, at));
		snprintf(path, sizeof(path), "/proc/self/fd/%d", copy);
		if (is_node)
			CHECK((copy = open(path, O_RDWR)) >= 0 && ioctl(copy, UDMABUF_CREATE, NULL) == -1 && errno == EFAULT);
		else
			REFUSED(ENXIO, open(path, O_RDWR));
	}
	REFUSED(EACCES, execve("/dev/udmabuf", none, none));
	REFUSED(EACCES, execve("/dev/dma_heap", none, none));
	REFUSED(EISDIR, ioctl(folder, FICLONE, node));
	REFUSED(EISDIR, ioctl(node, FICLONE, folder));
	REFUSED(EISDIR, read(folder, &byte, 1));
	int place = open("/dev/dma_heap", O_PATH), again = openat(place, "system", O_PATH);
	CHECK(place >= 0 && again >= 0 && !fchdir(folder) && open("system", O_RDWR) >= 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d/system", place);
	CHECK(open(path, O_RDWR) >= 0 && !access(path, R_OK) && !chdir("/"));
	CHECK(lseek(folder, 1, SEEK_SET) == 1 && lseek(folder, 1, SEEK_CUR) == 2);
	REFUSED(EINVAL, lseek(folder, 0, SEEK_END));
	/* Twice of one thing. */
	CHECK(dup2(place, 91) == 91);
	REFUSED(EBADF, sync_once(91, START | RW));
	CHECK(fcntl(91, F_GETFL) == O_PATH && openat(91, "system", O_RDWR) >= 0);
}

int main(int count, char **arguments)
{
	char *kind = arguments[1];
	if (!strcmp(kind, "received")) received();
	else if (!strcmp(kind, "asynchronous")) asynchronous();
	else if (!strcmp(kind, "epoll_inherited")) epoll_inherited();
	else if (!strcmp(kind, "by_name")) by_name();
	else if (!strcmp(kind, "rare")) rare();
	else return 8;
	return 0;
}
