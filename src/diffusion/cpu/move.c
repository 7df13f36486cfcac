/* move.c - numbers that change their place and hardly more: sequences from pictures and back, pictures of twice the
 * size. */
#include "diffusion/cpu/doubled.h"
#include "diffusion/cpu/exp.h"
#include "diffusion/cpu/kernels.h"
#include "diffusion/cpu/rows.h"

/* `rows` rows of `count` numbers, LANES at most of either, `step` apart; what is not there is 0. */
ALWAYS_INLINE void load_rows(const float *x, int64_t step, int64_t rows, int64_t count, vec m[LANES]) {
    for (int64_t i = 0; i < LANES; i++) {
        m[i] = (vec){0};
        if (i < rows) m[i] = count == LANES ? load(x + i * step) : load_some(x + i * step, count);
    }
}

/* A square of at most LANES x LANES numbers, from row `row` and column `column` of x on. */
ALWAYS_INLINE void turn_square(const cpu_transpose *p, int64_t n, int64_t row, int64_t column, int64_t rows,
                               int64_t columns) {
    const float *x = p->x + (n * p->rows + row) * p->columns + column;
    const int64_t at = (n * p->columns + column) * p->rows + row;
    vec m[LANES];
    load_rows(x, p->columns, rows, columns, m);
    transpose(m);
    for (int64_t i = 0; i < columns; i++) {
        const int64_t to = at + i * p->rows;
        if (p->add) m[i] += rows == LANES ? load(p->add + to) : load_some(p->add + to, rows);
        if (rows == LANES)
            store(p->y + to, m[i]);
        else
            store_some(p->y + to, m[i], rows);
    }
}

/* Threads share the rows of the result, a stripe of LANES at a time. */
void CPU_NAME(cpu_turn)(const cpu_transpose *p, int thread, int threads) {
    const int64_t stripes = (p->columns + LANES - 1) / LANES;
    int64_t first;
    const int64_t count = cpu_share(p->n * stripes, thread, threads, &first);
    for (int64_t i = first; i < first + count; i++) {
        const int64_t n = i / stripes, column = i % stripes * LANES, left = p->columns - column;
        for (int64_t row = 0; row < p->rows; row += LANES) {
            const int64_t rows = p->rows - row;
            if (rows >= LANES && left >= LANES) /* loops of known length */
                turn_square(p, n, row, column, LANES, LANES);
            else
                turn_square(p, n, row, column, rows < LANES ? rows : LANES, left < LANES ? left : LANES);
        }
    }
}

/* At most LANES channels of at most LANES pixels: from the first one's place x to rows, `row` apart, of which whole
 * vectors are written. ab: the scales of the channels, or NULL. */
ALWAYS_INLINE void turn_pixels(const cpu_pixels *p, const float *x, const float *ab, int64_t channels, int64_t pixels,
                               const bool silus, float *rows, int64_t row) {
    vec m[LANES];
    for (int64_t i = 0; i < LANES; i++) { /* not load_rows(): scaled while in a register */
        m[i] = (vec){0};
        if (i >= channels) continue;
        m[i] = pixels == LANES ? load(x + i * p->plane) : load_some(x + i * p->plane, pixels);
        if (ab) m[i] = m[i] * ab[2 * i] + ab[2 * i + 1];
        if (silus) m[i] = silu(m[i]);
    }
    transpose(m);
    for (int64_t i = 0; i < pixels; i++) store(rows + i * row, m[i]);
}

/* All channels of pixels `pixel` ... of picture n. */
static void turn_stripe(const cpu_pixels *p, int64_t n, int64_t pixel, int64_t pixels, float *rows, int64_t row) {
    for (int64_t c = 0; c < p->channels; c += LANES) {
        const float *x = p->x + (n * p->channels + c) * p->plane + pixel;
        const float *ab = p->scales ? p->scales + 2 * (n * p->channels + c) : NULL;
        const int64_t channels = p->channels - c < LANES ? p->channels - c : LANES;
        if (ab && p->silu)
            turn_pixels(p, x, ab, channels, pixels, true, rows + c, row);
        else
            turn_pixels(p, x, ab, channels, pixels, false, rows + c, row);
    }
}

