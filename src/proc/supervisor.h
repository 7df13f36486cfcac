/* supervisor.h - what to do about a worker: a pure table of states x events.
 *
 * It does nothing itself. The caller tells it what happened (with the time), and performs the actions it returns, in
 * order, before the next event. No clock, no I/O, no allocation: the whole table is tested without a process.
 *
 *   stopped ──start──> starting ──first health answer──> restoring ──restored──> ready
 *                         ^  ^                              │  no model: straight to ready
 *              at once or │  └───────────── retry ───────┐  │
 *              after      │                              │  ├─ hung: unresponsive ── exited ─┐
 *              backoff <──┴── exited ────────────────────┼──┴────────────────────────────────┤
 *                                                        └── safe_mode <── too many deaths ──┘
 *
 * Rules
 *  - Death is the exit event. The first restart is immediate, then 0.25 s doubling to 10 s, with jitter. A worker that
 *    ran for a minute is restarted at once again.
 *  - Five deaths in 60 s, or three in a row while restoring, lead to safe_mode: the worker runs without a model, until
 *    retry or a successful generation. Both counts are reset by a successful generation (or retry, or stop), not by a
 *    successful load.
 *  - Three missed health answers in a row: the worker answers nothing, SIGTERM would not reach it either: KILL.
 *    No progress while it still answers: TERMINATE, which leaves it 2 s.
 *  - While starting, missing answers mean nothing until START_LIMIT: loading the program itself may be slow.
 *  - There is never a second SPAWN before the exit of the first. */
#ifndef MYSTI_PROC_SUPERVISOR_H
#define MYSTI_PROC_SUPERVISOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SUP_MISSES = 3,              /* missed answers in a row that make a worker unresponsive */
    SUP_DEATHS = 5,              /* deaths ... */
    SUP_DEATH_WINDOW_MS = 60000, /* ... within this time lead to safe mode */
    SUP_RESTORE_DEATHS = 3,      /* so do this many in a row while restoring, however far apart */
    SUP_BACKOFF_FIRST_MS = 250,  /* delay before the second restart */
    SUP_BACKOFF_MAX_MS = 10000,  /* and where doubling ends */
    SUP_STEADY_MS = 60000,       /* having run this long, the next restart is immediate */
    SUP_START_LIMIT_MS = 30000,  /* from SPAWN to the first answer */
    SUP_KILL_LIMIT_MS = 5000,    /* from TERMINATE or KILL to the exit; then KILL again, and an alert */
};

typedef enum sup_state {
    SUP_STOPPED, /* not wanted; a process may still be ending */
    SUP_STARTING,
    SUP_RESTORING,
    SUP_READY,
    SUP_UNRESPONSIVE, /* being ended because it hangs */
    SUP_BACKOFF,      /* dead, waiting for the next start */
    SUP_SAFE_MODE,    /* runs (or starts again) without a model */
    SUP_STATE_COUNT,
} sup_state;

typedef enum sup_event_type {
    SUP_EV_START,          /* the worker is wanted */
    SUP_EV_STOP,           /* it is not */
    SUP_EV_SPAWNED,        /* SPAWN was performed */
    SUP_EV_EXITED,         /* the process is gone; also when SPAWN failed */
    SUP_EV_HEALTH_OK,      /* a health answer came */
    SUP_EV_HEALTH_MISS,    /* none came in time */
    SUP_EV_NO_PROGRESS,    /* it answers, but its work stands still (progress.h) */
    SUP_EV_RESTORED,       /* RESTORE succeeded */
    SUP_EV_RESTORE_FAILED, /* RESTORE was answered with an error, or its connection broke */
    SUP_EV_WORK_DONE,      /* a generation succeeded */
    SUP_EV_RETRY,          /* somebody asks for the model again */
    SUP_EV_TIMER,          /* the time of the last SET_TIMER is over */
    SUP_EVENT_COUNT,
} sup_event_type;

typedef struct sup_event {
    sup_event_type type;
    int64_t now_ms; /* monotonic */
    double jitter;  /* EXITED: uniform in [0, 1); shortens the backoff by up to a quarter */
    bool blameless; /* EXITED: through no fault of its own (its port is taken): it does not lead to safe mode */
} sup_event;

typedef enum sup_alert {
    SUP_ALERT_DIED,           /* it ended without being asked to */
    SUP_ALERT_HUNG,           /* it answers nothing any more, and is killed */
    SUP_ALERT_STALLED,        /* its work stands still, and it is ended */
    SUP_ALERT_START_LIMIT,    /* it never answered, and is killed */
    SUP_ALERT_UNKILLABLE,     /* it was killed, and the system still reports it alive (a driver hangs) */
    SUP_ALERT_SAFE_MODE,      /* from now on without a model */
    SUP_ALERT_RESTORE_FAILED, /* ready, but without its model */
    SUP_ALERT_READY,          /* ready again after a death */
} sup_alert;

typedef enum sup_action_type {
    SUP_DO_SPAWN,     /* start the process; then SPAWNED, or EXITED if that fails */
    SUP_DO_TERMINATE, /* SIGTERM, 2 s, SIGKILL to the group; then EXITED */
    SUP_DO_KILL,      /* SIGKILL to the group at once; then EXITED */
    SUP_DO_RESTORE,   /* load the saved model again; then RESTORED or RESTORE_FAILED */
    SUP_DO_SET_TIMER, /* replaces the timer before it; TIMER after `ms` */
    SUP_DO_ALERT,     /* tell people */
} sup_action_type;

typedef struct sup_action {
    sup_action_type type;
    int ms;          /* SET_TIMER */
    sup_alert alert; /* ALERT */
} sup_action;

/* What one event asks for. */
typedef struct sup_actions {
    size_t count;
    sup_action item[6];
} sup_actions;

typedef struct supervisor {
    sup_state state;
    bool has_model; /* kept by the caller: there is a saved model to bring back */

    /* The rest is the supervisor's own. */
    bool wanted;        /* START, and no STOP since */
    bool live;          /* a process exists, or SPAWN is being performed */
    bool ending;        /* it has been told to end */
    bool answered;      /* it has answered once */
    bool troubled;      /* it died since it was last ready: the next READY is news */
    bool restore_broke; /* RESTORE_FAILED, and no answer since: a connection may break before the exit is told */
    int misses;         /* in a row */
    int restarts;       /* in a row, since work_done or a steady minute: decides the backoff */
    int restore_deaths;
    int64_t spawned_at;
    int64_t timer_at;           /* -1: none; a TIMER event before this time is stale and ignored */
    int64_t deaths[SUP_DEATHS]; /* times of the last deaths, oldest first */
    int death_count;
    unsigned total_deaths; /* since supervisor_init; for display */
} supervisor;

void supervisor_init(supervisor *s);

/* Every event is allowed in every state; one that means nothing there changes nothing. */
sup_actions supervisor_step(supervisor *s, const sup_event *ev);

const char *sup_state_name(sup_state state);       /* "safe_mode" */
const char *sup_event_name(sup_event_type type);   /* "health_miss" */
const char *sup_alert_name(sup_alert alert);       /* "restore_failed" */
const char *sup_action_name(sup_action_type type); /* "spawn" */

#endif
