/* args.h - command-line options: "--name value", "--name=value", "-x value", flags. */
#ifndef MYSTI_BASE_ARGS_H
#define MYSTI_BASE_ARGS_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

typedef enum arg_type { ARG_FLAG, ARG_STRING, ARG_INT, ARG_FLOAT } arg_type;

/* One option. The value is written to `out`: bool, char * (freed and replaced), int64_t or double. */
typedef struct arg_spec {
    const char *name;  /* without dashes: "listen-port" */
    char letter;       /* 'l' for -l, or 0 */
    const char *alias; /* a second short form of several letters, without the dash ("lm" for -lm), or NULL */
    arg_type type;
    void *out;
    const char *value_name; /* for the help: "PORT" */
    const char *help;
} arg_spec;

/* Parses argv[1..]. An unknown option, a missing or malformed value is ERR_INVALID that names the nearest known option.
 */
bool args_parse(int argc, char **argv, const arg_spec *specs, size_t count, err *e);

/* Sets one option by name from text, as a config file does. Same errors. */
bool args_set(const arg_spec *specs, size_t count, const char *name, const char *value, err *e);

/* Prints the options, one per line, to stdout. */
void args_print_help(const arg_spec *specs, size_t count);

#endif
