#include "diffusion/predict.h"

#include "base/str.h"
#include "diffusion/memory.h"
#include "diffusion/source.h"

#include <stdlib.h>
#include <string.h>

enum { TOGETHER_MAX = CONTROLS_TOGETHER };

/* One question: a prompt, with or without the picture that is edited, and where the answer goes. */
typedef struct question {
    const condition *what;
    bool is_negative, bare;
    int number; /* in the call: 0, 1, ... */
    float *out; /* [values] */
} question;

static size_t values(const predictor *p) {
    return request_values(p->r);
}

/* Of the network's input. */
static size_t input_values(const predictor *p) {
    return values(p) + (size_t)source_appended(p->d) * (size_t)p->r->rows * (size_t)p->r->columns;
}

/* ---- tiles ------------------------------------------------------------------------------------------------------ */

/* How many tiles cover a side, and where tile i of them begins: at even distances, from edge to edge. */
static int tiles_along(const request *r, int side) {
    if (!r->tile || side <= r->tile) return 1;
    const int step = r->tile - r->tile_overlap;
    return (side - r->tile_overlap + step - 1) / step;
}

static int tile_begin(const request *r, int side, int i) {
    const int count = tiles_along(r, side);
    return count > 1 ? i * (side - r->tile) / (count - 1) : 0;
}

static region tile_at(const request *r, int row, int column) {
    return (region){.top = tile_begin(r, r->rows, row),
                    .left = tile_begin(r, r->columns, column),
                    .rows = request_tile_rows(r),
                    .columns = request_tile_columns(r)};
}

static float *make_shares(const request *r) {
    const int down = tiles_along(r, r->rows), across = tiles_along(r, r->columns);
    const size_t n = (size_t)r->rows * (size_t)r->columns;
    if (down * across == 1) return NULL;
    float *shares = mem_alloc(n, sizeof *shares);
    for (int i = 0; i < down * across; i++) {
        const region t = tile_at(r, i / across, i % across);
        for (int y = t.top; y < t.top + t.rows; y++)
            for (int x = t.left; x < t.left + t.columns; x++) shares[y * r->columns + x] += 1.0f;
    }
    for (size_t i = 0; i < n; i++) shares[i] = 1.0f / shares[i];
    return shares;
}

/* ---- what is kept from step to step ------------------------------------------------------------------------------ */

enum { QUESTIONS = 3 }; /* of one call, without composition */

static int tile_count(const request *r) {
    return tiles_along(r, r->rows) * tiles_along(r, r->columns);
}

/* For each question and tile; a composition asks the negative prompt's two, then one for each part. */
static int cache_slots(const predictor *p) {
    return (QUESTIONS + p->positive->plan.count) * tile_count(p->r);
}

static size_t deep_values(const predictor *p, region t) {
    return (size_t)unet_deep_channels(p->d->unet) * (size_t)t.rows * (size_t)t.columns;
}

static bool keeps(const predictor *p) {
    return p->r->params->sampling.cache_interval > 1;
}

static void open_cache(predictor *p) {
    if (!keeps(p)) return;
    p->kept = mem_alloc((size_t)cache_slots(p), sizeof *p->kept);
    p->is_known = mem_alloc((size_t)cache_slots(p), sizeof *p->is_known);
}

static void close_cache(predictor *p) {
    for (int i = 0; p->kept && i < cache_slots(p); i++) free(p->kept[i]);
    free(p->kept);
    free(p->is_known);
    p->kept = NULL;
    p->is_known = NULL;
}

bool predictor_starts_anew(const predictor *p, int finished) {
    return finished % p->r->params->sampling.cache_interval == 0;
}

static bool can_reuse(const predictor *p, int slot) {
    return keeps(p) && !p->is_whole_step && p->is_known[slot];
}

/* `count` questions, in[] and out[] behind each other; slots: where what they keep belongs. */
static bool eval_kept(predictor *p, const unet_input *input, const int *slots, size_t n, float *out, err *e) {
    float *deep = mem_alloc((size_t)input->n * n, sizeof *deep);
    const bool reuse = can_reuse(p, slots[0]);
    for (int i = 0; reuse && i < input->n; i++) memcpy(deep + (size_t)i * n, p->kept[slots[i]], n * sizeof *deep);
    const bool ok =
        reuse ? unet_eval_shallow(p->d->unet, input, deep, out, e) : unet_eval_keeping(p->d->unet, input, deep, out, e);
    for (int i = 0; ok && !reuse && i < input->n; i++) {
        float **kept = &p->kept[slots[i]];
        if (!*kept) *kept = mem_alloc(n, sizeof **kept);
        memcpy(*kept, deep + (size_t)i * n, n * sizeof *deep);
        p->is_known[slots[i]] = true;
    }
    free(deep);
    return ok;
}

/* ---- questions --------------------------------------------------------------------------------------------------- */

