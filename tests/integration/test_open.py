"""drworker open and drworker keys: one file and the passphrase are enough, and nothing half proven ever comes out."""
import hashlib
import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(HERE / "lib"))
import dr  # noqa: E402

VECTORS = HERE / "vectors"
GOLDEN = json.loads((VECTORS / "vectors.json").read_text())
PASS = GOLDEN["secrets"]["passphrase"]


def bare(c, *words, secret=PASS, stdin=None, **env):
    """The command with nothing in its environment but the passphrase: no store, no Redis, no database."""
    if secret is not None:
        env["BACKUP_ENCRYPTION_PASSWORD"] = secret
    return subprocess.run([c.bin / "drworker", *map(str, words)], input=stdin, capture_output=True, timeout=120,
                          env={"PATH": os.environ["PATH"], **env})


def mutated(base, ops):
    data = bytearray((VECTORS / base).read_bytes())
    for op in ops:
        at, new = op.get("at", 0), bytes.fromhex(op.get("bytes", ""))
        if op["op"] == "xor":
            data[at] ^= int(op["with"], 16)
        elif op["op"] == "cut":
            del data[op["to"]:]
        elif op["op"] == "append":
            data += new
        elif op["op"] == "put":
            data[at:at + len(new)] = new
        elif op["op"] == "swap":
            b, n = op["and"], op["length"]
            data[at:at + n], data[b:b + n] = data[b:b + n], data[at:at + n]
        elif op["op"] == "delete":
            del data[at:at + op["length"]]
        else:
            raise AssertionError(op)
    return bytes(data)


def case_every_golden_file(c):
    for v in GOLDEN["containers"]:
        out = c.dir / "out"
        p = bare(c, "open", VECTORS / v["file"], "-o", out)
        assert p.returncode == 0 and p.stdout == b"", p
        assert hashlib.sha256(out.read_bytes()).hexdigest() == v["plain_sha256"], v["file"]
        assert out.stat().st_mode & 0o777 == 0o600
        p = bare(c, "open", VECTORS / v["file"])
        assert p.returncode == 0 and hashlib.sha256(p.stdout).hexdigest() == v["plain_sha256"], v["file"]
    v = GOLDEN["containers"][-1]
    p = bare(c, "open", "-", stdin=(VECTORS / v["file"]).read_bytes(), TMPDIR=str(c.dir))
    assert hashlib.sha256(p.stdout).hexdigest() == v["plain_sha256"], p
    assert sorted(f.name for f in c.dir.iterdir() if "drworker" in f.name) == []


def case_files_of_a_store(c):
    folder = VECTORS / "store" / "backups"
    for b in GOLDEN["store"]["backups"]:
        for name, digest in b["plain_sha256"].items():
            p = bare(c, "open", folder / b["backup_id"] / f"{name}.drb", secret=GOLDEN["secrets"][b["opens_with"]])
            if p.returncode == 0:
                assert hashlib.sha256(p.stdout).hexdigest() == digest, (b["backup_id"], name)
            else:  # only what says of itself that other files hold a part of it
                assert p.returncode == 7 and b"(incremental)" in p.stderr and p.stdout == b"", p


def case_refusals_leave_nothing(c):
    """One case of each class and length of negatives.json, by file, by pipe, to a file and to standard output."""
    seen, folder = set(), c.dir / "place"
    folder.mkdir()
    old = folder / "old"
    for case in json.loads((VECTORS / "negatives.json").read_text())["cases"]:
        kind = (case["expect"], "secret" in case, case["ops"][0]["op"] if case["ops"] else "")
        if case["on"] != "container" or kind in seen:
            continue
        seen.add(kind)
        file = c.dir / "bad.drb"
        file.write_bytes(mutated(case["base"], case["ops"]))
        old.write_bytes(b"was here before")
        for words, stdin in (((file, "-o", folder / "out"), None), ((file, "-o", old), None), ((file,), None),
                             (("-", "-o", folder / "out"), file.read_bytes())):
            p = bare(c, "open", *words, stdin=stdin, secret=case.get("secret", PASS))
            assert p.returncode == case["exit"], (case["case"], p)
            assert p.stdout == b"" and f"({case['expect']})".encode() in p.stderr, (case["case"], p)
            assert [f.name for f in folder.iterdir()] == ["old"] and old.read_bytes() == b"was here before", case
    assert len(seen) >= 24, len(seen)


