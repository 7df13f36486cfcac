/* kept.h - what a job opened beside the model, kept for the next one: the upscaler or refiner used last. Engine thread
 * only. */
#ifndef MYSTI_SD_KEPT_H
#define MYSTI_SD_KEPT_H

#include "base/file.h"
#include "diffusion/diffusion.h"

/* How such a thing is opened and closed. */
typedef struct sd_kept_kind {
    void *(*open)(const char *path, const diffusion_options *options, err *e);
    void (*close)(void *handle);
} sd_kept_kind;

extern const sd_kept_kind sd_kept_upscaler; /* a diffusion_upscaler */
extern const sd_kept_kind sd_kept_refiner;  /* a diffusion, whose weights wait for their first use */

/* Zero is: none. */
typedef struct sd_kept {
    void *handle;
    const sd_kept_kind *kind;
    char *path;
    file_info file; /* as it was when it was opened */
} sd_kept;

/* The one of that file, opened when it is not the one at hand or has changed since; borrowed until the next call.
 * NULL on failure. */
void *sd_kept_get(sd_kept *k, const sd_kept_kind *kind, const char *path, const diffusion_options *options, err *e);

void sd_kept_free(sd_kept *k); /* fine without one */

#endif
