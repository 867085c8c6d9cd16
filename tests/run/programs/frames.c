/* Reads three frames of a camera, with START and END ("right") or without START ("wrong"); prints what it saw. */
#include "dmabuf.h"

#define SIZE (1 << 16)

int main(int count, char **arguments)
{
	int right = count > 1 && !strcmp(arguments[1], "right");
	int fd = heap_buffer(SIZE);
	volatile unsigned char *bytes = map(fd, SIZE);
	CHECK(fd >= 0 && bytes);
	CHECK(!sync_once(fd, START | READ) && !sync_once(fd, END | READ)); /* the camera begins */
	for (int frame = 0; frame < 3; frame++) {
		if (right)
			CHECK(!sync_once(fd, START | READ));
		printf("%d ", bytes[100]);
		if (!right)
			CHECK(!sync_once(fd, START | WRITE));
		CHECK(!sync_once(fd, END | (right ? READ : WRITE)));
	}
	puts("");
	return 0;
}
