#!/usr/bin/env python3
"""file_system_recovery with real workers: what comes back, what is refused, and every fault on the way.

The rule behind all cases: whatever happens, each root is either what it was or what was proven,
services are up, and nothing of a run stays but what its result names.
"""
import ctypes
import os
import pathlib
import shutil
import signal
import stat
import struct
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import trees  # noqa: E402
from dr import BIN, ROOT, needs_root, run, stopped, wait  # noqa: E402
from recoveries import closed, journals, never_twice, services, taken_over, up, woken  # noqa: E402

LANES = "backup:1,execute:1"
CLONE_NEWNS = 0x20000


def acl(user, perms):
    """An access ACL as the kernel has it: owner rw-, user: perms, group r--, mask rw-, other r--."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, p, who) for tag, p, who in
                                           [(1, 6, 0xffffffff), (2, perms, user), (4, 4, 0xffffffff), (16, 6, 0xffffffff), (32, 4, 0xffffffff)])


def dress(root):
    """What trees.uploads lacks: attributes, ACLs, set-id bits, a fifo, unreachable folders, odd times."""
    os.setxattr(root / "zero", "user.origin", b"\x00binary\xff")
    os.setxattr(root / "private", "user.folder", b"yes")
    os.setxattr(root / "run me", "system.posix_acl_access", acl(12345, 6))
    os.chmod(root / "invoices", 0o2750)
    os.mkfifo(root / "pipe", 0o640)
    (root / "read only").mkdir()
    (root / "read only/file").write_text("x")
    os.chmod(root / "read only", 0o555)
    os.link(root / "private/key", root / "photos/key again")
    deep = root
    for i in range(40):
        deep = deep / f"{i:02d}-{'x' * 60}"
        deep.mkdir()
    (deep / "bottom").write_text("deep")
    if ROOT:
        os.chown(root / "run me", 1234, 2345)
        os.chown(root / "latest", 77, 78, follow_symlinks=False)
        os.setxattr(root / "sparse", "security.capability", bytes([1, 0, 0, 2, 0, 4] + [0] * 14))
    os.chmod(root / "run me", 0o6755)
    os.utime(root / "zero", ns=(1, -5_000_000_001))
    os.utime(root, ns=(1710000000_123456789, 1710000000_123456789))


def wreck(root):
    os.chmod(root / "read only", 0o755)
    shutil.rmtree(root / "read only")
    shutil.rmtree(root / "invoices")
    (root / "zero").write_text("overwritten")
    (root / "made later").write_text("after the backup")
    (root / "photos/also later").write_text("after the backup")
    (root / "away").unlink()
    (root / "away").mkdir()


def ready(c, worker=True, **env):
    """A store with one backup of an upload folder, which is wrecked afterwards."""
    c.store(database=False, files=True, DR_LANES=LANES, **env)
    dress(c.files)
    w = c.worker()
    c.good = trees.entries(c.files)
    c.backup_id = c.backup("files")
    wreck(c.files)
    c.bad = trees.entries(c.files)
    if not worker:
        c.kill(w, signal.SIGTERM)
    return w


def execute(c, jid, outcome="done", seconds=60, **args):
    return c.order("execute", jid, outcome, seconds=seconds, procedure_id="file_system_recovery", **args)


def send(c, jid, **args):
    c.push("execute", {"id": jid, "t": "execute", "a": {"procedure_id": "file_system_recovery", **args}})


def ours(root):
    """What of ours stands in a root."""
    return sorted(os.path.join(n, p) for n in os.listdir(root) if n.startswith(".dr-") and n != ".dr-lock"
                  for p in os.listdir(root / n))


def same(a, b):
    assert a == b, [(k, a.get(k), b.get(k)) for k in sorted({*a, *b}) if a.get(k) != b.get(k)][:5]


def recovered(c, befores=1):
    same(trees.entries(c.files), c.good)
    assert [p.split("/")[1] for p in ours(c.files)] == ["before"] * befores, ours(c.files)


def untouched(c):
    same(trees.entries(c.files), c.bad)
    assert ours(c.files) == [], ours(c.files)


def damage(c, backup_id):
    path = c.dir / "store/backups" / backup_id / "files.drb"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


# ---- what comes back ----

def case_everything_comes_back(c):
    ready(c, **services(c, "web", "jobs"), DR_SERVICES_FILES="web")
    r = execute(c, "x")
    recovered(c)
    assert os.stat(c.files / "zero").st_ino == os.stat(c.files / "photos/zero again").st_ino
    assert os.stat(c.files / "private/key").st_ino == os.stat(c.files / "photos/key again").st_ino
    assert stat.S_ISFIFO(os.stat(c.files / "pipe").st_mode)
    assert up(c) == ["jobs", "web"]
    calls = {tuple(line.split()[:2]) for line in (c.services / "calls").read_text().splitlines()}
    assert ("stop", "web") in calls and not any(name == "jobs" for _, name in calls), calls
    assert [s["name"] for s in r["steps"]] == ["select", "prove", "preflight", "restore", "verify", "emergency", "quiesce", "swap",
                                              "start", "check", "close"]
    assert r["backup_id"] == c.backup_id and r["verified"]["files"] == sum(stat.S_ISREG(e[0]) for e in c.good.values())
    assert next(b for b in c.backups() if b["backup_id"] == r["emergency_backup_id"])["class"] == "emergency"
    # The replaced tree is the exact copy of what was live.
    kept, = r["kept_old"]
    assert kept["until"]
    before = trees.entries(kept["what"])
    same({k: v for k, v in before.items() if k}, {k: v for k, v in c.bad.items() if k})
    # The emergency backup brings that back.
    execute(c, "y", backup_id=r["emergency_backup_id"])
    same(trees.entries(c.files), c.bad)


def case_dry_run_changes_nothing_and_says_what_would_be_lost(c):
    ready(c, **services(c, "web"))
    (c.files / "photos/kept.tmp").write_text("")
    c.bad = trees.entries(c.files)
    r = execute(c, "x", dry_run=True)
    untouched(c)
    assert not (c.dir / "store/journal").exists() or not journals(c)
    assert not (c.files / ".dr-lock").exists()
    assert [s["name"] for s in r["steps"]] == ["select", "prove", "preflight", "report"]
    lost = r["would_lose"]
    assert lost["added"] == 3 and lost["changed"] == 2, lost  # zero has two names
    assert {pathlib.Path(f).name for f in lost["files"]} == {"zero", "zero again", "made later", "also later", "kept.tmp"}
    assert lost["returning"] >= 22, lost
    assert r["emergency_possible"] and r["eta_ms"] > 0
    plan = {p["step"]: p["does"] for p in r["plan"]}
    assert "web" in plan["quiesce"] and up(c) == ["web"], plan
    assert execute(c, "k", dry_run=True, keep_newer=True)["would_lose"]["carried"] == 3


def case_no_swap_leaves_a_verified_tree_beside(c):
    ready(c)
    r = execute(c, "x", no_swap=True)
    same(trees.entries(c.files), c.bad)
    kept, = r["kept_old"]
    same(trees.entries(kept["what"]), c.good)
    assert kept["what"] in r["summary"] and kept["until"] and r["downtime_ms"]["total"] == 0
    assert closed(c, "done")
    execute(c, "y")  # the next one minds only its own
    same(trees.entries(c.files), c.good)


def case_excluded_and_newer_files_stay(c):
    c.store(database=False, files=True, DR_LANES=LANES, BACKUP_EXCLUDE="*.tmp:cache")
    for name in ("cache", "photos/cache"):
        (c.files / name).mkdir()
        (c.files / name / "hot").write_text("warm")
    (c.files / "photos/a.tmp").write_text("scratch")
    c.worker()
    c.good = trees.entries(c.files)
    c.backup("files")
    (c.files / "photos/newer").write_text("after")
    (c.files / "new folder/in").mkdir(parents=True)
    (c.files / "new folder/in/file").write_text("after")
    for name in ("cache", "photos/cache"):
        (c.files / name / "hot").write_text("hotter")
    (c.files / "zero").write_text("overwritten")
    r = execute(c, "x")
    for name in ("cache", "photos/cache"):
        assert (c.files / name / "hot").read_text() == "hotter"
    assert (c.files / "photos/a.tmp").read_text() == "scratch"
    assert (c.files / "zero").read_text() == "" and not (c.files / "new folder").exists()
    before = pathlib.Path(r["kept_old"][0]["what"])
    assert (before / "new folder/in/file").exists() and not (before / "photos/cache").exists()
    assert os.stat(c.files / "photos").st_mtime_ns == c.good[b"photos"][6]
    (c.files / "photos/newer").write_text("after")
    (c.files / "new folder/in").mkdir(parents=True)
    (c.files / "new folder/in/file").write_text("after")
    execute(c, "y", keep_newer=True)
    assert (c.files / "photos/newer").read_text() == "after" and (c.files / "new folder/in/file").read_text() == "after"
    assert (c.files / "photos/a.tmp").read_text() == "scratch"


def case_roots_that_are_gone_are_made_again(c):
    second = c.dir / "second"
    second.mkdir(mode=0o750)
    (second / "file").write_text("x")
    c.files = trees.uploads(c.dir / "deep/er/uploads")
    c.store(database=False, files=[c.files, second], DR_LANES=LANES)
    c.worker()
    c.good = trees.entries(c.files)
    c.backup("files")
    shutil.rmtree(c.dir / "deep")
    shutil.rmtree(second)
    assert not execute(c, "dry", dry_run=True)["emergency_possible"]
    assert not second.exists()
    r = execute(c, "x")
    same(trees.entries(c.files), c.good)
    assert stat.S_IMODE(os.stat(second).st_mode) == 0o750
    assert r["emergency_backup_id"] is None and r["kept_old"] == []


# ---- which backup ----

def case_latest_is_the_newest_that_is_not_known_as_damaged(c):
    """Who recovers in the night shall not have to find a good backup himself, and shall know what he got."""
    w = ready(c)
    newer = c.backup("files")
    c.bad = trees.entries(c.files)
    damage(c, newer)
    assert execute(c, "x", "failed")["error"]["kind"] == "integrity", "nobody knew before"
    r = execute(c, "plan", dry_run=True)
    passed, = r["passed_over"]
    assert r["backup_id"] == c.backup_id and newer in r["summary"], r
    assert passed["backup_id"] == newer and passed["class"] and passed["found_at"], passed
    assert newer in w.log.read_text().split("store.passed_over")[1]
    untouched(c)
    assert execute(c, "named", "failed", backup_id=newer)["passed_over"] == [], "it is tried when it is named"
    r = execute(c, "y")
    assert r["backup_id"] == c.backup_id and r["passed_over"][0]["backup_id"] == newer and newer in r["summary"], r
    recovered(c)


def case_only_damaged_backups_are_left(c):
    ready(c)
    damage(c, c.backup_id)
    execute(c, "x", "failed")
    r = execute(c, "y", "failed")
    assert r["error"]["kind"] == "integrity" and r["error"]["reason"] == "all-damaged", r
    assert c.backup_id in r["error"]["message"] and "--backup ID" in r["error"]["message"] and r["backup_id"] is None
    untouched(c)


# ---- refusals ----

def case_a_flipped_byte_is_refused_and_live_is_untouched(c):
    ready(c)
    path = c.dir / "store/backups" / c.backup_id / "files.drb"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    for jid, args in (("x", {}), ("dry", {"dry_run": True, "backup_id": c.backup_id})):
        r = execute(c, jid, "failed", **args)
        assert r["error"]["kind"] == "integrity" and "files.drb" in r["error"]["message"], r
    untouched(c)


def case_unknown_backup_is_refused_with_what_there_is(c):
    ready(c)
    r = execute(c, "x", "failed", backup_id="20200101T000000Z-files-aaaaaaaa")
    assert r["error"]["kind"] == "not-found" and c.backup_id in r["error"]["message"], r
    untouched(c)


def case_a_root_that_cannot_be_a_root_is_refused(c):
    ready(c)
    os.rename(c.files, c.dir / "aside")
    os.symlink(c.dir / "aside", c.files)
    r = execute(c, "x", "refused")
    assert r["error"]["step"] == "preflight" and str(c.files) in r["error"]["message"], r
    os.unlink(c.files)
    (c.files).write_text("a file")
    assert execute(c, "y", "refused")["error"]["step"] == "preflight"
    os.unlink(c.files)
    os.rename(c.dir / "aside", c.files)
    untouched(c)


def case_exchange_is_refused_with_a_reason(c):
    ready(c, worker=False)
    c.worker(DR_FILES_SWAP="exchange")
    r = execute(c, "x", "failed")
    assert r["error"]["kind"] == "config" and "entries" in r["error"]["message"], r
    untouched(c)


@needs_root
def case_a_device_node_is_never_restored(c):
    c.store(database=False, files=True, DR_LANES=LANES)
    os.mknod(c.files / "node", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    c.worker()
    c.backup("files")
    os.unlink(c.files / "node")
    c.bad = trees.entries(c.files)
    r = execute(c, "x", "refused")
    assert "device" in r["error"]["message"] and r["error"]["value"].endswith("node"), r
    untouched(c)


@needs_root
def case_an_immutable_entry_is_named_beforehand(c):
    ready(c)
    flags = subprocess.run(["chattr", "+i", c.files / "sparse"], check=False)
    if flags.returncode:
        raise AssertionError("chattr does not work here")
    try:
        r = execute(c, "x", "refused")
        assert "immutable" in r["error"]["message"] and "sparse" in r["error"]["message"], r
    finally:
        subprocess.run(["chattr", "-i", c.files / "sparse"], check=True)
    untouched(c)


def as_nobody(c, **env):
    """A worker of uid 65534, with a copy of the binary that it can reach."""
    os.chmod(c.dir, 0o755)
    copy = c.dir / "bin"
    if not copy.exists():
        copy.mkdir()
        shutil.copy(BIN / "drworker", copy)
    for path in [c.dir / "store", *(c.dir / "store").rglob("*")]:
        os.chown(path, 65534, 65534)
    os.chmod(c.dir / "redis.sock", 0o777)
    log = open(c.dir / "worker-nobody.log", "wb")
    before = c.r.zcard("{dr}:wk")
    p = subprocess.Popen([copy / "drworker"], stderr=log, user=65534, group=65534, extra_groups=[],
                         env=c.environment(DR_LEASE_MS="1000", **env))
    p.log = pathlib.Path(log.name)
    c.processes.append(p)
    wait(lambda: c.r.zcard("{dr}:wk") > before)
    return p


@needs_root
def case_foreign_owners_need_the_right_to_give_them(c):
    ready(c, worker=False)
    for path in [c.files, *c.files.rglob("*")]:
        os.chown(path, 65534, 65534, follow_symlinks=False)
    c.bad = trees.entries(c.files)
    p = as_nobody(c)
    r = execute(c, "x", "refused")
    assert "DR_RESTORE_OWNER=ignore" in r["error"]["message"], r
    untouched(c)
    c.kill(p, signal.SIGTERM)
    as_nobody(c, DR_RESTORE_OWNER="ignore")
    execute(c, "y")
    now = trees.entries(c.files)
    assert {k: v[:3] for k, v in now.items()} == {k: v[:3] for k, v in c.good.items()}
    assert {v[4] for v in now.values()} == {65534}
    assert stat.S_IMODE(os.stat(c.files / "run me").st_mode) == 0o755  # no set-id bits of others
    assert stat.S_IMODE(os.stat(c.files / "read only").st_mode) == 0o555


# ---- mounts ----

def own_mounts():
    """Mounts of this thread and of what it starts only."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def mount(*words):
    subprocess.run(["mount", *map(str, words)], check=True)


