#!/usr/bin/env python3
"""Each script: every answer, and a key of a wrong type leaves everything as it was."""
import sys

import msgpack
import redis
from scripts import Scripts

CLAIM = ["q:noop", "q:noop:hi", "lease:noop", "run", "own:w", "ctr", "deliv", "delay:noop",
         "delayraw", "pause", "dead", "deadraw", "deadinfo", "ev", "stat"]
START = ["run", "lease:noop", "own:w", "ev", "deliv", "job:j", "ev:j"]
FINISH = ["run", "lease:noop", "own:w", "deliv", "ev", "stat", "rt", "job:j", "ev:j"]
FAIL = ["job:j", "run", "lease:noop", "own:w", "delay:noop", "delayraw", "ev", "ev:j", "stat"]
DROP = ["run", "lease:noop", "own:w", "deliv"]
PARK = ["run", "lease:noop", "own:w", "delay:noop", "delayraw", "job:j", "ev"]
BURY = ["run", "lease:noop", "own:w", "deliv", "dead", "deadraw", "deadinfo", "job:j", "ev", "stat",
        "ev:j"]
RELEASE = ["run", "lease:noop", "own:w", "q:noop", "job:j"]
REAP1 = ["lease:noop", "run", "own:w", "deliv", "q:noop", "dead", "deadraw", "deadinfo", "stat"]
LOST = ["job:j", "ev", "ev:j", "stat"]
ENQUEUE = ["q:noop", "job:j", "ev"]
CANCEL = ["job:j", "ev", "ev:j", "run"]
PROGRESS = ["job:j", "ev:j"]
BEAT = ["own:w", "run", "wk", "wk:w", "lease:noop", "job:j"]
REAP = ["reap", "lease:noop"]
ALERT = ["alert", "alert:out", "ev"]
ALERTBEAT = ["alert:out", "alert:test"]
HEAD = ["info"]
FORGET_DEAD = ["dead", "deadraw", "deadinfo", "stat"]
SEED = ["sched", "schednext", "schedlast", "schedseen"]
FIRE = ["schednext", "sched", "schedlast", "q:noop", "job:sched:s:1", "job:before", "ev", "stat"]
STALE, HOUR = 90000, 3_600_000


class Bench:
    """One message `raw` claimed by worker w, unless told otherwise."""

    def __init__(self, s, claim=True, start=False):
        self.s, self.r = s, s.r
        s.fresh()
        if claim:
            self.r.lpush("{dr}:q:noop", "raw")
            self.ticket = self.claim()[4].decode()
        if start:
            assert self.start()[0] == "OK"

    def claim(self, n=16):
        return self.s.run("claim", CLAIM, ["noop", "w", n, 1000, 262144])

    def start(self, dig="d", exp=0, nbf=0, ticket=None, resume=0, jid="j"):
        return self.s.shared("start", "noop", "w", [self.starting(dig, exp, nbf, ticket, resume, jid)])[0]

    def starting(self, dig="d", exp=0, nbf=0, ticket=None, resume=0, jid="j"):
        return jid, [ticket or self.ticket, jid, dig, exp, nbf, "", 10**9, resume, "unsigned", "mid"]

    def finish(self, st="done", ticket=None, jid="j"):
        return self.s.shared("finish", "noop", "w", [self.finishing(st, ticket, jid)])[0]

    def finishing(self, st="done", ticket=None, jid="j"):
        return jid, [ticket or self.ticket, jid, "mid", st, st, "res", "", 10**9, "d", 0]

    def calls(self):
        """Each script with arguments that would write, by name."""
        t = self.ticket
        return {
            "enqueue": (ENQUEUE, ["raw", "j", "noop", "d", 10**9]),
            "claim": (CLAIM, ["noop", "w", 16, 1000, 262144]),
            "start": (START, ["noop", "w", *self.starting()[1]]),
            "finish": (FINISH, ["noop", t, "j", "mid", "done", "done", "res", "", 10**9, "d", 50]),
            "fail": (FAIL, [t, "j", "noop", "err", 100]),
            "drop": (DROP, [t, "mid", 1]),
            "head": (HEAD, [7, "a" * 64, "5" * 32]),
            "park": (PARK, [t, self.s.ms + 1000, "j", "noop", "d", 10**9, 0]),
            "bury": (BURY, [t, "mid", "noop", "info", "j", 1, "d", "err", 10**9, 10, "x"]),
            "release": (RELEASE, [t]),
            "reap1": (REAP1, [t, self.s.ms + 1000, "mid", 3, "info"]),
            "lost": (LOST, [t, "j", "noop", "lost", "d", "err", 10**9]),
            "cancel": (CANCEL, ["j", "hint:"]),
            "progress": (PROGRESS, [t, "step", 1, "s", "", 0, 0, 0, 0, 10**9]),
            "beat": (BEAT, ["w", 1000, 4000, 0, t]),
            "forget": (["rt", "job:j"], ["j"]),
            "reap": (REAP, [333, 1000, 50]),
            "forget_dead": (FORGET_DEAD, [1000, 10, 5]),
            "alert": (ALERT, alerting()),
            "alert.remind": (ALERT, reminding("0a")),
            "alertbeat": (ALERTBEAT, ["w", 1000, "webhook,mail", 16, 1]),
            "alertdone": (["alert:out"], ["0a", "mail"]),
            "seed": (SEED, [0, STALE, "s", "other", "@daily", self.s.ms + HOUR, 0]),
            "fire": (FIRE, fire(self.s.ms, self.s.ms, self.s.ms + HOUR)),
        }


def fire(comes, slot, after, raw="raw", definition="def", live=1, jid="sched:s:1", waits=10**15):
    """Arguments of fire for schedule s."""
    return ["s", definition, comes, slot, after, raw, jid, "d", "noop", 10**9, live, "late", waits]


