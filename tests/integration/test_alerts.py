#!/usr/bin/env python3
"""Alerts: each rule fires and recovers, in both sinks and the feed; told once by all workers; delivered
whatever the targets do and whoever dies; nothing of it holds up a job or says a secret."""
import hashlib
import hmac
import json
import pathlib
import re
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from dr import BIN, SCRIPTS, run, stopped, wait  # noqa: E402
from exposition import scrape  # noqa: E402
from monitored import listening  # noqa: E402
from sinks import CA, Mail, sinks  # noqa: E402

RULES = re.findall(r'^ALERT\("(\w+)", "(\w+)"', (pathlib.Path(__file__).resolve().parents[2] /
                                                 "worker/watch/alerts.def").read_text(), re.M)


def feed(c):
    return [{k.decode(): v.decode() for k, v in e[1].items()} for e in c.r.xrange("{dr}:ev") if e[1][b"e"] == b"alert"]


def alarm(c, op, rule, subject="x", severity="-", summary="it is so", details="", **env):
    """Another part of a worker says a word; when it returns, the targets have it or were given up."""
    p = subprocess.run([BIN / "tests/alarm", op, rule, subject, severity, summary, details], capture_output=True,
                       text=True, timeout=60, env=c.environment(**env))
    assert p.returncode == 0, (p.stdout, p.stderr)
    return p.stdout + p.stderr


def lines(worker, event):
    out = []
    for line in worker.log.read_text(errors="replace").splitlines():
        if f'"{event}"' in line:
            out.append(json.loads(line))
    return out


def settled(c):
    return not c.r.exists("{dr}:alert:out")


def failing_backups(c, **env):
    """A worker whose file backups fail for as long as the root is away; the root."""
    root = c.dir / "root"
    root.mkdir()
    (root / "a").write_text("a")
    c.store(database=False, files=[root], **env)
    return root


def case_a_failed_backup_fires_and_recovers(c):
    root = failing_backups(c)
    with sinks(c) as (hook, mail):
        c.worker()
        away = root.rename(c.dir / "away")
        c.order("backup", "b1", outcome="refused", kind="files")
        wait(lambda: len(hook.notices()) == 1 and len(mail.mails) == 1)
        c.order("backup", "b2", outcome="refused", kind="files")
        c.order("backup", "b3", outcome="refused", kind="files")
        away.rename(root)
        c.order("backup", "b4", kind="files")
        wait(lambda: len(hook.notices()) == 2 and len(mail.mails) == 2)
        c.order("backup", "b5", kind="files")
        wait(lambda: settled(c))
        fired, over = hook.notices()
        assert (fired["rule"], fired["subject"], fired["state"], fired["kind"], fired["severity"], fired["count"]) == \
            ("backup_failed", "files", "firing", "firing", "critical", 1), fired
        assert "job b1" in fired["details"] and fired["namespace"] == "dr" and fired["event"] == "alert"
        assert (over["state"], over["kind"], over["count"], over["since"]) == \
            ("resolved", "resolved", 3, fired["at"]), over
        assert over["id"] != fired["id"] and "job b4" in over["details"]
        assert [m["subject"] for m in mail.mails] == ["[dr] FIRING: backup (files): refused",
                                                      "[dr] RESOLVED: backup (files): works again"]
        m = mail.mails[0]
        assert m["from"] == "dr@example.org" and m["to"] == ["ops@example.org", "night@example.org"]
        assert fired["details"] in m["text"] and fired["id"] in m["message"]["Message-ID"]
        assert m["message"]["To"] == "ops@example.org, night@example.org"
        assert [(e["rule"], e["state"], e["count"]) for e in feed(c)] == \
            [("backup_failed", "firing", "1"), ("backup_failed", "resolved", "3")]
        for r in hook.requests:  # as a receiver would check it
            signed = r["headers"]["X-DR-Timestamp"].encode() + b"." + r["raw"]
            mac = hmac.new(b"hook secret", signed, hashlib.sha256).hexdigest()
            assert r["headers"]["X-DR-Signature"] == "sha256=" + mac
            assert r["headers"]["X-DR-Delivery"] == r["json"]["id"] and r["path"] == "/hook/with-a-token"
            now, _ = c.r.time()
            assert 0 <= now - int(r["headers"]["X-DR-Timestamp"]) < 60
        assert c.job("b1")["st"] == b"failed" and not c.r.exists("{dr}:alert")


