"""Model check of seed and fire: workers that sleep, die, lose replies, forget and differ, an emptied Redis, a
clock that is set back. A slot is an index of the hour; no slot is fired twice, and none is lost while a worker
lives.

  schedules.py [--seeds N]   N random runs
  schedules.py --mutants     breaks the scripts on purpose: each must be noticed
"""
import argparse
import collections
import random
import sys

from scripts import Scripts

HOUR, STALE = 3_600_000, 90_000


class Broken(Exception):
    pass


class Worker:
    def __init__(self):
        self.since = self.known = 0
        self.ours = False


class Model:
    def __init__(self, scripts, seed):
        self.s, self.rnd = scripts, random.Random(seed)
        self.s.fresh()
        self.workers = [Worker() for _ in range(4)]
        self.pushed = collections.Counter()
        self.first, self.waited, self.set_back = self.next_slot(), 0, -HOUR
        for w in self.workers:
            self.seed(w)

    def next_slot(self):
        return (self.s.ms // HOUR + 1) * HOUR

    def lossy(self, name, keys, args):
        """Sometimes the reply is lost: the worker then knows no more than before."""
        reply = self.s.run(name, keys, args)
        return None if self.rnd.random() < 0.08 else reply

    def seed(self, w):
        # its own clock is ahead or behind by a little
        first = ((self.s.ms + self.rnd.randrange(-300, 300)) // HOUR + 1) * HOUR
        reply = self.lossy("seed", ["sched", "schednext", "schedlast", "schedseen"],
                           [w.since, STALE, "s", "def", "@hourly", first, w.known])
        if reply:
            w.since, w.ours, w.known = reply[2], reply[3] == 1, max(reply[4], 0)

    def fire(self, w):
        slot = w.known
        if not w.ours or not slot or slot > self.s.ms + 300:
            return
        newest = max(slot, self.s.ms // HOUR * HOUR) if self.s.ms - slot > 60000 else slot
        jid = f"sched:s:{newest}"
        before = self.s.r.llen("{dr}:q:noop")
        reply = self.lossy("fire", ["schednext", "sched", "schedlast", "q:noop", f"job:{jid}", f"job:{jid}", "ev", "stat"],
                           ["s", "def", slot, newest, newest + HOUR, "raw", jid, "d", "noop", 10**12, 0, "", 0])
        if self.s.r.llen("{dr}:q:noop") > before:
            self.pushed[newest] += 1
            if self.pushed[newest] > 1:
                raise Broken(f"slot {newest} was fired twice")
            if newest > self.s.ms:
                raise Broken(f"slot {newest} was fired early")
        if reply and reply[0] == "EXISTS" and self.set_back < newest:
            raise Broken(f"slot {newest} came again")
        if reply and reply[0] != "GONE":
            w.known, w.ours = max(reply[2], 0), reply[0] != "OTHER"

    def step(self):
        dice = self.rnd.random()
        if dice < 0.01:  # killed; another one comes
            self.workers[self.rnd.randrange(4)] = Worker()
        elif dice < 0.02 or (dice < 0.2 and self.s.ms % HOUR < 1000):
            self.set_back = max(self.set_back, self.s.ms)
            self.s.advance(-self.rnd.randrange(2000))
        elif dice < 0.023 and self.s.ms % HOUR > HOUR // 2 and all(w.known == self.next_slot() for w in self.workers):
            self.s.r.delete("{dr}:sched", "{dr}:schednext", "{dr}:schedlast", "{dr}:schedseen")  # far from a slot
        w = self.rnd.choice(self.workers)
        if w.known == 0 or self.rnd.random() < 0.3:
            self.seed(w)
        self.fire(w)
        left = self.next_slot() - self.s.ms
        came = self.s.ms // HOUR * HOUR
        if came >= self.first and not self.pushed[came]:
            self.waited += 1
            if self.waited > 100:
                raise Broken(f"slot {came} is not fired")
            self.s.advance(5)
        else:
            self.waited = 0
            self.s.advance(self.rnd.choice([5, 200, 20_000, left - 100 if left > 60_000 else 50]))

    def run(self, steps):
        for _ in range(steps):
            self.step()
        for w in self.workers * 4:
            self.seed(w)
            self.fire(w)
        last = self.s.ms // HOUR * HOUR
        lost = [t for t in range(self.first, last + 1, HOUR) if not self.pushed[t]]
        if lost:
            raise Broken(f"{len(lost)} slots of {(last - self.first) // HOUR + 1} were not fired: {lost[0]}")


MUTANTS = [
    ("fire", "if next ~= tonumber(ARGV[3]) then return {'ALREADY', ms, next, last} end", ""),
    ("fire", "if ms < tonumber(ARGV[4]) then return {'EARLY', ms, next, last} end", ""),
    ("fire", "if job[1] and not", "if false and not"),
    ("fire", "call('LPUSH', KEYS[4], ARGV[6])", ""),
    ("seed", "known > 0 and known < first and known or first", "first"),
    ("seed", "(at > first and first > ms)", "at < first"),
    ("seed", "(at > first and first > ms)", "(at > first)"),
]


def one(scripts, seed, steps):
    try:
        Model(scripts, seed).run(steps)
        return None
    except Broken as e:
        return str(e)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--seeds", type=int, default=50)
    p.add_argument("--steps", type=int, default=400)
    p.add_argument("--mutants", action="store_true")
    a = p.parse_args()
    passed = failed = 0
    for m in MUTANTS if a.mutants else [None]:
        with Scripts(m) as s:
            found = [(seed, why) for seed in range(a.seeds) for why in [one(s, seed, a.steps)] if why]
        if m:
            passed += bool(found)
            failed += not found
            print(("ok   " if found else "FAIL ") + f"{m[0]}: without {m[1][:60]!r}: {found[0][1] if found else None}")
        else:
            passed, failed = a.seeds - len(found), len(found)
            for seed, why in found:
                print(f"FAIL seed {seed}: {why}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
