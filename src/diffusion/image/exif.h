/* exif.h - the two things in an EXIF block (TIFF, without JPEG's "Exif\0\0") that concern us. */
#ifndef MYSTI_DIFFUSION_IMAGE_EXIF_H
#define MYSTI_DIFFUSION_IMAGE_EXIF_H

#include "base/buf.h"

/* Appends a block whose only entry is the UserComment: "UNICODE" and UTF-16, big-endian, as A1111 writes it. `text` is
 * UTF-8; it is cut, between characters, so that the block has at most `max` bytes. */
void exif_write_comment(buf *out, const char *text, size_t max);

/* Appends the UserComment as UTF-8, whatever its encoding; false when there is none. */
bool exif_read_comment(buf *out, const void *tiff, size_t len);

/* 1..8; 1 when absent or damaged. */
int exif_orientation(const void *tiff, size_t len);

#endif
