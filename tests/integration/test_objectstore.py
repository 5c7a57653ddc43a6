"""The object store of the tests proves itself: it refuses what S3 refuses, and each of its faults is seen by a client."""
import base64
import concurrent.futures
import email.utils
import hashlib
import http.client
import importlib.util
import json
import pathlib
import random
import shutil
import socket
import ssl
import subprocess
import sys
import time
import zlib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import dr  # noqa: E402
import objectstore  # noqa: E402

spec = importlib.util.spec_from_file_location("fake", objectstore.FAKE)
fake = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fake)

VECTORS = pathlib.Path(__file__).resolve().parents[1] / "vectors/sigv4"
MIB = 1 << 20
RANDOM = random.Random(5)


def sha256(data):
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def refused(reply, status, code):
    assert (reply.status, reply.code) == (status, code), reply


def good(reply, status=200):
    assert reply.status == status and reply.code is None, reply
    return reply


def broken(fn):
    """The connection ended where an answer was due."""
    try:
        reply = fn()
    except (http.client.HTTPException, OSError) as e:
        return e
    raise AssertionError(f"it answered: {reply}")


# ---- signatures


def verdict(method, target, headers, now, keys=None, region="us-east-1"):
    """None, or the code of the refusal."""
    try:
        fake.authenticate(method, target, [(n.lower(), str(v)) for n, v in headers.items()],
                          keys or {"k": {"secret": "s"}}, region, now)
        return None
    except fake.Refused as e:
        return e.code


def case_published_examples(c):
    examples = json.loads((VECTORS / "s3_examples.json").read_text())
    for e in examples:
        now, keys = e["now"], {e["access"]: {"secret": e["secret"]}}
        target, signed = objectstore.sign(e["method"], e["path"], e["query"], {"Host": e["host"], **dict(e["headers"])}, e["sha256"],
                                          e["access"], e["secret"], e["region"], now)
        assert signed["Authorization"].endswith("Signature=" + e["signature"]), (e["name"], signed)
        for late, code in ((0, None), (899, None), (-899, None), (901, "RequestTimeTooSkewed"), (-901, "RequestTimeTooSkewed")):
            assert verdict(e["method"], target, signed, now + late, keys) == code, (e["name"], late)
    assert len(examples) == 4


def random_text(alphabet, most):
    return "".join(RANDOM.choice(alphabet) for _ in range(RANDOM.randint(1, most)))


def case_two_implementations_agree(c):
    """Random keys, queries and headers, signed by one and verified by the other; one byte elsewhere, and it is refused."""
    alphabet = "abcXYZ019-._~ +%&=?#:@!$'()*,;/\\\"<>|^`[]{}\täß€日😀"
    for i in range(1500):
        method = RANDOM.choice(["GET", "PUT", "POST", "HEAD", "DELETE"])
        path = "/" + random_text(alphabet, 40)
        query = [(random_text(alphabet, 8), random_text(alphabet, 12) if RANDOM.random() < 0.8 else "") for _ in range(RANDOM.randint(0, 5))]
        headers = {"Host": "h", "x-amz-meta-a": "  two   spaces " + random_text("abc  ", 9), "Content-Type": "text/plain"}
        payload = hashlib.sha256(path.encode()).hexdigest()
        target, signed = objectstore.sign(method, path, query, headers, payload, "k", "s", "us-east-1", 1e9 + i, token="t" if i % 2 else None)
        keys = {"k": {"secret": "s", "token": "t" if i % 2 else None}}
        assert verdict(method, target, signed, 1e9 + i, keys) is None, (method, target, signed)
        spoiled = dict(signed)
        what = i % 6
        if what == 0:
            method = "PUT" if method != "PUT" else "GET"
        elif what == 1:
            target = "/x" + target[1:]
        elif what == 2:
            target += "&z=1" if "?" in target else "?z=1"
        elif what == 3:
            spoiled["x-amz-meta-a"] += "."
        elif what == 4:
            spoiled["x-amz-content-sha256"] = hashlib.sha256(b"else").hexdigest()
        else:
            spoiled["Host"] = "other"
        assert verdict(method, target, spoiled, 1e9 + i, keys) == "SignatureDoesNotMatch", (what, method, target)


