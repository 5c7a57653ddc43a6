/* Stackful coroutines on the loop thread: 256 KiB stacks with a guard page, cached. A fiber waits
 * by fiber_suspend and goes on after fiber_wake; every wait is woken exactly once. errno and the
 * OpenSSL error queue do not survive a suspend. Never longjmp across stacks. */
#ifndef DR_WORKER_CORE_FIBER_H
#define DR_WORKER_CORE_FIBER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "worker/core/cancel.h"

struct loop;
struct fiber;

/* Begins at the next tick, ends when fn returns. */
void fiber_start(struct loop *l, void (*fn)(void *arg), void *arg);
struct fiber *fiber_self(void); /* NULL on the loop's own stack */
void fiber_suspend(void);
void fiber_wake(struct fiber *f); /* goes on at the next tick; waking one twice aborts */

/* DR_OK after ms, or the token's kind when it fires; cancel may be NULL. */
enum dr_rc fiber_sleep(uint64_t ms, struct cancel *cancel);

/* Child fibers with a bound; the first error cancels the rest. Lives on the parent's stack. */
struct fiber_group {
    struct loop *loop;
    unsigned limit, running;
    struct fiber *waiting;
    struct cancel cancel; /* for the children's waits */
    struct dr_err err;
};
void fiber_group_init(struct fiber_group *g, struct loop *l, unsigned limit, struct cancel *parent);
/* Suspends while `limit` children run. fn is not started once an error was seen. */
void fiber_group_go(struct fiber_group *g, enum dr_rc (*fn)(void *arg, struct dr_err *err),
                    void *arg);
/* Waits for all, ends the group; the first error. */
enum dr_rc fiber_group_wait(struct fiber_group *g, struct dr_err *err) DR_MUST_CHECK;

void fiber_cache_drop(void); /* frees cached stacks, at the process's end */

#endif
