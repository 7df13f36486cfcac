#include "server/model_choice.h"

#include "base/str.h"

const model_entry *model_choice_find(const models *m, const model_kind_wanted *kind, const char *field,
                                     const char *name, bool *unknown, err *e) {
    err why = {0};
    const model_entry *entry = models_find_of(m, kind->type, name, &why);
    if (!entry && why.code == ERR_NOT_FOUND) {
        const model_entry *other = models_find(m, name, NULL);
        *unknown = *unknown || !other;
        if (other)
            err_set(e, ERR_INVALID, "%s: '%.80s' is no %s but of type %s", field, other->id, kind->title, other->type);
        else
            err_set(e, ERR_INVALID, "%s: %s (GET %s lists them)", field, why.msg, kind->route);
    } else if (!entry) {
        err_set(e, ERR_INVALID, "%s: %s", field, why.msg);
    } else if (!entry->supported) {
        err_set(e, ERR_UNSUPPORTED, "%s: '%.80s': %s", field, entry->id, entry->reason ? entry->reason : "unsupported");
    } else {
        return entry;
    }
    return NULL;
}

bool model_choice_fits(const models *m, const model_entry *chosen, const char *id, const char *field, err *e) {
    const model_entry *model = id ? models_find(m, id, NULL) : NULL;
    if (!model || !model->family || !chosen->family || str_eq(model->family, chosen->family)) return true;
    return err_set(e, ERR_UNSUPPORTED, "%s: '%.80s' is for %s, the model is of %s", field, chosen->id, chosen->family,
                   model->family);
}
