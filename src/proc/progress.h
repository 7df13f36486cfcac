/* progress.h - is a busy worker getting anywhere? Pure: fed with health answers and the time.
 *
 * A worker's stamp moves with every sign of progress. One that is busy or loading may stand still for
 * max(60 s, 20 x median step time); then it counts as stalled. The median is over the last steps seen, so that
 * a slow machine gets the patience it needs. An idle worker is never stalled. */
#ifndef MYSTI_PROC_PROGRESS_H
#define MYSTI_PROC_PROGRESS_H

#include "proc/health.h"

enum { PROGRESS_PATIENCE_MS = 60000, PROGRESS_STEPS_FACTOR = 20, PROGRESS_SAMPLES = 31 };

typedef struct progress_watch {
    bool at_work;
    worker_progress_info step;         /* the first answer that showed the present step */
    int64_t stamp_ms;                  /* in the last answer */
    int64_t moved_at;                  /* our time when the stamp last moved */
    int32_t step_ms[PROGRESS_SAMPLES]; /* a ring */
    unsigned samples;                  /* ever taken */
} progress_watch;

/* For a new process: forgets the work, keeps the step times (the machine is the same). */
void progress_restart(progress_watch *w);

/* Takes an answer in. True when the work stands still for longer than it may. */
bool progress_stalled(progress_watch *w, const worker_health *h, int64_t now_ms);

int progress_median_step_ms(const progress_watch *w); /* 0 before the first step */
int64_t progress_limit_ms(const progress_watch *w);   /* how long it may stand still now */

#endif
