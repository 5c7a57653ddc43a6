#!/usr/bin/env python3
"""Retention on a store: what the plan says goes to trash/, later it is purged, and nothing that somebody reads, has
pinned, needs for a recovery or for another backup goes at all, whoever is killed or writes to the catalog meanwhile."""
import datetime
import fcntl
import json
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import time

import msgpack

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import clock  # noqa: E402
import dr  # noqa: E402
import trees  # noqa: E402

# One a day is kept, in a zone where it is neither just before nor just after midnight.
ZONE = "UTC" if 6 <= datetime.datetime.now(datetime.timezone.utc).hour < 18 else "Etc/GMT+12"
ONE_A_DAY = {"RETENTION_HOURLY_HOURS": 0, "RETENTION_DAILY_DAYS": 30, "RETENTION_WEEKLY_WEEKS": 0,
             "RETENTION_MONTHLY_MONTHS": 0, "RETENTION_YEARLY_YEARS": 0, "RETENTION_MIN_KEEP": 1,
             "RETENTION_KEEP_OLDEST": "false", "RETENTION_TZ": ZONE, "RETENTION_GRACE_HOURS": 0}


def ids(store, folder):
    return sorted(p.name for p in (store / folder).iterdir())


def catalog(store):
    lines = "".join(p.read_text() for p in sorted((store / "catalog/log").iterdir()))
    return [json.loads(line) for line in lines.splitlines()]


def told(store, kind):
    return [r["backup_id"] for r in catalog(store) if r["type"] == kind]


def made(case, *rows):
    """Backups of chosen times: rows of (days ago, class, proof); their ids. They need no worker."""
    now = datetime.datetime.now(datetime.timezone.utc)
    case.rows = getattr(case, "rows", 0)
    lines = []
    for days, kind, proof in rows:
        case.rows += 1
        at = (now - datetime.timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")
        lines.append(f"{at} {kind} made-{case.rows} {proof}\n")
    p = subprocess.run([dr.BIN / "tests/dr_store_maker"], input="".join(lines), text=True, capture_output=True,
                       env=case.environment(), timeout=120)
    assert p.returncode == 0, p.stderr
    return p.stdout.split()


def today(case, count):
    """So many backups of today, oldest first, a second apart: all but the last may go."""
    return made(case, *[((count - i) / 86400, "scheduled", "proven") for i in range(count)])


def set_up(case, **env):
    store = case.store(database=False, files=True, **{**ONE_A_DAY, **env})
    return store


def whole(case, store):
    """The catalog's chain, and every byte of what is live."""
    result = case.order("verify", f"whole-{case.r.dbsize()}-{os.urandom(4).hex()}", all=True)
    assert result["bad"] == [] and sorted(result["checked"]) == ids(store, "backups"), result


def case_what_the_plan_says_is_given_up_then_purged(case):
    store = set_up(case)
    old = today(case, 3)
    case.worker()
    first = case.order("retention", "r1")
    assert sorted(first["delete"]) == sorted(old[:2]) and first["keep"] == [old[2]], first
    assert first["reasons"][old[0]] == ["displaced"] and "daily" in first["reasons"][old[2]]
    assert sorted(first["tombstoned"]) == sorted(old[:2]) and first["purged"] == [] and first["applied"] is True
    assert ids(store, "trash") == sorted(old[:2]) and ids(store, "backups") == [old[2]]
    listed = {b["backup_id"]: b for b in case.backups()}
    assert listed[old[0]]["tombstoned_at"] and listed[old[0]]["purge_after"] and not listed[old[2]]["tombstoned_at"]
    assert "given up, to be purged after" in case.drworker("backups")
    size = sum(p.stat().st_size for i in old[:2] for p in (store / "trash" / i).iterdir() if p.suffix == ".drb")
    second = case.order("retention", "r2")
    assert sorted(second["purged"]) == sorted(old[:2]) and second["tombstoned"] == [], second
    assert second["freed_bytes"] == size and ids(store, "trash") == []
    assert sorted(told(store, "purged")) == sorted(old[:2])
    third = case.order("retention", "r3")
    assert (third["delete"], third["tombstoned"], third["purged"]) == ([], [], []) and third["keep"] == [old[2]]
    whole(case, store)
    case.drworker("check", DATABASE_URL=None)


def case_the_grace_time_is_kept(case):
    store = set_up(case, RETENTION_GRACE_HOURS=1)
    old = today(case, 2)
    case.worker()
    case.order("retention", "r1")
    result = case.order("retention", "r2")
    assert result["purged"] == [] and result["waiting"] == 1 and ids(store, "trash") == old[:1], result


def case_a_dry_run_changes_nothing(case):
    store = set_up(case)
    old = today(case, 3)
    case.worker()

    def state():
        files = {p.relative_to(store): p.stat().st_mtime_ns for folder in ("backups", "trash")
                 for p in (store / folder).rglob("*")}
        return files, [r for r in catalog(store) if r["type"] != "audit"]

    before = state()
    result = case.order("retention", "r", dry_run=True)
    assert sorted(result["delete"]) == sorted(old[:2]) and result["tombstoned"] == [] and result["applied"] is False
    assert state() == before
    assert "2 would be given up; to do it: drproducer retention" in result["summary"], result
    case.cli("retention", "--dry-run", "--wait", "--id", "again")
    assert case.result("again", "done")["plan_hash"] == result["plan_hash"] and state() == before


def read_lock(path):
    """As a reader of another process holds it; kept until the file is closed."""
    f = open(path, "rb")
    fcntl.fcntl(f, 37, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 0, 0, 0))  # F_OFD_SETLK
    return f


