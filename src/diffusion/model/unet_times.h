/* unet_times.h - what the residual blocks of a UNet add for the time, at all steps of a schedule. It depends on nothing
 * else but the label, so that it is computed for all steps at once: then its weights are read once, and not at each
 * step.
 *
 * Only on the CPU, and while it takes 16 MB at most. Valid while the weights stay as they are: for a picture's run. */
#ifndef MYSTI_DIFFUSION_UNET_TIMES_H
#define MYSTI_DIFFUSION_UNET_TIMES_H

#include "diffusion/model/unet.h"

typedef struct unet_times unet_times;

/* Borrows the UNet; timesteps: those of the schedule, copied. */
unet_times *unet_times_open(unet *u, const float *timesteps, int count);
void unet_times_close(unet_times *t); /* NULL is fine */

/* Sets in->times, valid until the next call: NULL where the timesteps are not all the same one of the schedule's, or it
 * is not kept. False when computing failed. */
bool unet_times_find(unet_times *t, unet_input *in, err *e);

#endif
