/* image_controls.h - the field `controlnet` of an image request: ControlNets, each with its picture. */
#ifndef MYSTI_SERVER_IMAGE_CONTROLS_H
#define MYSTI_SERVER_IMAGE_CONTROLS_H

#include "base/buf.h"
#include "diffusion/image/metadata.h"
#include "json/json.h"

enum {
    CONTROLS_MAX = 8,
    CONTROLS_WEIGHT_MAX = 2,
    CONTROLS_THRESHOLD_MAX = 2040, /* of canny: the largest gradient */
};

typedef struct image_control {
    char *model;        /* owned; as given, then an id of the index */
    char *image;        /* owned; as given, then a name as init_image's */
    double weight;      /* 0..CONTROLS_WEIGHT_MAX */
    double start, end;  /* shares of the run, 0..1 */
    const char *module; /* the preprocessor, "none" "canny": static */
    int low, high;      /* thresholds of canny */
    const char *mode;   /* "balanced" "prompt" "control": static */
} image_control;

/* Zero is none. */
typedef struct image_controls {
    image_control *at; /* owned */
    size_t count;
} image_controls;

void image_controls_free(image_controls *c);
void image_controls_copy(image_controls *to, const image_controls *from);

/* Reads the field, where it is there, into a zeroed struct; an array, or one as text. `strict`: an unknown key is an
 * error. Errors name "controlnet[0].weight". */
bool image_controls_read(image_controls *c, const json_in *body, bool strict, err *e);

/* Those that a picture's text tells of, into a zeroed struct: by the names that it has for them, without pictures. */
void image_controls_read_metadata(image_controls *c, const metadata *m);

/* Appends "controlnet":[...], with the comma; nothing when there are none. */
void image_controls_write(const image_controls *c, buf *out);

/* The members of one that the worker takes as they are, each with a comma in front: all but names and picture. */
void image_control_write_values(const image_control *c, buf *out);

/* Members of the GET /v1/options document, with commas: the lists, and below "limits" the ranges. */
void image_controls_write_lists(buf *out);
void image_controls_write_limits(buf *out);

#endif
