/* The swap by entries: there and back from every state a crash can leave, carried paths, mounts. */
#include "tests/unit/cm.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "common/buf.h"
#include "worker/recovery/swap_internal.h"

#define RUN  "abcdefghijklmnop"
#define OURS ".dr-" RUN

static char base[64], root[80];
static const char *roots[3];
static struct swap *swap;
static struct dr_err err;
static char sha[65];
static int dirfd_base = -1;

static void run_shell(const char *command)
{
    if (system(command) != 0)
        fail_msg("%s", command);
}

#define SH(...)                                                                                    \
    do {                                                                                           \
        char command_[1024];                                                                       \
        (void)snprintf(command_, sizeof command_, __VA_ARGS__);                                    \
        run_shell(command_);                                                                       \
    } while (0)

static void who(const char *path, const char *value)
{
    assert_int_equal(setxattr(path, "user.who", value, strlen(value), 0), 0);
}

/* Name, type, mode, size, mtime, inode and link target of everything but ours; not the root's. */
static char *snapshot(const char *path)
{
    char command[1024];
    struct dr_buf b;
    dr_buf_init(&b, 1 << 20);
    (void)snprintf(command, sizeof command,
                   "cd %s && { stat -c '%%a %%u %%g %%y' . && find . "
                   "-mindepth 1 \\( -path './.dr-*' -prune -o -printf '%%p %%y %%m %%s %%T@ %%i "
                   "%%l\\n' \\); } | LC_ALL=C sort",
                   path);
    char value[16] = {0};
    ssize_t got = getxattr(path, "user.who", value, sizeof value - 1);
    dr_buf_printf(&b, "who=%s\n", got > 0 ? value : "-");
    FILE *f = popen(command, "r");
    assert_non_null(f);
    for (int c; (c = fgetc(f)) != EOF;)
        dr_buf_add(&b, &(char){(char)c}, 1);
    assert_int_equal(pclose(f), 0);
    return dr_buf_take(&b);
}

static void ok(enum dr_rc rc)
{
    if (rc)
        fail_msg("%s: %s (%s)", dr_rc_name(rc), err.msg, err.value);
}

static int setup(void **state)
{
    (void)state;
    (void)snprintf(base, sizeof base, "/tmp/dr-swap-XXXXXX");
    assert_non_null(mkdtemp(base));
    (void)snprintf(root, sizeof root, "%s/root", base);
    roots[0] = root;
    roots[1] = roots[2] = NULL;
    dirfd_base = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    err = (struct dr_err){0};
    SH("mkdir %s && cd %s && mkdir same gone gone/deep locked && echo old > same/file && echo old "
       "> "
       "gone/deep/file && echo old > both && ln -s nowhere link && chmod 555 locked && touch -d "
       "@1000000.5 . same && chmod 750 .",
       root, root);
    who(root, "old");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    swap_close(swap);
    swap = NULL;
    (void)close(dirfd_base);
    SH("chmod -R u+rwx %s; rm -rf %s", base, base);
    return 0;
}

static enum dr_rc open_swap(void)
{
    struct swap_spec spec = {.roots = roots, .run = RUN, .create = true};
    return swap_open(&spec, &swap, &err);
}

static void stage(void)
{
    char staged[128];
    int fd;
    ok(open_swap());
    ok(swap_stage(swap, 0, NULL, &fd, &err));
    SH("cd %s/" OURS
       "/new && mkdir same fresh locked && echo new > same/file && echo new > both && "
       "ln -s elsewhere link && chmod 500 locked && mkdir fresh/in && touch -d @2000000.25 . && "
       "chmod 755 .",
       root);
    (void)snprintf(staged, sizeof staged, "%s/" OURS "/new", root);
    who(staged, "new");
}

static void plan(void)
{
    ok(swap_check(swap, &err));
    ok(swap_list_staged(swap, &err));
    ok(swap_plan(swap, false, &err));
}

static void reopen(void)
{
    swap_close(swap);
    swap = NULL;
    ok(swap_load(dirfd_base, "plan", sha, RUN, &swap, &err));
}

static enum swap_state observe(void)
{
    enum swap_state s = SWAP_MIXED;
    ok(swap_observe(swap, &s, &err));
    return s;
}

