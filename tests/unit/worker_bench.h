/* worker_bench.h - for tests: a worker_dummy process, and calls to it that run the loop until they are answered. */
#ifndef MYSTI_TESTS_WORKER_BENCH_H
#define MYSTI_TESTS_WORKER_BENCH_H

#include "net/http_client.h"
#include "net/http_lines.h"
#include "proc/health.h"
#include "proc/proc.h"

#define BENCH_TOKEN "s3cret-token"

/* One worker process under test. */
typedef struct bench {
    uv_loop_t *loop; /* on the heap: libuv still knows it after a test that failed */
    uv_timer_t keep; /* keeps the loop from running out of things to wait for */
    proc *p;
    http_client *client;
    int port;     /* 0 until it said "listening on port N" */
    buf err_text; /* all of its stderr */
    bool exited;
    proc_exit how;
} bench;

void bench_init(bench *b);
/* argv and env as in proc_options, env beside the token. */
void bench_spawn(bench *b, const char *const *argv, const char *const *env);
void bench_start(bench *b, const char *const *env); /* the dummy with --port 0, until it listens */
void bench_wait_exit(bench *b);
void bench_free(bench *b); /* ends the process if it still runs */

/* One turn of the loop. What never comes ends with the test's own time limit. */
void bench_turn(bench *b);

/* A whole answer. */
typedef struct answer {
    bool done;
    int status; /* 0: e says why */
    buf body;
    err e;
} answer;

http_call *bench_send(bench *b, const char *method, const char *path, const char *token, const char *body, answer *out);
void bench_call(bench *b, const char *method, const char *path, const char *token, const char *body, answer *out);
void answer_free(answer *a);

/* Asks until the worker says `state`; the last answer is in *h (may be NULL). */
void bench_wait_state(bench *b, worker_activity state, worker_health *h);
worker_health bench_health(bench *b);

/* An NDJSON answer under way. Lines must be numbered "n": 0, 1, 2 ...; a preview may leave numbers out. */
typedef struct stream {
    http_call *call; /* NULL when it has ended */
    http_lines lines;
    int status, count, last_n;
    bool gaps_allowed;
    char last[256]; /* the beginning of the last line */
    char content_type[64];
    bool done, broken;
} stream;

void stream_open(stream *s, bench *b, const char *path);
void stream_wait_lines(stream *s, bench *b, int count);
void stream_wait_done(stream *s, bench *b);
void stream_close(stream *s); /* aborts it if it has not ended */

#endif