def case_a_wrong_signature_is_refused(c):
    """Each component over the wire; what came with it is not kept."""
    s = objectstore.start(c)

    def spoil(**change):
        def alter(request):
            for name, value in change.items():
                if name == "headers":
                    request["headers"].update(value)
                else:
                    request[name] = value(request[name]) if callable(value) else value
        return alter
    wrong = {
        "method": ("SignatureDoesNotMatch", spoil(method=lambda m: "POST" if m == "PUT" else "HEAD", target=lambda t: t + "?uploads")),
        "path": ("SignatureDoesNotMatch", spoil(target=lambda t: t + "x")),
        "query": ("SignatureDoesNotMatch", spoil(target=lambda t: t + "?partNumber=1&uploadId=u")),
        "a signed header": ("SignatureDoesNotMatch", spoil(headers={"x-amz-meta-hash": "other"})),
        "the date": ("SignatureDoesNotMatch", lambda r: r["headers"].update({"x-amz-date": r["headers"]["x-amz-date"][:-3] + (
            "01Z" if r["headers"]["x-amz-date"][-3:] != "01Z" else "02Z")})),
        "the host": ("SignatureDoesNotMatch", spoil(headers={"Host": "127.0.0.1"})),
        "the payload hash": ("SignatureDoesNotMatch", spoil(headers={"x-amz-content-sha256": objectstore.UNSIGNED})),
        "the payload": ("XAmzContentSHA256Mismatch", spoil(body=b"something elsE")),
        "a header that is not signed": ("AccessDenied", spoil(headers={"x-amz-storage-class": "GLACIER"})),
        "no signature": ("AccessDenied", lambda r: r["headers"].pop("Authorization")),
        "no payload hash": ("InvalidRequest", lambda r: r["headers"].pop("x-amz-content-sha256")),
        "half a header": ("AuthorizationHeaderMalformed", lambda r: r["headers"].update(Authorization=r["headers"]["Authorization"][:-70])),
        "another day in the scope": ("AuthorizationHeaderMalformed", lambda r: r["headers"].update(Authorization=r["headers"]["Authorization"].replace(
            r["headers"]["x-amz-date"][:8], "20200101"))),
        "signed headers out of order": ("SignatureDoesNotMatch", lambda r: r["headers"].update(Authorization=r["headers"]["Authorization"].replace(
            "SignedHeaders=host;", "SignedHeaders=x-amz-date;host;"))),
    }
    for what, (code, alter) in wrong.items():
        reply = s.request("PUT", "k", headers={"x-amz-meta-hash": "1"}, body=b"something else", alter=alter)
        assert reply.code == code and reply.status in (400, 403), (what, reply)
    for what, (status, code, ways) in {
            "secret": (403, "SignatureDoesNotMatch", {"secret": "wrong"}), "key": (403, "InvalidAccessKeyId", {"access": "nobody"}),
            "region": (400, "AuthorizationHeaderMalformed", {"region": "eu-central-1"}),
            "service": (400, "AuthorizationHeaderMalformed", {"service": "iam"}),
            "a token that nobody gave": (400, "InvalidToken", {"token": "t"}),
            "20 minutes behind": (403, "RequestTimeTooSkewed", {"shift": -1200}),
            "20 minutes ahead": (403, "RequestTimeTooSkewed", {"shift": 1200})}.items():
        refused(s.put("k", b"data", **ways), status, code)
    assert s.put("k", b"data", region="eu-central-1").value("Region") == "us-east-1"
    assert s.objects() == {} and s.ask("requests")[-1]["code"] == "AuthorizationHeaderMalformed"
    assert not any("authorization" in r["headers"] for r in s.ask("requests"))
    good(s.put("k", b"data", shift=-600))
    good(s.put("k", b"data", payload=objectstore.UNSIGNED))


def case_session_tokens_and_clocks(c):
    s = objectstore.start(c, token="the token")
    good(s.put("k", b"1"))
    refused(s.put("k", b"2", token=None), 403, "InvalidAccessKeyId")
    refused(s.put("k", b"2", token="another"), 400, "InvalidToken")
    s.credentials("testkey", expired=True)
    refused(s.put("k", b"2"), 400, "ExpiredToken")
    s.credentials("testkey", token="the next", expired=False)
    refused(s.put("k", b"2"), 400, "InvalidToken")
    s.token = "the next"
    good(s.put("k", b"2"))
    s.set(offset=3600)
    refused(s.put("k", b"3"), 403, "RequestTimeTooSkewed")
    ahead = s.get("k", shift=3600).headers["date"]
    assert 3500 < email.utils.parsedate_to_datetime(ahead).timestamp() - time.time() < 3700, ahead
    s.set(offset=0, date_offset=-7200)
    behind = good(s.get("k")).headers["date"]
    assert 7000 < time.time() - email.utils.parsedate_to_datetime(behind).timestamp() < 7400, behind
    s.credentials("testkey", remove=True)
    refused(s.get("k"), 403, "InvalidAccessKeyId")


def case_curl_signs(c):
    """A third implementation, for requests that curl signs rightly."""
    if not shutil.which("curl"):
        raise dr.Needs("curl")
    s = objectstore.start(c)
    (c.dir / "body").write_bytes(RANDOM.randbytes(300_000))

    def curl(*words, secret="testsecret123"):
        (c.dir / "rc").write_text(f'user = "testkey:{secret}"\n')
        p = subprocess.run(["curl", "-sS", "-K", c.dir / "rc", "--aws-sigv4", "aws:amz:us-east-1:s3", "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD",
                            "-w", "%{http_code}", *words], capture_output=True, check=True)
        return p.stdout[:-3], int(p.stdout[-3:])
    assert curl("-T", c.dir / "body", "-H", "x-amz-meta-a: b", f"{s.url}/backups/a%20b") == (b"", 200)
    assert s.read("a b") == (c.dir / "body").read_bytes() and s.objects()["a b"]["meta"] == {"x-amz-meta-a": "b"}
    assert curl("-r", "10-19", f"{s.url}/backups/a%20b") == ((c.dir / "body").read_bytes()[10:20], 206)
    assert b"<Key>a b</Key>" in curl(f"{s.url}/backups?list-type=2&prefix=a")[0]
    assert curl("-X", "DELETE", f"{s.url}/backups/a%20b")[1] == 204
    assert curl(f"{s.url}/backups/a%20b", secret="wrong")[1] == 403 and s.objects() == {}


