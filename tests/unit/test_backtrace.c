/* Names for crashed frames: found in real and in made files, and nothing hostile gets further than an error. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/str.h"
#include "elf_bytes.h"
#include "proc/backtrace.h"
#include "proc/elf_symbols.h"

#include <execinfo.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FUNC = 2, FILE_NAME = 4, LOCAL = 0, GLOBAL = 1 };

static const elf_entry entries[] = {
    {"sampler.c", FILE_NAME, LOCAL, 0, 0},
    {"run_euler", FUNC, LOCAL, 0x1000, 0x100},
    {"on_crash", FUNC, LOCAL, 0x5000, 0x80},
    {"diffusion_generate", FUNC, GLOBAL, 0x1100, 0x80},
    {"_ZN13llama_context6decodeERK11llama_batch", FUNC, GLOBAL, 0x2000, 0x10},
    {"_ZNK3foo3barEv", FUNC, GLOBAL, 0x2010, 0x10},
    {"_ZN5modelC2Ev", FUNC, GLOBAL, 0x2020, 0x10},
    {"_ZL9map_namesPKc", FUNC, LOCAL, 0x2030, 0x10},
    {"_ZNSt6vectorIiSaIiEE9push_backERKi", FUNC, GLOBAL, 0x2040, 0x10},
    {"_ZN99999999999999999999xE", FUNC, GLOBAL, 0x2050, 0x10},
    {"never_returns", FUNC, GLOBAL, 0x3000, 0x10},
    {"next_one", FUNC, GLOBAL, 0x3010, 0x10},
    {"a_variable", 1, GLOBAL, 0x4000, 0x10},
};
enum { ENTRIES = sizeof entries / sizeof entries[0] };

static elf_symbols *read_bytes(const unsigned char *data, size_t len, err *e) {
    FILE *f = fmemopen((void *)(uintptr_t)data, len, "rb"); /* only read */
    assert_non_null(f);
    elf_symbols *s = elf_symbols_read(f, e);
    fclose(f);
    return s;
}

/* ---- the table -------------------------------------------------------------------------------------------------- */

static void functions_are_found_by_any_address_in_them(void **state) {
    (void)state;
    elf_bytes b;
    elf_build(&b, entries, ENTRIES);
    err e = {0};
    elf_symbols *s = read_bytes(b.data, b.len, &e);
    if (!s) fail_msg("%s", e.msg);
    elf_function f;
    assert_true(elf_symbols_find(s, 0x1000, &f) && str_eq(f.name, "run_euler") && f.offset == 0);
    assert_string_equal(f.source, "sampler.c");
    assert_true(elf_symbols_find(s, 0x10ff, &f) && str_eq(f.name, "run_euler") && f.offset == 0xff);
    assert_true(elf_symbols_find(s, 0x1100, &f) && str_eq(f.name, "diffusion_generate") && f.offset == 0);
    assert_null(f.source); /* a global name needs none */
    const uint64_t nowhere[] = {0, 0xfff, 0x1180, 0x4000, UINT64_MAX};
    for (size_t i = 0; i < sizeof nowhere / sizeof *nowhere; i++) assert_false(elf_symbols_find(s, nowhere[i], &f));
    elf_symbols_free(s);
}

static void a_damaged_file_is_an_error_or_harmless(void **state) {
    (void)state;
    elf_bytes whole, b;
    elf_build(&whole, entries, ENTRIES);
    for (size_t len = 1; len < whole.len; len++) { /* every truncation: the section headers stand last */
        err e = {0};
        assert_null(read_bytes(whole.data, len, &e));
        assert_true(e.code && e.msg[0]);
    }
    elf_function f;
    for (size_t at = 0; at < whole.len; at++) {
        const unsigned char evil[] = {0, 0x7f, 0xff};
        for (size_t k = 0; k < sizeof evil; k++) {
            b = whole;
            b.data[at] = evil[k];
            err e = {0};
            elf_symbols *s = read_bytes(b.data, b.len, &e);
            assert_true(s || e.code);
            for (uint64_t address = 0xff0; s && address < 0x3020; address += 16)
                if (elf_symbols_find(s, address, &f)) assert_true(strlen(f.name) < b.len);
            elf_symbols_free(s);
        }
    }
}

