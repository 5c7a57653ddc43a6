#!/usr/bin/env python3
"""database_recovery with real servers: what comes back, what is refused, and every fault on the way.

The rule behind all cases: whatever happens, live is either what it was or what was proven, services
are up, connections are allowed, and nothing of a run stays but what its result names.
"""
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import shop  # noqa: E402
from dr import needs_root, run, stopped, wait  # noqa: E402
from recoveries import closed, journals, never_twice, services, taken_over, tools, up, woken  # noqa: E402

LANES = "backup:1,execute:1"
WRECK = """DELETE FROM order_items WHERE order_id % 2 = 0; DROP TABLE prices; UPDATE customers SET name = 'gone';
INSERT INTO products (sku, title, grams) VALUES ('NEW', 'made after the backup', 1);"""


def ready(c, worker=True, **env):
    """A store with one backup of the shop, which is wrecked afterwards."""
    c.store(DR_LANES=LANES, **env)
    w = c.worker()
    c.good = shop.fingerprint(c.pg), shop.properties(c.pg)
    c.backup_id = c.backup()
    c.pg.sql(WRECK, "shop")
    c.bad = shop.fingerprint(c.pg), shop.properties(c.pg)
    if not worker:
        c.kill(w, signal.SIGTERM)
    return w


def execute(c, jid, outcome="done", seconds=60, **args):
    return c.order("execute", jid, outcome, seconds=seconds, procedure_id="database_recovery", **args)


def send(c, jid, **args):
    extra = {k: args.pop(k) for k in ("to", "mx", "exp") if k in args}
    c.push("execute", {"id": jid, "t": "execute", "a": {"procedure_id": "database_recovery", **args}, **extra})


def now(c):
    return shop.fingerprint(c.pg), shop.properties(c.pg)


def recovered(c, befores=1):
    assert now(c) == c.good
    names = c.pg.databases()
    assert sum("__before_" in n for n in names) == befores and not any("__dr_" in n for n in names), names


def untouched(c):
    assert now(c) == c.bad
    assert c.pg.databases() == ["postgres", "shop"], c.pg.databases()


# ---- what comes back ----

def case_everything_comes_back(c):
    ready(c, **services(c, "web", "mail"))
    r = execute(c, "x", reason="a test", actor="somebody")
    recovered(c)
    assert up(c) == ["mail", "web"]
    calls = [line.split() for line in (c.services / "calls").read_text().splitlines()]
    assert ["stop", "web"] in [x[:2] for x in calls] and not any(x[1] == "mail" for x in calls), calls
    assert not any(x[:2] == ["start", "jobs"] for x in calls), "what was down stays down"
    assert {x[2] for x in calls} == {c.job("x")["f"].decode()}
    assert r["backup_id"] == c.backup_id and r["emergency_backup_id"]
    assert r["verified"]["rows"] == sum(n for t, (n, _) in c.good[0].items() if t in tables(c))
    assert r["verified"]["digests"] == r["verified"]["tables"] == len(tables(c))
    down = r["downtime_ms"]
    assert down["total"] >= down["services"] + down["ours"] - 1 and down["services"] > 0
    assert [s["name"] for s in r["steps"]] == ["select", "prove", "preflight", "restore", "verify", "properties", "emergency",
                                              "quiesce", "swap", "start", "check", "close"]
    assert [k["what"] for k in r["kept_old"]] == [n for n in c.pg.databases() if "__before_" in n]
    log = (c.dir / "store/catalog/log/000001.jsonl").read_text()
    assert any(x["type"] == "restored" and x["backup_id"] == c.backup_id for x in map(json.loads, log.splitlines()))
    entry = next(b for b in c.backups() if b["backup_id"] == r["emergency_backup_id"])
    assert entry["class"] == "emergency"
    # The replaced database is the exact copy of what was live.
    c.pg.sql(f'ALTER DATABASE "{r["kept_old"][0]["what"]}" ALLOW_CONNECTIONS true')
    assert shop.fingerprint(c.pg, r["kept_old"][0]["what"]) == c.bad[0]
    # The emergency backup brings that back, and a second recovery finds its way.
    execute(c, "y", backup_id=r["emergency_backup_id"])
    assert now(c)[0] == c.bad[0]


