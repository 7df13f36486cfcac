#include "server/ip_adapters.h"

#include "base/path.h"
#include "base/str.h"
#include "server/model_lists.h"

#include <stdlib.h>

/* field: of the request; type: what the file must be, and what people call that. */
typedef struct wanted {
    const char *field, *type, *title;
} wanted;

static const wanted adapter = {"ip_adapter.model", "ip_adapter", "IP-Adapter"};
static const wanted encoder = {"ip_adapter.clip_vision", "clip_vision", "CLIP vision encoder"};

static const model_entry *find(const models *m, const wanted *w, const char *name, bool *unknown, err *e) {
    err why = {0};
    const model_entry *entry = models_find(m, name, &why);
    *unknown = *unknown || (!entry && why.code == ERR_NOT_FOUND);
    if (!entry)
        err_set(e, ERR_INVALID, "%s: %s", w->field, why.msg);
    else if (!str_eq(entry->type, w->type))
        err_set(e, ERR_INVALID, "%s: '%.80s' is no %s but of type %s", w->field, entry->id, w->title, entry->type);
    else if (!entry->supported)
        err_set(e, ERR_UNSUPPORTED, "%s: '%.80s': %s", w->field, entry->id,
                entry->reason ? entry->reason : "unsupported");
    else
        return entry;
    return NULL;
}

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
    err_set(e, ERR_INVALID, "%s: required: there %s among the models", encoder.field,
            count ? "are several encoders" : "is no CLIP vision encoder");
    return NULL;
}

/* A refiner takes none, which its adapter's widths tell. */
static bool check_family(const models *m, const image_params *p, const model_entry *entry, err *e) {
    const model_entry *model = p->model ? models_find(m, p->model, NULL) : NULL;
    if (!model || !model->family || !entry->family || str_eq(model->family, entry->family)) return true;
    return err_set(e, ERR_UNSUPPORTED, "%s: '%.80s' is for %s, the model is of %s", adapter.field, entry->id,
                   entry->family, model->family);
}

bool ip_adapters_resolve(const models *m, image_params *p, bool *unknown, err *e) {
    image_ip_adapter *a = &p->ip_adapter;
    *unknown = false;
    if (!a->model) return true;
    const model_entry *entry = find(m, &adapter, a->model, unknown, e);
    if (!entry || !check_family(m, p, entry, e)) return false;
    const model_entry *reads =
        a->clip_vision ? find(m, &encoder, a->clip_vision, unknown, e) : only_encoder(m, unknown, e);
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
    const model_entry *entry = find(m, &adapter, a->model, &unknown, e);
    const model_entry *reads = entry ? find(m, &encoder, a->clip_vision, &unknown, e) : NULL;
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
