/* path.h - file names. Paths are UTF-8; '/' separates on every system ('\' too on Windows). Results are freed with
 * free(). */
#ifndef MYSTI_BASE_PATH_H
#define MYSTI_BASE_PATH_H

#include "base/err.h"

char *path_join(const char *dir, const char *name);
const char *path_base(const char *path); /* points into path */
const char *path_ext(const char *path);  /* ".png", or "" */
char *path_dir(const char *path);        /* "." when there is none */
char *path_stem(const char *path);       /* base name without extension */

/* The one door for names that come from outside: resolves `name` below `root` and returns the absolute path.
 * ERR_DENIED for an empty or absolute name, "..", a NUL or control character, a drive or stream name, or when a
 * symbolic link leads out of `root`. ERR_NOT_FOUND when it does not exist. */
char *path_resolve_below(const char *root, const char *name, err *e);

/* True when `name` is one plain file name: no separators, not "." or "..", printable. */
bool path_is_plain_name(const char *name);

/* Absolute path with links resolved; must exist. */
char *path_absolute(const char *path, err *e);

bool path_exists(const char *path);
bool path_is_dir(const char *path);
bool path_make_dirs(const char *path, err *e); /* like mkdir -p */

/* The folder of the running program. */
char *path_program_dir(void);

/* The platform's folder for a user's application data: $XDG_DATA_HOME/name or ~/.local/share/name, %LOCALAPPDATA%\name.
 */
char *path_user_data_dir(const char *name);

#endif
