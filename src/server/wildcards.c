/* wildcards.c - see wildcards.h. One reader walks over a text and writes what it says; what a choice or a line says is
 * walked over likewise, one level deeper. */
#include "server/wildcards.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/path.h"
#include "base/str.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_MAX = 4 << 20, PICKS_MAX = 2000, NAME_MAX_LEN = 200, OPTIONS_MAX = 1 << 18 };
static const double weight_max = 1e6;

/* A piece of text that may be chosen; borrowed. */
typedef struct option {
    const char *at;
    size_t len;
    double weight;
} option;

typedef struct options {
    option *items; /* owned */
    size_t count;
} options;

/* One file that was read. */
typedef struct word_file {
    char *name;
    char *text;
    options lines;
} word_file;

struct wildcards {
    char *folders[WILDCARDS_FOLDERS];
    word_file **files;
    size_t count;
};

typedef struct run {
    wildcards *w;
    uint64_t state; /* of the generator */
    buf *out;
    int picks;
    err *e;
} run;

static bool expand(run *r, const char *text, size_t len, int depth);

/* --- chance ------------------------------------------------------------------------------------------------------ */

/* SplitMix64 (Steele, Lea, Flood 2014): 0 <= x < 1, in steps of 2^-53. */
static double draw(run *r) {
    uint64_t z = r->state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

/* By weight, and by nothing where all of them are 0. */
static size_t pick(run *r, const options *from) {
    double sum = 0, at = draw(r);
    for (size_t i = 0; i < from->count; i++) sum += from->items[i].weight;
    if (sum <= 0) return (size_t)(at * (double)from->count);
    at *= sum;
    size_t last = 0;
    for (size_t i = 0; i < from->count; i++) {
        if (from->items[i].weight <= 0) continue;
        last = i;
        if (at < from->items[i].weight) return i;
        at -= from->items[i].weight;
    }
    return last; /* the sum was rounded */
}

/* --- options ----------------------------------------------------------------------------------------------------- */

/* "2::a" is "a" with weight 2. */
static void add_option(options *list, const char *at, size_t len) {
    if (list->count == OPTIONS_MAX) return;
    option o = {at, len, 1};
    const size_t blank = strspn(at, " \t"), digits = strspn(at + blank, "0123456789.");
    char number[32];
    double weight;
    if (digits && digits < sizeof number && blank + digits + 2 <= len && strncmp(at + blank + digits, "::", 2) == 0) {
        memcpy(number, at + blank, digits);
        number[digits] = 0;
        if (str_to_f64(number, &weight) && weight <= weight_max) {
            o.weight = weight;
            o.at += blank + digits + 2;
            o.len -= blank + digits + 2;
        }
    }
    if ((list->count & (list->count - 1)) == 0)
        list->items = mem_resize(list->items, (list->count ? 2 * list->count : 1) * sizeof *list->items);
    list->items[list->count++] = o;
}

static options copy_options(const options *from) {
    options to = {mem_alloc(from->count + 1, sizeof *to.items), from->count};
    if (from->count) memcpy(to.items, from->items, from->count * sizeof *to.items);
    return to;
}

/* --- files ------------------------------------------------------------------------------------------------------- */

static bool is_blank(char c) {
    return c == ' ' || c == '\t' || c == '\r';
}

static void cut_lines(word_file *f) {
    const char *at = f->text;
    if (str_starts(at, "\xEF\xBB\xBF")) at += 3;
    while (*at) {
        const size_t all = strcspn(at, "\n");
        size_t from = 0, to = all;
        while (from < to && is_blank(at[from])) from++;
        while (to > from && is_blank(at[to - 1])) to--;
        if (to > from && at[from] != '#') add_option(&f->lines, at + from, to - from);
        at += all + (at[all] == '\n');
    }
}

static bool collect_stem(void *ctx, const char *name) {
    options *names = ctx; /* here: names, owned */
    if (!str_iends(name, ".txt") || names->count == OPTIONS_MAX) return true;
    char *stem = path_stem(name);
    add_option(names, stem, strlen(stem));
    return true;
}

/* The nearest name in the folder where it should be; owned, or NULL. */
static char *nearest(const wildcards *w, const char *name) {
    options names = {0};
    const size_t inner = (size_t)(path_base(name) - name);
    for (int i = 0; i < WILDCARDS_FOLDERS; i++) {
        char *below = str_ndup(name, inner ? inner - 1 : 0);
        char *dir = inner ? path_resolve_below(w->folders[i], below, NULL) : str_dup(w->folders[i]);
        if (dir) file_list_dir(dir, collect_stem, &names, NULL);
        free(dir);
        free(below);
    }
    const char **all = mem_alloc(names.count + 1, sizeof *all);
    for (size_t i = 0; i < names.count; i++) all[i] = names.items[i].at;
    const char *near = str_nearest(name + inner, all, names.count);
    char *found = near ? str_fmt("%.*s%s", (int)inner, name, near) : NULL;
    for (size_t i = 0; i < names.count; i++) free((char *)(uintptr_t)all[i]);
    free(all);
    free(names.items);
    return found;
}

static bool unknown(run *r, const char *name) {
    char *near = nearest(r->w, name);
    err_set(r->e, ERR_INVALID,
            near ? "there is no wildcard '__%.60s__'; did you mean '__%.60s__'?"
                 : "there is no wildcard '__%.60s__': no file of that name with .txt in wildcards/",
            name, near);
    free(near);
    return false;
}

static bool read_text(const char *path, const char *name, char **out, err *e) {
    buf text;
    buf_init(&text, FILE_MAX);
    bool ok = file_read(path, &text, e);
    if (ok && (!str_is_utf8(buf_str(&text), text.len) || strlen(buf_str(&text)) != text.len))
        ok = err_set(e, ERR_FORMAT, "it is not UTF-8 text");
    if (ok) *out = str_dup(buf_str(&text));
    buf_free(&text);
    return ok || err_wrap(e, "wildcard '__%.60s__'", name);
}

/* NULL when it is in no folder (ERR_NOT_FOUND or ERR_DENIED in `why`), or cannot be read (another code). */
static char *find_text(const wildcards *w, const char *name, err *why) {
    char *file = str_fmt("%s.txt", name), *text = NULL;
    for (int i = 0; i < WILDCARDS_FOLDERS && !text; i++) {
        *why = (err){0};
        char *path = path_resolve_below(w->folders[i], file, why);
        const bool found = path && read_text(path, name, &text, why);
        free(path);
        if (!found && why->code != ERR_NOT_FOUND && why->code != ERR_DENIED) break;
    }
    free(file);
    return text;
}

static const word_file *get_file(run *r, const char *name) {
    wildcards *w = r->w;
    for (size_t i = 0; i < w->count; i++)
        if (str_eq(w->files[i]->name, name)) return w->files[i];
    err why = {0};
    char *text = find_text(w, name, &why);
    if (!text) {
        if (why.code == ERR_NOT_FOUND || why.code == ERR_DENIED)
            unknown(r, name);
        else if (r->e)
            *r->e = why;
        return NULL;
    }
    word_file *f = mem_alloc(1, sizeof *f);
    *f = (word_file){.name = str_dup(name), .text = text};
    cut_lines(f);
    w->files = mem_resize(w->files, (w->count + 1) * sizeof *w->files);
    w->files[w->count++] = f;
    return f;
}

static bool is_name_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c & 0x80 || strchr("_-./ ", c);
}