def tables(c):
    """Tables whose rows a dump carries."""
    return c.pg.sql("SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
                    "WHERE relkind = 'r' AND nspname !~ '^pg_' AND nspname <> 'information_schema'", "shop").splitlines()


def case_dry_run_changes_nothing_and_says_what_would_be_lost(c):
    ready(c, **services(c, "web"))
    c.pg.sql("INSERT INTO customers (name) SELECT 'new ' || i FROM generate_series(1, 7) i", "shop")
    c.bad = now(c)
    r = execute(c, "x", dry_run=True)
    untouched(c)
    assert not (c.dir / "store/journal").exists() or not journals(c)
    assert [s["name"] for s in r["steps"]] == ["select", "prove", "preflight", "report"]
    lost = r["would_lose"]
    assert lost["tables"]["public.customers"] == {"live": 807, "backup": 800, "lost": 7}
    assert lost["rows"] == 8 and lost["tables"]["public.products"]["lost"] == 1
    assert r["emergency_possible"] and r["eta_ms"] > 0
    plan = {p["step"]: p["does"] for p in r["plan"]}
    assert "web" in plan["quiesce"] and "jobs" not in plan["quiesce"], plan
    assert up(c) == ["web"] and {x.split()[0] for x in (c.services / "calls").read_text().splitlines()} == {"status"}
    execute(c, "real")
    assert execute(c, "again", dry_run=True)["eta_from"] != r["eta_from"], "measured by the run before"


def case_redis_detail_false_keeps_table_names_out(c):
    ready(c, DR_REDIS_DETAIL="false")
    r = execute(c, "x", dry_run=True)
    assert r["would_lose"]["tables"] == {} and r["would_lose"]["tables_differing"] > 0


def case_no_swap_leaves_a_verified_database_beside(c):
    ready(c)
    r = execute(c, "x", no_swap=True)
    assert now(c) == c.bad
    scratch, = [n for n in c.pg.databases() if "__dr_" in n]
    assert shop.fingerprint(c.pg, scratch) == c.good[0]
    assert r["kept_old"][0]["what"] == scratch and r["kept_old"][0]["until"] and r["downtime_ms"]["total"] == 0
    assert closed(c, "done")


def case_before_chooses_the_older_backup(c):
    ready(c)
    first = now(c)
    time.sleep(1.1)
    between = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    time.sleep(1.1)
    c.backup()
    c.pg.sql("DROP TABLE basket", "shop")
    assert execute(c, "x", before=between)["backup_id"] == c.backup_id
    assert now(c) == c.good
    execute(c, "y")
    assert now(c)[0] == first[0]


def case_by_an_admin_over_tcp_with_a_password(c):
    c.store(DR_LANES=LANES, tcp=True)
    c.settings["DATABASE_ADMIN_URL"] = c.pg.url("postgres", "postgres")
    c.worker()
    c.good = now(c)
    c.backup()
    c.pg.sql(WRECK, "shop")
    watched, stop = [], threading.Event()

    def watch():  # whatever runs, no argument and no environment shows the password
        while not stop.is_set():
            for p in pathlib.Path("/proc").glob("[0-9]*"):
                try:
                    watched.append((p / "cmdline").read_bytes() + (p / "environ").read_bytes() if (p / "cmdline").read_bytes().find(b"pg_restore") >= 0 else b"")
                except OSError:
                    pass
    t = threading.Thread(target=watch)
    t.start()
    try:
        execute(c, "x")
    finally:
        stop.set()
        t.join()
    assert any(watched), "pg_restore was seen"
    assert not any(b"gold & sons" in w or b"gold%20" in w for w in watched)
    recovered(c)


