/* A look at RESP bytes before hiredis parses them: bounds nesting and the size of one reply.
 * Its parser recurses per level and believes every length it is told. */
#ifndef DR_WORKER_QUEUE_RESP_H
#define DR_WORKER_QUEUE_RESP_H

#include <stdbool.h>
#include <stddef.h>

enum { RESP_DEPTH_MAX = 7 }; /* what hiredis 0.14 can parse */

struct resp_guard {
    size_t skip; /* bytes of a bulk body still to come */
    unsigned depth;
    long long left[RESP_DEPTH_MAX + 1]; /* elements of each open array */
    char line[64];
    size_t line_len;
    size_t bytes, max_bytes; /* of the reply that is being read */
};

void resp_guard_init(struct resp_guard *g, size_t max_bytes);
/* False: hostile or broken; the connection is to be closed. Bytes may be cut anywhere. */
bool resp_guard_feed(struct resp_guard *g, const char *bytes, size_t len);

#endif