def case_damage_and_failed_recoveries(c):
    root = failing_backups(c)
    with sinks(c) as (hook, mail):
        c.worker()
        backup = c.backup("files")
        box = next((c.dir / "store/backups" / backup).glob("files*.drb"))
        good = box.read_bytes()
        box.write_bytes(good[:-40] + bytes([good[-40] ^ 1]) + good[-39:])
        c.push("verify", {"id": "v1", "t": "verify", "a": {"backup_id": backup}, "mx": 1})
        c.push("execute", {"id": "x1", "t": "execute", "a": {"procedure_id": "file_system_recovery"}})
        c.push("execute", {"id": "x2", "t": "execute", "a": {"procedure_id": "file_system_recovery", "dry_run": True}})
        for jid in "v1", "x1", "x2":
            c.until(jid, "failed")
        wait(lambda: len(hook.notices()) == 2 and len(mail.mails) == 2)
        box.write_bytes(good)
        c.order("execute", "x3", procedure_id="file_system_recovery", backup_id=backup, dry_run=True)  # clears nothing
        assert c.r.hlen("{dr}:alert") == 2
        c.order("verify", "v2", backup_id=backup)
        c.order("execute", "x4", procedure_id="file_system_recovery")
        wait(lambda: len(hook.notices()) == 4 and len(mail.mails) == 4 and settled(c))
        for rule, subject in ("verify_failed", "store"), ("recovery_failed", "file_system_recovery"):
            for seen in hook.notices(), feed(c):
                assert [n["state"] for n in seen if (n["rule"], n["subject"]) == (rule, subject)] == \
                    ["firing", "resolved"], seen
        assert (root / "a").read_text() == "a" and not c.r.exists("{dr}:alert")


def firing(c):
    return sorted(k.decode() for k in c.r.hkeys("{dr}:alert"))


def damage(c, backup):
    """A byte of its files is another one; what takes that back."""
    box = next((c.dir / "store/backups" / backup).glob("files*.drb"))
    good = box.read_bytes()
    box.write_bytes(good[:-40] + bytes([good[-40] ^ 1]) + good[-39:])
    return lambda: box.write_bytes(good)


def case_a_damaged_backup_is_not_forgotten_for_good_ones(c):
    failing_backups(c)
    c.worker()
    bad, good = c.backup("files"), c.backup("files")
    mend = damage(c, bad)
    c.order("verify", "v1", outcome="failed", backup_id=bad)
    assert firing(c) == ["verify_failed store"]
    c.order("verify", "v2", budget_bytes=1)  # the one that was proven the longest time ago
    assert firing(c) == ["verify_failed store"]
    c.order("verify", "v3", backup_id=good)
    assert firing(c) == ["verify_failed store"]
    mend()
    c.order("verify", "v4", backup_id=bad)
    assert firing(c) == []


def case_a_mistyped_backup_is_no_alarm(c):
    """It is the order's fault: no integrity was lost, no recovery has failed. Nor does it clear what stands."""
    failing_backups(c)
    c.worker()
    mend = damage(c, bad := c.backup("files"))
    for stands in [], ["verify_failed store"]:
        for lane, args in ("verify", {}), ("execute", {"procedure_id": "file_system_recovery"}):
            result = c.order(lane, f"{lane}-{len(stands)}", "failed", backup_id="20260102T030405Z-files-aaaaaaaa", **args)
            assert result["error"]["field"] == "a.backup_id", result
        assert firing(c) == stands
        c.order("verify", f"bad-{len(stands)}", "failed", backup_id=bad)
    mend()
    c.order("verify", "good", backup_id=bad)
    assert firing(c) == []


def case_a_failed_test_is_cleared_by_a_test_only(c):
    files = {"procedure_id": "file_system_recovery"}
    failing_backups(c)
    c.worker()
    mend = damage(c, c.backup("files"))
    c.order("test-recovery", "d1", outcome="failed")
    c.order("test-recovery", "d2", outcome="failed", **files)
    both = ["recovery_failed test of all procedures", "recovery_failed test of file_system_recovery"]
    assert firing(c) == both
    mend()
    c.order("verify", "v", all=True)  # what was found damaged is a backup again
    assert firing(c) == both
    c.order("test-recovery", "p1", level="plan")
    c.order("test-recovery", "p2", level="plan", **files)
    assert firing(c) == both
    c.order("test-recovery", "d3", **files)
    assert firing(c) == both[:1]
    c.r.hset("{dr}:alert", both[1], c.r.hget("{dr}:alert", both[0]))
    c.order("test-recovery", "d4")  # of all: of each
    assert firing(c) == []
    c.order("test-recovery", "e1", outcome="refused", level="exercise")  # nothing ran, nothing failed
    assert firing(c) == [] and "recovery_failed" not in {e["rule"] for e in feed(c)[6:]}


