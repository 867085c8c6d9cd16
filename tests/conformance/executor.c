/* The search's hands on a real kernel: makes the system calls that a file lists, and writes down what each answered.
 *
 *     executor FOLDER
 *
 * Waits for FOLDER/calls.0, calls.1, … and writes FOLDER/answers.0, answers.1, … until there is FOLDER/stop. It knows
 * nothing of what a program means: search_calls.py writes the calls, search_replay.py reads the answers, and both
 * describe the records. A process of its own makes the calls of each file; where one of them kills it, the next one
 * goes on with the program that follows. The answers of a file are written when all of its programs have run.
 *
 * Descriptors are told by slots: FIRST_SLOT and up, in calls and in answers, also within arguments. The executor's
 * own are HIGH and up, so that those of a program get the lowest numbers.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    OPEN, REOPEN, MEMFD, DUP, CLOSE, FTRUNCATE, ADD_SEALS, GET_SEALS, LSEEK, POLL, MMAP, MUNMAP, MADVISE, MSYNC, FILE_SIZE,
    RESIZE, PEEK, POKE, CHECKSUM, FDINFO, IOCTL, NONE_LEFT, SOME_LEFT, LIMITS, FENCE, SIGNAL, UNKNOWN
};
enum { IN_BUFFER, IN_MEMORY, IN_READ_ONLY_MEMORY, AS_INT };
enum { PATCH_DESCRIPTOR, PATCH_TABLE, PATCH_END_OF_MEMORY };
#define FIRST_SLOT (1L << 30)
#define SLOTS 16384
#define MAPS 4096
#define HIGH 512
#define NOT_OPEN 99999
#define FAULT (-1001)       /* touching a mapping raised SIGBUS or SIGSEGV */
#define BEYOND_FILE (-1002) /* what Python's mmap refuses to ask for: more than there is of a file */
#define TICK_MICROSECONDS 400
#define FDINFO_ROOM 4096
#define HEAP "/dev/dma_heap/system"
#define MERGES "/sys/kernel/mm/ksm"
#define IDLE_MILLISECONDS (15 * 60 * 1000)
#define OUT_ROOM ((size_t)1 << 28)

struct call {
    uint32_t code, length;
    int64_t a, b, c, d;
}; /* length bytes follow, and as many zeros as make it a multiple of eight */
struct answer {
    uint32_t code, length;
    int64_t result; /* a negative errno where the call failed */
};              /* likewise */
struct program {
    uint32_t length, keep_memfds;
}; /* so many bytes of calls follow */
struct answered {
    uint32_t length;
    int32_t status; /* 0, or the signal that killed the process */
};                  /* so many bytes of answers follow */
struct patch {
    uint16_t at, size;
    uint32_t kind;
    int64_t value;
};

static struct {
    int fd;
} slots[SLOTS];
static struct {
    unsigned char *address;
    size_t length;
    int fd, prot;
} maps[MAPS];
static int most_slots, most_maps;
static int fdinfo_of[HIGH], kept[SLOTS], kept_count, vgem = -1, limit_files[2] = {-1, -1};
static long page;
static unsigned char *arena; /* one page to write, a hole, one to read, a hole, one to write, a hole */
static unsigned char table[4096] __attribute__((aligned(16)));
static unsigned char buffer[1 << 17];
static unsigned char *out; /* both processes have it, so that the answers outlive the one that gets them */
static size_t out_length;
static sigjmp_buf touched;
static volatile sig_atomic_t touching;
static struct rlimit files;
static char default_limits[2][32];
static int limits_changed;

static void fail(const char *what)
{
    fprintf(stderr, "executor: %s: %s\n", what, strerror(errno));
    exit(2);
}

static int high(int fd)
{
    int moved = fd < 0 ? fd : fcntl(fd, F_DUPFD_CLOEXEC, HIGH);
    if (fd >= 0)
        close(fd);
    return moved;
}

/* Checksums: CRC-32, eight bytes at a time, and blocks of zeros at once, of which there are most. */

#define BLOCK 512
static uint32_t crc_table[8][256], zeros_table[4][256];

