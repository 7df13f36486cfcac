/* image_ip_adapter.h - the field `ip_adapter` of an image request: a picture as prompt. */
#ifndef MYSTI_SERVER_IMAGE_IP_ADAPTER_H
#define MYSTI_SERVER_IMAGE_IP_ADAPTER_H

#include "base/buf.h"
#include "diffusion/image/metadata.h"
#include "json/json.h"

enum { IP_ADAPTER_WEIGHT_MAX = 2 };

/* Zero is none. */
typedef struct image_ip_adapter {
    char *model;       /* owned; as given, then an id of the index; NULL: none is wanted */
    char *clip_vision; /* owned; likewise; NULL: the only one that there is */
    char *image;       /* owned; as given, then a name as init_image's */
    double weight;     /* 0..IP_ADAPTER_WEIGHT_MAX */
    double start, end; /* shares of the run, 0..1 */
} image_ip_adapter;

void image_ip_adapter_free(image_ip_adapter *a);
void image_ip_adapter_copy(image_ip_adapter *to, const image_ip_adapter *from);

/* Reads the field, where it is there, into a zeroed struct; an object, or one as text. `strict`: an unknown key is an
 * error. Errors name "ip_adapter.weight". */
bool image_ip_adapter_read(image_ip_adapter *a, const json_in *body, bool strict, err *e);

/* The one that a picture's text tells of, into a zeroed struct: by the name that it has for it, without a picture. */
void image_ip_adapter_read_metadata(image_ip_adapter *a, const metadata *m);

/* Appends "ip_adapter":{...}, with the comma; nothing when there is none. */
void image_ip_adapter_write(const image_ip_adapter *a, buf *out);

/* The members that the worker takes as they are, each with a comma in front. */
void image_ip_adapter_write_values(const image_ip_adapter *a, buf *out);

#endif
