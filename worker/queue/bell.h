/* Doorbells: a wait that ends when a message comes. In a fiber on the loop thread. */
#ifndef DR_WORKER_QUEUE_BELL_H
#define DR_WORKER_QUEUE_BELL_H

#include <stdint.h>

#include "common/err.h"

struct queue;

/* The doorbell of one lane: returns when the lane may hold a message or after wait_ms. */
struct queue_bell;
struct queue_bell *queue_bell_new(struct queue *q, const char *lane, struct dr_err *err);
void queue_bell_free(struct queue_bell *b);
void queue_bell_wait(struct queue_bell *b, int64_t wait_ms);
void queue_bell_stop(struct queue_bell *b); /* a wait returns at once */

#endif
