"""The README says what is so: its table of variables against common/options.def (every row, its default, nothing
else), its table of tasks against common/wire/lanes.def, its map of the house against the folders, and every
program of this repository that it names is there. --selftest breaks each of these and demands to be told.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
OPTION = re.compile(r'^OPT\("(\w+)",\s*\w+,\s*"([^"]*)"', re.M)
LANE = re.compile(r'^LANE\("([\w-]+)"', re.M)
PROGRAM = re.compile(r"(?<![\w./-])((?:deploy|tests)/[\w/.-]*\w)")


def section(text, title):
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    return found.group(1) if found else ""


def cells(text):
    for line in text.splitlines():
        if line.startswith("|") and not re.match(r"^\|[\s|:-]+\|$", line):
            yield [c.strip() for c in line.strip().strip("|").replace("\\|", "\0").split("|")]


def names(cell):
    return re.findall(r"`([^`]+)`", cell)


def variables(text, options):
    told = {}
    for row in cells(section(text, "Variables")):
        for name in names(row[0]):
            if name in told:
                yield f"variable {name} stands twice"
            told[name] = row[1].replace("`", "").replace("\0", "|") if len(row) > 1 else ""
    for name, default in options.items():
        if name not in told:
            yield f"variable {name} of options.def is missing"
        elif told[name] != default:
            yield f"variable {name}: default '{told[name]}', options.def says '{default}'"
    for name in told:
        if name not in options:
            yield f"variable {name} is not in options.def"


def tasks(text, lanes):
    told = [name for row in cells(section(text, "Tasks")) for name in names(row[0])]
    for lane in lanes:
        if told.count(lane) != 1:
            yield f"task {lane} stands {told.count(lane)} times in the table of tasks"
    for name in told:
        if name not in lanes:
            yield f"task {name} is not in lanes.def"


def house(text, folders):
    told = {name.strip("/") for row in cells(section(text, "The house")) for name in names(row[0])}
    for folder in folders - told:
        yield f"folder {folder}/ is missing in the map of the house"
    for name in told - folders:
        yield f"folder {name}/ of the map is not there"


def programs(text):
    for name in sorted(set(PROGRAM.findall(text))):
        if not (ROOT / name).exists():
            yield f"{name} is named and not there"


def problems(text, options, lanes, folders):
    for check in (variables(text, options), tasks(text, lanes), house(text, folders), programs(text)):
        yield from check


def facts():
    options = dict(OPTION.findall((ROOT / "common/options.def").read_text()))
    lanes = LANE.findall((ROOT / "common/wire/lanes.def").read_text())
    folders = {"common", "schemas", "producer", "tests", "deploy"}
    folders |= {"common/wire"} | {f"worker/{p.name}" for p in (ROOT / "worker").iterdir() if p.is_dir()}
    return options, lanes, folders


def selftest(text, known):
    options, lanes, folders = known
    passed = failed = 0
    some = "DR_LEASE_MS"
    row = re.search(rf"^\| `{some}`.*\n", text, re.M).group(0)
    broken = {
        "a row missing": text.replace(row, ""),
        "a row twice": text.replace(row, row + row),
        "another default": text.replace(row, row.replace(options[some], "15001")),
        "an unknown variable": text.replace(row, row + "| `DR_UNKNOWN` | `1` | nothing |\n"),
        "a task missing": re.sub(r"^\| `noop`.*\n", "", text, flags=re.M),
        "an unknown folder": text.replace("| `common/` |", "| `commons/` |"),
        "a program that is not there": text + "\nrun deploy/nothing\n",
    }
    for what, changed in broken.items():
        if changed != text and list(problems(changed, *known)):
            passed += 1
        else:
            failed += 1
            print(f"not noticed: {what}")
    return passed, failed


def main():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    known = facts()
    if "--selftest" in sys.argv:
        passed, failed = selftest(text, known)
    else:
        found = list(problems(text, *known))
        print(*found, sep="\n")
        passed, failed = len(known[0]) + len(known[1]) + len(known[2]), len(found)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
