/* One chunk of a stream: its zstd frame and its name. A struct frame_codec belongs to one thread at
 * a time. Source: formats-bytes.md 2, "Frames". */
#ifndef DR_WORKER_PIPE_FRAME_H
#define DR_WORKER_PIPE_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

enum {
    FRAME_PLAIN_MAX = 262144,  /* content of one frame */
    FRAME_STORED_MAX = 266240, /* a frame with its headers */
    FRAME_CUT = 65536,         /* where writers cut */
    FRAME_CUT_STORED = 66048,  /* most that a frame of FRAME_CUT plain bytes takes */
    FRAME_NAME = 16,
    FRAME_NAME_KEY = 32
};

struct frame_codec;
/* level 0: neither compresses. name_key NULL: frame_name must not be called. */
enum dr_rc frame_codec_new(unsigned level, const unsigned char *name_key, struct frame_codec **out,
                           struct dr_err *err) DR_MUST_CHECK;
/* The stream is rows of text, as of a dump: level 1 then takes a quarter less time. Other levels
 * compress as they do. */
enum dr_rc frame_codec_rows(struct frame_codec *c, struct dr_err *err) DR_MUST_CHECK;
void frame_codec_free(struct frame_codec *c);

/* First 16 bytes of HMAC-SHA-256 under the name key. */
enum dr_rc frame_name(struct frame_codec *c, const void *plain, size_t len,
                      unsigned char name[FRAME_NAME], struct dr_err *err) DR_MUST_CHECK;
/* 1..FRAME_CUT bytes into out of FRAME_CUT_STORED bytes. */
enum dr_rc frame_pack(struct frame_codec *c, const void *plain, size_t len, unsigned char *out,
                      size_t *stored_len, struct dr_err *err) DR_MUST_CHECK;
/* Exactly plain_len bytes come out. INTEGRITY, frame. The frame was measured before. */
enum dr_rc frame_unpack(struct frame_codec *c, const void *stored, size_t stored_len, void *plain,
                        size_t plain_len, struct dr_err *err) DR_MUST_CHECK;

/* Reads the headers of the frame that begins at p, decompresses nothing. *stored_len is 0 when more
 * than len bytes are needed to tell (not when last: nothing follows p[len - 1]). INTEGRITY: frame,
 * or frame-size for a content size, window or dictionary that is not allowed. */
enum dr_rc frame_measure(const unsigned char *p, size_t len, bool last, size_t *stored_len,
                         size_t *plain_len, struct dr_err *err) DR_MUST_CHECK;

#endif
