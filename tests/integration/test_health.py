#!/usr/bin/env python3
"""health: each gate turned red by its real cause, and green again. The status is that of the worst gate."""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import msgpack

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))

import dr
from clock import Clock
from exposition import scrape
from monitored import listening
from test_backup import who_may_not_read_all


def health(case):
    case.asked = getattr(case, "asked", 0) + 1
    return case.order("health", f"health-{case.asked}")


def checks(result):
    return {c["name"]: c for c in result["checks"]}


def gate(case, name):
    return checks(health(case))[name]


def until(case, name, status):
    """Asks again until that gate stands so."""
    return dr.wait(lambda: (lambda g: g if g["status"] == status else None)(gate(case, name)))


def told(case, rule, subject, state):
    """Waits until the feed's last word on that alert is this state."""
    def last():
        words = [e for _, e in case.r.xrange("{dr}:ev") if (e.get(b"e"), e.get(b"rule"), e.get(b"subject")) ==
                 (b"alert", rule.encode(), subject.encode())]
        return words and words[-1][b"state"].decode() == state
    dr.wait(last)


def firing(case):
    """Rules of the alerts that stand."""
    return {k.decode().split()[0] for k in case.r.hkeys("{dr}:alert")}


def case_nothing_is_configured(case):
    """A worker with no store and no database is not ill: there is nothing to judge."""
    case.worker(DR_LANES="health,noop")
    result = health(case)
    stands = {c["name"]: c["status"] for c in result["checks"]}
    assert (result["status"], result["score"]) == ("ok", 100), result
    assert stands.pop("workers") == stands.pop("clock") == "ok"
    assert set(stands.values()) == {"not_configured"}, stands


def case_backups(case):
    case.store(database=False, files=True)
    case.worker()
    result = health(case)
    assert result["status"] == "critical" and result["outcome"] == "done"
    stands = checks(result)
    assert stands["backup-files"]["status"] == "critical" and stands["backup-full"]["status"] == "critical"
    assert stands["backup-database"]["status"] == "not_configured"
    assert "value" not in stands["backup-database"]
    case.backup("files")
    stands = checks(health(case))
    assert stands["backup-files"]["status"] == stands["backup-full"]["status"] == "ok"
    assert stands["backup-files"]["limit"] == 86400 and 0 <= stands["backup-files"]["value"] < 600
    assert stands["proof"]["status"] == "ok" and stands["catalog"]["status"] == "ok"
    assert stands["drill"]["status"] == "warning"  # young, but never rehearsed


def case_stale_backup(case):
    case.store(database=False, files=True, DR_RPO_FILES_S=1)
    case.worker()
    case.backup("files")
    g = until(case, "backup-files", "critical")
    assert g["value"] > 2 * g["limit"]
    told(case, "backup_stale", "files", "firing")
    case.backup("files")
    until(case, "backup-files", "ok")
    told(case, "backup_stale", "files", "resolved")


def case_damaged_backup(case):
    store = case.store(database=False, files=True)
    case.worker()
    bid = case.backup("files")
    victim = next((store / "backups" / bid).glob("files*.drb"))
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.chmod(0o600)
    victim.write_bytes(data)
    case.order("verify", "v", outcome="failed", backup_id=bid)
    stands = checks(health(case))
    assert stands["proof"]["status"] == "critical" and stands["proof"]["value"] == 1
    assert stands["backup-files"]["status"] == "critical"
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    case.order("verify", "v2", backup_id=bid)
    assert gate(case, "proof")["status"] == "ok"


def case_catalog(case):
    store = case.store(database=False, files=True)
    case.worker()
    case.backup("files")
    log = store / "catalog/log/000001.jsonl"
    good = log.read_bytes()
    log.chmod(0o600)
    log.write_bytes(good.replace(b'"files"', b'"filez"', 1) if b'"files"' in good else bytes([good[0] ^ 1]) + good[1:])
    result = health(case)
    assert checks(result)["catalog"]["status"] == "critical" and result["status"] == "critical"
    told(case, "health_drop", "health", "firing")
    log.write_bytes(good)
    assert gate(case, "catalog")["status"] == "ok"


def case_database(case):
    case.store(files=False)
    case.worker(DR_LANES="health")
    g = gate(case, "database")
    assert g["status"] == "ok" and "PostgreSQL" in g["detail"]
    case.pg.stop()
    g = gate(case, "database")
    assert g["status"] == "critical"
    case.pg.start()
    assert gate(case, "database")["status"] == "ok"


