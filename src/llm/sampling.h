/* sampling.h - which token comes next.
 *
 * Penalties, top-k, top-p, min-p and temperature are libllama's samplers, in that order. The draw at the end is ours
 * and keeps no state: the random number is a hash of (seed, index of the token), so a stream that is taken up again in
 * the middle draws what it would have drawn. */
#ifndef MYSTI_LLM_SAMPLING_H
#define MYSTI_LLM_SAMPLING_H

#include "llm/engine.h"

#include <llama.h>

typedef struct sampling sampling;

/* `never`: tokens that must not be chosen (a copy is kept). */
sampling *sampling_open(const llm_request *r, int n_vocab, const llama_token *never, size_t never_count);
void sampling_close(sampling *s); /* NULL is fine */

/* A token of the prompt or of the answer, for the penalties. */
void sampling_accept(sampling *s, llama_token token);

/* The token number `index` of the answer, from n_vocab logits; -1 when they are not numbers. */
llama_token sampling_pick(sampling *s, const float *logits, uint64_t index);

/* The random number behind it, in [0, 1): SplitMix64 (Steele, Lea, Flood 2014) read at position `index` of the stream
 * that belongs to `seed`. */
double sampling_uniform(uint64_t seed, uint64_t index);

#endif
