/* config.c - see config.h. One table serves the command line, the file and the help. */
#include "server/config.h"
#include "base/args.h"
#include "base/file.h"
#include "base/path.h"
#include "base/str.h"
#include "json/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OPTION_COUNT = 35 };

static void describe(config *c, arg_spec out[OPTION_COUNT]) {
    const arg_spec specs[OPTION_COUNT] = {
        {"listen-ip", 'l', NULL, ARG_STRING, &c->listen_ip, "IP", "address to listen on (127.0.0.1)"},
        {"listen-port", 0, NULL, ARG_INT, &c->listen_port, "PORT",
         "port of the studio (1234); the workers take the next two"},
        {"model-dir", 0, NULL, ARG_STRING, &c->model_dir, "DIR", "where models are looked for"},
        {"output-dir", 0, NULL, ARG_STRING, &c->output_dir, "DIR", "where pictures go"},
        {"data-dir", 0, NULL, ARG_STRING, &c->data_dir, "DIR", "database, uploads, log"},
        {"config", 0, NULL, ARG_STRING, &c->config_file, "FILE", "JSON file with these same names"},
        {"model", 'm', NULL, ARG_STRING, &c->model, "FILE", "image model to load (whole checkpoint)"},
        {"diffusion-model", 0, NULL, ARG_STRING, &c->diffusion_model, "FILE",
         "image model to load (diffusion part only)"},
        {"vae", 0, NULL, ARG_STRING, &c->vae, "FILE", "VAE for it"},
        {"clip_l", 0, NULL, ARG_STRING, &c->clip_l, "FILE", "CLIP-L text encoder for it"},
        {"clip_g", 0, NULL, ARG_STRING, &c->clip_g, "FILE", "CLIP-G text encoder for it"},
        {"t5xxl", 0, NULL, ARG_STRING, &c->t5xxl, "FILE", "T5 text encoder for it"},
        {"llm", 0, NULL, ARG_STRING, &c->llm, "FILE", "LLM used as text encoder for it"},
        {"taesd", 0, NULL, ARG_STRING, &c->taesd, "FILE", "tiny autoencoder for it: real previews, quick decoding"},
        {"llm-model", 0, "lm", ARG_STRING, &c->llm_model, "FILE", "LLM to load for text"},
        {"threads", 't', NULL, ARG_INT, &c->threads, "N", "threads of the image worker (all cores)"},
        {"llm-threads", 0, NULL, ARG_INT, &c->llm_threads, "N", "threads of the LLM worker (all cores)"},
        {"ctx-size", 'c', NULL, ARG_INT, &c->n_ctx, "N", "context of the LLM (the model's own, up to 8192)"},
        {"n-gpu-layers", 0, "ngl", ARG_INT, &c->n_gpu_layers, "N", "LLM layers on the GPU (-1: all)"},
        {"llm-slots", 0, NULL, ARG_INT, &c->llm_slots, "N", "LLM requests answered at once (4)"},
        {"llm-idle-timeout", 0, NULL, ARG_INT, &c->llm_idle_timeout, "S",
         "unload an unused LLM after S seconds (0: never)"},
        {"sd-idle-timeout", 0, NULL, ARG_INT, &c->sd_idle_timeout, "S",
         "unload an unused image model after S seconds (0: never)"},
        {"backend", 0, NULL, ARG_STRING, &c->backend, "NAME",
         "compute device of the image worker (see mysti_sd_worker --list-devices)"},
        {"precision", 0, NULL, ARG_STRING, &c->precision, "KIND",
         "matrix products of the image worker on the CPU: auto, f32, bf16 or int8 (auto)"},
        {"api-key", 0, NULL, ARG_STRING, &c->api_key, "KEY", "key that API clients must send"},
        {"no-auth", 0, NULL, ARG_FLAG, &c->no_auth, NULL, "allow listening beyond this machine without a key"},
        {"allow-host", 0, NULL, ARG_STRING, &c->allow_host, "NAMES",
         "further host names to answer to, separated by commas"},
        {"no-restore", 0, NULL, ARG_FLAG, &c->no_restore, NULL, "do not load the models of the last run"},
        {"no-demo", 0, NULL, ARG_FLAG, &c->no_demo, NULL, "do not begin with the demo models"},
        {"public-dir", 0, NULL, ARG_STRING, &c->public_dir, "DIR", "the page's files (public beside the program)"},
        {"verbose", 'v', NULL, ARG_FLAG, &c->verbose, NULL, "log more"},
        {"version", 0, NULL, ARG_FLAG, &c->version, NULL, "print the version"},
        {"help", 'h', NULL, ARG_FLAG, &c->help, NULL, "print this"},
    };
    memcpy(out, specs, sizeof specs);
}

/* The table ends at the first entry without a name. */
static size_t table(config *c, arg_spec out[OPTION_COUNT]) {
    describe(c, out);
    size_t n = 0;
    while (n < OPTION_COUNT && out[n].name) n++;
    return n;
}

static const char *text_of(yyjson_val *v, char number[32]) {
    if (yyjson_is_str(v)) return yyjson_get_str(v);
    if (yyjson_is_bool(v)) return yyjson_get_bool(v) ? "true" : "false";
    if (yyjson_is_int(v)) {
        snprintf(number, 32, "%lld", (long long)yyjson_get_sint(v));
        return number;
    }
    return NULL;
}

