/* output.h - finished pictures become files. */
#ifndef MYSTI_SD_OUTPUT_H
#define MYSTI_SD_OUTPUT_H

#include "base/buf.h"
#include "base/err.h"
#include "diffusion/diffusion.h"
#include "diffusion/image/codecs.h"

/* Where, and how. Strings are borrowed. */
typedef struct output_target {
    const char *dir; /* absolute */
    const char *stem;
    int count; /* of the batch: with more than one the index goes behind the stem */
    image_format format;
    int quality;
} output_target;

/* What was written; names are relative to the target's folder. */
typedef struct output_file {
    char name[240];
    char thumb[256]; /* ".thumbs/<stem>.webp", longest side 256; "" when there is none */
    int width, height;
    size_t bytes;
} output_file;

/* The names only. */
void output_names(const output_target *t, int index, output_file *out);

/* Writes the picture by write-and-rename, with `parameters` embedded, and fills in `out`. */
bool output_write_picture(const output_target *t, int index, const image *picture, const char *parameters,
                          output_file *out, err *e);

/* The same, and the thumbnail; a picture is whole without one, so that its failure is only a line in the log. */
bool output_write(const output_target *t, int index, const image *picture, const char *parameters, output_file *out,
                  err *e);

/* Removes what was written: nobody wants it any more. */
void output_remove(const output_target *t, const output_file *f);

/* A picture that an earlier attempt at the same work has written: false when there is none that is whole. Appends what
 * it says of itself to `parameters`. A thumbnail that is missing is made now. */
bool output_find(const output_target *t, int index, output_file *out, buf *parameters);

/* What is needed to say how a picture was made, besides the parameters. */
typedef struct output_origin {
    const diffusion_params *params;
    int width, height;      /* of the picture */
    uint64_t seed, subseed; /* of this one */
    const char *model;      /* name; may be NULL */
    const char *refiner;    /* its path, or NULL */
    bool edits;             /* the model edits a picture: image_cfg_scale counts */
} output_origin;

/* Appends A1111's text. */
void output_parameters(const output_origin *o, buf *out);

#endif