static unet_times *open_times(const predictor *p) {
    const int steps = p->r->schedule_steps;
    float *timesteps = mem_alloc((size_t)steps + 1, sizeof *timesteps);
    for (int i = 0; i < steps; i++) timesteps[i] = sigma_to_timestep(&p->d->table, p->sigmas[i]);
    unet_times *times = unet_times_open(p->d->unet, timesteps, steps);
    free(timesteps);
    return times;
}

/* A second prompt's composition, and several inputs and outputs where they are computed at once. */
void predictor_open(predictor *p) {
    p->buffers = mem_alloc(2 * values(p) + TOGETHER_MAX * (input_values(p) + values(p)), sizeof(float));
    p->shares = make_shares(p->r);
    p->texts = unet_texts_open(p->d->unet);
    p->times = open_times(p);
    open_cache(p);
}

void predictor_close(predictor *p) {
    close_cache(p);
    free(p->buffers);
    free(p->shares);
    unet_texts_close(p->texts);
    unet_times_close(p->times);
    p->texts = NULL;
    p->times = NULL;
    p->buffers = p->shares = NULL;
}

void predictor_step(predictor *p, int finished) {
    p->step = finished;
    p->calls = 0;
    p->is_whole_step = predictor_starts_anew(p, finished);
    if (p->is_whole_step && keeps(p)) memset(p->is_known, 0, (size_t)cache_slots(p) * sizeof *p->is_known);
}

/* Where tiles overlap, what they say is averaged. */
static void put_back(const predictor *p, region t, const float *tile, float *out) {
    const request *r = p->r;
    for (int c = 0; c < r->channels; c++)
        for (int y = t.top; y < t.top + t.rows; y++, tile += t.columns) {
            float *row = out + ((size_t)c * (size_t)r->rows + (size_t)y) * (size_t)r->columns + (size_t)t.left;
            const float *share = p->shares ? p->shares + (size_t)y * (size_t)r->columns + (size_t)t.left : NULL;
            for (int x = 0; x < t.columns; x++) row[x] += share ? tile[x] * share[x] : tile[x];
        }
}

/* The latent, and behind it what the network is shown besides. */
static void put_input(const predictor *p, region t, const float *x, bool bare, float *in) {
    const int more = source_appended(p->d);
    const size_t cells = (size_t)t.rows * (size_t)t.columns;
    region_cut(p->r, t, x, p->r->channels, in);
    in += (size_t)p->r->channels * cells;
    if (bare)
        memset(in, 0, (size_t)more * cells * sizeof *in);
    else
        region_cut(p->r, t, p->appended, more, in);
}

/* What ControlNets add, which see the latent alone. */
static bool ask_controls(predictor *p, region t, const float *x, const question *q, unet_input *input, err *e) {
    if (!p->controls) return true;
    const size_t n = (size_t)p->r->channels * (size_t)t.rows * (size_t)t.columns;
    bool is_negative[TOGETHER_MAX];
    float *latents = mem_alloc((size_t)input->n * n, sizeof *latents);
    for (int i = 0; i < input->n; i++) {
        region_cut(p->r, t, x, p->r->channels, latents + (size_t)i * n);
        is_negative[i] = q[i].is_negative;
    }
    unet_input seen = *input;
    seen.x = latents;
    const bool ok = controls_eval(p->controls, &seen, t, is_negative, p->step, &input->control, e);
    free(latents);
    return ok;
}

/* The picture that is a prompt, too; `shown` lives as long as the input. */
static void show_picture(predictor *p, const question *q, unet_input *input, unet_image *shown) {
    if (!p->image_prompt) return;
    bool is_negative[TOGETHER_MAX];
    for (int i = 0; i < input->n; i++) is_negative[i] = q[i].is_negative;
    if (image_prompt_at(p->image_prompt, is_negative, input->n, p->step, p->r->steps, shown)) input->image = shown;
}

static int slot_of(const predictor *p, const question *q, int tile) {
    return q->number * tile_count(p->r) + tile;
}

static bool go_together(const predictor *p, const question *a, const question *b, int tile) {
    return a->what->text->tokens == b->what->text->tokens &&
           can_reuse(p, slot_of(p, a, tile)) == can_reuse(p, slot_of(p, b, tile));
}

