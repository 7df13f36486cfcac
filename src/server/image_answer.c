/* image_answer.c - see image_answer.h. */
#include "server/image_answer.h"
#include "base/base64.h"
#include "base/path.h"
#include "base/str.h"
#include "json/json.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PIECE = 48 * 1024 };

typedef struct answer_item {
    char *file;
    int64_t seed;
} answer_item;

typedef struct answer {
    http_req *req;           /* NULL: the client went away */
    char *output_dir, *tail; /* tail: what follows the list */
    answer_item *items;
    size_t count, at;
    uv_fs_t fs;
    uv_file fd; /* -1: none open */
    int64_t offset;
    char *piece;
} answer;

static void next_item(answer *a);
static void read_piece(answer *a);

static void answer_free(answer *a) {
    for (size_t i = 0; i < a->count; i++) free(a->items[i].file);
    free(a->items);
    free(a->output_dir);
    free(a->tail);
    free(a->piece);
    free(a);
}

static void close_file(answer *a, uv_loop_t *loop) {
    uv_fs_t close; /* without a callback: at once; closing what was only read does not wait for a disk */
    if (a->fd >= 0) uv_fs_close(loop, &close, a->fd, NULL);
    a->fd = -1;
}

/* Called when no read is under way. */
static void give_up(answer *a, uv_loop_t *loop) {
    close_file(a, loop);
    if (a->req && http_reply_begun(a->req))
        http_reply_abort(a->req); /* 200 is out: a cut connection is the only honest ending */
    else if (a->req)
        http_reply_error(a->req, 500, "io", NULL, "the picture '%s' cannot be read any more", a->items[a->at].file);
    answer_free(a);
}

/* on_close: the request is gone. A read under way finds req NULL; otherwise the answer waits for on_drain. */
static void on_gone(void *ctx, http_req *req) {
    answer *a = ctx;
    a->req = NULL;
    if (a->fs.data) return;
    close_file(a, http_req_loop(req));
    answer_free(a);
}

static bool write_text(answer *a, const buf *text) {
    return http_reply_write(a->req, buf_str(text), text->len);
}

static void on_drain(void *ctx, http_req *req) {
    (void)req;
    read_piece(ctx);
}

static void end_item(answer *a) {
    buf text;
    buf_init(&text, 4096);
    buf_printf(&text, "\",\"seed\":%lld,\"file\":\"%s\"}", (long long)a->items[a->at].seed, a->items[a->at].file);
    write_text(a, &text);
    buf_free(&text);
    a->at++;
    next_item(a);
}

static void on_read(uv_fs_t *fs) {
    answer *a = fs->data;
    uv_loop_t *loop = fs->loop;
    ssize_t n = fs->result;
    uv_fs_req_cleanup(fs);
    a->fs.data = NULL;
    if (!a->req || n < 0) {
        give_up(a, loop);
        return;
    }
    if (n == 0) {
        close_file(a, loop);
        end_item(a);
        return;
    }
    if (n > 2) n -= n % 3; /* what is left comes with the next read: only the end of the file is padded */
    buf text;
    buf_init(&text, PIECE * 2);
    base64_encode(&text, a->piece, (size_t)n);
    a->offset += n;
    bool room = write_text(a, &text);
    buf_free(&text);
    if (room)
        read_piece(a);
    else
        http_req_on_drain(a->req, on_drain, a);
}

static void read_piece(answer *a) {
    uv_loop_t *loop = http_req_loop(a->req);
    uv_buf_t into = uv_buf_init(a->piece, PIECE);
    a->fs.data = a;
    if (uv_fs_read(loop, &a->fs, a->fd, &into, 1, a->offset, on_read) == 0) return;
    a->fs.data = NULL;
    give_up(a, loop);
}

static void on_open(uv_fs_t *fs) {
    answer *a = fs->data;
    uv_loop_t *loop = fs->loop;
    a->fd = (uv_file)fs->result;
    uv_fs_req_cleanup(fs);
    a->fs.data = NULL;
    if (!a->req || a->fd < 0) {
        give_up(a, loop);
        return;
    }
    buf text;
    buf_init(&text, 4096);
    if (!http_reply_begun(a->req)) {
        http_reply_begin(a->req, 200, "application/json");
        buf_printf(&text, "{\"created\":%lld,\"data\":[", (long long)time(NULL));
    } else {
        buf_putc(&text, ',');
    }
    buf_puts(&text, "{\"b64_json\":\"");
    write_text(a, &text);
    buf_free(&text);
    a->offset = 0;
    read_piece(a);
}

static void next_item(answer *a) {
    if (a->at == a->count) {
        http_reply_write(a->req, a->tail, strlen(a->tail));
        http_reply_end(a->req);
        answer_free(a);
        return;
    }
    uv_loop_t *loop = http_req_loop(a->req);
    char *path = path_join(a->output_dir, a->items[a->at].file);
    a->fs.data = a;
    if (uv_fs_open(loop, &a->fs, path, UV_FS_O_RDONLY, 0, on_open) != 0) {
        a->fs.data = NULL;
        give_up(a, loop);
    }
    free(path);
}

static void write_tail(const job *j, buf *out) {
    buf_puts(out, "],\"parameters\":");
    image_params_write(&j->params, out);
    buf_printf(out, ",\"job\":\"%s\"}", j->name);
}

static void answer_urls(http_req *req, const job *j) {
    buf out;
    buf_init(&out, 1024 * 1024);
    buf_printf(&out, "{\"created\":%lld,\"data\":[", (long long)time(NULL));
    for (size_t i = 0; i < j->result_count; i++)
        buf_printf(&out, "%s{\"url\":\"/outputs/%s\",\"seed\":%lld,\"file\":\"%s\"}", i ? "," : "", j->results[i].file,
                   (long long)j->results[i].seed, j->results[i].file);
    write_tail(j, &out);
    http_reply(req, 200, "application/json", buf_str(&out), out.len);
    buf_free(&out);
}

void image_answer_start(http_req *req, const char *output_dir, const job *j, bool as_url) {
    if (as_url || j->result_count == 0) {
        http_req_on_close(req, NULL, NULL);
        answer_urls(req, j);
        return;
    }
    answer *a = mem_alloc(1, sizeof *a);
    buf tail;
    buf_init(&tail, 1024 * 1024);
    write_tail(j, &tail);
    *a = (answer){.req = req,
                  .output_dir = str_dup(output_dir),
                  .tail = buf_take(&tail, NULL),
                  .items = mem_alloc(j->result_count, sizeof *a->items),
                  .count = j->result_count,
                  .fd = -1,
                  .piece = mem_alloc(PIECE, 1)};
    for (size_t i = 0; i < a->count; i++) a->items[i] = (answer_item){str_dup(j->results[i].file), j->results[i].seed};
    http_req_on_close(req, on_gone, a);
    next_item(a);
}
