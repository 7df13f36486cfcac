/* residency.h - whose weights are on the device, when two models work on one picture. Private to the engine. */
#ifndef MYSTI_DIFFUSION_RESIDENCY_H
#define MYSTI_DIFFUSION_RESIDENCY_H

#include "diffusion/engine.h"

/* Brings the weights onto the device. After ERR_MEMORY or ERR_CANCELLED they are not there. */
bool residency_load(diffusion *d, const diffusion_events *events, err *e);

/* The same where they are not there already, for work that takes `scratch` bytes. The other model's go where memory
 * does not suffice for both; NULL: there is none. */
bool residency_bring(diffusion *d, diffusion *other, size_t scratch, const diffusion_events *events, err *e);

#endif
