/* What programs do with descriptors, processes, signals and filters around their dma-bufs: each kind checks what the kernel
 * answers, on the fake and on a real one alike. */
#include "dmabuf.h"
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>

#define PAGE 4096
#define SIZE (4 * PAGE)

extern char **environ;
static char *self;

static int pair_of(int fd)
{
	return sync_once(fd, START | RW) || sync_once(fd, END | RW) ? -1 : 0;
}

static long size_of(int fd)
{
	struct stat state;
	CHECK(!fstat(fd, &state));
	return state.st_size;
}

static int status_of(pid_t child)
{
	int status;
	CHECK(child > 0 && waitpid(child, &status, 0) == child);
	return status;
}

static void ranges(void)
{
	int fd = heap_buffer(SIZE), low = dup2(fd, 50), high = dup2(fd, 60), other;
	CHECK(!syscall(SYS_close_range, fd, fd, 4 /* CLOSE_RANGE_CLOEXEC */) && fcntl(fd, F_GETFD) == FD_CLOEXEC);
	CHECK(!pair_of(fd));
	CHECK(!syscall(SYS_close_range, 51, ~0u, 2 /* CLOSE_RANGE_UNSHARE */) && !pair_of(low));
	REFUSED(EBADF, pair_of(high));
	CHECK(!syscall(SYS_close_range, 3, ~0u, 0));
	REFUSED(EBADF, pair_of(low));
	fd = heap_buffer(SIZE), other = heap_buffer(PAGE);
	CHECK(dup3(other, fd, O_CLOEXEC) == fd && size_of(fd) == PAGE && fcntl(fd, F_GETFD) == FD_CLOEXEC);
	REFUSED(EINVAL, dup3(fd, fd, 0));
	REFUSED(EINVAL, dup3(other, fd, O_APPEND));
	CHECK(dup2(fd, fd) == fd && dup2(open("/dev/null", O_RDWR), fd) == fd);
	REFUSED(ENOTTY, pair_of(fd));
	CHECK(!pair_of(other));
}

static void *with_files_of_its_own(void *argument)
{
	int fd = *(int *)argument;
	CHECK(!unshare(CLONE_FILES) && !close(fd));
	REFUSED(EBADF, pair_of(fd));
	CHECK(!pair_of(heap_buffer(PAGE)));
	return NULL;
}

static void few_numbers(void)
{
	struct rlimit few = { 24, 24 };
	CHECK(!setrlimit(RLIMIT_NOFILE, &few));
	int fd = heap_buffer(SIZE), last = 0, count = 0;
	struct dma_buf_export_sync_file sync = { DMA_BUF_SYNC_RW, -1 };
	CHECK(fd >= 0);
	while ((last = dup(fd)) >= 0)
		count++;
	CHECK(errno == EMFILE && count > 5);
	REFUSED(EMFILE, open("/dev/dma_heap/system", O_RDWR));
	REFUSED(EMFILE, open("/dev/dma_heap/none", O_RDWR));
	REFUSED(EMFILE, fcntl(fd, F_DUPFD, 0));
	REFUSED(EMFILE, ioctl(fd, DMA_BUF_IOCTL_EXPORT_SYNC_FILE, &sync));
	REFUSED(EINVAL, fcntl(fd, F_DUPFD, 24));
	REFUSED(EBADF, dup2(fd, 24));
	REFUSED(EBADF, dup3(fd, 5000, 0));
	CHECK(dup2(fd, 23) == 23 && !pair_of(23) && !pair_of(fd));
}

static void files_of_a_thread(void)
{
	int fd = heap_buffer(SIZE);
	pthread_t thread;
	CHECK(!pthread_create(&thread, NULL, with_files_of_its_own, &fd) && !pthread_join(thread, NULL));
	CHECK(!pair_of(fd) && size_of(fd) == SIZE);
}

static sigjmp_buf place;
static volatile int hits;

static void leap(int number)
{
	hits += number == SIGALRM;
	siglongjmp(place, 1);
}

static void jumps(void)
{
	int fd = heap_buffer(SIZE);
	stack_t other = { .ss_sp = malloc(65536), .ss_size = 65536 };
	struct sigaction action = { .sa_handler = leap, .sa_flags = SA_ONSTACK };
	struct itimerval often = { { 0, 500 }, { 0, 500 } }, never = { { 0, 0 }, { 0, 0 } };
	CHECK(!sigaltstack(&other, NULL) && !sigaction(SIGALRM, &action, NULL));
	if (!sigsetjmp(place, 1))
		CHECK(!setitimer(ITIMER_REAL, &often, NULL));
	for (volatile int round = 0; round < 300; round++) {
		if (sigsetjmp(place, 1))
			continue;
		CHECK(!sync_once(fd, START | RW) || errno == EINTR);
		CHECK(!sync_once(fd, END | RW) || errno == EINTR);
	}
	while (!hits)
		sigsetjmp(place, 1);
	CHECK(!setitimer(ITIMER_REAL, &never, NULL) && !pair_of(fd));
}

