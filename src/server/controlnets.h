/* controlnets.h - the ControlNets that a request names, among the files of the model index. */
#ifndef MYSTI_SERVER_CONTROLNETS_H
#define MYSTI_SERVER_CONTROLNETS_H

#include "server/image_params.h"
#include "server/models.h"
#include "server/uploads.h"

/* True when each of them is one file that can be used with the model of the request; their names become ids. By any
 * name that models_find() takes. ERR_INVALID begins with "controlnet[0].model: ", ERR_UNSUPPORTED has the file's
 * reason. *unknown: set when one was found nowhere. */
bool controlnets_resolve(const models *m, image_params *p, bool *unknown, err *e);

/* Appends "controlnet":[...] as the image worker takes it. ERR_NOT_FOUND when a file or a picture is gone. */
bool controlnets_write(const models *m, const uploads *u, const image_params *p, buf *out, err *e);

#endif
