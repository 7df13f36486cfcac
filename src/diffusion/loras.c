#include "diffusion/loras.h"

#include "base/clock.h"
#include "base/log.h"
#include "diffusion/memory.h"
#include "diffusion/model/lora.h"

#define GB_OF(bytes) ((double)(bytes) / 1e9)

static lora_plan *open_plan(const diffusion *d, const request *r, err *e) {
    lora_use uses[DIFFUSION_LORAS_MAX];
    for (size_t i = 0; i < r->params->lora_count; i++) {
        const diffusion_lora *l = &r->params->loras[i];
        uses[i] = (lora_use){l->path, l->unet, l->te};
    }
    return lora_plan_open(d->weights, d->family->name, uses, r->params->lora_count, e);
}

bool loras_bytes(const diffusion *d, const request *r, size_t *out, err *e) {
    *out = 0;
    if (d->lora_key == r->lora_key && !d->lost_loras) return true;
    lora_plan *p = open_plan(d, r, e);
    if (!p) return false;
    *out = lora_plan_bytes(p);
    lora_plan_close(p);
    return true;
}

/* Both at once: the changed weights stay while the picture is computed; not on the device where weights are streamed.
 */
static bool check_memory(const diffusion *d, const request *r, size_t need, err *e) {
    const size_t work = memory_for_request(d, r), have = memory_free(d);
    if (!need || !have || need + work <= have || backend_streams_weights(d->backend)) return true;
    return err_set(e, ERR_MEMORY,
                   "the LoRAs need %.1f GB for changed weights beside %.1f GB to compute, %s has %.1f GB", GB_OF(need),
                   GB_OF(work), backend_name(d->backend), GB_OF(have));
}

typedef struct telling {
    const diffusion_events *events;
    int images;
} telling;

static bool on_tensor(void *ctx, size_t done, size_t all) {
    const telling *t = ctx;
    const diffusion_progress p = {
        .phase = DIFFUSION_LOADING, .images = t->images, .step = (int)done, .steps = (int)all};
    events_progress(t->events, &p);
    return !events_cancelled(t->events);
}

bool loras_apply(diffusion *d, const request *r, const diffusion_events *events, err *e) {
    if (d->lora_key == r->lora_key && !d->lost_loras) return true;
    const int64_t start = clock_mono_ms();
    telling t = {events, r->params->batch};
    lora_plan *p = open_plan(d, r, e);
    bool ok = p && check_memory(d, r, lora_plan_bytes(p), e);
    if (ok) {
        if (d->lora_key != r->lora_key)
            context_cache_free(&d->contexts); /* the text encoder's answers are others now */
        ok = lora_plan_run(p, d->backend, on_tensor, &t, e);
        d->lora_key = ok ? r->lora_key : 0;
        d->lost_loras = false;
    }
    if (ok)
        log_info("lora", "%zu LoRAs, %zu tensors changed (%lld ms)", r->params->lora_count, lora_plan_tensors(p),
                 (long long)(clock_mono_ms() - start));
    lora_plan_close(p);
    return ok;
}
