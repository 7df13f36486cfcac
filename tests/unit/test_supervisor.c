/* test_supervisor.c - the table cell by cell, then stories, then random histories against the promises of the header.
 */
#include "proc/supervisor.h"
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* A supervisor and its clock. */
typedef struct bench {
    supervisor s;
    int64_t now;
    char did[256]; /* the last actions: "alert(died) timer(30000) spawn" */
} bench;

static void render(const sup_actions *a, char *out, size_t cap) {
    size_t n = 0;
    out[0] = 0;
    for (size_t i = 0; i < a->count; i++) {
        const sup_action *x = &a->item[i];
        const char *gap = i ? " " : "";
        int k;
        if (x->type == SUP_DO_ALERT)
            k = snprintf(out + n, cap - n, "%salert(%s)", gap, sup_alert_name(x->alert));
        else if (x->type == SUP_DO_SET_TIMER)
            k = snprintf(out + n, cap - n, "%stimer(%d)", gap, x->ms);
        else
            k = snprintf(out + n, cap - n, "%s%s", gap, sup_action_name(x->type));
        n += (size_t)k;
    }
}

static void tell(bench *b, sup_event_type type) {
    sup_event ev = {.type = type, .now_ms = b->now, .jitter = 0};
    sup_actions a = supervisor_step(&b->s, &ev);
    render(&a, b->did, sizeof b->did);
}

/* The event comes `ms` later. */
static void after(bench *b, int64_t ms, sup_event_type type) {
    b->now += ms;
    tell(b, type);
}

static void expect(const bench *b, sup_state state, const char *did) {
    assert_string_equal(sup_state_name(b->s.state), sup_state_name(state));
    assert_string_equal(b->did, did);
}

static bench new_bench(bool has_model) {
    bench b = {.now = 1000000};
    supervisor_init(&b.s);
    b.s.has_model = has_model;
    return b;
}

static void bring_up(bench *b) {
    tell(b, SUP_EV_START);
    tell(b, SUP_EV_SPAWNED);
    after(b, 20, SUP_EV_HEALTH_OK);
    if (b->s.has_model) after(b, 500, SUP_EV_RESTORED);
    assert_int_equal(b->s.state, SUP_READY);
}

/* ---- every situation x every event ------------------------------------------------------------------------- */

typedef enum situation {
    STOPPED,
    STOPPING, /* stopped, but the process still ends */
    STARTING,
    RESTORING,
    READY, /* two misses so far */
    UNRESPONSIVE,
    BACKOFF,
    SAFE_GONE,   /* safe mode, no process */
    SAFE_COMING, /* it was started and has not answered */
    SAFE_UP,     /* it answers; two misses so far */
    SAFE_ENDING, /* it hung, and was killed */
    SITUATIONS,
} situation;

static void die_until(bench *b, sup_state state) {
    while (b->s.state != state) {
        if (b->s.live)
            tell(b, SUP_EV_EXITED);
        else
            after(b, b->s.timer_at - b->now, SUP_EV_TIMER);
    }
}

static void go_safe(bench *b, situation to) {
    die_until(b, SUP_SAFE_MODE);
    if (to == SAFE_GONE) return;
    after(b, b->s.timer_at - b->now, SUP_EV_TIMER);
    if (to == SAFE_COMING) return;
    tell(b, SUP_EV_HEALTH_OK);
    for (int i = 0; i < (to == SAFE_UP ? 2 : 3); i++) tell(b, SUP_EV_HEALTH_MISS);
}

static bench arrange(situation to) {
    bench b = new_bench(true);
    if (to == STOPPED) return b;
    bring_up(&b);
    switch (to) {
    case STOPPING:
        tell(&b, SUP_EV_STOP);
        break;
    case STARTING:
        tell(&b, SUP_EV_EXITED);
        break;
    case RESTORING:
        tell(&b, SUP_EV_EXITED), tell(&b, SUP_EV_HEALTH_OK);
        break;
    case READY:
        tell(&b, SUP_EV_HEALTH_MISS), tell(&b, SUP_EV_HEALTH_MISS);
        break;
    case UNRESPONSIVE:
        tell(&b, SUP_EV_NO_PROGRESS);
        break;
    case BACKOFF:
        die_until(&b, SUP_BACKOFF);
        break;
    default:
        go_safe(&b, to);
        break;
    }
    return b;
}

