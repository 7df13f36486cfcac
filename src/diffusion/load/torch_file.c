/* torch_file.c - see torch_file.h. Where the tensors' bytes are ("storages") differs between the two forms of file;
 * what the pickle says of tensors is the same. */
#include "diffusion/load/torch_file.h"
#include "base/str.h"
#include "diffusion/load/pickle.h"
#include "diffusion/load/zip.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH_MAX = 12, VISITS_MAX = 1 << 20, KEY_MAX = 200 };

/* Every older file begins with this pickle of a number. */
static const unsigned char OLD_MAGIC[15] = {0x80, 2,    0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46,
                                            0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, '.'};

/* One tensor's memory, of which others may be views, too. */
typedef struct storage {
    uint64_t offset, size; /* in the file */
} storage;

typedef struct reader {
    tensor_table *t;
    const tensor_input *in;
    zip archive;
    char *prefix;      /* of the archive's members; NULL: an older file */
    name_index by_key; /* of `storages` */
    storage *storages;
    char **keys;
    size_t storage_count;
    int visits;
    err *e;
} reader;

/* --- names that a pickle may mention --- */

typedef struct dtype {
    const char *storage, *name; /* NULL: none */
    tensor_type type;
} dtype;

static const dtype DTYPES[] = {
    {"torch.FloatStorage", "torch.float32", TENSOR_F32},
    {"torch.HalfStorage", "torch.float16", TENSOR_F16},
    {"torch.BFloat16Storage", "torch.bfloat16", TENSOR_BF16},
    {"torch.DoubleStorage", "torch.float64", TENSOR_F64},
    {"torch.LongStorage", "torch.int64", TENSOR_I64},
    {"torch.IntStorage", "torch.int32", TENSOR_I32},
    {"torch.ShortStorage", "torch.int16", TENSOR_I16},
    {"torch.CharStorage", "torch.int8", TENSOR_I8},
    {"torch.ByteStorage", "torch.uint8", TENSOR_U8},
    {"torch.BoolStorage", "torch.bool", TENSOR_BOOL},
    {NULL, "torch.uint16", TENSOR_U16},
    {NULL, "torch.uint32", TENSOR_U32},
    {NULL, "torch.uint64", TENSOR_U64},
    {NULL, "torch.float8_e4m3fn", TENSOR_F8_E4M3},
    {NULL, "torch.float8_e5m2", TENSOR_F8_E5M2},
};
enum { DTYPE_COUNT = sizeof DTYPES / sizeof *DTYPES };

static const char REBUILD[] = "torch._utils._rebuild_tensor_v2", REBUILD_V1[] = "torch._utils._rebuild_tensor",
                  REBUILD_V3[] = "torch._utils._rebuild_tensor_v3", PARAMETER[] = "torch._utils._rebuild_parameter",
                  PARAMETER_STATE[] = "torch._utils._rebuild_parameter_with_state",
                  FROM_TYPE[] = "torch._tensor._rebuild_from_type_v2",
                  PARAMETER_DICT[] = "torch.nn.modules.container.ParameterDict",
                  UNTYPED[] = "torch.storage.UntypedStorage";

/* Besides those above: what trainers leave in checkpoints beside the weights. They are names here, and nothing more. */
static const char *const INERT[] = {
    "collections.OrderedDict",
    "collections.defaultdict",
    "collections.Counter",
    "torch.Tensor",
    "torch.Size",
    "torch.device",
    "torch.nn.parameter.Parameter",
    "torch.float",
    "numpy.core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy.dtype",
    "numpy.ndarray",
    "_codecs.encode",
    "__builtin__.set",
    "builtins.set",
    "builtins.dict",
    "builtins.list",
    "builtins.int",
    "builtins.float",
    "__builtin__.dict",
    "__builtin__.list",
    "argparse.Namespace",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
    "pytorch_lightning.utilities.argparse.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
};

