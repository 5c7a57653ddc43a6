#!/usr/bin/env python3
"""Who may work on a store: secrets, keyrings and namespaces that do not fit, first starts at once, workers that
die while they publish; and what `backups` and `check` say of it."""
import hashlib
import json
import pathlib
import shutil
import signal
import subprocess
import sys

import msgpack

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import dr  # noqa: E402

VECTORS = pathlib.Path(__file__).resolve().parents[1] / "vectors"
GOLDEN = {"BACKUP_ENCRYPTION_PASSWORD": "correct horse battery staple 2026"}


def print_of(folder):
    """Every name below folder with its content."""
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else ""
            for p in sorted(folder.rglob("*"))}


def golden(case):
    store = case.store(database=False)
    shutil.copytree(VECTORS / "store", store, dirs_exist_ok=True)
    case.settings |= GOLDEN
    return store


def refused(case, code, *words, **env):
    """A worker that does not start, names each word, and has written nothing."""
    store = pathlib.Path(env.get("BACKUP_DIRECTORY", case.settings["BACKUP_DIRECTORY"]))
    before = print_of(store)
    p = case.worker(wait_up=False, **env)
    assert p.wait(30) == code, (p.returncode, p.log.read_text())
    text = p.log.read_text()
    for word in words:
        assert word in text, (word, text)
    assert print_of(store) == before
    assert case.r.zcard("{dr}:wk") == 0
    return text


def case_wrong_passphrase(case):
    golden(case)
    text = refused(case, 6, "wrong-secret", BACKUP_ENCRYPTION_PASSWORD="another passphrase, long enough")
    assert "another passphrase" not in text
    case.drworker("backups", code=6, BACKUP_ENCRYPTION_PASSWORD="another passphrase, long enough")
    refused(case, 2, "BACKUP_ENCRYPTION_PASSWORD", BACKUP_ENCRYPTION_PASSWORD=None)


def case_keyring_of_another_repository(case):
    store = golden(case)
    shutil.copy(VECTORS / "refuse/keyring-other-repository.json", store / "keyring.json")
    for folder in ("trash", "journal", "results", "staging"):
        (store / folder).mkdir()
    (store / "catalog/lock").touch()
    refused(case, 7, "no key of this keyring signed it")


def case_data_without_keyring(case):
    store = golden(case)
    (store / "keyring.json").unlink()
    refused(case, 7, "keyring.json is missing", "recover --adopt")
    assert not (store / "keyring.json").exists()


def case_first_start_of_four_at_once(case):
    store = case.store(database=False)
    (store / "lost+found").mkdir()
    workers = [case.worker(wait_up=False) for _ in range(4)]
    dr.wait(lambda: case.r.zcard("{dr}:wk") == 4)
    keyring, store_id = (store / "keyring.json").read_bytes(), (store / "store.id").read_text().strip()
    assert json.loads(keyring)["store"] == store_id == case.r.get("{dr}:store").decode()
    assert len((store / "catalog/log/000001.jsonl").read_text().splitlines()) == 1
    for w in workers:
        case.kill(w)
    case.r.delete("{dr}:wk")
    case.worker()
    assert (store / "keyring.json").read_bytes() == keyring and json.loads(case.drworker("backups", "--json")) == []


def case_another_store_than_the_namespaces(case):
    case.store(database=False)
    case.worker()
    first = case.r.get("{dr}:store").decode()
    other = case.dir / "other"
    other.mkdir()
    p = case.worker(wait_up=False, BACKUP_DIRECTORY=other)
    assert p.wait(30) not in (0, 1), p.log.read_text()
    text, second = p.log.read_text(), (other / "store.id").read_text().strip()
    for word in (first, second, "recover --adopt", "keys init --new-store"):
        assert word in text, (word, text)
    assert case.r.get("{dr}:store").decode() == first


def case_backups_lists_the_golden_store(case):
    store = golden(case)
    before = print_of(store)
    rows = json.loads(case.drworker("backups", "--json"))
    assert [r["backup_id"] for r in rows] == ["20260103T040000Z-database-fnnkcvuu", "20260103T030405Z-files-x5umaroa",
                                              "20260102T030405Z-database-jpfikvy7"]
    assert rows[0]["seq"] == 2 and rows[2]["verified_at"] == "2026-01-03T04:00:09.000Z" and rows[1]["damaged"] is None
    table = case.drworker("backups").splitlines()
    assert len(table) == 4 and table[0].startswith("ID ") and "scheduled" in table[1], table
    with (store / "backups" / rows[1]["backup_id"] / "manifest.json").open("a") as f:
        f.write("\n")
    assert "DAMAGED: manifest-sig" in case.drworker("backups")
    assert json.loads(case.drworker("backups", "--json"))[1]["damaged"] == "manifest-sig"
    shutil.copytree(VECTORS / "store/backups", store / "backups", dirs_exist_ok=True)
    assert print_of(store) == before


