/* embeddings.h - the textual inversions that a request's prompts name, among the files of the model index.
 *
 * One is named by its file's name without the ending, wherever that stands as words in a prompt. What is found here may
 * be more than what is used: the engine, which knows the tokens and the encoders' widths, decides. */
#ifndef MYSTI_SERVER_EMBEDDINGS_H
#define MYSTI_SERVER_EMBEDDINGS_H

#include "server/image_params.h"
#include "server/models.h"

/* Notes in p->texts the ids of those that its prompts name. ERR_INVALID: more than EMBEDDINGS_MAX. */
enum { EMBEDDINGS_MAX = 128 };
bool embeddings_choose(const models *m, image_params *p, err *e);

/* Appends "embeddings":[...] of docs/worker-protocol.md: those noted in p. ERR_NOT_FOUND when a file is gone. */
bool embeddings_write(const models *m, const image_params *p, buf *out, err *e);

#endif
