/* controlnet.h - a ControlNet (Zhang et al. 2023, "Adding Conditional Control to Text-to-Image Diffusion Models"): a
 * trained copy of a UNet's first half that sees a control picture, and whose results are added to the UNet's skip
 * connections and to its middle.
 *
 * Owns its weights, borrows the backend. Scratch: less than the UNet's for one pass; some 150 bytes per pixel of the
 * picture while it is taken in. */
#ifndef MYSTI_DIFFUSION_CONTROLNET_H
#define MYSTI_DIFFUSION_CONTROLNET_H

#include "diffusion/model/unet_encoder.h"

typedef struct controlnet controlnet;

/* Reads a file of any format, for a UNet that begins with `model` and denoises latents of so many channels. NULL on
 * failure: ERR_UNSUPPORTED when it is no
 * ControlNet, one of a kind that we cannot do, or one for another model. */
controlnet *controlnet_open(const char *path, const unet_encoder *model, int channels, backend *b, err *e);
void controlnet_close(controlnet *c); /* NULL is fine */

/* The mapped pages of its weights leave resident memory; they are read again when touched. */
void controlnet_release(controlnet *c);

/* Numbers that a picture becomes: [channels, h, w] of latents. */
size_t controlnet_hint_values(const controlnet *c, int h, int w);

/* rgb: [3, height, width] in 0..1, multiples of 8. out: [channels, height / 8, width / 8], the caller's. Once for all
 * steps. */
bool controlnet_hint(controlnet *c, const float *rgb, int width, int height, float *out, err *e);

/* in->x: [n, channels of a latent, h, w], in->control is not looked at. hint: of that size. out: what
 * unet_input.control takes; the caller's. */
bool controlnet_eval(controlnet *c, const unet_input *in, const float *hint, float *out, err *e);

/* Numbers in unet_input.control for one picture of a batch, and those of part i: a skip connection, or behind the last
 * the middle. */
size_t control_part_values(const unet_encoder *u, int i, int h, int w);
size_t control_values(const unet_encoder *u, int h, int w);

#endif
