#!/usr/bin/env python3
"""Budgets: .c 600 lines, header 150, function 100 lines, complexity 20; and functions nobody calls.

No allow list. `--selftest` seeds violations.
"""
import pathlib
import re
import sys

FILE_MAX, HEADER_MAX, FUNCTION_MAX, COMPLEXITY_MAX = 600, 150, 100, 20
BANNED = re.compile(
    r"(?<![\w.>])(strcpy|strcat|sprintf|vsprintf|gets|strtok|atoi|atol|atoll|atof|system|popen|"
    r"alloca|setjmp|longjmp|usleep|sleep|tmpnam|mktemp|signal_handler)\s*\(")
EXIT = re.compile(r"(?<![\w.>_])exit\s*\(")
BRANCH = re.compile(r"\b(if|for|while|case|catch)\b|&&|\|\||\?")


def strip(text):
    """Comments and literals blanked, lines kept."""
    def blank(m):
        return re.sub(r"[^\n]", " ", m.group(0))
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', blank, text,
                  flags=re.S)


def functions(code):
    """(first line, lines, complexity) of each top-level body: it begins at a '{' in column 0."""
    lines = code.split("\n")
    start = None
    for number, line in enumerate(lines, 1):
        if line == "{":
            start = number
        elif line == "}" and start:
            body = "\n".join(lines[start - 1:number])
            yield start, number - start + 1, 1 + len(BRANCH.findall(body))
            start = None


def check(name, text):
    found = []
    count = text.count("\n")
    most = HEADER_MAX if name.endswith(".h") else FILE_MAX
    if count > most:
        found.append((count, f"{count} lines, at most {most}"))
    if not name.endswith(".c") and not name.endswith(".h"):
        return found
    if not text.startswith("/*"):
        found.append((1, "does not open with its purpose"))
    code = strip(text)
    for first, length, complexity in functions(code):
        if length > FUNCTION_MAX:
            found.append((first, f"function of {length} lines, at most {FUNCTION_MAX}"))
        if complexity > COMPLEXITY_MAX:
            found.append((first, f"complexity {complexity}, at most {COMPLEXITY_MAX}"))
    if not name.startswith("tests/"):
        for number, line in enumerate(code.split("\n"), 1):
            m = BANNED.search(line)
            if m:
                found.append((number, f"{m.group(1)}() is banned"))
            if EXIT.search(line) and not name.endswith("main.c"):
                found.append((number, "exit() outside main.c"))
    return found


SEEDED = [
    ("a.c", "/* x */\n" + "\n" * 600, 1),
    ("a.h", "/* x */\n" + "\n" * 150, 1),
    ("a.c", "/* x */\nvoid f(void)\n{\n" + "    g();\n" * 99 + "}\n", 1),
    ("a.c", "/* x */\nvoid f(void)\n{\n" + "    if (a && b)\n        g();\n" * 10 + "}\n", 1),
    ("a.c", "/* x */\nvoid f(void)\n{\n    strcpy(a, b);\n}\n", 1),
    ("a.c", "/* x */\nvoid f(void)\n{\n    exit(1);\n}\n", 1),
    ("a.c", "int x;\n", 1),
    ("a.c", '/* strcpy( */\nvoid f(void)\n{\n    g("exit(1)");\n}\n', 0),
]


def main():
    if "--selftest" in sys.argv:
        bad = [i for i, (n, text, want) in enumerate(SEEDED) if len(check(n, text)) != want]
        print(f"{len(SEEDED) - len(bad)} passed, {len(bad)} failed {bad or ''}")
        return 1 if bad else 0
    root = pathlib.Path(__file__).resolve().parents[2]
    passed = failed = 0
    for folder in ("common", "worker", "producer", "tests"):
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
