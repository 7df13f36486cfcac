/* test_proc.c - real children: lines, environment, endings, groups. Waits end by events, never by a measured time. */
#include "proc/proc.h"
#include "base/str.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* One child under test, with everything it did. */
typedef struct watch {
    proc *p;
    buf out, err; /* its lines, joined by '\n' */
    int longest, line_count;
    bool exited;
    proc_exit how;
    const char *close_at; /* proc_close() from inside on_line when this comes */
    const char *stop_at;  /* leave run_until_line() when this comes */
    bool stopped;
} watch;

static uv_loop_t loop;

static void on_line(void *ctx, bool is_stderr, const char *line) {
    watch *w = ctx;
    assert_false(w->exited); /* lines come before the exit */
    w->line_count++;
    if ((int)strlen(line) > w->longest) w->longest = (int)strlen(line);
    buf_printf(is_stderr ? &w->err : &w->out, "%s\n", line);
    if (w->stop_at && str_starts(line, w->stop_at)) w->stopped = true;
    if (w->close_at && str_eq(line, w->close_at)) {
        proc_close(w->p);
        w->p = NULL;
    }
}

static void on_exit_event(void *ctx, const proc_exit *how) {
    watch *w = ctx;
    assert_false(w->exited);
    w->exited = true;
    w->how = *how;
    assert_false(proc_running(w->p));
}

static void begin(watch *w, const char *const *args, const char *const *env, int nice) {
    const char *argv[16] = {PROC_CHILD};
    for (int i = 0; args[i]; i++) argv[i + 1] = args[i];
    buf_init(&w->out, 1 << 20);
    buf_init(&w->err, 1 << 20);
    proc_options o = {.argv = argv, .env = env, .nice = nice, .on_line = on_line, .on_exit = on_exit_event, .ctx = w};
    err e = {0};
    w->p = proc_spawn(&loop, &o, &e);
    if (!w->p) fail_msg("%s", e.msg);
}

static void run_until_line(watch *w, const char *start) {
    w->stop_at = start;
    while (!w->stopped)
        if (!uv_run(&loop, UV_RUN_ONCE)) assert_true(w->stopped); /* nothing is left to wait for */
}

static void run_until_exit(watch *w) {
    while (!w->exited)
        if (!uv_run(&loop, UV_RUN_ONCE)) assert_true(w->exited);
}

static void finish(watch *w) {
    proc_close(w->p);
    uv_run(&loop, UV_RUN_DEFAULT); /* returns only when every handle is closed */
    buf_free(&w->out);
    buf_free(&w->err);
}

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void run(watch *w, const char *const *args) {
    begin(w, args, NULL, 0);
    run_until_exit(w);
}

/* Until the process is gone (the init process reaps orphans; kill() fails then). */
static bool is_gone(int pid) {
    return kill(pid, 0) != 0 && errno == ESRCH;
}

static char process_state(int pid) {
    char path[64], state = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    if (fscanf(f, "%*d (%*[^)]) %c", &state) != 1) state = 0;
    fclose(f);
    return state;
}

static void wait_until_dead(int pid) {
    while (!is_gone(pid) && process_state(pid) != 'Z') usleep(1000); /* the test's own limit ends a hang */
}

/* ------------------------------------------------------------------------------------------------------------ */

static void lines_of_both_pipes_arrive_before_the_exit(void **state) {
    (void)state;
    watch w = {0};
    run(&w, ARGS("out", "hello", "err", "oops", "part", "no newline", "exit", "7"));
    assert_string_equal(buf_str(&w.out), "hello\nno newline\n");
    assert_string_equal(buf_str(&w.err), "oops\n");
    assert_int_equal(w.how.code, 7);
    assert_int_equal(w.how.signal, 0);
    assert_false(w.how.requested);
    char text[128];
    assert_string_equal(proc_describe_exit(&w.how, text, sizeof text), "exit code 7");
    finish(&w);
}

static void the_last_words_before_a_crash_are_kept(void **state) {
    (void)state;
    watch w = {0};
    run(&w, ARGS("lines", "100", "err", "CUDA error: out of memory", "crash"));
    assert_int_equal(w.how.signal, SIGSEGV);
    assert_false(w.how.oom);
    char text[128];
    assert_string_equal(proc_describe_exit(&w.how, text, sizeof text), "killed by signal 11 (SIGSEGV)");
    buf last;
    buf_init(&last, 1 << 16);
    proc_last_lines(w.p, &last);
    assert_true(str_starts(buf_str(&last), "line 21\n")); /* 79 numbered ones and the last word */
    assert_true(str_ends(buf_str(&last), "line 99\nCUDA error: out of memory\n"));
    buf_free(&last);
    finish(&w);
}

