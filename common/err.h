/* Errors as data: the first error wins, is filled where it happens, gets context on its way up,
 * and is logged once, where the job or request ends. Any thread; a struct dr_err has one owner. */
#ifndef DR_COMMON_ERR_H
#define DR_COMMON_ERR_H

#include <stdbool.h>
#include <stdarg.h>

enum dr_rc {
    DR_OK = 0,
#define DR_ERR(name, number, class, exit, text) DR_E_##name = (number),
#include "common/err_codes.def"
#undef DR_ERR
};

enum dr_err_class {
    DR_CLASS_NONE,
    DR_CLASS_RETRY,
    DR_CLASS_PERMANENT,
    DR_CLASS_CANCELLED,
    DR_CLASS_BUG
};

struct dr_err {
    enum dr_rc rc; /* DR_OK: no error recorded yet */
    int detail;    /* errno, exit status, or 0 */
    int line;      /* origin */
    const char *file;
    char reason[32]; /* machine-readable sub-class (wire reason, integrity class), or "" */
    char field[64];  /* name of the offending field, or "" */
    char value[96];  /* its value, printable and cut, or "" */
    char msg[512];
};

#define DR_MUST_CHECK   __attribute__((warn_unused_result))
#define DR_PRINTF(f, a) __attribute__((format(printf, f, a)))

/* Records rc and message unless err already holds an error; returns the recorded kind, so that
 * `return dr_fail(err, DR_E_IO, "...")` is one line. err may be NULL. errno is kept. */
#define dr_fail(err, rc, ...) dr_err_set((err), (rc), __FILE__, __LINE__, __VA_ARGS__)
/* As dr_fail, with ": <strerror(errno)>" appended and detail = errno; ENOSPC, EDQUOT -> NO_SPACE.
 */
#define dr_fail_errno(err, rc, ...) dr_err_set_errno((err), (rc), __FILE__, __LINE__, __VA_ARGS__)

enum dr_rc dr_err_set(struct dr_err *err, enum dr_rc rc, const char *file, int line,
                      const char *fmt, ...) DR_PRINTF(5, 6);
enum dr_rc dr_err_set_errno(struct dr_err *err, enum dr_rc rc, const char *file, int line,
                            const char *fmt, ...) DR_PRINTF(5, 6);
/* Puts "context: " before the message; returns err->rc. */
enum dr_rc dr_wrap(struct dr_err *err, const char *fmt, ...) DR_PRINTF(2, 3);
/* Names the sub-class of an error that was just recorded; returns err->rc. */
enum dr_rc dr_err_reason(struct dr_err *err, const char *reason);
/* Names field and value (any bytes: made printable, cut) of an error; returns err->rc. */
enum dr_rc dr_err_field(struct dr_err *err, const char *field, const void *value,
                        unsigned long len);
void dr_err_clear(struct dr_err *err);

const char *dr_rc_name(enum dr_rc rc); /* "integrity"; "ok"; "unknown" */
enum dr_err_class dr_rc_class(enum dr_rc rc);
const char *dr_rc_class_name(enum dr_rc rc); /* "retry", "permanent", "cancelled", "bug", "none" */
int dr_rc_exit(enum dr_rc rc);               /* exit code of both programs */

#endif