static uint32_t crc_bytes(uint32_t crc, const unsigned char *at, size_t length)
{
    while (length--)
        crc = crc_table[0][(crc ^ *at++) & 255] ^ crc >> 8;
    return crc;
}

static void make_tables(void)
{
    static const unsigned char zeros[BLOCK];
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0xEDB88320u : crc >> 1;
        crc_table[0][i] = crc;
    }
    for (int k = 1; k < 8; k++)
        for (int i = 0; i < 256; i++)
            crc_table[k][i] = crc_table[k - 1][i] >> 8 ^ crc_table[0][crc_table[k - 1][i] & 255];
    for (int k = 0; k < 4; k++)
        for (uint32_t i = 0; i < 256; i++)
            zeros_table[k][i] = crc_bytes(i << 8 * k, zeros, BLOCK);
}

static uint32_t checksum(const unsigned char *at, size_t length)
{
    uint32_t crc = 0xFFFFFFFF;
    for (; length >= BLOCK; length -= BLOCK, at += BLOCK) {
        const uint64_t *words = (const uint64_t *)at;
        uint64_t any = 0;
        for (int i = 0; i < BLOCK / 8; i += 8)
            any |= words[i] | words[i + 1] | words[i + 2] | words[i + 3] | words[i + 4] | words[i + 5] | words[i + 6] | words[i + 7];
        if (!any) {
            crc = zeros_table[0][crc & 255] ^ zeros_table[1][crc >> 8 & 255] ^ zeros_table[2][crc >> 16 & 255] ^
                  zeros_table[3][crc >> 24];
            continue;
        }
        for (int i = 0; i < BLOCK / 8; i++) {
            uint64_t word = words[i] ^ crc; /* both architectures are little-endian */
            crc = crc_table[7][word & 255] ^ crc_table[6][word >> 8 & 255] ^ crc_table[5][word >> 16 & 255] ^
                  crc_table[4][word >> 24 & 255] ^ crc_table[3][word >> 32 & 255] ^ crc_table[2][word >> 40 & 255] ^
                  crc_table[1][word >> 48 & 255] ^ crc_table[0][word >> 56];
        }
    }
    return ~crc_bytes(crc, at, length);
}

/* Answers. */

static unsigned char *room(size_t length)
{
    if (out_length + length > OUT_ROOM)
        fail("answers");
    return out + out_length;
}

/* An answer with room for length bytes, which are zero. */
static unsigned char *say(uint32_t code, int64_t result, size_t length)
{
    size_t padded = (length + 7) & ~(size_t)7;
    struct answer *answer = (struct answer *)room(sizeof *answer + padded);
    *answer = (struct answer){code, (uint32_t)length, result};
    memset(answer + 1, 0, padded);
    out_length += sizeof *answer + padded;
    return (unsigned char *)(answer + 1);
}

/* Slots. */

static int number(int64_t fd)
{
    if (fd < FIRST_SLOT)
        return (int)fd;
    fd -= FIRST_SLOT;
    return fd < SLOTS && slots[fd].fd >= 0 ? slots[fd].fd : NOT_OPEN;
}

/* Remember a new descriptor; without a slot nobody can name it, and it goes when the program ends. */
static int64_t bind_slot(int64_t slot, int fd)
{
    if (slot < FIRST_SLOT || slot - FIRST_SLOT >= SLOTS)
        return fd;
    slots[slot - FIRST_SLOT].fd = fd;
    if (slot - FIRST_SLOT >= most_slots)
        most_slots = (int)(slot - FIRST_SLOT) + 1;
    return slot;
}

static void say_new(uint32_t code, int64_t slot, int fd)
{
    say(code, fd < 0 ? -errno : bind_slot(slot, fd), 0);
}

static int64_t outcome(long result)
{
    return result < 0 ? -errno : result;
}

/* Calls that take more than a line. */

