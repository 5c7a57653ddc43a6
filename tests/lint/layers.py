#!/usr/bin/env python3
"""Who may include whom: downwards only, siblings blind to each other, library headers fenced.

The table is the architecture; an edge that is not in it fails. `--selftest` seeds violations.
"""
import pathlib
import re
import sys

GROUND = {"common"}
WIRE = GROUND | {"common/wire"}
CORE = WIRE | {"worker/core"}
QUEUE = CORE | {"worker/queue"}
PIPE = CORE | {"worker/pipe"}
STORAGE = CORE | {"worker/storage"}
JOB = QUEUE | PIPE | STORAGE | {"worker/job"}
BACKUP = JOB | {"worker/backup"}
RECOVERY = BACKUP | {"worker/recovery"}
WATCH = RECOVERY | {"worker/watch"}
TASK = WATCH | {"worker/task"}
ALLOWED = {
    "common": GROUND,
    "common/wire": WIRE,
    "worker/core": CORE,
    "worker/queue": QUEUE,
    "worker/pipe": PIPE,
    "worker/storage": STORAGE,
    "worker/job": JOB,
    "worker/backup": BACKUP,
    "worker/recovery": RECOVERY,
    "worker/watch": WATCH,
    "worker/task": TASK,
    "worker/cli": TASK | {"worker/cli"},
    "worker": TASK | {"worker/cli", "worker"},
    "producer": WIRE | {"producer"},
}
FENCES = [
    (r"event2/", {"worker/core", "worker/queue"}),
    (r"curl/", {"worker/core/http_internal.h"}),
    (r"libpq-fe\.h", {"worker/core/pg_internal.h"}),
    (r"hiredis/", {"worker/queue", "producer"}),
    (r"msgpack", {"common/wire"}),
    (r"archive(_entry)?\.h", {"worker/pipe"}),
    (r"zstd", {"worker/pipe"}),
    (r"jansson\.h", {"worker/backup", "worker/recovery"}),
    (r"expat\.h", {"worker/storage"}),
    (r"openssl/", {"common/wire", "worker/queue", "worker/pipe", "worker/storage",
                   "worker/backup", "producer/link.c"}),
]
INCLUDE = re.compile(r'^\s*#\s*include\s+(?:"([^"]+)"|<([^>]+)>)')


def check(name, text):
    """Violations of one file: list of (line, reason)."""
    room = str(pathlib.PurePosixPath(name).parent)
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        m = INCLUDE.match(line)
        if not m:
            continue
        own, library = m.groups()
        if own:
            target = str(pathlib.PurePosixPath(own).parent)
            if target == ".":
                found.append((number, f'"{own}": name it from the root of the project'))
            elif target not in ALLOWED.get(room, set()):
                found.append((number, f"{room} must not include {target}"))
            if own.endswith("_internal.h") and target != room:
                found.append((number, f"{own} is private to {target}"))
        else:
            for pattern, rooms in FENCES:
                if re.match(pattern, library) and room not in rooms and name not in rooms:
                    found.append((number, f"<{library}> is fenced to {', '.join(sorted(rooms))}"))
    return found


SEEDED = [
    ("worker/core/x.c", '#include "worker/queue/queue.h"\n', 1),
    ("worker/queue/x.c", '#include "worker/pipe/aead.h"\n', 1),
    ("worker/job/x.c", '#include "worker/queue/queue_internal.h"\n', 1),
    ("common/x.c", '#include "common/wire/pack.h"\n', 1),
    ("producer/x.c", '#include "worker/core/loop.h"\n', 1),
    ("worker/task/x.c", "#include <event2/event.h>\n", 1),
    ("worker/core/loop.c", "#include <libpq-fe.h>\n", 1),
    ("worker/task/x.c", '#include "worker/job/job.h"\n#include <string.h>\n', 0),
]


def main():
    if "--selftest" in sys.argv:
        bad = [n for n, text, want in SEEDED if len(check(n, text)) != want]
        print(f"{len(SEEDED) - len(bad)} passed, {len(bad)} failed")
        return 1 if bad else 0
    root = pathlib.Path(__file__).resolve().parents[2]
    passed = failed = 0
    for folder in ("common", "worker", "producer"):
        for path in sorted((root / folder).rglob("*.[ch]")):
            name = str(path.relative_to(root))
            found = check(name, path.read_text())
            for line, reason in found:
                print(f"{name}:{line}: {reason}")
            failed += bool(found)
            passed += not found
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
