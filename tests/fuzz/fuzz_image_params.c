/* Image requests: what is accepted is within its limits, and reads back as the same after being written. */
#include "server/image_params.h"
#include "base/str.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool side_ok(int v) {
    return v == 0 || (v >= PARAMS_SIZE_MIN && v <= PARAMS_SIZE_MAX && v % 8 == 0);
}

static void check(const image_params *p) {
    bool ok = p->prompt && p->negative_prompt && p->sampler && p->scheduler && p->rng && p->output_format &&
              side_ok(p->width) && side_ok(p->height) && p->steps >= 1 && p->steps <= PARAMS_STEPS_MAX &&
              p->cfg_scale >= 0 && p->cfg_scale <= 50 && p->seed >= -1 && p->seed <= PARAMS_SEED_MAX && p->n >= 1 &&
              p->n <= PARAMS_BATCH_MAX && p->clip_skip >= 1 && p->clip_skip <= PARAMS_CLIP_SKIP_MAX &&
              p->strength >= 0 && p->strength <= 1 && p->output_compression >= 0 && p->output_compression <= 100;
    if (!ok) abort();
}

static bool read_text(image_params *p, const char *text, size_t len, bool strict) {
    err e = {0};
    yyjson_doc *doc = json_parse(text, len, &e);
    if (!doc) return false;
    json_in root = json_root(doc);
    bool ok = image_params_read(p, &root, strict ? IMAGE_PARAMS_STRICT : 0, &e);
    if (!ok && !e.msg[0]) abort();
    yyjson_doc_free(doc);
    return ok;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    image_params p, again;
    if (!read_text(&p, (const char *)data, size, size % 2)) return 0;
    check(&p);
    buf first, second;
    buf_init(&first, 4 << 20);
    buf_init(&second, 4 << 20);
    image_params_write(&p, &first);
    if (!read_text(&again, buf_str(&first), first.len, true)) abort();
    image_params_write(&again, &second);
    if (!str_eq(buf_str(&first), buf_str(&second))) abort();
    image_params_free(&p);
    image_params_free(&again);
    buf_free(&first);
    buf_free(&second);
    return 0;
}
