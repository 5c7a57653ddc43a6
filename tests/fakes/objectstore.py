#!/usr/bin/env python3
"""An S3 server that is strict, small, and misbehaves on request.

Strict: every request's SigV4 signature is verified here from what came over the wire, by code that shares nothing with
the worker's signer or with tests/lib/sigv4.py; what it does not know is 501, never silently fine. Misbehaving: rules
(see Rules) play what no real server does on demand. A rule acts only on a request whose signature is right, so that no
fault hides a wrong one. Bounded in connections, heads, XML, stored bytes and its log.

    objectstore.py --root FOLDER --control SOCKET --bucket NAME [--cert PEM --key PEM] ...

prints `ready PORT`. The control socket takes one JSON object a line, {"do": NAME, ...}, and answers with one; tests
use tests/lib/objectstore.py. Index in memory, bytes in files of FOLDER; ends when its standard input ends.
"""
import argparse
import base64
import binascii
import calendar
import contextlib
import email.utils
import fnmatch
import hashlib
import hmac
import http
import json
import os
import pathlib
import random
import re
import select
import shutil
import socket
import ssl
import struct
import sys
import threading
import time
import urllib.parse
import xml.etree.ElementTree as ET
import zlib
from xml.sax.saxutils import escape

NS = "http://s3.amazonaws.com/doc/2006-03-01/"
EMPTY = hashlib.sha256(b"").hexdigest()
HEAD_MAX, XML_MAX, DRAIN_MAX, LOG_MAX, SKEW_MAX = 64 << 10, 2 << 20, 16 << 20, 100_000, 900
KEEP_VERSIONS = 16

# Code: status and message, as S3 words them. A rule may name any of these.
ERRORS = {
    "AccessDenied": (403, "Access Denied"),
    "AuthorizationHeaderMalformed": (400, "The authorization header is malformed."),
    "BadDigest": (400, "The Content-MD5 or checksum value that you specified did not match what the server received."),
    "ConditionalRequestConflict": (409, "A conflicting conditional operation is in progress against this resource."),
    "EntityTooLarge": (400, "Your proposed upload exceeds the maximum allowed size."),
    "EntityTooSmall": (400, "Your proposed upload is smaller than the minimum allowed size."),
    "ExpiredToken": (400, "The provided token has expired."),
    "IncompleteBody": (400, "You did not provide the number of bytes specified by the Content-Length HTTP header."),
    "InternalError": (500, "We encountered an internal error. Please try again."),
    "InvalidAccessKeyId": (403, "The AWS Access Key Id you provided does not exist in our records."),
    "InvalidArgument": (400, "Invalid Argument"),
    "InvalidDigest": (400, "The Content-MD5 or checksum value that you specified is not valid."),
    "InvalidPart": (400, "One or more of the specified parts could not be found."),
    "InvalidPartOrder": (400, "The list of parts was not in ascending order."),
    "InvalidRange": (416, "The requested range is not satisfiable."),
    "InvalidRequest": (400, "Invalid Request"),
    "InvalidToken": (400, "The provided token is malformed or otherwise invalid."),
    "InvalidURI": (400, "Couldn't parse the specified URI."),
    "KeyTooLongError": (400, "Your key is too long."),
    "MalformedXML": (400, "The XML you provided was not well-formed or did not validate against our published schema."),
    "MetadataTooLarge": (400, "Your metadata headers exceed the maximum allowed metadata size."),
    "MethodNotAllowed": (405, "The specified method is not allowed against this resource."),
    "MissingContentLength": (411, "You must provide the Content-Length HTTP header."),
    "NoSuchBucket": (404, "The specified bucket does not exist"),
    "NoSuchKey": (404, "The specified key does not exist."),
    "NoSuchUpload": (404, "The specified upload does not exist."),
    "NoSuchVersion": (404, "The specified version does not exist."),
    "NotImplemented": (501, "A header or query you provided implies functionality that is not implemented."),
    "PermanentRedirect": (301, "The bucket you are attempting to access must be addressed using the specified endpoint."),
    "PreconditionFailed": (412, "At least one of the pre-conditions you specified did not hold"),
    "RequestTimeTooSkewed": (403, "The difference between the request time and the current time is too large."),
    "RequestTimeout": (400, "Your socket connection to the server was not read from or written to within the timeout period."),
    "ServiceUnavailable": (503, "Service is unable to handle request."),
    "SignatureDoesNotMatch": (403, "The request signature we calculated does not match the signature you provided."),
    "SlowDown": (503, "Please reduce your request rate."),
    "TemporaryRedirect": (307, "Please re-send this request to the specified temporary endpoint."),
    "XAmzContentSHA256Mismatch": (400, "The provided 'x-amz-content-sha256' header does not match what was computed."),
}

# What each operation may carry in its query; anything else is NotImplemented.
QUERIES = {
    "AbortMultipartUpload": {"uploadId"}, "CompleteMultipartUpload": {"uploadId"}, "CopyObject": set(),
    "CreateMultipartUpload": {"uploads"}, "DeleteObject": {"versionId"}, "GetBucketLocation": {"location"},
    "GetObject": {"versionId"}, "HeadBucket": set(), "HeadObject": {"versionId"},
    "ListMultipartUploads": {"uploads", "prefix", "max-uploads", "key-marker", "upload-id-marker", "encoding-type"},
    "ListObjectsV2": {"list-type", "prefix", "delimiter", "max-keys", "start-after", "continuation-token",
                      "encoding-type", "fetch-owner"},
    "ListParts": {"uploadId", "max-parts", "part-number-marker"}, "PutObject": set(),
    "UploadPart": {"partNumber", "uploadId"},
}
WRITES = {"AbortMultipartUpload", "CompleteMultipartUpload", "CopyObject", "CreateMultipartUpload", "DeleteObject",
          "PutObject", "UploadPart"}
KEPT = ("content-type", "content-encoding", "cache-control", "content-disposition", "x-amz-storage-class",
        "x-amz-server-side-encryption")


class Refused(Exception):
    def __init__(self, code, message=None, headers=None, bare=False, status=None, **details):
        self.status, text = ERRORS[code] if code in ERRORS else (status, code)
        self.status = status or self.status
        self.code, self.message, self.headers = code, message or text, headers or {}
        self.bare, self.details = bare, details
        super().__init__(code)


class Gone(Exception):
    """The peer, or we by a rule, ended the connection."""


def http_date(seconds):
    return email.utils.formatdate(seconds, usegmt=True)


def iso(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(seconds))


def xml_text(value):
    """Control characters as S3 sends them: references that XML 1.0 does not even allow."""
    return re.sub(r"[\x00-\x08\x0b\x0c\x0d\x0e-\x1f]", lambda m: f"&#x{ord(m.group()):x};", escape(str(value), {'"': "&quot;"}))


def element(name, *children):
    return f"<{name}>{''.join(children)}</{name}>"


def leaf(name, value):
    return f"<{name}>{xml_text(value)}</{name}>"


def document(name, *children):
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<{name} xmlns="{NS}">{"".join(children)}</{name}>'.encode()


# ---- signatures


def query_pairs(raw):
    """Decoded, in the order they came; a plus is a space, as S3 reads it."""
    return [tuple(urllib.parse.unquote_to_bytes(x.replace("+", " ")) for x in (pair.partition("=")[0], pair.partition("=")[2]))
            for pair in raw.split("&") if pair]


def canonical_request(method, target, headers, signed, payload):
    path, _, query = target.partition("?")
    encode = lambda b, safe="": urllib.parse.quote(b, safe="-_.~" + safe)  # noqa: E731
    pairs = sorted((encode(name), encode(value)) for name, value in query_pairs(query))
    lines = [method, encode(urllib.parse.unquote_to_bytes(path), "/"), "&".join(f"{n}={v}" for n, v in pairs)]
    for name in signed:
        values = [re.sub(r"[ \t]+", " ", v.strip(" \t")) for n, v in headers if n == name]
        lines.append(f"{name}:{','.join(values)}")
    return "\n".join(lines + ["", ";".join(signed), payload])


