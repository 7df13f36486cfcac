#include "server/controlnets.h"

#include "base/path.h"
#include "base/str.h"

#include <stdlib.h>

static const char type[] = "controlnet";

/* Of the model that is to draw; NULL when it is not known. A refiner takes none, which its ControlNet's widths tell. */
static const char *family_of(const models *m, const image_params *p) {
    const model_entry *entry = p->model ? models_find(m, p->model, NULL) : NULL;
    return entry ? entry->family : NULL;
}

static const model_entry *find(const models *m, size_t i, const char *name, const char *family, bool *unknown, err *e) {
    err why = {0};
    const model_entry *entry = models_find_of(m, type, name, &why);
    if (!entry && why.code == ERR_NOT_FOUND) entry = models_find(m, name, &why); /* to say what it is */
    *unknown = *unknown || (!entry && why.code == ERR_NOT_FOUND);
    if (!entry) {
        err_set(e, ERR_INVALID, "controlnet[%zu].model: %s", i, why.msg);
    } else if (!str_eq(entry->type, type)) {
        err_set(e, ERR_INVALID, "controlnet[%zu].model: '%.80s' is no ControlNet but of type %s", i, entry->id,
                entry->type);
    } else if (!entry->supported) {
        err_set(e, ERR_UNSUPPORTED, "controlnet[%zu].model: '%.80s': %s", i, entry->id,
                entry->reason ? entry->reason : "unsupported");
    } else if (family && entry->family && !str_eq(family, entry->family)) {
        err_set(e, ERR_UNSUPPORTED, "controlnet[%zu].model: '%.80s' is for %s, the model is of %s", i, entry->id,
                entry->family, family);
    } else {
        return entry;
    }
    return NULL;
}

bool controlnets_resolve(const models *m, image_params *p, bool *unknown, err *e) {
    const char *family = family_of(m, p);
    *unknown = false;
    for (size_t i = 0; i < p->controls.count; i++) {
        const model_entry *entry = find(m, i, p->controls.at[i].model, family, unknown, e);
        if (!entry) return false;
        str_set(&p->controls.at[i].model, entry->id);
    }
    return true;
}

static bool write_one(const models *m, const uploads *u, const image_control *c, size_t i, buf *out, err *e) {
    bool unknown = false;
    const model_entry *entry = find(m, i, c->model, NULL, &unknown, e);
    if (!entry) return false;
    char *picture = uploads_path(u, c->image, e);
    if (!picture) return err_wrap(e, "controlnet[%zu].image", i);
    char *name = path_stem(entry->id);
    buf_puts(out, i ? ",{\"path\":" : "{\"path\":");
    json_quote(out, entry->path);
    json_write_member(out, "name", name);
    json_write_member(out, "image", picture);
    image_control_write_values(c, out);
    buf_putc(out, '}');
    free(name);
    free(picture);
    return true;
}

bool controlnets_write(const models *m, const uploads *u, const image_params *p, buf *out, err *e) {
    bool ok = true;
    buf_puts(out, "\"controlnet\":[");
    for (size_t i = 0; ok && i < p->controls.count; i++) ok = write_one(m, u, &p->controls.at[i], i, out, e);
    buf_putc(out, ']');
    return ok;
}
