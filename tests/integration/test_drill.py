#!/usr/bin/env python3
"""test-recovery with real servers: what a drill proves, what turns it red, and every fault on the way.

The rule behind all cases: live is never touched, a drill is green only with evidence, and nothing of a
drill stays but its evidence: no database, no folder, no open journal.
"""
import hashlib
import json
import pathlib
import signal
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import msgpack  # noqa: E402
import shop  # noqa: E402
import trees  # noqa: E402
from dr import needs_root, run, stopped, wait  # noqa: E402
from recoveries import journals, tools  # noqa: E402
from test_execute_db import tables  # noqa: E402

LANES = "backup:1,test-recovery:1,execute:1"
DB, FILES = "database_recovery", "file_system_recovery"
FULL = {"procedure_id": "full_system_recovery", "why": "this version has no procedure for it"}


def ready(c, database=True, files=True, worker=True, **env):
    """A store with a backup of each kind; then live moves on, so that a drill that looked at it would fail."""
    c.store(database=database, files=files, DR_LANES=LANES, **env)
    w = c.worker()
    c.ids = {}
    if database:
        c.ids[DB] = c.backup()
        c.pg.sql("DELETE FROM order_items WHERE order_id % 2 = 0; DROP TABLE prices", "shop")
    if files:
        c.ids[FILES] = c.backup("files")
        (c.files / "zero").write_text("overwritten")
    c.before = live(c)
    if not worker:
        c.kill(w, signal.SIGTERM)
    return w


def live(c):
    return (shop.fingerprint(c.pg), shop.properties(c.pg)) if c.pg else None, trees.entries(c.files) if hasattr(c, "files") else None


def drill(c, jid, outcome="done", seconds=60, **args):
    return c.order("test-recovery", jid, outcome, seconds=seconds, **args)


def staging(c):
    folder = c.dir / "store/staging"
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


def nothing_left(c):
    assert live(c) == c.before, "live was touched"
    assert not c.pg or not any("__" in n for n in c.pg.databases()), c.pg.databases()
    assert staging(c) == [], staging(c)
    assert not hasattr(c, "files") or not [p.name for p in c.files.iterdir() if p.name.startswith(".dr-") and p.name != ".dr-lock"]
    assert not c.pg or c.pg.sql("SELECT count(*) FROM pg_stat_activity WHERE datname LIKE '%\\_\\_dr\\_%'") == "0"


def series(c):
    return json.loads(c.drworker("drills", "--json"))


def evidence(c, part):
    """The file in the store; it is what result and catalog say it is."""
    raw = (c.dir / "store" / part["evidence"]["file"]).read_bytes()
    assert hashlib.sha256(raw).hexdigest() == part["evidence"]["sha256"]
    return json.loads(raw)


def records(c, kind):
    lines = [json.loads(x) for f in sorted((c.dir / "store/catalog/log").glob("*.jsonl")) for x in f.read_text().splitlines()]
    return [x for x in lines if x["type"] == kind]


# ---- what a good drill proves ----

