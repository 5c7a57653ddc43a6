"""The servers, shops and trees that the other tests stand on: equal seeds give equal data, a change is seen."""
import os
import pathlib
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import dr  # noqa: E402
import pg  # noqa: E402
import shop  # noqa: E402
import trees  # noqa: E402


def case_shop(c):
    c.store(fill=shop.small)
    assert c.pg.sql("SELECT count(*) FROM customers", "shop", "gold") == "800"
    before = shop.fingerprint(c.pg)
    assert len(before) >= 14 and before["public.orders_2024"][0] > 100, before
    c.pg.stop()
    c.pg.start()
    assert shop.fingerprint(c.pg) == before
    c.pg.sql("UPDATE products SET grams = grams + 1 WHERE id = 1000", "shop", "gold")
    after = shop.fingerprint(c.pg)
    assert {t for t in before if before[t] != after[t]} == {"public.products"}
    assert "work_mem=9MB" in shop.properties(c.pg)


def case_second_cluster_is_equal(c):
    one, two = pg.Cluster(shop.small), pg.Cluster(shop.small, tcp=True)
    try:
        assert shop.fingerprint(one) == shop.fingerprint(two)
        assert shop.properties(one) == shop.properties(two)
        assert two.url().startswith("postgresql://gold:gold%20%26%20sons%2F42%25@127.0.0.1:")
    finally:
        one.close()
        two.close()


def case_trees(c):
    a, b = trees.uploads(c.dir / "a"), trees.uploads(c.dir / "b")
    assert trees.checksum(a)[0] == trees.checksum(b)[0]
    shutil.copytree(a, c.dir / "c", symlinks=True)
    assert trees.checksum(c.dir / "c")[0] == trees.checksum(a)[0]
    (a / "run me").write_text("#!/bin/sh\necho gild\n")
    assert trees.checksum(a)[0] != trees.checksum(b)[0]
    meta = trees.checksum(b)
    (b / "run me").chmod(0o700)
    assert trees.checksum(b)[0] == meta[0] and trees.checksum(b)[1] != meta[1]
    assert len(list(trees.small_files(c.dir / "s", 300).rglob("f*"))) == 300
    size = sum(f.stat().st_size for f in trees.mixed(c.dir / "m", 5, 50).rglob("f*"))
    assert 4_500_000 < size < 5_500_000, size


PROGRAM = """
import os, signal, sys
sys.path[:0] = [{lib!r}, {model!r}]
import dr, pg
from scripts import Scripts
c = dr.Case()
c.store(database=False, files=[])
processes = [c.redis_process, c.worker(), pg.Cluster().process, Scripts().process]
children = open(f"/proc/{{processes[2].pid}}/task/{{processes[2].pid}}/children").read().split()
print(*[p.pid for p in processes], *children, flush=True)
{end}
"""


def case_no_server_outlives_its_test(c):
    """Whether the test raised, or was killed itself."""
    tests = pathlib.Path(__file__).resolve().parents[1]
    c.dir.chmod(0o755)  # the server's user goes through it
    for end in 'raise SystemExit("aborted")', "os.kill(os.getpid(), signal.SIGKILL)":
        text = PROGRAM.format(lib=str(tests / "lib"), model=str(tests / "model"), end=end)
        p = subprocess.run([sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=60,
                           env={**os.environ, "TMPDIR": str(c.dir)})
        pids = p.stdout.split()
        assert len(pids) > 6, pids
        dr.wait(lambda: not [x for x in pids if pathlib.Path(f"/proc/{x}/exe").exists()])


if __name__ == "__main__":
    dr.run(globals())
