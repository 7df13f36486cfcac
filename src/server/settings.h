/* settings.h - what the page keeps on the server: a small JSON object, a row per member. */
#ifndef MYSTI_SERVER_SETTINGS_H
#define MYSTI_SERVER_SETTINGS_H

#include "server/db.h"

#include <stddef.h>

enum { SETTINGS_BODY_MAX = 256 * 1024, SETTINGS_KEYS_MAX = 64, SETTINGS_KEY_LEN_MAX = 64 };

/* `json`: all settings as one object; NULL when `why` is set. Borrowed during the call, on the loop. */
typedef void (*settings_done)(void *ctx, const err *why, const char *json, size_t len);

void settings_get(db *d, settings_done done, void *ctx);

/* Replaces the members that `body` (a JSON object; copied) has; null removes one. All or nothing. */
void settings_put(db *d, const char *body, size_t len, settings_done done, void *ctx);

#endif
