/* Backups made, and stores proven, in tests. */
#ifndef DR_TESTS_STORE_MADE_H
#define DR_TESTS_STORE_MADE_H

#include "tests/unit/backup/store_kit.h"

#include "worker/backup/create.h"
#include "worker/backup/handle.h"
#include "worker/backup/prove.h"

/* A small backup of kind files, made and proven as the task does it. No assertion: for children. */
static inline enum dr_rc kit_publish(struct store *s, const char *job, const char *class,
                                     int64_t t_start_ms, unsigned ticket, bool *adopted,
                                     struct dr_err *err)
{
    char run[NAMES_RUN_SIZE], digits[16];
    struct container_writer *w = NULL;
    struct create *c = NULL;
    const struct create_spec spec = {.store = s,
                                     .kind = "files",
                                     .class = class,
                                     .job_id = job,
                                     .series = "files:default",
                                     .run = run,
                                     .ticket = digits,
                                     .t_start_ms = t_start_ms,
                                     .objects = 1,
                                     .level = 1};
    names_run("dr", job, run);
    (void)snprintf(digits, sizeof digits, "%u", ticket + 1000);
    enum dr_rc rc = create_new(&spec, &c, err);
    if (!rc)
        rc = create_object_begin(c, "files", NULL, NULL, &w, err);
    if (!rc)
        rc = container_write(w, "plain bytes", 11, err);
    if (!rc)
        rc = create_object_end(c, err);
    if (!rc)
        rc = create_seal(c, err);
    if (!rc)
        rc = create_read_back(c, NULL, NULL, err);
    if (!rc)
        rc = create_publish(c, adopted, err);
    create_free(c);
    return rc;
}

/* Every backup proven, every one recorded, nothing behind the head. */
static inline void kit_check_open(struct store *s, size_t backups)
{
    struct dr_err err = {0};
    struct store_entry *list = NULL;
    unsigned unrecorded = 0;
    size_t count = 0;
    if (store_audit(s, &unrecorded, &err) || store_list(s, &list, &count, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(unrecorded, 0);
    assert_int_equal(count, backups);
    for (size_t i = 0; i < count; i++) {
        const struct prove_options o = {0};
        struct prove_sums sums;
        struct backup_handle *h = NULL;
        if (handle_open(s, list[i].backup_id, &h, &err) || prove_backup(h, &o, &sums, &err) ||
            handle_recorded(h, &err))
            fail_msg("%s", err.msg);
        handle_close(h);
    }
    free(list);
}

static inline void kit_check(const char *path, size_t backups)
{
    struct store *s = kit_open(path, STORE_READ);
    kit_check_open(s, backups);
    store_close(s);
}

#endif
