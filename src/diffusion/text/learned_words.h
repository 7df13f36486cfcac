/* learned_words.h - textual inversions: names in a prompt that stand for learned vectors instead of tokens.
 * Gal et al. 2022, "An Image is Worth One Word: Personalizing Text-to-Image Generation using Textual Inversion". Owns
 * the vectors; keeps no file open. */
#ifndef MYSTI_DIFFUSION_TEXT_LEARNED_WORDS_H
#define MYSTI_DIFFUSION_TEXT_LEARNED_WORDS_H

#include "diffusion/text/text_encoders.h"

typedef struct learned_words learned_words;

typedef struct learned_file {
    const char *name; /* what stands for it in a prompt */
    const char *path;
} learned_file;

/* Reads the files. As A1111 and ComfyUI have it, one whose vectors are not as wide as these encoders is left out, with
 * a warning in the log, and its name stays text; of several with one name the first that fits counts. NULL on failure:
 * ERR_NOT_FOUND, ERR_FORMAT (also for vectors that are not finite), ERR_UNSUPPORTED, naming the file. */
learned_words *learned_words_open(const learned_file *files, size_t count, const text_encoders *t, err *e);
void learned_words_free(learned_words *w); /* NULL is fine */

const prompt_words *learned_words_names(const learned_words *w); /* for prompt_parse(); longest names first */

/* Of each encoder: [vectors, its dim], for text_encoders_encode(). */
const float *const *learned_words_vectors(const learned_words *w);

#endif
