/* The plain dump, in a file without a name and with the positions that pg_restore wants. One owner;
 * blocking, for pool threads. */
#ifndef DR_WORKER_RECOVERY_DB_DUMP_H
#define DR_WORKER_RECOVERY_DB_DUMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

struct db_dump;
enum dr_rc db_dump_new(const char *folder, struct db_dump **out, struct dr_err *err) DR_MUST_CHECK;
enum dr_rc db_dump_add(struct db_dump *d, const void *bytes, size_t len,
                       struct dr_err *err) DR_MUST_CHECK;
int db_dump_fd(const struct db_dump *d); /* borrowed */
uint64_t db_dump_bytes(const struct db_dump *d);
void db_dump_free(struct db_dump *d); /* NULL is allowed */
/* With twice as much to spare: what the database itself needs, should it lie on the same disk. */
bool db_dump_has_room(const char *folder, uint64_t bytes);

#endif