def case_who_reads_a_backup_keeps_it(case):
    store = set_up(case)
    old = today(case, 3)
    case.worker()
    reader = read_lock(store / "backups" / old[0] / "manifest.json")
    result = case.order("retention", "r1")
    assert "leased" in result["reasons"][old[0]] and old[0] in result["keep"] and result["tombstoned"] == [old[1]], result
    reader.close()
    reader = read_lock(store / "trash" / old[1] / "manifest.json")  # one that found it before it was given up
    result = case.order("retention", "r2")
    assert result["held"] == {old[1]: "leased"} and result["tombstoned"] == [old[0]] and result["purged"] == [], result
    reader.close()
    assert sorted(case.order("retention", "r3")["purged"]) == sorted(old[:2])


def stopped_at(case, point, jid, lane="retention", **args):
    """A worker that stops itself at a fault point while it runs this order."""
    w = case.worker(DR_FAULT=f"{point}:stop", DR_LEASE_MS="120000", DR_LANES=lane)
    case.push(lane, {"id": jid, "t": lane, "a": args})
    dr.stopped(w)
    return w


def case_a_reader_that_comes_between_plan_and_act_keeps_it(case):
    store = set_up(case)
    old = today(case, 3)
    w = stopped_at(case, "retention.tombstone.intent", "r")
    reader = read_lock(store / "backups" / old[1] / "manifest.json")
    w.send_signal(signal.SIGCONT)
    case.until("r", "done")
    result = case.result("r", "done")
    assert result["spared"] == {old[1]: "in_use"} and result["tombstoned"] == [old[0]], result
    assert old[1] in ids(store, "backups")
    reader.close()


def case_what_is_written_between_plan_and_act_counts(case):
    """A pin, a new backup, a proof that fails: the plan is made again before anything goes."""
    store = set_up(case)
    old = today(case, 4)
    w = stopped_at(case, "retention.tombstone.intent", "r1")
    case.drworker("backups", "--pin", old[1], "--reason", "for the auditor")
    w.send_signal(signal.SIGCONT)
    case.until("r1", "done")
    result = case.result("r1", "done")
    assert result["spared"] == {old[1]: "pinned"} and sorted(result["tombstoned"]) == sorted([old[0], old[2]]), result
    case.kill(w)
    case.drworker("backups", "--unpin", old[1])
    w = stopped_at(case, "retention.tombstone.intent", "r2")
    new = made(case, (0, "scheduled", "damaged"))
    w.send_signal(signal.SIGCONT)
    case.until("r2", "done")
    result = case.result("r2", "done")
    assert result["delete"] == [old[1]] and result["tombstoned"] == [] and result["spared"] == {old[1]: "frozen"}, result
    assert ids(store, "backups") == sorted([old[1], old[3], *new])


