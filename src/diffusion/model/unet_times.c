/* unet_times.c - see unet_times.h. */
#include "diffusion/model/unet_times.h"

#include "base/str.h"

#include <stdlib.h>
#include <string.h>

/* LABELS: of one picture's batches. AT_ONCE: few enough rows that products stay as exact as those of one step are. */
enum { LABELS = 4, AT_ONCE = 15, BLOCKS_MAX = 32 };
static const size_t most_bytes = 16 << 20;

/* Of all timesteps with one batch of labels. */
typedef struct entry {
    float *label;   /* owned; [rows, label_dim] */
    float *numbers; /* owned; for each residual block [timesteps, rows, channels]; NULL: nothing is here */
    int rows;       /* the batch, or 1 without labels */
} entry;

struct unet_times {
    unet *u;
    float *timesteps; /* owned */
    int count, next;  /* next: the oldest entry */
    entry entries[LABELS];
    const float *now[BLOCKS_MAX];
};

unet_times *unet_times_open(unet *u, const float *timesteps, int count) {
    unet_times *t = mem_alloc(1, sizeof *t);
    t->u = u;
    t->count = count;
    t->timesteps = mem_alloc((size_t)count + 1, sizeof *timesteps);
    memcpy(t->timesteps, timesteps, (size_t)count * sizeof *timesteps);
    return t;
}

static void drop(entry *x) {
    free(x->label);
    free(x->numbers);
    *x = (entry){0};
}

void unet_times_close(unet_times *t) {
    if (!t) return;
    for (int i = 0; i < LABELS; i++) drop(&t->entries[i]);
    free(t->timesteps);
    free(t);
}

static size_t label_values(const unet_times *t, int rows) {
    return (size_t)rows * (size_t)unet_describe(t->u).label_dim;
}

/* Of one timestep's row. */
static size_t row_values(const unet_times *t) {
    size_t sum = 0;
    for (int i = 0; i < unet_resnets(t->u); i++) sum += (size_t)unet_resnet_channels(t->u, i);
    return sum;
}

/* Where the numbers of each residual block are for timestep number `step`. */
static void point(const unet_times *t, const entry *x, int step, float *out[BLOCKS_MAX]) {
    float *block = x->numbers;
    for (int i = 0; i < unet_resnets(t->u); i++) {
        const size_t row = (size_t)x->rows * (size_t)unet_resnet_channels(t->u, i);
        out[i] = block + (size_t)step * row;
        block += (size_t)t->count * row;
    }
}

/* Timesteps `first` ... of an entry. */
static bool compute_some(unet_times *t, entry *x, int first, int count, err *e) {
    const size_t label = label_values(t, x->rows);
    float timesteps[AT_ONCE], *out[BLOCKS_MAX], *labels = mem_alloc((size_t)count * label + 1, sizeof *labels);
    for (int i = 0; i < count; i++) {
        for (int row = 0; row < x->rows; row++) timesteps[i * x->rows + row] = t->timesteps[first + i];
        memcpy(labels + (size_t)i * label, x->label, label * sizeof *labels);
    }
    point(t, x, first, out);
    const bool ok = unet_make_times(t->u, timesteps, labels, count * x->rows, out, e);
    free(labels);
    return ok;
}

static bool compute(unet_times *t, entry *x, const float *label, int rows, err *e) {
    *x = (entry){.rows = rows};
    x->label = mem_alloc(label_values(t, rows) + 1, sizeof *x->label);
    if (label) memcpy(x->label, label, label_values(t, rows) * sizeof *label);
    x->numbers = mem_alloc((size_t)(t->count * rows) * row_values(t), sizeof *x->numbers);
    const int at_once = AT_ONCE / rows;
    for (int i = 0; i < t->count; i += at_once)
        if (!compute_some(t, x, i, t->count - i < at_once ? t->count - i : at_once, e)) return false;
    return true;
}

/* The number of the input's timestep, or -1. */
static int step_of(const unet_times *t, const unet_input *in) {
    for (int i = 1; i < in->n; i++)
        if (in->timesteps[i] != in->timesteps[0]) return -1;
    for (int i = 0; i < t->count; i++)
        if (t->timesteps[i] == in->timesteps[0]) return i;
    return -1;
}

bool unet_times_find(unet_times *t, unet_input *in, err *e) {
    const int step = step_of(t, in), rows = unet_describe(t->u).label_dim ? in->n : 1;
    const size_t bytes = (size_t)(t->count * rows) * row_values(t) * sizeof(float);
    in->times = NULL;
    if (step < 0 || !unet_is_on_cpu(t->u) || unet_resnets(t->u) > BLOCKS_MAX || rows > AT_ONCE || bytes > most_bytes)
        return true;
    entry *found = NULL;
    for (int i = 0; i < LABELS; i++) {
        entry *x = &t->entries[i];
        const size_t label = label_values(t, rows) * sizeof(float);
        if (x->numbers && x->rows == rows && (!label || memcmp(x->label, in->label, label) == 0)) found = x;
    }
    if (!found) {
        found = &t->entries[t->next];
        t->next = (t->next + 1) % LABELS;
        drop(found);
        if (!compute(t, found, in->label, rows, e)) {
            drop(found);
            return false;
        }
    }
    float *out[BLOCKS_MAX];
    point(t, found, step, out);
    for (int i = 0; i < unet_resnets(t->u); i++) t->now[i] = out[i];
    in->times = t->now;
    in->time_rows = rows;
    return true;
}
