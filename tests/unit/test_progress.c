/* test_progress.c - health answers written and read, and the judgement whether work stands still. */
#include "proc/progress.h"
#include "base/str.h"

#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* ---- health.h ---------------------------------------------------------------------------------------------- */

static void health_survives_writing_and_reading(void **state) {
    (void)state;
    static worker_health in = {.ok = true,
                               .service = "sd",
                               .version = "1.2.3",
                               .pid = 4711,
                               .state = WORKER_BUSY,
                               .model = "/models/\"odd\" n\xC3\xA4me.gguf",
                               .progress = {"j-12", "sampling", 3, 20, 1790000000123},
                               .memory = {{"CPU", 25000000000u, 21000000000u}, {"CUDA0", 1, 0}},
                               .memory_count = 2,
                               .rss = 123456789};
    static worker_health out;
    buf json;
    buf_init(&json, 1 << 16);
    worker_health_write(&in, &json);
    err e = {0};
    if (!worker_health_parse(buf_str(&json), json.len, &out, &e)) fail_msg("%s", e.msg);
    assert_memory_equal(&in, &out, sizeof in);
    buf_free(&json);
}

static void the_example_of_the_protocol_is_understood(void **state) {
    (void)state;
    const char *json =
        "{\"ok\": true, \"service\": \"sd\", \"version\": \"0.1.0\", \"pid\": 4711, \"state\": \"idle\","
        "\"model\": null, \"progress\": {\"job\": null, \"phase\": \"sampling\", \"step\": 3, \"steps\": 20,"
        "\"stamp_ms\": 1790000000123}, \"memory\": [], \"rss\": 1, \"new key\": [1]}";
    static worker_health h;
    err e = {0};
    if (!worker_health_parse(json, strlen(json), &h, &e)) fail_msg("%s", e.msg);
    assert_int_equal(h.state, WORKER_IDLE);
    assert_string_equal(h.model, "");
    assert_string_equal(h.progress.job, "");
    assert_int_equal(h.progress.step, 3);
}

static void nonsense_is_refused(void **state) {
    (void)state;
    static const char *const bad[] = {"",
                                      "[]",
                                      "nonsense",
                                      "{\"ok\":true}",
                                      "{\"state\":\"asleep\"}",
                                      "{\"state\":7}",
                                      "{\"state\":\"idle\",\"pid\":-1}",
                                      "{\"state\":\"idle\",\"memory\":[1]}",
                                      "{\"state\":\"idle\",\"progress\":{\"step\":99999999999}}"};
    static worker_health h;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        err e = {0};
        if (worker_health_parse(bad[i], strlen(bad[i]), &h, &e)) fail_msg("accepted: %s", bad[i]);
        assert_true(e.msg[0]);
    }
}

static void more_devices_than_fit_are_cut(void **state) {
    (void)state;
    buf json;
    buf_init(&json, 1 << 16);
    buf_puts(&json, "{\"state\":\"idle\",\"memory\":[");
    for (int i = 0; i < 20; i++) buf_printf(&json, "%s{\"device\":\"GPU%d\"}", i ? "," : "", i);
    buf_puts(&json, "]}");
    static worker_health h;
    assert_true(worker_health_parse(buf_str(&json), json.len, &h, NULL));
    assert_int_equal(h.memory_count, WORKER_MEMORY_MAX);
    buf_free(&json);
}

/* ---- progress.h -------------------------------------------------------------------------------------------- */

static worker_health at_step(const char *job, int step, int64_t stamp) {
    worker_health h = {.ok = true, .state = WORKER_BUSY};
    str_copy(h.progress.job, sizeof h.progress.job, job);
    str_copy(h.progress.phase, sizeof h.progress.phase, "sampling");
    h.progress.step = step;
    h.progress.steps = 20;
    h.progress.stamp_ms = stamp;
    return h;
}

