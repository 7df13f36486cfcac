#include "diffusion/sample/schedule.h"

#include "base/str.h"

#include <math.h>
#include <stddef.h>

#define LAST (SIGMA_TABLE_STEPS - 1)

void sigma_table_init(sigma_table *t, double beta_start, double beta_end) {
    double alphas = 1.0, low = sqrt(beta_start), high = sqrt(beta_end);
    for (int i = 0; i < SIGMA_TABLE_STEPS; i++) {
        double root = low + (high - low) * i / LAST;
        alphas *= 1.0 - root * root;
        /* In float from here on: checkpoints and other tools keep the product in float, and 1 - it loses digits. */
        float product = (float)alphas;
        t->sigma[i] = sqrtf((1.0f - product) / product);
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

const char *const schedule_names[] = {"discrete", "karras", "exponential", "sgm_uniform", "simple", NULL};

static const schedule schedules[] = {
    {"discrete", "Uniform", fill_discrete},
    {"karras", "Karras", fill_karras},
    {"exponential", "Exponential", fill_exponential},
    {"sgm_uniform", "SGM Uniform", fill_sgm_uniform},
    {"simple", "Simple", fill_simple},
};

const schedule *schedule_find(const char *name) {
    if (str_ieq(name, "normal")) name = "discrete";
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
