#!/usr/bin/env python3
"""The queue with real workers and a real Redis: bad input, kills, pauses, outages, cancel, drain."""
import json
import os
import pathlib
import signal
import sys
import time

import msgpack

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "lib"), str(ROOT / "fakes")]
from dr import run, wait  # noqa: E402
from redis_proxy import PASS, RedisProxy  # noqa: E402


def noop(jid, **args):
    return {"id": jid, "t": "noop", "a": args}


def case_bare_lpush_runs(c):
    c.worker()
    c.push("noop", noop("a"))
    job = c.until("a", "done")
    assert msgpack.unpackb(job["res"])["outcome"] == "done"
    assert job["n"] == b"1" and job["actor"] == b"unsigned"
    wait(c.at_rest)


def case_malformed_is_buried_and_the_worker_goes_on(c):
    c.worker()
    good = msgpack.packb(noop("x"))
    bad = [b"", b"\xc1", good + b"\x00", good[:-1], b"\x91" * 5000, b"\xdf\xff\xff\xff\xff",
           b"\x82\xa2id\xa1a\xa2id\xa1b", b"x" * 262145]
    for raw in bad[1:]:
        c.push("noop", raw)
    wait(lambda: len(c.dead()) == len(bad) - 1)
    reasons = sorted(d["reason"] for d in c.dead())
    assert reasons == ["malformed"] * 6 + ["too-big"], reasons
    c.push("noop", noop("after"))
    c.until("after", "done")
    wait(c.at_rest)


def case_refusals_name_field_and_value_and_the_corrected_message_runs(c):
    c.worker()
    for jid, body, field in [
            ("j1", noop("j1", nonsense=1), "a.nonsense"),
            ("j2", noop("j2", sleep_ms=-1), "a.sleep_ms"),
            ("j3", noop("j3", sleep_ms=10**12), "a.sleep_ms"),
            ("j4", {**noop("j4"), "mx": 0}, "mx")]:
        c.push("noop", body)
        job = c.until(jid, "dead")
        err = msgpack.unpackb(job["err"])
        assert err["field"] == field, err
        assert job["n"] == b"0"
        c.push("noop", noop(jid))
        c.until(jid, "done")
    c.push("noop", noop(".."))
    wait(lambda: any(d["field"] == "id" and ".." in d["value"] for d in c.dead()))
    assert not c.r.exists("{dr}:job:..")
    wait(c.at_rest)


def case_wrong_lane_and_unknown_type_make_no_record(c):
    c.worker()
    c.push("noop", {"id": "w1", "t": "sync", "a": {}})
    c.push("noop", {"id": "w2", "t": "erase", "a": {}})
    wait(lambda: len(c.dead()) == 2)
    assert {d["reason"] for d in c.dead()} == {"wrong-lane"}
    assert not c.r.exists("{dr}:job:w1", "{dr}:job:w2")


def case_reserved_id_makes_no_record(c):
    c.worker()
    c.push("noop", noop("sched:x:1"))
    wait(lambda: [d for d in c.dead() if d["reason"] == "reserved-id"])
    assert not c.r.exists("{dr}:job:sched:x:1")


def case_duplicates_run_once_and_collisions_are_dead(c):
    c.worker()
    for _ in range(100):
        c.push("noop", noop("same"))
    c.until("same", "done")
    wait(lambda: c.r.llen("{dr}:q:noop") == 0 and c.at_rest())
    assert c.job("same")["n"] == b"1"
    assert c.r.hget("{dr}:stat", "done") == b"1"
    c.push("noop", noop("same", sleep_ms=1))
    wait(lambda: any(d["reason"] == "id-collision" for d in c.dead()))
    assert c.state("same") == "done"


def case_signed_with_a_key_file(c):
    key = c.cli("keys", "new", "app-1", "app")
    path = c.dir / "keys"
    path.write_text(key)
    path.chmod(0o600)
    env = {"DR_SIGN_KEYS_FILE": str(path), "DR_SIGN_KID": "app-1"}
    c.worker(DR_SIGN_KEYS_FILE=str(path))
    jid = c.cli("noop", env=env).strip()
    job = c.until(jid, "done")
    assert job["kid"] == b"app-1" and job["actor"] == b"app-1/"
    other = c.dir / "other"
    other.write_text(c.cli("keys", "new", "app-1", "app"))
    other.chmod(0o600)
    jid = c.cli("noop", env={**env, "DR_SIGN_KEYS_FILE": str(other)}).strip()
    wait(lambda: any(d["reason"] == "auth" and d["kind"] == "bad-mac" for d in c.dead()))
    assert c.state(jid) == "queued"
    c.push("noop", noop("bare"))
    c.until("bare", "done")


