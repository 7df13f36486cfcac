/* demo.c - see demo.h. */
#include "server/demo.h"

#include "base/file.h"
#include "base/path.h"
#include "base/str.h"
#include "diffusion/load/model_kind.h"
#include "server/models.h"

#include <stdlib.h>
#include <string.h>

#define DEMO "demo"

enum { DEPTH_MAX = 8, NAMES_MAX = 2000 };

bool demo_is(const char *model_id) {
    return model_id && str_starts(model_id, DEMO "/");
}

static bool is_image(const model_desc *d) {
    return d->supported && (d->kind == MODEL_CHECKPOINT || d->kind == MODEL_DIFFUSION);
}

static bool is_text(const model_desc *d) {
    return d->supported && d->kind == MODEL_LLM;
}

/* ---- the demo folder -------------------------------------------------------------------------------------------- */

typedef struct finder {
    const char *dir;
    char **image, **text;
} finder;

static void keep_first(char **id, const char *name) {
    char *own = path_join(DEMO, name);
    if (!*id || strcmp(own, *id) < 0) str_set(id, own);
    free(own);
}

static bool look_at_demo(void *ctx, const char *name) {
    finder *f = ctx;
    model_desc d;
    char *path = path_join(f->dir, name);
    if (models_is_file_name(name) && model_describe_path(path, &d, NULL)) {
        if (is_image(&d)) keep_first(f->image, name);
        if (is_text(&d)) keep_first(f->text, name);
    }
    free(path);
    return true;
}

void demo_find(const char *model_dir, char **image, char **text) {
    *image = *text = NULL;
    char *dir = path_join(model_dir, DEMO);
    finder f = {dir, image, text};
    if (path_is_dir(dir)) file_list_dir(dir, look_at_demo, &f, NULL);
    free(dir);
}

/* ---- everything else -------------------------------------------------------------------------------------------- */

typedef struct search {
    const char *dir; /* being listed */
    int depth, left; /* names that may still be looked at */
    bool found;
} search;

static bool look_in(search *s, const char *dir, int depth);

static bool look_at_other(void *ctx, const char *name) {
    search *s = ctx;
    if (name[0] == '.' || (s->depth == 0 && str_eq(name, DEMO))) return true;
    char *path = path_join(s->dir, name);
    model_desc d;
    bool is_dir = path_is_dir(path);
    if (s->left-- <= 0)
        s->found = true; /* such a folder is no beginner's; also the end of links that go in circles */
    else if (is_dir && !model_is_diffusers_dir(path))
        s->found = look_in(s, path, s->depth + 1);
    else if (is_dir || models_is_file_name(name))
        s->found = model_describe_path(path, &d, NULL) && (is_image(&d) || is_text(&d));
    free(path);
    return !s->found;
}

static bool look_in(search *s, const char *dir, int depth) {
    search inner = {.dir = dir, .depth = depth, .left = s->left};
    if (depth <= DEPTH_MAX) file_list_dir(dir, look_at_other, &inner, NULL);
    s->left = inner.left;
    return inner.found;
}

bool demo_has_rival(const char *model_dir) {
    search s = {.left = NAMES_MAX};
    return look_in(&s, model_dir, 0);
}
