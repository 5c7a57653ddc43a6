#!/usr/bin/env python3
"""Schedules: every slot once, whoever dies, whatever Redis forgets; Redis' clock is stepped from slot to slot."""
import collections
import json
import pathlib
import re
import signal
import sys

import msgpack

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "lib"), str(ROOT / "fakes")]
from clock import Clock, ms, slots  # noqa: E402
from dr import run, wait  # noqa: E402
from redis_proxy import LOSE, PASS, RedisProxy  # noqa: E402

HOUR = 3_600_000
OWN = re.findall(r'^SCHEDULE\("([^"]+)"', (ROOT.parent / "worker/job/schedules.def").read_text(), re.M)
NONE = "|".join(name + "=off" for name in OWN)  # whatever tasks this version has


class Plan:
    """Workers with these schedules (name: (cron, zone)) of cheap jobs, and a clock that begins at `begin`."""

    def __init__(self, c, begin, schedules, more="", **options):
        self.c, self.schedules, self.at, self.living = c, schedules, ms(begin), []
        c.store(database=False)
        self.clock = Clock(c, self.at)
        self.text = NONE + "|" + "|".join(
            f"{name}={cron};zone={zone};lane=noop{more}" for name, (cron, zone) in schedules.items())

    def worker(self, **env):
        self.living.append(self.c.worker(**{"DR_SCHEDULES": self.text, "DR_LEASE_MS": "500", "DR_LOG_LEVEL": "debug",
                                            **env}))
        return self.living[-1]

    def settle(self):
        """Every worker knows what Redis knows."""
        def told(w):
            return w.log.read_text().count("schedule.seed")
        before = [(w, told(w)) for w in self.living if w.poll() is None]
        wait(lambda: all(told(w) >= n + 2 for w, n in before))

    def begin(self, *faults, workers=4):
        """That many workers, each with one of the faults while there are any."""
        started = [self.worker(**({"DR_FAULT": f} if f else {})) for f in
                   [*faults, *[None] * workers][:workers]]
        wait(lambda: self.c.r.zcard("{dr}:schednext") == len(self.schedules))
        return started

    def expected(self, end):
        return sorted((t, name) for name, (cron, zone) in self.schedules.items()
                      for t in slots(cron, zone, self.at, end))

    def fired(self):
        """Job ids of slots, in the order of their events."""
        return [e[b"j"].decode() for _, e in self.c.r.xrange("{dr}:ev") if e[b"e"] == b"queued"]

    def coming(self):
        return dict(self.c.r.zrange("{dr}:schednext", 0, -1, withscores=True))

    def step(self, t, moved=None):
        """Redis' clock shows the slot; then all that was due has moved on and has run."""
        self.clock.set(t + 1)
        wait(lambda: len(self.coming()) == len(self.schedules) and min(self.coming().values()) > t)

    def until(self, end, between=lambda t: None):
        """From slot to slot; every one of them is fired once and its job ends well."""
        wanted = self.expected(end)
        ran, before = self.c.done(), len(self.fired())
        for t in sorted({t for t, _ in wanted}):
            between(t)
            self.step(t)
            ran += sum(slot == t for slot, _ in wanted)
            wait(lambda: self.c.done() == ran)
        ids = collections.Counter(f"sched:{name}:{t}" for t, name in wanted)
        got = collections.Counter(self.fired()[before:])
        assert {i: n for i, n in got.items() if n > 1} == {}
        assert ids - got == collections.Counter(), ("not fired", sorted(ids - got))
        assert got - ids == collections.Counter(), ("nobody's slots", sorted(got - ids))
        self.at = end


WEEK = {"hourly": ("0 * * * *", "UTC"), "fours": ("0 */4 * * *", "Europe/Berlin"), "daily": ("30 2 * * *", "Europe/Berlin"),
        "weekly": ("0 6 * * 0", "UTC")}


