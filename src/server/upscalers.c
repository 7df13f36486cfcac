#include "server/upscalers.h"

#include "base/str.h"
#include "diffusion/image/upscalers.h"
#include "server/image_fields.h"

static bool is_upscaler(const model_entry *e) {
    return str_eq(e->type, "upscaler");
}

static const model_entry *first_usable(const models *m, const char *field, err *e) {
    for (size_t i = 0; i < models_count(m); i++) {
        const model_entry *entry = models_at(m, i);
        if (is_upscaler(entry) && entry->supported) return entry;
    }
    err_set(e, ERR_INVALID, "%s: there is none in the model folder; put an ESRGAN or Real-ESRGAN file into it", field);
    return NULL;
}

const model_entry *upscalers_find(const models *m, const char *field, const char *name, err *e) {
    if (str_empty(name)) return first_usable(m, field, e);
    err why = {0};
    const model_entry *entry = models_find(m, name, &why);
    if (!entry) {
        err_set(e, ERR_INVALID, "%s: %s", field, why.msg);
    } else if (!is_upscaler(entry)) {
        err_set(e, ERR_INVALID, "%s: '%.80s' is no upscaler but of type %s", field, entry->id, entry->type);
    } else if (!entry->supported) {
        err_set(e, ERR_UNSUPPORTED, "%s: '%.80s': %s", field, entry->id, entry->reason ? entry->reason : "unsupported");
    } else {
        return entry;
    }
    return NULL;
}

bool upscalers_of_hires(const models *m, const image_params *p, const model_entry **out, err *e) {
    static const char field[] = "hires.upscaler";
    const char *name = p->edits.hires.upscaler;
    err why = {0};
    *out = NULL;
    if (p->is_upscale || !image_edits_has_hires(&p->edits) || upscaler_find(name)) return true;
    *out = upscalers_find(m, field, name, e);
    if (*out || models_find(m, name, NULL)) return *out != NULL;
    field_not_one_of(field, name, upscaler_names, &why);
    return err_set(e, ERR_INVALID, "%s, nor one of /v1/upscalers", why.msg);
}
