/* Pictures: scaling, codecs with good and bad files, and the text in them. Test files that our own encoders would not
 * write are put together here byte by byte. */
#include "diffusion/image/codecs.h"
#include "diffusion/image/container.h"
#include "diffusion/image/exif.h"
#include "diffusion/image/metadata.h"

#include "base/str.h"
#include "model_bytes.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static image gradient(int width, int height, int channels) {
    image img;
    assert_true(image_alloc(&img, width, height, channels));
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            for (int c = 0; c < channels; c++)
                img.px[(y * width + x) * channels + c] = (unsigned char)(c == 0   ? x * 255 / width
                                                                         : c == 1 ? y * 255 / height
                                                                                  : 200 - c * 30);
    return img;
}

static int largest_difference(const image *a, const image *b) {
    assert_int_equal(a->width, b->width);
    assert_int_equal(a->height, b->height);
    assert_int_equal(a->channels, b->channels);
    int most = 0;
    for (size_t i = 0; i < image_bytes(a); i++) {
        int d = abs(a->px[i] - b->px[i]);
        if (d > most) most = d;
    }
    return most;
}

/* --- image.h --- */

static void allocation_is_bounded(void **state) {
    (void)state;
    image img;
    assert_false(image_alloc(&img, 0, 5, 3));
    assert_false(image_alloc(&img, 5, -1, 3));
    assert_false(image_alloc(&img, IMAGE_SIDE_MAX + 1, 5, 3));
    assert_false(image_alloc(&img, 5, 5, 2));
    assert_null(img.px);
    image_free(&img);
}

static void convert(void **state) {
    (void)state;
    image rgba, rgb, gray;
    assert_true(image_alloc(&rgba, 2, 1, 4));
    memcpy(rgba.px, (unsigned char[]){255, 0, 0, 255, 10, 20, 30, 0}, 8);
    assert_true(image_convert(&rgb, &rgba, 3, 255));
    assert_memory_equal(rgb.px, ((unsigned char[]){255, 0, 0, 255, 255, 255}), 6); /* transparent is white */
    assert_true(image_convert(&gray, &rgb, 1, 0));
    assert_memory_equal(gray.px, ((unsigned char[]){76, 255}), 2);
    image_free(&rgba);
    image_free(&rgb);
    image_free(&gray);
}

/* A flat picture stays flat, the same size is the same picture, and a ramp stays that ramp. */
static void resize(void **state) {
    (void)state;
    image flat, out, ramp = gradient(64, 64, 3);
    assert_true(image_alloc(&flat, 37, 11, 1));
    memset(flat.px, 131, image_bytes(&flat));
    for (int w = 1; w <= 80; w += 13) {
        assert_true(image_resize(&out, &flat, w, 81 - w));
        for (size_t i = 0; i < image_bytes(&out); i++) assert_int_equal(out.px[i], 131);
        image_free(&out);
    }
    assert_true(image_resize(&out, &ramp, 64, 64));
    assert_int_equal(largest_difference(&out, &ramp), 0);
    image_free(&out);
    image half = gradient(32, 32, 3);
    assert_true(image_resize(&out, &ramp, 32, 32));
    for (int y = 4; y < 28; y++) /* the ends of a ramp ring */
        for (int x = 4; x < 28; x++) assert_true(abs(out.px[(y * 32 + x) * 3] - half.px[(y * 32 + x) * 3] - 2) <= 2);
    image_free(&out);
    image_free(&half);
    image_free(&flat);
    image_free(&ramp);
}

/* Reference: the definition (windowed sinc, widened when reducing, weights normalised) as two dense matrices in numpy,
 * double precision, input from default_rng(7).integers(0, 256, (5, 9)). Tolerance: one step of rounding. */
