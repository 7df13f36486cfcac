/* pickle.c - see pickle.h. First the values, then the machine: its stack, its memo, and one case per opcode. */
#include "diffusion/load/pickle.h"
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_VALUES = 512, MEMO_MAX = 1 << 20, STACK_MAX = 1 << 22 };

typedef struct pickle_block pickle_block;
struct pickle_block {
    pickle_block *next;
    size_t count;
    pickle_value values[BLOCK_VALUES];
};

typedef struct machine {
    pickle *p;
    pickle_allow allow;
    const unsigned char *data;
    size_t len, at;
    bool cut_off;
    pickle_value **stack;
    size_t depth, stack_cap;
    size_t *marks; /* depths of the stack */
    size_t mark_count, mark_cap;
    pickle_value **memo;
    size_t memo_cap;
    size_t memo_next; /* for MEMOIZE */
    err *e;
} machine;

/* --- values --- */

static bool nonsense(machine *m, const char *what) {
    return err_set(m->e, ERR_FORMAT, "pickle: %s at byte %zu", what, m->at);
}

static pickle_value *new_value(machine *m, pickle_kind kind) {
    pickle *p = m->p;
    if (p->value_count == PICKLE_VALUES_MAX) {
        err_set(m->e, ERR_TOO_LARGE, "pickle: more than %d values", PICKLE_VALUES_MAX);
        return NULL;
    }
    if (!p->blocks || p->blocks->count == BLOCK_VALUES) {
        pickle_block *b = mem_alloc(1, sizeof *b);
        b->next = p->blocks;
        p->blocks = b;
    }
    p->value_count++;
    pickle_value *v = &p->blocks->values[p->blocks->count++];
    v->kind = kind;
    return v;
}

static void add_item(pickle_value *v, pickle_value *item) {
    if (v->count == v->cap) {
        v->cap = v->cap ? v->cap * 2 : 4;
        v->items = mem_resize(v->items, v->cap * sizeof *v->items);
    }
    v->items[v->count++] = item;
}

void pickle_free(pickle *p) {
    while (p->blocks) {
        pickle_block *b = p->blocks;
        for (size_t i = 0; i < b->count; i++) {
            free(b->values[i].items);
            if (b->values[i].kind == PICKLE_GLOBAL) free((char *)(uintptr_t)b->values[i].s);
        }
        p->blocks = b->next;
        free(b);
    }
    *p = (pickle){0};
}

void pickle_each(const pickle *p, void (*fn)(void *ctx, const pickle_value *v), void *ctx) {
    for (const pickle_block *b = p->blocks; b; b = b->next)
        for (size_t i = 0; i < b->count; i++) fn(ctx, &b->values[i]);
}

bool pickle_is_str(const pickle_value *v, const char *s) {
    return v && v->kind == PICKLE_STR && v->len == strlen(s) && memcmp(v->s, s, v->len) == 0;
}

bool pickle_is_global(const pickle_value *v, const char *name) {
    return v && v->kind == PICKLE_GLOBAL && str_eq(v->s, name);
}

const pickle_value *pickle_get(const pickle_value *v, const char *key) {
    if (!v || (v->kind != PICKLE_DICT && v->kind != PICKLE_CALL)) return NULL;
    for (size_t i = 0; i + 1 < v->count; i += 2)
        if (pickle_is_str(v->items[i], key)) return v->items[i + 1];
    return NULL;
}

/* --- the stack --- */

static bool push(machine *m, pickle_value *v) {
    if (!v) return false;
    if (m->depth == STACK_MAX) return nonsense(m, "too deep a stack");
    if (m->depth == m->stack_cap) {
        m->stack_cap = m->stack_cap ? m->stack_cap * 2 : 256;
        m->stack = mem_resize(m->stack, m->stack_cap * sizeof(*m->stack));
    }
    m->stack[m->depth++] = v;
    return true;
}

/* Nothing below the last mark may be taken. */
static size_t bottom(const machine *m) {
    return m->mark_count ? m->marks[m->mark_count - 1] : 0;
}

static pickle_value *pop(machine *m) {
    if (m->depth > bottom(m)) return m->stack[--m->depth];
    nonsense(m, "an empty stack");
    return NULL;
}

static pickle_value *top(machine *m) {
    if (m->depth > bottom(m)) return m->stack[m->depth - 1];
    nonsense(m, "an empty stack");
    return NULL;
}

static bool push_mark(machine *m) {
    if (m->mark_count == m->mark_cap) {
        m->mark_cap = m->mark_cap ? m->mark_cap * 2 : 64;
        m->marks = mem_resize(m->marks, m->mark_cap * sizeof *m->marks);
    }
    m->marks[m->mark_count++] = m->depth;
    return true;
}