def case_a_copy_beside_is_no_recovery(c):
    beside = {"procedure_id": "file_system_recovery", "no_swap": True}
    failing_backups(c)
    c.worker()
    mend = damage(c, bad := c.backup("files"))
    c.order("execute", "x1", outcome="failed", procedure_id="file_system_recovery")
    c.order("execute", "n1", outcome="failed", **beside)
    both = ["recovery_failed copy by file_system_recovery", "recovery_failed file_system_recovery"]
    assert firing(c) == both
    mend()
    c.order("verify", "good", backup_id=bad)  # it is the latest again
    c.order("execute", "n2", **beside)
    assert firing(c) == both[1:]
    c.order("execute", "x2", procedure_id="file_system_recovery")
    assert firing(c) == []


def case_what_health_finds(c):
    failing_backups(c)
    with sinks(c) as (hook, mail):
        c.worker()
        c.order("health", "h1")
        wait(lambda: {"backup_missing", "health_drop"} <= {n["rule"] for n in hook.notices()} and settled(c))
        missing = next(n for n in hook.notices() if n["rule"] == "backup_missing" and n["subject"] == "files")
        drop = next(n for n in hook.notices() if n["rule"] == "health_drop")
        assert missing["state"] == "firing" and missing["severity"] == "critical" and drop["severity"] == "critical"
        before = len(hook.notices())
        c.order("health", "h2")  # the same again is counted
        wait(lambda: c.r.hget("{dr}:alert", "health_drop health").split()[1] == b"2")
        assert len(hook.notices()) == before
        c.backup("files")
        c.order("health", "h3")
        wait(lambda: [n for n in hook.notices() if n["rule"] == "backup_missing" and n["subject"] == "files" and
                      n["state"] == "resolved"] and settled(c))
        assert any("RESOLVED: backup-files: " in m["subject"] for m in mail.mails)


def case_a_full_disk_and_a_late_slot(c):
    """By their own causes, to both targets, and over with them."""
    failing_backups(c)
    with sinks(c) as (hook, mail):
        w = c.worker(DR_DISK_RESERVE_BYTES=2**52)
        c.r.zadd("{dr}:schednext", {"nightly": int((time.time() - 400) * 1000)})
        c.order("health", "h1")
        wait(lambda: {"disk_low", "schedule_late"} <= {n["rule"] for n in hook.notices()} and settled(c))
        c.kill(w)
        c.worker()
        c.r.zadd("{dr}:schednext", {"nightly": int((time.time() + 600) * 1000)})
        c.order("health", "h2")
        wait(lambda: [n for n in hook.notices() if n["rule"] == "schedule_late" and n["state"] == "resolved"] and settled(c))
        for rule, subject, severity, says in (("disk_low", "disk", "critical", "disk"),
                                              ("schedule_late", "schedules", "warning", "nightly is late by 6 min")):
            seen = [n for n in hook.notices() if n["rule"] == rule]
            assert (seen[0]["state"], seen[0]["subject"], seen[0]["severity"]) == ("firing", subject, severity), seen
            assert says in seen[0]["summary"] and any(says in m["subject"] for m in mail.mails), seen


def case_damaged_keys_hold_up_no_job(c):
    failing_backups(c)
    with sinks(c) as (hook, mail):
        c.r.set("{dr}:alert", "junk")
        w = c.worker()
        away = (c.dir / "root").rename(c.dir / "away")
        c.order("backup", "b1", outcome="refused", kind="files")
        assert lines(w, "alert.undecided") and not hook.notices()
        c.r.delete("{dr}:alert")
        c.order("backup", "b2", outcome="refused", kind="files")
        wait(lambda: len(hook.notices()) == 1 and settled(c))
        c.r.hset("{dr}:alert", "backup_failed files", "no state of an alert")
        c.r.hset("{dr}:alert:out", "0a", "\n".join(["dead", "1"] + ["x"] * 11))
        away.rename(c.dir / "root")
        c.order("backup", "b3", kind="files")
        wait(lambda: [n["state"] for n in hook.notices()] == ["firing", "resolved"])


def case_every_rule_fires_and_recovers(c):
    with sinks(c) as (hook, mail):
        for rule, severity in RULES:
            summary = f"what {rule} means"
            alarm(c, "raise", rule, "x", summary=summary, details="more")
            alarm(c, "raise", rule, "x", summary="said again")
            alarm(c, "clear", rule, "x", summary="over")
            wait(lambda: settled(c))
            seen = [n for n in hook.notices() if n["rule"] == rule]
            assert [(n["state"], n["severity"], n["summary"], n["count"]) for n in seen] == \
                [("firing", severity, summary, 1), ("resolved", severity, "over", 2)], seen
            assert [(e["state"], e["kind"]) for e in feed(c) if e["rule"] == rule] == \
                [("firing", "firing"), ("resolved", "resolved")]
            mails = [m for m in mail.mails if f"rule      {rule}\r\n" in m["text"].replace("\n", "\r\n").replace("\r\r", "\r")]
            assert [m["subject"] for m in mails] == [f"[dr] FIRING: {summary}", "[dr] RESOLVED: over"], mails
        assert len(RULES) == 13