static void resize_reference(void **state) {
    (void)state;
    static const unsigned char IN[] = {241, 160, 175, 229, 148, 198, 213, 57,  14, 76,  72,  223, 233, 1,   127,
                                       210, 33,  204, 30,  119, 209, 77,  87,  71, 184, 65,  253, 113, 122, 129,
                                       149, 141, 130, 254, 206, 202, 179, 159, 87, 253, 119, 55,  216, 41,  219};
    static const unsigned char SMALL[] = {160, 180, 153, 92, 101, 132, 109, 184, 142, 148, 146, 179};
    static const unsigned char LARGE[] = {
        255, 215, 155, 165, 214, 211, 166, 182, 226, 206, 99,  12,  0,   191, 147, 124, 184, 255, 200, 85,  130,
        223, 206, 78,  46,  88,  69,  51,  100, 215, 255, 150, 0,   54,  193, 197, 46,  104, 236, 17,  44,  140,
        223, 174, 78,  44,  42,  133, 174, 38,  131, 255, 41,  76,  155, 192, 110, 71,  118, 87,  135, 202, 130,
        169, 249, 105, 112, 125, 134, 138, 142, 141, 118, 177, 255, 225, 199, 205, 163, 162, 125, 91,  183, 218,
        131, 72,  154, 236, 137, 146, 218, 183, 185, 134, 79,  206, 251, 115, 27,  122, 204, 40,  98,  245};
    image img, small = {4, 3, 1, NULL}, large = {13, 8, 1, NULL}, got;
    unsigned char expected[13 * 8];
    assert_true(image_alloc(&img, 9, 5, 1));
    memcpy(img.px, IN, sizeof IN);
    assert_true(image_resize(&got, &img, small.width, small.height));
    memcpy(expected, SMALL, sizeof SMALL);
    small.px = expected;
    assert_true(largest_difference(&got, &small) <= 1);
    image_free(&got);
    assert_true(image_resize(&got, &img, large.width, large.height));
    memcpy(expected, LARGE, sizeof LARGE);
    large.px = expected;
    assert_true(largest_difference(&got, &large) <= 1);
    image_free(&got);
    image_free(&img);
}

static void resize_keeps_hidden_colours_hidden(void **state) {
    (void)state;
    image img, out;
    assert_true(image_alloc(&img, 8, 1, 4));
    for (int x = 0; x < 8; x++)
        memcpy(img.px + x * 4, x < 4 ? (unsigned char[]){255, 0, 0, 0} : (unsigned char[]){0, 0, 255, 255}, 4);
    assert_true(image_resize(&out, &img, 3, 1));
    for (int x = 0; x < 3; x++)
        if (out.px[x * 4 + 3]) assert_true(out.px[x * 4] == 0); /* no red from under transparent pixels */
    assert_int_equal(out.px[2 * 4 + 2], 255);
    image_free(&img);
    image_free(&out);
}

static void crop(void **state) {
    (void)state;
    image img = gradient(10, 6, 3), out;
    assert_true(image_crop(&out, &img, 2, 1, 3, 4));
    assert_int_equal(out.px[0], img.px[(1 * 10 + 2) * 3]);
    assert_int_equal(out.px[(3 * 3 + 2) * 3], img.px[(4 * 10 + 4) * 3]);
    image_free(&out);
    assert_false(image_crop(&out, &img, 8, 0, 3, 1));
    assert_false(image_crop(&out, &img, -1, 0, 3, 1));
    assert_true(image_crop_to_fit(&out, &img, 5, 5));
    assert_int_equal(out.width, 5);
    image_free(&out);
    assert_true(image_crop_to_fit(&out, &img, 100, 1)); /* a strip of less than a pixel's height */
    assert_int_equal(out.height, 1);
    image_free(&out);
    image_free(&img);
}

