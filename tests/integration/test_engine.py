"""worker/storage over HTTP against tests/fakes/objectstore.py, through tests/programs/engine_probe.c."""
import hashlib
import os
import pathlib
import random
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import dr  # noqa: E402
import objectstore  # noqa: E402

SIZE = (11 << 20) + 12345  # three parts
KEY = "backups/x/database.drb"


def probe(c, s, *words, popen=False, **settings):
    """(kind, reason, what it told)"""
    env = {"PATH": os.environ["PATH"], **s.settings(**settings)}
    if popen:
        return subprocess.Popen([dr.BIN / "tests/dr_engine_probe", *map(str, words)], env=env, stdout=subprocess.DEVNULL)
    done = subprocess.run([dr.BIN / "tests/dr_engine_probe", *map(str, words)], env=env, stdout=subprocess.PIPE, check=False)
    kind, reason, *rest = done.stdout.decode().split()
    return kind, reason, dict(r.rsplit("=", 1) for r in rest)


def source(c, size=SIZE):
    """(file, hash in hex)"""
    data = random.Random(1).randbytes(size)
    (c.dir / "source").write_bytes(data)
    return c.dir / "source", hashlib.sha256(data).hexdigest()


def put(c, s, size=SIZE, journal=None, **settings):
    path, sha256 = source(c, size)
    return probe(c, s, "put", KEY, path, sha256, *([journal] if journal else []), **settings)


def get(c, s, size=SIZE):
    path, sha256 = source(c, size)
    kind, reason, told = probe(c, s, "get", KEY, c.dir / "copy", size, sha256)
    if kind == "ok":
        assert (c.dir / "copy").read_bytes() == path.read_bytes()
    return kind, reason, told


def case_there_and_back(c):
    """Small, empty and in parts; the store verifies every signature; metadata comes back; pages are followed."""
    s = objectstore.start(c)
    s.set(page=2)
    for size in (0, 1000, SIZE):
        kind, reason, told = put(c, s, size, PREFIX="shop/")
        assert kind == "ok" and told["already"] == "0", (kind, reason, told)
        assert hashlib.sha256(s.read("shop/" + KEY)).hexdigest() == source(c, size)[1]
        _, _, told = probe(c, s, "head", KEY, PREFIX="shop/")
        assert told["size"] == str(size) and told["sha256"] == source(c, size)[1] and told["label"] == "probe", told
        assert put(c, s, size, PREFIX="shop/")[2]["already"] == "1"
        assert probe(c, s, "delete", KEY, PREFIX="shop/")[0] == "ok"
    put(c, s)
    assert get(c, s)[0] == "ok"
    for i in range(5):
        s.lay(f"list/{i}", b"x")
    assert [k for k in probe(c, s, "list", "list/")[2] if k.startswith("list/")] == [f"list/{i}" for i in range(5)]
    assert s.uploads() == []


def case_what_may_pass(c):
    """Bursts, cut bodies, wrong sums, an error inside 200, a lost answer: repeated, and right in the end."""
    s = objectstore.start(c)
    for kind, rule in (("error", {"code": "SlowDown", "op": "UploadPart", "count": 2}),
                       ("error", {"code": "InternalError", "op": "CreateMultipartUpload", "count": 1}),
                       ("cut_request", {"op": "UploadPart", "after": 100000, "how": "reset", "count": 1}),
                       ("ok_error", {"code": "InternalError", "op": "CompleteMultipartUpload", "count": 1, "space": 3}),
                       ("lost", {"op": "UploadPart", "count": 1}),
                       ("lost", {"op": "CompleteMultipartUpload", "count": 1})):
        rule_id = s.fault(kind, **rule)
        got = put(c, s)
        assert got[0] == "ok" and s.acted(rule_id) == rule["count"], (kind, rule, got)
        assert int(got[2]["repeats"]) >= 1 or got[2]["already"] == "1", (kind, rule, got)
        assert s.uploads() == []
        s.clear()
        assert get(c, s)[0] == "ok"
        probe(c, s, "delete", KEY)
    put(c, s)
    for kind, rule in (("cut_response", {"op": "GetObject", "after": 100000, "how": "fin", "count": 1}),
                       ("error", {"code": "SlowDown", "op": "GetObject", "count": 2})):
        rule_id = s.fault(kind, **rule)
        assert get(c, s)[0] == "ok" and s.acted(rule_id) == rule["count"]
        s.clear()


