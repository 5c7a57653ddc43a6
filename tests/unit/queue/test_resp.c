/* worker/queue/resp: what is refused before the parser sees it, however the bytes are cut. */
#include "tests/unit/cm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/queue/resp.h"

static bool feed(const char *bytes, size_t len, size_t piece, size_t max)
{
    struct resp_guard g;
    resp_guard_init(&g, max);
    for (size_t i = 0; i < len; i += piece)
        if (!resp_guard_feed(&g, bytes + i, len - i < piece ? len - i : piece))
            return false;
    return true;
}

static void good_replies_in_any_pieces(void **state)
{
    (void)state;
    static const char good[] =
        "+OK\r\n-ERR a long error text that goes on and on and on and on and "
        "on beyond sixty-four bytes\r\n:42\r\n$5\r\nhello\r\n$-1\r\n*0\r\n*-1\r\n"
        "*2\r\n$1\r\na\r\n*2\r\n:1\r\n$0\r\n\r\n$3\r\n\r\n*\r\n+again\r\n";
    for (size_t piece = 1; piece < sizeof good; piece++)
        assert_true(feed(good, sizeof good - 1, piece, 1024));
}

static void hostile_replies(void **state)
{
    (void)state;
    char *deep = malloc(4 * 1000 + 1);
    assert_non_null(deep);
    for (int i = 0; i < 1000; i++)
        memcpy(deep + 4 * i, "*1\r\n", 4);
    assert_false(feed(deep, 4000, 4000, 1 << 20));
    assert_false(feed(deep, 4000, 1, 1 << 20));
    free(deep);
    static const char *const bad[] = {"$99999999999\r\n", "*2147483647\r\n", "$-2\r\n",  "$x\r\n",
                                      "hello\r\n",        "%2\r\n",          "$1000\r\n"};
    for (size_t i = 0; i < CM_COUNT(bad); i++)
        assert_false(feed(bad[i], strlen(bad[i]), 1, 512) && strlen(bad[i]) > 0);
}

static void size_is_counted_per_reply(void **state)
{
    (void)state;
    char text[64];
    struct resp_guard g;
    resp_guard_init(&g, 100);
    for (int i = 0; i < 50; i++) {
        int n = snprintf(text, sizeof text, "$10\r\n0123456789\r\n");
        assert_true(resp_guard_feed(&g, text, (size_t)n));
    }
    assert_true(resp_guard_feed(&g, "*20\r\n", 5));
    bool ok = true;
    for (int i = 0; i < 20 && ok; i++)
        ok = resp_guard_feed(&g, "$10\r\n0123456789\r\n", 17);
    assert_false(ok);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(good_replies_in_any_pieces),
                                       cmocka_unit_test(hostile_replies),
                                       cmocka_unit_test(size_is_counted_per_reply)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