/* Takes the last mark away; *first is the place on the stack of what lies above it. */
static bool pop_mark(machine *m, size_t *first) {
    if (!m->mark_count) return nonsense(m, "no mark");
    *first = m->marks[--m->mark_count];
    return true;
}

/* --- reading --- */

static const unsigned char *take(machine *m, uint64_t n) {
    if (n > m->len - m->at) {
        m->cut_off = true;
        err_set(m->e, ERR_FORMAT, "pickle: ends in its middle (is the file complete?)");
        return NULL;
    }
    const unsigned char *p = m->data + m->at;
    m->at += (size_t)n;
    return p;
}

static bool take_le(machine *m, int bytes, uint64_t *out) {
    const unsigned char *p = take(m, (uint64_t)bytes);
    if (!p) return false;
    *out = 0;
    for (int i = bytes - 1; i >= 0; i--) *out = *out << 8 | p[i];
    return true;
}

static bool push_int(machine *m, int64_t value, pickle_kind kind) {
    pickle_value *v = new_value(m, kind);
    if (v) v->i = value;
    return push(m, v);
}

/* `bytes` of little endian, two's complement when it is signed. */
static bool read_int(machine *m, int bytes, bool is_signed) {
    uint64_t v;
    if (!take_le(m, bytes, &v)) return false;
    return push_int(m, is_signed && bytes == 4 ? (int32_t)(uint32_t)v : (int64_t)v, PICKLE_INT);
}

static bool read_long(machine *m, int length_bytes) {
    uint64_t n, v = 0;
    if (!take_le(m, length_bytes, &n)) return false;
    const unsigned char *p = take(m, n);
    if (!p) return false;
    if (n > 8) return push_int(m, 0, PICKLE_BIG);
    for (size_t i = 8; i-- > 0;) v = v << 8 | (i < n ? p[i] : n && p[n - 1] & 0x80 ? 0xff : 0);
    int64_t value;
    memcpy(&value, &v, sizeof value);
    return push_int(m, value, PICKLE_INT);
}

static bool read_float(machine *m) {
    const unsigned char *p = take(m, 8);
    pickle_value *v = p ? new_value(m, PICKLE_FLOAT) : NULL;
    if (!v) return false;
    uint64_t bits = 0;
    for (int i = 0; i < 8; i++) bits = bits << 8 | p[i]; /* the one number that is big endian */
    memcpy(&v->f, &bits, sizeof v->f);
    return push(m, v);
}

static bool read_text(machine *m, int length_bytes, pickle_kind kind) {
    uint64_t n;
    const unsigned char *p = take_le(m, length_bytes, &n) ? take(m, n) : NULL;
    pickle_value *v = p ? new_value(m, kind) : NULL;
    if (!v) return false;
    v->s = (const char *)p;
    v->len = (size_t)n;
    return push(m, v);
}

/* --- names --- */

static bool push_global(machine *m, const char *module, size_t module_len, const char *name, size_t name_len) {
    if (module_len + name_len + 1 > PICKLE_GLOBAL_MAX) return nonsense(m, "too long a name");
    char *full = str_fmt("%.*s.%.*s", (int)module_len, module, (int)name_len, name);
    if (!str_is_utf8(full, strlen(full)) || !m->allow(full)) {
        str_is_utf8(full, strlen(full))
            ? err_set(m->e, ERR_UNSUPPORTED, "the pickle names '%.120s', which is not allowed: nothing in it is run",
                      full)
            : nonsense(m, "a name that is not text");
        free(full);
        return false;
    }
    pickle_value *v = new_value(m, PICKLE_GLOBAL);
    if (!v) {
        free(full);
        return false;
    }
    v->s = full;
    return push(m, v);
}

/* Up to the end of the line. */
static bool take_line(machine *m, const char **s, size_t *len) {
    const unsigned char *start = m->data + m->at, *end = memchr(start, '\n', m->len - m->at);
    if (!end) return take(m, (uint64_t)(m->len - m->at) + 1) != NULL; /* says that it is cut off */
    *s = (const char *)start;
    *len = (size_t)(end - start);
    m->at += *len + 1;
    return true;
}

static bool read_global(machine *m) {
    const char *module = NULL, *name = NULL;
    size_t module_len = 0, name_len = 0;
    return take_line(m, &module, &module_len) && take_line(m, &name, &name_len) &&
           push_global(m, module, module_len, name, name_len);
}

static bool stack_global(machine *m) {
    pickle_value *name = pop(m), *module = name ? pop(m) : NULL;
    if (!module) return false;
    if (name->kind != PICKLE_STR || module->kind != PICKLE_STR) return nonsense(m, "a name that is not text");
    return push_global(m, module->s, module->len, name->s, name->len);
}

/* --- containers --- */

