"""Key files and signed orders."""
import hashlib
import hmac
import time

import msgpack


def now_ms():
    return int(time.time() * 1000)


def keys(c, *lines, name="keys"):
    """A key file; each line KID ROLE TYPES NOT-AFTER. Its path and {kid: key}."""
    path, found = c.dir / name, {}
    for line in lines:
        kid, role, types, until = line.split()
        words = ["keys", "new", kid, role, "--types", types] + (["--not-after", until] if until != "-" else [])
        found[kid] = c.cli(*words)
    path.write_text("# of a test\n" + "".join(found.values()))
    path.chmod(0o600)
    return path, {kid: bytes.fromhex(text.split()[4]) for kid, text in found.items()}


def signed(kid, key, body, lane, ns="dr"):
    b = msgpack.packb(body)
    mac = hmac.new(key, b"dr1\0" + ns.encode() + b"\0" + lane.encode() + b"\0" + b, hashlib.sha256).digest()
    return msgpack.packb({"v": 1, "kid": kid, "b": b, "mac": mac})
