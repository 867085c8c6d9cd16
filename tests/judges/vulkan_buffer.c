/* Vulkan memory that leaves as a dma-buf: what the device fills the CPU reads, what the CPU writes the device copies,
 * and memory that is imported from the descriptor is the same memory. */
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vulkan/vulkan.h>

#define SIZE (1 << 20)
#define DMA_BUF VK_EXTERNAL_MEMORY_HANDLE_TYPE_DMA_BUF_BIT_EXT

static void must(int good, const char *what)
{
	if (!good) {
		printf("failed: %s\n", what);
		exit(1);
	}
}

static VkDevice device;
static VkQueue queue;
static VkCommandBuffer commands;

static VkBuffer buffer(void)
{
	VkExternalMemoryBufferCreateInfo outside = {
		.sType = VK_STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO, .handleTypes = DMA_BUF };
	VkBufferCreateInfo info = { .sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO, .pNext = &outside, .size = SIZE,
		.usage = VK_BUFFER_USAGE_TRANSFER_DST_BIT | VK_BUFFER_USAGE_TRANSFER_SRC_BIT };
	VkBuffer made;
	must(vkCreateBuffer(device, &info, NULL, &made) == VK_SUCCESS, "vkCreateBuffer");
	return made;
}

static VkDeviceMemory memory(VkBuffer of, const void *how)
{
	VkMemoryRequirements needs;
	vkGetBufferMemoryRequirements(device, of, &needs);
	int type = 0;
	while (!(needs.memoryTypeBits >> type & 1))
		type++;
	VkMemoryAllocateInfo info = { .sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, .pNext = how,
		.allocationSize = needs.size, .memoryTypeIndex = type };
	VkDeviceMemory made;
	must(vkAllocateMemory(device, &info, NULL, &made) == VK_SUCCESS, "vkAllocateMemory");
	must(vkBindBufferMemory(device, of, made, 0) == VK_SUCCESS, "vkBindBufferMemory");
	return made;
}

static void begin(void)
{
	VkCommandBufferBeginInfo info = { .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO };
	must(vkBeginCommandBuffer(commands, &info) == VK_SUCCESS, "vkBeginCommandBuffer");
}

static void submit(void)
{
	VkSubmitInfo info = { .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .commandBufferCount = 1, .pCommandBuffers = &commands };
	must(vkEndCommandBuffer(commands) == VK_SUCCESS, "vkEndCommandBuffer");
	must(vkQueueSubmit(queue, 1, &info, VK_NULL_HANDLE) == VK_SUCCESS, "vkQueueSubmit");
	must(vkQueueWaitIdle(queue) == VK_SUCCESS, "vkQueueWaitIdle");
}

static void sync_cpu(int fd, uint64_t flags)
{
	struct dma_buf_sync sync = { flags };
	must(ioctl(fd, DMA_BUF_IOCTL_SYNC, &sync) == 0, "DMA_BUF_IOCTL_SYNC");
}

