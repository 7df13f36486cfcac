/* state.c - see state.h. What a crash report needs is handed to crash.h as well. */
#include "worker/state.h"
#include "base/clock.h"
#include "base/str.h"
#include "worker/crash.h"

#include <stdlib.h>
#include <string.h>

void worker_state_init(worker_state *s, const char *service, const char *version) {
    memset(&s->h, 0, sizeof s->h);
    uv_mutex_init(&s->lock);
    atomic_init(&s->stamp_ms, 0);
    s->h.ok = true;
    s->h.pid = (int)uv_os_getpid();
    str_copy(s->h.service, sizeof s->h.service, service);
    str_copy(s->h.version, sizeof s->h.version, version);
}

void worker_state_free(worker_state *s) {
    uv_mutex_destroy(&s->lock);
}

void worker_state_alive(worker_state *s) {
    atomic_store_explicit(&s->stamp_ms, clock_wall_ms(), memory_order_relaxed);
}

void worker_state_activity(worker_state *s, worker_activity a) {
    worker_state_alive(s);
    uv_mutex_lock(&s->lock);
    s->h.state = a;
    uv_mutex_unlock(&s->lock);
}

void worker_state_job(worker_state *s, const char *id) {
    uv_mutex_lock(&s->lock);
    memset(&s->h.progress, 0, sizeof s->h.progress);
    str_copy(s->h.progress.job, sizeof s->h.progress.job, id);
    uv_mutex_unlock(&s->lock);
    crash_note_job(id);
}

void worker_state_progress(worker_state *s, const char *phase, int step, int steps) {
    worker_state_alive(s);
    uv_mutex_lock(&s->lock);
    worker_progress_info *p = &s->h.progress;
    if (phase) str_copy(p->phase, sizeof p->phase, phase);
    p->step = step;
    p->steps = steps;
    uv_mutex_unlock(&s->lock);
}

void worker_state_model(worker_state *s, const char *path) {
    uv_mutex_lock(&s->lock);
    str_copy(s->h.model, sizeof s->h.model, path ? path : "");
    uv_mutex_unlock(&s->lock);
    crash_note_model(path ? path : "");
}

void worker_state_memory(worker_state *s, const worker_memory *m, size_t count) {
    if (count > WORKER_MEMORY_MAX) count = WORKER_MEMORY_MAX;
    uv_mutex_lock(&s->lock);
    memcpy(s->h.memory, m, count * sizeof *m);
    s->h.memory_count = count;
    uv_mutex_unlock(&s->lock);
}

void worker_state_write(worker_state *s, bool late, buf *out) {
    size_t rss = 0;
    uv_resident_set_memory(&rss);
    uv_mutex_lock(&s->lock);
    worker_health h = s->h;
    uv_mutex_unlock(&s->lock);
    h.rss = rss;
    h.progress.stamp_ms = atomic_load_explicit(&s->stamp_ms, memory_order_relaxed);
    if (late && h.state == WORKER_IDLE) h.state = WORKER_BUSY;
    worker_health_write(&h, out);
}
