/* unet_texts.h - keys and values of the texts that a UNet attends to. They are the same at every step of a picture, so
 * they are computed once and kept.
 *
 * Only on the CPU: an accelerator computes them sooner than they are copied to it. Together they take 128 MB at most:
 * the oldest go for new ones, and a text that would take more is not kept. Valid while the weights stay as they are:
 * for a picture's run. */
#ifndef MYSTI_DIFFUSION_UNET_TEXTS_H
#define MYSTI_DIFFUSION_UNET_TEXTS_H

#include "diffusion/model/unet.h"

typedef struct unet_texts unet_texts;

/* Borrows the UNet. */
unet_texts *unet_texts_open(unet *u);
void unet_texts_close(unet_texts *t); /* NULL is fine */

/* context: [n, tokens, context_dim]. *keys becomes what unet_input takes, valid until the next call, or NULL where it
 * is not kept. False when computing failed. */
bool unet_texts_find(unet_texts *t, const float *context, int n, int tokens, const unet_keys **keys, err *e);

/* Bytes that one text of so many rows (n tokens) takes. */
size_t unet_texts_bytes(const unet *u, int rows);

#endif