def case_a_good_drill_of_both_with_its_evidence(c):
    ready(c)
    r = drill(c, "d")
    nothing_left(c)
    assert r["skipped"] == [FULL] and r["recovery_code"] == "not configured"
    assert set(r["procedures"]) == {DB, FILES}
    for name, part in r["procedures"].items():
        e = evidence(c, part)
        assert part["ok"] and part["level"] == "drill" and part["backup_id"] == c.ids[name] == e["backup"]["backup_id"]
        assert 0 < part["rto_ms"] < part["rto_target_ms"] and 0 <= part["rpo_s"] < part["rpo_target_s"]
        manifest = (c.dir / "store/backups" / c.ids[name] / "manifest.json").read_bytes()
        assert e["backup"]["manifest_sha256"] == hashlib.sha256(manifest).hexdigest()
        assert e["backup"]["t_point"] == json.loads(manifest)["t_point"] and e["backup"]["chosen_by"] == "latest"
        assert e["self_test"] == "noticed" and e["removed"] and e["findings"] == [] and e["error"] is None
        assert e["where"]["host"] and e["where"]["drworker"] and e["began"] <= e["ended"] and e["job_id"] == "d"
        assert all(p["ok"] for p in e["phases"])
        assert sum(p["ms"] for p in e["phases"] if p["name"] not in ("self_test", "remove")) == part["rto_ms"]
        entry = next(b for b in c.backups() if b["backup_id"] == c.ids[name])
        assert entry["drilled_at"]
    e = evidence(c, r["procedures"][DB])
    assert [p["name"] for p in e["phases"]] == ["select", "prove", "preflight", "restore", "verify", "self_test", "properties", "remove"]
    with_rows = [t for t in e["tables"] if t["rows"] is not None]
    assert e["compared"]["tables"] == e["compared"]["digests"] == len(with_rows) == e["compared"]["expected_tables"]
    assert e["compared"]["rows"] == sum(t["rows"] for t in with_rows) == e["compared"]["expected_rows"]
    assert [t["table"] for t in e["tables"] if t["rows"] is None] == ["sales_by_state"], "a view that keeps rows of its own"
    assert e["compared"]["server_version"] > 100000 and "pg_restore" in e["compared"]["tool"]
    assert next(t for t in e["tables"] if t["table"] == "prices")["rows"] > 0, "live has lost that table"
    e = evidence(c, r["procedures"][FILES])
    assert [p["name"] for p in e["phases"]] == ["select", "prove", "preflight", "restore", "verify", "self_test", "remove"]
    assert e["compared"]["files"] > 50 and e["compared"]["roots"] == e["compared"]["roots_matched"] == 1
    assert e["roots"][0]["path"] == str(c.files) and len(e["roots"][0]["root_content"]) == 64
    lines = series(c)
    assert [x["procedure_id"] for x in lines] == [FILES, DB]
    for x in lines:
        part = r["procedures"][x["procedure_id"]]
        assert x["ok"] and not x["late"] and x["evidence"] == "there" and x["sha256"] == part["evidence"]["sha256"]
        assert x["rto_ms"] == part["rto_ms"] and x["rpo_s"] == part["rpo_s"] and x["rpo_target_s"] == part["rpo_target_s"]
    assert c.ids[DB] in c.drworker("drills")
    assert all(j[-1]["type"] == "run-closed" for j in journals(c))
    path = c.dir / "store" / lines[0]["file"]
    path.write_bytes(path.read_bytes().replace(b'"ok": true', b'"ok": True', 1))
    assert series(c)[0]["evidence"] == "changed"


def case_one_procedure_and_what_is_not_configured(c):
    ready(c, files=False)
    r = drill(c, "all")
    assert set(r["procedures"]) == {DB} and r["skipped"] == [{"procedure_id": FILES, "why": "not configured"}, FULL]
    r = drill(c, "one", procedure_id=DB, backup_id="latest")
    assert set(r["procedures"]) == {DB} and r["skipped"] == []
    nothing_left(c)
    c.push("test-recovery", {"id": "full", "t": "test-recovery", "a": {"procedure_id": "full_system_recovery"}})
    said = c.until("full", "failed")["err"]
    assert b"no procedure full_system_recovery, it has: database_recovery, file_system_recovery" in said, said
    r = drill(c, "none", "failed", procedure_id=FILES)
    assert r["error"]["kind"] == "not-found" and not r["procedures"][FILES]["ok"], r
    assert r["procedures"][FILES]["rto_ms"] is None and r["procedures"][FILES]["rpo_s"] is None
    nothing_left(c)


