#include "sd/model.h"

#include "base/log.h"
#include "base/path.h"
#include "base/str.h"

#include <stdlib.h>

/* Borrowed or owned, as the files are. */
typedef const char **file_slot;
enum { FILE_SLOTS = 8 };

static void slots_of(diffusion_files *f, file_slot out[FILE_SLOTS]) {
    const file_slot slots[FILE_SLOTS] = {&f->model,  &f->diffusion_model, &f->vae, &f->clip_l,
                                         &f->clip_g, &f->t5xxl,           &f->llm, &f->taesd};
    for (int i = 0; i < FILE_SLOTS; i++) out[i] = slots[i];
}

static diffusion_files files_copy(const diffusion_files *from) {
    diffusion_files copy = *from;
    file_slot slots[FILE_SLOTS];
    slots_of(&copy, slots);
    for (int i = 0; i < FILE_SLOTS; i++) *slots[i] = str_dup(*slots[i]);
    return copy;
}

static void files_free(diffusion_files *f) {
    file_slot slots[FILE_SLOTS];
    slots_of(f, slots);
    for (int i = 0; i < FILE_SLOTS; i++) free((char *)(uintptr_t)*slots[i]);
    *f = (diffusion_files){0};
}

const char *sd_model_path(const sd_model *m) {
    if (!m->engine) return NULL;
    return m->files.model ? m->files.model : m->files.diffusion_model;
}

void sd_model_unload(sd_model *m) {
    diffusion_close(m->engine);
    m->engine = NULL;
    files_free(&m->files);
}

/* The way of last resort: without the present model in memory. */
static diffusion *open_alone(sd_model *m, const diffusion_files *files, const diffusion_options *options,
                             const diffusion_events *events, err *e) {
    log_info("sd", "not enough memory beside '%s': closing it first", path_base(sd_model_path(m)));
    diffusion_close(m->engine);
    m->engine = NULL;
    diffusion *d = diffusion_open(files, options, events, e);
    if (d) return d;
    err why;
    m->engine = diffusion_open(&m->files, &m->options, NULL, &why);
    if (m->engine)
        log_info("sd", "the model before is loaded again");
    else
        log_error("sd", "the model before cannot be loaded again: %s", why.msg);
    return NULL;
}

bool sd_model_load(sd_model *m, const diffusion_files *files, diffusion_prediction prediction,
                   const diffusion_events *events, err *e) {
    diffusion_options options = m->options;
    options.prediction = prediction;
    err own = {0};
    diffusion *d = diffusion_open(files, &options, events, &own);
    if (!d && own.code == ERR_MEMORY && m->engine) d = open_alone(m, files, &options, events, &own);
    if (!d) {
        if (!m->engine) sd_model_unload(m);
        if (e) *e = own;
        return err_wrap(e, "load '%.100s'", path_base(files->model ? files->model : files->diffusion_model));
    }
    sd_model_unload(m);
    m->engine = d;
    m->files = files_copy(files);
    m->options = options;
    return true;
}
