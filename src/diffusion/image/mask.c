/* mask.c - see mask.h. Blurring, filling and regions follow modules/masking.py and modules/processing.py of
 * stable-diffusion-webui in what they compute. */
#include "diffusion/image/mask.h"

#include "base/str.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool mask_has_transparency(const image *src) {
    if (src->channels != 4) return false;
    const size_t n = (size_t)src->width * (size_t)src->height;
    for (size_t i = 0; i < n; i++)
        if (src->px[4 * i + 3] != 255) return true;
    return false;
}

bool mask_from_image(image *mask, const image *src) {
    if (!mask_has_transparency(src)) return image_convert(mask, src, 1, 0);
    if (!image_alloc(mask, src->width, src->height, 1)) return false;
    const size_t n = image_bytes(mask);
    for (size_t i = 0; i < n; i++) mask->px[i] = (unsigned char)(255 - src->px[4 * i + 3]);
    return true;
}

void mask_invert(image *mask) {
    const size_t n = image_bytes(mask);
    for (size_t i = 0; i < n; i++) mask->px[i] = (unsigned char)(255 - mask->px[i]);
}

/* ---- blurring --------------------------------------------------------------------------------------------------- */

/* "abcd" goes on as "...cb|abcd|cb...". */
static int mirrored(int i, int n) {
    if (n == 1) return 0;
    const int period = 2 * (n - 1);
    i %= period;
    if (i < 0) i += period;
    return i < n ? i : period - i;
}

/* One row or column: n values, `stride` apart. `line`: [n]. */
static void blur_line(unsigned char *px, int n, size_t stride, const float *kernel, int radius, unsigned char *line) {
    for (int i = 0; i < n; i++) line[i] = px[(size_t)i * stride];
    for (int i = 0; i < n; i++) {
        float v = 0;
        for (int k = -radius; k <= radius; k++) v += kernel[k + radius] * (float)line[mirrored(i + k, n)];
        px[(size_t)i * stride] = (unsigned char)lrintf(fminf(v, 255.0f));
    }
}

void mask_blur(image *mask, float sigma) {
    const int radius = (int)(2.5f * sigma + 0.5f), w = mask->width, h = mask->height;
    if (!(sigma > 0) || radius < 1) return;
    float *kernel = mem_alloc((size_t)radius * 2 + 1, sizeof *kernel), sum = 0;
    unsigned char *line = mem_alloc((size_t)(w > h ? w : h), 1);
    for (int k = -radius; k <= radius; k++) sum += kernel[k + radius] = expf(-(float)(k * k) / (2 * sigma * sigma));
    for (int k = 0; k <= 2 * radius; k++) kernel[k] /= sum;
    for (int y = 0; y < h; y++) blur_line(mask->px + (size_t)y * (size_t)w, w, 1, kernel, radius, line);
    for (int x = 0; x < w; x++) blur_line(mask->px + x, h, (size_t)w, kernel, radius, line);
    free(line);
    free(kernel);
}

/* ---- regions ---------------------------------------------------------------------------------------------------- */

static bool row_has_white(const image *mask, int y) {
    const unsigned char *row = mask->px + (size_t)y * (size_t)mask->width;
    for (int x = 0; x < mask->width; x++)
        if (row[x]) return true;
    return false;
}

static bool column_has_white(const image *mask, int x) {
    for (int y = 0; y < mask->height; y++)
        if (mask->px[(size_t)y * (size_t)mask->width + (size_t)x]) return true;
    return false;
}

static int smaller(int a, int b) {
    return a < b ? a : b;
}
static int larger(int a, int b) {
    return a > b ? a : b;
}

mask_region mask_bounds(const image *mask, int padding) {
    int left = 0, right = mask->width, top = 0, bottom = mask->height;
    while (top < bottom && !row_has_white(mask, top)) top++;
    if (top == bottom) return (mask_region){0};
    while (!row_has_white(mask, bottom - 1)) bottom--;
    while (!column_has_white(mask, left)) left++;
    while (!column_has_white(mask, right - 1)) right--;
    left = larger(left - padding, 0), top = larger(top - padding, 0);
    right = smaller(right + padding, mask->width), bottom = smaller(bottom + padding, mask->height);
    return (mask_region){left, top, right - left, bottom - top};
}

/* Lengthens [*at, *at + *length) to `wanted` around its middle; where that leaves 0 .. limit it is moved, then cut. */
static void lengthen(int *at, int *length, int wanted, int limit) {
    int low = *at - (wanted - *length) / 2, high = low + wanted;
    if (high > limit) low -= high - limit, high = limit;
    if (low < 0) high = smaller(high - low, limit), low = 0;
    *at = low;
    *length = high - low;
}

mask_region mask_region_expand(mask_region r, int width, int height, const image *within) {
    const double ratio = (double)width / height;
    if (r.width > ratio * r.height)
        lengthen(&r.y, &r.height, (int)(r.width / ratio), within->height);
    else
        lengthen(&r.x, &r.width, (int)(r.height * ratio), within->width);
    return r;
}

