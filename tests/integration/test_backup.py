#!/usr/bin/env python3
"""Backups through the queue: what lies on disk is proven, opens without Redis and PostgreSQL, and
damage, dying tools and dying workers never leave a backup that is not one."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import clock  # noqa: E402
import dr  # noqa: E402
import pg  # noqa: E402


def staging(store):
    return [p for p in (store / "staging").iterdir()] if (store / "staging").exists() else []


def folders(store):
    return sorted(p.name for p in (store / "backups").iterdir())


def tools(case, **scripts):
    """A PG_BIN_DIR whose named tools are shell scripts; $REAL is the folder of the real ones."""
    folder = case.dir / "pgbin"
    folder.mkdir(exist_ok=True)
    real = pg.bin_dir()
    for tool in ("pg_dump", "pg_dumpall", "pg_restore"):
        path = folder / tool
        path.unlink(missing_ok=True)
        if tool in scripts:
            path.write_text(f'#!/bin/sh\nREAL={real}\ncase "$*" in --version) exec $REAL/{tool} "$@";; esac\n' + scripts[tool])
            path.chmod(0o755)
        else:
            path.symlink_to(real / tool)
    return folder


def fails(case, lane, jid, **args):
    """The result of an order that is to fail at its first attempt."""
    case.push(lane, {"id": jid, "t": lane, "a": args, "mx": 1})
    case.until(jid, "failed")
    return case.result(jid, "failed")


def case_database_and_files_are_backed_up_and_open_alone(case):
    store = case.store(files=True)
    case.worker()
    database = case.order("backup", "b1", kind="database")
    files = case.order("backup", "b2", kind="files", **{"class": "scheduled"})
    assert [o["name"] for o in database["objects"]] == ["database.drb", "globals.drb", "index.drb"], database
    assert database["digests"] == "taken" and database["rows"] > 1000 and database["tables"] > 5, database
    assert database["plain_bytes"] == sum(o["plain_bytes"] for o in database["objects"])
    assert [o["name"] for o in files["objects"]] == ["files.drb", "index.drb"]
    alone = case.dir / "alone"
    alone.mkdir()
    shutil.copy(store / "backups" / database["backup_id"] / "database.drb", alone)
    shutil.copy(store / "backups" / files["backup_id"] / "files.drb", alone)
    only = {name: None for name in case.settings} | {"BACKUP_ENCRYPTION_PASSWORD": dr.PASSPHRASE, "REDIS_URL": None}
    case.drworker("open", alone / "database.drb", "-o", alone / "dump", **only)
    listing = subprocess.run([pg.bin_dir() / "pg_restore", "-l", alone / "dump"], capture_output=True, text=True, check=True).stdout
    assert "TABLE DATA" in listing and "customers" in listing
    tar = case.drworker("open", alone / "files.drb", binary=True, **only)
    names = subprocess.run(["tar", "t"], input=tar, capture_output=True, check=True).stdout
    assert str(case.files).lstrip("/").encode() in names
    listed = {b["backup_id"]: b for b in case.backups()}
    assert set(listed) == {database["backup_id"], files["backup_id"]}
    assert listed[files["backup_id"]]["class"] == "scheduled"


def case_nothing_secret_is_readable(case):
    store = case.store(files=True)
    case.worker()
    case.backup("database")
    case.backup("files")
    shop = b"likes rings of"
    for path in store.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert shop not in data and dr.PASSPHRASE.encode() not in data and b"uploads" not in data, path
            assert path.stat().st_mode & 0o077 == 0, (path, oct(path.stat().st_mode))


def case_every_damage_is_found_and_named(case):
    store = case.store(files=True)
    case.worker()
    for kind in ("database", "files"):
        bid = case.backup(kind)
        folder = store / "backups" / bid
        n = 0
        for path in sorted(folder.iterdir()):
            good = path.read_bytes()
            spots = sorted({0, 9, 60, 180, 255, 256, 300, len(good) // 2, len(good) - 1} & set(range(len(good))))
            damages = [good[:i] + bytes([good[i] ^ 1]) + good[i + 1:] for i in spots] + [good[:-1], good[:len(good) // 2], good + b"\0"]
            for bad in damages:
                path.write_bytes(bad)
                n += 1
                jid = f"v-{kind}-{n}"
                result = case.order("verify", jid, "failed", backup_id=bid)
                assert result["error"]["kind"] == "integrity", (path, len(bad), result)
                assert bid in result["error"]["message"], result
                assert result["bad"][0]["backup_id"] == bid
                if path.suffix == ".drb" and n % 4 == 0:
                    out = case.dir / "out"
                    case.drworker("open", path, "-o", out, code=7)
                    assert not out.exists()
            path.write_bytes(good)
        assert n > 30
        assert case.order("verify", f"ok-{kind}", backup_id=bid)["bad"] == []


def case_damage_found_by_verify_all_does_not_hide_the_rest(case):
    store = case.store(database=False, files=True)
    case.worker()
    ids = [case.backup("files", f"f{i}") for i in range(3)]
    victim = store / "backups" / ids[1] / "files.drb"
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 4
    victim.write_bytes(data)
    result = case.order("verify", "all", "failed", all=True)
    assert sorted(result["checked"]) == sorted(ids) and [b["backup_id"] for b in result["bad"]] == [ids[1]]
    assert result["bad"][0]["object"] == f"{ids[1]}/files.drb"
    listed = {b["backup_id"]: b for b in case.backups()}
    assert listed[ids[0]]["verified_ok"] and not listed[ids[1]]["verified_ok"]


def case_a_full_backup_holds_all_that_is_configured(case):
    """One point in time, every procedure can use it, by id and as the latest."""
    settings = case.dir / "etc"
    settings.mkdir()
    (settings / "shop.conf").write_text("gold = 1\n")
    case.store(files=True, BACKUP_CONFIG_PATHS=settings)
    case.worker()
    old = case.backup("database")
    taken = case.order("backup", "full", kind="full")
    assert [o["name"] for o in taken["objects"]] == ["database.drb", "globals.drb", "files.drb", "config.drb", "index.drb"]
    bid = taken["backup_id"]
    assert bid.split("-")[1] == "full" and taken["tables"] and taken["files"] and taken["digests"] == "taken", taken
    listed = {b["backup_id"]: b for b in case.backups()}
    assert listed[bid]["series"] == "full:shop" and listed[bid]["t_point"] > listed[old]["t_point"]
    assert case.order("verify", "v", backup_id=bid)["checked"] == [bid]
    held = case.drworker("open", case.dir / "store/backups" / bid / "config.drb", binary=True)
    assert b"gold = 1" in held and str(settings / "shop.conf").encode()[1:] in held
    case.pg.sql("DELETE FROM customers", "shop")
    (case.files / "new").write_text("x")
    for procedure in "database_recovery", "file_system_recovery":
        done = case.order("execute", procedure, procedure_id=procedure)
        assert done["backup_id"] == bid and done["verified"].get("unknown", 0) == 0, done
    assert case.pg.sql("SELECT count(*) > 0 FROM customers", "shop") == "t" and not (case.files / "new").exists()


def case_a_full_backup_of_what_there_is(case):
    case.store(database=False, files=True)
    case.worker()
    taken = case.order("backup", "full", kind="full")
    assert [o["name"] for o in taken["objects"]] == ["files.drb", "index.drb"]
    assert {b["series"] for b in case.backups()} == {"full:default"}
    result = case.order("execute", "e", "failed", procedure_id="database_recovery", backup_id=taken["backup_id"])
    assert "holds no database" in result["error"]["message"] or "DATABASE_URL" in result["error"]["message"], result
    case.kill(case.processes[-1])
    case.settings.pop("BACKUP_FILES_PATHS")
    case.worker()
    result = case.order("backup", "none", "failed", kind="full")
    assert result["error"]["kind"] == "config" and "DATABASE_URL" in result["error"]["message"], result


def case_a_budget_rotates_through_all(case):
    """Least recently proven first; what is proven, object by object, stands in the catalog."""
    store = case.store(database=False, files=True)
    case.worker()
    ids = [case.backup("files", f"f{i}") for i in range(3)]
    seen = []
    for i in range(6):
        result = case.order("verify", f"v{i}", budget_bytes=1)
        assert len(result["checked"]) == 1 and result["overdue"] == 0, result
        seen += result["checked"]
        listed = {b["backup_id"]: b["verified_at"] for b in case.backups()}
        left = min(listed, key=lambda b: (listed[b], b))
        assert result["oldest_proof"]["backup_id"] == left and result["oldest_proof"]["at"] == listed[left], (result, listed)
    assert seen[:3] == seen[3:] == ids, (seen, ids)
    assert case.order("verify", "all", all=True)["oldest_proof"] == {}
    records = [json.loads(line) for line in (store / "catalog/log/000001.jsonl").read_text().splitlines()]
    proofs = [r["data"] for r in records if r["type"] == "verified"]
    assert len(proofs) == 9 and all(p["ok"] and p["whole"] == ["files.drb", "index.drb"] for p in proofs), proofs
    data = bytearray((store / "backups" / ids[0] / "index.drb").read_bytes())
    data[-1] ^= 1
    (store / "backups" / ids[0] / "index.drb").write_bytes(data)
    case.order("verify", "bad", "failed", backup_id=ids[0])
    last = json.loads((store / "catalog/log/000001.jsonl").read_text().splitlines()[-1])["data"]
    assert last["ok"] is False and last["object"] == f"{ids[0]}/index.drb" and "index.drb" not in last["whole"], last


def case_what_no_record_knows_starves_nobody(case):
    """A folder that nobody recorded, and that nobody can adopt, stands last in line: its proof is kept nowhere."""
    store = case.store(database=False, files=True)
    case.worker()
    ids = [case.backup("files", f"f{i}") for i in range(2)]
    stranger = ids[0][:-8] + "aaaaaaaa"
    shutil.copytree(store / "backups" / ids[0], store / "backups" / stranger)
    for i in range(4):
        result = case.order("verify", f"v{i}", budget_bytes=1)
        assert result["checked"] == [ids[i % 2]] and result["overdue"] == 0, result
        assert result["oldest_proof"]["backup_id"] == ids[(i + 1) % 2], result
    result = case.order("verify", "all", "failed", all=True)
    assert result["checked"] == [*ids, stranger] and [b["backup_id"] for b in result["bad"]] == [stranger], result


def case_a_proof_older_than_promised(case):
    """A budget too small for DR_VERIFY_MAX_AGE_DAYS: verify is partial and names the oldest, health says how old."""
    case.store(database=False, files=True)
    begin = clock.ms("2026-05-01T02:00:00")
    day = clock.Clock(case, begin)
    case.worker(LD_PRELOAD=day.env["LD_PRELOAD"], DR_CLOCK_FILE=day.env["DR_CLOCK_FILE"], DR_LEASE_MS="600000",
                DR_VERIFY_MAX_AGE_DAYS=2)

    def gate(jid):
        return {c["name"]: c for c in case.order("health", jid)["checks"]}["proof"]
    ids = [case.backup("files", f"f{i}") for i in range(3)]
    day.set(begin + 24 * 3600000)
    result = case.order("verify", "v1", budget_bytes=1)
    assert result["checked"] == [ids[0]] and result["overdue"] == 0 and gate("h1")["status"] == "ok", result
    day.set(begin + 49 * 3600000)
    result = case.order("verify", "v2", "partial", budget_bytes=1)
    assert result["checked"] == [ids[1]] and result["overdue"] == 1 and result["bad"] == [], result
    assert result["oldest_proof"]["backup_id"] == ids[2], result
    assert "1 more is older than 2 days (DR_VERIFY_MAX_AGE_DAYS)" in result["summary"], result
    g = gate("h2")
    assert (g["status"], g["limit"]) == ("warning", 2 * 86400) and 49 * 3600 - 60 <= g["value"] < 50 * 3600, g
    day.set(begin + 97 * 3600000)
    assert gate("h3")["status"] == "critical"
    result = case.order("verify", "v3", all=True)
    assert result["overdue"] == 0 and len(result["checked"]) == 3 and gate("h4")["status"] == "ok", result


def verified(store):
    lines = (store / "catalog/log/000001.jsonl").read_text().splitlines()
    return [r for r in map(json.loads, lines) if r["type"] == "verified"]


def case_a_sector_that_cannot_be_read_is_a_finding(case):
    """EIO in the header, then amid the data: the series stands still, the alarm is raised, the rest is proven, in the
    same job or, where the budget ends it, in the next one."""
    store = case.store(database=False, files=True)
    maker = case.worker()
    ids = [case.backup("files", f"f{i}") for i in range(3)]
    case.kill(maker, signal.SIGTERM)
    for n, (nth, args) in enumerate(((1, {"budget_bytes": 1}), (5, {"all": True}))):
        first, second, third = (b["backup_id"] for b in sorted(case.backups(), key=lambda b: (b["verified_at"], b["backup_id"])))
        before = len(verified(store))
        worker = case.worker(DR_FAULT=f"rw.read:{nth}:fail")
        result = case.order("verify", f"v{n}", "failed", **args)
        looked = [first, second, third] if "all" in args else [first]
        assert result["checked"] == looked and [b["backup_id"] for b in result["bad"]] == [first], result
        assert result["bad"][0]["class"] == "io" and result["error"]["kind"] == "integrity", result
        told = verified(store)[before:]
        assert [(r["backup_id"], r["data"]["ok"]) for r in told] == [(i, i != first) for i in looked], told
        assert told[0]["data"]["class"] == "io" and told[0]["data"]["by"] == "verify" and first in told[0]["data"]["object"]
        reasons = case.order("retention", f"r{n}", dry_run=True)["reasons"]
        assert all("frozen" in reasons[i] for i in (second, third)), reasons
        dr.wait(lambda: any(e.get(b"rule") == b"verify_failed" and e.get(b"state") == b"firing"
                            for _, e in case.r.xrange("{dr}:ev")))
        if "all" not in args:
            assert case.order("verify", f"next{n}", **args)["checked"] == [second]
        assert case.order("verify", f"ok{n}", all=True)["bad"] == []
        assert "frozen" not in sum(case.order("retention", f"r{n}b", dry_run=True)["reasons"].values(), [])
        case.kill(worker, signal.SIGTERM)


def who_may_not_read_all(case):
    """Programs of this build for whom rights count: root without its override."""
    folder = case.dir / "plain"
    folder.mkdir()
    drop = "exec" if os.geteuid() else "exec setpriv --bounding-set=-dac_override,-dac_read_search --inh-caps=-dac_override,-dac_read_search"
    (folder / "drworker").write_text(f'#!/bin/sh\n{drop} {case.bin.resolve()}/drworker "$@"\n')
    (folder / "drworker").chmod(0o755)
    return folder


def case_what_cannot_be_opened_is_a_finding(case):
    """No right to an object, a manifest, a folder; a folder that is gone: each is named, and the last one is proven."""
    store = case.store(database=False, files=True)
    real, case.bin = case.bin, who_may_not_read_all(case)
    case.worker()
    case.bin = real
    ids = [case.backup("files", f"f{i}") for i in range(5)]
    hidden = [store / "backups" / ids[0] / "files.drb", store / "backups" / ids[1] / "manifest.json", store / "backups" / ids[2]]
    modes = [p.stat().st_mode for p in hidden]
    for p in hidden:
        p.chmod(0)
    shutil.move(store / "backups" / ids[3], case.dir / "taken")
    result = case.order("verify", "v", "failed", all=True)
    assert result["checked"] == ids, result
    assert [(b["backup_id"], b["class"]) for b in result["bad"]] == [(ids[0], "io"), (ids[1], "io"), (ids[2], "io"), (ids[3], "missing-file")], result
    assert [r["data"]["ok"] for r in verified(store)] == [False] * 4 + [True]
    for p, mode in zip(hidden, modes):
        p.chmod(mode)
    shutil.move(case.dir / "taken", store / "backups" / ids[3])
    assert case.order("verify", "ok", all=True)["bad"] == []


def case_a_store_that_cannot_be_read_says_nothing_of_its_backups(case):
    """An error of the job, and no record: neither a catalog without rights nor backups/ gone, closed or empty, as a
    volume that is not mounted."""
    store = case.store(database=False, files=True)
    real, case.bin = case.bin, who_may_not_read_all(case)
    case.worker()
    case.bin = real
    for i in range(2):
        case.backup("files", f"f{i}")
    before = len(verified(store))

    def unread(jid, kind):
        result = fails(case, "verify", jid, all=True)
        assert result["error"]["kind"] == kind and result["checked"] == [] and result["bad"] == [], result

    for name in ("catalog/head.json", "backups"):
        mode = (store / name).stat().st_mode
        (store / name).chmod(0)
        unread("closed-" + name[:7], "io")
        (store / name).chmod(mode)
    (store / "backups").rename(case.dir / "away")
    unread("gone", "not-found")
    (store / "backups").mkdir()
    unread("empty", "io")
    (store / "backups").rmdir()
    (case.dir / "away").rename(store / "backups")
    assert len(verified(store)) == before
    assert case.order("verify", "ok", all=True)["bad"] == []


def case_given_up_and_purged_while_verify_is_on_its_way(case):
    """What the catalog no longer has is not asked for; the others are proven."""
    store = case.store(database=False, files=True, RETENTION_GRACE_HOURS=0)
    case.worker(DR_LANES="backup:1,retention:1")
    ids = [case.backup("files", f"f{i}") for i in range(3)]
    slow = case.worker(DR_FAULT="verify.prove.intent:stop", DR_LEASE_MS=120000, DR_LANES="verify")
    case.push("verify", {"id": "v", "t": "verify", "a": {"all": True}, "mx": 1})
    dr.stopped(slow)
    case.drworker("backups", "--give-up", ids[0], "--reason", "not needed")
    assert case.order("retention", "r")["purged"] == [ids[0]] and folders(store) == sorted(ids[1:])
    slow.send_signal(signal.SIGCONT)
    case.until("v", "done", "failed")
    result = case.result("v", "done")
    assert result["checked"] == ids[1:] and result["bad"] == [] and result["overdue"] == 0, result
    assert [r["backup_id"] for r in verified(store)] == ids[1:]


def case_unknown_id_is_refused(case):
    case.store(database=False, files=True)
    case.worker()
    case.backup("files")
    result = case.order("verify", "v", "failed", backup_id="20260102T030405Z-files-aaaaaaaa")
    assert result["error"]["kind"] == "invalid" and result["error"]["class"] == "permanent", result
    assert (result["error"]["field"], result["error"]["value"]) == ("a.backup_id", "20260102T030405Z-files-aaaaaaaa"), result


def case_pg_dump_fails_with_its_last_words(case):
    store = case.store()
    case.pg.sql("CREATE TABLE private (x int); REVOKE ALL ON private FROM gold", "shop")
    case.worker()
    result = fails(case, "backup", "b", kind="database")
    assert result["error"]["kind"] == "tool" and "private" in result["error"]["message"], result
    assert folders(store) == [] and dr.wait(lambda: not staging(store))


def case_pg_dump_killed_cut_and_silent(case):
    store = case.store()
    bins = tools(case, pg_dump='$REAL/pg_dump "$@" | head -c 40000; kill -9 $$\n')
    worker = case.worker(PG_BIN_DIR=bins)
    result = fails(case, "backup", "killed", kind="database")
    assert result["error"]["kind"] == "tool" and "pg_dump" in result["error"]["message"], result
    tools(case, pg_dump='$REAL/pg_dump "$@" | head -c 40000; exit 0\n')
    result = fails(case, "backup", "cut", kind="database")
    assert result["error"]["kind"] == "malformed", result
    tools(case, pg_dumpall="echo no globals today >&2; exit 3\n")
    result = fails(case, "backup", "globals", kind="database")
    assert "no globals today" in result["error"]["message"], result
    case.kill(worker)
    tools(case, pg_dump='$REAL/pg_dump "$@" | head -c 40000; exec sleep 60\n')
    worker = case.worker(PG_BIN_DIR=bins, DR_STALL_TIMEOUT_S="1")  # for this one only: a busy machine is silent, too
    result = fails(case, "backup", "silent", kind="database")
    assert result["error"]["kind"] == "timeout" and "silent" in result["error"]["message"], result
    assert folders(store) == [] and dr.wait(lambda: not staging(store))
    case.kill(worker)
    tools(case)
    case.worker(PG_BIN_DIR=bins)
    case.backup("database")


def case_database_unreachable_is_said(case):
    case.store()
    case.pg.stop()
    case.worker()
    assert fails(case, "backup", "b", kind="database")["error"]["kind"] == "unreachable"


def case_root_gone_is_named(case):
    case.store(database=False, files=True)
    shutil.rmtree(case.files)
    case.worker()
    result = case.order("backup", "b", kind="files", outcome=None)
    assert str(case.files) in result["error"]["message"], result


def case_store_within_a_root_is_refused(case):
    case.store(database=False, files=True)
    inside = case.files / "deep" / "store"
    inside.mkdir(parents=True)
    (case.dir / "link").symlink_to(inside)
    case.worker(BACKUP_DIRECTORY=case.dir / "link")
    error = case.order("backup", "b", "refused", kind="files")["error"]
    assert error["kind"] == "preflight" and str(case.files) in error["message"], error


def case_killed_worker_leaves_its_backup_to_the_next(case):
    store = case.store()
    bins = tools(case, pg_dump='$REAL/pg_dump "$@"; sleep 2\n')
    first = case.worker(PG_BIN_DIR=bins)
    case.push("backup", {"id": "b", "t": "backup", "a": {"kind": "database"}})
    dr.wait(lambda: staging(store))
    case.kill(first)
    case.worker()
    case.until("b", "done", seconds=30)
    assert len(folders(store)) == 1 and dr.wait(lambda: not staging(store))
    assert case.order("verify", "v", all=True)["bad"] == []


def case_delivered_again_after_publishing_it_is_adopted(case):
    store = case.store()
    first = case.worker(DR_FAULT="backup.publish.done:kill")
    case.push("backup", {"id": "b", "t": "backup", "a": {"kind": "database"}})
    first.wait(30)
    assert len(folders(store)) == 1
    case.worker()
    case.until("b", "done", seconds=30)
    assert case.result("b")["backup_id"] == folders(store)[0] and len(folders(store)) == 1
    assert "earlier delivery" in case.result("b")["summary"]


def case_killed_at_every_step(case):
    store = case.store(database=False, files=True)
    for i, step in enumerate(("prepare", "data", "read-back", "publish")):
        first = case.worker(DR_FAULT=f"backup.{step}.intent:kill")
        case.push("backup", {"id": f"b{i}", "t": "backup", "a": {"kind": "files"}})
        first.wait(30)
        second = case.worker()
        case.until(f"b{i}", "done", seconds=30)
        assert len(folders(store)) == i + 1, step
        dr.wait(lambda: not staging(store))
        case.kill(second, signal.SIGTERM)
    case.worker()
    assert case.order("verify", "v", all=True)["bad"] == []


def case_paused_worker_publishes_nothing_after_its_successor(case):
    store = case.store()
    bins = tools(case, pg_dump='$REAL/pg_dump "$@"; sleep 1\n')
    first = case.worker(PG_BIN_DIR=bins)
    case.push("backup", {"id": "b", "t": "backup", "a": {"kind": "database"}})
    dr.wait(lambda: staging(store))
    first.send_signal(signal.SIGSTOP)
    case.worker()
    case.until("b", "done", seconds=30)
    published = folders(store)
    inode = os.stat(store / "backups" / published[0]).st_ino
    first.send_signal(signal.SIGCONT)
    dr.wait(lambda: b"job.stale" in first.log.read_bytes() or b"adopted" in first.log.read_bytes()
            or b"stale" in first.log.read_bytes())
    dr.wait(lambda: not staging(store))
    assert folders(store) == published and os.stat(store / "backups" / published[0]).st_ino == inode
    assert case.order("verify", "v", all=True)["bad"] == []


def case_disk_full_leaves_nothing(case):
    if os.geteuid() != 0:
        print("not run: needs root: case_disk_full_leaves_nothing (a small file system)")
        return
    store = case.store(files=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", store], check=True)
    try:
        (case.files / "big").write_bytes(os.urandom(8_000_000))
        case.worker(DR_DISK_RESERVE_PERCENT=0)  # the reserve would end it before
        assert fails(case, "backup", "b", kind="files")["error"]["kind"] == "no-space"
        assert folders(store) == [] and dr.wait(lambda: not staging(store))
        (case.files / "big").unlink()
        case.backup("files")
    finally:
        for p in case.processes:
            if p.poll() is None:
                p.kill()
                p.wait()
        subprocess.run(["umount", store], check=True)


@dr.needs_root
def case_a_backup_that_grows_into_the_reserve_is_given_up(case):
    """The first of its series, and one that has grown, seem small when they begin. Recovery may take what they may not."""
    store = case.store(database=False, files=True, DR_DISK_RESERVE_BYTES=12 << 20)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", store], check=True)
    try:
        free = lambda: (lambda v: v.f_bavail * v.f_frsize)(os.statvfs(store))  # noqa: E731
        case.worker()
        big = case.files / "big"
        for jid in ("first", "grown"):
            big.write_bytes(os.urandom(18 << 20))
            result = case.order("backup", jid, "refused", kind="files")
            assert result["error"]["reason"] == "disk-reserve" and result["error"]["step"] == "data", result
            dr.wait(lambda: not staging(store) and free() > 20 << 20)
            big.unlink()
            if jid == "first":
                assert folders(store) == []
                small = case.backup("files")
        assert folders(store) == [small]
        big.write_bytes(os.urandom(15 << 20))
        result = case.order("execute", "e", procedure_id="file_system_recovery")
        assert result["emergency_backup_id"] in folders(store) and not big.exists() and free() < 12 << 20, result
    finally:
        for p in case.processes:
            if p.poll() is None:
                p.kill()
                p.wait()
        subprocess.run(["umount", "-l", store], check=True)


def case_cancel_while_dumping(case):
    store = case.store()
    bins = tools(case, pg_dump='$REAL/pg_dump "$@"; exec sleep 60\n')
    case.worker(PG_BIN_DIR=bins)
    case.push("backup", {"id": "b", "t": "backup", "a": {"kind": "database"}})
    dr.wait(lambda: staging(store))
    case.cli("cancel", "b")
    case.until("b", "cancelled")
    assert folders(store) == [] and dr.wait(lambda: not staging(store))


def case_memory_does_not_grow_with_the_data(case):
    """The same worker, ten times the data: its peak stays where it was."""
    case.store(database=False, files=True)
    # A build under address keeps what was freed: little of it, so that growth still shows.
    worker = case.worker(ASAN_OPTIONS="detect_stack_use_after_return=0:quarantine_size_mb=4:thread_local_quarantine_size_kb=64")

    def peak():
        status = pathlib.Path(f"/proc/{worker.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0])

    def grow(name, megabytes):
        with open(case.files / name, "wb") as f:
            for i in range(megabytes):
                f.write(os.urandom(1 << 19) + (b"%08d" % i) * 65536)

    grow("first", 60)
    case.backup("files")
    small = peak()
    grow("second", 540)
    case.backup("files")
    assert peak() < small + 8 * 1024 and peak() < 150 * 1024, (small, peak())


if __name__ == "__main__":
    sys.exit(dr.run(globals()))
