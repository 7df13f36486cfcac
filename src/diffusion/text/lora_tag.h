/* lora_tag.h - LoRAs named in a prompt, as A1111 has them. Text alone: the server uses it, too.
 *
 *   <lora:name>                   text encoder and UNet, with weight 1
 *   <lora:name:0.8>               both with 0.8
 *   <lora:name:0.8:0.6>           the text encoder with 0.8, the UNet with 0.6
 *   <lora:name:te=0.8:unet=0.6>   the same
 *
 * "lyco" is another word for "lora". Anything else between < and > is text. */
#ifndef MYSTI_DIFFUSION_LORA_TAG_H
#define MYSTI_DIFFUSION_LORA_TAG_H

#include "base/buf.h"
#include "base/err.h"

enum { LORA_TAGS_MAX = 32, LORA_TAG_NAME_MAX = 255, LORA_WEIGHT_MAX = 100 };

typedef struct lora_tag {
    char name[LORA_TAG_NAME_MAX + 1];
    double te, unet; /* -LORA_WEIGHT_MAX .. LORA_WEIGHT_MAX */
} lora_tag;

/* The tags of a prompt, in order. ERR_INVALID that quotes the tag. */
bool lora_tags_read(const char *text, lora_tag out[LORA_TAGS_MAX], size_t *count, err *e);

/* The prompt without them; free with free(). */
char *lora_tags_strip(const char *text);

/* Appends the tag that reads back as these; a name that a tag cannot hold (with ':' or '>') appends nothing. */
void lora_tag_write(const char *name, double te, double unet, buf *out);

#endif
