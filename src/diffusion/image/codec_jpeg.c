/* codec_jpeg.c - JPEG through libjpeg. Errors come by longjmp; as in codec_png.c the state lives outside of the
 * function that calls setjmp. */
#include "diffusion/image/codec.h"
#include "diffusion/image/exif.h"

#include <stdio.h> /* jpeglib.h needs FILE */

#include <jerror.h>
#include <jpeglib.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

enum {
    SCANS_MAX = 64,       /* a progressive file may have thousands, each costing a pass over the picture */
    SEGMENT_MAX = 65533,  /* bytes of one marker's content */
    SUBSAMPLE_BELOW = 90, /* full colour resolution from this quality on */
    OUTPUT_PIECE = 65536,
    WORK_MAX = 1024 * 1024 * 1024 /* libjpeg's own memory, which progressive files make it use */
};

static const char EXIF_MARKER[] = "Exif\0"; /* with the literal's own NUL: six bytes */

typedef struct jpeg_job {
    struct jpeg_decompress_struct in;
    struct jpeg_compress_struct out;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf escape;
    err *e;
    image *img;
    unsigned char *row; /* CMYK */
    struct jpeg_destination_mgr to;
    buf *file; /* what `to` fills */
    unsigned char piece[OUTPUT_PIECE];
} jpeg_job;

static void on_error(j_common_ptr info) {
    jpeg_job *job = info->client_data;
    char message[JMSG_LENGTH_MAX];
    info->err->format_message(info, message);
    err_set(job->e, ERR_FORMAT, "JPEG: %.150s", message);
    longjmp(job->escape, 1);
}

/* Warnings are about repairable damage; an early end is not, half the picture would be gray. */
static void on_message(j_common_ptr info, int level) {
    jpeg_job *job = info->client_data;
    if (level != -1 || info->err->msg_code != JWRN_JPEG_EOF) return;
    err_set(job->e, ERR_FORMAT, "JPEG: the file ends too early");
    longjmp(job->escape, 1);
}

static void on_progress(j_common_ptr info) {
    jpeg_job *job = info->client_data;
    if (job->in.input_scan_number <= SCANS_MAX) return;
    err_set(job->e, ERR_TOO_LARGE, "JPEG: more than %d scans", SCANS_MAX);
    longjmp(job->escape, 1);
}

static struct jpeg_error_mgr *init_errors(jpeg_job *job) {
    jpeg_std_error(&job->errors);
    job->errors.error_exit = on_error;
    job->errors.emit_message = on_message;
    return &job->errors;
}

static bool read_header(jpeg_job *job, const void *data, size_t len) {
    if (setjmp(job->escape)) return false;
    job->in.err = init_errors(job);
    job->in.client_data = job;
    jpeg_create_decompress(&job->in);
    job->progress.progress_monitor = on_progress;
    job->in.progress = &job->progress;
    job->in.mem->max_memory_to_use = WORK_MAX;
    jpeg_mem_src(&job->in, data, (unsigned long)len);
    jpeg_read_header(&job->in, TRUE);
    return true;
}

/* Adobe's CMYK is stored inverted, that of others is not. */
static void cmyk_to_rgb(unsigned char *rgb, const unsigned char *cmyk, unsigned width, bool is_inverted) {
    for (unsigned x = 0; x < width; x++, rgb += 3, cmyk += 4) {
        unsigned k = is_inverted ? cmyk[3] : 255u - cmyk[3];
        for (int c = 0; c < 3; c++) rgb[c] = (unsigned char)((is_inverted ? cmyk[c] : 255u - cmyk[c]) * k / 255u);
    }
}

static bool read_pixels(jpeg_job *job) {
    if (setjmp(job->escape)) return false;
    struct jpeg_decompress_struct *in = &job->in;
    bool is_cmyk = in->jpeg_color_space == JCS_CMYK || in->jpeg_color_space == JCS_YCCK;
    in->out_color_space = is_cmyk ? JCS_CMYK : JCS_RGB;
    jpeg_start_decompress(in);
    if (!image_alloc(job->img, (int)in->output_width, (int)in->output_height, 3))
        return err_set(job->e, ERR_MEMORY, "JPEG: no memory for %ux%u pixels", in->output_width, in->output_height);
    if (is_cmyk) job->row = malloc((size_t)in->output_width * 4);
    if (is_cmyk && !job->row) return err_set(job->e, ERR_MEMORY, "JPEG: no memory");
    size_t stride = (size_t)job->img->width * 3;
    while (in->output_scanline < in->output_height) {
        unsigned char *to = job->img->px + (size_t)in->output_scanline * stride;
        JSAMPROW row = is_cmyk ? job->row : to;
        jpeg_read_scanlines(in, &row, 1);
        if (is_cmyk) cmyk_to_rgb(to, job->row, in->output_width, in->saw_Adobe_marker);
    }
    jpeg_finish_decompress(in);
    return true;
}