static void standing_still_for_a_minute_is_stalled(void **state) {
    (void)state;
    progress_watch w = {0};
    worker_health h = at_step("j", 1, 500);
    assert_false(progress_stalled(&w, &h, 1000));
    assert_false(progress_stalled(&w, &h, 61000));
    assert_true(progress_stalled(&w, &h, 61001));
    h.progress.stamp_ms++;
    assert_false(progress_stalled(&w, &h, 61002));
}

static void a_stamp_that_moves_is_enough(void **state) {
    (void)state;
    progress_watch w = {0};
    for (int i = 0; i < 1000; i++) {
        worker_health h = at_step("j", 0, i + 1);
        h.state = WORKER_LOADING;
        assert_false(progress_stalled(&w, &h, i * 50000));
    }
}

static void idle_is_never_stalled(void **state) {
    (void)state;
    progress_watch w = {0};
    worker_health h = at_step("j", 1, 500);
    h.state = WORKER_IDLE;
    for (int i = 0; i < 100; i++) assert_false(progress_stalled(&w, &h, i * 50000));
    h.state = WORKER_BUSY; /* a new job whose stamp is old: the minute begins now */
    assert_false(progress_stalled(&w, &h, 5000000));
    assert_false(progress_stalled(&w, &h, 5060000));
    assert_true(progress_stalled(&w, &h, 5060001));
}

static void slow_steps_earn_patience(void **state) {
    (void)state;
    progress_watch w = {0};
    int64_t now = 0;
    assert_int_equal(progress_limit_ms(&w), 60000);
    for (int step = 0; step <= 5; step++) {
        now += 24000;
        worker_health h = at_step("j", step, now);
        assert_false(progress_stalled(&w, &h, now));
        h.progress.stamp_ms += 7; /* a sign of life between steps does not shorten the step */
        assert_false(progress_stalled(&w, &h, now + 1000));
    }
    assert_int_equal(progress_median_step_ms(&w), 24000);
    worker_health h = at_step("j", 5, now + 7);
    assert_false(progress_stalled(&w, &h, now + 1000 + 480000));
    assert_true(progress_stalled(&w, &h, now + 1000 + 480001));
    progress_restart(&w);
    assert_int_equal(progress_limit_ms(&w), 480000); /* the machine is as slow as before */
}

static void the_median_ignores_outliers_and_jumps_of_the_clock(void **state) {
    (void)state;
    progress_watch w = {0};
    static const int64_t stamps[] = {1000, 2000, 3000, 4000, 900000, 901000, 5000, 6000};
    for (int i = 0; i < 8; i++) {
        worker_health h = at_step("j", i + 1, stamps[i]);
        progress_stalled(&w, &h, i * 1000);
    }
    assert_int_equal(progress_median_step_ms(&w), 1000);
    worker_health other = at_step("k", 9, 999999); /* another job's step 9 is not this job's */
    progress_stalled(&w, &other, 10000);
    assert_int_equal(w.samples, 6);
}

static void several_steps_between_answers_share_the_time(void **state) {
    (void)state;
    progress_watch w = {0};
    worker_health a = at_step("j", 2, 1000), b = at_step("j", 12, 2000);
    progress_stalled(&w, &a, 0);
    progress_stalled(&w, &b, 1000);
    assert_int_equal(progress_median_step_ms(&w), 100);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(health_survives_writing_and_reading),
        cmocka_unit_test(the_example_of_the_protocol_is_understood),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(more_devices_than_fit_are_cut),
        cmocka_unit_test(standing_still_for_a_minute_is_stalled),
        cmocka_unit_test(a_stamp_that_moves_is_enough),
        cmocka_unit_test(idle_is_never_stalled),
        cmocka_unit_test(slow_steps_earn_patience),
        cmocka_unit_test(the_median_ignores_outliers_and_jumps_of_the_clock),
        cmocka_unit_test(several_steps_between_answers_share_the_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
