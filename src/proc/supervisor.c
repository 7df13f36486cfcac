/* supervisor.c - see supervisor.h. One small function per thing that can happen; the table at the end says where. */
#include "proc/supervisor.h"

#include <string.h>

/* One step under way. */
typedef struct step {
    supervisor *s;
    const sup_event *ev;
    sup_actions *out;
} step;

static void act(step *t, sup_action_type type) {
    t->out->item[t->out->count++] = (sup_action){.type = type};
}

static void alert(step *t, sup_alert what) {
    t->out->item[t->out->count++] = (sup_action){.type = SUP_DO_ALERT, .alert = what};
}

static void set_timer(step *t, int ms) {
    t->s->timer_at = t->ev->now_ms + ms;
    t->out->item[t->out->count++] = (sup_action){.type = SUP_DO_SET_TIMER, .ms = ms};
}

/* A timer that fires nevertheless is ignored, so there is no action to take it back. */
static void clear_timer(step *t) {
    t->s->timer_at = -1;
}

static void reset_tally(supervisor *s) {
    s->death_count = 0;
    s->restarts = 0;
    s->restore_deaths = 0;
}

static void spawn(step *t) {
    supervisor *s = t->s;
    s->live = true;
    s->ending = s->answered = s->restore_broke = false;
    s->misses = 0;
    s->spawned_at = t->ev->now_ms;
    set_timer(t, SUP_START_LIMIT_MS);
    act(t, SUP_DO_SPAWN); /* last: a spawn that fails may be told from inside, and its backoff timer must stand */
}

static void end(step *t, sup_action_type how) {
    t->s->ending = true;
    act(t, how);
    set_timer(t, SUP_KILL_LIMIT_MS);
}

static void become_ready(step *t) {
    t->s->state = SUP_READY;
    if (t->s->troubled) alert(t, SUP_ALERT_READY);
    t->s->troubled = false;
}

static void restore_or_ready(step *t) {
    if (!t->s->has_model) {
        become_ready(t);
        return;
    }
    t->s->state = SUP_RESTORING;
    act(t, SUP_DO_RESTORE);
}

/* ---- deaths ------------------------------------------------------------------------------------------------ */

static void note_death(supervisor *s, int64_t now, bool blameless) {
    s->total_deaths++;
    if (now - s->spawned_at >= SUP_STEADY_MS) s->restarts = 0;
    if (blameless) return;
    if (s->death_count == SUP_DEATHS) {
        memmove(s->deaths, s->deaths + 1, (SUP_DEATHS - 1) * sizeof s->deaths[0]);
        s->death_count--;
    }
    s->deaths[s->death_count++] = now;
    if (s->state == SUP_RESTORING || s->restore_broke) s->restore_deaths++;
}

static bool too_many_deaths(const supervisor *s, int64_t now) {
    if (s->restore_deaths >= SUP_RESTORE_DEATHS) return true;
    return s->death_count == SUP_DEATHS && now - s->deaths[0] <= SUP_DEATH_WINDOW_MS;
}

/* The delay before the next start: 0, then 250 ms doubling to 10 s, less up to a quarter of it. */
static int next_delay(supervisor *s, double jitter) {
    int n = s->restarts++;
    if (n == 0) return 0;
    int64_t ms = SUP_BACKOFF_FIRST_MS;
    while (--n > 0 && ms < SUP_BACKOFF_MAX_MS) ms *= 2;
    if (ms > SUP_BACKOFF_MAX_MS) ms = SUP_BACKOFF_MAX_MS;
    return (int)((double)ms * (1.0 - 0.25 * jitter));
}

static void died(step *t) {
    supervisor *s = t->s;
    note_death(s, t->ev->now_ms, t->ev->blameless);
    s->live = s->ending = s->answered = false;
    s->troubled = true;
    clear_timer(t);
    alert(t, SUP_ALERT_DIED);
    int delay = next_delay(s, t->ev->jitter);
    if (s->state != SUP_SAFE_MODE && too_many_deaths(s, t->ev->now_ms)) {
        s->state = SUP_SAFE_MODE;
        alert(t, SUP_ALERT_SAFE_MODE);
    }
    if (delay > 0) {
        if (s->state != SUP_SAFE_MODE) s->state = SUP_BACKOFF;
        set_timer(t, delay);
        return;
    }
    if (s->state != SUP_SAFE_MODE) s->state = SUP_STARTING;
    spawn(t);
}

