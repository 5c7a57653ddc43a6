#!/usr/bin/env python3
"""test-recovery at level exercise with real servers: a recovery's own steps, swap and all, on a target that is not production.

The rule behind all cases: production is not touched, whatever happens (rows, properties, OIDs, contents, inodes), and
the target is either what it was or what was proven.
"""
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import shop  # noqa: E402
import trees  # noqa: E402
from dr import needs_root, run, stopped, wait  # noqa: E402
from exposition import scrape  # noqa: E402
from monitored import listening  # noqa: E402
from recoveries import journals  # noqa: E402
from test_drill import evidence, records, series, staging  # noqa: E402

LANES = "backup:1,test-recovery:1,execute:1,health:1"
DB, FILES = "database_recovery", "file_system_recovery"
STEPS = ["select", "prove", "preflight", "restore", "verify", "properties", "emergency", "quiesce", "swap", "start", "check", "close"]


def ready(c, database=True, files=True, worker=True, **env):
    """Backups and targets; then live moves on, so that an exercise that looked at it would fail."""
    c.stage = c.dir / "stage"
    c.stage.mkdir()
    folder = c.dir / "control"
    folder.write_text(f"#!/bin/sh\necho called >> {c.dir}/calls\n")
    folder.chmod(0o755)
    c.store(database=database, files=files, DR_LANES=LANES, DR_EXERCISE_DATABASE="stage", DR_EXERCISE_DIRECTORY=c.stage,
            DR_SERVICES="web", DR_SERVICE_COMMAND=folder, **env)
    w = c.worker()
    c.ids, c.good = {}, {}
    if database:
        c.ids[DB], c.good[DB] = c.backup(), target(c, DB, "shop")
        c.pg.sql("DELETE FROM order_items WHERE order_id % 2 = 0; DROP TABLE prices", "shop")
    if files:
        c.ids[FILES], c.good[FILES] = c.backup("files"), target(c, FILES)
        (c.files / "zero").write_text("overwritten")
    c.before = live(c)
    if not worker:
        c.kill(w, signal.SIGTERM)
    return w


def target(c, which, name=None):
    """What the target of an exercise holds; of production with its name."""
    if which == DB:
        name = name or "stage"
        return (shop.fingerprint(c.pg, name), shop.properties(c.pg, name)) if name in c.pg.databases() else None
    return trees.entries(c.files)


def live(c):
    """Rows, properties and OID of the database; contents, metadata and inodes of the tree."""
    out = []
    if "DATABASE_URL" in c.settings:
        out += [shop.fingerprint(c.pg), shop.properties(c.pg), c.pg.sql("SELECT oid FROM pg_database WHERE datname = 'shop'")]
    if hasattr(c, "files"):
        out += [trees.entries(c.files), sorted((str(p), p.lstat().st_ino) for p in c.files.rglob("*"))]
    return out


def mirrored(c):
    return c.stage / str(c.files).lstrip("/")


def tree(c):
    return trees.entries(mirrored(c))


def exercise(c, jid, outcome="done", seconds=60, **args):
    return c.order("test-recovery", jid, outcome, seconds=seconds, level="exercise", **args)


def production_untouched(c):
    assert live(c) == c.before, "production was touched"
    assert not (c.dir / "calls").exists(), "a service was touched"
    assert staging(c) == [], staging(c)


def databases(c):
    """Of the target: without it and its run's names."""
    names = c.pg.databases()
    assert not any(n.startswith("shop__") for n in names), names
    return [n for n in names if n not in ("postgres", "shop")]


def ours(c):
    """Folders of runs in the target tree."""
    root = mirrored(c)
    return sorted(p.name for p in root.glob(".dr-*") if p.name != ".dr-lock") if root.exists() else []


def all_closed(c):
    return all(j[-1]["type"] in ("run-closed", "leftover-gone", "leftover-drop") for j in journals(c))


# ---- what a good exercise proves ----

