#include "server/upscalers.h"

#include "base/str.h"
#include "diffusion/image/upscalers.h"
#include "server/image_fields.h"
#include "server/model_choice.h"

static const model_kind_wanted kind = {"upscaler", "upscaler", "/v1/upscalers"};

static const model_entry *first_usable(const models *m, const char *field, err *e) {
    for (size_t i = 0; i < models_count(m); i++) {
        const model_entry *entry = models_at(m, i);
        if (str_eq(entry->type, kind.type) && entry->supported) return entry;
    }
    err_set(e, ERR_INVALID, "%s: there is none in the model folder; put an ESRGAN or Real-ESRGAN file into it", field);
    return NULL;
}

const model_entry *upscalers_find(const models *m, const char *field, const char *name, err *e) {
    if (str_empty(name)) return first_usable(m, field, e);
    bool unknown = false;
    return model_choice_find(m, &kind, field, name, &unknown, e);
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
