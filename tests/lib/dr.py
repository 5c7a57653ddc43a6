"""Servers and workers for tests: private, in temporary folders, ended by pid. One case a function.

A program calls run(globals()): every function case_* runs with a fresh Case; the last line printed
is `N passed, N failed`.
"""
import contextlib
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

BIN = pathlib.Path(os.environ.get("DR_BIN", "build"))
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


class Case:
    def __init__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="dr-test-"))
        self.processes = []
        self.redis_process = None
        self.workers = 0
        self.start_redis()

    def start_redis(self, *options):
        sock = self.dir / "redis.sock"
        self.redis_process = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", sock, "--dir", self.dir, "--save", "",
             "--appendonly", "yes", "--logfile", self.dir / "redis.log", *options])
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

    def worker(self, wait_up=True, **env):
        self.workers += 1
        before = self.r.zcard("{dr}:wk") if wait_up else 0
        log = open(self.dir / f"worker{self.workers}.log", "wb")
        p = subprocess.Popen([BIN / "drworker"], stderr=log, env={
            "PATH": os.environ["PATH"], "REDIS_URL": self.url, "DR_LEASE_MS": "1000",
            "ASAN_OPTIONS": "detect_stack_use_after_return=0", **env})
        p.log = pathlib.Path(log.name)
        self.processes.append(p)
        if wait_up:
            wait(lambda: self.r.zcard("{dr}:wk") > before)
        return p

    def cli(self, *words, env=None, code=0):
        p = subprocess.run([BIN / "drproducer", *words], capture_output=True, text=True, timeout=60,
                           env={"PATH": os.environ["PATH"], "REDIS_URL": self.url, **(env or {})})
        assert p.returncode == code, (words, p.returncode, p.stdout, p.stderr)
        return p.stdout if code == 0 else p.stderr

    def push(self, lane, body):
        raw = body if isinstance(body, bytes) else msgpack.packb(body)
        self.r.lpush("{dr}:q:" + lane, raw)
        return raw

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
        shutil.rmtree(self.dir, ignore_errors=True)


def run(names):
    passed = failed = 0
    only = sys.argv[1:]
    for name, fn in list(names.items()):
        if not name.startswith("case_") or (only and name[5:] not in only):
            continue
        case = Case()
        began = time.monotonic()
        try:
            fn(case)
            for p in case.processes:
                log = getattr(p, "log", None)
                text = log.read_text(errors="replace") if log else ""
                assert "ERROR: AddressSanitizer" not in text and "runtime error:" not in text, text
            passed += 1
            print(f"ok   {name[5:]} ({time.monotonic() - began:.1f} s)")
        except Exception:
            failed += 1
            print(f"FAIL {name[5:]}")
            traceback.print_exc(file=sys.stdout)
            for log in sorted(case.dir.glob("worker*.log")):
                print(f"--- {log.name}", log.read_text(errors="replace")[-3000:], sep="\n")
        finally:
            case.close()
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)
