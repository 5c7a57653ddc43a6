"""A restic repository whose snapshots are written by the thousand, as restic writes them: it is the oracle of retention.

`restic backup --time` costs half a second each. A snapshot is a small JSON file, AES-256-CTR and Poly1305-AES under
the repository's master key, named by its SHA-256; restic prints that key to whoever has the password, and refuses a
file whose tag is wrong. So what restic reads here it has authenticated.
"""
import base64
import ctypes
import ctypes.util
import hashlib
import json
import os
import pathlib
import random
import re
import subprocess

CRYPTO = ctypes.CDLL(ctypes.util.find_library("crypto") or "libcrypto.so.3")
for name in ("EVP_CIPHER_CTX_new", "EVP_aes_256_ctr", "EVP_aes_128_ecb"):
    getattr(CRYPTO, name).restype = ctypes.c_void_p
CRYPTO.EVP_EncryptInit_ex.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p]
CRYPTO.EVP_EncryptUpdate.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_int), ctypes.c_char_p, ctypes.c_int]


class Cipher:
    """One key for many messages."""

    def __init__(self, cipher, key):
        self.context, self.cipher, self.key = CRYPTO.EVP_CIPHER_CTX_new(), cipher, key

    def run(self, text, iv=None):
        out, n = ctypes.create_string_buffer(len(text) + 16), ctypes.c_int()
        assert CRYPTO.EVP_EncryptInit_ex(self.context, self.cipher, None, self.key, iv) == 1
        assert CRYPTO.EVP_EncryptUpdate(self.context, out, ctypes.byref(n), text, len(text)) == 1
        return out.raw[:n.value]


def poly1305(r, s, text):
    r = int.from_bytes(r, "little") & 0x0ffffffc0ffffffc0ffffffc0fffffff
    total = 0
    for i in range(0, len(text), 16):
        total = (total + int.from_bytes(text[i:i + 16] + b"\1", "little")) * r % ((1 << 130) - 5)
    return ((total + int.from_bytes(s, "little")) & ((1 << 128) - 1)).to_bytes(16, "little")


class Restic:
    def __init__(self, folder, seed=1):
        self.repo = pathlib.Path(folder)
        self.run("init")
        key = json.loads(self.run("cat", "masterkey"))
        self.mac_r = base64.b64decode(key["mac"]["r"])
        self.mac_k = Cipher(CRYPTO.EVP_aes_128_ecb(), base64.b64decode(key["mac"]["k"]))
        self.encrypt = Cipher(CRYPTO.EVP_aes_256_ctr(), base64.b64decode(key["encrypt"]))
        self.random = random.Random(seed)

    @staticmethod
    def version():
        text = subprocess.run(["restic", "version"], check=True, capture_output=True, text=True).stdout
        return tuple(int(n) for n in re.match(r"restic (\d+)\.(\d+)", text).groups())

    def run(self, *words):
        return subprocess.run(["restic", "--repo", self.repo, "--no-cache", "--quiet", *words], check=True, capture_output=True,
                              env={"PATH": os.environ["PATH"], "RESTIC_PASSWORD": "of a test", "TZ": "UTC"}).stdout

    def snapshot(self, host, time):
        text = json.dumps({"time": time, "tree": "00" * 32, "paths": ["/x"], "hostname": host}).encode()
        iv = self.random.randbytes(16)
        sealed = self.encrypt.run(text, iv)
        sealed = iv + sealed + poly1305(self.mac_r, self.mac_k.run(iv), sealed)
        name = hashlib.sha256(sealed).hexdigest()
        (self.repo / "snapshots" / name).write_bytes(sealed)
        return name

    def clear(self):
        for f in (self.repo / "snapshots").iterdir():
            f.unlink()

    def forget(self, daily, weekly, monthly, yearly):
        """{host: set of the times it keeps}, with the policy applied to each host by itself. Weeks in days: restic has no w."""
        flags = [f"--keep-within-{rule}={n}{unit}" for rule, n, unit in
                 (("daily", daily, "d"), ("weekly", 7 * weekly, "d"), ("monthly", monthly, "m"), ("yearly", yearly, "y")) if n]
        groups = json.loads(self.run("forget", "--dry-run", "--json", "--group-by", "host", *flags))
        return {g["host"]: {s["time"] for s in g["keep"] or []} for g in groups}
