/* models.c - see models.h.
 *
 * A scan is a list of folders still to be read. It goes to the disk thread for a slice of work, comes back, and goes
 * again, so that jobs and history are never kept waiting for more than one file's header. The list that answers come
 * from is replaced at the end, on the loop. */
#include "server/models.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/path.h"
#include "base/str.h"
#include "diffusion/load/model_kind.h"
#include "json/json.h"
#include "server/demo.h"

#include <stdlib.h>
#include <string.h>

enum {
    DEPTH_MAX = 8,
    FOLDERS_MAX = 4096,
    FILES_MAX = 20000,
    SLICE_MS = 20,
    DEBOUNCE_MS = 1500, /* a file that is being copied changes all the time */
};

typedef struct entry_list {
    model_entry *at;
    size_t count;
} entry_list;

typedef struct folder {
    char *path, *id; /* absolute; below the root, "" for the root itself */
    int depth;
} folder;

typedef struct scan {
    struct models *m;
    folder *todo;
    size_t todo_count, todo_next; /* folders before todo_next are done: they also tell which were seen */
    char **real;                  /* their paths with links resolved, against loops */
    entry_list found;
    char **files; /* of the folder under way: names, absolute paths in `path` */
    size_t file_count, file_next;
    bool full, over;
} scan;

typedef struct listener {
    models_done done;
    void *ctx;
    struct listener *next;
} listener;

struct models {
    uv_loop_t *loop;
    db *db;
    char *dir;
    models_config config;
    entry_list list;  /* sorted by id */
    entry_list extra; /* outside of the folder */
    scan *scan;       /* under way, or NULL */
    bool scanned;     /* once at least */
    listener *current, *after;
    bool again; /* somebody asked while a scan was under way */
    bool closing;
    uv_fs_event_t *watch;
    uv_timer_t *debounce;
};

/* ---- entries ---------------------------------------------------------------------------------------------------- */

static const char *const type_names[] = {
    [MODEL_UNKNOWN] = "unknown",
    [MODEL_CHECKPOINT] = "image",
    [MODEL_DIFFUSION] = "diffusion_model",
    [MODEL_VAE] = "vae",
    [MODEL_TAESD] = "vae",
    [MODEL_LORA] = "lora",
    [MODEL_LLM] = "llm",
    [MODEL_TEXT_ENCODER] = "text_encoder",
    [MODEL_CONTROLNET] = "controlnet",
    [MODEL_UPSCALER] = "upscaler",
    [MODEL_EMBEDDING] = "embedding",
    [MODEL_IP_ADAPTER] = "ip_adapter",
    [MODEL_CLIP_VISION] = "clip_vision",
};
enum { TYPE_COUNT = sizeof type_names / sizeof *type_names };

static const char *static_type(const char *name) {
    for (size_t i = 0; i < TYPE_COUNT; i++)
        if (str_eq(type_names[i], name)) return type_names[i];
    return type_names[MODEL_UNKNOWN];
}

static void entry_free(model_entry *e) {
    free(e->id);
    free(e->path);
    free(e->family);
    free(e->quantization);
    free(e->title);
    free(e->alias);
    free(e->examples);
    free(e->reason);
}

static void entries_free(entry_list *l) {
    for (size_t i = 0; i < l->count; i++) entry_free(&l->at[i]);
    free(l->at);
    *l = (entry_list){0};
}

/* Takes over the entry's strings. */
static void entries_add(entry_list *l, const model_entry *e) {
    if ((l->count & (l->count - 1)) == 0) l->at = mem_resize(l->at, (l->count ? l->count * 2 : 1) * sizeof *l->at);
    l->at[l->count++] = *e;
}

static int by_id(const void *a, const void *b) {
    return strcmp(((const model_entry *)a)->id, ((const model_entry *)b)->id);
}

static void entries_sort(entry_list *l) {
    if (l->count) qsort(l->at, l->count, sizeof *l->at, by_id);
}

