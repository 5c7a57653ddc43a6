/* Custom archives of pg_dump, built value by value. */
#ifndef DR_TESTS_DUMP_MAKER_H
#define DR_TESTS_DUMP_MAKER_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "common/buf.h"

static struct dr_buf made;

static inline void byte(unsigned b)
{
    unsigned char c = (unsigned char)b;
    dr_buf_add(&made, &c, 1);
}

static inline void number(int64_t v)
{
    uint32_t u = (uint32_t)(v < 0 ? -v : v);
    byte(v < 0);
    for (int i = 0; i < 4; i++, u >>= 8)
        byte(u & 255);
}

static inline void string(const char *s)
{
    number(s ? (int64_t)strlen(s) : -1);
    if (s)
        dr_buf_str(&made, s);
}

static inline void header(unsigned minor, int64_t entries)
{
    dr_buf_reset(&made);
    made.failed = false;
    dr_buf_str(&made, "PGDMP");
    byte(1);
    byte(minor);
    byte(0);
    byte(4);
    byte(8);
    byte(1);
    if (minor >= 15)
        byte(0);
    else
        number(0);
    for (int i = 0; i < 7; i++)
        number(i);
    string("shop");
    string("15.1");
    string("15.2");
    number(entries);
}

struct line { /* of the table of contents */
    int id;
    bool data;
    const char *desc, *schema, *tag, *defn, *copy;
    const char *dependency;
};

static inline void entry(unsigned minor, const struct line *l)
{
    number(l->id);
    number(l->data);
    string("0");
    string("0");
    string(l->tag);
    string(l->desc);
    number(3);
    string(l->defn);
    string("");
    string(l->copy);
    string(l->schema);
    string(NULL);
    string("heap");
    if (minor >= 16)
        number('r');
    string("owner");
    string("false");
    if (l->dependency)
        string(l->dependency);
    string(NULL);
    byte(1);
    for (int i = 0; i < 8; i++)
        byte(0);
}

static inline void data(int id, const char *rows)
{
    byte(1);
    number(id);
    if (*rows) {
        number((int64_t)strlen(rows));
        dr_buf_str(&made, rows);
    }
    number(0);
}

static inline void blob(int64_t oid, const char *content)
{
    number(oid);
    if (*content)
        string(content);
    number(0);
}

#endif
