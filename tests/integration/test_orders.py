#!/usr/bin/env python3
"""Who may order what: signatures, roles, replays, unsigned orders, key files."""
import pathlib
import sys

import msgpack

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
from dr import run, wait  # noqa: E402
from signing import keys, now_ms, signed  # noqa: E402

PROCEDURE = {"procedure_id": "database_recovery"}


def execute(jid, **more):
    return {"id": jid, "t": "execute", "iat": now_ms(), "a": PROCEDURE, **more}


def probe(c, **env):
    return c.worker(program="tests/probe", PROBE_DIR=str(c.dir), **env)


def ran(c):
    path = c.dir / "runs"
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


def refused(c, kind, jid, reason="auth"):
    letter = wait(lambda: [d for d in c.dead() if d["kind"] == kind and d["jid"] == jid])[0]
    assert letter["reason"] == reason, letter
    assert not c.r.exists("{dr}:job:" + jid), "a stranger's order made a record"
    assert jid not in ran(c)
    return letter


def case_only_a_good_signature_runs(c):
    path, key = keys(c, "ops operator * -", "app app * -", "old operator * 2020-01-01T00:00:00Z",
                     "narrow operator retention -")
    probe(c, DR_SIGN_KEYS_FILE=str(path))
    wrong = bytes(32)
    c.push("execute", signed("ops", key["ops"], execute("good"), "execute"))
    assert c.until("good", "done")["actor"] == b"ops/"
    for jid, kind, raw in [
            ("bad", "bad-mac", signed("ops", wrong, execute("bad"), "execute")),
            ("other-key", "bad-mac", signed("ops", key["app"], execute("other-key"), "execute")),
            ("lane", "bad-mac", signed("ops", key["ops"], execute("lane"), "retention")),
            ("ns", "bad-mac", signed("ops", key["ops"], execute("ns"), "execute", ns="test")),
            ("kid", "unknown-kid", signed("nobody", key["ops"], execute("kid"), "execute")),
            ("old", "key-expired", signed("old", key["old"], execute("old"), "execute")),
            ("role", "not-allowed", signed("app", key["app"], execute("role"), "execute")),
            ("types", "not-allowed", signed("narrow", key["narrow"], execute("types"), "execute")),
            ("bare", "unsigned", msgpack.packb(execute("bare")))]:
        c.push("execute", raw)
        letter = refused(c, kind, jid)
        assert wrong.hex() not in str(letter) and key["ops"].hex() not in str(letter)
    body = bytearray(signed("ops", key["ops"], execute("flip"), "execute"))
    body[body.index(b"flip")] ^= 1
    c.push("execute", bytes(body))
    wait(lambda: sum(d["kind"] == "bad-mac" for d in c.dead()) == 5)
    c.push("execute", signed("ops", key["ops"], {"id": "swapped", "t": "noop", "iat": now_ms(), "a": {}}, "execute"))
    wait(lambda: [d for d in c.dead() if d["reason"] == "wrong-lane"])
    c.push("execute", signed("sched", key["ops"], {**execute("sched:x:1")}, "execute"))
    wait(lambda: [d for d in c.dead() if d["kind"] == "unknown-kid" and d["jid"] == "sched:x:1"])
    assert ran(c) == ["good"]
    wait(c.at_rest)


def case_signed_bodies_are_read_strictly(c):
    path, key = keys(c, "ops operator * -")
    probe(c, DR_SIGN_KEYS_FILE=str(path))
    late = {k: v for k, v in execute("no-iat").items() if k != "iat"}
    for jid, kind, field, body in [
            ("no-iat", "required", "iat", late),
            ("future", "future", "iat", execute("future", iat=now_ms() + 400_000)),
            ("unknown", "unknown", "x", execute("unknown", x=1)),
            ("arg", "unknown", "a.y", execute("arg", a={**PROCEDURE, "y": 1}))]:
        c.push("execute", signed("ops", key["ops"], body, "execute"))
        letter = wait(lambda: [d for d in c.dead() if d["jid"] == jid])[0]
        assert (letter["reason"], letter["kind"], letter["field"]) == ("bad-field", kind, field), letter
        assert c.state(jid) == "dead"
    assert ran(c) == []