@needs_root
def case_bind_mounts(c):
    own_mounts()
    source, inner = c.dir / "source", c.dir / "inner"
    c.files = c.dir / "live"
    trees.uploads(source)
    inner.mkdir()
    (inner / "file").write_text("old")
    c.files.mkdir()
    mount("--bind", source, c.files)  # the root itself is a mount point
    (c.files / "mnt").mkdir()
    mount("--bind", inner, c.files / "mnt")  # and holds another root as a direct entry
    c.store(database=False, files=[c.files, c.files / "mnt"], DR_LANES=LANES)
    c.worker()
    c.good = trees.entries(c.files)
    c.backup("files")
    (c.files / "mnt/file").write_text("new")
    (c.files / "zero").write_text("overwritten")
    execute(c, "x")
    same(trees.entries(c.files), {**c.good, **{k: v for k, v in trees.entries(c.files).items() if k.startswith(b"mnt/.dr-")}})
    assert (inner / "file").read_text() == "old" and (source / "zero").read_text() == ""
    assert f" {c.files / 'mnt'} " in pathlib.Path("/proc/thread-self/mountinfo").read_text()  # it stayed in place
    # a mount deeper than a direct entry is refused, by name
    mount("--bind", inner, c.files / "photos")
    subprocess.run(["umount", c.files / "photos"], check=True)
    mount("--bind", inner, c.files / "certificates/2025")
    r = execute(c, "y", "refused")
    assert str(c.files / "certificates/2025") in r["error"]["message"] and r["error"]["step"] == "preflight", r
    subprocess.run(["umount", c.files / "certificates/2025"], check=True)
    # a root that was a mount point and is none now
    subprocess.run(["umount", c.files / "mnt"], check=True)
    r = execute(c, "z", "refused")
    assert "was a mount point" in r["error"]["message"] and str(c.files / "mnt") in r["error"]["message"], r
    subprocess.run(["umount", c.files], check=True)


