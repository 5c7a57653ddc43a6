/* Kills work at its n-th system call that changes something on disk: the work runs in a child
 * under a tracer. */
#ifndef DR_TESTS_STORE_KILLER_H
#define DR_TESTS_STORE_KILLER_H

#include "tests/unit/backup/store_made.h"

#include <errno.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static inline bool kill_counts(unsigned long long nr, unsigned long long flags)
{
    switch (nr) {
    case SYS_openat:
        return flags & (O_CREAT | O_TRUNC);
    case SYS_write:
    case SYS_pwrite64:
    case SYS_fsync:
    case SYS_ftruncate:
    case SYS_mkdirat:
    case SYS_unlinkat:
    case SYS_renameat:
#ifdef SYS_renameat2
    case SYS_renameat2:
#endif
        return true;
    default:
        return false;
    }
}

/* Lets the stopped child run up to its n-th change and kills it there. false: it came through. */
static inline bool kill_at(pid_t pid, unsigned n)
{
    struct __ptrace_syscall_info info;
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSTOPPED(status));
    assert_int_equal(
        ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL), 0);
    for (;;) {
        assert_int_equal(ptrace(PTRACE_SYSCALL, pid, NULL, NULL), 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (WIFEXITED(status)) {
            assert_int_equal(WEXITSTATUS(status), 0);
            return false;
        }
        assert_true(WIFSTOPPED(status));
        if (WSTOPSIG(status) != (SIGTRAP | 0x80))
            continue;
        if (ptrace(PTRACE_GET_SYSCALL_INFO, pid, (void *)sizeof info, &info) <= 0)
            fail_msg("no system call information: %s", strerror(errno));
        if (info.op == PTRACE_SYSCALL_INFO_ENTRY &&
            kill_counts(info.entry.nr, info.entry.args[2]) && n-- == 1) {
            assert_int_equal(kill(pid, SIGKILL), 0);
            assert_int_equal(waitpid(pid, &status, 0), pid);
            return true;
        }
    }
}

/* s: opened by the parent, since the derivation of its keys is most of the time; or NULL. */
typedef enum dr_rc kill_work(const char *path, struct store *s, struct dr_err *err);

static inline bool killed_at(const char *path, struct store *s, kill_work *work, unsigned n)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct dr_err err = {0};
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0 || raise(SIGSTOP) != 0)
            _exit(9);
        _exit(work(path, s, &err) ? 8 : 0);
    }
    return kill_at(pid, n);
}

#endif