def case_key_file_that_others_may_write_is_refused(c):
    path = c.dir / "keys"
    path.write_text(c.cli("keys", "new", "k", "admin"))
    path.chmod(0o666)
    p = c.worker(wait_up=False, DR_SIGN_KEYS_FILE=str(path))
    assert p.wait(20) == 2
    assert "may write" in p.log.read_text()


def case_expired_is_no_dead_letter(c):
    c.worker()
    c.push("noop", {**noop("old"), "exp": 1000})
    c.until("old", "expired")
    assert c.dead() == []
    wait(c.at_rest)


def case_nbf_waits(c):
    c.worker()
    jid = c.cli("noop", "--in", "1s").strip()
    job = c.until(jid, "delayed")
    done = c.until(jid, "done")
    assert int(done["s_at"]) - int(job["q_at"]) >= 900
    wait(c.at_rest)


def case_sigkill_is_taken_over(c):
    first = c.worker()
    c.worker()
    ids = [f"k{i}" for i in range(40)]
    for jid in ids:
        c.push("noop", noop(jid, sleep_ms=400))
    wait(lambda: any(c.state(j) == "running" for j in ids))
    c.kill(first)
    for jid in ids:
        c.until(jid, "done")
    wait(c.at_rest)
    assert c.r.hget("{dr}:stat", "done") == b"40"