/* "__name__" at the start: the bytes that it takes; 0 when there is none. */
static size_t read_name(const char *text, size_t len, char name[NAME_MAX_LEN + 1]) {
    if (len < 5 || strncmp(text, "__", 2) != 0) return 0;
    size_t n = 0;
    while (2 + n < len && is_name_char(text[2 + n]) && !(n && 2 + n + 1 < len && strncmp(text + 2 + n, "__", 2) == 0))
        n++;
    if (n == 0 || n > NAME_MAX_LEN || 2 + n + 2 > len || strncmp(text + 2 + n, "__", 2) != 0) return 0;
    if (text[2] == ' ' || text[2 + n - 1] == ' ' || text[2] == '_') return 0;
    memcpy(name, text + 2, n);
    name[n] = 0;
    return n + 4;
}

/* The lines of a wildcard; NULL with the reason. */
static const options *lines_of(run *r, const char *name) {
    const word_file *f = get_file(r, name);
    if (f && !f->lines.count) {
        err_set(r->e, ERR_INVALID, "the wildcard '__%.60s__' has no lines", name);
        return NULL;
    }
    return f ? &f->lines : NULL;
}

/* --- choices ----------------------------------------------------------------------------------------------------- */

/* For each '{' of the text where its '}' is; 0: nowhere, it is text. Escaped ones do not count. Free with free(). */
static size_t *match_braces(const char *text, size_t len) {
    size_t *match = mem_alloc(len + 1, sizeof *match),
           top = 0; /* the last open one, behind it; it knows the one before */
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '\\') {
            i++;
        } else if (text[i] == '{') {
            match[i] = top;
            top = i + 1;
        } else if (text[i] == '}' && top) {
            const size_t open = top - 1;
            top = match[open];
            match[open] = i;
        }
    }
    while (top) {
        const size_t open = top - 1;
        top = match[open];
        match[open] = 0;
    }
    return match;
}