/* Threads share the rows, a stripe of LANES at a time. */
void CPU_NAME(cpu_pixel_rows)(const cpu_pixels *p, int thread, int threads) {
    const int64_t stripes = (p->plane + LANES - 1) / LANES, row = odd_lines(p->channels);
    cpu_room room = cpu_room_open(LANES * row);
    int64_t first;
    const int64_t count = cpu_share(p->n * stripes, thread, threads, &first);
    for (int64_t i = first; i < first + count; i++) {
        const int64_t n = i / stripes, pixel = i % stripes * LANES, left = p->plane - pixel;
        const int64_t pixels = left < LANES ? left : LANES;
        turn_stripe(p, n, pixel, pixels, room.floats, row);
        for (int64_t j = 0; j < pixels; j++) {
            float *y = p->y + (n * p->plane + pixel + j) * p->row;
            const float *from = room.floats + j * row;
            if (p->packing)
                p->packing->pack(from, p->channels, y);
            else
                memcpy(y, from, (size_t)p->channels * sizeof *y);
        }
    }
    cpu_room_close(&room);
}

enum { PHASES = DOUBLED_PHASES, AT_ONCE = LANES / PHASES }; /* of a channel; channels */

/* A row of windows, of AT_ONCE channels from c on -> lines [AT_ONCE][PHASES], `row` apart. */
static void gather_windows(const cpu_shuffle *p, int64_t n, int64_t y, int64_t c, float *lines, int64_t row) {
    const int64_t windows = p->w + 1, each = p->channels * PHASES, left = each - c * PHASES;
    const float *x = p->x + (n * (p->h + 1) + y) * windows * each + c * PHASES;
    for (int64_t i = 0; i < windows; i += LANES) {
        vec m[LANES];
        load_rows(x + i * each, each, windows - i, left < LANES ? left : LANES, m);
        transpose(m);
        for (int64_t j = 0; j < LANES; j++) store(lines + j * row + i, m[j]);
    }
}

/* Row y of the windows makes rows 2 y and 2 y - 1 of the picture. */
static void shuffle_row(const cpu_shuffle *p, int64_t n, int64_t y, int64_t c, const float *lines, int64_t row) {
    for (int64_t k = 0; k < AT_ONCE && c + k < p->channels; k++) {
        const int64_t channel = n * p->channels + c + k;
        const float bias = p->bias ? p->bias[p->bias_per_picture ? channel : c + k] : 0;
        for (int64_t lower = 0; lower < 2; lower++) {
            const int64_t to = 2 * y - lower;
            if (to < 0 || to >= 2 * p->h) continue;
            const float *left = lines + (k * PHASES + 2 * lower) * row, *right = left + row + 1;
            float *restrict out = p->y + (channel * 2 * p->h + to) * 2 * p->w;
            for (int64_t i = 0; i < p->w; i++) {
                out[2 * i] = left[i] + bias;
                out[2 * i + 1] = right[i] + bias;
            }
        }
    }
}

void CPU_NAME(cpu_shuffle_pixels)(const cpu_shuffle *p, int thread, int threads) {
    const int64_t blocks = (p->channels + AT_ONCE - 1) / AT_ONCE, row = odd_lines(p->w + 1 + LANES);
    cpu_room room = cpu_room_open(LANES * row);
    int64_t first;
    const int64_t count = cpu_share(p->n * blocks, thread, threads, &first);
    for (int64_t i = first; i < first + count; i++)
        for (int64_t y = 0; y <= p->h; y++) {
            gather_windows(p, i / blocks, y, i % blocks * AT_ONCE, room.floats, row);
            shuffle_row(p, i / blocks, y, i % blocks * AT_ONCE, room.floats, row);
        }
    cpu_room_close(&room);
}

void CPU_NAME(cpu_double)(const cpu_upsample *p, int thread, int threads) {
    int64_t first;
    const int64_t count = cpu_share(p->planes * p->h, thread, threads, &first), twice = 2 * p->w;
    for (int64_t row = first; row < first + count; row++) {
        const float *x = p->x + row * p->w;
        float *restrict y = p->y + 2 * row * twice;
        for (int64_t i = 0; i < p->w; i++) y[2 * i] = y[2 * i + 1] = x[i];
        memcpy(y + twice, y, (size_t)twice * sizeof *y);
    }
}