# ---- what S3 does


def case_objects(c):
    s = objectstore.start(c)
    data = RANDOM.randbytes(100_000)
    for key in ("plain", "a b+c%20d", "ä/€/😀", "x//y", "n/../up", "~(*)'!&<>\"", "tab\there", "k" * 1024):
        reply = good(s.put(key, data, {"x-amz-meta-sha256": "abc", "Content-Type": "x/y"}))
        assert reply.headers["etag"] == f'"{hashlib.md5(data).hexdigest()}"' and reply.headers["x-amz-checksum-sha256"] == sha256(data)
        assert good(s.get(key)).body == data, key
        head = s.head(key, headers={"x-amz-checksum-mode": "ENABLED"})
        assert head.status == 200 and head.body == b"" and head.headers["content-length"] == "100000", (key, head)
        assert head.headers["x-amz-meta-sha256"] == "abc" and head.headers["x-amz-checksum-sha256"] == sha256(data), head
        assert head.headers["content-type"] == "x/y" and "x-amz-checksum-sha256" not in s.head(key).headers
    refused(s.put("k" * 1025, b""), 400, "KeyTooLongError")
    assert sorted(s.objects()) == sorted(s.list())
    for value, status, want in (("bytes=0-9", 206, data[:10]), ("bytes=99990-", 206, data[99990:]), ("bytes=-7", 206, data[-7:]),
                                ("bytes=99990-200000", 206, data[99990:]), ("bytes=0-1,3-4", 200, data), ("lines=1-2", 200, data)):
        reply = s.get("plain", headers={"Range": value})
        assert (reply.status, reply.body) == (status, want), (value, reply.status)
    assert s.get("plain", headers={"Range": "bytes=5-9"}).headers["content-range"] == "bytes 5-9/100000"
    refused(s.get("plain", headers={"Range": "bytes=100000-"}), 416, "InvalidRange")
    etag = s.head("plain").headers["etag"]
    assert s.get("plain", headers={"If-Match": etag}).status == 200
    refused(s.get("plain", headers={"If-Match": '"other"'}), 412, "PreconditionFailed")
    assert s.get("plain", headers={"If-None-Match": etag}).status == 304
    refused(s.put("plain", b"new", {"If-None-Match": "*"}), 412, "PreconditionFailed")
    refused(s.put("plain", b"new", {"If-Match": '"other"'}), 412, "PreconditionFailed")
    refused(s.put("absent", b"new", {"If-Match": '"other"'}), 404, "NoSuchKey")
    good(s.put("plain", b"new", {"If-Match": etag}))
    assert s.read("plain") == b"new"
    refused(s.get("absent"), 404, "NoSuchKey")
    assert s.head("absent").status == 404 and s.head("absent").body == b""
    assert s.request("DELETE", "plain").status == 204 == s.request("DELETE", "plain").status
    assert good(s.request("PUT", "copy", headers={"x-amz-copy-source": "/backups/x//y"})).value("ETag") and s.read("copy") == data
    assert good(s.request("HEAD")).headers["x-amz-bucket-region"] == "us-east-1" and good(s.request("GET", query=[("location", "")]))
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        race = list(threads.map(lambda i: s.put("one", b"%d" % i, {"If-None-Match": "*"}).status, range(8)))
    assert sorted(race) == [200] + [412] * 7, race
    assert len(list((s.dir / "bytes").iterdir())) == len(s.objects(versions=True)), "what was refused is not kept"


def case_checksums(c):
    s = objectstore.start(c)
    md5 = lambda data: base64.b64encode(hashlib.md5(data).digest()).decode()  # noqa: E731
    crc = base64.b64encode(zlib.crc32(b"data").to_bytes(4, "big")).decode()
    for name, value, code in (("x-amz-checksum-sha256", sha256(b"other"), "BadDigest"), ("x-amz-checksum-sha256", "abc", "InvalidRequest"),
                              ("x-amz-checksum-crc32", "AAAAAA==", "BadDigest"), ("Content-MD5", md5(b"other"), "BadDigest"),
                              ("Content-MD5", "?", "InvalidDigest"), ("x-amz-checksum-crc64nvme", "AAAAAAAAAAA=", "NotImplemented")):
        reply = s.request("PUT", "k", headers={name: value}, body=b"data", payload=objectstore.UNSIGNED)
        assert reply.code == code, (name, reply)
    assert s.objects() == {}
    good(s.request("PUT", "k", headers={"Content-MD5": md5(b"data"), "x-amz-checksum-crc32": crc}, body=b"data"))
    assert s.objects()["k"]["checksums"] == {"crc32": crc}


