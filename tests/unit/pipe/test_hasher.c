/* The same sum as of the whole, however it is cut, stream after stream. */
#include "tests/unit/cm.h"

#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "worker/pipe/hasher.h"

enum { PIECES = 4, WHOLE = 4 << 20 };

static void test_cuts(void **state)
{
    static const size_t cuts[][PIECES] = {
        {0},
        {1, HASHER_BESIDE - 1},
        {HASHER_BESIDE},
        {HASHER_BESIDE, 3, HASHER_BESIDE + 1, 1 << 20},
        {1 << 20, 1 << 20, 1 << 20, 7},
    };
    unsigned char *whole = dr_xalloc(WHOLE), *piece = dr_xalloc(1 << 20);
    struct hasher *h = NULL;
    (void)state;
    for (size_t i = 0; i < WHOLE; i++)
        whole[i] = (unsigned char)(i * 31 + i / 257);
    assert_int_equal(hasher_new(&h, NULL), DR_OK);
    for (size_t c = 0; c < CM_COUNT(cuts); c++) {
        unsigned char got[HASHER_BYTES], want[HASHER_BYTES];
        size_t at = 0;
        assert_int_equal(hasher_begin(h, NULL), DR_OK);
        for (size_t i = 0; i < PIECES; at += cuts[c][i++]) {
            memcpy(piece, whole + at, cuts[c][i]);
            assert_int_equal(hasher_add(h, piece, cuts[c][i], NULL), DR_OK);
            assert_int_equal(hasher_wait(h, NULL), DR_OK);
            memset(piece, 0, cuts[c][i]); /* it is the caller's again */
        }
        assert_int_equal(hasher_end(h, got, NULL), DR_OK);
        (void)SHA256(whole, at, want);
        assert_memory_equal(got, want, sizeof got);
    }
    hasher_free(h);
    free(piece);
    free(whole);
}

/* An extraction that fails gives up in the middle. */
static void test_given_up(void **state)
{
    struct hasher *h = NULL;
    unsigned char *piece = dr_xalloc(HASHER_BESIDE);
    (void)state;
    assert_int_equal(hasher_new(&h, NULL), DR_OK);
    assert_int_equal(hasher_begin(h, NULL), DR_OK);
    assert_int_equal(hasher_add(h, piece, HASHER_BESIDE, NULL), DR_OK);
    hasher_free(h);
    free(piece);
    hasher_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
