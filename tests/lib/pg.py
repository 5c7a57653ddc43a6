"""A private PostgreSQL cluster: own folder, unix socket (TCP with a password on demand), no fsync, ended by pid.

PostgreSQL refuses to run as root: then it runs as user postgres, and its folder belongs to that user.
initdb and the filling run once a test process; every cluster starts from a copy of that folder.
"""
import atexit
import contextlib
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from mortal import mortal

ROOT = os.geteuid() == 0
PASSWORD = "gold & sons/42%"  # of every role, asked for over TCP only
HBA = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
CONF = """
listen_addresses = ''
fsync = off
full_page_writes = off
synchronous_commit = off
shared_buffers = 64MB
max_connections = 60
max_wal_size = 2GB
checkpoint_timeout = 1h
autovacuum = off
logging_collector = off
log_line_prefix = '%m [%p] %q%u@%d '
dynamic_shared_memory_type = mmap
"""
_templates = {}
_making = threading.RLock()  # cases may run beside each other
_temporary = []


def bin_dir(major=None):
    """Folder of the newest server installed, or of the given major version."""
    found = [p for p in pathlib.Path("/usr/lib/postgresql").glob("*/bin") if (p / "postgres").exists()]
    found = [p for p in found if major is None or p.parent.name == str(major)]
    assert found, "no PostgreSQL server in /usr/lib/postgresql"
    return max(found, key=lambda p: int(p.parent.name))


def as_server(*command):
    """The command as the user a server may run as."""
    words = [str(w) for w in command]
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--", *words] if ROOT else words


def mortal_server(*command):
    return ["setpriv", "--pdeathsig", "KILL", *as_server(*command)[1:]] if ROOT else mortal(*command)


def _folder(prefix):
    folder = pathlib.Path(tempfile.mkdtemp(prefix=prefix))
    if ROOT:
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
    folder.chmod(0o755)
    return folder


@atexit.register
def _clean():
    for folder in _temporary:
        shutil.rmtree(folder, ignore_errors=True)


def template(fill=None, major=None):
    """A stopped data folder, filled by fill(cluster); made once a process."""
    with _making:
        return _template(fill, major)


def _template(fill, major):
    key = (fill, major)
    if key not in _templates:
        folder = _folder("dr-pgt-")
        _temporary.append(folder)
        if fill:
            shutil.rmtree(folder)
            subprocess.run(["cp", "-a", template(None, major), folder], check=True)
            cluster = Cluster(None, major, folder=folder)
            try:
                fill(cluster)
            finally:
                cluster.stop()
        else:
            subprocess.run(as_server(bin_dir(major) / "initdb", "-D", folder / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8",
                                     "--locale=C.UTF-8", "--no-sync", "--wal-segsize=1"),
                           check=True, stdout=subprocess.DEVNULL, cwd="/")
            with open(folder / "data/postgresql.conf", "a", encoding="utf-8") as conf:
                conf.write(CONF)
            (folder / "data/pg_hba.conf").write_text(HBA)
        _templates[key] = folder
    return _templates[key]


class Cluster:
    """A running server. fill: what its template holds (shop.small), called once with a Cluster."""

    def __init__(self, fill=None, major=None, tcp=False, folder=None, **settings):
        self.bin = bin_dir(major)
        self.own = folder is None
        self.dir = folder or _folder("dr-pg-")
        if self.own:
            self.dir.rmdir()
            subprocess.run(["cp", "-a", "--reflink=auto", template(fill, major), self.dir], check=True)
        self.data = self.dir / "data"
        self.settings = settings
        self.port = self._free_port() if tcp else 5432
        if tcp:
            self.settings["listen_addresses"] = "127.0.0.1"
        self.process = None
        self.start()
        if tcp:
            for role in self.sql("SELECT rolname FROM pg_roles WHERE rolcanlogin").split():
                self.sql(f"SET password_encryption = 'scram-sha-256'; ALTER ROLE \"{role}\" PASSWORD '{PASSWORD}'")

    @staticmethod
    def _free_port():
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            return s.getsockname()[1]

    def start(self, **settings):
        self.settings.update(settings)
        words = [self.bin / "postgres", "-D", self.data, "-k", self.dir, "-p", self.port]
        for name, value in self.settings.items():
            words += ["-c", f"{name}={value}"]
        with open(self.dir / "server.log", "ab") as log:
            self.process = subprocess.Popen(mortal_server(*words), stdout=log, stderr=log, cwd="/")
        end = time.monotonic() + 30
        while "ready" not in self._status():
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError("PostgreSQL did not start:\n" + (self.dir / "server.log").read_text()[-2000:])
            time.sleep(0.01)

    def _status(self):
        """Last field of postmaster.pid says when connections are accepted; cheaper than asking."""
        with contextlib.suppress(OSError, IndexError):
            return (self.data / "postmaster.pid").read_text().splitlines()[7]
        return ""

    def stop(self, sig=signal.SIGINT):
        """SIGINT: fast shutdown; SIGQUIT: as after a crash, SIGKILL too (children notice and end)."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(sig)
            self.process.wait(30)
        if sig == signal.SIGKILL:
            with contextlib.suppress(OSError):
                (self.data / "postmaster.pid").unlink()

    def close(self):
        self.stop(signal.SIGQUIT)
        if self.own:
            shutil.rmtree(self.dir, ignore_errors=True)

    def url(self, dbname="shop", user="gold"):
        """DATABASE_URL of a database; over TCP with the percent-encoded password."""
        if "listen_addresses" in self.settings:
            quoted = "".join(c if c.isalnum() else f"%{ord(c):02X}" for c in PASSWORD)
            return f"postgresql://{user}:{quoted}@127.0.0.1:{self.port}/{dbname}"
        return f"postgresql://{user}@/{dbname}?host={self.dir}"

    def command(self, tool, *words, dbname="shop", user="postgres"):
        """argv of a client tool connected by the socket."""
        return [str(self.bin / tool), "-h", str(self.dir), "-p", str(self.port), "-U", user, "-d", dbname, *map(str, words)]

    def sql(self, text, dbname="postgres", user="postgres", check=True):
        """Runs SQL in one go (stops at the first error); rows as lines, fields parted by |."""
        done = subprocess.run(self.command("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", dbname=dbname, user=user), input=text,
                              text=True, capture_output=True, env={"PATH": os.environ["PATH"], "PGTZ": "UTC"})
        if check and done.returncode != 0:
            raise AssertionError(done.stderr.strip())
        return done.stdout.rstrip("\n") if done.returncode == 0 else done.stderr

    def databases(self):
        return self.sql("SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1").split()

    def session(self, dbname="shop", user="gold_app"):
        """A client that stays connected: a psql process that waits on its standard input."""
        p = subprocess.Popen(self.command("psql", "-XAtq", dbname=dbname, user=user), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, bufsize=1, env={"PATH": os.environ["PATH"]})
        p.stdin.write("SELECT 'here';\n")
        assert p.stdout.readline() == "here\n"
        return p
