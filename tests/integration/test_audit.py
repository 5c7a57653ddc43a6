#!/usr/bin/env python3
"""The audit log: every order and what came of it; a record changed, removed, moved or added is found."""
import getpass
import hashlib
import json
import pathlib
import re
import shutil
import sys

import msgpack

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from dr import run, wait  # noqa: E402
from signing import keys, now_ms, signed  # noqa: E402

RECOVERY = {"procedure_id": "file_system_recovery"}


def records(c, *words):
    return [json.loads(line) for line in c.drworker("audit", "show", "--json", *words).splitlines()]


def log(c):
    return c.dir / "store/audit/log/000001.jsonl"


def broken(c):
    """Class and sentence of a log that is not whole."""
    c.drworker("audit", "verify", code=7)
    told = json.loads(c.drworker("audit", "verify", "--json", code=7, merged=True).splitlines()[0])
    assert told["ok"] is False
    return told["class"]


def refuse_many(c, count, name="stranger"):
    """Refused orders are the cheapest records."""
    before = len(c.dead())
    c.push_many("execute", [{"id": f"{name}-{i}", "t": "execute", "a": {**RECOVERY, "color": "red"}} for i in range(count)])
    wait(lambda: len(c.dead()) >= before + count)
    wait(c.at_rest)


def case_every_order_and_what_came_of_it(c):
    c.store(database=False, files=True)
    c.worker()
    c.order("noop", "quiet")
    taken = c.backup("files")
    c.order("execute", "rehearsal", dry_run=True, reason="is it\nthere?", actor="anna", **RECOVERY)
    c.push("execute", {"id": "odd", "t": "execute", "a": {**RECOVERY, "color": "red"}})
    c.until("odd", "dead")
    c.order("execute", "nothing", outcome="failed", backup_id="20200101T000000Z-files-aaaaaaaa", **RECOVERY)
    found = records(c)
    assert [r["seq"] for r in found] == list(range(1, len(found) + 1))
    told = [(r["type"], r["data"]["job"], r["data"].get("outcome")) for r in found]
    assert told == [("started", "take-files-1", None), ("ended", "take-files-1", "done"),
                    ("started", "rehearsal", None), ("ended", "rehearsal", "done"), ("refused", "odd", None),
                    ("started", "nothing", None), ("ended", "nothing", "failed")], told
    order = found[2]["data"]
    assert order["actor"] == "unsigned" and order["claimed_actor"] == "anna" and order["lane"] == "execute", order
    assert order["args"] == {**RECOVERY, "dry_run": True, "reason": "is it there?", "actor": "anna"}, order
    assert found[4]["data"]["field"] == "a.color" and found[4]["data"]["reason"] == "bad-field", found[4]
    assert "no backup" in found[6]["data"]["message"]
    assert [r["data"]["job"] for r in records(c, "--job", "rehearsal")] == ["rehearsal"] * 2
    assert records(c, "--last", "3") == found[-3:]
    assert records(c, "--since", found[5]["at"]) == [r for r in found if r["at"] >= found[5]["at"]]
    text = c.drworker("audit", "show")
    assert "by unsigned" in text and "rehearsal" in text and len(text.splitlines()) == len(found), text
    assert "7 records" in c.drworker("audit", "verify") and taken
    c.drworker("audit", "look", code=2)
    c.drworker("audit", "show", "--last", "0", code=2)


def told(c, jid, count=1):
    """What the log holds of an order, once there are so many records."""
    return wait(lambda: (lambda found: found if len(found) >= count else None)(records(c, "--job", jid)))


def case_orders_that_ended_while_they_waited(c):
    """Nothing ran, and yet it is known what was ordered by whom, how it ended and who ended it."""
    c.store(database=False, files=True)
    c.r.sadd("{dr}:pause", "backup")
    c.worker()
    c.push("backup", {"id": "late", "t": "backup", "iat": now_ms() - 2000, "exp": now_ms() - 1000, "a": {"kind": "files"}})
    c.cli("backup", "files", "--id", "unwanted")
    c.cli("cancel", "unwanted")
    assert c.state("unwanted") == "cancelled" and records(c) == []
    c.r.srem("{dr}:pause", "backup")
    me = getpass.getuser() + "@"
    for jid, outcome, by in ("late", "expired", ""), ("unwanted", "cancelled", me):
        only, = told(c, jid)
        assert (only["type"], only["data"]["outcome"], only["data"]["actor"]) == ("ended", outcome, "unsigned"), only
        assert only["data"]["args"]["kind"] == "files" and only["data"]["kid"] == "", only
        assert only["data"].get("cancelled_by", "").startswith(by), only
    wait(c.at_rest)
    assert f"cancelled by {me}" in c.drworker("audit", "show", "--job", "unwanted")
    c.kill(c.processes[-1])
    c.worker(DR_FAULT="backup.data.done:sleep:2000")
    c.push("backup", {"id": "stopped", "t": "backup", "a": {"kind": "files"}})
    wait(lambda: c.job("stopped").get("step") == b"data")
    c.cli("cancel", "stopped")
    end = told(c, "stopped", 2)[-1]["data"]
    assert end["outcome"] == "cancelled" and end["cancelled_by"].startswith(me) and "args" not in end, end