def killed_while_publishing(case, point):
    store = case.store(database=False, files=True)
    p = case.worker(DR_FAULT=f"{point}:kill")
    case.push("backup", {"id": "job", "t": "backup", "a": {"kind": "files"}})
    assert p.wait(60) == -9, p.log.read_text()
    case.worker()
    case.until("job", "done", "failed", "dead", seconds=60)
    made = case.result("job", "done")["backup_id"]
    rows = case.backups()
    assert [r["backup_id"] for r in rows] == [made] and rows[0]["recorded"], rows
    records = (store / "catalog/log/000001.jsonl").read_text().splitlines()
    assert sum('"added"' in r for r in records) == 1, records
    assert not list((store / "backups" / made).glob("lock"))
    assert not list((store / "staging").iterdir())
    assert case.order("verify", "v", all=True)["bad"] == []


def case_killed_with_its_manifest_written(case):
    killed_while_publishing(case, "publish.manifest")


def case_killed_after_the_rename(case):
    killed_while_publishing(case, "publish.rename")


def case_killed_after_the_line(case):
    killed_while_publishing(case, "publish.line:2")


def case_killed_after_the_head(case):
    killed_while_publishing(case, "publish.head:2")


def check(case, code=0, **env):
    p = subprocess.run([case.bin / "drworker", "check", "--json"], capture_output=True, text=True, timeout=60,
                       env=case.environment(**env))
    rows = {r["item"]: (r["state"], r["detail"]) for r in json.loads(p.stdout)}
    assert p.returncode == code, (p.returncode, p.stdout, p.stderr)
    assert (code == 0) == all(state != "FAIL" for state, _ in rows.values()), rows
    return rows


def case_check(case):
    store = case.store(files=True)
    rows = check(case)
    assert "first `drworker run` makes it" in rows["keyring and catalog"][1]
    assert list(store.iterdir()) == [], "check changes nothing"
    case.kill(case.worker())
    before = print_of(store)
    rows = check(case)
    for item in ("configuration", "redis", "backup directory", "keyring and catalog", "database", "database tools",
                 "database role", "files"):
        assert rows[item][0] == "ok", (item, rows)
    assert "pg_restore" in rows["database tools"][1] and str(case.files) in rows["files"][1]
    assert print_of(store) == before
    assert check(case, 10, REDIS_URL="unix:///nowhere/redis.sock")["redis"][0] == "FAIL"
    assert check(case, 6, BACKUP_ENCRYPTION_PASSWORD="another passphrase, long enough",
                 REDIS_URL="unix:///nowhere/redis.sock")["keyring and catalog"][0] == "FAIL"
    assert check(case, 1, BACKUP_FILES_PATHS=f"{case.files}:/nowhere/at/all")["files"][0] == "FAIL"
    assert list(check(case, 2, DR_LEASE_MS="1")) == ["configuration"]
    assert check(case, 10, DATABASE_URL="postgresql://nobody@127.0.0.1:1/x")["database"][0] == "FAIL"


def case_check_names_what_the_role_lacks(case):
    case.store()
    case.pg.sql("CREATE ROLE poor LOGIN", "postgres")
    rows = check(case, 4, DATABASE_ADMIN_URL=case.pg.url("shop", "poor"))
    for word in ("CREATEDB", "pg_signal_backend", "the owner of shop"):
        assert word in rows["database role"][1], rows


def case_check_rehearses_the_restore(case):
    store = case.store()
    case.pg.sql("CREATE ROLE keeper; CREATE TABLE kept (i int); ALTER TABLE kept OWNER TO keeper; GRANT keeper TO gold", "shop")
    worker = case.worker()
    assert check(case)["restore preflight"][0] == "-"
    made = case.backup()
    assert check(case)["restore preflight"] == ("ok", f"{made} could be restored here")
    case.kill(worker)
    before = print_of(store)
    case.pg.sql("DROP TABLE kept; DROP ROLE keeper", "shop")
    rows = check(case, 4)
    assert 'CREATE ROLE "keeper"' in rows["restore preflight"][1], rows
    assert print_of(store) == before


def case_check_names_the_right_that_is_missing(case):
    store = case.store(database=False)
    case.kill(case.worker())
    store.chmod(0o755)
    if dr.ROOT:
        case.dir.chmod(0o755)
        case.dir.joinpath("redis.sock").chmod(0o777)
        user = {"user": 65534, "group": 65534, "extra_groups": []}
    else:
        store.chmod(0o555)
        user = {}
    program = shutil.copy(case.bin / "drworker", case.dir / "drworker")  # where that user may enter
    p = subprocess.run([program, "check"], capture_output=True, text=True, env=case.environment(), **user)
    store.chmod(0o755)
    assert p.returncode != 0 and "needs to read and write there" in p.stdout, p.stdout


def case_workers_that_write_in_turn_are_no_alarm(case):
    """Each knows an older head than Redis, until it looks."""
    case.store(database=False, files=True)
    workers = [case.worker(DR_LANES=lanes) for lanes in ("backup", "verify")]
    for i in range(3):
        case.backup("files")
        case.order("verify", f"v{i}", all=True)
    case.r.client_kill_filter(_type="normal")
    case.backup("files")
    case.order("verify", "last", all=True)
    assert not any("store.rolled_back" in p.log.read_text() for p in workers)