static void an_abort_for_want_of_memory_is_told_from_others(void **state) {
    (void)state;
    watch w = {0};
    run(&w, ARGS("err", "CUDA error: out of memory", "abort"));
    assert_int_equal(w.how.signal, SIGABRT);
    assert_true(w.how.oom);
    char text[128];
    assert_string_equal(proc_describe_exit(&w.how, text, sizeof text),
                        "killed by signal 6 (SIGABRT), probably because the memory ran out");
    finish(&w);
    w = (watch){0};
    run(&w, ARGS("err", "assertion failed", "abort"));
    assert_int_equal(w.how.signal, SIGABRT);
    assert_false(w.how.oom);
    finish(&w);
}

static void a_line_too_long_comes_in_parts(void **state) {
    (void)state;
    watch w = {0};
    run(&w, ARGS("long", "20000"));
    assert_int_equal(w.longest, 8192);
    assert_int_equal(w.line_count, 3);
    assert_int_equal(w.out.len, 20000 + 3);
    finish(&w);
}

static void the_environment_is_put_over_the_inherited_one(void **state) {
    (void)state;
    watch w = {0};
    setenv("PROC_TEST_KEPT", "old", 1);
    setenv("PROC_TEST_TOKEN", "old", 1);
    begin(&w, ARGS("env", "PROC_TEST_KEPT", "env", "PROC_TEST_TOKEN", "env", "PROC_TEST"),
          ARGS("PROC_TEST_TOKEN=s3cret"), 0);
    run_until_exit(&w);
    assert_string_equal(buf_str(&w.out), "PROC_TEST_KEPT=old\nPROC_TEST_TOKEN=s3cret\nPROC_TEST=(unset)\n");
    finish(&w);
}

static void a_child_leads_a_group_of_its_own(void **state) {
    (void)state;
    watch w = {0};
    begin(&w, ARGS("ids", "eof"), NULL, 0);
    run_until_line(&w, "ids");
    int pid = 0, group = 0;
    assert_int_equal(sscanf(buf_str(&w.out), "ids %d %d", &pid, &group), 2);
    assert_int_equal(pid, group);
    assert_int_equal(pid, proc_pid(w.p));
    assert_true(proc_running(w.p));
    finish(&w);
    assert_true(is_gone(pid)); /* killed and reaped */
}

