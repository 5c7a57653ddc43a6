/* Fibers: ucontext makes a stack, swapcontext switches. Switches are announced to the sanitizers.
 */
#include "worker/core/fiber.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "common/mem.h"
#include "worker/core/loop.h"

#if defined(__has_feature) /* clang's way to say it */
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define FIBER_ASAN 1
#else
#define FIBER_ASAN 0
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#define FIBER_TSAN 1
#else
#define FIBER_TSAN 0
#endif
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#else
#define VALGRIND_STACK_REGISTER(a, b) 0u
#define VALGRIND_STACK_DEREGISTER(id) ((void)(id))
#endif

enum { STACK_BYTES = 256 * 1024, CACHED_MAX = 16 };

struct stack {
    struct stack *next;
    unsigned char *base; /* guard page first */
    size_t size;
    unsigned valgrind_id;
};

struct fiber {
    ucontext_t context;
    struct stack *stack;
    struct loop *loop;
    void (*fn)(void *);
    void *arg;
    bool suspended, woken, done;
    void *fake_stack, *tsan;
};

/* The loop thread's: one loop a thread in tests. */
static _Thread_local struct {
    struct fiber *current;
    ucontext_t loop_context;
    const void *loop_stack;
    size_t loop_stack_size;
    void *loop_fake_stack, *loop_tsan;
    struct stack *cached;
    unsigned cached_count;
} here;