static bool collect_from(machine *m, pickle_value *v, size_t first) {
    if (!v) return false;
    for (size_t i = first; i < m->depth; i++) add_item(v, m->stack[i]);
    m->depth = first;
    return true;
}

/* A new container of all above the mark. */
static bool collect(machine *m, pickle_kind kind) {
    size_t first = 0;
    pickle_value *v = new_value(m, kind);
    if (!pop_mark(m, &first) || !collect_from(m, v, first)) return false;
    if (kind == PICKLE_DICT && v->count % 2) return nonsense(m, "a key without a value");
    return push(m, v);
}

static bool small_tuple(machine *m, size_t n) {
    if (m->depth - bottom(m) < n) return nonsense(m, "an empty stack");
    pickle_value *v = new_value(m, PICKLE_TUPLE);
    return collect_from(m, v, m->depth - n) && push(m, v);
}

/* What lies above `first` goes into the container below it. A call may be of a class that is a dict or a list. */
static bool fill(machine *m, size_t first, pickle_kind kind) {
    size_t n = m->depth - first;
    if (first <= bottom(m)) return nonsense(m, "an empty stack");
    pickle_value *v = m->stack[first - 1];
    if (v->kind != kind && v->kind != PICKLE_CALL) return nonsense(m, "items for what is no container");
    if (kind == PICKLE_DICT && n % 2) return nonsense(m, "a key without a value");
    return collect_from(m, v, first);
}

static bool fill_above_mark(machine *m, pickle_kind kind) {
    size_t first = 0;
    return pop_mark(m, &first) && fill(m, first, kind);
}

static bool fill_last(machine *m, size_t n, pickle_kind kind) {
    return m->depth - bottom(m) < n + 1 ? nonsense(m, "an empty stack") : fill(m, m->depth - n, kind);
}

/* --- calls --- */

static bool make_call(machine *m) {
    pickle_value *args = pop(m), *callee = args ? pop(m) : NULL;
    pickle_value *v = callee ? new_value(m, PICKLE_CALL) : NULL;
    if (!v) return false;
    const bool is_name = callee->kind == PICKLE_GLOBAL || callee->kind == PICKLE_PERSISTENT;
    if (!is_name || args->kind != PICKLE_TUPLE) return nonsense(m, "a call of what is no name");
    v->callee = callee;
    v->args = args;
    return push(m, v);
}

static bool make_persistent(machine *m) {
    pickle_value *args = pop(m), *v = args ? new_value(m, PICKLE_PERSISTENT) : NULL;
    if (v) v->args = args;
    return push(m, v);
}

static bool set_state(machine *m) {
    pickle_value *state = pop(m), *v = state ? top(m) : NULL;
    if (!v) return false;
    if (v->kind != PICKLE_CALL) return nonsense(m, "a state for what is no object");
    v->state = state;
    return true;
}

/* --- the memo --- */

static bool memo_put(machine *m, uint64_t i) {
    pickle_value *v = top(m);
    if (!v) return false;
    if (i >= MEMO_MAX) return nonsense(m, "too large a memo");
    if (i >= m->memo_cap) {
        size_t cap = m->memo_cap ? m->memo_cap : 256;
        while (cap <= i) cap *= 2;
        m->memo = mem_resize(m->memo, cap * sizeof(*m->memo));
        memset(m->memo + m->memo_cap, 0, (cap - m->memo_cap) * sizeof(*m->memo));
        m->memo_cap = cap;
    }
    m->memo[i] = v;
    m->memo_next = (size_t)i + 1;
    return true;
}

static bool read_put(machine *m, int bytes) {
    uint64_t i;
    return take_le(m, bytes, &i) && memo_put(m, i);
}

static bool read_get(machine *m, int bytes) {
    uint64_t i;
    if (!take_le(m, bytes, &i)) return false;
    return i < m->memo_cap && m->memo[i] ? push(m, m->memo[i]) : nonsense(m, "an unknown memo");
}

/* --- the machine --- */

static bool pop_to_mark(machine *m) {
    size_t first = 0;
    if (!pop_mark(m, &first)) return false;
    m->depth = first;
    return true;
}

static bool refuse(machine *m, unsigned char op) {
    static const struct {
        unsigned char op;
        const char *name;
    } NAMES[] = {{'i', "INST"},        {'o', "OBJ"},          {'P', "PERSID"},
                 {0x82, "EXT1"},       {0x83, "EXT2"},        {0x84, "EXT4"},
                 {0x92, "NEWOBJ_EX"},  {'g', "GET"},          {'p', "PUT"},
                 {'I', "INT"},         {'L', "LONG"},         {'F', "FLOAT"},
                 {'S', "STRING"},      {'V', "UNICODE"},      {0x91, "FROZENSET"},
                 {0x96, "BYTEARRAY8"}, {0x97, "NEXT_BUFFER"}, {0x98, "READONLY_BUFFER"}};
    const char *name = "unknown";
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++)
        if (NAMES[i].op == op) name = NAMES[i].name;
    return err_set(m->e, ERR_UNSUPPORTED, "pickle: opcode 0x%02x (%s) at byte %zu is not allowed", op, name, m->at - 1);
}

