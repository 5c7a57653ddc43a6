"""worker/pipe against the real tools: dumps of a real pg_dump, tars that GNU tar and Python read, by tests/programs/pipe_probe.c."""
import io
import os
import pathlib
import subprocess
import sys
import tarfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import dr  # noqa: E402
import dumps  # noqa: E402
import pg  # noqa: E402
import shop  # noqa: E402
import trees  # noqa: E402

PROBE = dr.BIN / "tests/dr_pipe_probe"


def probe(*words, stdin=b"", code=0):
    """(standard output, records as lines)"""
    done = subprocess.run([PROBE, *map(str, words)], input=stdin, capture_output=True, check=False)
    lines = done.stderr.decode(errors="replace").splitlines()
    assert done.returncode == code, (done.returncode, lines[-3:])
    return done.stdout, lines


def tap(dump, cut=0, code=0):
    """(records sorted, the line about the version or the error)"""
    _, lines = probe("dump", dumps.KEY, cut, stdin=dump, code=code)
    return sorted(lines[:-1]), lines[-1]


def asker(cluster, dbname):
    def query(sql):
        words = cluster.command("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", dbname=dbname)
        return subprocess.run(words, input=sql.encode(), stdout=subprocess.PIPE, check=True, env={"PATH": os.environ["PATH"]}).stdout
    return query


def dump_of(cluster, dbname, *words):
    return subprocess.run(cluster.command("pg_dump", "-Fc", *words, dbname=dbname), stdout=subprocess.PIPE, check=True).stdout


def _with_odd(cluster):
    shop.small(cluster)
    cluster.sql('CREATE DATABASE "odd"')
    asker(cluster, "odd")(dumps.SQL)


def case_dump(c):
    """What passes through the tap is what SQL says, before and after a restore."""
    c.pg = pg.Cluster(_with_odd)
    for name, least in (("odd", 19), ("shop", 16)):
        want = dumps.expected(asker(c.pg, name))
        assert len(want) >= least, want
        dump = dump_of(c.pg, name, "-Z0")
        for cut in (0, 1, 8191):
            got, last = tap(dump, cut)
            assert last.startswith("v 1.") and last.split()[2] == "1", last
            assert got == want, set(got) ^ set(want)
        c.pg.sql(f"CREATE DATABASE {name}_2")
        subprocess.run(c.pg.command("pg_restore", "--exit-on-error", dbname=f"{name}_2"), input=dump, check=True)
        assert dumps.expected(asker(c.pg, f"{name}_2")) == want


def case_dump_to_a_file(c):
    """pg_dump goes back and fills in offsets there."""
    c.pg = pg.Cluster(_with_odd)
    path = c.pg.dir / "archive"
    subprocess.run(pg.as_server(*c.pg.command("pg_dump", "-Fc", "-Z0", "-f", path, dbname="odd")), check=True, cwd="/")
    got, last = tap(path.read_bytes())
    assert got == dumps.expected(asker(c.pg, "odd")) and last.split()[2] == "1"


def case_dumps_without_digests(c):
    c.pg = pg.Cluster(_with_odd)
    got, last = tap(dump_of(c.pg, "odd", "-Z1"))
    assert not got and "compressed" in last, last
    got, last = tap(dump_of(c.pg, "odd", "-Z0", "--inserts"))
    assert last.split()[2] == "1" and all(line.split()[3:5] == ["nil", "-"] for line in got if line[0] == "t"), got
    got, last = tap(dump_of(c.pg, "odd", "-Z0", "--load-via-partition-root"))
    through = [line for line in got if line[0] == "t" and bytes.fromhex(line.split()[2]) in (b"part1", b"part2")]
    assert last.split()[2] == "1" and len(through) == 2 and all(line.endswith(" nil -") for line in through), through
    got, last = tap(dump_of(c.pg, "odd", "-Z0", "--schema-only"))
    assert last.split()[2] == "1" and [line[:5] for line in got] == ["o 0 0"], got
    dump = dump_of(c.pg, "odd", "-Z0")
    for cut_at in (0, 4, 100, len(dump) // 2, len(dump) - 1):
        assert tap(dump[:cut_at], code=1)[1].startswith("e malformed"), cut_at


def _records(lines):
    return [line.split(" ") for line in lines if line[0] == "f"]


def case_tar(c):
    """GNU tar lists, compares and extracts it, Python too."""
    root = trees.uploads(c.dir / "srv")
    tar, lines = probe("tree", root)
    names = [bytes.fromhex(r[1]) for r in _records(lines)]
    assert names == sorted(names) and len(names) > 70
    (c.dir / "t.tar").write_bytes(tar)
    out = subprocess.run(["tar", "--quoting-style=escape", "-tf", c.dir / "t.tar"], stdout=subprocess.PIPE, check=True).stdout
    assert len(out.splitlines()) == len(names)
    done = subprocess.run(["tar", "--compare", "--format=pax", "-f", c.dir / "t.tar", "-C", "/"], capture_output=True, check=False)
    # the tar keeps whole seconds of times: nothing else may differ
    assert done.returncode in (0, 1) and all(b"Mod time" in line for line in done.stdout.splitlines()), done
    (c.dir / "out").mkdir()
    subprocess.run(["tar", "-xf", c.dir / "t.tar", "-C", c.dir / "out", "--xattrs", "--xattrs-include=*"], check=True,
                   stderr=subprocess.DEVNULL)
    there = c.dir / "out" / str(root).lstrip("/")
    assert trees.checksum(there)[0] == trees.checksum(root)[0]
    with tarfile.open(fileobj=io.BytesIO(tar), encoding="utf-8", errors="surrogateescape") as t:
        assert [os.fsencode(m.name) for m in t.getmembers()] == names
    # what was extracted has the same content digest under the same name
    digest = [line for line in lines if line[0] == "r"][0].split(" ")
    again = [line for line in probe("tree", "-n", f"{root}={there}")[1] if line[0] == "r"][0].split(" ")
    assert again[3] == digest[3] and again[4] != digest[4]


@dr.needs_root
def case_tar_big_owner(c):
    root = c.dir / "srv"
    root.mkdir()
    (root / "f").write_bytes(b"x")
    os.chown(root / "f", 4_000_000_000, 3_000_000)
    os.utime(root / "f", ns=(-5_000_000_000, -5_000_000_000))
    tar, _ = probe("tree", root)
    with tarfile.open(fileobj=io.BytesIO(tar)) as t:
        member = t.getmember(f"{root}/f".lstrip("/"))
        assert (member.uid, member.gid, member.mtime) == (4_000_000_000, 3_000_000, -5)


if __name__ == "__main__":
    dr.run(globals())
