/* What programs do that hand dma-bufs around: each kind as a real one has it, small. "users KIND". */
#include "dmabuf.h"
#include <dirent.h>
#include <dlfcn.h>
#include <ftw.h>
#include <glob.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>

#define PAGE 4096
#define SIZE (16 * PAGE)
#define FRAMES 6

static char *self;

static void fill(int fd, unsigned char *bytes, int value, size_t size)
{
	CHECK(!sync_dmabuf(fd, START | WRITE));
	memset(bytes, value, size);
	CHECK(!sync_dmabuf(fd, END | WRITE));
}

static int holds(int fd, unsigned char *bytes, int value, size_t size)
{
	CHECK(!sync_dmabuf(fd, START | READ));
	int same = bytes[0] == value && !memcmp(bytes, bytes + 1, size - 1);
	CHECK(!sync_dmabuf(fd, END | READ));
	return same;
}

static void send_files(int socket, const int *files, int count, char byte)
{
	char room[CMSG_SPACE(sizeof(int) * 8)] = { 0 };
	struct iovec vector = { &byte, 1 };
	struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1 };
	if (count) {
		message.msg_control = room, message.msg_controllen = CMSG_SPACE(sizeof(int) * count);
		struct cmsghdr *header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET, header->cmsg_type = SCM_RIGHTS, header->cmsg_len = CMSG_LEN(sizeof(int) * count);
		memcpy(CMSG_DATA(header), files, sizeof(int) * count);
	}
	CHECK(sendmsg(socket, &message, 0) == 1);
}

static char receive_files(int socket, int *files, int count)
{
	char room[CMSG_SPACE(sizeof(int) * 8)] = { 0 }, byte = 0;
	struct iovec vector = { &byte, 1 };
	struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room) };
	if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != 1)
		return 0;
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	CHECK(!count || (header && header->cmsg_len == CMSG_LEN(sizeof(int) * count)));
	if (count)
		memcpy(files, CMSG_DATA(header), sizeof(int) * count);
	return byte;
}

static ino_t inode(int fd)
{
	struct stat state;
	CHECK(!fstat(fd, &state));
	return state.st_ino;
}

/* A compositor and its client, another program: two planes of one buffer and a fence come and go by a socket. */
static void client(int socket)
{
	int planes[2];
	for (int frame = 0; frame < FRAMES; frame++) {
		CHECK(receive_files(socket, planes, 2) == 'f');
		CHECK(inode(planes[0]) == inode(planes[1]) && planes[0] != planes[1]);
		CHECK(lseek(planes[0], 0, SEEK_END) == SIZE && !lseek(planes[0], 0, SEEK_SET));
		unsigned char *bytes = map(planes[0], SIZE);
		CHECK(bytes && holds(planes[1], bytes, frame, SIZE));
		fill(planes[0], bytes, 100 + frame, SIZE);
		struct dma_buf_export_sync_file out = { RW, -1 };
		CHECK(!ioctl(planes[1], DMA_BUF_IOCTL_EXPORT_SYNC_FILE, &out));
		send_files(socket, &out.fd, 1, 'd');
		CHECK(!close(out.fd) && !close(planes[0]) && !close(planes[1]));
		CHECK(bytes[5] == 100 + frame && !munmap(bytes, SIZE));
	}
}

static void compositor(void)
{
	int ends[2], status;
	CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends));
	pid_t child = fork();
	if (!child) {
		char number[16];
		snprintf(number, sizeof(number), "%d", dup(ends[1]));
		execl(self, self, "client", number, NULL);
		_exit(7);
	}
	close(ends[1]);
	for (int frame = 0; frame < FRAMES; frame++) {
		int memfd = sealed_memfd(SIZE), fd = frame % 2 ? heap_buffer(SIZE) : udmabuf(memfd, 0, SIZE), fence;
		unsigned char *bytes = map(fd, SIZE);
		CHECK(bytes);
		fill(fd, bytes, frame, SIZE);
		send_files(ends[0], (int[]){ fd, fd }, 2, 'f');
		CHECK(receive_files(ends[0], &fence, 1) == 'd');
		struct pollfd done = { fence, POLLIN, 0 };
		CHECK(poll(&done, 1, 1000) == 1 && done.revents == POLLIN);
		struct dma_buf_import_sync_file in = { WRITE, fence };
		CHECK(!ioctl(fd, DMA_BUF_IOCTL_IMPORT_SYNC_FILE, &in) && holds(fd, bytes, 100 + frame, SIZE));
		CHECK(!munmap(bytes, SIZE) && !close(fd) && !close(fence) && !close(memfd));
	}
	CHECK(waitpid(child, &status, 0) == child && !status);
}