@needs_root
def case_a_full_disk(c):
    own_mounts()
    c.files = c.dir / "small"
    c.files.mkdir()
    mount("-t", "tmpfs", "-o", "size=24m,mode=755", "tmpfs", c.files)
    trees.uploads(c.files)
    c.store(database=False, files=[c.files], DR_LANES=LANES)
    w = c.worker()
    c.backup("files")
    c.kill(w, signal.SIGTERM)
    (c.files / "zero").write_text("overwritten")
    w = c.worker(DR_FAULT="execute.restore.intent:stop")
    send(c, "x")
    stopped(w)
    with open(c.files / "filler", "wb") as f:
        f.write(b"x" * (14 << 20))
    c.bad = trees.entries(c.files)
    w.send_signal(signal.SIGCONT)
    c.until("x", "failed")
    assert c.result("x", "failed")["error"]["kind"] == "no-space"
    untouched(c)
    r = execute(c, "y", "failed")
    assert r["error"]["kind"] == "no-space" and r["error"]["step"] == "preflight" and "MB" in r["error"]["message"], r
    (c.files / "filler").unlink()
    execute(c, "z")
    assert (c.files / "zero").read_text() == ""


@needs_root
def case_an_overlay_that_cannot_rename_is_undone(c):
    """Folders of an overlay's lower layer: EXDEV in the middle of the swap."""
    own_mounts()
    for name in ("lower", "over", "live"):
        (c.dir / name).mkdir()
    mount("-t", "tmpfs", "tmpfs", c.dir / "over")
    for name in ("upper", "work"):
        (c.dir / "over" / name).mkdir()
    trees.uploads(c.dir / "lower")
    mount("-t", "overlay", "overlay", "-o", f"lowerdir={c.dir}/lower,upperdir={c.dir}/over/upper,workdir={c.dir}/over/work,redirect_dir=off",
          c.dir / "live")
    c.files = c.dir / "live"
    c.store(database=False, files=[c.files], DR_LANES=LANES, **services(c, "web"))
    c.worker()
    c.backup("files")
    (c.files / "zero").write_text("overwritten")
    c.bad = {k: v[:7] for k, v in trees.entries(c.files).items()}
    r = execute(c, "x", "failed")
    assert "overlay" in r["error"]["message"] and r["error"]["step"] == "swap", r
    same({k: v[:7] for k, v in trees.entries(c.files).items()}, c.bad)
    assert ours(c.files) == [] and up(c) == ["web"]


