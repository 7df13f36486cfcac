/* Model file readers: good files of both formats, then every way we know to write a bad one. */
#include "diffusion/load/tensor_file.h"

#include "model_bytes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static tensor_file *open_bytes(const buf *b, err *e) {
    return tensor_file_open_memory("bytes", b->data, b->len, e);
}

/* --- types --- */

static void type_sizes(void **state) {
    (void)state;
    int64_t bytes, matrix[4] = {512, 3, 1, 1}, ragged[4] = {33, 1, 1, 1}, huge[4] = {INT64_MAX, 2, 1, 1};
    int64_t sneaky[4] = {INT64_MAX, INT64_MAX, 0, 1}, negative[4] = {-1, 1, 1, 1};
    assert_true(tensor_type_size(TENSOR_F16, matrix, &bytes) && bytes == 512 * 3 * 2);
    assert_true(tensor_type_size(TENSOR_Q4_K, matrix, &bytes) && bytes == 2 * 3 * 144);
    assert_false(tensor_type_size(TENSOR_Q8_0, ragged, &bytes));
    assert_false(tensor_type_size(TENSOR_F32, huge, &bytes));
    assert_false(tensor_type_size(TENSOR_F32, sneaky, &bytes));
    assert_false(tensor_type_size(TENSOR_F32, negative, &bytes));
    assert_false(tensor_type_size((tensor_type)4, matrix, &bytes));
    assert_string_equal(tensor_type_name(TENSOR_F8_E4M3), "f8_e4m3");
    assert_string_equal(tensor_type_name((tensor_type)31), "?");
}

/* --- safetensors --- */

static void safetensors_good(void **state) {
    (void)state;
    buf b;
    buf_init(&b, 1 << 20);
    st_raw(&b,
           "{\"__metadata__\":{\"format\":\"pt\",\"modelspec.title\":\"A \\u00fc\"},"
           "\"w\":{\"dtype\":\"F16\",\"shape\":[3,2],\"data_offsets\":[4,16]},"
           "\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
           "\"e\":{\"dtype\":\"F8_E5M2\",\"shape\":[0,7],\"data_offsets\":[8,8]},"
           "\"five\":{\"dtype\":\"BF16\",\"shape\":[2,1,3,1,2],\"data_offsets\":[16,40]}}",
           40);
    err e = {0};
    tensor_file *f = open_bytes(&b, &e);
    assert_non_null(f);
    assert_int_equal(tensor_file_format(f), TENSOR_FORMAT_SAFETENSORS);
    assert_int_equal(tensor_file_count(f), 4);
    const tensor_info *w = tensor_file_find(f, "w");
    assert_non_null(w);
    assert_int_equal(w->type, TENSOR_F16);
    assert_int_equal(w->n_dims, 2);
    assert_int_equal(w->ne[0], 2); /* innermost first */
    assert_int_equal(w->ne[1], 3);
    assert_int_equal(w->nbytes, 12);
    assert_ptr_equal(tensor_file_data(f, w), b.data + b.len - 40 + 4);
    assert_int_equal(tensor_file_find(f, "s")->n_dims, 0);
    assert_int_equal(tensor_file_find(f, "e")->nbytes, 0);
    const tensor_info *five = tensor_file_find(f, "five");
    assert_int_equal(five->n_dims, 4);
    assert_int_equal(five->ne[0], 2);
    assert_int_equal(five->ne[2], 3);
    assert_int_equal(five->ne[3], 2); /* 2 * 1 merged */
    const char *title = NULL;
    assert_true(tensor_file_meta_str(f, "modelspec.title", &title));
    assert_string_equal(title, "A \xc3\xbc");
    int64_t number = 5;
    assert_false(tensor_file_meta_i64(f, "modelspec.title", &number));
    assert_int_equal(number, 5);
    assert_null(tensor_file_find(f, "x"));
    tensor_file_close(f);
    buf_free(&b);
}