def case_reserve(case):
    """Backups are refused before they start; the emergency backup of a recovery is what the reserve is for."""
    case.store(database=False, files=True)
    worker = case.worker()
    case.backup("files")
    assert gate(case, "disk")["status"] in ("ok", "warning")
    case.kill(worker)
    worker = case.worker(DR_DISK_RESERVE_BYTES=2**52)
    g = gate(case, "disk")
    assert g["status"] == "critical" and g["limit"] == 2**52
    told(case, "disk_low", "disk", "firing")
    refused = case.order("backup", "b", outcome="refused", kind="files")
    assert refused["error"]["reason"] == "disk-reserve" and [s["name"] for s in refused["steps"]] == ["prepare"]
    done = case.order("execute", "e", procedure_id="file_system_recovery")
    assert done["emergency_backup_id"]
    case.kill(worker)
    case.worker()
    case.backup("files")
    if gate(case, "disk")["status"] == "ok":
        told(case, "disk_low", "disk", "resolved")


def case_schedules(case):
    case.worker(DR_LANES="health")
    assert gate(case, "schedules")["status"] == "not_configured"
    for late_s, status in ((200, "ok"), (400, "warning"), (4000, "critical")):
        case.r.zadd("{dr}:schednext", {"nightly": int((time.time() - late_s) * 1000)})
        g = gate(case, "schedules")
        assert g["status"] == status and late_s <= g["value"] < late_s + 120, g
    told(case, "schedule_late", "schedules", "firing")
    case.r.zadd("{dr}:schednext", {"nightly": int((time.time() + 60) * 1000)})
    assert gate(case, "schedules")["status"] == "ok"
    told(case, "schedule_late", "schedules", "resolved")


def case_drill(case):
    case.store(database=False, files=True)
    worker = case.worker()
    assert gate(case, "drill")["status"] == "not_configured"
    taken = case.backup("files")
    g = gate(case, "drill")
    assert g["status"] == "warning" and "no backup of files was ever restored" in g["detail"], g
    case.order("test-recovery", "good")
    g = gate(case, "drill")
    assert g["status"] == "ok" and g["limit"] == 8 * 86400 and 0 <= g["value"] < 600, g
    case.kill(worker)
    case.worker(DR_RPO_FILES_S=1)
    late = (case.order("test-recovery", f"late-{n}", None) for n in range(99))  # until the backup is older than a second
    dr.wait(lambda: next(late)["outcome"] == "partial")
    g = gate(case, "drill")
    assert g["status"] == "warning" and "missed its RTO or RPO" in g["detail"], g
    path = case.dir / "store/backups" / taken / "files.drb"
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    case.order("test-recovery", "bad", "failed")
    g = gate(case, "drill")
    assert g["status"] == "critical" and "failed" in g["detail"], g


def case_clock(case):
    """Redis' clock, beside this host's."""
    now = lambda: int(time.time() * 1000)  # noqa: E731
    clock = Clock(case, now())
    case.worker(DR_LANES="health")
    assert gate(case, "clock")["status"] == "ok"
    for off_ms, status, says in ((10_000, "warning", "behind"), (-10_000, "warning", "ahead of"), (90_000, "critical", "behind")):
        clock.set(now() + off_ms)
        g = until(case, "clock", status)
        assert abs(g["value"] - abs(off_ms)) < 5000 and says in g["detail"], g
    clock.set(now())
    until(case, "clock", "ok")


def case_offsite(case):
    case.store(database=False, files=True)
    worker = case.worker()
    case.backup("files")
    assert gate(case, "offsite")["status"] == "not_configured"
    case.kill(worker)
    case.worker(OFFSITE_STORAGE_PROVIDER="file")
    g = gate(case, "offsite")
    assert g["status"] == "warning" and "copies nothing" in g["detail"], g


def case_workers(case):
    """Two that would fire other schedules."""
    case.store(database=False, files=True)
    case.worker(DR_LANES="health", DR_SCHEDULES=None)
    assert gate(case, "workers")["status"] == "ok"
    other = case.worker(DR_LANES="noop", DR_SCHEDULES="health=1 2 3 4 *")
    g = gate(case, "workers")
    assert (g["status"], g["value"]) == ("warning", 2), g
    case.kill(other)
    until(case, "workers", "ok")


def case_signed_orders(case):
    worker = case.worker(DR_LANES="health", DR_ALLOW_UNSIGNED="true")
    result = health(case)
    assert checks(result)["signed-orders"]["status"] == "warning" and result["status"] == "warning"
    assert result["score"] == 83  # three of weight 1 count, one of them half
    case.kill(worker)
    keys = case.dir / "keys"
    keys.write_text(case.cli("keys", "new", "ops", "operator"))
    keys.chmod(0o600)
    case.worker(DR_LANES="health", DR_SIGN_KEYS_FILE=keys)
    assert gate(case, "signed-orders")["status"] == "ok"


