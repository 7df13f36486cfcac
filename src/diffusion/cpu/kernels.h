/* kernels.h - what diffusion spends its time on, for a CPU: convolutions, matrix products, attention, and what
 * lies between them.
 *
 * Each kernel is compiled for several instruction sets; cpu_kernels_best() picks the table of the best one that this
 * processor has. Sums are floats; operands of matrix products are floats or are rounded to bfloat16. A kernel is called
 * by `threads` threads at once, each with its number `thread`; none waits for another, and which thread does what
 * decides no sum: results are the same for any number of threads.
 *
 * Shapes are PyTorch's; everything is contiguous. Weights may have any type: rows of them are turned into floats as
 * they are needed, so that they keep their size in memory. */
#ifndef MYSTI_DIFFUSION_CPU_KERNELS_H
#define MYSTI_DIFFUSION_CPU_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What the operands of matrix products are rounded to. CPU_INT8: integers of eight bits with a scale for each 128
 * of them; of cpu_linear's alone. */
typedef enum cpu_precision { CPU_F32, CPU_BF16, CPU_INT8 } cpu_precision;

/* A matrix of weights, in blocks of so many numbers; a block of one number for types without. */
typedef struct cpu_matrix {
    const void *data;
    size_t row_bytes; /* from one row to the next */
    int64_t block;    /* 256 at most, a power of 2 */
    size_t block_bytes;
    void (*to_floats)(const void *from, float *to, int64_t n); /* whole blocks; NULL: they are floats */
} cpu_matrix;

/* A convolution over pictures x [n, ic, h, w] with weights [oc, ic, kh, kw] -> y [n, oc, oh, ow]. */
typedef struct cpu_conv {
    const float *x, *bias; /* bias: [n, oc] if bias_per_picture, else [oc]; NULL: none */
    const float *scales;   /* not of `conv`: silu(x a + b) is what is convolved; [n, ic, 2]. NULL: x itself is */
    const float *add;      /* to the result, of its shape, not where doubled; NULL: nothing */
    cpu_matrix weight;     /* [oc][ic kh kw] */
    float *y;
    int64_t n, ic, oc, h, w, kh, kw, oh, ow;
    int stride, pad;
    bool bias_per_picture;
    bool doubled; /* of the picture with each of its pixels four times: oh = 2 h, ow = 2 w. 3x3, stride 1, pad 1 */
} cpu_conv;

/* How a product takes the rows of x, if not as floats: packed, row(width) floats from one to the next. */
typedef struct cpu_packing {
    int64_t (*row)(int64_t width);
    int64_t (*cells)(int64_t width);                       /* those floats of a row that are used */
    void (*pack)(const float *x, int64_t width, float *y); /* one row */
} cpu_packing;

/* y [t, out] = x [t, in] weight [out, in]^T + bias [out] + add [t, out]. */
typedef struct cpu_linear {
    const float *x, *bias, *add; /* x: packed if the product has a packing; bias, add: NULL: none */
    cpu_matrix weight;
    const float *kept; /* the weights as keep() laid them out, instead; NULL: not there */
    float *y;
    int64_t t, in, out;
    int64_t bias_rows; /* rows of x that a row of bias [t / bias_rows, out] is for; 0: one row for all */
} cpu_linear;

/* weight [out, in] -> kept, kept_floats(out, in) of them: in the order in which they are read, for any number of
 * products. With `taps` > 1 a row, which lies as [in / taps][taps], is kept as [taps][in / taps]. */
typedef struct cpu_keep {
    cpu_matrix weight;
    /* Copies a part of what weight.data holds, by any of the threads; NULL: it is read there. */
    void (*copy)(const void *source, size_t from, size_t bytes, void *to);
    const void *source;
    float *kept;
    int64_t in, out, taps;
    bool doubled; /* it is [out / 4][in / 4][3][3] of a picture to be doubled: as the 2x2 kernels of its four phases
                   * (doubled.h), with the phases of an output channel one after the other; taps: 4 */
} cpu_keep;

/* A 3x3 convolution of stride 1, padded by 1, of pixels as rows: x [n, h, w, ic] -> y [n, h, w, oc]. */
typedef struct cpu_winograd {
    const float *x, *bias; /* bias: [n, oc] if bias_per_picture, else [oc]; NULL: none */
    const float *kept;     /* the kernels as keep() laid them out */
    float *y;
    int64_t n, h, w, ic, oc;
    bool bias_per_picture;
} cpu_winograd;

/* That by Winograd's way. keep(): weight is [out][in][3][3]; taps and doubled are not read. */
typedef struct cpu_winograd_product {
    int64_t (*kept_floats)(int64_t oc, int64_t ic);
    void (*keep)(const cpu_keep *k, int thread, int threads);
    void (*convolve)(const cpu_winograd *c, int thread, int threads);
} cpu_winograd_product;

typedef struct cpu_product {
    const char *name;
    cpu_precision precision;
    const cpu_packing *packing; /* NULL: rows are floats */
    void (*linear)(const cpu_linear *p, int thread, int threads);
    int64_t group; /* packed rows of whole groups of so many numbers, end to end, are a packed row */
    int64_t (*kept_floats)(int64_t out, int64_t in);
    void (*keep)(const cpu_keep *k, int thread, int threads);
    const cpu_winograd_product *winograd; /* NULL: none */
} cpu_product;

/* y = softmax(q k^T scale) v for each head and each of n sequences, without holding the scores (Dao et al. 2022).
 * q, y: [n, tq, heads d]; k, v: [n, tk, heads d]. */
typedef struct cpu_attention {
    const float *q, *k, *v;
    float *y;
    int64_t n, tq, tk, heads, d;
    float scale;
} cpu_attention;

