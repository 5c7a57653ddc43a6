/* A walk that must succeed, by one thread and by several: both tell the same. */
#ifndef DR_TESTS_TREE_WALKED_H
#define DR_TESTS_TREE_WALKED_H

#include "tests/unit/pipe/tree_seen.h"

/* All that a walk told but the tar. */
static inline void told(struct dr_buf *b)
{
    char hex[65];
    dr_buf_init(b, 64 << 20);
    for (size_t i = 0; i < seen_count; i++) {
        const struct seen *s = &seen[i];
        dr_hex(s->f.sha256, s->f.has_sha256 ? 32 : 0, hex);
        dr_buf_printf(b, "%c %s %o %u:%u %lld %llu %s > %s\n", s->f.type, s->path, s->f.mode,
                      s->f.uid, s->f.gid, (long long)s->f.mtime_ns, (unsigned long long)s->f.size,
                      hex, s->target);
        dr_buf_add(b, s->xattrs.data, s->xattrs.len);
    }
    for (size_t i = 0; i < root_count; i++) {
        dr_buf_add(b, roots_seen[i].content, 32);
        dr_buf_add(b, roots_seen[i].meta, 32);
    }
    dr_buf_str(b, skips);
    dr_buf_add(b, &sums, sizeof sums);
    assert_false(b->failed);
}

/* A tree that holds still is walked by several threads as well, which tell the same. */
static inline void walked(void)
{
    bool twice = spec.tar == &sink && !meddle && !restless;
    struct dr_buf one, several;
    if (twice) {
        spec.tar = NULL;
        spec.threads = 2;
        if (walk())
            fail_msg("by several threads: %s", error.msg);
        told(&several);
        spec.tar = &sink;
        spec.threads = 0;
    }
    if (walk())
        fail_msg("%s", error.msg);
    if (twice) {
        told(&one);
        assert_int_equal(one.len, several.len);
        assert_memory_equal(one.data, several.data, one.len);
        dr_buf_fini(&one);
        dr_buf_fini(&several);
    }
}

#endif
