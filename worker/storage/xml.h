/* XML of stores, bounded: no DOCTYPE (so no entities but the five), 16 levels, 8 MiB, 8 KiB of text
 * an element. Blanks before the declaration are let pass: S3 sends them to keep a connection alive.
 * The parser's memory ends with the call. Pure, any thread. */
#ifndef DR_WORKER_STORAGE_XML_H
#define DR_WORKER_STORAGE_XML_H

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"

enum { XML_BYTES_MAX = 8 << 20, XML_DEPTH_MAX = 16, XML_TEXT_MAX = 8192, XML_PATH_MAX = 512 };

/* At each element's end: where it stands ("ListBucketResult/Contents/Key", without namespaces) and
 * its own text, blanks included. false ends the reading with MALFORMED. */
typedef bool xml_fn(void *arg, const char *path, const char *text);

/* MALFORMED; TOO_BIG over a bound; REFUSED a DOCTYPE. Elements were told up to there. */
enum dr_rc xml_read(const void *bytes, size_t len, xml_fn *fn, void *arg,
                    struct dr_err *err) DR_MUST_CHECK;

#endif