def case_the_latest_and_the_longest_undrilled_take_turns(c):
    ready(c, database=False)
    old = [c.ids[FILES]] + [c.backup("files") for _ in range(2)]
    chosen = []
    for i in range(6):
        e = drill(c, f"d{i}")["procedures"][FILES]["evidence"]["backup"]
        chosen.append((e["chosen_by"], old.index(e["backup_id"])))
    assert chosen == [("latest", 2), ("rotation", 0), ("latest", 2), ("rotation", 1), ("latest", 2), ("rotation", 0)], chosen
    r = drill(c, "by", procedure_id=FILES, backup_id=old[1])["procedures"][FILES]
    assert r["backup_id"] == old[1] and r["evidence"]["backup"]["chosen_by"] == "ordered"
    nothing_left(c)


def case_a_budget_keeps_what_is_larger_out_of_the_rotation(c):
    w = ready(c, database=False)
    (c.files / "film").write_bytes(b"film" * 500000)
    old = [c.ids[FILES], c.backup("files")]
    (c.files / "film").unlink()
    old.append(c.backup("files"))
    c.before = live(c)
    size = {b["backup_id"]: b["plain_bytes"] for b in c.backups()}
    assert size[old[1]] > size[old[0]]
    c.kill(w, signal.SIGTERM)
    w = c.worker(DR_DRILL_BUDGET_BYTES=size[old[0]] + 10000)
    chosen = []
    for i in range(4):
        e = drill(c, f"d{i}")["procedures"][FILES]["evidence"]
        chosen.append((e["backup"]["chosen_by"], old.index(e["backup"]["backup_id"])))
        assert e.get("passed_over", 0) == (i % 2), e
    assert chosen == [("latest", 2), ("rotation", 0)] * 2, chosen
    c.kill(w, signal.SIGTERM)
    c.worker(DR_DRILL_BUDGET_BYTES="1")
    for i in range(2):
        part = drill(c, f"e{i}", "partial")["procedures"][FILES]
        assert part["ok"] and part["backup_id"] == old[2] and part["evidence"]["backup"]["chosen_by"] == "latest"
        assert "over DR_DRILL_BUDGET_BYTES (1)" in part["evidence"]["findings"][0], part
    assert drill(c, "by", procedure_id=FILES, backup_id=old[1])["procedures"][FILES]["backup_id"] == old[1], "who names one gets it"
    nothing_left(c)


def case_level_plan_makes_nothing(c):
    ready(c)
    r = drill(c, "p", level="plan")
    nothing_left(c)
    for name, part in r["procedures"].items():
        assert part["ok"] and part["level"] == "plan" and part["backup_id"] == c.ids[name] and part["rto_ms"] is None
        assert part["eta_ms"] > 0 and part["would_lose"] and "file" not in part["evidence"]
        assert [p["name"] for p in part["evidence"]["phases"]] == ["select", "prove", "preflight", "report"]
    assert series(c) == [] and not (c.dir / "store/drills").exists() and not records(c, "drilled")
    assert not (c.dir / "store/journal").exists() or not journals(c)


def case_the_one_who_ordered_it_reads_what_came_of_it(c):
    ready(c, DR_RPO_FILES_S="1")
    wait(lambda: all(b["age_s"] >= 2 for b in c.backups()))
    text = subprocess.run([c.bin / "drproducer", "test-recovery", "--wait", "--json"], capture_output=True, text=True, timeout=60,
                          env=c.environment())
    assert text.returncode == 3, text  # partial: late
    text = subprocess.run([c.bin / "drproducer", "test-recovery", "--wait"], capture_output=True, text=True, timeout=60, env=c.environment())
    lines = text.stderr.splitlines()
    db = next(x for x in lines if x.startswith(DB))
    assert c.ids[DB] in db and ": ok, RTO " in db and " of 1800 s, RPO " in db and db.endswith(" of 3600 s"), lines
    assert any("finding: late: the newest usable backup is" in x for x in lines), lines
    file, = [x.split("BACKUP_DIRECTORY/")[1] for x in lines[lines.index(db):] if "evidence: " in x][:1]
    assert (c.dir / "store" / file).exists()
    nothing_left(c)


