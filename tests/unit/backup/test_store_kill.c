/* Killed at every instant: the work runs under a tracer that kills it before its n-th system call
 * that changes something on disk, for each n until it comes through. Whatever is left must open,
 * hold every backup whole or not at all, and be finished by who comes next. */
#include "tests/unit/backup/store_killer.h"

#include <sys/resource.h>

static const int64_t began = 1767500000000;

static enum dr_rc publish(const char *path, struct store *s, struct dr_err *err)
{
    bool adopted;
    (void)path;
    return kit_publish(s, "job-killed", "manual", began, 1, &adopted, err);
}

static size_t count_lines(const char *path)
{
    char *name = dr_xasprintf("%s/catalog/log/000001.jsonl", path);
    FILE *f = fopen(name, "r");
    size_t lines = 0;
    int c;
    assert_non_null(f);
    while ((c = fgetc(f)) != EOF)
        lines += c == '\n';
    (void)fclose(f);
    free(name);
    return lines;
}

static void test_publishing(void **state)
{
    (void)state;
    unsigned n = 0, absent = 0, present = 0;
    bool killed;
    do {
        struct dr_err err = {0};
        struct store_entry *list = NULL;
        size_t count;
        unsigned removed;
        bool adopted = false;
        char *path = kit_golden();
        struct store *s = kit_open(path, STORE_WORK);
        killed = killed_at(path, s, publish, ++n);
        store_close(s);

        s = kit_open(path, STORE_WORK);
        assert_int_equal(store_sweep_staging(s, &removed, &err), DR_OK);
        kit_shell("test -z \"$(ls -A '%s/staging')\"", path);
        assert_int_equal(store_list(s, &list, &count, &err), DR_OK);
        assert_true(count == 3 || count == 4);
        count == 3 ? absent++ : present++;
        free(list);
        kit_check_open(s, count);
        /* The delivery after it, a second later: makes it, or finds it. */
        assert_int_equal(kit_publish(s, "job-killed", "manual", began + 1000, 2, &adopted, &err),
                         DR_OK);
        assert_int_equal(adopted, count == 4);
        kit_check_open(s, 4);
        store_close(s);
        assert_int_equal(count_lines(path), 5);
        kit_shell("test -z \"$(ls -A '%s/staging')\" && "
                  "test -z \"$(find '%s/backups' '%s/catalog' -name '.*' -o -name lock -path "
                  "'*/backups/*')\"",
                  path, path, path);
        kit_remove(path);
    } while (killed);
    assert_true(n > 20 && absent > 10 && present > 3); /* it was killed on both sides */
}

static enum dr_rc append(const char *path, struct store *s, struct dr_err *err)
{
    enum dr_rc rc = DR_OK;
    (void)path;
    for (unsigned i = 0; !rc && i < 2; i++)
        rc = store_append(s, "test", "", "{}", err);
    return rc;
}

static void test_appending(void **state)
{
    (void)state;
    unsigned n = 0;
    bool killed;
    do {
        struct dr_err err = {0};
        struct catalog_head before, after;
        char *path = kit_golden();
        struct store *s = kit_open(path, STORE_WORK);
        killed = killed_at(path, s, append, ++n);
        store_close(s);
        s = kit_open(path, STORE_WORK);
        store_head(s, &before);
        assert_true(before.seq >= 4 && before.seq <= 6);
        assert_int_equal(count_lines(path), before.seq);
        assert_int_equal(store_append(s, "test", "", "{}", &err), DR_OK);
        store_head(s, &after);
        assert_int_equal(after.seq, before.seq + 1);
        kit_check_open(s, 3);
        store_close(s);
        kit_remove(path);
    } while (killed);
    assert_true(n > 10);
}

static enum dr_rc first_start(const char *path, struct store *s, struct dr_err *err)
{
    return kit_try(path, KIT_PASSPHRASE, STORE_WORK, &s, err);
}

static void test_first_start(void **state)
{
    (void)state;
    unsigned n = 0;
    bool killed;
    do {
        struct catalog_head head;
        char *path = kit_folder();
        killed = killed_at(path, NULL, first_start, ++n);
        struct store *s = kit_open(path, STORE_WORK);
        store_head(s, &head);
        assert_int_equal(head.seq, 1);
        kit_check_open(s, 0);
        store_close(s);
        assert_int_equal(count_lines(path), 1);
        kit_shell("test -z \"$(find '%s' -name '.*.new')\"", path);
        kit_remove(path);
    } while (killed);
    assert_true(n > 15);
}

/* A torn line to be cut, a backup to be adopted. */
static void unsettle(const char *path)
{
    struct dr_err err = {0};
    char *catalog = dr_xasprintf("cp -r '%s/catalog' '%s/kept'", path, path);
    struct store *s = kit_open(path, STORE_WORK);
    bool adopted;
    kit_shell("%s", catalog);
    assert_int_equal(kit_publish(s, "job-killed", "manual", began, 1, &adopted, &err), DR_OK);
    store_close(s);
    kit_shell("rm -r '%s/catalog' && mv '%s/kept' '%s/catalog'", path, path, path);
    kit_shell("printf '{\"seq\":5' >> '%s/catalog/log/000001.jsonl'", path);
    kit_shell("for d in '%s'/backups/*-files-*; do touch \"$d/lock\"; done", path);
    free(catalog);
}

static void test_settling(void **state)
{
    (void)state;
    unsigned n = 0;
    bool killed;
    do {
        char *path = kit_golden();
        unsettle(path);
        killed = killed_at(path, NULL, first_start, ++n);
        struct store *s = kit_open(path, STORE_WORK);
        kit_check_open(s, 4);
        store_close(s);
        assert_int_equal(count_lines(path), 5);
        kit_remove(path);
    } while (killed);
    assert_true(n > 5);
}

/* A disk that takes no more in the middle of a write: `room` bytes a file. */
static enum dr_rc without_room(const char *path, struct store *s, kill_work *work, rlim_t room)
{
    int status;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct dr_err err = {0};
        const struct rlimit limit = {room, room};
        if (signal(SIGXFSZ, SIG_IGN) == SIG_ERR || setrlimit(RLIMIT_FSIZE, &limit) != 0)
            _exit(99);
        _exit((int)work(path, s, &err));
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) != 99);
    return (enum dr_rc)WEXITSTATUS(status);
}

static void test_no_room(void **state)
{
    (void)state;
    struct dr_err err = {0};
    struct catalog_head before, after;
    char *path = kit_golden();
    struct store *s = kit_open(path, STORE_WORK);
    store_head(s, &before);
    assert_int_equal(without_room(path, s, append, 1158 + 50), DR_E_IO); /* half a line */
    kit_shell("test \"$(wc -c < '%s/catalog/log/000001.jsonl')\" = 1208", path);
    for (rlim_t room = 0; room < 1500; room += 300)
        assert_int_equal(without_room(path, s, publish, room), DR_E_IO);
    kit_shell("test -z \"$(ls -A '%s/staging')\" && test $(ls '%s/backups' | wc -l) = 3", path,
              path);
    assert_int_equal(store_append(s, "test", "", "{}", &err), DR_OK); /* cuts it off first */
    store_head(s, &after);
    assert_int_equal(after.seq, before.seq + 1);
    kit_check_open(s, 3);
    store_close(s);
    kit_remove(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_publishing),  cmocka_unit_test(test_appending),
        cmocka_unit_test(test_first_start), cmocka_unit_test(test_settling),
        cmocka_unit_test(test_no_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