typedef struct bad_header {
    const char *header, *message; /* part of the message that must come */
    size_t data_len;
} bad_header;

static const bad_header BAD_HEADERS[] = {
    {"[]", "neither", 0},
    {"{", "not valid JSON", 0},
    {"{\"a\":1}", "tensor 'a': no dtype", 8},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", "tensor 'a': bad data_offsets", 8},
    {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", "tensor 'a': bad shape", 8},
    {"{\"a\":{\"dtype\":\"F99\",\"shape\":[2],\"data_offsets\":[0,8]}}", "unknown dtype 'F99'", 8},
    {"{\"a\":{\"dtype\":7,\"shape\":[2],\"data_offsets\":[0,8]}}", "no dtype", 8},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", "shape needs 12 bytes, data_offsets give 8",
     16},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "beyond the file's end", 7},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", "bad data_offsets", 8},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,9]}}", "bad data_offsets", 8},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[18446744073709551608,0]}}", "bad data_offsets", 8},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[18446744073709551600,18446744073709551608]}}",
     "beyond the file's end", 8},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", "bad shape", 8},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", "bad shape", 8},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[\"2\"],\"data_offsets\":[0,8]}}", "bad shape", 8},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,8]}}", "impossible shape", 8},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[9223372036854775807,9223372036854775807,0],\"data_offsets\":[0,0]}}",
     "impossible shape", 8},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[18446744073709551615],\"data_offsets\":[0,8]}}", "impossible shape", 8},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,8]}}", "bad shape", 8},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}",
     "tensor 'a' occurs twice", 16},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
     "tensor 'b' overlaps tensor 'a'", 16},
    {"{\"\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "name of 0 bytes", 8},
    {"{\"a\\u0000b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "name is not UTF-8 text", 8},
    {"{\"__metadata__\":[]}", "__metadata__ is not an object", 0},
    {"{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", "metadata key 'a' occurs twice", 0},
};

static void safetensors_bad(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof BAD_HEADERS / sizeof *BAD_HEADERS; i++) {
        const bad_header *bad = &BAD_HEADERS[i];
        buf b;
        buf_init(&b, 1 << 20);
        st_raw(&b, bad->header, bad->data_len);
        err e = {0};
        tensor_file *f = open_bytes(&b, &e);
        if (f || !strstr(e.msg, bad->message)) fail_msg("%s: %s", bad->header, f ? "was accepted" : e.msg);
        tensor_file_close(f);
        buf_free(&b);
    }
}

static void safetensors_bad_lengths(void **state) {
    (void)state;
    static const uint64_t LENGTHS[] = {3, 100, 100000001, UINT64_MAX, UINT64_MAX - 7, 1};
    for (size_t i = 0; i < sizeof LENGTHS / sizeof *LENGTHS; i++) {
        buf b;
        buf_init(&b, 1 << 20);
        put_le(&b, LENGTHS[i], 8);
        buf_puts(&b, "{}");
        err e = {0};
        assert_null(open_bytes(&b, &e));
        assert_true(e.code == ERR_FORMAT);
        buf_free(&b);
    }
}

/* Nesting deep enough to break a recursive parser. */
static void safetensors_deep(void **state) {
    (void)state;
    buf b;
    buf_init(&b, 1 << 22);
    put_le(&b, 1000000, 8);
    buf_puts(&b, "{\"a\":");
    while (b.len < 8 + 1000000) buf_putc(&b, '[');
    err e = {0};
    assert_null(open_bytes(&b, &e));
    assert_non_null(strstr(e.msg, "nested"));
    buf_free(&b);
}

/* --- GGUF --- */