def case_live_need_not_be_there(c):
    ready(c)
    c.pg.sql("DROP DATABASE shop")
    c.files.rename(c.dir / "away")
    r = drill(c, "d")
    assert all(p["ok"] for p in r["procedures"].values())
    assert c.pg.databases() == ["postgres"] and not c.files.exists() and staging(c) == []


def case_a_recovery_does_not_wait_for_a_drill(c):
    w = ready(c, files=False, DR_CONCURRENCY="4")
    c.kill(w, signal.SIGTERM)
    w = c.worker(DR_LANES="test-recovery:1", DR_FAULT="test-recovery.database.verify.intent:stop")
    c.push("test-recovery", {"id": "d", "t": "test-recovery", "a": {}})
    stopped(w)
    c.worker(DR_LANES="execute:1")
    c.order("execute", "x", procedure_id=DB)
    w.send_signal(signal.SIGCONT)
    wait(lambda: not any("__dr_" in n for n in c.pg.databases()))


# ---- what turns it red, or late ----

def case_a_missed_target_is_a_finding_not_a_failure(c):
    ready(c, files=False, DR_RTO_DATABASE_S="1", DR_RPO_DATABASE_S="1", worker=False)
    c.worker(PG_BIN_DIR=tools(c, "sleep 1.1"))
    taken = next(b for b in c.backups() if b["backup_id"] == c.ids[DB])
    wait(lambda: next(b for b in c.backups() if b["backup_id"] == taken["backup_id"])["age_s"] >= 2)
    r = drill(c, "d", "partial")
    part = r["procedures"][DB]
    e = evidence(c, part)
    assert part["ok"] and part["rto_ms"] > part["rto_target_ms"] == 1000 and part["rpo_s"] > part["rpo_target_s"] == 1
    assert e["rto"]["late"] and e["rpo"]["late"] and [f[:5] for f in e["findings"]] == ["late:"] * 2
    assert series(c)[0]["late"] and series(c)[0]["ok"] and "late" in c.drworker("drills")
    nothing_left(c)


def case_a_damaged_backup_is_red_and_named(c):
    ready(c)
    for name, file in ((DB, "database.drb"), (FILES, "files.drb")):
        path = c.dir / "store/backups" / c.ids[name] / file
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)
    r = drill(c, "d", "failed")
    assert r["error"]["kind"] == "integrity", r
    for name, file in ((DB, "database.drb"), (FILES, "files.drb")):
        part = r["procedures"][name]
        e = evidence(c, part)
        assert not part["ok"] and part["rto_ms"] is None and part["backup_id"] == c.ids[name]
        assert file in e["error"]["message"] and e["error"]["step"] == "prove" and e["self_test"] == "not reached" and e["removed"]
    assert [x["ok"] for x in series(c)] == [False, False] and "FAILED" in c.drworker("drills")
    assert all(b["drilled_at"] is None for b in c.backups()), "a drill that failed proves nothing"
    nothing_left(c)


