/* Mistakes with dma-bufs, and each done right: gallery NAME [fixed]. */
#include "dmabuf.h"
#include <pthread.h>
#include <sys/wait.h>

#define SIZE (1 << 20)

static int fd, fixed;
static unsigned char *bytes;
static volatile int sum;

static void start(int access)
{
	sync_dmabuf(fd, START | access);
}

static void end(int access)
{
	sync_dmabuf(fd, END | access);
}

static void no_window(void)
{
	if (fixed)
		start(WRITE);
	memset(bytes, 1, SIZE);
	if (fixed)
		end(WRITE);
}

static void writes_after_end(void)
{
	start(WRITE);
	memset(bytes, 1, SIZE / 2);
	if (!fixed)
		end(WRITE);
	bytes[SIZE - 1] = 1;
	if (fixed)
		end(WRITE);
}

static void reads_after_end(void)
{
	start(READ);
	sum += bytes[0];
	if (!fixed)
		end(READ);
	sum += bytes[SIZE / 2];
	if (fixed)
		end(READ);
}

static void writes_for_read(void)
{
	int access = fixed ? RW : READ;
	start(access);
	bytes[7]++;
	end(access);
}

static void never_ended(void)
{
	start(RW);
	bytes[0] = 1;
	if (fixed)
		end(RW);
}

static void ended_twice(void)
{
	start(RW);
	end(RW);
	if (!fixed)
		end(RW);
}

static void ends_other_access(void)
{
	start(WRITE);
	bytes[0] = 1;
	end(fixed ? WRITE : READ);
}

/* As a loop that takes every error for final: START is refused under a storm, END is sent all the same. */
static void no_retry(void)
{
	if (fixed)
		start(RW);
	else
		sync_once(fd, START | RW);
	end(RW);
}

static void closed_too_early(void)
{
	start(RW);
	if (!fixed)
		close(fd);
	end(RW);
	if (fixed)
		close(fd);
}

static void closed_twice(void)
{
	close(fd);
	if (!fixed)
		close(fd);
}

static pthread_barrier_t barrier;

static void *reader(void *nothing)
{
	pthread_barrier_wait(&barrier);
	start(READ);
	sum += bytes[0];
	end(READ);
	pthread_barrier_wait(&barrier);
	return nothing;
}

static void races(void)
{
	pthread_t thread;
	pthread_barrier_init(&barrier, NULL, 2);
	pthread_create(&thread, NULL, reader, NULL);
	start(WRITE);
	bytes[0] = 1;
	if (fixed)
		end(WRITE);
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	if (!fixed)
		end(WRITE);
	pthread_join(thread, NULL);
}

static void memfd_gone(void)
{
	int memfd = sealed_memfd(SIZE), shared = udmabuf(memfd, 0, SIZE);
	unsigned char *own = map(memfd, SIZE), *theirs = map(shared, SIZE);
	sync_dmabuf(shared, START | WRITE);
	memset(theirs, 1, SIZE);
	sync_dmabuf(shared, END | WRITE);
	close(memfd);
	if (fixed)
		munmap(theirs, SIZE);
	munmap(own, SIZE);
}

int main(int count, char **arguments)
{
	char *name = arguments[1];
	fixed = count > 2;
	fd = heap_buffer(SIZE);
	bytes = map(fd, SIZE);
	CHECK(fd >= 0 && bytes);
	if (!strcmp(name, "no_window")) no_window();
	else if (!strcmp(name, "writes_after_end")) writes_after_end();
	else if (!strcmp(name, "reads_after_end")) reads_after_end();
	else if (!strcmp(name, "writes_for_read")) writes_for_read();
	else if (!strcmp(name, "never_ended")) never_ended();
	else if (!strcmp(name, "ended_twice")) ended_twice();
	else if (!strcmp(name, "ends_other_access")) ends_other_access();
	else if (!strcmp(name, "no_retry")) no_retry();
	else if (!strcmp(name, "closed_too_early")) closed_too_early();
	else if (!strcmp(name, "closed_twice")) closed_twice();
	else if (!strcmp(name, "races")) races();
	else if (!strcmp(name, "memfd_gone")) memfd_gone();
	else return 8;
	return 0;
}