class Plan:
    """Workers that have schedule s, each by its own configuration."""

    def __init__(self, s):
        self.s, self.r = s, s.r
        s.fresh()

    def seed(self, since=0, definition="def", when="@hourly UTC", first=None, known=0, name="s"):
        first = self.s.ms + HOUR if first is None else first
        args = [since, STALE, name, definition, when, first, known] if name else [since, STALE]
        return self.s.run("seed", SEED, args)

    def fire(self, comes, slot, after, jid="sched:s:1", before=None, **more):
        keys = [*FIRE[:4], f"job:{jid}", f"job:{before or jid}", *FIRE[6:]]
        return self.s.run("fire", keys, fire(comes, slot, after, jid=jid, **more))

    @property
    def next(self):
        score = self.r.zscore("{dr}:schednext", "s")
        return score and int(score)

    def last(self, field="s"):
        value = self.r.hget("{dr}:schedlast", field)
        return value and msgpack.unpackb(value)


def schedules(s):
    """seed and fire."""
    p = Plan(s)
    t0 = s.ms
    yield "seed", p.seed(), ["OK", t0, t0, 1, t0 + HOUR, b""]
    yield "the definition stands", p.r.hgetall("{dr}:sched"), {b"s": b"def"}
    before = {k: p.r.dump(k) for k in p.r.keys("*")}
    s.advance(1000)
    yield "seed again", p.seed(since=t0, first=t0 + HOUR)[3:], [1, t0 + HOUR, b""]
    yield "writes nothing", {k: p.r.dump(k) for k in p.r.keys("*") if b"clock" not in k}, \
        {k: v for k, v in before.items() if b"clock" not in k}
    yield "one without schedules", p.seed(since=t0, name="")[:1], ["OK"]
    yield "fire before its time", p.fire(t0 + HOUR, t0 + HOUR, t0 + 2 * HOUR)[:3], ["EARLY", s.ms, t0 + HOUR]
    s.advance(HOUR)
    yield "fire with another definition", p.fire(t0 + HOUR, t0 + HOUR, t0 + 2 * HOUR, definition="x")[0], "OTHER"
    slot, after = t0 + HOUR, t0 + 2 * HOUR
    yield "fire", p.fire(slot, slot, after)[:3], ["FIRED", s.ms, after]
    yield "fire, reply lost", p.fire(slot, slot, after)[:3], ["ALREADY", s.ms, after]
    yield "one message", p.r.lrange("{dr}:q:noop", 0, -1), [b"raw"]
    yield "its record", p.r.hmget("{dr}:job:sched:s:1", "st", "n", "dig", "lane"), [b"queued", b"0", b"d", b"noop"]
    yield "the last slot", p.last(), {"slot": slot, "jid": "sched:s:1", "at": s.ms}
    yield "its event", [e[1][b"j"] for e in p.r.xrange("{dr}:ev")], [b"sched:s:1"]
    p.r.zadd("{dr}:schednext", {"s": slot})
    yield "the move was lost, the job is there", p.fire(slot, slot, after)[0], "EXISTS"
    yield "it moved on, nothing was pushed", (p.next, p.r.llen("{dr}:q:noop")), (after, 1)
    p.r.zadd("{dr}:schednext", {"s": slot})
    p.r.hset("{dr}:job:sched:s:1", mapping={"st": "dead", "n": 0})
    yield "a letter that never ran makes room", p.fire(slot, slot, after)[0], "FIRED"
    for st in "queued", "delayed", "running", "retry", "lost", "done", "failed", "cancelled", "expired", "dead", "":
        p.r.zadd("{dr}:schednext", {"s": slot})
        p.r.delete("{dr}:job:sched:s:2", "{dr}:job:before")
        if st:
            p.r.hset("{dr}:job:before", "st", st)
        live = st in ("queued", "delayed", "running", "retry", "lost")
        got = p.fire(slot, slot, after, jid="sched:s:2", before="before")
        yield f"the last one is {st or 'gone'}", (got[0], p.next), ("OVERLAP" if live else "FIRED", after)
        if live:
            yield "it says so", p.last("s:passed"), {"slot": slot, "at": s.ms, "why": "overlap"}
            p.r.zadd("{dr}:schednext", {"s": slot})
            yield "or is queued behind it", p.fire(slot, slot, after, jid="sched:s:2", before="before", live=0)[0], "FIRED"
    for st in "queued", "running":
        p.r.zadd("{dr}:schednext", {"s": slot})
        p.r.delete("{dr}:job:sched:s:2")
        p.r.hset("{dr}:job:before", "st", st)
        got = p.fire(slot, slot, after, jid="sched:s:2", before="before", waits=s.ms - 1)
        yield f"{st}, and its message expired", got[0], "FIRED" if st == "queued" else "OVERLAP"
    p.r.zadd("{dr}:schednext", {"s": slot})
    yield "passed over", p.fire(slot, slot, after, raw="", jid="sched:s:3")[0], "PASSED"
    yield "with its reason", p.last("s:passed")["why"], "late"
    p.r.zadd("{dr}:schednext", {"s": slot})
    yield "a later slot for those missed", p.fire(slot, slot + 60000, after, jid="sched:s:4")[0], "EARLY"
    s.advance(60000)
    yield "once its time has come", p.fire(slot, slot + 60000, after, jid="sched:s:4")[0], "FIRED"
    p.r.zrem("{dr}:schednext", "s")
    yield "no slot", p.fire(slot, slot, after)[:3], ["GONE", s.ms, -1]
    yield from configurations(s)


