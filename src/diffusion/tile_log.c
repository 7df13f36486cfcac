/* tile_log.c - see tile_log.h. The file: magic, key; then for each tile its length, its hash and its numbers. */
#include "diffusion/tile_log.h"

#include "base/log.h"
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t magic = 0x31474f4c454c4954; /* "TILELOG1" */

struct tile_log {
    char *path;
    FILE *f; /* NULL: nothing is kept */
    bool at_end;
};

typedef struct record {
    uint64_t n, hash;
} record;

static bool begins_so(FILE *f, uint64_t key) {
    uint64_t head[2];
    return fread(head, sizeof head, 1, f) == 1 && head[0] == magic && head[1] == key;
}

static FILE *begin(const char *path, uint64_t key) {
    const uint64_t head[2] = {magic, key};
    FILE *f = fopen(path, "w+b");
    if (f && fwrite(head, sizeof head, 1, f) == 1) return f;
    log_warn("diffusion", "'%s' cannot be written: the work could not be taken up again", path);
    if (f) fclose(f);
    return NULL;
}

tile_log *tile_log_open(const char *path, uint64_t key) {
    tile_log *l = mem_alloc(1, sizeof *l);
    l->at_end = true;
    if (!path) return l;
    l->path = str_dup(path);
    l->f = fopen(path, "r+b");
    if (l->f && begins_so(l->f, key)) {
        l->at_end = false;
        return l;
    }
    if (l->f) fclose(l->f);
    l->f = begin(path, key);
    return l;
}

static uint64_t hash_of(const float *data, size_t n) {
    return str_hash(data, n * sizeof *data, n);
}

static bool read_record(FILE *f, float *out, size_t n) {
    record r;
    return fread(&r, sizeof r, 1, f) == 1 && r.n == n && fread(out, sizeof *out, n, f) == n &&
           r.hash == hash_of(out, n);
}

bool tile_log_next(tile_log *l, float *out, size_t n) {
    fpos_t here;
    if (l->at_end || fgetpos(l->f, &here) != 0) return false;
    if (read_record(l->f, out, n)) return true;
    l->at_end = true; /* what is not whole is written over */
    fsetpos(l->f, &here);
    return false;
}

void tile_log_add(tile_log *l, const float *data, size_t n) {
    if (!l->f) return;
    const record r = {n, hash_of(data, n)};
    if (fwrite(&r, sizeof r, 1, l->f) == 1 && fwrite(data, sizeof *data, n, l->f) == n && fflush(l->f) == 0) return;
    log_warn("diffusion", "'%s' cannot be written any more", l->path);
    fclose(l->f);
    l->f = NULL;
}

void tile_log_close(tile_log *l, bool is_done) {
    if (l->f) fclose(l->f);
    if (is_done && l->path) remove(l->path);
    free(l->path);
    free(l);
}
