/* Backups given up, brought back, purged, pinned: what is refused, and that a kill at any instant
 * leaves each of them where the catalog says, or takes nothing that could still be brought back. */
#include "tests/unit/backup/store_killer.h"

#include <limits.h>

#include "worker/backup/store_select.h"
#include "worker/backup/trash.h"

static const int64_t began = 1767500000000;
static const char base_id[] = "20260102T030405Z-database-jpfikvy7"; /* the next is built upon it */
static const char on_base[] = "20260103T040000Z-database-fnnkcvuu";
static const struct trash_grounds nothing;

static void make(struct store *s, const char *job, char id[NAMES_ID_SIZE])
{
    struct dr_err err = {0};
    bool adopted;
    if (kit_publish(s, job, "scheduled", began, 1, &adopted, &err))
        fail_msg("%s", err.msg);
    names_backup_id(began, "files", job, id);
}

static bool lies(const char *path, const char *folder, const char *id)
{
    char *name = dr_xasprintf("%s/%s/%s", path, folder, id);
    bool there = access(name, F_OK) == 0;
    free(name);
    return there;
}

static struct store_entry entry_of(struct store *s, const char *id)
{
    struct dr_err err = {0};
    struct store_entry *list = NULL, found = {0};
    size_t count = 0;
    if (store_list(s, &list, &count, &err))
        fail_msg("%s", err.msg);
    for (size_t i = 0; i < count; i++)
        if (strcmp(list[i].backup_id, id) == 0)
            found = list[i];
    free(list);
    return found;
}

#define ERR (&e_)

#define REFUSES(call, code, why)                                                                   \
    do {                                                                                           \
        struct dr_err e_ = {0};                                                                    \
        assert_int_equal((call), (code));                                                          \
        assert_string_equal(e_.reason, (why));                                                     \
    } while (0)

#define WORKS(call)                                                                                \
    do {                                                                                           \
        struct dr_err e_ = {0};                                                                    \
        if (call)                                                                                  \
            fail_msg("%s (%s)", e_.msg, e_.reason);                                                \
    } while (0)

static void test_given_up_and_brought_back(void **state)
{
    (void)state;
    char *path = kit_golden(), id[NAMES_ID_SIZE];
    struct store *s = kit_open(path, STORE_WORK);
    struct backup_handle *h = NULL;
    struct dr_err err = {0};
    bool done;
    make(s, "job-one", id);
    WORKS(store_tombstone(s, id, &nothing, &done, ERR));
    assert_true(done && lies(path, "trash", id) && !lies(path, "backups", id));
    WORKS(store_tombstone(s, id, &nothing, &done, ERR));
    assert_false(done);
    struct store_entry e = entry_of(s, id);
    assert_true(e.tombstoned_at_ms > 0 && !e.bad[0] && e.plain_bytes > 0);
    assert_int_equal(store_select(s, &(struct store_wish){.kind = "files", .which = id}, &h, &err),
                     DR_E_REFUSED);
    assert_non_null(strstr(err.msg, "--undelete"));
    WORKS(store_select(s, &(struct store_wish){.kind = "files", .which = "latest"}, &h, ERR));
    assert_string_not_equal(handle_manifest(h)->backup_id, id);
    handle_close(h);
    kit_check_open(s, 4); /* it can still be proven where it lies */

    WORKS(store_undelete(s, id, "tests", &done, ERR));
    assert_true(done && lies(path, "backups", id) && !lies(path, "trash", id));
    WORKS(store_undelete(s, id, "tests", &done, ERR));
    assert_false(done);
    WORKS(store_select(s, &(struct store_wish){.kind = "files", .which = id}, &h, ERR));
    handle_close(h);
    assert_int_equal(entry_of(s, id).tombstoned_at_ms, 0);
    kit_check_open(s, 4);
    store_close(s);
    kit_check(path, 4);
    kit_remove(path);
}

