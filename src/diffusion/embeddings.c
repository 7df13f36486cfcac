#include "diffusion/embeddings.h"

static void forget(diffusion *d) {
    context_cache_free(&d->contexts); /* its keys hold the numbers of learned tokens */
    learned_words_free(d->words);
    d->words = NULL;
    d->words_key = 0;
}

bool embeddings_apply(diffusion *d, const request *r, err *e) {
    const diffusion_params *p = r->params;
    learned_file files[DIFFUSION_EMBEDDINGS_MAX];
    if (d->words_key == r->words_key) return true;
    forget(d);
    if (!r->words_key) return true;
    for (size_t i = 0; i < p->embedding_count; i++)
        files[i] = (learned_file){p->embeddings[i].name, p->embeddings[i].path};
    d->words = learned_words_open(files, p->embedding_count, d->text, e);
    if (d->words) d->words_key = r->words_key;
    return d->words != NULL;
}
