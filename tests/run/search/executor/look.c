/* What can be seen: of descriptors, of memory. Numbers that two kernels may choose differently are not told. */
#include "shared.h"
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/syscall.h>

static sigjmp_buf touched;
static volatile sig_atomic_t is_touching;

void say(const char *format, ...)
{
    va_list arguments;
    char line[1 << 13];
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof(line) - 1, format, arguments);
    va_end(arguments);
    if (length < 0 || (size_t)length >= sizeof(line) - 1 || shared->out_length + (size_t)length + 1 > OUT_ROOM)
        abort();
    line[length++] = '\n';
    memcpy(shared->out + shared->out_length, line, (size_t)length);
    shared->out_length += (uint32_t)length;
}

static void fault(int which)
{
    if (is_touching)
        siglongjmp(touched, which);
    signal(which, SIG_DFL);
    raise(which);
}

void catch_faults(void)
{
    struct sigaction action = {.sa_handler = fault, .sa_flags = SA_NODEFER};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

long touch(uintptr_t at, size_t length, int byte)
{
    volatile unsigned char *bytes = (void *)at;
    static volatile size_t done;
    int which = sigsetjmp(touched, 0);
    if (which) {
        is_touching = 0;
        say("%s after %zu", which == SIGBUS ? "SIGBUS" : "SIGSEGV", (size_t)done);
        return -1;
    }
    is_touching = 1;
    for (done = 0; done < length; done++)
        bytes[done] = (unsigned char)byte;
    is_touching = 0;
    return 0;
}

/* A page as a word: one byte that fills it, a checksum, or the signal that reading it raises. */
static void page_as_word(uintptr_t at, size_t length, char *word)
{
    int which = sigsetjmp(touched, 0);
    if (which) {
        is_touching = 0;
        strcpy(word, which == SIGBUS ? "SIGBUS" : "SIGSEGV");
        return;
    }
    is_touching = 1;
    const volatile uint64_t *words = (const void *)at;
    uint64_t first = words[0], sum = 0xcbf29ce484222325u, differ = 0;
    for (size_t i = 0; i < length / 8; i++) {
        uint64_t value = words[i];
        differ |= value ^ first;
        sum = (sum ^ value) * 0x100000001b3u;
    }
    is_touching = 0;
    if (!differ && first == (first & 0xff) * 0x0101010101010101u)
        snprintf(word, 32, "%02x", (unsigned)(first & 0xff));
    else
        snprintf(word, 32, "#%016llx", (unsigned long long)sum);
}

void look_at_memory(uintptr_t at, size_t length)
{
    char text[4096] = "", last[32] = "", word[32] = "";
    size_t page = (size_t)sysconf(_SC_PAGESIZE), times = 0, used = 0;
    for (size_t done = 0; done <= length && used < sizeof(text) - 64; done += page) {
        if (done < length)
            page_as_word(at + done, page, word);
        if (times && (done >= length || strcmp(word, last))) {
            used += (size_t)snprintf(text + used, sizeof(text) - used, " %s*%zu", last, times);
            times = 0;
        }
        strcpy(last, word);
        times++;
    }
    say("memory%s", text);
}

unsigned inode_index(uint64_t device, uint64_t inode)
{
    uint64_t key = device << 44 ^ inode;
    for (unsigned i = 0; i < shared->inodes; i++)
        if (shared->inode[i] == key)
            return i;
    if (shared->inodes >= INODES)
        abort();
    shared->inode[shared->inodes] = key;
    return shared->inodes++;
}

void look_at_descriptor(int number, int hides_count)
{
    static char text[4096];
    char path[64], shown[2048] = "";
    struct stat state;
    if (fstat(number, &state) < 0) {
        say("look %d", -errno);
        return;
    }
    snprintf(path, sizeof(path), "/proc/thread-self/fdinfo/%d", number);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -errno : read(fd, text, sizeof(text) - 1);
    if (fd >= 0)
        close(fd);
    if (length < 0) {
        say("fdinfo %zd", length);
        return;
    }
    text[length] = 0;
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n")) && *line;) {
        if (!strncmp(line, "mnt_id:", 7) || (hides_count && !strncmp(line, "count:", 6)))
            continue;
        if (!strncmp(line, "ino:", 4)) {
            strcat(shown, strtoull(line + 4, NULL, 10) == state.st_ino ? " ino" : " other-ino");
            continue;
        }
        char *value = strchr(line, ':');
        if (value) {
            *value++ = 0;
            value += strspn(value, " \t");
        }
        size_t used = strlen(shown);
        snprintf(shown + used, sizeof(shown) - used, " %s=%s", line, value ? value : "");
    }
    int seals = fcntl(number, F_GET_SEALS);
    if (S_ISCHR(state.st_mode))
        state.st_mode &= S_IFMT; /* who may open a node is the machine's affair */
    say("mode=%o size=%lld inode=%u seals=%d%s", state.st_mode, (long long)state.st_size,
        inode_index(state.st_dev, state.st_ino), seals < 0 ? -errno : seals, shown);
}

/* How many descriptors are open that no slot is of, beside the first three. */
static int count_strays(void)
{
    DIR *folder = opendir("/proc/thread-self/fd");
    if (!folder)
        return -errno;
    int strays = 0;
    for (struct dirent *entry; (entry = readdir(folder));) {
        int number = atoi(entry->d_name), known = entry->d_name[0] == '.' || number < 3 || number == dirfd(folder);
        for (int i = 0; i < SLOTS && !known; i++)
            known = *slot(i) == number;
        strays += !known;
    }
    closedir(folder);
    return strays;
}

void look_at_all(uint64_t hides_count)
{
    for (int i = 0; i < SLOTS; i++) {
        if (*slot(i) == NOT_OPEN)
            continue;
        say("slot %d %d", i, fcntl(*slot(i), F_GETFD));
        look_at_descriptor(*slot(i), hides_count >> i & 1);
    }
    say("strays %d", count_strays());
}