static void priority_can_be_lowered(void **state) {
    (void)state;
    watch w = {0};
    begin(&w, ARGS("out", "up", "eof"), NULL, 5);
    run_until_line(&w, "up");
    FILE *f = NULL;
    char path[64];
    long nice = -100;
    snprintf(path, sizeof path, "/proc/%d/stat", proc_pid(w.p));
    f = fopen(path, "r");
    if (f && fscanf(f, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %ld", &nice) != 1)
        nice = -100;
    if (f) fclose(f);
    if (nice == -100) {
        finish(&w);
        print_message("skipped: no /proc/PID/stat here\n");
        skip();
    }
    assert_true(nice >= 5); /* more when the tests themselves run at low priority */
    finish(&w);
}

static void terminate_is_a_plain_request(void **state) {
    (void)state;
    watch w = {0};
    begin(&w, ARGS("out", "up", "sleep"), NULL, 0);
    run_until_line(&w, "up");
    proc_terminate(w.p, 60000);
    run_until_exit(&w);
    assert_int_equal(w.how.signal, SIGTERM);
    assert_true(w.how.requested);
    finish(&w);
}

static void terminate_becomes_kill_for_one_that_does_not_listen(void **state) {
    (void)state;
    watch w = {0};
    begin(&w, ARGS("ignore-term", "out", "up", "sleep", "sleep"), NULL, 0);
    run_until_line(&w, "up");
    proc_terminate(w.p, 50);
    run_until_exit(&w);
    assert_int_equal(w.how.signal, SIGKILL);
    assert_true(w.how.requested);
    assert_false(w.how.oom);
    finish(&w);
}

static void a_stopped_child_can_be_killed(void **state) {
    (void)state;
    watch w = {0};
    begin(&w, ARGS("out", "up", "sleep"), NULL, 0);
    run_until_line(&w, "up");
    kill(proc_pid(w.p), SIGSTOP);
    proc_kill(w.p);
    run_until_exit(&w);
    assert_int_equal(w.how.signal, SIGKILL);
    finish(&w);
}

static void killed_from_outside_is_not_requested(void **state) {
    (void)state;
    watch w = {0};
    begin(&w, ARGS("out", "up", "sleep"), NULL, 0);
    run_until_line(&w, "up");
    kill(proc_pid(w.p), SIGKILL);
    run_until_exit(&w);
    assert_false(w.how.requested);
    char text[128];
    proc_exit plain = w.how;
    plain.oom = false; /* another program may have been killed for memory meanwhile */
    assert_string_equal(proc_describe_exit(&plain, text, sizeof text), "killed by signal 9 (SIGKILL)");
    plain.oom = true;
    assert_string_equal(proc_describe_exit(&plain, text, sizeof text),
                        "killed by signal 9 (SIGKILL), probably because the memory ran out");
    finish(&w);
}

static void grandchildren_die_with_the_child(void **state) {
    (void)state;
    watch w = {0};
    run(&w, ARGS("grandchild", "exit", "0")); /* it holds the pipes, and the exit is reported nevertheless */
    int pid = 0;
    assert_int_equal(sscanf(buf_str(&w.out), "grandchild %d", &pid), 1);
    wait_until_dead(pid);
    finish(&w);
}

static void stdin_stays_open_until_the_end(void **state) {
    (void)state;
    watch w = {0};
    begin(&w, ARGS("out", "up", "eof", "out", "parent gone"), NULL, 0);
    run_until_line(&w, "up");
    proc_kill(w.p); /* had stdin been closed, the second line would have come */
    run_until_exit(&w);
    assert_string_equal(buf_str(&w.out), "up\n");
    finish(&w);
}

static void closing_from_a_callback_ends_everything(void **state) {
    (void)state;
    watch w = {.close_at = "two"};
    begin(&w, ARGS("out", "one", "out", "two", "out", "three", "sleep"), NULL, 0);
    int pid = proc_pid(w.p);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_string_equal(buf_str(&w.out), "one\ntwo\n");
    assert_false(w.exited);
    assert_true(is_gone(pid));
    finish(&w);
}

static void a_missing_program_is_an_error(void **state) {
    (void)state;
    watch w = {0};
    proc_options o = {.argv = ARGS("/nonexistent/program"), .on_exit = on_exit_event, .ctx = &w};
    err e = {0};
    assert_null(proc_spawn(&loop, &o, &e));
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_non_null(strstr(e.msg, "/nonexistent/program"));
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_false(w.exited);
}

static void on_connection(uv_stream_t *server, int status) {
    (void)server;
    (void)status;
}

static int listen_somewhere(uv_tcp_t *server, const char *ip6) {
    struct sockaddr_in6 address6;
    struct sockaddr_in address;
    uv_tcp_init(&loop, server);
    uv_ip6_addr(ip6 ? ip6 : "::1", 0, &address6);
    uv_ip4_addr("127.0.0.1", 0, &address);
    int rc = uv_tcp_bind(server, ip6 ? (struct sockaddr *)&address6 : (struct sockaddr *)&address, 0);
    if (rc == 0) rc = uv_listen((uv_stream_t *)server, 1, on_connection);
    if (rc != 0) return 0;
    struct sockaddr_storage bound;
    int len = sizeof bound;
    uv_tcp_getsockname(server, (struct sockaddr *)&bound, &len);
    return ntohs(ip6 ? ((struct sockaddr_in6 *)&bound)->sin6_port : ((struct sockaddr_in *)&bound)->sin_port);
}

static void check_port_owner(const char *ip6) {
    uv_tcp_t server;
    int port = listen_somewhere(&server, ip6);
    char owner[128] = "", expected[64];
    bool found = port > 0 && proc_port_owner(port, owner, sizeof owner);
    uv_close((uv_handle_t *)&server, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    if (port == 0) {
        print_message("skipped: cannot listen on %s\n", ip6 ? ip6 : "127.0.0.1");
        skip();
    }
    snprintf(expected, sizeof expected, "test_proc (pid %d)", (int)getpid());
    assert_true(found);
    assert_string_equal(owner, expected);
    assert_false(proc_port_owner(port, owner, sizeof owner)); /* closed now */
}

static void the_owner_of_a_port_is_named(void **state) {
    (void)state;
    check_port_owner(NULL);
}

static void the_owner_of_an_ipv6_port_is_named(void **state) {
    (void)state;
    check_port_owner("::1");
}

int main(void) {
    uv_loop_init(&loop);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_of_both_pipes_arrive_before_the_exit),
        cmocka_unit_test(the_last_words_before_a_crash_are_kept),
        cmocka_unit_test(an_abort_for_want_of_memory_is_told_from_others),
        cmocka_unit_test(a_line_too_long_comes_in_parts),
        cmocka_unit_test(the_environment_is_put_over_the_inherited_one),
        cmocka_unit_test(a_child_leads_a_group_of_its_own),
        cmocka_unit_test(priority_can_be_lowered),
        cmocka_unit_test(terminate_is_a_plain_request),
        cmocka_unit_test(terminate_becomes_kill_for_one_that_does_not_listen),
        cmocka_unit_test(a_stopped_child_can_be_killed),
        cmocka_unit_test(killed_from_outside_is_not_requested),
        cmocka_unit_test(grandchildren_die_with_the_child),
        cmocka_unit_test(stdin_stays_open_until_the_end),
        cmocka_unit_test(closing_from_a_callback_ends_everything),
        cmocka_unit_test(a_missing_program_is_an_error),
        cmocka_unit_test(the_owner_of_a_port_is_named),
        cmocka_unit_test(the_owner_of_an_ipv6_port_is_named),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (uv_loop_close(&loop) != 0) {
        fprintf(stderr, "handles are left in the loop\n");
        failed++;
    }
    return failed;
}
