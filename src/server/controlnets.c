#include "server/controlnets.h"

#include "base/path.h"
#include "base/str.h"
#include "server/model_choice.h"

#include <stdio.h>
#include <stdlib.h>

static const model_kind_wanted kind = {"controlnet", "ControlNet", "/v1/controlnets"};

/* model: an id; NULL fits every file. */
static const model_entry *find(const models *m, size_t i, const char *name, const char *model, bool *unknown, err *e) {
    char field[40];
    snprintf(field, sizeof field, "controlnet[%zu].model", i);
    const model_entry *entry = model_choice_find(m, &kind, field, name, unknown, e);
    return entry && model_choice_fits(m, entry, model, field, e) ? entry : NULL;
}

bool controlnets_resolve(const models *m, image_params *p, bool *unknown, err *e) {
    *unknown = false;
    for (size_t i = 0; i < p->controls.count; i++) {
        const model_entry *entry = find(m, i, p->controls.at[i].model, p->model, unknown, e);
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
