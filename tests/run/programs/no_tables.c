/* A call made by a function that no unwind table tells of, as those of some C libraries are. */
#include "dmabuf.h"

#ifdef __x86_64__
long bare_ioctl(int fd, unsigned long request, void *argument);
__asm__(".text\n.globl bare_ioctl\n.type bare_ioctl, @function\n"
	"bare_ioctl:\n\tsub $88, %rsp\n\tmovq $0, 8(%rsp)\n\tmovl $16, %eax\n\tsyscall\n\tadd $88, %rsp\n\tret\n"
	".size bare_ioctl, . - bare_ioctl\n");
#else
#define bare_ioctl ioctl
#endif

__attribute__((noinline)) static long end_once(int fd)
{
	struct dma_buf_sync argument = { END | RW };
	long result = bare_ioctl(fd, DMA_BUF_IOCTL_SYNC, &argument);
	return result + (argument.flags != (END | RW));
}

__attribute__((noinline)) static int ends_too_often(int fd)
{
	CHECK(end_once(fd) == 0);
	return 0;
}

int main(void)
{
	int result = ends_too_often(heap_buffer(4096));
	CHECK(!result);
	return 0;
}