# ---- live is broken ----

@needs_root
def case_live_that_cannot_be_read_is_kept_by_rename_without_expiry(c):
    ready(c, worker=False)
    for path in [c.files, *c.files.rglob("*")]:
        os.chown(path, 65534, 65534, follow_symlinks=False)
    os.chown(c.files / "private/key", 0, 0)  # nobody may not read it
    os.chmod(c.files / "private/key", 0o600)
    as_nobody(c, DR_RESTORE_OWNER="ignore")
    r = execute(c, "x")
    step = next(s for s in r["steps"] if s["name"] == "emergency")
    assert step["outcome"] == "failed (kept by rename)", step
    assert r["emergency_backup_id"] is None and "key" in r["emergency_backup_error"], r
    assert r["kept_old"][0]["until"] is None
    assert {k: v[:3] for k, v in trees.entries(c.files).items()} == {k: v[:3] for k, v in c.good.items()}


# ---- services ----

def case_a_service_that_does_not_start_rolls_back(c):
    ready(c, **services(c, "web", "jobs"))
    (c.services / "broken-web").touch()
    r = execute(c, "x", "rolled_back")
    assert "no luck" in r["error"]["message"] and r["error"]["step"] == "start", r
    assert r["rolled_back"] and up(c) == ["jobs", "web"]
    same(trees.entries(c.files), c.bad)
    kept, = r["kept_old"]
    assert kept["what"].endswith("/failed") and [p.split("/")[1] for p in ours(c.files)] == ["failed"]
    same({k: v for k, v in trees.entries(kept["what"]).items() if k}, {k: v for k, v in c.good.items() if k})
    assert closed(c, "rolled_back")
    c.cli("watch", "x", code=8)
    execute(c, "y")
    same(trees.entries(c.files), c.good)


