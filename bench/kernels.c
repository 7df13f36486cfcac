/* kernels.c - the kernels for CPUs by themselves, at the shapes of Stable Diffusion 1.5 at 512x512:
 *     build/bin/bench_kernels [THREADS] [REPEATS] [WORDS]
 * WORDS: only lines that contain them ("linear 8192", "group norm, silu, 2 x 320" with what follows it). MYSTI_CPU=avx2
 * (or plain) in the environment takes another instruction set. Where bfloat16 is multiplied faster than floats, its
 * kernels follow (MYSTI_CPU=avx512bf16: they alone are taken), and where 8-bit integers are, linear layers and 3x3
 * convolutions in those, of weights that are kept.
 *
 * Weights come from memory, as in a step, which reads far more of them than a cache holds: each run has others.
 *
 * Prints, for the best of some runs, the time; what a direct computation would have done in it (GFLOPS); and the share
 * of the peak, measured right before, that the multiplications really done make (for Winograd's way that is a
 * quarter of the direct ones, of doubled pictures four ninths, so their GFLOPS may exceed the peak). For what only
 * moves numbers: GB read and written a second. */
#include "base/clock.h"
#include "base/memory.h"
#include "base/str.h"
#include "diffusion/cpu/kernels.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_THREADS = 256 };

double peak_gflops(cpu_precision precision);

static int thread_count, repeats;
static const char *only = "";
static pthread_barrier_t barrier, inner; /* of all and the main thread; of all */

/* One kernel with its arguments. */
typedef struct work {
    void (*run)(const struct work *w, int round, int thread, int threads);
    const cpu_kernels *kernels;
    const cpu_product *product; /* of run_linear */
    const void *arguments;
    const cpu_conv_way *way;
    float *room;
} work;

static int64_t bytes_of(int64_t rows, const cpu_matrix *m) {
    return rows * (int64_t)m->row_bytes;
}

/* How often weights lie in memory. */
static int64_t copies_of(int64_t bytes) {
    enum { ENOUGH = 128 << 20 };
    return ENOUGH / bytes + 1;
}

static cpu_matrix weights_of_round(const cpu_matrix *m, int64_t rows, int round) {
    const int64_t bytes = bytes_of(rows, m);
    cpu_matrix w = *m;
    w.data = (const char *)m->data + round % copies_of(bytes) * bytes;
    return w;
}

static void run_conv(const work *w, int round, int thread, int threads) {
    cpu_conv c = *(const cpu_conv *)w->arguments;
    c.weight = weights_of_round(&c.weight, c.oc, round);
    if (w->way->room) {
        w->way->input(&c, w->room, thread, threads);
        pthread_barrier_wait(&inner);
    }
    w->way->output(&c, w->room, thread, threads);
}
static const float *kept_of_round(const float *kept, int64_t floats, int round) {
    return kept + round % copies_of(floats * (int64_t)sizeof *kept) * floats;
}

static void run_linear(const work *w, int round, int thread, int threads) {
    cpu_linear l = *(const cpu_linear *)w->arguments;
    l.weight = weights_of_round(&l.weight, l.out, round);
    if (l.kept) l.kept = kept_of_round(l.kept, w->product->kept_floats(l.out, l.in), round);
    w->product->linear(&l, thread, threads);
}
static void run_winograd(const work *w, int round, int thread, int threads) {
    cpu_winograd c = *(const cpu_winograd *)w->arguments;
    c.kept = kept_of_round(c.kept, w->product->winograd->kept_floats(c.oc, c.ic), round);
    w->product->winograd->convolve(&c, thread, threads);
}
static void run_attention(const work *w, int round, int thread, int threads) {
    (void)round;
    w->kernels->attention(w->arguments, thread, threads);
}