def case_what_a_proof_finds_damaged_is_known_to_retention_and_health(c):
    """By a drill as by a recovery: the series stands still, and the backup is none for the RPO."""
    c.kill(ready(c), signal.SIGTERM)
    c.worker(DR_LANES=LANES + ",verify:1,retention:1,health:1")
    gates = lambda jid: {g["name"]: g for g in c.order("health", jid)["checks"]}  # noqa: E731
    frozen = lambda jid: {r for rs in c.order("retention", jid, dry_run=True)["reasons"].values() for r in rs if r == "frozen"}  # noqa: E731
    for kind in ("database", "files"):
        c.backup(kind)  # a good sibling
    c.drworker("backups", "--json")
    newest = {b["kind"]: b["backup_id"] for b in reversed(c.backups())}
    paths = {k: c.dir / "store/backups" / newest[k] / f"{k}.drb" for k in newest}
    good = {k: p.read_bytes() for k, p in paths.items()}
    for how, jid in (("drill", "d"), ("recovery", "e")):
        assert all(gates(f"h-{jid}-{k}")[f"backup-{k}"]["status"] == "ok" for k in newest) and not frozen(f"r-{jid}")
        for k, path in paths.items():
            path.write_bytes(good[k][:-1] + bytes([good[k][-1] ^ 1]))
        if how == "drill":
            assert drill(c, jid, "failed", backup_id=newest["database"], procedure_id=DB)["error"]["kind"] == "integrity"
            assert drill(c, jid + "f", "failed", backup_id=newest["files"], procedure_id=FILES)["error"]["kind"] == "integrity"
        else:
            assert c.order("execute", jid, "failed", procedure_id=DB, backup_id=newest["database"], dry_run=True)["error"]["kind"] == "integrity"
            assert c.order("execute", jid + "f", "failed", procedure_id=FILES, backup_id=newest["files"])["error"]["kind"] == "integrity"
        told = [(x["backup_id"], x["data"]["ok"], x["data"]["by"], x["data"]["object"]) for x in records(c, "verified")[-2:]]
        assert told == [(newest[k], False, how, f"{newest[k]}/{k}.drb") for k in ("database", "files")], told
        assert {b["backup_id"]: b["verified_ok"] for b in c.backups()} == {b: b not in newest.values() for b in [*c.ids.values(), *newest.values()]}
        now = gates(f"h-{jid}-bad")
        assert now["proof"]["status"] == "critical" and now["proof"]["value"] == 2, now["proof"]
        assert frozen(f"r-{jid}-bad")
        rehearsed = drill(c, f"again-{jid}", "partial", level="plan", backup_id="latest", procedure_id=DB)["procedures"][DB]
        assert rehearsed["backup_id"] == c.ids[DB], "what a recovery would take"
        assert newest["database"] in " ".join(rehearsed["evidence"]["findings"]), rehearsed
        assert newest["database"] in c.drworker("check"), "and what the check says of it"
        for k, path in paths.items():
            path.write_bytes(good[k])
            c.order("verify", f"v-{jid}-{k}", backup_id=newest[k])
    c.before = live(c)
    nothing_left(c)


def case_what_a_proof_cannot_read_is_recorded_as_well(c):
    """EIO in a backup's file, while the store answers: a finding, as verify has it, and no longer the latest."""
    c.kill(ready(c), signal.SIGTERM)
    for kind, procedure in (("database", DB), ("files", FILES)):
        for lane, by in (("test-recovery", "drill"), ("execute", "recovery")):
            maker = c.worker()
            newest = c.backup(kind)
            c.kill(maker, signal.SIGTERM)
            w = c.worker(DR_FAULT="rw.read:2:fail")
            how = {} if lane == "test-recovery" else {"dry_run": True}
            r = c.order(lane, f"{lane}-{kind}", "failed", procedure_id=procedure, backup_id=newest, **how)
            assert r["error"]["kind"] == "integrity" and r["error"]["reason"] == "io", r
            told = records(c, "verified")[-1]
            assert (told["backup_id"], told["data"]["ok"], told["data"]["by"], told["data"]["class"]) == (newest, False, by, "io"), told
            r = c.order("execute", f"next-{lane}-{kind}", procedure_id=procedure, dry_run=True)
            assert r["backup_id"] == c.ids[procedure] and r["passed_over"][0]["class"] == "io", r
            c.kill(w, signal.SIGTERM)


def case_a_store_that_is_gone_says_nothing_of_its_backups(c):
    """An empty backups/, as a volume that is not mounted: an error, and no record."""
    ready(c, database=False)
    c.backup("files")
    before = len(records(c, "verified"))
    (c.dir / "store/backups").rename(c.dir / "aside")
    (c.dir / "store/backups").mkdir()
    r = c.order("execute", "x", "failed", procedure_id=FILES, dry_run=True)
    assert r["error"]["kind"] == "io" and "mounted" in r["error"]["message"], r
    assert len(records(c, "verified")) == before
    (c.dir / "store/backups").rmdir()
    (c.dir / "aside").rename(c.dir / "store/backups")
    c.order("execute", "y", procedure_id=FILES, dry_run=True)


