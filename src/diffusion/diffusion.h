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
    DIFFUSION_UPSCALING,
} diffusion_phase;

const char *diffusion_phase_name(diffusion_phase phase); /* "loading", "encoding", ... */

typedef struct diffusion_progress {
    diffusion_phase phase;
    int image, images; /* which picture of the batch: 0 .. images-1 */
    int step, steps;   /* finished and in all; sampling steps, or tensors while loading, or tiles while decoding
                        * or upscaling */
} diffusion_progress;

/* Every callback may be NULL. `ctx` is passed back as it is. */
typedef struct diffusion_events {
    void *ctx;

    /* After every step, and at the start of every phase with step 0. */
    void (*progress)(void *ctx, const diffusion_progress *p);

    /* A small RGB picture of what the sampler has so far, borrowed during the call: one pixel per latent, or with a
     * TAESD at most 512 in a side, and no more often than a fifth of the time allows. */
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

/* What the operands of matrix products are rounded to on a CPU; sums are floats always. Other devices take no notice.
 */
typedef enum diffusion_precision {
    DIFFUSION_PRECISION_AUTO, /* bfloat16, with quantised weights of the UNet 8-bit integers, where they are faster */
    DIFFUSION_PRECISION_F32,
    DIFFUSION_PRECISION_BF16, /* opening fails with ERR_UNSUPPORTED where it is not faster */
    DIFFUSION_PRECISION_INT8, /* of the UNet's linear layers; the same where it is not faster. The rest is as with AUTO
                               */
} diffusion_precision;

/* False when `name` is none of "auto" (NULL is, too), "f32", "bf16", "int8". */
bool diffusion_precision_from_name(const char *name, diffusion_precision *out);

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
    const char *taesd; /* a tiny autoencoder for the model's latents: real previews, and pictures quickly decoded */
} diffusion_files;

typedef struct diffusion_options {
    const char *device; /* name of a device; NULL: the first GPU, else the CPU */
    int threads;        /* CPU threads; 0: one per core */
    diffusion_prediction prediction;
    diffusion_precision precision;
    size_t memory_limit; /* bytes to stay within on the device; 0: what it has free */
    bool is_deferred;    /* the first use brings the weights onto the device: a refiner's */
} diffusion_options;

/* Maps and checks the files and prepares the model. NULL on failure: ERR_NOT_FOUND, ERR_FORMAT (a broken file),
 * ERR_UNSUPPORTED (a kind of model that is not implemented; a part that is missing), ERR_MEMORY with the figures,
 * ERR_CANCELLED. `options` and `events` may be NULL. */
diffusion *diffusion_open(const diffusion_files *files, const diffusion_options *options,
                          const diffusion_events *events, err *e);

void diffusion_close(diffusion *d); /* NULL is fine */

typedef struct diffusion_info {
    const char *family;      /* "sd1", "sd2", "sdxl", "sdxl-refiner" */
    const char *prediction;  /* "eps" or "v" */
    const char *device;      /* name of the device that computes */
    const char *precision;   /* "f32", "bf16", "int8"; "bf16, quantised int8" or "f32, quantised int8" with AUTO */
    const char *weight_type; /* the type that most weights have: "f16", "q8_0", ... */
    uint64_t parameters;     /* of all parts */
    uint64_t weight_bytes;   /* in the files */
    int default_width, default_height;
    int size_multiple;      /* width and height must be multiples of it */
    int min_size, max_size; /* of either side, in pixels */
    bool can_encode_images; /* the VAE has its encoder: image to image works */
    bool inpaints;          /* its network is told the mask and what is left of the picture (9 input channels) */
    bool edits;             /* its network is told the picture that a prompt is to change (8 input channels) */
    bool has_taesd;
} diffusion_info;

/* Strings live as long as `d`. */
void diffusion_describe(const diffusion *d, diffusion_info *out);

/* Names for `sampler`, `schedule` and `rng` below, NULL-terminated. */
const char *const *diffusion_samplers(void);
const char *const *diffusion_schedules(void);
const char *const *diffusion_rngs(void);
const char *const *diffusion_upscalers(void); /* of diffusion_hires; "latent" and its kin first */
const char *const *diffusion_fills(void);     /* in the order of diffusion_fill */
const char *const *diffusion_preprocessors(void);
const char *const *diffusion_control_modes(void);
const char *const *diffusion_emphases(void); /* the first is the default */

/* ---- pictures --------------------------------------------------------------------------------------------------- */