def case_multipart(c):
    s = objectstore.start(c)
    one, two = RANDOM.randbytes(5 * MIB), RANDOM.randbytes(1000)
    up = s.begin("big", headers={"x-amz-meta-hash": "h"})
    assert s.objects() == {} and [u["upload"] for u in s.uploads()] == [up]
    refused(s.request("PUT", "big", [("partNumber", "1"), ("uploadId", up)], body=one), 400, "InvalidRequest")
    refused(s.part("big", "bogus", 1, two), 404, "NoSuchUpload")
    refused(s.part("big", up, 10001, two), 400, "InvalidArgument")
    small, first, last = s.part("big", up, 1, b"small"), s.part("big", up, 1, one), s.part("big", up, 3, two)
    refused(s.complete("big", up, [(1, small), (3, last)]), 400, "InvalidPart")
    refused(s.complete("big", up, [(3, last), (1, first)]), 400, "InvalidPartOrder")
    refused(s.complete("big", up, [(1, first), (2, last)]), 400, "InvalidPart")
    refused(s.complete("big", up, []), 400, "MalformedXML")
    refused(s.request("POST", "big", [("uploadId", up)], body=b"<!DOCTYPE a><CompleteMultipartUpload><Part><PartNumber>1</PartNumber>"
                      b"<ETag>0</ETag></Part></CompleteMultipartUpload>"), 400, "MalformedXML")
    for wrong in ({"x-amz-checksum-sha256": sha256(b"")}, {"etag": first.headers["etag"]}):
        refused(s.complete("big", up, [(1, first), (3, objectstore.Reply(200, {**last.headers, **wrong}, b""))]), 400, "InvalidPart")
    parts = s.request("GET", "big", [("uploadId", up), ("max-parts", "1")])
    assert parts.values("PartNumber") == ["1"] and parts.value("IsTruncated") == "true" and parts.value("ChecksumSHA256") == sha256(one), parts
    more = s.request("GET", "big", [("uploadId", up), ("part-number-marker", parts.value("NextPartNumberMarker"))])
    assert more.values("PartNumber") == ["3"] and more.value("Size") == "1000" and more.value("IsTruncated") == "false"
    good(s.put("big", b"in the way"))
    refused(s.complete("big", up, [(1, first), (3, last)], {"If-None-Match": "*"}), 412, "PreconditionFailed")
    s.request("DELETE", "big")
    done = good(s.complete("big", up, [(1, first), (3, last)], {"If-None-Match": "*"}))
    whole = hashlib.sha256(hashlib.sha256(one).digest() + hashlib.sha256(two).digest()).digest()
    assert done.value("ChecksumSHA256") == base64.b64encode(whole).decode() + "-2" and done.value("ETag").endswith("-2&quot;"), done
    head = s.head("big", headers={"x-amz-checksum-mode": "ENABLED"}).headers
    assert s.read("big") == one + two and head["x-amz-meta-hash"] == "h" and head["x-amz-checksum-type"] == "COMPOSITE"
    refused(s.complete("big", up, [(1, first), (3, last)]), 404, "NoSuchUpload")
    s.set(complete_again=True)
    good(s.complete("big", up, [(1, first), (3, last)]))
    up = s.begin("small")
    parts = [(n, s.part("small", up, n, b"x")) for n in (1, 2)]
    refused(s.complete("small", up, parts), 400, "EntityTooSmall")
    s.set(min_part=1)
    good(s.complete("small", up, parts))
    ups = sorted(((k, s.begin(k)) for k in ("a", "b", "b", "c")))
    seen, marker = [], []
    while True:
        page = good(s.request("GET", query=[("uploads", ""), ("max-uploads", "1"), *marker]))
        seen += zip(page.values("Key"), page.values("UploadId"))
        if page.value("IsTruncated") == "false":
            break
        marker = [("key-marker", page.value("NextKeyMarker")), ("upload-id-marker", page.value("NextUploadIdMarker"))]
    assert seen == ups, (seen, ups)
    s.age(3 * 86400, upload=ups[0][1])
    first = s.request("GET", query=[("uploads", "")]).values("Initiated")[0]
    assert time.time() - objectstore.iso(first) > 2 * 86400, first
    for key, up in ups:
        assert s.request("DELETE", key, [("uploadId", up)]).status == 204
        refused(s.request("DELETE", key, [("uploadId", up)]), 404, "NoSuchUpload")
    assert s.uploads() == [] and len(list((s.dir / "bytes").iterdir())) == len(s.objects(versions=True))


def case_lists(c):
    s = objectstore.start(c, page=3)
    keys = ["a/1", "a/2", "a/b/3", "a/ä", "a/z&<", "b", "c/1"]
    for key in keys:
        s.lay(key, b"x")
    assert s.list("a/") == sorted(keys[:5], key=str.encode)
    page = good(s.request("GET", query=[("list-type", "2"), ("delimiter", "/"), ("start-after", "a0"), ("encoding-type", "url")]))
    assert page.values("Key") == ["b"] and page.values("CommonPrefixes") == ["<Prefix>c/</Prefix>"] and page.value("EncodingType") == "url", page
    page = good(s.request("GET", query=[("list-type", "2"), ("prefix", "a/"), ("start-after", "a/b/3"), ("encoding-type", "url")]))
    assert page.values("Key") == ["a/z%26%3C", "a/%C3%A4"] and page.value("KeyCount") == "2", page
    refused(s.request("GET", query=[("list-type", "2"), ("continuation-token", "bogus")]), 400, "InvalidArgument")
    refused(s.request("GET", query=[("list-type", "2"), ("max-keys", "many")]), 400, "InvalidArgument")
    assert s.request("GET", query=[("list-type", "2"), ("max-keys", "0")]).value("IsTruncated") == "false"


