/* upscalers.h - the upscaler in the model folder that a request names. */
#ifndef MYSTI_SERVER_UPSCALERS_H
#define MYSTI_SERVER_UPSCALERS_H

#include "server/image_params.h"
#include "server/models.h"

/* By any name that models_find() takes; NULL or "": the first that can be used. NULL on failure: ERR_INVALID that
 * begins with the `field`, ERR_UNSUPPORTED with the file's reason. Valid until the index's next change. */
const model_entry *upscalers_find(const models *m, const char *field, const char *name, err *e);

/* The network that the request's hires fix names: *out is NULL when it needs none. Errors as above. */
bool upscalers_of_hires(const models *m, const image_params *p, const model_entry **out, err *e);

#endif
