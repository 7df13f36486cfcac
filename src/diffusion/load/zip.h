/* zip.h - the table of contents of a zip archive, for archives whose members lie in it as they are (torch.save's).
 *
 * Format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, with its 64-bit form; one disk, nothing
 * encrypted. Compressed members are listed, and refused when asked for: their bytes could not be mapped. */
#ifndef MYSTI_DIFFUSION_LOAD_ZIP_H
#define MYSTI_DIFFUSION_LOAD_ZIP_H

#include "base/buf.h"
#include "diffusion/load/name_index.h"
#include "diffusion/load/tensor_table.h"

typedef struct zip_member {
    char *name; /* owned */
    uint64_t header, size, packed;
    unsigned flags, method;
} zip_member;

/* Start from {0}. */
typedef struct zip {
    zip_member *members;
    size_t count;
    name_index by_name;
} zip;

/* Reads the directory; `in` is borrowed during the call. z is to be freed in either case. */
bool zip_open(zip *z, const tensor_input *in, err *e);
void zip_free(zip *z);

const zip_member *zip_find(const zip *z, const char *name); /* NULL when there is none */

/* Where the member's bytes begin, all of which lie within the file. ERR_UNSUPPORTED when they are compressed. */
bool zip_locate(const zip_member *m, const tensor_input *in, uint64_t *offset, err *e);

#endif
