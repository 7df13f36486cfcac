#include "diffusion/sample/schedule.h"

#include "base/str.h"
#include "diffusion/sample/schedule_levels.h"

#include <math.h>
#include <stddef.h>

#define LAST (SIGMA_TABLE_STEPS - 1)

void sigma_table_init(sigma_table *t, double beta_start, double beta_end) {
    double alphas = 1.0, low = sqrt(beta_start), high = sqrt(beta_end);
    t->is_xl = false;
    for (int i = 0; i < SIGMA_TABLE_STEPS; i++) {
        double root = low + (high - low) * i / LAST;
        alphas *= 1.0 - root * root;
        /* In float from here on: checkpoints and other tools keep the product in float, and 1 - it loses digits. */
        float product = (float)alphas;
        t->sigma[i] = sqrtf((1.0f - product) / product);
        t->log_sigma[i] = logf(t->sigma[i]);
    }
}

void sigma_table_zero_snr(sigma_table *t) {
    const double least = 4.8973451890853435e-08;
    const double s0 = (double)t->sigma[0], s1 = (double)t->sigma[LAST];
    const double first = 1.0 / sqrt(1.0 + s0 * s0), last = 1.0 / sqrt(1.0 + s1 * s1);
    for (int i = 0; i < SIGMA_TABLE_STEPS; i++) {
        const double sigma = (double)t->sigma[i], root = 1.0 / sqrt(1.0 + sigma * sigma);
        const double scaled = (root - last) * first / (first - last), kept = i == LAST ? least : scaled * scaled;
        t->sigma[i] = (float)sqrt((1.0 - kept) / kept);
        t->log_sigma[i] = logf(t->sigma[i]);
    }
}

float sigma_from_timestep(const sigma_table *t, float timestep) {
    float at = fminf(fmaxf(timestep, 0.0f), (float)LAST);
    int low = (int)floorf(at), high = (int)ceilf(at);
    float w = at - (float)low;
    return expf((1.0f - w) * t->log_sigma[low] + w * t->log_sigma[high]);
}

/* The last i with log_sigma[i] <= log_sigma, at most LAST - 1. */
static int table_below(const sigma_table *t, float log_sigma) {
    int low = 0, high = LAST;
    while (high - low > 1) {
        int mid = (low + high) / 2;
        if (t->log_sigma[mid] <= log_sigma)
            low = mid;
        else
            high = mid;
    }
    return low;
}

float sigma_to_timestep(const sigma_table *t, float sigma) {
    float log_sigma = logf(sigma);
    int low = table_below(t, log_sigma);
    float a = t->log_sigma[low], b = t->log_sigma[low + 1];
    float w = fminf(fmaxf((a - log_sigma) / (a - b), 0.0f), 1.0f);
    return (1.0f - w) * (float)low + w * (float)(low + 1);
}

/* Value i of n evenly spaced ones from a to b, both included. */
static double spaced(double a, double b, int i, int n) {
    return n < 2 ? a : a + (b - a) * i / (n - 1);
}

static void fill_discrete(const sigma_table *t, int steps, float *sigmas) {
    for (int i = 0; i < steps; i++) sigmas[i] = sigma_from_timestep(t, (float)spaced(LAST, 0, i, steps));
}

/* Karras et al., "Elucidating the design space of diffusion-based generative models" (2022), equation 5, rho = 7. */
static void fill_karras(const sigma_table *t, int steps, float *sigmas) {
    const double rho = 7.0;
    double high = pow(t->sigma[LAST], 1 / rho), low = pow(t->sigma[0], 1 / rho);
    for (int i = 0; i < steps; i++) sigmas[i] = (float)pow(spaced(high, low, i, steps), rho);
}

static void fill_exponential(const sigma_table *t, int steps, float *sigmas) {
    double high = log(t->sigma[LAST]), low = log(t->sigma[0]);
    for (int i = 0; i < steps; i++) sigmas[i] = (float)exp(spaced(high, low, i, steps));
}

/* Evenly spaced timesteps whose last one, for which the sampler goes to zero instead, is left out. */
static void fill_sgm_uniform(const sigma_table *t, int steps, float *sigmas) {
    for (int i = 0; i < steps; i++) sigmas[i] = sigma_from_timestep(t, (float)spaced(LAST, 0, i, steps + 1));
}

static void fill_simple(const sigma_table *t, int steps, float *sigmas) {
    double stride = (double)SIGMA_TABLE_STEPS / steps;
    for (int i = 0; i < steps; i++) sigmas[i] = t->sigma[LAST - (int)(i * stride)];
}

/* Sigmas of whole timesteps, which rounding may have made alike: each is at least one below the one before. */
static void fill_timesteps(const sigma_table *t, const int *timesteps, int steps, float *sigmas) {
    int above = LAST + 1;
    for (int i = 0; i < steps; i++) {
        int at = timesteps[i] < above ? timesteps[i] : above - 1;
        if (at < steps - 1 - i) at = steps - 1 - i;
        sigmas[i] = t->sigma[at];
        above = at;
    }
}

/* DDIM's own: every (1000 / steps)-th timestep from 1 on. */
static void fill_ddim_uniform(const sigma_table *t, int steps, float *sigmas) {
    const int stride = SIGMA_TABLE_STEPS / steps;
    for (int i = 0; i < steps; i++) sigmas[i] = t->sigma[stride > 1 ? 1 + stride * (steps - 1 - i) : steps - 1 - i];
}

/* Evenly spaced angles: Xue et al., "Accelerating diffusion sampling with optimized time steps" (2024), after the
 * KL-optimal schedule of Sabour et al., "Align your steps" (2024), equation 24. */