static void put_good_gguf(buf *b, uint32_t version) {
    const uint64_t q[] = {64, 2}, v[] = {5};
    gguf_head(b, version, 2, 8);
    gguf_str(b, "general.architecture", "llama");
    gguf_num(b, "general.alignment", 4, 64, 4);
    gguf_num(b, "i8", 1, 0xff, 1);
    gguf_num(b, "yes", 7, 1, 1);
    gguf_num(b, "f32", 6, 0x3fc00000, 4); /* 1.5 */
    gguf_num(b, "u64", 10, UINT64_MAX, 8);
    gguf_text(b, "tokens"); /* an array of strings */
    put_le(b, 9, 4);
    put_le(b, 8, 4);
    put_le(b, 2, 8);
    gguf_text(b, "<s>");
    gguf_text(b, "");
    gguf_text(b, "nested"); /* an array of arrays of u16 */
    put_le(b, 9, 4);
    put_le(b, 9, 4);
    put_le(b, 1, 8);
    put_le(b, 2, 4);
    put_le(b, 3, 8);
    put_le(b, 0, 6);
    gguf_tensor(b, "q.weight", 2, q, TENSOR_Q8_0, 0);
    gguf_tensor(b, "v.bias", 1, v, TENSOR_F32, 192); /* 2 * 2 * 34 = 136, aligned to 64 */
    put_pad(b, 64);
    for (int i = 0; i < 192 + 20; i++) buf_putc(b, (char)i);
}

static void gguf_good(void **state) {
    (void)state;
    for (uint32_t version = 2; version <= 3; version++) {
        buf b;
        buf_init(&b, 1 << 20);
        put_good_gguf(&b, version);
        err e = {0};
        tensor_file *f = open_bytes(&b, &e);
        if (!f) fail_msg("%s", e.msg);
        assert_int_equal(tensor_file_format(f), TENSOR_FORMAT_GGUF);
        const tensor_info *q = tensor_file_find(f, "q.weight");
        assert_int_equal(q->nbytes, 136);
        assert_int_equal(q->offset % 64, 0);
        assert_int_equal(*(const unsigned char *)tensor_file_data(f, tensor_file_find(f, "v.bias")), 192);
        const char *arch;
        int64_t i8 = 0, u64 = 7;
        double f32 = 0;
        bool yes = false;
        uint64_t len = 0;
        assert_true(tensor_file_meta_str(f, "general.architecture", &arch));
        assert_string_equal(arch, "llama");
        assert_true(tensor_file_meta_i64(f, "i8", &i8) && i8 == -1);
        assert_true(tensor_file_meta_f64(f, "f32", &f32) && f32 == 1.5);
        assert_true(tensor_file_meta_bool(f, "yes", &yes) && yes);
        assert_false(tensor_file_meta_i64(f, "u64", &u64)); /* does not fit */
        assert_true(tensor_file_meta_array_len(f, "tokens", &len) && len == 2);
        assert_true(tensor_file_meta_array_len(f, "nested", &len) && len == 1);
        tensor_file_close(f);
        buf_free(&b);
    }
}

/* Cut anywhere, a file is refused; no byte beyond the cut may be read (the copy has exactly that size). */
static void gguf_truncated(void **state) {
    (void)state;
    buf b;
    buf_init(&b, 1 << 20);
    put_good_gguf(&b, 3);
    for (size_t len = 0; len < b.len; len++) {
        char *copy = malloc(len ? len : 1);
        memcpy(copy, b.data, len);
        err e = {0};
        tensor_file *f = tensor_file_open_memory("cut", copy, len, &e);
        if (f) fail_msg("accepted when cut at %zu of %zu", len, b.len);
        assert_true(e.msg[0] != 0);
        free(copy);
    }
    buf_free(&b);
}

static void expect_bad_gguf(buf *b, const char *message) {
    err e = {0};
    tensor_file *f = open_bytes(b, &e);
    if (f || !strstr(e.msg, message)) fail_msg("expected '%s', got '%s'", message, f ? "(accepted)" : e.msg);
    buf_free(b);
    buf_init(b, 1 << 20);
}