def case_a_good_exercise_of_both_with_its_evidence(c):
    ready(c)
    r = exercise(c, "x")
    production_untouched(c)
    assert target(c, DB) == c.good[DB] and databases(c) == ["stage"]
    assert tree(c) == c.good[FILES]
    assert [s["procedure_id"] for s in r["skipped"]] == ["full_system_recovery"]
    outcomes = {s["name"]: s["outcome"] for s in r["steps"]}
    assert outcomes["database.emergency"] == outcomes["file_system.emergency"] == "skipped (the target is not production)"
    assert outcomes["database.quiesce"] == "done (services: not touched)", outcomes
    for name, part in r["procedures"].items():
        e = evidence(c, part)
        assert part["ok"] and part["level"] == e["level"] == "exercise" and part["backup_id"] == c.ids[name]
        assert [p["name"] for p in e["phases"]] == [s for s in STEPS if name == DB or s != "properties"], e["phases"]
        timed = [p["ms"] for p in e["phases"] if p["name"] not in ("start", "check", "close")]
        assert sum(timed) == part["rto_ms"] and e["rto"]["not_measured"] == "emergency backup, stop and start of services"
        assert e["outcome"] == "done" and e["downtime_ms"] is not None and e["downtime_ms"] <= part["rto_ms"] and not e["interrupted"]
        assert e["findings"] == [] and e["error"] is None and e["backup"]["chosen_by"] == "latest"
        assert e["target"] == ("stage" if name == DB else str(c.stage))
        assert "emergency" not in str(c.backups())
    assert [(x["level"], x["procedure_id"], x["ok"], x["evidence"]) for x in series(c)] == [("exercise", FILES, True, "there"), ("exercise", DB, True, "there")]
    assert "exercise" in c.drworker("drills")
    assert [x["data"]["level"] for x in records(c, "drilled")] == ["exercise"] * 2 and not records(c, "restored")
    assert all_closed(c)


def case_what_stood_there_before(c):
    """An empty target is made; what an exercise made is dropped; what somebody else made is kept for a while."""
    ready(c)
    exercise(c, "a")
    r = exercise(c, "b")
    assert databases(c) == ["stage"] and target(c, DB) == c.good[DB], "the first one's is gone"
    assert r["procedures"][DB]["evidence"]["kept_old"] == []
    c.pg.sql("DROP DATABASE stage")
    c.pg.sql("CREATE DATABASE stage OWNER gold")
    c.pg.sql("CREATE TABLE theirs AS SELECT 7 AS n", "stage")
    (mirrored(c) / "theirs").write_text("by hand")
    r = exercise(c, "c")
    kept, = r["procedures"][DB]["evidence"]["kept_old"]
    assert databases(c) == ["stage", kept["what"]] and kept["what"].startswith("stage__before_") and kept["until"]
    c.pg.sql(f'ALTER DATABASE "{kept["what"]}" ALLOW_CONNECTIONS true')
    assert c.pg.sql("SELECT n FROM theirs", kept["what"]) == "7"
    kept, = r["procedures"][FILES]["evidence"]["kept_old"]
    assert (pathlib.Path(kept["what"]) / "theirs").read_text() == "by hand" and kept["until"]
    assert target(c, DB) == c.good[DB] and tree(c) == c.good[FILES]
    production_untouched(c)
    assert kept["what"] in c.drworker("leftovers")


def case_what_is_kept_goes_with_its_time(c):
    """log-cleanup drops what exercises left, and nothing of production or of the target itself."""
    ready(c)
    c.pg.sql("CREATE DATABASE stage OWNER gold")
    mirrored(c).mkdir(parents=True)
    (mirrored(c) / "theirs").write_text("by hand")
    w = c.worker()
    exercise(c, "x")
    left = [n for n in databases(c) if "__before_" in n] + [str(mirrored(c) / n / "before") for n in ours(c)]
    assert len(left) == 2, left
    c.kill(w, signal.SIGTERM)
    for hours, gone in ((71, []), (73, left)):
        w = c.worker(DR_LANES="log-cleanup:1", DR_FAULT="", DR_FAULT_CLOCK_MS=hours * 3600_000)
        r = c.order("log-cleanup", f"c{hours}")
        c.kill(w, signal.SIGTERM)
        assert sorted(d["what"] for d in r["dropped"]) == sorted(gone), r
    assert databases(c) == ["stage"] and ours(c) == []
    assert (target(c, DB), tree(c)) == (c.good[DB], c.good[FILES])
    production_untouched(c)


