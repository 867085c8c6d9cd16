// Used as libcamera uses its DmaSyncer and DmaBufAllocator: frames with planes in one buffer, several threads, a syncer
// that is moved. Survives whatever START and END are refused with that may be tried again.
#include "dmabuf.h"
#include <memory>
#include <thread>
#include <utility>
#include <vector>

namespace {

class Descriptor {
public:
	explicit Descriptor(int fd) : fd_(fd) { CHECK(fd >= 0); }
	~Descriptor() { close(fd_); }
	Descriptor(const Descriptor &) = delete;
	Descriptor &operator=(const Descriptor &) = delete;
	int get() const { return fd_; }

private:
	int fd_;
};

using Shared = std::shared_ptr<Descriptor>;

class Syncer {
public:
	Syncer(Shared buffer, uint64_t access) : buffer_(std::move(buffer)), access_(access)
	{
		CHECK(!sync_dmabuf(buffer_->get(), START | access_));
	}
	~Syncer()
	{
		if (buffer_)
			CHECK(!sync_dmabuf(buffer_->get(), END | access_));
	}
	Syncer(Syncer &&other) : buffer_(std::exchange(other.buffer_, nullptr)), access_(other.access_) {}
	Syncer &operator=(Syncer &&) = delete;

private:
	Shared buffer_;
	uint64_t access_;
};

struct Plane {
	Shared buffer;
	size_t offset, length;
};

std::vector<Plane> exportPlanes(const std::vector<size_t> &sizes)
{
	size_t total = 0;
	for (size_t size : sizes)
		total += size;
	auto buffer = std::make_shared<Descriptor>(heap_buffer(total));
	std::vector<Plane> planes;
	size_t offset = 0;
	for (size_t size : sizes) {
		planes.push_back({ buffer, offset, size });
		offset += size;
	}
	return planes;
}

void capture(int frames)
{
	const std::vector<size_t> sizes{ 4096, 2048, 2048 };
	auto planes = exportPlanes(sizes);
	unsigned char *bytes = map(planes[0].buffer->get(), 8192);
	for (int frame = 0; frame < frames; frame++) {
		Syncer first(planes[0].buffer, WRITE);
		Syncer moved(std::move(first));
		for (const Plane &plane : planes)
			memset(bytes + plane.offset, frame, plane.length);
	}
	{
		Syncer reading(planes[0].buffer, READ);
		CHECK(bytes[8191] == static_cast<unsigned char>(frames - 1));
	}
	munmap(bytes, 8192);
}

} // namespace

int main(int count, char **arguments)
{
	const int threads = atoi(arguments[1]), frames = atoi(arguments[2]);
	std::vector<std::thread> all;
	for (int i = 0; i < threads; i++)
		all.emplace_back(capture, frames);
	for (auto &thread : all)
		thread.join();
	puts("done");
	return 0;
}
