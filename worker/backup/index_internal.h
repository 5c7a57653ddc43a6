/* What a record must be, the same for writer and reader. NULL: it is right, else what is wrong. */
#ifndef DR_WORKER_BACKUP_INDEX_INTERNAL_H
#define DR_WORKER_BACKUP_INDEX_INTERNAL_H

#include "worker/backup/index.h"

/* Letters that "end" counts, sorted; a letter's place in it. */
extern const char index_letters[];
enum { INDEX_LETTERS = 9 };
int index_letter(char type); /* -1: none */

struct dr_pull;
struct index_lists { /* of the record just read; kept for the next one */
    void *entries, *settings;
    size_t entries_cap, settings_cap;
};
enum dr_rc index_room(void **p, size_t *cap, size_t need, struct dr_err *err) DR_MUST_CHECK;
size_t index_field_count(enum index_type type); /* with its letter; 0: no such record */
/* The fields behind the letter; wrong: a rule they break. p->bad: they are no such fields. */
enum dr_rc index_pull(struct index_lists *l, struct dr_pull *p, struct index_record *rec,
                      const char **wrong, struct dr_err *err) DR_MUST_CHECK;

const char *index_why(const unsigned char *text, size_t len); /* static text; NULL: no such */
const char *index_check_stream(struct pipe_bytes name);
const char *index_check_chunk(const struct index_chunk *c);
const char *index_check_file(const struct pipe_file *f);
const char *index_check_path(struct pipe_bytes path);
const char *index_check_skip(const struct pipe_skip *x);
const char *index_check_table(const struct pipe_table *t);

#endif
