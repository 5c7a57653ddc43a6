"""drworker retention-plan --oracle keeps what restic's `forget --keep-within-*` keeps, on random histories.

Three parties: ours, restic, and the rule written a second time in tests/lib/histories.py. restic below 0.16 does not
keep the oldest besides: the switch follows its version, and the second writing is held against both settings.
DR_HISTORIES: how many go through restic (the second writing gets up to 300 more).
"""
import concurrent.futures
import datetime as dt
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(HERE / "lib"))
import dr  # noqa: E402
import histories  # noqa: E402
from restic import Restic  # noqa: E402

COUNT = int(os.environ.get("DR_HISTORIES", "2000"))
NAMES = {"daily": "RETENTION_DAILY_DAYS", "weekly": "RETENTION_WEEKLY_WEEKS", "monthly": "RETENTION_MONTHLY_MONTHS", "yearly": "RETENTION_YEARLY_YEARS"}


def ours(c, times, now, policy, keep_oldest, shuffle=None):
    """The times that drworker keeps."""
    items = [{"id": f"b{n}", "time": histories.text(t)} for n, t in enumerate(times)]
    if shuffle:
        shuffle.shuffle(items)
    words = ["retention-plan", "--oracle", "--now", histories.text(now)] + ([] if keep_oldest else ["--no-keep-oldest"])
    p = subprocess.run([c.bin / "drworker", *words], input=json.dumps(items).encode(), capture_output=True, timeout=60,
                       env={"PATH": os.environ["PATH"], **{NAMES[k]: str(v) for k, v in policy.items()}})
    assert p.returncode == 0, p
    answer = json.loads(p.stdout)
    assert [a["id"] for a in answer] == [i["id"] for i in items]
    assert all(a["reasons"] for a in answer)
    return {times[int(a["id"][1:])] for a in answer if a["keep"]}


def side_by_side(jobs):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for f in [pool.submit(*job) for job in jobs]:
            f.result()


def case_equal_to_restic(c):
    """One policy a round of restic, one host a history."""
    r, now = random.Random(20), dt.datetime.now(histories.UTC).replace(microsecond=0)
    keep_oldest = Restic.version() >= (0, 16)
    repo = Restic(c.dir / "repo")
    policies = [histories.DEFAULT, {"daily": 1, "weekly": 0, "monthly": 0, "yearly": 0}, {"daily": 30, "weekly": 52, "monthly": 0, "yearly": 10},
                {"daily": 0, "weekly": 5, "monthly": 13, "yearly": 1}]
    made = [histories.history(r, policies[n % len(policies)], now) for n in range(COUNT)]
    names, answers = {}, []
    for k, p in enumerate(policies):
        repo.clear()
        for n in range(k, COUNT, len(policies)):
            for t in made[n]:
                names[f"h{n}", histories.text(t)] = t
                repo.snapshot(f"h{n}", histories.text(t))
        answers.append(repo.forget(**p))
    print(f"{COUNT} histories, {len(names)} snapshots, restic {'.'.join(map(str, Restic.version()))}, keep-oldest {keep_oldest}")

    def compare(n):
        p = policies[n % len(policies)]
        want = {names[f"h{n}", time] for time in answers[n % len(policies)][f"h{n}"]}
        assert histories.kept(made[n], now, p, keep_oldest) == want, ("the second writing", n, p, made[n])
        assert ours(c, made[n], now, p, keep_oldest, r) == want, (n, p, [histories.text(t) for t in made[n]])

    side_by_side((compare, n) for n in range(COUNT))
    # an oracle that keeps all, or nothing, would prove nothing
    dropped = sum(len(made[n]) - len(answers[n % len(policies)][f"h{n}"]) for n in range(COUNT))
    assert 0.1 * len(names) < dropped < 0.9 * len(names), (dropped, len(names))


def case_equal_to_the_second_writing(c):
    """Longer histories, any policy, with and without the oldest."""
    r, now = random.Random(21), dt.datetime(2026, 11, 28, 12, 0, 0, tzinfo=histories.UTC)

    def compare(times, p, keep_oldest):
        assert ours(c, times, now, p, keep_oldest) == histories.kept(times, now, p, keep_oldest), (p, keep_oldest, [histories.text(t) for t in times])

    jobs = []
    for n in range(min(300, COUNT)):
        p = histories.policy(r)
        jobs.append((compare, histories.history(r, p, now, size=r.choice([3, 30, 300])), p, n % 2 == 0))
    side_by_side(jobs)


