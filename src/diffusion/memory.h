/* memory.h - how much memory the engine's work takes, and what there is. Private to the engine.
 *
 * The figures are upper estimates from the model's widths, fitted to measured compute buffers (docs/image-engine.md);
 * they serve to refuse what cannot work with a sentence, and to choose between a whole picture and tiles. */
#ifndef MYSTI_DIFFUSION_MEMORY_H
#define MYSTI_DIFFUSION_MEMORY_H

#include "diffusion/engine.h"
#include "diffusion/request.h"

/* Bytes that may still be used on the device: free ones, within diffusion_options.memory_limit. */
size_t memory_free(const diffusion *d);

/* Whether both prompts of a picture of this many latents go through the UNet at once. */
bool memory_fits_pair(const diffusion *d, int rows, int columns);

/* Scratch of one UNet pass over rows x columns latents / of one pass of the VAE. */
size_t memory_for_unet(const diffusion *d, int rows, int columns);
size_t memory_for_vae(const diffusion *d, int rows, int columns);

/* What ControlNets add to the UNet. */
size_t memory_for_controls(const diffusion *d, const request *r);

/* Scratch at the peak of the whole request, with tiles where the request allows them. */
size_t memory_for_request(const diffusion *d, const request *r);

/* The largest tile (in latents; rows and columns at most that) that the VAE can do in the free memory. */
int memory_choose_tile(const diffusion *d, const request *r);

/* ERR_MEMORY with the figures when the weights, or the work, cannot fit. */
bool memory_check_weights(const diffusion *d, err *e);
bool memory_check_request(const diffusion *d, const request *r, err *e);

#endif