def given_up(c, lane, jid, point, **args):
    """A message whose workers die at that point, each of them, until it is dead."""
    c.push(lane, {"id": jid, "t": lane, "a": args})
    for _ in range(10):
        w = c.worker(wait_up=False, DR_FAULT=f"{point}:kill", DR_LEASE_MS="500")
        wait(lambda: w.poll() is not None or c.state(jid) == "dead")
        if c.state(jid) == "dead":
            break
    assert c.state(jid) == "dead" and {d["reason"] for d in c.dead()} == {"poison"}
    told = f"job {jid}:".encode()  # by whoever gave it up, after that: it must not be killed before
    wait(lambda: any(told in a for a in c.r.hgetall("{dr}:alert").values()) and settled(c))
    c.kill(w)


def case_a_message_that_kills_its_workers(c):
    """Given up, it is an alert of what it was about, once, and over when such a job ends well."""
    failing_backups(c)
    with sinks(c) as (hook, mail):
        given_up(c, "backup", "b1", "backup.prepare.intent", kind="files")
        given_up(c, "retention", "r1", "retention.plan.intent")
        given_up(c, "retention", "r2", "retention.plan.intent")
        given_up(c, "execute", "x1", "execute.select.intent", procedure_id="file_system_recovery")
        w = c.worker(DR_HTTP_LISTEN="127.0.0.1:0")
        wait(lambda: settled(c))
        fired = [(n["rule"], n["subject"], n["state"], n["severity"]) for n in hook.notices()]
        assert sorted(fired) == [("backup_failed", "files", "firing", "critical"),
                                 ("job_failed", "retention", "firing", "warning"),
                                 ("recovery_failed", "file_system_recovery", "firing", "critical")], fired
        first = next(n for n in hook.notices() if n["rule"] == "backup_failed")
        assert "workers died" in first["summary"] and "job b1" in first["details"], first
        where = wait(lambda: listening(w))
        wait(lambda: scrape(where)("drworker_queue_given_up_total") == 4)
        c.backup("files")
        c.order("retention", "r3")
        c.order("execute", "x2", procedure_id="file_system_recovery")
        wait(lambda: len(hook.notices()) == 6 and settled(c))
        assert [(n["subject"], n["state"], n["count"]) for n in hook.notices()[3:]] == \
            [("files", "resolved", 1), ("retention", "resolved", 2), ("file_system_recovery", "resolved", 1)]


def case_worse_is_news(c):
    with sinks(c) as (hook, mail):
        for severity in "warning", "critical", "warning":
            alarm(c, "raise", "health_drop", severity=severity)
        assert [(n["kind"], n["severity"]) for n in hook.notices()] == [("firing", "warning"), ("worse", "critical")]
        assert len(mail.mails) == 2, mail.mails


def earlier(c, alert, ms, raised=False):
    """It was told, or raised as well, so much earlier."""
    first, rest = c.r.hget("{dr}:alert", alert).split(b"\n", 1)
    words = first.split()
    for i in (2, 6) if raised else (2,):
        words[i] = str(int(words[i]) - ms).encode()
    c.r.hset("{dr}:alert", alert, b" ".join(words) + b"\n" + rest)


def case_what_nobody_says_again_is_told_again(c):
    """One reminder of all workers, though what failed is not tried any more; a week long."""
    root, hour = failing_backups(c), 3600_000
    with sinks(c) as (hook, mail):
        c.worker()
        c.worker()
        root.rename(c.dir / "away")
        c.order("backup", "b1", outcome="refused", kind="files")
        c.order("backup", "b2", outcome="refused", kind="full")
        wait(lambda: len(hook.notices()) == 2)
        earlier(c, "backup_failed files", 4 * hour - 60_000)  # in a minute
        earlier(c, "backup_failed full", 4 * hour)
        wait(lambda: len(hook.notices()) == 3 and len(mail.mails) == 3)
        again, first = hook.notices()[-1], next(n for n in hook.notices() if n["subject"] == "full")
        assert (again["kind"], again["subject"], again["count"], again["since"], again["severity"]) == \
            ("reminder", "full", 1, first["since"], "critical"), again
        assert again["summary"] == first["summary"] and again["details"] == first["details"] and again["id"] != first["id"]
        earlier(c, "backup_failed full", 7 * 24 * hour, raised=True)
        earlier(c, "backup_failed files", 60_000)
        wait(lambda: len(hook.notices()) == 4 and len(mail.mails) == 4 and settled(c))
        assert [(n["kind"], n["subject"]) for n in hook.notices()[2:]] == [("reminder", "full"), ("reminder", "files")]


