"""A database with every kind of thing that a dump's tap must count, and what it must say of it, computed here from SQL.

`python3 tests/lib/dumps.py BIN OUT` writes OUT.dump and OUT.txt with the server and pg_dump in folder BIN:
so were made tests/vectors/dumps/pg15 (archive 1.14), pg16 (1.15) and pg18 (1.16).
"""
import hashlib
import os
import pathlib
import struct
import subprocess
import sys
import tempfile

KEY = "07" * 32  # of the rows' digests

SQL = r'''
CREATE SCHEMA "we.ird ""s";
CREATE TABLE "we.ird ""s"."t,1
x) FROM stdin;" ("a b" int, "c""d" text, "ü" text, "select" bytea);
INSERT INTO "we.ird ""s"."t,1
x) FROM stdin;" SELECT g, E'l\n\t\\x' || g, repeat('ä', g), decode('00ff0a5c', 'hex') FROM generate_series(1, 100) g;
CREATE TABLE plain (id serial PRIMARY KEY, v text, j jsonb, t timestamptz, f float8);
INSERT INTO plain (v, j, t, f) SELECT md5(g::text), jsonb_build_object('a', g), '2026-01-01'::timestamptz + g * '1 h'::interval, g / 7.0
  FROM generate_series(1, 400) g;
CREATE TABLE nothing (a int);
CREATE TABLE zero ();
INSERT INTO zero DEFAULT VALUES;
INSERT INTO zero DEFAULT VALUES;
CREATE TABLE gen (a int, gone int, b int GENERATED ALWAYS AS (a * 2) STORED, c text);
ALTER TABLE gen DROP COLUMN gone;
INSERT INTO gen (a, c) VALUES (1, 'x'), (2, NULL), (3, '');
CREATE TABLE par (a int);
CREATE TABLE chi (b text) INHERITS (par);
INSERT INTO par VALUES (1);
INSERT INTO chi VALUES (2, 'q');
CREATE TABLE part (k int, v text) PARTITION BY RANGE (k);
CREATE TABLE part1 PARTITION OF part FOR VALUES FROM (0) TO (10);
CREATE TABLE part2 (v text, k int);
ALTER TABLE part ATTACH PARTITION part2 FOR VALUES FROM (10) TO (20);
INSERT INTO part SELECT g, 'v' || g FROM generate_series(0, 19) g;
CREATE TABLE ident (i int GENERATED ALWAYS AS IDENTITY, t text);
INSERT INTO ident (t) VALUES ('a'), ('b');
CREATE UNLOGGED TABLE unlogged (a int);
INSERT INTO unlogged VALUES (1), (2);
CREATE TABLE one (t text);
INSERT INTO one VALUES (''), ('\.'), (NULL), (E'\\\\.'), (E'\r\n'), (repeat('long', 3000));
CREATE SEQUENCE s1 START -5 INCREMENT -1 MINVALUE -9223372036854775808 MAXVALUE 5;
SELECT nextval('s1'), nextval('s1');
CREATE SEQUENCE s2 MINVALUE -9223372036854775808;
SELECT setval('s2', -9223372036854775808);
CREATE SEQUENCE "Se.q'x\" START 7;
CREATE MATERIALIZED VIEW mv AS SELECT * FROM plain;
CREATE VIEW vw AS SELECT 1;
CREATE FUNCTION f(a int) RETURNS int LANGUAGE sql AS 'SELECT a';
COMMENT ON TABLE plain IS 'a
-- comment';
COMMENT ON COLUMN plain.v IS 'another';
SELECT lo_from_bytea(5, 'hello'), lo_from_bytea(3000000000, decode(repeat('00ff0a5c', 5000), 'hex')), lo_create(7);
COMMENT ON LARGE OBJECT 5 IS 'of gold';
'''

TABLES = """SELECT encode(convert_to(n.nspname, 'UTF8'), 'hex') || ' ' || encode(convert_to(c.relname, 'UTF8'), 'hex') || ' '
  || c.relkind::text || ' ' || coalesce((SELECT string_agg(encode(convert_to(a.attname, 'UTF8'), 'hex'), ' ' ORDER BY a.attnum)
    FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''), '')
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'm', 'S') AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'"""
BLOBS = "SELECT oid || ' ' || encode(lo_get(oid), 'hex') FROM pg_largeobject_metadata"


def _hash(row):
    return int.from_bytes(hashlib.sha256(bytes.fromhex(KEY) + row).digest()[:16], "big")


def _digest(rows):
    return f"{sum(map(_hash, rows)) % 2 ** 128:032x}"


def _name(hexed):
    return '"' + bytes.fromhex(hexed).decode().replace('"', '""') + '"'


def expected(query):
    """Lines as dr_pipe_probe writes them, sorted. query(SQL) -> bytes of psql -At."""
    lines = []
    for line in query(TABLES).decode().splitlines():
        schema, table, kind, *columns = line.split(" ")
        columns = [c for c in columns if c]
        name = f"{_name(schema)}.{_name(table)}"
        if kind == "S":
            last, called = query(f"SELECT last_value, is_called FROM {name}").decode().strip().split("|")
            lines.append(f"q {schema} {table} {last} {int(called == 't')}")
        elif kind == "m":
            lines.append(f"t {schema} {table} nil -")
        else:
            names = f"({', '.join(map(_name, columns))})" if columns else ""
            rows = query(f"COPY {name} {names} TO STDOUT").split(b"\n")[:-1]
            lines.append(" ".join([f"t {schema} {table} {len(rows)} {_digest(rows)}", *columns]))
    blobs = [line.split(" ") for line in query(BLOBS).decode().splitlines()]
    blobs = [struct.pack(">I", int(oid)) + bytes.fromhex(data) for oid, data in blobs]
    lines.append(f"o {len(blobs)} {sum(map(len, blobs)) - 4 * len(blobs)} {_digest(blobs)}")
    return sorted(lines)


def _make(bin_dir, out):
    import pg  # pylint: disable=import-outside-toplevel

    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)

        def run(*words, text=None):
            return subprocess.run(pg.as_server(*words), input=text, stdout=subprocess.PIPE, check=True, cwd="/").stdout

        def query(sql, stop="1"):
            words = ["psql", "-XAtq", "-v", f"ON_ERROR_STOP={stop}", "-h", folder, "-U", "postgres", "-d", "postgres"]
            return subprocess.run(words, input=sql.encode(), stdout=subprocess.PIPE, check=True).stdout

        run(f"{bin_dir}/initdb", "-D", f"{folder}/d", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync")
        run(f"{bin_dir}/pg_ctl", "-D", f"{folder}/d", "-w", "-l", f"{folder}/log", "-o", f"-k {folder} -c listen_addresses=", "start")
        try:
            query(SQL)
            dump = run(f"{bin_dir}/pg_dump", "-h", folder, "-U", "postgres", "-Fc", "-Z0", "postgres")
            pathlib.Path(f"{out}.dump").write_bytes(dump)
            pathlib.Path(f"{out}.txt").write_text("\n".join(expected(query)) + "\n", encoding="ascii")
        finally:
            run(f"{bin_dir}/pg_ctl", "-D", f"{folder}/d", "-w", "-m", "immediate", "stop")


if __name__ == "__main__":
    _make(*sys.argv[1:3])
