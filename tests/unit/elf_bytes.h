/* elf_bytes.h - for tests: a small ELF file with a few functions, built in memory.
 *
 * Header, .symtab, .strtab, section headers, in this order; no code. */
#ifndef MYSTI_TESTS_ELF_BYTES_H
#define MYSTI_TESTS_ELF_BYTES_H

#include <stdint.h>
#include <string.h>

enum { ELF_HEADER = 64, ELF_SYMBOL = 24, ELF_BYTES_MAX = 4096 };

typedef struct elf_bytes {
    unsigned char data[ELF_BYTES_MAX];
    size_t len;
    size_t symbols, names, sections; /* where they begin */
} elf_bytes;

typedef struct elf_entry {
    const char *name;
    int kind, bind; /* STT_*, STB_* */
    uint64_t value, size;
} elf_entry;

static inline void elf_put(unsigned char *at, uint64_t n, int bytes) {
    for (int i = 0; i < bytes; i++) at[i] = (unsigned char)(n >> 8 * i);
}

static inline void elf_section(elf_bytes *b, uint32_t type, size_t offset, size_t size, uint32_t link) {
    unsigned char *p = b->data + b->len;
    elf_put(p + 4, type, 4);
    elf_put(p + 24, offset, 8);
    elf_put(p + 32, size, 8);
    elf_put(p + 40, link, 4);
    b->len += 64;
}

static inline void elf_build(elf_bytes *b, const elf_entry *entries, size_t count) {
    memset(b, 0, sizeof *b);
    b->symbols = ELF_HEADER;
    b->names = b->len = b->symbols + count * ELF_SYMBOL;
    b->len++; /* the empty name */
    for (size_t i = 0; i < count; i++) {
        unsigned char *p = b->data + b->symbols + i * ELF_SYMBOL;
        elf_put(p, b->len - b->names, 4);
        p[4] = (unsigned char)(entries[i].bind << 4 | entries[i].kind);
        elf_put(p + 6, 1, 2); /* it is defined, in section 1 */
        elf_put(p + 8, entries[i].value, 8);
        elf_put(p + 16, entries[i].size, 8);
        memcpy(b->data + b->len, entries[i].name, strlen(entries[i].name) + 1);
        b->len += strlen(entries[i].name) + 1;
    }
    size_t names_len = b->len - b->names;
    b->sections = b->len = (b->len + 7) / 8 * 8;
    elf_section(b, 0, 0, 0, 0);
    elf_section(b, 2, b->symbols, count * ELF_SYMBOL, 2);
    elf_section(b, 3, b->names, names_len, 0);
    memcpy(b->data, "\177ELF\2\1\1", 7);
    elf_put(b->data + 40, b->sections, 8);
    elf_put(b->data + 58, 64, 2);
    elf_put(b->data + 60, 3, 2);
}

#endif