def case_a_backup_whose_manifest_is_damaged_is_red_when_its_turn_comes(c):
    ready(c, database=False)
    c.backup("files")
    (c.dir / "store/backups" / c.ids[FILES] / "manifest.sig").write_bytes(b"x" * 64)
    assert drill(c, "d0")["procedures"][FILES]["ok"]
    r = drill(c, "d1", "failed")
    assert r["error"]["kind"] == "integrity" and series(c)[0]["backup_id"] == c.ids[FILES] and not series(c)[0]["ok"], r
    assert drill(c, "d2")["procedures"][FILES]["ok"], "and the next one goes on"
    nothing_left(c)


def case_without_evidence_it_is_red(c):
    (c.dir / "empty/folder").mkdir(parents=True)
    c.store(files=[c.dir / "empty"], fill=lambda p: p.sql("CREATE ROLE gold LOGIN CREATEDB; GRANT pg_signal_backend TO gold; CREATE DATABASE shop OWNER gold"),
            DR_LANES=LANES)
    c.worker()
    c.backup()
    c.backup("files")
    r = drill(c, "d", "failed")
    for part in r["procedures"].values():
        assert not part["ok"] and part["evidence"]["error"]["reason"] == "no-evidence", part
    assert r["error"]["reason"] == "no-evidence" and not any(x["ok"] for x in series(c))


def case_a_comparison_of_rows_that_is_blind_is_found_out(c):
    ready(c, files=False, worker=False)
    c.worker(DR_FAULT="recovery.compare.blind:fail")
    r = drill(c, "d", "failed")
    e = evidence(c, r["procedures"][DB])
    assert "changed value" in r["error"]["message"] and r["error"]["reason"] == "self-test" and e["self_test"] == "failed", r
    assert not e["ok"] and not series(c)[0]["ok"]
    nothing_left(c)


def case_a_comparison_of_files_that_is_blind_is_found_out(c):
    ready(c, database=False, worker=False)
    c.worker(DR_FAULT="recovery.compare.blind:fail")
    r = drill(c, "d", "failed")
    e = evidence(c, r["procedures"][FILES])
    assert "flipped byte" in r["error"]["message"] and r["error"]["reason"] == "self-test" and e["self_test"] == "failed", r
    assert not e["ok"] and not series(c)[0]["ok"]
    nothing_left(c)


def case_a_recovery_that_would_be_refused_is_a_finding(c):
    ready(c)
    s = c.pg.session(user="postgres")
    r = drill(c, "d", "partial", procedure_id=DB)
    assert r["procedures"][DB]["ok"] and "superuser" in r["procedures"][DB]["evidence"]["findings"][0], r
    s.kill()
    s.wait()
    c.files.rename(c.dir / "away")
    c.files.write_text("no folder")
    r = drill(c, "e", "partial", procedure_id=FILES)
    assert r["procedures"][FILES]["ok"] and str(c.files) in r["procedures"][FILES]["evidence"]["findings"][0], r
    c.files.unlink()
    (c.dir / "away").rename(c.files)
    nothing_left(c)


def case_evidence_that_cannot_be_stored_is_red(c):
    ready(c, database=False, worker=False)
    c.worker(DR_FAULT="test-recovery.evidence:fail")
    r = drill(c, "d", "failed")
    assert not r["procedures"][FILES]["ok"] and "evidence" in r["error"]["message"] and not records(c, "drilled"), r
    assert drill(c, "e")["procedures"][FILES]["ok"]
    nothing_left(c)


# ---- the recovery code ----