def request_time(one):
    stamp = one.get("x-amz-date")
    if stamp:
        if not re.fullmatch(r"\d{8}T\d{6}Z", stamp):
            raise Refused("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")
        return stamp, calendar.timegm(time.strptime(stamp, "%Y%m%dT%H%M%SZ"))
    parsed = email.utils.parsedate_tz(one.get("date", ""))
    if not parsed:
        raise Refused("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")
    seconds = email.utils.mktime_tz(parsed)
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds)), seconds


def parse_authorization(text, region):
    m = re.fullmatch(r"AWS4-HMAC-SHA256 +Credential=([^,\s]+), *SignedHeaders=([^,\s]+), *Signature=([0-9a-f]{64})", text)
    if not m:
        raise Refused("AuthorizationHeaderMalformed" if text.startswith("AWS4") else "InvalidArgument")
    parts = m.group(1).rsplit("/", 4)
    if len(parts) != 5 or parts[4] != "aws4_request":
        raise Refused("AuthorizationHeaderMalformed", "the Credential is mal-formed; expecting <key>/<date>/<region>/s3/aws4_request")
    access, day, scope_region, service, _ = parts
    if service != "s3":
        raise Refused("AuthorizationHeaderMalformed", f"incorrect service '{service}'. This endpoint belongs to 's3'")
    if scope_region != region:
        raise Refused("AuthorizationHeaderMalformed", f"the region '{scope_region}' is wrong; expecting '{region}'", Region=region)
    return access, day, m.group(2).split(";"), m.group(3)


def check_token(key, sent):
    if not key.get("token"):
        if sent is not None:
            raise Refused("InvalidToken")
    elif sent is None:
        raise Refused("InvalidAccessKeyId")
    elif not hmac.compare_digest(sent, key["token"]):
        raise Refused("InvalidToken")
    elif key.get("expired"):
        raise Refused("ExpiredToken")