def case_an_interrupted_recovery_is_told(c):
    """Its message is lost: whoever takes up its journal says how it ended."""
    root, recovery = failing_backups(c), {"procedure_id": "file_system_recovery"}
    with sinks(c) as (hook, mail):
        p = c.worker(DR_FAULT="execute.quiesce.done:kill")
        c.backup("files")
        c.push("execute", {"id": "cut-off", "t": "execute", "a": recovery})
        assert p.wait(30) == -9
        c.r.flushall()
        c.worker()
        wait(lambda: len(hook.notices()) == 1 and len(mail.mails) == 1)
        told = hook.notices()[0]
        assert (told["rule"], told["subject"], told["severity"]) == ("recovery_failed", "file_system_recovery", "critical")
        assert "failed" in told["summary"] and "job cut-off" in told["details"], told
        c.order("execute", "x", **recovery)
        wait(lambda: settled(c))
        assert firing(c) == [] and (root / "a").read_text() == "a"


def case_a_recovery_that_needs_a_human_is_told(c):
    """Nobody can tell what an unreadable journal meant, and no job is left that would say so."""
    failing_backups(c)
    p = c.worker(DR_FAULT="execute.quiesce.done:kill")
    c.backup("files")
    c.push("execute", {"id": "cut-off", "t": "execute", "a": {"procedure_id": "file_system_recovery"}})
    assert p.wait(30) == -9
    c.r.flushall()
    journal, = (c.dir / "store/journal").glob("*.log")
    good = journal.read_bytes()
    journal.write_bytes(good.replace(b"run-open", b"run-oben", 1))
    c.worker()
    wait(lambda: firing(c) == ["recovery_failed interrupted runs"])
    assert journal.name in feed(c)[0]["summary"]
    journal.write_bytes(good)
    earlier(c, "recovery_failed interrupted runs", 20 * 60_000, raised=True)
    c.worker()
    wait(lambda: firing(c) == ["recovery_failed file_system_recovery"])


def case_two_workers_tell_it_once(c):
    root = failing_backups(c)
    with sinks(c) as (hook, mail):
        root = root.rename(c.dir / "away")
        c.worker()
        c.worker()
        for i in range(6):
            c.push("backup", {"id": f"b{i}", "t": "backup", "a": {"kind": "files"}, "mx": 1})
        for i in range(6):
            c.until(f"b{i}", "failed")
        wait(lambda: len(hook.notices()) == 1 and len(mail.mails) == 1 and settled(c))
        root.rename(c.dir / "root")
        for i in range(4):
            c.push("backup", {"id": f"g{i}", "t": "backup", "a": {"kind": "files"}})
        for i in range(4):
            c.until(f"g{i}", "done")
        wait(lambda: len(hook.notices()) == 2 and len(mail.mails) == 2 and settled(c))
        assert [n["count"] for n in hook.notices()] == [1, 6]
        assert [e["state"] for e in feed(c)] == ["firing", "resolved"]


def behaving(c, mode, tries):
    """The webhook behaves like mode for some tries, then well; jobs do not notice."""
    failing_backups(c)
    with sinks(c) as (hook, mail):
        hook.mode = mode
        w = c.worker(DR_HTTP_LISTEN="127.0.0.1:0")
        (c.dir / "root").rename(c.dir / "away")
        c.order("backup", "b", outcome="refused", kind="files")
        wait(lambda: len(mail.mails) == 1)  # one target does not wait for the other
        wait(lambda: hook.tries >= tries)
        for i in range(20):
            c.push("noop", {"id": f"n{i}", "t": "noop", "a": {}})
        for i in range(20):
            c.until(f"n{i}", "done")
        assert hook.notices() == []
        hook.mode = "ok"
        hook.released.set()
        wait(lambda: len(hook.notices()) == 1 and settled(c))
        assert hook.notices()[0]["rule"] == "backup_failed" and len(mail.mails) == 1
        assert all(r["path"] == "/hook/with-a-token" for r in hook.requests), hook.requests
        retries = lines(w, "alert.retry")
        assert len(retries) >= tries and retries[0]["target"] == "webhook", w.log.read_text()
        m = scrape(listening(w))
        assert m("drworker_alert_deliveries_total", target="webhook", outcome="failed") == len(retries)
        assert m("drworker_alert_deliveries_total", target="webhook", outcome="sent") == 1
        assert m("drworker_alert_deliveries_total", target="mail", outcome="failed") == 0
        assert m("drworker_alerts_decided_total", **{"as": "raised"}) == 1
        assert m("drworker_alert_notices_waiting", target="webhook") == 0
        assert not lines(w, "loop.late") or max(int(x["ms"]) for x in lines(w, "loop.late")) < 5000
        assert "with-a-token" not in w.log.read_text() and "hook secret" not in w.log.read_text()


def case_a_slow_webhook(c):
    behaving(c, "slow", 1)


def case_a_webhook_that_redirects(c):
    behaving(c, "redirect", 2)


