/* conditioning.h - one prompt as the network is told it, call by call: planned, encoded, and looked up while sampling.
 * Private to the engine. */
#ifndef MYSTI_DIFFUSION_CONDITIONING_H
#define MYSTI_DIFFUSION_CONDITIONING_H

#include "diffusion/engine.h"
#include "diffusion/sample/sampler.h"
#include "diffusion/text/prompt_plan.h"

/* What one call of the network is told. */
typedef struct condition {
    const context *text; /* borrowed from the engine's cache until its next piece of work */
    float *label; /* [unet_info.label_dim], the pooled text and the picture's size; owned; NULL when there is none */
} condition;

/* Zero is none. */
typedef struct conditioning {
    prompt_plan plan;
    condition **conditions; /* by part and piece */
} conditioning;

/* Which prompt it is, and what the network is told beside it. */
typedef struct conditioning_use {
    int skip; /* clip skip */
    prompt_emphasis emphasis;
    bool is_negative;  /* silence may be zeros, and the aesthetic score is the low one */
    int width, height; /* of the picture, in pixels */
} conditioning_use;

/* Encodes each text of the prompt once. As in A1111, what a part says in turn has the same number of chunks (empty ones
 * behind), and all parts the same number of rows (the last one repeated). */
bool conditioning_open(conditioning *c, diffusion *d, const char *text, const plan_span *span,
                       const conditioning_use *use, err *e);
void conditioning_close(conditioning *c);

const condition *conditioning_at(const conditioning *c, int part, int call);

/* Width of the label that the family's UNets take beside a pooled text of this width; 0: none. */
enum { LABEL_WIDTH = 256 }; /* of each number's embedding */
int conditioning_label_dim(const family *f, int pooled_dim);

/* Calls of the network that prompt editing counts for a step: A1111 takes two for its samplers of second order. */
int conditioning_calls(const sampler *kind);

#endif
