/* Row digests. One SHA-256 a row is nearly all there is to do here, millions of times. Short rows
 * are padded here and hashed two at a time (sha256_two.h), and the words of the state are the
 * numbers to add: a row of 120 bytes costs 75 ns, newline and sum included; one at a time with
 * OpenSSL's low-level functions 107 ns, through EVP (context used again) the hash alone 175 ns
 * (OpenSSL 3.0, 2 million rows). Owns nothing; any thread. */
#define OPENSSL_SUPPRESS_DEPRECATED 1
#include "worker/pipe/digest.h"

#include <assert.h>
#include <string.h>

#include <openssl/sha.h>

#include "common/mem.h"
#include "common/str.h"
#include "worker/pipe/sha256_two.h"

enum { KEY = 32, BLOCK = SHA256_TWO_BLOCK, SHORT_MAX = 960, TAIL = 9 }; /* tail: 0x80, length */

static_assert(KEY + SHORT_MAX + TAIL + BLOCK - 1 <= DIGEST_ROWS_PADDED, "room for a short row");
static_assert(sizeof(SHA256_CTX) <= sizeof((struct digest_rows *)0)->partial, "room for the state");

static SHA256_CTX *state_of(struct digest_rows *d)
{
    return (SHA256_CTX *)(void *)d->partial;
}

static void add(struct digest_rows *d, uint64_t high, uint64_t low)
{
    d->sum[1] += low;
    d->sum[0] += high + (d->sum[1] < low);
    d->rows++;
}

/* key || row || padding as whole blocks: the state after them is the hash. */
static size_t pad(unsigned char *m, const unsigned char *row, size_t len)
{
    size_t used = KEY + len, blocks = (used + TAIL + BLOCK - 1) / BLOCK, end = blocks * BLOCK;

    memcpy(m + KEY, row, len);
    memset(m + used, 0, end - used);
    m[used] = 0x80;
    dr_put_u64be(m + end - 8, (uint64_t)used * 8);
    return blocks;
}

static void add_state(struct digest_rows *d, const uint32_t h[8])
{
    add(d, (uint64_t)h[0] << 32 | h[1], (uint64_t)h[2] << 32 | h[3]);
}

/* The row that waits, alone. */
static void add_waiting(struct digest_rows *d)
{
    uint32_t h[8];

    sha256_two_init(h);
    sha256_two_alone(h, d->padded[0], d->waiting);
    add_state(d, h);
    d->waiting = 0;
}

static void add_short(struct digest_rows *d, const unsigned char *row, size_t len)
{
    size_t a = d->waiting, b = pad(d->padded[a ? 1 : 0], row, len), both = a < b ? a : b;
    uint32_t h[2][8];

    if (!a) {
        d->waiting = b;
        return;
    }
    sha256_two_init(h[0]);
    sha256_two_init(h[1]);
    sha256_two_blocks(h[0], d->padded[0], h[1], d->padded[1], both);
    if (a != b)
        sha256_two_alone(h[a > b ? 0 : 1], d->padded[a > b ? 0 : 1] + both * BLOCK,
                         a > b ? a - b : b - a);
    add_state(d, h[0]);
    add_state(d, h[1]);
    d->waiting = 0;
}

static void add_final(struct digest_rows *d, SHA256_CTX *c)
{
    unsigned char hash[SHA256_DIGEST_LENGTH];

    SHA256_Final(hash, c);
    add(d, dr_get_u64be(hash), dr_get_u64be(hash + 8));
}

void digest_rows_init(struct digest_rows *d, const unsigned char key[32])
{
    memset(d, 0, sizeof *d);
    memcpy(d->padded[0], key, KEY);
    memcpy(d->padded[1], key, KEY);
}

void digest_rows_fini(struct digest_rows *d)
{
    dr_wipe(d, sizeof *d); /* the hash state holds the key too */
}

void digest_rows_open(struct digest_rows *d)
{
    SHA256_Init(state_of(d));
    SHA256_Update(state_of(d), d->padded[0], KEY);
    d->partial_len = 0;
    d->open = true;
}

void digest_rows_part(struct digest_rows *d, const void *bytes, size_t len)
{
    const unsigned char *p = bytes;

    for (size_t i = 0; i < len && d->partial_len + i < sizeof d->head; i++)
        d->head[d->partial_len + i] = p[i];
    SHA256_Update(state_of(d), bytes, len);
    d->partial_len += len;
}

void digest_rows_close(struct digest_rows *d)
{
    add_final(d, state_of(d));
    d->open = false;
}

static bool is_end(const unsigned char *row, uint64_t len)
{
    return len == 2 && row[0] == '\\' && row[1] == '.';
}

/* A whole row in one piece. */
static void whole_row(struct digest_rows *d, const unsigned char *row, size_t len)
{
    if (is_end(row, len)) {
        d->ended = true;
    } else if (len <= SHORT_MAX) {
        add_short(d, row, len);
    } else {
        digest_rows_open(d);
        digest_rows_part(d, row, len);
        digest_rows_close(d);
    }
}

void digest_rows_feed(struct digest_rows *d, const void *bytes, size_t len)
{
    const unsigned char *p = bytes, *end = p + len;

    while (p < end && !d->ended) {
        const unsigned char *nl = memchr(p, '\n', (size_t)(end - p));
        if (nl && !d->open) {
            whole_row(d, p, (size_t)(nl - p));
        } else {
            if (!d->open)
                digest_rows_open(d);
            digest_rows_part(d, p, (size_t)((nl ? nl : end) - p));
            if (!nl)
                return;
            if (is_end(d->head, d->partial_len)) {
                d->ended = true;
                d->open = false;
            } else {
                digest_rows_close(d);
            }
        }
        p = nl + 1;
    }
}

bool digest_rows_ended(const struct digest_rows *d)
{
    return d->ended;
}

void digest_rows_sums(const struct digest_rows *d, uint64_t *rows, unsigned char digest[16])
{
    struct digest_rows copy = *d;

    if (copy.open && !is_end(copy.head, copy.partial_len))
        digest_rows_close(&copy);
    if (copy.waiting)
        add_waiting(&copy);
    *rows = copy.rows;
    dr_put_u64be(digest, copy.sum[0]);
    dr_put_u64be(digest + 8, copy.sum[1]);
    digest_rows_fini(&copy);
}
