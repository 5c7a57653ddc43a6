/* A worker of one lane, `execute`, whose steps do what the order's `reason` says; for tests of what
 * tasks of their own would be needed for: journals, parking, outcomes, long results, progress.
 * Files in PROBE_DIR: open-MID (an open journal), closed-JOB ("MID OUTCOME"), busy (park), and what
 * is written there: result-RUN, a line of `runs` for each run. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/redis_url.h"
#include "common/wire/args.h"
#include "common/wire/keyfile.h"
#include "worker/core/loop.h"
#include "worker/core/pool.h"
#include "worker/job/dispatch.h"

struct state {
    char reason[1025];
};

static const char *dir;

static const char *path_of(const char *kind, const char *name)
{
    static char path[512];
    (void)snprintf(path, sizeof path, "%s/%s%s", dir, kind, name);
    return path;
}

static enum dr_rc decode(const struct dr_args *args, void *state, struct dr_err *err)
{
    struct state *s = state;
    const char *reason = dr_args_str(args, "reason");
    (void)err;
    (void)snprintf(s->reason, sizeof s->reason, "%s", reason ? reason : "");
    return DR_OK;
}

static enum dr_rc begin(struct job *j, struct dr_err *err)
{
    FILE *f = fopen(path_of("runs", ""), "a");
    if (!f)
        return dr_fail_errno(err, DR_E_IO, "runs");
    (void)fprintf(f, "%s %s %d\n", job_id(j), job_mid(j), job_resume(j));
    (void)fclose(f);
    if (access(path_of("busy", ""), F_OK) != 0)
        return DR_OK;
    (void)dr_fail(err, DR_E_LOCKED, "the target is busy");
    return dr_err_reason(err, "park");
}

static enum dr_rc copy(struct job *j, struct dr_err *err)
{
    job_progress_total(j, 100 << 20);
    for (int i = 0; i < 10; i++) {
        atomic_fetch_add(job_progress_counter(j), 10 << 20);
        job_message(j, "part %d", i);
        if (job_sleep(j, 100, err))
            return err->rc;
    }
    return DR_OK;
}

static enum dr_rc act(struct job *j, struct dr_err *err)
{
    static const struct {
        const char *word;
        enum dr_rc rc;
        enum job_outcome outcome;
    } acts[] = {
        {"failed", DR_E_INVALID, JOB_FAILED},      {"refused", DR_E_REFUSED, JOB_REFUSED},
        {"rolled_back", DR_E_IO, JOB_ROLLED_BACK}, {"needs_human", DR_E_IO, JOB_NEEDS_HUMAN},
        {"locked", DR_E_LOCKED, JOB_FAILED},       {"key", DR_E_KEY, JOB_FAILED},
        {"integrity", DR_E_INTEGRITY, JOB_FAILED}, {"unreachable", DR_E_UNREACHABLE, JOB_FAILED},
        {"tampered", DR_E_INTEGRITY, JOB_FAILED},  {"timeout", DR_E_TIMEOUT, JOB_FAILED},
    };
    const char *reason = ((struct state *)job_state(j))->reason;
    if (strcmp(reason, "partial") == 0)
        job_mark_partial(j);
    if (strcmp(reason, "copy") == 0)
        return copy(j, err);
    if (strcmp(reason, "sleep") == 0)
        return job_sleep(j, 600000, err);
    for (size_t i = 0; i < sizeof acts / sizeof acts[0]; i++)
        if (strcmp(reason, acts[i].word) == 0) {
            job_outcome_is(j, acts[i].outcome);
            (void)dr_fail(err, acts[i].rc, "told to: %s", reason);
            if (strcmp(reason, "tampered") == 0) /* a class of refusal */
                (void)dr_err_reason(err, "chunk-tag");
            return acts[i].rc;
        }
    return DR_OK;
}

static unsigned result(struct job *j, struct dr_buf *map)
{
    const char *reason = ((struct state *)job_state(j))->reason;
    unsigned long n = strncmp(reason, "long", 4) == 0 ? strtoul(reason + 4, NULL, 10) : 0;
    char *blob = calloc(1, n + 1);
    if (!blob)
        abort();
    memset(blob, 'x', n);
    dr_pack_pair(map, "blob", blob);
    free(blob);
    return 1;
}

