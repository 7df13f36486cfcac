/* ip_adapter.h - a picture as prompt (Ye et al. 2023, "IP-Adapter: Text Compatible Image Prompt Adapter for
 * Text-to-Image Diffusion Models"): a picture's encoding becomes a few tokens, to which each cross-attention of the
 * UNet attends by keys and values of their own. Both kinds of projection: a linear layer over the picture's vector,
 * and the plus kind's resampler, learned queries that attend to all patches (heads of 64 channels).
 * Owns its weights; borrows the backend, which must outlive it. */
#ifndef MYSTI_DIFFUSION_IP_ADAPTER_H
#define MYSTI_DIFFUSION_IP_ADAPTER_H

#include "diffusion/model/clip_vision.h"
#include "diffusion/model/unet.h"

typedef struct ip_adapter ip_adapter;

/* For this UNet. NULL on failure: ERR_UNSUPPORTED when it is none, of a kind that we cannot do, or for another UNet. */
ip_adapter *ip_adapter_open(const char *path, const unet *u, backend *b, err *e);
void ip_adapter_close(ip_adapter *a); /* NULL is fine */

int ip_adapter_tokens(const ip_adapter *a);                         /* for each picture */
const unet_image_attention *ip_adapter_layers(const ip_adapter *a); /* for unet_image; a's */

/* What the UNet is shown of a picture, and of none (with the negative prompt): each [tokens, context_dim], the
 * caller's. ERR_UNSUPPORTED when the adapter was trained with another encoder, by the width that it reads. */
bool ip_adapter_encode(ip_adapter *a, clip_vision *v, const image *picture, float *shown, float *blank, err *e);

#endif
