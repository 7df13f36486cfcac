#include "diffusion/sample/sampler.h"

#include "base/str.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void sampler_state_init(sampler_state *s, size_t n) {
    *s = (sampler_state){.n = n, .call = 1};
    s->x = mem_alloc(n, sizeof(float));
    s->denoised = mem_alloc(n, sizeof(float));
    s->previous = mem_alloc(n, sizeof(float));
    s->scratch = mem_alloc(n, 2 * sizeof(float));
}

void sampler_state_free(sampler_state *s) {
    free(s->x);
    free(s->denoised);
    free(s->previous);
    free(s->scratch);
    *s = (sampler_state){0};
}

/* ---- steps ------------------------------------------------------------------------------------------------------ */

/* x += (x - denoised) / sigma * (to - sigma): along the probability-flow ODE's derivative. */
static void follow(float *x, const float *denoised, size_t n, float sigma, float to) {
    for (size_t i = 0; i < n; i++) x[i] += (x[i] - denoised[i]) / sigma * (to - sigma);
}

static bool step_euler(const sampler_run *run, sampler_state *s, err *e) {
    (void)e;
    follow(s->x, s->denoised, s->n, run->sigmas[s->step], run->sigmas[s->step + 1]);
    return true;
}

/* Goes down below the next sigma and adds fresh noise up to it. */
static bool step_euler_ancestral(const sampler_run *run, sampler_state *s, err *e) {
    (void)e;
    float from = run->sigmas[s->step], to = run->sigmas[s->step + 1];
    float up = fminf(to, run->eta * sqrtf(to * to * (from * from - to * to) / (from * from)));
    float down = sqrtf(to * to - up * up);
    follow(s->x, s->denoised, s->n, from, down);
    if (to == 0.0f) return true;
    float *noise = s->scratch;
    rng_normal(run->noise, s->call++, noise);
    for (size_t i = 0; i < s->n; i++) s->x[i] += noise[i] * up;
    return true;
}

/* Second order: takes the mean of the derivatives at both ends of the step. */
static bool step_heun(const sampler_run *run, sampler_state *s, err *e) {
    float sigma = run->sigmas[s->step], to = run->sigmas[s->step + 1];
    if (to == 0.0f) return step_euler(run, s, e);
    float *ahead = s->scratch, *denoised = s->scratch + s->n;
    memcpy(ahead, s->x, s->n * sizeof(float));
    follow(ahead, s->denoised, s->n, sigma, to);
    if (!run->denoise(run->ctx, ahead, to, denoised, e)) return false;
    for (size_t i = 0; i < s->n; i++) {
        float here = (s->x[i] - s->denoised[i]) / sigma, there = (ahead[i] - denoised[i]) / to;
        s->x[i] += (here + there) / 2 * (to - sigma);
    }
    return true;
}

/* DPM-Solver++(2M), Lu et al. 2022, algorithm 2, with lambda = -log sigma. */
static bool step_dpmpp_2m(const sampler_run *run, sampler_state *s, err *e) {
    (void)e;
    float sigma = run->sigmas[s->step], to = run->sigmas[s->step + 1];
    float now = 1.0f, before = 0.0f; /* weights of the two estimates */
    float decay = 1.0f;              /* 1 - exp(-h); the step to sigma 0 is infinitely long */
    if (to > 0.0f) {
        float h = logf(sigma) - logf(to);
        decay = -expm1f(-h);
        if (s->step > 0) {
            float r = (logf(run->sigmas[s->step - 1]) - logf(sigma)) / h;
            now = 1 + 1 / (2 * r);
            before = -1 / (2 * r);
        }
    }
    for (size_t i = 0; i < s->n; i++) {
        float estimate = now * s->denoised[i] + (before != 0.0f ? before * s->previous[i] : 0.0f);
        s->x[i] = to / sigma * s->x[i] + decay * estimate;
    }
    return true;
}

/* ---- names ------------------------------------------------------------------------------------------------------ */

const char *const sampler_names[] = {"euler", "euler_a", "heun", "dpm++2m", NULL};

static const sampler samplers[] = {
    {"euler", "Euler", "discrete", step_euler},
    {"euler_a", "Euler a", "discrete", step_euler_ancestral},
    {"heun", "Heun", "discrete", step_heun},
    {"dpm++2m", "DPM++ 2M", "karras", step_dpmpp_2m},
};

/* Other spellings, folded as fold() does. */
static const char *const aliases[][2] = {
    {"keuler", "euler"},    {"eulera", "euler_a"},          {"eulerancestral", "euler_a"},
    {"keulera", "euler_a"}, {"keulerancestral", "euler_a"}, {"kheun", "heun"},
    {"dpmpp2m", "dpm++2m"}, {"kdpmpp2m", "dpm++2m"},
};

/* Lower case without spaces, '_' and '-'. */
static void fold(const char *name, char out[48]) {
    size_t n = 0;
    for (; *name && n < 47; name++) {
        if (strchr(" _-", *name)) continue;
        out[n++] = (char)tolower((unsigned char)*name);
    }
    out[n] = 0;
}

static const sampler *find_folded(const char *folded) {
    char own[48];
    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++) {
        fold(aliases[i][0], own);
        if (str_eq(own, folded)) return find_folded(aliases[i][1]);
    }
    for (size_t i = 0; i < sizeof samplers / sizeof *samplers; i++) {
        fold(samplers[i].name, own);
        if (str_eq(own, folded) || str_eq(samplers[i].name, folded)) return &samplers[i];
    }
    return NULL;
}

/* Cuts a schedule's name off the end of the folded name and returns it. */
static const schedule *cut_schedule(char *folded) {
    for (int i = 0; schedule_names[i]; i++) {
        char name[48];
        fold(schedule_names[i], name);
        if (!str_ends(folded, name)) continue;
        folded[strlen(folded) - strlen(name)] = 0;
        return schedule_find(schedule_names[i]);
    }
    return NULL;
}

const sampler *sampler_find(const char *name, const schedule **implied) {
    if (str_empty(name)) return NULL;
    char folded[48];
    fold(name, folded);
    const schedule *behind = cut_schedule(folded);
    const sampler *found = find_folded(folded);
    if (found && implied) *implied = behind ? behind : schedule_find(found->schedule);
    return found;
}

/* ---- the loop --------------------------------------------------------------------------------------------------- */

static bool all_finite(const float *v, size_t n) {
    float sum = 0.0f; /* 0 * v is 0 for a finite v, and NaN for the rest */
    for (size_t i = 0; i < n; i++) sum += 0.0f * v[i];
    return sum == 0.0f;
}

bool sampler_sample(const sampler *kind, const sampler_run *run, sampler_state *s, err *e) {
    while (s->step < run->steps) {
        float *newest = s->previous;
        s->previous = s->denoised;
        s->denoised = newest;
        if (!run->denoise(run->ctx, s->x, run->sigmas[s->step], s->denoised, e)) return false;
        if (!kind->step(run, s, e)) return false;
        if (!all_finite(s->denoised, s->n) || !all_finite(s->x, s->n)) {
            return err_set(e, ERR_DEVICE, "step %d: the model gave values that are not finite", s->step + 1);
        }
        s->step++;
        if (run->step_done && !run->step_done(run->step_ctx, s, e)) return false;
    }
    return true;
}