def configurations(s):
    """Workers that differ, and what heals."""
    p = Plan(s)
    t0 = s.ms
    p.seed()
    p.r.flushdb()
    s.advance(HOUR)
    yield "after FLUSHALL the slot known is kept", p.seed(since=t0, first=s.ms + HOUR, known=t0 + HOUR)[4], t0 + HOUR
    p = Plan(s)
    p.r.flushdb()
    s.advance(0)
    yield "but none beyond the first", p.seed(first=s.ms + 5, known=s.ms + HOUR)[4], s.ms + 5
    p = Plan(s)
    t0 = s.ms
    p.seed()
    s.advance(1000)
    yield "a later start changes it", p.seed(definition="new", when="@daily UTC", first=t0 + 5 * HOUR)[3:5], \
        [1, t0 + 5 * HOUR]
    yield "the earlier one does not take it back", p.seed(since=t0)[3:5], [0, -1]
    yield "nor fire", p.fire(t0 + 5 * HOUR, t0 + HOUR, t0 + 9 * HOUR)[0], "OTHER"
    s.advance(STALE - 1)
    yield "as long as the other one is seen", p.seed(since=t0)[3], 0
    s.advance(1)
    yield "then it does", p.seed(since=t0, first=t0 + HOUR)[3:5], [1, t0 + HOUR]
    p = Plan(s)
    t0 = s.ms
    p.seed(first=t0 + HOUR)
    s.advance(1000)
    yield "other arguments, the same times", p.seed(definition="new", first=t0 + 2 * HOUR)[3:5], [1, t0 + HOUR]
    s.advance(2 * HOUR + 5)
    yield "a slot that is due stays", p.seed(definition="newer", first=t0 + 4 * HOUR)[3:5], [1, t0 + HOUR]
    s.advance(1000)
    yield "off", p.seed(definition="")[3:5], [1, -1]
    yield "takes the slot away", (p.next, p.r.hget("{dr}:sched", "s")), (None, b"")
    yield "and stands against the earlier", p.seed(since=t0)[3:5], [0, -1]
    p = Plan(s)
    t0 = s.ms
    p.seed()
    s.advance(STALE - 1)
    p.seed(since=1, name="")
    yield "what nobody names stays a while", p.r.exists("{dr}:sched"), 1
    s.advance(1)
    p.r.hset("{dr}:schedlast", mapping={"s": "x", "s:passed": "y"})
    p.seed(name="")
    yield "and while a worker only asks the time", p.r.exists("{dr}:sched"), 1
    p.seed(since=1, name="")
    yield "then it goes", p.r.exists("{dr}:sched", "{dr}:schednext", "{dr}:schedseen", "{dr}:schedlast"), 0
    p = Plan(s)
    t0 = s.ms
    p.seed(first=t0 + HOUR)
    p.r.zadd("{dr}:schednext", {"s": t0 + 9000 * HOUR})
    yield "a slot from a clock that was ahead", p.seed(since=t0, first=t0 + HOUR)[4], t0 + HOUR
    s.advance(HOUR + 5)
    p.fire(t0 + HOUR, t0 + HOUR, t0 + 2 * HOUR)
    yield "a caller whose clock is behind", p.seed(since=t0, first=t0 + HOUR)[4], t0 + 2 * HOUR
    s.advance(-9000 * HOUR)
    yield "a clock set back", p.seed(since=s.ms, definition="x", first=s.ms + HOUR)[3:5], [1, s.ms + HOUR]
    p = Plan(s)
    p.r.hset("{dr}:schedseen", mapping={"s": "junk", "t": "junk"})
    p.r.hset("{dr}:sched", mapping={"s": "junk"})
    yield "junk is replaced", p.seed()[3:5], [1, s.ms + HOUR]
    p.seed(since=s.ms)
    yield "or goes", p.r.hkeys("{dr}:schedseen"), [b"s"]


def alerting(op="raise", nid="0a", wid="w", targets="webhook,mail", severity="warning", rank=1, subject="db",
             most=500, out=200, wait=0, details="job j"):
    return [op, nid, wid, 1000, targets, wait, "backup_failed", subject, severity, rank, "it failed", details, most,
            out, 0]


def reminding(nid, wait=10000, rest=100000, targets="webhook,mail"):
    return ["remind", nid, "w", 1000, targets, wait, "", "", "", 0, "", "", 500, 200, rest]


def again(b, resume, **more):
    """The message comes once more and is started."""
    b.r.lpush("{dr}:q:noop", "raw")
    return b.start(ticket=b.claim()[4].decode(), resume=resume, **more)[0]


