/* checkpoint.h - a sampling run on disk, so that it can go on after the process died.
 *
 * File: "MYSTICKP", u32 version, u32 picture, u32 step, u32 noise call, u64 key, u64 n, u64 keeps, x [n] and keeps
 * times [n] of earlier steps as f32, u64 checksum of all before; in the machine's byte order. It is read with distrust:
 * a file that does not fit in every respect is as good as none. */
#ifndef MYSTI_DIFFUSION_CHECKPOINT_H
#define MYSTI_DIFFUSION_CHECKPOINT_H

#include "base/err.h"
#include "diffusion/sample/sampler.h"

/* Whose state it is, and in which range it has to be. */
typedef struct checkpoint_scope {
    uint64_t key; /* hash of everything that decides the result */
    int pictures; /* of the batch */
    int steps;    /* of each picture */
} checkpoint_scope;

/* Replaces the file in one step. `picture` is the one that is being sampled. */
bool checkpoint_save(const char *path, const checkpoint_scope *scope, int picture, const sampler_state *s, err *e);

/* s: initialised for the right n and sampler. False when there is no such file (ERR_NOT_FOUND) or it does not fit
 * (another code, with the reason); s is untouched then. */
bool checkpoint_load(const char *path, const checkpoint_scope *scope, int *picture, sampler_state *s, err *e);

/* Fine when there is none. */
void checkpoint_remove(const char *path);

#endif
