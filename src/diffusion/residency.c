#include "diffusion/residency.h"

#include "base/log.h"
#include "diffusion/memory.h"

static bool on_weights(void *ctx, float done) {
    const diffusion_events *events = ctx;
    const diffusion_progress p = {.phase = DIFFUSION_LOADING, .step = (int)(done * 100), .steps = 100};
    events_progress(events, &p);
    return !events_cancelled(events);
}

static void evict(diffusion *d) {
    weights_evict(d->weights);
    weights_release(d->weights, "");
    backend_trim(d->backend);
    d->lost_loras |= d->lora_key != 0;
    d->is_resident = false;
}

bool residency_load(diffusion *d, const diffusion_events *events, err *e) {
    diffusion_events own = events ? *events : (diffusion_events){0};
    d->is_resident = weights_commit(d->weights, backend_handle(d->backend), on_weights, &own, e);
    if (!d->is_resident) evict(d); /* what came so far */
    return d->is_resident;
}

/* Whether d's weights and the work have room beside the other's weights. */
static bool fits_beside(const diffusion *d, const diffusion *other, size_t scratch) {
    const size_t need = (size_t)d->info.weight_bytes + scratch, have = memory_free(d);
    if (d->memory_limit && d->memory_limit < need + (size_t)other->info.weight_bytes) return false;
    return have == 0 || need <= have;
}

bool residency_bring(diffusion *d, diffusion *other, size_t scratch, const diffusion_events *events, err *e) {
    if (d->is_resident) return true;
    const bool may_go = other && other->is_resident;
    if (may_go && !fits_beside(d, other, scratch)) {
        log_info("diffusion", "no memory for two models on %s: one gives way", d->info.device);
        evict(other);
    }
    err why = {0};
    if (residency_load(d, events, &why)) return true;
    if (why.code == ERR_MEMORY && may_go && other->is_resident) {
        evict(other);
        return residency_load(d, events, e);
    }
    if (e) *e = why;
    return false;
}