def case_a_head_that_is_told_late_is_no_alarm(case):
    """The order of both that matters, forced: a worker knows its head, another one writes and tells, then it tells
    its own; and another one writes once more between Redis' answer and its look at the disk."""
    store = case.store(database=False, files=True)
    head = lambda: json.loads((store / "catalog/head.json").read_text())  # noqa: E731
    seen = lambda: msgpack.unpackb(case.r.hget("{dr}:info", "head"))  # noqa: E731
    first = case.worker()
    case.backup("files")  # scripts are loaded, the audit log has its first witness
    case.kill(first)
    case.r.delete("{dr}:wk")
    late = case.worker(DR_LANES="backup", DR_LEASE_MS="120000", DR_FAULT="head.intent:2:stop,head.reply:2:stop")
    other = case.worker(DR_LANES="verify", DR_LEASE_MS="120000")
    case.push("backup", {"id": "b", "t": "backup", "a": {"kind": "files"}})
    dr.stopped(late)  # it has recorded its backup, and is about to tell that head
    own = head()
    for i in range(2):
        case.order("verify", f"v{i}", all=True)
        dr.wait(lambda: (lambda s, h: (s["seq"], s["sha256"]) == (h["seq"], h["sha256"]))(seen(), head()))
        assert head()["seq"] > own["seq"]
        late.send_signal(signal.SIGCONT)
        if i == 0:
            dr.stopped(late)  # Redis has answered that it has seen a newer one
    case.until("b", "done")
    case.backup("files")
    assert seen()["seq"] >= own["seq"] + 4, (seen(), own)
    assert not any("store.rolled_back" in p.log.read_text() for p in (late, other))


def case_an_older_store_is_an_alarm(case):
    """Redis witnesses the catalog's head: a store that was put back is told at the next start."""
    store = case.store(database=False, files=True)
    case.worker()
    case.backup("files")
    head = lambda: json.loads((store / "catalog/head.json").read_text())  # noqa: E731
    seen = lambda: msgpack.unpackb(case.r.hget("{dr}:info", "head"))  # noqa: E731
    older = head()
    shutil.copytree(store, case.dir / "older")
    newest = case.backup("files")
    dr.wait(lambda: seen()["seq"] == head()["seq"])
    assert seen()["sha256"] == head()["sha256"] and head()["seq"] > older["seq"]
    case.r.flushall()  # who forgets is told again by the next order
    case.backup("files")
    dr.wait(lambda: seen()["seq"] == head()["seq"])
    newer = head()
    case.kill(case.processes[-1])
    shutil.rmtree(store)
    shutil.copytree(case.dir / "older", store)
    p = case.worker()
    told = dr.wait(lambda: [x for x in map(json.loads, p.log.read_text().splitlines())
                            if x["event"] == "store.rolled_back"])[0]
    assert told["seen_seq"] == str(newer["seq"]) and told["seen_sha256"] == newer["sha256"], told
    assert seen()["seq"] == newer["seq"] and newest not in {b["backup_id"] for b in case.backups()}
    case.backup("files")  # it is no reason to stop: what is left shall be saved


def case_a_new_store_is_no_alarm(case):
    """What Redis has seen of the store before it is no witness of this one."""
    old = case.store(database=False, files=True)
    worker = case.worker()
    for _ in range(3):
        case.backup("files")
    seen = lambda: msgpack.unpackb(case.r.hget("{dr}:info", "head"))  # noqa: E731
    before = dr.wait(lambda: seen())
    assert before["store"] == (old / "store.id").read_text().strip(), before
    case.kill(worker)
    new = case.dir / "new"
    new.mkdir()
    case.settings["BACKUP_DIRECTORY"] = new
    case.drworker("keys", "init", "--new-store")
    case.r.delete("{dr}:store")
    worker = case.worker()
    gate = lambda jid: next(g for g in case.order("health", jid)["checks"] if g["name"] == "catalog-head")  # noqa: E731
    assert gate("h1")["status"] != "critical", gate("h1")
    case.backup("files")
    dr.wait(lambda: seen()["store"] == (new / "store.id").read_text().strip())
    assert seen()["seq"] < before["seq"] and gate("h2")["status"] == "ok"
    assert "store.rolled_back" not in worker.log.read_text()


@dr.needs_root
def case_a_mount_below_a_root_is_named(case):
    case.store(database=False, files=True)
    inner = case.files / "mounted"
    inner.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", inner], check=True)
    try:
        assert str(inner) in check(case, 4)["files"][1]
        check(case, BACKUP_EXCLUDE=str(inner))
        check(case, BACKUP_FILES_PATHS=f"{case.files}:{inner}")
    finally:
        subprocess.run(["umount", inner], check=True)


if __name__ == "__main__":
    dr.run(globals())
