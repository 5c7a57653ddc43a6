"""The object store of tests: tests/fakes/objectstore.py in a process of its own, and a client that signs by sigv4.py.

    s = objectstore.start(c)                       ends with the case; or ObjectStore(folder) and close()
    c.settings |= s.settings("backups")            what a worker needs to find it
    rule = s.fault("error", code="SlowDown", op="UploadPart", count=3, retry_after=1)     kinds: class Rules of the fake
    s.requests(op="UploadPart")                    what came: method, op, key, part, query, received, sent, status, code, fault
    s.objects("backups"), s.read("backups", key)   what is there
    s.tamper("backups", key, "change")             change, truncate, swap, rollback, remove, meta: nobody is told
    s.put("key", b"...")                           signed requests of the test's own
"""
import base64
import datetime
import fnmatch
import hashlib
import html
import http.client
import json
import pathlib
import re
import socket
import ssl
import subprocess
import sys
import time

import sigv4

UNSIGNED = "UNSIGNED-PAYLOAD"
FAKE = pathlib.Path(__file__).resolve().parents[1] / "fakes/objectstore.py"


class Certificates:
    """pem(NAME) of good (localhost, 127.0.0.1, *.localhost), wronghost, expired, and other (another CA's); ca.pem vouches."""

    def __init__(self, folder):
        self.dir = pathlib.Path(folder)
        self.dir.mkdir()
        self.file = self.dir / "ca.pem"
        for ca in ("ca", "otherca"):
            self.openssl("req", "-x509", *self.key(f"{ca}.key"), "-days", "2", "-out", f"{ca}.pem", "-subj", f"/CN=test {ca}")
        here = "subjectAltName=DNS:localhost,IP:127.0.0.1,DNS:*.localhost"
        self.issue("good", "ca", here)
        self.issue("wronghost", "ca", "subjectAltName=DNS:elsewhere.example")
        self.issue("expired", "ca", here, expired=True)
        self.issue("other", "otherca", here)

    @staticmethod
    def key(name):
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", name]

    def openssl(self, *words):
        return subprocess.run(["openssl", *words], cwd=self.dir, check=True, capture_output=True)

    def issue(self, name, ca, names, expired=False):
        (self.dir / f"{name}.ext").write_text(names + "\n")
        self.openssl("req", *self.key(f"{name}.key"), "-out", f"{name}.csr", "-subj", f"/CN={name}")
        words = ["x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial",
                 "-extfile", f"{name}.ext", "-out", f"{name}.pem"]
        if not expired:
            self.openssl(*words, "-days", "2")
            return
        try:  # OpenSSL 3.4 and later
            self.openssl(*words, "-not_before", "20200101000000Z", "-not_after", "20200102000000Z")
        except subprocess.CalledProcessError:
            self.openssl(*words, "-days", "-1")

    def pem(self, name="good"):
        return self.dir / f"{name}.pem", self.dir / f"{name}.key"


def sign(method, path, query, headers, payload, access, secret, region, now, token=None, service="s3"):
    """(target, headers): path plain, query plain pairs, headers a dict with Host, payload the hash in hex or UNSIGNED."""
    headers = {**headers, "x-amz-date": sigv4.stamp(now), "x-amz-content-sha256": payload}
    if token is not None:
        headers["x-amz-security-token"] = token
    pairs = [(n.encode(), v.encode()) for n, v in query]
    headers["Authorization"] = sigv4.authorize(method, path.encode(), pairs, [(n, str(v)) for n, v in headers.items()], payload,
                                               access, secret, region, service, headers["x-amz-date"])
    return sigv4.encode(path.encode(), b"/") + ("?" + sigv4.canonical_query(pairs) if pairs else ""), headers


class Reply:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def __repr__(self):
        return f"{self.status} {self.headers} {self.body[:600]!r}"

    @property
    def code(self):
        """Of an error document, or None."""
        found = re.search(rb"<Error>.*?<Code>(.*?)</Code>", self.body, re.S)
        return found.group(1).decode() if found else None

    def values(self, element):
        return [v.decode() for v in re.findall(b"<" + element.encode() + b">(.*?)</" + element.encode() + b">", self.body, re.S)]

    def value(self, element):
        (only,) = self.values(element)
        return only


