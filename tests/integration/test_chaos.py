#!/usr/bin/env python3
"""Kills at every border of a job's scripts, and a proxy that swallows each script's replies.

I1 every accepted id ends; I2 at most one accepted finish an id; I4 nothing is left at rest; I6 the
jobs of a killed worker are taken over while another one lives. Kills need a build with fault points.
"""
import collections
import pathlib
import signal
import sys

import msgpack

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "lib"), str(ROOT / "fakes")]
from dr import SCRIPTS, run, wait  # noqa: E402
from redis_proxy import LOSE, PASS, RedisProxy  # noqa: E402

ENDS = ("done", "failed", "cancelled", "expired", "dead")


def push(c, n, **body):
    ids = [f"c{i}" for i in range(n)]
    for i, jid in enumerate(ids):
        args = {"sleep_ms": body.get("sleep_ms", 20 * (i % 3))}
        c.push("noop", {"id": jid, "t": "noop", "a": args,
                        **{k: v for k, v in body.items() if k != "sleep_ms"}})
    return ids


def check_ended(c, ids, seconds=30):
    for jid in ids:
        c.until(jid, *ENDS, seconds=seconds)
    wait(c.at_rest)
    ends = collections.Counter(e[b"j"].decode() for _, e in c.r.xrange("{dr}:ev") if e[b"e"] == b"end")
    assert ends == {jid: 1 for jid in ids}, ends


def ready_peer(c):
    """A worker that sweeps every lane and takes nothing of noop; past the first hold-off."""
    for path in SCRIPTS.glob("*.lua"):
        c.r.script_load(path.read_text())  # or the first call of each would answer NOSCRIPT
    c.r.hset("{dr}:reap", mapping={"last": int(c.r.time()[0] * 1000), "hold": 0})
    return c.worker(program="tests/probe", PROBE_DIR=str(c.dir))


def killed(c, point, sleep_ms=None):
    """The worker kills itself at a fault point; a peer lives, a third one goes on."""
    ready_peer(c)
    ids = push(c, 12, **({} if sleep_ms is None else {"sleep_ms": sleep_ms}))
    first = c.worker(wait_up=False, DR_FAULT=f"{point}:kill", DR_LANES="noop:4")
    assert first.wait(20) == -signal.SIGKILL, "no build with fault points, or the point was not passed"
    c.worker(DR_LANES="noop:4")
    check_ended(c, ids, seconds=15)
    assert all(c.state(j) == "done" for j in ids)
    return ids


def case_kill_after_the_claim_reply(c):
    killed(c, "claim.reply")
    assert int(c.r.hget("{dr}:stat", "lost")) == 4


def case_kill_after_the_claim_was_sent(c):
    killed(c, "claim.sent")


def case_kill_after_start_was_sent(c):
    ids = killed(c, "start.sent")
    assert max(int(c.job(j)["n"]) for j in ids) == 2  # it had begun: the attempt counts


def case_kill_after_the_start_reply(c):
    killed(c, "start.reply:3")


def case_kill_in_the_middle(c):
    ready_peer(c)
    ids = push(c, 12, sleep_ms=400)
    first = c.worker(DR_LANES="noop:4")
    wait(lambda: sum(c.state(j) == "running" for j in ids) == 4)
    c.kill(first)
    c.worker(DR_LANES="noop:12")
    check_ended(c, ids)


def case_kill_in_the_sleep_step(c):
    killed(c, "noop.sleep.intent:2", sleep_ms=100)


def case_kill_after_finish_was_sent(c):
    killed(c, "finish.sent:2")
    assert int(c.r.hget("{dr}:stat", "done")) == 12


def case_kill_after_the_finish_reply(c):
    killed(c, "finish.reply:2")
    assert int(c.r.hget("{dr}:stat", "done")) == 12


def case_kill_in_a_beat_and_in_a_sweep(c):
    killed(c, "beat.sent:3", sleep_ms=1500)


def lost_replies(c, script, then=None, counts=(1, 2, 5), **body):
    proxy = RedisProxy(c.dir, c.url.removeprefix("unix://"))
    c.r.hset("{dr}:reap", mapping={"last": int(c.r.time()[0] * 1000), "hold": 0})
    proxy.rule = lambda command, count: LOSE if command == script and count in counts else PASS
    ids = push(c, 12, **body)
    p = c.worker(REDIS_URL=proxy.url, DR_LANES="noop:3")
    if then:
        then(proxy, ids)
    wait(lambda: len(proxy.acted) == len(counts))
    check_ended(c, ids)
    assert p.poll() is None
    return ids


