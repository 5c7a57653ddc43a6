#!/usr/bin/env python3
"""drproducer: every command, what it sends, what it prints, its exit codes."""
import contextlib
import json
import os
import pathlib
import pty
import signal
import subprocess
import sys
import time

import msgpack

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from dr import BIN, run, wait  # noqa: E402


def sent(c, lane):
    """The one message in a lane's list, taken out: its body."""
    raw = c.r.rpop("{dr}:q:" + lane)
    assert raw and c.r.llen("{dr}:q:" + lane) == 0
    return msgpack.unpackb(raw)


def case_every_order_becomes_its_message(c):
    bid = "20260102T030405Z-database-jpfikvy7"
    for words, lane, args in [
            (["noop"], "noop", {}),
            (["noop", "--sleep", "20"], "noop", {"sleep_ms": 20}),
            (["backup"], "backup", {}),
            (["backup", "files", "--class", "manual"], "backup", {"kind": "files", "class": "manual"}),
            (["verify", bid], "verify", {"backup_id": bid}),
            (["verify", "--all"], "verify", {"all": True}),
            (["execute", "database_recovery", "--backup", "latest", "--before", "2026-01-02T03:04:05Z", "--dry-run",
              "--no-swap", "--keep-newer", "--reason", "a drill"], "execute",
             {"procedure_id": "database_recovery", "backup_id": "latest", "before": "2026-01-02T03:04:05Z",
              "dry_run": True, "no_swap": True, "keep_newer": True, "reason": "a drill"}),
            (["test-recovery", "file_system_recovery", "--level", "plan"], "test-recovery",
             {"procedure_id": "file_system_recovery", "level": "plan"}),
            (["retention", "--dry-run"], "retention", {"dry_run": True}),
            (["retention", "--plan", "a" * 64], "retention", {"plan": "a" * 64}),
            (["sync", "--dry-run"], "sync", {"dry_run": True}),
            (["health"], "health", {}),
            (["log-cleanup", "--older-than", "30"], "log-cleanup", {"older_than_days": 30}),
            (["enqueue", "verify", "all=true", "budget_bytes=1000"], "verify", {"all": True, "budget_bytes": 1000}),
            (["enqueue", "noop", "--args-json", '{"sleep_ms": 7, "payload": {"x": [1, "é"]}}'], "noop",
             {"sleep_ms": 7, "payload": {"x": [1, "é"]}}),
            (["enqueue", "noop", "sleep_ms=1", "--args-json", '{"payload": null}'], "noop",
             {"sleep_ms": 1, "payload": None})]:
        jid = c.cli(*words).strip()
        body = sent(c, lane)
        assert body["a"] == args and body["t"] == lane and body["id"] == jid, (words, body)
        assert len(jid) == 36 and jid[14] == "7" and abs(body["iat"] - time.time() * 1000) < 60_000
        assert c.state(jid) == "queued"


def case_wrong_words_are_refused_before_anything_is_sent(c):
    for words, text in [
            ([], "usage"), (["nonsense"], "unknown command"), (["noop", "one", "two"], "too many"),
            (["noop", "--nap", "1"], "--nap"), (["noop", "--sleep"], "needs a value"),
            (["noop", "--sleep", "-1"], "sleep_ms"), (["backup", "everything"], "kind"),
            (["verify", "../x"], "backup_id"), (["execute"], "procedure_id"),
            (["execute", "database_recovery", "--before", "yesterday"], "before"),
            (["noop", "--id", "../x"], "--id"), (["noop", "--in", "soon"], "--in"),
            (["noop", "--in", "367d"], "--in"), (["noop", "--in", "99999999999999d"], "--in"),
            (["enqueue"], "no such lane"), (["enqueue", "erase"], "no such lane"),
            (["enqueue", "noop", "sleep_ms"], "KEY=VALUE"), (["enqueue", "noop", "x=1"], "a.x"),
            (["enqueue", "noop", "--args-json", "{"], "JSON"), (["enqueue", "noop", "--args-json", "[1]"], "JSON"),
            (["enqueue", "noop", "--args-json", '{"sleep_ms":"1"}'], "sleep_ms"),
            (["enqueue", "noop", "sleep_ms=1", "--args-json", '{"sleep_ms":1}'], ""),
            (["status"], "status JOB"), (["watch"], "watch JOB"), (["cancel"], "cancel JOB"),
            (["status", "x", "--lane", "y"], "--lane"), (["workers", "--x", "y"], "--x"),
            (["--namespace", "not ok", "noop"], "DR_NAMESPACE"), (["--redis", "http://x", "noop"], "REDIS")]:
        message = c.cli(*words, code=2)
        assert text in message, (words, message)
    assert c.r.keys("*") == []
    assert "usage" in c.cli("--help") and c.cli("--version").startswith("drproducer ")


