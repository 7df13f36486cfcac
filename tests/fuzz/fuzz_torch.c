/* The input is a file of PyTorch's, of either form. The part behind a first byte of 'P' that is no archive is taken for
 * the pickle of one, which is then made around it: archives are mostly offsets that a fuzzer rarely gets right. */
#include "fuzz_model_file.h"

#include "base/buf.h"

static void put(buf *b, unsigned long long v, int bytes) {
    for (int i = 0; i < bytes; i++) buf_putc(b, (char)(v >> (8 * i) & 0xff));
}

static void put_sizes(buf *b, const char *name, size_t len) {
    put(b, 0, 4); /* checksum */
    put(b, len, 4);
    put(b, len, 4);
    put(b, strlen(name), 2);
}

typedef struct member {
    const char *name;
    const void *data;
    size_t len, at;
} member;

static void put_directory(buf *b, const member *members, size_t n) {
    size_t start = b->len;
    for (size_t i = 0; i < n; i++) {
        buf_append(b, "PK\1\2\0\0\0\0\0\0\0\0\0\0\0\0", 16);
        put_sizes(b, members[i].name, members[i].len);
        put(b, 0, 8); /* no extra field, no comment, attributes */
        put(b, 0, 4);
        put(b, members[i].at, 4);
        buf_puts(b, members[i].name);
    }
    size_t size = b->len - start;
    buf_append(b, "PK\5\6\0\0\0\0", 8);
    put(b, n, 2);
    put(b, n, 2);
    put(b, size, 4);
    put(b, start, 4);
    put(b, 0, 2);
}

static void fuzz_archive_of(const unsigned char *pickle, size_t len) {
    static const unsigned char numbers[64];
    member members[] = {
        {"a/data.pkl", pickle, len, 0}, {"a/data/0", numbers, sizeof numbers, 0}, {"a/data/1", numbers, 8, 0}};
    enum { N = sizeof members / sizeof *members };
    buf b;
    buf_init(&b, len + 4096);
    for (size_t i = 0; i < N; i++) {
        members[i].at = b.len;
        buf_append(&b, "PK\3\4\0\0\0\0\0\0\0\0\0\0", 14);
        put_sizes(&b, members[i].name, members[i].len);
        put(&b, 0, 2);
        buf_puts(&b, members[i].name);
        buf_append(&b, members[i].data, members[i].len);
    }
    put_directory(&b, members, N);
    fuzz_model_file(b.data, b.len);
    buf_free(&b);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
    if (size > 1 && data[0] == 'P' && data[1] != 'K')
        fuzz_archive_of(data + 1, size - 1);
    else
        fuzz_model_file(data, size);
    return 0;
}
