/* inspect.c - POST /internal/inspect: what an untrusted picture says about itself.
 *
 * It runs on libuv's thread pool, beside the engine thread: a user who drops a picture on the page does not wait for
 * the picture being made. Nothing is shared with the engine. */
#include "base/file.h"
#include "base/str.h"
#include "diffusion/image/codecs.h"
#include "diffusion/image/metadata.h"
#include "sd/service.h"

#include <stdlib.h>

enum { FILE_MAX_BYTES = 64 << 20, TEXT_MAX_BYTES = 1 << 20 };

typedef struct inspection {
    uv_work_t work;
    http_req *req; /* NULL once the client is gone */
    char *path;
    buf answer;
    err why;
    bool ok;
} inspection;

static bool inspect_bytes(const buf *file, buf *out, err *e) {
    image img = {0};
    if (!image_decode(&img, file->data, file->len, IMAGE_ALPHA_KEEP, NULL, e)) return false;
    buf_printf(out, "{\"width\":%d,\"height\":%d,\"parameters\":", img.width, img.height);
    image_free(&img);
    buf text;
    buf_init(&text, TEXT_MAX_BYTES);
    if (metadata_read(&text, file->data, file->len, NULL))
        json_quote(out, buf_str(&text));
    else
        buf_puts(out, "null");
    buf_putc(out, '}');
    buf_free(&text);
    return true;
}

static void work(uv_work_t *w) {
    inspection *i = w->data;
    buf file;
    buf_init(&file, FILE_MAX_BYTES);
    i->ok = file_read(i->path, &file, &i->why) && inspect_bytes(&file, &i->answer, &i->why);
    buf_free(&file);
}

static void after_work(uv_work_t *w, int status) {
    inspection *i = w->data;
    if (i->req) {
        http_req_on_close(i->req, NULL, NULL);
        if (status == 0 && i->ok)
            http_reply(i->req, 200, "application/json", buf_str(&i->answer), i->answer.len);
        else
            http_reply_err(i->req, status == 0 ? &i->why : &(err){.code = ERR_CANCELLED, .msg = "stopping"});
    }
    buf_free(&i->answer);
    free(i->path);
    free(i);
}

static void on_gone(void *ctx, http_req *req) {
    (void)req;
    inspection *i = ctx;
    i->req = NULL;
}

static bool read_path(http_req *req, char **out, err *e) {
    size_t len;
    const char *body = http_req_body(req, &len), *path = NULL;
    yyjson_doc *doc = json_parse(body, len, e);
    if (!doc) return false;
    json_in o = json_root(doc);
    bool ok = json_need_str(&o, "path", &path, e);
    if (ok) *out = str_dup(path);
    yyjson_doc_free(doc);
    return ok;
}

void sd_inspect(void *ctx, http_req *req) {
    (void)ctx;
    err e;
    char *path = NULL;
    if (!read_path(req, &path, &e)) {
        http_reply_err(req, &e);
        return;
    }
    inspection *i = mem_alloc(1, sizeof *i);
    i->work.data = i;
    i->req = req;
    i->path = path;
    buf_init(&i->answer, 8 * TEXT_MAX_BYTES);
    http_req_on_close(req, on_gone, i);
    uv_queue_work(http_req_loop(req), &i->work, work, after_work);
}
