/* For LD_PRELOAD: the process's ioctl(2) asks the small kernel first, whoever calls it. */
#include "kernel.h"

#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>

int ioctl(int fd, unsigned long request, ...)
{
    va_list rest;
    void *argument;
    int result;

    va_start(rest, request);
    argument = va_arg(rest, void *);
    va_end(rest);
    result = kernel_ioctl(fd, request, argument);
    return result == KERNEL_NOT_MINE ? (int)syscall(SYS_ioctl, fd, request, argument) : result;
}
