/* schedule.h - which noise levels a picture passes through.
 *
 * Pure functions. A sigma is the standard deviation of the noise in a latent whose clean part has scale 1; a timestep
 * is the index (0 .. 999, fractions allowed) at which the model was trained with that noise. */
#ifndef MYSTI_DIFFUSION_SAMPLE_SCHEDULE_H
#define MYSTI_DIFFUSION_SAMPLE_SCHEDULE_H

#include <stdbool.h>

#define SIGMA_TABLE_STEPS 1000

enum { SCHEDULE_STEPS_MAX = 500 };

/* A model's training noise levels, rising. */
typedef struct sigma_table {
    float sigma[SIGMA_TABLE_STEPS];
    float log_sigma[SIGMA_TABLE_STEPS];
    bool is_xl; /* of the SDXL family, for which some schedules have levels of their own */
} sigma_table;

/* The "scaled linear" betas of latent diffusion: sqrt(beta) rises evenly from sqrt(start) to sqrt(end).
 * Stable Diffusion 1 and 2: 0.00085, 0.012. */
void sigma_table_init(sigma_table *t, double beta_start, double beta_end);

/* The same with no signal left at the last step (Lin et al. 2024, "Common diffusion noise schedules and sample steps
 * are flawed", algorithm 1): the square root of what is left is shifted and scaled. The last step keeps 4.9e-8 of it,
 * as other tools have it, since sigma would be infinite. */
void sigma_table_zero_snr(sigma_table *t);

/* Both interpolate linearly in log sigma and clamp to the table, as k-diffusion's DiscreteSchedule does. */
float sigma_from_timestep(const sigma_table *t, float timestep);
float sigma_to_timestep(const sigma_table *t, float sigma);

/* A way to choose `steps` falling sigmas. */
typedef struct schedule {
    const char *name;
    const char *label; /* A1111's name */
    void (*fill)(const sigma_table *t, int steps, float *sigmas);
} schedule;

/* By our name or what A1111, ComfyUI or stable-diffusion.cpp call it ("SGM Uniform", "normal", "align_your_steps"),
 * case ignored; NULL when there is none. */
const schedule *schedule_find(const char *name);
extern const char *const schedule_names[];     /* NULL at the end */
extern const char *const schedule_spellings[]; /* all that schedule_find() knows; NULL at the end */

/* sigmas: [steps + 1], strictly falling; the last one is 0. 1 <= steps <= SCHEDULE_STEPS_MAX. */
void schedule_sigmas(const schedule *s, const sigma_table *t, int steps, float *sigmas);

/* Image to image starts in the middle: how many of the last steps run for a strength of 0 .. 1, at least one.
 * A1111's rule: int(min(strength, 0.999) * steps) + 1. */
int schedule_image_steps(int steps, float strength);

#endif
