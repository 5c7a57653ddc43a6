/* The store as a worker uses it: who may open it, the first start, staging, series, selection. */
#include "tests/unit/backup/store_made.h"

#include <sys/stat.h>

#include "worker/backup/handle.h"
#include "worker/backup/keyring.h"
#include "worker/backup/lock.h"
#include "worker/backup/store_select.h"

static void refuse_open(const char *path, const char *passphrase, enum store_open_mode mode,
                        enum dr_rc rc, const char *reason)
{
    struct store *s = NULL;
    struct dr_err err = {0};
    assert_int_equal(kit_try(path, passphrase, mode, &s, &err), rc);
    assert_string_equal(err.reason, reason);
    if (!strstr(err.msg, "BACKUP_") && !strstr(err.msg, path))
        fail_msg("'%s' does not say where", err.msg);
}

static void test_refused_before_anything_is_written(void **state)
{
    (void)state;
    char *path = kit_golden(), *nowhere = dr_xasprintf("%s/nowhere", path);
    refuse_open(path, "some other passphrase", STORE_WORK, DR_E_KEY, "wrong-secret");
    refuse_open(path, "DRK1-AAAAA", STORE_WORK, DR_E_KEY, "code-form");
    refuse_open("", KIT_PASSPHRASE, STORE_WORK, DR_E_CONFIG, "");
    refuse_open(nowhere, KIT_PASSPHRASE, STORE_WORK, DR_E_CONFIG, "");
    refuse_open(path, "", STORE_WORK, DR_E_CONFIG, "");
    kit_shell("diff -r '%s' " KIT_VECTORS "/store", path);
    /* Of another repository under the same passphrase: its keys signed nothing here. */
    kit_shell("cp " KIT_VECTORS "/refuse/keyring-other-repository.json '%s/keyring.json'", path);
    refuse_open(path, KIT_PASSPHRASE, STORE_WORK, DR_E_INTEGRITY, "head-sig");
    kit_shell("diff -r -x keyring.json -x lock -x journal -x results -x staging -x trash "
              "'%s' " KIT_VECTORS "/store",
              path);
    free(nowhere);
    kit_remove(path);
}

/* Never a new keyring next to data, whatever is left of it. */
static void test_data_without_keyring(void **state)
{
    (void)state;
    static const char *const left[] = {"backups", "catalog"};
    char *path = kit_golden();
    kit_shell("rm '%s/keyring.json'", path);
    refuse_open(path, KIT_PASSPHRASE, STORE_WORK, DR_E_INTEGRITY, "missing-file");
    refuse_open(path, KIT_PASSPHRASE, STORE_READ, DR_E_INTEGRITY, "missing-file");
    kit_remove(path);
    for (size_t i = 0; i < CM_COUNT(left); i++) {
        path = kit_folder();
        kit_shell("mkdir '%s/%s'", path, left[i]);
        refuse_open(path, KIT_PASSPHRASE, STORE_WORK, DR_E_INTEGRITY, "missing-file");
        kit_shell("test ! -e '%s/keyring.json'", path);
        kit_remove(path);
    }
}

