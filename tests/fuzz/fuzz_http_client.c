/* The client against a peer that answers anything, at any time: the input is a list of steps for both sides. Looks for
 * crashes, leaks, callbacks after the end, and calls that never end. */
#include "net/http_client.h"
#include "net/net.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CALLS = 4, PEERS = 8 };

typedef struct call {
    http_call *call;             /* NULL when it ended */
    uint8_t in_headers, in_data; /* what to do from inside these callbacks */
} call;

static uv_loop_t loop;
static http_client *client;
static uv_tcp_t listener;
static uv_tcp_t peers[PEERS];
static int peer_count;
static call calls[CALLS];

static void call_do(call *c, uint8_t what) {
    if (!c->call) abort(); /* called back after the end */
    switch (what % 8) {
    case 1:
        http_call_abort(c->call);
        c->call = NULL;
        break;
    case 2:
        http_call_pause(c->call);
        break;
    case 3:
        http_call_resume(c->call);
        break;
    default:
        break;
    }
}

static void on_headers(void *ctx, http_call *h) {
    call *c = ctx;
    if (h != c->call || http_call_status(h) < 200) abort();
    http_call_header(h, "Content-Type");
    call_do(c, c->in_headers);
}

static void on_data(void *ctx, const char *data, size_t len) {
    call *c = ctx;
    if (!data || !len) abort();
    call_do(c, c->in_data);
}

static void on_done(void *ctx, const err *e) {
    call *c = ctx;
    if (!c->call || (e && !e->msg[0])) abort();
    http_call_pause(c->call); /* allowed, and nothing */
    http_call_abort(c->call);
    c->call = NULL;
}

static void on_fetched(void *ctx, int status, const char *body, size_t len, const err *e) {
    call *c = ctx;
    if (!c->call || body[len] || (e ? status != 0 : status < 200)) abort();
    c->call = NULL;
}

static void call_start(call *c, uint8_t arg) {
    static const char *const methods[] = {"GET", "POST", "HEAD", "PUT"};
    if (c->call) return;
    c->in_headers = arg >> 4 & 3;
    c->in_data = arg >> 6;
    http_call_opts o = {.method = methods[arg & 3], .path = "/", .body = "abc", .body_len = arg & 4 ? 3 : 0};
    o.on_headers = on_headers;
    o.on_data = on_data;
    o.on_done = on_done;
    o.ctx = c;
    c->call = arg & 8 ? http_client_fetch(client, &o, 20, on_fetched, c, NULL) : http_client_send(client, &o, NULL);
    if (!c->call) abort();
}

static void on_alloc(uv_handle_t *h, size_t want, uv_buf_t *b) {
    static char scratch[4096];
    (void)h;
    (void)want;
    *b = uv_buf_init(scratch, sizeof scratch);
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b) {
    (void)b;
    if (n < 0) uv_read_stop(s);
}

static void on_accept(uv_stream_t *s, int status) {
    if (status < 0 || peer_count == PEERS) return;
    uv_tcp_t *p = &peers[peer_count++];
    uv_tcp_init(&loop, p);
    if (uv_accept(s, (uv_stream_t *)p) == 0) uv_read_start((uv_stream_t *)p, on_alloc, on_read);
}

static void peer_close(uv_tcp_t *p) {
    if (uv_is_closing((uv_handle_t *)p)) return;
    if (uv_tcp_close_reset(p, NULL) != 0) uv_close((uv_handle_t *)p, NULL);
}

static void peer_say(uint8_t which, const uint8_t *data, size_t len) {
    if (!peer_count) return;
    uv_tcp_t *p = &peers[which % peer_count];
    uv_buf_t b = uv_buf_init((char *)(uintptr_t)data, (unsigned)len);
    if (!uv_is_closing((uv_handle_t *)p)) uv_try_write((uv_stream_t *)p, &b, 1);
}

/* Two bytes say who does what; a peer's words have a length byte and the text. */
static void play(const uint8_t *data, size_t size) {
    while (size >= 2) {
        uint8_t what = data[0], arg = data[1];
        data += 2;
        size -= 2;
        call *c = &calls[what / 8 % CALLS];
        size_t n = 0;
        if (what % 8 < 3) {
            n = arg < size ? arg : size;
            peer_say(what / 8, data, n);
        } else if (what % 8 == 3) {
            if (peer_count) peer_close(&peers[arg % peer_count]);
        } else if (what % 8 < 6) {
            call_start(c, arg);
        } else if (c->call) {
            call_do(c, arg);
        }
        data += n;
        size -= n;
        for (int i = 0; i < 1 + arg % 3; i++) uv_run(&loop, UV_RUN_NOWAIT);
    }
}

static int listen_somewhere(void) {
    struct sockaddr_storage addr;
    int len = sizeof addr;
    uv_ip4_addr("127.0.0.1", 0, (struct sockaddr_in *)&addr);
    uv_tcp_init(&loop, &listener);
    uv_tcp_bind(&listener, (struct sockaddr *)&addr, 0);
    if (uv_listen((uv_stream_t *)&listener, 16, on_accept) != 0) abort();
    uv_tcp_getsockname(&listener, (struct sockaddr *)&addr, &len);
    return ntohs(((struct sockaddr_in *)&addr)->sin_port);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    net_init();
    uv_loop_init(&loop);
    peer_count = 0;
    memset(calls, 0, sizeof calls);
    client = http_client_new(&loop, "127.0.0.1", listen_somewhere());
    play(data, size);
    for (int i = 0; i < CALLS; i++) { /* a call that paused from now on would stay so */
        calls[i].in_headers = calls[i].in_data = 0;
        if (calls[i].call) http_call_resume(calls[i].call);
    }
    if (size && data[0] & 1) { /* with all peers gone, every call must end by itself */
        uv_close((uv_handle_t *)&listener, NULL);
        for (int i = 0; i < peer_count; i++) peer_close(&peers[i]);
        for (int i = 0; i < CALLS; i++)
            while (calls[i].call) uv_run(&loop, UV_RUN_ONCE);
    } else {
        uv_close((uv_handle_t *)&listener, NULL);
    }
    http_client_close(client);
    for (int i = 0; i < peer_count; i++) peer_close(&peers[i]);
    uv_run(&loop, UV_RUN_DEFAULT);
    if (uv_loop_close(&loop) != 0) abort();
    return 0;
}
