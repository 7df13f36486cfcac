/* image_sampling.h - the fields of a picture that say how steps are taken, where noise comes from and how guidance
 * works: docs/samplers.md. A part of image_params. */
#ifndef MYSTI_SERVER_IMAGE_SAMPLING_H
#define MYSTI_SERVER_IMAGE_SAMPLING_H

#include "base/buf.h"
#include "json/json.h"

#include <stdint.h>

/* Numbers, in the order of the table in image_sampling.c. */
typedef struct image_sampling {
    double eta; /* -1: the sampler's own */
    double s_noise, s_churn, s_tmin, s_tmax;
    double guidance_start, guidance_end, guidance_rescale;
    double dynamic_threshold, dynamic_threshold_limit;
    double subseed_strength;
    double switch_at;                               /* the share of the steps behind which the refiner takes over */
    int64_t subseed;                                /* -1: to be drawn */
    int64_t cache_interval;                         /* 1: nothing is kept from step to step */
    int64_t diffusion_tile, diffusion_tile_overlap; /* 0: none */
    int64_t seed_resize_from_w, seed_resize_from_h, eta_noise_seed_delta;
} image_sampling;

struct metadata;

void image_sampling_init(image_sampling *s);

/* Reads the fields that are in `body` over what is there. */
bool image_sampling_read(image_sampling *s, const json_in *body, err *e);

enum { IMAGE_SAMPLING_KEYS = 24 };

/* keys: [IMAGE_SAMPLING_KEYS] receives all that are read, static. */
void image_sampling_keys(const char **keys);

/* Appends "key":value, for each that is not as usual. */
void image_sampling_write(const image_sampling *s, buf *out);

/* Appends ,"key":[min,max] for each. */
void image_sampling_write_limits(buf *out);

/* Appends ,"key":value for each that may also have one value outside of its limits. */
void image_sampling_write_also_allowed(buf *out);

/* Appends ,"key":value for what A1111's text tells of them. */
void image_sampling_write_metadata(const struct metadata *m, buf *out);

/* Draws the subseed if it matters and is still -1, below `end`. */
void image_sampling_draw(image_sampling *s, int64_t end);

#endif