static void tables_outside_of_the_file_are_refused(void **state) {
    (void)state;
    elf_bytes whole;
    elf_build(&whole, entries, ENTRIES);
    const size_t symtab = whole.sections + 64, strtab = whole.sections + 128;
    const struct {
        size_t at;
        uint64_t value;
        int bytes;
        err_code code;
    } changes[] = {{0, 0, 4, ERR_FORMAT},                    /* the magic */
                   {4, 1, 1, ERR_UNSUPPORTED},               /* 32 bit */
                   {5, 2, 1, ERR_UNSUPPORTED},               /* big endian */
                   {58, 40, 2, ERR_FORMAT},                  /* the size of a section header */
                   {60, 0, 2, ERR_UNSUPPORTED},              /* no sections */
                   {60, 0xffff, 2, ERR_FORMAT},              /* too many */
                   {40, UINT64_MAX - 10, 8, ERR_FORMAT},     /* their place */
                   {symtab + 4, 1, 4, ERR_UNSUPPORTED},      /* no symbols */
                   {symtab + 24, UINT64_MAX, 8, ERR_FORMAT}, /* where the symbols are */
                   {symtab + 32, UINT64_MAX, 8, ERR_FORMAT}, /* how many */
                   {symtab + 32, (uint64_t)1 << 33, 8, ERR_FORMAT},
                   {symtab + 40, 3, 4, ERR_FORMAT}, /* their names: a section that is not there */
                   {symtab + 40, 1, 4, ERR_FORMAT}, /* and one without names */
                   {strtab + 32, UINT64_MAX, 8, ERR_FORMAT}};
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        elf_bytes b = whole;
        elf_put(b.data + changes[i].at, changes[i].value, changes[i].bytes);
        err e = {0};
        assert_null(read_bytes(b.data, b.len, &e));
        assert_int_equal(e.code, changes[i].code);
    }
    elf_bytes b = whole; /* a name outside of the names is none, and a table without an end has one */
    elf_put(b.data + b.symbols + ELF_SYMBOL, UINT32_MAX, 4);
    memset(b.data + strtab + 32, 0, 8);
    elf_put(b.data + strtab + 32, 15, 8); /* ends in the middle of "run_euler" */
    elf_symbols *s = read_bytes(b.data, b.len, NULL);
    elf_function f;
    assert_non_null(s);
    assert_false(elf_symbols_find(s, 0x1000, &f));
    assert_false(elf_symbols_find(s, 0x1100, &f));
    elf_symbols_free(s);
}

/* ---- reports ---------------------------------------------------------------------------------------------------- */

typedef struct file_fixture {
    char path[64];
} file_fixture;

static void write_program(file_fixture *p) {
    elf_bytes b;
    elf_build(&b, entries, ENTRIES);
    strcpy(p->path, "/tmp/mysti-program-XXXXXX");
    int fd = mkstemp(p->path);
    assert_true(fd >= 0 && write(fd, b.data, b.len) == (ssize_t)b.len);
    close(fd);
}

static char *named(const char *report, int64_t started_ms) {
    buf out;
    buf_init(&out, 1 << 16);
    backtrace_name(report, started_ms, &out);
    char *text = str_dup(buf_str(&out));
    buf_free(&out);
    return text;
}

#define HEAD "[12:00:00.000] [ERROR] [sd] p crashed: signal 11 (SIGSEGV) at address 0x0, job none, model none\n"

static void expect_named(const file_fixture *p, const char *offset, const char *expected) {
    char *report = str_fmt(HEAD "%s(+0x%s)[0x55d0]\n", p->path, offset), *text = named(report, INT64_MAX);
    char *line = str_fmt("%s[%s+0x%s]\n", expected, strrchr(p->path, '/') + 1, offset);
    assert_string_equal(text, line);
    free(line);
    free(text);
    free(report);
}

static void frames_get_the_names_that_people_know(void **state) {
    (void)state;
    file_fixture p;
    write_program(&p);
    expect_named(&p, "1010", "run_euler+0x10 (sampler.c) ");
    expect_named(&p, "1101", "diffusion_generate+0x1 ");
    expect_named(&p, "2004", "llama_context::decode+0x4 ");
    expect_named(&p, "2014", "foo::bar+0x4 ");
    expect_named(&p, "2024", "model::model+0x4 ");
    expect_named(&p, "2034", "map_names+0x4 (sampler.c) ");
    expect_named(&p, "2044", "_ZNSt6vectorIiSaIiEE9push_backERKi+0x4 ");
    expect_named(&p, "2054", "_ZN99999999999999999999xE+0x4 ");
    expect_named(&p, "3010", "never_returns+0x10 "); /* the call is its last instruction */
    expect_named(&p, "9999", "");
    remove(p.path);
}

