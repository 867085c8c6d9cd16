/* A buffer that a graphics driver exports (vgem): none of the nodes that dmasync run opens gave it. */
#include "dmabuf.h"

#define SIZE 16384

static int exported(void)
{
	int card = open("/dev/dri/card0", O_RDWR | O_CLOEXEC);
	unsigned int dumb[8] = { 64, 64, 32 }; /* struct drm_mode_create_dumb: height, width, bits; handle comes fifth */
	CHECK(card >= 0 && !ioctl(card, _IOWR('d', 0xb2, dumb), dumb));
	unsigned int prime[3] = { dumb[4], O_CLOEXEC | O_RDWR, -1 }; /* struct drm_prime_handle */
	CHECK(!ioctl(card, _IOWR('d', 0x2d, prime), prime));
	close(card);
	return prime[2];
}

int main(void)
{
	for (int i = 0; i < 300; i++) {
		int fd = exported();
		unsigned char *bytes = map(fd, SIZE);
		CHECK(fd < 16 && bytes && lseek(fd, 0, SEEK_END) == SIZE);
		CHECK(!sync_once(fd, START | RW));
		bytes[0] = 1;
		CHECK(i == 299 || !sync_once(fd, END | RW));
		CHECK(!munmap(bytes, SIZE) && !close(fd));
		REFUSED(EBADF, sync_once(fd, START | RW));
	}
	return 0;
}