static void gguf_bad_heads(void **state) {
    (void)state;
    buf b;
    buf_init(&b, 1 << 20);
    gguf_head(&b, 1, 0, 0);
    expect_bad_gguf(&b, "GGUF version 1");
    gguf_head(&b, 0x03000000, 0, 0);
    expect_bad_gguf(&b, "big-endian");
    gguf_head(&b, 3, UINT64_MAX, 0);
    expect_bad_gguf(&b, "too many");
    gguf_head(&b, 3, 0, UINT64_MAX);
    expect_bad_gguf(&b, "too many");
    gguf_head(&b, 3, 0, 2);
    gguf_str(&b, "k", "1");
    gguf_str(&b, "k", "2");
    expect_bad_gguf(&b, "metadata key 'k' occurs twice");
    gguf_head(&b, 3, 0, 1);
    gguf_num(&b, "k", 99, 0, 8);
    expect_bad_gguf(&b, "key 'k': unknown type 99");
    gguf_head(&b, 3, 0, 1);
    gguf_text(&b, "k");
    put_le(&b, 8, 4);
    put_le(&b, UINT64_MAX - 3, 8); /* a string as long as the world */
    expect_bad_gguf(&b, "key 'k': file ends");
    gguf_head(&b, 3, 0, 1);
    gguf_text(&b, "k");
    put_le(&b, 9, 4);
    put_le(&b, 12, 4);
    put_le(&b, UINT64_MAX / 8 + 1, 8); /* times 8 bytes wraps to 0 */
    expect_bad_gguf(&b, "key 'k': file ends");
    gguf_head(&b, 3, 0, 1);
    gguf_num(&b, "general.alignment", 4, 48, 4);
    expect_bad_gguf(&b, "power of two");
    gguf_head(&b, 3, 0, 1);
    gguf_num(&b, "general.alignment", 4, 0, 4);
    expect_bad_gguf(&b, "power of two");
    gguf_head(&b, 3, 0, 1);
    gguf_text(&b, "deep");
    put_le(&b, 9, 4);
    for (int i = 0; i < 1000; i++) {
        put_le(&b, 9, 4);
        put_le(&b, 1, 8);
    }
    expect_bad_gguf(&b, "key 'deep': arrays nested deeper");
    buf_free(&b);
}

static void gguf_bad_tensors(void **state) {
    (void)state;
    const uint64_t two[] = {2}, huge[] = {1ull << 40, 1ull << 40}, ragged[] = {33}, big[] = {UINT64_MAX};
    buf b;
    buf_init(&b, 1 << 20);
    gguf_head(&b, 3, 1, 0);
    gguf_tensor(&b, "t", 1, two, 4, 0);
    expect_bad_gguf(&b, "tensor 't': unknown type 4");
    gguf_head(&b, 3, 1, 0);
    gguf_tensor(&b, "t", 1, two, TENSOR_F8_E4M3, 0);
    expect_bad_gguf(&b, "tensor 't': unknown type 1005");
    gguf_head(&b, 3, 1, 0);
    gguf_tensor(&b, "t", 2, huge, TENSOR_F32, 0);
    expect_bad_gguf(&b, "tensor 't': impossible shape");
    gguf_head(&b, 3, 1, 0);
    gguf_tensor(&b, "t", 1, big, TENSOR_F32, 0);
    expect_bad_gguf(&b, "tensor 't': impossible shape");
    gguf_head(&b, 3, 1, 0);
    gguf_tensor(&b, "t", 1, ragged, TENSOR_Q4_0, 0);
    expect_bad_gguf(&b, "tensor 't': impossible shape");
    gguf_head(&b, 3, 1, 0);
    gguf_tensor(&b, "t", 1, two, TENSOR_F32, 4);
    expect_bad_gguf(&b, "tensor 't': offset 4 is not a multiple of 32");
    gguf_head(&b, 3, 1, 0);
    gguf_tensor(&b, "t", 1, two, TENSOR_F32, UINT64_MAX - 31);
    expect_bad_gguf(&b, "tensor 't': 8 bytes at");
    gguf_head(&b, 3, 1, 0);
    gguf_text(&b, "t");
    put_le(&b, 0xffffffff, 4);
    expect_bad_gguf(&b, "tensor 't': 4294967295 dimensions");
    gguf_head(&b, 3, 2, 0);
    gguf_tensor(&b, "a", 1, two, TENSOR_F32, 0);
    gguf_tensor(&b, "a", 1, two, TENSOR_F32, 32);
    put_pad(&b, 32);
    for (int i = 0; i < 64; i++) buf_putc(&b, 0);
    expect_bad_gguf(&b, "tensor 'a' occurs twice");
    gguf_head(&b, 3, 2, 0);
    gguf_tensor(&b, "a", 1, two, TENSOR_F32, 0);
    gguf_tensor(&b, "b", 1, two, TENSOR_F32, 0);
    put_pad(&b, 32);
    for (int i = 0; i < 64; i++) buf_putc(&b, 0);
    expect_bad_gguf(&b, "overlaps");
    buf_free(&b);
}