/* ---- there and back ---- */

static void the_new_tree_comes_in_and_the_old_one_back(void **state)
{
    char *before, *after, *now;
    (void)state;
    before = snapshot(root);
    stage();
    char staged[128];
    (void)snprintf(staged, sizeof staged, "%s/" OURS "/new", root);
    after = snapshot(staged);
    now = snapshot(root);
    assert_string_equal(before, now); /* staging leaves no trace, not even in the root's times */
    free(now);
    plan();
    assert_int_equal(observe(), SWAP_BEFORE);
    ok(swap_save(swap, dirfd_base, "plan", sha, &err));
    ok(swap_run(swap, &err));
    assert_int_equal(observe(), SWAP_AFTER);
    now = snapshot(root);
    assert_string_equal(after, now);
    free(now);
    ok(swap_undo(swap, false, &err));
    assert_int_equal(observe(), SWAP_BEFORE);
    now = snapshot(root);
    assert_string_equal(before, now);
    free(now);
    ok(swap_discard(swap, NULL, &err));
    SH("test ! -e %s/" OURS " && test -e %s/.dr-lock", root, root);
    free(before);
    free(after);
}

/* A user's folder is made writable for its move; killed then, it stays so. */
static void put(const char *from, const char *to)
{
    struct stat st;
    if (geteuid() != 0 && lstat(from, &st) == 0 && S_ISDIR(st.st_mode))
        assert_int_equal(chmod(from, 0755), 0);
    assert_int_equal(rename(from, to), 0);
}

static const char *const names[] = {"both", "fresh", "gone", "link", "locked", "same"};
enum { NAMES = 6, FRESH = 1, GONE = 2 };

static void trade(const char *a, const char *b)
{
    struct stat st;
    if (geteuid() != 0 && lstat(a, &st) == 0 && S_ISDIR(st.st_mode)) {
        assert_int_equal(chmod(a, 0755), 0); /* killed while both were writable */
        assert_int_equal(chmod(b, 0755), 0);
    }
    assert_int_equal(renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE), 0);
}

/* As the swap begins: attributes kept aside; `before` is the staged tree, or a folder of its own.
 */
static void begin(bool exchanging)
{
    char old[128], new[128];
    SH("cd %s/" OURS " && chmod u+w new && mkdir meta-old meta-new", root);
    (void)snprintf(old, sizeof old, "%s/" OURS "/meta-old", root);
    (void)snprintf(new, sizeof new, "%s/" OURS "/meta-new", root);
    who(old, "old");
    who(new, "new");
    if (exchanging)
        SH("cd %s/" OURS " && mv new before", root);
    else
        SH("mkdir %s/" OURS "/before", root);
}

/* How far one pair came: 0 not at all, 1 the old entry moved away, 2 the new one in, too. */
static void move_pair(unsigned i, unsigned how, bool exchanging)
{
    char home[256], away[256], fresh[256];
    (void)snprintf(home, sizeof home, "%s/%s", root, names[i]);
    (void)snprintf(away, sizeof away, "%s/" OURS "/before/%s", root, names[i]);
    (void)snprintf(fresh, sizeof fresh, "%s/" OURS "/%s/%s", root, exchanging ? "before" : "new",
                   names[i]);
    if (exchanging && i != FRESH && i != GONE) {
        if (how == 2)
            trade(home, away);
        return;
    }
    if (how >= 1 && i != FRESH)
        put(home, away);
    if (how == 2 && i != GONE)
        put(fresh, home);
}

/* One pass over the folders and a stat a name see the same. */
static void looks_agree(void)
{
    struct swap_look *all;
    ok(swap_look_all(swap, &all, &err));
    assert_true(swap->pair_count >= NAMES);
    for (size_t i = 0; i < swap->pair_count; i++) {
        struct swap_look one = swap_look_at(swap, &swap->pairs[i]);
        assert_true(all[i].home == one.home && all[i].before == one.before);
        if (all[i].home == swap->pairs[i].new_ino)
            continue;
        assert_true(all[i].fresh == one.fresh && all[i].failed == one.failed);
    }
    free(all);
}

