/* image.c - see image.h. */
#include "diffusion/image/image.h"
#include "base/str.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool image_alloc(image *img, int width, int height, int channels) {
    *img = (image){0};
    bool is_size = width >= 1 && width <= IMAGE_SIDE_MAX && height >= 1 && height <= IMAGE_SIDE_MAX;
    if (!is_size || (channels != 1 && channels != 3 && channels != 4)) return false;
    unsigned char *px = calloc((size_t)width * (size_t)height, (size_t)channels);
    if (!px) return false;
    *img = (image){.width = width, .height = height, .channels = channels, .px = px};
    return true;
}

void image_free(image *img) {
    free(img->px);
    *img = (image){0};
}

size_t image_bytes(const image *img) {
    return (size_t)img->width * (size_t)img->height * (size_t)img->channels;
}

bool image_copy(image *dst, const image *src) {
    if (!image_alloc(dst, src->width, src->height, src->channels)) return false;
    memcpy(dst->px, src->px, image_bytes(src));
    return true;
}

/* x / 255, rounded, exact for 0 <= x <= 255 * 255. */
static unsigned div255(unsigned x) {
    return (x + 127) / 255;
}

static void to_rgba(const unsigned char *p, int channels, unsigned char out[4]) {
    for (int c = 0; c < 3; c++) out[c] = p[channels == 1 ? 0 : c];
    out[3] = channels == 4 ? p[3] : 255;
}

static void from_rgba(unsigned char *p, int channels, const unsigned char in[4], unsigned background) {
    if (channels == 4) {
        memcpy(p, in, 4);
        return;
    }
    unsigned rgb[3];
    for (int c = 0; c < 3; c++) rgb[c] = div255(in[c] * (unsigned)in[3] + background * (255u - in[3]));
    if (channels == 1)
        p[0] = (unsigned char)((rgb[0] * 299 + rgb[1] * 587 + rgb[2] * 114 + 500) / 1000); /* BT.601 luma */
    else
        for (int c = 0; c < 3; c++) p[c] = (unsigned char)rgb[c];
}

bool image_convert(image *dst, const image *src, int channels, int background) {
    if (!image_alloc(dst, src->width, src->height, channels)) return false;
    size_t n = (size_t)src->width * (size_t)src->height;
    for (size_t i = 0; i < n; i++) {
        unsigned char rgba[4];
        to_rgba(src->px + i * (size_t)src->channels, src->channels, rgba);
        from_rgba(dst->px + i * (size_t)channels, channels, rgba, (unsigned)background);
    }
    return true;
}

/* One output position: weights for `count` source positions from `first` on; they sum to 1. */
typedef struct filter_taps {
    int first, count;
    float *weight; /* borrowed from the filter */
} filter_taps;

typedef struct filter {
    filter_taps *taps; /* one per output position */
    float *weights;
} filter;

static double lanczos3(double x) {
    static const double PI = 3.14159265358979323846;
    if (x == 0) return 1;
    if (x <= -3 || x >= 3) return 0;
    return 3 * sin(PI * x) * sin(PI * x / 3) / (PI * PI * x * x);
}

/* When reducing, the kernel is widened to the size of a source step: that is what prevents aliasing. */
static filter filter_make(int in, int out) {
    double scale = (double)in / out;
    double stretch = scale > 1 ? scale : 1;
    double support = 3 * stretch;
    int cap = (int)ceil(support) * 2 + 1;
    filter f = {.taps = mem_alloc((size_t)out, sizeof *f.taps),
                .weights = mem_alloc((size_t)out * (size_t)cap, sizeof(float))};
    for (int i = 0; i < out; i++) {
        double center = (i + 0.5) * scale;
        int first = (int)fmax(0, floor(center - support + 0.5));
        int end = (int)fmin(in, floor(center + support + 0.5));
        filter_taps *t = &f.taps[i];
        *t = (filter_taps){.first = first, .count = end - first, .weight = f.weights + (size_t)i * (size_t)cap};
        double sum = 0;
        for (int k = 0; k < t->count; k++) sum += lanczos3((first + k + 0.5 - center) / stretch);
        for (int k = 0; k < t->count; k++) t->weight[k] = (float)(lanczos3((first + k + 0.5 - center) / stretch) / sum);
    }
    return f;
}

static void filter_free(filter *f) {
    free(f->taps);
    free(f->weights);
}

/* acc += weight * row, colours premultiplied by alpha so that what is invisible does not bleed. */
static void add_row(float *acc, const unsigned char *row, int width, int channels, float weight) {
    if (channels != 4) {
        for (int i = 0; i < width * channels; i++) acc[i] += weight * (float)row[i];
        return;
    }
    for (int x = 0; x < width; x++, acc += 4, row += 4) {
        float alpha = weight * (float)row[3] / 255.0f;
        for (int c = 0; c < 3; c++) acc[c] += alpha * (float)row[c];
        acc[3] += weight * (float)row[3];
    }
}

