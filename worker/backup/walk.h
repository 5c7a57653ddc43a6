/* The index of an opened backup as one stream of records, and the chunk references of the object
 * whose turn it is. Private to worker/backup. Blocking; one owner, one thread at a time. */
#ifndef DR_WORKER_BACKUP_WALK_H
#define DR_WORKER_BACKUP_WALK_H

#include "common/err.h"
#include "worker/backup/container.h"
#include "worker/backup/handle.h"
#include "worker/backup/index.h"

typedef enum dr_rc walk_fn(void *arg, const char *object, const struct index_record *rec,
                           struct dr_err *err);

struct walk {
    struct backup_handle *handle;
    struct container *container; /* index.drb */
    struct container_reader *reader;
    struct pipe_source source;
    struct index_reader *index;
    const char *roles[MANIFEST_OBJECTS_MAX + 1]; /* the streams it expects */
    struct index_record rec;                     /* the one at hand */
    bool end;                                    /* no more: the index is whole */
    walk_fn *record; /* sees what is neither stream nor chunk; may be NULL */
    void *arg;
    bool damaged;            /* an error was met in index.drb itself, and names it */
    const char *object;      /* whose records these are */
    struct container **list; /* of the object that is open: its own container first */
    unsigned count, own;     /* own: its number in the manifest */
};

/* whole: index.drb's payload hash is wanted too. */
enum dr_rc walk_open(struct walk *w, struct backup_handle *h, bool whole, struct cancel *cancel,
                     struct dr_err *err) DR_MUST_CHECK;
void walk_close(struct walk *w);                                        /* a zeroed one too */
enum dr_rc walk_step(struct walk *w, struct dr_err *err) DR_MUST_CHECK; /* to the next record */
/* To the next "s" record that names the stream; NOT_FOUND when there is none. */
enum dr_rc walk_seek(struct walk *w, const char *stream, struct dr_err *err) DR_MUST_CHECK;
/* Opens the containers that the object's chunks may lie in. walk_next_ref, with the walk as its
 * argument, is then `next` of a reader over w->list. */
enum dr_rc walk_object_open(struct walk *w, unsigned object, struct dr_err *err) DR_MUST_CHECK;
void walk_object_close(struct walk *w);
enum dr_rc walk_next_ref(void *walk, struct container_ref *out, bool *end, struct dr_err *err);

#endif
