/* model_choice.h - the file that a request names for something beside the model: a ControlNet, an upscaler. */
#ifndef MYSTI_SERVER_MODEL_CHOICE_H
#define MYSTI_SERVER_MODEL_CHOICE_H

#include "server/models.h"

typedef struct model_kind_wanted {
    const char *type;  /* of the index: "controlnet" */
    const char *title; /* what people call it */
    const char *route; /* which lists them */
} model_kind_wanted;

/* By any name that models_find_of() takes; files of other types do not count. NULL on failure, and the error begins
 * with the request's `field`: ERR_INVALID where there is none of this name (*unknown is set, and else left as it is) or
 * it is something else, ERR_UNSUPPORTED with the file's reason. Valid until the index's next change. */
const model_entry *model_choice_find(const models *m, const model_kind_wanted *kind, const char *field,
                                     const char *name, bool *unknown, err *e);

/* ERR_UNSUPPORTED where it is for another family than the model `id` (NULL, or not known: anything fits). */
bool model_choice_fits(const models *m, const model_entry *chosen, const char *id, const char *field, err *e);

#endif