def case_the_recovery_code_opens_the_keyring_once_a_month(c):
    ready(c, database=False, worker=False)
    code = c.drworker("keys", "add-recovery").strip()
    (c.dir / "code").write_text(code + "\n")
    w = c.worker(DR_RECOVERY_CODE_FILE=c.dir / "code")
    c.drworker("keys", "add-recovery")  # another one, of which nothing is known
    slot = next(s["id"] for s in json.loads(c.drworker("keys", "list", "--json"))["slots"] if s["kind"] == "recovery")
    assert drill(c, "d")["recovery_code"] == f"opened slot {slot} and the store's keys"
    proven = [x["data"] for x in records(c, "keys") if x["data"]["change"] == "proven"]
    assert proven == [{"change": "proven", "slot": slot, "kind": "recovery"}]
    assert drill(c, "e")["recovery_code"].startswith(f"slot {slot} was opened at ")
    c.kill(w)
    assert code not in w.log.read_text() and code not in str(c.job("d"))
    nothing_left(c)


def case_a_recovery_code_that_opens_nothing_is_red(c):
    ready(c, database=False, worker=False)
    code = c.drworker("keys", "add-recovery").strip()
    w = c.worker(DR_RECOVERY_CODE=code[:-1] + ("A" if code[-1].upper() != "A" else "B"))
    r = drill(c, "d", "failed")
    assert r["error"]["kind"] == "key" and r["procedures"][FILES]["ok"] and r["recovery_code"].startswith("failed: "), r
    c.kill(w, signal.SIGTERM)
    w = c.worker(DR_RECOVERY_CODE=c.settings["BACKUP_ENCRYPTION_PASSWORD"])
    r = drill(c, "e", "failed")
    assert "no recovery code" in r["error"]["message"], r
    assert not [x for x in records(c, "keys") if x["data"]["change"] == "proven"]
    nothing_left(c)


# ---- faults ----

def kill_at(c, points, database=True):
    """Killed there, followed by another worker: the drill ends well and nothing stays."""
    ready(c, worker=False, database=database, files=not database)
    for n, point in enumerate(points):
        w = c.worker(DR_FAULT=f"{point}:kill")
        c.push("test-recovery", {"id": f"k{n}", "t": "test-recovery", "a": {}})
        w.wait(30)
        other = c.worker()
        c.until(f"k{n}", "done", "failed", seconds=60)
        r = c.result(f"k{n}", "done")
        assert all(p["ok"] for p in r["procedures"].values()), point
        nothing_left(c)
        assert all(j[-1]["type"] == "run-closed" for j in journals(c)), point
        c.kill(other, signal.SIGTERM)


def case_killed_before_the_database_is_restored(c):
    kill_at(c, ["test-recovery.database.select.done", "test-recovery.database.prove.done", "test-recovery.database.restore.intent",
                "execute.restore.created"])


def case_killed_after_the_database_is_restored(c):
    kill_at(c, [f"test-recovery.database.{p}" for p in ("verify.intent", "self_test.intent", "properties.done", "remove.intent")])


def case_killed_before_the_tree_is_restored(c):
    kill_at(c, [f"test-recovery.file_system.{p}" for p in ("select.done", "preflight.intent", "preflight.done", "restore.intent")], database=False)


def case_killed_after_the_tree_is_restored(c):
    kill_at(c, [f"test-recovery.{p}" for p in ("file_system.verify.intent", "file_system.self_test.done", "file_system.remove.intent",
                                               "evidence")], database=False)


def case_killed_and_nobody_repeats_it(c):
    """The message is gone; what the drill made is removed by whoever looks at open journals."""
    ready(c, worker=False)
    for n, point in enumerate(("database.verify.intent", "file_system.verify.intent")):
        w = c.worker(DR_FAULT=f"test-recovery.{point}:kill")
        c.push("test-recovery", {"id": f"k{n}", "t": "test-recovery", "a": {}})
        w.wait(30)
        assert any("__dr_" in x for x in c.pg.databases()) or staging(c), point
        c.r.flushall()
        other = c.worker(DR_LANES="test-recovery:1")
        wait(lambda: not any("__dr_" in x for x in c.pg.databases()) and staging(c) == [])
        c.kill(other, signal.SIGTERM)
        nothing_left(c)