static void test_purged_after_its_time(void **state)
{
    (void)state;
    char *path = kit_golden(), id[NAMES_ID_SIZE], next[NAMES_ID_SIZE];
    struct store *s = kit_open(path, STORE_WORK);
    uint64_t freed = 0;
    bool done;
    make(s, "job-one", id);
    REFUSES(store_purge(s, id, &nothing, INT64_MAX, &freed, &done, ERR), DR_E_REFUSED, "grace");
    WORKS(store_tombstone(s, id, &nothing, &done, ERR));
    int64_t at = entry_of(s, id).tombstoned_at_ms;
    REFUSES(store_purge(s, id, &nothing, at - 1, &freed, &done, ERR), DR_E_REFUSED, "grace");
    assert_true(lies(path, "trash", id));
    uint64_t stored = entry_of(s, id).stored_bytes;
    WORKS(store_purge(s, id, &nothing, at, &freed, &done, ERR));
    assert_true(done && freed == stored && !lies(path, "trash", id));
    WORKS(store_purge(s, id, &nothing, at, &freed, &done, ERR)); /* another worker was first */
    assert_false(done);
    REFUSES(store_undelete(s, id, "tests", &done, ERR), DR_E_NOT_FOUND, "");
    REFUSES(store_tombstone(s, id, &nothing, &done, ERR), DR_E_NOT_FOUND, "");
    kit_check_open(s, 3);
    make(s, "job-two", next); /* the series goes on */
    assert_true(entry_of(s, next).seq > 1);
    store_close(s);
    kit_check(path, 4);
    kit_shell("test \"$(grep -c '\"purged\"' '%s/catalog/log/000001.jsonl')\" = 1", path);
    kit_remove(path);
}

static void test_who_reads_keeps_it(void **state)
{
    (void)state;
    char *path = kit_golden(), id[NAMES_ID_SIZE];
    struct store *s = kit_open(path, STORE_WORK);
    struct backup_handle *h = NULL;
    uint64_t freed;
    bool done;
    make(s, "job-one", id);
    WORKS(handle_open(s, id, &h, ERR));
    assert_true(store_in_use(s, id));
    REFUSES(store_tombstone(s, id, &nothing, &done, ERR), DR_E_LOCKED, "in_use");
    assert_true(lies(path, "backups", id) && !entry_of(s, id).tombstoned_at_ms);
    handle_close(h);
    assert_false(store_in_use(s, id));
    WORKS(store_tombstone(s, id, &nothing, &done, ERR));
    WORKS(handle_open(s, id, &h, ERR)); /* found before it was given up, say */
    REFUSES(store_purge(s, id, &nothing, INT64_MAX, &freed, &done, ERR), DR_E_LOCKED, "in_use");
    assert_true(lies(path, "trash", id));
    handle_close(h);
    WORKS(store_purge(s, id, &nothing, INT64_MAX, &freed, &done, ERR));
    assert_false(store_in_use(s, id));
    store_close(s);
    kit_check(path, 3);
    kit_remove(path);
}

static enum dr_rc says_no(void *arg, const char *backup_id, struct dr_err *err)
{
    ++*(unsigned *)arg;
    (void)dr_fail(err, DR_E_REFUSED, "%s is named", backup_id);
    return dr_err_reason(err, "journal");
}

