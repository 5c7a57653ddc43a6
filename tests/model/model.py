#!/usr/bin/env python3
"""Model check: simulated workers drive the real scripts through kills, pauses past the lease, lost
replies, duplicates, retries, cancels, drains, delays and concurrent reapers.

  model.py --seeds N      N random runs; a failing seed is printed
  model.py --seed S --trace   replays one
  model.py --mutants      breaks scripts on purpose: each must be noticed
"""
import argparse
import collections
import hashlib
import random
import sys

from scripts import Scripts

LANE, LEASE, SWEEP, LIMIT, ENDS = "noop", 1000, 333, 3, ("done", "failed", "cancelled", "expired",
                                                         "dead")
LANE_KEYS = ["run", "lease:noop"]
JOURNALLED = ("j0", "j1")


class Broken(Exception):
    pass


class Worker:
    def __init__(self, wid):
        self.wid, self.alive, self.paused, self.hands = wid, True, 0, {}


class Model:
    """Messages are text `id/body`; a hand is what a worker holds: ticket -> [phase, raw, n]."""

    def __init__(self, scripts, seed, trace=False):
        self.s, self.rnd, self.trace = scripts, random.Random(seed), trace
        self.s.fresh()
        self.workers = [Worker(f"w{i}") for i in range(3)]
        self.next_wid = 3
        self.accepted, self.finishes, self.bodies = set(), collections.Counter(), {}
        self.last_ticket, self.stale, self.leased = 0, 0, {}
        self.tombstones, self.told = set(), set()  # jobs that ended while they waited; of whose end a worker knows
        self.journals = {}  # raw -> 1 open, 2 closed: what a worker finds on disk

    def say(self, *words):
        if self.trace:
            print(self.s.ms % 10_000_000, *words)

    def call(self, name, keys, args, lossy=True):
        """Runs a script; sometimes the reply is lost and the caller repeats itself."""
        reply = self.s.run(name, keys, args)
        self.say(name, args[0] if args else "", "->", reply[0])
        if lossy and self.rnd.random() < 0.05:
            self.say("  reply lost, again")
            self.s.run(name, keys, args)
        return reply

    def call_shared(self, name, w, parts):
        """start or finish for several jobs at once."""
        replies = self.s.shared(name, LANE, w.wid, parts)
        for (_, args), reply in zip(parts, replies):
            self.say(name, args[0], "->", reply[0])
        if self.rnd.random() < 0.05:
            self.say("  reply lost, again")
            again = self.s.shared(name, LANE, w.wid, parts)
            if name == "start":
                return again
            if any(a[0] == b[0] == "OK" for a, b in zip(replies, again)):
                raise Broken("a repeated finish was accepted twice")
        return replies

    def push(self):
        jid = f"j{self.rnd.randrange(12)}"
        body = self.bodies.setdefault(jid, "b") if self.rnd.random() < 0.93 else "other"
        if self.s.r.exists(f"{{dr}}:job:{jid}") and self.rnd.random() < 0.7:
            return
        raw = f"{jid}/{body}"
        self.accepted.add(jid)
        if self.rnd.random() < 0.5:
            self.s.r.lpush("{dr}:q:noop", raw)
        else:
            self.call("enqueue", ["q:noop", f"job:{jid}", "ev"], [raw, jid, LANE, body, 10**9])
        self.say("push", raw)

    def claim(self, w):
        n = self.rnd.randrange(1, 5)
        keys = ["q:noop", "q:noop:hi", "lease:noop", "run", f"own:{w.wid}", "ctr", "deliv",
                "delay:noop", "delayraw", "pause", "dead", "deadraw", "deadinfo", "ev", "stat"]
        reply = self.s.run("claim", keys, [LANE, w.wid, n, LEASE, 262144])
        for i in range(4, len(reply), 2):
            if int(reply[i]) <= self.last_ticket:
                raise Broken("a ticket went down")
            self.last_ticket = int(reply[i])
        if self.rnd.random() < 0.05:
            self.say("claim reply lost")
            return
        for i in range(4, len(reply), 2):
            w.hands[reply[i].decode()] = ["claimed", reply[i + 1].decode(), 0]
        self.say("claim", w.wid, [(reply[i], reply[i + 1]) for i in range(4, len(reply), 2)])

    @staticmethod
    def mid(raw):
        return hashlib.sha1(raw.encode()).hexdigest()

    def expected_of_start(self, jid, body, raw, ticket):
        """What the record allows, as far as it can be said before the call."""
        st, f, dig = self.s.r.hmget(f"{{dr}}:job:{jid}", "st", "f", "dig")
        n = self.s.r.hget(f"{{dr}}:job:{jid}", "n") or b"0"
        ended = st and st.decode() in ENDS and not (st == b"dead" and n == b"0")
        held = self.s.r.hexists("{dr}:run", ticket)
        return {"jid": jid, "journal": self.journals.get(raw, 0),
                "is_over": ended and held and dig == body.encode(),
                "busy": st == b"running" and f.decode() != ticket and self.s.r.hexists("{dr}:run", f)}

    def start(self, w, tickets):
        parts, expected, seen = [], [], set()
        for ticket in tickets:
            raw = w.hands[ticket][1]
            jid, body = raw.split("/")
            exp = self.s.ms - 1 if self.rnd.random() < 0.02 else 0
            nbf = self.s.ms + 500 if self.rnd.random() < 0.03 else 0
            expected.append({**self.expected_of_start(jid, body, raw, ticket), "nbf": nbf, "first": jid not in seen})
            seen.add(jid)
            parts.append((jid, [ticket, jid, body, exp, nbf, "", 10**9, self.journals.get(raw, 0), "unsigned",
                                self.mid(raw)]))
        replies = self.call_shared("start", w, parts)
        running = [x["jid"] for x, reply in zip(expected, replies) if reply[0] in ("OK", "ALREADY")]
        if len(running) != len(set(running)):
            raise Broken(f"one call started a job twice: {running}")
        for ticket, x, reply in zip(tickets, expected, replies):
            self.started(w, ticket, x, reply)

    def started(self, w, ticket, x, reply):
        hand, code, jid, own = w.hands[ticket], reply[0], x["jid"], f"own:{w.wid}"
        body = hand[1].split("/")[1]
        if x["journal"] == 1 and code not in ("OK", "ALREADY", "DUP_RUN", "GONE"):
            raise Broken(f"{jid} has an open journal, start answered {code}")
        if x["is_over"] and x["first"] and code not in ("DUP_DONE", "CANCELLED", "EXPIRED") and not x["journal"]:
            raise Broken(f"{jid} has ended, start answered {code}")
        if x["busy"] and code == "OK":
            raise Broken(f"{jid} runs twice")
        if code in ("OK", "ALREADY"):
            hand[0], hand[2] = "running", reply[1]
            if jid in JOURNALLED:
                self.journals.setdefault(hand[1], 1)
            if x["journal"]:  # whoever resumes may report again: an end of before said less
                self.finishes[jid] = 0
            return
        w.hands.pop(ticket)
        if code in ("CANCELLED", "EXPIRED"):
            if self.rnd.random() < 0.1:
                return  # it died before it noted that down; the message comes again
            self.told.add(jid)
        if code in ("DUP_DONE", "DUP_RUN", "CANCELLED", "EXPIRED"):
            self.call("drop", [*LANE_KEYS, own, "deliv"],
                      [ticket, self.mid(hand[1]), int(code != "DUP_RUN")])
        elif code == "COLLISION":
            self.bury(w, ticket, hand[1], 0)
        elif code == "NOT_YET":
            self.call("park", [*LANE_KEYS, own, "delay:noop", "delayraw", f"job:{jid}", "ev"],
                      [ticket, x["nbf"], jid, LANE, body, 10**9, 0])
        elif code != "GONE":
            raise Broken(f"start answered {code}")

    def bury(self, w, ticket, raw, record):
        jid, body = raw.split("/")
        self.call("bury", [*LANE_KEYS, f"own:{w.wid}", "deliv", "dead", "deadraw", "deadinfo",
                           f"job:{jid}", "ev", "stat", f"ev:{jid}"],
                  [ticket, self.mid(raw), LANE, "info", jid, record, body, "err", 10**9, 10000, "x"])

    def end(self, w, tickets):
        ends = [t for t in tickets if not self.put_back(w, t)]
        if ends:
            self.finish(w, [(t, self.rnd.choice(["done", "done", "done", "failed"])) for t in ends])

    def put_back(self, w, ticket):
        """Sometimes a job ends otherwise: by a retry, by a drain."""
        _, raw, n = w.hands[ticket]
        jid, own, dice = raw.split("/")[0], f"own:{w.wid}", self.rnd.random()
        if dice < 0.15 and n < 3:
            self.call("fail", [f"job:{jid}", *LANE_KEYS, own, "delay:noop", "delayraw", "ev",
                               f"ev:{jid}", "stat"],
                      [ticket, jid, LANE, "err", self.rnd.randrange(800)])
        elif dice < 0.22:
            self.call("release", [*LANE_KEYS, own, "q:noop", f"job:{jid}"], [ticket])
        else:
            return False
        w.hands.pop(ticket)
        return True

    def finish(self, w, ends):
        """ends: (ticket, st)."""
        parts, before = [], []
        for ticket, st in ends:
            raw = w.hands.pop(ticket)[1]
            jid, body = raw.split("/")
            before.append((jid, raw, *self.s.r.hmget(f"{{dr}}:job:{jid}", "st", "f")))
            parts.append((jid, [ticket, jid, self.mid(raw), st, st, "res", "", 10**9, body, 0]))
        replies = self.call_shared("finish", w, parts)
        for (ticket, _), (jid, raw, st, f), reply in zip(ends, before, replies):
            if self.journals.get(raw) == 1 and self.rnd.random() < 0.7:
                self.journals[raw] = 2  # closed on disk, whatever Redis says; else a human is needed
            if reply[0] == "OK":
                self.finishes[jid] += 1
                if f and f.decode() != ticket:
                    raise Broken(f"{jid}: a stale finish was accepted")
                if st and st.decode() in ENDS:
                    raise Broken(f"{jid}: finish accepted after {st}")
            elif reply[0] == "STALE":
                self.stale += 1

    def beat(self, w):
        tickets = list(w.hands)
        keys = [f"own:{w.wid}", "run", "wk", f"wk:{w.wid}"]
        for t in tickets:
            keys += ["lease:noop", "job:" + w.hands[t][1].split("/")[0]]
        reply = self.s.run("beat", keys, [w.wid, LEASE, 4 * LEASE, 0, *tickets])
        for t, letter in zip(tickets, reply[1:]):
            if letter in b"oc":
                self.leased[t] = self.s.ms + LEASE
            if letter == b"s":
                w.hands.pop(t)
            elif letter == b"c" and w.hands[t][0] == "running":
                self.finish(w, [(t, "cancelled")])

    def reconcile(self, w):
        for t in self.s.r.smembers(f"{{dr}}:own:{w.wid}"):
            if t.decode() not in w.hands:
                self.call("release", [*LANE_KEYS, f"own:{w.wid}", "q:noop", "job:"], [t])

    def reap(self):
        reply = self.s.run("reap", ["reap", "lease:noop"], [SWEEP, LEASE, 50])
        if reply[0] != "OK":
            return
        for i in range(1, len(reply), 3):
            ticket, score = reply[i + 1], reply[i + 2]
            value = self.s.r.hget("{dr}:run", ticket)
            if not value:
                continue
            wid, _, raw = value.decode().split("|", 2)
            jid, body = raw.split("/")
            reapers = 2 if self.rnd.random() < 0.3 else 1
            for _ in range(reapers):  # two reapers saw the same list
                if self.rnd.random() < 0.3:  # its owner wakes between the scan and the reaping
                    for w in self.workers:
                        if w.wid == wid:
                            self.beat(w)
                got = self.s.run("reap1", ["lease:noop", "run", f"own:{wid}", "deliv", "q:noop",
                                           "dead", "deadraw", "deadinfo", "stat"],
                                 [ticket, score, self.mid(raw), LIMIT, "info"])
                self.say("reap1", ticket, got[0])
                if got[0] != "CHANGED" and self.leased.get(ticket.decode(), 0) > self.s.ms:
                    raise Broken("a ticket was reaped within its lease")
                if got[0] != "CHANGED" and self.rnd.random() > 0.05:
                    self.s.run("lost", [f"job:{jid}", "ev", f"ev:{jid}", "stat"],
                               [ticket, jid, LANE, "dead" if got[0] == "DEAD" else "lost", body,
                                "err", 10**9])

    def cancel(self):
        jid = f"j{self.rnd.randrange(12)}"
        before = (self.s.r.hget(f"{{dr}}:job:{jid}", "st") or b"").decode()
        reply = self.call("cancel", [f"job:{jid}", "ev", f"ev:{jid}", "run"], [jid, "hint:"])
        if reply[1:] == [b"cancelled"] and before not in ENDS:
            self.tombstones.add(jid)

    def some(self, tickets):
        return self.rnd.sample(tickets, min(len(tickets), self.rnd.choice([1, 1, 2, 4])))

    def act(self, w, quiet):
        if w.paused > 0:
            w.paused -= 1
            return
        dice = self.rnd.random()
        if not quiet and dice < 0.01:
            self.say("kill", w.wid)
            w.wid, w.hands = f"w{self.next_wid}", {}
            self.next_wid += 1
            return
        if not quiet and dice < 0.05:
            w.paused = self.rnd.randrange(10, 60)
            self.say("pause", w.wid, w.paused)
            return
        if quiet or self.rnd.random() < 0.4:
            self.beat(w)
        claimed = [t for t, h in w.hands.items() if h[0] == "claimed"]
        running = [t for t, h in w.hands.items() if h[0] == "running"]
        if claimed and (quiet or self.rnd.random() < 0.8):
            self.start(w, self.some(claimed))
        elif running and (quiet or self.rnd.random() < 0.5):
            self.end(w, self.some(running))
        elif len(w.hands) < 6:
            self.claim(w)
        if self.rnd.random() < 0.1:
            self.reconcile(w)

    def step(self, quiet=False):
        if not quiet:
            if self.rnd.random() < 0.25:
                self.push()
            if self.rnd.random() < 0.02:
                self.cancel()
            if self.rnd.random() < 0.003:
                self.say("outage")
                self.s.advance(10 * LEASE)
            if self.rnd.random() < 0.01:
                self.s.advance(-40)  # Redis' clock is set back
        self.act(self.rnd.choice(self.workers), quiet)
        if self.rnd.random() < 0.15:
            self.reap()
        self.s.advance(self.rnd.randrange(1, 60))

    def at_rest(self):
        r = self.s.r
        return not any(r.exists("{dr}:" + k) for k in (
            "q:noop", "run", "lease:noop", "delayraw", "delay:noop", "deliv")) and \
            not r.keys("{dr}:own:*")

    def check_end(self):
        for jid in self.accepted:
            st = (self.s.r.hget(f"{{dr}}:job:{jid}", "st") or b"").decode()
            letters = [v for v in self.s.r.hvals("{dr}:deadraw") if v.startswith(jid.encode() + b"/")]
            if st not in ENDS and not letters:
                raise Broken(f"{jid} ended as {st or 'nothing'}")
            waited = st == "expired" or (st == "cancelled" and jid in self.tombstones)
            if waited and jid not in self.told and not letters:
                raise Broken(f"{jid} ended as {st} while it waited, and nobody was told")
            if self.finishes[jid] > 1:
                raise Broken(f"{jid} was finished {self.finishes[jid]} times")
        if not self.at_rest():
            left = {k: self.s.r.type(k) for k in self.s.r.keys("*")
                    if not k.startswith((b"{dr}:job", b"{dr}:ev"))}
            raise Broken(f"not at rest: {left} deliv {self.s.r.hgetall('{dr}:deliv')}")

    def run(self, steps):
        for _ in range(steps):
            self.step()
        for w in self.workers:
            w.paused = 0
        for _ in range(3000):
            self.step(quiet=True)
            if self.at_rest():
                break
        self.check_end()


