#include "diffusion/residency.h"

#include "base/log.h"
#include "diffusion/memory.h"

#define GB_OF(bytes) ((double)(bytes) / 1e9)

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

/* ---- the ladder -------------------------------------------------------------------------------------------------- */

static void move(diffusion *d, place to) {
    static const char *const what[] = {"all weights have room", "text encoders and VAE are streamed",
                                       "all weights are streamed"};
    if (d->is_resident) evict(d);
    d->place = to;
    backend_stream_weights(d->backend, to == PLACE_HOST);
    log_info("diffusion", "%s: %s (%.3f of %.3f GB of weights there, %.3f GB free)", backend_name(d->backend), what[to],
             GB_OF(memory_for_weights(d, to)), GB_OF(memory_for_weights(d, PLACE_DEVICE)), GB_OF(memory_free(d)));
}

static void give_way(diffusion *other) {
    log_info("diffusion", "no memory for two models on %s: one gives way", backend_name(other->backend));
    evict(other);
}

/* NULL for r: no work yet. */
static bool fits(const diffusion *d, place at, const request *r, size_t added) {
    const size_t have = memory_available(d), there = memory_for_weights(d, at) + added;
    if (have == 0) return true;
    if (there > have) return false;
    return !r || memory_for_request_within(d, r, have - there) <= have - there;
}

static place first_that_fits(const diffusion *d, const request *r, size_t added) {
    place at = d->first_place;
    while (at < PLACE_HOST && !fits(d, at, r, added)) at++;
    return at;
}

void residency_plan(diffusion *d, diffusion *other, const request *r, size_t added) {
    if (backend_is_cpu(d->backend)) return;
    place at = first_that_fits(d, r, added);
    if (at == PLACE_HOST && other && other->is_resident) {
        give_way(other);
        at = first_that_fits(d, r, added);
    }
    if (at != d->place) move(d, at);
}

static bool step_down(diffusion *d, diffusion *other) {
    if (other && other->is_resident && (backend_is_cpu(d->backend) || d->place >= PLACE_UNET)) {
        give_way(other);
        return true;
    }
    if (backend_is_cpu(d->backend) || d->place == PLACE_HOST) return false;
    d->first_place = d->place + 1;
    move(d, d->first_place);
    return true;
}

bool residency_step_down(diffusion *d, diffusion *other, const err *why) {
    if (backend_is_cpu(d->backend) || !step_down(d, other)) return false;
    log_warn("diffusion", "%s; the work begins again with less on %s", why->msg, backend_name(d->backend));
    return true;
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

static bool commit(diffusion *d, const diffusion_events *events, err *e) {
    diffusion_events own = events ? *events : (diffusion_events){0};
    ggml_backend_t device = backend_handle(d->backend), host = backend_host(d->backend);
    if (d->place == PLACE_DEVICE) host = device;
    return weights_commit(d->weights, UNET_WEIGHTS, device, on_weights, &own, e) &&
           weights_commit(d->weights, "", host, on_weights, &own, e);
}

static bool load(diffusion *d, diffusion *other, const diffusion_events *events, err *e) {
    for (;;) {
        err why = {0};
        d->is_resident = commit(d, events, &why);
        if (d->is_resident) return true;
        evict(d); /* what came so far */
        if (why.code == ERR_MEMORY) log_warn("diffusion", "%s", why.msg);
        if (why.code == ERR_MEMORY && step_down(d, other)) continue;
        if (e) *e = why;
        return false;
    }
}

bool residency_load(diffusion *d, const diffusion_events *events, err *e) {
    residency_plan(d, NULL, NULL, 0);
    return load(d, NULL, events, e);
}

/* On the CPU: whether d's weights and the work have room beside the other's weights. */
static bool fits_beside(const diffusion *d, const diffusion *other, size_t scratch) {
    const size_t need = (size_t)d->info.weight_bytes + scratch, have = memory_free(d);
    if (d->memory_limit && d->memory_limit < need + (size_t)other->info.weight_bytes) return false;
    return have == 0 || need <= have;
}

bool residency_bring(diffusion *d, diffusion *other, const request *r, size_t added, const diffusion_events *events,
                     err *e) {
    if (d->is_resident) return true;
    residency_plan(d, other, r, added);
    if (backend_is_cpu(d->backend) && other && other->is_resident && !fits_beside(d, other, memory_for_request(d, r)))
        give_way(other);
    return load(d, other, events, e);
}
