/* path.c - see path.h. What differs by operating system is in os_*.c. */
#include "base/path.h"
#include "base/os.h"
#include "base/str.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool is_sep(char c) {
#ifdef _WIN32
    if (c == '\\') return true;
#endif
    return c == '/';
}

static const char *last_sep(const char *path) {
    const char *found = NULL;
    for (; *path; path++)
        if (is_sep(*path)) found = path;
    return found;
}

char *path_join(const char *dir, const char *name) {
    size_t n = strlen(dir);
    return str_fmt("%s%s%s", dir, n && is_sep(dir[n - 1]) ? "" : "/", name);
}

const char *path_base(const char *path) {
    const char *sep = last_sep(path);
    return sep ? sep + 1 : path;
}

const char *path_ext(const char *path) {
    const char *base = path_base(path);
    const char *dot = strrchr(base, '.');
    return dot && dot != base ? dot : "";
}

char *path_dir(const char *path) {
    const char *sep = last_sep(path);
    if (!sep) return str_dup(".");
    return str_ndup(path, sep == path ? 1 : (size_t)(sep - path));
}

char *path_stem(const char *path) {
    const char *base = path_base(path);
    return str_ndup(base, strlen(base) - strlen(path_ext(base)));
}

static bool is_printable(const char *s) {
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7F) return false;
    return true;
}

bool path_is_plain_name(const char *name) {
    return !str_empty(name) && !strpbrk(name, "/\\:") && !str_eq(name, ".") && !str_eq(name, "..") &&
           is_printable(name);
}

/* No part of a relative name may climb, and Windows drives and streams ("C:x", "a:b") are refused everywhere. */
static bool is_relative_and_tame(const char *name) {
    if (str_empty(name) || name[0] == '/' || strpbrk(name, ":\\") || !is_printable(name)) return false;
    for (const char *part = name; *part;) {
        size_t n = strcspn(part, "/");
        if ((n == 2 && part[0] == '.' && part[1] == '.') || (n == 1 && part[0] == '.')) return false;
        part += n;
        while (*part == '/') part++;
    }
    return true;
}

static bool is_below(const char *root, const char *path) {
    size_t n = strlen(root);
    while (n && is_sep(root[n - 1])) n--;
    return strncmp(path, root, n) == 0 && is_sep(path[n]);
}

char *path_resolve_below(const char *root, const char *name, err *e) {
    if (!is_relative_and_tame(name)) {
        err_set(e, ERR_DENIED, "'%.100s' is not a file name below the folder", name ? name : "");
        return NULL;
    }
    char *real_root = path_absolute(root, e);
    if (!real_root) return NULL;
    char *joined = path_join(real_root, name);
    char *real = os_realpath(joined);
    int why = errno;
    free(joined);
    if (!real) {
        err_sys(e, why, "'%.100s'", name);
    } else if (!is_below(real_root, real)) {
        err_set(e, ERR_DENIED, "'%.100s' leads out of the folder", name);
        free(real);
        real = NULL;
    }
    free(real_root);
    return real;
}

char *path_absolute(const char *path, err *e) {
    char *real = os_realpath(path);
    if (!real) err_sys(e, errno, "'%.150s'", path);
    return real;
}

bool path_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}

bool path_is_dir(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool path_make_dirs(const char *path, err *e) {
    if (path_is_dir(path)) return true;
    char *parent = path_dir(path);
    bool ok = str_eq(parent, path) || str_eq(parent, ".") || path_make_dirs(parent, e);
    free(parent);
    if (!ok) return false;
    if (os_mkdir(path) != 0 && !path_is_dir(path)) return err_sys(e, errno, "create folder '%.150s'", path);
    return true;
}

char *path_program_dir(void) {
    char *program = os_program_path();
    char *dir = path_dir(program);
    free(program);
    return dir;
}

char *path_user_data_dir(const char *name) {
    char *base = os_user_data_dir();
    char *dir = path_join(base, name);
    free(base);
    return dir;
}
