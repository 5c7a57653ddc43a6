/* Which backups open journals hold. */
#include "tests/unit/cm.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/recovery/held.h"
#include "worker/recovery/journal.h"

static const char one[] = "20260102T030405Z-database-jpfikvy7";
static const char two[] = "20260103T040000Z-database-fnnkcvuu";
static const char tree[] = "20260103T030405Z-files-x5umaroa";
static const char config[] = "20260103T030405Z-config-x5umaroa";
static const char full[] = "20260103T030405Z-full-x5umaroa";

struct place {
    char path[64];
    int fd;
};

static int set_up(void **state)
{
    struct place *p = calloc(1, sizeof *p);
    assert_non_null(p);
    (void)snprintf(p->path, sizeof p->path, "/tmp/drheld.XXXXXX");
    assert_non_null(mkdtemp(p->path));
    p->fd = open(p->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(p->fd >= 0);
    *state = p;
    return 0;
}

static int tear_down(void **state)
{
    struct place *p = *state;
    char name[128];
    for (char c = 'a'; c <= 'z'; c++) {
        (void)snprintf(name, sizeof name, "journal/%c%.15s.log", c, "aaaaaaaaaaaaaaa");
        (void)unlinkat(p->fd, name, 0);
    }
    (void)unlinkat(p->fd, "journal", AT_REMOVEDIR);
    (void)close(p->fd);
    assert_int_equal(rmdir(p->path), 0);
    free(p);
    return 0;
}

static void write_run(const struct place *p, char letter, const char *procedure, const char *order,
                      const char *chosen, bool closed)
{
    char run[JOURNAL_RUN_BYTES + 1];
    struct dr_err err = {0};
    struct journal *j = NULL;
    memset(run, 'a', JOURNAL_RUN_BYTES);
    run[0] = letter;
    run[JOURNAL_RUN_BYTES] = 0;
    assert_int_equal(journal_open(p->fd, run, true, &j, &err), DR_OK);
    if (procedure)
        assert_int_equal(
            journal_append(j, "run-open",
                           json_pack("{s:s,s:s}", "procedure", procedure, "backup", order), &err),
            DR_OK);
    if (chosen)
        assert_int_equal(journal_append(j, "step-intent",
                                        json_pack("{s:s,s:s,s:s}", "step", "quiesce", "backup",
                                                  chosen, "emergency", tree),
                                        &err),
                         DR_OK);
    if (closed)
        assert_int_equal(journal_append(j, "run-closed", NULL, &err), DR_OK);
    journal_free(j);
}

static unsigned names(const struct place *p)
{
    static const char *const all[] = {one, two, tree, config, full};
    struct dr_err err = {0};
    struct held h;
    unsigned found = 0;
    if (held_read(p->fd, &h, &err))
        fail_msg("%s", err.msg);
    for (unsigned i = 0; i < 5; i++)
        found |= held_names(&h, all[i]) ? 1u << i : 0;
    held_free(&h);
    return found;
}

enum { ONE = 1, TWO = 2, TREE = 4, CONFIG = 8, FULL = 16 };

static void test_nothing_is_open(void **state)
{
    const struct place *p = *state;
    assert_int_equal(names(p), 0); /* no folder yet */
    write_run(p, 'a', "database_recovery", one, two, true);
    assert_int_equal(names(p), 0);
    write_run(p, 'b', NULL, NULL, NULL, false); /* nothing written yet, nothing read */
    assert_int_equal(names(p), 0);
}

static void test_what_a_run_names(void **state)
{
    const struct place *p = *state;
    write_run(p, 'a', "database_recovery", one, NULL, false);
    assert_int_equal(names(p), ONE);
    write_run(p, 'b', "database_recovery", "latest", two, false);
    assert_int_equal(names(p), ONE | TWO | TREE); /* and the emergency backup */
}

static void test_a_run_that_has_not_chosen_may_need_any_of_its_kind(void **state)
{
    const struct place *p = *state;
    write_run(p, 'a', "database_recovery", "latest", NULL, false);
    assert_int_equal(names(p), ONE | TWO | FULL);
    write_run(p, 'b', "file_system_recovery", "latest", NULL, false);
    assert_int_equal(names(p), ONE | TWO | TREE | FULL);
}

static void test_a_procedure_we_do_not_know_may_need_all(void **state)
{
    const struct place *p = *state;
    write_run(p, 'a', "of_a_later_version", "latest", NULL, false);
    assert_int_equal(names(p), ONE | TWO | TREE | CONFIG | FULL);
}

static void test_a_broken_journal_is_an_error(void **state)
{
    const struct place *p = *state;
    struct dr_err err = {0};
    struct held h;
    write_run(p, 'a', "database_recovery", one, NULL, false);
    int fd = openat(p->fd, "journal/aaaaaaaaaaaaaaaa.log", O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "X", 1, 3), 1);
    assert_int_equal(lseek(fd, 0, SEEK_END) > 0, 1);
    assert_int_equal(write(fd, "{}\n", 3), 3);
    (void)close(fd);
    assert_int_equal(held_read(p->fd, &h, &err), DR_E_NEEDS_HUMAN);
    assert_non_null(strstr(err.msg, "which backup"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nothing_is_open, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_a_run_names, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_run_that_has_not_chosen_may_need_any_of_its_kind,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_procedure_we_do_not_know_may_need_all, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_broken_journal_is_an_error, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
