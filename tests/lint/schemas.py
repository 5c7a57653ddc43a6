#!/usr/bin/env python3
"""schemas/tasks against common/wire/fields.def, both ways; the golden messages against the schemas."""
import json
import pathlib
import re
import sys

import jsonschema
import msgpack

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROW = re.compile(r'FIELD\("([^"]+)", "([^"]+)", (\w+), (true|false), (\d+), (\d+),\s*"([^"]*)"\)')
ID = r"[0-9]{8}T[0-9]{6}Z-(database|files|config|full)-[a-z2-7]{8}$"


def expected(kind, least, most, rule):
    """What the schema of one field must say, but for comments."""
    if kind == "UINT":
        return {"type": "integer", "minimum": least, "maximum": most}
    if kind == "BOOL":
        return {"type": "boolean"}
    if kind == "BYTES":
        return {"type": "string", "contentEncoding": "binary", "minLength": least,
                "maxLength": most}
    if kind == "ANY":
        return {}
    rules = {"<backup-id>": {"pattern": "^" + ID}, "<hash>": {"pattern": "^[0-9a-f]{64}$"},
             "<backup-id-or-latest>": {"pattern": "^latest$|^" + ID},
             "<time>": {"format": "date-time", "maxLength": most}, "": {"maxLength": most}}
    return {"type": "string", **rules.get(rule, {"enum": rule.split("|")})}


def plain(value):
    """Bytes as the text a JSON schema sees."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list) else value


def raw_of(case):
    if "raw" in case:
        return bytes.fromhex(case["raw"])
    return b"".join(bytes.fromhex(p["hex"]) if "hex" in p else bytes.fromhex(p["byte"]) * p["times"]
                    for p in case["raw_parts"])


def main():
    passed, problems = 0, []
    text = (ROOT / "common/wire/fields.def").read_text()
    rows = ROW.findall(text)
    if len(rows) != text.count("FIELD(\""):
        problems.append("fields.def has rows this test cannot read")
    lanes = re.findall(r'LANE\("([^"]+)"', (ROOT / "common/wire/lanes.def").read_text())
    files = {p.stem: json.loads(p.read_text()) for p in (ROOT / "schemas/tasks").glob("*.json")}
    for name in set(lanes) ^ set(files):
        problems.append(f"{name}: a lane without a schema, or a schema without a lane")
    for lane in sorted(set(lanes) & set(files)):
        schema = files[lane]
        jsonschema.Draft202012Validator.check_schema(schema)
        want = {n: expected(k, int(a), int(b), r) for ln, n, k, _, a, b, r in rows if ln == lane}
        have = {n: {k: v for k, v in s.items() if k != "$comment"}
                for n, s in schema["properties"].items()}
        required = [n for ln, n, _, req, *_ in rows if ln == lane and req == "true"]
        if want != have or schema["required"] != required or schema["additionalProperties"]:
            problems.append(f"{lane}: fields.def says {want}, {required}; the schema {have}")
        else:
            passed += 1
    shapes = {n: json.loads((ROOT / f"schemas/{n}.json").read_text())
              for n in ("envelope", "progress", "result")}
    for schema in shapes.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    envelope = jsonschema.Draft202012Validator(shapes["envelope"])
    for case in json.loads((ROOT / "tests/vectors/envelopes.json").read_text())["accept"]:
        message = plain(msgpack.unpackb(raw_of(case), strict_map_key=False))
        inner = message if "v" not in message else plain(
            msgpack.unpackb(message["b"].encode("latin-1")))
        errors = [e.message for e in envelope.iter_errors(message)]
        errors += [e.message for e in
                   jsonschema.Draft202012Validator(files[inner["t"]]).iter_errors(inner["a"])]
        if errors:
            problems.append(f"{case['case']}: {errors}")
        else:
            passed += 1
    print(*problems, sep="\n", end="\n" if problems else "")
    print(f"{passed} passed, {len(problems)} failed")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
