/* Buffers that a device still writes: what waits, for how long, and what a signal does to it. */
#include "dmabuf.h"
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/time.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#define SIZE (1 << 16)

static volatile int alarms;

static void on_alarm(int number)
{
	alarms++;
}

static void alarm_in(int flags, int milliseconds, int every)
{
	struct sigaction action = { .sa_handler = on_alarm, .sa_flags = flags };
	struct itimerval timer = { { 0, every * 1000 }, { 0, milliseconds * 1000 } };
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &timer, NULL);
}

/* The device begins to write a buffer when it gets this name. */
static int busy(const char *name)
{
	int fd = heap_buffer(SIZE);
	CHECK(fd >= 0 && !ioctl(fd, DMA_BUF_SET_NAME, name));
	CHECK(!sync_once(fd, END | RW)); /* the device looks at the names when it sees one of these */
	return fd;
}

static void interrupted(void)
{
	int fd = busy("for ever");
	alarm_in(0, 30, 0);
	REFUSED(EINTR, sync_once(fd, START | RW));
	CHECK(alarms == 1);
}

static void restarted(void)
{
	int fd = busy("until told");
	alarm_in(SA_RESTART, 20, 20);
	CHECK(!sync_once(fd, START | RW));
	CHECK(alarms >= 3);
}

static void until_it_is_in_an_ioctl(pid_t child)
{
	char path[64];
	long number = -1;
	sprintf(path, "/proc/%d/syscall", child);
	while (number != SYS_ioctl) {
		FILE *file = fopen(path, "r");
		CHECK(file);
		if (fscanf(file, "%ld", &number) != 1)
			number = -1; /* it runs */
		fclose(file);
	}
}

/* Stopped and let go on while it waits, by the shell's keys or a debugger: it hears of it by a handler alone. */
static void stopped(void)
{
	int status;
	for (int handles = 0; handles < 3; handles++) {
		int fd = busy("until told");
		pid_t child = fork();
		if (!child) {
			struct sigaction action = { .sa_handler = on_alarm, .sa_flags = handles == 1 ? SA_RESTART : 0 };
			CHECK(!handles || !sigaction(SIGCONT, &action, NULL));
			if (handles == 2)
				REFUSED(EINTR, sync_once(fd, START | RW));
			else
				CHECK(!sync_once(fd, START | RW));
			CHECK(alarms == !!handles);
			exit(0);
		}
		until_it_is_in_an_ioctl(child);
		CHECK(!kill(child, SIGSTOP) && waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status));
		/* It may have ended before anybody can see that it went on. */
		CHECK(!kill(child, SIGCONT));
		CHECK(waitpid(child, &status, 0) == child && status == 0);
		close(fd);
	}
}

static void *other_thread(void *fd)
{
	CHECK(!sync_once(*(int *)fd, START | RW));
	return NULL;
}

static void threads(void)
{
	pthread_t thread;
	int slow = busy("counts"), quick = heap_buffer(SIZE);
	CHECK(!pthread_create(&thread, NULL, other_thread, &slow));
	/* The device is done with it after so many ENDs of others: they must come while the START waits. */
	for (int i = 0; i < 200; i++)
		CHECK(!sync_once(quick, START | RW) && !sync_once(quick, END | RW));
	CHECK(!pthread_join(thread, NULL));
}

static void storm(void)
{
	int fd = heap_buffer(SIZE);
	alarm_in(SA_RESTART, 1, 1);
	for (int i = 0; i < 500; i++)
		CHECK(!sync_once(fd, START | RW) && !sync_once(fd, END | RW));
	alarm_in(SA_RESTART, 0, 0);
}

static void polled(void)
{
	int fd = busy("for ever"), free_buffer = heap_buffer(SIZE), ends[2];
	CHECK(!pipe(ends));
	struct pollfd wanted[] = { { fd, POLLIN | POLLOUT }, { ends[0], POLLIN }, { -1, POLLIN } };
	CHECK(poll(wanted, 3, 10) == 0);
	CHECK(write(ends[1], "!", 1) == 1);
	CHECK(poll(wanted, 3, -1) == 1 && !wanted[0].revents && wanted[1].revents == POLLIN && !wanted[2].revents);
	wanted[1].fd = free_buffer;
	CHECK(poll(wanted, 2, -1) == 1 && wanted[1].revents == POLLIN);
	fd_set readable;
	FD_ZERO(&readable);
	FD_SET(fd, &readable);
	FD_SET(free_buffer, &readable);
	struct timeval soon = { 0, 10000 };
	CHECK(select(FD_SETSIZE, &readable, NULL, NULL, &soon) == 1);
	CHECK(!FD_ISSET(fd, &readable) && FD_ISSET(free_buffer, &readable));
	alarm_in(0, 30, 0);
	REFUSED(EINTR, poll(wanted, 1, -1));
	struct dma_buf_export_sync_file out = { RW, -1 };
	CHECK(!ioctl(fd, DMA_BUF_IOCTL_EXPORT_SYNC_FILE, &out));
	struct pollfd fence = { out.fd, POLLIN };
	CHECK(poll(&fence, 1, 10) == 0);
	fd = busy("until told");
	wanted[0].fd = fd;
	CHECK(poll(wanted, 1, -1) == 1 && wanted[0].revents == (POLLIN | POLLOUT));
}

static void epolled(void)
{
	int fd = busy("until told"), set = epoll_create1(EPOLL_CLOEXEC), other = heap_buffer(SIZE), third = heap_buffer(SIZE);
	struct epoll_event wanted = { EPOLLIN, { .u32 = 7 } }, got[4];
	CHECK(!epoll_ctl(set, EPOLL_CTL_ADD, fd, &wanted));
	REFUSED(EEXIST, epoll_ctl(set, EPOLL_CTL_ADD, fd, &wanted));
	CHECK(epoll_wait(set, got, 4, 0) == 0);
	CHECK(epoll_wait(set, got, 4, -1) == 1 && got[0].events == EPOLLIN && got[0].data.u32 == 7);
	wanted.events = EPOLLIN | EPOLLOUT;
	CHECK(!epoll_ctl(set, EPOLL_CTL_MOD, fd, &wanted));
	CHECK(epoll_wait(set, got, 4, -1) == 1 && got[0].events == (EPOLLIN | EPOLLOUT));
	CHECK(!epoll_ctl(set, EPOLL_CTL_DEL, fd, NULL) && epoll_wait(set, got, 4, 0) == 0);
	REFUSED(ENOENT, epoll_ctl(set, EPOLL_CTL_DEL, fd, NULL));
	CHECK(!epoll_ctl(set, EPOLL_CTL_ADD, other, &wanted) && epoll_wait(set, got, 4, -1) == 1);
	struct rlimit none = { 0, 0 };
	CHECK(!setrlimit(RLIMIT_NOFILE, &none)); /* it makes no descriptor */
	CHECK(!epoll_ctl(set, EPOLL_CTL_ADD, third, &wanted) && epoll_wait(set, got, 4, -1) == 2);
}

int main(int count, char **arguments)
{
	char *kind = arguments[1];
	if (!strcmp(kind, "interrupted")) interrupted();
	else if (!strcmp(kind, "restarted")) restarted();
	else if (!strcmp(kind, "stopped")) stopped();
	else if (!strcmp(kind, "threads")) threads();
	else if (!strcmp(kind, "storm")) storm();
	else if (!strcmp(kind, "polled")) polled();
	else if (!strcmp(kind, "epolled")) epolled();
	else return 8;
	return 0;
}