static void test_grounds(void **state)
{
    (void)state;
    char *path = kit_golden(), id[NAMES_ID_SIZE], policy[STORE_POLICY_MAX];
    struct store *s = kit_open(path, STORE_WORK);
    struct store_entry *list = NULL;
    uint64_t newest, seq, freed;
    size_t count;
    unsigned asked = 0;
    bool done;
    make(s, "job-one", id);
    WORKS(store_list_at(s, &list, &count, &newest, ERR));
    free(list);
    seq = newest - 1;
    struct trash_grounds why = {.seq = &seq, .still = says_no, .arg = &asked};
    REFUSES(store_tombstone(s, id, &why, &done, ERR), DR_E_LOCKED, "moved");
    assert_int_equal(asked, 0);
    seq = newest;
    WORKS(store_append(s, "audit", "", "{}", ERR)); /* is about no backup */
    REFUSES(store_tombstone(s, id, &why, &done, ERR), DR_E_REFUSED, "journal");
    assert_int_equal(asked, 1);
    assert_true(lies(path, "backups", id));
    WORKS(store_last_policy(s, policy, ERR));
    assert_string_equal(policy, "");
    why = (struct trash_grounds){.seq = &seq, .plan = "abc"};
    WORKS(store_tombstone(s, id, &why, &done, ERR));
    assert_int_equal(seq, newest + 2);
    WORKS(store_note_policy(s, "A=1\nB=x/y\n", "abc", ERR));
    WORKS(store_last_policy(s, policy, ERR));
    assert_string_equal(policy, "A=1\nB=x/y\n");
    REFUSES(store_purge(s, id, &why, INT64_MAX, &freed, &done, ERR), DR_E_LOCKED, "moved");
    WORKS(store_list_at(s, &list, &count, &seq, ERR));
    free(list);
    why.still = says_no;
    why.arg = &asked;
    REFUSES(store_purge(s, id, &why, INT64_MAX, &freed, &done, ERR), DR_E_REFUSED, "journal");
    assert_true(lies(path, "trash", id));
    REFUSES(store_tombstone(s, "../../etc", &why, &done, ERR), DR_E_NOT_FOUND, "");
    REFUSES(store_tombstone(s, "20260102T030405Z-files-aaaaaaaa", &nothing, &done, ERR),
            DR_E_NOT_FOUND, "");
    kit_shell("grep -q '\"data\":{\"plan\":\"abc\"}' "
              "'%s/catalog/log/000001.jsonl'",
              path);
    store_close(s);
    kit_remove(path);
}

static void test_what_others_are_built_upon(void **state)
{
    (void)state;
    char *path = kit_golden(), (*bases)[64];
    struct store *s = kit_open(path, STORE_WORK);
    uint64_t freed;
    unsigned count;
    bool done;
    REFUSES(store_tombstone(s, base_id, &nothing, &done, ERR), DR_E_REFUSED, "base");
    store_bases(s, on_base, &bases, &count);
    assert_int_equal(count, 1);
    assert_string_equal(bases[0], base_id);
    free(bases);
    WORKS(store_tombstone(s, on_base, &nothing, &done, ERR));
    WORKS(store_tombstone(s, base_id, &nothing, &done, ERR));
    REFUSES(store_purge(s, base_id, &nothing, INT64_MAX, &freed, &done, ERR), DR_E_REFUSED, "base");
    REFUSES(store_undelete(s, on_base, "tests", &done, ERR), DR_E_REFUSED, "base");
    WORKS(store_undelete(s, base_id, "tests", &done, ERR));
    WORKS(store_undelete(s, on_base, "tests", &done, ERR));
    kit_check_open(s, 3);
    store_close(s);
    kit_check(path, 3);
    kit_remove(path);
}

static void test_pins(void **state)
{
    (void)state;
    char *path = kit_golden(), id[NAMES_ID_SIZE];
    struct store *s = kit_open(path, STORE_WORK);
    struct store_pin pin = {.actor = "ops \"one\"", .reason = "for the auditor\n\xc3\xa4\xff"};
    struct store_pin got;
    bool done;
    make(s, "job-one", id);
    assert_false(store_pin_of(s, id, &got));
    WORKS(store_set_pin(s, id, &pin, &done, ERR));
    assert_true(done && entry_of(s, id).pinned && store_pin_of(s, id, &got));
    assert_string_equal(got.actor, pin.actor);
    assert_string_equal(got.reason, "for the auditor \xc3\xa4\xef\xbf\xbd");
    assert_true(got.at_ms > began && got.until_ms == 0);
    REFUSES(store_tombstone(s, id, &nothing, &done, ERR), DR_E_REFUSED, "pinned");
    (void)snprintf(pin.reason, sizeof pin.reason, "again");
    WORKS(store_set_pin(s, id, &pin, &done, ERR));
    assert_true(done);
    WORKS(store_set_pin(s, id, &pin, &done, ERR));
    assert_false(done);
    store_close(s);

    s = kit_open(path, STORE_READ); /* another process reads the same */
    assert_true(entry_of(s, id).pinned);
    store_close(s);
    s = kit_open(path, STORE_WORK);
    pin.until_ms = began; /* its end is over */
    WORKS(store_set_pin(s, id, &pin, &done, ERR));
    assert_false(entry_of(s, id).pinned || store_pin_of(s, id, &got));
    WORKS(store_unpin(s, id, "ops", &done, ERR));
    assert_true(done);
    WORKS(store_unpin(s, id, "ops", &done, ERR));
    assert_false(done);
    WORKS(store_tombstone(s, id, &nothing, &done, ERR));
    REFUSES(store_set_pin(s, id, &pin, &done, ERR), DR_E_REFUSED, "");
    REFUSES(store_set_pin(s, "x", &pin, &done, ERR), DR_E_NOT_FOUND, "");
    store_close(s);
    kit_remove(path);
}

