/* SHA-256 of two messages side by side. A processor's SHA instructions wait for each other within
 * one message and are idle half of the time: two messages take as long as one (1.8 -> 3.5 GB/s; two
 * rows of 120 bytes and a key 180 -> 118 ns). OpenSSL has no call for that, so these are our own 60
 * lines; all else, and processors without them, is OpenSSL's. Raw states and whole blocks: padding
 * is the caller's. Owns nothing; any thread; cannot fail. */
#ifndef DR_WORKER_PIPE_SHA256_TWO_H
#define DR_WORKER_PIPE_SHA256_TWO_H

#include <stddef.h>
#include <stdint.h>

enum { SHA256_TWO_BLOCK = 64 };

void sha256_two_init(uint32_t h[8]);
/* Each state takes the same number of blocks of 64 bytes. */
void sha256_two_blocks(uint32_t a[8], const unsigned char *from_a, uint32_t b[8],
                       const unsigned char *from_b, size_t blocks);
/* One state alone, by OpenSSL. */
void sha256_two_alone(uint32_t h[8], const unsigned char *from, size_t blocks);

#endif