def case_its_time_is_not_mixed_with_that_of_drills(c):
    w = ready(c, database=False)
    c.kill(w, signal.SIGTERM)
    w = c.worker(DR_HTTP_LISTEN="127.0.0.1:0")
    where = wait(lambda: listening(w))
    c.order("test-recovery", "d")
    exercise(c, "x")
    c.order("health", "h")
    drilled = next(x for x in series(c) if x["level"] == "drill")
    m = scrape(where)
    assert m("drworker_drill_rto_seconds", procedure=FILES) == drilled["rto_ms"] / 1000
    assert m("drworker_drill_ok", procedure=FILES) == 1


def case_the_latest_whatever_the_rotation(c):
    ready(c, database=False)
    c.order("test-recovery", "d")  # then it would be the other one's turn
    c.ids[FILES] = c.backup("files")
    chosen = [c.order("test-recovery", f"r{i}", level=level)["procedures"][FILES]["backup_id"] for i, level in enumerate(("exercise", "exercise", "drill"))]
    assert chosen[:2] == [c.ids[FILES]] * 2 and chosen[2] != c.ids[FILES], "an exercise takes no turn of the drills"


def case_sessions_of_the_target_end_and_those_of_production_do_not(c):
    ready(c, files=False)
    exercise(c, "a")
    there, here = c.pg.session("stage"), c.pg.session("shop")
    exercise(c, "b")
    here.stdin.write("SELECT 'still';\n")
    assert here.stdout.readline() == "still\n"
    here.stdin.close()
    assert there.poll() is not None or "terminat" in there.communicate("SELECT 1;\n", timeout=10)[0]
    production_untouched(c)


# ---- what is refused ----

def case_without_a_target_it_is_refused(c):
    ready(c, worker=False)
    w = c.worker(DR_EXERCISE_DATABASE="", DR_EXERCISE_DIRECTORY="")
    r = exercise(c, "none", "refused")
    assert r["error"]["kind"] == "refused" and "DR_EXERCISE_DATABASE" in r["error"]["message"] and "DR_EXERCISE_DIRECTORY" in r["error"]["message"], r
    assert [x["why"] for x in r["skipped"][:2]] == ["not configured: DR_EXERCISE_DATABASE is not set", "not configured: DR_EXERCISE_DIRECTORY is not set"]
    c.kill(w, signal.SIGTERM)
    c.worker(DR_EXERCISE_DATABASE="")
    assert exercise(c, "one", "refused", procedure_id=DB)["error"]["kind"] == "refused"
    r = exercise(c, "files")
    assert set(r["procedures"]) == {FILES} and r["skipped"][0] == {"procedure_id": DB, "why": "not configured: DR_EXERCISE_DATABASE is not set"}
    production_untouched(c)
    assert databases(c) == []


def case_targets_that_are_production_stop_the_worker(c):
    ready(c, worker=False)
    (c.dir / "in").symlink_to(c.files)
    work = c.dir / "work"
    work.mkdir()
    for name, value in [("DATABASE", "shop"), ("DATABASE", "postgres"), ("DATABASE", "template1"), ("DATABASE", "shop__before_abc"),
                        ("DATABASE", os.fsdecode(b"st\xe4ge")), ("DIRECTORY", os.fsdecode(b"/st\xe4ge")),
                        ("DIRECTORY", c.files), ("DIRECTORY", c.files / "photos"), ("DIRECTORY", c.dir), ("DIRECTORY", c.dir / "in/new"),
                        ("DIRECTORY", c.dir / "store"), ("DIRECTORY", c.dir / "store/x"), ("DIRECTORY", work / "x"), ("DIRECTORY", "/")]:
        env = {"DR_EXERCISE_" + name: value, "DR_WORK_DIRECTORY": work}
        said = c.drworker("run", code=2, **env)
        assert f"DR_EXERCISE_{name}" in said and str(value).replace("\udce4", "?") in said, said
        assert f"DR_EXERCISE_{name}" in c.drworker("check", code=2, merged=True, **env)
    production_untouched(c)


