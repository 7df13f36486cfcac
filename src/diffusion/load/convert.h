/* convert.h - any readable model as a GGUF file in types of one's choice.
 *
 * A model of one or several files or of a diffusers folder becomes one file under canonical names (tensor_names.h); any
 * other file (a LoRA, an upscaler, an embedding) keeps its names. What each tensor becomes:
 *   - by the first rule whose pattern fits its name, else by the type asked for;
 *   - quantised types serve matrices only: vectors become f32, convolutions and rows that are no whole blocks f16. Of
 * the types with blocks of 256 one with blocks of 32 is taken where the rows allow that only (q4_K: q5_0, q6_K: q8_0).
 *     The VAE, small and sensitive, is f16 unless a rule says otherwise;
 *   - f16 becomes f32 where a number is beyond ±65504;
 *   - integers stay as they are. A tensor that has its type already is copied bit by bit. */
#ifndef MYSTI_DIFFUSION_LOAD_CONVERT_H
#define MYSTI_DIFFUSION_LOAD_CONVERT_H

#include "diffusion/load/weights.h"

typedef struct convert_request {
    weights_files files;
    const char *type;   /* "f16", "q4_K", ...; upper and lower case are the same */
    const char *rules;  /* "PATTERN=TYPE,PATTERN=TYPE": `*` is any text, `?` any character; NULL: none */
    const char *output; /* ends in .gguf; replaced in one step, or left as it was */
    void (*progress)(void *ctx, uint64_t done, uint64_t total); /* bytes; may be NULL */
    void *ctx;
} convert_request;

typedef struct convert_result {
    size_t tensors, other; /* `other`: those that got another type than was asked for, by the list above */
    uint64_t bytes;        /* of the file's data */
} convert_result;

/* ERR_INVALID names the option; else what reading or writing gives. */
bool convert_model(const convert_request *r, convert_result *out, err *e);

/* The types that can be asked for, NULL-terminated. */
extern const char *const convert_types[];

#endif