def case_a_worker_that_dies_before_it_notes_down_the_end(c):
    """Redis has ended the order already; whoever meets its message next writes the record."""
    c.store(database=False, files=True)
    p = c.worker(DR_FAULT="start.reply:2:kill")  # the first one is that Redis has no such script yet
    c.push("backup", {"id": "late", "t": "backup", "iat": now_ms() - 2000, "exp": now_ms() - 1000, "a": {"kind": "files"}})
    assert p.wait(30) == -9 and c.state("late") == "expired"
    assert records(c) == []
    c.worker()
    assert told(c, "late")[0]["data"]["outcome"] == "expired"
    wait(c.at_rest)


def case_what_scripts_bury(c):
    """By the reaper, of a lane that nobody serves; too long to be read; a stranger's order in the lane of noop."""
    c.store(database=False, files=True)
    raw = msgpack.packb({"id": "deadly", "t": "sync", "a": {}})
    c.r.hset("{dr}:deliv", hashlib.sha1(raw).hexdigest(), 5)
    c.r.hset("{dr}:run", "7", b"somebody|sync|" + raw)
    c.r.zadd("{dr}:lease:sync", {"7": 1})
    c.worker()
    c.push("noop", {"id": "stray", "t": "execute", "a": {**RECOVERY, "actor": "mallory"}})
    c.push("noop", b"x" * 262145)
    poison, = told(c, "deadly")
    assert poison["type"] == "refused" and poison["data"]["lane"] == "sync", poison
    assert poison["data"]["reason"] == "poison" and poison["data"]["value"] == "6", poison
    stray, = told(c, "stray")
    assert stray["data"]["reason"] == "wrong-lane" and stray["data"]["claimed_actor"] == "mallory", stray
    assert stray["data"]["lane"] == "noop" and stray["data"]["actor"] == "unsigned", stray
    big, = told(c, "")
    assert big["data"]["reason"] == "too-big" and big["data"]["value"] == "262145", big
    wait(c.at_rest)
    c.order("noop", "after")
    assert len(records(c)) == 3


def case_refused_orders_name_who_signed_them(c):
    """Never who only says so."""
    path, key = keys(c, "ops operator * -", "app app * -")
    c.store(database=False, files=True, DR_SIGN_KEYS_FILE=path)
    c.worker()
    for jid, kid, secret, more, wanted in [
            ("odd", "ops", key["ops"], {"color": "red"}, ("ops", "ops/anna", "anna")),
            ("role", "app", key["app"], {}, ("app", "app/anna", "anna")),
            ("forged", "ops", bytes(32), {}, ("", "", "anna")),
            ("odd-actor", "ops", key["ops"], {"actor": 7}, ("ops", "ops/", "")),
            ("long-actor", "ops", key["ops"], {"actor": "x" * 5000}, ("ops", "ops/", ""))]:
        body = {"id": jid, "t": "execute", "iat": now_ms(), "a": {**RECOVERY, "actor": "anna", **more}}
        c.push("execute", signed(kid, secret, body, "execute"))
        d = told(c, jid)[0]["data"]
        assert (d["kid"], d["actor"], d["claimed_actor"]) == wanted, (jid, d)
    c.push("execute", {"id": "bare", "t": "execute", "a": {**RECOVERY, "actor": "anna"}})
    d = told(c, "bare")[0]["data"]
    assert (d["kid"], d["actor"], d["claimed_actor"]) == ("", "unsigned", "anna"), d


def case_a_command_that_changes_something(c):
    c.store(database=False, files=True)
    c.worker()
    c.backup("files")
    code = c.drworker("keys", "add-recovery", "--label", "safe").split()[0]
    last = records(c)[-1]
    assert last["type"] == "changed" and last["data"]["action"] == "keys add-recovery", last
    assert last["data"]["subject"] == "safe" and last["data"]["actor"].startswith("cli/"), last
    assert code not in log(c).read_text()


def case_what_a_person_decides_about_a_backup(c):
    """And the store made by hand: each is `changed`, whatever changed nothing is not."""
    c.store(database=False, files=True)
    made = c.drworker("keys", "init").split()[1].rstrip(",")
    first, = records(c)
    assert (first["type"], first["data"]["action"], first["data"]["subject"]) == ("changed", "keys init", made), first
    c.worker()
    taken = c.backup("files")
    for words, reason in [(("--pin", taken, "--reason", "court case 12/26"), "court case 12/26"), (("--unpin", taken), ""),
                          (("--acknowledge", taken), ""), (("--give-up", taken, "--reason", "a test"), "a test"),
                          (("--undelete", taken), "")]:
        c.drworker("backups", *words)
        c.drworker("backups", *words)  # is so already
        done, = [r["data"] for r in records(c) if r["data"].get("action") == "backups " + words[0]]
        assert (done["subject"], done["reason"]) == (taken, reason) and done["actor"].startswith("cli/"), done
    c.drworker("backups", "--pin", "20200101T000000Z-files-aaaaaaaa", "--reason", "x", code=1)
    assert "records" in c.drworker("audit", "verify")
    assert len([r for r in records(c) if r["type"] == "changed"]) == 6


