/* prompt_plan.c - see prompt_plan.h. AND cuts the prompt into parts; a part is parsed into a tree, by one reader that
 * never looks back further than a bracket; then the tree is written out at each call where it may change. */
#include "diffusion/text/prompt_plan.h"

#include "base/buf.h"
#include "base/str.h"
#include "diffusion/text/prompt.h"

#include <stdlib.h>
#include <string.h>

enum { DEPTH_MAX = 200, NUMBER_MAX = 48, WEIGHT_MAX = 100 };

/* --- The tree ---------------------------------------------------------------------------------------------------- */

typedef enum node_kind {
    NODE_TEXT, /* as it stands in the prompt */
    NODE_LIST, /* children one behind the other */
    NODE_EDIT, /* two children: the first up to call `when`, then the second */
    NODE_TURN, /* one child after the other */
} node_kind;

typedef struct node {
    node_kind kind;
    size_t from, to;             /* NODE_TEXT: bytes of the prompt */
    int when;                    /* NODE_EDIT: 0: never the first */
    int child, last_child, next; /* NODE_NONE: none */
} node;
enum { NODE_NONE = -1 };

typedef struct reader {
    const char *text; /* of the part; ends at `end` */
    size_t at, end;
    const plan_span *span;
    node *nodes;
    int count;
    bool *failed; /* [end] no bracket that means anything begins here */
    int depth;
    bool no_reading; /* the grammar knows none: the prompt is plain text */
    bool too_deep;
} reader;

static int add_node(reader *r, int parent, node_kind kind) {
    if ((r->count & (r->count - 1)) == 0)
        r->nodes = mem_resize(r->nodes, (size_t)(r->count ? r->count * 2 : 1) * sizeof *r->nodes);
    const int n = r->count++;
    r->nodes[n] = (node){.kind = kind, .child = NODE_NONE, .last_child = NODE_NONE, .next = NODE_NONE};
    if (parent == NODE_NONE) return n;
    node *p = &r->nodes[parent];
    if (p->child == NODE_NONE)
        p->child = n;
    else
        r->nodes[p->last_child].next = n;
    p->last_child = n;
    return n;
}

static void add_text(reader *r, int parent, size_t from, size_t to) {
    const int n = add_node(r, parent, NODE_TEXT);
    r->nodes[n].from = from;
    r->nodes[n].to = to;
}

static char peek(const reader *r) {
    return r->at < r->end ? r->text[r->at] : 0;
}

static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static size_t skip_digits(const reader *r, size_t i) {
    while (i < r->end && is_digit(r->text[i])) i++;
    return i;
}

/* One character of the text, as literal text. */
static void take_char(reader *r, int parent) {
    add_text(r, parent, r->at, r->at + 1);
    r->at++;
}

/* Up to the next character that may mean something. */
static void take_plain(reader *r, int parent) {
    const size_t from = r->at;
    for (char c = peek(r); c && !strchr("()[]:|", c); c = peek(r)) {
        if (c == '\\') {
            r->at++;
            if (!peek(r) || peek(r) == '\n') {
                r->no_reading = true;
                return;
            }
        }
        r->at++;
    }
    add_text(r, parent, from, r->at);
}

/* The end of a number with an optional sign, point and exponent at i; i when there is none. */
static size_t number_end(const reader *r, size_t i) {
    const size_t start = i;
    if (i < r->end && (r->text[i] == '+' || r->text[i] == '-')) i++;
    const size_t whole = skip_digits(r, i);
    size_t to = whole;
    if (to < r->end && r->text[to] == '.') to = skip_digits(r, to + 1);
    if (to == i || (to == i + 1 && whole == i)) return start; /* nothing, or a point alone */
    if (to < r->end && (r->text[to] | 0x20) == 'e') {
        size_t power = to + 1;
        if (power < r->end && (r->text[power] == '+' || r->text[power] == '-')) power++;
        const size_t digits = skip_digits(r, power);
        if (digits > power) to = digits;
    }
    return to;
}

