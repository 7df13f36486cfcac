/* config.h - the server's settings, from defaults, a JSON file and the command line (the latter wins). */
#ifndef MYSTI_SERVER_CONFIG_H
#define MYSTI_SERVER_CONFIG_H

#include "base/err.h"

#include <stdint.h>

/* Strings are owned; NULL means not given. Paths of folders are absolute after config_load(). */
typedef struct config {
    char *listen_ip;
    int64_t listen_port; /* the workers take the next two */
    char *model_dir, *output_dir, *data_dir, *public_dir;
    char *config_file;

    /* Models to load at the start; each a path or an id below model_dir. */
    char *model, *diffusion_model, *vae, *clip_l, *clip_g, *t5xxl, *llm, *taesd, *llm_model;

    int64_t threads, llm_threads;              /* 0: the worker decides */
    int64_t n_ctx, n_gpu_layers, llm_slots;    /* defaults for loading an LLM */
    int64_t llm_idle_timeout, sd_idle_timeout; /* seconds without work until the model is unloaded; 0: never */
    char *precision;                           /* of the image worker; NULL: auto */
    char *backend;                             /* of the image worker; NULL: the best */

    char *api_key;
    char *allow_host; /* further names that the Host header may have, separated by commas */
    bool no_auth;     /* listen beyond loopback without a key */
    bool no_restore;  /* start without the models of the last run */
    bool no_demo;     /* start without the demo models too */
    bool verbose, version, help;
} config;

/* Fills `c` from argv and the file it names. ERR_INVALID names the option and, for a typing error, the nearest one. */
bool config_load(config *c, int argc, char **argv, err *e);
void config_free(config *c);
void config_print_help(void);

/* Whether only this machine can reach the address. */
bool config_is_loopback(const char *ip);

#endif