/* A pool whose buffers are mapped while somebody holds them, and stay mapped when their descriptor goes. */
struct frame { int fd, users; unsigned char *bytes; };

static unsigned char *acquire(struct frame *frame)
{
	if (!frame->users++)
		CHECK((frame->bytes = map(frame->fd, SIZE)));
	CHECK(!sync_dmabuf(frame->fd, START | RW));
	return frame->bytes;
}

static void release(struct frame *frame)
{
	CHECK(!sync_dmabuf(frame->fd, END | RW));
	if (!--frame->users)
		CHECK(!munmap(frame->bytes, SIZE));
}

static void pool(void)
{
	int memfd = sealed_memfd(8 * SIZE);
	struct frame frames[8];
	for (int i = 0; i < 8; i++)
		CHECK((frames[i] = (struct frame){ i % 2 ? udmabuf(memfd, i * SIZE, SIZE) : heap_buffer(SIZE) }).fd >= 0);
	for (int round = 0; round < 40; round++) {
		struct frame *one = &frames[round * 5 % 8], *other = &frames[round * 3 % 8];
		unsigned char *bytes = acquire(one), *same = acquire(one), *more = acquire(other);
		CHECK(bytes == same);
		bytes[round] = round;
		more[PAGE + round] = round;
		release(one), release(other);
		CHECK(bytes[round] == round);
		release(one);
	}
	int copy = fcntl(frames[0].fd, F_DUPFD_CLOEXEC, 30);
	unsigned char *bytes = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, copy, SIZE - PAGE);
	CHECK(copy >= 30 && bytes != MAP_FAILED && fcntl(copy, F_GETFD) == FD_CLOEXEC);
	REFUSED(EINVAL, mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, copy, SIZE - PAGE));
	for (int i = 0; i < 8; i++)
		CHECK(!close(frames[i].fd));
	CHECK(!close(copy) && !bytes[7] && !munmap(bytes, PAGE));
}

/* A sandbox whose opens are made by a broker: SIGSYS asks it, and it answers with a descriptor. */
static int broker_socket;

static void on_trap(int number, siginfo_t *info, void *context)
{
	int fd = -1;
	CHECK(write(broker_socket, "o", 1) == 1 && receive_files(broker_socket, &fd, 1) == 'o');
#ifdef __x86_64__
	((ucontext_t *)context)->uc_mcontext.gregs[REG_RAX] = fd;
#else
	((ucontext_t *)context)->uc_mcontext.regs[0] = fd;
#endif
}

static void sandbox(void)
{
	int ends[2], status;
	CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
	pid_t child = fork();
	if (!child) {
		struct sock_filter filter[] = {
			BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
			BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 1),
			BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
			BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_lseek, 0, 1),
			BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
			BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		};
		struct sock_fprog program = { sizeof(filter) / sizeof(*filter), filter };
		struct sigaction action = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO };
		broker_socket = ends[1];
		CHECK(!sigaction(SIGSYS, &action, NULL) && !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
		CHECK(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
		int fd = heap_buffer(SIZE);
		unsigned char *bytes = map(fd, SIZE);
		CHECK(fd >= 0 && bytes);
		fill(fd, bytes, 3, SIZE);
		REFUSED(ENOSYS, lseek(fd, 0, SEEK_END));
		exit(0);
	}
	char byte;
	close(ends[1]);
	while (read(ends[0], &byte, 1) == 1) {
		int node = open("/dev/dma_heap/system", O_RDWR | O_CLOEXEC);
		send_files(ends[0], &node, 1, 'o');
		close(node);
	}
	CHECK(waitpid(child, &status, 0) == child && !status);
}

