/* preview.h - what a latent will look like, without the autoencoder: one pixel for each latent. */
#ifndef MYSTI_DIFFUSION_PREVIEW_H
#define MYSTI_DIFFUSION_PREVIEW_H

#include "diffusion/image/image.h"
#include "diffusion/model/latent.h"

/* A linear map from the four channels of Stable Diffusion's latents (as the UNet has them) to colours: good enough to
 * see composition and light. False, with an empty image, when z has another number of channels. */
bool preview_render(const latent *z, image *out);

#endif