def case_a_target_that_leads_into_production_is_refused(c):
    ready(c)
    mirrored(c).parent.mkdir(parents=True)
    mirrored(c).symlink_to(c.files)
    r = exercise(c, "link", "refused", procedure_id=FILES)
    assert str(mirrored(c)) in r["error"]["message"] and r["procedures"][FILES]["evidence"]["error"]["step"] == "preflight", r
    mirrored(c).unlink()
    c.pg.sql("CREATE DATABASE stage OWNER gold IS_TEMPLATE true")
    r = exercise(c, "template", "refused", procedure_id=DB)
    assert "template" in r["error"]["message"], r
    production_untouched(c)
    assert databases(c) == [] and all_closed(c)


@needs_root
def case_a_target_that_is_mounted_from_production_is_refused(c):
    ready(c, database=False)
    for n, at in enumerate((mirrored(c), mirrored(c).parent)):
        at.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--bind", c.files if at == mirrored(c) else c.files.parent, at], check=True)
        try:
            r = exercise(c, f"bind{n}", "refused")
            assert "mount point" in r["error"]["message"], r
        finally:
            subprocess.run(["umount", "-l", at], check=True)
    production_untouched(c)


# ---- a step that fails ----

def case_a_check_that_fails_swaps_back(c):
    ready(c, worker=False)
    w = c.worker()
    exercise(c, "first")
    c.pg.sql("CREATE TABLE theirs AS SELECT 7 AS n", "stage")
    (mirrored(c) / "theirs").write_text("by hand")
    was = target(c, DB), tree(c)
    c.kill(w, signal.SIGTERM)
    c.worker(DR_FAULT="exercise.database.check:fail,exercise.file_system.check:fail")
    r = exercise(c, "x", "rolled_back")
    assert (target(c, DB), tree(c)) == was, "the target is what it was"
    for part in r["procedures"].values():
        e = evidence(c, part)
        assert not part["ok"] and part["rto_ms"] is None and e["outcome"] == "rolled_back" and e["error"]["step"] == "check", e
        assert "in between" in e["kept_old"][0]["note"] and e["kept_old"][0]["until"]
    assert [(x["level"], x["ok"]) for x in series(c)[:2]] == [("exercise", False)] * 2
    assert not any("kind" in x["data"] for x in records(c, "drilled")), "no fault of the backups, which were proven"
    production_untouched(c)
    assert all_closed(c)
    r = exercise(c, "y")
    assert (target(c, DB), tree(c)) == (c.good[DB], c.good[FILES])
    production_untouched(c)


def case_a_step_that_fails_before_the_swap(c):
    ready(c, worker=False)
    for n, step in enumerate(("preflight", "verify", "quiesce", "swap")):
        w = c.worker(DR_FAULT=f"exercise.database.{step}:fail,exercise.file_system.{step}:fail")
        r = exercise(c, f"x{n}", "failed")
        assert all(p["evidence"]["outcome"] == "failed" and p["evidence"]["kept_old"] == [] for p in r["procedures"].values()), r
        assert ours(c) == [] and databases(c) in ([], ["stage"]), (ours(c), databases(c))
        production_untouched(c)
        assert all_closed(c)
        c.kill(w, signal.SIGTERM)
    assert shop.fingerprint(c.pg, "stage") == {"large objects": (0, hashlib.md5(b"").hexdigest())}, "empty, as it was made"


# ---- faults ----

