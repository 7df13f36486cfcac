/* predict.h - what the network says of a noisy latent with each prompt, call by call of one sampling run. Private to
 * the engine. */
#ifndef MYSTI_DIFFUSION_PREDICT_H
#define MYSTI_DIFFUSION_PREDICT_H

#include "diffusion/conditioning.h"
#include "diffusion/controls.h"
#include "diffusion/image_prompt.h"
#include "diffusion/model/unet_texts.h"
#include "diffusion/model/unet_times.h"
#include "diffusion/request.h"

/* Everything is borrowed but `buffers`. */
typedef struct predictor {
    diffusion *d;
    const request *r;
    const conditioning *positive, *negative; /* negative is empty when nothing needs it */
    const float *appended;                   /* as source has it; NULL: nothing */
    controls *controls;                      /* NULL: there are none */
    image_prompt *image_prompt;              /* NULL: none */
    int calls_per_step;                      /* as prompt editing counts them */
    const float *sigmas;                     /* [r->schedule_steps] */

    int step, calls; /* finished steps, and calls of the network since the last of them: predictor_step() */
    float *buffers;  /* owned */

    /* DeepCache: what unet_eval_keeping() left for each question and tile. */
    float **kept;   /* [cache_slots]; NULL: not asked yet; owned */
    bool *is_known; /* [cache_slots] since the last whole step; owned */
    bool is_whole_step;
    unet_texts *texts; /* owned */
    unet_times *times; /* owned */
    float *shares;     /* [rows, columns] 1 / tiles that show it; NULL: there is one; owned */
} predictor;

/* The rest of the struct must be filled in. */
void predictor_open(predictor *p);
void predictor_close(predictor *p); /* fine on a zeroed struct */

/* A step begins, the one after `finished` of them. */
void predictor_step(predictor *p, int finished);

/* Whether that step needs nothing of those before it. */
bool predictor_starts_anew(const predictor *p, int finished);

/* The form that guidance.predict takes; ctx is the predictor. */
bool predictor_predict(void *ctx, const float *x, float timestep, const guidance_answers *out, err *e);

#endif