typedef struct cell {
    sup_state next;
    const char *did;
} cell;

/* The delays: the first death was at `ready`, so the next one waits 250 ms; the fifth one 2 s, and those in safe mode
 * go on doubling. */
static const struct {
    const char *name;
    sup_state state;          /* where the situation is */
    cell on[SUP_EVENT_COUNT]; /* did == NULL: nothing happens */
} expected[SITUATIONS] = {
    [STOPPED] = {"stopped", SUP_STOPPED, {[SUP_EV_START] = {SUP_STARTING, "timer(30000) spawn"}}},
    [STOPPING] = {"stopping",
                  SUP_STOPPED,
                  {[SUP_EV_START] = {SUP_STOPPED, ""}, /* its exit starts the next */
                   [SUP_EV_EXITED] = {SUP_STOPPED, ""},
                   [SUP_EV_TIMER] = {SUP_STOPPED, "alert(unkillable) kill timer(5000)"}}},
    [STARTING] = {"starting",
                  SUP_STARTING,
                  {[SUP_EV_STOP] = {SUP_STOPPED, "terminate timer(5000)"},
                   [SUP_EV_EXITED] = {SUP_BACKOFF, "alert(died) timer(250)"},
                   [SUP_EV_HEALTH_OK] = {SUP_RESTORING, "restore"},
                   [SUP_EV_TIMER] = {SUP_UNRESPONSIVE, "alert(start_limit) kill timer(5000)"}}},
    [RESTORING] = {"restoring",
                   SUP_RESTORING,
                   {[SUP_EV_STOP] = {SUP_STOPPED, "terminate timer(5000)"},
                    [SUP_EV_EXITED] = {SUP_BACKOFF, "alert(died) timer(250)"},
                    [SUP_EV_HEALTH_OK] = {SUP_RESTORING, ""},
                    [SUP_EV_HEALTH_MISS] = {SUP_RESTORING, ""},
                    [SUP_EV_NO_PROGRESS] = {SUP_UNRESPONSIVE, "alert(stalled) terminate timer(5000)"},
                    [SUP_EV_RESTORED] = {SUP_READY, "alert(ready)"},
                    [SUP_EV_RESTORE_FAILED] = {SUP_READY, "alert(restore_failed)"}}},
    [READY] = {"ready",
               SUP_READY,
               {[SUP_EV_STOP] = {SUP_STOPPED, "terminate timer(5000)"},
                [SUP_EV_EXITED] = {SUP_STARTING, "alert(died) timer(30000) spawn"},
                [SUP_EV_HEALTH_OK] = {SUP_READY, ""},
                [SUP_EV_HEALTH_MISS] = {SUP_UNRESPONSIVE, "alert(hung) kill timer(5000)"},
                [SUP_EV_NO_PROGRESS] = {SUP_UNRESPONSIVE, "alert(stalled) terminate timer(5000)"},
                [SUP_EV_WORK_DONE] = {SUP_READY, ""},
                [SUP_EV_RETRY] = {SUP_RESTORING, "restore"}}},
    [UNRESPONSIVE] = {"unresponsive",
                      SUP_UNRESPONSIVE,
                      {[SUP_EV_STOP] = {SUP_STOPPED, ""}, /* it is being ended already */
                       [SUP_EV_EXITED] = {SUP_STARTING, "alert(died) timer(30000) spawn"},
                       [SUP_EV_TIMER] = {SUP_UNRESPONSIVE, "alert(unkillable) kill timer(5000)"}}},
    [BACKOFF] = {"backoff",
                 SUP_BACKOFF,
                 {[SUP_EV_STOP] = {SUP_STOPPED, ""},
                  [SUP_EV_RETRY] = {SUP_STARTING, "timer(30000) spawn"},
                  [SUP_EV_TIMER] = {SUP_STARTING, "timer(30000) spawn"}}},
    [SAFE_GONE] = {"safe_mode, gone",
                   SUP_SAFE_MODE,
                   {[SUP_EV_STOP] = {SUP_STOPPED, ""},
                    [SUP_EV_RETRY] = {SUP_STARTING, "timer(30000) spawn"},
                    [SUP_EV_TIMER] = {SUP_SAFE_MODE, "timer(30000) spawn"}}},
    [SAFE_COMING] = {"safe_mode, coming",
                     SUP_SAFE_MODE,
                     {[SUP_EV_STOP] = {SUP_STOPPED, "terminate timer(5000)"},
                      [SUP_EV_EXITED] = {SUP_SAFE_MODE, "alert(died) timer(4000)"},
                      [SUP_EV_HEALTH_OK] = {SUP_SAFE_MODE, ""},
                      [SUP_EV_HEALTH_MISS] = {SUP_SAFE_MODE, ""},
                      [SUP_EV_RETRY] = {SUP_STARTING, ""},
                      [SUP_EV_TIMER] = {SUP_SAFE_MODE, "alert(start_limit) kill timer(5000)"}}},
    [SAFE_UP] = {"safe_mode, up",
                 SUP_SAFE_MODE,
                 {[SUP_EV_STOP] = {SUP_STOPPED, "terminate timer(5000)"},
                  [SUP_EV_EXITED] = {SUP_SAFE_MODE, "alert(died) timer(4000)"},
                  [SUP_EV_HEALTH_OK] = {SUP_SAFE_MODE, ""},
                  [SUP_EV_HEALTH_MISS] = {SUP_SAFE_MODE, "alert(hung) kill timer(5000)"},
                  [SUP_EV_NO_PROGRESS] = {SUP_SAFE_MODE, "alert(stalled) terminate timer(5000)"},
                  [SUP_EV_WORK_DONE] = {SUP_READY, "alert(ready)"},
                  [SUP_EV_RETRY] = {SUP_RESTORING, "restore"}}},
    [SAFE_ENDING] = {"safe_mode, ending",
                     SUP_SAFE_MODE,
                     {[SUP_EV_STOP] = {SUP_STOPPED, ""},
                      [SUP_EV_EXITED] = {SUP_SAFE_MODE, "alert(died) timer(4000)"},
                      [SUP_EV_RETRY] = {SUP_UNRESPONSIVE, ""},
                      [SUP_EV_TIMER] = {SUP_SAFE_MODE, "alert(unkillable) kill timer(5000)"}}},
};

