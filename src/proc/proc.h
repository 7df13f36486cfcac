/* proc.h - a child process on a libuv loop: start it, hear its lines, know when and why it ended, end it.
 *
 * A child gets
 *  - stdin: a pipe that stays open as long as the parent lives, so that EOF there means that the parent is gone;
 *  - stdout and stderr: pipes, delivered line by line;
 *  - a process group of its own (POSIX) or a kill-on-close job object (Windows), so that ending it ends its children.
 *
 * Everything here belongs to the loop thread. A proc owns its handles and is freed by itself once the last of them is
 * closed: after proc_close() no callback comes and the pointer is dead. */
#ifndef MYSTI_PROC_PROC_H
#define MYSTI_PROC_PROC_H

#include "base/buf.h"
#include "base/err.h"

#include <stdint.h>
#include <uv.h>

typedef struct proc proc;

/* How a child ended. */
typedef struct proc_exit {
    int64_t code;   /* exit code; 0 when a signal ended it */
    int signal;     /* the signal that ended it, or 0 */
    bool requested; /* proc_terminate() or proc_kill() was called before */
    bool oom;       /* SIGKILL that is not ours, and the kernel's out-of-memory killer has struck since the start; or
                     * abort(), and "out of memory" (of a device, perhaps) among the last words */
} proc_exit;

typedef struct proc_options {
    const char *const *argv; /* argv[0] is the program file; ends with NULL; copied */
    const char *const *env;  /* "NAME=value" put over the inherited environment; ends with NULL; may be NULL; copied */
    int nice;                /* 0 normal .. 19 lowest; a priority class on Windows */

    /* A line of output without its end; text past 8 KiB comes as a further line. May be NULL. */
    void (*on_line)(void *ctx, bool is_stderr, const char *line);
    /* Once, as soon as the system reports the end; all lines written before it have been delivered. */
    void (*on_exit)(void *ctx, const proc_exit *how);
    void *ctx;
} proc_options;

/* NULL on failure (program missing, no processes left), and then on_exit is not called. */
proc *proc_spawn(uv_loop_t *loop, const proc_options *o, err *e);

int proc_pid(const proc *p);
bool proc_running(const proc *p); /* on_exit is still to come */

/* Asks the child to end: SIGTERM, and when it still runs after `grace_ms`, SIGKILL to its group. On Windows its stdin
 * is closed, which workers take the same way, before the job object is ended. Does nothing for a child that ended. */
void proc_terminate(proc *p, int grace_ms);

/* Ends the child and its group at once. */
void proc_kill(proc *p);

/* Lets go of the child; one that still runs is killed. No callback comes afterwards. NULL is fine. */
void proc_close(proc *p);

/* Appends the last lines (at most 80, each of at most 8 KiB) that the child wrote to stderr, each with '\n': a crash
 * report has up to 65. */
void proc_last_lines(const proc *p, buf *out);

/* "killed by signal 9 (SIGKILL)", "exit code 1"; with the likely cause where one is known. Returns `out`. */
const char *proc_describe_exit(const proc_exit *how, char *out, size_t cap);

/* Who listens on this TCP port: "nginx (pid 812)". False when nobody does, or it cannot be known (other users' sockets
 * usually can't). */
bool proc_port_owner(int port, char *out, size_t cap);

#endif
