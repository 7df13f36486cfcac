/* progress.c - see progress.h. */
#include "proc/progress.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

void progress_restart(progress_watch *w) {
    w->at_work = false;
    memset(&w->step, 0, sizeof w->step);
}

static int compare(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

int progress_median_step_ms(const progress_watch *w) {
    size_t n = w->samples < PROGRESS_SAMPLES ? w->samples : PROGRESS_SAMPLES;
    if (n == 0) return 0;
    int32_t sorted[PROGRESS_SAMPLES];
    memcpy(sorted, w->step_ms, sizeof sorted);
    qsort(sorted, n, sizeof sorted[0], compare);
    return sorted[n / 2];
}

int64_t progress_limit_ms(const progress_watch *w) {
    int64_t steps = (int64_t)PROGRESS_STEPS_FACTOR * progress_median_step_ms(w);
    return steps > PROGRESS_PATIENCE_MS ? steps : PROGRESS_PATIENCE_MS;
}

static bool same_work(const worker_progress_info *a, const worker_progress_info *b) {
    return strcmp(a->job, b->job) == 0 && strcmp(a->phase, b->phase) == 0;
}

/* Between two answers about the same work some steps were done; their mean is one sample. Measured from the answer
 * that first showed a step to the one that first shows a later one: other signs of progress lie between. */
static void sample_step(progress_watch *w, const worker_progress_info *now) {
    const worker_progress_info *was = &w->step;
    if (same_work(was, now) && now->step == was->step) return;
    if (same_work(was, now) && was->step > 0 && now->step > was->step) { /* before the first step comes preparation */
        int64_t ms = (now->stamp_ms - was->stamp_ms) / (now->step - was->step);
        if (ms >= 0 && ms <= INT32_MAX) /* else the wall clock was set */
            w->step_ms[w->samples++ % PROGRESS_SAMPLES] = (int32_t)ms;
    }
    w->step = *now;
}

bool progress_stalled(progress_watch *w, const worker_health *h, int64_t now_ms) {
    if (h->state == WORKER_IDLE) {
        progress_restart(w);
        return false;
    }
    const worker_progress_info *p = &h->progress;
    if (w->at_work && p->stamp_ms == w->stamp_ms && same_work(p, &w->step))
        return now_ms - w->moved_at > progress_limit_ms(w);
    sample_step(w, p);
    w->at_work = true;
    w->stamp_ms = p->stamp_ms;
    w->moved_at = now_ms;
    return false;
}