/* ---- what can happen --------------------------------------------------------------------------------------- */

static void start(step *t) {
    t->s->wanted = true;
    if (t->s->live) return; /* the last one is still ending: its exit starts the next */
    t->s->state = SUP_STARTING;
    spawn(t);
}

static void stop(step *t) {
    supervisor *s = t->s;
    s->wanted = s->troubled = false;
    s->state = SUP_STOPPED;
    reset_tally(s);
    if (!s->live) clear_timer(t);
    if (s->live && !s->ending) end(t, SUP_DO_TERMINATE);
}

static void exited_when_stopped(step *t) {
    t->s->live = t->s->ending = t->s->answered = false;
    clear_timer(t);
    if (t->s->wanted) start(t);
}

static void first_answer(step *t) {
    t->s->answered = true;
    t->s->misses = 0;
    clear_timer(t);
    restore_or_ready(t);
}

static void answer(step *t) {
    t->s->misses = 0;
    t->s->restore_broke = false;
}

static void hang(step *t, sup_alert why, sup_action_type how) {
    alert(t, why);
    end(t, how);
    if (t->s->state != SUP_SAFE_MODE) t->s->state = SUP_UNRESPONSIVE;
}

static void miss(step *t) {
    if (++t->s->misses >= SUP_MISSES) hang(t, SUP_ALERT_HUNG, SUP_DO_KILL);
}

static void no_progress(step *t) {
    hang(t, SUP_ALERT_STALLED, SUP_DO_TERMINATE);
}

static void start_limit(step *t) {
    hang(t, SUP_ALERT_START_LIMIT, SUP_DO_KILL);
}

static void kill_again(step *t) {
    if (!t->s->ending) return;
    alert(t, SUP_ALERT_UNKILLABLE);
    end(t, SUP_DO_KILL);
}

static void restored(step *t) {
    become_ready(t);
}

static void restore_failed(step *t) {
    t->s->state = SUP_READY;
    t->s->troubled = false;
    t->s->restore_broke = true; /* until the next answer shows that it lives */
    alert(t, SUP_ALERT_RESTORE_FAILED);
}

static void work_done(step *t) {
    reset_tally(t->s);
}

static void restore_again(step *t) {
    reset_tally(t->s);
    restore_or_ready(t);
}

static void spawn_now(step *t) {
    t->s->state = SUP_STARTING;
    spawn(t);
}

static void retry_at_once(step *t) {
    reset_tally(t->s);
    spawn_now(t);
}

/* ---- the same in safe mode, where the process may be up, coming or gone ------------------------------------- */

static void safe_answer(step *t) {
    supervisor *s = t->s;
    if (!s->answered) clear_timer(t);
    s->answered = true;
    s->misses = 0;
}

static void safe_miss(step *t) {
    if (t->s->answered) miss(t);
}

static void safe_timer(step *t) {
    supervisor *s = t->s;
    if (!s->live)
        spawn(t);
    else if (s->ending)
        kill_again(t);
    else
        start_limit(t);
}

static void safe_work_done(step *t) {
    reset_tally(t->s);
    become_ready(t);
}

static void safe_retry(step *t) {
    supervisor *s = t->s;
    reset_tally(s);
    if (!s->live)
        spawn_now(t);
    else if (s->ending)
        s->state = SUP_UNRESPONSIVE;
    else if (s->answered)
        restore_or_ready(t);
    else
        s->state = SUP_STARTING;
}

/* ---- the table --------------------------------------------------------------------------------------------- */

typedef void handler(step *t);