static bool entry_same(const model_entry *a, const model_entry *b) {
    return str_eq(a->id, b->id) && str_eq(a->type, b->type) && str_eq(a->family, b->family) &&
           str_eq(a->quantization, b->quantization) && str_eq(a->title, b->title) && str_eq(a->alias, b->alias) &&
           str_eq(a->examples, b->examples) && a->width == b->width && a->height == b->height && a->size == b->size &&
           a->mtime_ms == b->mtime_ms && a->supported == b->supported && str_eq(a->reason, b->reason);
}

static bool entries_same(const entry_list *a, const entry_list *b) {
    bool same = a->count == b->count;
    for (size_t i = 0; same && i < a->count; i++) same = entry_same(&a->at[i], &b->at[i]);
    return same;
}

/* ---- what is in a file ------------------------------------------------------------------------------------------ */

static char *text_or_null(const char *s) {
    return str_empty(s) ? NULL : str_dup(s);
}

/* The result is the size of all its tensors. */
static int64_t describe(model_entry *e) {
    model_desc d = {0};
    err why = {0};
    if (!model_describe_path(e->path, &d, &why)) {
        e->type = type_names[MODEL_UNKNOWN];
        e->reason = str_dup(why.msg);
        return 0;
    }
    e->type = type_names[d.kind];
    e->family = text_or_null(d.family);
    e->quantization = text_or_null(tensor_type_name(d.weight_type));
    e->title = text_or_null(d.name);
    e->alias = text_or_null(d.alias);
    e->examples = text_or_null(d.examples);
    e->width = d.width;
    e->height = d.height;
    e->supported = d.supported;
    e->reason = d.supported ? NULL : text_or_null(d.reason);
    return d.bytes;
}

#define DESCRIPTION "type, family, quantization, supported, reason, title, alias, examples, width, height"

/* The columns DESCRIPTION of a query, from column `i` on. */
static void fill_from_row(model_entry *e, sqlite3_stmt *s, int i) {
    e->type = static_type(db_text(s, i));
    e->family = str_dup(db_text(s, i + 1));
    e->quantization = str_dup(db_text(s, i + 2));
    e->supported = db_int(s, i + 3) != 0;
    e->reason = str_dup(db_text(s, i + 4));
    e->title = str_dup(db_text(s, i + 5));
    e->alias = str_dup(db_text(s, i + 6));
    e->examples = str_dup(db_text(s, i + 7));
    e->width = (int)db_int(s, i + 8);
    e->height = (int)db_int(s, i + 9);
}

static bool lookup(db_conn *c, model_entry *e) {
    err why = {0};
    sqlite3_stmt *s = db_query(c, &why,
                               "SELECT " DESCRIPTION " FROM models"
                               " WHERE path = ? AND size = ? AND mtime_ms = ? AND reader = ?",
                               "siii", e->path, e->size, e->mtime_ms, (int64_t)MODEL_READER);
    if (!s || !db_next(c, s, &why)) return false;
    fill_from_row(e, s, 0);
    db_end(s);
    return true;
}

/* A file that changed while it was looked at is looked at again next time: its row would have the wrong stamp. */
static void remember(db_conn *c, const model_entry *e) {
    file_info now;
    if (!file_stat(e->path, &now, NULL) || now.size != e->size || now.mtime_ms != e->mtime_ms) return;
    db_exec(c, NULL,
            "INSERT OR REPLACE INTO models (path, size, mtime_ms, " DESCRIPTION
            ", reader) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            "siisssissssiii", e->path, e->size, e->mtime_ms, e->type, e->family, e->quantization, (int64_t)e->supported,
            e->reason, e->title, e->alias, e->examples, (int64_t)e->width, (int64_t)e->height, (int64_t)MODEL_READER);
}

/* ---- walking (disk thread) -------------------------------------------------------------------------------------- */

bool models_is_file_name(const char *name) {
    static const char *const ENDINGS[] = {".safetensors", ".gguf", ".ckpt", ".pt", ".pth"};
    for (size_t i = 0; i < sizeof ENDINGS / sizeof *ENDINGS; i++)
        if (str_iends(name, ENDINGS[i])) return true;
    return false;
}

