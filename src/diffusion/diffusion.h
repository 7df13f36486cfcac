/* diffusion.h - the image engine: open a model, describe it, make pictures, close it.
 *
 * This is the engine's only public header. One `diffusion` owns its weights, its compute backend and its scratch
 * memory, and is used by one thread at a time; several may be open at once. There is no global state.
 * Callbacks run on the thread that called, except should_cancel, which a compute thread may call too. */
#ifndef MYSTI_DIFFUSION_DIFFUSION_H
#define MYSTI_DIFFUSION_DIFFUSION_H

#include "base/err.h"
#include "diffusion/image/image.h"

#include <stddef.h>
#include <stdint.h>

typedef struct diffusion diffusion;

/* ---- compute devices -------------------------------------------------------------------------------------------- */

typedef enum diffusion_device_type { DIFFUSION_CPU, DIFFUSION_GPU, DIFFUSION_IGPU } diffusion_device_type;

typedef struct diffusion_device {
    char name[64];         /* "CPU", "CUDA0": what diffusion_options.device takes */
    char description[128]; /* the hardware's own name */
    diffusion_device_type type;
    size_t total; /* bytes; the machine's memory for the CPU */
    size_t free;
} diffusion_device;

/* Fills at most `cap` entries and returns how many devices there are. The first call initialises the backends. */
size_t diffusion_devices(diffusion_device *out, size_t cap);

/* ---- events ----------------------------------------------------------------------------------------------------- */

typedef enum diffusion_phase {
    DIFFUSION_LOADING,
    DIFFUSION_ENCODING, /* prompt, and the initial image */
    DIFFUSION_SAMPLING,
    DIFFUSION_DECODING,
} diffusion_phase;

const char *diffusion_phase_name(diffusion_phase phase); /* "loading", "encoding", ... */

typedef struct diffusion_progress {
    diffusion_phase phase;
    int image, images; /* which picture of the batch: 0 .. images-1 */
    int step, steps;   /* finished and in all; sampling steps, or tensors while loading, or tiles while decoding */
} diffusion_progress;

/* Every callback may be NULL. `ctx` is passed back as it is. */
typedef struct diffusion_events {
    void *ctx;

    /* After every step, and at the start of every phase with step 0. */
    void (*progress)(void *ctx, const diffusion_progress *p);

    /* A small RGB picture (one pixel per latent) of what the sampler has so far; borrowed during the call. */
    void (*preview)(void *ctx, const diffusion_progress *p, const image *small);

    /* A finished picture, borrowed during the call. False (with the reason in `e`) ends the whole call. */
    bool (*picture)(void *ctx, int index, uint64_t seed, const image *picture, err *e);

    /* Polled within every step; true ends the call with ERR_CANCELLED. Must be thread safe and quick. */
    bool (*should_cancel)(void *ctx);
} diffusion_events;

/* ---- models ----------------------------------------------------------------------------------------------------- */

typedef enum diffusion_prediction {
    DIFFUSION_PREDICT_AUTO, /* read from the file, else from the architecture */
    DIFFUSION_PREDICT_EPS,
    DIFFUSION_PREDICT_V,
} diffusion_prediction;

/* False when `name` is none of "auto", "eps" ("epsilon"), "v" ("v_prediction"). */
bool diffusion_prediction_from_name(const char *name, diffusion_prediction *out);

/* Paths of safetensors or GGUF files, NULL for none. At least `model` (a whole checkpoint) or `diffusion_model` (only
 * the UNet) is needed; a separate file wins over the same part of `model`. */
typedef struct diffusion_files {
    const char *model;
    const char *diffusion_model;
    const char *vae;
    const char *clip_l;
    const char *clip_g;
    const char *t5xxl;
    const char *llm;
} diffusion_files;

typedef struct diffusion_options {
    const char *device; /* name of a device; NULL: the first GPU, else the CPU */
    int threads;        /* CPU threads; 0: one per core */
    diffusion_prediction prediction;
    size_t memory_limit; /* bytes to stay within on the device; 0: what it has free */
} diffusion_options;

/* Maps and checks the files and prepares the model. NULL on failure: ERR_NOT_FOUND, ERR_FORMAT (a broken file),
 * ERR_UNSUPPORTED (a kind of model that is not implemented; a part that is missing), ERR_MEMORY with the figures,
 * ERR_CANCELLED. `options` and `events` may be NULL. */
diffusion *diffusion_open(const diffusion_files *files, const diffusion_options *options,
                          const diffusion_events *events, err *e);

void diffusion_close(diffusion *d); /* NULL is fine */