def case_in_delays_and_keeps_its_day(c):
    c.worker()
    jid = c.cli("noop", "--in", "30h").strip()
    job = c.until(jid, "delayed")
    raw = msgpack.unpackb(c.r.hvals("{dr}:delayraw")[0])
    assert raw["exp"] - raw["nbf"] == 86_400_000 and raw["nbf"] > time.time() * 1000 + 29 * 3_600_000
    assert job["n"] == b"0"
    began = time.time()
    c.cli("noop", "--in", "700ms", "--wait")
    assert time.time() - began >= 0.7
    assert c.cli("cancel", jid).strip() == "cancelled"


def case_an_id_makes_sending_again_safe(c):
    c.worker()
    for _ in range(3):
        assert c.cli("noop", "--id", "mine", "--wait").split()[0] == "mine"
    assert c.r.hget("{dr}:stat", "done") == b"1"
    assert "another job" in c.cli("noop", "--id", "mine", "--sleep", "1", code=1)


def case_json_everywhere(c):
    c.worker(DR_LANES="noop:2")
    order = json.loads(c.cli("--json", "noop", "--sleep", "1"))
    assert order["lane"] == "noop"
    jid = order["job"]
    last = [json.loads(x) for x in c.cli("watch", jid, "--json").splitlines()][-1]
    assert last["job"] == jid and last["st"] == "done" and last["outcome"] == "done" and last["pct"] == 100
    status = json.loads(c.cli("status", jid, "--json"))
    assert status["job"] == jid and status["st"] == "done" and status["n"] == 1
    assert status["res"]["outcome"] == "done" and status["res"]["steps"][0]["name"] == "sleep"
    assert isinstance(status["q_at"], int) and status["e_at"] >= status["s_at"] >= status["q_at"]
    jobs = [json.loads(x) for x in c.cli("jobs", "--json").splitlines()]
    assert [j["job"] for j in jobs] == [jid]
    workers = [json.loads(x) for x in c.cli("workers", "--json").splitlines()]
    assert workers[0]["lanes"] == "noop:2" and len(workers[0]["wid"]) == 32
    jid = c.cli("noop", "--sleep", "600000").strip()
    c.until(jid, "running")
    assert json.loads(c.cli("cancel", jid, "--json")) == {"job": jid, "st": "running"}
    c.until(jid, "cancelled")
    assert json.loads(c.cli("keys", "new", "k", "app", "--json"))["role"] == "app"
    lines = [json.loads(x) for x in c.cli("noop", "--json", "--wait").splitlines()]
    assert lines[0]["job"] == lines[-1]["job"] and lines[-1]["st"] == "done"