def oracle(c, stdin, *words, code=0, **env):
    return c.drworker("retention-plan", "--oracle", *words, stdin=stdin, code=code, **env)


def case_bad_lists(c):
    one = '{"id":"a","time":"2026-01-02T03:04:05Z"}'
    for bad, why in (("", "does not begin"), ("{}", "does not begin"), ("[", "no object"), ("[1]", "no object"), ("[" + one, "neither"),
                     ("[" + one + "," + one + "]", "twice"), ("[" + one + one + "]", "neither"), ("[" + one + ",]", "no object"), ("[]x", "follows"),
                     ('[{"id":"a"}]', "not exactly"), ('[{"id":"","time":"2026-01-02T03:04:05Z"}]', "not exactly"),
                     ('[{"id":"a","time":"2026-02-30T03:04:05Z"}]', "RFC 3339"), ('[{"id":"a","time":"2026-01-02"}]', "RFC 3339"),
                     ('[{"id":"a","id":"b","time":"2026-01-02T03:04:05Z"}]', "element 0"), ('[{"id":"a","time":"2026-01-02T03:04:05Z","x":{}}]', "element 0"),
                     ('[{"id":"' + "a" * 2000 + '","time":"2026-01-02T03:04:05Z"}]', "1024 bytes"), ("[" * 10000, "no object"), ('[{"id":"\\u0000"}]', "element 0"),
                     (b"[\xff]", "no object"), ('[{"id":"\x01","time":"2026-01-02T03:04:05Z"}]', "element 0")):
        said = oracle(c, bad.encode() if isinstance(bad, str) else bad, code=1)
        assert why in said, (bad[:60], said)
    assert json.loads(oracle(c, b" [\n] ")) == []
    assert json.loads(oracle(c, ("[" + one + "]").encode()))[0]["keep"] is True


def case_bad_values(c):
    """A bad value of RETENTION_* is an error with name, value and range before anything is planned, in every command."""
    c.store(database=False)
    for name, bad in (("DAILY_DAYS", "-1"), ("DAILY_DAYS", ""), ("DAILY_DAYS", "3651"), ("DAILY_DAYS", "7d"), ("WEEKLY_WEEKS", "521"),
                      ("MONTHLY_MONTHS", "241"), ("YEARLY_YEARS", "51"), ("YEARLY_YEARS", "99999999999999999999"), ("HOURLY_HOURS", "8761"),
                      ("CRITICAL_DAYS", "1.5"), ("MIN_KEEP", "0"), ("GRACE_HOURS", " 72"), ("MAX_DELETE", "+50"), ("CLOCK_SKEW_S", "86401")):
        said = c.drworker("retention-plan", code=2, **{f"RETENTION_{name}": bad})
        assert f"RETENTION_{name}" in said and ".." in said and f"={bad}" in said, said
    for name, bad in (("KEEP_OLDEST", "maybe"), ("KEEP_OLDEST", ""), ("TZ", ""), ("TZ", "Nowhere/Land"), ("TZ", "../../etc/passwd")):
        said = c.drworker("retention-plan", code=2, **{f"RETENTION_{name}": bad})
        assert f"RETENTION_{name}" in said, said
    off = {f"RETENTION_{n}": "0" for n in ("HOURLY_HOURS", "DAILY_DAYS", "WEEKLY_WEEKS", "MONTHLY_MONTHS", "YEARLY_YEARS")}
    assert "without a rule is refused" in c.drworker("retention-plan", code=2, **off)
    p = subprocess.run([c.bin / "drworker", "retention-plan", "--oracle"], input=b"[]", capture_output=True, timeout=60, env=c.environment(RETENTION_DAILY_DAYS="28"))
    assert p.returncode == 0 and b"warning: RETENTION_DAILY_DAYS=28 reaches as far as RETENTION_WEEKLY_WEEKS=4" in p.stderr, p
    for words in (["--oracle", "--simulate", "1"], ["--no-keep-oldest"], ["--start", "2026-01-01T00:00:00Z"], ["--simulate", "0"], ["--simulate", "51"],
                  ["--now", "yesterday"], ["--simulate", "1", "--start", "x"], ["--simulate"], ["extra"]):
        c.drworker("retention-plan", *words, code=2)