static const struct job_step steps[] = {
    {"begin", 10, 0, begin, NULL},
    {"act", 90, 0, act, NULL},
    {0},
};
static const struct job_task task = {.type = "execute",
                                     .flags = TASK_HEAVY,
                                     .default_slots = 1,
                                     .state_bytes = sizeof(struct state),
                                     .decode = decode,
                                     .steps = steps,
                                     .result = result};
static const struct job_task *const tasks[] = {&task, NULL};

static bool open_run(void *arg, const char *mid, const char *id)
{
    (void)arg;
    (void)id;
    return access(path_of("open-", mid), F_OK) == 0;
}

static enum dispatch_known closed_run(void *arg, const char *mid, const char *id,
                                      struct dispatch_recorded *out)
{
    char known[64] = "", word[32] = "";
    FILE *f = fopen(path_of("closed-", id), "r");
    (void)arg;
    if (!f)
        return DISPATCH_UNKNOWN;
    int n = fscanf(f, "%63s %31s", known, word);
    (void)fclose(f);
    if (n != 2 || strcmp(known, mid) != 0)
        return DISPATCH_OTHER;
    for (int i = JOB_DONE; i <= JOB_CANCELLED; i++)
        if (strcmp(job_outcome_name((enum job_outcome)i), word) == 0)
            out->outcome = (enum job_outcome)i;
    dr_buf_init(&out->result, 4096);
    dr_pack_map(&out->result, 2);
    dr_pack_pair(&out->result, "outcome", word);
    dr_pack_pair(&out->result, "summary", "as the journal says");
    (void)dr_fail(&out->err, DR_E_IO, "as the journal says");
    return DISPATCH_CLOSED;
}

static enum dr_rc keep_result(struct store *store, const char *run, const void *bytes, size_t len,
                              struct dr_err *err)
{
    FILE *f = fopen(path_of("result-", run), "w");
    (void)store;
    if (!f || fwrite(bytes, 1, len, f) != len || fclose(f) != 0)
        return dr_fail_errno(err, DR_E_IO, "result");
    return DR_OK;
}

static void on_terminate(void *arg)
{
    dispatch_drain(*(struct dispatch **)arg);
}

static void on_drained(void *arg)
{
    loop_stop(arg);
}

int main(void)
{
    struct dr_err err = {0};
    struct dr_redis_url url = {0};
    struct loop *l = NULL;
    struct pool *p = NULL;
    struct dispatch *d = NULL;
    struct dr_keyfile *keys = NULL;
    const char *lease = getenv("DR_LEASE_MS"), *file = getenv("DR_SIGN_KEYS_FILE"),
               *unsigned_word = getenv("DR_ALLOW_UNSIGNED");
    dir = getenv("PROBE_DIR");
    (void)signal(SIGPIPE, SIG_IGN);
    if (!dir || dr_redis_url_parse(getenv("REDIS_URL"), &url, &err) || loop_new(&l, &err) ||
        pool_new(l, 4, &p, &err) || loop_on_signal(l, SIGTERM, on_terminate, &d, &err) ||
        (file && dr_keyfile_load(file, &keys, &err)))
        goto out;
    const struct job_services services = {.loop = l,
                                          .pool = p,
                                          .ns = "dr",
                                          .keep_result =
                                              getenv("PROBE_STORE") ? keep_result : NULL};
    const struct dispatch_options o = {.services = &services,
                                       .tasks = tasks,
                                       .url = &url,
                                       .lanes = "",
                                       .concurrency = 2,
                                       .lease_ms = lease ? atoi(lease) : 1000,
                                       .drain_ms = 500,
                                       .keys = keys,
                                       .allow_unsigned =
                                           !unsigned_word || strcmp(unsigned_word, "false") != 0,
                                       .store_id = getenv("PROBE_STORE"),
                                       .open_run = open_run,
                                       .closed_run = closed_run,
                                       .on_drained = on_drained,
                                       .arg = l};
    if (dispatch_new(&o, &d, &err) || dispatch_start(d, &err))
        goto out;
    dispatch_tell(d, "procedures", "\x90", 1);
    dispatch_tell(d, "health", "\xc0", 1);
    (void)loop_run(l);
    if (dispatch_refusal(d))
        err = *dispatch_refusal(d);
out:
    if (err.rc)
        (void)fprintf(stderr, "probe: %s\n", err.msg);
    dispatch_free(d);
    pool_free(p);
    loop_free(l);
    dr_keyfile_free(keys);
    dr_redis_url_free(&url);
    return err.rc != DR_OK;
}