def case_replays_run_nothing(c):
    path, key = keys(c, "ops operator * -")
    raw = signed("ops", key["ops"], execute("once", exp=now_ms() + 1500), "execute")
    late = signed("ops", key["ops"], execute("late", exp=now_ms() - 1), "execute")
    probe(c, DR_SIGN_KEYS_FILE=str(path))
    c.push("execute", raw)
    done = c.until("once", "done")
    c.push("execute", late)
    c.until("late", "expired")
    wait(lambda: now_ms() > msgpack.unpackb(msgpack.unpackb(raw)["b"])["exp"] + 100)
    for _ in range(3):
        c.push("execute", raw)
        c.push("execute", late)
    wait(lambda: c.r.llen("{dr}:q:execute") == 0 and c.at_rest())
    assert c.job("once") == done and c.state("late") == "expired"
    assert ran(c) == ["once"] and c.dead() == []


def case_unsigned_without_a_key_file_needs_permission(c):
    p = probe(c, DR_ALLOW_UNSIGNED="false")
    c.push("execute", execute("no"))
    refused(c, "unsigned", "no")
    c.kill(p)
    probe(c)
    c.push("execute", execute("yes"))
    assert c.until("yes", "done")["actor"] == b"unsigned"
    assert ran(c) == ["yes"]


def case_the_producer_signs(c):
    path, key = keys(c, "ops operator * -", "app app * -")
    probe(c, DR_SIGN_KEYS_FILE=str(path))
    env = {"DR_SIGN_KEYS_FILE": str(path), "DR_SIGN_KID": "ops"}
    assert c.cli("execute", "database_recovery", "--id", "e1", env=env).strip() == "e1"
    assert c.until("e1", "done")["kid"] == b"ops"
    c.cli("--key-file", str(path), "--kid", "app", "execute", "database_recovery", "--id", "e2")
    letter = wait(lambda: [d for d in c.dead() if d["jid"] == "e2"])[0]
    assert letter["kind"] == "not-allowed"
    assert c.state("e2") == "queued"  # the order is refused, the enqueued record is not another's to write
    assert "no key nobody" in c.cli("noop", "--key-file", str(path), "--kid", "nobody", code=2)
    assert ran(c) == ["e1"]


def case_key_files_and_new_keys(c):
    path, _ = keys(c, "a-1 viewer * -", "b.2 app verify,sync -", "c operator * 2030-01-01T00:00:00Z", "d admin * -")
    p = c.worker(DR_SIGN_KEYS_FILE=str(path))
    c.kill(p)
    first, second = c.cli("keys", "new", "k", "app"), c.cli("keys", "new", "k", "app")
    assert first != second and len(first.split()[4]) == 64 and len(first.split()) == 5
    for words in (["keys", "new", "k", "root"], ["keys", "new", "-k", "app"], ["keys", "new", "sched", "app"],
                  ["keys", "new", "k", "app", "--types", "execute"], ["keys", "new", "k", "app", "--not-after", "soon"],
                  ["keys", "new", "k"], ["keys", "old", "k", "app"]):
        c.cli(*words, code=2)
    for mode in 0o620, 0o602, 0o666:
        path.chmod(mode)
        p = c.worker(wait_up=False, DR_SIGN_KEYS_FILE=str(path))
        assert p.wait(20) == 2 and "may write" in p.log.read_text()
        env = {"DR_SIGN_KEYS_FILE": str(path), "DR_SIGN_KID": "d"}
        assert "may write" in c.cli("noop", env=env, code=2)
    path.chmod(0o600)
    path.write_text(path.read_text() + "one bad line\n")
    p = c.worker(wait_up=False, DR_SIGN_KEYS_FILE=str(path))
    assert p.wait(20) == 2 and "line 6" in p.log.read_text(), p.log.read_text()


if __name__ == "__main__":
    run(globals(), at_once=6)
