#!/usr/bin/env python3
"""/metrics, /healthz, /readyz: what they say, and who cannot disturb the worker through them."""
import json
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import msgpack

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))

import dr
import exposition
from exposition import exchange, get, scrape
from monitored import listening


def start(case, **env):
    p = case.worker(**{"DR_HTTP_LISTEN": "127.0.0.1:0", **env})
    return p, dr.wait(lambda: listening(p))


def until(where, good, seconds=30):
    """Scrapes until good(metrics): facts are looked at every ten seconds."""
    return dr.wait(lambda: (lambda m: m if good(m) else None)(scrape(where)), seconds)


def case_jobs_are_counted(case):
    _, where = start(case, DR_LANES="noop:4")
    m = scrape(where)
    assert m("drworker_jobs_ended_total", lane="noop", outcome="done") == 0
    assert m("drworker_redis_up") == 1 and m("drworker_redis_reconnects_total") == 0
    for i in range(3):
        case.order("noop", f"n{i}", sleep_ms=70)
    m = scrape(where)
    assert m("drworker_jobs_ended_total", lane="noop", outcome="done") == 3
    assert m("drworker_job_duration_seconds_count", lane="noop") == 3
    assert m("drworker_job_duration_seconds_bucket", lane="noop", le="0.05") == 0
    assert 0.18 <= m("drworker_job_duration_seconds_sum", lane="noop")
    assert m("drworker_loop_lag_seconds_count") > 0 and m("process_start_time_seconds") > 1.7e9
    names = {n for n in m.families if not n.startswith("process_")}
    assert all(n.startswith("drworker_") for n in names), names


def case_queue_of_all_workers(case):
    """What waits is seen without touching it: depth, age from the message itself, pause, dead letters."""
    case.r.sadd("{dr}:pause", "noop")
    old = int(time.time() * 1000) - 90_000
    case.push("noop", {"id": "first", "t": "noop", "a": {}, "iat": old})
    case.push("noop", {"id": "second", "t": "noop", "a": {}})
    case.push("sync", {"id": "bad", "t": "noop", "a": {}})  # a lane that this worker does not serve
    over = int((time.time() - 700) * 1000)
    case.r.zadd("{dr}:schednext", {"nightly": over, "drawn": over, "soon": (time.time() + 700) * 1000})
    case.r.hset("{dr}:sched", mapping={name: msgpack.packb({"lane": "noop", "jitter_ms": ms, "args": {"payload": "x" * 2000}})
                                       for name, ms in {"nightly": 0, "drawn": 600_000}.items()})
    _, where = start(case, DR_LANES="noop")
    m = until(where, lambda m: m("drworker_queue_waiting_jobs", lane="noop") == 2)
    assert m("drworker_queue_paused", lane="noop") == 1 and m("drworker_queue_paused", lane="sync") == 0
    assert 89 <= m("drworker_queue_oldest_age_seconds", lane="noop") < 200
    assert m("drworker_queue_waiting_jobs", lane="sync") == 1
    assert 0 <= m("drworker_queue_oldest_age_seconds", lane="sync") < 60
    assert m("drworker_workers_alive") == 1 and m("drworker_dead_letters") == 0
    assert 699 <= m("drworker_schedule_late_seconds", schedule="nightly") < 800
    assert m("drworker_schedule_late_seconds", schedule="soon") == 0
    assert 99 <= m("drworker_schedule_late_seconds", schedule="drawn") < 200  # the rest was to be jitter
    late = {s["name"]: s["late_by_ms"] for s in json.loads(case.cli("schedule", "--json"))}
    assert 699_000 <= late["nightly"] < 800_000 and 99_000 <= late["drawn"] < 200_000, late
    assert abs(m("drworker_redis_clock_offset_seconds")) < 5