static void test_in_both_folders(void **state)
{
    (void)state;
    char *path = kit_golden(), id[NAMES_ID_SIZE];
    struct store *s = kit_open(path, STORE_WORK);
    uint64_t freed;
    bool done;
    make(s, "job-one", id);
    kit_shell("cp -r '%s/backups/%s' '%s/trash/'", path, id, path);
    REFUSES(store_tombstone(s, id, &nothing, &done, ERR), DR_E_EXISTS, "");
    kit_shell("mv '%s/backups/%s' '%s/kept'", path, id, path);
    store_close(s);
    s = kit_open(path, STORE_WORK); /* it is not given up: it goes back */
    assert_true(lies(path, "backups", id) && !lies(path, "trash", id));
    WORKS(store_tombstone(s, id, &nothing, &done, ERR));
    kit_shell("mv '%s/kept' '%s/backups/%s'", path, path, id);
    REFUSES(store_purge(s, id, &nothing, INT64_MAX, &freed, &done, ERR), DR_E_EXISTS, "");
    assert_true(lies(path, "backups", id) && lies(path, "trash", id));
    store_close(s);
    kit_remove(path);
}

/* What a plan leaves alone, since nobody can tell what it was. */
static void test_by_hand(void **state)
{
    (void)state;
    char *path = kit_golden(), id[NAMES_ID_SIZE];
    struct store *s = kit_open(path, STORE_WORK);
    const struct trash_grounds hand = {.actor = "ops", .reason = "its \"disk\" died"};
    uint64_t freed;
    bool done;
    for (unsigned lost = 0; lost < 3; lost++) {
        char job[16];
        (void)snprintf(job, sizeof job, "job-%u", lost);
        make(s, job, id);
        if (lost == 1)
            kit_shell("rm '%s/backups/%s/manifest.json'", path, id);
        if (lost == 2)
            kit_shell("rm -r '%s/backups/%s'", path, id);
        if (lost) {
            struct dr_err err = {0};
            assert_int_not_equal(store_tombstone(s, id, &nothing, &done, &err), DR_OK);
        }
        WORKS(store_tombstone(s, id, &hand, &done, ERR));
        assert_true(done && entry_of(s, id).by_hand && !entry_of(s, id).bad[0]);
        WORKS(store_purge(s, id, &nothing, INT64_MAX, &freed, &done, ERR));
        assert_true(done && !lies(path, "trash", id) && !lies(path, "backups", id));
    }
    kit_shell("grep -q '\"actor\":\"ops\",\"reason\":\"its \\\\\"disk\\\\\" died\"' "
              "'%s/catalog/log/000001.jsonl'",
              path);
    kit_check_open(s, 3);
    store_close(s);
    kit_remove(path);
}

/* From an off-site copy, say: it is a backup again. */
static void test_laid_back_after_its_purge(void **state)
{
    (void)state;
    char *path = kit_golden(), id[NAMES_ID_SIZE];
    struct store *s = kit_open(path, STORE_WORK);
    struct backup_handle *h = NULL;
    uint64_t freed;
    bool done;
    make(s, "job-one", id);
    kit_shell("cp -r '%s/backups/%s' '%s/copy'", path, id, path);
    WORKS(store_tombstone(s, id, &nothing, &done, ERR));
    WORKS(store_purge(s, id, &nothing, INT64_MAX, &freed, &done, ERR));
    kit_shell("mv '%s/copy' '%s/backups/%s'", path, path, id);
    assert_string_equal(entry_of(s, id).backup_id, id); /* seen at once, */
    store_close(s);
    s = kit_open(path, STORE_WORK); /* and recorded by the next start */
    assert_true(entry_of(s, id).recorded);
    WORKS(store_select(s, &(struct store_wish){.kind = "files", .which = id}, &h, ERR));
    handle_close(h);
    kit_check_open(s, 4);
    store_close(s);
    kit_remove(path);
}

