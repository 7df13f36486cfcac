/* text_encoders.h - all text encoders of a model as one: a prompt to the rows that the UNet attends to and, in SDXL,
 * one vector of the whole text. Each encoder reads the same chunks and gives its columns of every row. Borrows weights
 * and backend, which must outlive it. */
#ifndef MYSTI_DIFFUSION_TEXT_ENCODERS_H
#define MYSTI_DIFFUSION_TEXT_ENCODERS_H

#include "diffusion/text/clip.h"

typedef struct text_encoders text_encoders;

/* Declares the tensors of `count` encoders in `w`; they need to be committed before use. The forms are borrowed. NULL
 * on failure, with the reason in `e`. */
text_encoders *text_encoders_open(weights *w, backend *b, const clip_form *const *forms, int count, err *e);
void text_encoders_close(text_encoders *t); /* NULL is fine */

int text_encoders_dim(const text_encoders *t);        /* width of a row: all encoders' together */
int text_encoders_pooled_dim(const text_encoders *t); /* of the vector; 0: there is none */

int text_encoders_count(const text_encoders *t);
const clip *text_encoders_at(const text_encoders *t, int i);
enum { TEXT_ENCODERS_MAX = 2 };

/* rows: [p->chunks * 77, dim], pooled: [pooled_dim] (not touched when that is 0), both the caller's. skip, and learned
 * by encoder (or NULL), as in clip_encode(). */
bool text_encoders_encode(text_encoders *t, const prompt *p, const float *const *learned, int skip, float *rows,
                          float *pooled, err *e);

#endif