def case_what_a_restore_reads_or_left_open_is_untouchable(case):
    store = set_up(case)
    case.worker(DR_LANES="backup,verify,retention")
    taken = [scheduled(case, f"b{i}") for i in range(3)]
    case.order("verify", "v", all=True)
    restorer = stopped_at(case, "execute.restore.intent", "x", lane="execute", procedure_id="file_system_recovery",
                          backup_id=taken[0])
    result = case.order("retention", "r1")
    assert {"leased", "journal"} <= set(result["reasons"][taken[0]]) and result["tombstoned"] == [taken[1]], result
    case.kill(restorer)  # its lock is gone, its journal is open
    result = case.order("retention", "r2")
    assert "journal" in result["reasons"][taken[0]] and result["tombstoned"] == [], result
    assert taken[0] in ids(store, "backups")


def scheduled(case, jid):
    (case.files / jid).write_text(jid)
    return case.backup("files", jid, **{"class": "scheduled"})


def case_pins(case):
    store = set_up(case)
    old = today(case, 3)
    case.worker()
    assert "pinned" in case.drworker("backups", "--pin", old[0], "--reason", "court case 12/26")
    assert "so already" in case.drworker("backups", "--pin", old[0], "--reason", "court case 12/26")
    listed = {b["backup_id"]: b for b in case.backups()}
    assert listed[old[0]]["keep"] == ["pinned"] and listed[old[0]]["pin"]["reason"] == "court case 12/26", listed
    assert "@" in listed[old[0]]["pin"]["actor"] and listed[old[0]]["pin"]["until"] is None
    assert "pinned: court case 12/26" in case.drworker("backups")
    result = case.order("retention", "r1")
    assert result["reasons"][old[0]] == ["pinned"] and result["tombstoned"] == [old[1]], result
    assert "pinned already" not in case.drworker("backups", "--unpin", old[0])
    assert "is not pinned" in case.drworker("backups", "--unpin", old[0])
    for words, code, says in [
            (("--pin", old[0]), 2, "--reason"), (("--pin", old[0], "--reason", " "), 2, "--reason"),
            (("--pin", old[0], "--reason", "a\tb"), 2, "control"),
            (("--pin", old[0], "--reason", "x" * 257), 2, "256"),
            (("--pin", old[0], "--reason", "x", "--until", "tomorrow"), 2, "--until"),
            (("--pin", old[0], "--reason", "x", "--until", "2020-01-01T00:00:00Z"), 2, "over"),
            (("--pin", "../../etc", "--reason", "x"), 2, "not the id"), (("--unpin", old[0], "--undelete", old[0]), 2, "one change"),
            (("--unpin", old[0], "--reason", "x"), 2, "takes no --reason"), (("--pin",), 2, "--pin"),
            (("--pin", "20260102T030405Z-files-aaaaaaaa", "--reason", "x"), 1, "no backup"),
            (("--undelete", "20260102T030405Z-files-aaaaaaaa"), 1, "no backup"),
            (("--pin", old[1], "--reason", "x"), 4, "--undelete")]:
        error = case.drworker("backups", *words, code=code)
        assert says in error, (words, error)
    assert json.loads(case.drworker("backups", "--pin", old[0], "--reason", "again", "--until", "2099-01-01T00:00:00Z",
                                    "--json"))["changed"] is True
    assert "pinned until 2099-01-01 00:00: again" in case.drworker("backups")
    case.drworker("backups", "--unpin", old[0])
    assert case.order("retention", "r2")["tombstoned"] == [old[0]]
    assert ids(store, "backups") == [old[2]]


def case_undelete_brings_it_back_whole(case):
    store = set_up(case, RETENTION_GRACE_HOURS=1)
    case.worker()
    before = {}
    taken = []
    for i in range(2):
        taken.append(scheduled(case, f"b{i}"))
        before[taken[i]] = trees.content(case.files) if hasattr(trees, "content") else None
    case.order("verify", "v1", all=True)
    assert case.order("retention", "r1")["tombstoned"] == taken[:1]
    refused = case.order("execute", "x1", "refused", procedure_id="file_system_recovery", backup_id=taken[0])
    assert "--undelete" in refused["error"]["message"] and taken[0] in refused["error"]["message"], refused
    shutil.rmtree(case.files / "deep", ignore_errors=True)
    assert "brought back" in case.drworker("backups", "--undelete", taken[0])
    assert "not given up" in case.drworker("backups", "--undelete", taken[0])
    assert ids(store, "backups") == sorted(taken) and ids(store, "trash") == []
    assert case.order("verify", "v2", backup_id=taken[0])["bad"] == []
    result = case.order("execute", "x2", procedure_id="file_system_recovery", backup_id=taken[0])
    assert result["backup_id"] == taken[0] and not (case.files / "b1").exists() and (case.files / "b0").exists()
    whole(case, store)