def case_backups_of_a_store(case):
    case.store(database=False, files=True)
    _, where = start(case)
    case.backup("files")
    # A look between rename and record sees one that nobody has proven.
    m = until(where, lambda m: m("drworker_recovery_point_age_seconds", kind="files") is not None)
    (key, count), = m.samples["drworker_backups"].items()
    labels = dict(key)
    assert labels["kind"] == "files" and count == 1
    kept = case.backups()[0]
    assert m("drworker_backup_newest_bytes", **labels) == kept["plain_bytes"]
    assert m("drworker_backup_newest_stored_bytes", **labels) == kept["stored_bytes"]
    assert 0 <= m("drworker_backup_age_seconds", **labels) < 600
    assert 0 <= m("drworker_proof_age_seconds", **labels) < 600
    assert m("drworker_disk_free_bytes") <= m("drworker_disk_bytes")
    assert m("drworker_store_readable") == 1 and m("drworker_catalog_records") >= 1
    assert m("drworker_key_slots") == 1 and m("drworker_recoveries_open") == 0
    assert m("drworker_drill_rto_seconds", procedure="file_system_recovery") is None
    assert m("drworker_recovery_point_target_seconds", kind="files") == 86400
    assert 600 <= m("drworker_recovery_point_slack_seconds", kind="files") < 700
    assert 0 <= m("drworker_recovery_point_age_seconds", kind="files") < 600
    assert m("drworker_recovery_point_target_seconds", kind="database") is None


def case_a_drill_that_failed_measured_nothing(case):
    """Its RTO is not 0: it is not there, and after a good drill stays what that one measured."""
    store = case.store(database=False, files=True)
    _, where = start(case)
    last = {"procedure": "file_system_recovery"}
    path = store / "backups" / case.backup("files") / "files.drb"
    good = path.read_bytes()

    def drilled(jid, ok):
        path.write_bytes(good if ok else good[:-1] + bytes([good[-1] ^ 1]))
        if ok:
            case.order("verify", "v-" + jid, all=True)  # what a proof found damaged counts again
        case.order("test-recovery", jid, "done" if ok else "failed", **{"procedure_id": last["procedure"]})
        return until(where, lambda m: m("drworker_drill_ok", **last) == ok)

    m = drilled("d1", False)
    assert m("drworker_drill_rto_seconds", **last) is None and m("drworker_drill_rto_target_seconds", **last) == 1200
    rto = drilled("d2", True)("drworker_drill_rto_seconds", **last)
    assert rto > 0
    assert drilled("d3", False)("drworker_drill_rto_seconds", **last) == rto


def case_busy_address(case):
    """A second worker at the same address warns and works."""
    first, where = start(case, DR_LANES="noop")
    second = case.worker(DR_LANES="noop", DR_HTTP_LISTEN=where)
    dr.wait(lambda: '"http.off"' in second.log.read_text())
    assert get(where, "/healthz")[0] == 200
    case.kill(first, signal.SIGTERM)
    case.order("noop", "n")


def case_addresses(case):
    path = case.dir / "http.sock"
    worker, where = start(case, DR_LANES="noop", DR_HTTP_LISTEN=f"unix:{path}")
    assert where == f"unix:{path}" and path.stat().st_mode & 0o777 == 0o660
    assert get(where, "/healthz")[2] == "ok\n"
    case.kill(worker)  # it leaves its file behind
    worker, where = start(case, DR_LANES="noop", DR_HTTP_LISTEN=f"unix:{path}")
    assert get(where, "/readyz")[0] == 200
    case.kill(worker, signal.SIGTERM)
    assert not path.exists()
    for bad in ("9464", "localhost:9464", "127.0.0.1:70000", "127.0.0.1", "[::1]", "[127.0.0.1]:1", "unix:a.sock",
                "unix:/" + "x" * 108, "tcp:1", ""):
        told = case.drworker("run", code=2, DR_HTTP_LISTEN=bad)
        assert "DR_HTTP_LISTEN" in told, (bad, told)
    if socket.has_ipv6 and pathlib.Path("/proc/net/if_inet6").exists() and pathlib.Path("/proc/net/if_inet6").read_text():
        _, where = start(case, DR_LANES="noop", DR_HTTP_LISTEN="[::1]:0")
        assert where.startswith("[::1]:") and get(where, "/metrics")[0] == 200


