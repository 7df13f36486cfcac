/* parent.c - see parent.h. */
#include "worker/parent.h"
#include "base/str.h"
#include "worker/worker_os.h"

#include <stdlib.h>
#include <string.h>

static const char token_variable[] = "MYSTI_TOKEN";

/* The first line of stdin. One that does not fit stays incomplete, and nothing is ever allowed. */
static void take_token(parent *p, const char *data, size_t len) {
    for (size_t i = 0; i < len && !p->token_complete; i++) {
        if (data[i] == '\n')
            p->token_complete = p->token_len > 0;
        else if (data[i] != '\r' && p->token_len + 1 < sizeof p->token)
            p->token[p->token_len++] = data[i];
        else if (data[i] != '\r')
            return;
    }
}

static void give_chunk(uv_handle_t *handle, size_t suggested, uv_buf_t *out) {
    (void)suggested;
    parent *p = handle->data;
    *out = uv_buf_init(p->chunk, sizeof p->chunk);
}

static void on_stdin(uv_stream_t *stream, ssize_t n, const uv_buf_t *data) {
    parent *p = stream->data;
    if (n < 0) {
        uv_read_stop(stream);
        p->on_gone(p->ctx);
    } else if (!p->token_complete) {
        take_token(p, data->base, (size_t)n);
    }
}

static void token_from_environment(parent *p) {
    const char *value = getenv(token_variable);
    if (str_empty(value)) return;
    p->token_complete = str_copy(p->token, sizeof p->token, value);
    p->token_len = strlen(p->token);
    worker_os_wipe_env(token_variable);
}

bool parent_tie(parent *p, uv_loop_t *loop, int parent_pid, void (*on_gone)(void *ctx), void *ctx, err *e) {
    memset(p, 0, sizeof *p);
    p->on_gone = on_gone;
    p->ctx = ctx;
    if (!worker_os_tie_to_parent(parent_pid)) return err_set(e, ERR_CONFLICT, "the parent process is gone already");
    token_from_environment(p);
    if (uv_guess_handle(0) != UV_NAMED_PIPE) /* a terminal or a file, which say nothing about a parent */
        return p->token_complete || err_set(e, ERR_INVALID, "no token: neither in %s nor on a pipe", token_variable);
    uv_pipe_init(loop, &p->in, 0);
    p->in.data = p;
    p->watching = true;
    int rc = uv_pipe_open(&p->in, 0);
    if (rc == 0) rc = uv_read_start((uv_stream_t *)&p->in, give_chunk, on_stdin);
    return rc == 0 || err_set(e, ERR_IO, "watch stdin: %s", uv_strerror(rc));
}

bool parent_token_is(const parent *p, const char *given) {
    if (!p->token_complete || !given || strlen(given) != p->token_len) return false;
    unsigned char difference = 0;
    for (size_t i = 0; i < p->token_len; i++) difference |= (unsigned char)(given[i] ^ p->token[i]);
    return difference == 0;
}

void parent_close(parent *p) {
    if (p->watching) uv_close((uv_handle_t *)&p->in, NULL);
    p->watching = false;
}
