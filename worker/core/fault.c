/* Fault points of test builds; empty otherwise. The list is read once and never freed. */
#include "worker/core/fault.h"

#if DR_FAULTS

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/str.h"
#include "worker/core/fiber.h"

enum { FAULTS_MAX = 16, SLEEP_MS = 1000 };
enum action { KILL, STOP, FAIL, SLEEP };

struct fault {
    char point[96];
    uint64_t nth;
    enum action action;
    uint64_t ms;
    _Atomic uint64_t seen;
};

static struct fault faults[FAULTS_MAX];
static unsigned fault_count;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static bool parse_action(const char *word, char *rest, struct fault *f)
{
    static const char *const names[] = {"kill", "stop", "fail", "sleep"};
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(word, names[i]) == 0) {
            f->action = (enum action)i;
            f->ms = SLEEP_MS;
            return !rest || (i == SLEEP && dr_parse_u64(rest, 0, 3600000, &f->ms));
        }
    return false;
}

/* point[:nth]:action[:ms] */
static bool parse_one(char *text, struct fault *f)
{
    char *rest = text, *point = strsep(&rest, ":"), *word = strsep(&rest, ":");
    f->nth = 1;
    if (!word || !point[0] || strlen(point) >= sizeof f->point)
        return false;
    if (dr_parse_u64(word, 1, UINT32_MAX, &f->nth))
        word = strsep(&rest, ":");
    (void)snprintf(f->point, sizeof f->point, "%s", point);
    return word && parse_action(word, rest, f);
}

static void parse(void)
{
    const char *list = getenv("DR_FAULT");
    char text[2048], *rest = text, *one;
    if (!list || !list[0])
        return;
    bool ok = (size_t)snprintf(text, sizeof text, "%s", list) < sizeof text;
    while (ok && (one = strsep(&rest, ",")))
        ok = fault_count < FAULTS_MAX && parse_one(one, &faults[fault_count++]);
    if (ok)
        return;
    (void)fprintf(stderr, "DR_FAULT: not point[:nth]:kill|stop|fail|sleep[:ms],...: %s\n", list);
    abort();
}

static void pause_ms(uint64_t ms)
{
    if (fiber_self()) {
        (void)fiber_sleep(ms, NULL);
        return;
    }
    struct timespec left = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
    while (nanosleep(&left, &left) != 0)
        continue;
}

enum dr_rc fault_point(const char *point, struct dr_err *err)
{
    const struct fault *hit = NULL;
    (void)pthread_once(&once, parse);
    for (unsigned i = 0; i < fault_count; i++) { /* each counts every visit */
        struct fault *f = &faults[i];
        if (strcmp(f->point, point) == 0 && atomic_fetch_add(&f->seen, 1) + 1 == f->nth && !hit)
            hit = f;
    }
    if (!hit)
        return DR_OK;
    if (hit->action == FAIL)
        return dr_fail(err, DR_E_IO, "fault at %s", point);
    if (hit->action == SLEEP)
        pause_ms(hit->ms);
    else
        (void)raise(hit->action == KILL ? SIGKILL : SIGSTOP); /* this thread does not go on */
    return DR_OK;
}

#endif
