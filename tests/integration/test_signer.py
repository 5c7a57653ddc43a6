"""The S3 signer against an independent implementation: 10,000 random requests, through tests/programs/sigv4_lines.c."""
import hashlib
import json
import os
import pathlib
import random
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import dr  # noqa: E402
import sigv4  # noqa: E402

VECTORS = pathlib.Path(__file__).resolve().parents[1] / "vectors/sigv4"
SEED = int(os.environ.get("DR_SEED", random.randrange(1 << 32)))
COUNT = 10_000


def word(s):
    raw = s if isinstance(s, bytes) else s.encode("utf-8", "surrogateescape")
    return raw.hex() or "-"


def line(q):
    return " ".join([word(q["method"]), word(q["host"]), word(q["path"]), q["sha256"] or "-", word(q["access"]), word(q["secret"]),
                     word(q["session"]), word(q["region"]), word(q["service"]), str(q["now"]), str(len(q["query"])),
                     str(len(q["headers"])), *(word(x) for pair in [*q["query"], *q["headers"]] for x in pair)])


def signed(requests):
    """(target, authorization) of each, by the worker's signer."""
    done = subprocess.run([dr.BIN / "tests/dr_sigv4_lines"], input="".join(line(q) + "\n" for q in requests).encode(),
                          stdout=subprocess.PIPE, check=True)
    answers = [a.split(" ") for a in done.stdout.decode().splitlines()]
    assert len(answers) == len(requests)
    return [tuple(bytes.fromhex(x).decode() if x else "" for x in a) if a[0] != "refused" else tuple(a) for a in answers]


def judged(q):
    """The same by tests/lib/sigv4.py."""
    raw = [x if isinstance(x, bytes) else x.encode() for x in (q["path"],)][0]
    query = [tuple(x if isinstance(x, bytes) else x.encode() for x in p) for p in q["query"]]
    payload = q["sha256"] or "UNSIGNED-PAYLOAD"
    date = sigv4.stamp(q["now"])
    headers = [("Host", q["host"]), ("X-Amz-Date", date), *q["headers"]]
    if q.get("s3", True):
        headers.append(("x-amz-content-sha256", payload))
    if q["session"]:
        headers.append(("X-Amz-Security-Token", q["session"]))
    target = sigv4.encode(raw, b"/") + ("?" + sigv4.canonical_query(query) if query else "")
    return target, sigv4.authorize(q["method"], raw, query, headers, payload, q["access"], q["secret"], q["region"], q["service"],
                                   date)


def text(r, most, alphabet=None, least=0):
    """Random bytes without NUL; half of the time only those that trip signers up."""
    odd = alphabet or r.choice([bytes(range(1, 256)), b"/+%= &?#:;,.~-_*()'!@$\"<>\\^`{|}[]aA0", "aä€𝄞/ ".encode()])
    return bytes(r.choice(odd) for _ in range(r.randint(least, most)))


def header_value(r):
    middle = text(r, 40, bytes(range(0x20, 0x7f)) + b"\t  ")
    return r.choice(["", " ", "\t ", "   "]) + "v" + middle.decode() + r.choice(["", " ", "\t"])


def header_name(r):
    stem = r.choice(["x-amz-meta-", "X-Amz-Meta-", "x-amz-", "Range", "If-", "Content-", "a", "A", "x-amz-meta"])
    return stem + text(r, 6, b"abcxyzABC019-").decode()


def random_request(r):
    own = {"host", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token", "authorization"}
    query = [(text(r, 12, least=1), text(r, 30)) for _ in range(r.choice([0, 0, 1, 2, 5, 12]))]
    if r.random() < 0.5:  # those that we send, and names that begin alike
        query += r.sample([(b"uploads", b""), (b"uploadId", text(r, 60)), (b"partNumber", b"%d" % r.randint(1, 10000)),
                           (b"list-type", b"2"), (b"prefix", text(r, 20)), (b"max-keys", b"1000"), (b"a-", b"1"), (b"a", b"2")], 3)
    headers = [(header_name(r), header_value(r)) for _ in range(r.choice([0, 1, 2, 6, 20]))]
    if headers and r.random() < 0.3:
        headers.append((headers[0][0].swapcase(), header_value(r)))
    return {"method": r.choice(["GET", "PUT", "POST", "HEAD", "DELETE"]), "host": r.choice(["b.s3.eu-central-1.amazonaws.com", "127.0.0.1:7070"]),
            "path": b"/" + text(r, r.choice([0, 5, 60, 300])), "query": query, "headers": [h for h in headers if h[0].lower() not in own],
            "sha256": r.choice([None, sigv4.EMPTY, hashlib.sha256(r.randbytes(8)).hexdigest()]),
            "access": "AK" + text(r, 20, b"ABCDEF0123", 1).decode(), "secret": text(r, 60, b"abcXYZ019+/=", 1).decode(),
            "session": r.choice(["", text(r, 400, b"abcXYZ019+/=", 16).decode()]), "region": r.choice(["us-east-1", "eu-central-1", "garage"]),
            "service": "s3", "now": r.randint(1_000_000_000, 4_000_000_000)}


def vectors(name):
    return json.loads((VECTORS / name).read_text())


def case_judge_is_right(c):
    """The judge itself: AWS's vectors, and what botocore answered to 200 requests."""
    for v in vectors("suite.json"):
        assert judged(v)[1] == v["authorization"], v["name"]
    for name in ("s3_examples.json", "botocore.json"):
        for v in vectors(name):
            got = judged(v)[1]
            assert got.endswith(f"SignedHeaders={v['signed_headers']}, Signature={v['signature']}"), (v["name"], got)


def case_random_requests(c):
    """Target and Authorization are the judge's, byte by byte."""
    r = random.Random(SEED)
    requests = [random_request(r) for _ in range(COUNT)]
    for q, got in zip(requests, signed(requests)):
        assert got == judged(q), (SEED, q, got, judged(q))


def case_one_changed_byte(c):
    """The comparison above is not blind: whatever is changed, another signature comes out."""
    r = random.Random(SEED)
    base = {**random_request(r), "query": [(b"a", b"b")], "headers": [("x-amz-meta-a", "b")], "session": "s" * 20, "sha256": sigv4.EMPTY}
    others = [{**base, **change} for change in (
        {"method": "PATCH"}, {"host": "x"}, {"path": base["path"] + b"x"}, {"query": [(b"a", b"c")]}, {"query": [(b"b", b"b")]}, {"query": []},
        {"headers": [("x-amz-meta-a", "c")]}, {"headers": []}, {"session": "s" * 21}, {"sha256": None}, {"secret": base["secret"] + "x"},
        {"region": "elsewhere"}, {"service": "s4"}, {"now": base["now"] + 1}, {"now": base["now"] + 86400})]
    found = [a[1].rsplit("=", 1)[1] for a in signed([base, *others])]
    assert len(set(found)) == len(found), found


if __name__ == "__main__":
    dr.run(globals())
