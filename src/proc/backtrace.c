/* backtrace.c - see backtrace.h. */
#include "proc/backtrace.h"

#include "base/file.h"
#include "base/path.h"
#include "base/str.h"
#include "proc/elf_symbols.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { FRAMES_MAX = 64, MODULES_MAX = 16, NAME_MAX_BYTES = 200 };

/* A program file or library that frames lie in. */
typedef struct module {
    char *path;
    elf_symbols *symbols; /* NULL: it has none for us */
} module;

typedef struct naming {
    module modules[MODULES_MAX];
    size_t module_count;
    int64_t started_ms;
} naming;

/* One line of backtrace_symbols_fd(): PATH(+0xOFFSET)[0xADDRESS] or PATH(NAME+0xOFFSET)[0xADDRESS]. */
typedef struct frame {
    char *path, *name; /* name: "" when there is none, and offset counts from the beginning of the module */
    uint64_t offset;
} frame;

/* ---- reading ---------------------------------------------------------------------------------------------------- */

static bool read_frame(frame *f, const char *line, size_t len) {
    const char *end = line + len, *open = end, *plus = NULL;
    while (open > line && open[-1] != '(') open--;
    for (const char *p = open; p < end && *p != ')'; p++)
        if (*p == '+') plus = p;
    if (open - line < 2 || !plus || end - plus < 4 || plus[1] != '0' || plus[2] != 'x') return false;
    char *stop;
    uint64_t offset = strtoull(plus + 1, &stop, 16); /* every line ends with a byte that is no digit */
    if (stop >= end || stop[0] != ')') return false;
    *f = (frame){.path = str_ndup(line, (size_t)(open - 1 - line)),
                 .name = str_ndup(open, (size_t)(plus - open)),
                 .offset = offset};
    return true;
}

static size_t read_frames(const char *lines, frame frames[FRAMES_MAX]) {
    const char *at = NULL;
    for (const char *p = lines; (p = strstr(p, " crashed: signal ")); p++) at = p; /* the last one */
    size_t count = 0;
    while (at && (at = strchr(at, '\n')) && count < FRAMES_MAX) {
        at++;
        if (read_frame(&frames[count], at, strcspn(at, "\n"))) count++;
    }
    return count;
}

/* ---- looking up ------------------------------------------------------------------------------------------------- */

/* The path comes from the process that crashed: nothing but a file is opened. */
static elf_symbols *open_symbols(const char *path, int64_t started_ms) {
    struct stat st;
    file_info info;
    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode)) return NULL;
    if (!file_stat(path, &info, NULL) || info.mtime_ms > started_ms) return NULL;
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    elf_symbols *s = elf_symbols_read(f, NULL);
    fclose(f);
    return s;
}

static const elf_symbols *symbols_of(naming *n, const char *path) {
    for (size_t i = 0; i < n->module_count; i++)
        if (str_eq(n->modules[i].path, path)) return n->modules[i].symbols;
    if (n->module_count == MODULES_MAX) return NULL;
    module *m = &n->modules[n->module_count++];
    *m = (module){.path = str_dup(path), .symbols = open_symbols(path, n->started_ms)};
    return m->symbols;
}

/* A return address may stand behind its function, when the call never returns: the call itself is what counts. The
 * frame that a signal interrupted has the address of the instruction itself. */
static bool find_function(naming *n, const frame *f, bool interrupted, elf_function *out) {
    const elf_symbols *s = f->name[0] ? NULL : symbols_of(n, f->path);
    uint64_t back = interrupted || f->offset == 0 ? 0 : 1;
    if (!s || !elf_symbols_find(s, f->offset - back, out)) return false;
    out->offset += back;
    return true;
}

/* The handler itself and the system's way into it are not what anybody looks for. A sanitizer may stand before it. */
static size_t first_frame(naming *n, const frame *frames, size_t count) {
    elf_function found;
    for (size_t i = 0; i < 3 && i + 2 < count; i++)
        if (find_function(n, &frames[i], false, &found) && str_eq(found.name, "on_crash")) return i + 2;
    return 0;
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

/* One <length><identifier> of a mangled name; NULL when there is none. */
static const char *part_of_name(const char *p, size_t *len) {
    size_t n = 0;
    while (*p >= '0' && *p <= '9' && n < NAME_MAX_BYTES) n = n * 10 + (size_t)(*p++ - '0');
    if (n == 0 || n > NAME_MAX_BYTES || strnlen(p, n) < n) return NULL;
    *len = n;
    return p;
}

/* C++ names without their parameters: "_ZN13llama_context6decodeERK11llama_batch" is llama_context::decode. False for
 * C names and for anything beyond plain and nested ones (Itanium C++ ABI, 5.1). */
static bool write_cpp_name(const char *name, buf *out) {
    if (!str_starts(name, "_Z")) return false;
    const char *p = name + 2, *part = NULL;
    bool nested = *p == 'N';
    if (nested) p++;
    while (nested && *p && strchr("rVKRO", *p)) p++; /* of member functions: const, volatile, & */
    size_t len = 0;
    for (bool first = true; nested || first; first = false) {
        if (*p == 'L') p++; /* static */
        const char *next = part_of_name(p, &len);
        if (!next) break;
        buf_printf(out, "%s%.*s", first ? "" : "::", (int)len, next);
        part = next;
        p = next + len;
    }
    bool made = part && nested && (*p == 'C' || *p == 'D'); /* constructor, destructor: named like their class */
    if (made) buf_printf(out, "::%s%.*s", *p == 'D' ? "~" : "", (int)len, part);
    return part && (!nested || made || *p == 'E' || *p == 'I');
}

static void write_name(const char *name, buf *out) {
    buf cpp;
    buf_init(&cpp, 8 * NAME_MAX_BYTES);
    buf_printf(out, "%.*s", NAME_MAX_BYTES, write_cpp_name(name, &cpp) ? buf_str(&cpp) : name);
    buf_free(&cpp);
}

static void write_frame(const frame *f, const elf_function *found, buf *out) {
    const char *name = found ? found->name : f->name, *base = path_base(f->path);
    uint64_t offset = found ? found->offset : f->offset;
    if (*name) {
        write_name(name, out);
        buf_printf(out, "+0x%llx ", (unsigned long long)offset);
    }
    if (found && found->source) buf_printf(out, "(%.*s) ", NAME_MAX_BYTES, found->source);
    if (f->name[0])
        buf_printf(out, "[%s]\n", base);
    else
        buf_printf(out, "[%s+0x%llx]\n", base, (unsigned long long)f->offset);
}

void backtrace_name(const char *lines, int64_t started_ms, buf *out) {
    frame frames[FRAMES_MAX];
    naming n = {.started_ms = started_ms};
    elf_function found;
    size_t count = read_frames(lines, frames), first = first_frame(&n, frames, count);
    for (size_t i = first; i < count; i++) {
        bool known = find_function(&n, &frames[i], i > 0 && i == first, &found);
        write_frame(&frames[i], known ? &found : NULL, out);
    }
    for (size_t i = 0; i < count; i++) {
        free(frames[i].path);
        free(frames[i].name);
    }
    for (size_t i = 0; i < n.module_count; i++) {
        free(n.modules[i].path);
        elf_symbols_free(n.modules[i].symbols);
    }
}