def case_odd_roles_and_grants_come_back(c):
    odd = '"Odd ""Role; DROP"'
    ready(c, worker=False)
    # Only a superuser may give a table to a role that may not create in its schema.
    c.worker(DATABASE_ADMIN_URL=c.pg.url("postgres", "postgres"))
    c.pg.sql(f"CREATE ROLE {odd}; GRANT {odd} TO gold WITH ADMIN OPTION; GRANT CONNECT, CREATE ON DATABASE shop TO {odd} WITH GRANT OPTION")
    c.pg.sql(f"GRANT SELECT ON customers TO {odd} WITH GRANT OPTION; ALTER DEFAULT PRIVILEGES FOR ROLE gold GRANT SELECT ON SEQUENCES TO {odd};"
             "COMMENT ON DATABASE shop IS 'it''s \"odd\"'; ALTER DATABASE shop SET search_path = 'Odd Schema', public, '';"
             f"CREATE TABLE mine (id integer); ALTER TABLE mine OWNER TO {odd}; ALTER TABLE mine ADD CHECK (id > 0) NOT VALID", "shop")
    c.good, had = now(c), c.pg.sql("SELECT relacl FROM pg_class WHERE relname = 'customers'", "shop")
    c.backup()
    c.pg.sql("DROP TABLE mine; DELETE FROM basket", "shop")
    execute(c, "x")
    recovered(c)
    assert c.pg.sql("SELECT relacl FROM pg_class WHERE relname = 'customers'", "shop") == had
    assert c.pg.sql("SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'mine'", "shop") == 'Odd "Role; DROP'


# ---- refusals ----

def case_unknown_backup_is_refused_with_what_there_is(c):
    ready(c)
    r = execute(c, "x", "failed", backup_id="20200101T000000Z-database-aaaaaaaa")
    assert r["error"]["kind"] == "not-found" and c.backup_id in r["error"]["message"], r
    untouched(c)


def case_latest_with_no_backup(c):
    c.store(DR_LANES=LANES)
    c.worker()
    r = execute(c, "x", "failed")
    assert r["error"]["kind"] == "not-found", r
    assert c.pg.databases() == ["postgres", "shop"]


def case_a_flipped_byte_is_refused_and_live_is_untouched(c):
    ready(c)
    path = c.dir / "store/backups" / c.backup_id / "database.drb"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    for jid, args in (("x", {}), ("dry", {"dry_run": True, "backup_id": c.backup_id})):
        r = execute(c, jid, "failed", **args)
        assert r["error"]["kind"] == "integrity" and "database.drb" in r["error"]["message"], r
    untouched(c)


def case_a_missing_role_is_named_with_its_line(c):
    ready(c)
    c.pg.sql("DROP OWNED BY gold_report; REVOKE gold_report FROM gold, gold_app", "shop")
    c.pg.sql("DROP OWNED BY gold_report; DROP ROLE gold_report")
    c.bad = now(c)
    r = execute(c, "x", "refused")
    assert "CREATE ROLE gold_report;" in r["error"]["message"].replace('"', ""), r
    untouched(c)
    c.pg.sql("CREATE ROLE gold_report NOLOGIN")
    execute(c, "y")
    recovered(c)


@needs_root
def case_a_missing_or_untrusted_extension_is_named(c):
    share = pathlib.Path(subprocess.run(["/usr/lib/postgresql/15/bin/pg_config", "--sharedir"], capture_output=True, text=True,
                                        check=False).stdout.strip() or "/usr/share/postgresql/15") / "extension"
    name = f"dr_test_{os.getpid()}"
    files = [share / f"{name}.control", share / f"{name}--1.sql"]
    try:
        files[0].write_text("default_version = '1'\nrelocatable = true\n")
        files[1].write_text("CREATE FUNCTION dr_one() RETURNS integer LANGUAGE sql AS 'SELECT 1';\n")
        c.store(DR_LANES=LANES)
        c.worker()
        c.pg.sql(f"CREATE EXTENSION {name}", "shop")
        c.backup()
        c.bad = now(c)
        r = execute(c, "x", "refused")
        assert name in r["error"]["message"] and "superuser" in r["error"]["message"], r
        files[0].unlink()
        r = execute(c, "y", "refused")
        assert name in r["error"]["message"] and "has no extension" in r["error"]["message"], r
        untouched(c)
    finally:
        for f in files:
            f.unlink(missing_ok=True)


