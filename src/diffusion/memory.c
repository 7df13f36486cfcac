#include "diffusion/memory.h"

#include "base/log.h"
#include "base/memory.h"
#include "diffusion/controls.h"
#include "diffusion/image_prompt.h"
#include "diffusion/load/tensor_file.h"
#include "diffusion/loras.h"
#include "diffusion/model/controlnet.h"
#include "diffusion/model/unet_texts.h"

#define MB ((size_t)1 << 20)
#define GB_OF(bytes) ((double)(bytes) / 1e9)

/* In latents. Above the largest a graph has more operations than one may have (GRAPH_NODES in backend.c), and seams of
 * blended tiles are invisible at that size anyway. */
enum { TILE_SMALLEST = 32, TILE_USUAL = 64, TILE_LARGEST = 128 };

size_t memory_for_weights(const diffusion *d, place at) {
    if (backend_is_cpu(d->backend) || at == PLACE_HOST) return 0;
    return weights_asked_bytes(d->weights, at == PLACE_UNET ? UNET_WEIGHTS : "");
}

static size_t weights_there(const diffusion *d) {
    return d->is_resident ? memory_for_weights(d, d->place) : 0;
}

size_t memory_free(const diffusion *d) {
    size_t have = 0;
    if (backend_is_cpu(d->backend))
        have = (size_t)memory_status().available;
    else
        backend_memory(d->backend, &have, NULL);
    if (!d->memory_limit) return have;
    const size_t there = weights_there(d), left = d->memory_limit > there ? d->memory_limit - there : 1;
    return left < have ? left : have;
}

bool memory_add_file(const char *path, size_t *sum, err *e) {
    tensor_file *f = tensor_file_open_header(path, e);
    for (size_t i = 0; f && i < tensor_file_count(f); i++) *sum += (size_t)tensor_file_at(f, i)->nbytes;
    tensor_file_close(f);
    return f != NULL;
}

bool memory_for_networks(const diffusion *d, const request *r, size_t *out, err *e) {
    size_t changed = 0, control = 0, shown = 0;
    *out = 0;
    if ((d->is_resident && !loras_bytes(d, r, &changed, e)) || !controls_weight_bytes(d, r->params, &control, e) ||
        !image_prompt_weight_bytes(d, r->params, &shown, e))
        return false;
    *out = changed + control + shown;
    return true;
}

size_t memory_available(const diffusion *d) {
    const size_t have = memory_free(d);
    return have ? have + weights_there(d) : 0;
}

/* On the CPU a large picture alone keeps all cores busy; two of them would only take more memory. Decided by the size
 * alone, so that a resumed picture is computed as it was begun. */
bool memory_fits_pair(const diffusion *d, int rows, int columns) {
    enum { LARGEST = 96 * 96 };
    return !backend_is_cpu(d->backend) || rows * columns <= LARGEST;
}

/* Measured with SD 1.5's widths: 91 MB at 512x512, 362 MB at 1024x1024; with SDXL's, whose first level has no
 * transformers, 94 and 243 MB. Mostly the skip connections, which live until the decoder takes them, and the first
 * level's intermediates. */
size_t memory_for_unet(const diffusion *d, int rows, int columns) {
    enum { TOKENS = 77, TEXTS = 2, COPIES = 2 }; /* of unet_texts: kept, and in the graph */
    size_t width = (size_t)weights_dim(d->weights, UNET_WEIGHTS "input_blocks.0.0.weight", 3);
    size_t passes = memory_fits_pair(d, rows, columns) ? 2 : 1;
    const size_t share = weights_has_prefix(d->weights, UNET_WEIGHTS "input_blocks.1.1.") ? 20 : 14;
    const size_t texts = backend_is_cpu(d->backend) ? COPIES * unet_texts_bytes(d->unet, TEXTS * TOKENS) : 0;
    return 32 * MB + texts + passes * (size_t)rows * (size_t)columns * width * sizeof(float) * share;
}

/* Measured likewise: 704 MB at 512x512, 2.8 GB at 1024x1024 to decode, two thirds of it to encode. The last level works
 * on all pixels with its own width, and is entered with twice that. */
size_t memory_for_vae(const diffusion *d, int rows, int columns) {
    size_t factor = (size_t)vae_describe(d->vae).factor;
    size_t width = (size_t)weights_dim(d->weights, VAE_WEIGHTS "decoder.conv_out.weight", 2);
    size_t pixels = (size_t)rows * (size_t)columns * factor * factor;
    return 64 * MB + pixels * width * sizeof(float) * 6;
}

