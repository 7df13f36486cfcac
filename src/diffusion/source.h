/* source.h - what a picture is made from besides noise and prompt: the initial picture's latents, where they are drawn
 * anew, and what the network of a model for inpainting or editing is shown beside the noisy latent.
 * Private to the engine. */
#ifndef MYSTI_DIFFUSION_SOURCE_H
#define MYSTI_DIFFUSION_SOURCE_H

#include "diffusion/canvas.h"
#include "diffusion/engine.h"

/* Of one pass. Zero is: nothing but noise. Everything is owned. */
typedef struct source {
    canvas canvas;
    float *latents;  /* [values] of the initial picture; NULL without one */
    float *mask;     /* [rows, columns] 1 where the picture is drawn anew, else 0; NULL: everywhere */
    float *start;    /* [values] what sampling starts from; NULL: noise alone */
    float *appended; /* [source_appended(), rows, columns] behind the latent in the network's input; NULL: nothing */
} source;

/* Channels that the model's network takes besides those of a latent: 0; 1 + those of a latent for the mask and what it
 * leaves of the picture; those of a latent for the picture that is edited. */
int source_appended(const diffusion *d);

/* Encodes what the request needs; the engine's VAE is set to tiles that fit. `progress` as for vae_encode(). */
bool source_open(source *s, diffusion *d, const request *r, vae_progress progress, void *ctx, err *e);
void source_close(source *s);

/* Before each picture: its `start`, which holds the noise of the picture's seed where the mask is filled with that. */
void source_begin(source *s, const request *r, rng *noise);

/* Pixels in -1..1 as planes, [3, height, width]; freed with free(). */
float *source_planes(const image *rgb);

/* rgb: of the request's size; latents: [values], the caller's. */
bool source_encode(diffusion *d, const request *r, const float *planes, float *latents, vae_progress progress,
                   void *ctx, err *e);

#endif