static void do_mmap(const struct call *call, int64_t map, int64_t length, int prot_and_flags[2], int64_t offset)
{
    struct stat about;
    int fd = number(call->a), prot = prot_and_flags[0], flags = prot_and_flags[1];
    /* What Python's mmap.mmap does: it looks at a regular file's length, and takes a duplicate. */
    if (length == 0) {
        say(MMAP, fcntl(fd, F_GETOWN) < 0 ? -errno : -EINVAL, 0);
        return;
    }
    if (fstat(fd, &about) == 0 && S_ISREG(about.st_mode) &&
        (offset > about.st_size || about.st_size - offset < length)) {
        say(MMAP, BEYOND_FILE, 0);
        return;
    }
    int own = fcntl(fd, F_DUPFD_CLOEXEC, HIGH);
    if (own < 0) {
        say(MMAP, -errno, 0);
        return;
    }
    /* Far from one another: Linux joins neighbours, and counts a dma-buf's mappings then as one. */
    void *hint = (void *)(0x200000000000 + (map % MAPS) * (1L << 26));
    void *address = mmap(hint, (size_t)length, prot, flags, own, offset);
    if (address == MAP_FAILED) {
        say(MMAP, -errno, 0);
        close(own);
        return;
    }
    if (map < 0 || map >= MAPS) { /* the fake refused: nobody will name it */
        munmap(address, (size_t)length);
        close(own);
    } else {
        maps[map].address = address, maps[map].length = (size_t)length, maps[map].fd = own, maps[map].prot = prot;
        if (map >= most_maps)
            most_maps = (int)map + 1;
    }
    say(MMAP, 0, 0);
}

static void drop_map(int map)
{
    if (!maps[map].address)
        return;
    munmap(maps[map].address, maps[map].length);
    close(maps[map].fd);
    maps[map].address = NULL;
}

static void do_map(const struct call *call, const unsigned char *data)
{
    int map = (int)call->a;
    if (map < 0 || map >= MAPS || !maps[map].address) {
        say(call->code, -EBADF, 0);
        return;
    }
    unsigned char *address = maps[map].address;
    size_t length = maps[map].length;
    struct stat about;
    void *moved;
    uint32_t crc;
    if (sigsetjmp(touched, 0)) {
        touching = 0;
        say(call->code, FAULT, 0);
        return;
    }
    switch (call->code) {
    case MUNMAP:
        drop_map(map);
        say(MUNMAP, 0, 0);
        break;
    case MADVISE:
        say(MADVISE, outcome(madvise(address + call->c, (size_t)call->d, (int)call->b)), 0);
        break;
    case MSYNC:
        say(MSYNC, outcome(msync(address + call->b, (size_t)call->c, MS_SYNC)), 0);
        break;
    case FILE_SIZE:
        say(FILE_SIZE, fstat(maps[map].fd, &about) ? -errno : about.st_size, 0);
        break;
    case RESIZE:
        if (ftruncate(maps[map].fd, call->b + call->c)) {
            say(RESIZE, -errno, 0);
            break;
        }
        moved = mremap(address, length, (size_t)call->b, MREMAP_MAYMOVE);
        if (moved != MAP_FAILED)
            maps[map].address = moved, maps[map].length = (size_t)call->b;
        say(RESIZE, moved == MAP_FAILED ? -errno : 0, 0);
        break;
    case PEEK: {
        size_t at = (size_t)call->b < length ? (size_t)call->b : length;
        size_t wanted = (size_t)call->c < length - at ? (size_t)call->c : length - at;
        size_t before = out_length;
        unsigned char *answer = say(PEEK, 0, wanted);
        if (sigsetjmp(touched, 0)) {
            touching = 0;
            out_length = before;
            say(PEEK, FAULT, 0);
            break;
        }
        touching = 1;
        memcpy(answer, address + at, wanted);
        touching = 0;
        break;
    }
    case POKE:
        if ((size_t)call->b + call->length > length) {
            say(POKE, -EINVAL, 0);
            break;
        }
        touching = 1;
        for (uint32_t i = 0; i < call->length; i++)
            ((volatile unsigned char *)address)[(size_t)call->b + i] = data[i];
        touching = 0;
        say(POKE, 0, 0);
        break;
    case CHECKSUM:
        touching = 1;
        crc = checksum(address, length);
        touching = 0;
        say(CHECKSUM, crc, 0);
        break;
    }
}

