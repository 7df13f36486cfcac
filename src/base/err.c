/* err.c - see err.h. */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const names[] = {
    [ERR_NONE] = "none",
    [ERR_INVALID] = "invalid",
    [ERR_NOT_FOUND] = "not_found",
    [ERR_CONFLICT] = "conflict",
    [ERR_DENIED] = "denied",
    [ERR_FORMAT] = "format",
    [ERR_UNSUPPORTED] = "unsupported",
    [ERR_TOO_LARGE] = "too_large",
    [ERR_MEMORY] = "memory",
    [ERR_DEVICE] = "device",
    [ERR_IO] = "io",
    [ERR_BUSY] = "busy",
    [ERR_CANCELLED] = "cancelled",
    [ERR_TIMEOUT] = "timeout",
    [ERR_CRASHED] = "crashed",
    [ERR_INTERNAL] = "internal",
};

enum { NAME_COUNT = sizeof names / sizeof names[0] };

bool err_set(err *e, err_code code, const char *fmt, ...) {
    if (!e) return false;
    char text[sizeof e->msg]; /* the arguments may point into e->msg */
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    e->code = (int)code;
    memcpy(e->msg, text, sizeof text);
    return false;
}

bool err_wrap(err *e, const char *fmt, ...) {
    if (!e) return false;
    char text[sizeof e->msg];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof text - 3) return false; /* no room left for the cause: keep the cause */
    snprintf(text + n, sizeof text - (size_t)n, ": %s", e->msg);
    memcpy(e->msg, text, sizeof text);
    return false;
}

static err_code code_of_errno(int n) {
    switch (n) {
    case ENOENT:
    case ENOTDIR:
        return ERR_NOT_FOUND;
    case EACCES:
    case EPERM:
        return ERR_DENIED;
    case ENOMEM:
        return ERR_MEMORY;
    default:
        return ERR_IO;
    }
}

bool err_sys(err *e, int sys_errno, const char *fmt, ...) {
    char text[sizeof e->msg];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return err_set(e, code_of_errno(sys_errno), "%s: %s", text, strerror(sys_errno));
}

const char *err_name(int code) {
    return code >= 0 && code < NAME_COUNT ? names[code] : "internal";
}

err_code err_from_name(const char *name) {
    for (int i = 0; i < NAME_COUNT; i++)
        if (name && strcmp(name, names[i]) == 0) return (err_code)i;
    return ERR_INTERNAL;
}