/* Over a picture's channels in groups, x, y [n, channels, plane] (Wu & He 2018), and silu behind it. */
typedef struct cpu_group_norm {
    const float *x, *weight, *bias; /* weight, bias: [channels] */
    float *y;
    int64_t n, channels, plane, groups;
    float eps;
    bool silu;
} cpu_group_norm;

/* Over each row of x, y [rows, width] (Ba et al. 2016). */
typedef struct cpu_layer_norm {
    const float *x, *weight, *bias; /* weight, bias: [width] */
    float *y;
    int64_t rows, width;
    float eps;
    const cpu_packing *packing; /* of y; NULL: floats */
} cpu_layer_norm;

/* y [rows, width] = the first half of x [rows, 2 width] times gelu of the second (Shazeer 2020). */
typedef struct cpu_geglu {
    const float *x;
    float *y;
    int64_t rows, width;
    const cpu_packing *packing; /* of y; NULL: floats */
} cpu_geglu;

/* y [n, columns, rows] = x [n, rows, columns] transposed, plus `add` [n, columns, rows] (NULL: nothing). */
typedef struct cpu_transpose {
    const float *x, *add;
    float *y;
    int64_t n, rows, columns;
} cpu_transpose;

/* Rows [n, plane, channels] of a picture x [n, channels, plane]: a pixel's channels, x or with scales [n, channels, 2]
 * x a + b, and silu of it. */
typedef struct cpu_pixels {
    const float *x, *scales; /* scales: NULL: none */
    float *y;
    int64_t n, channels, plane;
    bool silu;                  /* with scales alone */
    const cpu_packing *packing; /* of y; NULL: floats */
    int64_t row;                /* floats from one row of y to the next */
} cpu_pixels;

/* A picture y [n, channels, 2 h, 2 w] from what its 2x2 windows make, x [n, h + 1, w + 1, channels, 2, 2] (as Shi et
 * al. 2016 shuffle pixels), plus bias. A window is between pixels: its four results are the lower right one's upper
 * left phase, the lower left one's upper right phase, and so on; those outside of the picture are not used. */
typedef struct cpu_shuffle {
    const float *x, *bias; /* bias: [n, channels] if bias_per_picture, else [channels]; NULL: none */
    float *y;
    int64_t n, channels, h, w;
    bool bias_per_picture;
} cpu_shuffle;

/* Every pixel of x [planes, h, w] four times: y [planes, 2 h, 2 w]. */
typedef struct cpu_upsample {
    const float *x;
    float *y;
    int64_t planes, h, w;
} cpu_upsample;

/* A way to do a convolution. All threads call input(), which lays the picture out in `room`; when all are done, all
 * call output(). */
typedef struct cpu_conv_way {
    const char *name;                                /* for profiles */
    bool is_laid_out;                                /* output() reads the room and not x or scales */
    int64_t (*room)(const cpu_conv *c, int threads); /* its floats; NULL: it needs neither room nor input() */
    void (*input)(const cpu_conv *c, float *room, int thread, int threads);
    void (*output)(const cpu_conv *c, float *room, int thread, int threads);
} cpu_conv_way;

typedef struct cpu_kernels {
    const char *name;
    cpu_precision precision;
    cpu_conv_way conv;          /* any convolution */
    cpu_conv_way conv_direct;   /* kernels up to 11x11; doubled. Its room is kh kw times the result with another
                                 * stride than 1, a result of another size than the picture's, or small pictures */
    cpu_conv_way conv_winograd; /* 3x3, stride 1, pad 1; worth it from winograd_least pixels on */
    int64_t winograd_least;     /* of all pictures together */
    const cpu_product *product;
    const cpu_product *few_rows; /* in floats always, for a few rows of x; its weights are not kept */
    void (*attention)(const cpu_attention *p, int thread, int threads);
    void (*group_norm)(const cpu_group_norm *p, int thread, int threads);
    void (*group_scales)(const cpu_group_norm *p, int thread, int threads); /* y: [n, channels, 2], see cpu_conv */
    void (*layer_norm)(const cpu_layer_norm *p, int thread, int threads);
    void (*geglu)(const cpu_geglu *p, int thread, int threads);
    void (*transpose)(const cpu_transpose *p, int thread, int threads);
    void (*pixels)(const cpu_pixels *p, int thread, int threads);
    void (*shuffle)(const cpu_shuffle *p, int thread, int threads);
    void (*upsample)(const cpu_upsample *p, int thread, int threads);
} cpu_kernels;

/* The best of this processor, or the one that the environment variable MYSTI_CPU names (avx512amx, avx512bf16, avx512,
 * avx2, plain) if the processor has it. NULL when that has not this precision: CPU_BF16 is only where bfloat16 is
 * multiplied faster than floats (avx512amx, avx512bf16). */
const cpu_kernels *cpu_kernels_best(cpu_precision precision);

/* The product in integers of eight bits that goes with these kernels' vectors; NULL where the processor does not
 * multiply them faster (it does with AVX512-VNNI, AVX-VNNI, ARM's dot product; with AMX it has bfloat16 faster). */
const cpu_product *cpu_int8_product(const cpu_kernels *k);

/* By name, NULL when this processor or this build lacks it. */
const cpu_kernels *cpu_kernels_find(const char *name);

/* Whether a small product of whole numbers, with no sum that has to be rounded, is what the plain kernels make of it.
 */
bool cpu_kernels_multiply_right(const cpu_kernels *k);

/* A part of `count` things for one of `threads` threads: from *first, returns how many. */
static inline int64_t cpu_share(int64_t count, int thread, int threads, int64_t *first) {
    *first = count * thread / threads;
    return count * (thread + 1) / threads - *first;
}

#endif
