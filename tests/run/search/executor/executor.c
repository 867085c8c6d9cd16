/* Makes the system calls of programs that have several processes and threads, and writes down what each answered.
 *
 *     executor FOLDER
 *
 * Waits for FOLDER/calls.0, calls.1, … and writes FOLDER/answers.0, answers.1, … until there is FOLDER/stop. ops.py
 * describes the commands; an answer is a line of text. This file is the coordinator: it starts the first process of each
 * program, sees to it that whoever ends has ended before the next command, and kills what is left.
 */
#include "shared.h"
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>

#define IDLE_MILLISECONDS (15 * 60 * 1000)
#define PATIENCE_TICKS 300
#define TICK_NANOSECONDS 100000000L

struct shared *shared;
__thread int self = -1;

static void fail(const char *what)
{
    fprintf(stderr, "executor: %s: %s\n", what, strerror(errno));
    exit(2);
}

static long futex(uint32_t *word, int what, uint32_t value, const struct timespec *limit)
{
    return syscall(SYS_futex, word, what, value, limit, NULL, 0);
}

void wait_for(uint32_t *turn)
{
    while (!__atomic_exchange_n(turn, 0, __ATOMIC_SEQ_CST))
        futex(turn, FUTEX_WAIT, 0, NULL);
}

void wake(uint32_t *turn)
{
    __atomic_store_n(turn, 1, __ATOMIC_SEQ_CST);
    futex(turn, FUTEX_WAKE, 1, NULL);
}

void hand_over(void)
{
    const struct command *next = (const void *)(shared->program + shared->at);
    if (shared->at >= shared->length || shared->ending >= 0 || next->op == OP_kill || next->actor >= ACTORS
        || !shared->actors[next->actor].is_alive)
        wake(&shared->coordinator_turn);
    else
        wake(&shared->actors[next->actor].turn);
}

static int has_ended(const struct actor *actor)
{
    return syscall(SYS_tgkill, actor->pid, actor->tid, 0) && errno == ESRCH;
}

/* Wait until the process, with all its threads and descriptors, is gone; a zombie has none any more. */
static void wait_for_end(int pid)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0)
        return;
    struct pollfd asked = {fd, POLLIN, 0};
    while (poll(&asked, 1, 10000) < 0 && errno == EINTR)
        ;
    close(fd);
}

static void bury(int pid)
{
    for (int i = 0; i < ACTORS; i++)
        if (shared->actors[i].pid == pid)
            shared->actors[i].is_alive = 0;
}

static void kill_all(void)
{
    for (int i = 0; i < ACTORS; i++)
        if (shared->actors[i].is_alive)
            kill(shared->actors[i].pid, SIGKILL);
    while (waitpid(-1, NULL, __WALL) > 0 || errno == EINTR)
        ;
}

static void end_of(int which)
{
    struct actor *actor = &shared->actors[which];
    if (actor->tid == actor->pid) {
        wait_for_end(actor->pid);
        bury(actor->pid);
        return;
    }
    while (!has_ended(actor))
        sched_yield();
    actor->is_alive = 0;
}

/* Whether an actor died that had not said so: 1, with a line. */
static int somebody_died(void)
{
    for (int i = 0; i < ACTORS; i++) {
        struct actor *actor = &shared->actors[i];
        siginfo_t how = {0};
        if (!actor->is_alive || actor->pid != actor->tid || !actor->pid)
            continue;
        char path[64], state[256] = "";
        snprintf(path, sizeof(path), "/proc/%d/stat", actor->pid);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t got = fd < 0 ? -1 : read(fd, state, sizeof(state) - 1);
        if (fd >= 0)
            close(fd);
        const char *letter = got > 0 ? strrchr(state, ')') : NULL;
        if (letter && letter[2] != 'Z' && letter[2] != 'X')
            continue;
        if (__atomic_load_n(&shared->ending, __ATOMIC_SEQ_CST) == i)
            return 0; /* it said so before */
        waitid(P_PID, actor->pid, &how, WEXITED | WNOWAIT | WNOHANG);
        say("actor %d died: %d %d", i, how.si_code, how.si_status);
        bury(actor->pid);
        return 1;
    }
    return 0;
}

