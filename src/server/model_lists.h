/* model_lists.h - the index's files of one type, as lists for clients. */
#ifndef MYSTI_SERVER_MODEL_LISTS_H
#define MYSTI_SERVER_MODEL_LISTS_H

#include "server/models.h"

/* Appends an array of {name, id, family, size, supported, reason}; LoRAs and ControlNets have a title, too, LoRAs an
 * alias, upscalers their scale (0: not known). */
void model_list_write(const models *m, const char *type, buf *out);

/* The document of GET /v1/loras and the like: {"object": "list", "data": [...]}. */
void model_list_write_document(const models *m, const char *type, buf *out);

/* The factor of an upscaler; 0 when its family does not say. */
int model_list_scale(const model_entry *e);

#endif