static ssize_t read_fdinfo(int fd, void *text)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    if (fd >= HIGH || fd < 0) {
        int info = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t length = info < 0 ? -1 : pread(info, text, FDINFO_ROOM, 0);
        if (info >= 0)
            close(info);
        return length;
    }
    /* The files stay open: each read tells of what the number is by then. */
    if (fdinfo_of[fd] < 0)
        fdinfo_of[fd] = high(open(path, O_RDONLY | O_CLOEXEC));
    return pread(fdinfo_of[fd], text, FDINFO_ROOM, 0);
}

/* An argument of an ioctl: patches, then its bytes, of which cut lie in a hole where it is in memory of its own.
 * a: descriptor, b: request, c: kind | cut << 8 | may wait << 24 | patches << 32 | where a new descriptor's number is
 * told << 48 (an offset + 2, 1: the result, 0: nowhere), d: an int as argument, or the new slot, or the table's bytes. */
static void do_ioctl(const struct call *call, const unsigned char *data)
{
    int fd = number(call->a), kind = call->c & 255, cut = call->c >> 8 & 0xFFFF, may_wait = call->c >> 24 & 1;
    int count = call->c >> 32 & 0xFFFF, new_at = (int)(call->c >> 48 & 0xFFFF) - 2;
    const struct patch *patches = (const struct patch *)data;
    const unsigned char *payload = data + count * sizeof *patches;
    size_t length = call->length - count * sizeof *patches, shown = length - (size_t)cut;
    unsigned char *argument = buffer;
    unsigned long value;
    uint64_t real[count + 1];
    if (kind == AS_INT)
        value = (unsigned int)call->d;
    else {
        if (kind == IN_MEMORY)
            argument = arena + page - shown;
        else if (kind == IN_READ_ONLY_MEMORY)
            argument = arena + 3 * page - shown;
        value = (unsigned long)argument;
        if (kind == IN_READ_ONLY_MEMORY)
            mprotect(arena + 2 * page, page, PROT_READ | PROT_WRITE);
        memcpy(argument, payload, shown);
        if (kind == IN_BUFFER)
            memset(argument + length, 0, 64);
        for (int i = 0; i < count; i++) {
            real[i] = patches[i].kind == PATCH_TABLE           ? (uint64_t)(uintptr_t)table
                      : patches[i].kind == PATCH_END_OF_MEMORY ? (uint64_t)(uintptr_t)(arena + 5 * page - patches[i].value)
                                                               : (uint64_t)number(patches[i].value);
            for (unsigned k = 0; k < patches[i].size && patches[i].at + k < shown; k++)
                argument[patches[i].at + k] = (unsigned char)(real[i] >> 8 * k);
        }
        if (kind == IN_READ_ONLY_MEMORY)
            mprotect(arena + 2 * page, page, PROT_READ);
    }
    static const struct itimerval ticks = {{0, TICK_MICROSECONDS}, {0, TICK_MICROSECONDS}}, none;
    if (may_wait)
        setitimer(ITIMER_REAL, &ticks, NULL);
    long result = ioctl(fd, (unsigned int)call->b, value);
    int error = result < 0 ? errno : 0;
    if (may_wait)
        setitimer(ITIMER_REAL, &none, NULL);
    if (kind == AS_INT)
        shown = 0;
    int with_table = !error && count && patches[count - 1].kind == PATCH_TABLE;
    size_t entries = with_table && call->d > 0 && (size_t)call->d <= sizeof table ? (size_t)call->d : 0;
    unsigned char *after = say(IOCTL, error ? -error : result, shown + entries);
    struct answer *answer = (struct answer *)after - 1;
    memcpy(after, argument, shown);
    memcpy(after + shown, table, entries);
    /* Back to slots, and to the writer's own addresses. */
    for (int i = 0; kind != AS_INT && i < count; i++) {
        int same = 1;
        for (unsigned k = 0; k < patches[i].size && patches[i].at + k < shown; k++)
            same &= after[patches[i].at + k] == (unsigned char)(real[i] >> 8 * k);
        if (same && patches[i].at < shown) {
            size_t size = patches[i].at + patches[i].size <= shown ? patches[i].size : shown - patches[i].at;
            memcpy(after + patches[i].at, payload + patches[i].at, size);
        }
    }
    if (error || new_at < -1)
        return;
    if (new_at == -1)
        answer->result = bind_slot(call->d, (int)result);
    else if ((size_t)new_at + 4 <= shown) {
        int32_t made;
        memcpy(&made, after + new_at, 4);
        made = (int32_t)bind_slot(call->d, made);
        memcpy(after + new_at, &made, 4);
    }
}

