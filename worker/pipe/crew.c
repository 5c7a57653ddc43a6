/* Ordered parallel work. Everything below the mutex: a ring of slots, three counters (filled,
 * worked, drained; segment q lies in slot q % count), who holds a turn. A step runs without the
 * mutex. */
#include "worker/pipe/crew.h"

#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>

#include "common/mem.h"

enum state { FREE, READY, BUSY, DONE };
enum step { NOTHING, FILL, WORK, DRAIN };

struct slot {
    void *segment;
    enum state state;
    struct dr_err err;
};

struct hand {
    pthread_t thread;
    struct crew *crew;
    unsigned number;
};

struct crew {
    struct crew_spec spec;
    pthread_mutex_t lock;
    pthread_cond_t workers, caller;
    struct slot slots[CREW_SEGMENTS_MAX];
    uint64_t filled, worked, drained; /* next segment of each step */
    uint64_t end;                     /* number of segments once known */
    uint64_t failed;                  /* lowest segment with an error: nothing after it is begun */
    bool filling, draining, stop, taken;
    struct dr_err err; /* the crew's, once its turn has come */
    unsigned started;
    struct hand hands[CREW_THREADS_MAX];
};

static struct slot *slot(struct crew *c, uint64_t q)
{
    return &c->slots[q % c->spec.count];
}

static void wake(struct crew *c)
{
    (void)pthread_cond_broadcast(&c->workers);
    (void)pthread_cond_signal(&c->caller);
}

static void set_error(struct crew *c, const struct dr_err *err)
{
    if (c->err.rc == DR_OK)
        c->err = *err;
    c->stop = true;
    wake(c);
}

/* The oldest step that can be taken now. */
static enum step choose(struct crew *c)
{
    if (c->stop)
        return NOTHING;
    if (c->spec.drain && !c->draining && c->drained < c->filled &&
        slot(c, c->drained)->state == DONE)
        return DRAIN;
    if (c->worked < c->filled && slot(c, c->worked)->state == READY && c->worked < c->failed)
        return WORK;
    if (c->spec.fill && !c->filling && c->filled < c->end && c->filled < c->failed &&
        c->filled - c->drained < c->spec.count)
        return FILL;
    return NOTHING;
}

static void note_failure(struct crew *c, uint64_t q)
{
    if (q < c->failed)
        c->failed = q;
}

static void do_fill(struct crew *c)
{
    uint64_t q = c->filled;
    struct slot *s = slot(c, q);
    bool last = false;
    c->filling = true;
    (void)pthread_mutex_unlock(&c->lock);
    enum dr_rc rc = c->spec.fill(c->spec.arg, s->segment, &last, &s->err);
    (void)pthread_mutex_lock(&c->lock);
    c->filling = false;
    c->filled++;
    s->state = rc ? DONE : READY;
    if (rc)
        note_failure(c, q);
    if (last)
        c->end = c->filled;
}

static void do_work(struct crew *c, unsigned worker)
{
    uint64_t q = c->worked++;
    struct slot *s = slot(c, q);
    s->state = BUSY;
    (void)pthread_mutex_unlock(&c->lock);
    enum dr_rc rc = c->spec.work(c->spec.arg, worker, s->segment, &s->err);
    (void)pthread_mutex_lock(&c->lock);
    s->state = DONE;
    if (rc)
        note_failure(c, q);
}

static void release(struct crew *c)
{
    slot(c, c->drained)->state = FREE;
    c->drained++;
}

static void do_drain(struct crew *c)
{
    struct slot *s = slot(c, c->drained);
    enum dr_rc rc = s->err.rc;
    c->draining = true;
    if (!rc) {
        (void)pthread_mutex_unlock(&c->lock);
        rc = c->spec.drain(c->spec.arg, s->segment, &s->err);
        (void)pthread_mutex_lock(&c->lock);
    }
    c->draining = false;
    if (rc)
        set_error(c, &s->err);
    else
        release(c);
}

/* Asked before every step, and by the caller: also when no step is left to be taken. */
static bool cancelled(struct crew *c)
{
    struct dr_err err = {0};
    enum dr_rc why = cancel_fired(c->spec.cancel);
    if (why == DR_OK || c->stop)
        return why != DR_OK;
    (void)dr_fail(&err, why, "%s", cancel_reason(c->spec.cancel));
    set_error(c, &err);
    return true;
}

/* Under the lock: takes one step if there is one. */
static bool step(struct crew *c, unsigned worker)
{
    enum step s = choose(c);
    if (s == NOTHING || cancelled(c))
        return false;
    if (s == FILL)
        do_fill(c);
    else if (s == WORK)
        do_work(c, worker);
    else
        do_drain(c);
    wake(c);
    return true;
}