def case_secret_only_from_environment_or_file(c):
    file, secret = VECTORS / "containers" / "c0-1.drb", c.dir / "secret"
    secret.write_text(PASS + "\n")
    assert bare(c, "open", file, secret=None).returncode == 2
    assert bare(c, "open", file, secret=None, BACKUP_ENCRYPTION_PASSWORD_FILE=str(secret)).stdout == b"\x03"
    assert bare(c, "open").returncode == 2
    assert bare(c, "open", file, file).returncode == 2
    assert bare(c, "open", file, "-o").returncode == 2
    assert bare(c, "open", c.dir / "none").returncode == 1
    assert bare(c, "open", file, "-o", c.dir / "none" / "out").returncode == 1
    assert bare(c, "open", c.dir).returncode != 0


@dr.needs_root
def case_disk_full(c):
    small = c.dir / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", small], check=True)
    try:
        p = bare(c, "open", VECTORS / "containers" / "c1-200000.drb", "-o", small / "out")
        assert p.returncode == 1 and b"No space left" in p.stderr, p
        assert list(small.iterdir()) == []
        p = bare(c, "open", "-", stdin=bytes(200000), TMPDIR=str(small))
        assert p.returncode == 1 and b"No space left" in p.stderr, p
    finally:
        subprocess.run(["umount", small], check=True)


def case_life_of_the_keys(c):
    store = c.store(database=False)
    first = json.loads(c.drworker("keys", "list", "--json", code=1) and c.drworker("keys", "init", "--json"))
    assert len(first["slots"]) == 1 and first["slots"][0]["rounds"] == 100000, first
    assert (store / "store.id").read_text() == first["store"] + "\n"
    assert "already" in c.drworker("keys", "init", code=1)
    code = c.drworker("keys", "add-recovery", "--label", "in the safe").strip()
    assert code.startswith("DRK1-") and len(code) == 76
    assert code not in (store / "keyring.json").read_text()
    slots = json.loads(c.drworker("keys", "list", "--json", BACKUP_ENCRYPTION_PASSWORD=code.lower()))["slots"]
    assert [(s["kind"], s["label"], s["used"]) for s in slots] == [("passphrase", "first", False),
                                                                  ("recovery", "in the safe", True)], slots
    new = c.dir / "new"
    new.write_text("too short\n")
    before = (store / "keyring.json").read_bytes()
    c.drworker("keys", "change-passphrase", "--new-file", new, code=4)
    c.drworker("keys", "change-passphrase", code=2)
    c.drworker("keys", "change-passphrase", "--new-file", c.dir / "none", code=1)
    assert (store / "keyring.json").read_bytes() == before
    new.write_text("a better passphrase 2026\n")
    c.drworker("keys", "change-passphrase", "--new-file", new)
    assert "wrong-secret" in c.drworker("keys", "list", code=6)
    after = json.loads(c.drworker("keys", "list", "--json", BACKUP_ENCRYPTION_PASSWORD=new.read_text().strip()))
    assert after["retired"] == 1 and len(after["slots"]) == 2, after
    c.drworker("keys", "list", BACKUP_ENCRYPTION_PASSWORD=code)
    lines = [json.loads(x) for x in (store / "catalog/log/000001.jsonl").read_text().splitlines()]
    assert [x["data"].get("change") for x in lines if x["type"] == "keys"] == ["init", "add-recovery",
                                                                              "change-passphrase"], lines
    assert new.read_text().strip() not in (store / "keyring.json").read_text()
    assert c.drworker("keys", "rotate", code=2)


def case_passphrase_changed_under_a_running_worker(c):
    """The old worker believes the new slot by the keys it holds, and proves what a new worker wrote with it."""
    c.store(database=False, files=True)
    c.worker(DR_LANES="verify,noop")
    new = c.dir / "new"
    new.write_text("a better passphrase 2026\n")
    c.drworker("keys", "change-passphrase", "--new-file", new)
    c.worker(DR_LANES="backup", BACKUP_ENCRYPTION_PASSWORD=new.read_text().strip())
    made = c.backup("files")
    assert c.order("verify", "old-worker", backup_id=made)["outcome"] == "done"
    file = c.dir / "store/backups" / made / "files.drb"
    assert bare(c, "open", file, secret=new.read_text().strip(), stdin=b"").returncode == 0
    assert bare(c, "open", file, secret=dr.PASSPHRASE).returncode == 6


if __name__ == "__main__":
    dr.run(globals())
