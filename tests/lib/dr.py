"""Servers and workers for tests: private, in temporary folders, ended by pid. One case a function.

A program calls run(globals()): every function case_* runs with a fresh Case; the last line printed
is `N passed, N failed`. DR_BIN is the build under test, DR_BIN_FAULTS one with fault points; where that is empty, as
when lines of DR_BIN are counted, cases that need it end when they ask for it.
"""
import concurrent.futures
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

import msgpack
import redis

import pg
import shop
import trees
from mortal import mortal

BIN = pathlib.Path(os.environ.get("DR_BIN", "build"))
BIN_FAULTS = pathlib.Path(os.environ.get("DR_BIN_FAULTS") or BIN)
FAULTS = os.environ.get("DR_BIN_FAULTS") != ""
ROOT = os.geteuid() == 0
PASSPHRASE = "a passphrase of the tests"
SCRIPTS = pathlib.Path(__file__).resolve().parents[2] / "worker/queue/scripts"


def wait(what, seconds=30.0):
    """Polls until what() is true and returns its value."""
    end = time.monotonic() + seconds
    while True:
        value = what()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"did not happen within {seconds} s: {what}")
        time.sleep(0.01)


def stopped(worker):
    """Waits until it has stopped itself, at its fault point."""
    stat = pathlib.Path(f"/proc/{worker.pid}/stat")
    wait(lambda: stat.read_text().rsplit(")", 1)[1].split()[0] == "T")


class Case:
    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="dr-test-"))
        self.processes = []
        self.redis_process = None
        self.pg = None
        self.settings = {}  # what store() adds to the environment of every worker and command
        self.bin = BIN
        self.workers = 0
        self.start_redis()

    def start_redis(self, *options, env=None):
        sock = self.dir / "redis.sock"
        self.redis_process = subprocess.Popen(
            mortal("redis-server", "--port", "0", "--unixsocket", sock, "--dir", self.dir, "--save", "",
                   "--appendonly", "yes", "--logfile", self.dir / "redis.log", *options), env=env)
        self.processes.append(self.redis_process)
        self.url = f"unix://{sock}"
        self.r = redis.Redis(unix_socket_path=str(sock))
        wait(lambda: self.ping())

    def ping(self):
        with contextlib.suppress(redis.RedisError):
            return self.r.ping()

    def kill(self, process, sig=signal.SIGKILL):
        process.send_signal(sig)
        return process.wait(20)

    def worker(self, wait_up=True, program="drworker", **env):
        self.workers += 1
        before = set(self.r.zrange("{dr}:wk", 0, -1)) if wait_up else None  # names: the dead leave the list meanwhile
        log = open(self.dir / f"worker{self.workers}.log", "wb")
        if "DR_FAULT" in env and not FAULTS:
            raise NeedsFaults
        binary = BIN_FAULTS if "DR_FAULT" in env else self.bin
        p = subprocess.Popen(mortal(binary / program), stderr=log, env=self.environment(**{"DR_LEASE_MS": "1000", **env}))
        p.log = pathlib.Path(log.name)
        self.processes.append(p)
        if wait_up:
            wait(lambda: set(self.r.zrange("{dr}:wk", 0, -1)) - before)
        return p

    def environment(self, **env):
        """Of a worker; a value of None takes the variable away. DR_FAULT=... chooses the build with fault points."""
        full = {"PATH": os.environ["PATH"], "REDIS_URL": self.url, "ASAN_OPTIONS": "detect_stack_use_after_return=0:verify_asan_link_order=0",
                "DR_SCHEDULES": "off",  # no test gets a backup that it did not order
                "DR_HTTP_LISTEN": "off", **self.settings, **env}
        return {name: str(value) for name, value in full.items() if value is not None}

    def store(self, database=True, files=(), fill=shop.small, tcp=False, user="gold", **env):
        """A store, a database and roots that every later worker and command of this case protects.

        database: starts self.pg (a Cluster filled by fill) and sets DATABASE_URL (role gold).
        files: True for self.files, a tree of uploads; or a list of existing roots.
        """
        self.settings |= {"BACKUP_DIRECTORY": self.dir / "store", "BACKUP_ENCRYPTION_PASSWORD": PASSPHRASE,
                          "DR_PBKDF2_ROUNDS": "100000", "DR_ALLOW_UNSIGNED": "true"}
        (self.dir / "store").mkdir(exist_ok=True)
        if database:
            self.pg = pg.Cluster(fill, tcp=tcp)
            self.settings["DATABASE_URL"] = self.pg.url("shop", user)
        if files is True:
            self.files = trees.uploads(self.dir / "uploads")
            files = [self.files]
        if files:
            self.settings["BACKUP_FILES_PATHS"] = ":".join(str(f) for f in files)
        self.settings |= env
        return self.dir / "store"

    def drworker(self, *words, code=0, stdin=None, binary=False, merged=False, **env):
        """A command of drworker: standard output, or standard error when the expected code is not 0 (merged: both)."""
        p = subprocess.run([self.bin / "drworker", *map(str, words)], capture_output=True, timeout=120, input=stdin,
                           env=self.environment(**env))
        assert p.returncode == code, (words, p.returncode, p.stdout[-2000:], p.stderr.decode(errors="replace")[-2000:])
        out = p.stdout + p.stderr if merged else p.stdout if code == 0 else p.stderr
        return out if binary else out.decode(errors="replace")

    def cli(self, *words, env=None, code=0):
        p = subprocess.run([self.bin / "drproducer", *words], capture_output=True, text=True, timeout=120,
                           env={"PATH": os.environ["PATH"], "REDIS_URL": self.url, **(env or {})})
        assert p.returncode == code, (words, p.returncode, p.stdout, p.stderr)
        return p.stdout if code == 0 else p.stderr

    def order(self, lane, jid, outcome="done", seconds=60.0, **args):
        """Pushes a bare message, waits for its end, demands that outcome, returns the result map."""
        self.push(lane, {"id": jid, "t": lane, "a": args})
        self.until(jid, "done", "failed", "cancelled", "dead", "expired", seconds=seconds)
        return self.result(jid, outcome)

    def result(self, jid, outcome=None):
        record = self.job(jid)
        res = msgpack.unpackb(record["res"]) if "res" in record else {}
        assert outcome is None or res.get("outcome") == outcome, (jid, record, res)
        return res

    def backup(self, kind="database", jid=None, **args):
        """Takes a backup through the queue; its id."""
        self.taken = getattr(self, "taken", 0) + 1
        return self.order("backup", jid or f"take-{kind}-{self.taken}", kind=kind, **args)["backup_id"]

    def backups(self):
        return json.loads(self.drworker("backups", "--json"))

    def push(self, lane, body):
        raw = body if isinstance(body, bytes) else msgpack.packb(body)
        self.r.lpush("{dr}:q:" + lane, raw)
        return raw

    def push_many(self, lane, bodies):
        self.r.lpush("{dr}:q:" + lane, *map(msgpack.packb, bodies))

    def done(self):
        """Jobs that ended well, of all lanes."""
        return int(self.r.hget("{dr}:stat", "done") or 0)

    def job(self, jid):
        return {k.decode(): v for k, v in self.r.hgetall("{dr}:job:" + jid).items()}

    def state(self, jid):
        return (self.r.hget("{dr}:job:" + jid, "st") or b"").decode()

    def until(self, jid, *states, seconds=30.0):
        wait(lambda: self.state(jid) in states, seconds)
        return self.job(jid)

    def dead(self):
        return [msgpack.unpackb(v) for v in self.r.hgetall("{dr}:deadinfo").values()]

    def at_rest(self):
        names = ["run", "deliv", "delayraw"] + [k.decode()[5:] for k in self.r.keys("{dr}:lease:*")]
        names += [k.decode()[5:] for k in self.r.keys("{dr}:own:*")]
        return not any(self.r.exists("{dr}:" + n) for n in names)

    def close(self):
        for p in self.processes:
            if p.poll() is None:
                p.send_signal(signal.SIGCONT)
                p.kill()
                p.wait()
        if self.pg:
            self.pg.close()
        shutil.rmtree(self.dir, ignore_errors=True)