/* --- other files --- */

static void foreign_files(void **state) {
    (void)state;
    err e = {0};
    assert_null(tensor_file_open_memory("x.ckpt", "PK\3\4aaaaaaaaaaaa", 16, &e));
    assert_int_equal(e.code, ERR_FORMAT);
    assert_null(tensor_file_open_memory("x.pt", "\x80\x02}q.", 5, &e));
    assert_int_equal(e.code, ERR_UNSUPPORTED);
    assert_null(tensor_file_open_memory("x.txt", "hello, this is no model", 23, &e));
    assert_int_equal(e.code, ERR_FORMAT);
    assert_null(tensor_file_open_memory("empty", "", 0, &e));
    assert_null(tensor_file_open("no/such/file.gguf", &e));
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_null(tensor_file_open("src", &e));
}

static void mapped_file(void **state) {
    (void)state;
    buf b;
    buf_init(&b, 1 << 20);
    put_good_gguf(&b, 3);
    char *path = write_temp(&b);
    err e = {0};
    tensor_file *f = tensor_file_open(path, &e);
    assert_non_null(f);
    assert_int_equal(tensor_file_size(f), b.len);
    assert_string_equal(tensor_file_path(f), path);
    assert_int_equal((uintptr_t)tensor_file_base(f) % 4096, 0);
    const tensor_info *q = tensor_file_find(f, "q.weight");
    tensor_file_release(f, q->offset, q->nbytes);
    assert_int_equal(((const unsigned char *)tensor_file_data(f, q))[5], 5);
    tensor_file_close(f);
    remove_temp(path);
    buf_free(&b);
}

/* The header alone, also when it is longer than the first piece read. */
static void header_only(void **state) {
    (void)state;
    for (int big = 0; big <= 1; big++) {
        const uint64_t dims[] = {8};
        buf b;
        buf_init(&b, 8 << 20);
        gguf_head(&b, 3, 1, 1);
        gguf_text(&b, "tokens");
        put_le(&b, 9, 4);
        put_le(&b, 8, 4);
        put_le(&b, big ? 100000 : 1, 8);
        for (int i = 0; i < (big ? 100000 : 1); i++) gguf_text(&b, "token");
        gguf_tensor(&b, "t", 1, dims, TENSOR_F32, 0);
        put_pad(&b, 32);
        for (int i = 0; i < 32; i++) buf_putc(&b, 0);
        char *path = write_temp(&b);
        err e = {0};
        tensor_file *f = tensor_file_open_header(path, &e);
        if (!f) fail_msg("%s", e.msg);
        assert_int_equal(tensor_file_count(f), 1);
        assert_int_equal(tensor_file_size(f), b.len);
        assert_null(tensor_file_data(f, tensor_file_at(f, 0)));
        tensor_file_release(f, 0, 100);
        tensor_file_close(f);
        assert_int_equal(truncate(path, (off_t)b.len / 2), 0);
        assert_null(tensor_file_open_header(path, &e));
        assert_int_equal(e.code, ERR_FORMAT);
        remove_temp(path);
        buf_free(&b);
    }
    err e = {0};
    assert_null(tensor_file_open_header("src", &e));
    assert_null(tensor_file_open_header("no/such/file", &e));
    assert_int_equal(e.code, ERR_NOT_FOUND);
}

