/* Works for ever, in two processes. */
#include "dmabuf.h"
#include <sys/prctl.h>

int main(void)
{
	setpgid(0, 0);
	fork();
	for (;;) {
		int fd = heap_buffer(1 << 16), memfd = sealed_memfd(1 << 16), shared = udmabuf(memfd, 0, 1 << 16);
		unsigned char *bytes = map(fd, 1 << 16);
		sync_dmabuf(fd, START | RW);
		if (bytes)
			memset(bytes, 1, 1 << 16);
		sync_dmabuf(fd, END | RW);
		if (bytes)
			munmap(bytes, 1 << 16);
		close(shared);
		close(memfd);
		close(fd);
	}
}