def case_a_webhook_that_answers_garbage(c):
    behaving(c, "garbage", 2)


def case_a_webhook_that_hangs_up(c):
    behaving(c, "cut", 2)


def case_a_webhook_that_fails(c):
    behaving(c, 500, 2)


def case_a_target_that_is_down_is_given_up_at_last(c):
    with sinks(c, DR_ALERT_TRIES=2, DR_ALERT_WEBHOOK_URL="https://127.0.0.1:1/", DR_ALERT_SMTP_URL="smtps://127.0.0.1:1"):
        out = alarm(c, "raise", "disk_low")
        for target in "webhook", "mail":
            assert f"{target} sent=0 failed_tries=2 given_up=1" in out, out
        assert settled(c) and [e["state"] for e in feed(c)] == ["firing"]


def case_a_private_address_is_refused(c):
    with sinks(c, DR_ALERT_ALLOW_PRIVATE="false", DR_ALERT_SMTP_URL=None, DR_ALERT_SMTP_USER=None, DR_ALERT_SMTP_PASSWORD=None,
               DR_ALERT_MAIL_FROM=None, DR_ALERT_MAIL_TO=None) as (hook, mail):
        for host in "127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433":
            out = alarm(c, "raise", "disk_low", host, DR_ALERT_WEBHOOK_URL=f"https://{host}:{hook.port}/")
            assert "webhook sent=0 failed_tries=1 given_up=1" in out and "not a public one" in out, out
        assert hook.tries == 0


def case_nothing_in_an_alert_becomes_a_header(c):
    with sinks(c) as (hook, mail):
        evil = "it\r\nBcc: spy@example.org\r\n\r\nbody\n.\nQUIT\n"
        umlauts = "Sicherung schl\u00e4gt fehl: " + "\u20ac" * 60
        alarm(c, "raise", "disk_low", "/srv\r\nX-A: b", summary=evil, details=evil)
        alarm(c, "raise", "backup_stale", "y", summary=umlauts, details=umlauts)
        first, second = mail.mails
        assert first["subject"] == "[dr] FIRING: it  Bcc: spy@example.org    body . QUIT "
        assert "Bcc" not in first["message"] and "X-A" not in first["message"]
        assert first["to"] == ["ops@example.org", "night@example.org"]
        assert "X-A: b" in first["text"] and "\nX-A" not in first["text"] and "\nBcc" not in first["text"]
        assert second["subject"] == "[dr] FIRING: " + umlauts and umlauts in second["text"]
        assert max(map(len, second["raw"].split(b"\r\n"))) <= 78
        assert [n["summary"] for n in hook.notices()] == [evil.translate({10: " ", 13: " "}), umlauts]


def case_a_worker_that_dies_after_deciding(c):
    failing_backups(c)
    with sinks(c) as (hook, mail):
        c.r.script_load((SCRIPTS / "alert.lua").read_text())  # or the first reply would be NOSCRIPT
        first = c.worker(DR_FAULT="alert.raise.reply:kill")
        (c.dir / "root").rename(c.dir / "away")
        c.push("backup", {"id": "b", "t": "backup", "a": {"kind": "files"}, "mx": 1})
        assert first.wait(20) == -9
        assert hook.tries == 0 and len(feed(c)) == 1 and c.state("b") == "running", c.job("b")
        second = c.worker()
        wait(lambda: len(hook.notices()) == 1 and len(mail.mails) == 1)
        c.until("b", "failed")  # run once more, and told once
        wait(lambda: settled(c))
        assert [e["kind"] for e in feed(c)] == ["firing"] and len(hook.notices()) == 1
        assert lines(second, "alert.taken_over")


def case_a_decision_whose_reply_is_lost(c):
    """Redis goes while the worker waits for what it decided: it asks again by the same id, and tells once."""
    failing_backups(c)
    with sinks(c) as (hook, mail):
        c.r.script_load((SCRIPTS / "alert.lua").read_text())  # or the first reply would be NOSCRIPT
        w = c.worker(DR_FAULT="alert.raise.sent:stop")
        (c.dir / "root").rename(c.dir / "away")
        c.push("backup", {"id": "b", "t": "backup", "a": {"kind": "files"}, "mx": 1})
        stopped(w)
        wait(lambda: len(feed(c)) == 1)
        c.kill(c.redis_process, 15)  # it keeps what it has
        w.send_signal(18)
        c.start_redis()
        c.until("b", "failed")
        wait(lambda: len(hook.notices()) == 1 and len(mail.mails) == 1 and settled(c))
        assert [(e["kind"], e["count"]) for e in feed(c)] == [("firing", "1")], feed(c)