def answers(s):
    """(name, got, wanted) of every answer a script can give."""
    b = Bench(s, claim=False)
    enq = ["raw", "j", "noop", "d", 10**9]
    yield "enqueue", s.run("enqueue", ENQUEUE, enq)[0], "OK"
    yield "enqueue again", s.run("enqueue", ENQUEUE, enq)[0], "EXISTS"
    yield "enqueue other", s.run("enqueue", ENQUEUE, ["raw", "j", "noop", "e", 9])[0], "COLLISION"
    yield "pushed once", b.r.llen("{dr}:q:noop"), 1
    b = Bench(s, claim=False)
    yield "claim nothing", b.claim()[0], "EMPTY"
    b.r.sadd("{dr}:pause", "noop")
    b.r.lpush("{dr}:q:noop", "raw")
    yield "claim paused", b.claim()[0], "PAUSED"
    b.r.delete("{dr}:pause")
    b.r.lpush("{dr}:q:noop", *["m"] * 20)
    yield "claim 16", len(b.claim()), 4 + 32
    b = Bench(s, claim=False)
    b.r.lpush("{dr}:q:noop", "x" * 262145, "y" * 262144)
    got = b.claim()
    yield "too big is buried", (len(got), b.r.hlen("{dr}:deadraw")), (8, 1)
    yield "and told with its length", got[4:6], [b"", b"262145"]
    yield "its head is kept", b.r.hvals("{dr}:deadraw")[0], b"x" * 64
    b.r.delete("{dr}:q:noop")
    b.r.rpush("{dr}:q:noop:hi", "first")
    b.r.lpush("{dr}:q:noop", "second")
    yield "hi goes first", b.claim(1)[5], b"first"

    b = Bench(s)
    yield "start", b.start()[0], "OK"
    yield "start, reply lost", b.start()[:2], ["ALREADY", 1]
    yield "start of another ticket", b.start(ticket="1")[0], "GONE"
    b.r.lpush("{dr}:q:noop", "raw")
    second = b.claim()[4].decode()
    yield "start while it runs", b.start(ticket=second)[0], "DUP_RUN"
    yield "other body", b.start(dig="e", ticket=second)[0], "COLLISION"
    yield "finish", b.finish()[0], "OK"
    yield "finish, reply lost", b.finish()[0], "ALREADY"
    yield "start after the end", b.start(ticket=second)[0], "DUP_DONE"
    yield "drop", s.run("drop", DROP, [second, "mid", 1])[0], "OK"
    yield "drop, reply lost", s.run("drop", DROP, [second, "mid", 1])[0], "GONE"
    yield "all at rest", b.r.exists("{dr}:run", "{dr}:own:w", "{dr}:lease:noop"), 0
    yield from many(s)
    yield from schedules(s)
    b = Bench(s, start=True)
    yield "recorded, it has ended", (b.finish()[0], again(b, 2)), ("OK", "DUP_DONE")
    yield "resume after that end", again(b, 1, dig="e", exp=1), "OK"
    yield "resume while it runs", again(b, 1), "DUP_RUN"
    b = Bench(s)
    yield "resume, exp and nbf", b.start(exp=1, nbf=s.ms + 500, resume=1)[0], "OK"
    for st in "cancelled", "expired", "dead":
        for resume in 1, 2:
            b = Bench(s)
            b.r.hset("{dr}:job:j", mapping={"st": st, "n": 1, "f": "1", "cancel": "1", "dig": "d"})
            yield f"{st}, resume {resume}", b.start(resume=resume)[0], "OK"
            yield "the old end is gone", b.r.hmget("{dr}:job:j", "st", "cancel"), [b"running", None]
    b = Bench(s)
    yield "expired", b.start(exp=1)[0], "EXPIRED"
    yield "its record", b.r.hget("{dr}:job:j", "st"), b"expired"
    yield "expired, reply lost", b.start(exp=1)[0], "EXPIRED"
    yield "one end is told", sum(e[b"e"] == b"end" for _, e in b.r.xrange("{dr}:ev")), 1
    yield "its message is still held", b.r.hexists("{dr}:run", b.ticket), True
    yield "until it is dropped", s.run("drop", DROP, [b.ticket, "mid", 1])[0], "OK"
    b = Bench(s, start=True)
    s.run("cancel", CANCEL, ["j", "hint:", "anna@host" + "x" * 200])
    yield "who cancelled it", b.r.hget("{dr}:job:j", "cancel_by"), b"anna@host" + b"x" * 119
    s.advance(2000)
    b.r.delete("{dr}:run")  # its worker is gone
    b.r.hset("{dr}:job:j", "st", "lost")
    b.r.lpush("{dr}:q:noop", "raw")
    b.ticket = b.claim()[4].decode()
    yield "cancelled before it ran again", (b.start()[0], b.start()[0]), ("CANCELLED", "CANCELLED")
    yield "after that it is a duplicate of nothing that ran", b.r.hmget("{dr}:job:j", "st", "cancel"), [b"cancelled", b"2"]
    b = Bench(s)
    yield "not before", b.start(nbf=s.ms + 500)[0], "NOT_YET"
    park = PARK, [b.ticket, s.ms + 500, "j", "noop", "d", 10**9, 0]
    yield "park", s.run("park", *park)[0], "OK"
    yield "park, reply lost", s.run("park", *park)[0], "GONE"
    yield "claim says when", b.claim()[2], 500
    s.advance(501)
    yield "then it is promoted", b.claim()[5], b"raw"
    b = Bench(s, claim=False)
    s.run("enqueue", ENQUEUE, enq)
    yield "cancel waiting", s.run("cancel", CANCEL, ["j", "hint:", "anna@host"])[1], b"cancelled"
    yield "cancel again", s.run("cancel", CANCEL, ["j", "hint:"])[0], "OK"
    b.ticket = b.claim()[4].decode()
    yield "its message is told so", (b.start()[0], b.start()[0]), ("CANCELLED", "CANCELLED")
    yield "who it was", b.r.hget("{dr}:job:j", "cancel_by"), b"anna@host"
    yield "cancel unknown", s.run("cancel", ["job:x", "ev", "ev:x", "run"], ["x", "h"])[0], "GONE"
    b = Bench(s, start=True)
    yield "cancel running", s.run("cancel", CANCEL, ["j", "hint:"])[1], b"running"
    yield "beat says so", s.run("beat", BEAT, ["w", 1000, 4000, 0, b.ticket])[1], b"c"
    yield "progress says so", s.run("progress", *b.calls()["progress"])[0], "CANCELLED"
    b.finish()
    yield "cancel ended", s.run("cancel", CANCEL, ["j", "hint:"])[0], "ENDED"
    b = Bench(s, start=True)
    s.run("cancel", CANCEL, ["j", "hint:"])
    b.finish("cancelled")
    b.r.lpush("{dr}:q:noop", "raw")
    yield "cancelled while it ran, the same once more", b.start(ticket=b.claim()[4].decode())[0], "DUP_DONE"
    b = Bench(s, start=True)
    yield "fail", s.run("fail", *b.calls()["fail"])[0], "OK"
    yield "fail, reply lost", s.run("fail", *b.calls()["fail"])[0], "ALREADY"
    s.advance(200)
    t2 = b.claim()[4].decode()
    yield "second attempt", b.start(ticket=t2)[:2], ["OK", 2]
    yield "finish of the first", b.finish()[0], "STALE"
    yield "fail of the first", s.run("fail", *b.calls()["fail"])[0], "STALE"
    yield "progress of the first", s.run("progress", *b.calls()["progress"])[0], "STALE"
    b = Bench(s, start=True)
    forget = ["rt", "job:j"], ["j"]
    yield "nothing to forget", s.run("forget", *forget)[0], "GONE"
    yield "finish with rt", s.run("finish", *b.calls()["finish"]), [[b"OK"]]
    yield "its result is kept", s.run("forget", *forget)[0], "EARLY"
    s.advance(50)
    yield "then it is dropped", s.run("forget", *forget)[0], "OK"
    yield "the record stays", b.r.hmget("{dr}:job:j", "st", "res"), [b"done", None]
    b = Bench(s, start=True)
    b.r.flushdb()
    s.advance(0)
    yield "finish after FLUSHALL", b.finish()[0], "OK"
    yield "is an orphan", b.r.hget("{dr}:job:j", "orphan"), b"1"
    b.r.flushdb()
    s.advance(0)
    got = s.shared("finish", "noop", "w", [b.finishing(), b.finishing(ticket="1")])
    yield "one orphan of two", [x[0] for x in got], ["OK", "STALE"]
    b = Bench(s, start=True)
    yield "release", s.run("release", RELEASE, [b.ticket])[0], "OK"
    yield "no attempt charged", b.r.hmget("{dr}:job:j", "st", "n"), [b"queued", b"0"]
    yield "release, reply lost", s.run("release", RELEASE, [b.ticket])[0], "GONE"
    b = Bench(s)
    bury = b.calls()["bury"]
    yield "bury", s.run("bury", *bury)[0], "OK"
    yield "bury, reply lost", s.run("bury", *bury)[0], "GONE"
    yield "its record", b.r.hmget("{dr}:job:j", "st", "n"), [b"dead", b"0"]
    b.r.lpush("{dr}:q:noop", "raw")
    b.ticket = b.claim()[4].decode()
    yield "the corrected message runs", b.start(dig="e")[:2], ["OK", 1]
    b = Bench(s, start=True)
    yield "the first sweep holds off", s.run("reap", REAP, [333, 1000, 50])[0], "HOLD"
    yield "one sweeps at a time", s.run("reap", REAP, [333, 1000, 50])[0], "TURN"
    for _ in range(7):
        s.advance(400)
        got = s.run("reap", REAP, [333, 1000, 50])
    yield "then it lists", got[:3], ["OK", 1, b.ticket.encode()]
    reap1 = REAP1, [b.ticket, got[3], "mid", 1, "info"]
    yield "reap1", s.run("reap1", *reap1), ["QUEUED", 1]
    yield "reap1 again", s.run("reap1", *reap1)[0], "CHANGED"
    yield "lost", s.run("lost", *b.calls()["lost"])[0], "OK"
    yield "late finish", b.finish()[0], "OK"
    t2 = b.claim()[4].decode()
    b.r.hset("{dr}:deliv", "mid", 1)
    score = b.r.zscore("{dr}:lease:noop", t2)
    yield "over the limit", s.run("reap1", REAP1, [t2, int(score), "mid", 1, "info"]), ["DEAD", 2]
    yield "which is counted", b.r.hmget("{dr}:stat", "dead", "poison"), [b"1", b"1"]
    yield "lost of an ended job", s.run("lost", *b.calls()["lost"])[0], "STALE"
    b = Bench(s)
    yield "beat", s.run("beat", BEAT, ["w", 1000, 4000, 0, b.ticket])[1], b"o"
    yield "beat of a gone one", s.run("beat", BEAT, ["w", 1000, 4000, 0, "1"])[1], b"g"