/* ---- killed at every change ---- */

static char victim[NAMES_ID_SIZE];

static enum dr_rc give_up(const char *path, struct store *s, struct dr_err *err)
{
    bool done;
    (void)path;
    return store_tombstone(s, victim, &nothing, &done, err);
}

static enum dr_rc bring_back(const char *path, struct store *s, struct dr_err *err)
{
    bool done;
    (void)path;
    return store_undelete(s, victim, "tests", &done, err);
}

static enum dr_rc purge(const char *path, struct store *s, struct dr_err *err)
{
    uint64_t freed;
    bool done;
    (void)path;
    return store_purge(s, victim, &nothing, INT64_MAX, &freed, &done, err);
}

/* Who reads finds everything, wherever the folder was left; the catalog may have a torn end. */
static void check_all_read(struct store *s)
{
    struct store_entry *list = NULL;
    size_t count = 0;
    WORKS(store_list(s, &list, &count, ERR));
    assert_int_equal(count, 4);
    for (size_t i = 0; i < count; i++) {
        const struct prove_options o = {0};
        struct prove_sums sums;
        struct backup_handle *h = NULL;
        assert_string_equal(list[i].bad, "");
        WORKS(handle_open(s, list[i].backup_id, &h, ERR));
        WORKS(prove_backup(h, &o, &sums, ERR));
        WORKS(handle_recorded(h, ERR));
        handle_close(h);
    }
    free(list);
}

static void check_readers(const char *path)
{
    struct store *s = kit_open(path, STORE_READ);
    check_all_read(s);
    store_close(s);
}

static bool given_up(struct store *s, const char *path)
{
    bool gone = entry_of(s, victim).tombstoned_at_ms != 0;
    assert_int_equal(lies(path, "trash", victim), gone);
    assert_int_equal(lies(path, "backups", victim), !gone);
    return gone;
}

static void test_killed_while_giving_up(void **state)
{
    (void)state;
    unsigned n = 0, before = 0, after = 0;
    bool killed, done;
    do {
        char *path = kit_golden();
        struct store *s = kit_open(path, STORE_WORK);
        make(s, "job-one", victim);
        killed = killed_at(path, s, give_up, ++n);
        check_all_read(s); /* a worker that lives on */
        store_close(s);
        check_readers(path);
        s = kit_open(path, STORE_WORK); /* the next start puts it right */
        given_up(s, path) ? after++ : before++;
        WORKS(store_tombstone(s, victim, &nothing, &done, ERR));
        assert_true(given_up(s, path));
        kit_check_open(s, 4);
        store_close(s);
        kit_remove(path);
    } while (killed);
    assert_true(before > 3 && after > 2);
}

/* And without a start in between: the same act again, or the contrary one. */
static void test_killed_between_record_and_rename(void **state)
{
    (void)state;
    for (unsigned contrary = 0; contrary < 2; contrary++) {
        unsigned n = 0;
        bool killed, done;
        do {
            char *path = kit_golden();
            struct store *s = kit_open(path, STORE_WORK);
            make(s, "job-one", victim);
            killed = killed_at(path, s, give_up, ++n);
            if (contrary)
                WORKS(store_undelete(s, victim, "tests", &done, ERR));
            else
                WORKS(store_tombstone(s, victim, &nothing, &done, ERR));
            assert_int_equal(given_up(s, path), !contrary);
            check_all_read(s);
            store_close(s);
            kit_remove(path);
        } while (killed);
        assert_true(n > 5);
    }
}

