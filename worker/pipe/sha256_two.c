/* Two SHA-256 streams, interleaved by the compiler from one loop over both; where the processor has
 * no SHA instructions, OpenSSL takes one after the other. The order of the words in the registers
 * (ABEF, CDGH) is that of the instructions: Intel, "SHA Extensions", 2013. */
#define OPENSSL_SUPPRESS_DEPRECATED 1
#include "worker/pipe/sha256_two.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#include <openssl/sha.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool has; /* the instructions; written once */

void sha256_two_init(uint32_t h[8])
{
    static const uint32_t begin[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(h, begin, sizeof begin);
}

void sha256_two_alone(uint32_t h[8], const unsigned char *from, size_t blocks)
{
    SHA256_CTX c;
    SHA256_Init(&c);
    memcpy(c.h, h, sizeof c.h);
    SHA256_Update(&c, from, blocks * SHA256_TWO_BLOCK); /* nothing is left over */
    memcpy(h, c.h, sizeof c.h);
}

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

enum { TWO = 2, WORDS = 4, QUADS = 16 };
#define SHA_CODE __attribute__((target("sha,sse4.1,ssse3")))

static const uint32_t k[64] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

struct lane {
    __m128i abef, cdgh;
    __m128i m[WORDS]; /* the last 16 words of the schedule */
};

SHA_CODE static void lane_load(struct lane *l, const uint32_t h[8])
{
    __m128i cdab = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(const void *)h), 0xb1);
    __m128i efgh = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(const void *)(h + 4)), 0x1b);
    l->abef = _mm_alignr_epi8(cdab, efgh, 8);
    l->cdgh = _mm_blend_epi16(efgh, cdab, 0xf0);
}

SHA_CODE static void lane_store(const struct lane *l, uint32_t h[8])
{
    __m128i feba = _mm_shuffle_epi32(l->abef, 0x1b), dchg = _mm_shuffle_epi32(l->cdgh, 0xb1);
    _mm_storeu_si128((__m128i *)(void *)h, _mm_blend_epi16(feba, dchg, 0xf0));
    _mm_storeu_si128((__m128i *)(void *)(h + 4), _mm_alignr_epi8(dchg, feba, 8));
}

/* Four rounds; from the fifth four on the words come from those before. */
SHA_CODE static inline void four(struct lane *l, unsigned quad)
{
    __m128i *w = &l->m[quad % WORDS], *before = &l->m[(quad + 3) % WORDS];
    if (quad >= WORDS) {
        __m128i x = _mm_sha256msg1_epu32(*w, l->m[(quad + 1) % WORDS]);
        x = _mm_add_epi32(x, _mm_alignr_epi8(*before, l->m[(quad + 2) % WORDS], 4));
        *w = _mm_sha256msg2_epu32(x, *before);
    }
    __m128i wk = _mm_add_epi32(*w, _mm_load_si128((const __m128i *)(const void *)(k + 4 * quad)));
    l->cdgh = _mm_sha256rnds2_epu32(l->cdgh, l->abef, wk);
    l->abef = _mm_sha256rnds2_epu32(l->abef, l->cdgh, _mm_shuffle_epi32(wk, 0x0e));
}

SHA_CODE static void by_instructions(uint32_t *const h[TWO], const unsigned char *const from[TWO],
                                     size_t blocks)
{
    const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    struct lane l[TWO];
    for (unsigned i = 0; i < TWO; i++)
        lane_load(&l[i], h[i]);
    for (size_t at = 0; at < blocks * SHA256_TWO_BLOCK; at += SHA256_TWO_BLOCK) {
        __m128i abef[TWO], cdgh[TWO];
        for (unsigned i = 0; i < TWO; i++) {
            const __m128i *p = (const __m128i *)(const void *)(from[i] + at);
            abef[i] = l[i].abef;
            cdgh[i] = l[i].cdgh;
            for (unsigned n = 0; n < WORDS; n++)
                l[i].m[n] = _mm_shuffle_epi8(_mm_loadu_si128(p + n), big_endian);
        }
#pragma GCC unroll 16
        for (unsigned quad = 0; quad < QUADS; quad++) {
            four(&l[0], quad);
            four(&l[1], quad);
        }
        for (unsigned i = 0; i < TWO; i++) {
            l[i].abef = _mm_add_epi32(l[i].abef, abef[i]);
            l[i].cdgh = _mm_add_epi32(l[i].cdgh, cdgh[i]);
        }
    }
    for (unsigned i = 0; i < TWO; i++)
        lane_store(&l[i], h[i]);
}

static void look(void)
{
    unsigned a, b, c, d;
    bool vectors = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_SSSE3) && (c & bit_SSE4_1);
    has = vectors && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_SHA);
}
#else
static void by_instructions(uint32_t *const h[2], const unsigned char *const from[2], size_t blocks)
{
    (void)h, (void)from, (void)blocks;
}

static void look(void)
{
}
#endif

void sha256_two_blocks(uint32_t a[8], const unsigned char *from_a, uint32_t b[8],
                       const unsigned char *from_b, size_t blocks)
{
    (void)pthread_once(&once, look);
    if (has) {
        by_instructions((uint32_t *const[]){a, b}, (const unsigned char *const[]){from_a, from_b},
                        blocks);
    } else {
        sha256_two_alone(a, from_a, blocks);
        sha256_two_alone(b, from_b, blocks);
    }
}
