/* Hashes of Redis as people and programs read them. */
#ifndef DR_PRODUCER_SHOW_H
#define DR_PRODUCER_SHOW_H

#include <hiredis/hiredis.h>

#include "producer/cmd.h"

/* HGETALL of a key; the reply is the caller's. */
enum dr_rc show_read(struct cmd *c, const char *kind, const char *name, redisReply **out,
                     struct dr_err *err) DR_MUST_CHECK;
const char *show_field(const redisReply *r, const char *name); /* "" when it is not there */
/* One JSON object: id under its name, then every field, results and errors unpacked. */
void show_json(struct dr_buf *b, const char *id_name, const char *id, const redisReply *r);

#endif
