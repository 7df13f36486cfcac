/* embeddings.h - the textual inversions of a request on the opened model. Private to the engine. */
#ifndef MYSTI_DIFFUSION_EMBEDDINGS_H
#define MYSTI_DIFFUSION_EMBEDDINGS_H

#include "diffusion/engine.h"
#include "diffusion/request.h"

/* Makes d->words those of the request; does nothing when they are already. The errors are learned_words_open()'s. After
 * a failure there are none. */
bool embeddings_apply(diffusion *d, const request *r, err *e);

#endif