static void check_cell(situation from, sup_event_type type) {
    bench b = arrange(from);
    cell want = expected[from].on[type];
    if (!want.did) want = (cell){expected[from].state, ""};
    assert_int_equal(b.s.state, expected[from].state);
    if (type == SUP_EV_TIMER && b.s.timer_at > b.now) b.now = b.s.timer_at;
    tell(&b, type);
    if (b.s.state != want.next || !str_eq(b.did, want.did))
        fail_msg("%s + %s: expected %s [%s], got %s [%s]", expected[from].name, sup_event_name(type),
                 sup_state_name(want.next), want.did, sup_state_name(b.s.state), b.did);
}

static void every_event_in_every_situation(void **state) {
    (void)state;
    for (int from = 0; from < SITUATIONS; from++)
        for (int type = 0; type < SUP_EVENT_COUNT; type++) check_cell((situation)from, (sup_event_type)type);
}

/* ---- stories ----------------------------------------------------------------------------------------------- */

static void a_worker_without_a_model_is_ready_with_its_first_answer(void **state) {
    (void)state;
    bench b = new_bench(false);
    tell(&b, SUP_EV_START);
    expect(&b, SUP_STARTING, "timer(30000) spawn");
    after(&b, 10, SUP_EV_HEALTH_OK);
    expect(&b, SUP_READY, ""); /* nothing had happened: no news */
}

static void delays_grow_and_end_at_ten_seconds(void **state) {
    (void)state;
    static const int delays[] = {0, 250, 500, 1000, 2000, 4000, 8000, 10000, 10000, 10000};
    bench b = new_bench(false);
    bring_up(&b);
    for (size_t i = 0; i < sizeof delays / sizeof delays[0]; i++) {
        b.now += 50000; /* far apart, but never up for a minute */
        int64_t died_at = b.now;
        tell(&b, SUP_EV_EXITED);
        if (delays[i] > 0) {
            assert_int_equal(b.s.timer_at - died_at, delays[i]);
            assert_int_equal(b.s.state, SUP_BACKOFF);
            after(&b, delays[i], SUP_EV_TIMER);
        }
        assert_int_equal(b.s.state, SUP_STARTING);
        after(&b, 20, SUP_EV_HEALTH_OK);
    }
    assert_int_equal(b.s.total_deaths, 10);
}

