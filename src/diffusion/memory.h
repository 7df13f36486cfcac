/* memory.h - how much memory the engine's work takes, and what there is. Private to the engine.
 *
 * The figures are upper estimates from the model's widths, fitted to measured compute buffers (docs/image-engine.md);
 * they serve to refuse what cannot work with a sentence, and to choose between a whole picture and tiles. */
#ifndef MYSTI_DIFFUSION_MEMORY_H
#define MYSTI_DIFFUSION_MEMORY_H

#include "diffusion/engine.h"
#include "diffusion/request.h"

/* Bytes that may still be used on the device: free ones, within diffusion_options.memory_limit; 0: not known. */
size_t memory_free(const diffusion *d);

/* What the model's weights take on an accelerator that has them at this place; 0 on the CPU. */
size_t memory_for_weights(const diffusion *d, place at);

/* What the request brings besides, beyond what is loaded now: weights that LoRAs change (where the model is resident),
 * ControlNets, an IP-Adapter and its encoder. */
bool memory_for_networks(const diffusion *d, const request *r, size_t *out, err *e);

/* Adds what a file's tensors take. */
bool memory_add_file(const char *path, size_t *sum, err *e);

/* memory_free() with what the model's own weights take there now. */
size_t memory_available(const diffusion *d);

/* Whether both prompts of a picture of this many latents go through the UNet at once. */
bool memory_fits_pair(const diffusion *d, int rows, int columns);

/* Scratch of one UNet pass over rows x columns latents / of one pass of the VAE. */
size_t memory_for_unet(const diffusion *d, int rows, int columns);
size_t memory_for_vae(const diffusion *d, int rows, int columns);

/* What ControlNets add to the UNet. */
size_t memory_for_controls(const diffusion *d, const request *r);

/* Scratch at the peak of the whole request, with tiles where the request allows them; and when so many bytes are
 * free. */
size_t memory_for_request(const diffusion *d, const request *r);
size_t memory_for_request_within(const diffusion *d, const request *r, size_t have);

/* The largest tile (in latents; rows and columns at most that) that the VAE can do in the free memory. */
int memory_choose_tile(const diffusion *d, const request *r);

/* ERR_MEMORY with the figures when the weights, or the work, cannot fit; on an accelerator weights can stay
 * away, those of the other model (may be NULL), too. */
bool memory_check_weights(const diffusion *d, err *e);
bool memory_check_request(const diffusion *d, const diffusion *other, const request *r, err *e);

#endif
