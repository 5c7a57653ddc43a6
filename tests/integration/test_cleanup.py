#!/usr/bin/env python3
"""log-cleanup with real recoveries behind it: what goes, what stays and why, and a kill at every point.

The rule behind all cases: live is never touched, and nothing goes but what a closed journal names, under its
name, as the very database (OID) or folder (inode) it was, after its time, unused.
Cleanups run in the build with fault points, where DR_FAULT_CLOCK_MS shifts the clock that ages are told by.
"""
import json
import os
import pathlib
import signal
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import test_execute_db as db  # noqa: E402
import test_execute_files as fs  # noqa: E402
from dr import needs_root, run, stopped, wait  # noqa: E402
from recoveries import services  # noqa: E402

HOUR, DAY = 3600_000, 86400_000
LATER = 73 * HOUR


def cleaner(c, hours_ms=LATER, fault="", **env):
    return c.worker(DR_LANES="log-cleanup:1", DR_FAULT=fault, DR_FAULT_CLOCK_MS=hours_ms, **env)


def clean(c, hours_ms=LATER, outcome="done", days=None, **env):
    """One cleanup with the clock so far ahead, by a worker of its own; its result."""
    c.cleanups = getattr(c, "cleanups", 0) + 1
    w = cleaner(c, hours_ms, **env)
    r = c.order("log-cleanup", f"clean-{c.cleanups}", outcome, **({"older_than_days": days} if days else {}))
    c.kill(w, signal.SIGTERM)
    return r


def kept(r, word):
    """The only thing that is kept, and why."""
    item, = r["kept"]
    assert word in item["why"], item
    assert r["dropped"] == [] and r["freed_bytes"] == 0, r
    return item


def left(c, name="__before_"):
    return [n for n in c.pg.databases() if name in n]


def recovered_db(c, **env):
    """A recovered shop with its old database beside it; its name."""
    w = db.ready(c, **env)
    db.execute(c, "x")
    c.kill(w, signal.SIGTERM)
    return left(c)[0]


def recovered_files(c, jid="x"):
    w = fs.ready(c)
    fs.execute(c, jid)
    c.kill(w, signal.SIGTERM)
    fs.recovered(c)
    return c.files / fs.ours(c.files)[0]


def records(c, kind):
    return [r["data"] for j in db.journals(c) for r in j if r["type"] == kind]


# ---- databases ----

def case_an_old_database_stays_for_its_time_and_then_goes(c):
    old = recovered_db(c)
    held, = json.loads(c.drworker("leftovers", "--json"))
    assert held["what"] == old and held["until"] and not held["over"]
    item = kept(clean(c, 71 * HOUR), "its time is not over")
    assert item["what"] == old and item["until"] == held["until"] and left(c) == [old]
    r = clean(c)
    assert [d["what"] for d in r["dropped"]] == [old] and r["kept"] == [], r
    assert r["freed_bytes"] == r["dropped"][0]["bytes"] > 1_000_000
    assert db.now(c) == c.good and c.pg.databases() == ["postgres", "shop"]
    assert [d["what"] for d in records(c, "leftover-drop")] == [d["what"] for d in records(c, "leftover-gone")] == [old]
    assert json.loads(c.drworker("leftovers", "--json")) == [] and "nothing" in c.drworker("leftovers")
    told = [json.loads(line) for line in c.drworker("audit", "show", "--json").splitlines()]
    assert any(t["type"] == "changed" and t["data"]["subject"] == old for t in told), told
    again = clean(c)
    assert again["dropped"] == again["kept"] == []


def case_a_longer_time_set_later_holds_and_a_shorter_one_breaks_no_promise(c):
    recovered_db(c)
    kept(clean(c, RECOVERY_KEEP_OLD_HOURS="100"), "its time is not over")
    kept(clean(c, 71 * HOUR, RECOVERY_KEEP_OLD_HOURS="1"), "its time is not over")
    assert len(clean(c, 101 * HOUR, RECOVERY_KEEP_OLD_HOURS="100")["dropped"]) == 1


def without_emergency(c, kind):
    """A recovery whose backup of live cannot be made."""
    c.kill(kind.ready(c), signal.SIGTERM)
    w = c.worker(DR_FAULT="execute.emergency.intent:stop")
    kind.send(c, "x")
    stopped(w)
    os.rename(c.dir / "store/staging", c.dir / "store/away")
    os.kill(w.pid, signal.SIGCONT)
    c.until("x", "done", "failed", seconds=60)
    os.rename(c.dir / "store/away", c.dir / "store/staging")
    assert c.result("x", "done")["kept_old"][0]["until"] is None
    c.kill(w, signal.SIGTERM)


