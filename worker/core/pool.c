/* Thread pool: mutex-protected lists, completions by eventfd. */
#include "worker/core/pool.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <event2/event.h>

#include "common/mem.h"
#include "worker/core/fiber.h"
#include "worker/core/loop.h"

enum { THREADS_MAX = 64 };
enum item_state { QUEUED, RUNNING, FINISHED };

struct item {
    struct item *next;
    pool_fn *fn;
    void *data;
    struct cancel *cancel;
    struct dr_err err;
    enum dr_rc rc;
    enum item_state state; /* under the mutex */
    bool is_long;
    struct pool *pool;
    struct fiber *fiber; /* or done */
    void (*done)(void *arg, enum dr_rc rc, const struct dr_err *err);
    void *done_arg;
    struct cancel_hook hook;
};

struct list {
    struct item *first, **last;
};

struct pool {
    struct loop *loop;
    pthread_mutex_t mutex;
    pthread_cond_t work;
    struct list shorts, longs, finished;
    unsigned threads, running_long, running;
    bool stopping;
    pthread_t thread[THREADS_MAX];
    int wake_fd;
    struct event *wake;
};

static void list_init(struct list *l)
{
    l->first = NULL;
    l->last = &l->first;
}

static void list_add(struct list *l, struct item *i)
{
    i->next = NULL;
    *l->last = i;
    l->last = &i->next;
}

static struct item *list_pop(struct list *l)
{
    struct item *i = l->first;
    if (i) {
        l->first = i->next;
        if (!l->first)
            l->last = &l->first;
    }
    return i;
}

static bool list_remove(struct list *l, struct item *i)
{
    for (struct item **p = &l->first; *p; p = &(*p)->next)
        if (*p == i) {
            *p = i->next;
            if (l->last == &i->next)
                l->last = p;
            return true;
        }
    return false;
}

static void tell_loop(struct pool *p)
{
    uint64_t one = 1;
    while (write(p->wake_fd, &one, sizeof one) < 0 && errno == EINTR)
        continue;
}

static struct item *next_item(struct pool *p)
{
    struct item *i = list_pop(&p->shorts);
    if (!i && p->running_long + 1 < p->threads)
        i = list_pop(&p->longs);
    return i;
}

static void *thread_main(void *arg)
{
    struct pool *p = arg;
    (void)pthread_mutex_lock(&p->mutex);
    for (;;) {
        struct item *i = next_item(p);
        if (!i && p->stopping)
            break;
        if (!i) {
            (void)pthread_cond_wait(&p->work, &p->mutex);
            continue;
        }
        i->state = RUNNING;
        p->running++;
        p->running_long += i->is_long;
        (void)pthread_mutex_unlock(&p->mutex);
        i->rc = i->fn(i->data, i->cancel, &i->err);
        (void)pthread_mutex_lock(&p->mutex);
        p->running--;
        p->running_long -= i->is_long;
        i->state = FINISHED;
        list_add(&p->finished, i);
        tell_loop(p);
        (void)pthread_cond_signal(&p->work); /* a long one may have waited for this thread */
    }
    (void)pthread_mutex_unlock(&p->mutex);
    return NULL;
}

static void complete(struct item *i)
{
    if (i->fiber) {
        fiber_wake(i->fiber);
        return;
    }
    i->done(i->done_arg, i->rc, &i->err);
    free(i);
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    struct pool *p = arg;
    uint64_t count;
    (void)what;
    while (read(fd, &count, sizeof count) < 0 && errno == EINTR)
        continue;
    (void)pthread_mutex_lock(&p->mutex);
    struct item *i = p->finished.first;
    list_init(&p->finished);
    (void)pthread_mutex_unlock(&p->mutex);
    while (i) {
        struct item *next = i->next;
        complete(i);
        i = next;
    }
}

static enum dr_rc start_threads(struct pool *p, unsigned threads, struct dr_err *err)
{
    sigset_t all, old;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old); /* threads inherit it */
    int rc = 0;
    while (p->threads < threads && rc == 0) {
        (void)pthread_mutex_lock(&p->mutex);
        rc = pthread_create(&p->thread[p->threads], NULL, thread_main, p);
        p->threads += rc == 0;
        (void)pthread_mutex_unlock(&p->mutex);
    }
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc == 0)
        return DR_OK;
    errno = rc;
    return dr_fail_errno(err, DR_E_NOMEM, "thread pool");
}