/* On the CPU twice more: what one network gives and the sum of all lie beside the graph that takes it. */
size_t memory_for_controls(const diffusion *d, const request *r) {
    if (!r->params->control_count) return 0;
    const int rows = request_tile_rows(r), columns = request_tile_columns(r);
    const size_t passes = memory_fits_pair(d, rows, columns) ? 2 : 1;
    const size_t copies = backend_is_cpu(d->backend) ? 3 : 1;
    return passes * copies * control_values(unet_first_half(d->unet), rows, columns) * sizeof(float);
}

/* Of the picture that a ControlNet takes in. Measured with the real widths: 13 MB at 256x256, 41 at 512x512, 147 at
 * 1024x1024. */
static size_t memory_for_hint(const request *r) {
    enum { BYTES_PER_PIXEL = 144 };
    return r->params->control_count ? 8 * MB + (size_t)r->width * (size_t)r->height * BYTES_PER_PIXEL : 0;
}

static int smaller(int a, int b) {
    return a < b ? a : b;
}

static size_t memory_for_tile(const diffusion *d, const request *r, int tile) {
    return memory_for_vae(d, smaller(r->rows, tile), smaller(r->columns, tile));
}

static int tile_within(const diffusion *d, const request *r, size_t have) {
    if (r->params->tiling == DIFFUSION_TILING_OFF) return TILE_LARGEST;
    if (r->params->tiling == DIFFUSION_TILING_ON) return TILE_USUAL;
    static const int tiles[] = {TILE_LARGEST, 96, TILE_USUAL, 48};
    for (size_t i = 0; i < sizeof tiles / sizeof *tiles; i++) {
        if (memory_for_tile(d, r, tiles[i]) <= have) return tiles[i];
    }
    return TILE_SMALLEST;
}

int memory_choose_tile(const diffusion *d, const request *r) {
    const size_t have = memory_free(d);
    const int tile = tile_within(d, r, have);
    if (r->params->tiling == DIFFUSION_TILING_AUTO && tile < TILE_LARGEST && (tile < r->rows || tile < r->columns))
        log_info("diffusion", "the VAE works in tiles of %d pixels in a side: %.2f GB free on %s",
                 tile * vae_describe(d->vae).factor, GB_OF(have), backend_name(d->backend));
    return tile;
}

/* What DeepCache keeps, in the machine's memory, of up to three questions. */
static size_t memory_for_cache(const diffusion *d, const request *r) {
    enum { QUESTIONS = 3 };
    if (r->params->sampling.cache_interval <= 1 || !backend_is_cpu(d->backend)) return 0;
    const size_t cells = (size_t)r->rows * (size_t)r->columns;
    return QUESTIONS * cells * (size_t)unet_deep_channels(d->unet) * sizeof(float);
}

size_t memory_for_request(const diffusion *d, const request *r) {
    return memory_for_request_within(d, r, memory_free(d));
}

size_t memory_for_request_within(const diffusion *d, const request *r, size_t have) {
    size_t unet_bytes = memory_for_unet(d, request_tile_rows(r), request_tile_columns(r)) + memory_for_controls(d, r) +
                        memory_for_cache(d, r);
    size_t vae_bytes = memory_for_tile(d, r, tile_within(d, r, have)), hint_bytes = memory_for_hint(r);
    size_t most = unet_bytes > vae_bytes ? unet_bytes : vae_bytes;
    return most > hint_bytes ? most : hint_bytes;
}

/* On the CPU weights stay in the mapped file, and the system keeps of it what fits: it is enough that the machine could
 * hold them at all. */
bool memory_check_weights(const diffusion *d, err *e) {
    if (!backend_is_cpu(d->backend)) return true;
    size_t need = 0, have = memory_free(d);
    static const char *const parts[] = {UNET_WEIGHTS, TEXT_WEIGHTS, TEXT2_WEIGHTS,
                                        VAE_WEIGHTS}; /* not a trainer's averages */
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) need += (size_t)weights_bytes(d->weights, parts[i]);
    if (!d->memory_limit) have = (size_t)memory_status().total;
    if (have == 0 || need <= have) return true;
    return err_set(e, ERR_MEMORY, "the weights need %.1f GB of memory, %s has %.1f GB", GB_OF(need),
                   backend_name(d->backend), GB_OF(have));
}

bool memory_check_request(const diffusion *d, const diffusion *other, const request *r, err *e) {
    const size_t free = memory_available(d), have = free && other ? free + weights_there(other) : free;
    const size_t need = memory_for_request_within(d, r, have);
    if (have == 0 || need <= have) return true;
    return err_set(e, ERR_MEMORY, "%dx%d needs %.1f GB of memory to compute, %s has %.1f GB free", r->width, r->height,
                   GB_OF(need), backend_name(d->backend), GB_OF(have));
}
