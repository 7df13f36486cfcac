/* workers_impl.h - what workers.c (processes) and worker_models.c (what is loaded in them) share; nobody else. */
#ifndef MYSTI_SERVER_WORKERS_IMPL_H
#define MYSTI_SERVER_WORKERS_IMPL_H

#include "proc/proc.h"
#include "server/workers.h"

/* Why a load is under way. */
typedef enum load_reason {
    LOAD_RESTORE, /* the supervisor brings back the chosen model in a fresh process */
    LOAD_AGAIN,   /* somebody waits for the chosen model, which idleness unloaded (or whose load failed) */
    LOAD_NEW,     /* somebody chose another model */
} load_reason;

/* How a load under way was cut off, when it was: what came of it is known later. */
typedef enum load_cut {
    LOAD_OPEN,   /* it was not */
    LOAD_BROKEN, /* the connection broke: the exit will be told, or an answer shows that the process lives */
    LOAD_ENDING, /* the process said that it is ending: the exit will be told */
} load_cut;

typedef struct load_request {
    load_reason reason;
    char *model_id, *body;
    worker_load_fn *fn; /* LOAD_NEW only */
    void *ctx;
    bool unwanted; /* an unload was asked for meanwhile: the worker does it behind the load */
} load_request;

struct worker_wait {
    worker_ready_fn *fn;
    void *ctx;
    bool process; /* for the process alone, not for its model */
    struct slot *slot;
    worker_wait *next;
};

/* One worker. */
typedef struct slot {
    workers *owner;
    worker_id id;
    const char *name, *title, *kind; /* "sd", "SD Worker", "SD" */
    const char *program;
    int port;

    supervisor sup;
    proc *process; /* NULL while none runs */
    int pid;
    int64_t started_ms; /* wall time */
    heartbeat *beat;
    http_client *client;
    uv_timer_t sup_timer;
    char token[33]; /* of the running process */

    char *model_id, *body; /* the chosen model; NULL: none */
    bool loaded;           /* it is in the process now */
    bool unsaved;          /* chosen on the command line, and not confirmed by the worker yet */
    struct save *saving;   /* the choice is on its way into the database */
    bool save_failed;      /* the disk was full: it is tried again */
    http_call *load_call;  /* NULL also when it was cut off */
    load_request load;     /* under way, or cut off */
    load_cut cut;
    load_request queued; /* LOAD_NEW that leaves safe mode: taken up by the next RESTORE */

    worker_wait *waits;
    uv_timer_t soon;    /* calls back those who wait, outside of their own calls */
    uv_timer_t look;    /* for a model that has been unused for too long, and for a choice to be saved again */
    int working;        /* pieces of work under way */
    int64_t idle_since; /* monotonic */

    int64_t last_crash_ms;
    char last_crash[160];
    bool last_crash_oom;
    char safe_mode_reason[400];
    char *published; /* the last `worker` event */
} slot;

struct workers {
    app *app;
    workers_listener listener;
    slot slots[WORKER_COUNT];
    int64_t memory_published_ms;
    int handles; /* still to be closed */
    void (*stopped)(void *ctx);
    void *stopped_ctx;
    bool stopping;
};

/* workers.c */
void slot_step(slot *s, sup_event_type type); /* feeds the supervisor and performs its actions */
void slot_changed(slot *s);                   /* tells listeners and clients if anything visible is different */

/* worker_models.c */
void slot_models_open(slot *s);
void slot_models_died(slot *s);    /* the process is gone, and with it what was loaded */
void slot_models_restore(slot *s); /* SUP_DO_RESTORE */
void slot_models_alive(slot *s);   /* it has answered */
bool slot_models_loading(const slot *s);
void slot_models_wake(slot *s); /* look at those who wait, soon */
void slot_models_free(slot *s);

#endif
