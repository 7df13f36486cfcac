/* memory_plan.c - see memory_plan.h. */
#include "server/memory_plan.h"
#include "base/str.h"

#include <stdio.h>
#include <string.h>

enum {
    LATENT_PIXELS = 8,             /* pixels per latent, in each direction */
    UNET_BYTES_PER_LATENT = 24576, /* activations of an SD-like UNet: about 100 MB for 64 x 64 latents */
    VAE_BYTES_PER_PIXEL = 48 * 16, /* decoding: 16 channels-of-48-bytes wide at full resolution */
    VAE_TILE = 512,                /* larger pictures are decoded in tiles of this side */
    KV_BYTES_PER_POSITION = 128 * 1024,
};
static const int64_t DEVICE_RESERVE = INT64_C(200) << 20; /* a context of the driver and its buffers */

static bool is_cpu(const memory_device *d) {
    return str_icontains(d->name, "CPU");
}

void memory_state_read(memory_state *s, const json_in *health) {
    json_in list;
    s->count = 0;
    if (!json_get_arr(health, "memory", false, &list, NULL) || !list.val) return;
    size_t n = yyjson_arr_size(list.val);
    for (size_t i = 0; i < n && s->count < MEMORY_DEVICES_MAX; i++) {
        json_in item = json_item(&list, i);
        memory_device *d = &s->devices[s->count];
        const char *name = NULL;
        *d = (memory_device){0};
        if (!json_get_str(&item, "device", &name, NULL) || !name) continue;
        if (!json_get_i64(&item, "total", &d->total, 1, INT64_MAX, NULL)) continue;
        if (!json_get_i64(&item, "free", &d->free, 0, INT64_MAX, NULL)) continue;
        str_copy(d->name, sizeof d->name, name);
        if (d->total > 0) s->count++;
    }
}

const memory_device *memory_plan_device(const memory_state *s) {
    for (int i = 0; i < s->count; i++)
        if (!is_cpu(&s->devices[i])) return &s->devices[i];
    return s->count ? &s->devices[0] : NULL;
}

int64_t memory_plan_scratch(int width, int height) {
    int64_t latents = (int64_t)(width / LATENT_PIXELS) * (height / LATENT_PIXELS);
    int64_t tile_w = width < VAE_TILE ? width : VAE_TILE, tile_h = height < VAE_TILE ? height : VAE_TILE;
    int64_t unet = latents * UNET_BYTES_PER_LATENT, vae = tile_w * tile_h * VAE_BYTES_PER_PIXEL;
    return unet > vae ? unet : vae;
}

void memory_plan_format(int64_t bytes, char out[16]) {
    if (bytes < 0) bytes = 0;
    if (bytes >= 1000000000)
        snprintf(out, 16, "%.1f GB", (double)bytes / 1e9);
    else
        snprintf(out, 16, "%lld MB", (long long)((bytes + 999999) / 1000000));
}

static bool fits(int64_t need, int64_t available, const memory_device *d, const char *what, err *e) {
    if (need <= available) return true;
    char needed[16], have[16];
    memory_plan_format(need, needed);
    memory_plan_format(available, have);
    return err_set(e, ERR_MEMORY, "%s needs about %s, %s free on %s", what, needed, have, d->name);
}

/* On the CPU even scratch may be paged out; only what is beyond the whole machine cannot work. */
static int64_t available_on(const memory_device *d, int64_t reclaim) {
    if (is_cpu(d)) return d->total;
    int64_t free = d->free + reclaim;
    return free > d->total ? d->total : free;
}

bool memory_plan_generate(const memory_state *s, int width, int height, int64_t reclaim, err *e) {
    const memory_device *d = memory_plan_device(s);
    char what[48];
    if (!d) return true;
    snprintf(what, sizeof what, "a picture of %d x %d", width, height);
    return fits(memory_plan_scratch(width, height), available_on(d, reclaim), d, what, e);
}

bool memory_plan_llm(const memory_state *s, int64_t weight_bytes, int64_t n_ctx, int64_t kv_bytes_per_position,
                     int64_t reclaim, err *e) {
    const memory_device *d = memory_plan_device(s);
    if (!d) return true;
    int64_t kv = n_ctx * (kv_bytes_per_position > 0 ? kv_bytes_per_position : KV_BYTES_PER_POSITION);
    int64_t need = is_cpu(d) ? kv : weight_bytes + kv + DEVICE_RESERVE;
    return fits(need, available_on(d, reclaim), d, "the model with this context", e);
}