typedef enum diffusion_tiling {
    DIFFUSION_TILING_AUTO, /* when a whole picture would not fit into free memory */
    DIFFUSION_TILING_OFF,
    DIFFUSION_TILING_ON,
} diffusion_tiling;

enum { DIFFUSION_LORAS_MAX = 32, DIFFUSION_EMBEDDINGS_MAX = 128 };

/* A LoRA or LyCORIS file, and how much of it: 0 nothing, 1 as it was trained, also negative. */
typedef struct diffusion_lora {
    const char *path;
    const char *name;  /* what people call it; may be NULL */
    float unet, te;    /* for the UNet and for the text encoders: -100 .. 100 */
    bool is_in_prompt; /* it is there because the prompt has its tag */
} diffusion_lora;

/* A textual inversion file, and the name that stands for it in the prompts (docs/prompts.md). One for text encoders of
 * another width is left out, with a warning in the log. */
typedef struct diffusion_embedding {
    const char *name;
    const char *path;
} diffusion_embedding;

enum { DIFFUSION_CONTROLS_MAX = 8 };

/* What a control picture is made from the picture given. */
typedef enum diffusion_preprocessor {
    DIFFUSION_PREPROCESS_NONE, /* it is one */
    DIFFUSION_PREPROCESS_CANNY /* its edges */
} diffusion_preprocessor;

/* Whose say counts more where prompt and control picture disagree. */
typedef enum diffusion_control_mode {
    DIFFUSION_CONTROL_BALANCED,
    DIFFUSION_CONTROL_PROMPT_FIRST,  /* the control is weaker the finer the level */
    DIFFUSION_CONTROL_PICTURE_FIRST, /* likewise, and the negative prompt is answered without it */
} diffusion_control_mode;

/* A ControlNet and its picture. diffusion_control_init() sets what is usual. */
typedef struct diffusion_control {
    const char *path;
    const char *name;     /* what people call the file; may be NULL */
    const image *picture; /* of any size: scaled and cropped as an initial picture is */
    diffusion_preprocessor preprocessor;
    int low, high;    /* of canny, 0 .. 2040: gradients that may be edges, and that are (canny.h); 100, 200 */
    float weight;     /* 0 .. 2; 1 */
    float start, end; /* 0 .. 1: it takes part in steps that lie whole within this part of each pass; 0, 1 */
    diffusion_control_mode mode;
} diffusion_control;

void diffusion_control_init(diffusion_control *c);

/* A picture as prompt beside the text (IP-Adapter). diffusion_params_init() sets what is usual. */
typedef struct diffusion_ip_adapter {
    const char *path;        /* NULL or "": none */
    const char *name;        /* what people call the file; may be NULL */
    const char *clip_vision; /* path of the image encoder that it was trained with */
    const image *picture;    /* of any size: the middle of it is read */
    float weight;            /* 0 .. 2; 1 */
    float start, end;        /* 0 .. 1: it takes part in steps that lie whole within this part of each pass; 0, 1 */
} diffusion_ip_adapter;

/* How steps are taken, where noise comes from and how guidance works (docs/samplers.md). diffusion_params_init() sets
 * what changes nothing. */
typedef struct diffusion_sampling {
    float eta;     /* 0 .. 1: share of fresh noise, for samplers that take it; below 0: the sampler's own */
    float s_noise; /* 0 .. 2: factor of all noise that steps draw; 1 */
    float s_churn, s_tmin,
        s_tmax; /* 0 .. 100, 0 .. 1000: noise added before steps of euler, heun, dpm2; tmax 0: no limit */
    float guidance_start, guidance_end; /* 0 .. 1: guided steps lie whole within this part of the run; 0, 1 */
    float guidance_rescale;             /* 0 .. 1: phi of CFG rescale */
    float threshold, threshold_limit;   /* dynamic thresholding: share of magnitudes, 0 (off) or 0.5 .. 1; 0.1 .. 100 */
    uint64_t subseed;                   /* A1111's variations: the initial noise goes towards that of this seed */
    float subseed_strength;             /* 0 .. 1; with more than 0 all pictures have the same seed, and subseed + i */
    int seed_from_width, seed_from_height; /* pixels: the initial noise is that of this size, in the middle; 0: none */
    int tile, tile_overlap; /* Bar-Tal et al., "MultiDiffusion" (2023): the network sees windows of `tile` pixels in a
                             * side, which overlap by at least so many; 64 .. 3072 and 0 .. half of it, in steps of
                             * size_multiple. 0: all at once */
    int cache_interval;   /* 1 .. 20: every so many steps the whole network is computed, in those between only its last
                           * block (Ma et al. 2023, "DeepCache"): quicker, and less exact. 1: always */
    int noise_seed_delta; /* 0 .. 2^31-1: steps draw from the generator of seed + this, as A1111's ENSD; 0: go on with
                           * the initial noise's */
} diffusion_sampling;