/* A process that has its parent's memory and descriptors of its own, as vfork() and some runtimes make it. */
static unsigned char *made_by_child;
static int its_files;

static int in_child(void *given)
{
	int fd = *(int *)given, own = heap_buffer(SIZE);
	made_by_child = map(fd, SIZE);
	its_files = own;
	fill(own, map(own, SIZE), 4, SIZE);
	return made_by_child ? 0 : 5;
}

static void relatives(void)
{
	static char stack[1 << 16] __attribute__((aligned(16)));
	int memfd = sealed_memfd(SIZE), fd = udmabuf(memfd, 0, SIZE), status;
	unsigned char *first = map(fd, SIZE);
	REFUSED(EINVAL, madvise(first, SIZE, MADV_DONTNEED));
	for (int flags = 0; flags < 2; flags++) {
		int shared = CLONE_VM | SIGCHLD | (flags ? CLONE_VFORK : 0);
		pid_t child = clone(in_child, stack + sizeof(stack), shared, &fd);
		CHECK(child > 0 && waitpid(child, &status, 0) == child && !status);
		REFUSED(EBADF, sync_once(its_files, START | RW));
		fill(fd, made_by_child, 5, SIZE);
		REFUSED(EINVAL, madvise(made_by_child, SIZE, MADV_DONTNEED));
		CHECK(made_by_child[9] == 5 && made_by_child != first);
	}
}

/* Descriptors closed by the range and by what a folder lists; the folder of the heaps, read in each way. */
static int seen_nodes;

static int on_entry(const char *path, const struct stat *state, int kind, struct FTW *where)
{
	seen_nodes += !strcmp(path, "/dev/dma_heap/system") && S_ISCHR(state->st_mode) && kind == FTW_F;
	return 0;
}