/* Some state of a killed swap, seen by a successor that knows the plan only. */
static void undo_from(const unsigned how[NAMES], bool exchanging, int expected)
{
    char *before = snapshot(root), *now;
    stage();
    plan();
    ok(swap_save(swap, dirfd_base, "plan", sha, &err));
    begin(exchanging);
    for (unsigned i = 0; i < NAMES; i++)
        move_pair(i, how[i], exchanging);
    reopen();
    looks_agree();
    enum swap_state state = observe();
    if (expected >= 0 && (int)state != expected)
        fail_msg("state %d of %u%u%u%u%u%u, %d", state, how[0], how[1], how[2], how[3], how[4],
                 how[5], exchanging);
    ok(swap_undo(swap, false, &err));
    if (observe() != SWAP_BEFORE)
        fail_msg("undone from %u%u%u%u%u%u, %d", how[0], how[1], how[2], how[3], how[4], how[5],
                 exchanging);
    ok(swap_undo(swap, false, &err));   /* twice is once */
    SH("touch -d @1000000.5 %s", root); /* our own moves above changed it */
    now = snapshot(root);
    assert_string_equal(before, now);
    free(now);
    free(before);
    ok(swap_discard(swap, NULL, &err));
    SH("test ! -e %s/" OURS, root);
    swap_close(swap);
    swap = NULL;
}

static void a_crash_at_any_rename_is_undone(void **state)
{
    (void)state;
    for (unsigned exchanging = 0; exchanging < 2; exchanging++)
        for (unsigned n = 0; n <= 2 * NAMES; n++) {
            unsigned how[NAMES];
            for (unsigned i = 0; i < NAMES; i++)
                how[i] = n >= 2 * i + 2 ? 2 : n > 2 * i ? 1 : 0;
            undo_from(how, exchanging, n == 0 ? SWAP_BEFORE : n == 2 * NAMES ? SWAP_AFTER : -1);
        }
}

/* Power loss over several file systems: each pair for itself may be anywhere. */
static void any_mixture_is_undone(void **state)
{
    (void)state;
    for (unsigned seed = 0; seed < 729; seed += 11) {
        unsigned how[NAMES], x = seed;
        for (unsigned i = 0; i < NAMES; i++, x /= 3)
            how[i] = x % 3;
        undo_from(how, seed % 2, -1);
    }
}

/* A taker finds all renames done and nothing else. */
static void the_rest_of_a_swap_can_be_done_by_others(void **state)
{
    static const unsigned all[NAMES] = {2, 2, 2, 2, 2, 2};
    char staged[128], *after, *now;
    (void)state;
    stage();
    (void)snprintf(staged, sizeof staged, "%s/" OURS "/new", root);
    after = snapshot(staged);
    plan();
    ok(swap_save(swap, dirfd_base, "plan", sha, &err));
    begin(true);
    for (unsigned i = 0; i < NAMES; i++)
        move_pair(i, all[i], true);
    reopen();
    assert_int_equal(observe(), SWAP_AFTER);
    ok(swap_finish(swap, &err));
    ok(swap_discard(swap, NULL, &err));
    if (geteuid() == 0) { /* else our own moves left modes */
        now = snapshot(root);
        assert_string_equal(after, now);
        free(now);
    }
    SH("cd %s/" OURS " && test \"$(ls)\" = before && grep -q old before/same/file", root);
    free(after);
}

static void what_was_live_in_between_is_kept(void **state)
{
    char *before = snapshot(root), *now;
    (void)state;
    stage();
    plan();
    ok(swap_save(swap, dirfd_base, "plan", sha, &err));
    ok(swap_run(swap, &err));
    ok(swap_discard(swap, NULL, &err));
    /* a service replaces, removes and makes entries; the root's times change */
    SH("cd %s && echo later > tmp && mv tmp both && rm -r fresh && mkdir made && echo x > made/x",
       root);
    reopen();
    assert_int_equal(observe(), SWAP_AFTER);
    ok(swap_undo(swap, true, &err));
    now = snapshot(root);
    assert_string_equal(before, now);
    SH("cd %s/" OURS "/failed && grep -q later both && test -f made/x && grep -q new same/file",
       root);
    ok(swap_discard(swap, NULL, &err));
    SH("test -d %s/" OURS "/failed && test ! -e %s/" OURS "/before", root, root);
    free(now);
    free(before);
}

