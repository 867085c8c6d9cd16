/* Opens and closes so many buffers; how many descriptors and mappings there are must not grow, here and in the
 * supervisor, whose pid is the parent's parent's.
 */
#include "dmabuf.h"
#include <dirent.h>
#include <sched.h>

static int entries(const char *of, int pid)
{
	char name[64];
	int count = 0;
	snprintf(name, sizeof(name), "/proc/%d/%s", pid, of);
	DIR *folder = opendir(name);
	CHECK(folder);
	while (readdir(folder))
		count++;
	closedir(folder);
	return count;
}

static int parent_of(int pid)
{
	char name[64], line[256];
	int parent = 0;
	snprintf(name, sizeof(name), "/proc/%d/status", pid);
	FILE *status = fopen(name, "r");
	CHECK(status);
	while (fgets(line, sizeof(line), status))
		if (sscanf(line, "PPid: %d", &parent) == 1)
			break;
	fclose(status);
	return parent;
}

int main(int count, char **arguments)
{
	int supervisor = parent_of(getppid()), mine = 0, theirs = 0;
	for (int i = 0; i < atoi(arguments[1]); i++) {
		int fd = heap_buffer(1 << 16), memfd = i % 8 ? -1 : sealed_memfd(1 << 16);
		int shared = memfd < 0 ? -1 : udmabuf(memfd, 0, 1 << 16);
		unsigned char *bytes = map(fd, 1 << 16);
		CHECK(fd >= 0 && bytes && !sync_once(fd, START | RW));
		bytes[0] = 1;
		CHECK(!sync_once(fd, END | RW) && !munmap(bytes, 1 << 16) && !close(fd));
		if (shared >= 0)
			CHECK(!close(shared) && !close(memfd));
		if (i == 100) {
			mine = entries("fd", getpid());
			theirs = entries("fd", supervisor);
		}
	}
	CHECK(entries("fd", getpid()) == mine);
	/* What is gone is heard of a moment later. */
	int left = 0;
	for (int i = 0; i < 1000 && (left = entries("fd", supervisor)) >= theirs + 50; i++)
		sched_yield();
	CHECK(left < theirs + 50);
	return 0;
}
