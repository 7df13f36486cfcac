/* proc_posix.c - children on Linux and macOS. */
#include "proc/proc_os.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/str.h"
#include "proc/proc.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

unsigned proc_os_spawn_flags(void) {
    return UV_PROCESS_DETACHED; /* setsid(): a group of its own, and no Ctrl-C from the terminal */
}

void *proc_os_adopt(int pid, int nice) {
    /* By group, which on Linux reaches threads that the child may have started already. */
    if (nice > 0) setpriority(PRIO_PGRP, (id_t)pid, nice);
    return NULL;
}

void proc_os_release(void *handle) {
    (void)handle;
}

bool proc_os_ask_to_end(uv_process_t *process) {
    uv_process_kill(process, SIGTERM);
    return true;
}

void proc_os_kill_group(int pid, void *handle) {
    (void)handle;
    if (pid > 1) kill(-pid, SIGKILL);
}

size_t proc_os_read_rest(uv_pipe_t *pipe, char *out, size_t cap) {
    uv_os_fd_t fd;
    if (uv_fileno((uv_handle_t *)pipe, &fd) != 0) return 0;
    ssize_t n = read(fd, out, cap); /* libuv made it non-blocking */
    return n > 0 ? (size_t)n : 0;
}

const char *proc_os_signal_name(int signal) {
    static const struct {
        int number;
        const char *name;
    } names[] = {{SIGHUP, "SIGHUP"},   {SIGINT, "SIGINT"},   {SIGQUIT, "SIGQUIT"}, {SIGILL, "SIGILL"},
                 {SIGTRAP, "SIGTRAP"}, {SIGABRT, "SIGABRT"}, {SIGBUS, "SIGBUS"},   {SIGFPE, "SIGFPE"},
                 {SIGKILL, "SIGKILL"}, {SIGUSR1, "SIGUSR1"}, {SIGSEGV, "SIGSEGV"}, {SIGUSR2, "SIGUSR2"},
                 {SIGPIPE, "SIGPIPE"}, {SIGALRM, "SIGALRM"}, {SIGTERM, "SIGTERM"}, {SIGSYS, "SIGSYS"},
                 {SIGXCPU, "SIGXCPU"}, {SIGXFSZ, "SIGXFSZ"}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (names[i].number == signal) return names[i].name;
    return NULL;
}

/* ---- /proc ------------------------------------------------------------------------------------------------- */

/* Linux counts every kill here, by the whole machine's limit and by a control group's. */
int64_t proc_os_oom_kills(void) {
    buf text;
    buf_init(&text, 256 * 1024);
    long long count = 0;
    if (file_read("/proc/vmstat", &text, NULL)) {
        const char *at = strstr(buf_str(&text), "\noom_kill ");
        if (at) count = strtoll(at + strlen("\noom_kill "), NULL, 10);
    }
    buf_free(&text);
    return count;
}

/* The inode of the socket that listens on `port` according to a /proc/net/tcp table, or 0. Read line by line: a busy
 * machine has tens of thousands of them. */
static unsigned long listening_inode(const char *table, int port) {
    FILE *f = fopen(table, "r");
    if (!f) return 0;
    char line[512];
    unsigned long inode = 0;
    while (!inode && fgets(line, sizeof line, f)) {
        unsigned local, state;
        unsigned long node;
        if (sscanf(line, "%*u: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x %*s %*s %*s %*u %*u %lu", &local, &state, &node) !=
            3)
            continue; /* the heading */
        if (state == 0x0A && local == (unsigned)port) inode = node;
    }
    fclose(f);
    return inode;
}

typedef struct owner_search {
    char wanted[40]; /* "socket:[123]" */
    const char *pid; /* the process being looked at */
    bool found;
    char *out;
    size_t cap;
} owner_search;

static void describe_owner(owner_search *s) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%.20s/comm", s->pid);
    buf name;
    buf_init(&name, 256);
    file_read(path, &name, NULL);
    char *text = buf_take(&name, NULL);
    if (text) text[strcspn(text, "\n")] = 0;
    snprintf(s->out, s->cap, "%.64s (pid %s)", str_empty(text) ? "a process" : text, s->pid);
    free(text);
}

static bool visit_fd(void *ctx, const char *name) {
    owner_search *s = ctx;
    char path[80], target[64];
    snprintf(path, sizeof path, "/proc/%.20s/fd/%.20s", s->pid, name);
    ssize_t n = readlink(path, target, sizeof target - 1);
    if (n <= 0) return true;
    target[n] = 0;
    s->found = str_eq(target, s->wanted);
    return !s->found;
}

static bool visit_process(void *ctx, const char *name) {
    owner_search *s = ctx;
    if (strspn(name, "0123456789") != strlen(name)) return true;
    char path[64];
    snprintf(path, sizeof path, "/proc/%.20s/fd", name);
    s->pid = name;
    file_list_dir(path, visit_fd, s, NULL);
    if (s->found) describe_owner(s);
    return !s->found;
}

static bool find_owner(int port, char *out, size_t cap) {
    unsigned long inode = listening_inode("/proc/net/tcp", port);
    if (!inode) inode = listening_inode("/proc/net/tcp6", port);
    if (!inode) return false;
    owner_search s = {.out = out, .cap = cap};
    snprintf(s.wanted, sizeof s.wanted, "socket:[%lu]", inode);
    file_list_dir("/proc", visit_process, &s, NULL);
    return s.found;
}

/* The kernel hands these tables out page by page, and an entry may be passed over while others come and go. */
bool proc_port_owner(int port, char *out, size_t cap) {
    for (int attempt = 0; attempt < 3; attempt++)
        if (find_owner(port, out, cap)) return true;
    return false;
}