def case_jobs_by_lane_and_state(c):
    c.worker(DR_LANES="noop")
    done = c.cli("noop", "--wait").split()[0]
    c.push("noop", {"id": "bad", "t": "noop", "a": {"x": 1}})
    c.until("bad", "dead")
    queued = c.cli("sync").strip()
    assert done in c.cli("jobs") and queued in c.cli("jobs")
    assert c.cli("jobs", "--state", "done").split()[0] == done
    assert c.cli("jobs", "--lane", "sync").split()[0] == queued
    assert c.cli("jobs", "--state", "dead").split()[0] == "bad"
    assert c.cli("jobs", "--state", "failed") == ""
    c.push("verify", {"id": "bare", "t": "verify", "a": {"all": True}})  # waits without a record
    c.push("verify", b"no message at all")
    assert c.cli("jobs", "--lane", "verify").split()[:3] == ["bare", "verify", "queued"]
    assert json.loads(c.cli("jobs", "--lane", "verify", "--json")) == {"job": "bare", "st": "queued",
                                                                        "lane": "verify"}
    c.push("noop", {"id": "long", "t": "noop", "a": {"sleep_ms": 60000}})
    c.until("long", "running")
    c.r.delete("{dr}:ev")  # the feed keeps the last 10,000 events only
    assert c.cli("jobs", "--state", "running").split()[0] == "long"
    ids = [line.split()[0] for line in c.cli("jobs").splitlines()]
    assert sorted(ids) == sorted(["long", "bare", queued]), ids


def case_unknown_jobs_and_no_redis(c):
    assert "no job" in c.cli("status", "never", code=1)
    assert "no job" in c.cli("cancel", "never", code=1)
    none = {"REDIS_URL": f"unix://{c.dir}/none.sock"}
    for words in (["noop"], ["status", "x"], ["watch", "x"], ["jobs"], ["workers"], ["cancel", "x"]):
        assert "none.sock" in c.cli(*words, env=none, code=10)
    c.cli("keys", "new", "k", "app", env=none)
    c.cli("noop", env={"REDIS_URL": "", "CELERY_BROKER_URL": c.url}, code=2)


def case_the_brokers_variable_and_namespaces(c):
    p = subprocess.run([BIN / "drproducer", "noop"], env={"CELERY_BROKER_URL": c.url, "DR_NAMESPACE": "shop-2"},
                       capture_output=True, text=True, check=True)
    assert c.r.llen("{shop-2}:q:noop") == 1
    c.worker(wait_up=False, DR_NAMESPACE="shop-2")
    wait(lambda: c.r.hget("{shop-2}:job:" + p.stdout.strip(), "st") == b"done")
    assert c.r.keys("{dr}*") == []


def case_watch_ends_by_a_signal_and_the_job_goes_on(c):
    c.worker()
    jid = c.cli("noop", "--sleep", "1500").strip()
    p = subprocess.Popen([BIN / "drproducer", "watch", jid], env={"REDIS_URL": c.url}, stdout=subprocess.PIPE)
    assert jid.encode() in p.stdout.readline()
    p.send_signal(signal.SIGINT)
    assert p.wait(10) == 130
    p.stdout.close()
    c.until(jid, "done")


def case_waiting_may_time_out_and_the_job_goes_on(c):
    c.worker()
    jid = c.cli("noop", "--sleep", "1500").strip()
    assert "goes on" in c.cli("watch", jid, "--timeout", "200ms", code=11)
    assert "goes on" in c.cli("noop", "--sleep", "1500", "--wait", "--timeout", "200ms", code=11)
    c.until(jid, "done")
    c.cli("watch", jid, "--timeout", "200ms")
    c.cli("watch", jid, "--timeout", "soon", code=2)


def case_watch_waits_for_a_worker(c):
    jid = c.cli("noop").strip()
    p = subprocess.Popen([BIN / "drproducer", "watch", jid], env={"REDIS_URL": c.url}, stdout=subprocess.PIPE,
                         stderr=subprocess.DEVNULL)
    assert b"queued" in p.stdout.readline()
    c.worker()
    assert p.wait(20) == 0
    assert b"done" in p.stdout.read().splitlines()[-1]
    p.stdout.close()


