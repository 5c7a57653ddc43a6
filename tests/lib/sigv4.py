"""Signature Version 4 from its specification, sharing nothing with the worker: the judge of its signer. Judged itself by
AWS's vectors and by botocore's answers in tests/vectors/sigv4 (test_signer.py).
"""
import calendar
import hashlib
import hmac
import time

PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~")
EMPTY = hashlib.sha256(b"").hexdigest()


def encode(raw, safe=b""):
    return "".join(chr(b) if b in PLAIN or b in safe else f"%{b:02X}" for b in raw)


def canonical_query(pairs):
    """pairs: raw bytes. Sorted once they are encoded."""
    return "&".join("=".join(p) for p in sorted((encode(n), encode(v)) for n, v in pairs))


def canonical_headers(headers):
    """(the block, the list of names) of [(name, value)]; values of one name in their order."""
    folded = {}
    for name, value in headers:
        folded.setdefault(name.lower().strip(), []).append(" ".join(value.replace("\t", " ").split(" ")).strip())
    squeezed = {n: ",".join(" ".join(filter(None, v.split(" "))) for v in vs) for n, vs in folded.items()}
    names = sorted(squeezed)
    return "".join(f"{n}:{squeezed[n]}\n" for n in names), ";".join(names)


def stamp(unix):
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(unix))


def unix_of(text):
    return calendar.timegm(time.strptime(text, "%Y%m%dT%H%M%SZ"))


def key_of(secret, day, region, service):
    key = b"AWS4" + secret.encode()
    for word in (day, region, service, "aws4_request"):
        key = hmac.new(key, word.encode(), hashlib.sha256).digest()
    return key


def canonical(method, path, query, headers, payload):
    """path raw bytes, query raw pairs, headers all that are signed, payload as the request names it."""
    block, names = canonical_headers(headers)
    return "\n".join([method, encode(path, b"/"), canonical_query(query), block, names, payload]), names


def authorize(method, path, query, headers, payload, access, secret, region, service, date):
    """Value of the Authorization header; headers must hold host and x-amz-date."""
    text, names = canonical(method, path, query, headers, payload)
    scope = f"{date[:8]}/{region}/{service}/aws4_request"
    to_sign = "\n".join(["AWS4-HMAC-SHA256", date, scope, hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()])
    signature = hmac.new(key_of(secret, date[:8], region, service), to_sign.encode(), hashlib.sha256).hexdigest()
    return f"AWS4-HMAC-SHA256 Credential={access}/{scope}, SignedHeaders={names}, Signature={signature}"