class Client:
    """Signed requests against a server, path style. alter(request) may spoil what was signed: request is a dict of
    method, target, headers, body."""

    def __init__(self, host, port, access="testkey", secret="testsecret123", region="us-east-1", token=None, ca=None, bucket="backups"):
        self.host, self.port, self.access, self.secret, self.region = host, port, access, secret, region
        self.token, self.ca, self.bucket, self.alter, self.shift = token, ca, bucket, None, 0

    def request(self, method, key="", query=(), headers=None, body=b"", bucket=None, payload=None, virtual=None, **ways):
        host = virtual or f"{self.host}:{self.port}"
        path = f"/{key}" if virtual else f"/{bucket or self.bucket}" + (f"/{key}" if key else "")
        payload = payload or hashlib.sha256(body).hexdigest()
        target, signed = sign(method, path, list(query), {"Host": host, **(headers or {})}, payload, ways.get("access", self.access),
                                    ways.get("secret", self.secret), ways.get("region", self.region),
                                    time.time() + ways.get("shift", self.shift), ways.get("token", self.token), ways.get("service", "s3"))
        request = {"method": method, "target": target, "headers": signed, "body": body}
        alter = ways.get("alter", self.alter)
        if alter:
            alter(request)
        return self.send(request)

    def connect(self):
        if self.ca:
            return http.client.HTTPSConnection(self.host, self.port, timeout=60, context=ssl.create_default_context(cafile=self.ca))
        return http.client.HTTPConnection(self.host, self.port, timeout=60)

    def send(self, request):
        connection = self.connect()
        try:
            connection.putrequest(request["method"], request["target"], skip_host=True, skip_accept_encoding=True)
            headers = dict(request["headers"])
            if request["method"] in ("PUT", "POST") and not {"Content-Length", "Transfer-Encoding"} & set(headers):
                headers["Content-Length"] = str(len(request["body"]))
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            try:
                connection.send(request["body"])
            except OSError:  # it may have answered before it had all
                pass
            answer = connection.getresponse()
            return Reply(answer.status, {n.lower(): v for n, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def put(self, key, body, headers=None, **ways):
        checksum = base64.b64encode(hashlib.sha256(body).digest()).decode()
        return self.request("PUT", key, headers={"x-amz-checksum-sha256": checksum, **(headers or {})}, body=body, **ways)

    def get(self, key, **ways):
        return self.request("GET", key, **ways)

    def head(self, key, **ways):
        return self.request("HEAD", key, **ways)

    def list(self, prefix="", **ways):
        """All keys, over all pages."""
        keys, token = [], None
        while True:
            query = [("list-type", "2"), ("prefix", prefix)] + ([("continuation-token", token)] if token else [])
            page = self.request("GET", query=query, **ways)
            assert page.status == 200, page
            keys += map(html.unescape, page.values("Key"))
            if page.value("IsTruncated") != "true":
                return keys
            token = page.value("NextContinuationToken")

    def begin(self, key, headers=None, **ways):
        return self.request("POST", key, [("uploads", "")], {"x-amz-checksum-algorithm": "SHA256", **(headers or {})}, **ways).value("UploadId")

    def part(self, key, upload, number, body, **ways):
        return self.put(key, body, query=[("partNumber", str(number)), ("uploadId", upload)], **ways)

    def complete(self, key, upload, parts, headers=None, **ways):
        """parts: [(number, reply of part())]."""
        rows = "".join(f"<Part><PartNumber>{n}</PartNumber><ETag>{r.headers['etag']}</ETag>"
                       f"<ChecksumSHA256>{r.headers['x-amz-checksum-sha256']}</ChecksumSHA256></Part>" for n, r in parts)
        text = f"<CompleteMultipartUpload>{rows}</CompleteMultipartUpload>".encode()
        return self.request("POST", key, [("uploadId", upload)], headers, text, **ways)


class ObjectStore(Client):
    """cert: a pair of files (Certificates.pem()); ca: who vouches, for the client; further options as the fake's."""

    def __init__(self, folder, buckets=("backups",), cert=None, ca=None, access="testkey", secret="testsecret123", token=None,
                 region="us-east-1", port=0, **options):
        self.dir = pathlib.Path(folder)
        self.dir.mkdir(parents=True, exist_ok=True)
        self.socket_path = self.dir / "control"
        words = ["--root", self.dir / "bytes", "--control", self.socket_path, "--access", access, "--secret", secret,
                 "--region", region, "--port", port]
        for bucket in buckets:
            words += ["--bucket", bucket]
        if token:
            words += ["--token", token]
        if cert:
            words += ["--cert", cert[0], "--key", cert[1]]
        for name, value in options.items():
            words += ["--" + name.replace("_", "-"), value]
        self.process = subprocess.Popen([sys.executable, FAKE, *map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        line = self.process.stdout.readline().decode().split()
        assert line[:1] == ["ready"], "the object store did not start"
        super().__init__("localhost" if cert else "127.0.0.1", int(line[1]), access, secret, region, token, ca, buckets[0])
        self.url = f"{'https' if cert else 'http'}://{self.host}:{self.port}"
        self.control = socket.socket(socket.AF_UNIX)
        self.control.connect(str(self.socket_path))
        self.lines = self.control.makefile("rwb")

    def ask(self, do, **words):
        self.lines.write(json.dumps({"do": do, **words}).encode() + b"\n")
        self.lines.flush()
        answer = json.loads(self.lines.readline())
        assert "ok" in answer, (do, words, answer)
        return answer["ok"]

    def settings(self, bucket="backups", target="OFFSITE_STORAGE", **more):
        out = {"PROVIDER": "aws_s3", "BUCKET": bucket, "REGION": self.region, "ACCESS_KEY": self.access, "SECRET_KEY": self.secret,
               "ENDPOINT": self.url, "PATH_STYLE": "true"}
        if self.ca:
            out["CA_FILE"] = self.ca
        return {f"{target}_{name}": value for name, value in {**out, **more}.items()}

    def fault(self, kind, **rule):
        return self.ask("fault", kind=kind, **rule)

    def clear(self, rule=None):
        """Takes a rule away, or all; whoever it held goes on."""
        self.ask("clear", rule=rule)

    def release(self):
        self.ask("release")

    def acted(self, rule):
        """How often a rule has acted."""
        return self.ask("acted").get(str(rule), 0)

    def requests(self, op="*", key="*", **equal):
        return [r for r in self.ask("requests") if fnmatch.fnmatchcase(r["op"], op) and fnmatch.fnmatchcase(r["key"], key)
                and all(r[n] == v for n, v in equal.items())]

    def forget(self):
        self.ask("forget")

    def under_way(self):
        """Requests that have begun and not ended, with what was received so far."""
        return self.ask("under_way")

    def set(self, **settings):
        """keep_alive, complete_again, page, min_part, region, offset (the server's clock), date_offset (its Date only)."""
        self.ask("settings", **settings)

    def credentials(self, access, **fields):
        """secret, token, expired, remove."""
        self.ask("credentials", access=access, **fields)

    def refuse(self, on=True):
        """Connections are refused, the open ones end, until refuse(False)."""
        self.ask("refuse", on=on)

    def cut(self):
        self.ask("cut")

    def configure(self, name, **fields):
        """mode: rw, ro, none (no rights), missing; versioning; region and location: elsewhere."""
        self.ask("bucket", name=name, **fields)

    def objects(self, bucket="backups", versions=False):
        rows = self.ask("objects", bucket=bucket, versions=versions)
        return rows if versions else {r["key"]: r for r in rows}

    def read(self, key, bucket="backups"):
        return pathlib.Path(self.objects(bucket)[key]["path"]).read_bytes()

    def uploads(self, bucket="backups"):
        return self.ask("uploads", bucket=bucket)

    def age(self, seconds, bucket="backups", **what):
        """An object (key=) or an upload (upload=) becomes older."""
        self.ask("age", bucket=bucket, seconds=seconds, **what)

    def tamper(self, key, how, bucket="backups", **words):
        self.ask("tamper", bucket=bucket, key=key, how=how, **words)

    def lay(self, key, data, bucket="backups", **meta):
        """An object that nobody sent."""
        path = self.dir / "laid"
        path.write_bytes(data)
        self.ask("put", bucket=bucket, key=key, path=str(path), meta=meta)

    def kill(self):
        self.process.kill()
        self.process.wait(20)

    def close(self):
        self.control.close()
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
        self.process.stdout.close()


def start(c, name="s3", **options):
    """One that ends with the case."""
    store = ObjectStore(c.dir / name, **options)
    c.processes.append(store.process)
    return store


def iso(text):
    """Seconds of a LastModified or Initiated."""
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