def kill_at(c, points, database):
    """Killed there, followed by another worker. points: (fault, how it ends)."""
    which = DB if database else FILES
    ready(c, worker=False, database=database, files=not database)
    for n, (point, outcome) in enumerate(points):
        was = (target(c, DB) if database else tree(c)) if n else None
        w = c.worker(DR_FAULT=f"{point}:kill")
        c.push("test-recovery", {"id": f"k{n}", "t": "test-recovery", "a": {"level": "exercise"}})
        w.wait(30)
        other = c.worker()
        c.until(f"k{n}", "done", "failed", seconds=60)
        r = c.result(f"k{n}", outcome)
        part = r["procedures"][which]
        assert part["ok"] == (outcome == "done"), (point, part)
        if outcome == "done":
            assert (target(c, DB) if database else tree(c)) == c.good[which], point
            e = evidence(c, part)
            assert part["rto_ms"] > 0 and e["compared"]["tables" if database else "files"] > 0 and e["backup"]["backup_id"] == c.ids[which]
        elif n:
            assert (target(c, DB) if database else tree(c)) == was, point
        production_untouched(c)
        assert not database or not any("__dr_" in x for x in databases(c)), (point, databases(c))
        assert all_closed(c), point
        assert len([x for x in series(c) if x["run"] == journal_of(c, f"k{n}")]) == 1, "one record, however often it was delivered"
        c.kill(other, signal.SIGTERM)


def journal_of(c, jid):
    runs = {f.stem for f in (c.dir / "store/journal").glob("*.log") if json.loads(f.read_text().splitlines()[0])["data"]["job"] == jid}
    assert len(runs) == 1, runs
    return runs.pop()


def case_killed_around_the_swap_of_databases(c):
    kill_at(c, [("exercise.database.verify", "done"), ("execute.quiesce.shut", "failed"), ("execute.swap.commit", "failed"),
                ("execute.swap.reply", "done"), ("exercise.database.check", "done"), ("exercise.dropped", "done"),
                ("test-recovery.evidence", "done")], database=True)


def case_killed_around_the_swap_of_trees(c):
    kill_at(c, [("exercise.file_system.verify", "done"), ("execute.swap.planned", "failed"), ("files.swap.rename:2", "failed"),
                ("execute.swap.renamed", "done"), ("exercise.file_system.check", "done"), ("test-recovery.evidence", "done")], database=False)


def case_killed_in_the_second_procedure(c):
    """The first one was at its end: it is not swapped again, and its evidence is told once."""
    ready(c, worker=False)
    w = c.worker(DR_FAULT="exercise.file_system.check:kill")
    c.push("test-recovery", {"id": "x", "t": "test-recovery", "a": {"level": "exercise"}})
    w.wait(30)
    oid = c.pg.sql("SELECT oid FROM pg_database WHERE datname = 'stage'")
    first, = series(c)
    c.worker()
    c.until("x", "done", "failed", seconds=60)
    r = c.result("x", "done")
    assert c.pg.sql("SELECT oid FROM pg_database WHERE datname = 'stage'") == oid
    assert r["procedures"][DB]["evidence"]["sha256"] == first["sha256"] and r["procedures"][DB]["rto_ms"] > 0
    assert [x["procedure_id"] for x in series(c)] == [FILES, DB] and all(x["evidence"] == "there" for x in series(c))
    assert (target(c, DB), tree(c)) == (c.good[DB], c.good[FILES])
    production_untouched(c)
    assert all_closed(c)


