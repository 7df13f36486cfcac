/* loras.h - the LoRAs of a request on the opened model. Private to the engine. */
#ifndef MYSTI_DIFFUSION_LORAS_H
#define MYSTI_DIFFUSION_LORAS_H

#include "diffusion/engine.h"
#include "diffusion/request.h"

/* Makes the model's weights those that the request wants, which may be the files' own; does nothing when they are so
 * already, and leaves them for the requests to come. The errors are lora.h's, and ERR_MEMORY with the figures before
 * anything is changed. After a failure either nothing was changed, or no LoRA is applied. */
bool loras_apply(diffusion *d, const request *r, const diffusion_events *events, err *e);

/* Bytes that loras_apply() would allocate. */
bool loras_bytes(const diffusion *d, const request *r, size_t *out, err *e);

#endif
