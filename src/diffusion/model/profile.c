/* profile.c - see profile.h. */
#include "diffusion/model/profile.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"

#include <ggml.h>
#include <stdlib.h>

enum { KINDS = 64 };

/* Operations of one name: ggml's, or what nn_cpu calls its own. */
typedef struct kind {
    char name[GGML_MAX_NAME];
    int count;
    int64_t ns;
} kind;

struct profile {
    kind kinds[KINDS];
    int count;
    int64_t since; /* the end of the operation before */
};

static kind *find(profile *p, const char *name) {
    int i = 0;
    while (i < p->count && !str_eq(p->kinds[i].name, name)) i++;
    if (i == KINDS) return &p->kinds[KINDS - 1]; /* no graph has as many */
    if (i == p->count) str_copy(p->kinds[p->count++].name, GGML_MAX_NAME, name);
    return &p->kinds[i];
}

/* The scheduler asks which results are wanted, and stops behind each of them. */
static bool observe(struct ggml_tensor *t, bool ask, void *ctx) {
    profile *p = ctx;
    if (ask) return true;
    const int64_t now = clock_mono_ns();
    kind *k = find(p, t->op == GGML_OP_CUSTOM ? t->name : ggml_op_desc(t));
    k->count++;
    k->ns += now - p->since;
    p->since = now;
    return true;
}

profile *profile_open(ggml_backend_sched_t sched) {
    if (!str_eq(getenv("MYSTI_PROFILE"), "1")) return NULL;
    profile *p = mem_alloc(1, sizeof *p);
    ggml_backend_sched_set_eval_callback(sched, observe, p);
    return p;
}

void profile_close(profile *p) {
    free(p);
}

void profile_begin(profile *p) {
    if (!p) return;
    *p = (profile){.since = clock_mono_ns()};
}

static int longest_first(const void *a, const void *b) {
    const kind *x = a, *y = b;
    return (x->ns < y->ns) - (x->ns > y->ns);
}

void profile_end(const profile *p) {
    if (!p) return;
    profile sorted = *p;
    int64_t all = 0;
    qsort(sorted.kinds, (size_t)sorted.count, sizeof *sorted.kinds, longest_first);
    for (int i = 0; i < sorted.count; i++) all += sorted.kinds[i].ns;
    log_info("profile", "a graph of %.1f ms", (double)all / 1e6);
    for (int i = 0; i < sorted.count; i++) {
        const kind *k = &sorted.kinds[i];
        if (k->ns < all / 10000) break; /* views, which compute nothing */
        log_info("profile", "%9.1f ms %5.1f %% %5d x %s", (double)k->ns / 1e6, 100 * (double)k->ns / (double)all,
                 k->count, k->name);
    }
}