def case_a_worker_that_dies_between_its_targets(c):
    failing_backups(c)
    with sinks(c) as (hook, mail):
        hook.mode = "slow"
        first = c.worker()
        (c.dir / "root").rename(c.dir / "away")
        c.order("backup", "b", outcome="refused", kind="files")
        wait(lambda: hook.tries == 1 and len(mail.mails) == 1)
        wait(lambda: c.r.hvals("{dr}:alert:out")[0].split(b"\n")[2] == b"webhook")
        c.kill(first)
        hook.mode = "ok"
        c.worker()
        wait(lambda: len(hook.notices()) == 1 and settled(c))
        assert len(mail.mails) == 1


def case_alerts_wait_for_redis(c):
    failing_backups(c)
    with sinks(c) as (hook, mail):
        w = c.worker()
        (c.dir / "root").rename(c.dir / "away")
        c.push("noop", {"id": "n", "t": "noop", "a": {"sleep_ms": 200}})
        c.order("backup", "b", outcome="refused", kind="files")
        wait(lambda: len(hook.notices()) == 1 and settled(c))
        (c.dir / "away").rename(c.dir / "root")
        c.kill(c.redis_process)
        c.start_redis()
        c.order("backup", "g", kind="files")
        wait(lambda: [n["state"] for n in hook.notices()] == ["firing", "resolved"])
        assert w.poll() is None


def case_alert_test(c):
    assert "no worker has answered" in c.cli("alert-test", "--wait", "--timeout", "200ms", code=11)
    c.r.delete("{dr}:alert:test")
    with sinks(c) as (hook, mail):
        c.worker()
        out = c.cli("alert-test", "--wait")
        assert out.split("\n")[:3] == ["webhook  accepted", "mail     accepted", "events   written"], out
        assert hook.notices()[0]["kind"] == "test" and mail.mails[0]["subject"].startswith("[dr] TEST: ")
        assert feed(c)[-1]["kind"] == "test"
        hook.mode = 500
        p = subprocess.run([BIN / "drproducer", "--json", "alert-test", "--wait"], capture_output=True, text=True,
                           env=c.environment(), timeout=60)
        got = json.loads(p.stdout)
        assert p.returncode == 1 and not got["webhook"]["ok"] and "500" in got["webhook"]["text"] and got["mail"]["ok"]
        mail.refuse = "550 no such person"
        hook.mode = "ok"
        p = subprocess.run([BIN / "drproducer", "alert-test", "--wait"], capture_output=True, text=True,
                           env=c.environment(), timeout=60)
        assert p.returncode != 0 and "webhook  accepted" in p.stdout and "mail     accepted" not in p.stdout, p
        dump = b" ".join(v for k in c.r.keys("{dr}:alert*") for v in
                         (c.r.hvals(k) if c.r.type(k) == b"hash" else [c.r.dump(k) or b""]))
        for secret in b"hook secret", b"mail secret", b"with-a-token":
            assert secret not in dump and secret.decode() not in p.stdout + p.stderr
        again = c.cli("alert-test")  # without --wait it only asks
        assert re.fullmatch(r"[0-9a-f]{32}\n", again), again


def case_alert_test_without_targets(c):
    c.worker()
    assert "no target is configured" in c.cli("alert-test", "--wait", code=1)


def case_mail_only_over_tls_and_only_to_the_right_server(c):
    ca, other = CA(c.dir / "right"), CA(c.dir / "other")
    plain, starttls, tls = Mail(), Mail(ca), Mail(ca, implicit=True)
    common = {"DR_ALERT_MAIL_FROM": "dr@example.org", "DR_ALERT_MAIL_TO": "ops@example.org", "DR_ALERT_TRIES": 1,
              "DR_ALERT_SMTP_USER": "robot", "DR_ALERT_SMTP_PASSWORD": "mail secret", "DR_ALERT_CA_FILE": ca.file}
    for i, (sink, more, reason) in enumerate([(plain, {}, "starttls"), (tls, {}, None), (starttls, {}, None),
                               (tls, {"DR_ALERT_CA_FILE": other.file}, "certificate"),
                               (starttls, {"DR_ALERT_CA_FILE": other.file}, "certificate"),
                               (tls, {"DR_ALERT_CA_FILE": None}, "certificate"),
                               (tls, {"DR_ALERT_SMTP_PASSWORD": "wrong secret"}, "login")]):
        out = alarm(c, "raise", "disk_low", str(i), DR_ALERT_SMTP_URL=sink.url, **{**common, **more})
        assert f"mail sent={int(not reason)} failed_tries={int(bool(reason))}" in out, out
        assert reason is None or f'"{reason}"' in out, (reason, out)
        assert "mail secret" not in out and "wrong secret" not in out
    assert not plain.mails and len(tls.mails) == 1 and len(starttls.mails) == 1
    for sink in plain, starttls, tls:
        sink.close()