def case_hostile_names_reach_no_terminal(c):
    """What a message called itself is printed as text, never as control characters."""
    c.worker()
    c.push("noop", {"id": "h", "t": "noop", "a": {"\x1b[31mred": 1}})
    c.until("h", "dead")
    for words in (["status", "h"], ["status", "h", "--json"], ["jobs"]):
        assert "\x1b" not in c.cli(*words)


def ended(c, jid, st, res=None, err=None):
    """Writes the record of a job that has ended so."""
    fields = {"st": st, "outcome": (res or {}).get("outcome", "")}
    fields |= {"res": msgpack.packb(res)} if res is not None else {}
    c.r.hset("{dr}:job:" + jid, mapping=fields | ({"err": msgpack.packb(err)} if err else {}))


def account(c, jid, code=0, words=()):
    """What `watch` says of it beside the JSON lines, and those."""
    p = subprocess.run([BIN / "drproducer", "watch", jid, *words], env={"REDIS_URL": c.url}, capture_output=True,
                       check=False, timeout=60)
    assert p.returncode == code, p
    assert json.loads(p.stdout)["job"] == jid, p.stdout
    return p.stderr.decode()


DRY = {"outcome": "done", "summary": "dry run: it could be", "eta_ms": 4321, "eta_from": "a guess",
       "emergency_possible": True}
PLAN = [{"step": "restore", "does": "restores it beside shop"}, {"step": "swap", "does": "two renames"}]


def case_a_dry_run_tells_what_the_database_would_lose(c):
    tables = {"public.orders": {"live": 12, "backup": 9, "lost": 3}, "public.broken": {"live": None, "backup": 7, "lost": 0}}
    loss = {"rows": 3, "live_rows": 12, "backup_rows": 16, "tables_differing": 5, "tables": tables}
    ended(c, "dry", "done", DRY | {"plan": PLAN, "would_lose": loss})
    lines = [line.split() for line in account(c, "dry").splitlines()]
    assert lines == [words.split() for words in (
        "dry run: it could be", "plan:", "restore restores it beside shop", "swap two renames",
        "would be lost: 3 rows", "rows of live backup lost", "public.orders 12 9 3", "public.broken ? 7 0",
        "... and 3 more tables that differ", "all tables 12 16 3", "would take about 4.3 s (estimated from: a guess)",
        "an emergency backup of live before the swap is possible")], lines
    assert account(c, "dry", words=["--json"]) == ""


def case_a_dry_run_tells_which_files_would_be_lost(c):
    loss = {"changed": 30, "added": 20, "bytes": 2_500_000, "live_entries": 90, "returning": 4, "carried": 1,
            "files": [f"/srv/{i}" for i in range(45)]}
    ended(c, "dry", "done", DRY | {"plan": PLAN, "would_lose": loss, "emergency_possible": False, "live_damage": "EIO"})
    text = account(c, "dry")
    assert "would be lost: 30 changed and 20 added files, 2.5 MB, of 90 entries; 4 come back, 1 stay" in text
    assert text.count("/srv/") == 40 and "... and 10 more\n" in text
    assert "live is damaged: EIO\n" in text and "is not possible\n" in text


def case_a_recovery_tells_its_downtime_and_what_it_keeps(c):
    res = {"outcome": "done", "summary": "database shop recovered", "total_ms": 4200, "emergency_backup_id": "EB",
           "downtime_ms": {"total": 108, "services": 100, "ours": 8},
           "kept_old": [{"what": "shop__before_x", "until": "2026-01-02T03:04:05.678Z", "note": "ALTER opens it"},
                        {"what": "/srv/.dr-x/before", "until": None, "note": "the tree"}]}
    ended(c, "done", "done", res)
    assert account(c, "done").splitlines() == [
        "database shop recovered", "downtime 108 ms, of it services 100 ms; in all 4.2 s", "emergency backup EB",
        "kept: shop__before_x, until 2026-01-02T03:04:05.678Z (ALTER opens it)",
        "kept: /srv/.dr-x/before, without expiry (the tree)"]
    failed = {"outcome": "rolled_back", "summary": "taken back", "emergency_backup_id": None,
              "emergency_backup_error": "no space", "error": {"kind": "tool", "step": "verify", "message": "pg_restore: 1"}}
    ended(c, "failed", "failed", res | failed | {"kept_old": []}, err=failed["error"])
    assert account(c, "failed", 8).splitlines() == [
        "taken back", "downtime 108 ms, of it services 100 ms; in all 4.2 s", "no emergency backup: no space",
        "error: tool at step verify: pg_restore: 1"]
    ended(c, "early", "failed", res | {"outcome": "failed", "summary": "", "emergency_backup_id": None, "kept_old": [],
                                       "downtime_ms": {"total": 0}, "error": {"kind": "locked", "message": "busy"}})
    assert account(c, "early", 1) == "error: locked: busy\n"


