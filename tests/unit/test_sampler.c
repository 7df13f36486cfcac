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
    float got[128];
    sigma_table_init(&table, 0.00085, 0.012);
    const schedule *s = schedule_find(name);
    assert_non_null(s);
    schedule_sigmas(s, &table, (int)count - 1, got);
    for (size_t i = 0; i < count; i++) assert_close(got[i], want[i]);
}

#define CHECK_SCHEDULE(name)                                                                                           \
    check_schedule(#name, ref_##name##_1, COUNT(ref_##name##_1));                                                      \
    check_schedule(#name, ref_##name##_2, COUNT(ref_##name##_2));                                                      \
    check_schedule(#name, ref_##name##_20, COUNT(ref_##name##_20));                                                    \
    check_schedule(#name, ref_##name##_83, COUNT(ref_##name##_83))

static void schedules(void **state) {
    (void)state;
    CHECK_SCHEDULE(discrete);
    CHECK_SCHEDULE(karras);
    CHECK_SCHEDULE(exponential);
    CHECK_SCHEDULE(sgm_uniform);
    CHECK_SCHEDULE(simple);
    CHECK_SCHEDULE(ays);
    CHECK_SCHEDULE(gits);
    CHECK_SCHEDULE(ddim_uniform);
    CHECK_SCHEDULE(kl_optimal);
    CHECK_SCHEDULE(beta);
    CHECK_SCHEDULE(lcm);
    CHECK_SCHEDULE(smoothstep);
    CHECK_SCHEDULE(linear_quadratic);
}

/* Multistep samplers divide by the length of a step. */
static void schedules_fall_strictly(void **state) {
    (void)state;
    sigma_table table;
    float got[202];
    sigma_table_init(&table, 0.00085, 0.012);
    for (int i = 0; schedule_names[i]; i++) {
        for (int steps = 1; steps <= 201; steps++) {
            schedule_sigmas(schedule_find(schedule_names[i]), &table, steps, got);
            for (int k = 0; k < steps; k++) assert_true(got[k] > got[k + 1] && got[k] < 14.7f);
            assert_true(got[steps] == 0.0f);
        }
    }
}

static void names_of_schedules(void **state) {
    (void)state;
    for (int i = 0; schedule_names[i]; i++)
        assert_string_equal(schedule_find(schedule_names[i])->name, schedule_names[i]);
    for (int i = 0; schedule_spellings[i]; i++) assert_non_null(schedule_find(schedule_spellings[i]));
    assert_ptr_equal(schedule_find("SGM Uniform"), schedule_find("sgm_uniform"));
    assert_string_equal(schedule_find("normal")->name, "discrete");
    assert_string_equal(schedule_find("Align Your Steps")->name, "ays");
    assert_string_equal(schedule_find("align_your_steps")->name, "ays");
    assert_string_equal(schedule_find("DDIM")->name, "ddim_uniform");
    assert_string_equal(schedule_find("Polyexponential")->name, "exponential");
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

/* The numbers are torch's, by the published algorithm in double precision. */
static void zero_terminal_snr(void **state) {
    (void)state;
    static const struct {
        int at;
        double sigma;
    } rows[] = {{0, 0.02916753},   {1, 0.04206762},   {500, 1.77455751},
                {900, 18.3519188}, {998, 2254.22694}, {999, 4518.76370}};
    sigma_table t;
    sigma_table_init(&t, 0.00085, 0.012);
    sigma_table_zero_snr(&t);
    for (size_t i = 0; i < COUNT(rows); i++)
        assert_float_equal(t.sigma[rows[i].at] / (float)rows[i].sigma, 1.0f, 5e-5f);
    for (int i = 1; i < SIGMA_TABLE_STEPS; i++) assert_true(t.sigma[i] > t.sigma[i - 1]);
    assert_float_equal(sigma_to_timestep(&t, 5000.0f), 999.0f, 0);
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
    return (toy_case){r->sampler,  r->schedule,   r->steps,      r->seed,           (size_t)r->n,   r->rng,
                      r->predicts, (float)r->cfg, (float)r->eta, (float)r->s_noise, (float)r->churn};
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
    } rows[] = {{"euler", 7, 20},    {"euler", 1, 10},  {"heun", 1, 19}, {"dpm++2m", 2, 20},     {"dpm2", 1, 19},
                {"dpm++sde", 1, 19}, {"uni_pc", 1, 10}, {"lms", 7, 20},  {"euler_cfg_pp", 1, 20}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        toy_case c = {rows[i].sampler, "karras", 10, 1, 16, "cuda", "eps", rows[i].cfg, 1, 1, 0};
        toy y;
        toy_open(&y, &c);
        assert_true(sampler_sample(y.kind, &y.run, &y.state, NULL));
        assert_int_equal(y.evaluations, rows[i].want);
        toy_close(&y);
    }
}

static bool stop_at(void *ctx, const sampler_state *s, err *e) {
    return s->step < *(int *)ctx || err_set(e, ERR_CANCELLED, "enough");
}

/* Steps 3 .. 7 of 10 are guided, and cost two evaluations each; the others are what guidance 1 gives. */
static void guidance_within_an_interval(void **state) {
    (void)state;
    static const struct {
        float start, end;
        int guided;
    } rows[] = {{0, 1, 10}, {0.3f, 0.8f, 5}, {0, 0.5f, 5}, {0.25f, 1, 7}, {0.5f, 0.5f, 0}, {1, 1, 0}, {0, 0, 0}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        toy_case c = {"euler", "karras", 10, 1, 16, "cuda", "eps", 5, 0, 1, 0}, plain = c;
        plain.cfg = 1;
        toy y, one;
        toy_open(&y, &c);
        toy_open(&one, &plain);
        guidance_interval(&y.guide, y.sigmas, 10, rows[i].start, rows[i].end);
        assert_true(sampler_sample(y.kind, &y.run, &y.state, NULL));
        assert_true(sampler_sample(one.kind, &one.run, &one.state, NULL));
        assert_int_equal(y.evaluations, 10 + rows[i].guided);
        assert_int_equal(memcmp(y.state.x, one.state.x, c.n * sizeof(float)) == 0, rows[i].guided == 0);
        toy_close(&y);
        toy_close(&one);
    }
}

/* As a checkpoint does it. */
static void copy_state(sampler_state *to, const sampler_state *from) {
    memcpy(to->x, from->x, from->n * sizeof(float));
    for (int k = 0; k < from->keeps; k++) memcpy(to->past[k], from->past[k], from->n * sizeof(float));
    to->step = from->step;
    to->call = from->call;
}

static void resume_at(const toy_case *c, int step, const float *whole) {
    toy first, second;
    err e;
    toy_open(&first, c);
    first.run.step_done = stop_at;
    first.run.step_ctx = &step;
    assert_false(sampler_sample(first.kind, &first.run, &first.state, &e));
    assert_int_equal(e.code, ERR_CANCELLED);
    toy_open(&second, c);
    copy_state(&second.state, &first.state);
    assert_true(sampler_sample(second.kind, &second.run, &second.state, &e));
    assert_memory_equal(second.state.x, whole, c->n * sizeof(float));
    toy_close(&first);
    toy_close(&second);
}

/* Every sampler, stopped after each of its steps; all that it knows goes through a copy of the state, into fresh
 * objects. */
static void resumed_runs_are_bit_identical(void **state) {
    (void)state;
    enum { STEPS = 7 };
    for (int i = 0; sampler_names[i]; i++) {
        for (int k = 0; rng_names[k]; k++) {
            toy_case c = {sampler_names[i], "karras", STEPS, 5, 33, rng_names[k], "eps", 5, 1, 1, 2};
            toy whole;
            toy_open(&whole, &c);
            assert_true(sampler_sample(whole.kind, &whole.run, &whole.state, NULL));
            for (int step = 1; step <= STEPS; step++) resume_at(&c, step, whole.state.x);
            toy_close(&whole);
        }
    }
}

static bool predict_nan(void *ctx, const float *x, float t, const guidance_answers *out, err *e) {
    toy_predict(ctx, x, t, out, e);
    out->positive[3] = NAN;
    return true;
}

static bool predict_failure(void *ctx, const float *x, float t, const guidance_answers *out, err *e) {
    (void)ctx, (void)x, (void)t, (void)out;
    return err_set(e, ERR_DEVICE, "lost");
}

static void failures_are_reported(void **state) {
    (void)state;
    for (int i = 0; sampler_names[i]; i++) {
        toy_case c = {sampler_names[i], "discrete", 3, 5, 16, "cuda", "eps", 5, 1, 1, 0};
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
        {"DPM++ 2M Align Your Steps", "dpm++2m", "ays"},
        {"DPM++ 2M SDE", "dpm++2m_sde", "exponential"},
        {"DPM++ 2M SDE Karras", "dpm++2m_sde", "karras"},
        {"DPM++ 2M SDE Heun Exponential", "dpm++2m_sde_heun", "exponential"},
        {"dpmpp_2m_sde_gpu", "dpm++2m_sde", "exponential"},
        {"dpm++2m_sde_bt", "dpm++2m_sde", "exponential"},
        {"DPM++ 3M SDE Exponential", "dpm++3m_sde", "exponential"},
        {"DPM++ SDE Karras", "dpm++sde", "karras"},
        {"dpmpp_2s_ancestral", "dpm++2s_a", "karras"},
        {"DPM++ 2S a Karras", "dpm++2s_a", "karras"},
        {"dpmpp_2s_ancestral_cfg_pp", "dpm++2s_a_cfg_pp", "karras"},
        {"dpm_2_ancestral", "dpm2_a", "karras"},
        {"DPM2 a Karras", "dpm2_a", "karras"},
        {"k_dpm_2", "dpm2", "karras"},
        {"LMS Karras", "lms", "karras"},
        {"LCM", "lcm", "lcm"},
        {"lcm karras", "lcm", "karras"},
        {"UniPC", "uni_pc", "discrete"},
        {"ddim_trailing", "ddim", "simple"},
        {"DDIM CFG++", "ddim_cfg_pp", "ddim_uniform"},
        {"euler_ancestral_cfg_pp", "euler_a_cfg_pp", "discrete"},
        {"res_multistep_ancestral", "res_multistep_a", "discrete"},
        {"euler kl_optimal", "euler", "kl_optimal"},
        {"IPNDM_V", "ipndm_v", "discrete"},
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
        cmocka_unit_test(schedules_fall_strictly),
        cmocka_unit_test(names_of_schedules),
        cmocka_unit_test(sigmas_and_timesteps),
        cmocka_unit_test(zero_terminal_snr),
        cmocka_unit_test(image_steps),
        cmocka_unit_test(samplers_match_reference),
        cmocka_unit_test(work_done),
        cmocka_unit_test(guidance_within_an_interval),
        cmocka_unit_test(resumed_runs_are_bit_identical),
        cmocka_unit_test(failures_are_reported),
        cmocka_unit_test(names_of_samplers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
