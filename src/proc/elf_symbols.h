/* elf_symbols.h - which function an address of a program file belongs to: its .symtab (static functions too), or the
 * .dynsym of a stripped one. 64 bit, little endian ELF.
 *
 * The file is untrusted: everything read from it is checked. It is read, not mapped, so that one that shrinks meanwhile
 * cannot end the process. Takes as much memory as the tables in the file (a megabyte for our programs). */
#ifndef MYSTI_PROC_ELF_SYMBOLS_H
#define MYSTI_PROC_ELF_SYMBOLS_H

#include "base/err.h"

#include <stdint.h>
#include <stdio.h>

typedef struct elf_symbols elf_symbols;

/* NULL on failure: ERR_FORMAT for a file that is damaged or no ELF file, ERR_UNSUPPORTED for other kinds of ELF and
 * one without symbols. `f` is borrowed for the call and must be seekable. */
elf_symbols *elf_symbols_read(FILE *f, err *e);
void elf_symbols_free(elf_symbols *s); /* NULL is fine */

/* Names are borrowed from the table and may hold any bytes but NUL. */
typedef struct elf_function {
    const char *name;
    const char *source; /* "sampler.c" of a static function, else NULL */
    uint64_t offset;    /* of the address, from the function's beginning */
} elf_function;

/* The function that holds this address (as in the file: relative to where it was loaded). */
bool elf_symbols_find(const elf_symbols *s, uint64_t address, elf_function *out);

#endif
