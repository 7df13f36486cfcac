/* model.h - the worker's one model, and how it is exchanged without losing it. Engine thread only. */
#ifndef MYSTI_SD_MODEL_H
#define MYSTI_SD_MODEL_H

#include "diffusion/diffusion.h"

/* Zero is: no model. */
typedef struct sd_model {
    diffusion *engine;         /* NULL: none */
    diffusion_files files;     /* what it was opened with; strings owned */
    diffusion_options options; /* device, threads, limit: set once; prediction: the model's */
} sd_model;

/* Opens another model. The present one stays until the new one is open; where memory does not suffice for both, it is
 * closed first and, when the new one then fails as well, opened again. On failure `m` holds what is still loaded. */
bool sd_model_load(sd_model *m, const diffusion_files *files, diffusion_prediction prediction,
                   const diffusion_events *events, err *e);

void sd_model_unload(sd_model *m); /* fine without a model */

/* The file it is known by, or NULL. */
const char *sd_model_path(const sd_model *m);

#endif
