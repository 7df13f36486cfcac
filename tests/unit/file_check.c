/* file_check - whether two model files hold the same tensors; for tests that write them with other programs.
 *
 *     file_check A B              the same names, types, shapes and bytes, in any order; 0 when they do
 *     file_check --refuses A TEXT opening A fails with TEXT in the message
 *     file_check --meta A KEY VALUE   A's metadata say so (text, or an integer)
 *
 * Each file is also opened for its header only, which must give the same. */
#include "base/str.h"
#include "diffusion/load/tensor_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const char *what, const char *name) {
    fprintf(stderr, "file_check: %s: %s\n", name, what);
    return 1;
}

static int differ(const tensor_file *a, const tensor_file *b, const tensor_info *t) {
    const tensor_info *u = tensor_file_find(b, t->name);
    if (!u) return fail("missing in the other file", t->name);
    if (t->type != u->type) return fail("another type", t->name);
    if (t->n_dims != u->n_dims || memcmp(t->ne, u->ne, sizeof t->ne) != 0) return fail("another shape", t->name);
    if (t->nbytes != u->nbytes) return fail("another size", t->name);
    unsigned char *own = mem_alloc(t->nbytes + 1, 1), *other = mem_alloc(t->nbytes + 1, 1);
    bool ok = tensor_file_read(a, t, own, t->nbytes, NULL) && tensor_file_read(b, u, other, u->nbytes, NULL) &&
              memcmp(own, other, t->nbytes) == 0;
    free(own);
    free(other);
    return ok ? 0 : fail("other numbers", t->name);
}

static int compare(const tensor_file *a, const tensor_file *b) {
    if (tensor_file_count(a) != tensor_file_count(b)) return fail("another number of tensors", tensor_file_path(a));
    if (tensor_file_count(a) == 0) return fail("no tensors", tensor_file_path(a));
    int bad = 0;
    for (size_t i = 0; i < tensor_file_count(a); i++) bad |= differ(a, b, tensor_file_at(a, i));
    return bad;
}

static int same(const char *a_path, const char *b_path) {
    err e;
    tensor_file *a = tensor_file_open(a_path, &e), *b = a ? tensor_file_open(b_path, &e) : NULL;
    tensor_file *header = b ? tensor_file_open_header(a_path, &e) : NULL;
    int bad = header ? compare(a, b) | compare(header, b) : fail(e.msg, "open");
    tensor_file_close(header);
    tensor_file_close(b);
    tensor_file_close(a);
    return bad;
}

static int refuses(const char *path, const char *text) {
    for (int header = 0; header < 2; header++) {
        err e = {0};
        tensor_file *f = header ? tensor_file_open_header(path, &e) : tensor_file_open(path, &e);
        tensor_file_close(f);
        if (f) return fail("was opened", path);
        if (!strstr(e.msg, text)) return fail(e.msg, text);
    }
    return 0;
}

static int says(const char *path, const char *key, const char *value) {
    err e;
    const char *text = "";
    char number[32] = "";
    int64_t i;
    tensor_file *f = tensor_file_open_header(path, &e);
    if (!f) return fail(e.msg, path);
    if (tensor_file_meta_i64(f, key, &i)) snprintf(number, sizeof number, "%" PRId64, i);
    bool ok = str_eq(tensor_file_meta_str(f, key, &text) ? text : number, value);
    tensor_file_close(f);
    return ok ? 0 : fail("other metadata", key);
}

int main(int argc, char **argv) {
    if (argc == 4 && str_eq(argv[1], "--refuses")) return refuses(argv[2], argv[3]);
    if (argc == 5 && str_eq(argv[1], "--meta")) return says(argv[2], argv[3], argv[4]);
    if (argc == 3) return same(argv[1], argv[2]);
    return fail("usage: file_check A B", "arguments");
}