def case_what_was_changed_is_found(c):
    c.store(database=False, files=True)
    c.worker()
    refuse_many(c, 6)
    whole, head = log(c).read_bytes(), log(c).parents[1] / "head.json"
    signed = head.read_bytes()
    lines = whole.splitlines(True)
    assert len(lines) == 6
    assert "6 records" in c.drworker("audit", "verify")
    for name, damaged, classes in [
            ("changed", whole.replace(b"stranger-2", b"stranger-9"), {"audit-chain"}),
            ("changed last", whole.replace(b"stranger-5", b"stranger-9"), {"head-mismatch"}),
            ("removed", b"".join(lines[:2] + lines[3:]), {"audit-chain"}),
            ("removed first", b"".join(lines[1:]), {"audit-chain"}),
            ("removed last", b"".join(lines[:-1]), {"audit-short"}),
            ("swapped", b"".join([lines[0], lines[2], lines[1], *lines[3:]]), {"audit-chain"}),
            ("said twice", b"".join(lines[:3] + lines[2:]), {"audit-chain"}),
            ("no JSON", whole.replace(b'{"seq":3', b'("seq":3'), {"audit-form"}),
            ("emptied", b"", {"audit-short"})]:
        log(c).write_bytes(damaged)
        assert broken(c) in classes, (name, broken(c))
    log(c).write_bytes(whole)
    head.write_bytes(re.sub(rb'"seq":6', b'"seq":5', signed))
    assert broken(c) == "head-sig"
    head.write_bytes(b"{}\n")
    assert broken(c) == "head-form"
    head.unlink()
    assert broken(c) == "head-missing"
    # the catalog's head is signed with the same key, and is no head of this log
    head.write_bytes((c.dir / "store/catalog/head.json").read_bytes())
    assert broken(c) == "head-sig"
    head.write_bytes(signed)
    log(c).write_bytes(whole + lines[-1])
    assert "cut off" in c.drworker("audit", "verify")  # not signed, so nobody believes it
    refuse_many(c, 7, "later")  # and the next writer cuts it off
    assert "records" in c.drworker("audit", "verify") and lines[-1] not in log(c).read_bytes()[len(whole):]


def case_an_older_log_is_no_log(c):
    """The catalog witnesses every 32nd record: neither an older copy nor none at all passes."""
    store = c.store(database=False, files=True)
    p = c.worker()
    refuse_many(c, 20)
    shutil.copytree(store / "audit", c.dir / "older")
    refuse_many(c, 40, "more")
    assert json.loads(c.drworker("audit", "verify", "--json"))["witnessed"] == 32
    shutil.move(store / "audit", c.dir / "real")
    shutil.copytree(c.dir / "older", store / "audit")
    assert broken(c) == "audit-witness"
    shutil.rmtree(store / "audit")
    assert broken(c) == "head-missing"
    # whoever appends does not begin a new one beside the witness; the order is done all the same
    c.backup("files")
    assert "audit.unwritten" in p.log.read_text()
    assert broken(c) == "head-missing"
    shutil.rmtree(store / "audit")
    shutil.move(c.dir / "real", store / "audit")
    c.backup("files")
    assert [r["data"].get("outcome") for r in records(c, "--last", "2")] == [None, "done"]


def case_killed_at_each_point(c):
    c.store(database=False, files=True)
    c.worker()
    for point in "publish.line", "publish.head", "audit.witness":
        c.kill(c.processes[-1])
        p = c.worker(DR_FAULT=point + ":kill")
        c.push("execute", {"id": "k-" + point, "t": "execute", "a": {**RECOVERY, "color": "red"}})
        assert p.wait(30) == -9
        c.worker()
        wait(lambda: c.state("k-" + point) == "dead")
        wait(c.at_rest)
        assert "records" in c.drworker("audit", "verify")
        assert records(c)[-1]["data"]["job"] == "k-" + point


def case_an_open_journal_is_an_order_too(c):
    c.store(database=False, files=True)
    p = c.worker(DR_FAULT="execute.quiesce.done:kill")
    c.backup("files")
    c.push("execute", {"id": "cut-off", "t": "execute", "a": RECOVERY})
    assert p.wait(30) == -9
    c.r.flushall()  # nobody will bring the message again
    c.worker()
    found = wait(lambda: [r for r in records(c) if r["type"] == "resolved"])[0]["data"]
    assert found["job"] == "cut-off" and found["procedure"] == RECOVERY["procedure_id"], found
    assert found["outcome"] == "failed" and found["message"], found


def case_a_flood_of_refusals_is_bounded(c):
    c.store(database=False, files=True)
    a, b = c.worker(), c.worker()
    refuse_many(c, 400)
    state = json.loads(c.drworker("audit", "verify", "--json"))
    assert 60 <= state["records"] <= 2 * 2 * 60, state
    assert a.poll() is None and b.poll() is None


if __name__ == "__main__":
    run(globals(), at_once=4)