static int call_of(const reader *r, double v, bool share) {
    v = share ? (v - (r->span->before ? 1.0 : 0.0)) * r->span->calls : v - r->span->before;
    if (!(v >= 1)) return 0;
    return v >= r->span->calls ? r->span->calls : (int)v;
}

/* "0.5 ]" behind a colon. Takes it, or nothing. */
static bool take_when(reader *r, int *when) {
    size_t from = r->at;
    while (from < r->end && is_space(r->text[from])) from++;
    const size_t to = number_end(r, from);
    size_t end = to;
    while (end < r->end && is_space(r->text[end])) end++;
    if (to == from || to - from >= NUMBER_MAX || end == r->end || r->text[end] != ']') return false;
    double v;
    char number[NUMBER_MAX] = "";
    memcpy(number, r->text + from, to - from);
    if (!str_to_f64(number, &v)) return false;
    *when = call_of(r, v, strchr(number, '.') != NULL);
    r->at = end + 1;
    return true;
}

static bool take_group(reader *r, int parent);

/* Text and brackets up to a character that ends them. False when a bracket in it has no reading. */
static bool take_list(reader *r, int parent) {
    for (;;) {
        const char c = peek(r);
        if (!c || strchr(")]:|", c)) return true;
        if (c != '(' && c != '[')
            take_plain(r, parent);
        else if (!take_group(r, parent))
            return false;
        if (r->no_reading) return false;
    }
}

static bool take_end(reader *r, char c) {
    if (peek(r) != c) return false;
    r->at++;
    return true;
}

/* "(a)" or "(a:b)": attention, whose text stays as it is around what is in it. */
static bool take_round(reader *r, int parent) {
    const int group = add_node(r, parent, NODE_LIST);
    take_char(r, group);
    if (!take_list(r, group)) return false;
    if (peek(r) == ':') {
        take_char(r, group);
        if (!take_list(r, group)) return false;
    }
    if (peek(r) != ')') return false;
    take_char(r, group);
    return true;
}

static bool take_turns(reader *r, int group) {
    r->nodes[group].kind = NODE_TURN;
    while (peek(r) == '|') {
        r->at++;
        if (!take_list(r, add_node(r, group, NODE_LIST))) return false;
    }
    return take_end(r, ']');
}

/* Behind "[a:": "3]" or "b:3]". */
static bool take_edit(reader *r, int group, int first) {
    int when;
    r->nodes[group].kind = NODE_EDIT;
    if (!take_when(r, &when)) {
        if (!take_list(r, add_node(r, group, NODE_LIST)) || !take_end(r, ':') || !take_when(r, &when)) return false;
    } else { /* nothing, then a */
        const int nothing = add_node(r, NODE_NONE, NODE_LIST);
        r->nodes[nothing].next = first;
        r->nodes[group].child = nothing;
    }
    r->nodes[group].when = when;
    return true;
}

static bool take_square(reader *r, int parent) {
    const size_t open = r->at++;
    const int group = add_node(r, parent, NODE_LIST), first = add_node(r, group, NODE_LIST);
    if (!take_list(r, first)) return false;
    if (peek(r) == '|') return take_turns(r, group);
    if (take_end(r, ':')) return take_edit(r, group, first);
    if (peek(r) != ']') return false;
    r->at++; /* attention: "[", a, "]" */
    const int bracket = add_node(r, NODE_NONE, NODE_TEXT);
    r->nodes[bracket].from = open;
    r->nodes[bracket].to = open + 1;
    r->nodes[bracket].next = first;
    r->nodes[group].child = bracket;
    add_text(r, group, r->at - 1, r->at);
    return true;
}

/* A bracket with all that is in it. Without a reading nothing is taken, and that is remembered: the bytes of a prompt
 * are read twice at most, however its brackets stand. */
