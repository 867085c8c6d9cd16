/* A shared library that allocates when it is loaded, and gives back when it goes: what a plugin of a media framework does. */
#include "dmabuf.h"

#define SIZE 65536

int plugin_buffer = -1;
static unsigned char *bytes;

__attribute__((constructor)) static void loaded(void)
{
	plugin_buffer = heap_buffer(SIZE);
	bytes = map(plugin_buffer, SIZE);
}

__attribute__((destructor)) static void unloaded(void)
{
	munmap(bytes, SIZE);
	close(plugin_buffer);
}

int plugin_write(int value)
{
	if (!bytes || sync_dmabuf(plugin_buffer, START | WRITE))
		return -1;
	memset(bytes, value, SIZE);
	return sync_dmabuf(plugin_buffer, END | WRITE);
}