def case_retry_after(c):
    s = objectstore.start(c)
    s.fault("error", code="SlowDown", op="PutObject", count=1, retry_after=1)
    begun = time.monotonic()
    assert put(c, s, 1000)[0] == "ok"
    assert time.monotonic() - begun >= 1


def case_refusals_are_told_apart(c):
    s = objectstore.start(c)
    refused = (("auth credentials", {"SECRET_KEY": "wrong"}), ("auth credentials", {"ACCESS_KEY": "nobody"}),
               ("not-found no-bucket", {"BUCKET": "nowhere"}))
    for want, settings in refused:
        assert " ".join(put(c, s, 1000, **settings)[:2]) == want, want
    assert put(c, s, 1000, REGION="eu-west-1")[0] == "ok"  # the answer tells the right one
    probe(c, s, "delete", KEY)
    s.configure("backups", mode="ro")
    assert put(c, s, 1000)[:2] == ("refused", "read-only")
    s.configure("backups", mode="rw")
    s.fault("error", code="ExpiredToken", op="PutObject")
    assert put(c, s, 1000)[:2] == ("auth", "expired-token")
    s.clear()
    s.set(offset=3600)
    assert put(c, s, 1000)[0] == "ok"  # its clock was learnt
    assert probe(c, s, "head", "nothing")[:2] == ("not-found", "no-object")


def case_killed_in_the_middle(c):
    """The next one sends what is missing: no more than what was under way is sent twice."""
    s = objectstore.start(c)
    path, sha256 = source(c)
    rule = s.fault("stall", op="UploadPart", part=3, way="request", after=1000)
    worker = probe(c, s, "put", KEY, path, sha256, c.dir / "journal", popen=True)
    dr.wait(lambda: len(s.requests(op="UploadPart", status=200)) == 2 and s.acted(rule))
    worker.kill()
    worker.wait()
    s.cut()  # what the kernel still holds does not arrive
    dr.wait(lambda: not s.under_way())
    s.clear()
    assert len(s.uploads()) == 1 and s.objects() == {}
    kind, _, told = put(c, s, journal=c.dir / "journal")
    assert kind == "ok" and told["resumed"] == "1" and told["kept"] == "2", told
    assert sorted(r["part"] for r in s.requests(op="UploadPart", status=200)) == [1, 2, 3]
    assert len(s.requests(op="CreateMultipartUpload")) == 1
    assert not (c.dir / "journal").exists() and s.uploads() == []
    assert get(c, s)[0] == "ok"


def case_lies_are_found(c):
    """Another object, one bit, other sums: never taken for ours."""
    s = objectstore.start(c)
    assert put(c, s)[0] == "ok"
    s.tamper(KEY, "change")
    assert get(c, s)[:2] == ("integrity", "integrity")
    s.tamper(KEY, "truncate")
    assert get(c, s)[0] == "integrity"
    probe(c, s, "delete", KEY)
    put(c, s)
    s.fault("flip", op="GetObject", at=1000, count=1)
    assert get(c, s)[:2] == ("integrity", "integrity")
    s.clear()
    probe(c, s, "delete", KEY)
    s.fault("wrong_checksum", op="PutObject")
    assert put(c, s, 1000)[0] == "integrity"


def case_hostile_documents(c):
    s = objectstore.start(c)
    for form in ("huge", "deep", "bomb", "doctype", "cut", "garbage"):
        s.fault("xml", form=form, op="ListObjectsV2", bytes=9 << 20)
        kind, _, told = probe(c, s, "list", "")
        assert kind in ("protocol", "too-big"), (form, kind, told)
        s.clear()


def case_tls(c):
    certificates = objectstore.Certificates(c.dir / "tls")
    for name in ("good", "wronghost", "expired", "other"):
        s = objectstore.start(c, f"s3-{name}", cert=certificates.pem(name), ca=str(certificates.file))
        got = put(c, s, 1000)
        assert got[0] == ("ok" if name == "good" else "auth"), (name, got)
        assert name == "good" or (got[1] == "certificate" and got[2]["repeats"] == "0"), (name, got)


if __name__ == "__main__":
    dr.run(globals())