static bool take_group(reader *r, int parent) {
    const size_t at = r->at;
    const int count = r->count;
    const node before = r->nodes[parent];
    if (r->failed[at]) return false;
    if (r->depth == DEPTH_MAX) {
        r->too_deep = r->no_reading = true;
        return false;
    }
    r->depth++;
    const bool ok = r->text[at] == '(' ? take_round(r, parent) : take_square(r, parent);
    r->depth--;
    if (ok) return true;
    r->failed[at] = true;
    r->at = at;
    r->count = count;
    r->nodes[parent] = before;
    if (before.last_child != NODE_NONE) r->nodes[before.last_child].next = NODE_NONE;
    return false;
}

/* The whole part: brackets and colons without a partner are text here. Returns the root. */
static int take_all(reader *r) {
    const int root = add_node(r, NODE_NONE, NODE_LIST);
    while (!r->no_reading && r->at < r->end) {
        const char c = peek(r);
        if (c == '|')
            r->no_reading = true;
        else if (c == ')' || c == ']' || c == ':')
            take_char(r, root);
        else if (c != '(' && c != '[')
            take_plain(r, root);
        else if (!take_group(r, root) && !r->no_reading)
            take_char(r, root);
    }
    return root;
}

/* --- Writing it out ---------------------------------------------------------------------------------------------- */

static void write_at(const reader *r, int n, int call, buf *out) {
    const node *at = &r->nodes[n];
    int child = at->child;
    switch (at->kind) {
    case NODE_TEXT:
        buf_append(out, r->text + at->from, at->to - at->from);
        break;
    case NODE_LIST:
        for (; child != NODE_NONE; child = r->nodes[child].next) write_at(r, child, call, out);
        break;
    case NODE_EDIT:
        write_at(r, call <= at->when ? child : r->nodes[child].next, call, out);
        break;
    case NODE_TURN: {
        int options = 0;
        for (int i = child; i != NODE_NONE; i = r->nodes[i].next) options++;
        for (int i = (call - 1) % options; i > 0; i--) child = r->nodes[child].next;
        write_at(r, child, call, out);
        break;
    }
    }
}

/* changes: [calls + 1], where something ends. */
static void find_changes(const reader *r, bool *changes) {
    changes[r->span->calls] = true;
    for (int i = 0; i < r->count; i++) {
        const node *n = &r->nodes[i];
        if (n->kind == NODE_EDIT && n->when) changes[n->when] = true;
        for (int c = 1; n->kind == NODE_TURN && c <= r->span->calls; c++) changes[c] = true;
    }
}

/* --- The plan ---------------------------------------------------------------------------------------------------- */

static int add_plan_text(prompt_plan *p, const char *text) {
    for (int i = 0; i < p->text_count; i++)
        if (str_eq(p->texts[i], text)) return i;
    p->texts = mem_resize(p->texts, ((size_t)p->text_count + 1) * sizeof *p->texts);
    p->texts[p->text_count] = str_dup(text);
    return p->text_count++;
}

static void add_piece(prompt_plan *p, plan_part *part, int until, const char *text) {
    const int index = add_plan_text(p, text);
    plan_piece *last = part->count ? &part->pieces[part->count - 1] : NULL;
    if (last && last->text == index) {
        last->until = until;
        return;
    }
    part->pieces = mem_resize(part->pieces, ((size_t)part->count + 1) * sizeof *part->pieces);
    part->pieces[part->count++] = (plan_piece){until, index};
}

static void write_pieces(const reader *r, int root, prompt_plan *p, plan_part *part) {
    bool *changes = mem_alloc((size_t)r->span->calls + 1, sizeof *changes);
    buf text;
    buf_init(&text, PROMPT_MAX_BYTES);
    find_changes(r, changes);
    for (int c = 1; c <= r->span->calls; c++) {
        if (!changes[c]) continue;
        buf_clear(&text);
        write_at(r, root, c, &text);
        add_piece(p, part, c, buf_str(&text));
    }
    buf_free(&text);
    free(changes);
}