def case_a_service_that_does_not_stop_leaves_live_untouched(c):
    ready(c, **services(c, "web", "jobs"))
    (c.services / "stays-web").touch()
    r = execute(c, "x", "failed")
    assert r["error"]["step"] == "quiesce" and "web" in r["error"]["message"], r
    untouched(c)
    assert up(c) == ["jobs", "web"] and closed(c, "failed")


def case_what_services_did_in_between_is_kept(c):
    """The check after the swap fails while a service has already written: its files are not lost."""
    ready(c, worker=False, **services(c, "web"))
    w = c.worker(DR_FAULT="execute.check.intent:stop,execute.check.intent:2:fail,execute.check.done:fail")
    send(c, "x")
    stopped(w)
    (c.files / "written in between").write_text("precious")
    (c.files / "zero.new").write_text("replaced")
    os.rename(c.files / "zero.new", c.files / "zero")
    w.send_signal(signal.SIGCONT)
    c.until("x", "done", "failed")
    r = c.result("x", "rolled_back")
    same(trees.entries(c.files), c.bad)
    kept = pathlib.Path(r["kept_old"][0]["what"])
    assert (kept / "written in between").read_text() == "precious" and (kept / "zero").read_text() == "replaced"


# ---- locks ----

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


def case_a_held_lock_refuses_as_locked(c):
    import fcntl
    ready(c)
    with open(c.files / ".dr-lock", "w") as f:
        fcntl.fcntl(f, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))  # F_OFD_SETLK
        c.bad = trees.entries(c.files)
        c.cli("execute", "file_system_recovery", "--id", "x", "--wait", code=5)
        assert c.result("x", "failed")["error"]["kind"] == "locked"
        untouched(c)
    execute(c, "y")
    recovered(c)