/* ---- filling ---------------------------------------------------------------------------------------------------- */

/* A box of radius `r`, which need not be whole: the two pixels beyond its whole part count for the rest of it. */
typedef struct box {
    int whole;
    double inner, edge; /* weights */
} box;

/* Three of these boxes have the variance of a Gaussian (Gwosdek et al. 2011, "Theoretical foundations of Gaussian
 * convolution by extended box filtering", equations 7, 11 and 14). */
static box box_for(double sigma) {
    const double variance = sigma * sigma / 3, length = sqrt(12 * variance + 1), whole = floor((length - 1) / 2);
    double part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance);
    part /= 6 * (variance - (whole + 1) * (whole + 1));
    const double inner = 1 / (2 * (whole + part) + 1);
    return (box){.whole = (int)whole, .inner = inner, .edge = (1 - (2 * whole + 1) * inner) / 2};
}

/* line: [n]; beyond its ends the last value goes on. */
static void box_line(const box *b, float *v, int n, size_t stride, float *line) {
    double sum = 0;
    for (int i = 0; i < n; i++) line[i] = v[(size_t)i * stride];
    for (int k = -b->whole; k <= b->whole; k++) sum += (double)line[smaller(larger(k, 0), n - 1)];
    for (int i = 0; i < n; i++) {
        const double out = (double)line[larger(i - b->whole - 1, 0)],
                     in = (double)line[smaller(i + b->whole + 1, n - 1)];
        v[(size_t)i * stride] = (float)(sum * b->inner + (out + in) * b->edge);
        sum += in - (double)line[larger(i - b->whole, 0)];
    }
}

static void blur_plane(float *plane, int w, int h, double sigma, float *line) {
    const box b = box_for(sigma);
    for (int pass = 0; pass < 3; pass++)
        for (int y = 0; y < h; y++) box_line(&b, plane + (size_t)y * (size_t)w, w, 1, line);
    for (int pass = 0; pass < 3; pass++)
        for (int x = 0; x < w; x++) box_line(&b, plane + x, h, (size_t)w, line);
}

/* What is kept of the picture: [4, n], colours times opacity, then opacity. */
static void load_kept(const image *picture, const image *mask, float *kept) {
    const size_t n = image_bytes(mask);
    for (size_t i = 0; i < n; i++) {
        const float opacity = (float)(255 - mask->px[i]) / 255.0f;
        for (size_t c = 0; c < 3; c++) kept[c * n + i] = (float)picture->px[3 * i + c] * opacity;
        kept[3 * n + i] = opacity;
    }
}

/* Lays one picture over another, both as load_kept() makes them. */
static void lay_over(float *under, const float *over, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const float through = 1 - over[3 * n + i];
        for (size_t c = 0; c < 4; c++) under[c * n + i] = over[c * n + i] + under[c * n + i] * through;
    }
}

static void store_colours(image *picture, const float *laid, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const float opacity = laid[3 * n + i];
        for (size_t c = 0; c < 3; c++) {
            const float v = opacity > 1e-6f ? laid[c * n + i] / opacity : 0.0f;
            picture->px[3 * i + c] = (unsigned char)lrintf(fminf(v, 255.0f));
        }
    }
}

void mask_fill(image *picture, const image *mask) {
    static const struct {
        double sigma;
        int times;
    } layers[] = {{256, 1}, {64, 1}, {16, 2}, {4, 4}, {2, 2}, {0, 1}};
    const int w = picture->width, h = picture->height;
    const size_t n = image_bytes(mask);
    float *kept = mem_alloc(4 * n, sizeof *kept), *blurred = mem_alloc(4 * n, sizeof *blurred);
    float *laid = mem_alloc(4 * n, sizeof *laid), *line = mem_alloc((size_t)larger(w, h), sizeof *line);
    load_kept(picture, mask, kept);
    for (size_t k = 0; k < sizeof layers / sizeof *layers; k++) {
        memcpy(blurred, kept, 4 * n * sizeof *kept);
        for (size_t c = 0; c < 4 && layers[k].sigma > 0; c++) blur_plane(blurred + c * n, w, h, layers[k].sigma, line);
        for (int t = 0; t < layers[k].times; t++) lay_over(laid, blurred, n);
    }
    store_colours(picture, laid, n);
    free(line);
    free(laid);
    free(blurred);
    free(kept);
}

void mask_blend(image *over, const image *under, const image *mask) {
    const size_t n = image_bytes(mask);
    for (size_t i = 0; i < n; i++) {
        const unsigned m = mask->px[i];
        for (size_t c = 0; c < 3; c++) {
            const unsigned mixed = under->px[3 * i + c] * (255 - m) + over->px[3 * i + c] * m;
            over->px[3 * i + c] = (unsigned char)((mixed + 127) / 255);
        }
    }
}