static const dtype *dtype_of(const char *name) {
    for (size_t i = 0; i < DTYPE_COUNT; i++)
        if (str_eq(name, DTYPES[i].storage) || str_eq(name, DTYPES[i].name)) return &DTYPES[i];
    return NULL;
}

static bool is_allowed(const char *name) {
    const char *const used[] = {REBUILD,         REBUILD_V1, REBUILD_V3,     PARAMETER,
                                PARAMETER_STATE, FROM_TYPE,  PARAMETER_DICT, UNTYPED};
    for (size_t i = 0; i < sizeof used / sizeof *used; i++)
        if (str_eq(name, used[i])) return true;
    for (size_t i = 0; i < sizeof INERT / sizeof *INERT; i++)
        if (str_eq(name, INERT[i])) return true;
    return dtype_of(name) != NULL;
}

/* --- storages --- */

static bool unreadable(const reader *r, const char *name, const char *what) {
    return err_set(r->e, ERR_FORMAT, "tensor '%.100s': %s", name, what);
}

static bool locate(reader *r, const char *key, storage *out) {
    size_t i;
    if (!r->prefix) {
        if (!name_index_get(&r->by_key, key, &i)) return err_set(r->e, ERR_FORMAT, "storage '%.60s' is missing", key);
        *out = r->storages[i];
        return true;
    }
    char *name = str_fmt("%sdata/%s", r->prefix, key);
    const zip_member *m = zip_find(&r->archive, name);
    free(name);
    if (!m) return err_set(r->e, ERR_FORMAT, "storage '%.60s' is missing", key);
    out->size = m->size;
    return zip_locate(m, r->in, &out->offset, r->e);
}

/* What a persistent id says: ('storage', torch.FloatStorage, key, device, how many numbers[, view]). */
typedef struct storage_ref {
    char key[KEY_MAX];
    const char *kind; /* the storage's class */
    int64_t count;
} storage_ref;

static bool read_ref(const pickle_value *v, storage_ref *out) {
    const pickle_value *a = v && v->kind == PICKLE_PERSISTENT ? v->args : NULL;
    if (!a || a->kind != PICKLE_TUPLE || a->count < 5 || !pickle_is_str(a->items[0], "storage")) return false;
    const pickle_value *kind = a->items[1], *key = a->items[2], *count = a->items[4];
    if (kind->kind != PICKLE_GLOBAL || key->kind != PICKLE_STR || count->kind != PICKLE_INT || count->i < 0)
        return false;
    if (a->count > 5 && a->items[5]->kind != PICKLE_NONE) return false; /* a part of another storage */
    if (key->len == 0 || key->len >= KEY_MAX || memchr(key->s, 0, key->len)) return false;
    memcpy(out->key, key->s, key->len);
    out->key[key->len] = 0;
    out->kind = kind->s;
    out->count = count->i;
    return true;
}

/* --- tensors --- */

/* What a call that rebuilds a tensor says; parameters and subclasses are the tensor within. NULL: it is none. */
static const pickle_value *tensor_args(const pickle_value *v, const char **callee) {
    const pickle_value *f = NULL, *args = NULL;
    for (int depth = 0; depth < 4 && v && v->kind == PICKLE_CALL; depth++) {
        f = v->callee, args = v->args;
        if ((pickle_is_global(f, PARAMETER) || pickle_is_global(f, PARAMETER_STATE)) && args->count > 0) {
            v = args->items[0];
            continue;
        }
        if (pickle_is_global(f, FROM_TYPE) && args->count > 2) f = args->items[0], args = args->items[2];
        bool is_tensor =
            pickle_is_global(f, REBUILD) || pickle_is_global(f, REBUILD_V1) || pickle_is_global(f, REBUILD_V3);
        if (!is_tensor || args->kind != PICKLE_TUPLE || args->count < 4) return NULL;
        *callee = f->s;
        return args;
    }
    return NULL;
}