def case_what_holds_the_live_database_is_named(c):
    ready(c)
    c.pg.stop()
    c.pg.start(max_prepared_transactions=2)
    c.pg.sql("BEGIN; DELETE FROM basket; PREPARE TRANSACTION 'left over'", "shop")
    assert "left over" in execute(c, "x", "refused")["error"]["message"]
    c.pg.sql("ROLLBACK PREPARED 'left over'", "shop")
    s = c.pg.session(user="postgres")
    r = execute(c, "y", "refused")
    assert "postgres" in r["error"]["message"] and "superuser" in r["error"]["message"], r
    s.kill()
    s.wait()
    wait(lambda: c.pg.sql("SELECT count(*) FROM pg_stat_activity WHERE datname = 'shop'") == "0")
    c.pg.sql("ALTER ROLE gold NOCREATEDB")
    assert "CREATEDB" in execute(c, "z", "refused")["error"]["message"]
    c.pg.sql("ALTER ROLE gold CREATEDB")
    untouched(c)
    execute(c, "ok")
    recovered(c)


# ---- tools and disks ----

def case_pg_restore_is_killed(c):
    ready(c, worker=False)
    c.worker(PG_BIN_DIR=tools(c, "kill -9 $$"))
    r = execute(c, "x", "failed")
    assert r["error"]["kind"] == "tool" and "pg_restore" in r["error"]["message"] and r["error"]["step"] == "restore", r
    untouched(c)
    assert closed(c, "failed")


def case_pg_restore_fails_with_its_last_words(c):
    ready(c, worker=False)
    c.worker(PG_BIN_DIR=tools(c, "echo 'pg_restore: error: the moon is full' >&2; exit 1"))
    assert "the moon is full" in execute(c, "x", "failed")["error"]["message"]
    untouched(c)


def case_pg_restore_hangs(c):
    ready(c, worker=False)
    c.worker(PG_BIN_DIR=tools(c, "exec sleep 600"))
    send(c, "x", to=4)
    c.until("x", "failed")
    assert c.result("x", "failed")["error"]["kind"] == "timeout"
    untouched(c)


def case_a_dump_that_could_not_be_kept_while_proving_is_read_again(c):
    ready(c, worker=False)
    c.worker(DR_FAULT="execute.dump.add:2:fail")
    execute(c, "x")
    recovered(c)


@needs_root
def case_the_disk_is_full_while_restoring(c):
    ready(c, worker=False)
    work = c.dir / "work"
    work.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", work], check=True)
    try:
        w = c.worker(DR_WORK_DIRECTORY=work, DR_FAULT="execute.dump.add:fail,execute.restore.intent:stop")
        send(c, "x")
        stopped(w)
        (work / "filler").write_bytes(b"x" * (1800 << 10))
        w.send_signal(signal.SIGCONT)
        c.until("x", "failed")
        assert c.result("x", "failed")["error"]["kind"] == "no-space"
        untouched(c)
        r = execute(c, "y", "failed")
        assert r["error"]["kind"] == "no-space" and r["error"]["step"] == "preflight", r
        (work / "filler").unlink()
        assert list(work.iterdir()) == []
        execute(c, "z")
        recovered(c)
    finally:
        subprocess.run(["umount", "-l", work], check=True)


# ---- live is broken ----

def case_live_that_cannot_be_dumped_is_kept_by_rename_without_expiry(c):
    ready(c)
    path = c.pg.data / c.pg.sql("CHECKPOINT; SELECT pg_relation_filepath('orders_2024')", "shop")
    c.pg.stop()
    with open(path, "r+b") as f:
        f.seek(8192)
        f.write(b"\xff" * 8192)
    c.pg.start()
    dry = execute(c, "dry", dry_run=True)
    assert not dry["emergency_possible"] and "orders_2024" in dry["live_damage"], dry
    r = execute(c, "x")
    recovered(c)
    step = next(s for s in r["steps"] if s["name"] == "emergency")
    assert step["outcome"] == "failed (kept by rename)"
    assert r["emergency_backup_id"] is None and r["emergency_backup_error"]
    assert r["kept_old"][0]["until"] is None


