#!/usr/bin/env python3
"""bench/queue: noop jobs through the whole path (claim, start, finish with result and feed).

One worker, 64 slots, Redis with AOF everysec. Prints jobs/s, CPU of the worker and of Redis per job,
idle pick-up, idle CPU and memory, start to first job. Medians; the machine is noisy: read ratios.
  tests/bench/queue.py [JOBS] [ROUNDS]      DR_BIN=folder with drworker
"""
import pathlib
import statistics
import sys
import time

import msgpack

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from dr import Case, wait  # noqa: E402


def cpu_s(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def rollup(pid, name):
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024


def anon(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024


def throughput(c, p, jobs, round_number):
    raws = [msgpack.packb({"id": f"r{round_number}-{i}", "t": "noop", "a": {}}) for i in range(jobs)]
    c.r.sadd("{dr}:pause", "noop")
    time.sleep(1.2)
    for i in range(0, jobs, 1000):
        c.r.lpush("{dr}:q:noop", *raws[i:i + 1000])
    before = int(c.r.hget("{dr}:stat", "done") or 0)
    w, r, t = cpu_s(p.pid), cpu_s(c.redis_process.pid), time.monotonic()
    c.r.srem("{dr}:pause", "noop")
    while int(c.r.hget("{dr}:stat", "done") or 0) < before + jobs:
        time.sleep(0.01)
    t = time.monotonic() - t
    return jobs / t, (cpu_s(p.pid) - w) / jobs * 1e6, (cpu_s(c.redis_process.pid) - r) / jobs * 1e6


def pick_up(c, n=200):
    times = []
    for i in range(n):
        raw = msgpack.packb({"id": f"p{i}", "t": "noop", "a": {}})
        c.r.lpush("{dr}:q:noop", raw)
        t = c.r.time()
        pushed = t[0] * 1000 + t[1] / 1000
        wait(lambda: c.state(f"p{i}") == "done")
        times.append(max(0.0, int(c.r.hget(f"{{dr}}:job:p{i}", "f")) / 1000 - pushed))
        time.sleep(0.01)
    times.sort()
    return times[n // 2], times[n * 99 // 100]


def main():
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 20000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    c = Case()
    try:
        c.push("noop", {"id": "first", "t": "noop", "a": {}})
        t = time.monotonic()
        p = c.worker(wait_up=False, DR_LEASE_MS="15000", DR_LOG_LEVEL="error")
        while c.state("first") != "done":
            time.sleep(0.001)
        first = time.monotonic() - t
        idle = cpu_s(p.pid)
        time.sleep(10)
        print(f"start to first job  {first:.3f} s")
        print(f"idle CPU            {(cpu_s(p.pid) - idle) / 10 * 100:.2f} %")
        print(f"idle memory         RssAnon {anon(p.pid):.1f} MiB, PSS {rollup(p.pid, 'Pss'):.1f} MiB")
        p50, p99 = pick_up(c)
        print(f"pick-up             p50 {p50:.2f} ms, p99 {p99:.2f} ms")
        got = [throughput(c, p, jobs, i) for i in range(rounds)]
        rate, worker, server = (statistics.median(x) for x in zip(*got))
        print(f"throughput          {rate:.0f} jobs/s, worker {worker:.0f} us/job, "
              f"Redis {server:.0f} us/job (median of {rounds} rounds of {jobs})")
    finally:
        c.close()


if __name__ == "__main__":
    main()