def case_a_week_with_four_workers_and_kills_inside_fire(c):
    """Among them a change to summer time."""
    p = Plan(c, "2026-03-26T00:10:00", WEEK)
    doomed = p.begin("fire.sent:5:kill", "fire.reply:9:kill")[:2]

    def between(t):
        for i, d in enumerate(doomed):
            if d and d.poll() is not None:
                assert d.returncode == -signal.SIGKILL, d.returncode
                doomed[i] = None
                p.worker()
    p.until(ms("2026-04-02T00:10:00"), between)
    assert doomed == [None, None], "no build with fault points?"


def case_eight_workers_and_one_killed(c):
    p = Plan(c, "2026-10-24T18:10:00", {"half": ("*/30 * * * *", "Europe/Berlin"), **WEEK})
    doomed = p.begin("fire.sent:2:kill", workers=8)[0]
    p.until(ms("2026-10-25T06:10:00"))
    assert doomed.wait(20) == -signal.SIGKILL


def case_summer_time_begins(c):
    p = Plan(c, "2026-03-28T20:00:00", {"daily": ("30 2 * * *", "Europe/Berlin"), "hourly": ("0 * * * *", "Europe/Berlin")})
    p.begin(workers=1)
    p.until(ms("2026-03-29T04:00:00"))
    assert f"sched:daily:{ms('2026-03-29T01:00:00')}" in p.fired()  # 02:30 does not exist: at 03:00


def case_summer_time_ends(c):
    p = Plan(c, "2026-10-24T20:00:00", {"daily": ("30 2 * * *", "Europe/Berlin"), "hourly": ("0 * * * *", "Europe/Berlin")})
    p.begin(workers=1)
    p.until(ms("2026-10-25T04:00:00"))
    hours = [t for t, name in ((int(j.rsplit(":", 1)[1]), j.split(":")[1]) for j in p.fired()) if name == "hourly"]
    assert ms("2026-10-25T00:00:00") in hours and ms("2026-10-25T01:00:00") not in hours  # the second 02:00
    assert f"sched:daily:{ms('2026-10-25T00:30:00')}" in p.fired()
    assert sum(j.startswith("sched:daily:") for j in p.fired()) == 1


def case_redis_killed_and_started_again(c):
    p = Plan(c, "2026-05-01T00:10:00", WEEK)
    p.begin(workers=2)
    p.until(ms("2026-05-01T02:10:00"))
    c.kill(c.redis_process)
    p.clock.set(ms("2026-05-01T02:30:00"))
    p.clock.start()
    p.until(ms("2026-05-01T05:10:00"), lambda t: None)


def case_flushall(c):
    """Just before a slot: nobody has told Redis again by then, and still it is fired; once."""
    p = Plan(c, "2026-05-01T00:10:00", WEEK)
    p.begin(workers=3)
    p.until(ms("2026-05-01T02:10:00"))
    p.settle()
    before = p.fired()
    c.r.flushall()
    p.step(ms("2026-05-01T03:00:00"))
    wait(lambda: c.done() == 1)
    assert p.fired() == [f"sched:hourly:{ms('2026-05-01T03:00:00')}"] and p.fired()[0] not in before
    p.settle()
    c.r.flushall()
    wait(lambda: len(p.coming()) == len(WEEK))  # without a slot, too
    p.at = ms("2026-05-01T03:10:00")
    p.until(ms("2026-05-01T05:10:00"))


def case_redis_clock_goes_back(c):
    p = Plan(c, "2026-05-01T00:10:00", WEEK)
    p.begin(workers=2)
    p.until(ms("2026-05-01T02:10:00"))
    p.clock.set(ms("2026-05-01T01:59:30"))
    wait(lambda: min(p.coming().values()) == ms("2026-05-01T02:00:00"))  # it seems to come next
    p.step(ms("2026-05-01T02:00:00"))  # and moves on without a second job
    p.until(ms("2026-05-01T04:10:00"))