def case_live_is_gone_altogether(c):
    ready(c, **services(c))
    c.pg.sql("DROP DATABASE shop")
    assert not execute(c, "dry", dry_run=True)["emergency_possible"]
    r = execute(c, "x")
    recovered(c, befores=0)
    assert r["emergency_backup_id"] is None and r["kept_old"] == []


# ---- the lock ----

def lock_session(c):
    return c.pg.sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'drworker recovery'").split()


def case_the_lock_session_is_lost_before_commit(c):
    ready(c, worker=False)
    w = c.worker(DR_FAULT="execute.swap.commit:stop")
    send(c, "x")
    stopped(w)
    for pid in lock_session(c):
        c.pg.sql(f"SELECT pg_terminate_backend({pid})")
    wait(lambda: not lock_session(c))
    w.send_signal(signal.SIGCONT)
    c.until("x", "done", "failed")
    c.result("x", "done")
    recovered(c)


def case_the_reply_of_commit_is_lost(c):
    ready(c, worker=False)
    c.worker(DR_FAULT="execute.swap.reply:fail")
    execute(c, "x")
    recovered(c)
    swaps = [r for r in journals(c)[0] if r["data"].get("step") == "swap"]
    assert [r["type"] for r in swaps] == ["step-intent", "step-done"]


def case_the_lock_session_is_lost_while_restoring(c):
    ready(c, worker=False)
    w = c.worker(DR_FAULT="execute.verify.intent:stop")
    send(c, "x")
    stopped(w)
    for pid in lock_session(c):
        c.pg.sql(f"SELECT pg_terminate_backend({pid})")
    w.send_signal(signal.SIGCONT)
    c.until("x", "done", "failed")
    c.result("x", "done")
    recovered(c)


def case_a_held_lock_refuses_as_locked(c):
    ready(c)
    s = c.pg.session(dbname="postgres", user="postgres")
    s.stdin.write("SELECT 'locked' FROM pg_advisory_lock(hashtextextended('drworker:shop', 0));\n")
    assert s.stdout.readline() == "locked\n"
    c.cli("execute", "database_recovery", "--id", "x", "--wait", code=5)
    assert c.result("x", "failed")["error"]["kind"] == "locked"
    s.kill()
    s.wait()
    untouched(c)
    execute(c, "y")
    recovered(c)


def case_without_the_lock_nothing_is_done(c):
    """The session is lost just before COMMIT and somebody else takes the lock: no swap, no undo, until it is free."""
    ready(c, worker=False, **services(c, "web"))
    w = c.worker(DR_FAULT="execute.swap.commit:stop")
    send(c, "x")
    stopped(w)
    other = c.pg.session(dbname="postgres", user="postgres")
    other.stdin.write("SELECT 'locked' FROM pg_advisory_lock(hashtextextended('drworker:shop', 0));\n")
    for pid in lock_session(c):
        c.pg.sql(f"SELECT pg_terminate_backend({pid})")
    assert other.stdout.readline() == "locked\n"
    before = c.pg.databases()
    w.send_signal(signal.SIGCONT)
    c.until("x", "failed", seconds=60)
    c.result("x", "needs_human")
    assert c.pg.databases() == before and up(c) == []
    assert journals(c)[0][-1]["type"] != "run-closed"
    other.kill()
    other.wait()
    c.worker()
    wait(lambda: closed(c, "failed"))
    untouched(c)
    assert up(c) == ["web"]


def case_two_at_once_never_interleave(c):
    ready(c)
    c.worker()
    send(c, "x")
    send(c, "y")
    for jid in ("x", "y"):
        c.until(jid, "done", "failed", seconds=60)
        c.result(jid, "done")
    recovered(c, befores=2)
    spans = sorted((j[0]["at"], j[-1]["at"]) for j in journals(c))
    restores = sorted(r["at"] for j in journals(c) for r in j if r["type"] == "step-intent" and r["data"]["step"] == "restore")
    assert restores[1] >= spans[0][1] or restores[1] >= spans[1][1], (spans, restores)


