/* worker/pipe/sha256_two: two at a time give what OpenSSL gives for each. */
#include "tests/unit/cm.h"

#include <string.h>

#include "common/str.h"
#include "worker/pipe/sha256_two.h"

enum { BLOCKS = 20 };

static void known_answer(void **state)
{
    static const uint32_t abc[8] = {0xba7816bf, 0x8f01cfea, 0x414140de, 0x5dae2223,
                                    0xb00361a3, 0x96177a9c, 0xb410ff61, 0xf20015ad};
    unsigned char block[SHA256_TWO_BLOCK] = {'a', 'b', 'c', 0x80};
    uint32_t a[8], b[8], alone[8];

    (void)state;
    dr_put_u64be(block + SHA256_TWO_BLOCK - 8, 24);
    sha256_two_init(a);
    sha256_two_init(b);
    sha256_two_init(alone);
    sha256_two_blocks(a, block, b, block, 1);
    sha256_two_alone(alone, block, 1);
    assert_memory_equal(a, abc, sizeof abc);
    assert_memory_equal(b, abc, sizeof abc);
    assert_memory_equal(alone, abc, sizeof abc);
}

/* Any number of blocks, at any address, from any state. */
static void as_each_alone(void **state)
{
    static unsigned char bytes[2 * BLOCKS * SHA256_TWO_BLOCK + 16];
    uint32_t x = 1;

    (void)state;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)((x = x * 1664525 + 1013904223) >> 24);
    for (size_t n = 0; n <= BLOCKS; n++)
        for (size_t off = 0; off < 16; off++) {
            const unsigned char *p = bytes + off, *q = p + n * SHA256_TWO_BLOCK;
            uint32_t a[8], b[8], c[8], d[8];
            sha256_two_init(a);
            memcpy(b, bytes + off, sizeof b);
            memcpy(c, a, sizeof c);
            memcpy(d, b, sizeof d);
            sha256_two_blocks(a, p, b, q, n);
            sha256_two_alone(c, p, n);
            sha256_two_alone(d, q, n);
            assert_memory_equal(a, c, sizeof a);
            assert_memory_equal(b, d, sizeof b);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(known_answer),
                                       cmocka_unit_test(as_each_alone)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