def case_plan_of_a_store(c):
    """Every backup with its reasons; a base of what is kept stays; the hash is the golden one; nothing is changed."""
    golden = json.loads((HERE / "vectors/vectors.json").read_text())
    store = c.dir / "store"
    shutil.copytree(HERE / "vectors/store", store)
    c.settings |= {"BACKUP_DIRECTORY": store, "BACKUP_ENCRYPTION_PASSWORD": golden["secrets"]["passphrase"]}
    before = sorted((f, f.stat().st_mtime_ns) for f in store.rglob("*"))
    p = json.loads(c.drworker("retention-plan", "--json", "--now", "2026-02-01T00:00:00Z"))
    ids = [b["backup_id"] for b in golden["store"]["backups"]]
    assert sorted(p["keep"]) == sorted(ids) == sorted(p["reasons"]) and p["delete"] == [] and p["needs_confirmation"] is False, p
    assert p["plan_hash"] == next(g["hash"] for g in golden["plan_hashes"] if not g["delete"])
    lean = {f"RETENTION_{n}": "0" for n in ("HOURLY_HOURS", "DAILY_DAYS", "WEEKLY_WEEKS", "MONTHLY_MONTHS")} | {"RETENTION_MIN_KEEP": "1"}
    p = json.loads(c.drworker("retention-plan", "--json", "--now", "2036-02-01T00:00:00Z", RETENTION_KEEP_OLDEST="false", **lean))
    old, new = "20260102T030405Z-database-jpfikvy7", "20260103T040000Z-database-fnnkcvuu"
    assert "base" in p["reasons"][old] and "yearly" in p["reasons"][new], p  # the incremental one needs the full one's chunks
    text = c.drworker("retention-plan", "--now", "2026-02-01T00:00:00Z")
    assert all(i in text for i in ids) and "3 kept, 0 given up (0 bytes)" in text, text
    assert sorted((f, f.stat().st_mtime_ns) for f in store.rglob("*")) == before
    assert "BACKUP_DIRECTORY" in c.drworker("retention-plan", code=2, BACKUP_DIRECTORY="")


def case_a_year_left_alone(c):
    """The default schedules for a year: every period has its backup, and no plan waits for a person."""
    s = json.loads(c.drworker("retention-plan", "--simulate", "1", "--start", "2025-01-01T00:00:00Z", "--json"))
    assert s["waited"] == 0 and s["made"]["database:default"] == 365 * 24 + 5, s["made"]
    left = {name: [b for b in s["left"] if b["series"] == name] for name in s["made"]}
    for name, backups in left.items():
        days = {b["time"][:10] for b in backups}
        assert {f"2025-12-{d}" for d in range(26, 32)} <= days, (name, days)
        assert {f"2025-{m:02}-{histories.calendar.monthrange(2025, m)[1]}" for m in range(1, 12)} <= days, (name, days)
        assert backups[-1]["reasons"] == ["oldest"] and backups[-1]["time"].startswith("2025-01-01"), backups[-1]
    assert sum("hourly" in b["reasons"] for b in left["database:default"]) == 48
    assert s["days"][-1]["database:default"] == len(left["database:default"]) and len(s["days"]) == 366
    assert set(s["made"]) == {f"{k}:default" for k in ("database", "files", "config", "full")}
    decades = json.loads(c.drworker("retention-plan", "--simulate", "20", "--start", "2024-02-29T00:00:00Z", "--json"))
    assert decades["waited"] == 0 and max(d["database:default"] for d in decades["days"]) < 80, decades["waited"]
    assert "plans that would have waited for confirmation: 0 of 366" in c.drworker("retention-plan", "--simulate", "1", "--start", "2025-01-01T00:00:00Z")


if __name__ == "__main__":
    dr.run(globals())