static void folders(void)
{
	int fd = heap_buffer(SIZE), last = fcntl(fd, F_DUPFD, 40), count = 0, here = 0;
	CHECK(fd >= 0 && last >= 40);
	CHECK(!syscall(SYS_close_range, 3, ~0U, 4 /* CLOSE_RANGE_CLOEXEC */) && fcntl(last, F_GETFD) == FD_CLOEXEC);
	CHECK(!sync_once(last, START | RW));
	DIR *mine = opendir("/proc/self/fd");
	CHECK(mine);
	for (struct dirent *entry; (entry = readdir(mine));) {
		int number = atoi(entry->d_name);
		if (entry->d_name[0] != '.' && number > 2 && number != dirfd(mine)) {
			char target[32] = "";
			count += readlinkat(dirfd(mine), entry->d_name, target, 31) == 8 && !strcmp(target, "/dmabuf:");
			CHECK(!close(number));
		}
	}
	CHECK(count == 2 && !closedir(mine));
	REFUSED(EBADF, sync_once(last, END | RW));
	int folder = open("/dev/dma_heap", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *heaps = fdopendir(dup(folder));
	CHECK(heaps);
	for (struct dirent *entry; (entry = readdir(heaps));) {
		struct stat state;
		CHECK(!fstatat(folder, entry->d_name, &state, AT_SYMLINK_NOFOLLOW));
		here += !strcmp(entry->d_name, "system") && S_ISCHR(state.st_mode) && entry->d_type == DT_CHR;
	}
	CHECK(here == 1);
	rewinddir(heaps);
	CHECK(readdir(heaps));
	glob_t found = { 0 };
	CHECK(!glob("/dev/dma_heap/s*", 0, NULL, &found) && found.gl_pathc == 1);
	CHECK(!strcmp(found.gl_pathv[0], "/dev/dma_heap/system"));
	struct dirent **names;
	CHECK(scandir("/dev/dma_heap", &names, NULL, alphasort) >= 3);
	CHECK(!nftw("/dev/dma_heap", on_entry, 8, FTW_PHYS) && seen_nodes == 1);
	int heap = openat(folder, "system", O_RDWR), place = open("/dev/dma_heap", O_PATH);
	CHECK(heap >= 0 && place >= 0 && !faccessat(place, "system", R_OK, 0) && openat(place, "system", O_RDWR) >= 0);
	/* A copy of the table of descriptors: what the thread closes in its own is open in the other. */
	fd = heap_buffer(SIZE);
	CHECK(!syscall(SYS_close_range, fd, fd, 2 /* CLOSE_RANGE_UNSHARE */));
	REFUSED(EBADF, sync_once(fd, START | RW));
}

/* One loop for buffers, signals, timers and events, and another loop in it. */
static void loop(void)
{
	int set = epoll_create1(EPOLL_CLOEXEC), outer = epoll_create1(EPOLL_CLOEXEC), fd = heap_buffer(SIZE);
	int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK), event = eventfd(0, EFD_NONBLOCK);
	sigset_t wanted;
	sigemptyset(&wanted), sigaddset(&wanted, SIGUSR1);
	CHECK(!sigprocmask(SIG_BLOCK, &wanted, NULL));
	int signals = signalfd(-1, &wanted, SFD_NONBLOCK);
	struct epoll_event asked = { EPOLLIN, { .u32 = 1 } }, got[8];
	CHECK(!epoll_ctl(outer, EPOLL_CTL_ADD, set, &asked));
	int others[] = { timer, event, signals };
	for (int i = 0; i < 3; i++) {
		asked.data.u32 = 2 + i;
		CHECK(!epoll_ctl(set, EPOLL_CTL_ADD, others[i], &asked));
	}
	CHECK(epoll_wait(outer, got, 8, 0) == 0);
	asked = (struct epoll_event){ EPOLLIN | EPOLLOUT | EPOLLONESHOT, { .u32 = 9 } };
	CHECK(!epoll_ctl(set, EPOLL_CTL_ADD, fd, &asked));
	CHECK(epoll_wait(outer, got, 8, 1000) == 1 && got[0].data.u32 == 1);
	CHECK(epoll_wait(set, got, 8, 0) == 1 && got[0].data.u32 == 9 && got[0].events == (EPOLLIN | EPOLLOUT));
	CHECK(epoll_wait(set, got, 8, 0) == 0);
	uint64_t one = 1;
	kill(getpid(), SIGUSR1);
	CHECK(write(event, &one, 8) == 8);
	struct itimerspec soon = { { 0 }, { 0, 1000 } };
	CHECK(!timerfd_settime(timer, 0, &soon, NULL));
	usleep(5000);
	CHECK(epoll_wait(set, got, 8, 1000) == 3);
	CHECK(!epoll_ctl(set, EPOLL_CTL_MOD, fd, &asked) && epoll_wait(set, got, 8, 0) == 4);
	asked.events = EPOLLIN | EPOLLOUT;
	CHECK(!epoll_ctl(set, EPOLL_CTL_MOD, fd, &asked) && epoll_wait(set, got, 8, 0) == 4);
	CHECK(!epoll_ctl(set, EPOLL_CTL_DEL, fd, NULL));
	REFUSED(ENOENT, epoll_ctl(set, EPOLL_CTL_DEL, fd, NULL));
	struct signalfd_siginfo information;
	CHECK(read(signals, &information, sizeof(information)) == sizeof(information) && information.ssi_signo == SIGUSR1);
}

/* One process takes another's buffers, by its pidfd and by its names in /proc. */
static void thief(void)
{
	int fd = heap_buffer(SIZE), memfd = sealed_memfd(SIZE), second = udmabuf(memfd, 0, SIZE), ready[2], status;
	CHECK(!pipe(ready));
	unsigned char *bytes = map(fd, SIZE);
	fill(fd, bytes, 1, SIZE);
	pid_t child = fork();
	if (!child) {
		char path[64], target[32] = "";
		int pidfd = syscall(SYS_pidfd_open, getppid(), 0), taken, low;
		close(fd), close(second);
		CHECK((taken = syscall(SYS_pidfd_getfd, pidfd, fd, 0)) >= 0 && fcntl(taken, F_GETFD) == FD_CLOEXEC);
		CHECK((low = syscall(SYS_pidfd_getfd, pidfd, second, 0)) >= 0);
		unsigned char *mine = map(taken, SIZE), *theirs = map(low, SIZE);
		CHECK(holds(taken, mine, 1, SIZE));
		fill(taken, mine, 2, SIZE), fill(low, theirs, 3, SIZE);
		snprintf(path, sizeof(path), "/proc/%d/fd/%d", getppid(), fd);
		CHECK(readlink(path, target, 31) == 8 && !strcmp(target, "/dmabuf:"));
		REFUSED(ENXIO, open(path, O_RDWR));
		struct stat state;
		CHECK(!stat(path, &state) && state.st_ino == inode(taken) && state.st_size == SIZE);
		REFUSED(EINVAL, madvise(theirs, SIZE, MADV_DONTNEED));
		REFUSED(EBADF, syscall(SYS_pidfd_getfd, pidfd, 900, 0));
		exit(0);
	}
	CHECK(waitpid(child, &status, 0) == child && !status);
	unsigned char *their = map(memfd, SIZE);
	CHECK(holds(fd, bytes, 2, SIZE) && their[77] == 3);
}

