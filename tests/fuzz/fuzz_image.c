/* Picture files: size, pixels, embedded text, and its parser. */
#include "diffusion/image/codecs.h"
#include "diffusion/image/metadata.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
    err e = {0};
    image img;
    const image_limits limits = {.max_bytes = 1 << 20, .max_pixels = 1 << 18};
    if (image_decode(&img, data, size, IMAGE_ALPHA_ON_WHITE, &limits, &e)) {
        if (img.channels != 3 || image_bytes(&img) > 3u << 18) abort();
        image_free(&img);
    } else if (img.px || !e.msg[0]) {
        abort();
    }
    buf text;
    buf_init(&text, 1 << 20);
    if (metadata_read(&text, data, size, &e)) {
        metadata m = {0};
        metadata_parse(&m, buf_str(&text));
        buf_clear(&text);
        metadata_format(&m, &text);
        metadata_free(&m);
    }
    buf_free(&text);
    return 0;
}
