/* What calls cost here: a line each, the median in nanoseconds. With "native" no dma-buf is asked for, with "filtered" besides
 * that under a filter that lets everything pass: what any filter costs, however small. */
#include "dmabuf.h"
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>

#define TIMES 4000

static double samples[TIMES];

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e9 + time.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
	double difference = *(const double *)a - *(const double *)b;
	return (difference > 0) - (difference < 0);
}

#define MEASURE(name, ...) \
	do { \
		for (int i = 0; i < TIMES; i++) { \
			double begin = now(); \
			__VA_ARGS__; \
			samples[i] = now() - begin; \
		} \
		qsort(samples, TIMES, sizeof(*samples), by_size); \
		printf("%s %.0f\n", name, samples[TIMES / 2]); \
	} while (0)

#define TEN(name, ...) MEASURE(name, for (int k = 0; k < 10; k++) { __VA_ARGS__; })

/* What programs call all day: the filter lets it pass, but for the opening and the stat of a file. */
static void usual(void)
{
	static char bytes[4096], *passwd = "/etc/passwd";
	volatile long result;
	struct stat state;
	int file = memfd_create("file", 0), pipes[2], sockets[2], folder = open("/", O_RDONLY | O_DIRECTORY), word = 0;
	CHECK(!ftruncate(file, sizeof(bytes)) && !pipe(pipes) && !socketpair(AF_UNIX, SOCK_STREAM, 0, sockets));
	struct iovec vector = { bytes, 64 };
	struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1 };
	struct pollfd waits = { pipes[0], POLLIN, 0 };
	struct timespec none = { 0, 0 };
	TEN("usual-read-4KiB", result = pread(file, bytes, sizeof(bytes), 0));
	TEN("usual-pipe-4KiB", { result = write(pipes[1], bytes, sizeof(bytes)); result = read(pipes[0], bytes, sizeof(bytes)); });
	TEN("usual-stat", result = stat(passwd, &state));
	TEN("usual-open-close", { int fd = open(passwd, O_RDONLY); close(fd); });
	TEN("usual-futex-wake", result = syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0));
	TEN("usual-mmap-munmap", {
		void *room = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		munmap(room, 1 << 16);
	});
	TEN("usual-nanosleep-0", result = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &none, NULL));
	TEN("usual-poll", result = poll(&waits, 1, 0));
	TEN("usual-socket-64B", { result = sendmsg(sockets[0], &message, 0); result = recvmsg(sockets[1], &message, 0); });
	TEN("usual-getdents", { lseek(folder, 0, SEEK_SET); result = syscall(SYS_getdents64, folder, bytes, sizeof(bytes)); });
	(void)result;
}

int main(int count, char **arguments)
{
	volatile long result;
	char byte;
	if (count > 1 && !strcmp(arguments[1], "filtered")) {
		struct sock_filter pass = { .code = BPF_RET | BPF_K, .k = SECCOMP_RET_ALLOW };
		struct sock_fprog program = { 1, &pass };
		CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) && !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
	}
	int null = open("/dev/null", O_RDWR);
	MEASURE("untrapped", for (int k = 0; k < 100; k++) result = getppid());
	int zero = open("/dev/zero", O_RDONLY);
	MEASURE("other-read", for (int k = 0; k < 100; k++) result = read(zero, &byte, 1));
	MEASURE("other-ioctl", result = ioctl(null, 0x5401, 0));
	MEASURE("other-open", { int fd = open("/etc/passwd", O_RDONLY); close(fd); });
	void *pages = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	MEASURE("other-dontneed", result = madvise(pages, 1 << 16, MADV_DONTNEED));
	usual();
	int fd = count > 1 ? -1 : heap_buffer(1 << 20);
	if (fd >= 0) {
		MEASURE("start-end", { result = sync_once(fd, START | RW); result = sync_once(fd, END | RW); });
		CHECK(map(fd, 1 << 20));
		MEASURE("dontneed-beside-buffer", result = madvise(pages, 1 << 16, MADV_DONTNEED));
		MEASURE("allocate-close", { int other = heap_buffer(1 << 16); close(other); });
	}
	(void)result;
	return 0;
}