def case_versions_and_virtual_hosts(c):
    s = objectstore.start(c)
    s.configure("backups", versioning=True)
    first, second = (good(s.put("k", data)).headers["x-amz-version-id"] for data in (b"one", b"two"))
    assert s.get("k").body == b"two" and s.get("k", query=[("versionId", first)]).body == b"one" and first != second
    gone = s.request("DELETE", "k")
    assert gone.status == 204 and gone.headers["x-amz-delete-marker"] == "true"
    refused(s.get("k"), 404, "NoSuchKey")
    assert s.get("k", query=[("versionId", second)]).body == b"two"
    refused(s.get("k", query=[("versionId", "v0")]), 404, "NoSuchVersion")
    assert s.request("DELETE", "k", [("versionId", gone.headers["x-amz-version-id"])]).status == 204 and s.get("k").body == b"two"
    host = f"backups.localhost:{s.port}"
    good(s.put("by/host", b"x", virtual=host))
    assert s.get("by/host", virtual=host).body == b"x" and s.read("by/host") == b"x"
    refused(s.get("by/host", virtual=f"nothere.localhost:{s.port}"), 404, "NoSuchBucket")


def case_buckets_without_rights_or_elsewhere(c):
    s = objectstore.start(c, buckets=("backups", "far"))
    s.lay("k", b"x")
    refused(s.get("k", bucket="none"), 404, "NoSuchBucket")
    s.configure("backups", mode="ro")
    refused(s.put("k", b"y"), 403, "AccessDenied")
    refused(s.request("DELETE", "k"), 403, "AccessDenied")
    refused(s.request("POST", "k", [("uploads", "")]), 403, "AccessDenied")
    assert s.get("k").body == b"x"
    s.configure("backups", mode="none")
    refused(s.get("k"), 403, "AccessDenied")
    s.configure("backups", mode="missing")
    refused(s.put("k", b"y"), 404, "NoSuchBucket")
    s.configure("backups", mode="rw")
    assert s.read("k") == b"x"
    s.configure("far", region="eu-central-1", location="s3.eu-central-1.example")
    reply = s.get("k", bucket="far")
    refused(reply, 301, "PermanentRedirect")
    assert reply.headers["x-amz-bucket-region"] == "eu-central-1" and reply.value("Endpoint") == "s3.eu-central-1.example"


def case_what_it_does_not_know_or_bear(c):
    s = objectstore.start(c, max_bytes=10_000)
    for method, key, query in (("GET", "", [("versions", "")]), ("GET", "k", [("acl", "")]), ("PUT", "", []), ("POST", "k", []), ("POST", "", [("delete", "")])):
        refused(s.request(method, key, query), 501, "NotImplemented")
    refused(s.put("k", b"x", {"x-amz-object-lock-mode": "GOVERNANCE"}), 400, "InvalidRequest")
    refused(s.put("k", b"x", {"x-amz-meta-a": "b" * 3000}), 400, "MetadataTooLarge")
    refused(s.put("k", b"x", payload="STREAMING-AWS4-HMAC-SHA256-PAYLOAD"), 501, "NotImplemented")
    refused(s.put("k", b"", alter=lambda r: r["headers"].update({"Transfer-Encoding": "chunked"})), 501, "NotImplemented")
    refused(s.get("k", alter=lambda r: r.update(target=r["target"] + "%")), 400, "InvalidURI")
    refused(s.put("k", b"x" * 10_001), 400, "EntityTooLarge")
    refused(s.request("POST", "k", [("uploadId", "u")], body=b" " * (3 * MIB)), 400, "EntityTooLarge")
    with socket.create_connection((s.host, s.port)) as raw:
        raw.sendall(b"PUT /backups/k HTTP/1.1\r\nHost: x\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 411")
    for head in (b"hello\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n"):
        with socket.create_connection((s.host, s.port)) as raw:
            raw.sendall(head)
            assert raw.recv(100).startswith(b"HTTP/1.1 400"), head
    with socket.create_connection((s.host, s.port)) as raw:  # a head without end
        broken(lambda: [raw.sendall(b"a" * 10_000) for _ in range(100_000)])
    idle = [socket.create_connection((s.host, s.port), 20) for _ in range(300)]
    assert any(not x.recv(1) for x in idle[-1:]), "more connections than it bears"
    for x in idle:
        x.close()
    dr.wait(lambda: works(s))
    assert s.objects() == {} and list((s.dir / "bytes").iterdir()) == []


def works(s):
    try:
        return s.request("HEAD").status == 200
    except (OSError, http.client.HTTPException):
        return False


