/* image_texts.h - what becomes of a request's prompts: noted when it is submitted, so that a job that is taken up again
 * does as it would have. Clients are told; what they send of it is replaced. */
#ifndef MYSTI_SERVER_IMAGE_TEXTS_H
#define MYSTI_SERVER_IMAGE_TEXTS_H

#include "json/json.h"

typedef struct image_text {
    char *prompt, *negative_prompt; /* never NULL */
} image_text;

/* All owned; zeroed is empty. */
typedef struct image_texts {
    image_text *each; /* of a job with wildcards: each picture's own prompts */
    size_t count;
    char *prompt_template, *negative_template; /* of a picture from one: what they were made from; else NULL */
    char **embeddings;                         /* ids of the textual inversions that the prompts name */
    size_t embedding_count;
} image_texts;

void image_texts_free(image_texts *t); /* empty afterwards */
void image_texts_copy(image_texts *to, const image_texts *from);

/* The next picture's own prompts; takes them over. */
void image_texts_add(image_texts *t, char *prompt, char *negative_prompt);

/* Whether the pictures have different prompts. */
bool image_texts_differ(const image_texts *t);

/* A job's parameters become those of its picture i: *prompt and *negative_prompt (owned) are its own, and where they
 * are others than before, those are the templates. */
void image_texts_pick(image_texts *t, size_t i, char **prompt, char **negative_prompt);

void image_texts_forget_embeddings(image_texts *t);
void image_texts_add_embedding(image_texts *t, const char *id);

/* The fields "prompts", "prompt_template", "negative_template" and "embeddings". */
enum { IMAGE_TEXTS_KEYS = 4 };
extern const char *const image_texts_keys[IMAGE_TEXTS_KEYS];
bool image_texts_read(image_texts *t, const json_in *body, err *e);
void image_texts_write(const image_texts *t, buf *out); /* each with a comma behind it */

#endif
