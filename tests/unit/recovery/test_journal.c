/* worker/recovery/journal: chain, torn ends, lock, what counts as open. */
#include "tests/unit/cm.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/recovery/journal.h"

static const char run[] = "abcdefghijklmn27";
static char folder[64];
static int dirfd;

static int setup(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof folder, "/tmp/dr-journal-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    dirfd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return dirfd < 0 ? -1 : 0;
}

static int teardown(void **state)
{
    char path[128];
    (void)state;
    (void)snprintf(path, sizeof path, "journal/%s.log", run);
    (void)unlinkat(dirfd, path, 0);
    (void)unlinkat(dirfd, "journal", AT_REMOVEDIR);
    (void)close(dirfd);
    return rmdir(folder);
}

static struct journal *must_open(bool create)
{
    struct dr_err err = {0};
    struct journal *j = NULL;
    if (journal_open(dirfd, run, create, &j, &err))
        fail_msg("%s", err.msg);
    return j;
}

static void append(struct journal *j, const char *type, const char *step)
{
    struct dr_err err = {0};
    assert_int_equal(journal_append(j, type, json_pack("{s:s}", "step", step), &err), DR_OK);
}

static void write_two(void)
{
    struct journal *j = must_open(true);
    append(j, "run-open", "");
    append(j, "step-intent", "quiesce");
    journal_free(j);
}

static int log_file(int flags)
{
    char path[128];
    (void)snprintf(path, sizeof path, "journal/%s.log", run);
    return openat(dirfd, path, flags | O_CLOEXEC);
}

static void add_bytes(const char *bytes, size_t len)
{
    int fd = log_file(O_WRONLY | O_APPEND);
    assert_int_equal(write(fd, bytes, len), len);
    (void)close(fd);
}

static void what_was_written_is_read_again(void **state)
{
    (void)state;
    write_two();
    struct journal *j = must_open(false);
    assert_int_equal(journal_count(j), 2);
    assert_string_equal(journal_at(j, 1)->type, "step-intent");
    assert_int_equal(journal_at(j, 1)->seq, 2);
    assert_non_null(journal_last(j, "step-intent", "quiesce"));
    assert_null(journal_last(j, "step-intent", "swap"));
    assert_null(journal_last(j, "step-done", NULL));
    assert_false(journal_is_closed(j));
    append(j, "run-closed", "");
    assert_true(journal_is_closed(j));
    journal_free(j);
    j = must_open(false);
    assert_int_equal(journal_count(j), 3);
    assert_true(journal_is_closed(j));
    journal_free(j);
}

static void a_torn_last_line_is_cut_off(void **state)
{
    static const char *const torn[] = {"{\"seq\":3,\"prev\":\"", "\n", "not json\n", "{}"};
    (void)state;
    write_two();
    for (size_t i = 0; i < CM_COUNT(torn); i++) {
        add_bytes(torn[i], strlen(torn[i]));
        struct journal *j = must_open(false);
        assert_int_equal(journal_count(j), 2);
        journal_free(j);
    }
    char zeros[100] = {0};
    zeros[99] = '\n';
    add_bytes(zeros, sizeof zeros);
    struct journal *j = must_open(false);
    append(j, "step-done", "quiesce");
    journal_free(j);
    j = must_open(false);
    assert_int_equal(journal_count(j), 3);
    journal_free(j);
}

static void a_changed_byte_needs_a_human(void **state)
{
    struct dr_err err = {0};
    struct journal *j = NULL;
    char text[4096];
    (void)state;
    write_two();
    int fd = log_file(O_RDWR);
    ssize_t n = read(fd, text, sizeof text - 1);
    text[n > 0 ? n : 0] = 0;
    char *at = strstr(text, "run-open");
    assert_non_null(at);
    assert_int_equal(pwrite(fd, "R", 1, at - text), 1);
    (void)close(fd);
    assert_int_equal(journal_open(dirfd, run, false, &j, &err), DR_E_NEEDS_HUMAN);
    assert_non_null(strstr(err.msg, run));
}

static void a_line_that_does_not_follow_needs_a_human(void **state)
{
    struct dr_err err = {0};
    struct journal *j = NULL;
    (void)state;
    write_two();
    add_bytes("{}\n", 3);
    assert_int_equal(journal_open(dirfd, run, false, &j, &err), DR_E_NEEDS_HUMAN);
}

