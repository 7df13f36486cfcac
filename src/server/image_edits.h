/* image_edits.h - the fields of an image request that are about work on a picture: mask, outpainting, hires fix. */
#ifndef MYSTI_SERVER_IMAGE_EDITS_H
#define MYSTI_SERVER_IMAGE_EDITS_H

#include "json/json.h"

enum {
    EDITS_MASK_BLUR_MAX = 64,
    EDITS_MASK_PADDING_MAX = 512,
    EDITS_OUTPAINT_MAX = 2048, /* pixels at each side */
    EDITS_FEATHER_MAX = 256,
    EDITS_HIRES_SCALE_MAX = 8,
};

typedef struct image_outpaint {
    int left, right, top, bottom, feather;
} image_outpaint;

typedef struct image_hires {
    double scale;      /* 0: none, with neither width nor height */
    int width, height; /* 0: not given */
    int steps;         /* 0: as many as the first pass */
    double strength;
    char *upscaler; /* owned: a name of diffusion/image/upscalers.h, or what a request calls a network; then its id */
} image_hires;

/* Zero is not a value: image_edits_init(). */
typedef struct image_edits {
    char *mask; /* owned; NULL; as given, then a name as init_image's, or EDITS_MASK_ALPHA */
    bool mask_invert;
    double mask_blur;
    const char *mask_fill; /* static; NULL: "original", and "fill" where the picture is extended */
    bool only_masked;      /* inpaint_area is "masked" */
    int mask_padding;
    image_outpaint outpaint;
    image_hires hires;
    double image_cfg_scale;
} image_edits;

/* The initial picture's own transparency is the mask. */
#define EDITS_MASK_ALPHA "alpha"

void image_edits_init(image_edits *x);
void image_edits_free(image_edits *x);
void image_edits_copy(image_edits *to, const image_edits *from);

/* Reads the fields that are there. `strict`: an unknown key of an inner object is an error. */
bool image_edits_read(image_edits *x, const json_in *body, bool strict, err *e);

/* Whether they fit each other and the presence of an initial picture. */
bool image_edits_check(const image_edits *x, bool has_init, err *e);

bool image_edits_extends(const image_edits *x);
bool image_edits_has_hires(const image_edits *x);

/* The size of the result, from that of the first pass. */
void image_edits_size(const image_edits *x, int *width, int *height);

/* Appends what differs from the defaults as members of an object, each with a comma behind. Without `mask`, for that is
 * written as a path for the worker and as a name for all else. */
void image_edits_write(const image_edits *x, buf *out);

/* Members of the GET /v1/options document, with commas: the lists, and below "limits" the ranges. */
void image_edits_write_lists(buf *out);
void image_edits_write_limits(buf *out);

/* The keys of a body, NULL-terminated. */
extern const char *const image_edits_keys[];

#endif