# ---- kills ----

BEFORE = ["select.done", "prove.done", "preflight.done", "restore.intent", "restore.done", "verify.done", "emergency.done"]
DOWN = ["quiesce.services", "quiesce.done", "swap.planned", "swap.rename"]
AFTER = ["swap.renamed", "swap.done", "start.done", "check.done", "close.done"]


def killed_at(c, fault, outcome):
    """The root is what it was, or recovered."""
    (c.files / "zero").write_text("overwritten")
    kept = len(ours(c.files))
    taken_over(c, send, fault, outcome)
    assert len(ours(c.files)) == kept + (outcome == "done"), (fault, ours(c.files))
    assert not any(p.endswith(("/new", "/failed")) for p in ours(c.files)), (fault, ours(c.files))
    assert (c.files / "zero").read_text() == ("" if outcome == "done" else "overwritten"), fault
    if outcome == "done":
        same(trees.entries(c.files), c.good)


def kill_all(c, faults, outcome):
    w = ready(c, **services(c, "web"))
    c.kill(w, signal.SIGTERM)
    c.worker(DR_LANES="noop")  # somebody sweeps all the time
    for fault in faults:
        killed_at(c, fault, outcome)
    never_twice(c)


def case_sigkill_before_quiesce_early(c):
    kill_all(c, [f"execute.{p}" for p in BEFORE[:4]], "done")