def case_a_database_that_could_not_be_backed_up_has_no_end(c):
    without_emergency(c, db)
    old = left(c)[0]
    assert kept(clean(c, 1000 * DAY), "without expiry")["until"] is None
    assert "no expiry" in c.drworker("leftovers")
    # An operator drops it: then the journal has nothing left to wait for.
    c.pg.sql(f'DROP DATABASE "{old}"')
    r = clean(c, 1000 * DAY)
    assert r["kept"] == [] and r["journals_removed"] == 1 and db.journals(c) == []


def case_an_old_database_in_use_stays(c):
    old = recovered_db(c)
    c.pg.sql(f'ALTER DATABASE "{old}" ALLOW_CONNECTIONS true')
    p = c.pg.session(old, "gold")
    kept(clean(c), "in use: sessions of gold")
    p.stdin.close()
    p.wait(10)
    c.pg.sql(f'ALTER DATABASE "{old}" IS_TEMPLATE true')
    kept(clean(c), "template")
    c.pg.sql(f'ALTER DATABASE "{old}" IS_TEMPLATE false')
    wait(lambda: c.pg.sql(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{old}'") == "0")
    assert len(clean(c)["dropped"]) == 1
    assert db.now(c) == c.good


def case_an_inactive_slot_on_it_keeps_it(c):
    old = recovered_db(c)
    c.pg.stop()
    c.pg.start(wal_level="logical")
    c.pg.sql(f'ALTER DATABASE "{old}" ALLOW_CONNECTIONS true')
    c.pg.sql("SELECT pg_create_logical_replication_slot('wanted', 'pgoutput')", old)
    kept(clean(c), "replication slots wanted")
    c.pg.sql("SELECT pg_drop_replication_slot('wanted')")
    assert len(clean(c)["dropped"]) == 1


def case_a_name_that_was_used_again_is_not_dropped(c):
    old = recovered_db(c)
    c.pg.sql(f'DROP DATABASE "{old}"')
    c.pg.sql(f'CREATE DATABASE "{old}"')
    kept(clean(c, 1000 * DAY), "another database bears the name")
    assert left(c) == [old] and db.now(c) == c.good


def case_one_that_an_operator_renamed_is_his(c):
    old = recovered_db(c)
    c.pg.sql(f'ALTER DATABASE "{old}" RENAME TO shop_mine')
    kept(clean(c), "renamed it to shop_mine")
    c.pg.sql("ALTER DATABASE shop RENAME TO shop_recovered; ALTER DATABASE shop_mine RENAME TO shop; ALTER DATABASE shop ALLOW_CONNECTIONS true")
    kept(clean(c), "live database shop again")
    # Both names changed places by hand: what bears the old name now is what was recovered.
    c.pg.sql(f'ALTER DATABASE shop_recovered RENAME TO "{old}"')
    kept(clean(c), "another database bears the name")
    assert sorted(c.pg.databases()) == sorted(["postgres", "shop", old])


def case_a_copy_beside_live_goes_after_its_time(c):
    w = db.ready(c)
    db.execute(c, "x", no_swap=True)
    c.kill(w, signal.SIGTERM)
    copy, = left(c, "__dr_")
    kept(clean(c, 71 * HOUR), "its time is not over")
    assert [d["what"] for d in clean(c)["dropped"]] == [copy]
    db.untouched(c)


def case_what_was_live_before_a_roll_back_goes_after_its_time(c):
    w = db.ready(c, **services(c, "web", "jobs"))
    (c.services / "broken-web").touch()
    db.execute(c, "x", "rolled_back")
    c.kill(w, signal.SIGTERM)
    failed, = left(c, "__dr_")
    kept(clean(c, 71 * HOUR), "its time is not over")
    assert [d["what"] for d in clean(c)["dropped"]] == [failed]
    db.untouched(c)


def killed(c, point, what):
    """A cleanup that dies at the point; what its successor finds and reports."""
    w = cleaner(c, fault=f"{point}:kill")
    c.push("log-cleanup", {"id": "killed", "t": "log-cleanup", "a": {}})
    w.wait(30)
    assert [d["what"] for d in records(c, "leftover-drop")] == [what] and records(c, "leftover-gone") == []
    w = cleaner(c)
    c.until("killed", "done", "failed")
    c.kill(w, signal.SIGTERM)
    return c.result("killed", "done")


def case_killed_at_each_point_the_next_one_goes_on(c):
    for n, point in enumerate(["intent", "renamed", "dropped"]):
        if n == 0:
            old = recovered_db(c)
        else:
            w = c.worker()
            db.execute(c, f"x{n}")
            c.kill(w, signal.SIGTERM)
            old = left(c)[0]
        (c.dir / "store/journal").mkdir(exist_ok=True)
        r = killed(c, f"cleanup.database.{point}", old)
        assert [d["what"] for d in r["dropped"]] == ([] if point == "dropped" else [old]), r
        assert r["kept"] == [] and c.pg.databases() == ["postgres", "shop"] and db.now(c) == c.good
        c.r.delete("{dr}:job:killed")
        r = clean(c, 100 * DAY)
        assert r["journals_removed"] == 1 and db.journals(c) == []


def case_who_comes_between_rename_and_drop_keeps_it(c):
    old = recovered_db(c)
    w = cleaner(c, fault="cleanup.database.renamed:stop")
    c.push("log-cleanup", {"id": "between", "t": "log-cleanup", "a": {}})
    stopped(w)
    doomed, = left(c, "__drop_")
    c.pg.sql(f'ALTER DATABASE "{doomed}" ALLOW_CONNECTIONS true')
    p = c.pg.session(doomed, "gold")
    os.kill(w.pid, signal.SIGCONT)
    c.until("between", "done", "failed")
    item = kept(c.result("between", "done"), "in use")
    assert item["what"] == old and doomed in item["why"] and left(c, "__drop_") == [doomed]
    kept(clean(c), f"in use under the name {doomed}: sessions of gold")
    p.stdin.close()
    p.wait(10)
    c.kill(w, signal.SIGTERM)
    wait(lambda: c.pg.sql(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{doomed}'") == "0")
    assert len(clean(c)["dropped"]) == 1
    assert db.now(c) == c.good and c.pg.databases() == ["postgres", "shop"]


def case_a_recovery_in_progress_or_open_holds_everything(c):
    old = recovered_db(c)
    w = c.worker(DR_FAULT="execute.quiesce.done:stop")
    db.send(c, "y")
    stopped(w)
    r = clean(c)
    assert r["dropped"] == [] and old in left(c)
    why = {k["what"]: k["why"] for k in r["kept"]}
    assert "running" in why.pop(old) or "open" in why.pop(old), r
    assert [w for w in why.values() if "works on it" in w], why
    c.kill(w)
    r = clean(c)
    assert {k["what"]: k["why"] for k in r["kept"]}[old].startswith("recovery run"), r
    assert r["dropped"] == [] and old in left(c)
    w = c.worker()
    c.until("y", "done", "failed", seconds=60)
    c.kill(w, signal.SIGTERM)
    assert old in [d["what"] for d in clean(c)["dropped"]]


def case_a_recovery_does_not_wait_for_a_drop(c):
    old = recovered_db(c)
    w = cleaner(c, fault="cleanup.database.renamed:stop")
    c.push("log-cleanup", {"id": "slow", "t": "log-cleanup", "a": {}})
    stopped(w)
    other = c.worker()
    db.execute(c, "y")
    assert db.now(c) == c.good and len(left(c)) == 1
    os.kill(w.pid, signal.SIGCONT)
    wait(lambda: c.pg.databases() == ["postgres", "shop", *left(c)])
    c.kill(w, signal.SIGTERM)
    c.kill(other, signal.SIGTERM)
    assert left(c) != [old] and db.now(c) == c.good


def case_a_server_that_is_down_keeps_and_says_so(c):
    old = recovered_db(c)
    c.pg.stop()
    r = clean(c, outcome="partial")
    assert kept(r, "connect")["what"] == old
    c.pg.start()
    assert len(clean(c)["dropped"]) == 1


def case_another_protected_database_is_no_reason_to_drop(c):
    recovered_db(c)
    c.pg.sql("CREATE DATABASE other")
    kept(clean(c, DATABASE_URL=c.pg.url("other")), "another database than other")


# ---- journals, results, the queue ----

def case_a_journal_stays_as_long_as_what_it_left(c):
    old = recovered_db(c)
    c.pg.sql(f'ALTER DATABASE "{old}" ALLOW_CONNECTIONS true')
    p = c.pg.session(old, "gold")
    r = clean(c, 1000 * DAY)
    assert r["journals_kept"] == 1 and r["journals_removed"] == 0
    p.stdin.close()
    p.wait(10)
    wait(lambda: c.pg.sql(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{old}'") == "0")
    assert clean(c, days=1)["journals_kept"] == 1, "it still answers for its message"
    # The same message again, when Redis has forgotten everything: answered from the journal.
    c.r.flushall()
    w = c.worker()
    db.send(c, "x")
    c.until("x", "done", "failed")
    assert db.now(c) == c.good and left(c) == [] and len(db.journals(c)) == 1
    c.kill(w, signal.SIGTERM)
    assert clean(c, 13 * DAY, days=1)["journals_removed"] == 0, "never before 14 days"
    assert clean(c, 89 * DAY)["journals_removed"] == 0
    assert clean(c, 91 * DAY)["journals_removed"] == 1
    assert list((c.dir / "store/journal").iterdir()) == []


def case_open_and_damaged_journals_stay(c):
    recovered_db(c)
    folder = c.dir / "store/journal"
    log, = folder.glob("*.log")
    lines = log.read_text().splitlines(keepends=True)
    (folder / ("b" * 16 + ".log")).write_text(lines[0])
    (folder / ("c" * 16 + ".log")).write_text(lines[1] + lines[0])
    (folder / ("d" * 16 + ".log")).write_text("")
    (folder / "notes.txt").write_text("not ours")
    r = clean(c, 1000 * DAY, "partial")
    why = {k["what"]: k["why"] for k in r["kept"]}
    assert "not at its end" in why[f"journal/{'b' * 16}.log"] and "follow" in why[f"journal/{'c' * 16}.log"], why
    assert sorted(f.name[:1] for f in folder.iterdir()) == ["b", "c", "n"]


def case_clocks_that_differ_stop_it(c):
    recovered_db(c)
    for skew in 400_000, -400_000:
        c.r.delete("{dr}:job:skewed")
        w = cleaner(c, DR_FAULT_SKEW_MS=skew)
        c.push("log-cleanup", {"id": "skewed", "t": "log-cleanup", "a": {}})
        c.until("skewed", "done", "failed")
        assert "clock" in c.result("skewed", "refused")["error"]["message"]
        c.kill(w, signal.SIGTERM)
    assert len(left(c)) == 1


def case_results_staging_and_dead_letters_go(c):
    c.store(database=False)
    w = cleaner(c, 0)
    folder = c.dir / "store/results"
    folder.mkdir(exist_ok=True)
    for name, age in ("a", 91), ("b", 89), ("c", 10):
        f = folder / (name * 16 + ".msgpack")
        f.write_bytes(b"x" * 5000)
        os.utime(f, times=(f.stat().st_mtime - age * 86400,) * 2)
    for name in (".%s.msgpack.new" % ("e" * 16), "plan-" + "0" * 64, "other", "f" * 16):
        (folder / name).write_text("x")
        os.utime(folder / name, times=(0, 0))
    dead = c.dir / "store/staging" / ("a" * 16 + ".17")
    dead.mkdir()
    (dead / "database.drb").write_bytes(b"x" * 5000)
    now = int(c.r.time()[0]) * 1000
    for i, age in enumerate((91, 89, 0)):
        c.r.zadd("{dr}:dead", {f"t{i}": now - age * DAY})
        c.r.hset("{dr}:deadraw", f"t{i}", "raw")
        c.r.hset("{dr}:deadinfo", f"t{i}", "info")
    r = c.order("log-cleanup", "clean")
    assert (r["results_removed"], r["staging_removed"], r["dead_letters_removed"]) == (2, 1, 1), r
    assert r["freed_bytes"] >= 5000 and not dead.exists()
    assert sorted(f.name[0] for f in folder.iterdir()) == ["b", "c", "f", "o", "p"]
    assert c.r.zrange("{dr}:dead", 0, -1) == [b"t1", b"t2"] and c.r.hlen("{dr}:deadraw") == c.r.hlen("{dr}:deadinfo") == 2
    r = c.order("log-cleanup", "sooner", older_than_days=1)
    assert r["results_removed"] == 1 and r["older_than_days"] == 14, "a record lives for 14 days"
    assert sorted(f.name[0] for f in folder.iterdir()) == ["c", "f", "o", "p"]
    c.kill(w, signal.SIGTERM)


def account(c, *words):
    """What drproducer says of the job's end beside the JSON lines."""
    p = subprocess.run([c.bin / "drproducer", *words], capture_output=True, text=True, timeout=60,
                       env={"PATH": os.environ["PATH"], "REDIS_URL": c.url})
    assert p.returncode == 0, p
    return p.stderr


def case_an_operator_sees_what_went_and_what_stays(c):
    old = recovered_db(c)
    w = cleaner(c, 0)
    out = account(c, "log-cleanup", "--older-than", "30", "--wait")
    assert f"kept: {old}, until " in out and "its time is not over" in out, out
    c.kill(w, signal.SIGTERM)
    w = cleaner(c)
    out = account(c, "log-cleanup", "--wait")
    assert f"dropped: {old}, " in out and "MB" in out, out
    c.kill(w, signal.SIGTERM)
    # Destructive: without a key file only where unsigned orders are allowed.
    cleaner(c, DR_ALLOW_UNSIGNED="false")
    c.push("log-cleanup", {"id": "bare", "t": "log-cleanup", "a": {}})
    assert wait(c.dead)[0]["reason"] == "auth"


# ---- trees ----

def case_an_old_tree_stays_for_its_time_and_then_goes(c):
    before = recovered_files(c)
    times = os.stat(c.files).st_mtime_ns
    item = kept(clean(c, 71 * HOUR), "its time is not over")
    assert item["what"] == str(before) and before.is_dir()
    r = clean(c)
    assert [d["what"] for d in r["dropped"]] == [str(before)] and r["freed_bytes"] > 0, r
    assert fs.ours(c.files) == [] and [n for n in os.listdir(c.files) if n.startswith(".dr-")] == [".dr-lock"]
    fs.same(fs.trees.entries(c.files), c.good)
    assert os.stat(c.files).st_mtime_ns == times
    assert clean(c, 100 * DAY)["journals_removed"] == 1
    assert list((c.dir / "store/journal").iterdir()) == []


def case_a_tree_killed_at_each_point(c):
    for n, point in enumerate(["intent", "renamed", "removed"]):
        if n == 0:
            before = recovered_files(c)
        else:
            w = c.worker()
            fs.execute(c, f"x{n}")
            c.kill(w, signal.SIGTERM)
            before = c.files / fs.ours(c.files)[0]
        r = killed(c, f"cleanup.tree.{point}", str(before))
        assert [d["what"] for d in r["dropped"]] == ([] if point == "removed" else [str(before)]), r
        assert r["kept"] == [] and [n for n in os.listdir(c.files) if n.startswith(".dr-")] == [".dr-lock"]
        fs.same(fs.trees.entries(c.files), c.good)
        c.r.delete("{dr}:job:killed")
        assert clean(c, 100 * DAY)["journals_removed"] == 1


def case_a_file_recovery_does_not_wait_for_a_removal(c):
    before = recovered_files(c)
    w = cleaner(c, fault="cleanup.tree.renamed:stop")
    c.push("log-cleanup", {"id": "slow", "t": "log-cleanup", "a": {}})
    stopped(w)
    other = c.worker()
    (c.files / "zero").write_text("once more")
    fs.execute(c, "y")
    fs.same(fs.trees.entries(c.files), c.good)
    os.kill(w.pid, signal.SIGCONT)
    wait(lambda: not before.parent.exists())
    c.kill(w, signal.SIGTERM)
    c.kill(other, signal.SIGTERM)
    fs.recovered(c)


def case_a_tree_that_could_not_be_backed_up_has_no_end(c):
    without_emergency(c, fs)
    kept(clean(c, 1000 * DAY), "without expiry")
    assert fs.ours(c.files)


def case_a_staged_tree_beside_live_goes(c):
    w = fs.ready(c)
    fs.execute(c, "x", no_swap=True)
    c.kill(w, signal.SIGTERM)
    new = c.files / fs.ours(c.files)[0]
    kept(clean(c, 71 * HOUR), "its time is not over")
    assert [d["what"] for d in clean(c)["dropped"]] == [str(new)]
    fs.untouched(c)


def case_a_tree_that_was_live_before_a_roll_back_goes(c):
    w = fs.ready(c, **services(c, "web", "jobs"), DR_SERVICES_FILES="web")
    (c.services / "broken-web").touch()
    fs.execute(c, "x", "rolled_back")
    c.kill(w, signal.SIGTERM)
    failed = [p for p in fs.ours(c.files) if p.endswith("failed")]
    assert [d["what"] for d in clean(c)["dropped"]] == [str(c.files / failed[0])]
    fs.untouched(c)


def case_what_somebody_put_into_an_old_tree_is_not_dropped(c):
    before = recovered_files(c)
    (before / "wanted").write_text("put here by hand")
    kept(clean(c), "'wanted' of it is not what the recovery moved there")
    (before / "wanted").unlink()
    os.rename(before / "zero", before / "other")
    (before / "zero").write_text("an own one")
    os.unlink(before / "other")
    kept(clean(c), "'zero'")
    (before / "zero").unlink()
    assert len(clean(c)["dropped"]) == 1
    fs.same(fs.trees.entries(c.files), c.good)


def case_another_folder_or_a_link_under_its_name_stays(c):
    before = recovered_files(c)
    moved = c.dir / "moved"
    os.rename(before, moved)
    before.mkdir()
    (before / "file").write_text("somebody's")
    kept(clean(c), "not the folder")
    (before / "file").unlink()
    before.rmdir()
    before.symlink_to(c.files)
    kept(clean(c, outcome="partial"), "before")
    before.unlink()
    fs.same(fs.trees.entries(c.files), c.good)
    ours = before.parent
    os.rename(ours, c.dir / "ours")
    ours.symlink_to(c.dir / "ours")
    os.rename(moved, c.dir / "ours/before")
    kept(clean(c, outcome="partial"), ".dr-")
    assert (c.dir / "ours/before").is_dir()


def case_a_root_that_is_not_there_keeps_the_journal(c):
    before = recovered_files(c)
    os.rename(c.files, c.dir / "elsewhere")
    c.files.mkdir()
    kept(clean(c, 1000 * DAY), "is its volume mounted?")
    assert os.listdir(c.files) == []
    c.files.rmdir()
    os.rename(c.dir / "elsewhere", c.files)
    assert [d["what"] for d in clean(c)["dropped"]] == [str(before)]


def case_links_out_of_an_old_tree_are_not_followed(c):
    before = recovered_files(c)
    outside = c.dir / "outside"
    outside.mkdir()
    (outside / "file").write_text("stays")
    folder = next(p for p in before.iterdir() if p.is_dir() and not p.is_symlink())
    (folder / "link").symlink_to(outside)
    os.link(outside / "file", folder / "second name")
    assert len(clean(c)["dropped"]) == 1
    assert (outside / "file").read_text() == "stays"


@needs_root
def case_a_mount_in_an_old_tree_keeps_it(c):
    before = recovered_files(c, "mounted")  # a run of its own: other cases look at the same mounts
    folder = next(p for p in before.iterdir() if p.is_dir() and not p.is_symlink())
    inner, live = folder / "mounted", c.files / "photos"
    inner.mkdir()
    subprocess.run(["mount", "--bind", live, inner], check=True)
    try:
        kept(clean(c), "mounted")
        fs.same(fs.trees.entries(c.files), c.good)
    finally:
        subprocess.run(["umount", inner], check=True)
    inner.rmdir()
    elsewhere = c.dir / "served"
    elsewhere.mkdir()
    subprocess.run(["mount", "--bind", before, elsewhere], check=True)
    try:
        kept(clean(c), "mounted")
    finally:
        subprocess.run(["umount", elsewhere], check=True)
    # Mounted behind its back, after it was looked at: the removal does not enter it.
    w = cleaner(c, fault="cleanup.tree.renamed:stop")
    c.push("log-cleanup", {"id": "behind", "t": "log-cleanup", "a": {}})
    stopped(w)
    doomed = before.parent / "drop" / folder.name
    subprocess.run(["mount", "--bind", live, doomed], check=True)
    try:
        os.kill(w.pid, signal.SIGCONT)
        c.until("behind", "done", "failed")
        kept(c.result("behind"), "mount")
        fs.same(fs.trees.entries(c.files), c.good)
    finally:
        subprocess.run(["umount", doomed], check=True)
    c.kill(w, signal.SIGTERM)
    assert len(clean(c)["dropped"]) == 1
    fs.same(fs.trees.entries(c.files), c.good)


if __name__ == "__main__":
    run(globals(), at_once=2)
