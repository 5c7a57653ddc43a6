"""A Redis whose clock a test steps, and the slots of a cron expression as a walk finds them."""
import datetime
import mmap
import os
import pathlib
import struct
import subprocess
import time
import zoneinfo

SOURCE = pathlib.Path(__file__).with_name("clock_preload.c")
UTC = datetime.timezone.utc


def ms(text):
    return int(datetime.datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


class Clock:
    """Starts the case's Redis anew with a clock of its own; now=ms."""

    def __init__(self, case, now, *options):
        self.case, self.options = case, ("--appendfsync", "always", *options)
        path = case.dir / "clock"
        path.write_bytes(bytes(8))
        with open(path, "r+b") as f:
            self.map = mmap.mmap(f.fileno(), 8)
        library = case.dir / "clock.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-D_GNU_SOURCE", "-o", library, SOURCE], check=True)
        self.env = {**os.environ, "LD_PRELOAD": str(library), "DR_CLOCK_FILE": str(path)}
        self.set(now)
        case.kill(case.redis_process)
        self.start()
        assert abs(self.now() - now) < 60_000, "the preload does not move Redis' clock"

    def start(self):
        self.case.start_redis(*self.options, env=self.env)

    def set(self, now):
        struct.pack_into("q", self.map, 0, now * 1_000_000 - time.time_ns())

    def now(self):
        seconds, micros = self.case.r.time()
        return seconds * 1000 + micros // 1000


def field(text, low, high):
    out = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, _, last = ("*" == span) and (low, "", high) or span.partition("-")
        out |= set(range(int(first), int(last or first) + 1, int(step or 1)))
    return out


def slots(cron, zone, begin, end):
    """Slots in (begin, end], in ms: instants at which the wall clock shows, or jumps over, a minute of the
    expression that it has not shown before."""
    minute, hour, day, month, weekday = (field(t, *r) for t, r in zip(
        cron.split(), ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))))
    both = "*" in (cron.split()[2][0], cron.split()[4][0])
    tz, seen, found = zoneinfo.ZoneInfo(zone), None, []

    def matches(wall):
        a, b = wall.day in day, wall.isoweekday() % 7 in weekday
        return wall.minute in minute and wall.hour in hour and wall.month in month and (a and b if both else a or b)
    for t in range(begin // 60000 * 60 - 7200, end // 1000 + 1, 60):
        wall = datetime.datetime.fromtimestamp(t, tz).replace(tzinfo=None, fold=0)
        hit, m = False, seen + datetime.timedelta(minutes=1) if seen else wall
        while m <= wall:
            hit = hit or matches(m)
            m += datetime.timedelta(minutes=1)
        seen = max(seen, wall) if seen else wall
        if hit and begin < t * 1000 <= end:
            found.append(t * 1000)
    return found
