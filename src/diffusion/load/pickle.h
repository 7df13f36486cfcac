/* pickle.h - Python pickles read as data. Nothing is imported, called or built: where a pickle says "call f(x)", the
 * result is a value that says just that, and whoever reads it decides what it means.
 *
 * A pickle is a program for a stack machine (opcodes and their meaning: Python's Lib/pickletools.py). Of its opcodes
 * those are done that torch.save and NumPy write, and of the names it may mention those that the caller allows; the
 * first other one ends the reading with its name in the message. Sizes are bounded by the bytes read and by the limits
 * below. */
#ifndef MYSTI_DIFFUSION_LOAD_PICKLE_H
#define MYSTI_DIFFUSION_LOAD_PICKLE_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

enum { PICKLE_VALUES_MAX = 1 << 20, PICKLE_BYTES_MAX = 64 << 20, PICKLE_GLOBAL_MAX = 255 };

typedef enum pickle_kind {
    PICKLE_NONE,
    PICKLE_BOOL,
    PICKLE_INT,
    PICKLE_BIG, /* an integer beyond 64 bits: its value is not kept */
    PICKLE_FLOAT,
    PICKLE_STR, /* also Python 2's byte strings */
    PICKLE_BYTES,
    PICKLE_TUPLE,
    PICKLE_LIST,
    PICKLE_SET,
    PICKLE_DICT,
    PICKLE_GLOBAL,     /* a name, "torch._utils._rebuild_tensor_v2" */
    PICKLE_CALL,       /* callee(*args), with items set, and a state given to it, afterwards */
    PICKLE_PERSISTENT, /* an object kept outside of the pickle; args tell which */
} pickle_kind;

typedef struct pickle_value pickle_value;
struct pickle_value {
    pickle_kind kind;
    int64_t i;     /* INT, BOOL */
    double f;      /* FLOAT */
    const char *s; /* STR, BYTES: `len` bytes, borrowed from the input. GLOBAL: NUL-terminated */
    size_t len;
    pickle_value **items; /* TUPLE, LIST, SET; of DICT and CALL: key, value, key, value, ... */
    size_t count, cap;
    pickle_value *callee, *args, *state; /* CALL (callee: GLOBAL or PERSISTENT); PERSISTENT has args; NULL: none */
};

/* Owns all values. Values may contain themselves and each other more than once: whoever walks them bounds the walk. */
typedef struct pickle {
    pickle_value *root;
    struct pickle_block *blocks; /* private */
    size_t value_count;
} pickle;

typedef bool (*pickle_allow)(const char *global);

/* Reads one pickle from the start of `data`, borrowed as long as the values are used; *used is its length. False:
 * ERR_UNSUPPORTED for an opcode or name that is not allowed, ERR_FORMAT for nonsense; *cut_off when the bytes end
 * before the pickle does. p is to be freed in either case. */
bool pickle_read(pickle *p, const void *data, size_t len, pickle_allow allow, size_t *used, bool *cut_off, err *e);
void pickle_free(pickle *p);

/* Calls fn for every value that the pickle made, in no particular order. */
void pickle_each(const pickle *p, void (*fn)(void *ctx, const pickle_value *v), void *ctx);

/* Whether v is text equal to s. */
bool pickle_is_str(const pickle_value *v, const char *s);
bool pickle_is_global(const pickle_value *v, const char *name);

/* The value under a text key of a DICT or CALL; NULL: none. */
const pickle_value *pickle_get(const pickle_value *v, const char *key);

#endif
