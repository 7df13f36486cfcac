#include "diffusion/sample/steps.h"

#include <math.h>
#include <string.h>

void step_sum(float *out, size_t n, const term *terms, int count) {
    for (size_t i = 0; i < n; i++) {
        double sum = 0.0;
        for (int k = 0; k < count; k++) sum += terms[k].weight * (double)terms[k].values[i];
        out[i] = (float)sum;
    }
}

void step_keep(sampler_state *s, int count, const float *values) {
    float *newest = s->past[count - 1];
    for (int i = count - 1; i > 0; i--) s->past[i] = s->past[i - 1];
    s->past[0] = newest;
    memcpy(newest, values, s->n * sizeof(float));
}

ancestral step_ancestral(double from, double to, double eta) {
    if (!(eta > 0.0)) return (ancestral){.down = to};
    const double up = fmin(to, eta * sqrt(to * to * (from * from - to * to) / (from * from)));
    return (ancestral){.down = sqrt(to * to - up * up), .up = up};
}

static void add(float *x, const float *noise, double amount, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] += (float)(amount * (double)noise[i]);
}

void step_add_noise(const sampler_run *run, sampler_state *s, double amount) {
    amount *= (double)run->s_noise;
    if (!(amount > 0.0)) return;
    rng_normal(run->noise, s->call++, s->scratch);
    add(s->x, s->scratch, amount, s->n);
}

void step_add_tree_noise(const sampler_run *run, float from, float to, double amount, float *target, float *buffer,
                         size_t n) {
    amount *= (double)run->s_noise;
    if (!(amount > 0.0)) return;
    brownian_noise(run->tree, from, to, buffer);
    add(target, buffer, amount, n);
}
