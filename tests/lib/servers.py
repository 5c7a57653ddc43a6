"""Real servers of the off-site tests, built once by deploy/servers: versitygw (S3) and toxiproxy (faults on the way).

A case that asks for one where it was not built ends as not run, but fails where DR_TEST_REQUIRE (versitygw,toxiproxy)
names it.
"""
import contextlib
import http.client
import json
import os
import pathlib
import socket
import subprocess
import time

import dr
import objectstore

HOUSE = pathlib.Path(__file__).resolve().parents[2]


def program(name):
    """Where it is; it must come from the pins of today."""
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "drworker/servers"
    pins = HOUSE / "tests/servers" / name
    with contextlib.suppress(FileNotFoundError):
        if (cache / f"{name}.pins").read_bytes() == (pins / "go.mod").read_bytes() + (pins / "go.sum").read_bytes():
            return cache / name
    assert name not in os.environ.get("DR_TEST_REQUIRE", "").split(","), f"{name} is demanded and not there: run deploy/servers"
    raise dr.Needs(f"{name} (deploy/servers builds it)")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def accepts(process, port):
    assert process.poll() is None, f"the server ended: {process.args}"
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True


def spawn(c, name, port, words, **env):
    """Started in a folder of the case, ends with it; returns the folder."""
    folder = c.dir / f"{name}-{port}"
    folder.mkdir()
    with open(folder / "log", "wb") as log:
        p = subprocess.Popen([program(name), *map(str, words(folder))], stdout=log, stderr=log, cwd=folder,
                             env={"PATH": os.environ["PATH"], "HOME": str(folder), **env})
    c.processes.append(p)
    dr.wait(lambda: accepts(p, port))
    return folder


def versitygw(c, buckets=("backups",), cert=None, ca=None, region="us-east-1"):
    """A client of a fresh one that holds these buckets."""
    program("versitygw")
    port = free_port()

    def words(folder):
        for sibling in ("data", "older", "iam"):  # no name may be the beginning of another
            (folder / sibling).mkdir()
        tls = ["--cert", cert[0], "--key", cert[1]] if cert else []
        return ["--port", f"127.0.0.1:{port}", "--region", region, "--iam-dir", folder / "iam", *tls,
                "posix", "--versioning-dir", folder / "older", folder / "data"]
    folder = spawn(c, "versitygw", port, words, ROOT_ACCESS_KEY="testkey", ROOT_SECRET_KEY="testsecret123")
    client = objectstore.Client("localhost" if cert else "127.0.0.1", port, region=region, ca=ca)
    client.url = f"{'https' if cert else 'http'}://{client.host}:{port}"
    client.folder = folder / "data"
    for bucket in buckets:
        reply = client.request("PUT", bucket=bucket)
        assert reply.status == 200, reply
    return client


class Toxiproxy:
    """proxy(NAME, PORT) is the port of a way to PORT; toxic() spoils it, heal() takes all of that away."""

    def __init__(self, c):
        self.port = free_port()
        spawn(c, "toxiproxy", self.port, lambda folder: ["-host", "127.0.0.1", "-port", self.port])

    def api(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, {"User-Agent": "tests"})
            reply = connection.getresponse()
            text = reply.read()
            assert reply.status < 300, (method, path, body, reply.status, text)
            return json.loads(text) if text else None
        finally:
            connection.close()

    def proxy(self, name, port):
        made = self.api("POST", "/proxies", {"name": name, "listen": "127.0.0.1:0", "upstream": f"127.0.0.1:{port}", "enabled": True})
        return int(made["listen"].rsplit(":", 1)[1])

    def toxic(self, name, kind, stream="downstream", toxicity=1.0, **attributes):
        """kind: latency, bandwidth, slow_close, timeout, reset_peer, slicer, limit_data. Black holes: stream upstream."""
        self.api("POST", f"/proxies/{name}/toxics", {"name": f"{kind}-{stream}-{time.monotonic_ns()}", "type": kind, "stream": stream,
                                                     "toxicity": toxicity, "attributes": attributes})

    def enable(self, name, on):
        self.api("POST", f"/proxies/{name}", {"enabled": on})

    def heal(self):
        self.api("POST", "/reset")
