/* sampler_names.c - the table of samplers, and the names by which other tools know them. */
#include "diffusion/sample/sampler.h"

#include "base/str.h"
#include "diffusion/sample/steps.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SDE (SAMPLER_ETA | SAMPLER_TREE)

/* name, label, schedule, traits, estimates or derivatives kept, eta, step */
#define SAMPLERS(X)                                                                                                    \
    X("euler", "Euler", "discrete", SAMPLER_CHURN, 0, 0, step_euler)                                                   \
    X("euler_a", "Euler a", "discrete", SAMPLER_ETA, 0, 1, step_euler)                                                 \
    X("heun", "Heun", "discrete", SAMPLER_CHURN | SAMPLER_TWICE, 0, 0, step_heun)                                      \
    X("dpm2", "DPM2", "karras", SAMPLER_CHURN | SAMPLER_TWICE | SAMPLER_DISCARDS, 0, 0, step_dpm2)                     \
    X("dpm2_a", "DPM2 a", "karras", SAMPLER_ETA | SAMPLER_TWICE | SAMPLER_DISCARDS, 0, 1, step_dpm2)                   \
    X("lms", "LMS", "discrete", 0, 3, 0, step_lms)                                                                     \
    X("dpm++2s_a", "DPM++ 2S a", "karras", SAMPLER_ETA | SAMPLER_TWICE, 0, 1, step_dpmpp_2s)                           \
    X("dpm++sde", "DPM++ SDE", "karras", SDE | SAMPLER_TWICE, 0, 1, step_dpmpp_sde)                                    \
    X("dpm++2m", "DPM++ 2M", "karras", 0, 1, 0, step_dpmpp_2m)                                                         \
    X("dpm++2mv2", "DPM++ 2M v2", "karras", 0, 1, 0, step_dpmpp_2m_v2)                                                 \
    X("dpm++2m_sde", "DPM++ 2M SDE", "exponential", SDE, 1, 1, step_dpmpp_2m)                                          \
    X("dpm++2m_sde_heun", "DPM++ 2M SDE Heun", "exponential", SDE, 1, 1, step_dpmpp_2m_heun)                           \
    X("dpm++3m_sde", "DPM++ 3M SDE", "exponential", SDE | SAMPLER_DISCARDS, 2, 1, step_dpmpp_3m)                       \
    X("ddim", "DDIM", "ddim_uniform", SAMPLER_ETA, 0, 0, step_euler)                                                   \
    X("uni_pc", "UniPC", "discrete", SAMPLER_DISCARDS, 4, 0, step_unipc_bh1)                                           \
    X("uni_pc_bh2", "UniPC BH2", "discrete", SAMPLER_DISCARDS, 4, 0, step_unipc_bh2)                                   \
    X("ipndm", "iPNDM", "discrete", 0, 3, 0, step_ipndm)                                                               \
    X("ipndm_v", "iPNDM v", "discrete", 0, 3, 0, step_ipndm_v)                                                         \
    X("lcm", "LCM", "lcm", 0, 0, 0, step_lcm)                                                                          \
    X("tcd", "TCD", "lcm", SAMPLER_ETA, 0, 0, step_tcd)                                                                \
    X("res_multistep", "Res Multistep", "discrete", SAMPLER_ETA, 1, 0, step_res_multistep)                             \
    X("res_multistep_a", "Res Multistep a", "discrete", SAMPLER_ETA, 1, 1, step_res_multistep)                         \
    X("er_sde", "ER SDE", "discrete", 0, 2, 0, step_er_sde)                                                            \
    X("euler_cfg_pp", "Euler CFG++", "discrete", SAMPLER_UNGUIDED, 0, 0, step_euler_cfg_pp)                            \
    X("euler_a_cfg_pp", "Euler a CFG++", "discrete", SAMPLER_ETA | SAMPLER_UNGUIDED, 0, 1, step_euler_cfg_pp)          \
    X("dpm++2s_a_cfg_pp", "DPM++ 2S a CFG++", "karras", SAMPLER_ETA | SAMPLER_TWICE | SAMPLER_UNGUIDED, 0, 1,          \
      step_dpmpp_2s_cfg_pp)                                                                                            \
    X("dpm++2m_cfg_pp", "DPM++ 2M CFG++", "karras", SAMPLER_UNGUIDED, 1, 0, step_dpmpp_2m_cfg_pp)                      \
    X("res_multistep_cfg_pp", "Res Multistep CFG++", "discrete", SAMPLER_ETA | SAMPLER_UNGUIDED, 1, 0,                 \
      step_res_multistep_cfg_pp)                                                                                       \
    X("ddim_cfg_pp", "DDIM CFG++", "ddim_uniform", SAMPLER_ETA | SAMPLER_UNGUIDED, 0, 0, step_euler_cfg_pp)