static void *hand_main(void *arg)
{
    struct hand *h = arg;
    struct crew *c = h->crew;
    (void)pthread_mutex_lock(&c->lock);
    while (!c->stop)
        if (!step(c, h->number) && !c->stop)
            (void)pthread_cond_wait(&c->workers, &c->lock);
    (void)pthread_mutex_unlock(&c->lock);
    return NULL;
}

/* Under the lock: until something happened, or takes a step itself. */
static void caller_waits(struct crew *c)
{
    struct dr_err err = {0};
    if (c->spec.threads > 0) {
        (void)pthread_cond_wait(&c->caller, &c->lock);
        return;
    }
    if (step(c, 0) || c->stop)
        return;
    (void)dr_fail(&err, DR_E_BUG, "crew: no step and no thread");
    set_error(c, &err);
}

static enum dr_rc give_error(const struct crew *c, struct dr_err *err)
{
    if (err && err->rc == DR_OK)
        *err = c->err;
    return c->err.rc;
}

/* Signals are the loop thread's. */
static enum dr_rc start(struct crew *c, struct dr_err *err)
{
    sigset_t all, before;
    enum dr_rc rc = DR_OK;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    while (!rc && c->started < c->spec.threads) {
        struct hand *h = &c->hands[c->started];
        h->crew = c;
        h->number = c->started;
        if (pthread_create(&h->thread, NULL, hand_main, h) != 0)
            rc = dr_fail(err, DR_E_NOMEM, "no thread can be started");
        else
            c->started++;
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

enum dr_rc crew_new(const struct crew_spec *spec, struct crew **out, struct dr_err *err)
{
    if (spec->threads > CREW_THREADS_MAX || spec->count < 1 || spec->count > CREW_SEGMENTS_MAX)
        return dr_fail(err, DR_E_BUG, "crew of %u threads, %u segments", spec->threads,
                       spec->count);
    struct crew *c = dr_xalloc(sizeof *c);
    c->spec = *spec;
    c->spec.segments = NULL;
    c->end = c->failed = UINT64_MAX;
    for (unsigned i = 0; i < spec->count; i++)
        c->slots[i].segment = spec->segments[i];
    (void)pthread_mutex_init(&c->lock, NULL);
    (void)pthread_cond_init(&c->workers, NULL);
    (void)pthread_cond_init(&c->caller, NULL);
    enum dr_rc rc = start(c, err);
    if (rc) {
        crew_free(c);
        return rc;
    }
    *out = c;
    return DR_OK;
}

void crew_free(struct crew *c)
{
    if (!c)
        return;
    (void)pthread_mutex_lock(&c->lock);
    c->stop = true;
    wake(c);
    (void)pthread_mutex_unlock(&c->lock);
    for (unsigned i = 0; i < c->started; i++)
        (void)pthread_join(c->hands[i].thread, NULL);
    (void)pthread_cond_destroy(&c->workers);
    (void)pthread_cond_destroy(&c->caller);
    (void)pthread_mutex_destroy(&c->lock);
    free(c);
}

enum dr_rc crew_room(struct crew *c, void **segment, struct dr_err *err)
{
    (void)pthread_mutex_lock(&c->lock);
    (void)cancelled(c);
    while (!c->stop && (c->filled - c->drained >= c->spec.count || c->failed != UINT64_MAX))
        caller_waits(c);
    enum dr_rc rc = give_error(c, err);
    *segment = slot(c, c->filled)->segment;
    (void)pthread_mutex_unlock(&c->lock);
    return rc;
}

enum dr_rc crew_submit(struct crew *c, struct dr_err *err)
{
    (void)pthread_mutex_lock(&c->lock);
    enum dr_rc rc = give_error(c, err);
    if (!rc) {
        slot(c, c->filled)->state = READY;
        c->filled++;
        wake(c);
    }
    (void)pthread_mutex_unlock(&c->lock);
    return rc;
}

enum dr_rc crew_flush(struct crew *c, struct dr_err *err)
{
    (void)pthread_mutex_lock(&c->lock);
    (void)cancelled(c);
    while (!c->stop && c->drained < c->filled)
        caller_waits(c);
    enum dr_rc rc = give_error(c, err);
    (void)pthread_mutex_unlock(&c->lock);
    return rc;
}

enum dr_rc crew_take(struct crew *c, void **segment, struct dr_err *err)
{
    *segment = NULL;
    (void)pthread_mutex_lock(&c->lock);
    if (c->taken) {
        release(c);
        wake(c);
    }
    c->taken = false;
    (void)cancelled(c);
    while (!c->stop && c->drained < c->end &&
           (c->drained == c->filled || slot(c, c->drained)->state != DONE))
        caller_waits(c);
    if (!c->stop && c->drained < c->end) {
        if (slot(c, c->drained)->err.rc) {
            set_error(c, &slot(c, c->drained)->err);
        } else {
            *segment = slot(c, c->drained)->segment;
            c->taken = true;
        }
    }
    enum dr_rc rc = give_error(c, err);
    (void)pthread_mutex_unlock(&c->lock);
    return rc;
}