MUTANTS = [
    ("reap1", "if not score or tonumber(score) ~= tonumber(ARGV[2]) then return {'CHANGED'} end", ""),
    ("finish", "if r[1] and r[2] ~= ticket then return {'STALE'} end", ""),
    ("finish", "if r[1] and r[1] ~= 'running' and r[1] ~= 'lost' then return {'ALREADY', r[1]} end", ""),
    ("finish", "if lost > 0 then call('HDEL', deliv, mid) end", ""),
    ("finish", "call('SREM', own, unpack(tickets))", ""),
    ("start", "      if call('HEXISTS', run, f) == 1 then return {'DUP_RUN'} end\n", ""),
    ("start", "return {'DUP_DONE', st}", "return {'GONE'}"),
    ("start", "if resume ~= '1' and (", "if ("),
    ("start", "if resume == '0' then\n    if r[5]", "if true then\n    if r[5]"),
    ("start", "touched[job] and record(job) or was[i]", "was[i]"),
    ("start", "if st == 'expired' or (st", "if (st"),
    ("cancel", "'cancel', '2', 'st'", "'cancel', '1', 'st'"),
    ("drop", "if ARGV[3] == '1' then redis.call('HDEL', KEYS[4], ARGV[2]) end", ""),
    ("release", "redis.call('RPUSH', KEYS[4], raw)", ""),
    ("fail", "redis.call('HSET', KEYS[6], ARGV[1], raw)", ""),
    ("claim", "local ticket = math.max(last + 1, us)", "local ticket = us"),
]


def one(scripts, seed, steps, trace=False):
    try:
        Model(scripts, seed, trace).run(steps)
        return None
    except Broken as e:
        return str(e)


def mutants():
    passed = failed = 0
    for m in MUTANTS:
        with Scripts(m) as s:
            noticed = next(filter(None, (one(s, seed, 700) for seed in range(100))), None)
        passed += bool(noticed)
        failed += not noticed
        print(("ok   " if noticed else "FAIL ") + f"{m[0]}: without {m[1][:60]!r}: {noticed}")
    return passed, failed


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--seeds", type=int, default=0)
    p.add_argument("--seed", type=int)
    p.add_argument("--steps", type=int, default=700)
    p.add_argument("--trace", action="store_true")
    p.add_argument("--mutants", action="store_true")
    a = p.parse_args()
    if a.mutants:
        passed, failed = mutants()
    else:
        passed = failed = 0
        with Scripts() as s:
            for seed in [a.seed] if a.seed is not None else range(a.seeds):
                why = one(s, seed, a.steps, a.trace)
                passed += why is None
                failed += why is not None
                if why:
                    print(f"FAIL seed {seed}: {why}\n     model.py --seed {seed} --trace")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