static void test_first_start(void **state)
{
    (void)state;
    struct stat st;
    struct dr_err err = {0};
    struct store_entry *list = NULL;
    struct catalog_head head;
    size_t count;
    char *path = kit_folder(), id[33], *keyring = dr_xasprintf("%s/keyring.json", path);
    kit_shell("mkdir '%s/lost+found'", path); /* does not count */
    refuse_open(path, KIT_PASSPHRASE, STORE_READ, DR_E_NOT_FOUND, "");
    kit_shell("test \"$(ls '%s')\" = lost+found", path);
    refuse_open(path, "too short", STORE_WORK, DR_E_REFUSED, "");
    kit_shell("test ! -e '%s/keyring.json'", path);
    struct store *s = kit_open(path, STORE_WORK);
    (void)snprintf(id, sizeof id, "%s", store_id(s));
    assert_int_equal(keyring_generation(store_keys(s)), 1);
    store_head(s, &head);
    assert_int_equal(head.seq, 1);
    assert_int_equal(store_list(s, &list, &count, &err), DR_OK);
    assert_int_equal(count, 0);
    free(list);
    store_close(s);
    assert_int_equal(stat(keyring, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    kit_shell("test -z \"$(find '%s' -mindepth 1 -type d ! -perm 700 ! -name lost+found)\"", path);
    kit_shell("cp '%s/keyring.json' '%s/lost+found/'", path, path);
    s = kit_open(path, STORE_WORK);
    assert_string_equal(store_id(s), id);
    store_head(s, &head);
    assert_int_equal(head.seq, 1);
    store_close(s);
    kit_shell("cmp '%s/keyring.json' '%s/lost+found/keyring.json'", path, path);
    free(keyring);
    kit_remove(path);
}

static void test_an_offsite_store_is_not_empty(void **state)
{
    (void)state;
    char *path = kit_folder();
    assert_int_equal(setenv("OFFSITE_STORAGE_PROVIDER", "aws_s3", 1), 0);
    refuse_open(path, KIT_PASSPHRASE, STORE_WORK, DR_E_REFUSED, "");
    assert_int_equal(unsetenv("OFFSITE_STORAGE_PROVIDER"), 0);
    kit_shell("test -z \"$(ls '%s')\"", path);
    kit_remove(path);
}

static void test_series_is_continued(void **state)
{
    (void)state;
    struct dr_err err = {0};
    struct store_entry *list = NULL;
    size_t count;
    bool adopted;
    char *path = kit_golden();
    struct store *s = kit_open(path, STORE_WORK);
    for (unsigned i = 0; i < 3; i++) {
        char job[16];
        (void)snprintf(job, sizeof job, "job-%u", i);
        assert_int_equal(
            kit_publish(s, job, "manual", 1767500000000 + i * 60000, i, &adopted, &err), DR_OK);
        assert_false(adopted);
    }
    assert_int_equal(store_list(s, &list, &count, &err), DR_OK);
    assert_int_equal(count, 6);
    for (unsigned i = 0; i < 3; i++) { /* newest first; the golden files backup was 1 */
        struct backup_handle *h = NULL;
        assert_int_equal(list[i].seq, 4 - i);
        assert_int_equal(handle_open(s, list[i].backup_id, &h, &err), DR_OK);
        const unsigned char *before =
            i < 2 ? list[i + 1].manifest_sha256 : list[3 + 1].manifest_sha256;
        assert_memory_equal(handle_manifest(h)->prev_sha256, before, 32);
        handle_close(h);
    }
    free(list);
    store_close(s);
    kit_check(path, 6);
    kit_remove(path);
}

static void test_staging_belongs_to_who_lives(void **state)
{
    (void)state;
    struct dr_err err = {0};
    struct staging *live = NULL, *again = NULL;
    unsigned removed;
    char *path = kit_golden();
    struct store *s = kit_open(path, STORE_WORK);
    assert_int_equal(store_staging_new(s, "aaaaaaaaaaaaaaaa", "17", &live, &err), DR_OK);
    kit_shell("cd '%s/staging' && mkdir -p bbbbbbbbbbbbbbbb.18/deep notours && cd bbbb* && "
              "touch lock .hidden deep/x",
              path);
    kit_shell("touch '%s/staging/aaaaaaaaaaaaaaaa.17/data'", path);
    assert_int_equal(store_sweep_staging(s, &removed, &err), DR_OK);
    assert_int_equal(removed, 1);
    kit_shell("test -e '%s/staging/aaaaaaaaaaaaaaaa.17/data'", path);
    kit_shell("test ! -e '%s/staging/bbbbbbbbbbbbbbbb.18'", path);
    kit_shell("test -e '%s/staging/notours'", path);
    assert_int_equal(store_staging_new(s, "aaaaaaaaaaaaaaaa", "17", &again, &err), DR_E_LOCKED);
    kit_shell("test -e '%s/staging/aaaaaaaaaaaaaaaa.17/data'", path);
    staging_free(live);
    kit_shell("test ! -e '%s/staging/aaaaaaaaaaaaaaaa.17'", path);
    dr_err_clear(&err);
    assert_int_equal(store_staging_new(s, "../aaaaaaaaaaaaa", "17", &again, &err), DR_E_BUG);
    store_close(s);
    kit_remove(path);
}

/* What has the lock is not what lies there any more: it is looked for again. */
static void test_lock_follows_the_name(void **state)
{
    (void)state;
    struct dr_err err = {0};
    char *path = kit_folder();
    int dirfd = open(path, O_RDONLY | O_DIRECTORY), a = -1, b = -1, c = -1;
    assert_int_equal(lock_take(dirfd, "x", LOCK_SHARED, 0, &a, &err), DR_E_NOT_FOUND);
    dr_err_clear(&err);
    assert_int_equal(lock_take(dirfd, "x", LOCK_ALONE_MAKE, 0, &a, &err), DR_OK);
    assert_int_equal(lock_take(dirfd, "x", LOCK_SHARED, 20, &b, &err), DR_E_LOCKED);
    dr_err_clear(&err);
    kit_shell("rm '%s/x'; touch '%s/x'", path, path);
    assert_int_equal(lock_take(dirfd, "x", LOCK_SHARED, 0, &b, &err), DR_OK);
    assert_int_equal(lock_take(dirfd, "x", LOCK_SHARED, 0, &c, &err), DR_OK);
    lock_drop(&a);
    assert_int_equal(lock_take(dirfd, "x", LOCK_ALONE, 0, &a, &err), DR_E_LOCKED);
    lock_drop(&b);
    lock_drop(&c);
    dr_err_clear(&err);
    assert_int_equal(lock_take(dirfd, "x", LOCK_ALONE, 0, &a, &err), DR_OK);
    lock_drop(&a);
    lock_drop(&a);
    (void)close(dirfd);
    kit_remove(path);
}

static void want(struct store *s, const char *kind, const char *series, const char *which,
                 int64_t before, const char *id)
{
    struct dr_err err = {0};
    struct backup_handle *h = NULL;
    const struct store_wish w = {kind, series, which, before, NULL};
    if (store_select(s, &w, &h, &err))
        fail_msg("%s: %s", which, err.msg);
    assert_string_equal(handle_manifest(h)->backup_id, id);
    handle_close(h);
}

static void want_not(struct store *s, const char *kind, const char *series, const char *which,
                     int64_t before, enum dr_rc rc, const char *word)
{
    struct dr_err err = {0};
    struct backup_handle *h = NULL;
    const struct store_wish w = {kind, series, which, before, NULL};
    assert_int_equal(store_select(s, &w, &h, &err), rc);
    if (!strstr(err.msg, word))
        fail_msg("'%s' does not name '%s'", err.msg, word);
}

static const char newest[] = "20260103T040000Z-database-fnnkcvuu",
                  oldest[] = "20260102T030405Z-database-jpfikvy7",
                  files[] = "20260103T030405Z-files-x5umaroa";

static void test_select(void **state)
{
    (void)state;
    char *path = kit_golden();
    struct store *s = kit_open(path, STORE_WORK);
    struct dr_err err = {0};
    bool adopted;
    want(s, "database", NULL, "latest", 0, newest);
    want(s, "database", "database:shop", "latest", 0, newest);
    want(s, "database", NULL, "latest", 1767412800160, newest); /* its very point */
    want(s, "database", NULL, "latest", 1767412800159, oldest);
    want(s, "files", NULL, "latest", 0, files);
    want(s, "database", NULL, oldest, 0, oldest);
    want(s, NULL, NULL, files, 0, files);
    want_not(s, "database", "database:other", "latest", 0, DR_E_NOT_FOUND, "none at all");
    want_not(s, "config", NULL, "latest", 0, DR_E_NOT_FOUND, "none at all");
    want_not(s, "database", NULL, "latest", 1, DR_E_NOT_FOUND, newest);
    want_not(s, "database", NULL, "20260102T030405Z-database-aaaaaaaa", 0, DR_E_NOT_FOUND, oldest);
    want_not(s, "database", NULL, "../../etc", 0, DR_E_NOT_FOUND, newest);
    want_not(s, "database", NULL, files, 0, DR_E_REFUSED, "kind files");
    assert_int_equal(kit_publish(s, "emergency-1", "emergency", 1767500000000, 1, &adopted, &err),
                     DR_OK);
    want(s, "files", NULL, "latest", 0, files); /* never an emergency backup */
    want_not(s, "files", NULL, "latest", 1, DR_E_NOT_FOUND, "(emergency)");
    store_close(s);
    kit_remove(path);
}

static void test_select_passes_over_the_damaged(void **state)
{
    (void)state;
    char *path = kit_golden();
    kit_shell("printf x >> '%s/backups/%s/manifest.json'", path, newest);
    struct store *s = kit_open(path, STORE_READ);
    want(s, "database", NULL, "latest", 0, oldest);
    want_not(s, "database", NULL, newest, 0, DR_E_INTEGRITY, "signature");
    want_not(s, "database", NULL, "latest", 1, DR_E_NOT_FOUND, "(damaged)");
    kit_shell("rm -r '%s/backups/%s'", path, oldest);
    want_not(s, "database", NULL, "latest", 0, DR_E_INTEGRITY, "and 1 more");
    store_close(s);
    kit_remove(path);
}

/* What a proof found is enough: nobody has to find it once more in the night. */
static void test_select_passes_over_what_is_recorded_as_damaged(void **state)
{
    (void)state;
    struct dr_err err = {0};
    struct backup_handle *h = NULL;
    struct store_passed passed;
    const struct store_wish latest = {"database", NULL, "latest", 0, &passed},
                            of_shop = {"database", "database:shop", "latest", 0, &passed};
    const char finding[] = "{\"ok\":false,\"class\":\"payload-hash\"}";
    char text[STORE_PASSED_TEXT];
    char *path = kit_golden();
    struct store *s = kit_open(path, STORE_WORK);
    assert_int_equal(store_append(s, "verified", newest, finding, &err), DR_OK);
    assert_int_equal(store_select(s, &of_shop, &h, &err), DR_OK);
    assert_string_equal(handle_manifest(h)->backup_id, oldest);
    handle_close(h);
    assert_int_equal(passed.count, 1);
    assert_string_equal(passed.list[0].backup_id, newest);
    assert_string_equal(passed.list[0].class, "payload-hash");
    assert_true(passed.list[0].found_at_ms > 0);
    store_passed_text(&passed, text, sizeof text);
    assert_non_null(strstr(text, newest));
    want(s, "database", NULL, newest, 0, newest); /* who names it gets it */
    assert_int_equal(store_append(s, "verified", oldest, "{\"ok\":false}", &err), DR_OK);
    assert_int_equal(store_select(s, &latest, &h, &err), DR_E_INTEGRITY);
    assert_string_equal(err.reason, "all-damaged");
    assert_non_null(strstr(err.msg, newest));
    assert_non_null(strstr(err.msg, "--backup ID"));
    assert_int_equal(passed.count, 2);
    assert_string_equal(passed.list[1].class, "damaged");
    assert_int_equal(store_append(s, "verified", newest, "{\"ok\":true}", &err), DR_OK);
    want(s, "database", NULL, "latest", 0, newest); /* it passed again */
    store_close(s);
    kit_remove(path);
}

static void test_records_are_reflected(void **state)
{
    (void)state;
    struct dr_err err = {0};
    struct store_entry *list = NULL;
    size_t count;
    char *path = kit_golden();
    struct store *s = kit_open(path, STORE_WORK);
    assert_int_equal(store_append(s, "pinned", newest, NULL, &err), DR_OK);
    assert_int_equal(store_append(s, "offsite", newest, NULL, &err), DR_OK);
    assert_int_equal(store_append(s, "drilled", newest, NULL, &err), DR_OK);
    assert_int_equal(store_append(s, "verified", newest, "{\"ok\":false}", &err), DR_OK);
    assert_int_equal(store_append(s, "tombstoned", files, NULL, &err), DR_OK);
    kit_shell("mv '%s/backups/%s' '%s/trash/'", path, files, path);
    assert_int_equal(store_list(s, &list, &count, &err), DR_OK);
    assert_int_equal(count, 3);
    assert_true(list[0].pinned && list[0].offsite_at_ms && list[0].drilled_at_ms);
    assert_false(list[0].verified_ok);
    assert_true(list[1].tombstoned_at_ms > 0 && !list[1].bad[0]);
    assert_string_equal(list[1].class, "manual"); /* read from trash */
    free(list);
    want_not(s, "files", NULL, "latest", 0, DR_E_NOT_FOUND, "none at all");
    want_not(s, "files", NULL, files, 0, DR_E_REFUSED, "trash");
    kit_shell("mv '%s/trash/%s' '%s/backups/'", path, files, path);
    assert_int_equal(store_append(s, "restored", files, NULL, &err), DR_OK);
    assert_int_equal(store_append(s, "unpinned", newest, NULL, &err), DR_OK);
    kit_shell("rm -r '%s/backups/%s'", path, oldest);
    assert_int_equal(store_append(s, "purged", oldest, NULL, &err), DR_OK);
    assert_int_equal(store_append(s, "of a later version", oldest, NULL, &err), DR_OK);
    assert_int_equal(store_list(s, &list, &count, &err), DR_OK);
    assert_int_equal(count, 2);
    assert_false(list[0].pinned);
    free(list);
    want(s, "files", NULL, "latest", 0, files);
    store_close(s);
    kit_remove(path);
}

/* Retention takes the write lock of a manifest or keeps the backup. */
static void test_readers_hold_a_lock(void **state)
{
    (void)state;
    struct dr_err err = {0};
    struct backup_handle *h = NULL;
    struct container *c = NULL;
    int lock = -1;
    char *path = kit_golden();
    char *mine = dr_xasprintf("backups/%s/manifest.json", newest);
    char *chain = dr_xasprintf("backups/%s/manifest.json", oldest);
    struct store *s = kit_open(path, STORE_READ);
    assert_int_equal(handle_open(s, newest, &h, &err), DR_OK);
    assert_int_equal(lock_take(store_dirfd(s), mine, LOCK_ALONE, 0, &lock, &err), DR_E_LOCKED);
    dr_err_clear(&err);
    assert_int_equal(lock_take(store_dirfd(s), chain, LOCK_ALONE, 0, &lock, &err), DR_OK);
    lock_drop(&lock);
    assert_int_equal(handle_container(h, 2, &c, &err), DR_OK); /* of the backup it leans on */
    container_close(c);
    assert_int_equal(lock_take(store_dirfd(s), chain, LOCK_ALONE, 0, &lock, &err), DR_E_LOCKED);
    handle_close(h);
    dr_err_clear(&err);
    assert_int_equal(lock_take(store_dirfd(s), mine, LOCK_ALONE, 0, &lock, &err), DR_OK);
    lock_drop(&lock);
    assert_int_equal(lock_take(store_dirfd(s), chain, LOCK_ALONE, 0, &lock, &err), DR_OK);
    lock_drop(&lock);
    store_close(s);
    free(mine);
    free(chain);
    kit_remove(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused_before_anything_is_written),
        cmocka_unit_test(test_data_without_keyring),
        cmocka_unit_test(test_first_start),
        cmocka_unit_test(test_an_offsite_store_is_not_empty),
        cmocka_unit_test(test_series_is_continued),
        cmocka_unit_test(test_staging_belongs_to_who_lives),
        cmocka_unit_test(test_lock_follows_the_name),
        cmocka_unit_test(test_select),
        cmocka_unit_test(test_select_passes_over_the_damaged),
        cmocka_unit_test(test_select_passes_over_what_is_recorded_as_damaged),
        cmocka_unit_test(test_records_are_reflected),
        cmocka_unit_test(test_readers_hold_a_lock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
