/* worker/storage/sigv4 as a filter, for tests/integration/test_signer.py. A line is a request:
 *   METHOD HOST PATH SHA256|- ACCESS SECRET SESSION|- REGION SERVICE UNIX QUERIES HEADERS [N V]...
 * every word but SHA256, UNIX and the two counts in hex, - for empty; the pairs are queries, then
 * headers. Answers one line each: "TARGET AUTHORIZATION" in hex, or "refused KIND". */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/str.h"
#include "worker/storage/sigv4.h"

enum { WORDS_MAX = 12 + 4 * SIGV4_PAIRS_MAX, LINE_MAX_BYTES = 256 << 10 };

static char line[LINE_MAX_BYTES], texts[WORDS_MAX][SIGV4_PATH_MAX + 1];

static const char *unhex(const char *word, char *out)
{
    size_t len = strcmp(word, "-") == 0 ? 0 : strlen(word);
    if (len / 2 > SIGV4_PATH_MAX || !dr_unhex(word, len, out, len / 2))
        abort();
    out[len / 2] = 0;
    return out;
}

static void put_hex(const char *s)
{
    for (; *s; s++)
        printf("%02x", (unsigned char)*s);
}

static size_t split(char *words[WORDS_MAX])
{
    size_t n = 0;
    char *save = NULL;
    for (char *w = strtok_r(line, " \n", &save); w; w = strtok_r(NULL, " \n", &save)) {
        if (n == WORDS_MAX)
            abort();
        words[n++] = w;
    }
    return n;
}

static void secret(struct dr_secret *s, const char *bytes)
{
    dr_secret_set(s, bytes, strlen(bytes));
}

static void one(char *words[WORDS_MAX], size_t n)
{
    struct sigv4_pair pairs[2 * SIGV4_PAIRS_MAX];
    struct dr_secret access = {0}, secret_key = {0}, session = {0};
    struct sigv4_signed s;
    uint64_t queries, headers;
    int64_t now;
    unsigned char sum[32];
    if (n < 12 || !dr_parse_u64(words[10], 0, SIGV4_PAIRS_MAX, &queries) ||
        !dr_parse_u64(words[11], 0, SIGV4_PAIRS_MAX, &headers) ||
        !dr_parse_i64(words[9], INT64_MIN, INT64_MAX, &now) || n != 12 + 2 * (queries + headers))
        abort();
    for (size_t i = 0; i < n; i++)
        if (i != 3 && (i < 9 || i > 11))
            (void)unhex(words[i], texts[i]);
    for (size_t i = 0; i < queries + headers; i++)
        pairs[i] = (struct sigv4_pair){texts[12 + 2 * i], texts[13 + 2 * i]};
    if (strcmp(words[3], "-") != 0 && !dr_unhex(words[3], strlen(words[3]), sum, sizeof sum))
        abort();
    secret(&access, texts[4]);
    secret(&secret_key, texts[5]);
    secret(&session, texts[6]);
    struct sigv4_request r = {.method = texts[0],
                              .host = texts[1],
                              .path = texts[2],
                              .query = pairs,
                              .query_count = queries,
                              .headers = pairs + queries,
                              .header_count = headers,
                              .sha256 = strcmp(words[3], "-") != 0 ? sum : NULL};
    struct sigv4_key key = {&access, &secret_key, &session, texts[7], texts[8]};
    enum dr_rc rc = sigv4_sign(&r, &key, now, &s, NULL);
    if (rc) {
        printf("refused %s\n", dr_rc_name(rc));
    } else {
        put_hex(s.target);
        putchar(' ');
        put_hex(s.fields[s.field_count - 1] + strlen("Authorization: "));
        putchar('\n');
    }
    sigv4_signed_fini(&s);
    dr_secret_free(&access);
    dr_secret_free(&secret_key);
    dr_secret_free(&session);
}

int main(void)
{
    char *words[WORDS_MAX];
    while (fgets(line, sizeof line, stdin))
        one(words, split(words));
    return 0;
}