def case_killed_and_nobody_repeats_it(c):
    """The message is gone; whoever looks at open journals brings the target to one side or the other."""
    ready(c, worker=False)
    w = c.worker()
    exercise(c, "first")
    c.kill(w, signal.SIGTERM)
    (mirrored(c) / "theirs").write_text("by hand")
    for n, (point, new) in enumerate((("database.verify", True), ("file_system.verify", False), ("file_system.check", True))):
        w = c.worker(DR_FAULT=f"exercise.{point}:kill")
        c.push("test-recovery", {"id": f"k{n}", "t": "test-recovery", "a": {"level": "exercise"}})
        w.wait(30)
        c.r.flushall()
        other = c.worker(DR_LANES="test-recovery:1")
        wait(lambda: not any("__dr_" in x for x in databases(c)) and all_settled(c), 40)
        c.kill(other, signal.SIGTERM)
        production_untouched(c)
        assert target(c, DB) == c.good[DB]
        assert (mirrored(c) / "theirs").exists() == (point != "file_system.check"), point


def all_settled(c):
    """No run is open past quiesce, and none has anything beside its target."""
    return all(j[-1]["type"] in ("run-closed", "step-undone") for j in journals(c))


def case_killed_and_the_next_worker_has_another_target(c):
    """A run ends on the target that it began with."""
    ready(c, worker=False)
    other = c.dir / "other"
    other.mkdir()
    for n, point in enumerate(("database.verify", "database.check", "file_system.check")):
        w = c.worker(DR_FAULT=f"exercise.{point}:kill")
        c.push("test-recovery", {"id": f"k{n}", "t": "test-recovery", "a": {"level": "exercise", "procedure_id": DB if n < 2 else FILES}})
        w.wait(30)
        w = c.worker(DR_EXERCISE_DATABASE="another", DR_EXERCISE_DIRECTORY=other)
        c.until(f"k{n}", "done", "failed", seconds=60)
        part, = c.result(f"k{n}", "done")["procedures"].values()
        assert part["evidence"]["target"] == ("stage" if n < 2 else str(c.stage))
        assert databases(c) == ["stage"] and target(c, DB) == c.good[DB] and list(other.iterdir()) == []
        c.kill(w, signal.SIGTERM)
    assert tree(c) == c.good[FILES]
    production_untouched(c)
    assert all_closed(c)


def case_a_recovery_does_not_wait_for_an_exercise(c):
    w = ready(c, files=False, DR_CONCURRENCY="4")
    c.kill(w, signal.SIGTERM)
    w = c.worker(DR_LANES="test-recovery:1", DR_FAULT="exercise.database.swap:stop")
    c.push("test-recovery", {"id": "x", "t": "test-recovery", "a": {"level": "exercise"}})
    stopped(w)
    other = c.worker(DR_LANES="execute:1", DR_SERVICE_COMMAND="")
    c.order("execute", "real", procedure_id=DB)
    assert shop.fingerprint(c.pg) == c.good[DB][0]
    c.kill(other, signal.SIGTERM)
    w.send_signal(signal.SIGCONT)
    c.until("x", "done", "failed")
    assert shop.fingerprint(c.pg) == c.good[DB][0] and not any("__dr_" in x for x in c.pg.databases())


def case_cancelled_before_the_swap(c):
    ready(c, worker=False)
    for n, point in enumerate(("database.verify.done", "file_system.verify.done")):
        w = c.worker(DR_FAULT=f"test-recovery.{point}:sleep:3000")
        c.push("test-recovery", {"id": f"c{n}", "t": "test-recovery", "a": {"level": "exercise", "procedure_id": (DB, FILES)[n]}})
        step = point.rsplit(".", 1)[0]
        wait(lambda: c.job(f"c{n}").get("step") == step.encode())
        c.cli("cancel", f"c{n}")
        c.until(f"c{n}", "cancelled")
        assert not any("__" in x for x in databases(c)) and ours(c) == []
        production_untouched(c)
        assert all_closed(c)
        c.kill(w, signal.SIGTERM)


def case_names_stay_out_of_redis(c):
    ready(c, DR_REDIS_DETAIL="false")
    r = exercise(c, "x")
    assert str(c.stage) not in str(r["procedures"]) and "stage" not in str(r["procedures"][DB]["evidence"])
    assert evidence(c, r["procedures"][FILES])["target"] == str(c.stage)


if __name__ == "__main__":
    run(globals(), at_once=3)