def authenticate(method, target, headers, keys, region, now):
    """headers: (lower-case name, value) as they came. Returns the payload hash that was signed; raises Refused."""
    one = dict(headers)
    if "authorization" not in one:
        raise Refused("AccessDenied")
    access, day, signed, signature = parse_authorization(one["authorization"], region)
    if access not in keys:
        raise Refused("InvalidAccessKeyId", AWSAccessKeyId=access)
    stamp, seconds = request_time(one)
    if abs(now - seconds) > SKEW_MAX:
        raise Refused("RequestTimeTooSkewed", RequestTime=stamp, ServerTime=iso(now), MaxAllowedSkewMilliseconds=SKEW_MAX * 1000)
    if day != stamp[:8]:
        raise Refused("AuthorizationHeaderMalformed", f"Invalid credential date '{day}'. This date is not the same as x-amz-date")
    payload = one.get("x-amz-content-sha256")
    if payload is None:
        raise Refused("InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
    if signed != sorted(set(signed)) or any(n != n.lower() or n not in one for n in signed):
        raise Refused("SignatureDoesNotMatch", "SignedHeaders is unsorted, or names what is not there")
    loose = [n for n in one if (n.startswith("x-amz-") or n == "host") and n not in signed]
    if loose:
        raise Refused("AccessDenied", "There were headers present in the request which were not signed", HeadersNotSigned=", ".join(loose))
    canonical = canonical_request(method, target, headers, signed, payload)
    to_sign = "\n".join(["AWS4-HMAC-SHA256", stamp, f"{day}/{region}/s3/aws4_request", hashlib.sha256(canonical.encode()).hexdigest()])
    derived = b"AWS4" + keys[access]["secret"].encode()
    for word in (day, region, "s3", "aws4_request", to_sign):
        derived = hmac.digest(derived, word.encode(), "sha256")
    if not hmac.compare_digest(derived.hex(), signature):
        raise Refused("SignatureDoesNotMatch", AWSAccessKeyId=access, StringToSign=to_sign, SignatureProvided=signature, CanonicalRequest=canonical)
    check_token(keys[access], one.get("x-amz-security-token"))
    if payload.startswith("STREAMING-"):
        raise Refused("NotImplemented", "aws-chunked bodies are not spoken here")
    if payload != "UNSIGNED-PAYLOAD" and not re.fullmatch(r"[0-9a-f]{64}", payload):
        raise Refused("InvalidArgument", "x-amz-content-sha256 must be UNSIGNED-PAYLOAD or a valid sha256 value.")
    return payload


# ---- what is kept


class Blob:
    """Bytes in a file."""

    def __init__(self, store, expected=0):
        store.reserve(expected)
        self.store, self.path, self.size, self.reserved = store, store.root / f"b{store.next()}", 0, expected
        self.file = open(self.path, "wb", buffering=0)
        self.hash, self.md5, self.crc32 = hashlib.sha256(), hashlib.md5(), 0

    def add(self, data, hashing=True):
        self.file.write(data)
        self.size += len(data)
        if not hashing:
            return
        self.hash.update(data)
        self.md5.update(data)
        self.crc32 = zlib.crc32(data, self.crc32)

    def close(self):
        self.file.close()
        return self

    def drop(self):
        self.file.close()
        self.store.reserve(-self.reserved)
        self.path.unlink(missing_ok=True)

    def append_to(self, other, hashing=True):
        with open(self.path, "rb") as source:
            while data := source.read(1 << 20):
                other.add(data, hashing)

    def checksums(self):
        b64 = lambda raw: base64.b64encode(raw).decode()  # noqa: E731
        return {"sha256": b64(self.hash.digest()), "crc32": b64(struct.pack(">I", self.crc32))}


class Version:
    def __init__(self, key, blob, **fields):
        self.key, self.blob, self.marker = key, blob, False
        self.etag = self.version = self.modified = self.checksum_type = None
        self.meta, self.kept, self.checksums = {}, {}, {}
        self.__dict__.update(fields)

    @property
    def size(self):
        return self.blob.size


class Bucket:
    def __init__(self, name):
        self.name, self.mode, self.versioning = name, "rw", False
        self.region = self.location = None
        self.objects, self.uploads, self.finished = {}, {}, {}

    def current(self, key):
        versions = self.objects.get(key)
        return None if not versions or versions[-1].marker else versions[-1]

    def snapshot(self):
        copy = Bucket(self.name)
        copy.objects = {k: list(v) for k, v in self.objects.items()}
        copy.uploads = {u: {**up, "parts": dict(up["parts"])} for u, up in self.uploads.items()}
        return copy


class Store:
    def __init__(self, root, max_bytes):
        self.root, self.max_bytes, self.used, self.counter = pathlib.Path(root), max_bytes, 0, 0
        self.lock, self.buckets = threading.RLock(), {}

    def next(self):
        with self.lock:
            self.counter += 1
            return self.counter

    def reserve(self, n):
        with self.lock:
            if n > 0 and self.used + n > self.max_bytes:
                raise Refused("EntityTooLarge", f"this server holds {self.max_bytes} bytes")
            self.used += n

    def add(self, bucket, version):
        """With versioning an older one stays readable; without it only tamper() can bring it back."""
        version.version = f"v{self.next():08d}" if bucket.versioning else None
        versions = bucket.objects.setdefault(version.key, [])
        versions.append(version)
        while len(versions) > KEEP_VERSIONS:
            versions.pop(0).blob.drop()
        return version


# ---- rules


class Rules:
    """fault(kind, op="*", key="*", part=0, count=0, skip=0, probability=1.0, seed=0, ...): the first that matches acts.

    error        code, status, message, bare (no body), retry_after, retry_after_date (seconds), early (no body is read),
                 done (it was carried out all the same)
    ok_error     200 with an error document; code, space (white space before it), done
    redirect     status 301/302/307, location (base of the new address), region
    cut_request  after: bytes of the body; how: reset or fin        cut_response  the same for the answer
    slow         way: request or response; step bytes every seconds, after bytes at full speed; head (the head too)
    stall        way, after: until release() or the peer goes; head (not even a status line comes)
    lost         carried out, then the connection closes without an answer
    wrong_etag, wrong_checksum      in the answer only
    headers      set {name: value}, drop [name]
    flip         one bit at byte `at` of the answer's body is wrong
    stale        lists and HEAD as they were when the rule was given
    xml          form: huge, deep, bomb, doctype, cut, garbage; bytes or depth; chunked (no Content-Length)
    raw          bytes (base64) in place of an answer
    """

    KINDS = {"error", "ok_error", "redirect", "cut_request", "cut_response", "slow", "stall", "lost", "wrong_etag",
             "wrong_checksum", "headers", "flip", "stale", "xml", "raw"}

    def __init__(self, store):
        self.store, self.rules, self.counter, self.lock = store, [], 0, threading.Lock()

    def add(self, kind, op="*", key="*", part=0, count=0, skip=0, probability=1.0, seed=0, **details):
        if kind not in self.KINDS:
            raise ValueError(f"no such fault: {kind}")
        with self.lock:
            self.counter += 1
            rule = {"id": self.counter, "kind": kind, "op": op, "key": key, "part": part, "count": count, "skip": skip,
                    "probability": probability, "random": random.Random(seed), "seen": 0, "acted": 0,
                    "released": threading.Event(), **details}
            if kind == "stale":
                with self.store.lock:
                    rule["view"] = {n: b.snapshot() for n, b in self.store.buckets.items()}
            self.rules.append(rule)
            return rule["id"]

    def remove(self, which=None):
        with self.lock:
            for rule in self.rules:
                if which in (None, rule["id"]):
                    rule["released"].set()
            self.rules = [] if which is None else [r for r in self.rules if r["id"] != which]

    def release(self):
        with self.lock:
            for rule in self.rules:
                rule["released"].set()

    def acted(self):
        with self.lock:
            return {str(r["id"]): r["acted"] for r in self.rules}

    def take(self, op, key, part):
        with self.lock:
            for rule in self.rules:
                ops = [rule["op"]] if isinstance(rule["op"], str) else rule["op"]
                if not any(fnmatch.fnmatchcase(op, o) for o in ops) or not fnmatch.fnmatchcase(key, rule["key"]):
                    continue
                if rule["part"] and rule["part"] != part:
                    continue
                rule["seen"] += 1
                if rule["seen"] <= rule["skip"] or (rule["count"] and rule["acted"] >= rule["count"]):
                    continue
                if rule["random"].random() >= rule["probability"]:
                    continue
                rule["acted"] += 1
                return rule
        return {"kind": None}


# ---- one request


class Request:
    def __init__(self, method, target, headers, domain):
        self.method, self.target, self.headers = method, target, headers
        self.one = {}
        for name, value in headers:
            self.one[name] = f"{self.one[name]},{value}" if name in self.one else value
        self.bucket, self.key, self.op, self.part = "", "", "", 0
        self.query, self.domain = {}, domain

    def read_target(self):
        path, _, query = self.target.partition("?")
        try:
            if re.search(r"%(?![0-9A-Fa-f]{2})", self.target) or not path.startswith("/"):
                raise ValueError
            path = urllib.parse.unquote_to_bytes(path).decode()
            self.query = {n.decode(): v.decode() for n, v in query_pairs(query)}
        except ValueError:
            raise Refused("InvalidURI") from None
        host = re.sub(r":\d+$", "", self.one.get("host", "")).lower()
        if host.endswith("." + self.domain):
            self.bucket, self.key = host[:-len(self.domain) - 1], path[1:]
        else:
            self.bucket, _, self.key = path[1:].partition("/")
        self.op = self.operation()
        if len(self.key.encode()) > 1024:
            raise Refused("KeyTooLongError")
        if self.op == "UploadPart":
            if not re.fullmatch(r"\d{1,5}", self.query["partNumber"]) or not 1 <= int(self.query["partNumber"]) <= 10000:
                raise Refused("InvalidArgument", "Part number must be an integer between 1 and 10000, inclusive")
            self.part = int(self.query["partNumber"])

    def operation(self):
        q, m = self.query, self.method
        if not self.bucket:
            return ""
        if not self.key:
            if m == "GET":
                return "ListMultipartUploads" if "uploads" in q else "GetBucketLocation" if "location" in q else \
                    "ListObjectsV2" if q.get("list-type") == "2" else ""
            return "HeadBucket" if m == "HEAD" else ""
        if m == "PUT":
            copy = "x-amz-copy-source" in self.one
            if "uploadId" in q and "partNumber" in q:
                return "" if copy else "UploadPart"
            return "CopyObject" if copy else "PutObject"
        if m == "POST":
            return "CreateMultipartUpload" if "uploads" in q else "CompleteMultipartUpload" if "uploadId" in q else ""
        upload = {"GET": "ListParts", "DELETE": "AbortMultipartUpload"}
        plain = {"GET": "GetObject", "HEAD": "HeadObject", "DELETE": "DeleteObject"}
        return (upload if "uploadId" in q else plain).get(m, "")

    def length(self):
        """Of the body; None: it cannot be known."""
        if "transfer-encoding" in self.one:
            raise Refused("NotImplemented", "Transfer-Encoding is not supported for uploads")
        text = self.one.get("content-length")
        if text is None:
            if self.method in ("PUT", "POST"):
                raise Refused("MissingContentLength")
            return 0
        if not re.fullmatch(r"\d{1,13}", text):
            raise Refused("InvalidArgument", "Content-Length is no number")
        return int(text)


class Answer:
    """body: bytes, or (open file, offset, size)."""

    def __init__(self, status=200, headers=None, body=b""):
        self.status, self.headers, self.body = status, headers or {}, body

    def size(self):
        return len(self.body) if isinstance(self.body, bytes) else self.body[2]

    def parts(self):
        if isinstance(self.body, bytes):
            for at in range(0, len(self.body), 1 << 18):
                yield self.body[at:at + (1 << 18)]
            return
        file, at, size = self.body
        file.seek(at)
        while size > 0 and (data := file.read(min(size, 1 << 18))):
            yield data
            size -= len(data)

    def close(self):
        if not isinstance(self.body, bytes):
            self.body[0].close()


# ---- operations: each gets (server, request, bucket, blob or None) under the store's lock


def put_bytes(store, data):
    blob = Blob(store, len(data))
    blob.add(data)
    return blob.close()


def numbers(request, name, default, most=1000):
    text = request.query.get(name, str(default))
    if not re.fullmatch(r"\d{1,9}", text):
        raise Refused("InvalidArgument", f"Provided {name} not an integer or within integer range", ArgumentName=name, ArgumentValue=text)
    return min(int(text), most)


def conditions(request, found, reading):
    """If-Match and If-None-Match against what is there."""
    tags = lambda text: [t.strip().strip('"') for t in text.split(",")]  # noqa: E731
    match, none = request.one.get("if-match"), request.one.get("if-none-match")
    if match is not None:
        if found is None:
            raise Refused("NoSuchKey")
        if match.strip() != "*" and found.etag not in tags(match):
            raise Refused("PreconditionFailed", Condition="If-Match")
    if none is not None and found is not None and (none.strip() == "*" or found.etag in tags(none)):
        if reading:
            raise Refused("NotModified", status=304, bare=True)
        raise Refused("PreconditionFailed", Condition="If-None-Match")
    if none is not None and not reading and none.strip() != "*":
        raise Refused("NotImplemented", "If-None-Match of a write takes * only")


def fields_of(request):
    meta = {n: v for n, v in request.one.items() if n.startswith("x-amz-meta-")}
    if sum(len(n) - 11 + len(v) for n, v in meta.items()) > 2048:
        raise Refused("MetadataTooLarge")
    if any(n.startswith("x-amz-object-lock") for n in request.one):
        raise Refused("InvalidRequest", "Bucket is missing Object Lock Configuration")
    return {"meta": meta, "kept": {n: request.one[n] for n in KEPT if n in request.one}}


def check_body(request, blob, payload):
    if payload != "UNSIGNED-PAYLOAD" and blob.hash.hexdigest() != payload:
        raise Refused("XAmzContentSHA256Mismatch", ClientComputedContentSHA256=payload, S3ComputedContentSHA256=blob.hash.hexdigest())
    own = {"x-amz-checksum-" + n: v for n, v in blob.checksums().items()}
    own["content-md5"] = base64.b64encode(blob.md5.digest()).decode()
    for name, sent in request.one.items():
        if name in ("x-amz-checksum-algorithm", "x-amz-checksum-type", "x-amz-checksum-mode") or \
                not (name.startswith("x-amz-checksum-") or name == "content-md5"):
            continue
        if name not in own:
            raise Refused("NotImplemented", f"{name} is not checked here")
        try:
            right_size = len(base64.b64decode(sent, validate=True)) == len(base64.b64decode(own[name]))
        except binascii.Error:
            right_size = False
        if not right_size:
            raise Refused("InvalidDigest") if name == "content-md5" else Refused("InvalidRequest", f"Value for {name} header is invalid.")
        if sent != own[name]:
            raise Refused("BadDigest")
    return {n: v for n, v in blob.checksums().items() if "x-amz-checksum-" + n in request.one}


def object_headers(found, request):
    headers = {"ETag": f'"{found.etag}"', "Last-Modified": http_date(found.modified), "Accept-Ranges": "bytes",
               "Content-Type": "binary/octet-stream", **found.kept, **found.meta}
    if request.one.get("x-amz-checksum-mode", "").upper() == "ENABLED":
        headers |= {f"x-amz-checksum-{n}": v for n, v in found.checksums.items()}
        if found.checksum_type:
            headers["x-amz-checksum-type"] = found.checksum_type
    if found.version:
        headers["x-amz-version-id"] = found.version
    return headers


def find(request, bucket):
    version = request.query.get("versionId")
    if version:
        for one in bucket.objects.get(request.key, []):
            if one.version == version:
                if one.marker:
                    raise Refused("MethodNotAllowed", headers={"x-amz-delete-marker": "true"})
                return one
        raise Refused("NoSuchVersion")
    return bucket.current(request.key)


def stored(server, bucket, version, checksums):
    server.store.add(bucket, version)
    headers = {"ETag": f'"{version.etag}"', **{f"x-amz-checksum-{n}": v for n, v in checksums.items()}}
    if checksums:
        headers["x-amz-checksum-type"] = version.checksum_type
    if version.version:
        headers["x-amz-version-id"] = version.version
    return headers


def put_object(server, request, bucket, blob):
    fields = fields_of(request)
    conditions(request, bucket.current(request.key), False)
    checksums = blob.checked
    version = Version(request.key, blob, etag=blob.md5.hexdigest(), modified=server.now(), checksums=checksums,
                      checksum_type="FULL_OBJECT" if checksums else None, **fields)
    return Answer(200, stored(server, bucket, version, checksums))


def copy_object(server, request, bucket, blob):
    source = urllib.parse.unquote(request.one["x-amz-copy-source"]).lstrip("/")
    name, _, key = source.partition("/")
    there = server.store.buckets.get(name)
    found = there.current(key) if there and there.mode != "missing" else None
    if not found:
        raise Refused("NoSuchKey")
    copy = Blob(server.store, found.size)
    found.blob.append_to(copy)
    fields = fields_of(request) if request.one.get("x-amz-metadata-directive") == "REPLACE" else {"meta": found.meta, "kept": found.kept}
    version = Version(request.key, copy.close(), etag=copy.md5.hexdigest(), modified=server.now(), **fields)
    stored(server, bucket, version, {})
    return Answer(200, {}, document("CopyObjectResult", leaf("LastModified", iso(version.modified)), leaf("ETag", f'"{version.etag}"')))


def get_object(server, request, bucket, blob):
    found = find(request, bucket)
    conditions(request, found, True)
    if found is None:
        raise Refused("NoSuchKey", Key=request.key)
    headers, size = object_headers(found, request), found.size
    first, last, status = 0, size - 1, 200
    m = re.fullmatch(r"bytes=(\d*)-(\d*)", request.one.get("range", "").strip())
    if m and (m.group(1) or m.group(2)):
        if m.group(1):
            first, last = int(m.group(1)), min(int(m.group(2) or last), last)
        else:
            first = max(0, size - int(m.group(2)))
        if first >= size or (m.group(2) and int(m.group(2)) < int(m.group(1) or 0)):
            raise Refused("InvalidRange", headers={"Content-Range": f"bytes */{size}"}, ActualObjectSize=size)
        status = 206
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        headers = {n: v for n, v in headers.items() if not n.startswith("x-amz-checksum-")}
    if request.method == "HEAD":
        return Answer(status, {**headers, "Content-Length": str(last - first + 1)})
    return Answer(status, headers, (open(found.blob.path, "rb"), first, last - first + 1))


def delete_object(server, request, bucket, blob):
    versions, wanted = bucket.objects.get(request.key, []), request.query.get("versionId")
    if wanted:
        bucket.objects[request.key] = [v for v in versions if v.version != wanted]
        return Answer(204, {"x-amz-version-id": wanted})
    conditions(request, bucket.current(request.key), False)
    if bucket.versioning and versions:
        marker = server.store.add(bucket, Version(request.key, put_bytes(server.store, b""), marker=True, modified=server.now()))
        return Answer(204, {"x-amz-delete-marker": "true", "x-amz-version-id": marker.version})
    for version in bucket.objects.pop(request.key, []):
        version.blob.drop()
    return Answer(204)


def encoded(request):
    kind = request.query.get("encoding-type")
    if kind not in (None, "url"):
        raise Refused("InvalidArgument", "Invalid Encoding Method specified in Request")
    return (lambda text: urllib.parse.quote(text, safe="-_.~/*")) if kind else (lambda text: text)


def list_objects(server, request, bucket, blob):
    q, encode = request.query, encoded(request)
    prefix, delimiter, most = q.get("prefix", ""), q.get("delimiter", ""), numbers(request, "max-keys", 1000, server.page)
    after = q.get("start-after", "")
    token = q.get("continuation-token")
    if token is not None:
        try:
            after = base64.urlsafe_b64decode(token.encode()).decode()
            if not after.startswith("after:"):
                raise ValueError
        except ValueError:
            raise Refused("InvalidArgument", "The continuation token provided is incorrect") from None
        after = after[6:]
    keys = sorted(k for k in bucket.objects if bucket.current(k) and k.startswith(prefix))  # by code points: as by UTF-8
    out, groups, last, more = [], [], "", False
    for key in keys:
        if key <= after or (delimiter and after.endswith(delimiter) and key.startswith(after)):
            continue
        cut = key.find(delimiter, len(prefix)) if delimiter else -1
        group = key[:cut + len(delimiter)] if cut >= 0 else None
        if group and group in groups:
            continue
        if len(out) + len(groups) >= most:
            more = most > 0
            break
        last = group or key
        if group:
            groups.append(group)
            continue
        found = bucket.current(key)
        out.append(element("Contents", leaf("Key", encode(key)), leaf("LastModified", iso(found.modified)),
                           leaf("ETag", f'"{found.etag}"'), leaf("Size", found.size), leaf("StorageClass", "STANDARD")))
    tail = [element("CommonPrefixes", leaf("Prefix", encode(g))) for g in groups]
    if more:
        tail.append(leaf("NextContinuationToken", base64.urlsafe_b64encode(f"after:{last}".encode()).decode()))
    told = [leaf(name, encode(q[low])) for name, low in (("Delimiter", "delimiter"), ("StartAfter", "start-after")) if low in q]
    told += [leaf("ContinuationToken", token)] if token is not None else []
    told += [leaf("EncodingType", "url")] if "encoding-type" in q else []
    return Answer(200, {"Content-Type": "application/xml"}, document(
        "ListBucketResult", leaf("Name", bucket.name), leaf("Prefix", encode(prefix)), leaf("KeyCount", len(out) + len(groups)),
        leaf("MaxKeys", most), leaf("IsTruncated", str(more).lower()), *told, *out, *tail))


def create_upload(server, request, bucket, blob):
    algorithm = request.one.get("x-amz-checksum-algorithm", "").lower() or None
    if algorithm not in (None, "sha256") or request.one.get("x-amz-checksum-type", "COMPOSITE") != "COMPOSITE":
        raise Refused("NotImplemented", "multipart checksums: SHA256, COMPOSITE")
    upload = hashlib.sha256(f"{server.seed} {server.store.next()}".encode()).hexdigest()[:40]
    bucket.uploads[upload] = {"key": request.key, "began": server.now(), "algorithm": algorithm, "parts": {}, **fields_of(request)}
    headers = {"x-amz-checksum-algorithm": "SHA256", "x-amz-checksum-type": "COMPOSITE"} if algorithm else {}
    return Answer(200, headers, document("InitiateMultipartUploadResult", leaf("Bucket", bucket.name), leaf("Key", request.key),
                                         leaf("UploadId", upload)))


def upload_of(request, bucket):
    upload = bucket.uploads.get(request.query["uploadId"])
    if upload is None or upload["key"] != request.key:
        raise Refused("NoSuchUpload", UploadId=request.query["uploadId"])
    return upload


def upload_part(server, request, bucket, blob):
    upload = upload_of(request, bucket)
    checksums = blob.checked
    if upload["algorithm"] and upload["algorithm"] not in checksums:
        raise Refused("InvalidRequest", "Checksum Type mismatch occurred, expected checksum Type: sha256, actual checksum Type: null")
    old = upload["parts"].get(request.part)
    upload["parts"][request.part] = {"blob": blob, "etag": blob.md5.hexdigest(), "modified": server.now(), "checksums": checksums}
    if old:
        old["blob"].drop()
    return Answer(200, {"ETag": f'"{blob.md5.hexdigest()}"', **{f"x-amz-checksum-{n}": v for n, v in checksums.items()}})


def named_parts(text):
    """[(number, etag, sha256 or None)] of a CompleteMultipartUpload document."""
    try:
        if b"<!" in text:
            raise ValueError
        root = ET.fromstring(text)
        plain = lambda e: e.tag.rpartition("}")[2]  # noqa: E731
        if plain(root) != "CompleteMultipartUpload" or not len(root):
            raise ValueError
        out = []
        for part in root:
            values = {plain(c): (c.text or "").strip() for c in part}
            if plain(part) != "Part" or not re.fullmatch(r"\d{1,5}", values.get("PartNumber", "")):
                raise ValueError
            out.append((int(values["PartNumber"]), values["ETag"].strip('"'), values.get("ChecksumSHA256")))
        return out
    except (ET.ParseError, ValueError, KeyError):
        raise Refused("MalformedXML") from None


def chosen_parts(server, upload, named):
    if [n for n, *_ in named] != sorted({n for n, *_ in named}):
        raise Refused("InvalidPartOrder")
    out = []
    for number, etag, sha256 in named:
        part = upload["parts"].get(number)
        if not part or part["etag"] != etag:
            raise Refused("InvalidPart", PartNumber=number, ETag=etag)
        if upload["algorithm"] and sha256 is None:
            raise Refused("InvalidRequest", f"The upload was created using a sha256 checksum. The complete request must include the checksum for each part. It was missing for part {number} in the request.")
        if sha256 is not None and sha256 != part["blob"].checksums()["sha256"]:
            raise Refused("InvalidPart", PartNumber=number)
        out.append(part)
    for part in out[:-1]:
        if part["blob"].size < server.min_part:
            raise Refused("EntityTooSmall", ProposedSize=part["blob"].size, MinSizeAllowed=server.min_part)
    return out


def complete_result(bucket, version):
    extra = [leaf("ChecksumSHA256", version.checksums["sha256"]), leaf("ChecksumType", "COMPOSITE")] if version.checksums else []
    return Answer(200, {"x-amz-version-id": version.version} if version.version else {}, document(
        "CompleteMultipartUploadResult", leaf("Location", f"/{bucket.name}/{version.key}"), leaf("Bucket", bucket.name),
        leaf("Key", version.key), leaf("ETag", f'"{version.etag}"'), *extra))


def complete_upload(server, request, bucket, blob):
    name = request.query["uploadId"]
    if server.complete_again and name in bucket.finished and bucket.finished[name].key == request.key:
        return complete_result(bucket, bucket.finished[name])
    upload = upload_of(request, bucket)
    parts = chosen_parts(server, upload, named_parts(blob))
    conditions(request, bucket.current(request.key), False)
    whole = Blob(server.store, sum(p["blob"].size for p in parts))
    for part in parts:
        part["blob"].append_to(whole, hashing=False)
    etag = hashlib.md5(b"".join(bytes.fromhex(p["etag"]) for p in parts)).hexdigest() + f"-{len(parts)}"
    checksums = {}
    if upload["algorithm"]:
        total = hashlib.sha256(b"".join(p["blob"].hash.digest() for p in parts)).digest()
        checksums = {"sha256": base64.b64encode(total).decode() + f"-{len(parts)}"}
    version = Version(request.key, whole.close(), etag=etag, modified=server.now(), meta=upload["meta"], kept=upload["kept"],
                      checksums=checksums, checksum_type="COMPOSITE" if checksums else None)
    server.store.add(bucket, version)
    bucket.finished[name] = version
    drop_upload(bucket, name)
    return complete_result(bucket, version)


def drop_upload(bucket, name):
    for part in bucket.uploads.pop(name)["parts"].values():
        part["blob"].drop()


def abort_upload(server, request, bucket, blob):
    upload_of(request, bucket)
    drop_upload(bucket, request.query["uploadId"])
    return Answer(204)


def list_parts(server, request, bucket, blob):
    upload = upload_of(request, bucket)
    most, after = numbers(request, "max-parts", 1000, server.page), numbers(request, "part-number-marker", 0, 10000)
    rest = sorted(n for n in upload["parts"] if n > after)
    page = []
    for n in rest[:most]:
        part = upload["parts"][n]
        extra = [leaf("ChecksumSHA256", part["checksums"]["sha256"])] if "sha256" in part["checksums"] else []
        page.append(element("Part", leaf("PartNumber", n), leaf("LastModified", iso(part["modified"])), leaf("ETag", f'"{part["etag"]}"'),
                            leaf("Size", part["blob"].size), *extra))
    more = len(rest) > most > 0
    return Answer(200, {}, document(
        "ListPartsResult", leaf("Bucket", bucket.name), leaf("Key", request.key), leaf("UploadId", request.query["uploadId"]),
        leaf("PartNumberMarker", after), leaf("NextPartNumberMarker", rest[:most][-1] if page else 0), leaf("MaxParts", most),
        leaf("IsTruncated", str(more).lower()), *page))


def list_uploads(server, request, bucket, blob):
    q, encode, most = request.query, encoded(request), numbers(request, "max-uploads", 1000, server.page)
    marker = (q.get("key-marker", "").encode(), q.get("upload-id-marker", ""))
    rows = sorted((up["key"].encode(), name) for name, up in bucket.uploads.items() if up["key"].startswith(q.get("prefix", "")))
    if q.get("key-marker"):
        rows = [r for r in rows if (r > marker if marker[1] else r[0] > marker[0])]
    page, more = rows[:most], len(rows) > most > 0
    out = [element("Upload", leaf("Key", encode(k.decode())), leaf("UploadId", u), leaf("Initiated", iso(bucket.uploads[u]["began"])),
                   leaf("StorageClass", "STANDARD")) for k, u in page]
    nxt = [leaf("NextKeyMarker", encode(page[-1][0].decode())), leaf("NextUploadIdMarker", page[-1][1])] if more else []
    told = [leaf("EncodingType", "url")] if "encoding-type" in q else []
    return Answer(200, {}, document(
        "ListMultipartUploadsResult", leaf("Bucket", bucket.name), leaf("KeyMarker", encode(q.get("key-marker", ""))),
        leaf("UploadIdMarker", marker[1]), leaf("Prefix", encode(q.get("prefix", ""))), *nxt, leaf("MaxUploads", most),
        leaf("IsTruncated", str(more).lower()), *told, *out))


def head_bucket(server, request, bucket, blob):
    return Answer(200, {"x-amz-bucket-region": server.region})


def bucket_location(server, request, bucket, blob):
    region = "" if server.region == "us-east-1" else server.region
    return Answer(200, {}, f'<?xml version="1.0" encoding="UTF-8"?>\n<LocationConstraint xmlns="{NS}">{xml_text(region)}</LocationConstraint>'.encode())


OPERATIONS = {
    "AbortMultipartUpload": abort_upload, "CompleteMultipartUpload": complete_upload, "CopyObject": copy_object,
    "CreateMultipartUpload": create_upload, "DeleteObject": delete_object, "GetBucketLocation": bucket_location,
    "GetObject": get_object, "HeadBucket": head_bucket, "HeadObject": get_object, "ListMultipartUploads": list_uploads,
    "ListObjectsV2": list_objects, "ListParts": list_parts, "PutObject": put_object, "UploadPart": upload_part,
}


# ---- documents that no reader should believe


def hostile(rule, true):
    """The bodies of fault xml. true: what the honest answer was."""
    form, n = rule.get("form", "huge"), rule.get("bytes", 8 << 20)
    start = f'<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="{NS}">'.encode()
    if form == "huge":
        row = f"<Contents><Key>{'k' * 900}</Key><Size>1</Size><ETag>&quot;0&quot;</ETag></Contents>".encode()
        return start + row * (n // len(row)) + b"</ListBucketResult>"
    if form == "deep":
        depth = rule.get("depth", 100_000)
        return start + b"<a>" * depth + b"</a>" * depth + b"</ListBucketResult>"
    if form == "bomb":
        lines = ['<?xml version="1.0"?>', "<!DOCTYPE b [", '<!ENTITY e0 "boom">']
        lines += [f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 11)]
        return "\n".join(lines + ["]>", "<ListBucketResult><Name>&e10;</Name></ListBucketResult>"]).encode()
    if form == "doctype":
        return true.replace(b"?>\n", b'?>\n<!DOCTYPE r SYSTEM "file:///etc/hostname">\n', 1)
    if form == "cut":
        return true[:len(true) // 2]
    if form == "garbage":
        return random.Random(rule.get("seed", 0)).randbytes(min(n, 1 << 20))
    raise ValueError(f"no such form: {form}")


# ---- one connection


class Connection:
    def __init__(self, server, sock):
        self.server, self.sock, self.buffer, self.closing, self.record = server, sock, b"", False, None

    def receive(self, n):
        data = self.sock.recv(n)
        if not data:
            raise Gone
        return data

    def head(self):
        while (end := self.buffer.find(b"\r\n\r\n")) < 0:
            if len(self.buffer) > HEAD_MAX:
                raise Gone
            self.buffer += self.receive(65536)
        lines, self.buffer = self.buffer[:end].decode("latin-1").split("\r\n"), self.buffer[end + 4:]
        m = re.fullmatch(r"([A-Z]+) (\S+) HTTP/1\.1", lines[0])
        headers = [(n.lower(), v.strip(" \t")) for n, c, v in (line.partition(":") for line in lines[1:]) if c and re.fullmatch(r"[\w-]+", n)]
        if not m or len(headers) != len(lines) - 1 or len(headers) > 100:
            self.sock.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            raise Gone
        return Request(m.group(1), m.group(2), headers, self.server.domain)

    def end(self, how):
        """reset: the peer sees a reset; fin: what was sent arrives, then the end."""
        self.server.finish(self.record)
        with contextlib.suppress(OSError):
            if how == "reset":
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                self.sock.shutdown(socket.SHUT_WR)
                self.sock.settimeout(5)
                for _ in range(DRAIN_MAX >> 16):
                    if not self.sock.recv(65536):
                        break
        raise Gone

    def wait_released(self, rule):
        poll = select.poll()
        poll.register(self.sock.fileno(), select.POLLRDHUP | select.POLLHUP | select.POLLERR)
        while not rule["released"].wait(0.05):
            if self.server.ended.is_set() or poll.poll(0):
                raise Gone

    def read_body(self, request, rule, record, take):
        """The body, piece by piece, to take(); a rule may slow, stop or cut it."""
        left, kind, after = record["length"], rule["kind"], rule.get("after", 0)
        stalls = kind == "stall" and rule.get("way") == "request"
        slow = kind == "slow" and rule.get("way") == "request"
        while True:
            got = record["received"]
            if got >= after and kind == "cut_request":
                self.end(rule.get("how", "reset"))
            if got >= after and stalls:
                self.wait_released(rule)
                stalls = False
            if left == 0:
                return
            most = min(left, 1 << 18)
            if got < after and (stalls or slow or kind == "cut_request"):
                most = min(most, after - got)
            elif slow:
                most = min(most, rule.get("step", 1))
                if self.server.ended.wait(rule.get("every", 0.05)):
                    raise Gone
            if self.buffer:
                data, self.buffer = self.buffer[:most], self.buffer[most:]
            else:
                data = self.receive(most)
            take(data)
            record["received"] += len(data)
            left -= len(data)

    def send(self, answer, rule, record, request):
        s, kind, after = self.server, rule["kind"], rule.get("after", 0)
        headers = {"Date": http_date(s.now() + s.date_offset), "Server": "objectstore", "x-amz-request-id": record["id"], **answer.headers}
        chunked = answer.headers.get("Transfer-Encoding") == "chunked"
        bodiless = request.method == "HEAD" or answer.status in (204, 304)
        if not chunked and answer.status not in (204, 304):
            headers.setdefault("Content-Length", str(answer.size()))
        if self.closing or not s.keep_alive:
            self.closing = True
            headers["Connection"] = "close"
        reason = http.HTTPStatus(answer.status).phrase if answer.status in set(http.HTTPStatus) else "Odd"
        head = f"HTTP/1.1 {answer.status} {reason}\r\n" + "".join(f"{n}: {v}\r\n" for n, v in headers.items()) + "\r\n"
        record["status"] = answer.status
        slow = kind == "slow" and rule.get("way", "response") == "response"
        if kind == "stall" and rule.get("way", "response") == "response" and rule.get("head"):
            self.wait_released(rule)
        elif bodiless or not answer.size():
            self.server.finish(record)
        self.write(head.encode("latin-1"), rule if slow and rule.get("head") else None)
        for data in () if bodiless else answer.parts():
            while data:
                sent, most = record["sent"], len(data)
                if kind == "cut_response" and sent >= after:
                    self.end(rule.get("how", "reset"))
                if kind == "stall" and rule.get("way", "response") == "response" and sent >= after:
                    self.wait_released(rule)
                    kind = None
                if sent < after and kind in ("cut_response", "stall", "slow"):
                    most = min(most, after - sent)
                elif slow:
                    most = min(most, rule.get("step", 1))
                piece, data = data[:most], data[most:]
                if kind == "flip" and sent <= rule.get("at", 0) < sent + len(piece):
                    at = rule.get("at", 0) - sent
                    piece = piece[:at] + bytes([piece[at] ^ 1]) + piece[at + 1:]
                wire = f"{len(piece):x}\r\n".encode() + piece + b"\r\n" if chunked else piece
                if sent + len(piece) == answer.size() and kind != "stall":  # who has all of it finds it in the log
                    record["sent"] += len(piece)
                    self.server.finish(record)
                self.write(wire, rule if slow and sent >= after else None)
                record["sent"] = sent + len(piece)
        if kind in ("cut_response", "stall") and rule.get("way", "response") == "response" and record["sent"] >= after:
            self.end(rule.get("how", "reset")) if kind == "cut_response" else self.wait_released(rule)
        if chunked:
            self.sock.sendall(b"0\r\n\r\n")

    def write(self, data, slowly):
        if not slowly:
            self.sock.sendall(data)
            return
        step = slowly.get("step", 1)
        for at in range(0, len(data), step):
            if self.server.ended.wait(slowly.get("every", 0.05)):
                raise Gone
            self.sock.sendall(data[at:at + step])

    def refuse(self, refused, request, record):
        """The rest of the body is read first, within bounds, so that the answer arrives; not where a rule wants it early."""
        record["code"] = refused.code
        rest = record["length"] - record["received"]
        self.closing = self.closing or rest > 0
        if rest > 0 and not record["expects"] and not record["early"]:
            left = min(rest, DRAIN_MAX) - len(self.buffer)
            with contextlib.suppress(OSError, Gone):
                while left > 0:
                    left -= len(self.receive(min(left, 1 << 18)))
        self.send(error_answer(refused, request, record), {"kind": None}, record, request)

    def one(self):
        request = self.head()
        record = self.record = self.server.begin(request)
        try:
            try:
                self.carry_out(request, record)
            except Refused as refused:
                self.refuse(refused, request, record)
            if request.one.get("connection", "").lower() == "close":
                self.closing = True
        finally:
            self.server.finish(record)

    def carry_out(self, request, record):
        s = self.server
        request.read_target()
        record.update(op=request.op, bucket=request.bucket, key=request.key, part=request.part, query=request.query)
        record["length"] = request.length()
        record["expects"] = request.one.get("expect", "").lower() == "100-continue"
        payload = authenticate(request.method, request.target, request.headers, s.keys, s.region, s.now())
        rule = s.rules.take(request.op, request.key, request.part)
        record["fault"] = rule["kind"]
        self.before_body(rule, request, record)
        bucket = s.bucket_for(request)
        if record["expects"] and record["length"]:
            self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            record["expects"] = False
        body = self.take_body(request, rule, record, payload)
        try:
            answer = self.perform(request, rule, bucket, body)
        except Refused:
            self.forget(body)
            raise
        try:
            self.deliver(answer, rule, record, request)
        finally:
            answer.close()

    def before_body(self, rule, request, record):
        if rule["kind"] == "redirect":
            status = rule.get("status", 307)
            headers = {"x-amz-bucket-region": rule["region"]} if "region" in rule else {}
            details = {"Region": rule["region"]} if "region" in rule else {}
            if "location" in rule:
                headers["Location"] = rule["location"] + request.target
                details["Endpoint"] = urllib.parse.urlsplit(rule["location"]).netloc
            raise Refused("PermanentRedirect" if status == 301 else "TemporaryRedirect", headers=headers, status=status,
                          Bucket=request.bucket, **details)
        if rule["kind"] == "error" and rule.get("early"):
            record["early"] = True
            raise self.error_of(rule)

    def error_of(self, rule):
        headers = {}
        if "retry_after" in rule:
            headers["Retry-After"] = str(rule["retry_after"])
        if "retry_after_date" in rule:
            headers["Retry-After"] = http_date(self.server.now() + rule["retry_after_date"])
        return Refused(rule.get("code", "InternalError"), rule.get("message"), headers, rule.get("bare", False), rule.get("status"))

    def take_body(self, request, rule, record, payload):
        """A Blob for object and part, bytes for XML."""
        if request.op in ("PutObject", "UploadPart"):
            blob = Blob(self.server.store, record["length"])
            try:
                self.read_body(request, rule, record, blob.add)
                blob.close().checked = check_body(request, blob, payload)
            except BaseException:
                blob.drop()
                raise
            return blob
        if record["length"] > XML_MAX:
            raise Refused("EntityTooLarge")
        pieces = []
        self.read_body(request, rule, record, pieces.append)
        text = b"".join(pieces)
        if payload != "UNSIGNED-PAYLOAD" and hashlib.sha256(text).hexdigest() != payload:
            raise Refused("XAmzContentSHA256Mismatch")
        return text

    @staticmethod
    def forget(body):
        if isinstance(body, Blob):
            body.drop()

    def perform(self, request, rule, bucket, body):
        s, kind = self.server, rule["kind"]
        if kind in ("error", "ok_error") and not rule.get("done"):
            if kind == "error":
                raise self.error_of(rule)
            self.forget(body)
            return Answer()
        with s.store.lock:
            view = bucket
            if kind == "stale" and (request.op.startswith("List") or request.op == "HeadObject"):
                view = rule["view"].get(bucket.name, Bucket(bucket.name))
            answer = OPERATIONS[request.op](s, request, view, body)
            if isinstance(answer.body, bytes) and answer.body:
                answer.headers.setdefault("Content-Type", "application/xml")
        if kind == "error":
            answer.close()
            return error_answer(self.error_of(rule), request, {"id": "done"})
        return answer

    def deliver(self, answer, rule, record, request):
        kind = rule["kind"]
        if kind == "lost":
            self.end(rule.get("how", "reset"))
        if kind == "raw":
            self.sock.sendall(base64.b64decode(rule["bytes"]))
            self.end("fin")
        if kind == "ok_error":
            refused = Refused(rule.get("code", "InternalError"), rule.get("message"))
            answer.close()
            answer.headers, answer.body = {"Content-Type": "application/xml"}, error_answer(refused, request, record).body
            if rule.get("space"):
                answer.body = b" \n" * 8 + answer.body
        elif kind == "xml":
            answer.close()
            answer.body = hostile(rule, answer.body if isinstance(answer.body, bytes) else b"")
            answer.headers = {"Content-Type": "application/xml"}
            if rule.get("chunked"):
                answer.headers["Transfer-Encoding"] = "chunked"
        elif kind == "wrong_etag":
            falsify(answer, "ETag", "0" * 32)
        elif kind == "wrong_checksum":
            falsify(answer, "ChecksumSHA256", base64.b64encode(hashlib.sha256(b"something else").digest()).decode())
        elif kind == "headers":
            drop = {n.lower() for n in rule.get("drop", ())} | {n.lower() for n in rule.get("set", {})}
            answer.headers = {n: v for n, v in answer.headers.items() if n.lower() not in drop} | rule.get("set", {})
        self.send(answer, rule, record, request)

    def run(self):
        try:
            self.sock.settimeout(self.server.idle)
            if self.server.tls:
                self.sock = self.server.tls.wrap_socket(self.sock, server_side=True)
            while not self.closing:
                self.one()
            self.end("fin")
        except (OSError, Gone):
            pass
        finally:
            self.sock.close()


def falsify(answer, element_name, value):
    header = {"ETag": "ETag", "ChecksumSHA256": "x-amz-checksum-sha256"}[element_name]
    if header in answer.headers:
        answer.headers[header] = f'"{value}"' if header == "ETag" else value
    if isinstance(answer.body, bytes):
        quoted = f"&quot;{value}&quot;" if element_name == "ETag" else value
        answer.body = re.sub(f"<{element_name}>[^<]*</{element_name}>".encode(), f"<{element_name}>{quoted}</{element_name}>".encode(), answer.body)


def error_answer(refused, request, record):
    if refused.bare or request.method == "HEAD":
        return Answer(refused.status, dict(refused.headers))
    details = [leaf(n, v) for n, v in refused.details.items()]
    body = '<?xml version="1.0" encoding="UTF-8"?>\n' + element(
        "Error", leaf("Code", refused.code), leaf("Message", refused.message), *details,
        leaf("Resource", request.target.partition("?")[0]), leaf("RequestId", record["id"]))
    return Answer(refused.status, {"Content-Type": "application/xml", **refused.headers}, body.encode())


# ---- the server


class Server:
    def __init__(self, options):
        self.store = Store(options.root, options.max_bytes)
        self.rules, self.ended = Rules(self.store), threading.Event()
        self.keys = {options.access: {"secret": options.secret, "token": options.token, "expired": False}}
        self.region, self.domain, self.seed = options.region, options.domain, options.seed
        self.offset = self.date_offset = 0.0
        self.page, self.min_part, self.idle = options.page, options.min_part, 120
        self.keep_alive, self.complete_again = True, False
        self.port, self.tls, self.listener = options.port, None, None
        if options.cert:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(options.cert, options.key)
        for name in options.bucket:
            self.store.buckets[name] = Bucket(name)
        self.log, self.under_way, self.counter = [], {}, 0
        self.connections, self.lock = set(), threading.Lock()

    def now(self):
        return time.time() + self.offset

    def begin(self, request):
        with self.lock:
            self.counter += 1
            record = {"id": f"r{self.counter:07d}", "method": request.method, "target": request.target, "op": "", "bucket": "",
                      "key": "", "part": 0, "query": {}, "length": 0, "received": 0, "sent": 0, "status": 0, "code": None,
                      "fault": None, "expects": False, "early": False, "headers": request.one}
            self.under_way[record["id"]] = record
            return record

    def finish(self, record):
        """Moves it from under way to the log, once, before the peer can know that it is over."""
        with self.lock:
            if record is None or not self.under_way.pop(record["id"], None):
                return
            record["headers"] = {n: v for n, v in record["headers"].items() if n not in ("authorization", "x-amz-security-token")}
            self.log.append(record)
            del self.log[:-LOG_MAX]

    def bucket_for(self, request):
        if not request.op or set(request.query) - QUERIES[request.op]:
            raise Refused("NotImplemented", f"{request.method} with {sorted(request.query)}")
        bucket = self.store.buckets.get(request.bucket)
        if bucket is None or bucket.mode == "missing":
            raise Refused("NoSuchBucket", BucketName=request.bucket)
        if bucket.region and bucket.region != self.region:
            headers = {"x-amz-bucket-region": bucket.region}
            raise Refused("PermanentRedirect", headers=headers, Bucket=bucket.name, Region=bucket.region, Endpoint=bucket.location or "")
        if bucket.mode == "none" or (bucket.mode == "ro" and request.op in WRITES):
            raise Refused("AccessDenied")
        return bucket

    def listen(self):
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("127.0.0.1", self.port))
        self.listener.listen(256)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()

    def accept(self, listener):
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self.lock:
                    full = len(self.connections) >= 256
                    if not full:
                        self.connections.add(sock)
                if full:
                    sock.close()
                else:
                    threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock):
        try:
            Connection(self, sock).run()
        finally:
            with self.lock:
                self.connections.discard(sock)

    def cut(self):
        with self.lock:
            for sock in self.connections:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def refuse(self, on):
        if on and self.listener:
            with contextlib.suppress(OSError):
                self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
            self.listener = None
            self.cut()
        elif not on and not self.listener:
            self.listen()


