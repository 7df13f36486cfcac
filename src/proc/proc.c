/* proc.c - see proc.h. The system's part is in proc_posix.c and proc_win.c.
 *
 * A child that runs can't be let go of: its handle must live until the exit is reported, or a zombie stays behind.
 * So proc_close() of a running child kills it, and the exit callback goes on with closing. */
#include "proc/proc.h"
#include "base/str.h"
#include "proc/proc_os.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_MAX_BYTES = 8192, LAST_LINES = 80, READ_BYTES = 4096, REST_MAX_READS = 256 };

/* One of the child's output pipes. */
typedef struct output {
    proc *p;
    uv_pipe_t pipe;
    bool is_stderr;
    buf line; /* the unfinished one */
    char chunk[READ_BYTES];
} output;

struct proc {
    uv_process_t process;
    uv_pipe_t in;
    output out, err;
    uv_timer_t grace;
    int open_handles; /* freed at 0 */
    void *os_handle;

    void (*on_line)(void *ctx, bool is_stderr, const char *line);
    void (*on_exit)(void *ctx, const proc_exit *how);
    void *ctx;

    char *last[LAST_LINES]; /* a ring of stderr lines, owned */
    unsigned last_count;    /* ever stored */
    int64_t oom_kills;      /* the system's count at the start */
    bool running;
    bool requested; /* we asked it to end */
    bool closed;    /* by the user: no more callbacks */
};

/* ---- lines ------------------------------------------------------------------------------------------------- */

static void remember(proc *p, const char *line) {
    char **slot = &p->last[p->last_count++ % LAST_LINES];
    str_set(slot, line);
}

static void end_line(output *o) {
    proc *p = o->p;
    if (o->line.len && o->line.data[o->line.len - 1] == '\r') o->line.data[--o->line.len] = 0;
    if (o->is_stderr) remember(p, buf_str(&o->line));
    if (p->on_line && !p->closed) p->on_line(p->ctx, o->is_stderr, buf_str(&o->line));
    buf_clear(&o->line);
}

static void take_output(output *o, const char *data, size_t len) {
    for (size_t at = 0; at < len;) {
        const char *newline = memchr(data + at, '\n', len - at);
        size_t part = newline ? (size_t)(newline - data) - at : len - at;
        size_t room = LINE_MAX_BYTES - o->line.len;
        size_t taken = part < room ? part : room;
        buf_append(&o->line, data + at, taken);
        at += taken;
        if (taken < part) { /* too long: its rest comes as a further line */
            end_line(o);
        } else if (newline) {
            at++;
            end_line(o);
        }
    }
}

static void end_output(output *o) {
    if (o->line.len) end_line(o);
}

static void give_chunk(uv_handle_t *handle, size_t suggested, uv_buf_t *out) {
    (void)suggested;
    output *o = handle->data;
    *out = uv_buf_init(o->chunk, sizeof o->chunk);
}

static void on_output(uv_stream_t *stream, ssize_t n, const uv_buf_t *data) {
    output *o = stream->data;
    if (n > 0) {
        take_output(o, data->base, (size_t)n);
    } else if (n < 0) {
        end_output(o);
        uv_read_stop(stream);
    }
}

/* What the child wrote before it ended lies in the pipe already; take it now, so that it comes before on_exit. The
 * number of reads is bounded because a grandchild may still be writing. */
static void drain_output(output *o) {
    if (!uv_is_active((uv_handle_t *)&o->pipe)) return;
    for (int i = 0; i < REST_MAX_READS; i++) {
        size_t n = proc_os_read_rest(&o->pipe, o->chunk, sizeof o->chunk);
        if (n == 0) break;
        take_output(o, o->chunk, n);
    }
    end_output(o);
}

/* ---- closing ----------------------------------------------------------------------------------------------- */

static void free_proc(proc *p) {
    for (size_t i = 0; i < LAST_LINES; i++) free(p->last[i]);
    buf_free(&p->out.line);
    buf_free(&p->err.line);
    proc_os_release(p->os_handle);
    free(p);
}

static void on_handle_closed(uv_handle_t *handle) {
    proc *p = handle->data;
    if (--p->open_handles == 0) free_proc(p);
}

static void close_handle(proc *p, uv_handle_t *handle) {
    handle->data = p;
    if (!uv_is_closing(handle)) uv_close(handle, on_handle_closed);
}

static void close_handles(proc *p) {
    close_handle(p, (uv_handle_t *)&p->process);
    close_handle(p, (uv_handle_t *)&p->in);
    close_handle(p, (uv_handle_t *)&p->out.pipe);
    close_handle(p, (uv_handle_t *)&p->err.pipe);
    close_handle(p, (uv_handle_t *)&p->grace);
}

void proc_close(proc *p) {
    if (!p || p->closed) return;
    p->closed = true;
    if (p->running)
        proc_kill(p);
    else
        close_handles(p);
}

/* ---- the end ----------------------------------------------------------------------------------------------- */

/* What ggml (a device's memory) and C++ (the machine's) say before they abort. */
static bool says_out_of_memory(const proc *p) {
    for (size_t i = 0; i < LAST_LINES && i < p->last_count; i++)
        if (str_icontains(p->last[i], "out of memory") || str_icontains(p->last[i], "bad_alloc")) return true;
    return false;
}

static void on_process_exit(uv_process_t *process, int64_t code, int signal) {
    proc *p = process->data;
    p->running = false;
    uv_timer_stop(&p->grace);
    drain_output(&p->out);
    drain_output(&p->err);
    proc_os_kill_group(process->pid, p->os_handle); /* whatever it left behind */
    if (p->closed) {
        close_handles(p);
        return;
    }
    proc_exit how = {.code = signal ? 0 : code, .signal = signal, .requested = p->requested};
    how.oom = (signal == SIGKILL && !p->requested && proc_os_oom_kills() > p->oom_kills) ||
              (signal == SIGABRT && says_out_of_memory(p));
    p->on_exit(p->ctx, &how);
}

