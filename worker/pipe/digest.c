/* Row digests. One SHA-256 a row is nearly all there is to do here, millions of times. The
 * low-level functions of OpenSSL are deprecated; with them a row of 120 bytes costs 107 ns, newline
 * and sum included, through EVP (context used again) the hash alone 175 ns (OpenSSL 3.0, 2 million
 * rows). A short row is padded here: one call on whole blocks, and the words of the state are the
 * numbers to add. Owns nothing; any thread. */
#define OPENSSL_SUPPRESS_DEPRECATED 1
#include "worker/pipe/digest.h"

#include <assert.h>
#include <string.h>

#include <openssl/sha.h>

#include "common/mem.h"
#include "common/str.h"

enum { KEY = 32, BLOCK = 64, SHORT_MAX = 960, TAIL = 9 }; /* tail: 0x80 and the length */

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
static void add_short(struct digest_rows *d, const unsigned char *row, size_t len)
{
    unsigned char m[KEY + SHORT_MAX + TAIL + BLOCK];
    size_t used = KEY + len, whole = (used + TAIL + BLOCK - 1) / BLOCK * BLOCK;
    SHA256_CTX c;

    memcpy(m, d->key, KEY);
    memcpy(m + KEY, row, len);
    memset(m + used, 0, whole - used);
    m[used] = 0x80;
    dr_put_u64be(m + whole - 8, (uint64_t)used * 8);
    SHA256_Init(&c);
    SHA256_Update(&c, m, whole);
    add(d, (uint64_t)c.h[0] << 32 | c.h[1], (uint64_t)c.h[2] << 32 | c.h[3]);
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
    memcpy(d->key, key, KEY);
}

void digest_rows_fini(struct digest_rows *d)
{
    dr_wipe(d, sizeof *d); /* the hash state holds the key too */
}

void digest_rows_open(struct digest_rows *d)
{
    SHA256_Init(state_of(d));
    SHA256_Update(state_of(d), d->key, KEY);
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
    *rows = copy.rows;
    dr_put_u64be(digest, copy.sum[0]);
    dr_put_u64be(digest + 8, copy.sum[1]);
    digest_rows_fini(&copy);
}