/* Bytes of a memfd, moved in each way while a udmabuf has its pages. */
static void mover(void)
{
	int memfd = sealed_memfd(SIZE), fd = udmabuf(memfd, 0, SIZE), plain = memfd_create("plain", 0), ends[2], sockets[2];
	unsigned char *bytes = map(fd, SIZE), room[PAGE];
	CHECK(bytes && !ftruncate(plain, SIZE) && !pipe(ends) && !socketpair(AF_UNIX, SOCK_STREAM, 0, sockets));
	memset(room, 5, PAGE);
	CHECK(pwrite(memfd, room, PAGE, PAGE) == PAGE && bytes[PAGE] == 5 && bytes[2 * PAGE - 1] == 5);
	fill(fd, bytes, 6, SIZE);
	off_t at = PAGE;
	CHECK(sendfile(plain, memfd, &at, PAGE) == PAGE && at == 2 * PAGE);
	CHECK(pread(plain, room, PAGE, 0) == PAGE && room[9] == 6);
	CHECK(sendfile(sockets[0], memfd, &at, 100) == 100 && recv(sockets[1], room, PAGE, 0) == 100 && room[99] == 6);
	CHECK(splice(memfd, &at, ends[1], NULL, PAGE, 0) == PAGE && read(ends[0], room, PAGE) == PAGE && room[PAGE - 1] == 6);
	at = 0;
	CHECK(copy_file_range(memfd, &at, plain, NULL, PAGE, 0) == PAGE);
	REFUSED(EINVAL, copy_file_range(plain, NULL, fd, NULL, PAGE, 0));
	REFUSED(EINVAL, sendfile(fd, plain, NULL, PAGE));
	REFUSED(EINVAL, sendfile(plain, fd, NULL, PAGE));
	CHECK(write(ends[1], room, 10) == 10);
	REFUSED(EINVAL, splice(ends[0], NULL, fd, NULL, 10, 0));
	memset(room, 8, PAGE);
	struct iovec vectors[] = { { room, 100 }, { room, 200 } };
	CHECK(pwritev(memfd, vectors, 2, 0) == 300 && bytes[299] == 8 && bytes[300] == 6);
	unsigned char *heap_bytes = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, heap_buffer(SIZE), 0);
	CHECK(heap_bytes != MAP_FAILED && pread(memfd, heap_bytes, SIZE, 0) == SIZE && heap_bytes[299] == 8);
	CHECK(write(ends[1], heap_bytes, PAGE) == PAGE && send(sockets[0], heap_bytes, 64, 0) == 64);
	REFUSED(EPERM, ftruncate(memfd, PAGE));
	CHECK(!ftruncate(memfd, 2 * SIZE) && !fcntl(memfd, F_ADD_SEALS, F_SEAL_GROW));
	REFUSED(EBUSY, fcntl(memfd, F_ADD_SEALS, F_SEAL_WRITE));
	CHECK(!fcntl(memfd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
	REFUSED(EPERM, pwrite(memfd, room, 1, 0));
	fill(fd, bytes, 9, SIZE);
	CHECK(pread(memfd, room, 1, 5) == 1 && room[0] == 9);
}

/* Sixteen threads, each with a mapping of its own buffer and one of a buffer of all. */
static int common;
static atomic_int rounds;

static void *worker(void *place)
{
	int number = (intptr_t)place, memfd = sealed_memfd(SIZE), fd = number % 2 ? udmabuf(memfd, 0, SIZE) : heap_buffer(SIZE);
	unsigned char *bytes = map(fd, SIZE), *shared = map(common, SIZE);
	CHECK(fd >= 0 && bytes && shared);
	for (int i = 0; i < 20; i++) {
		fill(fd, bytes, number + i, SIZE);
		CHECK(!sync_dmabuf(common, START | RW));
		shared[number * 64]++;
		CHECK(!sync_dmabuf(common, END | RW) && holds(fd, bytes, number + i, SIZE));
		rounds++;
	}
	CHECK(!munmap(bytes, SIZE) && !munmap(shared, SIZE) && !close(fd) && !close(memfd));
	return NULL;
}

static void crowd(void)
{
	pthread_t threads[16];
	common = heap_buffer(SIZE);
	for (intptr_t i = 0; i < 16; i++)
		CHECK(!pthread_create(&threads[i], NULL, worker, (void *)i));
	for (int i = 0; i < 16; i++)
		CHECK(!pthread_join(threads[i], NULL));
	unsigned char *bytes = map(common, SIZE);
	CHECK(rounds == 320);
	for (int i = 0; i < 16; i++)
		CHECK(bytes[i * 64] == 20);
}

/* Another program is started with files put in place for it, and one by the shell. */
static void spawned(void)
{
	struct dma_heap_allocation_data data = { .len = SIZE, .fd_flags = O_RDWR | O_CLOEXEC };
	REFUSED(EBADF, sync_once(atoi(getenv("ORIGINAL")), START | RW));
	unsigned char *bytes = map(7, SIZE);
	CHECK(bytes && holds(7, bytes, 11, SIZE) && !ioctl(5, DMA_HEAP_IOCTL_ALLOC, &data));
	fill(data.fd, map(data.fd, SIZE), 1, SIZE);
	fill(7, bytes, 12, SIZE);
}

static void spawn(void)
{
	int fd = fcntl(heap_buffer(SIZE), F_DUPFD_CLOEXEC, 20), status;
	unsigned char *bytes = map(fd, SIZE);
	char original[32], command[256];
	snprintf(original, sizeof(original), "ORIGINAL=%d", fd);
	fill(fd, bytes, 11, SIZE);
	posix_spawn_file_actions_t actions;
	CHECK(!posix_spawn_file_actions_init(&actions));
	CHECK(!posix_spawn_file_actions_addopen(&actions, 5, "/dev/dma_heap/system", O_RDWR, 0));
	CHECK(!posix_spawn_file_actions_adddup2(&actions, fd, 7));
	CHECK(!posix_spawn_file_actions_addclose(&actions, 0));
	pid_t child;
	char *arguments[] = { self, "spawned", NULL }, *environment[] = { original, NULL };
	CHECK(!posix_spawn(&child, self, &actions, NULL, arguments, environment));
	CHECK(waitpid(child, &status, 0) == child && !status && holds(fd, bytes, 12, SIZE));
	int kept = dup(fd);
	fill(kept, bytes, 11, SIZE);
	CHECK(dup2(kept, 7) == 7 && !putenv(original));
	snprintf(command, sizeof(command), "exec 5<>/dev/dma_heap/system; ORIGINAL=%d exec %s spawned", fd, self);
	CHECK(!system(command) && holds(fd, bytes, 12, SIZE));
}

/* A ring of requests; where there is none, the same by plain calls. */
static int by_ring(int ring, struct io_uring_params *layout, unsigned char *rings, struct io_uring_sqe *entries, int fd, int code)
{
	static char room[64];
	unsigned *tail = (unsigned *)(rings + layout->sq_off.tail), *head = (unsigned *)(rings + layout->cq_off.head);
	unsigned mask = *(unsigned *)(rings + layout->sq_off.ring_mask), place = *tail & mask;
	struct io_uring_cqe *done = (struct io_uring_cqe *)(rings + layout->cq_off.cqes);
	entries[place] = (struct io_uring_sqe){ .opcode = code, .fd = fd };
	if (code == IORING_OP_POLL_ADD)
		entries[place].poll32_events = POLLIN;
	else
		entries[place].addr = (uintptr_t)room, entries[place].len = sizeof(room);
	((unsigned *)(rings + layout->sq_off.array))[place] = place;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	CHECK(syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) == 1);
	int result = done[*head & *(unsigned *)(rings + layout->cq_off.ring_mask)].res;
	__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
	return result;
}