def alerts(s):
    """An alert's life, who delivers its notices, and what a lost reply changes: nothing."""
    def alert(**how):
        return s.run("alert", ALERT, alerting(**how))

    def remind(nid, **how):
        return s.run("alert", ALERT, reminding(nid, **how))

    def beat(wid="v", held=(), targets="webhook,mail", most=16, test=0):
        return s.run("alertbeat", ALERTBEAT, [wid, 1000, targets, most, test, *held])[1:]

    def feed():
        return [(e[1][b"kind"], e[1][b"count"]) for e in r.xrange("{dr}:ev") if e[1][b"e"] == b"alert"]
    s.fresh()
    r, now = s.r, str(s.ms)
    yield "nothing to clear", alert(op="clear")[0], "NONE"
    first = alert()
    text = "\n".join(["w", str(s.ms + 1000), "webhook,mail", "firing", "firing", "warning", "backup_failed", "db", now,
                      now, "1", "it failed", "job j"]).encode()
    yield "an alert fires", first, ["FIRING", text, 0]
    yield "its reply lost", alert(), ["ALREADY", text, 0]
    yield "it goes on", alert(nid="0b"), ["REPEATED"]
    yield "that reply lost", alert(nid="0b"), ["ALREADY", b"", 0]
    yield "counted once", r.hget("{dr}:alert", "backup_failed db").split()[1], b"2"
    yield "another subject", alert(nid="0c", subject="files", targets="")[:2], ["FIRING", b""]
    s.advance(1)
    yield "it gets worse", alert(nid="0d", severity="critical", rank=2)[0], "WORSE"
    yield "and not better by that", alert(nid="0e")[0], "REPEATED"
    yield "nor worse again", alert(nid="0e1", severity="critical", rank=2)[0], "REPEATED"
    s.advance(9998)
    yield "no reminder yet", remind("0f"), ["NONE"]
    alert(nid="0f1", details="job k")
    s.advance(1)
    told = remind("10")
    yield "a reminder, whoever says it, of the one that waits the longest", \
        (told[0], told[1].split(b"\n")[2:8], told[1].split(b"\n")[9:]), \
        ("REMINDER", [b"webhook,mail", b"reminder", b"firing", b"warning", b"backup_failed", b"files"],
         [now.encode(), b"1", b"it failed", b"job j"])
    yield "its reply lost", remind("10"), ["ALREADY", told[1], 0]
    s.run("alertdone", ["alert:out"], ["10", "webhook"])
    s.run("alertdone", ["alert:out"], ["10", "mail"])
    yield "its reply lost, and delivered", remind("10"), ["ALREADY", b"", 0]
    s.advance(1)
    yield "the other one", (remind("101", targets=""), feed()[-1]), (["REMINDER", b"", 0], (b"reminder", b"6"))
    yield "with the last words", r.hget("{dr}:alert", "backup_failed db").split(b"\n")[1:], [b"it failed", b"job k"]
    yield "each once", remind("102"), ["NONE"]
    yield "nor by saying it again", alert(nid="11")[0], "REPEATED"
    s.advance(99999)
    yield "what nobody said for long", (remind("110", rest=99999), remind("111", targets="")[0]), (["NONE"], "REMINDER")
    s.advance(-200000)
    yield "a clock that went back", (alert(nid="12")[0], remind("120"), alert(op="clear", nid="121", wait=1)), \
        ("REPEATED", ["NONE"], ["STILL"])
    s.advance(100001)
    yield "a clear that wants quiet", alert(op="clear", nid="122", wait=100002), ["STILL"]
    over = alert(op="clear", nid="13", targets="mail", wait=100001)
    yield "it is over", (over[0], over[1].split(b"\n")[3:6], over[1].split(b"\n")[9:11]), \
        ("RESOLVED", [b"resolved", b"resolved", b"critical"], [now.encode(), b"8"])
    yield "that reply lost, too", alert(op="clear", nid="13"), ["ALREADY", over[1], 0]
    yield "over is over", alert(op="clear", nid="14")[0], "NONE"
    yield "each change in the feed, once", feed(), \
        [(b"firing", b"1"), (b"firing", b"1"), (b"worse", b"3"), (b"reminder", b"1"), (b"reminder", b"6"),
         (b"reminder", b"7"), (b"resolved", b"8")]
    yield "too many alerts", alert(nid="15", subject="x", most=1)[0], "FULL"
    yield "a known one all the same", alert(nid="16", subject="files", most=1, targets="")[0], "REPEATED"
    for i in 6, 7, 10, 11:
        args = alerting(nid="17", subject="y")
        args[i] = "a\nb"
        try:
            got = s.run("alert", ALERT, args)
        except redis.ResponseError:
            got = "refused"
        yield f"argument {i} of two lines", got, "refused"
    yield "three notices wait", sorted(r.hkeys("{dr}:alert:out")), [b"0a", b"0d", b"13"]
    s.advance(-10000)
    yield "leased notices are left alone", beat(), [b""]
    s.advance(10000)
    yield "who cannot reach their targets", beat(targets="mail")[1:], []
    s.advance(1001)
    taken = beat(most=2)
    yield "a dead worker's notices, oldest first", taken[1::2], [b"0a", b"0d"]
    yield "are leased to the new one", [n.split(b"\n")[0] for n in taken[2::2]], [b"v", b"v"]
    s.advance(900)
    yield "who says that it is at it", beat(held=["0a", "0d"], targets="")[1:], []
    s.advance(900)
    yield "keeps them", beat(wid="u")[1::2], [b"13"]
    s.advance(1001)
    r.hset("{dr}:alert:out", "junk", "no notice")
    yield "what is no notice goes", (beat(wid="t")[1::2], r.hexists("{dr}:alert:out", "junk")), \
        ([b"0a", b"0d"] + [b"13"], False)
    done = ["alert:out"]
    yield "one target has it", s.run("alertdone", done, ["0a", "webhook"]), ["OK", 1]
    yield "said again", s.run("alertdone", done, ["0a", "webhook"]), ["OK", 1]
    yield "the other one is left", r.hget("{dr}:alert:out", "0a").split(b"\n")[2], b"mail"
    yield "both have it", s.run("alertdone", done, ["0a", "mail"]), ["OK", 0]
    yield "it is gone", s.run("alertdone", done, ["0a", "mail"])[0], "GONE"
    yield "no room: the oldest goes", alert(nid="18", subject="z", out=2)[2], 1
    yield "which was", sorted(r.hkeys("{dr}:alert:out")), [b"13", b"18"]
    r.lpush("{dr}:alert:test", "t1")
    yield "a test for who wants one", (beat(), beat(test=1)[0], beat(test=1)[0]), ([b""], b"t1", b"")