/* The descriptor that a call made without telling its number. */
static void do_unknown(const struct call *call)
{
    static char known[HIGH];
    int most = 2;
    memset(known, 0, sizeof known);
    for (int i = 0; i < most_slots; i++)
        if (slots[i].fd >= 0 && slots[i].fd < HIGH) {
            known[slots[i].fd] = 1;
            most = slots[i].fd > most ? slots[i].fd : most;
        }
    for (int fd = 3; fd < HIGH && fd <= most + 4; fd++)
        if (!known[fd] && fcntl(fd, F_GETFD) >= 0) {
            say(UNKNOWN, bind_slot(call->a, fd), 0);
            return;
        }
    say(UNKNOWN, -ENOENT, 0);
}

/* vgem's fences: include/uapi/drm/drm.h, drm_mode.h and vgem_drm.h say what its requests take. */

struct create_dumb {
    uint32_t height, width, bpp, flags, handle, pitch;
    uint64_t size;
};
struct prime_handle {
    uint32_t handle, flags;
    int32_t fd;
};
struct fence_attach {
    uint32_t handle, flags, out_fence, pad;
};
struct fence_signal {
    uint32_t fence, flags;
};
struct gem_close {
    uint32_t handle, pad;
};
struct export_sync_file {
    uint32_t flags;
    int32_t fd;
};
struct version {
    int numbers[3];
    size_t name_length;
    char *name;
    size_t date_length;
    char *date;
    size_t text_length;
    char *text;
};

static int open_vgem(void)
{
    for (int i = 0; i < 8; i++) {
        char path[32], name[16] = "";
        struct version version = {.name_length = sizeof name - 1, .name = name};
        snprintf(path, sizeof path, "/dev/dri/card%d", i);
        int fd = high(open(path, O_RDWR | O_CLOEXEC));
        if (fd >= 0 && ioctl(fd, _IOWR('d', 0, struct version), &version) == 0 && !strcmp(name, "vgem"))
            return fd;
        if (fd >= 0)
            close(fd);
    }
    return -1;
}

static void do_fence(const struct call *call)
{
    struct create_dumb dumb = {8, 8, 32, 0, 0, 0, 0};
    if (ioctl(vgem, _IOWR('d', 0xB2, struct create_dumb), &dumb)) {
        say(FENCE, -errno, 0);
        return;
    }
    struct prime_handle prime = {dumb.handle, O_CLOEXEC | O_RDWR, -1};
    struct fence_attach attach = {dumb.handle, 1, 0, 0};
    struct export_sync_file export = {3, -1};
    struct gem_close gone = {dumb.handle, 0};
    int error = 0;
    if (ioctl(vgem, _IOWR('d', 0x2D, struct prime_handle), &prime) ||
        ioctl(vgem, _IOWR('d', 0x41, struct fence_attach), &attach))
        error = errno;
    else {
        if (ioctl(prime.fd, _IOWR('b', 2, struct export_sync_file), &export))
            error = errno;
        close(prime.fd);
    }
    ioctl(vgem, _IOW('d', 9, struct gem_close), &gone);
    unsigned char *answer = say(FENCE, error ? -error : bind_slot(call->a, export.fd), 8);
    memcpy(answer, &attach.out_fence, 4);
}

static uint32_t fences[SLOTS]; /* those that the calls name, by their numbers there */
static uint32_t fences_made;

static void do_signal(const struct call *call)
{
    struct fence_signal done = {call->a >= 0 && call->a < SLOTS ? fences[call->a] : 0, 0};
    if (call->a >= 0 && call->a < SLOTS)
        fences[call->a] = 0;
    say(SIGNAL, outcome(ioctl(vgem, _IOW('d', 0x42, struct fence_signal), &done)), 0);
}

static void set_limit(int which, const char *text)
{
    if (limit_files[which] >= 0 && pwrite(limit_files[which], text, strlen(text), 0) < 0)
        fail("a parameter of udmabuf");
}

