/* A program file that names are looked up in: whatever is accepted must answer for every address. */
#include "proc/elf_symbols.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look(const elf_symbols *s, uint64_t address, size_t size) {
    elf_function f;
    if (!elf_symbols_find(s, address, &f)) return;
    if (!f.name[0] || strlen(f.name) >= size || f.offset > address) abort();
    if (f.source && strlen(f.source) >= size) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;                                 /* fmemopen() takes no empty file */
    FILE *f = fmemopen((void *)(uintptr_t)data, size, "rb"); /* only read */
    err e = {0};
    elf_symbols *s = elf_symbols_read(f, &e);
    fclose(f);
    if (!s && (!e.code || !e.msg[0])) abort(); /* a refusal says why */
    if (!s) return 0;
    for (size_t at = 0; at + 8 <= size && at < 4096; at += 8) { /* addresses that stand in the file, and near them */
        uint64_t address;
        memcpy(&address, data + at, 8);
        look(s, address, size);
        look(s, address + 1, size);
        look(s, at, size);
    }
    elf_symbols_free(s);
    return 0;
}