static void on_grace_over(uv_timer_t *timer) {
    proc_kill(timer->data);
}

void proc_terminate(proc *p, int grace_ms) {
    if (!p->running) return;
    p->requested = true;
    if (!proc_os_ask_to_end(&p->process)) close_handle(p, (uv_handle_t *)&p->in);
    uv_timer_start(&p->grace, on_grace_over, grace_ms > 0 ? (uint64_t)grace_ms : 0, 0);
}

void proc_kill(proc *p) {
    if (!p->running) return;
    p->requested = true;
    proc_os_kill_group(p->process.pid, p->os_handle);
}

/* ---- the start --------------------------------------------------------------------------------------------- */

static bool is_overridden(const char *name, const char *const *env) {
    size_t len = strlen(name);
    for (size_t i = 0; env && env[i]; i++)
        if (strncmp(env[i], name, len) == 0 && env[i][len] == '=') return true;
    return false;
}

/* The inherited environment with `env` put over it; free_env() it. */
static char **merge_env(const char *const *env) {
    uv_env_item_t *items = NULL;
    int count = 0;
    size_t added = 0, n = 0;
    while (env && env[added]) added++;
    if (uv_os_environ(&items, &count) != 0) count = 0;
    char **out = mem_alloc((size_t)count + added + 1, sizeof *out);
    for (int i = 0; i < count; i++)
        if (!is_overridden(items[i].name, env)) out[n++] = str_fmt("%s=%s", items[i].name, items[i].value);
    for (size_t i = 0; i < added; i++) out[n++] = str_dup(env[i]);
    if (items) uv_os_free_environ(items, count);
    return out;
}

static void free_env(char **env) {
    for (size_t i = 0; env[i]; i++) free(env[i]);
    free(env);
}

static void init_output(proc *p, output *o, uv_loop_t *loop, bool is_stderr) {
    o->p = p;
    o->is_stderr = is_stderr;
    buf_init(&o->line, LINE_MAX_BYTES + 1);
    uv_pipe_init(loop, &o->pipe, 0);
    o->pipe.data = o;
}

static proc *new_proc(uv_loop_t *loop, const proc_options *o) {
    proc *p = mem_alloc(1, sizeof *p);
    p->on_line = o->on_line;
    p->on_exit = o->on_exit;
    p->ctx = o->ctx;
    p->process.data = p;
    uv_pipe_init(loop, &p->in, 0);
    init_output(p, &p->out, loop, false);
    init_output(p, &p->err, loop, true);
    uv_timer_init(loop, &p->grace);
    p->grace.data = p;
    p->open_handles = 5;
    return p;
}

static int spawn(proc *p, uv_loop_t *loop, const proc_options *o) {
    char **env = merge_env(o->env);
    uv_stdio_container_t stdio[3] = {
        {.flags = UV_CREATE_PIPE | UV_READABLE_PIPE, .data.stream = (uv_stream_t *)&p->in},
        {.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *)&p->out.pipe},
        {.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *)&p->err.pipe}};
    uv_process_options_t options = {.exit_cb = on_process_exit,
                                    .file = o->argv[0],
                                    .args = (char **)(uintptr_t)o->argv, /* libuv only reads it */
                                    .env = env,
                                    .flags = proc_os_spawn_flags(),
                                    .stdio_count = 3,
                                    .stdio = stdio};
    int rc = uv_spawn(loop, &p->process, &options);
    free_env(env);
    return rc;
}

proc *proc_spawn(uv_loop_t *loop, const proc_options *o, err *e) {
    proc *p = new_proc(loop, o);
    p->oom_kills = proc_os_oom_kills();
    int rc = spawn(p, loop, o);
    if (rc != 0) {
        err_set(e, rc == UV_ENOENT ? ERR_NOT_FOUND : ERR_IO, "start '%.150s': %s", o->argv[0], uv_strerror(rc));
        p->closed = true;
        close_handles(p);
        return NULL;
    }
    p->running = true;
    p->os_handle = proc_os_adopt(p->process.pid, o->nice);
    uv_read_start((uv_stream_t *)&p->out.pipe, give_chunk, on_output);
    uv_read_start((uv_stream_t *)&p->err.pipe, give_chunk, on_output);
    return p;
}

/* ---- telling about it -------------------------------------------------------------------------------------- */

int proc_pid(const proc *p) {
    return p->process.pid;
}

bool proc_running(const proc *p) {
    return p->running;
}

void proc_last_lines(const proc *p, buf *out) {
    unsigned first = p->last_count > LAST_LINES ? p->last_count - LAST_LINES : 0;
    for (unsigned i = first; i < p->last_count; i++) buf_printf(out, "%s\n", p->last[i % LAST_LINES]);
}

const char *proc_describe_exit(const proc_exit *how, char *out, size_t cap) {
    if (how->signal) {
        const char *name = proc_os_signal_name(how->signal);
        snprintf(out, cap, "killed by signal %d%s%s%s%s", how->signal, name ? " (" : "", name ? name : "",
                 name ? ")" : "", how->oom ? ", probably because the memory ran out" : "");
    } else if (how->code < 0 || how->code > 0xFFFF) { /* Windows: an NTSTATUS, 0xC0000005 for an access violation */
        snprintf(out, cap, "exit code 0x%08lX", (unsigned long)(how->code & 0xFFFFFFFF));
    } else {
        snprintf(out, cap, "exit code %lld", (long long)how->code);
    }
    return out;
}
