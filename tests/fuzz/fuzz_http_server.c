/* The whole server over loopback sockets: the input is a list of steps (send bytes, let the loop run, half-close,
 * leave, answer a waiting request in one of many ways). Looks for crashes, leaks and requests that are forgotten. */
#include "net/http_server.h"
#include "net/http_sse.h"
#include "net/net.h"
#include "base/str.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CLIENTS = 3, HELD_MAX = 16 };

typedef struct client {
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_shutdown_t shutdown;
    bool open, reading;
} client;

static uv_loop_t loop;
static client clients[CLIENTS];
static http_req *held[HELD_MAX];
static http_sse *stream;
static int held_count;
static bool done;
static char scratch[65536];
static char block[100000];

static void drop_held(http_req *req) {
    for (int i = 0; i < held_count; i++)
        if (held[i] == req) held[i--] = held[--held_count];
}

static void on_close(void *ctx, http_req *req) {
    (void)ctx;
    drop_held(req);
    http_reply(req, 200, NULL, "ignored", 7); /* allowed here, and nothing */
}

static void on_drain(void *ctx, http_req *req) {
    (void)ctx;
    drop_held(req);
    http_reply_end(req);
}

static void on_stream_closed(void *ctx, http_sse *s) {
    (void)ctx;
    if (stream == s) stream = NULL;
}

static void hold(http_req *req) {
    if (held_count < HELD_MAX)
        held[held_count++] = req;
    else
        http_reply_abort(req);
}

static void on_headers(void *ctx, http_req *req) {
    (void)ctx;
    char c = http_req_path(req)[1];
    if (c == 'f') http_reply_error(req, 403, NULL, NULL, "no");
    if (c == 'l') http_req_limit_body(req, 10);
    if (c == 'w') http_req_on_close(req, on_close, NULL);
}

static void handler(void *ctx, http_req *req) {
    (void)ctx;
    size_t len;
    const char *body = http_req_body(req, &len);
    switch (http_req_path(req)[1]) {
    case 'h':
    case 'w':
        hold(req);
        break;
    case 's':
        if (stream) http_sse_end(stream);
        stream = http_sse_begin(req, &(http_sse_opts){.max_queue = 300000}, on_stream_closed, NULL);
        break;
    case 'b':
        http_reply_begin(req, 200, NULL);
        http_reply_write(req, block, sizeof block);
        http_reply_end(req);
        break;
    case 'a':
        http_reply_abort(req);
        break;
    default:
        http_reply(req, 200, http_req_query(req, "q"), body, len);
    }
}

/* Ways to go on with a request that waits. */
static void answer(http_req *req, uint8_t how) {
    if (how % 8 == 0) {
        http_reply_begin(req, 200, "text/plain");
        return;
    }
    if (how % 8 == 1) {
        http_reply_write(req, block, sizeof block);
        return;
    }
    if (how % 8 == 2) {
        http_req_on_close(req, on_close, NULL);
        return;
    }
    if (how % 8 == 3 && http_reply_queued(req)) {
        http_req_on_drain(req, on_drain, NULL);
        return;
    }
    drop_held(req);
    if (how % 8 == 4)
        http_reply_abort(req);
    else if (how % 8 == 5)
        http_reply_end(req);
    else
        http_reply(req, how % 8 == 6 ? 204 : 200, "text/plain", block, how);
}

static void on_alloc(uv_handle_t *h, size_t want, uv_buf_t *b) {
    (void)h;
    (void)want;
    *b = uv_buf_init(scratch, sizeof scratch);
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b) {
    (void)s;
    (void)n;
    (void)b;
}

static void run(int turns) {
    for (int i = 0; i < turns; i++) uv_run(&loop, UV_RUN_NOWAIT);
}

static void on_connect(uv_connect_t *connect, int status) {
    (void)connect;
    (void)status;
}

static void client_leave(client *c) {
    if (!c->open) return;
    c->open = false;
    if (uv_tcp_close_reset(&c->tcp, NULL) != 0) uv_close((uv_handle_t *)&c->tcp, NULL);
    run(2);
}

static void client_open(client *c, int port) {
    if (c->open) return;
    memset(c, 0, sizeof *c);
    struct sockaddr_in addr;
    uv_ip4_addr("127.0.0.1", port, &addr);
    uv_tcp_init(&loop, &c->tcp);
    uv_tcp_connect(&c->connect, &c->tcp, (struct sockaddr *)&addr, on_connect);
    c->open = true;
    run(2);
}

static void client_step(client *c, uint8_t op, const uint8_t *data, size_t len) {
    if (op == 0) {
        client_leave(c);
    } else if (op == 1 && c->open) {
        if (uv_is_writable((uv_stream_t *)&c->tcp)) uv_shutdown(&c->shutdown, (uv_stream_t *)&c->tcp, NULL);
    } else if (op == 2 && c->open && uv_is_readable((uv_stream_t *)&c->tcp)) {
        uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read);
    } else if (c->open) {
        uv_buf_t b = uv_buf_init((char *)(uintptr_t)data, (unsigned)len);
        uv_try_write((uv_stream_t *)&c->tcp, &b, 1);
    }
}

static void on_done(void *ctx) {
    (void)ctx;
    done = true;
}

/* A step: one byte for which client and what; text steps have a length byte and the text. */
static void play(const uint8_t *data, size_t size, int port) {
    while (size >= 2) {
        uint8_t what = data[0], arg = data[1];
        data += 2;
        size -= 2;
        client *c = &clients[what % CLIENTS];
        client_open(c, port);
        uint8_t op = (uint8_t)(what / CLIENTS % 6);
        if (op == 3) {
            if (held_count) answer(held[arg % held_count], (uint8_t)(arg / 16));
        } else if (op == 4) {
            if (stream) http_sse_send_text(stream, block, arg * 100u);
        } else {
            size_t n = op == 5 ? (arg < size ? arg : size) : 0;
            client_step(c, op, data, n);
            data += n;
            size -= n;
        }
        run(1 + arg % 3);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    net_init();
    uv_loop_init(&loop);
    http_server_opts opts = {.handler = handler, .on_headers = on_headers, .max_header = 500, .max_body = 1000};
    http_server *srv = http_server_listen(&loop, &opts, NULL);
    if (!srv) abort();
    held_count = 0;
    stream = NULL;
    done = false;
    play(data, size, http_server_port(srv));
    for (int i = 0; i < CLIENTS; i++) client_leave(&clients[i]);
    http_server_close(srv, 0, on_done, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    if (!done || stream || uv_loop_close(&loop) != 0) abort();
    while (held_count) answer(held[0], 7); /* too late, but owed */
    return 0;
}