/* PyTorch's other ending says too little: it is taken for an embedding's, below a folder of that name. */
static bool is_embedding_name(const char *id) {
    const char *below = strstr(id, "embeddings/");
    return below && (below == id || below[-1] == '/') && str_iends(id, ".bin");
}

static bool was_seen(const scan *s, const char *real) {
    for (size_t i = 0; i < s->todo_count; i++)
        if (str_eq(s->real[i], real)) return true;
    return false;
}

static void push_folder(scan *s, const char *path, const char *id, int depth) {
    char *real = path_absolute(path, NULL);
    if (!real || depth > DEPTH_MAX || s->todo_count == FOLDERS_MAX || was_seen(s, real)) {
        s->full |= depth > DEPTH_MAX || s->todo_count == FOLDERS_MAX;
        free(real);
        return;
    }
    size_t n = s->todo_count++;
    s->todo = mem_resize(s->todo, s->todo_count * sizeof *s->todo);
    s->real = mem_resize(s->real, s->todo_count * sizeof *s->real);
    s->todo[n] = (folder){str_dup(path), str_dup(id), depth};
    s->real[n] = real;
}

static char *join_id(const char *parent, const char *name) {
    return parent[0] ? str_fmt("%s/%s", parent, name) : str_dup(name);
}

static bool collect_name(void *ctx, const char *name) {
    scan *s = ctx;
    if (name[0] == '.' || !str_is_utf8(name, strlen(name))) return true;
    s->files = mem_resize(s->files, (s->file_count + 1) * sizeof *s->files);
    s->files[s->file_count++] = str_dup(name);
    return s->file_count < FILES_MAX;
}

static void add_file(scan *s, db_conn *c, const char *path, const char *id, const file_info *info) {
    model_entry e = {.id = str_dup(id), .path = str_dup(path), .size = info->size, .mtime_ms = info->mtime_ms};
    if (!lookup(c, &e)) {
        describe(&e);
        remember(c, &e);
    }
    entries_add(&s->found, &e);
}

/* Many files, of which the folder's date tells nothing: described every time. */
static void add_diffusers(scan *s, const char *path, const char *id, const file_info *info) {
    model_entry e = {.id = str_dup(id), .path = str_dup(path), .mtime_ms = info->mtime_ms};
    e.size = describe(&e);
    entries_add(&s->found, &e);
}

static void visit(scan *s, db_conn *c, const folder *in, const char *name) {
    char *path = path_join(in->path, name), *id = join_id(in->id, name);
    file_info info;
    if (file_stat(path, &info, NULL)) { /* a dangling link is nothing */
        if (s->found.count == FILES_MAX)
            s->full = true;
        else if (info.is_dir && model_is_diffusers_dir(path))
            add_diffusers(s, path, id, &info);
        else if (info.is_dir)
            push_folder(s, path, id, in->depth + 1);
        else if (models_is_file_name(name) || is_embedding_name(id))
            add_file(s, c, path, id, &info);
    }
    free(path);
    free(id);
}

static void free_names(scan *s) {
    for (size_t i = 0; i < s->file_count; i++) free(s->files[i]);
    free(s->files);
    s->files = NULL;
    s->file_count = s->file_next = 0;
}

/* One name, or the next folder's list of names. False when all is done. */
static bool step(scan *s, db_conn *c) {
    if (s->file_next < s->file_count) {
        folder in = s->todo[s->todo_next - 1]; /* a copy: visit() may move the array */
        visit(s, c, &in, s->files[s->file_next++]);
        return true;
    }
    free_names(s);
    if (s->todo_next == s->todo_count) return false;
    const folder *next = &s->todo[s->todo_next++];
    err why = {0};
    if (!file_list_dir(next->path, collect_name, s, &why)) log_warn("models", "%s", why.msg);
    return true;
}

static bool is_listed(const entry_list *sorted, const char *id) {
    model_entry key = {.id = (char *)(uintptr_t)id};
    return sorted->count && bsearch(&key, sorted->at, sorted->count, sizeof key, by_id);
}