def case_sigkill_before_quiesce_late(c):
    kill_all(c, [f"execute.{p}" for p in BEFORE[4:]], "done")


def case_sigkill_while_down_is_undone(c):
    kill_all(c, [f"execute.{p}" for p in DOWN[:3]], "failed")


def case_sigkill_at_renames_is_undone(c):
    kill_all(c, [f"files.swap.rename:{n}" for n in (1, 2, 3, 9, 15)], "failed")


def case_sigkill_after_the_swap_is_finished(c):
    kill_all(c, [f"execute.{p}" for p in AFTER], "done")


def case_sigkill_while_undoing_is_undone_again(c):
    """A rename fails, the undo begins, the worker dies in it, and so does its successor."""
    w = ready(c, **services(c, "web"))
    c.kill(w, signal.SIGTERM)
    c.worker(DR_LANES="noop")
    w = c.worker(DR_FAULT="files.swap.rename:12:fail,files.swap.undo:3:kill")
    send(c, "x")
    w.wait(60)
    assert up(c) == []
    w = c.worker(DR_FAULT="files.swap.undo:4:kill")
    w.wait(60)
    assert up(c) == []
    c.worker()
    c.until("x", "done", "failed", seconds=60)
    c.result("x", "failed")
    untouched(c)
    assert up(c) == ["web"]


def case_a_failing_rename_is_undone_at_once(c):
    ready(c, worker=False, **services(c, "web"))
    c.worker(DR_FAULT="files.swap.rename:7:fail")
    r = execute(c, "x", "failed")
    assert r["error"]["step"] == "swap", r
    untouched(c)
    assert up(c) == ["web"] and closed(c, "failed")


def case_sigkill_and_redis_gone_any_worker_resolves_the_journal(c):
    ready(c, worker=False, **services(c, "web"))
    for point, good in (("files.swap.rename:9", False), ("execute.swap.done", True)):
        w = c.worker(DR_FAULT=f"{point}:kill")
        jid = point.replace(".", "-").replace(":", "_")
        send(c, jid)
        w.wait(60)
        c.kill(c.redis_process)
        assert up(c) == []
        other = c.worker(wait_up=False)
        wait(lambda: up(c) == ["web"] and all(j[-1]["type"] == "run-closed" for j in journals(c)), 60)
        same(trees.entries(c.files), c.good if good else c.bad)
        c.start_redis()
        c.until(jid, "done", "failed", seconds=60)
        c.result(jid, "done" if good else "failed")
        c.kill(other, signal.SIGTERM)


# ---- pauses ----

def paused(c, fault):
    ready(c, worker=False, **services(c, "web"))
    woken(c, send, fault)
    recovered(c)


def case_a_paused_worker_wakes_to_a_successor_before_quiesce(c):
    paused(c, "execute.verify.done")


def case_a_paused_worker_wakes_in_the_middle_of_the_swap(c):
    paused(c, "files.swap.rename:8")


if __name__ == "__main__":
    run(globals())
