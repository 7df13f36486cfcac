/* embedding_form.h - where the vectors of a textual inversion are in its file (Gal et al. 2022, "An Image is Worth One
 * Word"), told from its tensors' names and shapes. */
#ifndef MYSTI_DIFFUSION_LOAD_EMBEDDING_FORM_H
#define MYSTI_DIFFUSION_LOAD_EMBEDDING_FORM_H

#include "diffusion/load/tensor_file.h"

/* What fits into a chunk of a prompt. */
enum { EMBEDDING_VECTORS_MAX = 75 };

/* [vectors, width] each, or [width] for a single one; borrowed from the file. NULL: not there. */
typedef struct embedding_form {
    const tensor_info *only;            /* for a model's one text encoder */
    const tensor_info *clip_l, *clip_g; /* by encoder, as files for SDXL have them */
    int vectors;
} embedding_form;

/* False when the file holds something else. */
bool embedding_form_is(const tensor_file *f);

/* False, with a reason, for one that we cannot use; its family is known nevertheless. */
bool embedding_form_read(const tensor_file *f, embedding_form *out, err *e);

/* "sd1", "sd2", "sdxl", "sdxl-refiner": by the widths. */
const char *embedding_form_family(const embedding_form *form);

#endif