static bool apply_object(config *c, yyjson_val *root, err *e) {
    arg_spec specs[OPTION_COUNT];
    size_t count = table(c, specs);
    if (!yyjson_is_obj(root)) return err_set(e, ERR_INVALID, "expected an object of options");
    yyjson_obj_iter it = yyjson_obj_iter_with(root);
    for (yyjson_val *key; (key = yyjson_obj_iter_next(&it));) {
        char number[32];
        const char *name = yyjson_get_str(key);
        const char *value = text_of(yyjson_obj_iter_get_val(key), number);
        if (!value) return err_set(e, ERR_INVALID, "%.60s: expected a string, a whole number, true or false", name);
        if (!args_set(specs, count, name, value, e)) return false;
    }
    return true;
}

static bool apply_file(config *c, const char *path, err *e) {
    buf text;
    buf_init(&text, 1 << 20);
    bool ok = file_read(path, &text, e);
    yyjson_doc *doc = ok ? json_parse(buf_str(&text), text.len, e) : NULL;
    ok = doc && apply_object(c, yyjson_doc_get_root(doc), e);
    yyjson_doc_free(doc);
    buf_free(&text);
    return ok ? true : err_wrap(e, "config file '%.100s'", path);
}

static void fill(char **field, char *value) {
    if (*field)
        free(value);
    else
        *field = value;
}

static void fill_defaults(config *c) {
    char *base = path_user_data_dir("mysti");
    char *program = path_program_dir();
    fill(&c->listen_ip, str_dup("127.0.0.1"));
    fill(&c->model_dir, path_join(base, "models"));
    fill(&c->output_dir, path_join(base, "outputs"));
    fill(&c->data_dir, path_join(base, "data"));
    fill(&c->public_dir, path_join(program, "public"));
    free(program);
    free(base);
}

static bool make_absolute(char **dir, err *e) {
    if (!path_make_dirs(*dir, e)) return false;
    char *real = path_absolute(*dir, e);
    if (!real) return false;
    free(*dir);
    *dir = real;
    return true;
}

static bool check(const config *c, err *e) {
    if (c->listen_port < 1 || c->listen_port > 65533)
        return err_set(e, ERR_INVALID, "--listen-port: %lld is not between 1 and 65533 (the workers take the next two)",
                       (long long)c->listen_port);
    if (!config_is_loopback(c->listen_ip) && !c->api_key && !c->no_auth)
        return err_set(e, ERR_INVALID,
                       "--listen-ip %s can be reached from other machines: give --api-key KEY (or --no-auth)",
                       c->listen_ip);
    if (c->api_key && !*c->api_key) return err_set(e, ERR_INVALID, "--api-key: must not be empty");
    if (c->n_ctx < 0 || c->n_ctx > 1 << 22 || c->n_gpu_layers < -1 || c->n_gpu_layers > 10000)
        return err_set(e, ERR_INVALID,
                       "--ctx-size: must be between 0 and 4194304, --n-gpu-layers between -1 and 10000");
    if (c->llm_slots < 1 || c->llm_slots > 64) return err_set(e, ERR_INVALID, "--llm-slots: must be between 1 and 64");
    if (c->threads < 0 || c->threads > 1024 || c->llm_threads < 0 || c->llm_threads > 1024)
        return err_set(e, ERR_INVALID, "--threads: must be between 0 and 1024");
    if (c->precision && !str_eq(c->precision, "auto") && !str_eq(c->precision, "f32") &&
        !str_eq(c->precision, "bf16") && !str_eq(c->precision, "int8"))
        return err_set(e, ERR_INVALID, "--precision: must be auto, f32, bf16 or int8");
    if (c->llm_idle_timeout < 0 || c->sd_idle_timeout < 0)
        return err_set(e, ERR_INVALID, "idle timeouts cannot be negative");
    return true;
}

bool config_load(config *c, int argc, char **argv, err *e) {
    *c = (config){.listen_port = 1234, .n_gpu_layers = -1, .llm_slots = 4};
    arg_spec specs[OPTION_COUNT];
    size_t count = table(c, specs);
    if (!args_parse(argc, argv, specs, count, e)) return false;
    if (c->help || c->version) return true;
    if (c->config_file) { /* the file first, then the command line again over it */
        char *file = str_dup(c->config_file);
        bool ok = apply_file(c, file, e) && args_parse(argc, argv, specs, count, e);
        free(file);
        if (!ok) return false;
    }
    fill_defaults(c);
    return check(c, e) && make_absolute(&c->model_dir, e) && make_absolute(&c->output_dir, e) &&
           make_absolute(&c->data_dir, e);
}

void config_free(config *c) {
    arg_spec specs[OPTION_COUNT];
    size_t count = table(c, specs);
    for (size_t i = 0; i < count; i++)
        if (specs[i].type == ARG_STRING) free(*(char **)specs[i].out);
    *c = (config){0};
}

void config_print_help(void) {
    config none = {0};
    arg_spec specs[OPTION_COUNT];
    printf("mysti_server %s - a local studio for images and text\n\nusage: mysti_server [OPTIONS]\n\n", MYSTI_VERSION);
    args_print_help(specs, table(&none, specs));
}

/* Numbers alone: "127.0.0.1.evil.example" is a name that its owner lets point anywhere. */
static bool is_loopback_v4(const char *ip) {
    return str_starts(ip, "127.") && strspn(ip, "0123456789.") == strlen(ip);
}

bool config_is_loopback(const char *ip) {
    return is_loopback_v4(ip) || str_eq(ip, "::1") || str_eq(ip, "localhost");
}