static bool read_sizes(const pickle_value *v, uint64_t *out, size_t *n) {
    if (v->kind == PICKLE_CALL && pickle_is_global(v->callee, "torch.Size") && v->args->count == 1)
        v = v->args->items[0];
    if ((v->kind != PICKLE_TUPLE && v->kind != PICKLE_LIST) || v->count > TENSOR_DIMS_MAX) return false;
    for (size_t i = 0; i < v->count; i++) {
        if (v->items[i]->kind != PICKLE_INT || v->items[i]->i < 0) return false;
        out[i] = (uint64_t)v->items[i]->i;
    }
    *n = v->count;
    return true;
}

/* Whether the numbers lie one behind the other in the order of the shape; strides of dimensions of 1 mean nothing. */
static bool is_in_order(const uint64_t *dims, const uint64_t *strides, size_t n) {
    uint64_t expected = 1;
    for (size_t i = n; i-- > 0;) {
        if (dims[i] == 0) return true;
        if (dims[i] != 1 && strides[i] != expected) return false;
        if (expected > UINT64_MAX / dims[i]) return false;
        expected *= dims[i];
    }
    return true;
}

static bool choose_type(const reader *r, const char *name, const char *callee, const pickle_value *args,
                        const storage_ref *ref, tensor_type *out) {
    const bool says_dtype = str_eq(callee, REBUILD_V3) && args->count > 6 && args->items[6]->kind == PICKLE_GLOBAL;
    const char *said = says_dtype ? args->items[6]->s : ref->kind;
    const dtype *d = dtype_of(said);
    if (!d) return err_set(r->e, ERR_UNSUPPORTED, "tensor '%.100s': numbers of %.60s", name, said);
    *out = d->type;
    return true;
}

static bool add_tensor(reader *r, const char *name, const char *callee, const pickle_value *args) {
    uint64_t dims[TENSOR_DIMS_MAX], strides[TENSOR_DIMS_MAX];
    size_t n, stride_count;
    storage_ref ref;
    storage where;
    tensor_entry entry = {.name = name, .name_len = strlen(name), .dims = dims, .outer_first = true};
    const pickle_value *from = args->items[1];
    if (!read_ref(args->items[0], &ref)) return unreadable(r, name, "its storage is not one that torch.save writes");
    if (from->kind != PICKLE_INT || from->i < 0 || !read_sizes(args->items[2], dims, &n) ||
        !read_sizes(args->items[3], strides, &stride_count) || n != stride_count)
        return unreadable(r, name, "its shape makes no sense");
    if (!is_in_order(dims, strides, n))
        return err_set(r->e, ERR_UNSUPPORTED,
                       "tensor '%.100s' is a transposed or strided view: save it with .contiguous()", name);
    if (!choose_type(r, name, callee, args, &ref, &entry.type)) return false;
    if (!locate(r, ref.key, &where)) return err_wrap(r->e, "tensor '%.100s'", name);
    const uint64_t width = (uint64_t)tensor_type_block_bytes(entry.type);
    if ((uint64_t)from->i > where.size / width) return unreadable(r, name, "it begins beyond its storage's end");
    entry.n_dims = n;
    entry.data_start = where.offset;
    entry.offset = (uint64_t)from->i * width;
    entry.file_size = where.offset + where.size;
    return tensor_table_add(r->t, &entry, r->e);
}

/* --- the dictionary --- */

/* An older file keeps classes of modules outside of the pickle, with their source text beside. */
static const pickle_value *class_of(const pickle_value *call) {
    const pickle_value *c = call->callee, *a = c->kind == PICKLE_PERSISTENT ? c->args : NULL;
    return a && a->kind == PICKLE_TUPLE && a->count > 1 && pickle_is_str(a->items[0], "module") ? a->items[1] : c;
}