/* Pixels a..f as 3x2; the eight orientations by the standard's own words (row 0 / column 0). */
static void orientations(void **state) {
    (void)state;
    static const char *const EXPECTED[] = {"abcdef", "cbafed", "fedcba", "defabc",
                                           "adbecf", "daebfc", "fcebda", "cfbead"};
    for (int o = 1; o <= 8; o++) {
        image img;
        assert_true(image_alloc(&img, 3, 2, 1));
        memcpy(img.px, "abcdef", 6);
        assert_true(image_orient(&img, o));
        assert_int_equal(img.width, o >= 5 ? 2 : 3);
        assert_memory_equal(img.px, EXPECTED[o - 1], 6);
        image_free(&img);
    }
}

/* --- codecs --- */

typedef struct codec_case {
    image_format format;
    int channels, quality, tolerance;
} codec_case;

static const codec_case CODECS[] = {
    {IMAGE_PNG, 3, 0, 0},   {IMAGE_PNG, 4, 0, 0},    {IMAGE_PNG, 1, 0, 0},    {IMAGE_JPEG, 3, 95, 8},
    {IMAGE_JPEG, 1, 95, 6}, {IMAGE_WEBP, 3, 100, 0}, {IMAGE_WEBP, 4, 100, 0}, {IMAGE_WEBP, 3, 90, 16},
};

static void round_trips(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof CODECS / sizeof *CODECS; i++) {
        const codec_case *c = &CODECS[i];
        image img = gradient(67, 33, c->channels), want, got;
        buf file;
        buf_init(&file, 1 << 20);
        err e = {0};
        if (!image_encode(&file, &img, c->format, c->quality, "a cat\nSteps: 1", &e)) fail_msg("%s", e.msg);
        assert_int_equal(image_format_of(file.data, file.len), c->format);
        int w, h;
        image_format f;
        assert_true(image_probe(file.data, file.len, &w, &h, &f, &e));
        assert_true(w == 67 && h == 33 && f == c->format);
        if (!image_decode(&got, file.data, file.len, IMAGE_ALPHA_KEEP, NULL, &e)) fail_msg("%s", e.msg);
        assert_true(image_convert(&want, &img, c->channels == 4 ? 4 : 3, 255));
        if (largest_difference(&want, &got) > c->tolerance)
            fail_msg("case %zu differs by %d", i, largest_difference(&want, &got));
        image_free(&want);
        image_free(&got);
        if (c->channels == 4) { /* and on white */
            assert_true(image_decode(&got, file.data, file.len, IMAGE_ALPHA_ON_WHITE, NULL, &e));
            assert_true(image_convert(&want, &img, 3, 255));
            assert_int_equal(largest_difference(&want, &got), 0);
            image_free(&want);
            image_free(&got);
        }
        buf text;
        buf_init(&text, 1 << 16);
        assert_true(metadata_read(&text, file.data, file.len, &e));
        assert_string_equal(buf_str(&text), "a cat\nSteps: 1");
        buf_free(&text);
        buf_free(&file);
        image_free(&img);
    }
}

static void jpeg_drops_alpha(void **state) {
    (void)state;
    image img, got;
    assert_true(image_alloc(&img, 16, 16, 4)); /* transparent black */
    buf file;
    buf_init(&file, 1 << 20);
    err e = {0};
    assert_true(image_encode(&file, &img, IMAGE_JPEG, 90, NULL, &e));
    assert_true(image_decode(&got, file.data, file.len, IMAGE_ALPHA_KEEP, NULL, &e));
    assert_int_equal(got.channels, 3);
    assert_true(got.px[0] > 250);
    buf_free(&file);
    image_free(&img);
    image_free(&got);
}

static void full_buffer_is_an_error(void **state) {
    (void)state;
    image img = gradient(64, 64, 3);
    for (int f = IMAGE_PNG; f <= IMAGE_WEBP; f++) {
        buf file;
        buf_init(&file, 100);
        err e = {0};
        assert_false(image_encode(&file, &img, (image_format)f, 90, "x", &e));
        assert_true(e.msg[0] != 0);
        buf_free(&file);
    }
    image_free(&img);
}