def case_key_slots(case):
    case.store(database=False, files=True)
    worker = case.worker()
    g = gate(case, "key-slots")
    assert (g["status"], g["value"], g["limit"]) == ("warning", 1, 2) and "add-recovery" in g["detail"]
    code = re.search(r"DRK1-\S+", case.drworker("keys", "add-recovery")).group(0)
    g = gate(case, "key-slots")
    assert g["status"] == "warning" and "recovery code" in g["detail"]  # there, but nobody has opened with it
    case.kill(worker)
    case.worker(DR_RECOVERY_CODE=code)
    case.backup("files")
    case.order("test-recovery", "drill", procedure_id="file_system_recovery")
    stands = checks(health(case))
    assert (stands["key-slots"]["status"], stands["key-slots"]["value"]) == ("ok", 2), stands["key-slots"]
    assert stands["drill"]["status"] == "ok" and "last drill" in stands["drill"]["detail"]


def audit_log(store):
    return store / "audit/log/000001.jsonl"


def case_audit_log(case):
    """A record changed, one removed, two that changed places: each is critical, and over when it is as it was."""
    store = case.store(database=False, files=True)
    worker = case.worker(DR_HTTP_LISTEN="127.0.0.1:0")
    case.backup("files")
    g = gate(case, "audit")
    assert g["status"] == "ok" and g["value"] >= 3 and "signed" in g["detail"], g
    where = dr.wait(lambda: listening(worker))
    dr.wait(lambda: scrape(where)("drworker_audit_intact") == 1)

    def changed(text):
        return text.replace(b"take-files-1", b"take-files-9")

    def swapped(text):
        lines = text.splitlines(True)
        return b"".join([lines[1], lines[0], *lines[2:]])

    for damage, repair in ((changed, lambda text: text.replace(b"take-files-9", b"take-files-1")),
                           (swapped, swapped), (lambda text: b"".join(text.splitlines(True)[1:]), None)):
        whole = audit_log(store).read_bytes()
        audit_log(store).write_bytes(damage(whole))
        result = health(case)
        g = checks(result)["audit"]
        assert (g["status"], result["status"]) == ("critical", "critical"), g
        told(case, "chain_broken", "audit", "firing")
        assert scrape(where)("drworker_audit_intact") == 0
        audit_log(store).write_bytes(repair(audit_log(store).read_bytes()) if repair else whole)
        assert gate(case, "audit")["status"] == "ok"
        told(case, "chain_broken", "audit", "resolved")
    head = store / "audit/head.json"
    signed = head.read_bytes()
    head.write_bytes(re.sub(rb'"sig":"..', b'"sig":"00', signed))
    assert gate(case, "audit")["status"] == "critical"
    head.write_bytes(signed)
    assert gate(case, "audit")["status"] == "ok"
    shutil.rmtree(store / "audit")  # all of it: the catalog has witnessed that there was one
    assert gate(case, "audit")["status"] == "critical"


def case_store_put_back(case):
    """Redis has seen a newer catalog than lies on disk; then one of the same length that is another one."""
    store = case.store(database=False, files=True)
    worker = case.worker()
    case.backup("files")
    shutil.copytree(store, case.dir / "older")
    case.backup("files")
    dr.wait(lambda: gate(case, "catalog-head")["status"] == "ok")
    case.kill(worker)
    shutil.rmtree(store)
    shutil.copytree(case.dir / "older", store)
    worker = case.worker(DR_HTTP_LISTEN="127.0.0.1:0")
    told(case, "chain_broken", "catalog-head", "firing")  # before anybody asks for health
    result = health(case)
    g = checks(result)["catalog-head"]
    assert (g["status"], result["status"]) == ("critical", "critical") and g["value"] == g["limit"] - 1, g
    assert "put back" in g["detail"] and checks(result)["catalog"]["status"] == "ok", result
    assert scrape(dr.wait(lambda: listening(worker)))("drworker_catalog_head_current") == 0
    case.backup("files")
    g = gate(case, "catalog-head")
    assert g["status"] == "critical" and "another one" in g["detail"], g
    case.backup("files")  # the catalog has grown past what was seen
    assert gate(case, "catalog-head")["status"] == "ok"
    told(case, "chain_broken", "catalog-head", "resolved")


def case_store_put_back_beneath_a_worker(case):
    """It knows a newer head itself, whatever Redis says; what it cannot read it says so of."""
    store = case.store(database=False, files=True)
    case.worker()
    case.backup("files")
    shutil.copytree(store / "catalog", case.dir / "older")
    case.backup("files")
    case.r.hdel("{dr}:info", "head")
    for name in "head.json", "log/000001.jsonl":
        shutil.copy(case.dir / "older" / name, store / "catalog" / name)
    g = until(case, "catalog-head", "critical")
    assert "went back" in g["detail"], g
    told(case, "chain_broken", "catalog-head", "firing")