def case_tls(c):
    certs = objectstore.Certificates(c.dir / "certs")
    s = objectstore.start(c, cert=certs.pem(), ca=certs.file)
    good(s.put("k", b"x" * MIB))
    assert s.get("k").body == b"x" * MIB and s.settings()["OFFSITE_STORAGE_CA_FILE"] == certs.file
    for name, reason in (("wronghost", "mismatch"), ("expired", "expired"), ("other", "unable to get local issuer")):
        bad = objectstore.start(c, name=name, cert=certs.pem(name), ca=certs.file)
        try:
            bad.get("k")
            raise AssertionError(f"{name} was believed")
        except ssl.SSLCertVerificationError as e:
            assert reason in str(e), (name, e)
        assert bad.requests() == []


# ---- what it does to clients


def case_errors_on_request(c):
    s = objectstore.start(c)
    rule = s.fault("error", code="SlowDown", op="PutObject", key="a/*", skip=1, count=3, retry_after=7)
    got = [s.put("a/1", b"x") for _ in range(6)]
    assert [r.status for r in got] == [200, 503, 503, 503, 200, 200] and got[1].code == "SlowDown" and got[1].headers["retry-after"] == "7"
    good(s.put("b", b"x"))
    assert s.acted(rule) == 3 and [r["status"] for r in s.requests("PutObject", fault="error")] == [503] * 3
    s.clear()
    s.fault("error", code="InternalError", retry_after_date=90, count=1)
    when = email.utils.parsedate_to_datetime(s.get("b").headers["retry-after"]).timestamp() - time.time()
    assert 60 < when < 120, when
    s.fault("error", code="AccessDenied", bare=True, count=1)
    reply = s.get("b")
    assert reply.status == 403 and reply.body == b""
    s.fault("error", code="ExpiredToken", count=1)
    refused(s.get("b"), 400, "ExpiredToken")
    s.fault("error", code="TeaPot", status=418, message="I am a teapot", count=1)
    refused(s.get("b"), 418, "TeaPot")
    s.clear()
    s.fault("error", op="PutObject", done=True, count=1)
    refused(s.put("done", b"x"), 500, "InternalError")
    assert s.read("done") == b"x"
    s.fault("error", op="PutObject", early=True, count=1)  # the body is not even sent
    refused(s.put("early", b"x" * 100, alter=lambda r: (r["headers"].update({"Content-Length": "100"}), r.update(body=b""))), 500, "InternalError")
    assert s.requests("PutObject")[-1]["received"] == 0 and "early" not in s.objects()
    s.clear()
    for op, setup in (("CompleteMultipartUpload", None), ("CopyObject", None)):
        s.fault("ok_error", op=op, count=1, space=True)
    up = s.begin("m")
    parts = [(1, s.part("m", up, 1, b"x"))]
    reply = s.complete("m", up, parts)
    assert reply.status == 200 and reply.code == "InternalError" and reply.body[:1] == b" " and "m" not in s.objects(), reply
    good(s.complete("m", up, parts))
    reply = s.request("PUT", "c", headers={"x-amz-copy-source": "/backups/m"})
    assert reply.status == 200 and reply.code == "InternalError" and "c" not in s.objects()


def case_rules_choose(c):
    s = objectstore.start(c)
    s.set(min_part=1)
    s.fault("error", op=["UploadPart", "List*"], part=2, count=1)
    up = s.begin("m")
    assert [s.part("m", up, n, b"x").status for n in (1, 2, 2, 3)] == [200, 500, 200, 200]
    s.clear()
    runs = []
    for seed in (1, 1, 2):
        s.fault("error", op="HeadObject", probability=0.5, seed=seed)
        runs.append([s.head("m").status for _ in range(40)])
        s.clear()
    assert runs[0] == runs[1] != runs[2] and 5 < runs[0].count(500) < 35, runs
    s.fault("error", op="GetObject")
    refused(s.get("m", secret="wrong"), 403, "SignatureDoesNotMatch")  # a fault hides no wrong signature
    for words in ({"kind": "nonsense"}, {"kind": "error", "probability": 0.5, "op": "x", "seed": []}):
        try:
            s.fault(**words)
            raise AssertionError(f"taken: {words}")
        except AssertionError as e:
            assert "Error" in str(e), e


def case_cut_bodies(c):
    s = objectstore.start(c)
    s.lay("k", b"old" * 1000)
    data = RANDOM.randbytes(200_000)
    for at in (0, 1, 65_536, 199_999, 200_000):
        for how in ("reset", "fin"):
            s.fault("cut_request", op="PutObject", after=at, how=how, count=1)
            broken(lambda: s.put("k", data))
            dr.wait(lambda: len(s.requests("PutObject")) and not s.under_way())
            last = s.requests("PutObject")[-1]
            assert last["received"] == at and last["status"] == 0 and s.read("k") == b"old" * 1000, last
    good(s.put("k", data))
    for at in (0, 1, 100_000, 199_999):
        for how in ("reset", "fin"):
            s.fault("cut_response", op="GetObject", after=at, how=how, count=1)
            e = broken(lambda: s.get("k"))
            if how == "fin":
                assert isinstance(e, http.client.IncompleteRead) and e.partial == data[:at], (at, e)
            dr.wait(lambda: not s.under_way())
            assert s.requests("GetObject")[-1]["sent"] == at
    assert s.get("k").body == data