typedef struct diffusion_info {
    const char *family;      /* "sd1" */
    const char *prediction;  /* "eps" or "v" */
    const char *device;      /* name of the device that computes */
    const char *weight_type; /* the type that most weights have: "f16", "q8_0", ... */
    uint64_t parameters;     /* of all parts */
    uint64_t weight_bytes;   /* in the files */
    int default_width, default_height;
    int size_multiple;      /* width and height must be multiples of it */
    int min_size, max_size; /* of either side, in pixels */
    bool can_encode_images; /* the VAE has its encoder: image to image works */
} diffusion_info;

/* Strings live as long as `d`. */
void diffusion_describe(const diffusion *d, diffusion_info *out);

/* Names for `sampler`, `schedule` and `rng` below, NULL-terminated. */
const char *const *diffusion_samplers(void);
const char *const *diffusion_schedules(void);
const char *const *diffusion_rngs(void);

/* ---- pictures --------------------------------------------------------------------------------------------------- */

typedef enum diffusion_tiling {
    DIFFUSION_TILING_AUTO, /* when a whole picture would not fit into free memory */
    DIFFUSION_TILING_OFF,
    DIFFUSION_TILING_ON,
} diffusion_tiling;

/* Strings and the image are borrowed during the call. */
typedef struct diffusion_params {
    const char *prompt;   /* A1111 attention syntax: "a (red:1.2) fox" */
    const char *negative; /* "" or NULL: none */
    int width, height;    /* pixels, at most 3072 x 3072 in all; 0: the model's default */
    int steps;            /* 1 .. 200 */
    float cfg_scale;      /* 0 .. 50; 1 skips the negative prompt and halves the work */
    const char *sampler;  /* a name of diffusion_samplers(), or A1111's ("DPM++ 2M Karras") */
    const char *schedule; /* NULL or "": the one that the sampler's name implies */
    const char *rng;      /* "cuda" (A1111's GPU and "NV" noise) or "cpu" (torch on the CPU) */
    uint64_t seed;        /* picture i is made with seed + i, alone, so that it can be made again by itself */
    int batch;            /* pictures: 1 .. 16 */
    int clip_skip;        /* 1 .. 12: 1 takes the text encoder's last layer */
    float eta;            /* 0 .. 1: share of fresh noise of the ancestral samplers; 1 is usual */
    const image *init;    /* image to image, of any size (scaled and cropped to fit); NULL: from noise alone */
    float strength;       /* 0 .. 1, with init only: how much is drawn anew, as A1111's denoising strength: it runs
                           * min(int(steps * strength) + 1, steps) steps, so 0 keeps the picture but for one tiny step */
    diffusion_tiling tiling;
    int preview_every;      /* steps between previews; 0: none */
    const char *checkpoint; /* NULL or a file that holds the state of the work between steps. When it exists and
                             * belongs to exactly these parameters and this model, the work goes on from there and the
                             * result is bit-identical to an uninterrupted one; otherwise it is replaced. Removed
                             * when the work is done. */
    int checkpoint_ms;      /* at most one is written in this time; 0: after every step */
} diffusion_params;

/* Defaults: 20 steps, cfg 7, euler_a, discrete, cuda, batch 1, clip_skip 1, eta 1, strength 0.75, a checkpoint each 500
 * ms. */
void diffusion_params_init(diffusion_params *p);

/* Checks without computing; ERR_INVALID names the parameter: "steps: 0 is not between 1 and 200". */
bool diffusion_check(const diffusion *d, const diffusion_params *p, err *e);

/* What a call would need, in bytes. */
typedef struct diffusion_memory {
    size_t weights; /* resident while sampling; file-backed where they are used in place */
    size_t compute; /* scratch at the peak of any phase */
    size_t free;    /* on the device now */
} diffusion_memory;
bool diffusion_estimate(const diffusion *d, const diffusion_params *p, diffusion_memory *out, err *e);

typedef struct diffusion_result {
    int pictures;        /* finished in this call */
    int resumed_picture; /* where a checkpoint took up the work: which picture of the batch, */
    int resumed_step;    /* and how many of its steps were done; 0, 0 without one */
} diffusion_result;

/* Makes the pictures and hands each to events->picture. False: ERR_INVALID (a parameter, as above), ERR_CANCELLED
 * (within a step), ERR_MEMORY (with figures; the model stays usable), ERR_DEVICE, or what `picture` reported.
 * `events` and `result` may be NULL. */
bool diffusion_generate(diffusion *d, const diffusion_params *p, const diffusion_events *events,
                        diffusion_result *result, err *e);

#endif
