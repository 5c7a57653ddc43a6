/* One store, several workers and threads at once: one keyring, one chain, one backup a job; and the
 * catalog over a long life. */
#include "tests/unit/backup/store_made.h"

#include <pthread.h>
#include <sys/wait.h>

#include "worker/backup/keyring.h"
#include "worker/backup/store_select.h"

/* Runs fn in n processes at once; how many of them answered with each code. */
static void at_once(unsigned n, int (*fn)(void *arg, unsigned i), void *arg, unsigned codes[8])
{
    pid_t pids[16];
    int go[2];
    char c;
    assert_int_equal(pipe(go), 0);
    for (unsigned i = 0; i < n; i++) {
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i] == 0) {
            (void)close(go[1]);
            (void)!read(go[0], &c, 1); /* until the parent lets go */
            _exit(fn(arg, i));
        }
    }
    (void)close(go[0]);
    (void)close(go[1]);
    memset(codes, 0, 8 * sizeof *codes);
    for (unsigned i = 0; i < n; i++) {
        int status;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) < 8);
        codes[WEXITSTATUS(status)]++;
    }
}

static int start_one(void *arg, unsigned i)
{
    struct store *s = NULL;
    struct dr_err err = {0};
    (void)i;
    if (kit_try(arg, KIT_PASSPHRASE, STORE_WORK, &s, &err)) {
        (void)fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    FILE *f = fopen((const char *)arg, "r");
    if (f)
        (void)fclose(f);
    store_close(s);
    return 0;
}

static void test_four_first_starts_make_one_keyring(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 5; round++) {
        char *path = kit_folder();
        unsigned codes[8];
        struct catalog_head head;
        at_once(4, start_one, path, codes);
        assert_int_equal(codes[0], 4);
        struct store *s = kit_open(path, STORE_WORK);
        store_head(s, &head);
        assert_int_equal(head.seq, 1);
        store_close(s);
        kit_shell("test \"$(grep -c . '%s/catalog/log/000001.jsonl')\" = 1", path);
        kit_remove(path);
    }
}

enum { WRITERS = 8, RECORDS = 50 };

static int append_many(void *arg, unsigned i)
{
    struct store *s = NULL;
    struct dr_err err = {0};
    char data[64];
    int code = kit_try(arg, KIT_PASSPHRASE, STORE_WORK, &s, &err) ? 1 : 0;
    for (unsigned k = 0; !code && k < RECORDS; k++) {
        (void)snprintf(data, sizeof data, "{\"writer\":%u,\"record\":%u}", i, k);
        if (store_append(s, "test", "", data, &err))
            code = 2;
    }
    if (code)
        (void)fprintf(stderr, "%s\n", err.msg);
    store_close(s);
    return code;
}

static void test_eight_writers_keep_the_chain(void **state)
{
    (void)state;
    struct dr_err err = {0};
    struct catalog_head head;
    char *path = kit_golden();
    unsigned codes[8], unrecorded;
    at_once(WRITERS, append_many, path, codes);
    assert_int_equal(codes[0], WRITERS);
    struct store *s = kit_open(path, STORE_READ);
    assert_int_equal(store_audit(s, &unrecorded, &err), DR_OK);
    store_head(s, &head);
    assert_int_equal(head.seq, 4 + WRITERS * RECORDS);
    store_close(s);
    kit_shell(
        "test \"$(grep -o '\"data\":{\"writer\":.*' '%s/catalog/log/000001.jsonl' | sort -u | "
        "wc -l)\" = 400",
        path);
    kit_remove(path);
}

/* Pool threads of one worker share the open store. No assertion in them. */
static void *share_store(void *arg)
{
    struct store *s = arg;
    const struct store_wish latest = {.kind = "database", .which = "latest"};
    struct dr_err err = {0};
    for (unsigned i = 0; i < 25; i++) {
        struct store_entry *list = NULL;
        struct backup_handle *h = NULL;
        struct catalog_head head;
        size_t count = 0;
        if (store_append(s, "test", "", "{}", &err) || store_list(s, &list, &count, &err) ||
            store_select(s, &latest, &h, &err))
            return arg;
        store_head(s, &head);
        free(list);
        handle_close(h);
    }
    return NULL;
}

