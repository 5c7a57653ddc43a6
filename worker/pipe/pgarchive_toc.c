/* Header and table of contents of a custom archive: numbers and strings in any cuts. A table says
 * of each place what stands there; a value that is whole is handed to took_raw, _byte, _int or
 * _string, which also say where to go on. Owns nothing. Source: what pg_dump 15, 16 and 17 write
 * (archive 1.14, 1.15, 1.16). */
#include "worker/pipe/pgarchive_internal.h"

#include <string.h>

#include "common/str.h"

enum { INT_BYTES = 5, BLOCK_DATA = 1, FORMAT_CUSTOM = 1, TIMES = 7 };

enum type { RAW, BYTE, INT, STRING };

static const struct {
    enum type type;
    size_t keep; /* bytes of the string that are kept; more: cut */
} places[] = {
    [MAGIC] = {RAW, 0},
    [MAJOR] = {BYTE, 0},
    [MINOR] = {BYTE, 0},
    [REVISION] = {BYTE, 0},
    [INT_SIZE] = {BYTE, 0},
    [OFFSET_SIZE] = {BYTE, 0},
    [FORMAT] = {BYTE, 0},
    [COMPRESSION_LEVEL] = {INT, 0},
    [COMPRESSION_KIND] = {BYTE, 0},
    [TIME] = {INT, 0},
    [DBNAME] = {STRING, 63},
    [SERVER] = {STRING, 63},
    [TOOL] = {STRING, 63},
    [ENTRIES] = {INT, 0},
    [DUMP_ID] = {INT, 0},
    [HAS_DATA] = {INT, 0},
    [TABLE_OID] = {STRING, 0},
    [OID] = {STRING, 0},
    [TAG] = {STRING, PGARCHIVE_NAME_KEEP},
    [DESC] = {STRING, 64},
    [SECTION] = {INT, 0},
    [DEFN] = {STRING, 4096},
    [DROP] = {STRING, 0},
    [COPY] = {STRING, PGARCHIVE_COPY_MAX},
    [SCHEMA] = {STRING, PGARCHIVE_NAME_KEEP},
    [TABLESPACE] = {STRING, 0},
    [ACCESS_METHOD] = {STRING, 0},
    [RELKIND] = {INT, 0},
    [OWNER] = {STRING, 0},
    [WITH_OIDS] = {STRING, 0},
    [DEPENDENCY] = {STRING, 11},
    [OFFSET] = {RAW, 0},
    [BLOCK] = {BYTE, 0},
    [BLOCK_ID] = {INT, 0},
    [PIECE] = {INT, 0},
    [BLOB_OID] = {INT, 0},
    [BLOB_PIECE] = {INT, 0},
    [IGNORED] = {RAW, 0},
};

static const char magic[] = "PGDMP";

static void took_raw(struct pgarchive *a)
{
    if (a->at == MAGIC) {
        if (memcmp(a->small, magic, PGARCHIVE_MAGIC_LEN))
            pgarchive_wrong(a, "does not begin with %s", magic);
        a->at = MAJOR;
        return;
    }
    /* OFFSET: flag and position say nothing to a reader of the whole; the entry ends here */
    a->entry.at = a->value_at;
    const char *why = pgarchive_items_add(&a->items, &a->entry);
    if (why) {
        pgarchive_unknown(a, "%s", why);
    } else if (--a->entries > 0) {
        a->at = DUMP_ID;
    } else {
        a->at = BLOCK;
        why = pgarchive_items_seal(&a->items);
        if (why)
            pgarchive_wrong(a, "%s", why);
    }
}

static void took_byte(struct pgarchive *a, unsigned b)
{
    switch (a->at) {
    case MAJOR:
        a->info.major = b;
        break;
    case MINOR:
        a->info.minor = b;
        if (a->info.major != 1 || b < 14 || b > 16) {
            pgarchive_unknown(a, "archive version %u.%u is not known here", a->info.major, b);
            return;
        }
        break;
    case INT_SIZE:
        if (b != 4) {
            pgarchive_unknown(a, "integers of %u bytes", b);
            return;
        }
        break;
    case OFFSET_SIZE:
        a->offset_size = b;
        if (b < 1 || b > 8) {
            pgarchive_unknown(a, "offsets of %u bytes", b);
            return;
        }
        break;
    case FORMAT:
        if (b != FORMAT_CUSTOM) {
            pgarchive_unknown(a, "archive format %u is not custom", b);
            return;
        }
        a->at = a->info.minor >= 15 ? COMPRESSION_KIND : COMPRESSION_LEVEL;
        return;
    case COMPRESSION_KIND:
        if (b) {
            pgarchive_unknown(a, "the archive is compressed");
            return;
        }
        break;
    case BLOCK:
        if (b != BLOCK_DATA && b != PGARCHIVE_BLOCK_BLOBS)
            pgarchive_wrong(a, "data block of type %u", b);
        a->block = b;
        a->block_at = a->value_at;
        break;
    default:
        break;
    }
    a->at++;
}

