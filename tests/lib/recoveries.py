"""What the tests of recoveries share: their journals, a service command, tools that fail, workers that die or sleep."""
import json
import signal
import time

from dr import stopped, wait


def journals(c):
    return [[json.loads(line) for line in f.read_text().splitlines()] for f in sorted((c.dir / "store/journal").glob("*.log"))]


def closed(c, outcome):
    ends = [j[-1] for j in journals(c)]
    return ends and all(e["type"] == "run-closed" and e["data"]["outcome"] == outcome for e in ends)


def services(c, *names):
    """A service command that keeps its state in files; names are up. broken-/hang-: the next start."""
    folder = c.dir / "services"
    folder.mkdir()
    script = folder / "control"
    script.write_text(f"""#!/bin/sh
cd {folder} || exit 9
echo "$1 $2 $DR_FENCE" >> calls
case $1 in
    status) [ -e up-$2 ] && exit 0; exit 3 ;;
    start) [ -e broken-$2 ] && {{ rm broken-$2; echo "$2 has no luck" >&2; exit 1; }}
           [ -e hang-$2 ] && {{ rm hang-$2; exec sleep 600; }}
           touch up-$2 ;;
    stop) [ -e stays-$2 ] || rm -f up-$2 ;;
esac
""")
    script.chmod(0o755)
    for name in names:
        (folder / ("up-" + name)).touch()
    c.services = folder
    return {"DR_SERVICE_COMMAND": script, "DR_SERVICES": "web,jobs,mail", "DR_SERVICES_DATABASE": "jobs,web", "DR_SERVICE_TIMEOUT_S": "2"}


def up(c):
    return sorted(f.name[3:] for f in c.services.glob("up-*"))


def tools(c, restore):
    """A PG_BIN_DIR whose pg_restore does this where it would restore."""
    folder = c.dir / "bin"
    folder.mkdir()
    for tool in ("pg_dump", "pg_dumpall", "pg_restore"):
        real = c.pg.bin / tool
        act = restore if tool == "pg_restore" else "true"
        (folder / tool).write_text(f'#!/bin/sh\ncase "$*" in *--version*|*--schema-only*) ;; *) {act} ;; esac\nexec {real} "$@"\n')
        (folder / tool).chmod(0o755)
    return folder


def taken_over(c, send, fault, outcome):
    """A worker dies at this point; a peer ends its run, before anybody would wait for a lease any longer. web is up."""
    jid = fault.replace(".", "-").replace(":", "_")
    w = c.worker(DR_FAULT=f"{fault}:kill")
    send(c, jid)
    w.wait(60)
    assert w.returncode == -signal.SIGKILL, fault
    began = time.monotonic()
    peer = c.worker()
    c.until(jid, "done", "failed", seconds=60)
    took = time.monotonic() - began
    c.result(jid, outcome)
    assert up(c) == ["web"], fault
    assert took < 22, (fault, took)
    c.kill(peer, signal.SIGTERM)


def never_twice(c):
    """Nothing was swapped again within a journal, and nothing is left in the queue."""
    for j in journals(c):
        assert sum(r["type"] == "step-done" and r["data"]["step"] == "swap" for r in j) <= 1
    wait(c.at_rest)


def woken(c, send, fault):
    """A worker stops itself at this point and wakes when its message was delivered again; one run comes of it."""
    w = c.worker(DR_FAULT=f"{fault}:stop")
    send(c, "x")
    stopped(w)
    first = c.job("x")["f"]
    c.worker()
    wait(lambda: c.job("x")["f"] != first)  # delivered again: the journal's lock makes it wait
    w.send_signal(signal.SIGCONT)
    c.until("x", "done", "failed", seconds=90)
    c.result("x", "done")
    assert up(c) == ["web"] and closed(c, "done") and len(journals(c)) == 1
    wait(c.at_rest)
    return w