#define NAME(name, ...) name,
#define ENTRY(...) {__VA_ARGS__},
const char *const sampler_names[] = {SAMPLERS(NAME) NULL};
static const sampler samplers[] = {SAMPLERS(ENTRY)};
enum { COUNT = sizeof samplers / sizeof *samplers };

/* What other tools call some of them, simplified; and the schedule that the name stands for, or NULL. */
static const struct {
    const char *alias, *name, *schedule;
} aliases[] = {
    {"unipcbh1", "unipc", NULL},
    {"dpmpp2msdebt", "dpmpp2msde", NULL},
    {"dpmpp2msdemidpoint", "dpmpp2msde", NULL},
    {"ddimtrailing", "ddim", "simple"},
};

enum { FOLDED = SAMPLER_NAME_MAX };

static bool cut(char *text, const char *end) {
    if (!str_ends(text, end)) return false;
    text[strlen(text) - strlen(end)] = 0;
    return true;
}

/* Lower case without spaces, '_' and '-'; '+' is 'p'. */
static void fold(const char *name, char out[FOLDED]) {
    size_t n = 0;
    for (; *name && n < FOLDED - 1; name++) {
        if (strchr(" _-", *name)) continue;
        out[n++] = *name == '+' ? 'p' : (char)tolower((unsigned char)*name);
    }
    out[n] = 0;
}

/* "dpmpp2sa": "dpm++2s_a", "DPM++ 2S a", "dpmpp_2s_ancestral", "k_dpmpp_2s_a". */
static void simplify(char *folded) {
    char *word = strstr(folded, "ancestral");
    if (word) memmove(word + 1, word + strlen("ancestral"), strlen(word + strlen("ancestral")) + 1);
    cut(folded, "gpu");
    if (folded[0] == 'k') memmove(folded, folded + 1, strlen(folded));
}

static const sampler *find_folded(char *folded, const char **schedule_name) {
    char own[FOLDED];
    simplify(folded);
    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++) {
        if (!str_eq(aliases[i].alias, folded)) continue;
        if (aliases[i].schedule) *schedule_name = aliases[i].schedule;
        strcpy(folded, aliases[i].name);
        break;
    }
    for (size_t i = 0; i < COUNT; i++) {
        fold(samplers[i].name, own);
        if (str_eq(own, folded)) return &samplers[i];
    }
    return NULL;
}

/* A sampler whose name is followed by that of a schedule. */
static const sampler *find_with_schedule(const char folded[FOLDED], const char *spelling, const char **schedule_name) {
    char rest[FOLDED], end[FOLDED];
    memcpy(rest, folded, FOLDED);
    fold(spelling, end);
    return cut(rest, end) ? find_folded(rest, schedule_name) : NULL;
}

const sampler *sampler_find(const char *name, const schedule **implied) {
    char folded[FOLDED];
    const char *schedule_name = NULL;
    if (str_empty(name)) return NULL;
    memset(folded, 0, sizeof folded);
    fold(name, folded);
    char whole[FOLDED];
    memcpy(whole, folded, FOLDED);
    const sampler *found = find_folded(whole, &schedule_name);
    for (int i = 0; !found && schedule_spellings[i]; i++) {
        found = find_with_schedule(folded, schedule_spellings[i], &schedule_name);
        if (found) schedule_name = schedule_spellings[i];
    }
    if (found && implied) *implied = schedule_find(schedule_name ? schedule_name : found->schedule);
    return found;
}

/* A sampler by itself, or with a schedule behind it. */
static void write_name(const sampler *s, const schedule *behind, char out[SAMPLER_NAME_MAX]) {
    snprintf(out, SAMPLER_NAME_MAX, "%s%s%s", behind ? s->label : s->name, behind ? " " : "",
             behind ? behind->label : "");
}

bool sampler_nearest(const char *name, char out[SAMPLER_NAME_MAX]) {
    size_t ways = 1; /* to end a name: without a schedule, or with one of them */
    while (schedule_names[ways - 1]) ways++;
    char asked[FOLDED], (*names)[SAMPLER_NAME_MAX] = mem_alloc(COUNT * ways, sizeof *names);
    char(*folded)[FOLDED] = mem_alloc(COUNT * ways, sizeof *folded);
    const char **all = mem_alloc(COUNT * ways, sizeof *all);
    for (size_t i = 0; i < COUNT * ways; i++) {
        const schedule *behind = i % ways ? schedule_find(schedule_names[i % ways - 1]) : NULL;
        write_name(&samplers[i / ways], behind, names[i]);
        fold(names[i], folded[i]);
        all[i] = folded[i];
    }
    fold(name, asked);
    simplify(asked);
    const char *near = str_nearest(asked, all, COUNT * ways);
    if (near) memcpy(out, names[(size_t)(near - folded[0]) / FOLDED], SAMPLER_NAME_MAX);
    free(all);
    free(folded);
    free(names);
    return near != NULL;
}