/* The next '|' within braces that belongs to them, or len. */
static size_t next_bar(const char *text, size_t len) {
    int braces = 0, squares = 0;
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '|' && !braces && !squares) return i;
        if (text[i] == '\\')
            i++;
        else if (text[i] == '{')
            braces++;
        else if (text[i] == '}')
            braces--;
        else if (text[i] == '[')
            squares++;
        else if (text[i] == ']' && squares)
            squares--;
    }
    return len;
}

/* What stands between braces. */
typedef struct choice {
    options from; /* owned */
    int least, most;
    const char *between;
    size_t between_len;
} choice;

/* Where "$$" stands in text[0, len); len: nowhere. */
static size_t find_dollars(const char *text, size_t len) {
    for (size_t i = 0; i + 1 < len; i++)
        if (text[i] == '$' && text[i + 1] == '$') return i;
    return len;
}

static int read_count(const char **at) {
    int n = 0;
    while (**at >= '0' && **at <= '9') n = n < 1000 ? 10 * n + (*(*at)++ - '0') : (++*at, n);
    return n;
}

/* "2$$", "1-3$$", "2$$ and $$" at the start: the bytes that they take. */
static size_t read_counts(choice *c, const char *text, size_t len) {
    const size_t first = find_dollars(text, next_bar(text, len)), head = strspn(text, "0123456789-");
    if (first == next_bar(text, len) || head != first || head == 0) return 0;
    const char *at = text;
    c->least = c->most = read_count(&at);
    if (*at == '-') {
        at++;
        c->most = read_count(&at);
    }
    if (at != text + first || c->most < c->least) return 0;
    const char *rest = text + first + 2;
    const size_t left = len - first - 2, bar = next_bar(rest, left), second = find_dollars(rest, bar);
    if (second == bar) return first + 2;
    c->between = rest;
    c->between_len = second;
    return first + 2 + second + 2;
}

/* False when the braces are text. */
static bool read_choice(choice *c, const char *text, size_t len) {
    *c = (choice){.least = 1, .most = 1, .between = ", ", .between_len = 2};
    const size_t head = read_counts(c, text, len);
    if (!head && next_bar(text, len) == len) return false;
    for (size_t at = head;;) {
        const size_t bar = next_bar(text + at, len - at);
        add_option(&c->from, text + at, bar);
        at += bar + 1;
        if (at > len) return true;
    }
}

/* A single option that is a wildcard: its lines are the options. */
static bool open_wildcard(run *r, choice *c) {
    char name[NAME_MAX_LEN + 1];
    if (c->from.count != 1 || read_name(c->from.items[0].at, c->from.items[0].len, name) != c->from.items[0].len)
        return true;
    const options *lines = lines_of(r, name);
    if (!lines) return false;
    free(c->from.items);
    c->from = copy_options(lines);
    return true;
}

static bool write_choice(run *r, choice *c, int depth) {
    if (!open_wildcard(r, c)) return false;
    int count = c->least + (c->most > c->least ? (int)(draw(r) * (c->most - c->least + 1)) : 0);
    for (int i = 0; i < count && c->from.count; i++) {
        const size_t n = pick(r, &c->from);
        const option o = c->from.items[n];
        c->from.count--; /* each once */
        memmove(c->from.items + n, c->from.items + n + 1, (c->from.count - n) * sizeof o);
        if (i) buf_append(r->out, c->between, c->between_len);
        if (!expand(r, o.at, o.len, depth + 1)) return false;
    }
    return true;
}

/* --- the text ---------------------------------------------------------------------------------------------------- */