static void make(const struct call *call, const unsigned char *data)
{
    char text[64];
    struct rlimit low = files;
    int fd = number(call->a);
    ssize_t length;
    switch (call->code) {
    case OPEN:
        say_new(OPEN, call->c, (int)syscall(SYS_openat, AT_FDCWD, data, (int)call->b | O_CLOEXEC, 0777));
        break;
    case REOPEN:
        snprintf(text, sizeof text, "/proc/self/fd/%d", fd);
        say_new(REOPEN, call->c, (int)syscall(SYS_openat, AT_FDCWD, text, (int)call->b | O_CLOEXEC, 0777));
        break;
    case MEMFD:
        fd = (int)syscall(SYS_memfd_create, data, (unsigned)call->b);
        say_new(MEMFD, call->c, fd);
        if (fd >= 0 && call->d && kept_count < SLOTS)
            kept[kept_count++] = fcntl(fd, F_DUPFD_CLOEXEC, HIGH);
        break;
    case DUP:
        say_new(DUP, call->c, fcntl(fd, F_DUPFD_CLOEXEC, 0));
        break;
    case CLOSE:
        say(CLOSE, outcome(close(fd)), 0);
        if (call->a >= FIRST_SLOT && call->a - FIRST_SLOT < SLOTS)
            slots[call->a - FIRST_SLOT].fd = -1;
        break;
    case FTRUNCATE:
        say(FTRUNCATE, outcome(ftruncate(fd, call->b)), 0);
        break;
    case ADD_SEALS:
        say(ADD_SEALS, outcome(fcntl(fd, F_ADD_SEALS, (int)call->b)), 0);
        break;
    case GET_SEALS:
        say(GET_SEALS, outcome(fcntl(fd, F_GET_SEALS)), 0);
        break;
    case LSEEK:
        say(LSEEK, outcome(lseek(fd, call->b, (int)call->c)), 0);
        break;
    case POLL: {
        struct pollfd one = {fd, (short)call->b, 0};
        int ready = poll(&one, 1, 0);
        say(POLL, ready < 0 ? -errno : ready ? (unsigned short)one.revents : 0, 0);
        break;
    }
    case MMAP: {
        const int64_t *more = (const int64_t *)data;
        int prot_and_flags[2] = {(int)more[0], (int)more[1]};
        do_mmap(call, call->d, call->b, prot_and_flags, call->c);
        break;
    }
    case FDINFO:
        length = read_fdinfo(fd, buffer);
        if (length < 0)
            say(FDINFO, -errno, 0);
        else
            memcpy(say(FDINFO, 0, (size_t)length), buffer, (size_t)length);
        break;
    case IOCTL:
        do_ioctl(call, data);
        break;
    case NONE_LEFT:
        /* Not 0: F_DUPFD calls a limit that its lowest number reaches EINVAL. */
        fd = open("/", O_RDONLY | O_CLOEXEC);
        close(fd);
        low.rlim_cur = (rlim_t)fd;
        say(NONE_LEFT, outcome(setrlimit(RLIMIT_NOFILE, &low)), 0);
        break;
    case SOME_LEFT:
        say(SOME_LEFT, outcome(setrlimit(RLIMIT_NOFILE, &files)), 0);
        break;
    case LIMITS:
        for (int i = 0; i < 2; i++) {
            snprintf(text, sizeof text, "%lld", (long long)(i ? call->b : call->a));
            set_limit(i, text);
        }
        limits_changed = 1;
        say(LIMITS, 0, 0);
        break;
    case FENCE: {
        size_t before = out_length;
        do_fence(call);
        const struct answer *answer = (const struct answer *)(out + before);
        if (answer->result >= 0 && call->b >= 0 && call->b < SLOTS) {
            memcpy(&fences[call->b], answer + 1, 4);
            fences_made = (uint32_t)call->b >= fences_made ? (uint32_t)call->b + 1 : fences_made;
        }
        break;
    }
    case SIGNAL:
        do_signal(call);
        break;
    case UNKNOWN:
        do_unknown(call);
        break;
    default:
        do_map(call, data);
    }
}