static void jitter_takes_up_to_a_quarter_off(void **state) {
    (void)state;
    bench b = new_bench(false);
    bring_up(&b);
    tell(&b, SUP_EV_EXITED);
    sup_event ev = {.type = SUP_EV_EXITED, .now_ms = b.now, .jitter = 0.5};
    supervisor_step(&b.s, &ev);
    assert_int_equal(b.s.timer_at - b.now, 218); /* 250 * (1 - 0.125) */
}

static void five_deaths_in_a_minute_lead_to_safe_mode(void **state) {
    (void)state;
    bench b = new_bench(false);
    bring_up(&b);
    for (int i = 0; i < 4; i++) {
        after(&b, 14000, SUP_EV_EXITED);
        if (b.s.state == SUP_BACKOFF) tell(&b, SUP_EV_TIMER); /* too early: it waits for the rest */
        if (b.s.state == SUP_BACKOFF) after(&b, b.s.timer_at - b.now, SUP_EV_TIMER);
        after(&b, 20, SUP_EV_HEALTH_OK);
        assert_int_equal(b.s.state, SUP_READY);
    }
    after(&b, 2000, SUP_EV_EXITED); /* within 60 s of the first */
    expect(&b, SUP_SAFE_MODE, "alert(died) alert(safe_mode) timer(2000)");
}

static void five_deaths_further_apart_do_not(void **state) {
    (void)state;
    bench b = new_bench(false);
    bring_up(&b);
    for (int i = 0; i < 20; i++) {
        after(&b, 15500, SUP_EV_EXITED);
        if (b.s.state == SUP_BACKOFF) after(&b, b.s.timer_at - b.now, SUP_EV_TIMER);
        tell(&b, SUP_EV_HEALTH_OK);
        assert_int_equal(b.s.state, SUP_READY);
    }
}

static void a_successful_load_does_not_reset_the_tally(void **state) {
    (void)state;
    bench b = new_bench(true);
    bring_up(&b);
    for (int i = 0; i < 5; i++) { /* loads well, dies with the first generation */
        after(&b, 1000, SUP_EV_EXITED);
        if (b.s.state == SUP_SAFE_MODE) break;
        if (b.s.state == SUP_BACKOFF) after(&b, b.s.timer_at - b.now, SUP_EV_TIMER);
        tell(&b, SUP_EV_HEALTH_OK);
        after(&b, 800, SUP_EV_RESTORED);
        assert_int_equal(b.s.state, SUP_READY);
    }
    assert_int_equal(b.s.state, SUP_SAFE_MODE);
}

static void a_successful_generation_resets_tally_and_backoff(void **state) {
    (void)state;
    bench b = new_bench(true);
    bring_up(&b);
    for (int i = 0; i < 20; i++) {
        after(&b, 100, SUP_EV_EXITED);
        expect(&b, SUP_STARTING, "alert(died) timer(30000) spawn"); /* at once, every time */
        after(&b, 20, SUP_EV_HEALTH_OK);
        after(&b, 100, SUP_EV_RESTORED);
        after(&b, 100, SUP_EV_WORK_DONE);
    }
}

static void a_model_that_crashes_while_loading_slowly_is_given_up(void **state) {
    (void)state;
    bench b = new_bench(true);
    bring_up(&b);
    tell(&b, SUP_EV_EXITED);
    for (int i = 0; i < 3; i++) {
        if (b.s.state == SUP_BACKOFF) after(&b, b.s.timer_at - b.now, SUP_EV_TIMER);
        tell(&b, SUP_EV_HEALTH_OK);
        expect(&b, SUP_RESTORING, "restore");
        after(&b, 300000, SUP_EV_EXITED); /* five minutes into the load, so never five deaths in a minute */
    }
    assert_int_equal(b.s.state, SUP_SAFE_MODE);
    tell(&b, SUP_EV_HEALTH_OK); /* it had been started at once: it was up for minutes */
    assert_int_equal(b.s.state, SUP_SAFE_MODE);
    tell(&b, SUP_EV_RETRY);
    expect(&b, SUP_RESTORING, "restore");
    after(&b, 1000, SUP_EV_RESTORED);
    expect(&b, SUP_READY, "alert(ready)");
}