/* `count` questions with texts of one length in one pass; the answers are added to. */
static bool ask_at_once(predictor *p, region t, int tile, const float *x, float timestep, const question *q, int count,
                        err *e) {
    const size_t cells = (size_t)t.rows * (size_t)t.columns, n = (size_t)p->r->channels * cells;
    const size_t in_n = n + (size_t)source_appended(p->d) * cells;
    const unet_info info = unet_describe(p->d->unet);
    const size_t text = (size_t)q[0].what->text->tokens * (size_t)info.context_dim, label = (size_t)info.label_dim;
    float *in = p->buffers + 2 * values(p), *out = in + TOGETHER_MAX * in_n;
    float *contexts = mem_alloc((size_t)count * text, sizeof(float));
    float *labels = mem_alloc((size_t)count * label, sizeof(float));
    float timesteps[TOGETHER_MAX];
    int slots[TOGETHER_MAX];
    for (int i = 0; i < count; i++) {
        put_input(p, t, x, q[i].bare, in + (size_t)i * in_n);
        memcpy(contexts + (size_t)i * text, q[i].what->text->data, text * sizeof(float));
        if (label) memcpy(labels + (size_t)i * label, q[i].what->label, label * sizeof(float));
        timesteps[i] = timestep;
        slots[i] = slot_of(p, &q[i], tile);
    }
    unet_input input = {.x = in,
                        .n = count,
                        .h = t.rows,
                        .w = t.columns,
                        .timesteps = timesteps,
                        .context = contexts,
                        .tokens = q[0].what->text->tokens,
                        .label = labels};
    unet_image shown;
    bool ok = ask_controls(p, t, x, q, &input, e); /* which see no picture, and have keys and times of their own */
    ok = ok && unet_texts_find(p->texts, contexts, count, input.tokens, &input.keys, e) &&
         unet_times_find(p->times, &input, e);
    show_picture(p, q, &input, &shown);
    ok = ok &&
         (keeps(p) ? eval_kept(p, &input, slots, deep_values(p, t), out, e) : unet_eval(p->d->unet, &input, out, e));
    free(contexts);
    free(labels);
    for (int i = 0; ok && i < count; i++) put_back(p, t, out + (size_t)i * n, q[i].out);
    return ok;
}

/* Two in one pass where memory_fits_pair() has it so: weights are read once, and small pictures fill the vectors
 * better. */
static bool ask_of_tile(predictor *p, int tile, const float *x, float timestep, const question *q, int count, err *e) {
    const int across = tiles_along(p->r, p->r->columns);
    const region t = tile_at(p->r, tile / across, tile % across);
    const bool pairs = memory_fits_pair(p->d, t.rows, t.columns);
    for (int i = 0, at_once; i < count; i += at_once) {
        const bool two = pairs && i + 1 < count && go_together(p, &q[i], &q[i + 1], tile);
        at_once = two ? 2 : 1;
        if (!ask_at_once(p, t, tile, x, timestep, &q[i], at_once, e)) return false;
    }
    return true;
}

/* MultiDiffusion (Bar-Tal et al. 2023, equation 5 with equal weights): of several tiles, each is asked for itself. */
static bool ask(predictor *p, const float *x, float timestep, const question *q, int count, err *e) {
    const int tiles = tile_count(p->r);
    for (int i = 0; i < count; i++) memset(q[i].out, 0, values(p) * sizeof *q[i].out);
    for (int i = 0; i < tiles; i++)
        if (!ask_of_tile(p, i, x, timestep, q, count, e)) return false;
    return true;
}

/* Composition (Liu et al. 2022, "Compositional Visual Generation with Composable Diffusion Models"): the weighted
 * directions of the parts away from the negative prompt are added up, and guidance takes the sum for one prompt's. */
static bool predict_composed(predictor *p, const float *x, float timestep, int call, const guidance_answers *out,
                             err *e) {
    const size_t n = values(p);
    float *base = out->negative ? out->negative : p->buffers, *part = p->buffers + n;
    const condition *negative = conditioning_at(p->negative, 0, call);
    const question first[] = {{negative, true, false, 0, base}, {negative, true, true, 1, out->bare}};
    if (!ask(p, x, timestep, first, out->bare ? 2 : 1, e)) return false;
    memcpy(out->positive, base, n * sizeof(float));
    for (int k = 0; k < p->positive->plan.count; k++) {
        const question next = {conditioning_at(p->positive, k, call), false, false, 2 + k, part};
        if (!ask(p, x, timestep, &next, 1, e)) return false;
        const float weight = p->positive->plan.parts[k].weight;
        for (size_t i = 0; i < n; i++) out->positive[i] += weight * (part[i] - base[i]);
    }
    return true;
}

/* The call's number depends on nothing but the step and what came since it began, so that a resumed picture goes on
 * with the same texts. */
static int count_call(predictor *p) {
    const int last = p->calls_per_step - 1, within = p->calls < last ? p->calls : last;
    p->calls++;
    return p->step * p->calls_per_step + within;
}

bool predictor_predict(void *ctx, const float *x, float timestep, const guidance_answers *out, err *e) {
    predictor *p = ctx;
    const int call = count_call(p);
    if (p->positive->plan.count > 1) return predict_composed(p, x, timestep, call, out, e);
    const condition *negative = out->negative ? conditioning_at(p->negative, 0, call) : NULL;
    const question all[] = {{conditioning_at(p->positive, 0, call), false, false, 0, out->positive},
                            {negative, true, false, 1, out->negative},
                            {negative, true, true, 2, out->bare}};
    return ask(p, x, timestep, all, out->bare ? 3 : out->negative ? 2 : 1, e);
}