static int started(pid_t (*start)(char **), int fd)
{
	char number[16];
	char *words[] = { self, "child", number, NULL };
	snprintf(number, sizeof(number), "%d", fd);
	return status_of(start(words));
}

static pid_t by_spawn(char **words)
{
	pid_t child;
	CHECK(!posix_spawn(&child, self, NULL, NULL, words, environ));
	return child;
}

static pid_t by_vfork(char **words)
{
	pid_t child = vfork();
	if (!child) {
		execv(self, words);
		_exit(7);
	}
	return child;
}

static pid_t by_clone3(char **words)
{
	struct clone_args how = { .exit_signal = SIGCHLD };
	pid_t child = syscall(SYS_clone3, &how, sizeof(how));
	if (!child) {
		execv(self, words);
		_exit(7);
	}
	return child;
}

static void children(void)
{
	int fd = heap_buffer(SIZE), kept = dup(fd), ends[2];
	char byte = 0;
	CHECK(started(by_spawn, kept) == 0 && started(by_vfork, kept) == 0 && started(by_clone3, kept) == 0);
	CHECK(WEXITSTATUS(started(by_vfork, fd)) == EBADF); /* close-on-exec */
	CHECK(!pipe(ends));
	pid_t child = fork();
	if (!child) { /* a daemon: its parent ends first */
		CHECK(setsid() > 0);
		if (fork())
			exit(0);
		CHECK(!pair_of(fd) && !pair_of(heap_buffer(PAGE)) && map(fd, SIZE)[5] == 55 && write(ends[1], "x", 1) == 1);
		exit(0);
	}
	map(fd, SIZE)[5] = 55;
	CHECK(status_of(child) == 0 && !close(ends[1]));
	CHECK(read(ends[0], &byte, 1) == 1 && byte == 'x' && !pair_of(fd));
}

static void filters(void)
{
	int fd = heap_buffer(SIZE);
	struct sock_filter no_open[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EXDEV),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	}, no_sync[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, DMA_BUF_IOCTL_SYNC, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOTTY),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog first = { 4, no_open }, second = { 4, no_sync };
	CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	CHECK(!syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &first));
	REFUSED(EXDEV, openat(AT_FDCWD, "/dev/dma_heap/system", O_RDWR));
	CHECK(!pair_of(fd) && size_of(fd) == SIZE);
	CHECK(!syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &second));
	REFUSED(ENOTTY, pair_of(fd));
}

static void namespaces(void)
{
	int fd = heap_buffer(SIZE);
	char folder[] = "/tmp/habits-XXXXXX";
	if (unshare(CLONE_NEWUSER))
		return; /* forbidden here */
	CHECK(!pair_of(fd) && !pair_of(heap_buffer(PAGE)) && !unshare(CLONE_NEWNS | CLONE_NEWPID));
	pid_t child = fork();
	if (!child) {
		CHECK(getpid() == 1 && !pair_of(fd) && !pair_of(heap_buffer(PAGE)) && map(fd, SIZE));
		CHECK(!pair_of(udmabuf(sealed_memfd(SIZE), 0, SIZE)));
		exit(0);
	}
	CHECK(status_of(child) == 0);
	CHECK(mkdtemp(folder) && !chroot(folder) && !pair_of(fd) && size_of(fd) == SIZE);
	REFUSED(ENOENT, open("/dev/dma_heap/system", O_RDWR));
	CHECK(!close(fd));
	REFUSED(EBADF, pair_of(fd));
}

static void stops(void)
{
	int fd = heap_buffer(SIZE);
	pid_t child = fork();
	if (!child) {
		for (int round = 0; round < 300; round++)
			CHECK(!pair_of(fd));
		exit(0);
	}
	for (int round = 0; round < 50; round++)
		CHECK(!kill(child, SIGSTOP) && !kill(child, SIGCONT));
	CHECK(status_of(child) == 0);
}

static void listener(void)
{
	struct sock_filter pass = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog program = { 1, &pass };
	CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	REFUSED(EBUSY, syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program));
}

int main(int count, char **arguments)
{
	char *kind = arguments[1];
	self = arguments[0];
	if (count > 2 && !strcmp(kind, "child"))
		return pair_of(atoi(arguments[2])) ? errno : 0;
	if (!strcmp(kind, "ranges")) ranges();
	else if (!strcmp(kind, "few_numbers")) few_numbers();
	else if (!strcmp(kind, "files_of_a_thread")) files_of_a_thread();
	else if (!strcmp(kind, "jumps")) jumps();
	else if (!strcmp(kind, "children")) children();
	else if (!strcmp(kind, "filters")) filters();
	else if (!strcmp(kind, "namespaces")) namespaces();
	else if (!strcmp(kind, "stops")) stops();
	else if (!strcmp(kind, "listener")) listener();
	else return 8;
	return 0;
}