static void fill_kl_optimal(const sigma_table *t, int steps, float *sigmas) {
    const double high = atan((double)t->sigma[LAST]), low = atan((double)t->sigma[0]);
    for (int i = 0; i < steps; i++) sigmas[i] = (float)tan(spaced(high, low, i, steps));
}

/* The x below which lies the share u of a beta distribution with a = b. For x up to a half by its power series. */
static double beta_quantile(double u, double a) {
    if (u > 0.5) return 1.0 - beta_quantile(1.0 - u, a);
    const double whole = tgamma(a) * tgamma(a) / tgamma(2 * a);
    double low = 0.0, high = 0.5;
    for (int round = 0; round < 60; round++) {
        const double x = (low + high) / 2;
        double sum = 0.0, factor = 1.0;
        for (int n = 0; n < 60; n++) {
            sum += factor / (a + n);
            factor *= x * (n + 1 - a) / (n + 1);
        }
        if (pow(x, a) * sum < u * whole)
            low = x;
        else
            high = x;
    }
    return (low + high) / 2;
}

/* Lee et al., "Beta sampling is all you need" (2024): alpha = beta = 0.6. */
static void fill_beta(const sigma_table *t, int steps, float *sigmas) {
    int at[SCHEDULE_STEPS_MAX];
    for (int i = 0; i < steps; i++) at[i] = (int)rint(beta_quantile(1.0 - (double)i / steps, 0.6) * LAST);
    fill_timesteps(t, at, steps, sigmas);
}

static void fill_smoothstep(const sigma_table *t, int steps, float *sigmas) {
    int at[SCHEDULE_STEPS_MAX];
    for (int i = 0; i < steps; i++) {
        const double u = 1.0 - (double)i / steps;
        at[i] = (int)lround(u * u * (3.0 - 2.0 * u) * LAST);
    }
    fill_timesteps(t, at, steps, sigmas);
}

/* The timesteps on which latent consistency models were distilled: 19, 39, ... 999. */
static void fill_lcm(const sigma_table *t, int steps, float *sigmas) {
    const int original = steps > 50 ? steps : 50;
    for (int i = 0; i < steps; i++)
        sigmas[i] = t->sigma[(original - i * original / steps) * SIGMA_TABLE_STEPS / original - 1];
}

/* Polyak et al., "Movie Gen" (2024): the first half of the steps goes down linearly by a fortieth, the others
 * quadratically by the rest. */
static void fill_linear_quadratic(const sigma_table *t, int steps, float *sigmas) {
    const double threshold = 0.025, top = (double)t->sigma[LAST];
    const int half = steps / 2, rest = steps - half;
    sigmas[0] = t->sigma[LAST];
    if (steps == 1) return;
    const double gap = half - threshold * steps;
    const double square = gap / ((double)half * rest * rest),
                 slope = threshold / half - 2 * gap / ((double)rest * rest);
    for (int i = 1; i < steps; i++) {
        const double down = i < half ? i * threshold / half : square * i * i + slope * i + square * half * half;
        sigmas[i] = (float)(top * (1.0 - down));
    }
}

const char *const schedule_names[] = {"discrete",    "karras",     "exponential",      "ays",        "gits",
                                      "sgm_uniform", "simple",     "ddim_uniform",     "kl_optimal", "beta",
                                      "lcm",         "smoothstep", "linear_quadratic", NULL};

static const schedule schedules[] = {
    {"discrete", "Uniform", fill_discrete},
    {"karras", "Karras", fill_karras},
    {"exponential", "Exponential", fill_exponential},
    {"ays", "Align Your Steps", schedule_fill_ays},
    {"gits", "GITS", schedule_fill_gits},
    {"sgm_uniform", "SGM Uniform", fill_sgm_uniform},
    {"simple", "Simple", fill_simple},
    {"ddim_uniform", "DDIM", fill_ddim_uniform},
    {"kl_optimal", "KL Optimal", fill_kl_optimal},
    {"beta", "Beta", fill_beta},
    {"lcm", "LCM", fill_lcm},
    {"smoothstep", "Smoothstep", fill_smoothstep},
    {"linear_quadratic", "Linear Quadratic", fill_linear_quadratic},
};

/* Longer ones before those that they end in. */
const char *const schedule_spellings[] = {"sgm_uniform",
                                          "SGM Uniform",
                                          "SGMUniform",
                                          "ddim_uniform",
                                          "discrete",
                                          "normal",
                                          "uniform",
                                          "karras",
                                          "exponential",
                                          "polyexponential",
                                          "ays",
                                          "align_your_steps",
                                          "Align Your Steps",
                                          "gits",
                                          "simple",
                                          "ddim",
                                          "kl_optimal",
                                          "KL Optimal",
                                          "beta",
                                          "lcm",
                                          "smoothstep",
                                          "linear_quadratic",
                                          "Linear Quadratic",
                                          NULL};

static const char *const aliases[][2] = {{"normal", "discrete"},
                                         {"polyexponential", "exponential"}, /* with rho 1, A1111's default */
                                         {"SGMUniform", "sgm_uniform"},
                                         {"align_your_steps", "ays"}};

const schedule *schedule_find(const char *name) {
    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++)
        if (str_ieq(name, aliases[i][0])) name = aliases[i][1];
    for (size_t i = 0; i < sizeof schedules / sizeof *schedules; i++) {
        if (str_ieq(name, schedules[i].name) || str_ieq(name, schedules[i].label)) return &schedules[i];
    }
    return NULL;
}

void schedule_sigmas(const schedule *s, const sigma_table *t, int steps, float *sigmas) {
    s->fill(t, steps, sigmas);
    sigmas[steps] = 0.0f;
}

int schedule_image_steps(int steps, float strength) {
    return (int)(fminf(strength, 0.999f) * (float)steps) + 1;
}