static void one_holds_it_at_a_time(void **state)
{
    struct dr_err err = {0};
    struct journal *j = must_open(true), *other = NULL;
    (void)state;
    assert_int_equal(journal_open(dirfd, run, true, &other, &err), DR_E_LOCKED);
    journal_free(j);
    journal_free(must_open(false));
}

static void the_list_names_open_ones_only(void **state)
{
    struct dr_err err = {0};
    char **runs = NULL;
    (void)state;
    assert_int_equal(journal_list_open(dirfd, &runs, &err), DR_OK);
    assert_null(runs[0]);
    journal_list_free(runs);
    write_two();
    assert_int_equal(journal_list_open(dirfd, &runs, &err), DR_OK);
    assert_string_equal(runs[0], run);
    assert_null(runs[1]);
    journal_list_free(runs);
    struct journal *j = must_open(false);
    append(j, "run-closed", "");
    journal_free(j);
    assert_int_equal(journal_list_open(dirfd, &runs, &err), DR_OK);
    assert_null(runs[0]);
    journal_list_free(runs);
    add_bytes("{\"torn", 6); /* whoever has the lock will cut it: open as far as one sees */
    assert_int_equal(journal_list_open(dirfd, &runs, &err), DR_OK);
    assert_non_null(runs[0]);
    journal_list_free(runs);
}

/* What is written about leftovers opens nothing; who begins the run again does. */
static void leftovers_leave_it_closed(void **state)
{
    struct dr_err err = {0};
    char **runs = NULL;
    (void)state;
    write_two();
    struct journal *j = must_open(false);
    append(j, "leftover-gone", "x");
    assert_false(journal_is_closed(j));
    append(j, "run-closed", "");
    int64_t closed = journal_closed_ms(j);
    assert_true(journal_is_closed(j) && closed > 0);
    assert_false(journal_says(j, "leftover-gone", "db"));
    assert_int_equal(journal_append(j, "leftover-drop", json_pack("{s:s}", "what", "db"), &err),
                     DR_OK);
    journal_free(j);
    j = must_open(false);
    assert_true(journal_is_closed(j));
    assert_int_equal(journal_closed_ms(j), closed);
    assert_true(journal_says(j, "leftover-drop", "db"));
    assert_false(journal_says(j, "leftover-drop", "other"));
    assert_false(journal_says(j, "leftover-gone", "db"));
    assert_int_equal(journal_list_open(dirfd, &runs, &err), DR_OK);
    assert_null(runs[0]);
    journal_list_free(runs);
    assert_int_equal(journal_list_all(dirfd, &runs, &err), DR_OK);
    assert_string_equal(runs[0], run);
    journal_list_free(runs);
    append(j, "run-open", "");
    assert_false(journal_is_closed(j));
    assert_int_equal(journal_closed_ms(j), 0);
    assert_int_equal(journal_remove(j, dirfd, &err), DR_OK);
    journal_free(j);
    assert_int_equal(journal_open(dirfd, run, false, &j, &err), DR_E_NOT_FOUND);
}

static void names_are_not_paths(void **state)
{
    static const char *const bad[] = {"", "../../../../etc/p", "abcdefghijklmn2",
                                      "ABCDEFGHIJKLMN27", "abcdefghijklmn/7"};
    (void)state;
    for (size_t i = 0; i < CM_COUNT(bad); i++) {
        struct dr_err err = {0};
        struct journal *j = NULL;
        assert_int_equal(journal_open(dirfd, bad[i], true, &j, &err), DR_E_INVALID);
    }
    struct dr_err err = {0};
    struct journal *j = NULL;
    assert_int_equal(journal_open(dirfd, run, false, &j, &err), DR_E_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_was_written_is_read_again, setup, teardown),
        cmocka_unit_test_setup_teardown(a_torn_last_line_is_cut_off, setup, teardown),
        cmocka_unit_test_setup_teardown(a_changed_byte_needs_a_human, setup, teardown),
        cmocka_unit_test_setup_teardown(a_line_that_does_not_follow_needs_a_human, setup, teardown),
        cmocka_unit_test_setup_teardown(one_holds_it_at_a_time, setup, teardown),
        cmocka_unit_test_setup_teardown(the_list_names_open_ones_only, setup, teardown),
        cmocka_unit_test_setup_teardown(leftovers_leave_it_closed, setup, teardown),
        cmocka_unit_test_setup_teardown(names_are_not_paths, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