def case_killed_at_every_point(case):
    """Each point with the worker that follows: the plan's end is reached, what is kept verifies."""
    store = set_up(case)
    points = ["retention.plan.done", "publish.line", "publish.head", "trash.tombstone.record", "trash.tombstone.rename",
              "retention.tombstone.done", "trash.purge.object", "trash.purge.data", "trash.purge.manifest",
              "trash.purge.record", "retention.purge.done"]
    given_up = []
    for i, point in enumerate(points):
        new = today(case, 2)
        if "purge" in point:  # of what a healthy run gave up
            healthy = case.worker()
            assert new[0] in case.order("retention", f"before-{i}")["tombstoned"], point
            case.kill(healthy, signal.SIGTERM)
        before = ids(store, "trash")
        w = case.worker(DR_FAULT=f"{point}:kill", DR_LEASE_MS="500")
        case.push("retention", {"id": f"r{i}", "t": "retention", "a": {}})
        assert w.wait(30) == -signal.SIGKILL, point
        for b in case.backups():  # who only reads is not alarmed by what he finds
            assert b["damaged"] is None, (point, b)
        follower = case.worker(DR_LEASE_MS="500")
        case.until(f"r{i}", "done", seconds=60)
        case.kill(follower, signal.SIGTERM)
        assert ids(store, "backups") == [new[1]], (point, ids(store, "backups"))
        assert not set(before) & set(ids(store, "trash")), point
        given_up += [new[0]]
    follower = case.worker()
    case.order("retention", "last")
    assert ids(store, "trash") == []
    for kind in ("tombstoned", "purged"):
        assert len(told(store, kind)) == len(set(told(store, kind))), kind
    assert set(given_up) <= set(told(store, "purged"))
    whole(case, store)


def case_undelete_killed_between_record_and_rename(case):
    store = set_up(case)
    old = today(case, 2)
    case.worker()
    case.order("retention", "r1")
    for point in ("trash.undelete.record", "trash.undelete.rename"):
        p = subprocess.run([dr.BIN_FAULTS / "drworker", "backups", "--undelete", old[0]], capture_output=True,
                           env=case.environment(DR_FAULT=f"{point}:kill"))
        assert p.returncode == -signal.SIGKILL, (point, p)
        assert not [b for b in case.backups() if b["tombstoned_at"] or b["damaged"]]
        assert case.order("verify", f"v-{point}", backup_id=old[0])["bad"] == []  # found where it was left
        case.worker()  # its start puts the folder right
        assert ids(store, "backups") == sorted(old) and ids(store, "trash") == [], point
        assert case.order("retention", f"r-{point}")["tombstoned"] == [old[0]]
    whole(case, store)


def old_ones(case, days, count):
    """So many backups of one day, all proven."""
    return made(case, *[(days + (count - i) / 86400, "scheduled", "proven") for i in range(count)])


def case_a_large_plan_waits_for_its_hash(case):
    store = set_up(case, RETENTION_MAX_DELETE=2)
    old = old_ones(case, 10, 5) + today(case, 1)
    worker = case.worker()
    error = case.order("retention", "r1", "refused")
    plan = error["plan_hash"]
    assert error["error"]["kind"] == "refused" and f"drproducer retention --plan {plan}" in error["error"]["message"], error
    assert "max-delete" in error["confirm"] and sorted(error["delete"]) == sorted(old[:4])
    assert error["tombstoned"] == [] and ids(store, "trash") == [] and len(ids(store, "backups")) == 6
    assert told(store, "tombstoned") == []
    unknown = case.order("retention", "r2", "refused", plan="0" * 64)
    assert unknown["error"]["field"] == "a.plan" and "--dry-run" in unknown["error"]["message"], unknown
    case.push("retention", {"id": "r3", "t": "retention", "a": {"plan": plan, "dry_run": True}})
    assert b"exclude each other" in case.until("r3", "failed")["err"]
    case.drworker("backups", "--pin", old[0], "--reason", "kept")  # an older plan: what both give up
    case.cli("retention", "--plan", plan, "--wait", "--id", "r4")
    result = case.result("r4", "done")
    assert result["plan_hash"] != plan and sorted(result["tombstoned"]) == sorted(old[1:4]), result
    assert ids(store, "trash") == sorted(old[1:4])
    case.kill(worker, signal.SIGTERM)
    more = old_ones(case, 20, 4)
    case.worker()
    plan = case.order("retention", "r5", dry_run=True)["plan_hash"]
    assert sorted(case.order("retention", "r6", plan=plan)["tombstoned"]) == sorted(more[:3])
    case.worker(RETENTION_MIN_KEEP=2)  # and another policy is no confirmation
    whole(case, store)