def many(s):
    """start and finish of several jobs in one call."""
    b = Bench(s, claim=False)
    b.r.lpush("{dr}:q:noop", *[f"raw{i}" for i in range(16)])
    tickets = [t.decode() for t in b.claim()[4::2]]
    yield "a full claim's tables", [b.r.object("encoding", "{dr}:" + k) for k in ("lease:noop", "run")], \
        [b"skiplist", b"hashtable"]
    yield "hold nothing else", (b.r.zcard("{dr}:lease:noop"), b.r.hlen("{dr}:run")), (16, 16)
    starts = [b.starting(ticket=t, jid=f"j{i}") for i, t in enumerate(tickets[:3])]
    twice = b.starting(ticket=tickets[3], jid="j0")
    gone, late = b.starting(ticket="1", jid="j9"), b.starting(ticket=tickets[4], jid="j4", exp=1)
    got = s.shared("start", "noop", "w", [*starts, twice, gone, late])
    yield "several starts", [x[0] for x in got], ["OK", "OK", "OK", "DUP_RUN", "GONE", "EXPIRED"]
    before = {k: b.r.dump(k) for k in b.r.keys("*")}
    got = s.shared("start", "noop", "w", starts)
    yield "their reply lost", [x[0] for x in got], ["ALREADY"] * 3
    yield "nothing was written again", {k: b.r.dump(k) for k in b.r.keys("*")}, before
    ends = [b.finishing(ticket=t, jid=f"j{i}", st=st)
            for i, (t, st) in enumerate(zip(tickets, ("done", "failed", "done")))]
    b.r.rename("{dr}:job:j2", "{dr}:kept")
    b.r.set("{dr}:job:j2", "junk")
    before = {k: b.r.dump(k) for k in b.r.keys("*")}
    try:
        got = s.shared("finish", "noop", "w", ends)
    except redis.ResponseError:
        got = "refused"
    yield "one damaged record stops the call", got, "refused"
    yield "before anything was written", {k: b.r.dump(k) for k in b.r.keys("*")}, before
    b.r.rename("{dr}:kept", "{dr}:job:j2")
    stale = b.finishing(ticket=tickets[5], jid="j0")
    got = s.shared("finish", "noop", "w", [*ends, stale])
    yield "several ends", [x[0] for x in got], ["OK", "OK", "OK", "STALE"]
    yield "counted by outcome", b.r.hgetall("{dr}:stat"), {b"done": b"2", b"failed": b"1"}
    yield "their tickets are gone", [b.r.hexists("{dr}:run", t) for t in tickets[:6]], \
        [False, False, False, True, True, False]
    yield "ends in the feed", sum(e[1][b"e"] == b"end" for e in b.r.xrange("{dr}:ev")), 4
    again = s.shared("finish", "noop", "w", ends)
    yield "their reply lost", [x[0] for x in again], ["ALREADY"] * 3