static void a_connection_that_breaks_before_the_exit_is_told_counts_as_well(void **state) {
    (void)state;
    bench b = new_bench(true);
    bring_up(&b);
    tell(&b, SUP_EV_EXITED);
    for (int i = 0; i < 3; i++) {
        if (b.s.state == SUP_BACKOFF) after(&b, b.s.timer_at - b.now, SUP_EV_TIMER);
        tell(&b, SUP_EV_HEALTH_OK);
        after(&b, 300000, SUP_EV_RESTORE_FAILED);
        expect(&b, SUP_READY, "alert(restore_failed)");
        after(&b, 1, SUP_EV_EXITED);
    }
    assert_int_equal(b.s.state, SUP_SAFE_MODE);
}

static void an_ordinary_error_of_a_load_is_no_death(void **state) {
    (void)state;
    bench b = new_bench(true);
    bring_up(&b);
    for (int i = 0; i < 10; i++) {
        tell(&b, SUP_EV_RETRY);
        after(&b, 100, SUP_EV_RESTORE_FAILED); /* the file is gone, say */
        expect(&b, SUP_READY, "alert(restore_failed)");
        after(&b, 1000, SUP_EV_HEALTH_OK);
        after(&b, 100000, SUP_EV_EXITED); /* much later, of something else */
        expect(&b, SUP_STARTING, "alert(died) timer(30000) spawn");
        assert_int_equal(b.s.restore_deaths, 0);
        tell(&b, SUP_EV_HEALTH_OK);
        tell(&b, SUP_EV_RESTORED);
    }
}

static void loading_slowly_is_not_hanging(void **state) {
    (void)state;
    bench b = new_bench(true);
    tell(&b, SUP_EV_START);
    after(&b, 20, SUP_EV_HEALTH_OK);
    for (int i = 0; i < 3600; i++) {
        after(&b, 1000, SUP_EV_HEALTH_OK);
        expect(&b, SUP_RESTORING, "");
        if (i % 3) after(&b, 0, SUP_EV_HEALTH_MISS); /* never three in a row */
        assert_int_equal(b.s.state, SUP_RESTORING);
    }
}

static void a_program_that_starts_slowly_is_left_alone(void **state) {
    (void)state;
    bench b = new_bench(false);
    tell(&b, SUP_EV_START);
    for (int i = 0; i < 29; i++) {
        after(&b, 1000, SUP_EV_HEALTH_MISS);
        expect(&b, SUP_STARTING, "");
    }
    tell(&b, SUP_EV_HEALTH_OK);
    expect(&b, SUP_READY, "");
    after(&b, 1000, SUP_EV_TIMER); /* the start's timer, late */
    expect(&b, SUP_READY, "");
}

static void a_stopped_process_is_replaced_within_five_seconds(void **state) {
    (void)state;
    bench b = new_bench(true);
    bring_up(&b);
    int64_t stopped_at = b.now;
    after(&b, 1000, SUP_EV_HEALTH_OK); /* the answer was on its way; the next question comes 1 s later */
    for (int i = 0; i < 3; i++) after(&b, 1000, SUP_EV_HEALTH_MISS);
    expect(&b, SUP_UNRESPONSIVE, "alert(hung) kill timer(5000)");
    after(&b, 10, SUP_EV_EXITED);
    expect(&b, SUP_STARTING, "alert(died) timer(30000) spawn");
    assert_true(b.now - stopped_at < 5000);
}

static void an_answer_between_misses_counts_anew(void **state) {
    (void)state;
    bench b = new_bench(true);
    bring_up(&b);
    for (int i = 0; i < 100; i++) {
        after(&b, 1000, i % 3 == 2 ? SUP_EV_HEALTH_OK : SUP_EV_HEALTH_MISS);
        expect(&b, SUP_READY, "");
    }
}