/* Every cut is refused, with the exact bytes in a block of their own so that a sanitizer sees a read beyond. */
static void truncated_files(void **state) {
    (void)state;
    image img = gradient(40, 30, 3), got;
    for (int f = IMAGE_PNG; f <= IMAGE_WEBP; f++) {
        buf file;
        buf_init(&file, 1 << 20);
        err e = {0};
        assert_true(image_encode(&file, &img, (image_format)f, 90, "text", &e));
        size_t end = f == IMAGE_JPEG ? file.len - 2 : file.len - 1; /* a missing end marker loses nothing */
        if (f == IMAGE_WEBP) end = file.len / 2;                    /* EXIF comes last */
        for (size_t len = 0; len < end; len += len < 100 ? 1 : 37) {
            char *copy = malloc(len ? len : 1);
            memcpy(copy, file.data, len);
            if (image_decode(&got, copy, len, IMAGE_ALPHA_KEEP, NULL, &e))
                fail_msg("format %d accepted when cut at %zu of %zu", f, len, file.len);
            assert_null(got.px);
            buf text;
            buf_init(&text, 1 << 16);
            metadata_read(&text, copy, len, &e);
            buf_free(&text);
            free(copy);
        }
        buf_free(&file);
    }
    image_free(&img);
}

static void put_be(buf *b, uint32_t v) {
    for (int i = 3; i >= 0; i--) buf_putc(b, (char)(v >> (8 * i) & 0xff));
}

/* zlib's CRC, for chunks written here. */
static uint32_t crc(const char *p, size_t n) {
    uint32_t c = 0xffffffff;
    for (; n; n--, p++) {
        c ^= (unsigned char)*p;
        for (int k = 0; k < 8; k++) c = c & 1 ? 0xedb88320 ^ c >> 1 : c >> 1;
    }
    return ~c;
}

static void put_chunk(buf *b, const char *type, const void *data, size_t len) {
    put_be(b, (uint32_t)len);
    size_t start = b->len;
    buf_puts(b, type);
    buf_append(b, data, len);
    put_be(b, crc(b->data + start, b->len - start));
}

static void put_ihdr(buf *b, uint32_t w, uint32_t h, unsigned char depth, unsigned char color) {
    buf head;
    buf_init(&head, 64);
    put_be(&head, w);
    put_be(&head, h);
    buf_append(&head, (unsigned char[]){depth, color, 0, 0, 0}, 5);
    buf_append(b, "\x89PNG\r\n\x1a\n", 8);
    put_chunk(b, "IHDR", head.data, head.len);
    buf_free(&head);
}

/* A few bytes that claim to be huge pictures: refused from the header, before any memory is taken. */
static void decompression_bombs(void **state) {
    (void)state;
    buf b;
    buf_init(&b, 1 << 20);
    image got;
    err e = {0};
    put_ihdr(&b, 16000, 16000, 8, 6);
    put_chunk(&b, "IDAT", "\x78\x9c\x03\x00\x00\x00\x00\x01", 8);
    put_chunk(&b, "IEND", "", 0);
    assert_false(image_decode(&got, b.data, b.len, IMAGE_ALPHA_KEEP, NULL, &e));
    assert_int_equal(e.code, ERR_TOO_LARGE);
    buf_clear(&b);
    put_ihdr(&b, 0x7fffffff, 0x7fffffff, 8, 6);
    assert_false(image_decode(&got, b.data, b.len, IMAGE_ALPHA_KEEP, NULL, &e));
    buf_clear(&b);
    buf_append(&b, "\xff\xd8\xff\xc0\x00\x11\x08\xff\x00\xff\x00\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01", 21);
    buf_append(&b, "\xff\xda\x00\x0c\x03\x01\x00\x02\x11\x03\x11\x00\x3f\x00", 14);
    assert_false(image_decode(&got, b.data, b.len, IMAGE_ALPHA_KEEP, NULL, &e));
    assert_int_equal(e.code, ERR_TOO_LARGE);
    buf_clear(&b);
    image small = gradient(20, 20, 3);
    assert_true(image_encode(&b, &small, IMAGE_PNG, 0, NULL, &e));
    assert_false(image_decode(&got, b.data, b.len, IMAGE_ALPHA_KEEP, &(image_limits){.max_pixels = 399}, &e));
    assert_int_equal(e.code, ERR_TOO_LARGE);
    assert_false(image_decode(&got, b.data, b.len, IMAGE_ALPHA_KEEP, &(image_limits){.max_bytes = b.len - 1}, &e));
    assert_int_equal(e.code, ERR_TOO_LARGE);
    assert_true(image_decode(&got, b.data, b.len, IMAGE_ALPHA_KEEP, &(image_limits){.max_pixels = 400}, &e));
    image_free(&got);
    image_free(&small);
    assert_false(image_decode(&got, "GIF89a", 6, IMAGE_ALPHA_KEEP, NULL, &e));
    assert_false(image_decode(&got, NULL, 0, IMAGE_ALPHA_KEEP, NULL, &e));
    buf_free(&b);
}