/* Opcodes that push something of their own. */
static bool run_value(machine *m, unsigned char op, bool *known) {
    switch (op) {
    case 'N':
        return push(m, new_value(m, PICKLE_NONE));
    case 0x88:
        return push_int(m, 1, PICKLE_BOOL);
    case 0x89:
        return push_int(m, 0, PICKLE_BOOL);
    case 'J':
        return read_int(m, 4, true);
    case 'K':
        return read_int(m, 1, false);
    case 'M':
        return read_int(m, 2, false);
    case 0x8a:
        return read_long(m, 1);
    case 0x8b:
        return read_long(m, 4);
    case 'G':
        return read_float(m);
    case 'X':
        return read_text(m, 4, PICKLE_STR);
    case 0x8c:
        return read_text(m, 1, PICKLE_STR);
    case 0x8d:
        return read_text(m, 8, PICKLE_STR);
    case 'U':
        return read_text(m, 1, PICKLE_STR);
    case 'T':
        return read_text(m, 4, PICKLE_STR);
    case 'C':
        return read_text(m, 1, PICKLE_BYTES);
    case 'B':
        return read_text(m, 4, PICKLE_BYTES);
    case 0x8e:
        return read_text(m, 8, PICKLE_BYTES);
    case 'c':
        return read_global(m);
    case 0x93:
        return stack_global(m);
    case 'h':
        return read_get(m, 1);
    case 'j':
        return read_get(m, 4);
    case ')':
        return push(m, new_value(m, PICKLE_TUPLE));
    case ']':
        return push(m, new_value(m, PICKLE_LIST));
    case '}':
        return push(m, new_value(m, PICKLE_DICT));
    case 0x8f:
        return push(m, new_value(m, PICKLE_SET));
    default:
        *known = false;
        return true;
    }
}

/* Opcodes that work on what is there. */
static bool run_stack(machine *m, unsigned char op) {
    switch (op) {
    case 0x80:
        return take(m, 1) != NULL; /* PROTO: what is not known shows at its first opcode */
    case 0x95:
        return take(m, 8) != NULL; /* FRAME: a hint for buffering */
    case '(':
        return push_mark(m);
    case '0':
        return m->depth == bottom(m) ? pop_to_mark(m) : pop(m) != NULL;
    case '1':
        return pop_to_mark(m);
    case '2':
        return push(m, top(m));
    case 't':
        return collect(m, PICKLE_TUPLE);
    case 0x85:
        return small_tuple(m, 1);
    case 0x86:
        return small_tuple(m, 2);
    case 0x87:
        return small_tuple(m, 3);
    case 'l':
        return collect(m, PICKLE_LIST);
    case 'd':
        return collect(m, PICKLE_DICT);
    case 'a':
        return fill_last(m, 1, PICKLE_LIST);
    case 'e':
        return fill_above_mark(m, PICKLE_LIST);
    case 's':
        return fill_last(m, 2, PICKLE_DICT);
    case 'u':
        return fill_above_mark(m, PICKLE_DICT);
    case 0x90:
        return fill_above_mark(m, PICKLE_SET);
    case 'q':
        return read_put(m, 1);
    case 'r':
        return read_put(m, 4);
    case 0x94:
        return memo_put(m, m->memo_next);
    case 'R':
        return make_call(m);
    case 0x81:
        return make_call(m); /* NEWOBJ: cls.__new__(cls, *args) */
    case 'b':
        return set_state(m);
    case 'Q':
        return make_persistent(m);
    default:
        return refuse(m, op);
    }
}

static bool run(machine *m) {
    for (;;) {
        const unsigned char *op = take(m, 1);
        if (!op) return false;
        if (*op == '.') break;
        bool known = true;
        if (!run_value(m, *op, &known) || (!known && !run_stack(m, *op))) return false;
    }
    if (m->depth != 1 || m->mark_count) return nonsense(m, "it ends with other than one value");
    m->p->root = m->stack[0];
    return true;
}

bool pickle_read(pickle *p, const void *data, size_t len, pickle_allow allow, size_t *used, bool *cut_off, err *e) {
    *p = (pickle){0};
    machine m = {.p = p, .allow = allow, .data = data, .len = len, .e = e};
    if (m.len > PICKLE_BYTES_MAX) m.len = PICKLE_BYTES_MAX;
    bool ok = run(&m);
    *used = m.at;
    *cut_off = m.cut_off;
    free(m.stack);
    free(m.marks);
    free(m.memo);
    return ok;
}