static void start_while_ending_waits_for_the_exit(void **state) {
    (void)state;
    bench b = new_bench(true);
    bring_up(&b);
    tell(&b, SUP_EV_STOP);
    expect(&b, SUP_STOPPED, "terminate timer(5000)");
    tell(&b, SUP_EV_START);
    expect(&b, SUP_STOPPED, "");
    after(&b, 300, SUP_EV_EXITED);
    expect(&b, SUP_STARTING, "timer(30000) spawn"); /* a stop is not a death */
    assert_int_equal(b.s.total_deaths, 0);
}

static void what_an_ending_process_says_is_void(void **state) {
    (void)state;
    bench b = new_bench(true);
    bring_up(&b);
    for (int i = 0; i < 4; i++) after(&b, 100, SUP_EV_EXITED), after(&b, 20000, SUP_EV_TIMER);
    assert_int_equal(b.s.restarts, 4);
    tell(&b, SUP_EV_HEALTH_OK);
    tell(&b, SUP_EV_RESTORED);
    tell(&b, SUP_EV_NO_PROGRESS);
    tell(&b, SUP_EV_WORK_DONE);
    assert_int_equal(b.s.restarts, 4); /* not reset */
    tell(&b, SUP_EV_HEALTH_OK);
    expect(&b, SUP_UNRESPONSIVE, "");
}

static void safe_mode_ends_with_a_generation(void **state) {
    (void)state;
    bench b = arrange(SAFE_UP);
    tell(&b, SUP_EV_WORK_DONE); /* somebody loaded another model, and it works */
    expect(&b, SUP_READY, "alert(ready)");
    after(&b, 100, SUP_EV_EXITED);
    expect(&b, SUP_STARTING, "alert(died) timer(30000) spawn");
}

static void safe_mode_never_restores_by_itself(void **state) {
    (void)state;
    bench b = arrange(SAFE_GONE);
    for (int i = 0; i < 50; i++) {
        if (!b.s.live) after(&b, b.s.timer_at - b.now, SUP_EV_TIMER);
        tell(&b, SUP_EV_HEALTH_OK);
        expect(&b, SUP_SAFE_MODE, "");
        after(&b, 70000, SUP_EV_EXITED);
        assert_null(strstr(b.did, "restore"));
    }
}

/* ---- random histories -------------------------------------------------------------------------------------- */

/* A world that behaves as processes do, by chance, and keeps count of them. */
typedef struct world {
    bench b;
    unsigned rng;
    int live;         /* processes alive */
    bool told_to_end; /* TERMINATE or KILL since the last SPAWN */
    int64_t timer_at; /* -1: none */
    bool restoring;   /* a RESTORE is outstanding */
} world;

static unsigned dice(world *w, unsigned sides) {
    w->rng = w->rng * 1664525u + 1013904223u;
    return (w->rng >> 8) % sides;
}

static void perform(world *w, const sup_actions *a) {
    for (size_t i = 0; i < a->count; i++) {
        switch (a->item[i].type) {
        case SUP_DO_SPAWN:
            assert_int_equal(w->live, 0); /* never two */
            w->live++;
            w->told_to_end = w->restoring = false;
            break;
        case SUP_DO_RESTORE:
            assert_int_equal(w->live, 1);
            assert_false(w->told_to_end);
            w->restoring = true;
            break;
        case SUP_DO_TERMINATE:
        case SUP_DO_KILL:
            assert_int_equal(w->live, 1);
            w->told_to_end = true;
            break;
        case SUP_DO_SET_TIMER:
            assert_in_range(a->item[i].ms, 1, SUP_START_LIMIT_MS);
            w->timer_at = w->b.now + a->item[i].ms;
            break;
        case SUP_DO_ALERT:
            break;
        }
    }
}

static void happen(world *w, sup_event_type type) {
    if (type == SUP_EV_EXITED && w->live) w->live = 0;
    if (type == SUP_EV_RESTORED || type == SUP_EV_RESTORE_FAILED) w->restoring = false;
    sup_event ev = {.type = type, .now_ms = w->b.now, .jitter = dice(w, 1000) / 1000.0};
    sup_actions a = supervisor_step(&w->b.s, &ev);
    perform(w, &a);
    supervisor *s = &w->b.s;
    assert_int_equal(s->live, w->live);
    assert_true(s->state < SUP_STATE_COUNT);
    if (s->state == SUP_READY || s->state == SUP_RESTORING) assert_true(s->live && s->answered && !s->ending);
    if (s->state == SUP_BACKOFF) assert_true(!s->live && s->timer_at >= 0); /* it goes on by itself */
    if (s->state == SUP_UNRESPONSIVE) assert_true(s->ending && s->timer_at >= 0);
    if (s->state == SUP_SAFE_MODE && !s->live) assert_true(s->timer_at >= 0);
    if (s->state == SUP_STARTING) assert_true(s->live && s->timer_at >= 0);
    if (s->timer_at >= 0) assert_true(w->timer_at >= 0 && w->timer_at <= s->timer_at);
}