static bool add_part(prompt_plan *p, const char *text, size_t len, float weight, const plan_span *span, err *e) {
    if (p->count == PROMPT_PLAN_PARTS)
        return err_set(e, ERR_TOO_LARGE, "the prompt has more than %d parts with AND between", PROMPT_PLAN_PARTS);
    p->parts = mem_resize(p->parts, ((size_t)p->count + 1) * sizeof *p->parts);
    plan_part *part = &p->parts[p->count++];
    *part = (plan_part){.weight = weight};
    reader r = {.text = text, .end = len, .span = span, .failed = mem_alloc(len + 1, sizeof(bool))};
    const int root = take_all(&r);
    if (r.no_reading) {
        char *plain = str_ndup(text, len);
        add_piece(p, part, span->calls, plain);
        free(plain);
    } else {
        write_pieces(&r, root, p, part);
    }
    free(r.nodes);
    free(r.failed);
    return !r.too_deep || err_set(e, ERR_TOO_LARGE, "the prompt has brackets more than %d deep", DEPTH_MAX);
}

/* --- AND --------------------------------------------------------------------------------------------------------- */

/* The next AND from `text` on, or NULL; `start` is where the prompt begins. */
static const char *find_and(const char *start, const char *text) {
    for (const char *p = strstr(text, "AND"); p; p = strstr(p + 3, "AND")) {
        if (prompt_is_word(start, p, 3)) return p;
    }
    return NULL;
}

/* "text :0.5" -> the length of "text", and 0.5. Without a weight: the whole, and 1. */
static size_t cut_weight(const char *text, size_t len, double *weight) {
    size_t to = len, colon;
    *weight = 1;
    while (to && is_space(text[to - 1])) to--;
    for (colon = to; colon && text[colon - 1] != ':'; colon--) continue;
    if (!colon) return len;
    size_t from = colon;
    while (from < to && is_space(text[from])) from++;
    char number[NUMBER_MAX] = "";
    if (from == to || to - from >= sizeof number) return len;
    memcpy(number, text + from, to - from);
    if (strspn(number, "+-.0123456789") != to - from) return len;
    return str_to_f64(number, weight) ? colon - 1 : len;
}

static bool add_weighted(prompt_plan *p, const char *text, size_t len, const plan_span *span, err *e) {
    double weight;
    const size_t n = cut_weight(text, len, &weight);
    if (weight < -WEIGHT_MAX || weight > WEIGHT_MAX)
        return err_set(e, ERR_INVALID, "AND: the weight %g is not between -%d and %d", weight, WEIGHT_MAX, WEIGHT_MAX);
    return add_part(p, text, n, (float)weight, span, e);
}

bool prompt_plan_parse(prompt_plan *p, const char *text, const plan_span *span, err *e) {
    if (strlen(text) > PROMPT_MAX_BYTES)
        return err_set(e, ERR_TOO_LARGE, "the prompt is longer than %d bytes", PROMPT_MAX_BYTES);
    prompt_plan out = {0};
    const bool composed = span->compose && find_and(text, text);
    bool ok = composed || add_part(&out, text, strlen(text), 1, span, e);
    for (const char *at = composed ? text : NULL; ok && at;) {
        const char *next = find_and(text, at);
        ok = add_weighted(&out, at, next ? (size_t)(next - at) : strlen(at), span, e);
        at = next ? next + 3 : NULL;
    }
    if (ok)
        *p = out;
    else
        prompt_plan_free(&out);
    return ok;
}

void prompt_plan_free(prompt_plan *p) {
    for (int i = 0; i < p->count; i++) free(p->parts[i].pieces);
    for (int i = 0; i < p->text_count; i++) free(p->texts[i]);
    free(p->parts);
    free(p->texts);
    *p = (prompt_plan){0};
}

int plan_part_at(const plan_part *part, int call) {
    int i = 0;
    while (i + 1 < part->count && call > part->pieces[i].until) i++;
    return i;
}