def said(case, rule, subject):
    """The feed's last word on an alert: (state, summary)."""
    words = [e for _, e in case.r.xrange("{dr}:ev") if (e.get(b"e"), e.get(b"rule"), e.get(b"subject")) ==
             (b"alert", rule.encode(), subject.encode())]
    return (words[-1][b"state"].decode(), words[-1][b"summary"].decode()) if words else ("", "")


def case_what_the_last_run_came_to_is_told(case):
    """Field `retention` of info; a plan that waits is a warning of health and an alert that say what to type."""
    store = set_up(case, RETENTION_MAX_DELETE=2)
    info = lambda: msgpack.unpackb(case.r.hget("{dr}:info", "retention"))  # noqa: E731
    gate = lambda jid: {c["name"]: c for c in case.order("health", jid)["checks"]}["retention"]  # noqa: E731
    old = old_ones(case, 10, 5) + today(case, 2)
    case.worker()
    assert gate("h0")["status"] == "not_configured"
    case.order("retention", "dry", dry_run=True)
    assert not case.r.hexists("{dr}:info", "retention")
    result = case.order("retention", "r1", "refused")
    plan, told_ = result["plan_hash"], info()
    assert (told_["plan_hash"], told_["waiting_for_yes"], told_["confirm"]) == (plan, 5, result["confirm"]), told_
    assert (told_["tombstoned"], told_["given_up"], told_["kept"], told_["job"]) == (0, 5, 2, "r1"), told_
    assert told_["policy"]["RETENTION_MAX_DELETE"] == "2" and told_["policy"]["RETENTION_TZ"] == ZONE, told_
    assert len(told_["policy"]) >= 10 and abs(told_["at"] / 1000 - time.time()) < 600
    g = gate("h1")
    assert (g["status"], g["value"]) == ("warning", 5) and f"drproducer retention --plan {plan}" in g["detail"], g
    dr.wait(lambda: said(case, "retention_waits", "retention")[0] == "firing")
    assert f"retention --plan {plan}" in said(case, "retention_waits", "retention")[1]
    case.order("retention", "r2", plan=plan)
    assert (info()["waiting_for_yes"], info()["tombstoned"], info()["confirm"]) == (0, 5, []), info()
    assert gate("h2")["status"] == "ok" and ids(store, "backups") == sorted([old[4], old[6]])
    dr.wait(lambda: said(case, "retention_waits", "retention")[0] == "resolved")


def case_another_policy_waits_for_its_hash(case):
    store = set_up(case)
    old = old_ones(case, 3, 1) + old_ones(case, 2, 1) + today(case, 2)
    worker = case.worker()
    plan = case.order("retention", "r1")["plan_hash"]
    assert ids(store, "trash") == [old[2]]
    case.kill(worker, signal.SIGTERM)
    case.worker(RETENTION_DAILY_DAYS=1)
    error = case.order("retention", "r2", "refused")
    assert error["confirm"] == ["policy-changed"] and sorted(error["delete"]) == sorted(old[:2]), error
    assert "other values" in case.order("retention", "r3", "refused", plan=plan)["error"]["message"]
    assert sorted(case.order("retention", "r4", plan=error["plan_hash"])["tombstoned"]) == sorted(old[:2])
    today(case, 1)
    assert case.order("retention", "r5")["tombstoned"] == [old[3]]  # asked once


def case_a_policy_that_could_give_nothing_up_is_still_another_one(case):
    """A nightly run while the series stands still is nobody's yes to what it does afterwards."""
    store = set_up(case)
    old = old_ones(case, 3, 1) + old_ones(case, 2, 1) + today(case, 2)
    worker = case.worker()
    case.order("retention", "r1")
    future = made(case, (-2, "scheduled", "proven"))
    case.kill(worker, signal.SIGTERM)
    case.worker(RETENTION_DAILY_DAYS=1)
    assert case.order("retention", "night")["delete"] == []
    case.drworker("backups", "--acknowledge", future[0])
    error = case.order("retention", "r2", "refused")
    assert error["confirm"] == ["policy-changed"] and set(error["delete"]) >= set(old[:2]), error
    assert ids(store, "backups") == sorted([*old[:2], old[3], *future])
    assert set(case.order("retention", "r3", plan=error["plan_hash"])["tombstoned"]) >= set(old[:2])