static bool write_wildcard(run *r, const char *name, int depth) {
    if (depth >= WILDCARDS_DEPTH_MAX)
        return err_set(r->e, ERR_INVALID, "wildcards are more than %d deep in each other, the last is '__%.60s__'",
                       WILDCARDS_DEPTH_MAX, name);
    const options *lines = lines_of(r, name);
    if (!lines) return false;
    const option o = lines->items[pick(r, lines)];
    return expand(r, o.at, o.len, depth + 1);
}

/* What stands between braces, len bytes; *taken: what the braces take, 0 when they are text. */
static bool take_choice(run *r, const char *text, size_t len, int depth, size_t *taken) {
    choice c;
    *taken = 0;
    if (!read_choice(&c, text, len)) return true;
    *taken = len + 2;
    bool ok = depth < WILDCARDS_DEPTH_MAX ||
              err_set(r->e, ERR_INVALID, "choices are more than %d deep in each other", WILDCARDS_DEPTH_MAX);
    ok = ok && write_choice(r, &c, depth);
    free(c.from.items);
    return ok;
}

/* "\{" is "{", "\__" is "__"; other backslashes are A1111's. Bytes taken, or 0. */
static size_t take_escape(run *r, const char *text, size_t len) {
    if (len < 2 || text[0] != '\\') return 0;
    if (len >= 3 && strncmp(text + 1, "__", 2) == 0) {
        buf_puts(r->out, "__");
        return 3;
    }
    if (text[1] != '{' && text[1] != '}') buf_putc(r->out, text[0]);
    buf_putc(r->out, text[1]);
    return 2;
}

static bool is_tag(const char *text, size_t len) {
    return len > 6 && (strncmp(text, "<lora:", 6) == 0 || strncmp(text, "<lyco:", 6) == 0);
}

/* What begins at text[i]; *taken: its bytes, at least one. match: of match_braces(). */
static bool take_one(run *r, const char *text, size_t len, size_t i, const size_t *match, bool in_tag, int depth,
                     size_t *taken) {
    char name[NAME_MAX_LEN + 1];
    *taken = take_escape(r, text + i, len - i);
    if (*taken) return true;
    if (match[i]) {
        if (!take_choice(r, text + i + 1, match[i] - i - 1, depth, taken)) return false;
        if (*taken) return true;
    }
    *taken = in_tag ? 0 : read_name(text + i, len - i, name);
    if (*taken) return write_wildcard(r, name, depth);
    buf_putc(r->out, text[i]);
    *taken = 1;
    return true;
}

static bool expand(run *r, const char *text, size_t len, int depth) {
    if (++r->picks > PICKS_MAX) return err_set(r->e, ERR_TOO_LARGE, "more than %d choices in one prompt", PICKS_MAX);
    size_t *match = match_braces(text, len);
    bool ok = true, in_tag = false;
    for (size_t i = 0, taken; ok && i < len && !r->out->full; i += taken) {
        in_tag = in_tag ? text[i] != '>' : is_tag(text + i, len - i);
        ok = take_one(r, text, len, i, match, in_tag, depth, &taken);
    }
    free(match);
    return ok;
}

bool wildcards_are_in(const char *text) {
    return strchr(text, '{') || strstr(text, "__");
}

char *wildcards_resolve(wildcards *w, const char *text, uint64_t seed, size_t max, err *e) {
    buf out;
    buf_init(&out, max);
    run r = {.w = w, .state = seed, .out = &out, .e = e};
    bool ok = expand(&r, text, strlen(text), 0);
    if (ok && out.full) ok = err_set(e, ERR_TOO_LARGE, "with its wildcards resolved it is longer than %zu bytes", max);
    char *result = ok ? str_dup(buf_str(&out)) : NULL;
    buf_free(&out);
    return result;
}

wildcards *wildcards_open(const char *const folders[WILDCARDS_FOLDERS]) {
    wildcards *w = mem_alloc(1, sizeof *w);
    for (int i = 0; i < WILDCARDS_FOLDERS; i++) w->folders[i] = str_dup(folders[i]);
    return w;
}

void wildcards_close(wildcards *w) {
    if (!w) return;
    for (size_t i = 0; i < w->count; i++) {
        free(w->files[i]->name);
        free(w->files[i]->text);
        free(w->files[i]->lines.items);
        free(w->files[i]);
    }
    for (int i = 0; i < WILDCARDS_FOLDERS; i++) free(w->folders[i]);
    free(w->files);
    free(w);
}
