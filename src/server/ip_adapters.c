#include "server/ip_adapters.h"

#include "base/path.h"
#include "base/str.h"
#include "server/model_choice.h"
#include "server/model_lists.h"

#include <stdlib.h>

static const model_kind_wanted adapter = {"ip_adapter", "IP-Adapter", "/v1/ip_adapters"};
static const model_kind_wanted encoder = {"clip_vision", "CLIP vision encoder", "/v1/ip_adapters"};
static const char adapter_field[] = "ip_adapter.model", encoder_field[] = "ip_adapter.clip_vision";

/* The only one that can be used. */
static const model_entry *only_encoder(const models *m, bool *unknown, err *e) {
    const model_entry *found = NULL;
    int count = 0;
    for (size_t i = 0; i < models_count(m); i++) {
        const model_entry *entry = models_at(m, i);
        if (!str_eq(entry->type, encoder.type) || !entry->supported) continue;
        found = entry;
        count++;
    }
    if (count == 1) return found;
    *unknown = *unknown || !count;
    err_set(e, ERR_INVALID, "%s: required: there %s among the models", encoder_field,
            count ? "are several encoders" : "is no CLIP vision encoder");
    return NULL;
}

bool ip_adapters_resolve(const models *m, image_params *p, bool *unknown, err *e) {
    image_ip_adapter *a = &p->ip_adapter;
    *unknown = false;
    if (!a->model) return true;
    const model_entry *entry = model_choice_find(m, &adapter, adapter_field, a->model, unknown, e);
    if (!entry || !model_choice_fits(m, entry, p->model, adapter_field, e)) return false;
    const model_entry *reads = a->clip_vision
                                   ? model_choice_find(m, &encoder, encoder_field, a->clip_vision, unknown, e)
                                   : only_encoder(m, unknown, e);
    if (!reads) return false;
    str_set(&a->model, entry->id);
    str_set(&a->clip_vision, reads->id);
    return true;
}

bool ip_adapters_write(const models *m, const uploads *u, const image_params *p, buf *out, err *e) {
    const image_ip_adapter *a = &p->ip_adapter;
    bool unknown = false;
    buf_puts(out, "\"ip_adapter\":");
    if (!a->model) {
        buf_puts(out, "null");
        return true;
    }
    const model_entry *entry = model_choice_find(m, &adapter, adapter_field, a->model, &unknown, e);
    const model_entry *reads =
        entry ? model_choice_find(m, &encoder, encoder_field, a->clip_vision, &unknown, e) : NULL;
    char *picture = reads ? uploads_path(u, a->image, e) : NULL;
    if (!picture) return reads ? err_wrap(e, "ip_adapter.image") : false;
    char *name = path_stem(entry->id);
    buf_puts(out, "{\"path\":");
    json_quote(out, entry->path);
    json_write_member(out, "name", name);
    json_write_member(out, "clip_vision", reads->path);
    json_write_member(out, "image", picture);
    image_ip_adapter_write_values(a, out);
    buf_putc(out, '}');
    free(name);
    free(picture);
    return true;
}

void ip_adapters_write_list(const models *m, buf *out) {
    buf_puts(out, "{\"object\":\"list\",\"data\":");
    model_list_write(m, adapter.type, out);
    buf_puts(out, ",\"clip_vision\":");
    model_list_write(m, encoder.type, out);
    buf_putc(out, '}');
}