static void test_killed_while_bringing_back(void **state)
{
    (void)state;
    unsigned n = 0, before = 0, after = 0;
    bool killed, done;
    do {
        char *path = kit_golden();
        struct store *s = kit_open(path, STORE_WORK);
        make(s, "job-one", victim);
        WORKS(store_tombstone(s, victim, &nothing, &done, ERR));
        killed = killed_at(path, s, bring_back, ++n);
        check_all_read(s);
        store_close(s);
        check_readers(path);
        s = kit_open(path, STORE_WORK);
        given_up(s, path) ? before++ : after++;
        WORKS(store_undelete(s, victim, "tests", &done, ERR));
        assert_false(given_up(s, path));
        kit_check_open(s, 4);
        store_close(s);
        kit_remove(path);
    } while (killed);
    assert_true(before > 3 && after > 2);
}

static void test_killed_while_purging(void **state)
{
    (void)state;
    unsigned n = 0, whole = 0, begun = 0, gone = 0;
    bool killed, done;
    do {
        struct dr_err why = {0};
        char *path = kit_golden();
        struct store *s = kit_open(path, STORE_WORK);
        make(s, "job-one", victim);
        WORKS(store_tombstone(s, victim, &nothing, &done, ERR));
        killed = killed_at(path, s, purge, ++n);
        store_close(s);
        s = kit_open(path, STORE_WORK);
        assert_string_equal(entry_of(s, victim).bad, ""); /* nobody is alarmed */
        assert_false(lies(path, "backups", victim));
        enum dr_rc rc = store_undelete(s, victim, "tests", &done, &why);
        if (!rc) { /* nothing had been taken yet */
            whole++;
            kit_check_open(s, 4);
        } else if (rc == DR_E_NOT_FOUND) {
            gone++;
        } else { /* it does not come back by halves */
            assert_int_equal(rc, DR_E_INTEGRITY);
            assert_true(strcmp(why.reason, "purge-begun") == 0 ||
                        strcmp(why.reason, "missing-file") == 0);
            assert_true(entry_of(s, victim).tombstoned_at_ms != 0);
            begun++;
            WORKS(purge(path, s, ERR));
        }
        if (rc) {
            assert_false(lies(path, "trash", victim));
            kit_check_open(s, 3);
        }
        store_close(s);
        kit_check(path, rc ? 3 : 4);
        kit_remove(path);
    } while (killed);
    assert_true(whole > 0 && begun > 3 && gone > 0);
}

/* ---- two at once ---- */

static void test_two_at_once(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 5; round++) {
        char *path = kit_golden();
        struct store *s = kit_open(path, STORE_WORK);
        pid_t pids[4];
        make(s, "job-one", victim);
        for (unsigned i = 0; i < 4; i++) {
            pids[i] = fork();
            assert_true(pids[i] >= 0);
            if (pids[i] == 0) {
                struct dr_err err = {0};
                _exit(give_up(path, s, &err) || purge(path, s, &err) ? 8 : 0);
            }
        }
        for (unsigned i = 0; i < 4; i++) {
            int status;
            assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
            /* who comes after the purge finds nothing to give up any more */
            assert_true(WIFEXITED(status) &&
                        (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 8));
        }
        kit_check_open(s, 3);
        store_close(s);
        kit_shell("test \"$(grep -c '\"purged\"' '%s/catalog/log/000001.jsonl')\" = 1", path);
        kit_shell("test \"$(grep -c '\"tombstoned\"' '%s/catalog/log/000001.jsonl')\" = 1", path);
        kit_check(path, 3);
        kit_remove(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_given_up_and_brought_back),
        cmocka_unit_test(test_purged_after_its_time),
        cmocka_unit_test(test_who_reads_keeps_it),
        cmocka_unit_test(test_grounds),
        cmocka_unit_test(test_what_others_are_built_upon),
        cmocka_unit_test(test_pins),
        cmocka_unit_test(test_in_both_folders),
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_laid_back_after_its_purge),
        cmocka_unit_test(test_killed_while_giving_up),
        cmocka_unit_test(test_killed_between_record_and_rename),
        cmocka_unit_test(test_killed_while_bringing_back),
        cmocka_unit_test(test_killed_while_purging),
        cmocka_unit_test(test_two_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
