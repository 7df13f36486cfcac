/* loras.h - the LoRAs that a request names, in its prompt's tags and in its list, among the files of the model index.
 *
 * A LoRA is known by its id, its id or file name without the ending, or what its trainer called it (ss_output_name, as
 * A1111 takes it); the first of these that fits anything decides. */
#ifndef MYSTI_SERVER_LORAS_H
#define MYSTI_SERVER_LORAS_H

#include "server/image_params.h"
#include "server/models.h"

/* True when each of them is one file that can be used. ERR_INVALID that names the field, with the nearest names, or all
 * that it may mean; ERR_UNSUPPORTED with the file's reason. *unknown: set when a name was found nowhere. */
bool loras_check(const models *m, const image_params *p, bool *unknown, err *e);

/* Appends "loras":[...] of docs/worker-protocol.md for a picture of this prompt. The errors are those above. */
bool loras_write(const models *m, const image_params *p, const char *prompt, buf *out, err *e);

#endif