static void took_int(struct pgarchive *a, int64_t v)
{
    switch (a->at) {
    case COMPRESSION_LEVEL:
        if (v)
            pgarchive_unknown(a, "the archive is compressed");
        else
            a->at = TIME;
        return;
    case TIME:
        if (++a->times < TIMES)
            return;
        break;
    case ENTRIES:
        a->entries = v;
        if (v < 0)
            pgarchive_wrong(a, "%lld entries", (long long)v);
        else if (v > PGARCHIVE_ENTRIES_MAX)
            pgarchive_unknown(a, "%lld entries, at most %d", (long long)v, PGARCHIVE_ENTRIES_MAX);
        else if (!v && (a->at = BLOCK) == BLOCK)
            (void)pgarchive_items_seal(&a->items);
        else
            a->at = DUMP_ID;
        return;
    case DUMP_ID:
        if (v <= 0)
            pgarchive_wrong(a, "entry number %lld", (long long)v);
        a->entry.dump_id = (uint32_t)v;
        a->entry.dep_count = 0;
        break;
    case HAS_DATA:
        a->entry.has_data = v != 0;
        break;
    case BLOCK_ID:
        pgarchive_data_block(a, (uint32_t)v);
        return;
    case PIECE:
    case BLOB_PIECE:
        pgarchive_data_piece(a, v);
        return;
    case BLOB_OID:
        pgarchive_data_blob(a, v);
        return;
    default:
        break;
    }
    a->at++;
}

static void keep_info(const struct dr_buf *text, char out[64])
{
    for (size_t i = 0; i < text->len && i < 63; i++)
        out[i] = text->data[i] < ' ' || text->data[i] > '~' ? '?' : (char)text->data[i];
}

static void took_dependency(struct pgarchive *a)
{
    struct toc_entry *e = &a->entry;
    uint64_t id;

    if (a->is_null) {
        a->at = OFFSET;
        a->raw_len = 1 + a->offset_size;
    } else if (e->dep_count < DEPS_MAX && a->text.len &&
               dr_parse_u64((const char *)a->text.data, 1, INT32_MAX, &id)) {
        e->deps[e->dep_count++] = (uint32_t)id;
    }
}

/* Swaps the string just read into one of the entry's. */
static void keep(struct pgarchive *a, struct dr_buf *to)
{
    struct dr_buf old = *to;
    *to = a->text;
    a->text = old;
}

static void took_string(struct pgarchive *a)
{
    switch (a->at) {
    case DBNAME:
        keep_info(&a->text, a->info.dbname);
        break;
    case SERVER:
        keep_info(&a->text, a->info.server_version);
        break;
    case TOOL:
        keep_info(&a->text, a->info.tool_version);
        break;
    case TAG:
        keep(a, &a->entry.tag);
        break;
    case DESC:
        keep(a, &a->entry.desc);
        break;
    case DEFN:
        keep(a, &a->entry.defn);
        break;
    case COPY:
        keep(a, &a->entry.copy);
        a->entry.has_copy = !a->is_null && a->entry.copy.len;
        break;
    case SCHEMA:
        keep(a, &a->entry.schema);
        break;
    case ACCESS_METHOD:
        a->at = a->info.minor >= 16 ? RELKIND : OWNER;
        return;
    case DEPENDENCY:
        took_dependency(a);
        return;
    default:
        break;
    }
    a->at++;
}

static int64_t int_of(const unsigned char *p)
{
    int64_t v = (int64_t)((uint32_t)p[1] | (uint32_t)p[2] << 8 | (uint32_t)p[3] << 16 |
                          (uint32_t)p[4] << 24);
    return p[0] ? -v : v;
}

static void begin_string(struct pgarchive *a, int64_t len)
{
    dr_buf_reset(&a->text);
    a->is_null = len < 0;
    a->left = len < 0 ? 0 : (uint64_t)len;
    a->in_string = a->left > 0;
    if (!a->in_string)
        took_string(a);
}

/* A small value that is whole. */
static void took_small(struct pgarchive *a, const unsigned char *p)
{
    switch (places[a->at].type) {
    case RAW:
        took_raw(a);
        break;
    case BYTE:
        took_byte(a, *p);
        break;
    case INT:
        took_int(a, int_of(p));
        break;
    case STRING:
        begin_string(a, int_of(p));
        break;
    }
}

size_t pgarchive_toc_small(struct pgarchive *a, const unsigned char *p, size_t len)
{
    enum type type = places[a->at].type;
    size_t need = type == RAW ? a->raw_len : type == BYTE ? 1 : INT_BYTES, n;

    if (!a->small_len && len >= need && type != RAW) {
        a->value_at = a->passed;
        took_small(a, p);
        return need;
    }
    n = need - a->small_len < len ? need - a->small_len : len;
    memcpy(a->small + a->small_len, p, n);
    a->small_len += n;
    if (a->small_len == need) {
        a->small_len = 0;
        a->value_at = a->passed + n - need;
        took_small(a, a->small);
    }
    return n;
}

size_t pgarchive_toc_string(struct pgarchive *a, const unsigned char *p, size_t len)
{
    size_t n = a->left < len ? (size_t)a->left : len, keep_max = places[a->at].keep;
    size_t room = keep_max > a->text.len ? keep_max - a->text.len : 0;

    dr_buf_add(&a->text, p, n < room ? n : room);
    a->left -= n;
    if (!a->left) {
        a->in_string = false;
        took_string(a);
    }
    return n;
}