/* What the masked part of the initial picture holds before sampling. */
typedef enum diffusion_fill {
    DIFFUSION_FILL_ORIGINAL, /* what it shows; the new area of a picture that is extended goes on with its border */
    DIFFUSION_FILL_COLOURS,  /* colours from around it */
    DIFFUSION_FILL_NOISE,    /* latent noise */
    DIFFUSION_FILL_NOTHING,  /* latents of zero */
} diffusion_fill;

/* Which part of the initial picture is drawn anew. What is not comes out exactly as it was. */
typedef struct diffusion_inpaint {
    const image *mask; /* its white (of RGBA with transparency: the transparent) part is drawn anew; of any size, scaled
                        * as the initial picture is; NULL: everything, or what `extend` adds */
    bool invert;       /* the other part */
    float blur;        /* 0 .. 64: standard deviation in pixels of the mask's edge */
    diffusion_fill fill;
    bool only_masked; /* works at width x height on what surrounds the mask alone, and puts it back: the result has the
                       * initial picture's own size */
    int padding;      /* 0 .. 512, with only_masked: pixels around the mask that are shown to the model */
} diffusion_inpaint;

/* Outpainting: pixels to add at each side, multiples of size_multiple up to 2048. The initial picture keeps its own
 * size (cut to a multiple of size_multiple), or takes width x height where they are given. */
typedef struct diffusion_extend {
    int left, right, top, bottom;
    int feather; /* 0 .. 256: pixels of the old picture over which it goes over into the new */
} diffusion_extend;

/* Hires fix: a second pass over the enlarged result of the first; none when scale, width and height are 0. */
typedef struct diffusion_hires {
    float scale;          /* 1 .. 8, with neither width nor height */
    int width, height;    /* of the result; 0: from the other, in proportion; both: what is too much is cut off */
    int steps;            /* 0 .. 200: of the second pass; 0: as many as the first */
    float strength;       /* 0.01 .. 1: how much the second pass draws anew */
    const char *upscaler; /* a name of diffusion_upscalers(); with a network, whatever people call that */
    const char *network;  /* NULL, or a file as diffusion_upscaler_open() takes it: that network enlarges the decoded
                           * picture, which is then fitted to the size */
} diffusion_hires;

/* A second model that takes over within the run, with the same latents, noise and schedule: A1111's refiner. With hires
 * fix it does so in the second pass. Where device memory does not suffice for both, one gives way to the other. */
typedef struct diffusion_refiner {
    diffusion *model; /* borrowed; NULL: none. Its latents must be of the same kind */
    float switch_at;  /* 0 .. 1: the share of the steps that is the first model's, rounded up to whole ones */
} diffusion_refiner;

