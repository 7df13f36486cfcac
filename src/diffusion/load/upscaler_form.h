/* upscaler_form.h - which network an upscaler's file holds, told from its tensors' names and shapes.
 *
 * Two kinds: ESRGAN's residual-in-residual dense blocks (Wang et al. 2018; Real-ESRGAN, 2021), whose tensors have one
 * of three sets of names, and the plain stack of convolutions of Real-ESRGAN's "compact" models (SRVGGNetCompact). */
#ifndef MYSTI_DIFFUSION_LOAD_UPSCALER_FORM_H
#define MYSTI_DIFFUSION_LOAD_UPSCALER_FORM_H

#include "diffusion/load/tensor_file.h"

typedef enum upscaler_kind { UPSCALER_NONE, UPSCALER_RRDB, UPSCALER_COMPACT } upscaler_kind;

enum { UPSCALER_NAME_MAX = 64, UPSCALER_BLOCKS_MAX = 64, UPSCALER_CONVS_MAX = 5, UPSCALER_UPS_MAX = 3 };

typedef struct upscaler_form {
    upscaler_kind kind;
    int scale;  /* 1, 2, 4, 8: pixels of the result per pixel, in each direction */
    int shrink; /* so many pixels in each direction become channels first: 1, 2, 4 */
    int blocks; /* RRDB: dense blocks of three; compact: convolutions between the first and the last */
    int ups;    /* doublings at the end */
    int naming; /* private */
} upscaler_form;

/* kind UPSCALER_NONE: no upscaler. False, with a reason, for one that we cannot do ("takes 1 channel"); its kind is
 * set. */
bool upscaler_form_read(const tensor_file *f, upscaler_form *out, err *e);

/* Names of layers without ".weight", into `out`. Of RRDB: */
void upscaler_name_first(const upscaler_form *u, char out[UPSCALER_NAME_MAX]);
void upscaler_name_dense(const upscaler_form *u, int block, int third, int conv, char out[UPSCALER_NAME_MAX]);
void upscaler_name_body(const upscaler_form *u, char out[UPSCALER_NAME_MAX]); /* behind the blocks */
void upscaler_name_up(const upscaler_form *u, int index, char out[UPSCALER_NAME_MAX]);
void upscaler_name_full(const upscaler_form *u, char out[UPSCALER_NAME_MAX]); /* at full size */
void upscaler_name_last(const upscaler_form *u, char out[UPSCALER_NAME_MAX]);

/* Of a compact one: convolution i (0 .. blocks + 1) is "body.2i", its activation's slopes "body.2i+1". */

#endif