/* A palette PNG of 1 bit with a transparent entry, stored uncompressed. */
static void palette_png(void **state) {
    (void)state;
    buf b;
    buf_init(&b, 1 << 16);
    put_ihdr(&b, 2, 1, 1, 3);
    put_chunk(&b, "PLTE", "\x10\x20\x30\x40\x50\x60", 6);
    put_chunk(&b, "tRNS", "\xff\x00", 2);
    /* zlib: one stored block of two bytes: filter 0, pixels 0 and 1 (0x40) */
    put_chunk(&b, "IDAT", "\x78\x01\x01\x02\x00\xfd\xff\x00\x40\x00\x42\x00\x41", 13);
    put_chunk(&b, "IEND", "", 0);
    image got;
    err e = {0};
    if (!image_decode(&got, b.data, b.len, IMAGE_ALPHA_KEEP, NULL, &e)) fail_msg("%s", e.msg);
    assert_int_equal(got.channels, 4);
    assert_memory_equal(got.px, "\x10\x20\x30\xff\x40\x50\x60\x00", 8);
    image_free(&got);
    buf_free(&b);
}

static void formats_by_name(void **state) {
    (void)state;
    assert_int_equal(image_format_by_name("a.b.JPG"), IMAGE_JPEG);
    assert_int_equal(image_format_by_name("webp"), IMAGE_WEBP);
    assert_int_equal(image_format_by_name("png.txt"), IMAGE_UNKNOWN);
    assert_string_equal(image_format_mime(IMAGE_JPEG), "image/jpeg");
    assert_string_equal(image_format_ext(IMAGE_PNG), ".png");
}

/* --- text --- */

static void expect_embedded(const char *text, const char *chunk) {
    image img = gradient(8, 8, 3);
    for (int f = IMAGE_PNG; f <= IMAGE_WEBP; f++) {
        buf file, got;
        buf_init(&file, 1 << 22);
        buf_init(&got, 1 << 22);
        err e = {0};
        assert_true(image_encode(&file, &img, (image_format)f, 90, text, &e));
        if (!metadata_read(&got, file.data, file.len, &e)) fail_msg("format %d: %s", f, e.msg);
        assert_string_equal(buf_str(&got), text);
        if (f == IMAGE_PNG) assert_non_null(memmem(file.data, file.len, chunk, 4));
        image decoded;
        assert_true(image_decode(&decoded, file.data, file.len, IMAGE_ALPHA_KEEP, NULL, &e));
        image_free(&decoded);
        buf_free(&file);
        buf_free(&got);
    }
    image_free(&img);
}