/* A ParameterDict keeps its entries in its state. */
static const pickle_value *as_dict(const pickle_value *v) {
    if (!v || (v->kind != PICKLE_DICT && v->kind != PICKLE_CALL)) return NULL;
    if (v->kind == PICKLE_CALL && pickle_is_global(class_of(v), PARAMETER_DICT)) {
        const pickle_value *own = pickle_get(v->state, "_parameters");
        return own && own != v && (own->kind == PICKLE_DICT || own->kind == PICKLE_CALL) ? own : NULL;
    }
    return v->count ? v : NULL;
}

static bool has_tensor(const pickle_value *dict) {
    const char *callee;
    for (size_t i = 0; i + 1 < dict->count; i += 2)
        if (tensor_args(dict->items[i + 1], &callee)) return true;
    return false;
}

static const pickle_value *find_weights(const pickle_value *root) {
    static const char *const KEYS[] = {"state_dict", "params_ema", "params", "model_state_dict", "model"};
    if (has_tensor(root)) return root;
    for (size_t i = 0; i < sizeof KEYS / sizeof *KEYS; i++) {
        const pickle_value *inner = as_dict(pickle_get(root, KEYS[i]));
        if (inner && has_tensor(inner)) return inner;
    }
    return root;
}

/* Entries below `path`, whose length is `len`; the buffer has room for the longest name. */
static bool add_entries(reader *r, const pickle_value *dict, char path[TENSOR_NAME_MAX + 1], size_t len, int depth) {
    for (size_t i = 0; i + 1 < dict->count; i += 2) {
        const pickle_value *key = dict->items[i], *v = dict->items[i + 1];
        const char *callee;
        const pickle_value *args = tensor_args(v, &callee), *inner = args ? NULL : as_dict(v);
        if (++r->visits > VISITS_MAX) return err_set(r->e, ERR_FORMAT, "more than %d entries", VISITS_MAX);
        if (key->kind != PICKLE_STR || (!args && !inner)) continue;
        if (key->len > TENSOR_NAME_MAX - 1 - len || memchr(key->s, 0, key->len))
            return err_set(r->e, ERR_FORMAT, "a name of %zu bytes, or with a NUL, below '%.100s'", key->len, path);
        memcpy(path + len, key->s, key->len);
        path[len + key->len] = 0;
        if (args && !add_tensor(r, path, callee, args)) return false;
        if (inner && depth < DEPTH_MAX) {
            str_copy(path + len + key->len, 2, ".");
            if (!add_entries(r, inner, path, len + key->len + 1, depth + 1)) return false;
        }
        path[len] = 0;
    }
    return true;
}

static meta_value meta_of(tensor_table *t, const pickle_value *v) {
    switch (v->kind) {
    case PICKLE_STR: {
        char *kept = v->len <= TENSOR_META_STR_MAX ? tensor_table_keep(t, v->s, v->len) : NULL;
        return kept ? (meta_value){.kind = META_STR, .u.str = kept} : (meta_value){.kind = META_OTHER};
    }
    case PICKLE_INT:
        return (meta_value){.kind = META_INT, .u.i = v->i};
    case PICKLE_BOOL:
        return (meta_value){.kind = META_BOOL, .u.i = v->i};
    case PICKLE_FLOAT:
        return (meta_value){.kind = META_FLOAT, .u.f = v->f};
    default:
        return (meta_value){.kind = META_OTHER};
    }
}

static bool add_metadata(reader *r, const pickle_value *root) {
    for (size_t i = 0; i + 1 < root->count; i += 2) {
        const pickle_value *key = root->items[i];
        if (key->kind != PICKLE_STR || key->len > TENSOR_NAME_MAX) continue;
        const meta_value v = meta_of(r->t, root->items[i + 1]);
        if (v.kind != META_OTHER && !tensor_table_add_meta(r->t, key->s, key->len, v, r->e)) return false;
    }
    return true;
}

static bool add_all(reader *r, const pickle *p) {
    const pickle_value *root = as_dict(p->root);
    char path[TENSOR_NAME_MAX + 1] = "";
    if (!root) return err_set(r->e, ERR_UNSUPPORTED, "the file holds no dictionary of tensors");
    return add_metadata(r, root) && add_entries(r, find_weights(root), path, 0, 0);
}