def case_only_an_operator_gives_up(case):
    store = set_up(case)
    old = today(case, 2)
    path = case.dir / "keys"
    path.write_text(case.cli("keys", "new", "ops", "operator") + case.cli("keys", "new", "app", "app"))
    path.chmod(0o600)
    case.worker(DR_SIGN_KEYS_FILE=path, DR_ALLOW_UNSIGNED="false")
    for kid, jid in (("app", "a1"), (None, "u1")):
        signing = {"DR_SIGN_KEYS_FILE": str(path), "DR_SIGN_KID": kid} if kid else {}
        case.cli("retention", "--id", jid, env=signing)
        dr.wait(lambda: [d for d in case.dead() if d["jid"] == jid and d["reason"] == "auth"])
        case.cli("retention", "--dry-run", "--wait", "--id", jid + "-dry", env=signing)
        assert case.result(jid + "-dry", "done")["delete"] == old[:1]
    assert ids(store, "trash") == []
    case.cli("retention", "--wait", "--id", "o1", env={"DR_SIGN_KEYS_FILE": str(path), "DR_SIGN_KID": "ops"})
    assert case.result("o1", "done")["tombstoned"] == old[:1] == ids(store, "trash")


def case_bad_variables_delete_nothing(case):
    store = set_up(case)
    old = today(case, 3)
    for name, value, says in [("RETENTION_DAILY_DAYS", "", "0..3650"), ("RETENTION_DAILY_DAYS", "-1", "0..3650"),
                              ("RETENTION_DAILY_DAYS", "99999999999999999999", "0..3650"),
                              ("RETENTION_WEEKLY_WEEKS", "four", "0..520"), ("RETENTION_MIN_KEEP", "0", "1..1000"),
                              ("RETENTION_GRACE_HOURS", "1e3", "0..8760"), ("RETENTION_KEEP_OLDEST", "maybe", "true nor false"),
                              ("RETENTION_DAILY_DAY", "7", "RETENTION_DAILY_DAYS is meant")]:
        p = case.worker(wait_up=False, **{name: value})
        assert p.wait(30) == 2, (name, value)
        text = p.log.read_text()
        assert name in text and says in text and f"={value}" in text or "meant" in text, text
    for i, (env, name, says) in enumerate([({"RETENTION_DAILY_DAYS": 0}, "RETENTION_DAILY_DAYS", "a policy without a rule"),
                                           ({"RETENTION_TZ": "Mars/Olympus"}, "RETENTION_TZ", "Mars/Olympus"),
                                           ({"RETENTION_TZ": "../../etc/passwd"}, "RETENTION_TZ", "passwd")]):
        p = case.worker(**env)
        result = case.order("retention", f"r{i}", "failed")
        error = result["error"]
        assert error["kind"] == "config" and error["field"] == name and says in error["message"] + error["value"], result
        case.kill(p, signal.SIGTERM)
    assert ids(store, "backups") == sorted(old) and ids(store, "trash") == []


def case_what_was_displaced_is_not_purged_when_the_better_one_turns_bad(case):
    store = set_up(case)
    old = today(case, 2)
    case.worker()
    assert case.order("retention", "r1")["tombstoned"] == old[:1]
    victim = store / "backups" / old[1] / "files.drb"
    victim.write_bytes(bytes([victim.read_bytes()[0] ^ 1]) + victim.read_bytes()[1:])
    case.order("verify", "v1", "failed", all=True)
    result = case.order("retention", "r2")
    assert result["purged"] == [] and result["held"] == {old[0]: "daily"} and "held" in result["summary"], result
    case.drworker("backups", "--undelete", old[0])
    assert case.order("verify", "v2", backup_id=old[0])["bad"] == []
    assert "frozen" in case.order("retention", "r3")["reasons"][old[0]]


def without_rights(case):
    """Workers of this case go by the modes of files, also where the tests run as root."""
    folder = case.dir / "bin"
    folder.mkdir()
    setpriv = "setpriv --bounding-set -dac_override,-dac_read_search " if dr.ROOT else ""
    (folder / "drworker").write_text(f'#!/bin/sh\nexec {setpriv}{dr.BIN.resolve()}/drworker "$@"\n')
    (folder / "drworker").chmod(0o755)
    case.bin = folder


