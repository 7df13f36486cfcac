/* table.c - the kernels of one instruction set. CPU_BASE: the one that has those which are not compiled for it. */
#include "diffusion/cpu/isa.h"
#include "diffusion/cpu/kernels.h"

#if !defined(CPU_BASE)
#define CPU_BASE CPU_ISA
#endif
#define CPU_SHARED(name) CPU_JOIN(name, CPU_BASE)

void CPU_SHARED(cpu_conv_any)(const cpu_conv *c, float *room, int thread, int threads);
int64_t CPU_NAME(cpu_conv_direct_room)(const cpu_conv *c, int threads);
void CPU_NAME(cpu_conv_direct_input)(const cpu_conv *c, float *room, int thread, int threads);
void CPU_NAME(cpu_conv_direct)(const cpu_conv *c, float *room, int thread, int threads);
int64_t CPU_SHARED(cpu_winograd_room)(const cpu_conv *c, int threads);
void CPU_SHARED(cpu_winograd_input)(const cpu_conv *c, float *room, int thread, int threads);
void CPU_SHARED(cpu_winograd)(const cpu_conv *c, float *room, int thread, int threads);
extern const cpu_product CPU_NAME(cpu_product), CPU_SHARED(cpu_few_rows);
void CPU_SHARED(cpu_attention_flash)(const cpu_attention *p, int thread, int threads);
void CPU_SHARED(cpu_normalize_groups)(const cpu_group_norm *p, int thread, int threads);
void CPU_SHARED(cpu_scale_groups)(const cpu_group_norm *p, int thread, int threads);
void CPU_SHARED(cpu_normalize_rows)(const cpu_layer_norm *p, int thread, int threads);
void CPU_SHARED(cpu_gate)(const cpu_geglu *p, int thread, int threads);
void CPU_SHARED(cpu_turn)(const cpu_transpose *p, int thread, int threads);
void CPU_SHARED(cpu_pixel_rows)(const cpu_pixels *p, int thread, int threads);
void CPU_SHARED(cpu_shuffle_pixels)(const cpu_shuffle *p, int thread, int threads);
void CPU_SHARED(cpu_double)(const cpu_upsample *p, int thread, int threads);

extern const cpu_kernels CPU_NAME(cpu_kernels);
const cpu_kernels CPU_NAME(cpu_kernels) = {
    .name = CPU_STRING,
    .precision = PAIR == 1 ? CPU_F32 : CPU_BF16,
    .conv = {"convolution, any", .output = CPU_SHARED(cpu_conv_any)},
    .conv_direct = {"convolution, direct", true, CPU_NAME(cpu_conv_direct_room), CPU_NAME(cpu_conv_direct_input),
                    CPU_NAME(cpu_conv_direct)},
    .conv_winograd = {"convolution, Winograd", false, CPU_SHARED(cpu_winograd_room), CPU_SHARED(cpu_winograd_input),
                      CPU_SHARED(cpu_winograd)},
    .winograd_least = PAIR == 1 ? 192 : 64,
    .product = &CPU_NAME(cpu_product),
    .few_rows = &CPU_SHARED(cpu_few_rows),
    .attention = CPU_SHARED(cpu_attention_flash),
    .group_norm = CPU_SHARED(cpu_normalize_groups),
    .group_scales = CPU_SHARED(cpu_scale_groups),
    .layer_norm = CPU_SHARED(cpu_normalize_rows),
    .geglu = CPU_SHARED(cpu_gate),
    .transpose = CPU_SHARED(cpu_turn),
    .pixels = CPU_SHARED(cpu_pixel_rows),
    .shuffle = CPU_SHARED(cpu_shuffle_pixels),
    .upsample = CPU_SHARED(cpu_double),
};