/* --- today's files --- */

/* "archive/data.pkl": the folder has the name that the file was saved under. */
static bool find_prefix(reader *r) {
    static const char NAME[] = "data.pkl";
    for (size_t i = 0; i < r->archive.count; i++) {
        const char *name = r->archive.members[i].name, *slash = strrchr(name, '/');
        if (!str_eq(slash ? slash + 1 : name, NAME)) continue;
        if (r->prefix) return err_set(r->e, ERR_FORMAT, "zip archive: more than one %s", NAME);
        r->prefix = str_ndup(name, strlen(name) - strlen(NAME));
    }
    return r->prefix || err_set(r->e, ERR_UNSUPPORTED, "a zip archive, but not one that torch.save wrote");
}

static bool read_member(reader *r, const char *name, size_t most, buf *out) {
    char *full = str_fmt("%s%s", r->prefix, name);
    const zip_member *m = zip_find(&r->archive, full);
    uint64_t offset;
    free(full);
    if (!m) return err_set(r->e, ERR_NOT_FOUND, "zip archive: no %s", name);
    if (m->size > most) return err_set(r->e, ERR_TOO_LARGE, "zip archive: %s of more than %zu bytes", name, most);
    return zip_locate(m, r->in, &offset, r->e) && tensor_input_part(r->in, offset, (size_t)m->size, out, r->e);
}

/* Written since version 2.1; before that the byte order was always the machine's, little endian as good as always. */
static bool check_byte_order(reader *r) {
    buf text;
    buf_init(&text, 65);
    char *full = str_fmt("%sbyteorder", r->prefix);
    bool is_there = zip_find(&r->archive, full) != NULL;
    bool ok = !is_there || read_member(r, "byteorder", 64, &text);
    if (ok && is_there && !str_eq(buf_str(&text), "little"))
        ok = err_set(r->e, ERR_UNSUPPORTED, "its numbers are not little endian");
    free(full);
    buf_free(&text);
    return ok;
}

static bool read_archive(reader *r) {
    buf bytes;
    pickle p = {0};
    size_t used;
    bool cut_off;
    buf_init(&bytes, (size_t)PICKLE_BYTES_MAX + 1);
    bool ok = zip_open(&r->archive, r->in, r->e) && find_prefix(r) && check_byte_order(r) &&
              read_member(r, "data.pkl", PICKLE_BYTES_MAX, &bytes) &&
              pickle_read(&p, bytes.data, bytes.len, is_allowed, &used, &cut_off, r->e) && add_all(r, &p);
    pickle_free(&p);
    buf_free(&bytes);
    return ok;
}

/* --- older files: magic number, protocol, system, the object, the storages' keys; then the storages --- */

enum { OLD_MAGIC_NUMBER, OLD_PROTOCOL, OLD_SYSTEM, OLD_OBJECT, OLD_KEYS, OLD_PARTS };

typedef struct old_file {
    pickle parts[OLD_PARTS];
    size_t at; /* behind what was read */
} old_file;

static bool read_pickles(reader *r, tensor_input *in, old_file *f) {
    for (int i = 0; i < OLD_PARTS; i++) {
        size_t used;
        bool cut_off = false;
        bool ok = pickle_read(&f->parts[i], in->data + f->at, in->len - f->at, is_allowed, &used, &cut_off, r->e);
        if (cut_off && in->len < in->file_size) in->wants_more = true;
        if (!ok) return false;
        f->at += used;
    }
    const pickle_value *little = pickle_get(f->parts[OLD_SYSTEM].root, "little_endian");
    if (f->parts[OLD_KEYS].root->kind != PICKLE_LIST || f->parts[OLD_PROTOCOL].root->i != 1001)
        return err_set(r->e, ERR_FORMAT, "not the parts that torch.save writes");
    return !little || little->i || err_set(r->e, ERR_UNSUPPORTED, "its numbers are not little endian");
}