static void embedded_text(void **state) {
    (void)state;
    expect_embedded("plain", "tEXt");
    expect_embedded("caf\xc3\xa9 \xc3\xbf", "tEXt");
    expect_embedded("\xe7\x8c\xab and \xf0\x9f\x90\x88", "iTXt"); /* a cat, twice; the second needs a surrogate pair */
    image img = gradient(8, 8, 3);
    buf file, got;
    buf_init(&file, 1 << 20);
    buf_init(&got, 1 << 20);
    err e = {0};
    assert_true(image_encode(&file, &img, IMAGE_JPEG, 90, NULL, &e));
    assert_false(metadata_read(&got, file.data, file.len, &e));
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_false(metadata_read(&got, "nothing", 7, &e));
    buf_free(&file);
    buf_free(&got);
    image_free(&img);
}

/* A JPEG segment ends at 64 KiB: the picture is not lost, the text is cut. */
static void long_text_in_jpeg(void **state) {
    (void)state;
    image img = gradient(8, 8, 3);
    char *text = malloc(100001);
    memset(text, 'x', 100000);
    text[100000] = 0;
    buf file, got;
    buf_init(&file, 1 << 20);
    buf_init(&got, 1 << 20);
    err e = {0};
    assert_true(image_encode(&file, &img, IMAGE_JPEG, 90, text, &e));
    assert_true(metadata_read(&got, file.data, file.len, &e));
    assert_true(got.len > 32000 && got.len < 33000 && str_starts(text, buf_str(&got)));
    free(text);
    buf_free(&file);
    buf_free(&got);
    image_free(&img);
}

/* As other programs write it: little-endian TIFF, UTF-16LE, with an orientation. */
static void foreign_exif(void **state) {
    (void)state;
    buf t;
    buf_init(&t, 1 << 16);
    buf_append(&t, "II*\0", 4);
    put_le(&t, 8, 4);
    put_le(&t, 2, 2);
    put_le(&t, 0x0112, 2), put_le(&t, 3, 2), put_le(&t, 1, 4), put_le(&t, 6, 4);
    put_le(&t, 0x8769, 2), put_le(&t, 4, 2), put_le(&t, 1, 4), put_le(&t, 38, 4);
    put_le(&t, 0, 4);
    put_le(&t, 1, 2);
    put_le(&t, 0x9286, 2), put_le(&t, 7, 2), put_le(&t, 8 + 8, 4), put_le(&t, 56, 4);
    put_le(&t, 0, 4);
    buf_append(&t, "UNICODE\0t\0e\0x\0t\0", 16);
    assert_int_equal(exif_orientation(t.data, t.len), 6);
    buf out;
    buf_init(&out, 1 << 16);
    assert_true(exif_read_comment(&out, t.data, t.len));
    assert_string_equal(buf_str(&out), "text");
    for (size_t len = 0; len < t.len; len++) {
        char *copy = malloc(len ? len : 1);
        memcpy(copy, t.data, len);
        exif_orientation(copy, len);
        assert_false(exif_read_comment(&out, copy, len));
        free(copy);
    }
    buf_free(&out);
    buf_free(&t);
}

static void parameters_written(void **state) {
    (void)state;
    metadata m = {.prompt = str_dup("a cat\non a mat"), .negative_prompt = str_dup("blurry")};
    metadata_setf(&m, "Steps", "%d", 20);
    metadata_set(&m, "Sampler", "Euler a");
    metadata_set(&m, "CFG scale", "7");
    metadata_set(&m, "Size", "512x768");
    metadata_set(&m, "Lora hashes", "a: b, \"c\"");
    metadata_set(&m, "steps", "21"); /* the same key */
    buf text;
    buf_init(&text, 1 << 16);
    metadata_format(&m, &text);
    assert_string_equal(buf_str(&text),
                        "a cat\non a mat\nNegative prompt: blurry\n"
                        "Steps: 21, Sampler: Euler a, CFG scale: 7, Size: 512x768, Lora hashes: \"a: b, \\\"c\\\"\"");
    metadata back = {0};
    metadata_parse(&back, buf_str(&text));
    assert_string_equal(back.prompt, m.prompt);
    assert_string_equal(back.negative_prompt, "blurry");
    assert_string_equal(metadata_get(&back, "Lora hashes"), "a: b, \"c\"");
    int w = 0, h = 0;
    int64_t steps = 0;
    double cfg = 0;
    assert_true(metadata_get_size(&back, &w, &h) && w == 512 && h == 768);
    assert_true(metadata_get_i64(&back, "steps", &steps) && steps == 21);
    assert_true(metadata_get_f64(&back, "CFG scale", &cfg) && cfg == 7);
    assert_false(metadata_get_i64(&back, "Sampler", &steps));
    assert_int_equal(back.count, 5);
    metadata_free(&back);
    metadata_free(&m);
    buf_free(&text);
}

