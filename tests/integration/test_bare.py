"""Orders from any program: redis and msgpack, five lines, no package of ours. The README's own example is what runs."""
import pathlib
import re
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import dr  # noqa: E402

README = pathlib.Path(__file__).resolve().parents[2] / "README.md"


def example():
    code = re.search(r"```python\n(.*?)```", README.read_text(), re.S).group(1)
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) == 5, code
    return code


def case_five_lines_from_the_readme(c):
    c.store()
    c.worker()
    p = subprocess.run(["/usr/bin/python3", "-c", example()], capture_output=True, text=True, timeout=60,
                       env={"PATH": "/usr/bin", "REDIS_URL": c.url})
    assert p.returncode == 0, p.stderr
    assert p.stdout.split() == ["done", "done"], p.stdout
    kept = c.result("first-backup", "done")
    assert [b["backup_id"] for b in c.backups()] == [kept["backup_id"]], c.backups()
    assert c.result("first-noop", "done")["steps"]
    assert c.at_rest()


def case_a_bare_message_with_a_fault_is_a_dead_letter(c):
    c.store(database=False)
    c.worker()
    c.push("backup", {"id": "bad", "t": "backup", "a": {"kind": "tables"}})
    c.until("bad", "dead")
    assert "kind" in repr(c.dead()) and "tables" in repr(c.dead()), c.dead()
    assert not list((c.dir / "store").glob("backups/*"))


if __name__ == "__main__":
    dr.run(globals())