def case_a_clock_that_was_ahead_does_not_silence(c):
    p = Plan(c, "2026-05-01T00:10:00", {"hourly": ("0 * * * *", "UTC")})
    p.begin(workers=1)
    p.clock.set(ms("2027-05-01T00:00:01"))
    wait(lambda: p.coming()[b"hourly"] > ms("2027-01-01T00:00:00"))
    wait(lambda: c.done() == 1)
    p.clock.set(ms("2026-05-01T00:20:00"))
    wait(lambda: p.coming()[b"hourly"] == ms("2026-05-01T01:00:00"))
    p.step(ms("2026-05-01T01:00:00"))
    assert p.fired()[-1] == f"sched:hourly:{ms('2026-05-01T01:00:00')}"


def case_lost_replies_of_seed_and_fire(c):
    p = Plan(c, "2026-05-01T00:10:00", WEEK)
    proxies = [RedisProxy(c.dir / f"p{i}", c.url.removeprefix("unix://")) for i in range(2) if not (c.dir / f"p{i}").mkdir()]
    for proxy in proxies:
        proxy.rule = lambda command, count: LOSE if command in ("fire", "seed") and count in (1, 2, 4) else PASS
        p.worker(REDIS_URL=proxy.url)
    wait(lambda: len(p.coming()) == len(WEEK))
    p.until(ms("2026-05-01T06:10:00"))
    assert all(proxy.acted for proxy in proxies)


def case_keys_of_a_wrong_type(c):
    """Nothing is written, jobs go on, and it goes on where it was once they are right again."""
    p = Plan(c, "2026-05-01T00:10:00", WEEK)
    worker, = p.begin(workers=1)
    for key in "sched", "schednext", "schedlast", "q:noop", "ev", "stat":
        name = "{dr}:" + key
        kept = c.r.dump(name)
        c.r.set(name, "junk")
        said = worker.log.read_text().count("WRONGTYPE")
        p.clock.set(p.at + HOUR)
        wait(lambda: worker.log.read_text().count("WRONGTYPE") > said)
        p.clock.set(p.at)
        assert c.r.get(name) == b"junk", key
        if kept:
            c.r.restore(name, 0, kept, replace=True)  # in one step: a worker would make it anew in between
        else:
            c.r.delete(name)
    p.settle()
    p.until(ms("2026-05-01T02:10:00"))


def case_a_broken_lane_silences_no_other_schedule(c):
    """The first of all, whose lane's list is none: the others are fired, and it is once the list is right again."""
    p = Plan(c, "2026-05-01T00:10:00", {})
    p.schedules = dict.fromkeys(("a-broken", "b", "c"), ("0 * * * *", "UTC"))
    p.text = NONE + "|a-broken=0 * * * *;lane=backup;args=kind=files|" + "|".join(f"{n}=0 * * * *;lane=noop" for n in "bc")
    c.r.set("{dr}:q:backup", "junk")
    worker, = p.begin(workers=1)
    for hour in 1, 2:
        p.clock.set(ms(f"2026-05-01T0{hour}:00:01"))
        wait(lambda: c.done() == 2 * hour)
        assert sorted(p.fired())[-hour:] == [f"sched:c:{ms(f'2026-05-01T0{h}:00:00')}" for h in range(1, hour + 1)]
        assert p.coming()[b"a-broken"] == ms("2026-05-01T01:00:00")
    said = [json.loads(line) for line in worker.log.read_text().splitlines() if '"event":"schedule"' in line]
    assert {e["name"] for e in said} == {"a-broken"} and "WRONGTYPE" in said[0]["msg"], said
    c.r.delete("{dr}:q:backup")
    wait(lambda: p.coming()[b"a-broken"] == ms("2026-05-01T03:00:00"))
    assert f"sched:a-broken:{ms('2026-05-01T02:00:00')}" in p.fired()