def case_slow_and_silent(c):
    """Seen from the server's side: part of it has come, and more of it comes; nobody looks at a clock."""
    s = objectstore.start(c)
    data = RANDOM.randbytes(1000)
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        for way, op in (("request", "PutObject"), ("response", "GetObject")):
            field = "received" if way == "request" else "sent"
            s.fault("slow", way=way, op=op, after=900, step=5, every=0.02, count=1, head=True)
            reply = thread.submit(s.put if way == "request" else s.get, "k", *([data] if way == "request" else []))
            seen = set()

            def between():
                seen.update(r[field] for r in s.under_way())
                return reply.done()
            dr.wait(between)
            assert reply.result().status == 200 and any(900 < n < 1000 for n in seen), (way, seen)
            assert s.get("k").body == data
            s.fault("stall", way=way, op=op, after=500, count=1)
            reply = thread.submit(s.put if way == "request" else s.get, "k", *([data] if way == "request" else []))
            dr.wait(lambda: [r for r in s.under_way() if r[field] == 500])
            assert not reply.done()
            s.release()
            assert reply.result().status == 200
        s.fault("stall", way="response", op="DeleteObject", head=True, count=1)
        reply = thread.submit(s.request, "DELETE", "gone")
        dr.wait(lambda: [r for r in s.under_way() if r["op"] == "DeleteObject" and r["status"] == 204])
        assert not reply.done()
        s.clear()
        assert reply.result().status == 204
    # Who gives up frees the server.
    rule = s.fault("stall", way="response", op="GetObject", after=10)
    connection = s.connect()
    target, headers = objectstore.sign("GET", "/backups/k", [], {"Host": f"{s.host}:{s.port}"}, objectstore.UNSIGNED, s.access, s.secret, s.region, time.time())
    connection.request("GET", target, headers=headers)
    dr.wait(lambda: [r for r in s.under_way() if r["sent"] == 10])
    connection.close()
    dr.wait(lambda: not s.under_way())
    assert s.acted(rule) == 1 and s.requests()[-1]["sent"] == 10


def case_lost_answers(c):
    s = objectstore.start(c)
    s.set(min_part=1)
    up = s.begin("m")
    parts = [(1, s.part("m", up, 1, b"all of it"))]
    for how, kept in (("reset", "m"), ("fin", "n")):
        s.fault("lost", op="CompleteMultipartUpload", how=how, count=1)
        broken(lambda: s.complete("m" if how == "reset" else "n", up, parts))
        assert s.read(kept) == b"all of it" and s.requests("CompleteMultipartUpload")[-1]["fault"] == "lost"
        up = s.begin("n")
        parts = [(1, s.part("n", up, 1, b"all of it"))]
    s.fault("lost", op="PutObject", count=1)
    broken(lambda: s.put("p", b"x", {"If-None-Match": "*"}))
    refused(s.put("p", b"x", {"If-None-Match": "*"}), 412, "PreconditionFailed")