typedef struct text_case {
    const char *text, *prompt, *negative, *key, *value; /* key NULL: no fields at all */
} text_case;

static const text_case TEXTS[] = {
    {"", "", "", NULL, NULL},
    {"only a prompt, with (weights:1.2), [more], (a:1), (b:2)",
     "only a prompt, with (weights:1.2), [more], (a:1), (b:2)", "", NULL, NULL},
    {"p\r\nNegative prompt: n\r\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 18446744073709551615, "
     "Size: 512x512, Model hash: abc, Model: x y, Denoising strength: 0.5, Clip skip: 2, Version: v1.9",
     "p", "n", "Seed", "18446744073709551615"},
    {"p\nNegative prompt: n1\nn2\nSteps: 1, Seed: 2, Size: 8x8", "p", "n1\nn2", "Size", "8x8"},
    {"Negative prompt: only\nSteps: 1, Seed: 2, Size: 8x8", "", "only", "Seed", "2"},
    {"Steps: 1, Seed: 2, Size: 8x8", "", "", "Steps", "1"},
    {"p\nSteps: 1, Seed: 2", "p\nSteps: 1, Seed: 2", "", NULL, NULL}, /* two fields may be prose */
    {"p\nSteps: 1, Bad: \"open, Seed: 2, Size: 8x8", "p", "", "Bad", "\"open"},
    {"p\nSteps: 1, Bad: \"\\q\", Seed: 2, Size: 8x8\n\n", "p", "", "Bad", "\"\\q\""},
    {"p\nSteps: , Seed:2,, ,:,Size: 8x8,", "p", "", "Steps", ""},
    {"p\nSteps: 1, TI hashes: \"x: 1, y: 2\\n\", Size: 8x8", "p", "", "TI hashes", "x: 1, y: 2\n"},
};

static void parameters_read(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++) {
        metadata m = {0};
        metadata_parse(&m, TEXTS[i].text);
        assert_string_equal(m.prompt, TEXTS[i].prompt);
        assert_string_equal(m.negative_prompt, TEXTS[i].negative);
        if (TEXTS[i].key)
            assert_string_equal(metadata_get(&m, TEXTS[i].key), TEXTS[i].value);
        else
            assert_int_equal(m.count, 0);
        metadata_free(&m);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocation_is_bounded),
        cmocka_unit_test(convert),
        cmocka_unit_test(resize),
        cmocka_unit_test(resize_reference),
        cmocka_unit_test(resize_keeps_hidden_colours_hidden),
        cmocka_unit_test(crop),
        cmocka_unit_test(orientations),
        cmocka_unit_test(round_trips),
        cmocka_unit_test(jpeg_drops_alpha),
        cmocka_unit_test(full_buffer_is_an_error),
        cmocka_unit_test(truncated_files),
        cmocka_unit_test(decompression_bombs),
        cmocka_unit_test(palette_png),
        cmocka_unit_test(formats_by_name),
        cmocka_unit_test(embedded_text),
        cmocka_unit_test(long_text_in_jpeg),
        cmocka_unit_test(foreign_exif),
        cmocka_unit_test(parameters_written),
        cmocka_unit_test(parameters_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
