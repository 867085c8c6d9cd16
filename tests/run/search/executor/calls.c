/* One command: the system call that it is, and the line that tells what it answered. */
#include "shared.h"
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/dma-buf.h>
#include <linux/dma-heap.h>
#include <linux/sync_file.h>
#include <linux/udmabuf.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#define MOST_SENT 8

static unsigned char buffer[1 << 17];

static long answer(long result)
{
    return result < 0 ? -errno : result;
}

/* The new descriptor goes to its slot; its number is not told. */
static void tell_new(long to, long number)
{
    if (number < 0) {
        say("%d", -errno);
        return;
    }
    *slot(to) = (int)number;
    say("new %d", fcntl((int)number, F_GETFD));
}

static void forget_closed(void)
{
    for (int i = 0; i < SLOTS; i++)
        if (*slot(i) != NOT_OPEN && fcntl(*slot(i), F_GETFD) < 0)
            *slot(i) = NOT_OPEN;
}

static void make_udmabuf(const int64_t *a)
{
    struct udmabuf_create asked = {(uint32_t)*slot(a[1]), (uint32_t)a[2], (uint64_t)a[3], (uint64_t)a[4]};
    tell_new(a[5], ioctl(*slot(a[0]), UDMABUF_CREATE, &asked));
}

static void make_udmabuf_list(const int64_t *a, const int64_t *items)
{
    struct {
        struct udmabuf_create_list head;
        struct udmabuf_create_item item[32];
    } asked = {{(uint32_t)a[1], (uint32_t)a[2]}, {{0}}};
    for (int64_t i = 0; i < a[2] && i < 32; i++)
        asked.item[i] = (struct udmabuf_create_item){(uint32_t)*slot(items[3 * i]), 0, (uint64_t)items[3 * i + 1],
                                                     (uint64_t)items[3 * i + 2]};
    tell_new(a[3], ioctl(*slot(a[0]), UDMABUF_CREATE_LIST, &asked));
}

static void allocate(const int64_t *a)
{
    struct dma_heap_allocation_data asked = {(uint64_t)a[1], 0, (uint32_t)a[2], (uint64_t)a[3]};
    long result = ioctl(*slot(a[0]), DMA_HEAP_IOCTL_ALLOC, &asked);
    tell_new(a[4], result < 0 ? result : (long)asked.fd);
}

static void tell_file_info(int number)
{
    struct sync_fence_info fences[8] = {0};
    struct sync_file_info info = {.num_fences = 8, .sync_fence_info = (uintptr_t)fences};
    long result = answer(ioctl(number, SYNC_IOC_FILE_INFO, &info));
    say("%ld %.32s status=%d fences=%u %.32s %.32s %d", result, info.name, info.status, info.num_fences,
        fences[0].obj_name, fences[0].driver_name, fences[0].status);
}

