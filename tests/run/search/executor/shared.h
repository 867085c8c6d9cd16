/* What the coordinator and the actors of a program have in common.
 *
 * An actor is a thread of execution: the first thread of a process, or another one. The program is a list of commands,
 * each for one actor; whoever has made his command hands over to the actor of the next one, so no two ever run at once.
 * All that is shared lies in one file that each process has mapped; none of them holds a descriptor for it, so that a
 * program's descriptors are its own.
 */
#ifndef SHARED_H
#define SHARED_H

#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ACTORS 16
#define SLOTS 64
#define TABLES 256
#define INODES 1024
#define OUT_ROOM ((size_t)1 << 22)
#define PROGRAM_ROOM ((size_t)1 << 20)
#define ARENA ((uintptr_t)1 << 44) /* where programs map; nothing else is there */
#define NOT_OPEN 99999

enum op {
#define OP(name) OP_##name,
#include "ops.h"
#undef OP
    OPS
};

struct command {
    uint16_t op, actor;
    uint32_t length;
    int64_t a[7];
}; /* length bytes follow, and as many zeros as make it a multiple of eight */

struct table {
    int fd[SLOTS]; /* NOT_OPEN for a slot that is free */
};

struct actor {
    uint32_t turn;
    int pid, tid, is_alive, table;
};

struct shared {
    uint32_t coordinator_turn;
    int ending; /* the actor that said it would end and has not yet, or -1 */
    uint32_t at, length, out_length, tables, inodes;
    struct actor actors[ACTORS];
    struct table table[TABLES];
    uint64_t inode[INODES];
    char program_file[256], shared_file[256];
    char out[OUT_ROOM];
    unsigned char program[PROGRAM_ROOM];
};

extern struct shared *shared;
extern __thread int self; /* the actor that this thread is */

/* coordinator */
void hand_over(void);
void wait_for(uint32_t *turn);
void wake(uint32_t *turn);

/* actors.c */
void act(int actor) __attribute__((noreturn));
void resume(int actor, int is_new) __attribute__((noreturn)); /* in the image that exec brought */
long begin(const struct command *command);
long spawn(int actor);
int copy_of_table(int table);

/* calls.c */
long perform(const struct command *command, const unsigned char *data);

/* look.c */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void look_at_memory(uintptr_t at, size_t length);
long touch(uintptr_t at, size_t length, int byte);
void look_at_descriptor(int number, int hides_count);
void look_at_all(uint64_t hides_count);
unsigned inode_index(uint64_t device, uint64_t inode);
void catch_faults(void);

static inline int *slot(long which)
{
    static __thread int nothing;
    nothing = (int)(which < 0 ? which : NOT_OPEN);
    return which >= 0 && which < SLOTS ? &shared->table[shared->actors[self].table].fd[which] : &nothing;
}

#endif