/* A program has come to its end: nothing of it may be left for the next one. */
static void forget(void)
{
    setrlimit(RLIMIT_NOFILE, &files);
    for (uint32_t i = 0; i < fences_made; i++)
        if (fences[i]) {
            struct fence_signal done = {fences[i], 0};
            ioctl(vgem, _IOW('d', 0x42, struct fence_signal), &done);
            fences[i] = 0;
        }
    fences_made = 0;
    for (int i = 0; i < most_maps; i++)
        drop_map(i);
    most_maps = 0;
    syscall(SYS_close_range, 3U, HIGH - 1U, 0U); /* also those without a slot */
    for (int i = 0; i < most_slots; i++)
        slots[i].fd = -1;
    most_slots = 0;
    while (kept_count)
        close(kept[--kept_count]);
    if (limits_changed)
        for (int i = 0; i < 2; i++)
            set_limit(i, default_limits[i]);
    limits_changed = 0;
}

static void on_fault(int signal)
{
    if (touching)
        siglongjmp(touched, 1);
    /* A mistake of the executor's own: let it end this process. */
    struct sigaction action = {.sa_handler = SIG_DFL};
    sigaction(signal, &action, NULL);
}

static void on_tick(int signal)
{
    (void)signal;
}

static void write_all(const char *path, const void *bytes, size_t length)
{
    int fd = high(open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
    while (length) {
        ssize_t done = write(fd, bytes, length);
        if (done < 0)
            fail(path);
        bytes = (const char *)bytes + done, length -= (size_t)done;
    }
    close(fd);
}

/* Make the calls of a program and append its answers. */
static void run(const unsigned char *calls, const struct program *program)
{
    const unsigned char *end = calls + program->length;
    size_t began = out_length;
    memset(room(sizeof(struct answered)), 0, sizeof(struct answered));
    out_length += sizeof(struct answered);
    while (calls < end) {
        const struct call *call = (const struct call *)calls;
        make(call, calls + sizeof *call);
        calls += sizeof *call + ((call->length + 7) & ~7u);
    }
    forget();
    ((struct answered *)(out + began))->length = (uint32_t)(out_length - began - sizeof(struct answered));
}

static void prepare(void)
{
    struct sigaction action = {.sa_handler = on_fault, .sa_flags = SA_NODEFER};
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
    action.sa_handler = on_tick, action.sa_flags = 0; /* no SA_RESTART: what waits is interrupted */
    sigaction(SIGALRM, &action, NULL);
    for (int i = 0; i < SLOTS; i++)
        slots[i].fd = -1;
    for (int i = 0; i < HIGH; i++)
        fdinfo_of[i] = -1;
    arena = mmap(NULL, 6 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (arena == MAP_FAILED)
        fail("mmap");
    for (int hole = 1; hole < 6; hole += 2)
        mprotect(arena + hole * page, page, PROT_NONE);
    vgem = open_vgem();
}

/* A whole file, for reading; NULL where there is none yet. */
static unsigned char *whole(const char *path, size_t *length)
{
    struct stat about;
    int fd = high(open(path, O_RDONLY | O_CLOEXEC));
    if (fd < 0)
        return NULL;
    if (fstat(fd, &about))
        fail(path);
    unsigned char *bytes = malloc((size_t)about.st_size + 1);
    for (*length = 0; *length < (size_t)about.st_size;) {
        ssize_t done = read(fd, bytes + *length, (size_t)about.st_size - *length);
        if (done <= 0)
            fail(path);
        *length += (size_t)done;
    }
    close(fd);
    return bytes;
}

static void run_file(const unsigned char *bytes, size_t length, const char *answers)
{
    struct done {
        uint32_t programs;
        size_t answered;
    };
    volatile struct done *done = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    out = mmap(NULL, OUT_ROOM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (done == MAP_FAILED || out == MAP_FAILED)
        fail("memory");
    size_t count = 0;
    for (size_t at = 0; at < length; count++)
        at += sizeof(struct program) + ((const struct program *)(bytes + at))->length;
    while (done->programs < count) {
        pid_t child = fork();
        if (child < 0)
            fail("fork");
        if (child == 0) {
            prepare();
            uint32_t index = 0;
            out_length = done->answered;
            for (size_t at = 0; at < length; index++) {
                const struct program *program = (const struct program *)(bytes + at);
                if (index >= done->programs) {
                    run(bytes + at + sizeof *program, program);
                    done->answered = out_length;
                    done->programs = index + 1;
                }
                at += sizeof *program + program->length;
            }
            _exit(0);
        }
        int status;
        waitpid(child, &status, 0);
        if (done->programs < count) {
            struct answered killed = {0, WIFSIGNALED(status) ? WTERMSIG(status) : 255};
            memcpy(out + done->answered, &killed, sizeof killed);
            done->answered += sizeof killed;
            done->programs += 1;
            for (int i = 0; default_limits[0][0] && i < 2; i++)
                set_limit(i, default_limits[i]);
        }
    }
    write_all(answers, out, done->answered);
    munmap((void *)done, 4096);
    munmap(out, OUT_ROOM);
}

static int huge_pages(void)
{
    char line[256];
    int count = 0;
    FILE *file = fopen("/proc/meminfo", "re");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "HugePages_Total: %d", &count) == 1)
            break;
    if (file)
        fclose(file);
    return count;
}

static void hello(const char *folder)
{
    static const char *names[2] = {"list_limit", "size_limit_mb"};
    char path[4096], text[512], whole_path[4096];
    struct utsname about;
    uname(&about);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "/sys/module/udmabuf/parameters/%s", names[i]);
        limit_files[i] = high(open(path, O_RDWR | O_CLOEXEC));
        ssize_t length = limit_files[i] < 0 ? 0 : pread(limit_files[i], default_limits[i], sizeof default_limits[i] - 1, 0);
        default_limits[i][length > 0 ? length : 0] = 0;
    }
    int card = open_vgem();
    snprintf(text, sizeof text, "%s\n%s\n%ld\n%d\n%d\n%d\n%d\n", about.release, about.machine, page, card >= 0,
             access(MERGES, F_OK) == 0, access(HEAP, F_OK) == 0, huge_pages());
    if (card >= 0)
        close(card);
    snprintf(path, sizeof path, "%s/hello.part", folder);
    snprintf(whole_path, sizeof whole_path, "%s/hello", folder);
    write_all(path, text, strlen(text));
    rename(path, whole_path);
}

