/* The catalog read again for records of one type. Blocking. */
#include <string.h>

#include "worker/backup/store_internal.h"

struct filter {
    const char *type;
    catalog_fn *fn;
    void *arg;
};

static enum dr_rc pass_on(void *arg, const struct catalog_record *r, struct dr_err *err)
{
    const struct filter *f = arg;
    return strcmp(r->type, f->type) == 0 ? f->fn(f->arg, r, err) : DR_OK;
}

enum dr_rc store_each_record(struct store *s, const char *type, catalog_fn *fn, void *arg,
                             struct dr_err *err)
{
    static const unsigned char zeros[32];
    struct filter f = {type, fn, arg};
    struct catalog_head head;
    (void)pthread_mutex_lock(&s->mutex);
    enum dr_rc rc = store_refresh(s, err);
    head = s->head;
    (void)pthread_mutex_unlock(&s->mutex);
    const struct catalog_log log = catalog_log(s->dirfd);
    return rc ? rc : catalog_replay(&log, &head, 1, zeros, pass_on, &f, NULL, err);
}
