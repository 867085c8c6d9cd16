/* Processes and threads: how they come to be, take their turns, and end. */
#include "shared.h"
#include <fcntl.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

int copy_of_table(int table)
{
    if (shared->tables >= TABLES) {
        say("no room for a table");
        abort();
    }
    shared->table[shared->tables] = shared->table[table];
    return (int)shared->tables++;
}

static void introduce(int actor, int table)
{
    shared->actors[actor].table = table;
    shared->actors[actor].pid = getpid();
    __atomic_store_n(&shared->actors[actor].tid, (int)syscall(SYS_gettid), __ATOMIC_SEQ_CST);
}

static void *begin_thread(void *number)
{
    int actor = (int)(intptr_t)number;
    introduce(actor, shared->actors[actor].table);
    act(actor);
}

static long start_thread(int actor)
{
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 1 << 18);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    shared->actors[actor].table = shared->actors[self].table;
    shared->actors[actor].tid = 0;
    int failed = pthread_create(&thread, &attributes, begin_thread, (void *)(intptr_t)actor);
    if (failed)
        return -failed;
    while (!__atomic_load_n(&shared->actors[actor].tid, __ATOMIC_SEQ_CST))
        sched_yield();
    return 0;
}

/* a: the new actor, the flags of clone; a thread where those have CLONE_THREAD. */
long begin(const struct command *command)
{
    int actor = (int)command->a[0];
    unsigned long flags = (unsigned long)command->a[1];
    if (actor < 0 || actor >= ACTORS || shared->actors[actor].is_alive)
        return -EINVAL;
    memset(&shared->actors[actor], 0, sizeof(shared->actors[actor]));
    if (flags & CLONE_THREAD) {
        long failed = start_thread(actor);
        shared->actors[actor].is_alive = !failed;
        return failed;
    }
    int table = shared->actors[self].table;
    table = flags & CLONE_FILES ? table : copy_of_table(table);
    long child = flags ? syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0) : fork();
    if (child < 0)
        return -errno;
    if (!child) {
        self = actor;
        introduce(actor, table);
        act(actor);
    }
    while (!__atomic_load_n(&shared->actors[actor].tid, __ATOMIC_SEQ_CST))
        sched_yield();
    shared->actors[actor].is_alive = 1;
    return 0;
}

static void become_new_image(void)
{
    char number[16];
    snprintf(number, sizeof(number), "%d", self);
    char *arguments[] = {shared->program_file, "resume", number, shared->shared_file, NULL}, *environment[] = {NULL};
    execve(shared->program_file, arguments, environment);
    say("exec %d", -errno);
}

/* A new process that is another image at once, as posix_spawn() makes it: until then it has the memory of this one. */
long spawn(int actor)
{
    if (actor < 0 || actor >= ACTORS || shared->actors[actor].is_alive)
        return -EINVAL;
    char number[16];
    snprintf(number, sizeof(number), "%d", actor);
    char *arguments[] = {shared->program_file, "spawned", number, shared->shared_file, NULL}, *environment[] = {NULL};
    memset(&shared->actors[actor], 0, sizeof(shared->actors[actor]));
    shared->actors[actor].table = copy_of_table(shared->actors[self].table);
    pid_t child = vfork();
    if (child < 0)
        return -errno;
    if (!child) {
        execve(shared->program_file, arguments, environment);
        _exit(127);
    }
    while (!__atomic_load_n(&shared->actors[actor].tid, __ATOMIC_SEQ_CST))
        sched_yield();
    shared->actors[actor].is_alive = 1;
    return 0;
}

void resume(int actor, int is_new)
{
    self = actor;
    int pid = getpid();
    for (int i = 0; i < ACTORS; i++)
        if (i != actor && shared->actors[i].pid == pid)
            shared->actors[i].is_alive = 0;
    int table = shared->actors[actor].table;
    shared->actors[actor].table = is_new ? table : copy_of_table(table);
    char text[SLOTS * 8] = "";
    for (int i = 0; i < SLOTS; i++) {
        int flags = fcntl(*slot(i), F_GETFD);
        if (flags < 0)
            *slot(i) = NOT_OPEN;
        else
            snprintf(text + strlen(text), sizeof(text) - strlen(text), " %d:%d", i, flags);
    }
    introduce(actor, shared->actors[actor].table);
    if (!is_new) {
        say("exec%s", text);
        hand_over();
    }
    act(actor);
}

void act(int actor)
{
    self = actor;
    for (;;) {
        wait_for(&shared->actors[self].turn);
        for (;;) {
            const struct command *command = (const void *)(shared->program + shared->at);
            if (shared->at >= shared->length || command->actor != self || command->op == OP_kill)
                break;
            shared->at += (uint32_t)sizeof(*command) + ((command->length + 7) & ~7U);
            if (command->op == OP_exit) {
                say("exits");
                shared->ending = self;
                int is_thread = shared->actors[self].pid != shared->actors[self].tid;
                hand_over();
                syscall(is_thread ? SYS_exit : SYS_exit_group, 0);
            }
            if (command->op == OP_exec)
                become_new_image();
            else
                perform(command, (const unsigned char *)(command + 1));
        }
        hand_over();
    }
}