def case_requests(case):
    """GET and HEAD of three paths; everything else has its status and tells nothing."""
    _, where = start(case, DR_LANES="noop")
    status, headers, body = get(where, "/metrics", "HEAD")
    assert (status, body) == (200, "") and int(headers["content-length"]) > 1000
    assert "server" not in headers and headers["connection"] == "close"
    assert get(where, "/healthz?x=1", version="HTTP/1.0")[0] == 200
    assert get(where, "http://elsewhere/healthz")[0] == 200
    for path in ("/", "/metrics/", "/Metrics", "/../metrics", "//metrics", "/" + "x" * 4000):
        assert get(where, path)[0] == 404, path
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "get", "TRACE"):
        status, headers, _ = get(where, "/metrics", method)
        assert status == 405 and headers["allow"] == "GET, HEAD", method
    for raw, wanted in ((b"GET /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 413),
                        (b"GET /metrics HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 413),
                        (b"GET /healthz HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 200),
                        (b"GET /healthz HTTP/1.1\n\n", 200),
                        (b"GET /metrics HTTP/2.0\r\n\r\n", 505), (b"GET /metrics\r\n\r\n", 400),
                        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400), (b"GET metrics HTTP/1.1\r\n\r\n", 400),
                        (b"GET / HTTP/1.1\r\nX: " + b"y" * 9000, 431),
                        (b"GET /a\0b HTTP/1.1\r\n\r\n", 400)):
        got = exchange(where, raw)
        assert got.startswith(f"HTTP/1.1 {wanted} ".encode()), (raw[:40], got[:80])
    assert exchange(where, b"GET /healthz HTTP/1.1\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n").count(b"HTTP/1.1") == 1


def case_slow_clients(case):
    """More idle ones than may be connected, and readers that never read: cut, and the next one is served."""
    _, where = start(case, DR_LANES="noop:4")
    idle = [exposition.connect(where) for _ in range(80)]
    reader = exposition.connect(where)
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    reader.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
    idle[0].sendall(b"GET /met")
    case.order("noop", "n")
    assert get(where, "/healthz")[0] == 200  # after the first 64 were cut
    assert idle[0].recv(100) == b""
    for s in [*idle, reader]:
        s.close()
    assert scrape(where)("drworker_loop_lag_max_seconds") < 2


def case_ready(case):
    """Not without Redis, not while it drains; alive all the same."""
    worker, where = start(case, DR_LANES="noop:4", DR_DRAIN_MS="20000")
    assert get(where, "/readyz") [::2] == (200, "ok\n")
    case.kill(case.redis_process)
    status, _, body = dr.wait(lambda: (lambda a: a if a[0] == 503 else None)(get(where, "/readyz")))
    assert body == "Redis does not answer\n" and get(where, "/healthz")[0] == 200
    m = scrape(where)
    assert m("drworker_redis_up") == 0
    case.start_redis()
    dr.wait(lambda: get(where, "/readyz")[0] == 200)
    assert scrape(where)("drworker_redis_reconnects_total") == 1
    case.push("noop", {"id": "long", "t": "noop", "a": {"sleep_ms": 60_000}})
    case.until("long", "running")
    worker.send_signal(signal.SIGTERM)
    status, _, body = dr.wait(lambda: (lambda a: a if a[0] == 503 else None)(get(where, "/readyz")))
    assert body == "it drains\n" and scrape(where)("drworker_draining") == 1
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0


def case_promtool(case):
    """Prometheus' own linter has nothing to say."""
    assert shutil.which("promtool"), "deploy/packages test installs it"
    case.store(database=False, files=True)
    _, where = start(case)
    case.backup("files")
    until(where, lambda m: m.samples.get("drworker_backups"))
    p = subprocess.run(["promtool", "check", "metrics"], input=get(where, "/metrics")[2], text=True, capture_output=True)
    assert p.returncode == 0 and not p.stderr.strip(), (p.stdout, p.stderr)


dr.run(globals(), at_once=4)