def case_a_statement_timeout_of_the_role_does_not_stop_the_statistics(c):
    """ANALYZE evaluates an index's expression for every row it samples: here for 1.5 seconds."""
    c.store()
    c.pg.sql("CREATE FUNCTION slow(i integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS "
             "'BEGIN PERFORM pg_catalog.pg_sleep(0.02); RETURN i; END';"
             "CREATE TABLE rare AS SELECT i FROM generate_series(1, 75) i;"
             "CREATE INDEX ON rare (slow(i));"
             "ALTER ROLE gold SET statement_timeout = '1s'", "shop", "gold")
    c.worker()
    c.backup()
    c.pg.sql("DROP TABLE rare", "shop")
    execute(c, "x")
    assert c.pg.sql("SELECT count(*) FROM pg_stats WHERE tablename LIKE 'rare%'", "shop") == "2"


def case_a_statement_timeout_of_the_role_does_not_end_a_recovery(c):
    """A millisecond is too short for CREATE DATABASE, and for every comparison."""
    ready(c)
    c.pg.sql("ALTER ROLE gold SET statement_timeout = '1ms'; ALTER ROLE gold SET lock_timeout = '1ms'", "postgres")
    execute(c, "x")


def case_connected_clients_are_ended_and_the_swap_happens(c):
    ready(c)
    sessions = [c.pg.session() for _ in range(5)]
    idle = c.pg.session()
    idle.stdin.write("BEGIN; UPDATE customers SET name = name; SELECT 'in it';\n")
    assert idle.stdout.readline() == "in it\n"
    stop, seen = threading.Event(), []

    def client():
        while not stop.is_set():
            seen.append(c.pg.sql("SELECT count(*) FROM order_items", "shop", "gold_app", check=False))
    threads = [threading.Thread(target=client) for _ in range(2)]
    for t in threads:
        t.start()
    try:
        # The transaction left open holds rows only: the dump does not wait for it.
        execute(c, "x")
    finally:
        stop.set()
        for t in threads:
            t.join()
    recovered(c)
    for s in [*sessions, idle]:
        said = s.communicate("SELECT 'still here';\n", 10)[0]
        assert "terminat" in said and "still here" not in said, said
    assert c.pg.sql("SELECT count(*) FROM order_items", "shop", "gold_app") == "3000"


def case_a_session_that_cannot_be_ended_makes_it_give_up(c):
    ready(c, worker=False, **services(c, "web"))
    w = c.worker(DR_FAULT="execute.emergency.done:stop")
    send(c, "x")
    stopped(w)
    s = c.pg.session(user="postgres")  # the recovery's role may not end a superuser's session
    w.send_signal(signal.SIGCONT)
    c.until("x", "failed", "done", seconds=60)
    r = c.result("x", "failed")
    assert r["error"]["step"] == "quiesce" and "postgres" in r["error"]["message"], r
    s.kill()
    s.wait()
    untouched(c)
    assert up(c) == ["web"] and closed(c, "failed")


def case_a_restore_that_is_not_the_backup_is_refused_by_table(c):
    ready(c, worker=False)
    w = c.worker(DR_FAULT="execute.verify.intent:stop")
    send(c, "x")
    stopped(w)
    scratch, = [n for n in c.pg.databases() if "__dr_" in n]
    c.pg.sql("UPDATE products SET title = title || '!' WHERE id = (SELECT max(id) FROM products)", scratch)
    w.send_signal(signal.SIGCONT)
    c.until("x", "failed", "done")
    r = c.result("x", "failed")
    assert r["error"]["kind"] == "integrity" and "public.products" in r["error"]["message"], r
    untouched(c)


def case_cancel_before_quiesce_stops_it_and_after_it_nothing_does(c):
    ready(c, worker=False, **services(c, "web"))
    w = c.worker(DR_FAULT="execute.verify.intent:sleep:3000,execute.quiesce.done:sleep:1500")
    send(c, "x")
    wait(lambda: any("__dr_" in n for n in c.pg.databases()))
    c.cli("cancel", "x")
    c.until("x", "cancelled", "done", "failed")
    assert closed(c, "cancelled")
    untouched(c)
    send(c, "y")
    wait(lambda: up(c) == [])
    c.cli("cancel", "y")
    c.until("y", "done", "cancelled", "failed")
    c.result("y", "done")
    recovered(c)
    assert w.poll() is None and up(c) == ["web"]


# ---- services ----