def case_what_never_ran_and_what_lies_in_the_store(c):
    c.worker()
    c.push("noop", {"id": "bad", "t": "noop", "a": {"x": 1}})
    c.until("bad", "dead")
    text = account(c, "bad", 1)
    assert text.startswith("error: ") and "[a.x=" in text and text.count("\n") == 1, text
    ended(c, "long", "done", {"outcome": "done", "summary": "much", "uri": "results/abc.msgpack", "sha256": "0" * 64})
    assert account(c, "long") == "much\nthe result is long and lies in the store: BACKUP_DIRECTORY/results/abc.msgpack\n"
    ended(c, "cut", "done", {"outcome": "done", "note": "cut: 70000 bytes"})
    assert account(c, "cut") == "the result is cut: 70000 bytes\n"


def case_a_hostile_result_is_text_and_has_an_end(c):
    odd = "\x1b[31m\x07\r\n\x7f\x9b\u2028\u202e\u2066é"
    loss = {"rows": 1, "tables_differing": 1, "tables": {odd * 100: {"live": odd, "backup": -1, "lost": 1.5}}}
    kept = [{"what": odd, "note": "n" * 5000}] * 500
    for more in ({"plan": [{"step": odd, "does": odd}] * 500, "would_lose": loss}, {"plan": 7, "would_lose": []},
                 {"plan": [], "would_lose": {"files": [odd] * 500, "added": 500}}, {"downtime_ms": {}, "kept_old": kept},
                 {"error": {"kind": odd, "step": odd, "message": odd, "field": odd, "value": odd}, "uri": odd}):
        ended(c, "odd", "done", {"outcome": "done", "summary": odd, "error": 1} | more)
        text = account(c, "odd")
        assert not set(text.replace("\n", "")) & set(odd[0:1] + "\x07\r\x7f\x9b\u2028\u202e\u2066"), text
        assert len(text) < 50_000 and text.count("\n") < 60, (len(text), text.count("\n"))
    whole = msgpack.packb({"outcome": "done", "plan": PLAN, "would_lose": loss, "summary": "s"})
    for cut in range(len(whole)):
        c.r.hset("{dr}:job:odd", mapping={"st": "done", "outcome": "done", "res": whole[:cut]})
        if cut % 7 == 0:
            account(c, "odd")


def case_a_terminal_gets_the_bar_and_the_account(c):
    ended(c, "dry", "done", DRY | {"plan": PLAN})
    for words, told in (((), True), (("--json",), False)):
        ours, theirs = pty.openpty()
        p = subprocess.run([BIN / "drproducer", "watch", "dry", *words], env={"REDIS_URL": c.url}, stdout=theirs,
                           stderr=subprocess.PIPE, check=True, timeout=60)
        os.close(theirs)
        pieces = []
        with contextlib.suppress(OSError):  # EIO: all was read, and nobody writes any more
            while pieces[-1:] != [b""]:
                pieces.append(os.read(ours, 65536))
        os.close(ours)
        text = b"".join(pieces).decode()
        assert p.stderr == b"" and ("dry: done" in text) == told and ("two renames" in text) == told, text


if __name__ == "__main__":
    run(globals(), at_once=6)
