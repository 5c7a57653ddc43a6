#!/usr/bin/env python3
"""What tasks may ask of the queue: journals, parking, outcomes and exit codes, long results, rt."""
import base64
import hashlib
import json
import os
import pathlib
import pty
import sys
import threading
import time

import msgpack

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from dr import BIN, run, wait  # noqa: E402


def order(jid, reason="", **more):
    return msgpack.packb({"id": jid, "t": "execute",
                          "a": {"procedure_id": "database_recovery", "reason": reason}, **more})


def mid(raw):
    return hashlib.sha1(raw).hexdigest()


def probe(c, **env):
    return c.worker(program="tests/probe", PROBE_DIR=str(c.dir), **env)


def runs(c):
    path = c.dir / "runs"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def case_an_open_journal_runs_whatever_the_message_says(c):
    key = c.dir / "keys"
    key.write_text(c.cli("keys", "new", "ops", "operator"))
    key.chmod(0o600)
    raw = order("j", iat=1, exp=1000, nbf=2**50)  # unsigned, expired and too early at once
    (c.dir / ("open-" + mid(raw))).touch()
    c.r.hset("{dr}:job:j", mapping={"st": "cancelled", "cancel": "1", "n": 4, "f": "1"})
    c.r.hset("{dr}:deliv", mid(raw), 99)
    probe(c, DR_SIGN_KEYS_FILE=str(key))
    c.push("execute", raw)
    job = c.until("j", "done")
    assert runs(c) == [["j", mid(raw), "1"]] and job["n"] == b"5"
    assert "cancel" not in job
    other = order("k", iat=1, exp=1000)
    c.push("execute", other)
    wait(lambda: [d for d in c.dead() if d["reason"] == "auth" and d["jid"] == "k"])
    wait(c.at_rest)


def case_an_open_journal_is_never_poison(c):
    raw = order("p", "sleep")
    (c.dir / ("open-" + mid(raw))).touch()
    p = probe(c)
    c.push("execute", raw)
    for n in range(1, 6):  # the limit of execute is 2
        c.until("p", "running")
        wait(lambda: len(runs(c)) == n)
        f = c.r.hget("{dr}:job:p", "f")
        c.kill(p)
        p = probe(c)
        wait(lambda: c.r.hget("{dr}:job:p", "f") != f)
    assert int(c.r.hget("{dr}:deliv", mid(raw))) >= 4 and c.dead() == []


def case_nobody_cancels_what_a_journal_began(c):
    raw = order("c", "copy")
    (c.dir / ("open-" + mid(raw))).touch()
    probe(c)
    c.push("execute", raw)
    c.until("c", "running")
    c.cli("cancel", "c")
    assert c.until("c", "done", "cancelled")["st"] == b"done"


def case_a_closed_journal_answers_instead_of_a_run(c):
    for jid, outcome, st in [("a", "done", "done"), ("b", "rolled_back", "failed"),
                             ("d", "needs_human", "failed")]:
        raw = order(jid, exp=1000, iat=1)
        (c.dir / ("closed-" + jid)).write_text(f"{mid(raw)} {outcome}\n")
        c.push("execute", raw)
    probe(c)
    for jid, outcome, st in [("a", "done", "done"), ("b", "rolled_back", "failed"),
                             ("d", "needs_human", "failed")]:
        job = c.until(jid, st)
        assert job["outcome"] == outcome.encode(), job
        assert msgpack.unpackb(job["res"])["summary"] == "as the journal says"
    assert runs(c) == []
    f = c.job("a")["f"]
    c.push("execute", order("a", exp=1000, iat=1))  # a duplicate of what was reported
    wait(lambda: c.r.llen("{dr}:q:execute") == 0 and c.at_rest())
    assert c.job("a")["f"] == f and c.dead() == []


def case_another_message_of_a_journalled_job_is_a_collision(c):
    (c.dir / "closed-x").write_text("0" * 40 + " done\n")
    probe(c)
    c.push("execute", order("x"))
    wait(lambda: [d for d in c.dead() if d["reason"] == "id-collision" and d["value"] == "x"])
    assert runs(c) == [] and not c.r.exists("{dr}:job:x")
    wait(c.at_rest)