/* Rows of files that are gone; `found` is sorted. */
static void forget_missing(scan *s, db_conn *c) {
    size_t root = strlen(s->m->dir) + 1, count = 0;
    char **gone = NULL;
    sqlite3_stmt *q = db_query(c, NULL, "SELECT path FROM models WHERE substr(path, 1, ?) = ? || '/'", "is",
                               (int64_t)root, s->m->dir);
    err why = {0};
    while (q && db_next(c, q, &why)) {
        if (is_listed(&s->found, db_text(q, 0) + root)) continue;
        gone = mem_resize(gone, (count + 1) * sizeof *gone);
        gone[count++] = str_dup(db_text(q, 0));
    }
    for (size_t i = 0; i < count; i++) {
        db_exec(c, NULL, "DELETE FROM models WHERE path = ?", "s", gone[i]);
        free(gone[i]);
    }
    free(gone);
}

static void do_slice(db_conn *c, void *arg) {
    scan *s = arg;
    int64_t until = clock_mono_ms() + SLICE_MS;
    bool more = true, saving = db_begin(c, NULL); /* without: every file is opened again next time, no more */
    while (more && clock_mono_ms() < until) more = step(s, c);
    if (!more) {
        entries_sort(&s->found);
        if (!s->full) forget_missing(s, c);
        s->over = true;
    }
    if (saving) db_commit(c, NULL);
}

/* ---- the loop's side -------------------------------------------------------------------------------------------- */

static void scan_free(scan *s) {
    for (size_t i = 0; i < s->todo_count; i++) {
        free(s->todo[i].path);
        free(s->todo[i].id);
        free(s->real[i]);
    }
    free(s->todo);
    free(s->real);
    free_names(s);
    entries_free(&s->found);
    free(s);
}

static void begin_scan(models *m);

static void models_free(models *m) {
    entries_free(&m->list);
    entries_free(&m->extra);
    free(m->dir);
    free(m);
}

static void run_listeners(listener *l) {
    while (l) {
        listener *next = l->next;
        if (l->done) l->done(l->ctx);
        free(l);
        l = next;
    }
}

static void end_scan(models *m, scan *s) {
    m->scanned = true;
    bool changed = s->over && !entries_same(&m->list, &s->found);
    if (changed) {
        entry_list old = m->list;
        m->list = s->found;
        s->found = (entry_list){0};
        entries_free(&old);
        log_info("models", "%zu model files in '%s'%s", m->list.count, m->dir,
                 s->full ? "; there are more than are looked at" : "");
    }
    scan_free(s);
    m->scan = NULL;
    listener *heard = m->current;
    m->current = m->after;
    m->after = NULL;
    bool again = m->again && !m->closing;
    m->again = false;
    if (again) begin_scan(m);
    if (changed && !m->closing && m->config.changed) m->config.changed(m->config.ctx);
    run_listeners(heard);
}

static void sliced(void *arg) {
    scan *s = arg;
    models *m = s->m;
    if (!s->over && !m->closing) {
        db_submit(m->db, do_slice, sliced, s);
        return;
    }
    end_scan(m, s);
    if (!m->closing) return;
    run_listeners(m->current); /* those whose scan will not come */
    models_free(m);
}

static void begin_scan(models *m) {
    scan *s = mem_alloc(1, sizeof *s);
    s->m = m;
    m->scan = s;
    push_folder(s, m->dir, "", 0);
    db_submit(m->db, do_slice, sliced, s);
}

void models_refresh(models *m, models_done done, void *ctx) {
    listener *l = mem_alloc(1, sizeof *l);
    *l = (listener){.done = done, .ctx = ctx};
    listener **list = m->scan ? &m->after : &m->current;
    l->next = *list;
    *list = l;
    if (m->scan)
        m->again = true; /* the one under way may have passed the place that changed */
    else
        begin_scan(m);
}

bool models_scanned(const models *m) {
    return m->scanned;
}

/* ---- opening and closing ---------------------------------------------------------------------------------------- */