/* An empty cell: the event means nothing there. */
static handler *const table[SUP_STATE_COUNT][SUP_EVENT_COUNT] = {
    [SUP_STOPPED] = {[SUP_EV_START] = start,
                     [SUP_EV_STOP] = stop,
                     [SUP_EV_EXITED] = exited_when_stopped,
                     [SUP_EV_TIMER] = kill_again},
    [SUP_STARTING] =
        {[SUP_EV_STOP] = stop, [SUP_EV_EXITED] = died, [SUP_EV_HEALTH_OK] = first_answer, [SUP_EV_TIMER] = start_limit},
    [SUP_RESTORING] = {[SUP_EV_STOP] = stop,
                       [SUP_EV_EXITED] = died,
                       [SUP_EV_HEALTH_OK] = answer,
                       [SUP_EV_HEALTH_MISS] = miss,
                       [SUP_EV_NO_PROGRESS] = no_progress,
                       [SUP_EV_RESTORED] = restored,
                       [SUP_EV_RESTORE_FAILED] = restore_failed},
    [SUP_READY] = {[SUP_EV_STOP] = stop,
                   [SUP_EV_EXITED] = died,
                   [SUP_EV_HEALTH_OK] = answer,
                   [SUP_EV_HEALTH_MISS] = miss,
                   [SUP_EV_NO_PROGRESS] = no_progress,
                   [SUP_EV_WORK_DONE] = work_done,
                   [SUP_EV_RETRY] = restore_again},
    [SUP_UNRESPONSIVE] = {[SUP_EV_STOP] = stop, [SUP_EV_EXITED] = died, [SUP_EV_TIMER] = kill_again},
    [SUP_BACKOFF] = {[SUP_EV_STOP] = stop, [SUP_EV_RETRY] = retry_at_once, [SUP_EV_TIMER] = spawn_now},
    [SUP_SAFE_MODE] = {[SUP_EV_STOP] = stop,
                       [SUP_EV_EXITED] = died,
                       [SUP_EV_HEALTH_OK] = safe_answer,
                       [SUP_EV_HEALTH_MISS] = safe_miss,
                       [SUP_EV_NO_PROGRESS] = no_progress,
                       [SUP_EV_WORK_DONE] = safe_work_done,
                       [SUP_EV_RETRY] = safe_retry,
                       [SUP_EV_TIMER] = safe_timer},
};

/* What a process says counts only while there is one, and it has not been told to end; and only its first answer can
 * be the first thing it says. */
static bool is_stale(const supervisor *s, sup_event_type type) {
    switch (type) {
    case SUP_EV_HEALTH_OK:
    case SUP_EV_HEALTH_MISS:
        return !s->live || s->ending;
    case SUP_EV_NO_PROGRESS:
    case SUP_EV_RESTORED:
    case SUP_EV_RESTORE_FAILED:
    case SUP_EV_WORK_DONE:
        return !s->live || s->ending || !s->answered;
    case SUP_EV_EXITED:
        return !s->live;
    case SUP_EV_TIMER:
        return s->timer_at < 0;
    default:
        return false;
    }
}

void supervisor_init(supervisor *s) {
    *s = (supervisor){.state = SUP_STOPPED, .timer_at = -1};
}

sup_actions supervisor_step(supervisor *s, const sup_event *ev) {
    sup_actions out = {0};
    step t = {.s = s, .ev = ev, .out = &out};
    handler *h = table[s->state][ev->type];
    if (!h || is_stale(s, ev->type)) return out;
    if (ev->type == SUP_EV_TIMER) {
        if (ev->now_ms < s->timer_at) { /* the caller's timer runs on a coarser clock: wait for the rest */
            set_timer(&t, (int)(s->timer_at - ev->now_ms));
            return out;
        }
        clear_timer(&t);
    }
    h(&t);
    return out;
}

/* ---- names ------------------------------------------------------------------------------------------------- */

const char *sup_state_name(sup_state state) {
    static const char *const names[] = {"stopped",      "starting", "restoring", "ready",
                                        "unresponsive", "backoff",  "safe_mode"};
    return state < SUP_STATE_COUNT ? names[state] : "unknown";
}

const char *sup_event_name(sup_event_type type) {
    static const char *const names[] = {"start",          "stop",        "spawned",     "exited",
                                        "health_ok",      "health_miss", "no_progress", "restored",
                                        "restore_failed", "work_done",   "retry",       "timer"};
    return type < SUP_EVENT_COUNT ? names[type] : "unknown";
}

const char *sup_alert_name(sup_alert what) {
    static const char *const names[] = {"died",       "hung",      "stalled",        "start_limit",
                                        "unkillable", "safe_mode", "restore_failed", "ready"};
    return what <= SUP_ALERT_READY ? names[what] : "unknown";
}

const char *sup_action_name(sup_action_type type) {
    static const char *const names[] = {"spawn", "terminate", "kill", "restore", "set_timer", "alert"};
    return type <= SUP_DO_ALERT ? names[type] : "unknown";
}
