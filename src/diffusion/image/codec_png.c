/* codec_png.c - PNG through libpng. libpng reports errors by longjmp: every call that may do so is made in a function
 * whose state lives in a struct outside of it, so no variable is clobbered. */
#include "diffusion/image/codec.h"
#include "base/str.h"

#include <png.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct png_job {
    png_structp png;
    png_infop info;
    err *e;
    const unsigned char *data; /* reading */
    size_t len, pos;
    image *img;
    buf *out; /* writing */
} png_job;

static void on_error(png_structp png, png_const_charp message) {
    png_job *job = png_get_error_ptr(png);
    err_set(job->e, ERR_FORMAT, "PNG: %.120s", message);
    longjmp(png_jmpbuf(png), 1);
}

static void on_warning(png_structp png, png_const_charp message) {
    (void)png;
    (void)message;
}

static void on_read(png_structp png, png_bytep to, png_size_t n) {
    png_job *job = png_get_io_ptr(png);
    if (n > job->len - job->pos) png_error(png, "the file ends too early");
    memcpy(to, job->data + job->pos, n);
    job->pos += n;
}

static bool start_reading(png_job *job) {
    job->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, job, on_error, on_warning);
    job->info = job->png ? png_create_info_struct(job->png) : NULL;
    if (!job->info) return err_set(job->e, ERR_MEMORY, "PNG: no memory");
    png_set_read_fn(job->png, job, on_read);
    png_set_user_limits(job->png, IMAGE_SIDE_MAX, IMAGE_SIDE_MAX);
    /* Skip what does not concern pixels: libpng would allocate what a chunk claims to be long before reading it. */
    png_set_keep_unknown_chunks(job->png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
    return true;
}

static bool read_header(png_job *job) {
    if (setjmp(png_jmpbuf(job->png))) return false;
    png_read_info(job->png, job->info);
    return true;
}

/* Everything becomes 8-bit RGB or RGBA. */
static bool read_pixels(png_job *job) {
    if (setjmp(png_jmpbuf(job->png))) return false;
    png_set_expand(job->png);
    png_set_scale_16(job->png);
    png_set_gray_to_rgb(job->png);
    int passes = png_set_interlace_handling(job->png);
    png_read_update_info(job->png, job->info);
    int width = (int)png_get_image_width(job->png, job->info), height = (int)png_get_image_height(job->png, job->info);
    if (!image_alloc(job->img, width, height, png_get_channels(job->png, job->info)))
        return err_set(job->e, ERR_MEMORY, "PNG: no memory for %dx%d pixels", width, height);
    size_t stride = (size_t)width * (size_t)job->img->channels;
    if (png_get_rowbytes(job->png, job->info) != stride) png_error(job->png, "unexpected row size");
    for (int pass = 0; pass < passes; pass++)
        for (int y = 0; y < height; y++) png_read_row(job->png, job->img->px + (size_t)y * stride, NULL);
    png_read_end(job->png, NULL);
    return true;
}

bool png_probe_size(const void *data, size_t len, int *width, int *height, err *e) {
    png_job job = {.e = e, .data = data, .len = len};
    bool ok = start_reading(&job) && read_header(&job);
    if (ok) {
        *width = (int)png_get_image_width(job.png, job.info);
        *height = (int)png_get_image_height(job.png, job.info);
    }
    png_destroy_read_struct(&job.png, &job.info, NULL);
    return ok;
}

bool png_decode_bytes(image *out, const void *data, size_t len, err *e) {
    png_job job = {.e = e, .data = data, .len = len, .img = out};
    bool ok = start_reading(&job) && read_header(&job) && read_pixels(&job);
    png_destroy_read_struct(&job.png, &job.info, NULL);
    return ok;
}

static void on_write(png_structp png, png_bytep data, png_size_t n) {
    png_job *job = png_get_io_ptr(png);
    if (!buf_append(job->out, data, n)) png_error(png, "no room for the file");
}

static void on_flush(png_structp png) {
    (void)png;
}

/* UTF-8 to Latin-1; false when a character does not fit. */
static bool to_latin1(buf *out, const char *text) {
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p >= 0x80 && ((*p & 0xfe) != 0xc2 || (p[1] & 0xc0) != 0x80)) return false;
        buf_putc(out, (char)(*p < 0x80 ? *p : (p[0] & 3) << 6 | (p[1] & 0x3f)));
        if (*p >= 0x80) p++;
    }
    return true;
}

/* The body of a tEXt chunk, or of an iTXt chunk when the text needs it. */
static const char *make_text_chunk(buf *body, const char *text) {
    static const char KEYWORD[] = "parameters";
    buf_append(body, KEYWORD, sizeof KEYWORD);
    if (to_latin1(body, text)) return "tEXt";
    buf_clear(body);
    buf_append(body, KEYWORD, sizeof KEYWORD);
    buf_append(body, "\0\0\0\0", 4); /* not compressed, method 0, no language, no translated keyword */
    buf_puts(body, text);
    return "iTXt";
}

static bool write_file(png_job *job, const char *chunk, const buf *text) {
    if (setjmp(png_jmpbuf(job->png))) return false;
    const image *img = job->img;
    int color = img->channels == 1   ? PNG_COLOR_TYPE_GRAY
                : img->channels == 3 ? PNG_COLOR_TYPE_RGB
                                     : PNG_COLOR_TYPE_RGB_ALPHA;
    png_set_IHDR(job->png, job->info, (png_uint_32)img->width, (png_uint_32)img->height, 8, color, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(job->png, job->info);
    if (chunk) png_write_chunk(job->png, (png_const_bytep)chunk, (png_const_bytep)text->data, text->len);
    size_t stride = (size_t)img->width * (size_t)img->channels;
    for (int y = 0; y < img->height; y++) png_write_row(job->png, img->px + (size_t)y * stride);
    png_write_end(job->png, NULL);
    return true;
}

bool png_encode_bytes(buf *out, const image *img, const char *parameters, err *e) {
    image view = *img; /* only read */
    png_job job = {.e = e, .img = &view, .out = out};
    buf text;
    buf_init(&text, parameters ? strlen(parameters) + 64 : 64);
    const char *chunk = parameters ? make_text_chunk(&text, parameters) : NULL;
    job.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &job, on_error, on_warning);
    job.info = job.png ? png_create_info_struct(job.png) : NULL;
    bool ok = job.info != NULL;
    if (!ok) err_set(e, ERR_MEMORY, "PNG: no memory");
    if (ok) png_set_write_fn(job.png, &job, on_write, on_flush);
    ok = ok && write_file(&job, chunk, &text);
    png_destroy_write_struct(&job.png, &job.info);
    buf_free(&text);
    return ok;
}