static void run(void)
{
    static const struct timespec tick = {0, TICK_NANOSECONDS};
    shared->at = shared->out_length = shared->inodes = 0;
    shared->tables = 1;
    shared->ending = -1;
    memset(shared->actors, 0, sizeof(shared->actors));
    for (int i = 0; i < SLOTS; i++)
        shared->table[0].fd[i] = NOT_OPEN;
    shared->actors[0].is_alive = 1;
    pid_t first = fork();
    if (first < 0)
        fail("fork");
    if (!first) {
        close_range(3, ~0U, 0);
        shared->actors[0].pid = shared->actors[0].tid = getpid();
        act(0);
    }
    shared->actors[0].pid = shared->actors[0].tid = first;
    shared->coordinator_turn = 1;
    for (int idle = 0;;) {
        if (!__atomic_exchange_n(&shared->coordinator_turn, 0, __ATOMIC_SEQ_CST)) {
            futex(&shared->coordinator_turn, FUTEX_WAIT, 0, &tick);
            if (__atomic_load_n(&shared->coordinator_turn, __ATOMIC_SEQ_CST))
                continue;
            if (somebody_died()) {
                shared->coordinator_turn = 1;
            } else if (++idle > PATIENCE_TICKS) {
                say("hung");
                break;
            }
            continue;
        }
        idle = 0;
        if (shared->ending >= 0)
            end_of(shared->ending);
        shared->ending = -1;
        if (shared->at >= shared->length)
            break;
        const struct command *next = (const void *)(shared->program + shared->at);
        struct actor *actor = next->actor < ACTORS ? &shared->actors[next->actor] : NULL;
        if (actor && actor->is_alive && next->op != OP_kill) {
            wake(&actor->turn);
            continue;
        }
        shared->at += (uint32_t)sizeof(*next) + ((next->length + 7) & ~7U);
        if (actor && actor->is_alive) {
            kill(actor->pid, SIGKILL);
            wait_for_end(actor->pid);
            bury(actor->pid);
            say("killed");
        } else {
            say("gone");
        }
        shared->coordinator_turn = 1;
    }
    kill_all();
}

static int has(const char *path)
{
    return access(path, F_OK) == 0;
}

static void copy_file(const char *from, const char *to)
{
    static char buffer[1 << 16];
    int in = open(from, O_RDONLY | O_CLOEXEC), out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
    if (in < 0 || out < 0)
        fail(to);
    for (ssize_t got; (got = read(in, buffer, sizeof(buffer))) > 0;)
        if (write(out, buffer, (size_t)got) != got)
            fail(to);
    close(in);
    close(out);
}

static void map_shared(const char *path, int flags)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | flags, 0600);
    if (fd < 0 || (flags && ftruncate(fd, sizeof(*shared))))
        fail(path);
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (shared == MAP_FAILED)
        fail(path);
    close(fd);
}

/* One file of programs: {length, bytes} each; its answers {length, text} each. */
static void serve(const char *folder, unsigned number)
{
    char from[512], part[512], to[512];
    snprintf(from, sizeof(from), "%s/calls.%u", folder, number);
    snprintf(part, sizeof(part), "%s/part.%u", folder, number);
    snprintf(to, sizeof(to), "%s/answers.%u", folder, number);
    FILE *in = fopen(from, "re"), *out = fopen(part, "we");
    if (!in || !out)
        fail(from);
    for (uint32_t length; fread(&length, sizeof(length), 1, in) == 1;) {
        if (length > PROGRAM_ROOM || fread(shared->program, 1, length, in) != length)
            fail(from);
        shared->length = length;
        fflush(out);
        run();
        length = shared->out_length;
        fwrite(&length, sizeof(length), 1, out);
        fwrite(shared->out, 1, length, out);
    }
    fclose(in);
    if (fclose(out) || rename(part, to))
        fail(to);
}

int main(int argc, char **argv)
{
    catch_faults();
    if (argc == 4 && (!strcmp(argv[1], "resume") || !strcmp(argv[1], "spawned"))) {
        map_shared(argv[3], 0);
        resume(atoi(argv[2]), argv[1][0] == 's');
    }
    if (argc != 2)
        return 2;
    char path[512], shared_file[128], program_file[128];
    const char *folder = argv[1], *place = has("/dev/shm") ? "/dev/shm" : "/tmp";
    snprintf(shared_file, sizeof(shared_file), "%s/dmasync-search-%d", place, getpid());
    snprintf(program_file, sizeof(program_file), "%s/dmasync-search-program-%d", "/tmp", getpid());
    map_shared(shared_file, O_CREAT | O_TRUNC);
    copy_file("/proc/self/exe", program_file);
    strcpy(shared->shared_file, shared_file);
    strcpy(shared->program_file, program_file);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    struct utsname name;
    uname(&name);
    snprintf(path, sizeof(path), "%s/hello.part", folder);
    FILE *hello = fopen(path, "we");
    if (!hello)
        fail(path);
    fprintf(hello, "%s %s %ld %d\n", name.release, name.machine, sysconf(_SC_PAGESIZE), has("/dev/dma_heap/system"));
    fclose(hello);
    char final[512];
    snprintf(final, sizeof(final), "%s/hello", folder);
    rename(path, final);
    char stop[512];
    snprintf(stop, sizeof(stop), "%s/stop", folder);
    unsigned number = 0;
    for (int idle = 0; idle < IDLE_MILLISECONDS && !has(stop); idle += 5) {
        snprintf(path, sizeof(path), "%s/calls.%u", folder, number);
        if (has(path)) {
            serve(folder, number++);
            idle = 0;
            continue;
        }
        nanosleep(&(struct timespec){0, 5000000}, NULL);
    }
    unlink(shared_file);
    unlink(program_file);
    return 0;
}