def heads(s):
    """The witness of a store's catalog only rises; junk in its place counts as none, and so does another store's."""
    b = Bench(s, claim=False)
    a, z, ours, theirs = "a" * 64, "0" * 64, "5" * 32, "6" * 32

    def head(seq, sha, store=ours):
        return [x.decode() if isinstance(x, bytes) else x for x in s.run("head", HEAD, [seq, sha, store])]

    def seen():
        return msgpack.unpackb(b.r.hget("{dr}:info", "head"))
    yield "a first head", head(7, a), ["OK"]
    yield "its reply lost", head(7, a), ["OK"]
    yield "seen", seen(), {"seq": 7, "sha256": a, "store": ours}
    yield "it rises", head(9, z), ["OK"]
    yield "an older one", head(8, a), ["OLDER", "9", z]
    yield "another one", head(9, a), ["OTHER", "9", z]
    yield "neither is written", seen(), {"seq": 9, "sha256": z, "store": ours}
    yield "a new store begins anew", head(1, a, theirs), ["OK"]
    yield "and is witnessed", seen(), {"seq": 1, "sha256": a, "store": theirs}
    yield "on its own", head(1, z, theirs), ["OTHER", "1", a]
    b.r.hset("{dr}:info", "head", msgpack.packb({"seq": 9, "sha256": z}))
    yield "one of an earlier version counts", head(8, a), ["OLDER", "9", z]
    yield "against another one, too", head(9, a), ["OTHER", "9", z]
    yield "its own head", head(9, z), ["OK"]
    yield "names its store", seen(), {"seq": 9, "sha256": z, "store": ours}
    yield "the last record there may be", head(2**53 - 1, a), ["OK"]
    yield "one before it", head(2**53 - 2, a), ["OLDER", str(2**53 - 1), a]
    for junk in b"", b"\xc1", b"\x93\x01\x02\x03", msgpack.packb({"seq": "9"}), msgpack.packb({"seq": 0, "sha256": 1}):
        b.r.hset("{dr}:info", "head", junk)
        yield f"junk {junk!r}", head(3, a), ["OK"]
        yield "is replaced", seen(), {"seq": 3, "sha256": a, "store": ours}


def surveys(s):
    """What workers told of head and retention; junk in its place counts as nothing told."""
    b = Bench(s, claim=False)

    def told():
        return s.run("survey", ["wk"], [64, 16384, "noop"])[6:]
    nothing = [[b"0", b"", b""], [b"0", b"0", b""]]
    yield "nothing told", told(), nothing
    s.run("head", HEAD, [2**53 - 1, "a" * 64, "5" * 32])
    b.r.hset("{dr}:info", "retention", msgpack.packb({"at": 1700000000000, "waiting_for_yes": 7, "plan_hash": "b" * 64}))
    yield "told", told(), [[b"9007199254740991", b"a" * 64, b"5" * 32], [b"1700000000000", b"7", b"b" * 64]]
    for junk in b"", b"\xc1", b"\x93\x01\x02\x03", msgpack.packb({"seq": "9", "at": [1]}), b"x" * 20000:
        b.r.hset("{dr}:info", mapping={"head": junk, "retention": junk})
        yield f"junk {junk[:20]!r}", told(), nothing
    b.r.delete("{dr}:info")
    b.r.set("{dr}:info", "junk")
    yield "no hash", told(), nothing


