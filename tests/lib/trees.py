"""File trees from a fixed seed, and checksums over a tree: content alone, and with all that is known of each entry."""
import hashlib
import os
import pathlib
import random
import stat

WORDS = ("gold silver ring chain bar coin invoice customer order price ounce carat weight market London Zurich paid sent "
         "returned stone setting clasp engraving certificate receipt total tax shipping insurance note photo").split()


def _text(rng, size):
    parts, length = [], 0
    while length < size:
        line = " ".join(rng.choices(WORDS, k=12)) + f" {rng.random():.6f}\n"
        parts.append(line)
        length += len(line)
    return "".join(parts).encode()[:size]


def mixed(root, megabytes, files=2000, seed=1):
    """files files of megabytes in all, every second one incompressible; folders of up to 50 files."""
    rng = random.Random(seed)
    root = pathlib.Path(root)
    sizes = [rng.lognormvariate(0, 1.2) for _ in range(files)]
    scale = megabytes * 1e6 / sum(sizes)
    pool = _text(rng, 4 << 20)
    for i, size in enumerate(sizes):
        size = max(1, int(size * scale))
        folder = root / f"d{i // 500:02d}" / f"e{i // 50:03d}"
        if i % 50 == 0:
            folder.mkdir(parents=True, exist_ok=True)
        with open(folder / f"f{i:05d}.{'txt' if i % 2 else 'bin'}", "wb") as f:
            if i % 2 == 0:
                while size > 0:
                    f.write(rng.randbytes(min(size, 1 << 20)))
                    size -= 1 << 20
            else:  # lines of the pool in another order each time: repeats, as text does, but not far apart copies of whole files
                while size > 0:
                    at = rng.randrange(len(pool) - 4096)
                    part = pool[at:at + min(size, rng.randrange(200, 4096))]
                    f.write(part)
                    size -= len(part)
    return root


def small_files(root, files=100000, seed=2):
    """files files of 1 to 8 KB, 100 a folder; half text, half incompressible."""
    rng = random.Random(seed)
    root = pathlib.Path(root)
    pool = _text(rng, 1 << 20)
    for i in range(files):
        folder = root / f"d{i // 10000:03d}" / f"e{i // 100:04d}"
        if i % 100 == 0:
            folder.mkdir(parents=True, exist_ok=True)
        size = rng.randrange(1024, 8192)
        at = rng.randrange(len(pool) - size)
        with open(folder / f"f{i:06d}", "wb") as f:
            f.write(rng.randbytes(size) if i % 2 else pool[at:at + size])
    return root


def uploads(root, files=60, seed=3):
    """A shop's upload folder, a few MB, with one of everything that a file backup must bring back."""
    rng = random.Random(seed)
    root = pathlib.Path(root)
    for i in range(files):
        folder = root / ("photos", "invoices", "certificates/2025")[i % 3]
        folder.mkdir(parents=True, exist_ok=True)
        size = rng.randrange(0, 200000) if i % 7 else i * 3
        path = folder / f"{i:03d}-{rng.choice(WORDS)}"
        path.write_bytes(rng.randbytes(size) if i % 3 == 0 else _text(rng, size))
        os.utime(path, ns=(1700000000_000000000 + i * 1_000_000_007,) * 2)
    (root / "empty folder").mkdir()
    (root / "zero").touch()
    (root / "Grüße, 'quoted' \"too\"\tand\ntab.txt").write_text("odd name\n", encoding="utf-8")
    (root / os.fsdecode(b"not-utf8-\xff\xfe")).write_bytes(b"\x00\xff")
    (root / "latest").symlink_to("photos/000-nowhere")
    (root / "away").symlink_to("/etc/hostname")
    os.link(root / "zero", root / "photos" / "zero again")
    (root / "photos" / ("long-" + "n" * 200)).write_bytes(b"long name")
    script = root / "run me"
    script.write_text("#!/bin/sh\necho gold\n")
    script.chmod(0o755)
    (root / "private").mkdir(mode=0o700)
    (root / "private/key").write_bytes(rng.randbytes(64))
    (root / "private/key").chmod(0o600)
    with open(root / "sparse", "wb") as f:
        f.truncate(300000)
        f.seek(200000)
        f.write(b"middle")
    for path, _, names in sorted(os.walk(root, topdown=False)):
        os.utime(path, ns=(1710000000_123456789, 1710000000_123456789))
    return root


def entries(root):
    """{relative path: (type, size, sha256 or target, mode, uid, gid, mtime_ns, xattrs)}; ours (.dr-...) at the root left out."""
    root = os.fsencode(root)
    out = {}

    def visit(path, name):
        st = os.lstat(path)
        kind, digest = stat.S_IFMT(st.st_mode), b""
        size = st.st_size if stat.S_ISREG(st.st_mode) else 0
        if stat.S_ISREG(st.st_mode):
            with open(path, "rb") as f:
                digest = hashlib.file_digest(f, "sha256").digest() if hasattr(hashlib, "file_digest") else hashlib.sha256(f.read()).digest()
        elif stat.S_ISLNK(st.st_mode):
            digest = os.readlink(path)
        xattrs = tuple((n, os.getxattr(path, n, follow_symlinks=False)) for n in sorted(os.listxattr(path, follow_symlinks=False)))
        out[name] = (kind, size, digest, stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid, st.st_mtime_ns, xattrs)
        if stat.S_ISDIR(st.st_mode):
            for child in sorted(os.listdir(path)):
                if name or not child.startswith(b".dr-"):
                    visit(os.path.join(path, child), os.path.join(name, child))
    visit(root, b"")
    return out


def checksum(root):
    """(content, meta): equal contents, equal trees down to times, owners and extended attributes."""
    content, meta = hashlib.sha256(), hashlib.sha256()
    for name, entry in sorted(entries(root).items()):
        content.update(repr((name, entry[:3])).encode())
        meta.update(repr((name, entry)).encode())
    return content.hexdigest(), meta.hexdigest()