def case_a_parked_message_waits_and_is_charged_nothing(c):
    (c.dir / "busy").touch()
    probe(c)
    c.push("execute", order("w", mx=1))
    job = c.until("w", "delayed")
    assert job["n"] == b"0" and len(runs(c)) == 1
    due = c.r.zrange("{dr}:delay:execute", 0, -1, withscores=True)
    t = c.r.time()
    assert 3000 < due[0][1] - (t[0] * 1000 + t[1] // 1000) <= 5000, due
    (c.dir / "busy").unlink()
    job = c.until("w", "done")
    assert job["n"] == b"1" and len(runs(c)) == 2
    assert c.dead() == [] and not c.r.hget("{dr}:stat", "failed")
    wait(c.at_rest)


def case_outcomes_are_exit_codes(c):
    p = probe(c)
    for reason, code in [("", 0), ("partial", 3), ("failed", 1), ("refused", 4), ("locked", 5),
                         ("key", 6), ("integrity", 7), ("tampered", 7), ("rolled_back", 8),
                         ("needs_human", 9), ("unreachable", 10)]:
        c.cli("execute", "database_recovery", "--reason", reason, "--wait", code=code)
    jid = c.cli("execute", "database_recovery", "--reason", "sleep").strip()
    c.until(jid, "running")
    c.cli("cancel", jid)
    c.cli("watch", jid, code=12)
    c.cli("watch", jid, "--json", code=12)
    c.push("execute", order("old", exp=1000))
    c.until("old", "expired")
    c.cli("watch", "old", code=1)
    c.push("execute", order("bad", mx=0))
    c.until("bad", "dead")
    c.cli("watch", "bad", code=1)
    shown = json.loads(c.cli("status", "bad", "--json"))
    assert shown["err"]["field"] == "mx"
    jid = c.cli("execute", "database_recovery", "--reason", "tampered").strip()
    c.until(jid, "failed")
    error = json.loads(c.cli("status", jid, "--json"))["res"]["error"]
    assert error["kind"] == "integrity" and error["reason"] == "chunk-tag" and error["step"] == "act"
    assert p.poll() is None


def case_long_results_go_to_the_store(c):
    probe(c, PROBE_STORE="1")
    c.push("execute", order("r", "long100000"))
    res = msgpack.unpackb(c.until("r", "done")["res"])
    name = base64.b32encode(hashlib.sha256(b"dr-run\0dr\0r").digest()).decode().lower()[:16]
    kept = (c.dir / ("result-" + name)).read_bytes()
    assert res["uri"] == f"results/{name}.msgpack"
    assert res["sha256"] == hashlib.sha256(kept).hexdigest()
    assert res["outcome"] == "done" and len(res["steps"]) == 2 and "blob" not in res
    assert msgpack.unpackb(kept)["blob"] == "x" * 100000
    assert res["uri"] in c.cli("status", "r")
    c.push("execute", order("short", "long60000"))
    assert len(msgpack.unpackb(c.until("short", "done")["res"])["blob"]) == 60000


def case_long_results_are_cut_without_a_store(c):
    probe(c)
    for n in 100_000, 20_000_000:
        c.push("execute", order(f"n{n}", f"long{n}"))
        res = msgpack.unpackb(c.until(f"n{n}", "done")["res"])
        assert res["outcome"] == "done" and res["summary"] and "cut" in res["note"], res
        assert "blob" not in res and "uri" not in res


def case_rt_drops_the_result_and_keeps_the_record(c):
    probe(c)
    c.push("execute", order("rt", rt=1))
    c.push("execute", order("kept"))
    assert c.until("rt", "done")["res"] and c.until("kept", "done")["res"]
    wait(lambda: "res" not in c.job("rt"))
    assert c.state("rt") == "done" and c.r.ttl("{dr}:job:rt") > 80000
    assert c.job("kept")["res"]
    assert c.r.zcard("{dr}:rt") == 0


def case_workers_of_another_store_are_refused(c):
    probe(c, PROBE_STORE="a" * 32)
    assert c.r.get("{dr}:store") == b"a" * 32
    same = probe(c, PROBE_STORE="a" * 32)
    other = probe(c, wait_up=False, PROBE_STORE="b" * 32)
    assert other.wait(20) == 1
    log = other.log.read_text()
    for word in "a" * 32, "b" * 32, "recover --adopt", "keys init --new-store", "BACKUP_DIRECTORY":
        assert word in log, log
    c.r.flushall()
    c.r.client_kill_filter(_type="normal", skipme=True)
    wait(lambda: c.r.get("{dr}:store") == b"a" * 32)
    c.r.set("{dr}:store", "c" * 32)  # the namespace was given to another store meanwhile
    c.r.client_kill_filter(_type="normal", skipme=True)
    assert same.wait(20) == 1


def case_info_is_written_at_each_connect(c):
    probe(c)
    info = wait(lambda: c.r.hgetall("{dr}:info"))
    assert info == {b"procedures": b"\x90", b"health": b"\xc0"}, info
    c.r.delete("{dr}:info")
    c.r.client_kill_filter(_type="normal", skipme=True)
    wait(lambda: c.r.hgetall("{dr}:info") == info)


def case_watch_tells_step_percent_bytes_and_rate(c):
    probe(c)
    jid = c.cli("execute", "database_recovery", "--reason", "copy").strip()
    lines = [json.loads(line) for line in c.cli("watch", jid).splitlines()]
    assert lines[-1]["st"] == "done" and lines[-1]["outcome"] == "done"
    middle = [x for x in lines if x["step"] == "act" and 0 < x["done"] < x["total"]]
    assert middle and middle[-1]["total"] == 100 << 20 and middle[-1]["rate"] > 0, lines
    assert all(a["pct"] <= b["pct"] for a, b in zip(lines, lines[1:]))
    assert any(x["eta"] > 0 for x in middle)


def case_watch_draws_a_bar_on_a_terminal(c):
    probe(c)
    jid = c.cli("execute", "database_recovery", "--reason", "copy").strip()
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(BIN / "drproducer", ["drproducer", "watch", jid], {"REDIS_URL": c.url})
    text = b""

    def read():
        nonlocal text
        while True:
            try:
                part = os.read(fd, 4096)
            except OSError:
                return
            if not part:
                return
            text += part
    reader = threading.Thread(target=read)
    reader.start()
    _, status = os.waitpid(pid, 0)
    reader.join(10)
    os.close(fd)
    assert os.waitstatus_to_exitcode(status) == 0, text
    assert b"#" in text and b"%" in text and b"act" in text and b"MB/s" in text, text
    assert b"ETA" in text and b"/ 104.9 MB" in text and b"done" in text, text


if __name__ == "__main__":
    run(globals(), at_once=4)