def dead_letters(s):
    """Dead letters go by their age and by their number, the oldest first, a few at a time."""
    b = Bench(s, claim=False)

    def bury(*ages):
        s.fresh()
        for i, age in enumerate(ages):
            b.r.zadd("{dr}:dead", {f"t{i}": s.ms - age})
            b.r.hset("{dr}:deadraw", f"t{i}", "raw")
            b.r.hset("{dr}:deadinfo", f"t{i}", "info")

    def forget(age=10_000, most=10, at_once=5):
        return s.run("forget_dead", FORGET_DEAD, [age, most, at_once])[1]

    def left():
        names = [x.decode() for x in b.r.zrange("{dr}:dead", 0, -1)]
        assert sorted(names) == sorted(k.decode() for k in b.r.hkeys("{dr}:deadraw")) == sorted(
            k.decode() for k in b.r.hkeys("{dr}:deadinfo"))
        return names
    yield "no dead letters", forget(), 0
    bury(30_000, 20_000, 5_000, 0)
    yield "two are too old", forget(), 2
    yield "the others stay", left(), ["t2", "t3"]
    yield "nothing more", forget(), 0
    yield "counted", b.r.hget("{dr}:stat", "dead_trimmed"), b"2"
    bury(*range(900, 0, -100))
    yield "too many", forget(most=6), 3
    yield "the newest stay", left(), ["t3", "t4", "t5", "t6", "t7", "t8"]
    bury(*range(900, 0, -100))
    yield "a few at a time", [forget(most=2) for _ in range(3)], [5, 2, 0]
    bury(*[30_000] * 7, 0)
    yield "old ones too", [forget() for _ in range(3)], [5, 2, 0]
    yield "but the new one", left(), ["t7"]


def wrong_types(s):
    """Each key of each script as a string (or list): an error, and nothing has changed."""
    for name in Bench(s).calls():
        keys = Bench(s, start=name not in ("start", "claim", "enqueue")).calls()[name][0]
        for key in keys:
            started = name not in ("start", "claim", "enqueue", "drop", "park", "bury")
            b = Bench(s, start=started, claim=name not in ("enqueue",))
            if name in ("seed", "fire"):
                Plan.seed(b, definition="def", first=s.ms)
                b.r.hset("{dr}:schedlast", "s", "x")
                b.r.hset("{dr}:job:before", "st", "done")
            args = b.calls()[name][1] if name != "enqueue" else ["raw", "j", "noop", "d", 10**9]
            if name == "claim":
                b.r.lpush("{dr}:q:noop", "again")
            b.r.delete("{dr}:" + key)
            b.r.set("{dr}:" + key, "junk") if key != "ctr" else b.r.lpush("{dr}:ctr", "junk")
            before = {k: b.r.dump(k) for k in b.r.keys("*")}
            try:
                got = s.run(name.partition(".")[0], keys, args)  # alert.remind: an operation
            except redis.ResponseError:
                got = "error"
            after = {k: b.r.dump(k) for k in b.r.keys("*")}
            harmless = got != "error" and isinstance(got, list)
            yield f"{name} {key}", harmless or before == after, True
            if harmless:
                yield f"{name} {key} untouched", b.r.dump("{dr}:" + key), before[
                    ("{dr}:" + key).encode()]


def survey(s):
    """It looks and changes nothing; a key of a wrong type counts as empty."""
    b = Bench(s)
    b.r.lpush("{dr}:q:noop", "old", "new")
    b.r.lpush("{dr}:q:noop:hi", "x" * 50)
    b.r.zadd("{dr}:delay:noop", {"1": 5})
    b.r.sadd("{dr}:pause", "noop")
    b.r.hset("{dr}:stat", "done", 7)
    b.r.zadd("{dr}:schednext", {"nightly": 1234567890123, "coming": 99999999999999})
    b.r.hset("{dr}:sched", mapping={"nightly": "d" * 1025, "coming": "other"})
    s.run("beat", BEAT[:4], ["w", 1000, 4000, 3, "host", "h", "version", "1", "sched", "abc"])
    before = {k: b.r.dump(k) for k in b.r.keys("*")}
    got = s.run("survey", ["wk"], [10, 40, "noop", "sync"])
    yield "survey: lanes", got[1], [[2, 1, 1, 1, 1, b"old"], [0, 0, 0, 0, 0, b""]]
    yield "survey: counters", got[2], [b"done", b"7"]
    yield "survey: workers", [w[0:1] + w[2:] for w in got[3]], [[b"w", b"h", b"1", b"", b"abc"]]
    yield "survey: schedules", got[4:6], [0, [[b"nightly", b"1234567890123", b"d" * 1024], [b"coming", b"99999999999999", b""]]]
    yield "survey: nothing is changed", {k: b.r.dump(k) for k in b.r.keys("*")}, before
    b.r.rpush("{dr}:q:noop", "y" * 41)
    yield "survey: a long message", s.run("survey", ["wk"], [10, 40, "noop"])[1][0][5], b""
    for key in ("wk", "q:noop", "q:noop:hi", "delay:noop", "lease:noop", "pause", "stat", "dead", "schednext", "sched", "wk:w"):
        kept = b.r.dump("{dr}:" + key)
        b.r.set("{dr}:" + key, "junk")
        yield f"survey {key}", len(s.run("survey", ["wk"], [10, 40, "noop"])), 8
        b.r.delete("{dr}:" + key)
        if kept:
            b.r.restore("{dr}:" + key, 0, kept)


def main():
    passed = failed = 0
    with Scripts() as s:
        for cases in (answers, alerts, heads, surveys, dead_letters, wrong_types, survey):
            for name, got, wanted in cases(s):
                if got == wanted:
                    passed += 1
                else:
                    failed += 1
                    print(f"FAIL {name}: {got!r}, wanted {wanted!r}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
