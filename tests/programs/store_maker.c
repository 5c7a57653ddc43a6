/* Small backups of chosen times in the store of BACKUP_DIRECTORY, for tests that cannot wait years:
 * one a line of standard input, `TIME CLASS JOB [proven|damaged]`, made and recorded as the task
 * does it; proven and damaged add the record of a later proof. Prints their ids. */
#include <stdio.h>
#include <string.h>

#include "common/str.h"
#include "worker/backup/container.h"
#include "worker/backup/create.h"
#include "worker/backup/names.h"

static enum dr_rc publish(struct store *s, const struct create_spec *spec, struct dr_err *err)
{
    struct container_writer *w = NULL;
    struct create *c = NULL;
    bool adopted;
    enum dr_rc rc = create_new(spec, &c, err);
    if (!rc)
        rc = create_object_begin(c, "files", NULL, NULL, &w, err);
    if (!rc)
        rc = container_write(w, spec->job_id, strlen(spec->job_id), err);
    if (!rc)
        rc = create_object_end(c, err);
    if (!rc)
        rc = create_seal(c, err);
    if (!rc)
        rc = create_read_back(c, NULL, NULL, err);
    if (!rc)
        rc = create_publish(c, &adopted, err);
    create_free(c);
    (void)s;
    return rc;
}

static enum dr_rc make(struct store *s, const char *at, const char *class, const char *job,
                       const char *proof, struct dr_err *err)
{
    char run[NAMES_RUN_SIZE], id[NAMES_ID_SIZE];
    struct create_spec spec = {.store = s,
                               .kind = "files",
                               .class = class,
                               .job_id = job,
                               .series = "files:default",
                               .run = run,
                               .ticket = "1",
                               .objects = 1,
                               .level = 1};
    if (!dr_parse_time(at, &spec.t_start_ms))
        return dr_fail(err, DR_E_USAGE, "not a time: %s", at);
    names_run("dr", job, run);
    names_backup_id(spec.t_start_ms, spec.kind, job, id);
    enum dr_rc rc = publish(s, &spec, err);
    if (!rc && proof[0])
        rc = store_append(s, "verified", id,
                          strcmp(proof, "damaged") == 0 ? "{\"bytes\":1,\"ok\":false}"
                                                        : "{\"bytes\":1,\"ok\":true}",
                          err);
    if (!rc)
        (void)printf("%s\n", id);
    return rc;
}

int main(void)
{
    struct dr_config *config = NULL;
    struct store *store = NULL;
    struct dr_err err = {0};
    char line[256], at[40], class[16], job[65], proof[16];
    enum dr_rc rc = dr_config_load(NULL, &config, &err);
    if (!rc)
        rc = store_open(config, STORE_WORK, &store, &err);
    while (!rc && fgets(line, sizeof line, stdin)) {
        proof[0] = 0;
        rc = sscanf(line, "%39s %15s %64s %15s", at, class, job, proof) < 3
                 ? dr_fail(&err, DR_E_USAGE, "not TIME CLASS JOB: %s", line)
                 : make(store, at, class, job, proof, &err);
    }
    if (rc)
        (void)fprintf(stderr, "%s\n", err.msg);
    store_close(store);
    dr_config_free(config);
    return rc ? dr_rc_exit(rc) : 0;
}