def case_a_mail_server_that_does_not_say_goodbye(c):
    failing_backups(c)
    with sinks(c) as (hook, mail):
        mail.hold_quit = True
        w = c.worker()
        (c.dir / "root").rename(c.dir / "away")
        c.order("backup", "b", outcome="refused", kind="files")
        wait(lambda: mail.quits == 1)
        for i in range(20):  # the loop turns on
            c.push("noop", {"id": f"n{i}", "t": "noop", "a": {}})
        for i in range(20):
            c.until(f"n{i}", "done")
        mail.loop.call_soon_threadsafe(mail.go_on.set)
        wait(lambda: settled(c))
        assert len(mail.mails) == 1 and w.poll() is None


def case_a_worker_ends_while_it_delivers(c):
    failing_backups(c)
    with sinks(c) as (hook, mail):
        hook.mode = "slow"
        w = c.worker()
        (c.dir / "root").rename(c.dir / "away")
        c.order("backup", "b", outcome="refused", kind="files")
        wait(lambda: hook.tries == 1)
        assert c.kill(w, 15) == 0
        assert c.r.hlen("{dr}:alert:out") == 1
        hook.mode = "ok"
        c.worker()
        wait(lambda: len(hook.notices()) == 1 and settled(c))


BAD = [({"DR_ALERT_WEBHOOK_URL": "ftp://example.org/x"}, "DR_ALERT_WEBHOOK_URL: not an https:// URL"),
       ({"DR_ALERT_WEBHOOK_URL": "http://example.org/x"}, "http:// only with DR_ALERT_ALLOW_PRIVATE=true"),
       ({"DR_ALERT_WEBHOOK_URL": "https:///x"}, "no host"),
       ({"DR_ALERT_WEBHOOK_URL": "https://a b/"}, "no host, or a blank"),
       ({"DR_ALERT_WEBHOOK_SECRET": "x"}, "DR_ALERT_WEBHOOK_URL: missing"),
       ({"DR_ALERT_SMTP_URL": "https://example.org"}, "DR_ALERT_SMTP_URL: not smtps://"),
       ({"DR_ALERT_SMTP_URL": "smtps://example.org/x/y"}, "DR_ALERT_SMTP_URL: not smtps://"),
       ({"DR_ALERT_SMTP_URL": "smtps://u:p4ssw0rd@example.org"}, "DR_ALERT_SMTP_USER"),
       ({"DR_ALERT_SMTP_URL": "smtps://example.org", "DR_ALERT_MAIL_TO": "a@b"}, "DR_ALERT_MAIL_FROM: not a bare"),
       ({"DR_ALERT_SMTP_URL": "smtps://example.org", "DR_ALERT_MAIL_FROM": "a@b"}, "DR_ALERT_MAIL_TO: missing"),
       ({"DR_ALERT_SMTP_URL": "smtps://example.org", "DR_ALERT_MAIL_FROM": "a@b", "DR_ALERT_MAIL_TO": "a@b,<c@d>"},
        "DR_ALERT_MAIL_TO=<c@d>"),
       ({"DR_ALERT_SMTP_URL": "smtps://example.org", "DR_ALERT_MAIL_FROM": "a@b\r\nX: y", "DR_ALERT_MAIL_TO": "a@b"},
        "DR_ALERT_MAIL_FROM: not a bare"),
       ({"DR_ALERT_MAIL_TO": "a@b"}, "DR_ALERT_SMTP_URL: missing"),
       ({"DR_ALERT_REPEAT": "0s"}, "DR_ALERT_REPEAT: not a duration 1s..30d"),
       ({"DR_ALERT_REPEAT": "31d"}, "DR_ALERT_REPEAT=31d"),
       ({"DR_ALERT_REPEAT": "often"}, "DR_ALERT_REPEAT"),
       ({"DR_ALERT_TRIES": "0"}, "DR_ALERT_TRIES: not a whole number 1..1000"),
       ({"DR_ALERT_ALLOW_PRIVATE": "maybe"}, "DR_ALERT_ALLOW_PRIVATE: neither true nor false"),
       ({"DR_ALERT_CA_FILE": "/nowhere"}, "DR_ALERT_CA_FILE: cannot be read")]


def case_bad_settings_and_check(c):
    for env, text in BAD:
        out = c.drworker("run", code=2, **env)
        assert text in out and "p4ssw0rd" not in out, (env, out)
    c.store(database=False, files=True)
    assert "webhook not configured; mail not configured" in c.drworker("check")
    with sinks(c):
        out = c.drworker("check")
        assert "webhook at 127.0.0.1:" in out and ", signed; mail by smtp://localhost:" in out and " to 2" in out, out
        assert "with-a-token" not in out and "secret" not in out.replace("X", "")


if __name__ == "__main__":
    run(globals(), at_once=3)