static void gguf_shape(buf *b, const char *key, uint32_t type, int n, const uint64_t *dims) {
    gguf_text(b, key);
    put_le(b, 9, 4);
    put_le(b, type, 4);
    put_le(b, (uint64_t)n, 8);
    for (int i = 0; i < n; i++) put_le(b, dims[i], type == 5 ? 4 : 8);
}

/* Tensors stored with rows of 256 for quantization, whose shapes stand in the metadata; shapes that do not fit are not
 * believed. */
static void gguf_original_shapes(void **state) {
    (void)state;
    static const uint64_t conv[] = {8, 4, 4, 2}, linear[] = {16, 48}, wrong[] = {16, 49}, zero[] = {0, 0};
    static const uint64_t huge[] = {2147483647, 2147483647, 2147483647}, stored[] = {256, 1}, more[] = {256, 3};
    buf b;
    buf_init(&b, 1 << 16);
    gguf_head(&b, 3, 5, 5);
    gguf_shape(&b, "comfy.gguf.orig_shape.conv", 5, 4, conv);
    gguf_shape(&b, "comfy.gguf.orig_shape.linear", 11, 2, linear);
    gguf_shape(&b, "comfy.gguf.orig_shape.wrong", 5, 2, wrong);
    gguf_shape(&b, "comfy.gguf.orig_shape.zero", 5, 2, zero);
    gguf_shape(&b, "comfy.gguf.orig_shape.huge", 5, 3, huge);
    gguf_tensor(&b, "conv", 2, stored, TENSOR_F32, 0);
    gguf_tensor(&b, "linear", 2, more, TENSOR_Q4_K, 1024);
    gguf_tensor(&b, "wrong", 2, more, TENSOR_Q4_K, 1024 + 448);
    gguf_tensor(&b, "zero", 2, more, TENSOR_Q4_K, 1024 + 2 * 448);
    gguf_tensor(&b, "huge", 2, more, TENSOR_Q4_K, 1024 + 3 * 448);
    put_pad(&b, 32);
    for (int i = 0; i < 1024 + 4 * 448; i++) buf_putc(&b, 0);
    err e = {0};
    tensor_file *f = open_bytes(&b, &e);
    if (!f) fail_msg("%s", e.msg);
    const tensor_info *t = tensor_file_find(f, "conv");
    assert_int_equal(t->n_dims, 4);
    for (int i = 0; i < 4; i++) assert_int_equal(t->ne[i], conv[3 - i]);
    assert_int_equal(t->nbytes, 1024);
    t = tensor_file_find(f, "linear");
    assert_int_equal(t->n_dims, 2);
    assert_int_equal(t->ne[0], 48);
    assert_int_equal(t->ne[1], 16);
    static const char *const kept[] = {"wrong", "zero", "huge"};
    for (size_t i = 0; i < 3; i++) {
        t = tensor_file_find(f, kept[i]);
        assert_int_equal(t->ne[0], 256);
        assert_int_equal(t->ne[1], 3);
    }
    tensor_file_close(f);
    buf_free(&b);
}

/* --- PyTorch's: recorded files of both forms; tools/ref/torch_files.py has fresh ones of every kind --- */

