/* elf_symbols.c - see elf_symbols.h. The format: "System V ABI, chapters 4 and 5", ELF-64. */
#include "proc/elf_symbols.h"

#include "base/str.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    HEADER_BYTES = 64,
    SECTION_BYTES = 64, /* of one section header */
    SYMBOL_BYTES = 24,
    TABLE_MAX = 256 << 20,
    TYPE_SYMTAB = 2,
    TYPE_STRTAB = 3,
    TYPE_DYNSYM = 11,
    BIND_LOCAL = 0,
    KIND_FUNCTION = 2,
    KIND_FILE = 4,
    KIND_IFUNC = 10,
};

struct elf_symbols {
    unsigned char *entries; /* SYMBOL_BYTES each, as in the file */
    size_t count;
    char *names; /* with a NUL of our own behind the last byte */
    size_t names_len;
};

typedef struct section {
    uint32_t type, link;
    uint64_t offset, size;
} section;

static uint64_t number(const unsigned char *p, int bytes) {
    uint64_t n = 0;
    while (bytes-- > 0) n = n << 8 | p[bytes];
    return n;
}

static section read_section(const unsigned char *headers, size_t index) {
    const unsigned char *p = headers + index * SECTION_BYTES;
    return (section){.type = (uint32_t)number(p + 4, 4),
                     .offset = number(p + 24, 8),
                     .size = number(p + 32, 8),
                     .link = (uint32_t)number(p + 40, 4)};
}

/* A part of the file with a zero byte behind it; freed by the caller. */
static unsigned char *read_part(FILE *f, long file_size, uint64_t offset, uint64_t size, err *e) {
    if (size > TABLE_MAX || offset > (uint64_t)file_size || size > (uint64_t)file_size - offset) {
        err_set(e, ERR_FORMAT, "a table lies outside of the file");
        return NULL;
    }
    unsigned char *data = mem_alloc((size_t)size + 1, 1);
    if (fseek(f, (long)offset, SEEK_SET) == 0 && fread(data, 1, (size_t)size, f) == size) return data;
    err_set(e, ERR_IO, "the file ended early");
    free(data);
    return NULL;
}

static bool check_header(const unsigned char *h, err *e) {
    if (memcmp(h, "\177ELF", 4) != 0) return err_set(e, ERR_FORMAT, "not an ELF file");
    if (h[4] != 2 || h[5] != 1) return err_set(e, ERR_UNSUPPORTED, "not a 64 bit, little endian ELF file");
    if (number(h + 58, 2) != SECTION_BYTES) return err_set(e, ERR_FORMAT, "strange section headers");
    return true;
}

/* The fuller table of the two. */
static bool find_table(const unsigned char *headers, size_t count, section *table, section *names, err *e) {
    bool found = false;
    for (size_t i = 0; i < count; i++) {
        section s = read_section(headers, i);
        if (s.type != TYPE_SYMTAB && (s.type != TYPE_DYNSYM || found)) continue;
        *table = s;
        found = true;
        if (s.type == TYPE_SYMTAB) break;
    }
    if (!found) return err_set(e, ERR_UNSUPPORTED, "it has no symbols");
    if (table->link >= count) return err_set(e, ERR_FORMAT, "symbols without names");
    *names = read_section(headers, table->link);
    if (names->type != TYPE_STRTAB) return err_set(e, ERR_FORMAT, "symbols without names");
    return true;
}

static bool read_tables(elf_symbols *s, FILE *f, long size, const unsigned char *header, err *e) {
    size_t count = (size_t)number(header + 60, 2);
    unsigned char *headers = read_part(f, size, number(header + 40, 8), count * SECTION_BYTES, e);
    if (!headers) return false;
    section table = {0}, names = {0};
    bool ok = find_table(headers, count, &table, &names, e);
    free(headers);
    if (!ok) return false;
    s->count = (size_t)(table.size / SYMBOL_BYTES);
    s->names_len = (size_t)names.size;
    s->entries = read_part(f, size, table.offset, table.size, e);
    s->names = s->entries ? (char *)read_part(f, size, names.offset, names.size, e) : NULL;
    return s->names != NULL;
}

static bool file_size(FILE *f, long *size, err *e) {
    if (fseek(f, 0, SEEK_END) != 0 || (*size = ftell(f)) < 0) return err_sys(e, errno, "seek");
    return true;
}

elf_symbols *elf_symbols_read(FILE *f, err *e) {
    long size = 0;
    if (!file_size(f, &size, e)) return NULL;
    unsigned char *header = read_part(f, size, 0, HEADER_BYTES, e);
    elf_symbols *s = mem_alloc(1, sizeof *s);
    bool ok = header && check_header(header, e) && read_tables(s, f, size, header, e);
    free(header);
    if (ok) return s;
    elf_symbols_free(s);
    return NULL;
}

void elf_symbols_free(elf_symbols *s) {
    if (!s) return;
    free(s->entries);
    free(s->names);
    free(s);
}

/* "" for an offset outside of the table. */
static const char *name_at(const elf_symbols *s, const unsigned char *entry) {
    uint64_t offset = number(entry, 4);
    return offset < s->names_len ? s->names + offset : "";
}

bool elf_symbols_find(const elf_symbols *s, uint64_t address, elf_function *out) {
    const char *source = NULL; /* each file's local symbols stand behind its name */
    for (size_t i = 0; i < s->count; i++) {
        const unsigned char *entry = s->entries + i * SYMBOL_BYTES;
        int kind = entry[4] & 15, bind = entry[4] >> 4;
        if (kind == KIND_FILE) source = name_at(s, entry);
        if (kind != KIND_FUNCTION && kind != KIND_IFUNC) continue;
        uint64_t start = number(entry + 8, 8), size = number(entry + 16, 8);
        bool defined = number(entry + 6, 2) != 0;
        if (!defined || address < start || address - start >= size || !*name_at(s, entry)) continue;
        *out = (elf_function){.name = name_at(s, entry), .offset = address - start};
        if (bind == BIND_LOCAL && source && *source) out->source = source;
        return true;
    }
    return false;
}