def case_a_service_that_does_not_start_rolls_back(c):
    ready(c, **services(c, "web", "jobs"))
    (c.services / "broken-web").touch()
    r = execute(c, "x", "rolled_back")
    assert "no luck" in r["error"]["message"] and r["error"]["step"] == "start", r
    assert r["rolled_back"] and up(c) == ["jobs", "web"]
    assert now(c) == c.bad
    kept, = r["kept_old"]
    assert "__dr_" in kept["what"] and "rows" in kept["note"], r
    assert [n for n in c.pg.databases() if "__" in n] == [kept["what"]]
    assert closed(c, "rolled_back")
    c.cli("watch", "x", code=8)
    execute(c, "y")
    assert now(c) == c.good


def case_a_service_that_hangs_rolls_back(c):
    ready(c, **services(c, "web"))
    (c.services / "hang-web").touch()
    r = execute(c, "x", "rolled_back")
    assert r["downtime_ms"]["services"] >= 2000, r
    assert now(c) == c.bad and up(c) == ["web"]


def case_a_service_that_does_not_stop_leaves_live_untouched(c):
    ready(c, **services(c, "web", "jobs"))
    (c.services / "stays-web").touch()
    r = execute(c, "x", "failed")
    assert r["error"]["step"] == "quiesce" and "web" in r["error"]["message"], r
    untouched(c)
    assert up(c) == ["jobs", "web"] and closed(c, "failed")


def case_an_application_that_takes_every_connection_is_no_failure(c):
    ready(c, worker=False)
    c.pg.sql("ALTER DATABASE shop CONNECTION LIMIT 2")
    c.bad = now(c)
    starter = c.worker()
    c.backup()  # with that limit
    c.pg.sql("DELETE FROM basket", "shop")
    c.kill(starter, signal.SIGTERM)
    w = c.worker(DR_FAULT="execute.start.done:stop")
    send(c, "x")
    stopped(w)
    sessions = [c.pg.session() for _ in range(2)]
    w.send_signal(signal.SIGCONT)
    wait(lambda: c.job("x").get("step") == b"check")
    time.sleep(1)
    for s in sessions:
        s.kill()
        s.wait()
    c.until("x", "done", "failed")
    c.result("x", "done")
    assert now(c) == c.bad


def case_a_failing_check_after_the_swap_rolls_back(c):
    ready(c, worker=False)
    c.worker(DR_FAULT="execute.check.intent:fail")
    execute(c, "x", "rolled_back")
    assert now(c) == c.bad and closed(c, "rolled_back")


# ---- kills ----

BEFORE = ["select.done", "prove.done", "preflight.done", "restore.created", "restore.done", "verify.done", "properties.done",
          "emergency.done"]
DOWN = ["quiesce.services", "quiesce.shut", "quiesce.done", "swap.commit"]
AFTER = ["swap.reply", "swap.done", "start.done", "check.done", "close.done"]


def killed_at(c, point, outcome):
    """Connections are allowed again, and only a run that ended well leaves an old database."""
    c.pg.sql("DROP TABLE IF EXISTS basket", "shop", "gold")
    befores = sum("__before_" in n for n in c.pg.databases())
    taken_over(c, send, f"execute.{point}", outcome)
    names = c.pg.databases()
    assert not any("__dr_" in n for n in names), (point, names)
    assert sum("__before_" in n for n in names) == befores + (outcome == "done"), (point, names)
    assert (c.pg.sql("SELECT to_regclass('basket') IS NOT NULL", "shop", "gold_app") == "t") == (outcome == "done"), point


def kill_all(c, points, outcome):
    ready(c, **services(c, "web"))
    c.pg.sql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO gold_app", "shop")
    for p in c.processes[1:]:
        c.kill(p, signal.SIGTERM)
    c.worker(DR_LANES="noop")  # somebody sweeps all the time
    for point in points:
        killed_at(c, point, outcome)
    never_twice(c)


def case_sigkill_before_quiesce_early(c):
    kill_all(c, BEFORE[:4], "done")


def case_sigkill_before_quiesce_late(c):
    kill_all(c, BEFORE[4:], "done")


