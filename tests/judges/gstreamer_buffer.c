/* Memory of GStreamer's udmabuf allocator, mapped as its elements map memory: it makes START and END itself. */
#include <gst/allocators/allocators.h>
#include <gst/allocators/gstudmabufallocator.h>
#include <gst/gst.h>
#include <stdio.h>
#include <string.h>

#define SIZE 100000

int main(int argc, char **argv)
{
	gst_init(&argc, &argv);
	GstAllocator *allocator = gst_udmabuf_allocator_get();
	if (!allocator) {
		printf("no allocator\n");
		return 1;
	}
	GstMemory *memory = gst_allocator_alloc(allocator, SIZE, NULL);
	printf("allocated, a dma-buf: %d\n", memory && gst_is_dmabuf_memory(memory));
	GstMapInfo map;
	if (!gst_memory_map(memory, &map, GST_MAP_WRITE))
		return 1;
	memset(map.data, 7, SIZE);
	gst_memory_unmap(memory, &map);
	GstMemory *part = gst_memory_share(memory, 4096, 4096);
	if (!gst_memory_map(part, &map, GST_MAP_READ))
		return 1;
	printf("%zu bytes, the last is %d\n", map.size, map.data[map.size - 1]);
	gst_memory_unmap(part, &map);
	gst_memory_unref(part);
	gst_memory_unref(memory);
	gst_object_unref(allocator);
	return 0;
}