static void carried_paths_move_over_and_back(void **state)
{
    char *before, *now;
    (void)state;
    SH("cd %s && mkdir same/cache cachedir && echo hot > same/cache/x && touch -d @5 same && touch "
       "-d "
       "@1000000.5 .",
       root);
    before = snapshot(root);
    stage();
    plan();
    ok(swap_carry(swap, 0, "same/cache", 10, &err));
    ok(swap_carry(swap, 0, "cachedir", 8, &err));
    ok(swap_carry(swap, 0, "same/missing", 12, &err));
    ok(swap_carry(swap, 0, "same/file", 9, &err)); /* the backup has it */
    ok(swap_carry(swap, 0, "gone/deep", 9, &err)); /* no folder for it in the new tree */
    assert_int_equal(swap_carried(swap), 2);
    ok(swap_save(swap, dirfd_base, "plan", sha, &err));
    ok(swap_run(swap, &err));
    SH("cd %s && grep -q hot same/cache/x && grep -q new same/file && test -d cachedir && test ! "
       "-e "
       "%s/" OURS "/before/cachedir",
       root, root);
    reopen();
    assert_int_equal(observe(), SWAP_AFTER);
    ok(swap_undo(swap, false, &err));
    now = snapshot(root);
    assert_string_equal(before, now);
    free(now);
    free(before);
}

static void a_changed_entry_stops_the_swap(void **state)
{
    (void)state;
    stage();
    plan();
    SH("cd %s && echo other > tmp && mv tmp same2 && rm -r same && mv same2 same ", root);
    assert_int_equal(swap_run(swap, &err), DR_E_IO);
    assert_non_null(strstr(err.msg, "changed while"));
    err = (struct dr_err){0};
    ok(swap_undo(swap, false, &err));
    SH("grep -q other %s/same && grep -q old %s/both", root, root);
}

static void a_missing_root_is_made_and_removed(void **state)
{
    (void)state;
    (void)snprintf(root, sizeof root, "%s/deep/er/root", base);
    int fd;
    ok(open_swap());
    assert_true(swap_created(swap, 0));
    ok(swap_stage(swap, 0, NULL, &fd, &err));
    SH("echo new > %s/" OURS "/new/file", root);
    plan();
    ok(swap_save(swap, dirfd_base, "plan", sha, &err));
    ok(swap_run(swap, &err));
    SH("grep -q new %s/file", root);
    reopen();
    ok(swap_undo(swap, false, &err));
    ok(swap_discard(swap, NULL, &err));
    SH("test ! -e %s && test -d %s", root, base);
}

static void several_roots_are_locked_and_swapped_together(void **state)
{
    static char second[80];
    struct swap *other = NULL;
    int fd;
    (void)state;
    (void)snprintf(second, sizeof second, "%s/second", base);
    SH("mkdir %s && echo old > %s/a", second, second);
    roots[1] = second;
    stage();
    ok(swap_stage(swap, 1, NULL, &fd, &err));
    const char *only[] = {second, NULL};
    struct swap_spec spec = {.roots = only, .run = "ponmlkjihgfedcba"};
    assert_int_equal(swap_open(&spec, &other, &err), DR_E_LOCKED);
    assert_non_null(strstr(err.msg, second));
    err = (struct dr_err){0};
    plan();
    ok(swap_run(swap, &err));
    SH("test ! -e %s/a && grep -q new %s/both", second, root);
    ok(swap_undo(swap, false, &err));
    SH("grep -q old %s/a && grep -q old %s/both", second, root);
    const char *unsorted[] = {second, root, NULL};
    spec.roots = unsorted;
    swap_close(swap);
    swap = NULL;
    assert_int_equal(swap_open(&spec, &other, &err), DR_E_INVALID);
}

static void an_old_tree_is_never_thrown_away(void **state)
{
    int fd;
    (void)state;
    stage();
    plan();
    ok(swap_run(swap, &err));
    ok(swap_discard(swap, NULL, &err));
    assert_int_equal(swap_stage(swap, 0, NULL, &fd, &err), DR_E_NEEDS_HUMAN);
    SH("grep -q old %s/" OURS "/before/both", root);
}

