/* Cancel tokens. */
#include "worker/core/cancel.h"

#include <stdio.h>
#include <string.h>

#include "worker/core/loop.h"

void cancel_init(struct cancel *c, struct loop *l)
{
    memset(c, 0, sizeof *c);
    c->loop = l;
}

void cancel_fini(struct cancel *c)
{
    cancel_hook_remove(&c->parent_hook);
    loop_timer_free(c->deadline);
    c->deadline = NULL;
    while (c->hooks)
        cancel_hook_remove(c->hooks);
}

static void on_parent(void *arg)
{
    struct cancel *c = arg;
    cancel_fire(c, cancel_fired(c->parent), c->parent->reason);
}

void cancel_link(struct cancel *c, struct cancel *parent)
{
    if (!parent)
        return;
    c->parent = parent;
    if (cancel_fired(parent))
        on_parent(c);
    else
        cancel_hook_add(parent, &c->parent_hook, on_parent, c);
}

static void on_deadline(void *arg)
{
    cancel_fire(arg, DR_E_TIMEOUT, "deadline");
}

void cancel_deadline(struct cancel *c, uint64_t ms)
{
    if (!c->deadline)
        c->deadline = loop_timer_new(c->loop, on_deadline, c);
    loop_timer_arm(c->deadline, ms);
}

void cancel_fire(struct cancel *c, enum dr_rc why, const char *reason)
{
    if (atomic_load(&c->fired) != DR_OK)
        return;
    (void)snprintf(c->reason, sizeof c->reason, "%s", reason);
    atomic_store(&c->fired, (int)why);
    while (c->hooks) {
        struct cancel_hook *h = c->hooks;
        cancel_hook_remove(h);
        h->fn(h->arg);
    }
}

enum dr_rc cancel_fired(const struct cancel *c)
{
    return c ? (enum dr_rc)atomic_load(&c->fired) : DR_OK;
}

bool cancel_pending(const struct cancel *c)
{
    return c && atomic_load(&c->fired) != DR_OK;
}

const char *cancel_reason(const struct cancel *c)
{
    return c->reason;
}

void cancel_hook_add(struct cancel *c, struct cancel_hook *h, void (*fn)(void *), void *arg)
{
    *h = (struct cancel_hook){.next = c->hooks, .prev = &c->hooks, .fn = fn, .arg = arg};
    if (c->hooks)
        c->hooks->prev = &h->next;
    c->hooks = h;
}

void cancel_hook_remove(struct cancel_hook *h)
{
    if (!h->prev)
        return;
    *h->prev = h->next;
    if (h->next)
        h->next->prev = h->prev;
    h->prev = NULL;
    h->next = NULL;
}