enum dr_rc pool_new(struct loop *l, unsigned threads, struct pool **out, struct dr_err *err)
{
    struct pool *p = dr_xalloc(sizeof *p);
    if (threads < 2)
        threads = 2;
    if (threads > THREADS_MAX)
        threads = THREADS_MAX;
    p->loop = l;
    (void)pthread_mutex_init(&p->mutex, NULL);
    (void)pthread_cond_init(&p->work, NULL);
    list_init(&p->shorts);
    list_init(&p->longs);
    list_init(&p->finished);
    p->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    p->wake = p->wake_fd < 0
                  ? NULL
                  : event_new(loop_base(l), p->wake_fd, EV_READ | EV_PERSIST, on_wake, p);
    if (!p->wake || event_add(p->wake, NULL) != 0) {
        (void)dr_fail_errno(err, DR_E_NOMEM, "eventfd");
        pool_free(p);
        return err ? err->rc : DR_E_NOMEM;
    }
    if (start_threads(p, threads, err)) {
        pool_free(p);
        return err ? err->rc : DR_E_NOMEM;
    }
    *out = p;
    return DR_OK;
}

void pool_free(struct pool *p)
{
    if (!p)
        return;
    (void)pthread_mutex_lock(&p->mutex);
    p->stopping = true;
    (void)pthread_cond_broadcast(&p->work);
    (void)pthread_mutex_unlock(&p->mutex);
    for (unsigned i = 0; i < p->threads; i++)
        (void)pthread_join(p->thread[i], NULL);
    for (struct item *i; (i = list_pop(&p->finished));) /* submitted ones own what they work on */
        if (!i->fiber)
            complete(i);
    if (p->wake)
        event_free(p->wake);
    if (p->wake_fd >= 0)
        (void)close(p->wake_fd);
    (void)pthread_cond_destroy(&p->work);
    (void)pthread_mutex_destroy(&p->mutex);
    free(p);
}

static unsigned length(const struct list *l)
{
    unsigned n = 0;
    for (const struct item *i = l->first; i; i = i->next)
        n++;
    return n;
}

void pool_look(struct pool *p, struct pool_load *out)
{
    (void)pthread_mutex_lock(&p->mutex);
    out->threads = p->threads;
    out->running = p->running;
    out->waiting = length(&p->shorts) + length(&p->longs);
    (void)pthread_mutex_unlock(&p->mutex);
}

static void submit(struct pool *p, struct item *i)
{
    i->pool = p;
    (void)pthread_mutex_lock(&p->mutex);
    list_add(i->is_long ? &p->longs : &p->shorts, i);
    (void)pthread_cond_signal(&p->work);
    (void)pthread_mutex_unlock(&p->mutex);
}

/* Only a queued item can be taken back; a running one sees the token. */
static void on_cancel(void *arg)
{
    struct item *i = arg;
    struct pool *p = i->pool;
    (void)pthread_mutex_lock(&p->mutex);
    bool taken = i->state == QUEUED && list_remove(i->is_long ? &p->longs : &p->shorts, i);
    (void)pthread_mutex_unlock(&p->mutex);
    if (!taken)
        return;
    i->rc = dr_fail(&i->err, cancel_fired(i->cancel), "%s", cancel_reason(i->cancel));
    fiber_wake(i->fiber);
}

static enum dr_rc run(struct pool *p, pool_fn *fn, void *data, struct cancel *cancel, bool is_long,
                      struct dr_err *err)
{
    if (cancel_fired(cancel))
        return dr_fail(err, cancel_fired(cancel), "%s", cancel_reason(cancel));
    struct item *i = dr_xalloc(sizeof *i);
    i->fn = fn;
    i->data = data;
    i->cancel = cancel;
    i->is_long = is_long;
    i->fiber = fiber_self();
    if (cancel)
        cancel_hook_add(cancel, &i->hook, on_cancel, i);
    submit(p, i);
    fiber_suspend();
    cancel_hook_remove(&i->hook);
    enum dr_rc rc = i->rc;
    if (rc && err && !err->rc) {
        *err = i->err;
        if (!err->rc)
            (void)dr_fail(err, rc, "pool function failed");
    }
    free(i);
    return rc;
}

enum dr_rc pool_run(struct pool *p, pool_fn *fn, void *item, struct cancel *cancel,
                    struct dr_err *err)
{
    return run(p, fn, item, cancel, false, err);
}

enum dr_rc pool_run_long(struct pool *p, pool_fn *fn, void *item, struct cancel *cancel,
                         struct dr_err *err)
{
    return run(p, fn, item, cancel, true, err);
}

void pool_submit(struct pool *p, pool_fn *fn, void *item,
                 void (*done)(void *arg, enum dr_rc rc, const struct dr_err *err), void *arg)
{
    struct item *i = dr_xalloc(sizeof *i);
    i->fn = fn;
    i->data = item;
    i->done = done;
    i->done_arg = arg;
    submit(p, i);
}
