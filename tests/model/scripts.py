"""The real scripts on a private redis-server, with Redis' clock replaced by a key, so that time is
simulated and a seed replays."""
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import redis

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from mortal import mortal  # noqa: E402

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "worker/queue/scripts"
CLOCK = "{dr}:test-clock"  # microseconds
SHARED = {"start": ["ev", "deliv"], "finish": ["deliv", "ev", "stat", "rt"]}  # keys beside the lane's


def with_clock(text):
    """The script's text, asking the key instead of TIME."""
    lua = ("local function test_time() local us = tonumber(redis.call('GET', '" + CLOCK + "')); "
           "return {math.floor(us / 1000000), us % 1000000} end\n")
    head, body = text.split("\n", 1)
    assert head.startswith("#!lua"), "a script declares its flags"
    return head + "\n" + lua + body.replace("redis.call('TIME')", "test_time()").replace("call('TIME')", "test_time()")


class Scripts:
    def __init__(self, mutate=None):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="dr-model-"))
        sock = self.dir / "s"
        self.process = subprocess.Popen(mortal("redis-server", "--port", "0", "--unixsocket", sock, "--dir", self.dir,
                                               "--save", "", "--logfile", self.dir / "log"))
        self.r = redis.Redis(unix_socket_path=str(sock))
        while True:
            try:
                self.r.ping()
                break
            except redis.RedisError:
                time.sleep(0.01)
        self.sha = {}
        self.load(mutate)

    def load(self, mutate=None):
        for path in FOLDER.glob("*.lua"):
            text = path.read_text()
            if mutate and mutate[0] == path.stem:
                assert text.count(mutate[1]) >= 1, mutate
                text = text.replace(mutate[1], mutate[2])
            self.sha[path.stem] = self.r.script_load(with_clock(text))

    def fresh(self):
        self.r.flushdb()
        self.us = 1_700_000_000_000_000
        self.r.set(CLOCK, self.us)

    def advance(self, ms):
        self.us += ms * 1000
        self.r.set(CLOCK, self.us)

    @property
    def ms(self):
        return self.us // 1000

    def run(self, name, keys, args):
        reply = self.r.evalsha(self.sha[name], len(keys), *["{dr}:" + k for k in keys], *args)
        return self.readable(reply)

    def shared(self, name, lane, wid, parts):
        """start or finish of several jobs: parts are (jid, arguments); the answers in their order."""
        keys = ["run", f"lease:{lane}", f"own:{wid}", *SHARED[name]]
        args = [lane, wid] if name == "start" else [lane]
        for jid, own in parts:
            keys += [f"job:{jid}", f"ev:{jid}"]
            args += own
        reply = self.r.evalsha(self.sha[name], len(keys), *["{dr}:" + k for k in keys], *args)
        assert len(reply) == len(parts)
        return [self.readable(x) for x in reply]

    @staticmethod
    def readable(reply):
        return [x.decode() if isinstance(x, bytes) and i == 0 else x for i, x in enumerate(reply)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)