int main(int count, char **arguments)
{
    if (count != 2) {
        fprintf(stderr, "usage: executor FOLDER\n");
        return 2;
    }
    const char *folder = arguments[1];
    double busy = 0;
    syscall(SYS_close_range, 3U, HIGH - 1U, 0U); /* what it was started with is not a program's */
    page = sysconf(_SC_PAGESIZE);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max < 4096 ? files.rlim_max : 4096;
    setrlimit(RLIMIT_NOFILE, &files);
    make_tables();
    hello(folder);
    for (int number = 0;; number++) {
        char calls[4096], answers[4096], stop[4096];
        unsigned char *bytes;
        size_t length;
        long waited = 0, pause = 2;
        snprintf(calls, sizeof calls, "%s/calls.%d", folder, number);
        snprintf(answers, sizeof answers, "%s/answers.%d", folder, number);
        snprintf(stop, sizeof stop, "%s/stop", folder);
        while (!(bytes = whole(calls, &length))) {
            if (access(stop, F_OK) == 0) {
                char text[64];
                snprintf(text, sizeof text, "%.3f\n", busy);
                snprintf(answers, sizeof answers, "%s/busy", folder);
                write_all(answers, text, strlen(text));
                return 0;
            }
            /* To look costs an emulated processor as much as some steps do. */
            waited += pause;
            if (waited > IDLE_MILLISECONDS)
                return 3; /* whoever asked is gone */
            nanosleep(&(struct timespec){0, pause * 1000000L}, NULL);
            pause = pause < 64 ? pause * 2 : pause;
        }
        struct timespec began, ended;
        clock_gettime(CLOCK_MONOTONIC, &began);
        run_file(bytes, length, answers);
        clock_gettime(CLOCK_MONOTONIC, &ended);
        busy += (double)(ended.tv_sec - began.tv_sec) + (double)(ended.tv_nsec - began.tv_nsec) / 1e9;
        free(bytes);
    }
}