static struct stack *stack_new(void)
{
    struct stack *s = here.cached;
    if (s) {
        here.cached = s->next;
        here.cached_count--;
        return s;
    }
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    s = dr_xalloc(sizeof *s);
    s->size = STACK_BYTES + page;
    void *p = mmap(NULL, s->size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (p == MAP_FAILED || mprotect(p, page, PROT_NONE) != 0)
        abort();
    s->base = p;
    s->valgrind_id = VALGRIND_STACK_REGISTER(s->base + page, s->base + s->size);
    return s;
}

static void stack_unmap(struct stack *s)
{
    VALGRIND_STACK_DEREGISTER(s->valgrind_id);
    (void)munmap(s->base, s->size);
    free(s);
}

static void stack_free(struct stack *s)
{
    if (here.cached_count >= CACHED_MAX) {
        stack_unmap(s);
        return;
    }
    s->next = here.cached;
    here.cached = s;
    here.cached_count++;
}

void fiber_cache_drop(void)
{
    while (here.cached) {
        struct stack *s = here.cached;
        here.cached = s->next;
        stack_unmap(s);
    }
    here.cached_count = 0;
}

static void leave_to_loop(struct fiber *f, bool for_good)
{
#if FIBER_ASAN
    __sanitizer_start_switch_fiber(for_good ? NULL : &f->fake_stack, here.loop_stack,
                                   here.loop_stack_size);
#endif
#if FIBER_TSAN
    __tsan_switch_to_fiber(here.loop_tsan, 0);
#endif
    (void)for_good;
    if (swapcontext(&f->context, &here.loop_context) != 0)
        abort();
#if FIBER_ASAN
    __sanitizer_finish_switch_fiber(f->fake_stack, &here.loop_stack, &here.loop_stack_size);
#endif
}

static void entry(void)
{
    struct fiber *f = here.current;
#if FIBER_ASAN
    __sanitizer_finish_switch_fiber(NULL, &here.loop_stack, &here.loop_stack_size);
#endif
    f->fn(f->arg);
    f->done = true;
    leave_to_loop(f, true);
    abort(); /* nobody resumes a fiber that is done */
}

/* On the loop's stack: runs the fiber until it suspends or ends. */
static void resume(void *arg)
{
    struct fiber *f = arg;
    if (here.current)
        abort();
    f->woken = false;
    f->suspended = false;
    here.current = f;
#if FIBER_ASAN
    __sanitizer_start_switch_fiber(&here.loop_fake_stack, f->stack->base, f->stack->size);
#endif
#if FIBER_TSAN
    here.loop_tsan = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(f->tsan, 0);
#endif
    if (swapcontext(&here.loop_context, &f->context) != 0)
        abort();
#if FIBER_ASAN
    __sanitizer_finish_switch_fiber(here.loop_fake_stack, NULL, NULL);
#endif
    here.current = NULL;
    if (f->done) {
#if FIBER_TSAN
        __tsan_destroy_fiber(f->tsan);
#endif
        stack_free(f->stack);
        free(f);
    }
}

void fiber_start(struct loop *l, void (*fn)(void *arg), void *arg)
{
    struct fiber *f = dr_xalloc(sizeof *f);
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    f->loop = l;
    f->fn = fn;
    f->arg = arg;
    f->stack = stack_new();
#if FIBER_TSAN
    f->tsan = __tsan_create_fiber(0);
#endif
    if (getcontext(&f->context) != 0)
        abort();
    f->context.uc_stack.ss_sp = f->stack->base + page;
    f->context.uc_stack.ss_size = f->stack->size - page;
    f->context.uc_link = NULL;
    makecontext(&f->context, entry, 0);
    f->woken = true;
    loop_next_tick(l, resume, f);
}

struct fiber *fiber_self(void)
{
    return here.current;
}

void fiber_suspend(void)
{
    struct fiber *f = here.current;
    if (!f || f->suspended)
        abort();
    f->suspended = true;
    leave_to_loop(f, false);
}

void fiber_wake(struct fiber *f)
{
    if (f->woken)
        abort();
    f->woken = true;
    loop_next_tick(f->loop, resume, f);
}

struct sleep {
    struct fiber *fiber;
    bool over;
};

static void end_sleep(void *arg)
{
    struct sleep *s = arg;
    if (s->over)
        return;
    s->over = true;
    fiber_wake(s->fiber);
}

enum dr_rc fiber_sleep(uint64_t ms, struct cancel *cancel)
{
    struct fiber *f = here.current;
    if (cancel_fired(cancel))
        return cancel_fired(cancel);
    struct sleep s = {.fiber = f};
    struct cancel_hook hook = {0};
    struct loop_timer *t = loop_timer_new(f->loop, end_sleep, &s);
    loop_timer_arm(t, ms);
    if (cancel)
        cancel_hook_add(cancel, &hook, end_sleep, &s);
    fiber_suspend();
    cancel_hook_remove(&hook);
    loop_timer_free(t);
    return cancel_fired(cancel);
}

void fiber_group_init(struct fiber_group *g, struct loop *l, unsigned limit, struct cancel *parent)
{
    memset(g, 0, sizeof *g);
    g->loop = l;
    g->limit = limit ? limit : 1;
    cancel_init(&g->cancel, l);
    cancel_link(&g->cancel, parent);
}

struct group_child {
    struct fiber_group *group;
    enum dr_rc (*fn)(void *, struct dr_err *);
    void *arg;
};

static void run_child(void *arg)
{
    struct group_child *c = arg;
    struct fiber_group *g = c->group;
    struct dr_err err = {0};
    if (c->fn(c->arg, &err) && !g->err.rc) {
        g->err = err;
        cancel_fire(&g->cancel, DR_E_CANCELLED, "a sibling failed");
    }
    free(c);
    g->running--;
    if (g->waiting) {
        struct fiber *f = g->waiting;
        g->waiting = NULL;
        fiber_wake(f);
    }
}

static void wait_below(struct fiber_group *g, unsigned limit)
{
    while (g->running >= limit) {
        g->waiting = here.current;
        fiber_suspend();
    }
}

void fiber_group_go(struct fiber_group *g, enum dr_rc (*fn)(void *arg, struct dr_err *err),
                    void *arg)
{
    wait_below(g, g->limit);
    if (g->err.rc)
        return;
    struct group_child *c = dr_xalloc(sizeof *c);
    *c = (struct group_child){.group = g, .fn = fn, .arg = arg};
    g->running++;
    fiber_start(g->loop, run_child, c);
}

enum dr_rc fiber_group_wait(struct fiber_group *g, struct dr_err *err)
{
    wait_below(g, 1);
    cancel_fini(&g->cancel);
    if (g->err.rc && err && !err->rc)
        *err = g->err;
    return g->err.rc;
}
