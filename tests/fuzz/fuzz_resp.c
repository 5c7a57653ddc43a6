/* fuzz: drqueue. What the guard lets through, hiredis parses without harm, however it is cut. */
#include <stdint.h>
#include <stdlib.h>

#include <hiredis/hiredis.h>

#include "worker/queue/resp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct resp_guard guard;
    redisReader *reader = redisReaderCreate();
    size_t piece = size ? 1 + data[0] % 64u : 1;
    void *reply = NULL;
    resp_guard_init(&guard, 1 << 16);
    for (size_t i = 1; i < size; i += piece) {
        size_t n = size - i < piece ? size - i : piece;
        if (!resp_guard_feed(&guard, (const char *)data + i, n) ||
            redisReaderFeed(reader, (const char *)data + i, n) != REDIS_OK)
            break;
        while (redisReaderGetReply(reader, &reply) == REDIS_OK && reply)
            freeReplyObject(reply);
    }
    redisReaderFree(reader);
    return 0;
}
