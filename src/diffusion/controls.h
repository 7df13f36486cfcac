/* controls.h - the ControlNets of a request: their networks on the opened model, their pictures, and what they add to
 * the UNet step by step. Private to the engine. */
#ifndef MYSTI_DIFFUSION_CONTROLS_H
#define MYSTI_DIFFUSION_CONTROLS_H

#include "diffusion/canvas.h"
#include "diffusion/engine.h"

/* ERR_INVALID names "controlnet[0].weight" and the like. *key: hash of all that decides what they do, files and
 * pictures included; 0: there are none. */
bool controls_check(const diffusion_params *p, uint64_t *key, err *e);

/* Bytes of the networks' weights that are not loaded on d yet; NULL for d: of all. */
bool controls_weight_bytes(const diffusion *d, const diffusion_params *p, size_t *out, err *e);

/* Opens the networks that the request names and closes all others; they stay for the requests to come. ERR_UNSUPPORTED
 * when one is not for this model, ERR_MEMORY with the figures. */
bool controls_load(diffusion *d, const request *r, err *e);
void controls_unload(diffusion *d);        /* all of them */
void controls_release(const diffusion *d); /* their mapped pages leave memory until they are used again */

/* Of one pass. Zero is: there are none. */
typedef struct controls {
    diffusion *d;
    const request *r;
    struct controlnet *nets[DIFFUSION_CONTROLS_MAX];
    float *hints[DIFFUSION_CONTROLS_MAX]; /* what each picture became for its network; owned */
    float *buffers; /* what one network gives, and their sum, for as many pictures as are computed at once; owned */
    float *hint;    /* the part of one of them that a tile shows; owned */
} controls;

/* The networks must be loaded. Takes the pictures in, at the size that is sampled. */
bool controls_open(controls *c, diffusion *d, const request *r, const canvas *shown, err *e);
void controls_close(controls *c);

/* What all networks together add to the UNet in the step after `finished` of them. in->x: the noisy latents [n,
 * channels, t.rows, t.columns], which are that part of the picture's, n at most CONTROLS_TOGETHER. is_negative: [n],
 * the picture is asked for with the negative prompt. *out: for unet_input.control, valid until the next call; NULL:
 * nothing. */
enum { CONTROLS_TOGETHER = 2 };
bool controls_eval(controls *c, const unet_input *in, region t, const bool *is_negative, int finished,
                   const float **out, err *e);

#endif