bool jpeg_probe_size(const void *data, size_t len, int *width, int *height, err *e) {
    jpeg_job job = {.e = e};
    bool ok = read_header(&job, data, len);
    if (ok) {
        *width = (int)job.in.image_width;
        *height = (int)job.in.image_height;
    }
    jpeg_destroy_decompress(&job.in);
    return ok;
}

bool jpeg_decode_bytes(image *out, const void *data, size_t len, err *e) {
    jpeg_job job = {.e = e, .img = out};
    bool ok = read_header(&job, data, len) && read_pixels(&job);
    free(job.row);
    jpeg_destroy_decompress(&job.in);
    return ok;
}

static void on_start(j_compress_ptr info) {
    jpeg_job *job = info->client_data;
    job->to.next_output_byte = job->piece;
    job->to.free_in_buffer = OUTPUT_PIECE;
}

static void put_piece(jpeg_job *job, size_t len) {
    if (buf_append(job->file, job->piece, len)) return;
    err_set(job->e, ERR_TOO_LARGE, "JPEG: no room for the file");
    longjmp(job->escape, 1);
}

static boolean on_full(j_compress_ptr info) {
    put_piece(info->client_data, OUTPUT_PIECE);
    on_start(info);
    return TRUE;
}

static void on_finish(j_compress_ptr info) {
    jpeg_job *job = info->client_data;
    put_piece(job, OUTPUT_PIECE - job->to.free_in_buffer);
}

static bool write_file(jpeg_job *job, int quality, const buf *exif) {
    if (setjmp(job->escape)) return false;
    struct jpeg_compress_struct *out = &job->out;
    out->err = init_errors(job);
    out->client_data = job;
    jpeg_create_compress(out);
    job->to = (struct jpeg_destination_mgr){
        .init_destination = on_start, .empty_output_buffer = on_full, .term_destination = on_finish};
    out->dest = &job->to;
    out->image_width = (JDIMENSION)job->img->width;
    out->image_height = (JDIMENSION)job->img->height;
    out->input_components = job->img->channels;
    out->in_color_space = job->img->channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_set_defaults(out);
    jpeg_set_quality(out, quality, TRUE);
    out->optimize_coding = TRUE;
    if (quality >= SUBSAMPLE_BELOW) out->comp_info[0].h_samp_factor = out->comp_info[0].v_samp_factor = 1;
    jpeg_start_compress(out, TRUE);
    if (exif->len) jpeg_write_marker(out, JPEG_APP0 + 1, (const unsigned char *)exif->data, (unsigned)exif->len);
    size_t stride = (size_t)job->img->width * (size_t)job->img->channels;
    while (out->next_scanline < out->image_height) {
        JSAMPROW row = job->img->px + (size_t)out->next_scanline * stride;
        jpeg_write_scanlines(out, &row, 1);
    }
    jpeg_finish_compress(out);
    return true;
}

bool jpeg_encode_bytes(buf *out, const image *img, int quality, const char *parameters, err *e) {
    image flat = {0}, view = *img;
    if (img->channels == 4 && !image_convert(&flat, img, 3, 255)) return err_set(e, ERR_MEMORY, "JPEG: no memory");
    buf exif;
    buf_init(&exif, SEGMENT_MAX);
    if (parameters) {
        buf_append(&exif, EXIF_MARKER, sizeof EXIF_MARKER);
        exif_write_comment(&exif, parameters, SEGMENT_MAX - sizeof EXIF_MARKER);
    }
    jpeg_job job = {.e = e, .img = flat.px ? &flat : &view, .file = out};
    bool ok = write_file(&job, quality, &exif);
    jpeg_destroy_compress(&job.out);
    buf_free(&exif);
    image_free(&flat);
    return ok;
}
