/* residency.h - whose weights are on the device, and which of them, when there is not memory for all. Private to the
 * engine.
 *
 * On a device that has too little, work goes down a ladder, and the log says each rung: the VAE takes smaller tiles
 * (memory.h); text encoders and VAE are streamed; the other model of the work gives its memory back; the UNet is
 * streamed, too, as are ControlNets and IP-Adapters; an error with the figures. Rungs are chosen by the estimate before
 * the work begins, and after an allocation that failed. On the CPU weights lie in mapped files, and of two models that
 * a limit does not suffice for one gives way. */
#ifndef MYSTI_DIFFUSION_RESIDENCY_H
#define MYSTI_DIFFUSION_RESIDENCY_H

#include "diffusion/engine.h"
#include "diffusion/request.h"

/* Brings the weights to where they belong. After ERR_MEMORY or ERR_CANCELLED they are not there. */
bool residency_load(diffusion *d, const diffusion_events *events, err *e);

/* Before work begins: chooses which of d's weights the device holds during r, with `added` bytes for the weights that
 * the request brings. Those that are elsewhere are let go; residency_bring() puts them there. The other model's (NULL:
 * there is none) go where memory does not suffice for both. */
void residency_plan(diffusion *d, diffusion *other, const request *r, size_t added);

/* Both, where the weights are not there already. */
bool residency_bring(diffusion *d, diffusion *other, const request *r, size_t added, const diffusion_events *events,
                     err *e);

/* After ERR_MEMORY in the middle of d's work: one rung down, so that it can be begun again. False when there is none.
 * What the request brought itself must be loaded again. */
bool residency_step_down(diffusion *d, diffusion *other, const err *why);

#endif