def case_answers_that_lie(c):
    s = objectstore.start(c)
    data = RANDOM.randbytes(70_000)
    s.fault("wrong_etag", op="PutObject", count=1)
    s.fault("wrong_checksum", op="PutObject", skip=0, count=1)
    assert s.put("k", data).headers["etag"] == f'"{"0" * 32}"' and s.put("k", data).headers["x-amz-checksum-sha256"] == sha256(b"something else")
    assert s.read("k") == data and s.objects()["k"]["etag"] == hashlib.md5(data).hexdigest()
    s.fault("wrong_etag", op="ListObjectsV2", count=1)
    assert "0" * 32 in s.request("GET", query=[("list-type", "2")]).value("ETag")
    s.fault("headers", op="HeadObject", set={"Content-Length": "1"}, drop=["ETag", "x-amz-meta-a"], count=1)
    head = s.head("k").headers
    assert head["content-length"] == "1" and "etag" not in head
    s.fault("flip", op="GetObject", at=65_000, count=1)
    got = s.get("k")
    assert got.headers["etag"].strip('"') == hashlib.md5(data).hexdigest() and len(got.body) == len(data)
    assert [i for i, (a, b) in enumerate(zip(got.body, data)) if a != b] == [65_000]
    s.fault("raw", op="GetObject", bytes=base64.b64encode(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab").decode(), count=1)
    broken(lambda: s.get("k"))
    rule = s.fault("stale", op="*")
    s.put("new", b"x")
    s.request("DELETE", "k")
    assert s.list() == ["k"] and s.head("new").status == 404 and s.get("new").body == b"x" and s.get("k").status == 404
    s.clear(rule)
    assert s.list() == ["new"]


def case_redirects(c):
    s, other = objectstore.start(c), objectstore.start(c, name="other", region="eu-central-1")
    other.lay("k", b"there")
    s.fault("redirect", location=other.url, region="eu-central-1", count=1)
    reply = s.get("k", query=[("versionId", "")])
    refused(reply, 307, "TemporaryRedirect")
    assert reply.headers["location"] == f"{other.url}/backups/k?versionId=" and reply.headers["x-amz-bucket-region"] == "eu-central-1"
    refused(other.get("k", region="us-east-1"), 400, "AuthorizationHeaderMalformed")  # it must be signed anew
    assert other.get("k").body == b"there"
    s.fault("redirect", status=301, region="eu-central-1", op="PutObject", count=1)
    reply = s.put("k", b"x" * MIB)
    refused(reply, 301, "PermanentRedirect")
    assert "location" not in reply.headers and reply.value("Region") == "eu-central-1" and s.requests("PutObject")[-1]["received"] == 0


def case_hostile_documents(c):
    s = objectstore.start(c)
    s.lay("k", b"x")
    listing = [("list-type", "2")]
    for form, words, looks in (
            ("huge", {"bytes": 3 * MIB}, lambda b: 2 * MIB < len(b) < 4 * MIB and b.endswith(b"</ListBucketResult>")),
            ("huge", {"bytes": 3 * MIB, "chunked": True}, lambda b: 2 * MIB < len(b)),
            ("deep", {"depth": 50_000}, lambda b: b.count(b"<a>") == 50_000 == b.count(b"</a>")),
            ("bomb", {}, lambda b: b.count(b"<!ENTITY") == 11 and b"&e10;" in b and len(b) < 2000),
            ("doctype", {}, lambda b: b"<!DOCTYPE" in b and b"<Key>k</Key>" in b),
            ("cut", {}, lambda b: b.startswith(b"<?xml") and b"</ListBucketResult>" not in b),
            ("garbage", {"bytes": 1000}, lambda b: len(b) == 1000 and b"<?xml" not in b)):
        s.fault("xml", form=form, op="ListObjectsV2", count=1, **words)
        reply = s.request("GET", query=listing)
        assert reply.status == 200 and looks(reply.body), (form, reply.body[:200])
    assert s.list() == ["k"]


def case_tampering(c):
    s = objectstore.start(c)
    s.put("a", b"version one of a", {"x-amz-meta-hash": "1"})
    s.put("a", b"version two of a", {"x-amz-meta-hash": "2"})
    s.put("b", b"the other one")
    etag = s.head("a").headers["etag"]
    s.tamper("a", "change", at=7)
    assert s.get("a").body == b"version\x21two of a" and s.head("a").headers["etag"] == etag
    s.tamper("a", "truncate", size=7)
    assert s.get("a").body == b"version" and s.head("a").headers["content-length"] == "7" and s.head("a").headers["etag"] == etag
    s.tamper("a", "swap", other="b")
    assert s.get("a").body == b"the other one" and s.get("b").body == b"version" and s.head("a").headers["x-amz-meta-hash"] == "2"
    s.tamper("a", "meta", meta={"hash": "3"})
    assert s.head("a").headers["x-amz-meta-hash"] == "3"
    s.tamper("a", "rollback")
    assert s.get("a").body == b"version one of a" and s.head("a").headers["x-amz-meta-hash"] == "1"
    s.tamper("a", "change", honest=True)
    assert s.head("a").headers["etag"].strip('"') == hashlib.md5(s.get("a").body).hexdigest()
    s.tamper("a", "remove")
    assert s.get("a").status == 404 and s.list() == ["b"] and not s.requests(status=500)


def case_gone_for_a_while(c):
    s = objectstore.start(c)
    good(s.put("k", b"x"))
    connection = s.connect()
    connection.connect()
    s.refuse()
    assert isinstance(broken(lambda: s.get("k")), ConnectionRefusedError)
    try:
        assert connection.sock.recv(1) == b""
    except ConnectionResetError:  # it was not yet taken from the queue
        pass
    s.refuse(False)
    assert s.get("k").body == b"x"
    s.kill()
    assert isinstance(broken(lambda: s.get("k")), ConnectionRefusedError)


def case_requests_are_counted(c):
    s = objectstore.start(c)
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda i: s.put(f"k{i:03d}", b"x" * i), range(100)))
    log = s.requests("PutObject")
    assert len(log) == 100 and sum(r["received"] for r in log) == sum(range(100)) and {r["status"] for r in log} == {200}
    assert len(s.requests(key="k00*")) == 10 and len(s.requests(status=404)) == 0
    assert s.requests(key="k007")[0]["headers"]["content-length"] == "7"
    s.forget()
    assert s.requests() == []
    connection = s.connect()
    for i in range(3):  # one connection serves many, until it is told not to
        target, headers = objectstore.sign("HEAD", "/backups/k001", [], {"Host": f"{s.host}:{s.port}"}, objectstore.UNSIGNED, s.access, s.secret, s.region, time.time())
        connection.request("HEAD", target, headers=headers)
        reply = connection.getresponse()
        assert reply.read() == b"" and reply.status == 200 and reply.will_close == (i == 2)
        s.set(keep_alive=i < 1)
    connection.close()


if __name__ == "__main__":
    dr.run(globals(), at_once=2)