def case_a_full_redis_refuses_and_the_slot_comes_later(c):
    p = Plan(c, "2026-05-01T00:10:00", {"s": ("0 * * * *", "UTC")})
    worker, = p.begin(workers=1)
    c.r.config_set("maxmemory", 1)
    p.clock.set(ms("2026-05-01T01:00:01"))
    wait(lambda: "OOM" in worker.log.read_text())
    assert p.fired() == []
    c.r.config_set("maxmemory", 0)
    wait(lambda: c.done() == 1)
    assert p.fired() == [f"sched:s:{ms('2026-05-01T01:00:00')}"]


def case_misfires(c):
    """Nobody lives for five hours and a half."""
    hourly = ("0 * * * *", "UTC")
    p = Plan(c, "2026-05-01T00:10:00", {})
    p.schedules = dict.fromkeys(("once", "skip", "all", "late"), hourly)
    p.text = "|".join(f"{name}=0 * * * *;lane=noop;{more}" for name, more in {
        "once": "late=4h", "skip": "misfire=skip", "all": "misfire=all:3;overlap=queue;late=12h",
        "late": "late=10m"}.items()) + "|" + NONE
    first, = p.begin(workers=1)
    p.until(ms("2026-05-01T01:10:00"))
    c.kill(first, signal.SIGTERM)
    c.r.delete("{dr}:ev", "{dr}:stat")
    p.clock.set(ms("2026-05-01T06:30:00"))
    p.worker()
    wait(lambda: min(p.coming().values()) == ms("2026-05-01T07:00:00"))
    wait(lambda: c.done() == 4)
    got = collections.defaultdict(list)
    for jid in p.fired():
        got[jid.split(":")[1]].append(int(jid.rsplit(":", 1)[1]))
    six = ms("2026-05-01T06:00:00")
    assert got == {"once": [six], "all": [six - 2 * HOUR, six - HOUR, six]}, got
    shown = {s["name"]: s for s in json.loads(c.cli("schedule", "--json"))}
    assert shown["skip"]["passed_why"] == "misfire" and shown["late"]["passed_why"] == "late"
    assert shown["once"]["last_outcome"] == "done" and "passed_why" not in shown["once"]
    p.at = ms("2026-05-01T06:30:00")
    c.r.delete("{dr}:ev")
    p.until(ms("2026-05-01T08:10:00"))  # and on as before


def case_overlap(c):
    p = Plan(c, "2026-05-01T00:10:30", {})
    p.schedules = dict.fromkeys(("skip", "queue"), ("* * * * *", "UTC"))
    p.text = "|".join(f"{o}=* * * * *;lane=noop;overlap={o};args=sleep_ms=600000" for o in ("skip", "queue")) + "|" + NONE
    worker, = p.begin(workers=1)
    eleven = ms("2026-05-01T00:11:00")
    for i in range(3):
        p.step(eleven + i * 60000)
    assert sorted(p.fired()) == [f"sched:queue:{eleven + i * 60000}" for i in range(3)] + [f"sched:skip:{eleven}"]
    shown = {s["name"]: s for s in json.loads(c.cli("schedule", "--json"))}
    assert shown["skip"]["passed_why"] == "overlap" and shown["skip"]["last_st"] == "running", shown
    assert "schedule.passed" in worker.log.read_text()
    c.cli("cancel", f"sched:skip:{eleven}")
    c.until(f"sched:skip:{eleven}", "cancelled")
    p.step(eleven + 3 * 60000)
    assert f"sched:skip:{eleven + 3 * 60000}" in p.fired()  # it has ended: the next one runs