static unsigned char to_byte(float v) {
    return (unsigned char)(v <= 0 ? 0 : v >= 255 ? 255 : v + 0.5f);
}

static void put_pixel(unsigned char *out, const float *v, int channels) {
    float unmultiply = channels == 4 && v[3] > 0 ? 255.0f / v[3] : 1.0f;
    for (int c = 0; c < channels; c++) out[c] = to_byte(c < 3 ? v[c] * unmultiply : v[c]);
}

static void filter_row(unsigned char *out, const float *row, const filter *f, int width, int channels) {
    for (int x = 0; x < width; x++) {
        float v[4] = {0};
        const filter_taps *t = &f->taps[x];
        const float *p = row + (size_t)t->first * (size_t)channels;
        for (int k = 0; k < t->count; k++)
            for (int c = 0; c < channels; c++) v[c] += t->weight[k] * *p++;
        put_pixel(out + (size_t)x * (size_t)channels, v, channels);
    }
}

/* Vertical first, one output row at a time: no intermediate picture. */
bool image_resize(image *dst, const image *src, int width, int height) {
    if (!image_alloc(dst, width, height, src->channels)) return false;
    filter across = filter_make(src->width, width);
    filter down = filter_make(src->height, height);
    size_t in_stride = (size_t)src->width * (size_t)src->channels;
    size_t out_stride = (size_t)width * (size_t)src->channels;
    float *row = mem_alloc(in_stride, sizeof *row);
    for (int y = 0; y < height; y++) {
        memset(row, 0, in_stride * sizeof *row);
        const filter_taps *t = &down.taps[y];
        for (int k = 0; k < t->count; k++)
            add_row(row, src->px + (size_t)(t->first + k) * in_stride, src->width, src->channels, t->weight[k]);
        filter_row(dst->px + (size_t)y * out_stride, row, &across, width, src->channels);
    }
    free(row);
    filter_free(&across);
    filter_free(&down);
    return true;
}

bool image_crop(image *dst, const image *src, int x, int y, int w, int h) {
    *dst = (image){0};
    if (x < 0 || y < 0 || w > src->width - x || h > src->height - y) return false;
    if (!image_alloc(dst, w, h, src->channels)) return false;
    size_t bytes = (size_t)w * (size_t)src->channels;
    for (int row = 0; row < h; row++) {
        size_t from = ((size_t)(y + row) * (size_t)src->width + (size_t)x) * (size_t)src->channels;
        memcpy(dst->px + (size_t)row * bytes, src->px + from, bytes);
    }
    return true;
}

/* The largest part of the source with the target's proportions, then scaled: the same as scale-then-crop, but never
 * larger than needed. */
bool image_crop_to_fit(image *dst, const image *src, int width, int height) {
    *dst = (image){0};
    if (width < 1 || height < 1 || src->width < 1 || src->height < 1) return false;
    long long a = (long long)src->width * height, b = (long long)src->height * width;
    int w = a > b ? (int)((b + height / 2) / height) : src->width;
    int h = a > b ? src->height : (int)((a + width / 2) / width);
    if (w < 1) w = 1;
    if (h < 1) h = 1;
    image part;
    if (!image_crop(&part, src, (src->width - w) / 2, (src->height - h) / 2, w, h)) return false;
    bool ok = image_resize(dst, &part, width, height);
    image_free(&part);
    return ok;
}

/* Where the output pixel (x, y) comes from, for a source of w x h; the eight cases of the EXIF standard. */
static size_t oriented_index(int orientation, int x, int y, int w, int h) {
    int sx = x, sy = y;
    switch (orientation) {
    case 2:
        sx = w - 1 - x;
        break;
    case 3:
        sx = w - 1 - x, sy = h - 1 - y;
        break;
    case 4:
        sy = h - 1 - y;
        break;
    case 5:
        sx = y, sy = x;
        break;
    case 6:
        sx = y, sy = h - 1 - x;
        break;
    case 7:
        sx = w - 1 - y, sy = h - 1 - x;
        break;
    case 8:
        sx = w - 1 - y, sy = x;
        break;
    default:
        break;
    }
    return (size_t)sy * (size_t)w + (size_t)sx;
}

bool image_orient(image *img, int orientation) {
    if (orientation <= 1 || orientation > 8) return true;
    bool is_turned = orientation >= 5;
    image out;
    if (!image_alloc(&out, is_turned ? img->height : img->width, is_turned ? img->width : img->height, img->channels))
        return false;
    size_t n = (size_t)img->channels;
    unsigned char *p = out.px;
    for (int y = 0; y < out.height; y++)
        for (int x = 0; x < out.width; x++, p += n)
            memcpy(p, img->px + n * oriented_index(orientation, x, y, img->width, img->height), n);
    image_free(img);
    *img = out;
    return true;
}