static void check_torch(const char *path, tensor_file *(*open)(const char *path, err *e)) {
    err e = {0};
    tensor_file *f = open(path, &e);
    if (!f) fail_msg("%s", e.msg);
    assert_int_equal(tensor_file_format(f), TENSOR_FORMAT_TORCH);
    assert_int_equal(tensor_file_count(f), 2); /* {"state_dict": {a.weight, b}, "epoch": 1} */
    const tensor_info *a = tensor_file_find(f, "a.weight"), *b = tensor_file_find(f, "b");
    assert_true(a && a->type == TENSOR_F32 && a->n_dims == 2 && a->ne[0] == 2 && a->ne[1] == 2 && a->nbytes == 16);
    assert_true(b && b->type == TENSOR_F16 && b->n_dims == 1 && b->ne[0] == 2 && b->nbytes == 4);
    float zeros[4];
    int64_t epoch = 0;
    assert_true(tensor_file_read(f, a, zeros, sizeof zeros, NULL) && zeros[0] == 0 && zeros[3] == 0);
    assert_true(tensor_file_meta_i64(f, "epoch", &epoch) && epoch == 1);
    tensor_file_close(f);
}

static void torch_files(void **state) {
    (void)state;
    static const char *const FILES[] = {"tests/fuzz/corpus/fuzz_torch/archive", "tests/fuzz/corpus/fuzz_torch/old"};
    for (size_t i = 0; i < 2; i++) {
        check_torch(FILES[i], tensor_file_open);
        check_torch(FILES[i], tensor_file_open_header);
    }
}

/* A pickle of an older file's object in its place between the parts that torch.save writes. */
static void refused_pickle(const char *object, size_t len, const char *text) {
    static const char before[] = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
                                 "\x80\x02M\xe9\x03.\x80\x02}.";
    buf b;
    err e = {0};
    buf_init(&b, 1 << 16);
    buf_append(&b, before, sizeof before - 1);
    buf_append(&b, object, len);
    buf_puts(&b, "\x80\x02].");
    assert_null(tensor_file_open_memory("x.pth", b.data, b.len, &e));
    if (!strstr(e.msg, text)) fail_msg("'%s' does not say '%s'", e.msg, text);
    buf_free(&b);
}

static void torch_refusals(void **state) {
    (void)state;
#define REFUSED(object, text) refused_pickle(object, sizeof object - 1, text)
    REFUSED("\x80\x02}.", "no dictionary of tensors");
    REFUSED("\x80\2cos\nsystem\nU\x02ls\x85R.", "names 'os.system', which is not allowed");
    REFUSED("\x80\x02\x8c\x05posix\x8c\x06system\x93.", "names 'posix.system'");
    REFUSED("\x80\x02(ios\nsystem\n.", "opcode 0x69 (INST) at byte 3 is not allowed");
    REFUSED("\x80\x02\x82\x01.", "opcode 0x82 (EXT1)");
    REFUSED("\x80\x02\xff.", "opcode 0xff (unknown)");
    REFUSED("\x80\x02K\x01K\x02.", "other than one value");
    REFUSED("\x80\x02\x85.", "empty stack");
    REFUSED("\x80\x02(0t.", "no mark");
    REFUSED("\x80\x02}(K\x01u.", "a key without a value");
    REFUSED("\x80\x02h\x07.", "unknown memo");
    REFUSED("\x80\x02NNb.", "no object");
    REFUSED("\x80\x02Na.", "empty stack");
    REFUSED("\x80\x02NNa.", "no container");
    REFUSED("\x80\x02X\xff\xff\xff\x7f.", "ends in its middle");
#undef REFUSED
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(type_sizes),           cmocka_unit_test(safetensors_good),
        cmocka_unit_test(safetensors_bad),      cmocka_unit_test(safetensors_bad_lengths),
        cmocka_unit_test(safetensors_deep),     cmocka_unit_test(gguf_good),
        cmocka_unit_test(gguf_truncated),       cmocka_unit_test(gguf_bad_heads),
        cmocka_unit_test(gguf_bad_tensors),     cmocka_unit_test(foreign_files),
        cmocka_unit_test(mapped_file),          cmocka_unit_test(header_only),
        cmocka_unit_test(gguf_original_shapes), cmocka_unit_test(torch_files),
        cmocka_unit_test(torch_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