def case_sigkill_with_the_lease_as_shipped(c):
    """The one test that waits as long as the default lets it: 22 s at the most, and the job itself."""
    now = c.r.time()  # workers swept until now: no hold-off after an outage
    c.r.hset("{dr}:reap", mapping={"last": now[0] * 1000 + now[1] // 1000, "hold": 0})
    first = c.worker(DR_LEASE_MS=None)
    c.push("noop", noop("slow", sleep_ms=2000))
    c.until("slow", "running")
    c.worker(DR_LEASE_MS=None)
    c.kill(first)
    c.until("slow", "done", seconds=25)
    assert c.job("slow")["n"] == b"2"


def case_paused_worker_wakes_to_a_stale_result(c):
    first = c.worker()
    c.push("noop", noop("p", sleep_ms=300))
    c.until("p", "running")
    first.send_signal(signal.SIGSTOP)
    c.worker()
    done = c.until("p", "done")
    first.send_signal(signal.SIGCONT)
    wait(lambda: "job.stale" in first.log.read_text())
    assert c.job("p")["f"] == done["f"] and c.job("p")["e_at"] == done["e_at"]
    assert c.r.hget("{dr}:stat", "done") == b"1"
    wait(c.at_rest)


def case_paused_alone_the_late_finish_is_accepted(c):
    only = c.worker()
    c.push("noop", noop("late", sleep_ms=200))
    c.until("late", "running")
    only.send_signal(signal.SIGSTOP)
    time.sleep(3)
    only.send_signal(signal.SIGCONT)
    job = c.until("late", "done")
    assert job["n"] == b"1"
    wait(c.at_rest)


def case_poison_is_dead_after_its_limit(c):
    """A message whose workers die each time; other jobs are not affected."""
    c.r.set("{dr}:ctr", "1")
    jid = "poison"
    c.push("noop", noop(jid, sleep_ms=60000))
    helper = c.worker(DR_LANES="noop:1")
    for _ in range(8):
        wait(lambda: c.state(jid) in ("running", "dead"))
        if c.state(jid) == "dead":
            break
        f = c.r.hget("{dr}:job:" + jid, "f")
        c.kill(helper)
        helper = c.worker(DR_LANES="noop:1")
        wait(lambda: c.r.hget("{dr}:job:" + jid, "f") != f or c.state(jid) == "dead", 30)
    assert c.state(jid) == "dead"
    assert [d["reason"] for d in c.dead()] == ["poison"]
    c.push("noop", noop("fine"))
    c.until("fine", "done")
    wait(c.at_rest)


def case_redis_killed_and_restarted(c):
    c.worker()
    ids = [f"r{i}" for i in range(200)]
    for jid in ids:
        c.push("noop", noop(jid, sleep_ms=50))
    wait(lambda: c.state(ids[20]) == "done")
    c.kill(c.redis_process)
    c.start_redis()
    for jid in ids:
        c.until(jid, "done", seconds=60)
    wait(c.at_rest)


def case_redis_gone_while_a_job_ends(c):
    c.worker()
    c.push("noop", noop("outbox", sleep_ms=700))
    c.until("outbox", "running")
    c.redis_process.send_signal(signal.SIGSTOP)
    time.sleep(6.5)  # beyond the worker's command deadline: the connection is given up
    c.redis_process.send_signal(signal.SIGCONT)
    job = c.until("outbox", "done")
    assert job["n"] == b"1"
    wait(c.at_rest)


def case_flushall_leaves_an_orphan_result(c):
    c.worker()
    c.push("noop", noop("o", sleep_ms=800))
    c.until("o", "running")
    c.r.flushall()
    job = c.until("o", "done")
    assert job["orphan"] == b"1"


def case_script_flush_and_client_kill(c):
    c.worker()
    for i in range(20):
        c.push("noop", noop(f"s{i}", sleep_ms=100))
        c.r.script_flush()
        c.r.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        time.sleep(0.05)
    for i in range(20):
        c.until(f"s{i}", "done")
    wait(c.at_rest)


def case_wrong_type_loses_nothing(c):
    c.worker()
    c.r.set("{dr}:stat", "not a hash")
    c.push("noop", noop("t"))
    time.sleep(1)
    c.r.delete("{dr}:stat")
    c.until("t", "done")
    wait(c.at_rest)


def case_a_damaged_record_holds_up_nobody_else(c):
    """Jobs that start or end together share a call of the script; one whose record Redis refuses waits alone."""
    bad = "{dr}:job:bad"
    c.r.set(bad, "junk")
    c.push_many("noop", [*[noop(f"a{i}") for i in range(20)], noop("bad", sleep_ms=2000),
                         *[noop(f"b{i}", sleep_ms=700) for i in range(20)]])
    w = c.worker()
    wait(lambda: c.done() == 40)
    assert not c.at_rest() and w.poll() is None
    c.r.delete(bad)
    c.until("bad", "running")
    c.push_many("noop", [noop(f"c{i}", sleep_ms=700) for i in range(10)])
    c.until("c9", "running")
    c.r.delete(bad)
    c.r.set(bad, "junk")
    wait(lambda: c.done() == 50)
    c.r.delete(bad)
    assert c.until("bad", "done")["orphan"] == b"1"
    wait(c.at_rest)


def case_a_backlog_goes_through_shared_calls(c):
    c.push_many("noop", [noop(f"j{i}") for i in range(1000)])
    c.r.config_resetstat()
    c.worker()
    wait(lambda: c.done() == 1000)
    wait(c.at_rest)
    calls = c.r.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert calls < 600, calls  # three a job would be 3000; sixteen jobs share one when they come together
    assert sum(e[1][b"e"] == b"end" for e in c.r.xrange("{dr}:ev")) == 1000


def case_cancel_waiting_running_and_ended(c):
    jid = c.cli("noop").strip()
    assert c.cli("cancel", jid).strip() == "cancelled"
    c.worker()
    wait(lambda: c.r.llen("{dr}:q:noop") == 0 and c.at_rest())
    assert c.state(jid) == "cancelled"
    c.push("noop", noop("long", sleep_ms=600000))
    c.until("long", "running")
    assert c.cli("cancel", "long").strip() == "asked to stop"
    assert c.until("long", "cancelled")["outcome"] == b"cancelled"
    c.push("noop", noop("quick"))
    c.until("quick", "done")
    assert "ended already" in c.cli("cancel", "quick", code=4)
    assert "no job" in c.cli("cancel", "never", code=1)
    wait(c.at_rest)


def case_cancel_is_seen_at_once(c):
    """By the hint: the next beat is minutes away."""
    c.worker(DR_LEASE_MS="600000")
    for i in range(20):
        jid = f"hint{i}"
        c.push("noop", noop(jid, sleep_ms=600000))
        c.until(jid, "running")
        c.cli("cancel", jid)
        c.until(jid, "cancelled", seconds=20)
    c.r.publish("{dr}:hint:" + c.r.zrange("{dr}:wk", 0, 0)[0].decode(), "nobody")
    c.push("noop", noop("not", sleep_ms=300))
    c.until("not", "running")
    for _ in range(50):  # a hint alone stops nothing
        c.r.publish("{dr}:hint:" + c.r.zrange("{dr}:wk", 0, 0)[0].decode(), "not")
    c.until("not", "done")
    wait(c.at_rest)


def case_cancel_without_hints_waits_for_the_beat(c):
    proxy = RedisProxy(c.dir, c.url.removeprefix("unix://"))
    proxy.rule = lambda command, count: b"-NOPERM no channels\r\n" if command == "SUBSCRIBE" else PASS
    p = c.worker(REDIS_URL=proxy.url)
    wait(lambda: "NOPERM" in p.log.read_text())
    c.push("noop", noop("x", sleep_ms=600000))
    c.until("x", "running")
    c.cli("cancel", "x")
    c.until("x", "cancelled")
    wait(c.at_rest)


def case_hard_timeout_fails_the_job(c):
    c.worker()
    c.push("noop", {**noop("slow", sleep_ms=60000), "to": 1, "mx": 1})
    job = c.until("slow", "failed")
    assert msgpack.unpackb(job["err"])["kind"] == "timeout"


def case_timeouts_are_retried_then_failed(c):
    c.worker()
    c.push("noop", {**noop("again", sleep_ms=60000), "to": 1, "mx": 2, "bo": [100, 200]})
    c.until("again", "retry")
    job = c.until("again", "failed")
    assert job["n"] == b"2"
    wait(c.at_rest)


def case_sigterm_drains_and_hands_back(c):
    first = c.worker(DR_DRAIN_MS="500")
    for i in range(64):
        c.push("noop", noop(f"d{i}", sleep_ms=200 if i % 2 else 60000))
    wait(lambda: c.state("d63") in ("running", "done"))
    assert c.kill(first, signal.SIGTERM) == 0
    states = [c.state(f"d{i}") for i in range(64)]
    assert set(states) <= {"done", "queued"} and states.count("queued") == 32, states
    assert c.r.llen("{dr}:q:noop") == 32
    assert all(c.job(f"d{i}")["n"] == b"0" for i in range(0, 64, 2))
    wait(c.at_rest)


def case_a_stopped_worker_is_not_listed(c):
    first, second = c.worker(), c.worker()
    assert len(c.cli("workers").splitlines()) == 2
    assert c.kill(first, signal.SIGTERM) == 0
    assert len(c.cli("workers").splitlines()) == 1
    c.redis_process.send_signal(signal.SIGSTOP)  # and without Redis it ends all the same
    second.send_signal(signal.SIGTERM)
    assert second.wait(20) == 0
    c.redis_process.send_signal(signal.SIGCONT)


def case_redis_without_memory(c):
    """Enqueuing is refused clearly; what waits and runs is finished, and nothing spins."""
    proxy = RedisProxy(c.dir, c.url.removeprefix("unix://"))
    for i in range(50):
        c.push("noop", noop(f"m{i}", sleep_ms=50))
    c.r.config_set("maxmemory", "1")
    assert "OOM" in c.cli("noop", code=10)
    c.worker(REDIS_URL=proxy.url, DR_LANES="noop:10")
    for i in range(50):
        c.until(f"m{i}", "done")
    wait(c.at_rest)
    before = proxy.counts.get("BLMOVE", 0) + proxy.counts.get("claim", 0)
    time.sleep(2)
    assert proxy.counts.get("BLMOVE", 0) + proxy.counts["claim"] - before < 12
    c.r.config_set("maxmemory", "0")
    assert c.cli("noop", "--wait")


def case_cli_round_trip(c):
    c.worker()
    jid = c.cli("noop", "--wait", "--sleep", "10").split()[0]
    shown = json.loads(c.cli("status", jid, "--json"))
    assert shown["st"] == "done" and shown["res"]["outcome"] == "done" and shown["n"] == 1
    assert jid in c.cli("jobs", "--lane", "noop", "--state", "done")
    assert "noop:64" in c.cli("workers")
    assert c.cli("enqueue", "noop", "sleep_ms=1", "--id", "mine", "--wait").startswith("mine")
    assert c.cli("enqueue", "noop", "sleep_ms=1", "--id", "mine").strip() == "mine"
    assert "another job" in c.cli("enqueue", "noop", "sleep_ms=2", "--id", "mine", code=1)
    assert "a.nope" in c.cli("enqueue", "noop", "nope=1", code=2)
    assert "procedure_id" in c.cli("execute", "everything", code=2)
    c.cli("status", jid, env={"REDIS_URL": "redis://127.0.0.1:1/0"}, code=10)


def case_a_worker_shows_itself_at_once(c):
    c.worker(wait_up=False, DR_LEASE_MS="600000")
    wait(lambda: "noop:64" in c.cli("workers"))


def case_wrong_password_is_named_and_never_shown(c):
    c.r.config_set("requirepass", "right-password")
    p = c.worker(wait_up=False, REDIS_URL=c.url.replace("unix://", "unix://:canary-wrong@"))
    wait(lambda: "WRONGPASS" in p.log.read_text() or "invalid" in p.log.read_text())
    assert "canary-wrong" not in p.log.read_text()
    try:
        assert b"canary-wrong" not in pathlib.Path(f"/proc/{p.pid}/environ").read_bytes()
    except PermissionError:
        assert os.getuid() != 0  # a worker's memory is closed even to its own user


def case_evicting_redis_is_refused(c):
    c.r.config_set("maxmemory", "100mb")
    c.r.config_set("maxmemory-policy", "allkeys-lru")
    p = c.worker(wait_up=False)
    wait(lambda: "noeviction" in p.log.read_text())
    c.r.config_set("maxmemory-policy", "noeviction")
    c.push("noop", noop("m"))
    c.until("m", "done")


if __name__ == "__main__":
    run(globals(), at_once=4)