static void an_altered_plan_is_refused(void **state)
{
    char wrong[65];
    (void)state;
    stage();
    plan();
    ok(swap_save(swap, dirfd_base, "plan", sha, &err));
    swap_close(swap);
    swap = NULL;
    memcpy(wrong, sha, sizeof wrong);
    wrong[0] = wrong[0] == '0' ? '1' : '0';
    assert_int_equal(swap_load(dirfd_base, "plan", wrong, RUN, &swap, &err), DR_E_INTEGRITY);
    SH("sed -i 's/^end [0-9]*/end 3/' %s/plan", base);
    err = (struct dr_err){0};
    assert_int_equal(swap_load(dirfd_base, "plan", sha, RUN, &swap, &err), DR_E_INTEGRITY);
}

/* ---- mounts ---- */

static int in_own_mounts(void (*fn)(void))
{
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
            _exit(100);
        fn();
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void demand(int number, int what)
{
    if (!what) {
        (void)fprintf(stderr, "mounts: %d: %s\n", number, err.msg);
        _exit(number);
    }
}

static void mounts_in_a_child(void)
{
    char direct[128], deep[128], other[128];
    struct stat st;
    int fd;
    (void)snprintf(direct, sizeof direct, "%s/mnt", root);
    (void)snprintf(deep, sizeof deep, "%s/same/mnt", root);
    (void)snprintf(other, sizeof other, "%s/other", base);
    demand(1, mkdir(direct, 0755) == 0 && mkdir(deep, 0755) == 0 && mkdir(other, 0755) == 0);
    demand(2, mount(root, root, NULL, MS_BIND, NULL) == 0); /* the root itself is a bind mount */
    demand(3, mount(other, direct, NULL, MS_BIND, NULL) == 0);
    struct swap_spec spec = {.roots = roots, .run = RUN};
    demand(4, swap_open(&spec, &swap, &err) == DR_OK);
    demand(5, swap_stage(swap, 0, NULL, &fd, &err) == DR_OK);
    demand(6, mkdirat(fd, "same", 0755) == 0);
    demand(20, mkdirat(fd, "mnt", 0755) == 0);
    demand(21, swap_check(swap, &err) == DR_E_PREFLIGHT && strstr(err.msg, "is mounted now"));
    demand(22, unlinkat(fd, "mnt", AT_REMOVEDIR) == 0);
    err = (struct dr_err){0};
    demand(7, swap_check(swap, &err) == DR_OK);
    demand(8, swap_plan(swap, false, &err) == DR_OK);
    demand(9, swap_run(swap, &err) == DR_OK);
    demand(10, fstatat(fd, "../before/mnt", &st, 0) != 0); /* it stayed in place */
    demand(11, stat(direct, &st) == 0 && mkdirat(AT_FDCWD, other, 0755) != 0);
    demand(12, swap_undo(swap, true, &err) == DR_OK);
    demand(13, stat(direct, &st) == 0 && fstatat(fd, "../failed/mnt", &st, 0) != 0);
    demand(17, mount(other, deep, NULL, MS_BIND, NULL) == 0);
    demand(18, swap_check(swap, &err) == DR_E_PREFLIGHT && strstr(err.msg, deep));
}

static void mounts_stay_or_are_refused(void **state)
{
    (void)state;
    if (geteuid() != 0) {
        print_message("not run: needs root\n");
        return;
    }
    assert_int_equal(in_own_mounts(mounts_in_a_child), 0);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(the_new_tree_comes_in_and_the_old_one_back),
        T(a_crash_at_any_rename_is_undone),
        T(any_mixture_is_undone),
        T(the_rest_of_a_swap_can_be_done_by_others),
        T(what_was_live_in_between_is_kept),
        T(carried_paths_move_over_and_back),
        T(a_changed_entry_stops_the_swap),
        T(a_missing_root_is_made_and_removed),
        T(several_roots_are_locked_and_swapped_together),
        T(an_old_tree_is_never_thrown_away),
        T(an_altered_plan_is_refused),
        T(mounts_stay_or_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