def case_lost_replies_of_claim(c):
    """Tickets that the worker never heard of are handed back by itself."""
    ids = lost_replies(c, "claim", counts=(1, 2, 3))
    assert all(c.state(j) == "done" and c.job(j)["n"] == b"1" for j in ids)
    assert not c.r.hget("{dr}:stat", "lost")


def case_lost_replies_of_start(c):
    ids = lost_replies(c, "start")
    assert all(c.state(j) == "done" and c.job(j)["n"] == b"1" for j in ids)


def case_lost_replies_of_beat(c):
    ids = lost_replies(c, "beat", sleep_ms=600)
    assert all(c.state(j) == "done" for j in ids)


def case_lost_replies_of_finish(c):
    ids = lost_replies(c, "finish")
    assert all(c.state(j) == "done" and c.job(j)["n"] == b"1" for j in ids)
    assert int(c.r.hget("{dr}:stat", "done")) == len(ids)


def case_lost_replies_of_fail(c):
    ids = lost_replies(c, "fail", sleep_ms=60000, to=1, mx=2, bo=[100, 200])
    assert all(c.state(j) == "failed" and c.job(j)["n"] == b"2" for j in ids)


def case_lost_replies_of_progress(c):
    ids = lost_replies(c, "progress", counts=(), sleep_ms=300)
    assert all(c.state(j) == "done" for j in ids)


def case_lost_replies_of_reap1(c):
    c.r.hset("{dr}:reap", mapping={"last": int(c.r.time()[0] * 1000), "hold": 0})
    doomed = c.worker(DR_LANES="noop:12")
    ids = push(c, 12, sleep_ms=700)
    wait(lambda: sum(c.state(j) == "running" for j in ids) == 12)
    proxy = RedisProxy(c.dir, c.url.removeprefix("unix://"))
    proxy.rule = lambda command, count: LOSE if command == "reap1" and count in (1, 2, 5) else PASS
    c.worker(REDIS_URL=proxy.url)
    c.kill(doomed)
    wait(lambda: len(proxy.acted) == 3)
    check_ended(c, ids)
    assert int(c.r.hget("{dr}:stat", "lost")) == 12  # none was counted twice


def case_lost_replies_of_cancel(c):
    proxy = RedisProxy(c.dir, c.url.removeprefix("unix://"))
    proxy.rule = lambda command, count: LOSE if command == "cancel" and count in (1, 3) else PASS
    c.worker(DR_LANES="noop:1")
    ids = push(c, 2, sleep_ms=600000)
    c.until("c0", "running")
    for jid in "c0", "w":
        if jid == "w":
            c.cli("noop", "--id", "w", "--in", "1h")
        c.cli("cancel", jid, env={"REDIS_URL": proxy.url}, code=10)
        c.until(jid, "cancelled")
        assert c.cli("cancel", jid, env={"REDIS_URL": proxy.url}).strip() == "cancelled"
    c.until("c1", "running")
    c.cli("cancel", "c1")
    c.until("c1", "cancelled")
    assert len(proxy.acted) == 2 and ids


def case_lost_replies_of_everything(c):
    """Every seventh reply is lost, whatever it answers, for 56 commands."""
    proxy = RedisProxy(c.dir, c.url.removeprefix("unix://"))
    seen = []

    def rule(command, count):
        seen.append(command)
        return LOSE if len(seen) % 7 == 0 and len(seen) < 56 and command in (
            "claim", "start", "finish", "beat", "reap", "fail", "release", "drop") else PASS
    proxy.rule = rule
    ids = push(c, 20)
    for _ in range(3):
        push(c, 20)  # duplicates
    c.worker(REDIS_URL=proxy.url, DR_LANES="noop:8")
    wait(lambda: all(c.state(j) == "done" for j in ids), 60)
    proxy.rule = lambda command, count: PASS
    check_ended(c, ids)
    assert proxy.acted


def case_enqueue_whose_reply_is_lost_is_sent_again(c):
    proxy = RedisProxy(c.dir, c.url.removeprefix("unix://"))
    proxy.rule = lambda command, count: LOSE if command == "enqueue" and count == 1 else PASS
    c.cli("noop", "--id", "once", env={"REDIS_URL": proxy.url}, code=10)
    assert c.cli("noop", "--id", "once", env={"REDIS_URL": proxy.url}).strip() == "once"
    assert c.r.llen("{dr}:q:noop") == 1
    c.worker()
    check_ended(c, ["once"])
    assert msgpack.unpackb(c.job("once")["res"])["outcome"] == "done"


if __name__ == "__main__":
    run(globals(), at_once=6)
