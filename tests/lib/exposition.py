"""A strict reader of Prometheus' text exposition 0.0.4, and HTTP by hand over TCP or a unix socket."""
import math
import re
import socket

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(,|\Z)')
SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)\Z")
UNITS = ("_seconds", "_bytes", "_total", "_info", "_jobs")


class Metrics:
    """families: name -> (type, help); samples: name -> {labels as a sorted tuple of pairs: value}."""

    def __init__(self, text):
        self.families, self.samples, current = {}, {}, None
        assert text.endswith("\n"), "the last line has no end"
        pending = None
        for line in text[:-1].split("\n"):
            if line.startswith("# HELP "):
                name, what = line[7:].split(" ", 1)
                assert NAME.match(name) and name not in self.families and what, line
                pending = (name, what)
            elif line.startswith("# TYPE "):
                name, kind = line[7:].split(" ")
                assert pending and pending[0] == name and kind in ("counter", "gauge", "histogram"), line
                self.families[name], pending, current = (kind, pending[1]), None, name
                assert kind != "counter" or name.endswith("_total"), name
                assert kind == "counter" or not name.endswith("_total"), name
            else:
                self.sample(line, current)
        assert pending is None
        for name, (kind, _) in self.families.items():
            if kind == "histogram":
                self.histogram(name)

    def sample(self, line, family):
        found = SAMPLE.match(line)
        assert found, line
        name, labels, value = found.groups()
        kind = self.families[family][0]
        own = {family} if kind != "histogram" else {family + s for s in ("_bucket", "_sum", "_count")}
        assert name in own, f"{name} stands below {family}"
        pairs, at = [], 0
        while labels is not None and at < len(labels):
            one = LABEL.match(labels, at)
            assert one, line
            pairs.append((one.group(1), re.sub(r"\\(.)", lambda m: "\n" if m.group(1) == "n" else m.group(1), one.group(2))))
            at = one.end()
        assert len({p[0] for p in pairs}) == len(pairs), line
        key = tuple(sorted(pairs))
        series = self.samples.setdefault(name, {})
        assert key not in series, f"twice: {line}"
        series[key] = float(value.replace("Inf", "inf"))
        assert kind == "gauge" or series[key] >= 0, line

    def histogram(self, name):
        groups = {}
        for key, value in self.samples[name + "_bucket"].items():
            rest = tuple(p for p in key if p[0] != "le")
            groups.setdefault(rest, []).append((float(dict(key)["le"].replace("Inf", "inf")), value))
        for rest, buckets in groups.items():
            buckets.sort()
            values = [v for _, v in buckets]
            assert values == sorted(values) and math.isinf(buckets[-1][0]), (name, rest)
            assert values[-1] == self.samples[name + "_count"][rest], (name, rest)
            assert rest in self.samples[name + "_sum"]

    def __call__(self, name, **labels):
        """The one sample of these labels; None when there is none."""
        return self.samples.get(name, {}).get(tuple(sorted(labels.items())))


def connect(where):
    if where.startswith("unix:"):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(20)
        s.connect(where[5:])
        return s
    host, port = where.rsplit(":", 1)
    return socket.create_connection((host.strip("[]"), int(port)), timeout=20)


def exchange(where, request):
    """All bytes that come back for these bytes."""
    with connect(where) as s:
        s.sendall(request)
        got = b""
        while True:
            part = s.recv(65536)
            if not part:
                return got
            got += part


def get(where, path, method="GET", version="HTTP/1.1"):
    """(status, headers in lower case, body)."""
    raw = exchange(where, f"{method} {path} {version}\r\nHost: x\r\n\r\n".encode())
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}
    assert method == "HEAD" or int(headers["content-length"]) == len(body), raw[:400]
    return int(lines[0].split(" ")[1]), headers, body.decode()


def scrape(where):
    status, headers, body = get(where, "/metrics")
    assert status == 200 and headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Metrics(body)