def case_configurations_that_differ(c):
    """An update by parts: the worker that was started later is right, as long as it lives."""
    p = Plan(c, "2026-05-01T00:10:00", {"s": ("0 * * * *", "UTC")})
    old = p.worker(DR_SCHEDULES=NONE.replace("verify=off", "verify=;misfire=skip") + "|s=0 * * * *;lane=noop")
    wait(lambda: p.coming() == {b"s": ms("2026-05-01T01:00:00"), b"verify": ms("2026-05-01T03:15:00")})
    p.text = NONE + "|s=* * * * *;lane=noop|extra=*/2 * * * *;lane=noop"
    new = p.worker()
    wait(lambda: p.coming() == {b"s": ms("2026-05-01T00:11:00"), b"extra": ms("2026-05-01T00:12:00")})
    wait(lambda: "schedule.other" in old.log.read_text())
    hashes = {c.r.hget("{dr}:wk:" + w.decode(), "sched") for w in c.r.zrange("{dr}:wk", 0, -1)}
    assert len(hashes) == 2, hashes
    p.schedules = {"s": ("* * * * *", "UTC"), "extra": ("*/2 * * * *", "UTC")}
    p.until(ms("2026-05-01T00:14:10"))
    c.kill(new)
    p.clock.set(p.at + 100_000)  # nobody has shown them for longer than 90 s
    wait(lambda: p.coming() == {b"s": ms("2026-05-01T01:00:00"), b"verify": ms("2026-05-01T03:15:00")})
    assert {k for k, v in c.r.hgetall("{dr}:sched").items() if v} == {b"s", b"verify"}


def case_as_many_as_there_may_be(c):
    p = Plan(c, "2026-05-01T00:10:00", {f"s{i}": ("0 * * * *", "Europe/Berlin") for i in range(32 - len(OWN))})
    p.begin(workers=2)
    p.until(ms("2026-05-01T02:10:00"))


def case_its_own_schedules_are_taken_and_end_well(c):
    """Every task that this version has, ordered by the schedules it comes with."""
    c.store(database=True, files=True)
    c.worker(DR_SCHEDULES="", DR_CONCURRENCY="4")
    wait(lambda: c.r.exists("{dr}:schednext"))
    rows = {s["name"]: s for s in json.loads(c.drworker("schedule", "--json", DR_SCHEDULES=""))}
    on = [name for name in OWN if "off" not in rows[name]]
    assert on[:2] == ["backup-database", "backup-files"] and "verify" in on, on
    for name in on:  # one after the other: each finds what those before it have made
        slot = c.r.time()[0] * 1000
        c.r.zadd("{dr}:schednext", {name: slot})  # now; by this host's clock, which retention compares
        jid = f"sched:{name}:{slot}"
        record = c.until(jid, "done", "failed", "cancelled", "dead", "expired", seconds=60)
        assert record["st"] == b"done", (name, record)
    made = {b["kind"] for b in c.backups() if b["class"] == "scheduled"}
    assert made >= {"database", "files", "full"}, made


def case_bad_values(c):
    c.store(database=False)
    for text, words in {
            "verify=61 * * * *": ("DR_SCHEDULES.verify.minute", "61", "0 to 59"),
            "x=@daily": ("DR_SCHEDULES.x.lane", "a new one needs its lane"),
            "x=@daily;lane=execute": ("DR_SCHEDULES.x.lane", "execute"),
            "verify=;zone=../passwd": ("DR_SCHEDULES.verify.zone", "../passwd"),
            "verify=;late=9d": ("DR_SCHEDULES.verify.late", "9d", "1m to 7d"),
            "verify=;args=budget_bytes=-1": ("DR_SCHEDULES.verify.args", "budget_bytes=-1")}.items():
        for command in "run", "schedule":
            said = c.drworker(command, code=2, DR_SCHEDULES=text)
            assert all(w in said for w in words), (text, said)
    said = c.drworker("run", code=2, DR_TZ="Mars/Base")
    assert "DR_TZ" in said and "Mars/Base" in said


