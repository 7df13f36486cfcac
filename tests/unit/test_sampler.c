/* Schedules, samplers and guidance against the recorded reference; interruption, resumption, failure. */
#include "sample_vectors.h"
#include "toy_sampling.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* Relative to large values, absolute for small ones. */
static void assert_close(float got, double want) {
    assert_float_equal(got, (float)want, (float)(1e-5 * (1 + fabs(want))));
}

static void check_schedule(const char *name, const double *want, size_t count) {
    sigma_table table;
    float got[32];
    sigma_table_init(&table, 0.00085, 0.012);
    const schedule *s = schedule_find(name);
    assert_non_null(s);
    schedule_sigmas(s, &table, (int)count - 1, got);
    for (size_t i = 0; i < count; i++) assert_close(got[i], want[i]);
}

#define CHECK_SCHEDULE(name)                                                                                           \
    check_schedule(#name, ref_##name##_1, COUNT(ref_##name##_1));                                                      \
    check_schedule(#name, ref_##name##_2, COUNT(ref_##name##_2));                                                      \
    check_schedule(#name, ref_##name##_20, COUNT(ref_##name##_20))

static void schedules(void **state) {
    (void)state;
    CHECK_SCHEDULE(discrete);
    CHECK_SCHEDULE(karras);
    CHECK_SCHEDULE(exponential);
    CHECK_SCHEDULE(sgm_uniform);
    CHECK_SCHEDULE(simple);
    for (int i = 0; schedule_names[i]; i++) assert_non_null(schedule_find(schedule_names[i]));
    assert_ptr_equal(schedule_find("SGM Uniform"), schedule_find("sgm_uniform"));
    assert_null(schedule_find("nothing"));
}

static void sigmas_and_timesteps(void **state) {
    (void)state;
    sigma_table t;
    sigma_table_init(&t, 0.00085, 0.012);
    assert_float_equal(t.sigma[0], 0.0291675f, 1e-6f); /* the sigma_min and sigma_max that everyone quotes */
    assert_float_equal(t.sigma[999], 14.614641f, 1e-4f);
    for (float at = 0; at < 999; at += 33.3f) {
        assert_float_equal(sigma_to_timestep(&t, sigma_from_timestep(&t, at)), at, 0.01f);
    }
    assert_float_equal(sigma_to_timestep(&t, 1000.0f), 999.0f, 0);
    assert_float_equal(sigma_to_timestep(&t, 1e-6f), 0.0f, 0);
    assert_float_equal(sigma_from_timestep(&t, 2000.0f), t.sigma[999], 1e-4f);
}

static void image_steps(void **state) {
    (void)state;
    assert_int_equal(schedule_image_steps(20, 0.0f), 1);
    assert_int_equal(schedule_image_steps(20, 0.75f), 16);
    assert_int_equal(schedule_image_steps(20, 1.0f), 20);
    assert_int_equal(schedule_image_steps(1, 1.0f), 1);
    assert_int_equal(schedule_image_steps(200, 1.0f), 200);
}

static toy_case case_of(const ref_case *r) {
    return (toy_case){r->sampler, r->schedule, r->steps,      r->seed,      (size_t)r->n,
                      r->rng,     r->predicts, (float)r->cfg, (float)r->eta};
}

static void samplers_match_reference(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(ref_cases); i++) {
        toy_case c = case_of(&ref_cases[i]);
        toy y;
        err e;
        toy_open(&y, &c);
        assert_true(sampler_sample(y.kind, &y.run, &y.state, &e));
        for (size_t k = 0; k < c.n; k++) assert_close(y.state.x[k], ref_cases[i].out[k]);
        assert_int_equal(y.state.step, c.steps);
        toy_close(&y);
    }
}

/* Counts the network's evaluations: guidance 1 must not pay for the negative prompt, heun takes two per step but one
 * for the last. */
static void work_done(void **state) {
    (void)state;
    static const struct {
        const char *sampler;
        float cfg;
        int want;
    } rows[] = {{"euler", 7, 20}, {"euler", 1, 10}, {"heun", 1, 19}, {"dpm++2m", 2, 20}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        toy_case c = {rows[i].sampler, "karras", 10, 1, 16, "cuda", "eps", rows[i].cfg, 1};
        toy y;
        toy_open(&y, &c);
        assert_true(sampler_sample(y.kind, &y.run, &y.state, NULL));
        assert_int_equal(y.evaluations, rows[i].want);
        toy_close(&y);
    }
}

static bool stop_at_4(void *ctx, const sampler_state *s, err *e) {
    (void)ctx;
    return s->step < 4 || err_set(e, ERR_CANCELLED, "enough");
}

/* Everything that a run knows goes through a copy of the state, into fresh objects. */
static void resumed_runs_are_bit_identical(void **state) {
    (void)state;
    for (int i = 0; sampler_names[i]; i++) {
        for (int k = 0; rng_names[k]; k++) {
            toy_case c = {sampler_names[i], "karras", 9, 5, 33, rng_names[k], "eps", 5, 1};
            toy whole, first, second;
            err e;
            toy_open(&whole, &c);
            assert_true(sampler_sample(whole.kind, &whole.run, &whole.state, &e));
            toy_open(&first, &c);
            first.run.step_done = stop_at_4;
            assert_false(sampler_sample(first.kind, &first.run, &first.state, &e));
            assert_int_equal(e.code, ERR_CANCELLED);
            toy_open(&second, &c);
            memcpy(second.state.x, first.state.x, c.n * sizeof(float));
            memcpy(second.state.denoised, first.state.denoised, c.n * sizeof(float));
            second.state.step = first.state.step;
            second.state.call = first.state.call;
            assert_true(sampler_sample(second.kind, &second.run, &second.state, &e));
            assert_memory_equal(second.state.x, whole.state.x, c.n * sizeof(float));
            toy_close(&whole);
            toy_close(&first);
            toy_close(&second);
        }
    }
}

static bool predict_nan(void *ctx, const float *x, float t, float *positive, float *negative, err *e) {
    toy_predict(ctx, x, t, positive, negative, e);
    positive[3] = NAN;
    return true;
}

static bool predict_failure(void *ctx, const float *x, float t, float *positive, float *negative, err *e) {
    (void)ctx, (void)x, (void)t, (void)positive, (void)negative;
    return err_set(e, ERR_DEVICE, "lost");
}

static void failures_are_reported(void **state) {
    (void)state;
    for (int i = 0; sampler_names[i]; i++) {
        toy_case c = {sampler_names[i], "discrete", 3, 5, 16, "cuda", "eps", 5, 1};
        toy y;
        err e;
        toy_open(&y, &c);
        y.guide.predict = predict_nan;
        assert_false(sampler_sample(y.kind, &y.run, &y.state, &e));
        assert_int_equal(e.code, ERR_DEVICE);
        assert_string_equal(e.msg, "step 1: the model gave values that are not finite");
        y.guide.predict = predict_failure;
        assert_false(sampler_sample(y.kind, &y.run, &y.state, &e));
        assert_string_equal(e.msg, "lost");
        toy_close(&y);
    }
}

static void names_of_samplers(void **state) {
    (void)state;
    static const char *const rows[][3] = {
        {"Euler a", "euler_a", "discrete"},
        {"euler", "euler", "discrete"},
        {"DPM++ 2M", "dpm++2m", "karras"},
        {"DPM++ 2M Karras", "dpm++2m", "karras"},
        {"dpmpp_2m", "dpm++2m", "karras"},
        {"Euler a Karras", "euler_a", "karras"},
        {"k_euler_ancestral", "euler_a", "discrete"},
        {"Heun Exponential", "heun", "exponential"},
        {"DPM++ 2M SGM Uniform", "dpm++2m", "sgm_uniform"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        const schedule *implied = NULL;
        const sampler *s = sampler_find(rows[i][0], &implied);
        assert_non_null(s);
        assert_string_equal(s->name, rows[i][1]);
        assert_string_equal(implied->name, rows[i][2]);
    }
    for (int i = 0; sampler_names[i]; i++)
        assert_string_equal(sampler_find(sampler_names[i], NULL)->name, sampler_names[i]);
    static const char *const unknown[] = {"", NULL, "karras", "DPM adaptive", "eulerr"};
    for (size_t i = 0; i < COUNT(unknown); i++) assert_null(sampler_find(unknown[i], NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schedules),
        cmocka_unit_test(sigmas_and_timesteps),
        cmocka_unit_test(image_steps),
        cmocka_unit_test(samplers_match_reference),
        cmocka_unit_test(work_done),
        cmocka_unit_test(resumed_runs_are_bit_identical),
        cmocka_unit_test(failures_are_reported),
        cmocka_unit_test(names_of_samplers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