static void run_group_norm(const work *w, int round, int thread, int threads) {
    (void)round;
    w->kernels->group_norm(w->arguments, thread, threads);
}
static void run_layer_norm(const work *w, int round, int thread, int threads) {
    (void)round;
    w->kernels->layer_norm(w->arguments, thread, threads);
}
static void run_geglu(const work *w, int round, int thread, int threads) {
    (void)round;
    w->kernels->geglu(w->arguments, thread, threads);
}
static void run_transpose(const work *w, int round, int thread, int threads) {
    (void)round;
    w->kernels->transpose(w->arguments, thread, threads);
}
static void run_pixels(const work *w, int round, int thread, int threads) {
    (void)round;
    w->kernels->pixels(w->arguments, thread, threads);
}
static void run_upsample(const work *w, int round, int thread, int threads) {
    (void)round;
    w->kernels->upsample(w->arguments, thread, threads);
}

typedef struct worker {
    pthread_t thread;
    const work *work;
    cpu_precision precision;
    double peak;
    int number, repeats;
} worker;

/* Every thread does all rounds; they start each of them together. */
static void *work_of(void *arg) {
    const worker *me = arg;
    for (int i = 0; i < repeats; i++) {
        pthread_barrier_wait(&barrier);
        me->work->run(me->work, i, me->number, thread_count);
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}

static void *peak_of(void *arg) {
    worker *me = arg;
    me->peak = peak_gflops(me->precision);
    return NULL;
}

/* Seconds of the quickest round. */
static double time_of(const work *w) {
    worker all[MAX_THREADS];
    double best = INFINITY;
    pthread_barrier_init(&barrier, NULL, (unsigned)thread_count + 1);
    pthread_barrier_init(&inner, NULL, (unsigned)thread_count);
    for (int i = 0; i < thread_count; i++) {
        all[i] = (worker){.work = w, .number = i};
        if (pthread_create(&all[i].thread, NULL, work_of, &all[i])) exit(1);
    }
    for (int i = 0; i < repeats; i++) {
        const int64_t start = clock_mono_ns();
        pthread_barrier_wait(&barrier);
        pthread_barrier_wait(&barrier);
        best = fmin(best, (double)(clock_mono_ns() - start) / 1e9);
    }
    for (int i = 0; i < thread_count; i++) pthread_join(all[i].thread, NULL);
    pthread_barrier_destroy(&barrier);
    pthread_barrier_destroy(&inner);
    return best;
}

/* GFLOPS of all threads together. */
static double measure_peak(cpu_precision precision) {
    worker all[MAX_THREADS];
    double peak = 0;
    for (int i = 0; i < thread_count; i++) {
        all[i] = (worker){.precision = precision};
        if (pthread_create(&all[i].thread, NULL, peak_of, &all[i])) exit(1);
    }
    for (int i = 0; i < thread_count; i++) {
        pthread_join(all[i].thread, NULL);
        peak += all[i].peak;
    }
    return peak;
}

/* operations: of the direct way; share: how many of them are really done; precision: of what is multiplied. */
static void report(const char *name, const work *w, double operations, double share, cpu_precision precision) {
    const double peak = measure_peak(precision), seconds = time_of(w), gflops = operations / seconds / 1e9;
    printf("%-50s %9.2f ms %7.0f GFLOPS %5.0f %% of %.0f\n", name, seconds * 1e3, gflops, 100 * gflops * share / peak,
           peak);
    fflush(stdout);
}

/* What only waits for memory. floats: read and written. */
static void report_moved(const char *name, const work *w, int64_t floats) {
    const double seconds = time_of(w);
    printf("%-50s %9.2f ms %7.1f GB/s\n", name, seconds * 1e3, 4e-9 * (double)floats / seconds);
    fflush(stdout);
}

static float *numbers(int64_t n) {
    float *x = mem_alloc((size_t)n, sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = i < 1009 ? (float)(i * 7919 % 1009) / 504.5f - 1.0f : x[i - 1009];
    return x;
}

/* Weights of 16 bits: bfloat16, whose conversion is a shift. */
static void halves_to_floats(const void *from, float *to, int64_t n) {
    const uint16_t *h = from;
    uint32_t *bits = (uint32_t *)(void *)to;
    for (int64_t i = 0; i < n; i++) bits[i] = (uint32_t)h[i] << 16;
}

static cpu_matrix weights(int64_t rows, int64_t columns) {
    const int64_t count = copies_of(rows * columns * (int64_t)sizeof(uint16_t)) * rows * columns;
    uint16_t *w = mem_alloc((size_t)count, sizeof *w);
    for (int64_t i = 0; i < rows * columns; i++) w[i] = (uint16_t)(0x3c00 + i * 31 % 512); /* 0.008 .. 0.03 */
    for (int64_t i = rows * columns; i < count; i += rows * columns)
        memcpy(w + i, w, (size_t)(rows * columns) * sizeof *w);
    return (cpu_matrix){w, (size_t)columns * sizeof *w, 1, sizeof *w, halves_to_floats};
}

/* As often as they lie in memory; the first is `kept`. */
static float *copies_of_kept(float *kept, int64_t floats) {
    const int64_t count = copies_of(floats * (int64_t)sizeof *kept) * floats;
    float *all = mem_alloc((size_t)count, sizeof *all);
    for (int64_t i = 0; i < count; i += floats) memcpy(all + i, kept, (size_t)floats * sizeof *all);
    free(kept);
    return all;
}

static void bench_way(const cpu_conv *shape, const cpu_conv_way *way, const char *suffix, double share,
                      cpu_precision precision) {
    cpu_conv c = *shape;
    char name[96];
    snprintf(name, sizeof name, "conv %dx%d stride %d, %d x %d -> %d, %dx%d%s", (int)c.kh, (int)c.kw, c.stride,
             (int)c.n, (int)c.ic, (int)c.oc, (int)c.h, (int)c.w, suffix);
    if (!strstr(name, only)) return;
    c.x = numbers(c.n * c.ic * c.h * c.w);
    c.y = numbers(c.n * c.oc * c.oh * c.ow);
    c.weight = weights(c.oc, c.ic * c.kh * c.kw);
    const work w = {
        .run = run_conv, .arguments = &c, .way = way, .room = numbers(way->room ? way->room(&c, thread_count) : 0)};
    report(name, &w, 2.0 * (double)(c.n * c.oc * c.oh * c.ow) * (double)(c.ic * c.kh * c.kw), share, precision);
    free((void *)(uintptr_t)c.x), free(c.y), free((void *)(uintptr_t)c.weight.data), free(w.room);
}

static void bench_conv(const cpu_kernels *k, int n, int ic, int oc, int side, int kernel, int stride) {
    const int pad = kernel / 2, out = (side + 2 * pad - kernel) / stride + 1;
    const cpu_conv c = {.n = n,
                        .ic = ic,
                        .oc = oc,
                        .h = side,
                        .w = side,
                        .kh = kernel,
                        .kw = kernel,
                        .oh = out,
                        .ow = out,
                        .stride = stride,
                        .pad = pad};
    bench_way(&c, &k->conv, "", 1, k->precision);
    if (stride == 1) bench_way(&c, &k->conv_direct, ", direct", 1, k->precision);
    if (stride == 1 && kernel == 3)
        bench_way(&c, &k->conv_winograd, ", Winograd", k->precision == CPU_BF16 ? 4.0 / 9 : 0.25, k->precision);
}

/* Of a picture of twice the side. */
static void bench_doubled(const cpu_kernels *k, int n, int channels, int side) {
    const cpu_conv c = {.n = n,
                        .ic = channels,
                        .oc = channels,
                        .h = side,
                        .w = side,
                        .kh = 3,
                        .kw = 3,
                        .oh = 2 * side,
                        .ow = 2 * side,
                        .stride = 1,
                        .pad = 1,
                        .doubled = true};
    bench_way(&c, &k->conv_direct, ", doubled", 4.0 / 9, k->precision);
}

static void bench_linear(const cpu_product *product, int t, int in, int out) {
    char name[96];
    snprintf(name, sizeof name, "linear %d x %d -> %d", t, in, out);
    if (!strstr(name, only)) return;
    cpu_linear l = {.x = numbers((int64_t)t * (product->packing ? product->packing->row(in) : in)),
                    .y = numbers((int64_t)t * out),
                    .weight = weights(out, in),
                    .t = t,
                    .in = in,
                    .out = out};
    float *kept = NULL;
    if (product->precision == CPU_INT8) {
        const int64_t floats = product->kept_floats(out, in);
        kept = mem_alloc((size_t)floats, sizeof *kept);
        product->keep(&(cpu_keep){.weight = l.weight, .kept = kept, .in = in, .out = out, .taps = 1}, 0, 1);
        l.kept = kept = copies_of_kept(kept, floats);
    }
    report(name, &(work){.run = run_linear, .product = product, .arguments = &l}, 2.0 * t * in * out, 1,
           product->precision);
    free((void *)(uintptr_t)l.x), free(l.y), free((void *)(uintptr_t)l.weight.data), free(kept);
}

/* Of pictures as rows of pixels. */
static void bench_winograd(const cpu_product *product, int n, int ic, int oc, int side) {
    char name[96];
    snprintf(name, sizeof name, "conv 3x3 stride 1, %d x %d -> %d, %dx%d, Winograd, rows", n, ic, oc, side, side);
    if (!strstr(name, only)) return;
    enum { TAPS = 9 };
    const int64_t pixels = (int64_t)n * side * side, floats = product->winograd->kept_floats(oc, ic);
    const cpu_matrix weight = weights(oc, (int64_t)ic * TAPS);
    float *x = numbers(pixels * ic), *y = numbers(pixels * oc), *kept = mem_alloc((size_t)floats, sizeof *kept);
    product->winograd->keep(&(cpu_keep){.weight = weight, .kept = kept, .in = ic, .out = oc}, 0, 1);
    kept = copies_of_kept(kept, floats);
    const cpu_winograd c = {.x = x, .kept = kept, .y = y, .n = n, .h = side, .w = side, .ic = ic, .oc = oc};
    report(name, &(work){.run = run_winograd, .product = product, .arguments = &c},
           2.0 * (double)pixels * TAPS * ic * oc, 4.0 / 9, product->precision);
    free(x), free(y), free(kept), free((void *)(uintptr_t)weight.data);
}

static void bench_attention(const cpu_kernels *k, int n, int tq, int tk, int heads, int d) {
    char name[96];
    snprintf(name, sizeof name, "attention %d x %d queries, %d keys, %d x %d", n, tq, tk, heads, d);
    if (!strstr(name, only)) return;
    const int64_t c = (int64_t)heads * d;
    cpu_attention a = {.q = numbers(n * tq * c),
                       .k = numbers(n * tk * c),
                       .v = numbers(n * tk * c),
                       .y = numbers(n * tq * c),
                       .n = n,
                       .tq = tq,
                       .tk = tk,
                       .heads = heads,
                       .d = d,
                       .scale = 1 / sqrtf((float)d)};
    report(name, &(work){.run = run_attention, .kernels = k, .arguments = &a}, 4.0 * n * tq * (double)tk * (double)c, 1,
           k->precision);
    free((void *)(uintptr_t)a.q), free((void *)(uintptr_t)a.k), free((void *)(uintptr_t)a.v), free(a.y);
}

/* What lies between the products, on pictures [n, c, side, side] and sequences of as many numbers. */
static void bench_between(const cpu_kernels *k, int n, int c, int side) {
    char name[96];
    snprintf(name, sizeof name, "group norm, silu, %d x %d, %dx%d", n, c, side, side);
    if (!strstr(name, only)) return;
    const int64_t plane = (int64_t)side * side, count = n * c * plane;
    float *x = numbers(2 * count), *y = numbers(count), *scale = numbers(2 * n * c);
    const cpu_group_norm group = {.x = x,
                                  .weight = scale,
                                  .bias = scale,
                                  .y = y,
                                  .n = n,
                                  .channels = c,
                                  .plane = plane,
                                  .groups = 32,
                                  .eps = 1e-5f,
                                  .silu = true};
    report_moved(name, &(work){.run = run_group_norm, .kernels = k, .arguments = &group}, 2 * count);
    const cpu_layer_norm layer = {
        .x = x, .weight = scale, .bias = scale, .y = y, .rows = n * plane, .width = c, .eps = 1e-5f};
    report_moved("  layer norm", &(work){.run = run_layer_norm, .kernels = k, .arguments = &layer}, 2 * count);
    report_moved("  geglu",
                 &(work){.run = run_geglu, .kernels = k, .arguments = &(cpu_geglu){x, y, n * plane, c, NULL}},
                 3 * count);
    report_moved(
        "  pixels as rows, scaled",
        &(work){.run = run_pixels,
                .kernels = k,
                .arguments =
                    &(cpu_pixels){.x = x, .scales = scale, .y = y, .n = n, .channels = c, .plane = plane, .row = c}},
        2 * count);
    const cpu_transpose turn = {x, x + count, y, n, plane, c};
    report_moved("  transposed and added", &(work){.run = run_transpose, .kernels = k, .arguments = &turn}, 3 * count);
    const cpu_upsample twice = {x, y, (int64_t)n * c, side / 2, side / 2};
    report_moved("  upsample to this size", &(work){.run = run_upsample, .kernels = k, .arguments = &twice},
                 count + count / 4);
    free(x), free(y), free(scale);
}

static void bench_products(const cpu_product *p) {
    bench_linear(p, 8192, 320, 320);
    bench_linear(p, 8192, 320, 2560);
    bench_linear(p, 8192, 1280, 320);
    bench_linear(p, 2048, 640, 5120);
    bench_linear(p, 512, 5120, 1280);
    bench_linear(p, 1024, 1280, 10240); /* of SDXL, 1024x1024 */
    bench_linear(p, 128, 1280, 1280);
    bench_linear(p, 154, 768, 320);
}

static void bench_all(const cpu_kernels *k) {
    printf("%s kernels, %d threads; GFLOPS as of the direct way, and the share of the peak of this machine's vectors\n",
           k->name, thread_count);
    bench_conv(k, 2, 320, 320, 64, 3, 1);
    bench_conv(k, 2, 960, 320, 64, 3, 1);
    bench_conv(k, 2, 640, 640, 32, 3, 1);
    bench_conv(k, 2, 1280, 1280, 16, 3, 1);
    bench_conv(k, 2, 1280, 1280, 8, 3, 1);
    bench_conv(k, 2, 1280, 1280, 4, 3, 1);
    bench_conv(k, 2, 320, 320, 64, 3, 2);
    bench_conv(k, 2, 640, 320, 64, 1, 1);
    bench_conv(k, 1, 512, 512, 128, 3, 1);
    bench_conv(k, 1, 256, 256, 256, 3, 1);
    bench_conv(k, 1, 128, 128, 512, 3, 1);
    bench_conv(k, 1, 256, 256, 512, 3, 1);
    bench_doubled(k, 2, 640, 32);
    bench_doubled(k, 1, 256, 256);
    bench_products(k->product);
    bench_attention(k, 1, 1024, 1024, 20, 64);
    bench_attention(k, 2, 4096, 4096, 8, 40);
    bench_attention(k, 2, 1024, 1024, 8, 80);
    bench_attention(k, 2, 256, 256, 8, 160);
    bench_attention(k, 2, 4096, 77, 8, 40);
    bench_between(k, 2, 320, 64);
    bench_between(k, 2, 1280, 16);
    bench_between(k, 1, 256, 512);
}

int main(int argc, char **argv) {
    thread_count = argc > 1 ? atoi(argv[1]) : 2;
    repeats = argc > 2 ? atoi(argv[2]) : 5;
    if (argc > 3) only = argv[3];
    if (thread_count < 1 || thread_count > MAX_THREADS || repeats < 1) {
        fprintf(stderr, "bench_kernels [THREADS 1..%d] [REPEATS] [WORDS]\n", MAX_THREADS);
        return 2;
    }
    const cpu_kernels *f32 = cpu_kernels_best(CPU_F32), *bf16 = cpu_kernels_best(CPU_BF16);
    if (!bf16 || !str_eq(getenv("MYSTI_CPU"), bf16->name)) bench_all(f32);
    if (bf16) bench_all(bf16);
    const cpu_product *int8 = cpu_int8_product(bf16 ? bf16 : f32);
    if (!int8) return 0;
    printf("%s, %d threads\n", int8->name, thread_count);
    bench_products(int8);
    bench_winograd(int8, 2, 320, 320, 64);
    bench_winograd(int8, 2, 960, 320, 64);
    bench_winograd(int8, 2, 640, 640, 32);
    bench_winograd(int8, 2, 1280, 1280, 16);
    return 0;
}