def case_shown(c):
    """drworker: the configuration's, Redis or not. drproducer: what runs."""
    p = Plan(c, "2026-05-01T00:10:00", {"s": ("0 2 * * *", "Europe/Berlin")})
    p.text = p.text.replace("backup-database=off|", "")
    text = {"DR_SCHEDULES": p.text}
    rows = {s["name"]: s for s in json.loads(c.drworker("schedule", "--json", **text))}
    assert rows["s"]["lane"] == "noop" and len(rows["s"]["next"]) == 3 and "last" not in rows["s"], rows["s"]
    assert rows["backup-database"]["off"] == "not configured" and rows["verify"]["off"] == "off"
    assert json.loads(c.cli("schedule", "--json")) == []
    p.begin(workers=1)
    p.step(ms("2026-05-02T00:00:00"))
    wait(lambda: c.done() == 1)
    rows = {s["name"]: s for s in json.loads(c.drworker("schedule", "--json", **text))}
    assert rows["s"]["last"]["slot"] == "2026-05-02T00:00:00.000Z" and rows["s"]["last"]["outcome"] == "done"
    shown = json.loads(c.cli("schedule", "--json"))
    one, = [s for s in shown if s["name"] == "s"]
    assert {"name": "verify", "off": True} in shown and len(shown) == len(OWN), shown
    assert one["next"] == "2026-05-03T00:00:00.000Z" and one["last_job"] == f"sched:s:{ms('2026-05-02T00:00:00')}"
    assert one["zone"] == "Europe/Berlin" and one["late_by_ms"] == 0
    assert all("off" in s for s in json.loads(c.drworker("schedule", "--json", DR_SCHEDULES="off")))
    assert "2026-05-02T00:00" in c.drworker("schedule", **text) and "done" in c.cli("schedule")
    lone = c.drworker("schedule", "--json", REDIS_URL="unix:///nowhere", **text)
    assert "last" not in {s["name"]: s for s in json.loads(lone)}["s"]
    assert "no BACKUP_DIRECTORY" in c.drworker("schedule", BACKUP_DIRECTORY=None, BACKUP_ENCRYPTION_PASSWORD=None)


def case_without_a_store_or_switched_off_nothing_is_fired(c):
    Clock(c, ms("2026-05-01T00:10:00"))
    c.worker(DR_SCHEDULES="s=* * * * *;lane=noop")
    c.store(database=False)
    c.worker()
    c.order("noop", "turns")  # both live and work
    assert not c.r.exists("{dr}:sched", "{dr}:schednext")
    assert {c.r.hget("{dr}:wk:" + w.decode(), "sched") for w in c.r.zrange("{dr}:wk", 0, -1)} == {b"off"}


def case_forged_and_replayed_ids(c):
    """Only what the store's key has signed is taken under such an id; and it runs once."""
    p = Plan(c, "2026-05-01T00:10:00", {"s": ("0 * * * *", "UTC")})
    body = {"id": "sched:s:1", "t": "noop", "iat": p.at, "exp": p.at + HOUR, "a": {}}
    p.begin(workers=1)
    c.push("noop", body)
    packed = msgpack.packb(body)
    c.push("noop", {"v": 1, "kid": "sched", "b": packed, "mac": bytes(32)})
    c.push("noop", {"v": 1, "kid": "ops", "b": packed, "mac": bytes(32)})
    wait(lambda: len(c.dead()) == 3)
    assert sorted(d["reason"] for d in c.dead()) == ["auth", "reserved-id", "reserved-id"], c.dead()
    assert not c.r.exists("{dr}:job:sched:s:1")
    with c.r.monitor() as seen:
        p.step(ms("2026-05-01T01:00:00"))
        wait(lambda: c.done() == 1)
        raw = next(m["command"] for m in seen.listen() if m["command"].upper().startswith("LPUSH {DR}:Q:NOOP"))
    raw = eval("b'" + raw.split(" ", 2)[2].replace("'", "\\'") + "'")
    for _ in range(3):
        c.push("noop", raw)
    c.order("noop", "after")
    assert c.done() == 2 and c.job(f"sched:s:{ms('2026-05-01T01:00:00')}")["n"] == b"1"


if __name__ == "__main__":
    run(globals(), at_once=4)
