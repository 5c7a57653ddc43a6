/* What the files of the engine share. Loop thread. */
#ifndef DR_WORKER_STORAGE_ENGINE_INTERNAL_H
#define DR_WORKER_STORAGE_ENGINE_INTERNAL_H

#include "worker/storage/engine.h"

struct engine {
    struct engine_options o;
    struct storage_route route;
    struct engine_numbers numbers;
    unsigned budget;
};

/* The call with its repeats. An error that is no answer of the store has class PERMANENT, or
 * TRANSIENT where it may pass; err tells which. out is to be ended always. */
enum dr_rc engine_call(struct engine *e, struct storage_call *c, const void *payload, void *into,
                       struct cancel *cancel, struct storage_answer *out, enum storage_class *class,
                       struct dr_err *err) DR_MUST_CHECK;
struct storage_call engine_prepare(struct engine *e, enum storage_op op, const char *key);
unsigned engine_at_once(const struct engine *e, uint64_t piece);
/* One try, without repeats. */
enum storage_class engine_exchange(struct engine *e, struct storage_call *c, const void *payload,
                                   void *into, struct cancel *cancel, struct storage_answer *out,
                                   struct dr_err *err);

#endif
