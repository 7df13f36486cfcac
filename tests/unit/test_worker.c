/* test_worker.c - a real worker process with a dummy engine, over real HTTP. Waits end by events; nothing is timed. */
#include "worker_bench.h"
#include "base/clock.h"
#include "base/str.h"
#include "net/http_req.h"
#include "proc/backtrace.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define POST_OK(b, path, body, a) bench_call(b, "POST", path, BENCH_TOKEN, body, a)

static void expect_exit(bench *b, int code) {
    bench_wait_exit(b);
    char text[128];
    if (b->how.signal || b->how.code != code)
        fail_msg("%s; stderr: %s", proc_describe_exit(&b->how, text, sizeof text), buf_str(&b->err_text));
}

static void expect_said(const bench *b, const char *text) {
    if (!strstr(buf_str(&b->err_text), text)) fail_msg("'%s' is not in: %s", text, buf_str(&b->err_text));
}

/* ---- token and health -------------------------------------------------------------------------------------- */

static void without_the_token_everything_is_refused(void **state) {
    (void)state;
    static const char *const wrong[] = {NULL, "", "s3cret-tokeX", "s3cret-toke", "s3cret-token2"};
    static const char *const paths[] = {"/internal/health", "/internal/echo", "/nowhere", "/"};
    bench b;
    bench_start(&b, NULL);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        for (size_t k = 0; k < sizeof paths / sizeof paths[0]; k++) {
            answer a;
            bench_call(&b, k == 0 ? "GET" : "POST", paths[k], wrong[i], k == 0 ? NULL : "{}", &a);
            assert_int_equal(a.status, 403);
            assert_non_null(strstr(buf_str(&a.body), "\"permission_error\""));
            answer_free(&a);
        }
    answer a;
    POST_OK(&b, "/internal/echo", "{\"hello\":1}", &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(buf_str(&a.body), "{\"hello\":1}");
    answer_free(&a);
    POST_OK(&b, "/nowhere", "{}", &a);
    assert_int_equal(a.status, 404);
    answer_free(&a);
    POST_OK(&b, "/internal/health", "{}", &a);
    assert_int_equal(a.status, 405);
    answer_free(&a);
    bench_free(&b);
}

/* Neither its arguments nor its environment show the token to other programs. */
static void the_token_does_not_stay_in_the_environment(void **state) {
    (void)state;
    bench b;
    bench_start(&b, NULL);
    bench_wait_state(&b, WORKER_IDLE, NULL);
    char path[64], block[65536];
    snprintf(path, sizeof path, "/proc/%d/environ", proc_pid(b.p));
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(block, 1, sizeof block, f) : 0;
    if (f) fclose(f);
    bench_free(&b);
    if (n == 0) {
        print_message("skipped: no /proc/PID/environ here\n");
        skip();
    }
    assert_null(memmem(block, n, BENCH_TOKEN, strlen(BENCH_TOKEN)));
}

static void the_token_may_come_as_the_first_line_of_stdin(void **state) {
    (void)state;
    bench b;
    bench_init(&b);
    const char *script = "unset MYSTI_TOKEN; exec 3<&0; { echo from-stdin; cat <&3; } | " WORKER_DUMMY " --port 0";
    bench_spawn(&b, ARGS("/bin/sh", "-c", script), NULL);
    while (b.port == 0) bench_turn(&b);
    b.client = http_client_new(b.loop, "127.0.0.1", b.port);
    answer a;
    int status;
    do { /* refused until the line has arrived */
        bench_call(&b, "GET", "/internal/health", "from-stdin", NULL, &a);
        status = a.status;
        answer_free(&a);
        assert_true(status == 403 || status == 200);
    } while (status == 403);
    bench_call(&b, "GET", "/internal/health", BENCH_TOKEN, NULL, &a);
    assert_int_equal(a.status, 403);
    answer_free(&a);
    bench_free(&b);
}

static void health_answers_before_the_engine_is_there(void **state) {
    (void)state;
    bench b;
    bench_start(&b, ARGS("DUMMY_INIT=hang"));
    worker_health h = bench_health(&b);
    assert_true(h.ok);
    assert_int_equal(h.pid, proc_pid(b.p));
    assert_string_equal(h.service, "dummy");
    assert_int_equal(h.state, WORKER_LOADING); /* a worker that stays so is noticed by its stamp */
    assert_int_equal(h.memory_count, 0);
    assert_true(h.rss > 0);
    assert_int_equal(bench_health(&b).progress.stamp_ms, h.progress.stamp_ms);
    kill(proc_pid(b.p), SIGTERM);
    expect_exit(&b, 0); /* although the engine does not listen */
    bench_free(&b);
}

/* Stuck where it has no job: in a driver that it asks for its memory. The job that comes then shows it. */
static void an_engine_that_does_not_take_up_its_jobs_is_not_idle(void **state) {
    (void)state;
    bench b;
    bench_start(&b, ARGS("DUMMY_MEMORY=hang"));
    while (!strstr(buf_str(&b.err_text), "hanging")) bench_turn(&b);
    worker_health h = bench_health(&b), later;
    assert_int_equal(h.state, WORKER_IDLE);
    answer a;
    http_call *call = bench_send(&b, "POST", "/internal/echo", BENCH_TOKEN, "{}", &a);
    bench_wait_state(&b, WORKER_BUSY, &h);
    later = bench_health(&b);
    assert_int_equal(later.state, WORKER_BUSY);
    assert_int_equal(later.progress.stamp_ms, h.progress.stamp_ms);
    http_call_abort(call);
    answer_free(&a);
    bench_free(&b);
}

static void health_tells_what_the_engine_does(void **state) {
    (void)state;
    bench b;
    bench_start(&b, NULL);
    answer a;
    http_call *call = bench_send(&b, "POST", "/internal/spin?id=j-12", BENCH_TOKEN, "{}", &a);
    worker_health h;
    do bench_wait_state(&b, WORKER_BUSY, &h);
    while (h.progress.step < 2);
    assert_string_equal(h.progress.job, "j-12");
    assert_string_equal(h.progress.phase, "spinning");
    assert_int_equal(h.progress.steps, 1000000);
    assert_int_equal(h.memory_count, 1);
    assert_string_equal(h.memory[0].device, "DUMMY");
    worker_health later;
    do later = bench_health(&b);
    while (later.progress.step == h.progress.step);
    assert_true(later.progress.stamp_ms >= h.progress.stamp_ms);
    http_call_abort(call);
    bench_wait_state(&b, WORKER_IDLE, &h);
    assert_string_equal(h.progress.job, "");
    answer_free(&a);

    call = bench_send(&b, "POST", "/internal/load", BENCH_TOKEN, "{}", &a);
    bench_wait_state(&b, WORKER_LOADING, &h);
    assert_string_equal(h.model, "");
    http_call_abort(call);
    bench_wait_state(&b, WORKER_IDLE, &h);
    assert_string_equal(h.model, "/models/half.gguf");
    answer_free(&a);
    bench_free(&b);
}

/* ---- jobs and streams -------------------------------------------------------------------------------------- */

static void a_stream_arrives_whole_and_in_order(void **state) {
    (void)state;
    bench b;
    stream s = {0};
    bench_start(&b, NULL);
    stream_open(&s, &b, "/internal/flood?count=5000"); /* 5 MB: far more than any buffer */
    stream_wait_done(&s, &b);
    assert_false(s.broken);
    assert_int_equal(s.status, 200);
    assert_string_equal(s.content_type, "application/x-ndjson");
    assert_int_equal(s.count, 5000);
    assert_string_equal(s.last, "{\"event\":\"done\"}");
    stream_close(&s);
    bench_free(&b);
}

static void a_slow_reader_slows_the_engine_down(void **state) {
    (void)state;
    bench b;
    stream s = {0};
    bench_start(&b, NULL);
    stream_open(&s, &b, "/internal/flood?id=f");
    stream_wait_lines(&s, &b, 10);
    http_call_pause(s.call);
    worker_health before, h = bench_health(&b);
    int same = 0;
    do { /* it comes to a halt, or this test never ends */
        before = h;
        h = bench_health(&b);
        same = h.progress.step == before.progress.step ? same + 1 : 0;
        usleep(2000);
    } while (same < 20);
    assert_int_equal(h.state, WORKER_BUSY);
    int stood_at = h.progress.step;
    http_call_resume(s.call);
    stream_wait_lines(&s, &b, stood_at + 1000);
    stream_close(&s); /* in the middle of it */
    bench_wait_state(&b, WORKER_IDLE, NULL);
    bench_free(&b);
}

static void a_client_that_leaves_cancels_its_job(void **state) {
    (void)state;
    bench b;
    stream s = {0};
    bench_start(&b, NULL);
    for (int i = 0; i < 20; i++) {
        stream_open(&s, &b, "/internal/tail?id=t");
        bench_wait_state(&b, WORKER_BUSY, NULL);
        stream_close(&s);
        bench_wait_state(&b, WORKER_IDLE, NULL);
    }
    bench_free(&b);
}

static void a_client_that_leaves_while_the_engine_waits_for_it(void **state) {
    (void)state;
    bench b;
    stream s = {0};
    bench_start(&b, NULL);
    for (int i = 0; i < 5; i++) {
        stream_open(&s, &b, "/internal/flood");
        stream_wait_lines(&s, &b, 1);
        http_call_pause(s.call);
        for (int k = 0; k < 50; k++) bench_health(&b);
        int64_t left_at = clock_mono_ms();
        stream_close(&s);
        bench_wait_state(&b, WORKER_IDLE, NULL);
        print_message("client left -> engine idle: %lld ms\n", (long long)(clock_mono_ms() - left_at));
    }
    bench_free(&b);
}

static void previews_may_be_skipped_but_never_go_back(void **state) {
    (void)state;
    bench b;
    stream s = {.gaps_allowed = true};
    bench_start(&b, NULL);
    stream_open(&s, &b, "/internal/previews?count=20000");
    stream_wait_done(&s, &b);
    assert_false(s.broken);
    assert_string_equal(s.last, "{\"event\":\"done\"}");
    assert_true(s.count < 20000); /* 20 MB in no time: some were replaced */
    stream_close(&s);
    bench_free(&b);
}

static void a_failure_before_the_first_line_has_its_status(void **state) {
    (void)state;
    bench b;
    answer a;
    bench_start(&b, NULL);
    POST_OK(&b, "/internal/fail", "{}", &a);
    assert_int_equal(a.status, http_status_of(ERR_MEMORY));
    assert_non_null(strstr(buf_str(&a.body), "\"code\":\"memory\""));
    assert_non_null(strstr(buf_str(&a.body), "needs 12 GB, \\\"has\\\" 8"));
    answer_free(&a);
    bench_free(&b);
}

static void a_failure_in_a_stream_is_its_last_line(void **state) {
    (void)state;
    bench b;
    stream s = {0};
    bench_start(&b, NULL);
    stream_open(&s, &b, "/internal/fail?count=3");
    stream_wait_done(&s, &b);
    assert_int_equal(s.status, 200);
    assert_false(s.broken);
    assert_true(str_starts(s.last, "{\"event\":\"error\",\"error\":{"));
    assert_non_null(strstr(s.last, "\"code\":\"memory\""));
    assert_true(str_ends(s.last, "}}"));
    stream_close(&s);
    bench_free(&b);
}

static void several_jobs_share_the_engine(void **state) {
    (void)state;
    bench b;
    stream slow = {0}, fast = {0}, gone = {0};
    bench_start(&b, NULL);
    stream_open(&slow, &b, "/internal/slot?id=slow");
    stream_wait_lines(&slow, &b, 1);
    http_call_pause(slow.call); /* never reads on: must not hold up the others */
    stream_open(&gone, &b, "/internal/slot?id=gone");
    stream_wait_lines(&gone, &b, 1);
    stream_open(&fast, &b, "/internal/slot?id=fast&count=20000"); /* 20 MB: far past what slow's buffers take */
    stream_wait_lines(&fast, &b, 100);
    stream_close(&gone);
    stream_wait_done(&fast, &b);
    assert_int_equal(fast.count, 20000);
    assert_string_equal(fast.last, "{\"event\":\"done\"}");
    int had = slow.count;
    http_call_resume(slow.call);
    stream_wait_lines(&slow, &b, had + 1000);
    stream_close(&slow);
    stream_close(&fast);
    bench_wait_state(&b, WORKER_IDLE, NULL);
    bench_free(&b);
}

static void a_full_queue_says_busy_and_loses_nothing(void **state) {
    (void)state;
    enum { CALLS = 300 };
    static answer a[CALLS];
    bench b;
    answer spin;
    bench_start(&b, NULL);
    http_call *call = bench_send(&b, "POST", "/internal/spin", BENCH_TOKEN, "{}", &spin);
    bench_wait_state(&b, WORKER_BUSY, NULL);
    for (int i = 0; i < CALLS; i++) bench_send(&b, "POST", "/internal/echo", BENCH_TOKEN, "{\"n\":1}", &a[i]);
    int answered = 0;
    do { /* what does not fit is refused at once */
        bench_turn(&b);
        answered = 0;
        for (int i = 0; i < CALLS; i++) answered += a[i].done;
    } while (answered < CALLS - 256);
    http_call_abort(call);
    int ok = 0, busy = 0;
    for (int i = 0; i < CALLS; i++) {
        while (!a[i].done) bench_turn(&b);
        ok += a[i].status == 200;
        busy += a[i].status == 503 && strstr(buf_str(&a[i].body), "\"code\":\"busy\"");
        answer_free(&a[i]);
    }
    assert_int_equal(ok, 256);
    assert_int_equal(busy, CALLS - 256);
    answer_free(&spin);
    bench_free(&b);
}

/* Clients that come, read, stall and leave by chance; the sanitizers watch both sides. */
static void random_clients_leave_nothing_behind(void **state) {
    (void)state;
    enum { CLIENTS = 8 };
    static const char *const paths[] = {
        "/internal/slot", "/internal/slot?count=50", "/internal/flood?count=900",   "/internal/flood",
        "/internal/tail", "/internal/fail?count=2",  "/internal/previews?count=500"};
    static stream s[CLIENTS];
    const char *given = getenv("WORKER_SEED");
    unsigned rng = given ? (unsigned)strtoul(given, NULL, 10) : 20260102u;
    print_message("WORKER_SEED=%u\n", rng);
    bool open[CLIENTS] = {false};
    bench b;
    bench_start(&b, NULL);
    for (int i = 0; i < 600; i++) {
        rng = rng * 1664525u + 1013904223u;
        unsigned c = (rng >> 8) % CLIENTS, what = (rng >> 16) % 4, path = (rng >> 20) % 7;
        if (!open[c]) {
            s[c].gaps_allowed = true;
            stream_open(&s[c], &b, paths[path]);
            open[c] = true;
        } else if (what == 0 || s[c].done) {
            stream_close(&s[c]);
            open[c] = false;
        } else if (what == 1) {
            http_call_pause(s[c].call);
        } else {
            http_call_resume(s[c].call);
        }
        for (unsigned k = 0; k < what; k++) bench_health(&b);
    }
    for (int c = 0; c < CLIENTS; c++)
        if (open[c]) stream_close(&s[c]);
    bench_wait_state(&b, WORKER_IDLE, NULL);
    answer a;
    POST_OK(&b, "/internal/echo", "{}", &a); /* behind everything else in the queue */
    assert_int_equal(a.status, 200);
    answer_free(&a);
    kill(proc_pid(b.p), SIGTERM);
    expect_exit(&b, 0);
    expect_said(&b, "engine ended");
    bench_free(&b);
}

/* ---- ends -------------------------------------------------------------------------------------------------- */

static void sigterm_ends_an_idle_worker(void **state) {
    (void)state;
    bench b;
    bench_start(&b, NULL);
    bench_wait_state(&b, WORKER_IDLE, NULL);
    kill(proc_pid(b.p), SIGTERM);
    expect_exit(&b, 0);
    expect_said(&b, "engine ended"); /* torn down in order */
    expect_said(&b, "stopped");
    bench_free(&b);
}

static void sigterm_cancels_jobs_and_tells_their_clients(void **state) {
    (void)state;
    bench b;
    stream s = {0}, slot = {0};
    answer waiting;
    bench_start(&b, NULL);
    stream_open(&slot, &b, "/internal/slot");
    stream_wait_lines(&slot, &b, 1);
    stream_open(&s, &b, "/internal/tail");
    bench_send(&b, "POST", "/internal/echo", BENCH_TOKEN, "{}", &waiting);
    while (!s.last[0]) bench_turn(&b);
    http_call_pause(slot.call); /* it does not even read */
    kill(proc_pid(b.p), SIGTERM);
    stream_wait_done(&s, &b);
    assert_non_null(strstr(s.last, "\"code\":\"cancelled\""));
    expect_exit(&b, 0);
    expect_said(&b, "engine ended");
    while (!waiting.done) bench_turn(&b);
    assert_true(waiting.status >= 500 || waiting.status == 0); /* never done, and never claimed to be */
    answer_free(&waiting);
    stream_close(&s);
    stream_close(&slot);
    bench_free(&b);
}

static void sigterm_ends_a_worker_whose_engine_is_deaf(void **state) {
    (void)state;
    bench b;
    answer a;
    bench_start(&b, NULL);
    bench_send(&b, "POST", "/internal/deaf", BENCH_TOKEN, "{}", &a);
    bench_wait_state(&b, WORKER_BUSY, NULL);
    kill(proc_pid(b.p), SIGTERM);
    expect_exit(&b, 0);
    expect_said(&b, "did not stop in time");
    answer_free(&a);
    bench_free(&b);
}

static void eof_on_stdin_ends_a_busy_worker(void **state) {
    (void)state;
    bench b;
    bench_init(&b);
    /* The shell closes the worker's stdin when it reads a line on its own stderr's behalf: the worker listens. */
    const char *script = "{ while ! [ -e \"$DUMMY_GO\" ]; do sleep 0.01; done; } | " WORKER_DUMMY " --port 0";
    char path[] = "/tmp/mysti-eof-XXXXXX";
    assert_non_null(mkdtemp(path));
    char *go = str_fmt("%s/go", path), *variable = str_fmt("DUMMY_GO=%s", go);
    bench_spawn(&b, ARGS("/bin/sh", "-c", script), ARGS(variable));
    while (b.port == 0) bench_turn(&b);
    b.client = http_client_new(b.loop, "127.0.0.1", b.port);
    answer a;
    bench_send(&b, "POST", "/internal/deaf", BENCH_TOKEN, "{}", &a);
    bench_wait_state(&b, WORKER_BUSY, NULL);
    fclose(fopen(go, "w"));
    expect_exit(&b, 0);
    expect_said(&b, "the server is gone");
    remove(go);
    rmdir(path);
    free(go);
    free(variable);
    answer_free(&a);
    bench_free(&b);
}

static bool is_gone(int pid) {
    return kill(pid, 0) != 0 && errno == ESRCH;
}

static void the_parents_death_ends_a_worker(void **state) {
    (void)state;
#ifdef __linux__
    bench b;
    bench_init(&b);
    /* stdin stays open, and the worker is out of the shell's group: only the parent's death can end it. */
    const char *script = "exec 3<&0; setsid " WORKER_DUMMY " --port 0 --parent-pid $$ <&3 & wait";
    bench_spawn(&b, ARGS("/bin/sh", "-c", script), NULL);
    while (b.port == 0) bench_turn(&b);
    b.client = http_client_new(b.loop, "127.0.0.1", b.port);
    int worker = bench_health(&b).pid;
    assert_int_not_equal(worker, proc_pid(b.p));
    kill(proc_pid(b.p), SIGKILL);
    bench_wait_exit(&b);
    answer a;
    do { /* until nobody answers any more */
        bench_call(&b, "GET", "/internal/health", BENCH_TOKEN, NULL, &a);
        answer_free(&a);
    } while (a.status == 200);
    (void)is_gone(worker); /* a zombie is possible where nobody reaps orphans */
    bench_free(&b);
#else
    print_message("skipped: parent death signals are Linux's\n");
    skip();
#endif
}

static void a_worker_whose_parent_died_early_does_not_start(void **state) {
    (void)state;
    bench b;
    bench_init(&b);
    bench_spawn(&b, ARGS(WORKER_DUMMY, "--port", "0", "--parent-pid", "1"), NULL);
    expect_exit(&b, 2);
    expect_said(&b, "the parent process is gone already");
    bench_free(&b);
}

/* The thread sanitizer calls a handler from a frame of its own. */
#ifdef __SANITIZE_THREAD__
enum { HANDLER_IS_CALLED_DIRECTLY = 0 };
#else
enum { HANDLER_IS_CALLED_DIRECTLY = 1 };
#endif

static void a_crash_leaves_its_last_words(void **state) {
    (void)state;
    static const struct {
        const char *how, *name;
        int number;
    } ways[] = {{"segv", "signal 11 (SIGSEGV) at address 0x", SIGSEGV},
                {"raise", "signal 8 (SIGFPE) sent by process ", SIGFPE},
                {"abort", "signal 6 (SIGABRT), ", SIGABRT}};
    for (int i = 0; i < 3; i++) {
        bench b;
        answer a;
        bench_start(&b, NULL);
        bench_send(&b, "POST", "/internal/crash?id=j-7", BENCH_TOKEN, ways[i].how, &a);
        bench_wait_exit(&b);
        assert_int_equal(b.how.signal, ways[i].number); /* still dies of it */
        expect_said(&b, "] [ERROR] [dummy] worker_dummy crashed: ");
        expect_said(&b, ways[i].name);
        expect_said(&b, "job j-7, model /models/bad.gguf");
        buf last;
        buf_init(&last, 1 << 16);
        proc_last_lines(b.p, &last);
        buf trace;
        buf_init(&trace, 1 << 16);
        backtrace_name(buf_str(&last), clock_wall_ms(), &trace);
        const char *culprit = strstr(buf_str(&trace), "run_crash"); /* a static function, or run_crash.cold */
        if (!culprit) fail_msg("no name in: %s, of: %s", buf_str(&trace), buf_str(&last));
        if (HANDLER_IS_CALLED_DIRECTLY && ways[i].number == SIGSEGV)
            assert_ptr_equal(culprit, trace.data); /* nothing of the handler before it */
        assert_non_null(strstr(culprit, "(worker_dummy.c) [worker_dummy+0x"));
        buf_free(&trace);
        while (!a.done) bench_turn(&b);
        assert_int_equal(a.status, 0); /* the client sees a broken answer, not a false one */
        buf_free(&last);
        answer_free(&a);
        bench_free(&b);
    }
}

static void a_taken_port_is_named_with_its_owner(void **state) {
    (void)state;
    bench first, second;
    bench_start(&first, NULL);
    char port[16], expected[64];
    snprintf(port, sizeof port, "%d", first.port);
    snprintf(expected, sizeof expected, "port %d is taken by worker_dummy (pid %d)", first.port, proc_pid(first.p));
    bench_init(&second);
    bench_spawn(&second, ARGS(WORKER_DUMMY, "--port", port), NULL);
    expect_exit(&second, 3);
    expect_said(&second, expected);
    bench_free(&second);
    bench_free(&first);
}

static void an_engine_that_cannot_start_ends_the_worker(void **state) {
    (void)state;
    bench b;
    bench_init(&b);
    bench_spawn(&b, ARGS(WORKER_DUMMY, "--port", "0"), ARGS("DUMMY_INIT=fail"));
    expect_exit(&b, 4);
    expect_said(&b, "no device today");
    bench_free(&b);
}

static void wrong_options_are_named(void **state) {
    (void)state;
    static const struct {
        const char *option, *value, *says;
    } cases[] = {{"--thread", "2", "did you mean '--threads'"},
                 {"--port", "70000", "--port: not between"},
                 {"--threads", "many", "--threads: expected a whole number"}};
    for (int i = 0; i < 3; i++) {
        bench b;
        bench_init(&b);
        bench_spawn(&b, ARGS(WORKER_DUMMY, cases[i].option, cases[i].value), NULL);
        expect_exit(&b, 2);
        expect_said(&b, cases[i].says);
        bench_free(&b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_the_token_everything_is_refused),
        cmocka_unit_test(the_token_does_not_stay_in_the_environment),
        cmocka_unit_test(the_token_may_come_as_the_first_line_of_stdin),
        cmocka_unit_test(health_answers_before_the_engine_is_there),
        cmocka_unit_test(an_engine_that_does_not_take_up_its_jobs_is_not_idle),
        cmocka_unit_test(health_tells_what_the_engine_does),
        cmocka_unit_test(a_stream_arrives_whole_and_in_order),
        cmocka_unit_test(a_slow_reader_slows_the_engine_down),
        cmocka_unit_test(a_client_that_leaves_cancels_its_job),
        cmocka_unit_test(a_client_that_leaves_while_the_engine_waits_for_it),
        cmocka_unit_test(previews_may_be_skipped_but_never_go_back),
        cmocka_unit_test(a_failure_before_the_first_line_has_its_status),
        cmocka_unit_test(a_failure_in_a_stream_is_its_last_line),
        cmocka_unit_test(several_jobs_share_the_engine),
        cmocka_unit_test(a_full_queue_says_busy_and_loses_nothing),
        cmocka_unit_test(random_clients_leave_nothing_behind),
        cmocka_unit_test(sigterm_ends_an_idle_worker),
        cmocka_unit_test(sigterm_cancels_jobs_and_tells_their_clients),
        cmocka_unit_test(sigterm_ends_a_worker_whose_engine_is_deaf),
        cmocka_unit_test(eof_on_stdin_ends_a_busy_worker),
        cmocka_unit_test(the_parents_death_ends_a_worker),
        cmocka_unit_test(a_worker_whose_parent_died_early_does_not_start),
        cmocka_unit_test(a_crash_leaves_its_last_words),
        cmocka_unit_test(a_taken_port_is_named_with_its_owner),
        cmocka_unit_test(an_engine_that_cannot_start_ends_the_worker),
        cmocka_unit_test(wrong_options_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
