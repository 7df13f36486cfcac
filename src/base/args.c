/* args.c - see args.h. */
#include "base/args.h"
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const arg_spec *by_name(const arg_spec *specs, size_t count, const char *name, size_t len) {
    for (size_t i = 0; i < count; i++)
        if (strlen(specs[i].name) == len && memcmp(specs[i].name, name, len) == 0) return &specs[i];
    return NULL;
}

static const arg_spec *by_short(const arg_spec *specs, size_t count, const char *text) {
    for (size_t i = 0; i < count; i++) {
        if (specs[i].letter && text[0] == specs[i].letter && !text[1]) return &specs[i];
        if (specs[i].alias && str_eq(specs[i].alias, text)) return &specs[i];
    }
    return NULL;
}

static bool unknown(const arg_spec *specs, size_t count, const char *given, const char *dashes, err *e) {
    const char **names = mem_alloc(count, sizeof *names);
    for (size_t i = 0; i < count; i++) names[i] = specs[i].name;
    const char *near = str_nearest(given, names, count);
    free(names);
    if (near)
        return err_set(e, ERR_INVALID, "unknown option '%s%.60s'; did you mean '%s%s'?", dashes, given, dashes, near);
    return err_set(e, ERR_INVALID, "unknown option '%s%.60s'; see --help", dashes, given);
}

static bool store(const arg_spec *s, const char *value, err *e) {
    switch (s->type) {
    case ARG_FLAG:
        if (!str_eq(value, "true") && !str_eq(value, "false"))
            return err_set(e, ERR_INVALID, "--%s: expected true or false, got '%.60s'", s->name, value);
        *(bool *)s->out = str_eq(value, "true");
        return true;
    case ARG_STRING:
        str_set(s->out, value);
        return true;
    case ARG_INT:
        if (!str_to_i64(value, s->out))
            return err_set(e, ERR_INVALID, "--%s: expected a whole number, got '%.60s'", s->name, value);
        return true;
    case ARG_FLOAT:
        if (!str_to_f64(value, s->out))
            return err_set(e, ERR_INVALID, "--%s: expected a number, got '%.60s'", s->name, value);
        return true;
    }
    return false;
}

bool args_set(const arg_spec *specs, size_t count, const char *name, const char *value, err *e) {
    const arg_spec *s = by_name(specs, count, name, strlen(name));
    return s ? store(s, value, e) : unknown(specs, count, name, "", e);
}

/* Finds the option in `arg`; *value is what follows '=', or NULL. */
static const arg_spec *find(const arg_spec *specs, size_t count, const char *arg, const char **value, err *e) {
    *value = NULL;
    const arg_spec *s = NULL;
    if (str_starts(arg, "--")) {
        size_t len = strcspn(arg + 2, "=");
        if (arg[2 + len] == '=') *value = arg + 3 + len;
        s = by_name(specs, count, arg + 2, len);
        if (!s) {
            char *given = str_ndup(arg + 2, len);
            unknown(specs, count, given, "--", e);
            free(given);
        }
    } else if (arg[0] == '-' && arg[1]) {
        s = by_short(specs, count, arg + 1);
        if (!s) unknown(specs, count, arg + 1, "-", e);
    } else {
        err_set(e, ERR_INVALID, "unexpected argument '%.60s'; see --help", arg);
    }
    return s;
}

bool args_parse(int argc, char **argv, const arg_spec *specs, size_t count, err *e) {
    for (int i = 1; i < argc; i++) {
        const char *value;
        const arg_spec *s = find(specs, count, argv[i], &value, e);
        if (!s) return false;
        if (s->type == ARG_FLAG && !value) value = "true";
        if (!value && i + 1 >= argc) return err_set(e, ERR_INVALID, "--%s needs a value", s->name);
        if (!store(s, value ? value : argv[++i], e)) return false;
    }
    return true;
}

void args_print_help(const arg_spec *specs, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const arg_spec *s = &specs[i];
        char left[96];
        char short_form[16] = "";
        if (s->alias)
            snprintf(short_form, sizeof short_form, "-%.8s, ", s->alias);
        else if (s->letter)
            snprintf(short_form, sizeof short_form, "-%c, ", s->letter);
        snprintf(left, sizeof left, "%s--%s%s%s", short_form, s->name, s->value_name ? " " : "",
                 s->value_name ? s->value_name : "");
        printf("  %-34s %s\n", left, s->help);
    }
}
