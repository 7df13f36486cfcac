/* upscale.h - the upscaler of diffusion.h, for the engine itself: hires fix enlarges on the model's own device. */
#ifndef MYSTI_DIFFUSION_UPSCALE_H
#define MYSTI_DIFFUSION_UPSCALE_H

#include "diffusion/diffusion.h"
#include "diffusion/model/backend.h"

/* As diffusion_upscaler_open(), on a device that the caller keeps until the upscaler is closed, and whose
 * backend_set_cancel() is the caller's. memory_limit as in diffusion_options. */
diffusion_upscaler *upscaler_open_on(const char *path, backend *b, size_t memory_limit, err *e);

#endif