static void pass_time(world *w, int64_t ms) {
    int64_t until = w->b.now + ms;
    while (w->timer_at >= 0 && w->timer_at <= until) {
        w->b.now = w->timer_at;
        w->timer_at = -1;
        happen(w, SUP_EV_TIMER);
    }
    w->b.now = until;
}

/* From anywhere, with a worker that now behaves well, it comes to rest in ready or safe mode (or stopped). */
static void behave(world *w) {
    for (int i = 0; i < 40; i++) {
        if (w->live && w->told_to_end)
            happen(w, SUP_EV_EXITED);
        else if (w->live)
            happen(w, SUP_EV_HEALTH_OK);
        if (w->restoring && w->live && !w->told_to_end) happen(w, SUP_EV_RESTORED);
        pass_time(w, 1000);
    }
    supervisor *s = &w->b.s;
    if (s->wanted) {
        assert_true(s->live);
        assert_true(s->state == SUP_READY || s->state == SUP_SAFE_MODE);
    } else {
        assert_int_equal(s->state, SUP_STOPPED);
        assert_int_equal(w->live, 0);
    }
}

static void random_histories_keep_the_promises(void **state) {
    (void)state;
    const char *given = getenv("SUPERVISOR_SEED");
    unsigned seed = given ? (unsigned)strtoul(given, NULL, 10) : 20260101u;
    print_message("SUPERVISOR_SEED=%u\n", seed);
    for (unsigned run = 0; run < 2000; run++) {
        world w = {.b = new_bench(run % 2), .rng = seed + run * 7919u, .timer_at = -1};
        unsigned calm = dice(&w, 4); /* some worlds are calm, some are wild */
        for (int i = 0; i < 300; i++) {
            unsigned type = dice(&w, SUP_EVENT_COUNT);
            if (calm && (type == SUP_EV_STOP || type == SUP_EV_EXITED) && dice(&w, 10)) type = SUP_EV_HEALTH_OK;
            happen(&w, (sup_event_type)type);
            pass_time(&w, dice(&w, 2000));
        }
        behave(&w);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_event_in_every_situation),
        cmocka_unit_test(a_worker_without_a_model_is_ready_with_its_first_answer),
        cmocka_unit_test(delays_grow_and_end_at_ten_seconds),
        cmocka_unit_test(jitter_takes_up_to_a_quarter_off),
        cmocka_unit_test(five_deaths_in_a_minute_lead_to_safe_mode),
        cmocka_unit_test(five_deaths_further_apart_do_not),
        cmocka_unit_test(a_successful_load_does_not_reset_the_tally),
        cmocka_unit_test(a_successful_generation_resets_tally_and_backoff),
        cmocka_unit_test(a_model_that_crashes_while_loading_slowly_is_given_up),
        cmocka_unit_test(a_connection_that_breaks_before_the_exit_is_told_counts_as_well),
        cmocka_unit_test(an_ordinary_error_of_a_load_is_no_death),
        cmocka_unit_test(loading_slowly_is_not_hanging),
        cmocka_unit_test(a_program_that_starts_slowly_is_left_alone),
        cmocka_unit_test(a_stopped_process_is_replaced_within_five_seconds),
        cmocka_unit_test(an_answer_between_misses_counts_anew),
        cmocka_unit_test(start_while_ending_waits_for_the_exit),
        cmocka_unit_test(what_an_ending_process_says_is_void),
        cmocka_unit_test(safe_mode_ends_with_a_generation),
        cmocka_unit_test(safe_mode_never_restores_by_itself),
        cmocka_unit_test(random_histories_keep_the_promises),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