def case_sigkill_while_down_is_undone(c):
    kill_all(c, DOWN, "failed")


def case_sigkill_after_the_swap_is_finished(c):
    kill_all(c, AFTER, "done")


def case_a_new_order_first_ends_what_a_dead_run_left(c):
    """The dead run's message is lost for good: only its journal knows that services have to start."""
    ready(c, worker=False, **services(c, "web"))
    w = c.worker(DR_FAULT="execute.quiesce.done:stop")
    send(c, "x")
    stopped(w)
    c.worker()  # its look at the journals finds that one locked, the next look is a minute away
    c.r.flushall()
    c.kill(w)
    assert up(c) == []
    execute(c, "y")
    recovered(c)
    assert up(c) == ["web"]
    assert sorted(j[-1]["data"]["outcome"] for j in journals(c)) == ["done", "failed"]


def case_sigkill_and_redis_gone_any_worker_resolves_the_journal(c):
    """Services down, connections shut, the worker dead and no Redis: a worker that starts ends it."""
    for point, good in (("quiesce.done", False), ("swap.done", True)):
        if not c.settings:
            ready(c, worker=False, **services(c, "web"))
        w = c.worker(DR_FAULT=f"execute.{point}:kill")
        jid = point.replace(".", "-")
        send(c, jid)
        w.wait(60)
        c.kill(c.redis_process)
        assert up(c) == []
        other = c.worker(wait_up=False)
        wait(lambda: up(c) == ["web"], 60)
        wait(lambda: closed(c, "failed") if not good else journals(c)[-1][-1]["type"] == "run-closed" and
             all(j[-1]["type"] == "run-closed" for j in journals(c)))
        assert now(c) == (c.good if good else c.bad)
        c.start_redis()
        c.until(jid, "done", "failed", seconds=60)
        c.result(jid, "done" if good else "failed")
        c.kill(other, signal.SIGTERM)


def case_redis_dies_between_quiesce_and_swap(c):
    ready(c, worker=False, **services(c, "web"))
    w = c.worker(DR_FAULT="execute.quiesce.done:stop")
    send(c, "x")
    stopped(w)
    c.kill(c.redis_process)
    w.send_signal(signal.SIGCONT)
    wait(lambda: up(c) == ["web"])
    wait(lambda: closed(c, "done"))
    c.start_redis()
    c.until("x", "done", "failed")
    c.result("x", "done")
    recovered(c)


# ---- pauses ----

def paused(c, point):
    ready(c, worker=False, **services(c, "web"))
    w = woken(c, send, f"execute.{point}")
    recovered(c)
    return w


def case_a_paused_worker_wakes_to_a_successor_before_quiesce(c):
    w = paused(c, "verify.done")
    wait(lambda: "job.stale" in w.log.read_text())
    opens = [r for r in journals(c)[0] if r["type"] == "run-open"]
    assert len(opens) == 2, "the successor began anew"


def case_a_paused_worker_wakes_past_quiesce_and_ends_it(c):
    w = paused(c, "quiesce.done")
    wait(lambda: "job.stale" in w.log.read_text())
    assert sum(r["type"] == "run-open" for r in journals(c)[0]) == 1


def case_sigterm_past_quiesce_ends_the_run_first(c):
    ready(c, worker=False, **services(c, "web"))
    w = c.worker(DR_FAULT="execute.quiesce.done:sleep:1500", DR_DRAIN_MS="200")
    send(c, "x")
    wait(lambda: up(c) == [])
    assert c.kill(w, signal.SIGTERM) == 0
    c.result("x", "done")
    recovered(c)


def case_sigterm_before_quiesce_hands_back(c):
    ready(c, worker=False)
    w = c.worker(DR_FAULT="execute.verify.intent:sleep:3000", DR_DRAIN_MS="200")
    send(c, "x")
    wait(lambda: c.job("x").get("step") == b"verify")
    assert c.kill(w, signal.SIGTERM) == 0
    assert c.state("x") == "queued"
    untouched(c)
    c.worker()
    c.until("x", "done", "failed")
    c.result("x", "done")
    recovered(c)


if __name__ == "__main__":
    run(globals(), at_once=3)