def case_what_could_not_be_read_keeps_older_ones(case):
    """While the oldest of what is kept lacks a file, whatever is older and whole stays."""
    store = set_up(case, BACKUP_ALLOW_UNREADABLE="true")
    old = old_ones(case, 40, 2)
    without_rights(case)
    case.worker()
    secret = case.files / "secret"
    secret.write_text("not for the worker")
    secret.chmod(0)
    lacks = case.order("backup", "b1", "partial", kind="files", **{"class": "scheduled"})["backup_id"]
    said_ = [r["data"] for r in catalog(store) if r["backup_id"] == lacks]
    assert [d.get("unreadable") for d in said_] == [1], said_
    case.order("verify", "v1", all=True)
    assert [r["data"]["unreadable"] for r in catalog(store) if r["type"] == "verified" and r["backup_id"] == lacks] == [1]
    result = case.order("retention", "r1")
    assert result["tombstoned"] == result["delete"] == [], result
    assert {i: result["reasons"][i] for i in old} == {i: ["suspect-after"] for i in old}, result
    secret.chmod(0o600)
    whole_ = case.order("backup", "b2", kind="files", **{"class": "scheduled"})["backup_id"]
    result = case.order("retention", "r2", dry_run=True)
    assert "runner-up" in result["reasons"][lacks] and result["delete"] == [], result
    case.order("verify", "v2", all=True)
    result = case.order("retention", "r3", dry_run=True)
    assert sorted(result["delete"]) == sorted([lacks, *old]) and result["keep"] == [whole_], result


def case_a_drill_that_restored_something_else_keeps_older_ones(case):
    """Every byte is proven, and yet it is not what was saved: a made-up tree has no roots."""
    store = set_up(case)
    old = old_ones(case, 40, 2)
    new, = today(case, 1)
    case.worker()
    assert sorted(case.order("retention", "r1", dry_run=True)["delete"]) == sorted(old)
    case.order("test-recovery", "t1", "failed", procedure_id="file_system_recovery", backup_id=new)
    drilled = [r["data"] for r in catalog(store) if r["type"] == "drilled"]
    assert [(d["ok"], d["kind"]) for d in drilled] == [(False, "integrity")], drilled
    result = case.order("retention", "r2")
    assert result["tombstoned"] == result["delete"] == [], result
    assert {i: result["reasons"][i] for i in old} == {i: ["suspect-after"] for i in old}, result


def case_lost_manifests_stop_their_kind_until_a_person_decides(case):
    store = set_up(case)
    old = today(case, 4)
    (store / "backups" / old[0] / "manifest.json").unlink()
    shutil.rmtree(store / "backups" / old[1])
    case.worker()
    result = case.order("retention", "r1")
    assert result["tombstoned"] == [] and "frozen" in result["reasons"][old[2]] and "unknown" in result["reasons"][old[0]], result
    assert "needs --reason" in case.drworker("backups", "--give-up", old[0], code=2)
    reader = read_lock(store / "backups" / old[3] / "manifest.json")
    assert "being read" in case.drworker("backups", "--give-up", old[3], "--reason", "x", code=5)
    reader.close()
    for i in (0, 1):
        assert "given up" in case.drworker("backups", "--give-up", old[i], "--reason", "the disk lost it")
    assert "given up already" in case.drworker("backups", "--give-up", old[1], "--reason", "the disk lost it")
    result = case.order("retention", "r2")
    assert result["tombstoned"] == [old[2]] and sorted(result["purged"]) == sorted(old[:2]), result
    case.drworker("check", DATABASE_URL=None)
    whole(case, store)


@dr.needs_root
def case_a_full_disk_is_made_room_on(case):
    store = set_up(case)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", store], check=True)
    try:
        old = today(case, 2)
        worker = case.worker()
        assert case.order("retention", "r1")["tombstoned"] == [old[0]]
        new = today(case, 2)
        with open(store / "full", "wb", buffering=0) as f:
            try:
                while True:
                    f.write(bytes(4096))
            except OSError:
                pass
        result = case.order("retention", "r2")
        assert result["purged"] == [old[0]] and sorted(result["tombstoned"]) == sorted([old[1], new[0]]), result
        assert b"retention.no_room" in worker.log.read_bytes()
        (store / "full").unlink()
        whole(case, store)
    finally:
        for p in case.processes:
            if p.poll() is None:
                case.kill(p)
        subprocess.run(["umount", "-l", store], check=True)