static void do_load(db_conn *c, void *arg) {
    models *m = arg;
    size_t root = strlen(m->dir) + 1;
    err why = {0};
    sqlite3_stmt *s = db_query(c, &why,
                               "SELECT path, size, mtime_ms, " DESCRIPTION " FROM models"
                               " WHERE substr(path, 1, ?) = ? || '/'",
                               "is", (int64_t)root, m->dir);
    while (s && db_next(c, s, &why)) {
        model_entry e = {.path = str_dup(db_text(s, 0)), .size = db_int(s, 1), .mtime_ms = db_int(s, 2)};
        e.id = str_dup(e.path + root);
        fill_from_row(&e, s, 3);
        entries_add(&m->list, &e);
    }
    entries_sort(&m->list);
    if (why.code) log_warn("models", "the index of the last run is lost: %s", why.msg);
}

static void on_due(uv_timer_t *t) {
    models_refresh(t->data, NULL, NULL);
}

static void on_folder_event(uv_fs_event_t *w, const char *name, int what, int status) {
    (void)name;
    (void)what;
    models *m = w->data;
    if (status == 0) uv_timer_start(m->debounce, on_due, DEBOUNCE_MS, 0);
}

/* Best effort: subfolders are not watched everywhere, and a network drive tells nothing. */
static void watch(models *m) {
    m->watch = mem_alloc(1, sizeof *m->watch);
    m->debounce = mem_alloc(1, sizeof *m->debounce);
    uv_timer_init(m->loop, m->debounce);
    uv_fs_event_init(m->loop, m->watch);
    m->watch->data = m->debounce->data = m;
    if (uv_fs_event_start(m->watch, on_folder_event, m->dir, UV_FS_EVENT_RECURSIVE) != 0)
        log_debug("models", "'%s' cannot be watched", m->dir);
    uv_unref((uv_handle_t *)m->watch);
    uv_unref((uv_handle_t *)m->debounce);
}

models *models_open(const models_config *config, err *e) {
    models *m = mem_alloc(1, sizeof *m);
    *m = (models){.loop = config->loop, .db = config->db, .dir = str_dup(config->dir), .config = *config};
    m->config.dir = m->dir;
    db_run(m->db, do_load, m);
    watch(m);
    begin_scan(m);
    (void)e; /* an unreadable folder is a list without entries */
    return m;
}

static void free_handle(uv_handle_t *h) {
    free(h);
}

void models_close(models *m) {
    if (!m) return;
    m->closing = true;
    uv_close((uv_handle_t *)m->watch, free_handle);
    uv_close((uv_handle_t *)m->debounce, free_handle);
    if (!m->scan) models_free(m); /* else behind the slice that is under way */
}

/* ---- asking ----------------------------------------------------------------------------------------------------- */

size_t models_count(const models *m) {
    return m->list.count + m->extra.count;
}

const model_entry *models_at(const models *m, size_t i) {
    return i < m->list.count ? &m->list.at[i] : &m->extra.at[i - m->list.count];
}

void models_add(models *m, const char *path) {
    file_info info = {0};
    if (!file_stat(path, &info, NULL)) return;
    model_entry e = {.id = str_dup(path), .path = str_dup(path), .size = info.size, .mtime_ms = info.mtime_ms};
    int64_t bytes = describe(&e);
    if (info.is_dir) e.size = bytes;
    entries_add(&m->extra, &e);
}

typedef bool (*fits_fn)(const model_entry *e, const char *name);

static bool fits_id(const model_entry *e, const char *name) {
    return str_eq(e->id, name) || str_eq(e->path, name);
}

static bool fits_file(const model_entry *e, const char *name) {
    return str_eq(path_base(e->id), name);
}

static bool fits_stem(const model_entry *e, const char *name) {
    char *stem = path_stem(e->id);
    bool fits = str_eq(stem, name);
    free(stem);
    return fits;
}

/* type: NULL for any, here and below. */
static const model_entry *not_found(const models *m, const char *type, const char *name, err *e) {
    const char **ids = mem_alloc(models_count(m), sizeof *ids);
    size_t count = 0;
    for (size_t i = 0; i < models_count(m); i++)
        if (!type || str_eq(models_at(m, i)->type, type)) ids[count++] = models_at(m, i)->id;
    const char *near = str_nearest(name, ids, count);
    err_set(e, ERR_NOT_FOUND, "there is no model '%.80s'%s%.80s%s", name, near ? "; did you mean '" : "",
            near ? near : "", near ? "'?" : "");
    free(ids);
    return NULL;
}

