/* http_file.c - see http_file.h.
 *
 * What to answer is decided at once from the file's name and stat(); only opening and reading, which may wait for a
 * disk, go through libuv's thread pool. A transfer owns its file and lives until that is closed; the request may be
 * gone before. */
#include "net/http_file.h"
#include "base/clock.h"
#include "base/path.h"
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { CHUNK = 64 * 1024 };

typedef struct transfer {
    http_req *req; /* NULL when it ended or the client is gone */
    uv_loop_t *loop;
    uv_fs_t fs;
    bool busy; /* fs is under way */
    uv_file fd;
    int status;
    const char *type;
    uint64_t offset, left;
    char chunk[CHUNK];
} transfer;

/* What the request asks of the file. */
typedef struct file_facts {
    uint64_t size;
    char etag[48];
    char modified[30];
} file_facts;

const char *http_file_type(const char *name) {
    static const struct {
        const char *ext, *type;
    } table[] = {
        {".html", "text/html; charset=utf-8"},
        {".js", "text/javascript; charset=utf-8"},
        {".mjs", "text/javascript; charset=utf-8"},
        {".css", "text/css; charset=utf-8"},
        {".json", "application/json"},
        {".map", "application/json"},
        {".webmanifest", "application/manifest+json"},
        {".txt", "text/plain; charset=utf-8"},
        {".md", "text/plain; charset=utf-8"},
        {".png", "image/png"},
        {".jpg", "image/jpeg"},
        {".jpeg", "image/jpeg"},
        {".webp", "image/webp"},
        {".gif", "image/gif"},
        {".svg", "image/svg+xml"},
        {".ico", "image/x-icon"},
        {".woff2", "font/woff2"},
        {".woff", "font/woff"},
        {".ttf", "font/ttf"},
        {".wasm", "application/wasm"},
        {".mp4", "video/mp4"},
        {".webm", "video/webm"},
    };
    const char *ext = path_ext(name);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (str_ieq(table[i].ext, ext)) return table[i].type;
    return "application/octet-stream";
}

/* ---- sending ---- */

static void read_next(transfer *t);

static void on_file_closed(uv_fs_t *fs) {
    transfer *t = fs->data;
    uv_fs_req_cleanup(fs);
    free(t);
}

static void transfer_end(transfer *t) {
    t->req = NULL;
    if (t->busy) return; /* its callback comes back here */
    if (t->fd < 0)
        free(t);
    else if (uv_fs_close(t->loop, &t->fs, t->fd, on_file_closed) != 0)
        free(t);
}

static void on_gone(void *ctx, http_req *req) {
    (void)req;
    transfer_end(ctx);
}

static void give_up(transfer *t) {
    if (t->req) http_reply_abort(t->req);
    transfer_end(t);
}

static void on_drain(void *ctx, http_req *req) {
    (void)req;
    read_next(ctx);
}

static void on_read(uv_fs_t *fs) {
    transfer *t = fs->data;
    ssize_t n = fs->result;
    uv_fs_req_cleanup(fs);
    t->busy = false;
    if (!t->req || n <= 0) { /* gone; or the file became shorter: the client must see that the answer is not whole */
        give_up(t);
        return;
    }
    t->offset += (uint64_t)n;
    t->left -= (uint64_t)n;
    bool more = http_reply_write(t->req, t->chunk, (size_t)n);
    if (!more && t->left)
        http_req_on_drain(t->req, on_drain, t);
    else
        read_next(t);
}

static void read_next(transfer *t) {
    if (!t->left) {
        http_reply_end(t->req);
        transfer_end(t);
        return;
    }
    uv_buf_t b = uv_buf_init(t->chunk, (unsigned)(t->left < CHUNK ? t->left : CHUNK));
    t->busy = uv_fs_read(t->loop, &t->fs, t->fd, &b, 1, (int64_t)t->offset, on_read) == 0;
    if (!t->busy) give_up(t);
}

static void on_open(uv_fs_t *fs) {
    transfer *t = fs->data;
    int fd = (int)fs->result;
    uv_fs_req_cleanup(fs);
    t->busy = false;
    t->fd = fd;
    if (t->req && fd < 0) {
        http_reply_error(t->req, fd == UV_ENOENT ? 404 : 500, NULL, NULL, "cannot read the file: %s", uv_strerror(fd));
        t->req = NULL;
    }
    if (!t->req) {
        transfer_end(t);
        return;
    }
    http_reply_begin_length(t->req, t->status, t->type, t->left);
    read_next(t);
}

static void send_file(http_req *req, const char *path, int status, uint64_t offset, uint64_t len) {
    const char *type = http_file_type(path);
    if (http_req_is_head(req) || !len) {
        http_reply_begin_length(req, status, type, len);
        http_reply_end(req);
        return;
    }
    transfer *t = mem_alloc(1, sizeof *t);
    t->req = req;
    t->loop = http_req_loop(req);
    t->fs.data = t;
    t->fd = -1;
    t->status = status;
    t->type = type;
    t->offset = offset;
    t->left = len;
    http_req_on_close(req, on_gone, t);
    t->busy = uv_fs_open(t->loop, &t->fs, path, UV_FS_O_RDONLY, 0, on_open) == 0;
    if (!t->busy) give_up(t);
}

/* ---- deciding ---- */