static void ring(void)
{
	struct io_uring_params layout = { 0 };
	int fd = heap_buffer(SIZE), number = syscall(SYS_io_uring_setup, 4, &layout);
	char byte;
	if (number < 0) {
		CHECK(errno == EPERM || errno == ENOSYS);
		struct pollfd wanted = { fd, POLLIN, 0 };
		REFUSED(EINVAL, read(fd, &byte, 1));
		CHECK(poll(&wanted, 1, 0) == 1 && wanted.revents == POLLIN);
		return;
	}
	size_t size = layout.cq_off.cqes + layout.cq_entries * sizeof(struct io_uring_cqe);
	unsigned char *rings = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, number, IORING_OFF_SQ_RING);
	struct io_uring_sqe *entries =
		mmap(NULL, layout.sq_entries * sizeof(*entries), PROT_READ | PROT_WRITE, MAP_SHARED, number, IORING_OFF_SQES);
	CHECK(layout.features & IORING_FEAT_SINGLE_MMAP && rings != MAP_FAILED && entries != MAP_FAILED);
	CHECK(by_ring(number, &layout, rings, entries, fd, IORING_OP_READ) == -EINVAL);
	CHECK(by_ring(number, &layout, rings, entries, fd, IORING_OP_POLL_ADD) == POLLIN);
}