int main(void)
{
	VkApplicationInfo application = { .sType = VK_STRUCTURE_TYPE_APPLICATION_INFO, .apiVersion = VK_API_VERSION_1_1 };
	VkInstanceCreateInfo asked = { .sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO, .pApplicationInfo = &application };
	VkInstance instance;
	must(vkCreateInstance(&asked, NULL, &instance) == VK_SUCCESS, "vkCreateInstance");
	uint32_t count = 1;
	VkPhysicalDevice card;
	must(vkEnumeratePhysicalDevices(instance, &count, &card) >= 0 && count == 1, "a card");
	const char *extensions[] = { "VK_KHR_external_memory_fd", "VK_EXT_external_memory_dma_buf" };
	float priority = 1;
	VkDeviceQueueCreateInfo queues = { .sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO, .queueCount = 1,
		.pQueuePriorities = &priority };
	VkDeviceCreateInfo info = { .sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO, .queueCreateInfoCount = 1,
		.pQueueCreateInfos = &queues, .enabledExtensionCount = 2, .ppEnabledExtensionNames = extensions };
	must(vkCreateDevice(card, &info, NULL, &device) == VK_SUCCESS, "vkCreateDevice with dma-bufs");
	vkGetDeviceQueue(device, 0, 0, &queue);
	VkCommandPoolCreateInfo pool_info = { .sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
		.flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT };
	VkCommandPool pool;
	must(vkCreateCommandPool(device, &pool_info, NULL, &pool) == VK_SUCCESS, "vkCreateCommandPool");
	VkCommandBufferAllocateInfo one = { .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO, .commandPool = pool,
		.commandBufferCount = 1 };
	must(vkAllocateCommandBuffers(device, &one, &commands) == VK_SUCCESS, "vkAllocateCommandBuffers");

	VkExportMemoryAllocateInfo outside = { .sType = VK_STRUCTURE_TYPE_EXPORT_MEMORY_ALLOCATE_INFO,
		.handleTypes = DMA_BUF };
	VkBuffer exported = buffer();
	VkDeviceMemory there = memory(exported, &outside);
	PFN_vkGetMemoryFdKHR get = (PFN_vkGetMemoryFdKHR)vkGetDeviceProcAddr(device, "vkGetMemoryFdKHR");
	VkMemoryGetFdInfoKHR what = { .sType = VK_STRUCTURE_TYPE_MEMORY_GET_FD_INFO_KHR, .memory = there,
		.handleType = DMA_BUF };
	int fd = -1;
	must(get(device, &what, &fd) == VK_SUCCESS, "vkGetMemoryFdKHR");
	printf("exported\nsize %s\n", lseek(fd, 0, SEEK_END) >= SIZE ? "whole" : "short");

	begin();
	vkCmdFillBuffer(commands, exported, 0, SIZE, 0x5a5a5a5a);
	submit();
	uint32_t *mapped = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(mapped != MAP_FAILED, "mmap");
	sync_cpu(fd, DMA_BUF_SYNC_START | DMA_BUF_SYNC_READ);
	printf("the device filled it: %x %x\n", mapped[0], mapped[SIZE / 4 - 1]);
	sync_cpu(fd, DMA_BUF_SYNC_END | DMA_BUF_SYNC_READ);
	sync_cpu(fd, DMA_BUF_SYNC_START | DMA_BUF_SYNC_WRITE);
	for (int at = 0; at < SIZE / 4; at++)
		mapped[at] = at;
	sync_cpu(fd, DMA_BUF_SYNC_END | DMA_BUF_SYNC_WRITE);

	/* The import owns the descriptor that it is given. */
	VkImportMemoryFdInfoKHR in = { .sType = VK_STRUCTURE_TYPE_IMPORT_MEMORY_FD_INFO_KHR, .handleType = DMA_BUF,
		.fd = fcntl(fd, F_DUPFD_CLOEXEC, 0) };
	VkBuffer imported = buffer();
	VkDeviceMemory same = memory(imported, &in);
	VkExportMemoryAllocateInfo outside_again = outside;
	VkBuffer copy = buffer();
	VkDeviceMemory elsewhere = memory(copy, &outside_again);
	begin();
	vkCmdCopyBuffer(commands, imported, copy, 1, &(VkBufferCopy){ .size = SIZE });
	submit();
	what.memory = elsewhere;
	int other = -1;
	must(get(device, &what, &other) == VK_SUCCESS, "vkGetMemoryFdKHR of the copy");
	uint32_t *copied = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, other, 0);
	must(copied != MAP_FAILED, "mmap of the copy");
	sync_cpu(other, DMA_BUF_SYNC_START | DMA_BUF_SYNC_READ);
	printf("the device copied it: %x %x\n", copied[1], copied[SIZE / 4 - 1]);
	sync_cpu(other, DMA_BUF_SYNC_END | DMA_BUF_SYNC_READ);

	munmap(mapped, SIZE);
	munmap(copied, SIZE);
	close(fd);
	close(other);
	VkDeviceMemory memories[] = { there, same, elsewhere };
	VkBuffer buffers[] = { exported, imported, copy };
	for (int at = 0; at < 3; at++) {
		vkDestroyBuffer(device, buffers[at], NULL);
		vkFreeMemory(device, memories[at], NULL);
	}
	vkDestroyCommandPool(device, pool, NULL);
	vkDestroyDevice(device, NULL);
	vkDestroyInstance(instance, NULL);
	printf("done\n");
	return 0;
}