static void test_threads_share_a_store(void **state)
{
    (void)state;
    pthread_t threads[4];
    struct catalog_head head;
    char *path = kit_golden();
    struct store *s = kit_open(path, STORE_WORK);
    for (size_t i = 0; i < CM_COUNT(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, share_store, s), 0);
    for (size_t i = 0; i < CM_COUNT(threads); i++) {
        void *failed;
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    store_head(s, &head);
    assert_int_equal(head.seq, 104);
    store_close(s);
    kit_check(path, 3);
    kit_remove(path);
}

/* Thousands of backups that came and went. */
static void test_a_long_life(void **state)
{
    (void)state;
    enum { LIVES = 600 };
    struct dr_err err = {0};
    struct catalog_head head;
    struct store_entry *list = NULL;
    size_t count;
    char *path = kit_golden(), id[NAMES_ID_SIZE], job[32];
    struct store *s = kit_open(path, STORE_WORK);
    const struct catalog_log log = catalog_log(store_dirfd(s));
    store_head(s, &head);
    for (unsigned i = 0; i < LIVES; i++) {
        (void)snprintf(job, sizeof job, "life-%u", i);
        names_backup_id(1767600000000 + (int64_t)i * 3600000, "files", job, id);
        const char *const added =
            "{\"manifest_sha256\":\"0000000000000000000000000000000000000000000"
            "000000000000000000000\",\"verified_at\":\"2026-01-01T00:00:00.000Z\"}";
        assert_int_equal(catalog_append(&log, store_keys(s), &head, "added", id, 0, added, &err),
                         DR_OK);
        if (i % 100)
            assert_int_equal(
                catalog_append(&log, store_keys(s), &head, "purged", id, 0, NULL, &err), DR_OK);
    }
    assert_int_equal(store_list(s, &list, &count, &err), DR_OK);
    assert_int_equal(count, 3 + LIVES / 100);
    assert_string_equal(list[0].bad, "not-found"); /* recorded, but nothing lies there */
    assert_string_equal(list[0].kind, "files");
    free(list);
    store_close(s);
    kit_remove(path);
}

static enum dr_rc count_records(void *arg, const struct catalog_record *r, struct dr_err *err)
{
    (void)r;
    (void)err;
    ++*(unsigned *)arg;
    return DR_OK;
}

/* Over the border of a log file, and cut back behind it. */
static void test_log_files_hold_a_thousand(void **state)
{
    (void)state;
    static const unsigned char zeros[32];
    struct dr_err err = {0};
    struct catalog_head head = {0};
    unsigned seen = 0;
    bool ahead;
    char *path = kit_folder();
    struct store *s = kit_open(path, STORE_WORK);
    const struct catalog_log log = catalog_log(store_dirfd(s));
    store_head(s, &head);
    for (unsigned i = 1; i < 2003; i++)
        assert_int_equal(catalog_append(&log, store_keys(s), &head, "test", "", 0, NULL, &err),
                         DR_OK);
    kit_shell("test \"$(cat '%s/catalog/log/000002.jsonl' | wc -l)\" = 1000", path);
    kit_shell("test \"$(cat '%s/catalog/log/000003.jsonl' | wc -l)\" = 3", path);
    assert_int_equal(catalog_replay(&log, &head, 1, zeros, count_records, &seen, &ahead, &err),
                     DR_OK);
    assert_int_equal(seen, 2003);
    assert_false(ahead);
    store_close(s);

    s = kit_open(path, STORE_WORK); /* and on, from what stands there */
    for (unsigned border = 1000; border <= 2000; border += 1000) {
        struct catalog_head at = head;
        kit_shell("echo forged > '%s/catalog/log/000004.jsonl'", path);
        assert_int_equal(catalog_replay(&log, &at, 1, zeros, NULL, NULL, &ahead, &err), DR_OK);
        assert_int_equal(catalog_cut(&log, &at, &err), DR_OK);
        kit_shell("test ! -e '%s/catalog/log/000004.jsonl'", path);
    }
    assert_int_equal(store_append(s, "test", "", "{\"a\":1}", &err), DR_OK);
    store_head(s, &head);
    assert_int_equal(head.seq, 2004);
    store_close(s);
    kit_remove(path);
}

static void test_records_no_reader_would_take(void **state)
{
    (void)state;
    static const char *const data[] = {
        "", "[]", "{", "{\"a\":1.5}", "{\"a\":-1}", "{}\n{}", "{\"a\":1,\"a\":2}"};
    struct catalog_head before, after;
    char *path = kit_golden();
    struct store *s = kit_open(path, STORE_WORK);
    store_head(s, &before);
    for (size_t i = 0; i < CM_COUNT(data); i++) {
        struct dr_err err = {0};
        assert_int_not_equal(store_append(s, "test", "", data[i], &err), DR_OK);
    }
    struct dr_err err = {0};
    assert_int_not_equal(store_append(s, "test", "../x", "{}", &err), DR_OK);
    dr_err_clear(&err);
    assert_int_not_equal(store_append(s, "te\"st", "", "{}", &err), DR_OK);
    store_head(s, &after);
    assert_int_equal(before.seq, after.seq);
    store_close(s);
    kit_remove(path);
}

static void test_a_head_that_went_back_is_noticed(void **state)
{
    (void)state;
    struct dr_err err = {0};
    struct store_entry *list = NULL;
    size_t count;
    char *path = kit_golden();
    struct store *s = kit_open(path, STORE_WORK);
    kit_shell("cp -r '%s/catalog' '%s/old'", path, path);
    assert_int_equal(store_append(s, "test", "", "{}", &err), DR_OK);
    kit_shell("rm -r '%s/catalog'; mv '%s/old' '%s/catalog'", path, path, path);
    assert_int_equal(store_list(s, &list, &count, &err), DR_E_INTEGRITY);
    assert_string_equal(err.reason, "head-rollback");
    store_close(s);
    kit_remove(path);
}

/* Two deliveries of one job, begun at different times. */
static int publish_one(void *arg, unsigned i)
{
    struct store *s = NULL;
    struct dr_err err = {0};
    bool adopted = false;
    if (kit_try(arg, KIT_PASSPHRASE, STORE_WORK, &s, &err) ||
        kit_publish(s, "job-race", "manual", 1767500000000 + (int64_t)i * 1000, i, &adopted,
                    &err)) {
        (void)fprintf(stderr, "%s\n", err.msg);
        return 7;
    }
    store_close(s);
    return adopted ? 1 : 0;
}

static void test_one_job_is_published_once(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 3; round++) {
        char *path = kit_golden();
        unsigned codes[8];
        at_once(4, publish_one, path, codes);
        assert_int_equal(codes[0], 1); /* the others adopted it */
        assert_int_equal(codes[1], 3);
        kit_check(path, 4);
        kit_shell("test \"$(grep -c '\"added\"' '%s/catalog/log/000001.jsonl')\" = 4", path);
        kit_shell("test -z \"$(ls '%s/staging')\"", path);
        kit_remove(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_four_first_starts_make_one_keyring),
        cmocka_unit_test(test_eight_writers_keep_the_chain),
        cmocka_unit_test(test_threads_share_a_store),
        cmocka_unit_test(test_a_long_life),
        cmocka_unit_test(test_log_files_hold_a_thousand),
        cmocka_unit_test(test_records_no_reader_would_take),
        cmocka_unit_test(test_a_head_that_went_back_is_noticed),
        cmocka_unit_test(test_one_job_is_published_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