static void the_handlers_own_frames_are_left_out(void **state) {
    (void)state;
    file_fixture p;
    write_program(&p);
    const char *base = strrchr(p.path, '/') + 1;
    /* The interrupted instruction may be the first of its function. */
    char *report = str_fmt(HEAD "%s(+0x5010)[0x1]\n/lib/libc.so.6(+0x3c050)[0x2]\n%s(+0x3010)[0x3]\n"
                                "/lib/libuv.so.1(uv_run+0xfc)[0x4]\n[0x5]\nsomething else\n%s(+0x1020)[0x6]",
                           p.path, p.path, p.path);
    char *text = named(report, INT64_MAX);
    char *expected = str_fmt(
        "next_one+0x0 [%s+0x3010]\nuv_run+0xfc [libuv.so.1]\nrun_euler+0x20 (sampler.c) [%s+0x1020]\n", base, base);
    assert_string_equal(text, expected);
    free(text);
    free(expected);
    text = named(report, clock_wall_ms() - 60000); /* the file is newer than the process: no names, no guesses */
    expected = str_fmt("[%s+0x5010]\n[libc.so.6+0x3c050]\n[%s+0x3010]\nuv_run+0xfc [libuv.so.1]\n[%s+0x1020]\n", base,
                       base, base);
    assert_string_equal(text, expected);
    free(text);
    free(expected);
    free(report);
    remove(p.path);
}

static void strange_reports_are_read_without_harm(void **state) {
    (void)state;
    char fifo[64];
    snprintf(fifo, sizeof fifo, "/tmp/mysti-fifo-%d", (int)getpid());
    assert_int_equal(mkfifo(fifo, 0600), 0);
    char *waits = str_fmt(HEAD "%s(+0x10)[0x1]\n", fifo); /* opening it would wait for ever */
    const struct {
        const char *report;
        size_t lines;
    } cases[] = {{"", 0},
                 {"p(+0x10)[0x1]\n", 0}, /* without a report */
                 {HEAD, 0},
                 {" crashed: signal ", 0},
                 {HEAD "(+0x10)[0x1]\np(+0x)[0x1]\np(+0x10\np(+10)[0x1]\np()[0x1]\n(((((\n))))\n+0x1)\n", 0},
                 {HEAD "/dev/zero(+0x10)[0x1]\n/nonexistent(+0xffffffffffffffffff)[0x1]\n", 2},
                 {HEAD "/a (b)/p(+0x10)[0x1]\n" HEAD "q(f+0x1)[0x1]\n", 1}, /* the last report counts */
                 {waits, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = named(cases[i].report, INT64_MAX);
        size_t lines = 0;
        for (const char *p = text; (p = strchr(p, '\n')); p++) lines++;
        assert_int_equal(lines, cases[i].lines);
        free(text);
    }
    buf many;
    buf_init(&many, 1 << 20);
    buf_puts(&many, HEAD);
    for (int i = 0; i < 1000; i++) buf_printf(&many, "/module/%d(+0x%x)[0x1]\n", i, i);
    char *text = named(buf_str(&many), INT64_MAX);
    assert_true(strlen(text) < 64 * 64);
    free(text);
    buf_free(&many);
    free(waits);
    remove(fifo);
}

__attribute__((noinline)) static void a_static_function(buf *report) {
    void *frames[8];
    int count = backtrace(frames, 8);
    char **lines = backtrace_symbols(frames, count);
    for (int i = 0; i < count; i++) buf_printf(report, "%s\n", lines[i]);
    free(lines);
}

static void a_static_function_of_this_program_has_a_name(void **state) {
    (void)state;
    buf report;
    buf_init(&report, 1 << 16);
    buf_puts(&report, HEAD);
    a_static_function(&report);
    char *text = named(buf_str(&report), clock_wall_ms());
    assert_non_null(strstr(text, "a_static_function+0x"));
    assert_non_null(strstr(text, "a_static_function_of_this_program_has_a_name+0x"));
    assert_non_null(strstr(text, "(test_backtrace.c) [test_backtrace+0x"));
    assert_non_null(strstr(text, "\nmain+0x"));
    free(text);
    buf_free(&report);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(functions_are_found_by_any_address_in_them),
        cmocka_unit_test(a_damaged_file_is_an_error_or_harmless),
        cmocka_unit_test(tables_outside_of_the_file_are_refused),
        cmocka_unit_test(frames_get_the_names_that_people_know),
        cmocka_unit_test(the_handlers_own_frames_are_left_out),
        cmocka_unit_test(strange_reports_are_read_without_harm),
        cmocka_unit_test(a_static_function_of_this_program_has_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