/* What each key's storage holds is said wherever a tensor uses it. */
static void note_storage(void *ctx, const pickle_value *v) {
    reader *r = ctx;
    storage_ref ref;
    if (!read_ref(v, &ref)) return;
    const dtype *d = dtype_of(ref.kind);
    if (!d || (uint64_t)ref.count > INT64_MAX / 8) return;
    char *key = str_dup(ref.key);
    if (!name_index_put(&r->by_key, key, r->storage_count)) {
        free(key);
        return;
    }
    r->storages = mem_resize(r->storages, (r->storage_count + 1) * sizeof *r->storages);
    r->keys = mem_resize(r->keys, (r->storage_count + 1) * sizeof *r->keys);
    r->keys[r->storage_count] = key;
    r->storages[r->storage_count++] =
        (storage){.size = (uint64_t)ref.count * (uint64_t)tensor_type_block_bytes(d->type)};
}

/* Each storage has its length in front, in numbers; what it should be is known already. */
static bool place_storages(reader *r, const pickle_value *keys, uint64_t at) {
    buf head;
    buf_init(&head, 9);
    bool ok = true;
    for (size_t i = 0; i < keys->count && ok; i++) {
        const pickle_value *v = keys->items[i];
        char key[KEY_MAX] = "";
        size_t index;
        if (v->kind == PICKLE_STR && v->len < KEY_MAX) memcpy(key, v->s, v->len);
        if (!name_index_get(&r->by_key, key, &index)) {
            ok = err_set(r->e, ERR_FORMAT, "storage '%.60s' belongs to no tensor", key);
            break;
        }
        storage *s = &r->storages[index];
        ok = tensor_input_part(r->in, at, 8, &head, r->e);
        if (ok && s->offset) ok = err_set(r->e, ERR_FORMAT, "storage '%.60s' occurs twice", key);
        if (ok && s->size > r->in->file_size - at - 8)
            ok = err_set(r->e, ERR_FORMAT, "storage '%.60s' lies beyond the file's end (is it complete?)", key);
        s->offset = at + 8;
        at += 8 + s->size;
    }
    buf_free(&head);
    return ok;
}

static bool read_old(reader *r, tensor_input *in) {
    old_file f = {0};
    bool ok = read_pickles(r, in, &f);
    if (ok) {
        pickle_each(&f.parts[OLD_OBJECT], note_storage, r);
        ok = place_storages(r, f.parts[OLD_KEYS].root, f.at) && add_all(r, &f.parts[OLD_OBJECT]);
    }
    for (int i = 0; i < OLD_PARTS; i++) pickle_free(&f.parts[i]);
    return ok;
}

/* --- both --- */

static bool is_old(const unsigned char *data, size_t size) {
    return size >= sizeof OLD_MAGIC && memcmp(data, OLD_MAGIC, sizeof OLD_MAGIC) == 0;
}

static bool is_zip(const unsigned char *data, size_t size) {
    return size >= 4 && memcmp(data, "PK\3\4", 4) == 0;
}

bool torch_file_is(const unsigned char *data, size_t size) {
    return is_zip(data, size) || (size >= 2 && data[0] == 0x80 && data[1] >= 2 && data[1] <= 5);
}

bool torch_file_read(tensor_table *t, tensor_input *in, err *e) {
    err own = {0};
    reader r = {.t = t, .in = in, .e = e ? e : &own};
    bool ok = is_zip(in->data, in->len)   ? read_archive(&r)
              : is_old(in->data, in->len) ? read_old(&r, in)
                                          : err_set(e, ERR_UNSUPPORTED, "a pickle, but not one that torch.save wrote");
    for (size_t i = 0; i < r.storage_count; i++) free(r.keys[i]);
    free(r.keys);
    free(r.storages);
    free(r.prefix);
    name_index_free(&r.by_key);
    zip_free(&r.archive);
    return ok;
}