class NeedsFaults(Exception):
    pass


class Needs(Exception):
    """Raised by a case that misses a part which not every machine has; it is named as not run."""


def needs_root(fn):
    """A case that mounts, gives files away or fills a disk; for ordinary users it is named as not run."""
    fn.needs_root = True
    return fn


def run_one(name, fn):
    """(passed, what to print) of one case; None: it was not run."""
    case = Case()
    began = time.monotonic()
    try:
        fn(case)
        for p in case.processes:
            log = getattr(p, "log", None)
            text = log.read_text(errors="replace") if log else ""
            assert not any(x in text for x in ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "runtime error:")), text
        return True, f"ok   {name} ({time.monotonic() - began:.1f} s)"
    except NeedsFaults:
        return None, f"not run: needs the build with fault points: {name}"
    except Needs as what:
        return None, f"not run: needs {what}: {name}"
    except Exception:
        out = [f"FAIL {name}", traceback.format_exc()]
        for log in sorted(case.dir.glob("worker*.log")):
            out += [f"--- {log.name}", log.read_text(errors="replace")[-3000:]]
        return False, "\n".join(out)
    finally:
        case.close()


def run(names, at_once=1):
    """at_once: cases that wait more than they work may wait beside each other."""
    only, passed, failed, chosen = sys.argv[1:], 0, 0, []
    for name, fn in list(names.items()):
        if not name.startswith("case_") or (only and name[5:] not in only):
            continue
        if getattr(fn, "needs_root", False) and not ROOT:
            print(f"not run: needs root: {name[5:]}")
            continue
        chosen.append((name[5:], fn))
    with concurrent.futures.ThreadPoolExecutor(at_once) as threads:
        for good, text in threads.map(lambda one: run_one(*one), chosen):
            print(text, flush=True)
            passed += good is True
            failed += good is False
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)