def case_a_store_that_cannot_be_read(case):
    """As a volume that is not mounted, then by rights: one alarm after a minute, and of the backups no news at all."""
    store = case.store(database=False, files=True)
    now = lambda: int(time.time() * 1000)  # noqa: E731
    clock, later = Clock(case, now()), 0
    real, case.bin = case.bin, who_may_not_read_all(case)
    worker = case.worker(DR_LEASE_MS="120000", **{n: clock.env[n] for n in ("LD_PRELOAD", "DR_CLOCK_FILE")})
    case.bin = real
    case.backup("files")
    case.backup("files")
    assert gate(case, "backup-files")["status"] == "ok"

    def unread():
        stands = checks(health(case))
        for name in "backup-files", "backup-full":
            assert stands[name]["status"] == "critical" and "cannot be read" in stands[name]["detail"], stands[name]

    (store / "backups").rename(case.dir / "aside")
    (store / "backups").mkdir()
    unread()
    (store / "backups").rmdir()
    (case.dir / "aside").rename(store / "backups")
    assert gate(case, "backup-files")["status"] == "ok"
    (store / "catalog").chmod(0)
    unread()
    assert "store_unreadable" not in firing(case)
    while "store_unreadable" not in firing(case):  # a minute after the worker's own look, every ten seconds
        later += 61_000
        clock.set(now() + later)
        looked = time.monotonic() + 11
        dr.wait(lambda: "store_unreadable" in firing(case) or time.monotonic() > looked)
        assert later < 600_000, worker.log.read_text()
    told(case, "store_unreadable", "store", "firing")
    unread()
    (store / "catalog").chmod(0o700)
    assert gate(case, "backup-files")["status"] == "ok"
    clock.set(now() + later + 301_000)
    told(case, "store_unreadable", "store", "resolved")
    assert not {e.get(b"rule") for _, e in case.r.xrange("{dr}:ev")} & {b"backup_missing", b"backup_stale", b"chain_broken"}


def case_trash_that_nobody_knows(case):
    """Folders that no record gave up would lie there for ever."""
    store = case.store(database=False, files=True)
    case.worker()
    case.backup("files")
    assert gate(case, "catalog")["status"] == "ok"
    for name in "20200102T030405Z-files-aaaaaaaa", "junk":
        (store / "trash" / name).mkdir()
    g = gate(case, "catalog")
    assert (g["status"], g["value"]) == ("warning", 2) and "2 in trash/" in g["detail"], g
    for name in "20200102T030405Z-files-aaaaaaaa", "junk":
        (store / "trash" / name).rmdir()
    assert gate(case, "catalog")["status"] == "ok"


def case_open_recovery(case):
    """A recovery whose worker died long ago, until somebody brings it to its end."""
    store = case.store(database=False, files=True)
    first = case.worker()
    case.backup("files")
    case.kill(first)
    case.worker(DR_LANES="health")
    victim = case.worker(DR_LANES="execute", DR_FAULT="execute.swap.intent:kill")
    case.push("execute", {"id": "e", "t": "execute", "a": {"procedure_id": "file_system_recovery"}})
    victim.wait(60)
    g = gate(case, "open-runs")
    assert g["status"] == "ok" and g["detail"].startswith("1 under way"), g
    journal, = (store / "journal").glob("*.log")
    os.utime(journal, (time.time() - 7200,) * 2)
    g = gate(case, "open-runs")
    assert g["status"] == "critical" and 7200 <= g["value"] < 7400
    case.worker(DR_LANES="execute")
    dr.wait(lambda: gate(case, "open-runs")["detail"] == "no recovery is under way")


def case_clients_read_it(case):
    """What the job found stands in `info`, in /metrics and in the words of drproducer."""
    case.store(database=False, files=True)
    case.worker()
    result = health(case)
    told = msgpack.unpackb(case.r.hget("{dr}:info", "health"))
    assert {k: told[k] for k in ("status", "score", "checks")} == {k: result[k] for k in ("status", "score", "checks")}
    assert abs(told["at"] / 1000 - time.time()) < 60
    p = subprocess.run([case.bin / "drproducer", "health", "--wait"], capture_output=True, text=True, timeout=60,
                       env={"PATH": os.environ["PATH"], "REDIS_URL": case.url})
    assert p.returncode == 0, p
    lines = (p.stdout + p.stderr).splitlines()
    assert any(line.startswith("health critical, score ") for line in lines), lines
    assert any(line.split()[:2] == ["critical", "backup-files"] for line in lines), lines
    assert any(line.split()[:2] == ["not_configured", "database"] for line in lines), lines


dr.run(globals(), at_once=4)
