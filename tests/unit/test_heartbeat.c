/* test_heartbeat.c - proc, heartbeat and supervisor together over a real worker: it starts, is killed, is stopped,
 * fails to start; and each time the supervisor's actions bring it back. */
#include "proc/heartbeat.h"
#include "base/clock.h"
#include "base/str.h"
#include "proc/proc.h"
#include "proc/supervisor.h"
#include "worker_bench.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* What a server does with one worker, in its smallest form. */
typedef struct keeper {
    uv_loop_t loop;
    supervisor s;
    proc *p;
    heartbeat *hb;
    uv_timer_t timer;
    int port;
    const char *program;
    int spawns, deaths, hangs;
    worker_health last;
} keeper;

static void tell(keeper *k, sup_event_type type);

static void on_exit_event(void *ctx, const proc_exit *how) {
    (void)how;
    keeper *k = ctx;
    heartbeat_stop(k->hb);
    tell(k, SUP_EV_EXITED);
}

static void spawn(keeper *k) {
    char port[16];
    snprintf(port, sizeof port, "%d", k->port);
    const char *argv[] = {k->program, "--port", port, NULL};
    const char *env[] = {"MYSTI_TOKEN=" BENCH_TOKEN, NULL};
    proc_options o = {.argv = argv, .env = env, .on_exit = on_exit_event, .ctx = k};
    proc_close(k->p);
    k->spawns++;
    k->p = proc_spawn(&k->loop, &o, NULL);
    if (!k->p) {
        tell(k, SUP_EV_EXITED);
        return;
    }
    heartbeat_restart(k->hb, BENCH_TOKEN);
    tell(k, SUP_EV_SPAWNED);
}

static void on_timer(uv_timer_t *timer) {
    tell(timer->data, SUP_EV_TIMER);
}

static void perform(keeper *k, const sup_action *a) {
    switch (a->type) {
    case SUP_DO_SPAWN:
        spawn(k);
        break;
    case SUP_DO_TERMINATE:
        proc_terminate(k->p, 2000);
        break;
    case SUP_DO_KILL:
        proc_kill(k->p);
        break;
    case SUP_DO_SET_TIMER:
        uv_timer_start(&k->timer, on_timer, (uint64_t)a->ms, 0);
        break;
    case SUP_DO_ALERT:
        k->deaths += a->alert == SUP_ALERT_DIED;
        k->hangs += a->alert == SUP_ALERT_HUNG;
        break;
    case SUP_DO_RESTORE:
        break;
    }
}

static void tell(keeper *k, sup_event_type type) {
    sup_event ev = {.type = type, .now_ms = clock_mono_ms()};
    sup_actions a = supervisor_step(&k->s, &ev);
    for (size_t i = 0; i < a.count; i++) perform(k, &a.item[i]);
}

static void on_ok(void *ctx, const worker_health *h, bool stalled) {
    keeper *k = ctx;
    assert_ptr_equal(h, heartbeat_last(k->hb));
    k->last = *h;
    tell(k, stalled ? SUP_EV_NO_PROGRESS : SUP_EV_HEALTH_OK);
}

static void on_miss(void *ctx, const err *why) {
    assert_true(why->msg[0]);
    tell(ctx, SUP_EV_HEALTH_MISS);
}

static int free_port(uv_loop_t *loop) {
    uv_tcp_t probe;
    struct sockaddr_in address;
    uv_ip4_addr("127.0.0.1", 0, &address);
    uv_tcp_init(loop, &probe);
    uv_tcp_bind(&probe, (struct sockaddr *)&address, 0);
    int len = sizeof address;
    uv_tcp_getsockname(&probe, (struct sockaddr *)&address, &len);
    uv_close((uv_handle_t *)&probe, NULL);
    uv_run(loop, UV_RUN_DEFAULT);
    return ntohs(address.sin_port);
}

static void keeper_open(keeper *k, const char *program) {
    memset(k, 0, sizeof *k);
    uv_loop_init(&k->loop);
    uv_timer_init(&k->loop, &k->timer);
    k->timer.data = k;
    k->program = program;
    k->port = free_port(&k->loop);
    supervisor_init(&k->s);
    heartbeat_options o = {.port = k->port, .token = BENCH_TOKEN, .on_ok = on_ok, .on_miss = on_miss, .ctx = k};
    k->hb = heartbeat_open(&k->loop, &o);
    assert_null(heartbeat_last(k->hb));
    tell(k, SUP_EV_START);
}

static void run_until(keeper *k, sup_state state) {
    while (k->s.state != state) assert_true(uv_run(&k->loop, UV_RUN_ONCE));
}

static void keeper_close(keeper *k) {
    tell(k, SUP_EV_STOP);
    while (k->s.live) assert_true(uv_run(&k->loop, UV_RUN_ONCE));
    proc_close(k->p);
    heartbeat_close(k->hb);
    uv_close((uv_handle_t *)&k->timer, NULL);
    uv_run(&k->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&k->loop), 0);
}

static void a_killed_worker_comes_back(void **state) {
    (void)state;
    keeper k;
    keeper_open(&k, WORKER_DUMMY);
    run_until(&k, SUP_READY);
    for (int i = 0; i < 3; i++) {
        int pid = proc_pid(k.p);
        int64_t killed_at = clock_mono_ms();
        assert_int_equal(k.last.pid, pid); /* the answer is this process's own */
        kill(pid, SIGKILL);
        while (k.deaths == i) assert_true(uv_run(&k.loop, UV_RUN_ONCE));
        run_until(&k, SUP_READY);
        print_message("killed -> answering again: %lld ms\n", (long long)(clock_mono_ms() - killed_at));
        assert_int_not_equal(proc_pid(k.p), pid);
    }
    assert_int_equal(k.spawns, 4);
    assert_int_equal(k.hangs, 0);
    keeper_close(&k);
    assert_int_equal(k.deaths, 3); /* being stopped is not a death */
}

static void a_stopped_worker_is_replaced(void **state) {
    (void)state;
    keeper k;
    keeper_open(&k, WORKER_DUMMY);
    run_until(&k, SUP_READY);
    int64_t stopped_at = clock_mono_ms();
    kill(proc_pid(k.p), SIGSTOP);
    run_until(&k, SUP_UNRESPONSIVE);
    run_until(&k, SUP_READY);
    print_message("stopped -> replaced and answering: %lld ms\n", (long long)(clock_mono_ms() - stopped_at));
    assert_int_equal(k.hangs, 1);
    assert_int_equal(k.spawns, 2);
    keeper_close(&k);
}

static void a_program_that_cannot_start_leads_to_safe_mode(void **state) {
    (void)state;
    keeper k;
    keeper_open(&k, "/nonexistent/worker");
    run_until(&k, SUP_SAFE_MODE);
    assert_int_equal(k.deaths, 5);
    k.program = WORKER_DUMMY; /* somebody put it back */
    tell(&k, SUP_EV_RETRY);
    run_until(&k, SUP_READY);
    keeper_close(&k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_worker_comes_back),
        cmocka_unit_test(a_stopped_worker_is_replaced),
        cmocka_unit_test(a_program_that_cannot_start_leads_to_safe_mode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
