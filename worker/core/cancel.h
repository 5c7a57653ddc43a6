/* A cancel token: fired once, with a kind and a reason. Fired and hooked on the loop thread; pool
 * threads may ask cancel_pending. Embedded: the owner outlives every hook and every pool item. */
#ifndef DR_WORKER_CORE_CANCEL_H
#define DR_WORKER_CORE_CANCEL_H

#include <stdatomic.h>
#include <stdint.h>

#include "common/err.h"

struct loop;
struct loop_timer;

struct cancel_hook { /* embedded by the waiter */
    struct cancel_hook *next, **prev;
    void (*fn)(void *arg);
    void *arg;
};

struct cancel {
    struct loop *loop;
    _Atomic int fired; /* enum dr_rc, 0: not fired */
    char reason[96];
    struct cancel_hook *hooks;
    struct loop_timer *deadline;
    struct cancel *parent;
    struct cancel_hook parent_hook;
};

void cancel_init(struct cancel *c, struct loop *l);
void cancel_fini(struct cancel *c);
/* Fires when the parent does; at once if it has. */
void cancel_link(struct cancel *c, struct cancel *parent);
/* Fires with TIMEOUT after ms; a later call moves it. */
void cancel_deadline(struct cancel *c, uint64_t ms);
/* Idempotent: the first reason stays. Hooks run once, from inside this call. */
void cancel_fire(struct cancel *c, enum dr_rc why, const char *reason);
enum dr_rc cancel_fired(const struct cancel *c); /* NULL: DR_OK */
bool cancel_pending(const struct cancel *c);     /* any thread; NULL: false */
const char *cancel_reason(const struct cancel *c);
void cancel_hook_add(struct cancel *c, struct cancel_hook *h, void (*fn)(void *), void *arg);
void cancel_hook_remove(struct cancel_hook *h); /* also when it has run, or was never added */

#endif
