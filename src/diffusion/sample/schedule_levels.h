/* schedule_levels.h - schedules whose noise levels were found by search and published as lists. Private to sample/. */
#ifndef MYSTI_DIFFUSION_SAMPLE_SCHEDULE_LEVELS_H
#define MYSTI_DIFFUSION_SAMPLE_SCHEDULE_LEVELS_H

#include "diffusion/sample/schedule.h"

/* Both have the form of schedule.fill. The lists are for the usual range of sigma, 0.0292 .. 14.61. */
void schedule_fill_ays(const sigma_table *t, int steps, float *sigmas);
void schedule_fill_gits(const sigma_table *t, int steps, float *sigmas);

#endif
