/* profile.h - where a graph's time goes: with MYSTI_PROFILE=1 in the environment every graph writes a line to the log
 * for each kind of operation, the longest first. Each operation is then run by itself, which takes somewhat longer. */
#ifndef MYSTI_DIFFUSION_PROFILE_H
#define MYSTI_DIFFUSION_PROFILE_H

#include <ggml-backend.h>

typedef struct profile profile;

/* Measures the graphs of this scheduler from now on. NULL when the environment does not ask for it. */
profile *profile_open(ggml_backend_sched_t sched);
void profile_close(profile *p); /* NULL is fine */

/* Around each graph. NULL is fine. */
void profile_begin(profile *p);
void profile_end(const profile *p);

#endif