/* "*", or a list with this tag; a weak tag matches too (RFC 9110, 13.1.2). */
static bool has_etag(const char *list, const char *etag) {
    if (str_eq(list, "*")) return true;
    size_t n = strlen(etag);
    for (const char *at = list; (at = strstr(at, etag)) != NULL; at++) {
        const char *rest = at + n + strspn(at + n, " \t");
        if (*rest == ',' || !*rest) return true;
    }
    return false;
}

static bool is_unchanged(const http_req *req, const file_facts *f) {
    const char *tags = http_req_header(req, "If-None-Match");
    if (tags) return has_etag(tags, f->etag);
    return str_eq(http_req_header(req, "If-Modified-Since"), f->modified);
}

/* Digits, if there are any; a number beyond 64 bits is as good as the largest. */
static bool read_digits(const char **at, uint64_t *out) {
    size_t n = strspn(*at, "0123456789");
    if (!n) return false;
    char *digits = str_ndup(*at, n);
    if (!str_to_u64(digits, out)) *out = UINT64_MAX;
    free(digits);
    *at += n;
    return true;
}

typedef enum range_result { RANGE_NONE, RANGE_OK, RANGE_OUTSIDE } range_result;

/* "bytes=2-5", "bytes=2-", "bytes=-5". Anything else is no range: the whole file. */
static range_result read_range(const char *value, uint64_t size, uint64_t *first, uint64_t *last) {
    if (!value || !str_starts(value, "bytes=")) return RANGE_NONE;
    const char *at = value + strlen("bytes=");
    uint64_t a = 0, b = UINT64_MAX;
    bool has_a = read_digits(&at, &a);
    if (*at++ != '-') return RANGE_NONE;
    bool has_b = read_digits(&at, &b);
    if (*at || (!has_a && !has_b) || (has_a && has_b && b < a)) return RANGE_NONE;
    if (!has_a) { /* the last b bytes */
        a = b < size ? size - b : 0;
        if (!b) a = size;
        b = UINT64_MAX;
    }
    if (a >= size) return RANGE_OUTSIDE;
    *first = a;
    *last = b < size ? b : size - 1;
    return RANGE_OK;
}

static range_result wanted_range(const http_req *req, const file_facts *f, uint64_t *first, uint64_t *last) {
    const char *only_if = http_req_header(req, "If-Range");
    if (only_if && !str_eq(only_if, f->etag) && !str_eq(only_if, f->modified)) return RANGE_NONE;
    return read_range(http_req_header(req, "Range"), f->size, first, last);
}

static void add_content_range(http_req *req, const char *range, uint64_t size) {
    char *value = str_fmt("bytes %s/%llu", range, (unsigned long long)size);
    http_header_add(req, "Content-Range", value);
    free(value);
}

static void answer(http_req *req, const char *path, const file_facts *f, const http_file_opts *opts) {
    http_header_add(req, "ETag", f->etag);
    http_header_add(req, "Last-Modified", f->modified);
    http_header_add(req, "Cache-Control", opts->cache_control ? opts->cache_control : "no-cache");
    if (is_unchanged(req, f)) {
        http_reply(req, 304, NULL, NULL, 0);
        return;
    }
    http_header_add(req, "Accept-Ranges", "bytes");
    if (opts->disposition) http_header_add(req, "Content-Disposition", opts->disposition);
    uint64_t first = 0, last = 0;
    range_result range = wanted_range(req, f, &first, &last);
    if (range == RANGE_OUTSIDE) {
        add_content_range(req, "*", f->size);
        http_reply_error(req, 416, NULL, NULL, "the range is outside of the file");
    } else if (range == RANGE_OK) {
        char *text = str_fmt("%llu-%llu", (unsigned long long)first, (unsigned long long)last);
        add_content_range(req, text, f->size);
        free(text);
        send_file(req, path, 206, first, last - first + 1);
    } else {
        send_file(req, path, 200, 0, f->size);
    }
}

/* The path of a regular file below root, to be freed, or NULL. */
static char *find_file(const char *root, const char *name, file_facts *f) {
    char *path = path_resolve_below(root, name, NULL);
    if (!path) return NULL;
    uv_fs_t fs;
    int rc = uv_fs_stat(NULL, &fs, path, NULL);
    uv_stat_t st = fs.statbuf;
    uv_fs_req_cleanup(&fs);
    if (rc != 0 || (st.st_mode & S_IFMT) != S_IFREG) {
        free(path);
        return NULL;
    }
    f->size = st.st_size;
    int64_t seconds = (int64_t)st.st_mtim.tv_sec;
    snprintf(f->etag, sizeof f->etag, "\"%llx-%llx\"", (unsigned long long)st.st_size,
             (unsigned long long)seconds * 1000000000ull + (unsigned long long)st.st_mtim.tv_nsec);
    clock_format_http(seconds * 1000, f->modified);
    return path;
}

void http_file_serve(http_req *req, const char *root, const char *name, const http_file_opts *opts) {
    static const http_file_opts defaults;
    if (!opts) opts = &defaults;
    if (!*name) name = "index.html";
    file_facts f = {0};
    char *path = find_file(root, name, &f);
    if (!path && opts->fallback && !*path_ext(name)) path = find_file(root, opts->fallback, &f);
    if (path)
        answer(req, path, &f, opts);
    else
        http_reply_error(req, 404, NULL, NULL, "no such file: %s", name);
    free(path);
}