static const model_entry *find_among(const models *m, const char *type, const char *name, err *e) {
    static const fits_fn ways[] = {fits_id, fits_file, fits_stem};
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
        const model_entry *found = NULL;
        for (size_t i = 0; i < models_count(m); i++) {
            if ((type && !str_eq(models_at(m, i)->type, type)) || !ways[w](models_at(m, i), name)) continue;
            if (found) {
                err_set(e, ERR_CONFLICT, "'%.60s' may be '%.60s' or '%.60s'", name, found->id, models_at(m, i)->id);
                return NULL;
            }
            found = models_at(m, i);
        }
        if (found) return found;
    }
    return not_found(m, type, name, e);
}

const model_entry *models_find(const models *m, const char *name, err *e) {
    return find_among(m, NULL, name, e);
}

bool models_check(const model_entry *entry, bool fits, const char *what, err *e) {
    const bool is_unread = str_eq(entry->type, type_names[MODEL_UNKNOWN]) && entry->reason;
    if (!fits && !is_unread)
        return err_set(e, ERR_UNSUPPORTED, "'%.80s' is not %s but of type %s", entry->id, what, entry->type);
    if (entry->supported) return true;
    const char *slash = strrchr(entry->id, '/'), *name = slash ? slash + 1 : entry->id;
    const char *reason = entry->reason ? entry->reason : "not supported";
    if (strstr(reason, name)) return err_set(e, ERR_UNSUPPORTED, "%s", reason); /* it says of which file */
    return err_set(e, ERR_UNSUPPORTED, "'%.80s': %s", entry->id, reason);
}

const model_entry *models_find_of(const models *m, const char *type, const char *name, err *e) {
    return find_among(m, type, name, e);
}

/* ---- JSON ------------------------------------------------------------------------------------------------------- */

static void write_side(buf *out, const char *key, int side) {
    if (side)
        buf_printf(out, ",\"%s\":%d", key, side);
    else
        json_write_member(out, key, NULL);
}

static void write_lines(buf *out, const char *key, const char *lines) {
    buf_printf(out, ",\"%s\":[", key);
    for (const char *at = lines ? lines : ""; *at;) {
        size_t len = strcspn(at, "\n");
        char *line = str_ndup(at, len);
        if (at != lines) buf_putc(out, ',');
        json_quote(out, line);
        free(line);
        at += len + (at[len] != 0);
    }
    buf_putc(out, ']');
}

void models_write_one(const models *m, const model_entry *e, buf *out) {
    bool active = false, loaded = false;
    if (m->config.state) m->config.state(m->config.ctx, e, &active, &loaded);
    buf_puts(out, "{\"id\":");
    json_quote(out, e->id);
    buf_printf(out, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"local\",\"type\":\"%s\"",
               (long long)(e->mtime_ms / 1000), e->type);
    json_write_member(out, "family", e->family);
    json_write_member(out, "quantization", e->quantization);
    json_write_member(out, "title", e->title);
    json_write_member(out, "alias", e->alias);
    write_side(out, "width", e->width);
    write_side(out, "height", e->height);
    write_lines(out, "examples", e->examples);
    buf_printf(out, ",\"demo\":%s,\"size\":%lld", demo_is(e->id) ? "true" : "false", (long long)e->size);
    json_write_member(out, "path", e->id);
    buf_printf(out, ",\"supported\":%s", e->supported ? "true" : "false");
    json_write_member(out, "reason", e->reason);
    buf_printf(out, ",\"active\":%s,\"loaded\":%s}", active ? "true" : "false", loaded ? "true" : "false");
}

void models_write_list(const models *m, buf *out) {
    buf_puts(out, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < models_count(m); i++) {
        if (i) buf_putc(out, ',');
        models_write_one(m, models_at(m, i), out);
    }
    buf_puts(out, "]}");
}
