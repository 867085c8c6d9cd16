/* A 32-bit program, without a C library: opens /dev/udmabuf and ends with 7 where it is not there. */
static long call(long number, long first, long second)
{
	long result;
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(first), "c"(second), "d"(0) : "memory");
	return result;
}

void _start(void)
{
	long fd = call(5, (long)"/dev/udmabuf", 2);
	call(1, fd < 0 ? 7 : 0, 0);
	for (;;)
		;
}