class Control:
    """What the other side of the socket may ask for: do_NAME(**words)."""

    def __init__(self, server):
        self.server, self.store = server, server.store

    def do_fault(self, kind, **rule):
        return self.server.rules.add(kind, **rule)

    def do_clear(self, rule=None):
        self.server.rules.remove(rule)

    def do_release(self):
        self.server.rules.release()

    def do_acted(self):
        return self.server.rules.acted()

    def do_requests(self):
        with self.server.lock:
            return list(self.server.log)

    def do_forget(self):
        with self.server.lock:
            self.server.log.clear()

    def do_under_way(self):
        with self.server.lock:
            return [{n: v for n, v in r.items() if n != "headers"} for r in self.server.under_way.values()]

    def do_settings(self, **settings):
        for name, value in settings.items():
            if name not in ("keep_alive", "complete_again", "page", "min_part", "region", "offset", "date_offset", "idle"):
                raise ValueError(f"no such setting: {name}")
            setattr(self.server, name, value)

    def do_credentials(self, access, secret=None, token=None, expired=False, remove=False):
        if remove:
            del self.server.keys[access]
        else:
            old = self.server.keys.get(access, {})
            self.server.keys[access] = {"secret": secret or old["secret"], "token": token or old.get("token"), "expired": expired}

    def do_refuse(self, on=True):
        self.server.refuse(on)

    def do_cut(self):
        self.server.cut()

    def do_bucket(self, name, **fields):
        bucket = self.store.buckets.setdefault(name, Bucket(name))
        for field, value in fields.items():
            if field not in ("mode", "versioning", "region", "location"):
                raise ValueError(f"a bucket has no {field}")
            setattr(bucket, field, value)

    def do_objects(self, bucket, versions=False):
        out = []
        for key, all_of in sorted(self.store.buckets[bucket].objects.items()):
            for v in all_of if versions else all_of[-1:]:
                if not v.marker or versions:
                    out.append({"key": key, "size": v.size, "etag": v.etag, "version": v.version, "marker": v.marker, "meta": v.meta,
                                "modified": v.modified, "checksums": v.checksums, "kept": v.kept, "path": str(v.blob.path)})
        return out

    def do_uploads(self, bucket):
        return [{"upload": u, "key": up["key"], "began": up["began"], "parts": {n: p["blob"].size for n, p in up["parts"].items()}}
                for u, up in sorted(self.store.buckets[bucket].uploads.items())]

    def do_age(self, bucket, seconds, key=None, upload=None):
        at = self.store.buckets[bucket]
        if upload:
            at.uploads[upload]["began"] -= seconds
        else:
            at.current(key).modified -= seconds

    def do_put(self, bucket, key, path, meta=None):
        blob = put_bytes(self.store, pathlib.Path(path).read_bytes())
        meta = {f"x-amz-meta-{n}": v for n, v in (meta or {}).items()}
        self.store.add(self.store.buckets[bucket], Version(key, blob, etag=blob.md5.hexdigest(), modified=self.server.now(), meta=meta))

    def do_tamper(self, bucket, key, how, at=0, size=0, other=None, back=1, meta=None, honest=False):
        """Behind every client's back. ETag, checksums and metadata stay as they were unless honest."""
        place = self.store.buckets[bucket]
        now = place.current(key)
        if now is None:
            raise ValueError(f"no object {key}")
        if how == "remove":
            place.objects.pop(key)
        elif how == "rollback":
            versions = place.objects[key]
            if len(versions) <= back:
                raise ValueError(f"{key} has {len(versions)} versions")
            del versions[-back:]
        elif how == "meta":
            now.meta = {**now.meta, **{f"x-amz-meta-{n}": v for n, v in meta.items()}}
        elif how == "swap":
            there = place.current(other)
            now.blob, there.blob = there.blob, now.blob
            if honest:
                for field in ("etag", "checksums", "checksum_type", "meta"):
                    a, b = getattr(now, field), getattr(there, field)
                    setattr(now, field, b)
                    setattr(there, field, a)
        elif how in ("change", "truncate"):
            data = bytearray(now.blob.path.read_bytes())
            if how == "truncate":
                del data[size:]
            else:
                data[at] ^= 1
            now.blob = put_bytes(self.store, bytes(data))
            if honest:
                now.etag = now.blob.md5.hexdigest()
                now.checksums = {n: v for n, v in now.blob.checksums().items() if n in now.checksums}
        else:
            raise ValueError(f"no such way to tamper: {how}")

    def answer(self, line):
        try:
            order = json.loads(line)
            with self.store.lock if order["do"] in ("objects", "uploads", "tamper", "age", "bucket", "put") else contextlib.nullcontext():
                return {"ok": getattr(self, "do_" + order.pop("do"))(**order)}
        except Exception as e:  # the test is told, the server lives
            return {"error": f"{type(e).__name__}: {e}"}

    def listen(self, path):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(16)
        threading.Thread(target=self.serve, args=(listener,), daemon=True).start()

    def serve(self, listener):
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=self.talk, args=(sock,), daemon=True).start()

    def talk(self, sock):
        with contextlib.suppress(OSError), sock, sock.makefile("rwb") as f:
            for line in f:
                f.write(json.dumps(self.answer(line)).encode() + b"\n")
                f.flush()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--root", required=True)
    p.add_argument("--control", required=True)
    p.add_argument("--port", type=int, default=0)
    p.add_argument("--bucket", action="append", default=[])
    p.add_argument("--access", default="testkey")
    p.add_argument("--secret", default="testsecret123")
    p.add_argument("--token")
    p.add_argument("--region", default="us-east-1")
    p.add_argument("--domain", default="localhost")
    p.add_argument("--cert")
    p.add_argument("--key")
    p.add_argument("--max-bytes", type=int, default=8 << 30)
    p.add_argument("--min-part", type=int, default=5 << 20)
    p.add_argument("--page", type=int, default=1000)
    p.add_argument("--seed", default=str(os.getpid()))
    options = p.parse_args()
    os.makedirs(options.root, exist_ok=True)
    server = Server(options)
    Control(server).listen(options.control)
    server.listen()
    print(f"ready {server.port}", flush=True)
    sys.stdin.buffer.read()
    server.ended.set()
    shutil.rmtree(options.root, ignore_errors=True)
    os._exit(0)  # threads wait on sockets


if __name__ == "__main__":
    main()