/* A library that is loaded and goes again, with a buffer each time. */
static void load(const char *path)
{
	for (int round = 0; round < 3; round++) {
		void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
		CHECK(library);
		int (*write_it)(int) = (int (*)(int))dlsym(library, "plugin_write"), fd = *(int *)dlsym(library, "plugin_buffer");
		CHECK(!write_it(round) && lseek(fd, 0, SEEK_END) == SIZE);
		unsigned char *bytes = map(fd, SIZE);
		CHECK(holds(fd, bytes, round, SIZE) && !dlclose(library));
		REFUSED(EBADF, sync_once(fd, START | READ));
		CHECK(bytes[SIZE - 1] == round && !munmap(bytes, SIZE));
	}
}

/* It leaves its parent, its session and its terminal, and goes on working. */
static void daemon_of_its_own(void)
{
	int fd = heap_buffer(SIZE), done[2], status;
	char byte = 0;
	unsigned char *bytes = map(fd, SIZE);
	CHECK(!pipe(done));
	pid_t child = fork();
	if (!child) {
		setsid();
		if (fork())
			_exit(0);
		CHECK(!chdir("/") && dup2(open("/dev/null", O_RDWR), 0) == 0);
		usleep(20000);
		fill(fd, bytes, 21, SIZE);
		int another = heap_buffer(SIZE);
		fill(another, map(another, SIZE), 1, SIZE);
		_exit(write(done[1], "!", 1) != 1);
	}
	CHECK(waitpid(child, &status, 0) == child && !status);
	close(done[1]);
	CHECK(read(done[0], &byte, 1) == 1 && byte == '!' && holds(fd, bytes, 21, SIZE));
}

int main(int count, char **arguments)
{
	static const struct { const char *name; void (*run)(void); } kinds[] = {
		{ "compositor", compositor }, { "pool", pool }, { "sandbox", sandbox }, { "relatives", relatives },
		{ "folders", folders }, { "loop", loop }, { "thief", thief }, { "mover", mover }, { "crowd", crowd },
		{ "spawn", spawn }, { "spawned", spawned }, { "daemon", daemon_of_its_own }, { "ring", ring },
	};
	self = realpath("/proc/self/exe", NULL);
	if (count > 2) {
		if (!strcmp(arguments[1], "client"))
			client(atoi(arguments[2]));
		else
			load(arguments[2]);
		return 0;
	}
	for (size_t place = 0; place < sizeof(kinds) / sizeof(*kinds); place++)
		if (count > 1 && !strcmp(arguments[1], kinds[place].name)) {
			kinds[place].run();
			return 0;
		}
	return 8;
}