/* Strings and images are borrowed during the call. */
typedef struct diffusion_params {
    const char *prompt;    /* A1111's syntax: "a (red:1.2) fox [in the snow:in the woods:0.5]" (docs/prompts.md); LoRA
                            * tags in it are no text */
    const char *negative;  /* "" or NULL: none */
    int width, height;     /* pixels, at most 3072 x 3072 in all, more with tiles; 0: the model's default */
    int steps;             /* 1 .. 200 */
    float cfg_scale;       /* 0 .. 50; 1 skips the negative prompt and halves the work */
    float image_cfg_scale; /* 0 .. 50, models that edit only: how closely to keep to the initial picture; 1 saves a
                            * third of the work */
    const char *sampler;   /* a name of diffusion_samplers(), or A1111's ("DPM++ 2M Karras") */
    const char *schedule;  /* NULL or "": the one that the sampler's name implies */
    const char *rng;       /* "cuda" (A1111's GPU and "NV" noise) or "cpu" (torch on the CPU) */
    uint64_t seed;         /* picture i is made with diffusion_seed(i), alone, so that it can be made again by itself */
    int batch;             /* pictures: 1 .. 16 */
    int clip_skip;         /* 1 .. 12: 1 takes the text encoder's last layer */
    const char *emphasis;  /* what attention weights do, a name of diffusion_emphases(); NULL or "": "a1111" */
    diffusion_sampling sampling;
    const image *init;         /* image to image, of any size (scaled and cropped to fit); NULL: from noise alone */
    float strength;            /* 0 .. 1, with init only: how much is drawn anew, as A1111's denoising strength: it runs
                                * min(int(steps * strength) + 1, steps) steps, so 0 keeps the picture but for one tiny step */
    diffusion_inpaint inpaint; /* with init only */
    diffusion_extend extend;   /* with init only */
    diffusion_hires hires;     /* without init only */
    diffusion_refiner refiner; /* merges no LoRAs, and no ControlNet or IP-Adapter takes part in its steps */
    const diffusion_lora *loras;           /* borrowed; merged into the weights until a call has others, or none */
    size_t lora_count;                     /* at most DIFFUSION_LORAS_MAX */
    const diffusion_control *controls;     /* borrowed; their networks stay loaded until a call has others, or none */
    size_t control_count;                  /* at most DIFFUSION_CONTROLS_MAX */
    const diffusion_embedding *embeddings; /* borrowed; read when a prompt is encoded, and kept for the next */
    size_t embedding_count;                /* at most DIFFUSION_EMBEDDINGS_MAX */
    diffusion_ip_adapter ip_adapter;       /* stays loaded until a call has another, or none */
    diffusion_tiling tiling;
    bool tiny_vae;          /* pictures are decoded by diffusion_files.taesd: nearly as well, and much quicker */
    int preview_every;      /* steps between previews; 0: none */
    const char *checkpoint; /* NULL or a file that holds the state of the work between steps. When it exists and
                             * belongs to exactly these parameters and this model, the work goes on from there and the
                             * result is bit-identical to an uninterrupted one; otherwise it is replaced. Removed
                             * when the work is done. */
    int checkpoint_ms;      /* at most one is written in this time; 0: after every step */
} diffusion_params;

/* Defaults: 20 steps, cfg 7, image cfg 1.5, euler_a, discrete, cuda, batch 1, clip_skip 1, the sampler's eta, strength
 * 0.75, tiles that overlap by 64, a mask blurred by 4 with 32 pixels around it, hires none (else 0.7 and "latent"), no
 * refiner (else at 0.8), a checkpoint each 500 ms. */
void diffusion_params_init(diffusion_params *p);

/* The seeds of picture i, as A1111 counts them: seed + i, or with a subseed always seed, and subseed + i. */
uint64_t diffusion_seed(const diffusion_params *p, int i);
uint64_t diffusion_subseed(const diffusion_params *p, int i);

/* Checks without computing; ERR_INVALID names the parameter: "steps: 0 is not between 1 and 200". */
bool diffusion_check(const diffusion *d, const diffusion_params *p, err *e);

/* What a call would need, in bytes; a refiner aside. */
typedef struct diffusion_memory {
    size_t weights; /* of all that takes part; file-backed where they are used in place; with what LoRAs change, with
                     * ControlNets, an IP-Adapter and its image encoder */
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

/* ---- enlarging -------------------------------------------------------------------------------------------------- */

/* An ESRGAN or Real-ESRGAN network, from a file of any readable format. Needs no model; has its own weights and device
 * memory. One thread uses it at a time. */
typedef struct diffusion_upscaler diffusion_upscaler;

/* NULL on failure, as diffusion_open(). `options` may be NULL. */
diffusion_upscaler *diffusion_upscaler_open(const char *path, const diffusion_options *options, err *e);
void diffusion_upscaler_close(diffusion_upscaler *u); /* NULL is fine */

int diffusion_upscaler_scale(const diffusion_upscaler *u); /* its own factor: 1, 2, 4, ... */

typedef struct diffusion_upscale_params {
    const image *picture;   /* borrowed; laid on white where it is transparent */
    float factor;           /* 1 .. 8; 0: the upscaler's own. Others are reached by using it again and by reducing */
    int width, height;      /* of the result, instead of a factor; 0: by the factor */
    int tile;               /* pixels of the picture in a side, 48 .. 192; 0: by free memory */
    const char *checkpoint; /* NULL or a file that keeps finished tiles, from which the same work goes on: the result is
                             * bit-identical. Removed when the work is done. */
} diffusion_upscale_params;

/* At most 64 million pixels, during the work, too. Tells progress (phase upscaling, steps are tiles) and asks
 * should_cancel. out: RGB; free with image_free(). Errors as diffusion_generate(): ERR_INVALID names "factor", ... */
bool diffusion_upscale(diffusion_upscaler *u, const diffusion_upscale_params *p, const diffusion_events *events,
                       image *out, err *e);

#endif
