/* zip.c - see zip.h. The directory lies at the archive's end, and its own place at the end of that. */
#include "diffusion/load/zip.h"
#include "base/str.h"

#include <stdlib.h>
#include <string.h>

enum {
    END_BYTES = 22,
    COMMENT_MAX = 65535,
    LOCATOR_BYTES = 20,
    END64_BYTES = 56,
    ENTRY_BYTES = 46,
    HEADER_BYTES = 30,
    DIRECTORY_MAX = 64 << 20,
    MEMBERS_MAX = TENSOR_COUNT_MAX + 1024,
    NAME_MAX_BYTES = 1024,
};

static uint64_t le(const char *p, int bytes) {
    uint64_t v = 0;
    for (int i = bytes - 1; i >= 0; i--) v = v << 8 | (unsigned char)p[i];
    return v;
}

static bool is_mark(const char *p, char third, char fourth) {
    return p[0] == 'P' && p[1] == 'K' && p[2] == third && p[3] == fourth;
}

static bool broken(const char *what, err *e) {
    return err_set(e, ERR_FORMAT, "zip archive: %s (is the file complete?)", what);
}

typedef struct directory {
    uint64_t offset, size, count;
} directory;

/* The 64-bit end record, which a locator in front of the ordinary one points to. */
static bool read_end64(const tensor_input *in, uint64_t end_at, directory *d, err *e) {
    buf part;
    buf_init(&part, END64_BYTES + 1);
    bool ok = end_at >= LOCATOR_BYTES && tensor_input_part(in, end_at - LOCATOR_BYTES, LOCATOR_BYTES, &part, e) &&
              is_mark(part.data, 6, 7);
    if (!ok || !tensor_input_part(in, le(part.data + 8, 8), END64_BYTES, &part, e) || !is_mark(part.data, 6, 6)) {
        buf_free(&part);
        return broken("no 64-bit directory", e);
    }
    *d = (directory){.count = le(part.data + 32, 8), .size = le(part.data + 40, 8), .offset = le(part.data + 48, 8)};
    buf_free(&part);
    return true;
}

/* A comment of any length may follow the end record, so it is searched for from behind. */
static bool find_end(const buf *tail, size_t *at) {
    for (size_t i = tail->len; i >= END_BYTES; i--) {
        const char *p = tail->data + i - END_BYTES;
        if (!is_mark(p, 5, 6) || i + le(p + 20, 2) != tail->len) continue;
        *at = i - END_BYTES;
        return true;
    }
    return false;
}

static bool find_directory(const tensor_input *in, directory *d, err *e) {
    size_t most = END_BYTES + COMMENT_MAX, at = 0;
    size_t len = in->file_size < most ? (size_t)in->file_size : most;
    buf tail;
    buf_init(&tail, most + 1);
    bool ok = tensor_input_part(in, in->file_size - len, len, &tail, e);
    if (ok && !find_end(&tail, &at)) ok = broken("no directory at its end", e);
    if (ok) {
        const char *p = tail.data + at;
        *d = (directory){.count = le(p + 10, 2), .size = le(p + 12, 4), .offset = le(p + 16, 4)};
        if (d->count == 0xffff || d->size == 0xffffffff || d->offset == 0xffffffff)
            ok = read_end64(in, in->file_size - len + at, d, e);
    }
    buf_free(&tail);
    return ok;
}

/* Numbers too large for the entry's own fields stand in an extra field, in this order. */
static bool read_extra64(const char *p, size_t len, zip_member *m) {
    while (len >= 4) {
        size_t id = (size_t)le(p, 2), n = (size_t)le(p + 2, 2);
        if (n > len - 4) return false;
        if (id == 1) {
            uint64_t *const fields[] = {&m->size, &m->packed, &m->header};
            const char *at = p + 4, *end = at + n;
            for (size_t i = 0; i < 3; i++) {
                if (*fields[i] != 0xffffffff) continue;
                if (end - at < 8) return false;
                *fields[i] = le(at, 8);
                at += 8;
            }
            return true;
        }
        p += 4 + n;
        len -= 4 + n;
    }
    return true;
}

/* One entry at p, of which `len` bytes are there; how many it takes, 0 when it is broken. */
static size_t read_entry(const char *p, size_t len, zip_member *m) {
    if (len < ENTRY_BYTES || !is_mark(p, 1, 2)) return 0;
    size_t name = (size_t)le(p + 28, 2), extra = (size_t)le(p + 30, 2), comment = (size_t)le(p + 32, 2);
    size_t all = ENTRY_BYTES + name + extra + comment;
    if (all > len || name > NAME_MAX_BYTES || memchr(p + ENTRY_BYTES, 0, name)) return 0;
    *m = (zip_member){.flags = (unsigned)le(p + 8, 2),
                      .method = (unsigned)le(p + 10, 2),
                      .packed = le(p + 20, 4),
                      .size = le(p + 24, 4),
                      .header = le(p + 42, 4)};
    if (!read_extra64(p + ENTRY_BYTES + name, extra, m)) return 0;
    m->name = str_ndup(p + ENTRY_BYTES, name);
    return all;
}

static bool read_entries(zip *z, const buf *dir, uint64_t count, err *e) {
    z->members = mem_alloc((size_t)count, sizeof *z->members);
    for (size_t at = 0; z->count < count;) {
        zip_member *m = &z->members[z->count];
        size_t used = read_entry(dir->data + at, dir->len - at, m);
        if (!used) return broken("its directory is damaged", e);
        if (!name_index_put(&z->by_name, m->name, z->count++))
            return err_set(e, ERR_FORMAT, "zip archive: '%.100s' occurs twice", m->name);
        at += used;
    }
    return true;
}

bool zip_open(zip *z, const tensor_input *in, err *e) {
    directory d;
    if (!find_directory(in, &d, e)) return false;
    if (d.size > DIRECTORY_MAX || d.count > MEMBERS_MAX || d.count > d.size / ENTRY_BYTES)
        return broken("its directory is impossibly large", e);
    buf dir;
    buf_init(&dir, DIRECTORY_MAX + 1);
    bool ok =
        d.count == 0 || (tensor_input_part(in, d.offset, (size_t)d.size, &dir, e) && read_entries(z, &dir, d.count, e));
    buf_free(&dir);
    return ok;
}

void zip_free(zip *z) {
    for (size_t i = 0; i < z->count; i++) free(z->members[i].name);
    free(z->members);
    name_index_free(&z->by_name);
    *z = (zip){0};
}

const zip_member *zip_find(const zip *z, const char *name) {
    size_t i;
    return name_index_get(&z->by_name, name, &i) ? &z->members[i] : NULL;
}

bool zip_locate(const zip_member *m, const tensor_input *in, uint64_t *offset, err *e) {
    if (m->flags & 1) return err_set(e, ERR_UNSUPPORTED, "zip archive: '%.100s' is encrypted", m->name);
    if (m->method != 0 || m->packed != m->size)
        return err_set(e, ERR_UNSUPPORTED, "zip archive: '%.100s' is compressed, which torch.save does not do",
                       m->name);
    buf head;
    buf_init(&head, HEADER_BYTES + 1);
    bool ok = tensor_input_part(in, m->header, HEADER_BYTES, &head, e);
    if (ok && !is_mark(head.data, 3, 4)) ok = broken("a member is not where the directory says", e);
    if (ok) {
        *offset = m->header + HEADER_BYTES + le(head.data + 26, 2) + le(head.data + 28, 2);
        if (*offset > in->file_size || m->size > in->file_size - *offset) ok = broken("a member is cut off", e);
    }
    buf_free(&head);
    return ok;
}