def case_two_workers_at_once(case):
    store = set_up(case)
    for _ in range(2):
        case.worker()
    given_up = []
    for i in range(4):
        given_up += today(case, 4)[:3]
        case.push_many("retention", [{"id": f"r{i}-{k}", "t": "retention", "a": {}} for k in range(4)])
        for k in range(4):
            case.until(f"r{i}-{k}", "done", seconds=60)
        results = [case.result(f"r{i}-{k}", "done") for k in range(4)]
        done = [b for r in results for b in r["tombstoned"]]
        assert len(done) == len(set(done)), done
    case.order("retention", "last")
    for kind in ("tombstoned", "purged"):
        assert len(told(store, kind)) == len(set(told(store, kind))), kind
    assert set(given_up) <= set(told(store, "purged")) and len(ids(store, "backups")) == 1
    whole(case, store)


def case_a_backup_of_the_future_stops_its_series(case):
    store = set_up(case)
    old = today(case, 3)
    future = made(case, (-2, "scheduled", "proven"))
    case.worker()
    result = case.order("retention", "r1")
    assert result["tombstoned"] == [] and "clock-anomaly" in result["reasons"][old[0]], result
    assert "acknowledged" in case.drworker("backups", "--acknowledge", future[0])
    assert sorted(case.order("retention", "r2")["tombstoned"]) == sorted(old[:2])
    assert ids(store, "backups") == sorted([old[2], *future])


def case_a_clock_that_is_wrong_by_a_day_deletes_nothing(case):
    store = set_up(case)
    old = today(case, 3)
    case.worker()
    assert case.order("retention", "r1", dry_run=True)["delete"]
    for i, hours in enumerate((24, -24)):
        redis = clock.Clock(case, clock.ms(datetime.datetime.now(clock.UTC).replace(tzinfo=None).isoformat()) + hours * 3600000)
        result = case.order("retention", f"r2-{i}", "refused")
        assert ("behind" if hours > 0 else "ahead of") in result["error"]["message"] and result["tombstoned"] == [], result
        result = case.order("retention", f"r3-{i}", dry_run=True)
        assert result["delete"] == [] and "clock-anomaly" in result["reasons"][old[0]], result
        redis.map.close()
    assert ids(store, "backups") == sorted(old) and ids(store, "trash") == []


def case_ten_days_under_the_default_policy(case):
    """Redis and worker live through ten days: what is given up can be taken back for 72 hours, then it is gone."""
    store = case.store(database=False, files=True)
    now = clock.ms("2026-05-01T02:00:00")
    day = clock.Clock(case, now)
    # A worker too slow to be asked between two steps must not lose its jobs to the leap.
    case.worker(LD_PRELOAD=day.env["LD_PRELOAD"], DR_CLOCK_FILE=day.env["DR_CLOCK_FILE"], DR_LEASE_MS="600000")
    taken = {}
    for n in range(10):
        for hour in (2, 14):
            day.set(now + (n * 24 + hour - 2) * 3600000 + n * 60000)  # never exactly at a cut
            bid = scheduled(case, f"b{n}-{hour}")
            assert bid.startswith(f"202605{n + 1:02d}T{hour:02d}"), bid
            taken[bid] = day.now()
        case.order("verify", f"v{n}", all=True)
        case.order("retention", f"r{n}")
    at = {kind: {r["backup_id"]: clock.ms(r["at"][:-1]) for r in catalog(store) if r["type"] == kind}
          for kind in ("tombstoned", "purged")}
    live = ids(store, "backups")
    # The oldest, the last of its ISO week, of the last seven days the last, of the last 48 hours all.
    assert [b[6:11] for b in live] == ["01T02", "03T14", "04T14", "05T14", "06T14", "07T14", "08T14",
                                       "09T02", "09T14", "10T02", "10T14"], live
    for bid, when in at["purged"].items():
        assert when - at["tombstoned"][bid] >= 72 * 3600000, bid
    assert set(at["tombstoned"]) - set(at["purged"]) == set(ids(store, "trash")), at
    assert len(at["purged"]) >= 3 and set(taken) == set(live) | set(at["tombstoned"])
    whole(case, store)


if __name__ == "__main__":
    sys.exit(dr.run(globals(), at_once=3))