def case_cancel_and_drain_leave_nothing(c):
    ready(c, worker=False)
    for n, point in enumerate(("database.restore.done", "database.verify.done", "file_system.restore.done", "file_system.verify.done")):
        w = c.worker(DR_FAULT=f"test-recovery.{point}:sleep:3000")
        c.push("test-recovery", {"id": f"c{n}", "t": "test-recovery", "a": {}})
        step = point.rsplit(".", 1)[0]
        wait(lambda: c.job(f"c{n}").get("step") == step.encode())
        c.cli("cancel", f"c{n}")
        c.until(f"c{n}", "cancelled")
        nothing_left(c)
        c.kill(w, signal.SIGTERM)
    w = c.worker(DR_FAULT="test-recovery.file_system.restore.done:sleep:3000", DR_DRAIN_MS="100")
    c.push("test-recovery", {"id": "x", "t": "test-recovery", "a": {}})
    wait(lambda: c.job("x").get("step") == b"file_system.restore")
    c.kill(w, signal.SIGTERM)
    nothing_left(c)
    c.worker()
    c.until("x", "done")
    nothing_left(c)


def case_the_server_goes_away_while_it_drills(c):
    ready(c, files=False, worker=False)
    w = c.worker(DR_FAULT="test-recovery.database.restore.done:stop")
    c.push("test-recovery", {"id": "d", "t": "test-recovery", "a": {}})
    stopped(w)
    c.pg.stop()
    w.send_signal(signal.SIGCONT)
    c.until("d", "failed")
    part = c.result("d")["procedures"][DB]
    assert not part["ok"] and not part["evidence"]["removed"], part
    c.kill(w, signal.SIGTERM)
    c.pg.start()
    c.worker()
    wait(lambda: not any("__dr_" in n for n in c.pg.databases()))
    nothing_left(c)


@needs_root
def case_the_scratch_disk_is_full(c):
    ready(c, database=False, worker=False)
    scratch = c.dir / "scratch"
    scratch.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", scratch], check=True)
    try:
        c.worker(DR_DRILL_DIRECTORY=scratch)
        r = drill(c, "d", "failed")
        assert r["error"]["kind"] == "no-space" and str(scratch) in r["error"]["message"], r
        assert list(scratch.iterdir()) == []
        subprocess.run(["mount", "-o", "remount,size=64m", scratch], check=True)
        drill(c, "e")
        assert list(scratch.iterdir()) == []
        nothing_left(c)
    finally:
        subprocess.run(["umount", "-l", scratch], check=True)


def case_the_emergency_reserve_is_left_to_recoveries(c):
    ready(c, worker=False)
    c.worker(DR_DISK_RESERVE_BYTES="9007199254740991")
    r = drill(c, "d", "failed")
    for name, step in ((DB, "restore"), (FILES, "preflight")):
        e = r["procedures"][name]["evidence"]["error"]
        assert e["reason"] == "disk-reserve" and e["step"] == step, e
    nothing_left(c)


def case_a_scratch_folder_in_a_root_is_refused(c):
    ready(c, database=False, worker=False)
    c.worker(DR_DRILL_DIRECTORY=c.files / "photos")
    r = drill(c, "d", "failed")
    assert "DR_DRILL_DIRECTORY" in r["error"]["message"] and "lies in root" in r["error"]["message"], r
    nothing_left(c)


def case_redis_detail_false_keeps_paths_out(c):
    ready(c, database=False, worker=False)
    c.worker(DR_REDIS_DETAIL="false")
    r = drill(c, "d")
    assert str(c.dir).encode() not in msgpack.packb(r) and evidence(c, r["procedures"][FILES])["roots"][0]["path"] == str(c.files)


if __name__ == "__main__":
    run(globals(), at_once=3)
