/* leftovers.c - see leftovers.h. */
#include "server/leftovers.h"

#include "base/file.h"
#include "base/log.h"
#include "base/path.h"
#include "base/str.h"
#include "server/db.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DIRS = 4 };

typedef struct sweep {
    char *dirs[DIRS];
    const char *dir; /* of those, the one at hand */
    int64_t pid;     /* 0: any */
} sweep;

static bool look_at(void *ctx, const char *name) {
    const sweep *s = ctx;
    const char *mark = strstr(name, ".tmp-");
    int64_t pid;
    if (!mark || !str_to_i64(mark + strlen(".tmp-"), &pid) || (s->pid && s->pid != pid)) return true;
    char *path = path_join(s->dir, name);
    if (remove(path) == 0) log_info("server", "removed '%s', which was never finished", name);
    free(path);
    return true;
}

static void do_sweep(db_conn *c, void *arg) {
    (void)c;
    sweep *s = arg;
    for (size_t i = 0; i < DIRS; i++) {
        s->dir = s->dirs[i];
        file_list_dir(s->dir, look_at, s, NULL); /* a folder that is not there yet holds none */
    }
}

static void free_sweep(void *arg) {
    sweep *s = arg;
    for (size_t i = 0; i < DIRS; i++) free(s->dirs[i]);
    free(s);
}

static sweep *new_sweep(const app *a, int pid) {
    sweep *s = mem_alloc(1, sizeof *s);
    *s = (sweep){.dirs = {str_dup(a->cfg.output_dir), path_join(a->cfg.output_dir, ".thumbs"),
                          path_join(a->cfg.data_dir, "checkpoints"), path_join(a->cfg.data_dir, "uploads")},
                 .pid = pid};
    return s;
}

void leftovers_sweep_all(const app *a) {
    sweep *s = new_sweep(a, 0);
    db_run(a->db, do_sweep, s);
    free_sweep(s);
}

void leftovers_sweep_of(const app *a, int pid) {
    if (pid > 0) db_submit(a->db, do_sweep, free_sweep, new_sweep(a, pid));
}
