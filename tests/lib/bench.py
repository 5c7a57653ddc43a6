"""What the benches share: data made once from a fixed seed, a worker that is measured, peers, a table.

Rounds are interleaved (ours, peer, ours, peer): the machine is noisy and both shall meet the same noise.
"""
import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import dr
import pg
import shop
import trees


def arguments(text):
    p = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("subjects", nargs="*", help="only these")
    p.add_argument("--keep-data", metavar="DIR", help="make the data there, or use what is there; it stays")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--tree-mb", type=int, default=1000)
    p.add_argument("--small-files", type=int, default=100000)
    p.add_argument("--shop-mb", type=int, default=700)
    p.add_argument("--entries", type=int, default=50000)
    return p.parse_args()


def say(text):
    print(text, file=sys.stderr, flush=True)


class Data:
    """A folder with the data; removed at the end unless it is kept."""

    def __init__(self, args):
        self.args = args
        self.own = not args.keep_data
        self.dir = pathlib.Path(args.keep_data or tempfile.mkdtemp(prefix="dr-bench-")).resolve()
        self.dir.mkdir(parents=True, exist_ok=True)
        self.dir.chmod(0o755)

    def made(self, name, make):
        path, mark = self.dir / name, self.dir / (name + ".made")
        if not mark.exists():
            say(f"making {name}")
            shutil.rmtree(path, ignore_errors=True)
            make(path)
            mark.touch()
        return path

    def tree(self):
        path = self.made(f"tree-{self.args.tree_mb}", lambda p: trees.mixed(p, self.args.tree_mb))
        return self.warm(path)

    def small(self):
        path = self.made(f"small-{self.args.small_files}", lambda p: trees.small_files(p, self.args.small_files))
        return self.warm(path)

    def wide(self):
        """One folder with many top-level entries."""
        def make(path):
            path.mkdir()
            for i in range(self.args.entries):
                (path / f"e{i:06d}").write_bytes(b"%d\n" % i)
        return self.made(f"wide-{self.args.entries}", make)

    def cluster(self):
        def make(path):
            subprocess.run(["cp", "-a", pg.template(), path], check=True)
            c = pg.Cluster(folder=path)
            try:
                shop.big(c, self.args.shop_mb)
                c.sql("VACUUM; CHECKPOINT", "shop")
            finally:
                c.stop()
        return pg.Cluster(folder=self.made(f"shop-{self.args.shop_mb}", make))

    @staticmethod
    def warm(path):
        subprocess.run(["tar", "-cf", "/dev/zero", "-C", path, "."], check=True)  # not /dev/null: GNU tar would not read
        return path

    def close(self):
        if self.own:
            shutil.rmtree(self.dir, ignore_errors=True)


def size_mb(path):
    return int(subprocess.run(["du", "-sb", "--apparent-size", path], check=True, capture_output=True, text=True).stdout.split()[0]) / 1e6


def timed(*command, **more):
    began = time.monotonic()
    subprocess.run([str(w) for w in command], check=True, stdout=more.pop("stdout", subprocess.DEVNULL), **more)
    return time.monotonic() - began


class Peak(threading.Thread):
    """Highest resident memory of a process and of its children together, in MiB, while `with` lasts."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.own, self.children, self.over = pid, 0.0, 0.0, threading.Event()

    @staticmethod
    def resident(pid, name):
        try:
            for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith(name):
                    return int(line.split()[1]) / 1024
        except (OSError, ValueError):
            pass
        return 0.0

    def run(self):
        while not self.over.wait(0.05):
            try:
                children = pathlib.Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
            except OSError:
                continue
            self.children = max(self.children, sum(self.resident(c, "VmRSS:") for c in children))

    def __enter__(self):
        pathlib.Path(f"/proc/{self.pid}/clear_refs").write_text("5")  # resets VmHWM
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.own = self.resident(self.pid, "VmHWM:")
        self.join()


class Ours:
    """A Redis, a store and one worker; jobs go through the queue."""

    def __init__(self, cluster=None, files=(), **env):
        self.case = dr.Case()
        self.case.store(database=False, files=files, DR_PBKDF2_ROUNDS="600000", **env)
        if cluster:
            self.case.settings["DATABASE_URL"] = cluster.url()
        self.process = self.case.worker(DR_LEASE_MS="15000", DR_LOG_LEVEL="warn")
        self.orders, self.peak = 0, [0.0, 0.0]

    def job(self, lane, **args):
        """Seconds from the push to the end, and the result."""
        self.orders += 1
        jid = f"bench-{lane}-{self.orders}"
        with Peak(self.process.pid) as peak:
            began = time.monotonic()
            self.case.push(lane, {"id": jid, "t": lane, "a": args})
            self.case.until(jid, "done", "failed", "dead", seconds=900)
            took = time.monotonic() - began
        self.peak = [max(self.peak[0], peak.own), max(self.peak[1], peak.children)]
        return took, self.case.result(jid, "done")

    def forget(self):
        """Backups of earlier rounds are removed, so that each round writes to equal disks."""
        for folder in (self.case.dir / "store" / "backups").iterdir():
            shutil.rmtree(folder)

    def close(self):
        self.case.close()


def step_s(result, *names):
    return sum(s["ms"] for s in result["steps"] if s["name"] in names) / 1000


class Restic:
    def __init__(self, folder):
        assert shutil.which("restic"), "restic is not here: deploy/packages bench"
        self.folder, self.repo, self.rounds = folder, None, 0
        self.env = {"PATH": os.environ["PATH"], "HOME": str(folder), "RESTIC_PASSWORD": "bench", "RESTIC_CACHE_DIR": str(folder / "cache")}

    def fresh(self):
        self.drop()
        self.rounds += 1
        self.repo = self.folder / f"restic-{self.rounds}"
        self.run("init")

    def run(self, *words):
        return timed("restic", "-q", "-r", self.repo, *words, env=self.env)

    def drop(self):
        for path in (self.repo, self.folder / "cache"):
            if path:
                shutil.rmtree(path, ignore_errors=True)


def median(values):
    return statistics.median(values)


def table(head, rows):
    widths = [max(len(str(r[i])) for r in [head, *rows]) for i in range(len(head))]
    for row in [head, ["-" * w for w in widths], *rows]:
        print("| " + " | ".join(str(c).ljust(w) for c, w in zip(row, widths)) + " |")
