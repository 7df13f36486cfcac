/* ip_adapters.h - the IP-Adapter that a request names, and the encoder it reads pictures with, among the files of the
 * model index. */
#ifndef MYSTI_SERVER_IP_ADAPTERS_H
#define MYSTI_SERVER_IP_ADAPTERS_H

#include "server/image_params.h"
#include "server/models.h"
#include "server/uploads.h"

/* True when the request has none, or each of the two is a file that can be used with the model of the request; their
 * names become ids. By any name that models_find() takes. Without clip_vision the only one that there is is taken.
 * ERR_INVALID begins with "ip_adapter.model: ", ERR_UNSUPPORTED has the file's reason. *unknown: set when one was found
 * nowhere. */
bool ip_adapters_resolve(const models *m, image_params *p, bool *unknown, err *e);

/* Appends "ip_adapter":{...} as the image worker takes it, or null. ERR_NOT_FOUND when a file or the picture is gone.
 */
bool ip_adapters_write(const models *m, const uploads *u, const image_params *p, buf *out, err *e);

/* The GET /v1/ip_adapters document: the adapters, and the encoders beside them. */
void ip_adapters_write_list(const models *m, buf *out);

#endif