static void send_descriptors(const int64_t *a, const int64_t *which, size_t count)
{
    union {
        char bytes[CMSG_SPACE(MOST_SENT * sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    struct iovec part = {(char[]){"x"}, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    int numbers[MOST_SENT];
    for (size_t i = 0; i < count && i < MOST_SENT; i++)
        numbers[i] = *slot(which[i]);
    if (count) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(head), numbers, count * sizeof(int));
    }
    say("%ld", answer(sendmsg(*slot(a[0]), &message, (int)a[1] | MSG_DONTWAIT | MSG_NOSIGNAL)));
}

static void receive_descriptors(const int64_t *a, const int64_t *to, size_t count)
{
    union {
        char bytes[CMSG_SPACE(MOST_SENT * sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    char byte[4];
    struct iovec part = {byte, sizeof(byte)};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (count) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_LEN(count * sizeof(int));
    }
    long result = answer(recvmsg(*slot(a[0]), &message, (int)a[1] | MSG_DONTWAIT));
    char text[128] = "";
    struct cmsghdr *head = result < 0 ? NULL : CMSG_FIRSTHDR(&message);
    size_t got = head && head->cmsg_type == SCM_RIGHTS ? (head->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;
    for (size_t i = 0; i < got; i++) {
        int number;
        memcpy(&number, CMSG_DATA(head) + i * sizeof(int), sizeof(int));
        if (i < count)
            *slot(to[i]) = number;
        snprintf(text + strlen(text), sizeof(text) - strlen(text), " %d", fcntl(number, F_GETFD));
    }
    say("%ld flags=%x got%s", result, result < 0 ? 0 : message.msg_flags & ~MSG_CMSG_CLOEXEC, text);
}

static void splice_through_pipe(const int64_t *a)
{
    loff_t at = a[1];
    int from_pipe = (int)a[4];
    long result = from_pipe ? splice(*slot(a[0]), NULL, *slot(a[2]), a[1] < 0 ? NULL : &at, (size_t)a[3], SPLICE_F_NONBLOCK)
                            : splice(*slot(a[0]), a[1] < 0 ? NULL : &at, *slot(a[2]), NULL, (size_t)a[3], SPLICE_F_NONBLOCK);
    say("%ld", answer(result));
}

static void tell_read(long result, size_t asked)
{
    uint32_t sum = 2166136261u;
    result = answer(result);
    for (long i = 0; i < result && (size_t)i < asked; i++)
        sum = (sum ^ buffer[i]) * 16777619u;
    say(result > 0 ? "%ld #%08x" : "%ld", result, sum);
}

static void tell_link(const int64_t *a)
{
    char path[64], text[256], *end;
    snprintf(path, sizeof(path), "/proc/%d/fd/%d", shared->actors[a[1]].tid, *slot(a[0]));
    ssize_t length = readlink(path, text, sizeof(text) - 1);
    if (length < 0) {
        say("%d", -errno);
        return;
    }
    text[length] = 0;
    if ((end = strchr(text, '[')))
        *end = 0; /* the inode of a pipe or a socket */
    say("%s", text);
}

/* Whether this thread's numbers are not those of its process. */
static int has_table_of_its_own(void)
{
    for (int i = 0; i < ACTORS; i++)
        if (shared->actors[i].is_alive && shared->actors[i].tid == getpid())
            return shared->actors[i].table != shared->actors[self].table;
    return 1;
}

/* How a path leads to a descriptor: its own, its thread's, another process's by number. */
static void reopen(const int64_t *a)
{
    char path[64];
    int actor = (int)a[1];
    int number = *slot(a[0]);
    if (actor >= 0 && actor < ACTORS) {
        int other = a[0] >= 0 && a[0] < SLOTS ? shared->table[shared->actors[actor].table].fd[a[0]] : NOT_OPEN;
        snprintf(path, sizeof(path), "/proc/%d/fd/%d", shared->actors[actor].tid, other);
    } else if (has_table_of_its_own()) {
        snprintf(path, sizeof(path), "/proc/thread-self/fd/%d", number);
    } else {
        snprintf(path, sizeof(path), actor == -1 ? "/proc/self/fd/%d" : actor == -2 ? "/proc/thread-self/fd/%d" : "/dev/fd/%d",
                 number);
    }
    tell_new(a[3], open(path, (int)a[2]));
}

static void take_from(const int64_t *a)
{
    int actor = (int)a[0];
    int theirs = a[1] >= 0 && a[1] < SLOTS ? shared->table[shared->actors[actor].table].fd[a[1]] : NOT_OPEN;
    int pidfd = (int)syscall(SYS_pidfd_open, shared->actors[actor].pid, 0);
    long number = pidfd < 0 ? pidfd : syscall(SYS_pidfd_getfd, pidfd, theirs, 0);
    int failure = errno;
    if (pidfd >= 0)
        close(pidfd);
    errno = failure;
    tell_new(a[2], number);
}

static void remap(const int64_t *a)
{
    void *result = mremap((void *)(ARENA + (uintptr_t)a[0]), (size_t)a[1], (size_t)a[2], (int)a[3],
                          (void *)(ARENA + (uintptr_t)a[4]));
    if (result == MAP_FAILED) {
        say("%d", -errno);
        return;
    }
    uintptr_t at = (uintptr_t)result;
    if (at - ARENA < (uintptr_t)1 << 40) {
        say("at %llx", (unsigned long long)(at - ARENA));
        return;
    }
    /* The kernel chose the place: bring it to one that the program knows. */
    result = mremap(result, (size_t)a[2], (size_t)a[2], MREMAP_MAYMOVE | MREMAP_FIXED, (void *)(ARENA + (uintptr_t)a[4]));
    say("moved %d", result == MAP_FAILED ? -errno : 0);
}

static void map(const int64_t *a)
{
    void *result = mmap((void *)(ARENA + (uintptr_t)a[0]), (size_t)a[1], (int)a[2], (int)a[3], *slot(a[4]), a[5]);
    if (result == MAP_FAILED)
        say("%d", -errno);
    else
        say("at %llx", (unsigned long long)((uintptr_t)result - ARENA));
}

static void pair(const int64_t *a, int is_pipe)
{
    int ends[2];
    long result = is_pipe ? pipe2(ends, (int)a[0] | O_NONBLOCK) : socketpair(AF_UNIX, (int)a[0], 0, ends);
    if (result < 0) {
        say("%d", -errno);
        return;
    }
    *slot(a[1]) = ends[0];
    *slot(a[2]) = ends[1];
    say("pair");
}

static void close_many(const int64_t *a)
{
    unsigned flags = (unsigned)a[0], first = a[1] < 0 ? 3 : (unsigned)*slot(a[1]), last = a[1] < 0 ? ~0U : first;
    long result = answer(syscall(SYS_close_range, first, last, flags));
    if (!result && flags & CLOSE_RANGE_UNSHARE)
        shared->actors[self].table = copy_of_table(shared->actors[self].table);
    say("%ld", result);
    forget_closed();
}

static void close_one(int64_t which)
{
    long result = answer(close(*slot(which)));
    if (!result)
        *slot(which) = NOT_OPEN;
    say("%ld", result);
}

static void poll_one(const int64_t *a)
{
    struct pollfd asked = {*slot(a[0]), (short)a[1], 0};
    long result = answer(poll(&asked, 1, 0));
    say("%ld %x", result, (unsigned)asked.revents);
}

static void exchange(const int64_t *a, int is_export)
{
    struct dma_buf_export_sync_file out = {(uint32_t)a[1], -1};
    struct dma_buf_import_sync_file in = {(uint32_t)a[1], *slot(a[2])};
    if (is_export) {
        long result = ioctl(*slot(a[0]), DMA_BUF_IOCTL_EXPORT_SYNC_FILE, &out);
        tell_new(a[2], result < 0 ? result : (long)out.fd);
    } else {
        say("%ld", answer(ioctl(*slot(a[0]), DMA_BUF_IOCTL_IMPORT_SYNC_FILE, &in)));
    }
}

static void merge(const int64_t *a, const char *name)
{
    struct sync_merge_data asked = {.fd2 = *slot(a[1])};
    snprintf(asked.name, sizeof(asked.name), "%s", name);
    long result = ioctl(*slot(a[0]), SYNC_IOC_MERGE, &asked);
    tell_new(a[2], result < 0 ? result : (long)asked.fence);
}

static void unshare_files(void)
{
    long result = answer(unshare(CLONE_FILES));
    if (!result)
        shared->actors[self].table = copy_of_table(shared->actors[self].table);
    say("%ld", result);
}

long perform(const struct command *command, const unsigned char *data)
{
    const int64_t *a = command->a, *list = (const int64_t *)data;
    const char *text = (const char *)data;
    size_t count = command->length / sizeof(int64_t);
    uint64_t flags;
    switch ((enum op)command->op) {
    case OP_open: tell_new(a[1], open(text, (int)a[0])); break;
    case OP_memfd: tell_new(a[1], memfd_create(text, (unsigned)a[0])); break;
    case OP_ftruncate: say("%ld", answer(ftruncate(*slot(a[0]), a[1]))); break;
    case OP_add_seals: say("%ld", answer(fcntl(*slot(a[0]), F_ADD_SEALS, (int)a[1]))); break;
    case OP_get_seals: say("%ld", answer(fcntl(*slot(a[0]), F_GET_SEALS))); break;
    case OP_udmabuf: make_udmabuf(a); break;
    case OP_udmabuf_list: make_udmabuf_list(a, list); break;
    case OP_heap: allocate(a); break;
    case OP_sync: flags = (uint64_t)a[1]; say("%ld", answer(ioctl(*slot(a[0]), DMA_BUF_IOCTL_SYNC, &flags))); break;
    case OP_set_name: say("%ld", answer(ioctl(*slot(a[0]), DMA_BUF_SET_NAME_B, text))); break;
    case OP_export: exchange(a, 1); break;
    case OP_import: exchange(a, 0); break;
    case OP_file_info: tell_file_info(*slot(a[0])); break;
    case OP_merge: merge(a, text); break;
    case OP_poll: poll_one(a); break;
    case OP_lseek: say("%ld", answer(lseek(*slot(a[0]), a[1], (int)a[2]))); break;
    case OP_mmap: map(a); break;
    case OP_munmap: say("%ld", answer(munmap((void *)(ARENA + (uintptr_t)a[0]), (size_t)a[1]))); break;
    case OP_mprotect: say("%ld", answer(mprotect((void *)(ARENA + (uintptr_t)a[0]), (size_t)a[1], (int)a[2]))); break;
    case OP_mremap: remap(a); break;
    case OP_madvise: say("%ld", answer(madvise((void *)(ARENA + (uintptr_t)a[0]), (size_t)a[1], (int)a[2]))); break;
    case OP_msync: say("%ld", answer(msync((void *)(ARENA + (uintptr_t)a[0]), (size_t)a[1], (int)a[2]))); break;
    case OP_poke:
        if (!touch(ARENA + (uintptr_t)a[0], (size_t)a[1], (int)a[2]))
            say("written");
        break;
    case OP_peek: look_at_memory(ARENA + (uintptr_t)a[0], (size_t)a[1]); break;
    case OP_close: close_one(a[0]); break;
    case OP_close_all: close_many(a); break;
    case OP_dup: tell_new(a[1], dup(*slot(a[0]))); break;
    case OP_dup2: tell_new(a[2], dup2(*slot(a[0]), (int)a[1])); break;
    case OP_dup3: tell_new(a[3], dup3(*slot(a[0]), (int)a[1], (int)a[2])); break;
    case OP_dup_to_slot: tell_new(a[1], dup3(*slot(a[0]), *slot(a[1]), (int)a[2])); break;
    case OP_fcntl_dup: tell_new(a[3], fcntl(*slot(a[0]), (int)a[1], (int)a[2])); break;
    case OP_fcntl: say("%ld", answer(fcntl(*slot(a[0]), (int)a[1], a[2]))); break;
    case OP_reopen: reopen(a); break;
    case OP_fdinfo: look_at_descriptor(*slot(a[0]), (int)a[1]); break;
    case OP_link: tell_link(a); break;
    case OP_read: tell_read(read(*slot(a[0]), buffer, (size_t)a[1]), (size_t)a[1]); break;
    case OP_pread: tell_read(pread(*slot(a[0]), buffer, (size_t)a[1], a[2]), (size_t)a[1]); break;
    case OP_write: memset(buffer, (int)a[2], (size_t)a[1]); say("%ld", answer(write(*slot(a[0]), buffer, (size_t)a[1]))); break;
    case OP_pwrite: memset(buffer, (int)a[3], (size_t)a[1]); say("%ld", answer(pwrite(*slot(a[0]), buffer, (size_t)a[1], a[2]))); break;
    case OP_fallocate: say("%ld", answer(fallocate(*slot(a[0]), (int)a[1], a[2], a[3]))); break;
    case OP_fsync: say("%ld", answer(a[1] ? fdatasync(*slot(a[0])) : fsync(*slot(a[0])))); break;
    case OP_sendfile: say("%ld", answer(sendfile(*slot(a[0]), *slot(a[1]), a[2] < 0 ? NULL : &(off_t){a[2]}, (size_t)a[3]))); break;
    case OP_splice: splice_through_pipe(a); break;
    case OP_copy_range: say("%ld", answer(copy_file_range(*slot(a[0]), &(off_t){a[1]}, *slot(a[2]), &(off_t){a[3]}, (size_t)a[4], 0))); break;
    case OP_socketpair: pair(a, 0); break;
    case OP_pipe: pair(a, 1); break;
    case OP_send: send_descriptors(a, list, count); break;
    case OP_receive: receive_descriptors(a, list, count); break;
    case OP_take: take_from(a); break;
    case OP_fork:
    case OP_thread: say("%ld", begin(command)); break;
    case OP_spawn: say("%ld", spawn((int)a[0])); break;
    case OP_unshare: unshare_files(); break;
    case OP_look: look_at_all((uint64_t)a[0]); break;
    case OP_exec:
    case OP_exit:
    case OP_kill:
    case OPS: abort();
    }
    return 0;
}
