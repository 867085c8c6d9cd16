/* For LD_PRELOAD: a DMA_BUF_IOCTL_SYNC that sleeps until a byte comes, or that a signal interrupts; it succeeds. */
#include <errno.h>
#include <linux/dma-buf.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>

int interruptions; /* so many of them are interrupted by SIGUSR1 */
int gate = -1;     /* what the byte comes from */

int ioctl(int fd, unsigned long request, ...)
{
    va_list rest;
    void *argument;
    char byte;

    va_start(rest, request);
    argument = va_arg(rest, void *);
    va_end(rest);
    if (request != DMA_BUF_IOCTL_SYNC)
        return (int)syscall(SYS_ioctl, fd, request, argument);
    if (gate >= 0)
        (void)!read(gate, &byte, 1);
    if (interruptions == 0)
        return 0;
    interruptions--;
    raise(SIGUSR1);
    errno = EINTR;
    return -1;
}
