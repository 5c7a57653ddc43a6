/* Calls of the embedded scripts: EVALSHA, and EVAL when the server has forgotten them. In a fiber
 * on the loop thread. */
#ifndef DR_WORKER_QUEUE_SCRIPT_H
#define DR_WORKER_QUEUE_SCRIPT_H

#include <stdint.h>

#include <hiredis/hiredis.h>

#include "common/err.h"
#include "common/keys.h"
#include "worker/queue/conn.h"

enum { SCRIPT_ARGS_MAX = 640, SCRIPT_KEYS = 40, SCRIPT_NUMBERS = 80 };

/* One call. Text is borrowed until the call returns; key names and numbers are kept inside. */
struct script_call {
    const char *name, *point; /* of the script; of its faults, where that is another */
    unsigned keys, args;
    const char *argv[SCRIPT_ARGS_MAX];
    size_t len[SCRIPT_ARGS_MAX];
    char key_text[SCRIPT_KEYS][DR_KEY_MAX];
    char number_text[SCRIPT_NUMBERS][24];
    unsigned key_texts, numbers;
    char key_count[12];
};

struct script_set; /* names and SHA-1 of all scripts */
struct script_set *script_set_new(void);
void script_set_free(struct script_set *s);

void script_begin(struct script_call *c, const char *name);
/* Keys first, then arguments. */
void script_key(struct script_call *c, const struct dr_keys *k, const char *kind, const char *name);
void script_key_text(struct script_call *c, const char *key); /* borrowed */
void script_arg(struct script_call *c, const char *text);
void script_bytes(struct script_call *c, const void *bytes, size_t len);
void script_number(struct script_call *c, int64_t n);

/* The reply is the caller's (freeReplyObject) and always a non-empty array. A connection that was
 * lost is UNREACHABLE: the outcome is unknown. An error reply is REDIS with its text. */
enum dr_rc script_run(struct script_call *c, const struct script_set *set, struct queue_conn *conn,
                      redisReply **out, struct dr_err *err) DR_MUST_CHECK;

/* Not waited for. whole: send the text (EVAL), since the server may not know the script. */
void script_post(struct script_call *c, const struct script_set *set, struct queue_conn *conn,
                 bool whole, queue_conn_cb *cb, void *arg);

const char *script_text(const redisReply *r, size_t i); /* element as text, "" when it is none */
int64_t script_integer(const redisReply *r,
                       size_t i); /* element as number, from text too; else 0 */

#endif
