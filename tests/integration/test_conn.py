#!/usr/bin/env python3
"""The connection to Redis: TLS, passwords, databases, broken peers, hostile replies, flaps."""
import os
import pathlib
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "lib"), str(ROOT / "fakes")]
from dr import run, wait  # noqa: E402
from redis_proxy import CLOSE, LOSE, PASS, SILENCE, RedisProxy  # noqa: E402


def noop(jid, **args):
    return {"id": jid, "t": "noop", "a": args}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def openssl(c, *words):
    subprocess.run(["openssl", *map(str, words)], cwd=c.dir, check=True, capture_output=True)


def authority(c, name):
    openssl(c, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
            f"{name}.key", "-out", f"{name}.pem", "-days", "2", "-subj", f"/CN={name}")


def certificate(c, ca, name, san, start="20200101000000Z", end="20990101000000Z"):
    """NAME.pem, NAME.key for the names of san, signed by ca."""
    (c.dir / "ca.cnf").write_text(f"""[ca]\ndefault_ca = d\n[d]\ndatabase = index.txt\nserial = serial\n
new_certs_dir = .\ndefault_md = sha256\npolicy = p\nx509_extensions = e\nunique_subject = no\n
[p]\ncommonName = supplied\n[e]\nsubjectAltName = {san}\n""")
    (c.dir / "index.txt").write_text("")
    (c.dir / "serial").write_text(f"{int(time.time() * 1e6):020x}\n")
    openssl(c, "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
            f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
    openssl(c, "ca", "-batch", "-config", "ca.cnf", "-cert", f"{ca}.pem", "-keyfile", f"{ca}.key", "-in",
            f"{name}.csr", "-out", f"{name}.pem", "-startdate", start, "-enddate", end, "-notext")


def tls_redis(c, name):
    """Redis anew with TLS beside its unix socket; the port."""
    c.kill(c.redis_process)
    port = free_port()
    c.start_redis("--tls-port", str(port), "--tls-cert-file", c.dir / f"{name}.pem", "--tls-key-file",
                  c.dir / f"{name}.key", "--tls-ca-cert-file", c.dir / "ca.pem", "--tls-auth-clients", "no")
    return port


def refused(c, url, text):
    """Worker and producer both name the reason, and the worker goes on trying."""
    p = c.worker(wait_up=False, REDIS_URL=url)
    wait(lambda: p.log.read_text().count("redis.down") >= 2)
    assert text in p.log.read_text(), p.log.read_text()
    assert text in c.cli("noop", env={"REDIS_URL": url}, code=10)
    assert p.poll() is None and c.r.zcard("{dr}:wk") == 0


def case_tls_with_the_right_host(c):
    authority(c, "ca")
    certificate(c, "ca", "server", "DNS:localhost,IP:127.0.0.1")
    port = tls_redis(c, "server")
    c.worker(REDIS_URL=f"rediss://localhost:{port}?ca_file={c.dir}/ca.pem", DR_LANES="noop:16")
    c.worker(REDIS_URL=f"rediss://127.0.0.1:{port}?ca_file={c.dir}/ca.pem", DR_LANES="noop:16")
    url = {"REDIS_URL": f"rediss://127.0.0.1:{port}?ca_file={c.dir}/ca.pem"}
    assert '"st":"done"' in c.cli("noop", "--wait", env=url)
    for i in range(500):  # large messages: several TLS records in both directions
        c.push("noop", noop(f"t{i}", payload="x" * (150_000 if i % 50 == 0 else 100)))
    for i in range(500):
        c.until(f"t{i}", "done")
    wait(c.at_rest)
    assert len({c.job(f"t{i}")["wid"] for i in range(500)}) == 2


def case_tls_wrong_host(c):
    authority(c, "ca")
    certificate(c, "ca", "server", "DNS:redis.example")
    port = tls_redis(c, "server")
    refused(c, f"rediss://localhost:{port}?ca_file={c.dir}/ca.pem", "hostname mismatch")
    c.kill(c.processes[-1])
    refused(c, f"rediss://127.0.0.1:{port}?ca_file={c.dir}/ca.pem", "mismatch")


def case_tls_other_authority(c):
    authority(c, "ca")
    authority(c, "other")
    certificate(c, "ca", "server", "DNS:localhost")
    port = tls_redis(c, "server")
    refused(c, f"rediss://localhost:{port}?ca_file={c.dir}/other.pem", "certificate in certificate chain")


def case_tls_expired_certificate(c):
    authority(c, "ca")
    certificate(c, "ca", "server", "DNS:localhost", end="20210101000000Z")
    port = tls_redis(c, "server")
    refused(c, f"rediss://localhost:{port}?ca_file={c.dir}/ca.pem", "certificate has expired")


def case_tls_against_a_plain_port_and_back(c):
    authority(c, "ca")
    certificate(c, "ca", "server", "DNS:localhost")
    port = tls_redis(c, "server")
    plain = free_port()
    c.kill(c.redis_process)
    c.start_redis("--port", str(plain))
    p = c.worker(wait_up=False, REDIS_URL=f"rediss://localhost:{plain}?ca_file={c.dir}/ca.pem")
    wait(lambda: p.log.read_text().count("redis.down") >= 2)
    said = p.log.read_text()  # Redis 7 waits for more, Redis 8 answers with an error
    assert ("no TLS handshake" in said or "does not speak TLS" in said) and p.poll() is None, said
    c.kill(p)
    tls_port = tls_redis(c, "server")
    p = c.worker(wait_up=False, REDIS_URL=f"redis://localhost:{tls_port}")
    wait(lambda: p.log.read_text().count("redis.down") >= 2)
    assert p.poll() is None and port


def case_a_missing_ca_file_is_a_configuration_error(c):
    p = c.worker(wait_up=False, REDIS_URL=f"rediss://localhost:1?ca_file={c.dir}/none.pem")
    assert p.wait(20) == 2
    assert "none.pem" in p.log.read_text()
    assert "none.pem" in c.cli("noop", env={"REDIS_URL": f"rediss://localhost:1?ca_file={c.dir}/none.pem"}, code=2)


def case_password_acl_user_and_database(c):
    c.r.config_set("requirepass", "pass%word")
    c.r.execute_command("AUTH", "pass%word")
    c.r.acl_setuser("worker", enabled=True, passwords=["+se:cr@et"], keys=["{dr}:*"], channels=["{dr}:*"],
                    commands=["+@all", "-@admin", "-@dangerous", "+info", "+role"])
    path = c.url.removeprefix("unix://")
    by_password = f"unix://:pass%25word@{path}?db=3"
    by_user = f"unix://worker:se%3Acr%40et@{path}?db=3"
    p = c.worker(wait_up=False, REDIS_URL=by_password)
    assert '"st":"done"' in c.cli("noop", "--wait", env={"REDIS_URL": by_password})
    c.kill(p)
    p = c.worker(wait_up=False, REDIS_URL=by_user)
    assert '"st":"done"' in c.cli("noop", "--wait", env={"REDIS_URL": by_user})
    assert "secr" not in p.log.read_text().replace(":", "") and "pass%word" not in p.log.read_text()
    info = c.r.info("keyspace")
    assert "db3" in info and "db0" not in info, info
    c.r.acl_setuser("worker", enabled=True, passwords=["-se:cr@et", "+other"])
    c.r.execute_command("CLIENT", "KILL", "USER", "worker")
    wait(lambda: "WRONGPASS" in p.log.read_text())
    assert p.poll() is None
    c.cli("noop", env={"REDIS_URL": by_user}, code=10)
    c.r.acl_setuser("worker", enabled=True, passwords=["+se:cr@et"])
    assert '"st":"done"' in c.cli("noop", "--wait", env={"REDIS_URL": by_user})


def through(c, **env):
    """A worker behind a proxy."""
    proxy = RedisProxy(c.dir, c.url.removeprefix("unix://"))
    p = c.worker(REDIS_URL=proxy.url, **env)
    return proxy, p


def alive(c, jid):
    c.push("noop", noop(jid))
    c.until(jid, "done", seconds=15)


def case_a_half_open_peer_is_given_up(c):
    proxy, p = through(c)
    alive(c, "before")
    proxy.rule = lambda command, count: SILENCE if command == "beat" else PASS
    seen = len(proxy.acted)
    wait(lambda: len(proxy.acted) > seen)
    proxy.rule = lambda command, count: PASS
    wait(lambda: "no reply within its time" in p.log.read_text())
    alive(c, "after")
    wait(c.at_rest)


def case_hostile_replies_end_the_connection_only(c):
    proxy, p = through(c)
    deep = b"*1\r\n" * 2000 + b"$1\r\nx\r\n"
    for i, (reply, text) in enumerate([
            (b"\x00\x01\x02\x03 no redis at all\r\n" * 10, "no RESP"),
            (b"$99999999999\r\n", "too large"),
            (b"*1000000000\r\n", "too"),
            (deep, "too deep"),
            (b"$-7\r\n", "RESP"),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "RESP")]):
        done = []
        before = p.log.read_text().count('"redis.down"')

        def rule(command, count, reply=reply, done=done):
            if command == "beat" and not done:
                done.append(1)
                return reply
            return PASS
        proxy.rule = rule
        wait(lambda: p.log.read_text().count('"redis.down"') > before)
        last = [x for x in p.log.read_text().splitlines() if '"redis.down"' in x][-1]
        assert text in last, (text, last)
        alive(c, f"h{i}")
    assert p.poll() is None
    size = [int(x.split()[1]) for x in pathlib.Path(f"/proc/{p.pid}/status").read_text().splitlines()
            if x.startswith("VmHWM")]
    assert "asan" in str(c.bin) or size[0] < 40_000, size
    wait(c.at_rest)


def case_errors_that_pass_by_themselves(c):
    """LOADING, READONLY, OOM, BUSY, MASTERDOWN, CLUSTERDOWN: everything is repeated, nothing spins."""
    proxy, p = through(c)
    for word in ("LOADING Redis is loading the dataset in memory", "READONLY You can't write against a read only replica.",
                 "OOM command not allowed when used memory > 'maxmemory'.", "BUSY Redis is busy running a script.",
                 "MASTERDOWN Link with MASTER is down", "CLUSTERDOWN Hash slot not served",
                 "UNBLOCKED force unblock from blocking operation", "MOVED 1 127.0.0.1:1"):
        answer = f"-{word}\r\n".encode()
        until = time.monotonic() + 0.6
        proxy.acted.clear()
        proxy.rule = lambda command, count: answer if time.monotonic() < until else PASS
        jid = word.split()[0]
        c.push("noop", noop(jid))
        c.until(jid, "done", seconds=15)
        assert proxy.acted and len(proxy.acted) < 60, (jid, len(proxy.acted))
    assert p.poll() is None
    wait(c.at_rest)


def case_loading_while_it_greets(c):
    proxy = RedisProxy(c.dir, c.url.removeprefix("unix://"))
    loading = b"-LOADING Redis is loading the dataset in memory\r\n"
    proxy.rule = lambda command, count: loading
    p = c.worker(wait_up=False, REDIS_URL=proxy.url)
    wait(lambda: "LOADING" in p.log.read_text())
    proxy.rule = lambda command, count: PASS
    alive(c, "loaded")


def fds(p):
    """Open files; who is not root may not look into a worker, only at the size of its table, which never shrinks."""
    try:
        return len(os.listdir(f"/proc/{p.pid}/fd"))
    except PermissionError:
        status = pathlib.Path(f"/proc/{p.pid}/status").read_text()
        return int(status.split("FDSize:")[1].split()[0])


def case_two_hundred_flaps_leak_nothing_and_end_in_calm(c):
    proxy, p = through(c)
    alive(c, "f0")
    before, cpu = fds(p), cpu_s(p)
    for i in range(200):
        proxy.cut()
        time.sleep(0.02)
    alive(c, "f1")
    proxy.on_accept = lambda count: CLOSE  # accept, then close
    proxy.cut()
    seen = proxy.accepted
    time.sleep(2)
    assert proxy.accepted - seen < 200  # the backoff holds; two connections a lane try
    proxy.on_accept = lambda count: b"-ERR max number of clients reached\r\n"
    time.sleep(0.5)
    proxy.on_accept = lambda count: PASS
    alive(c, "f2")
    wait(lambda: fds(p) <= before)
    assert cpu_s(p) - cpu < 3
    wait(c.at_rest)
    ops = sum(proxy.counts.values())
    time.sleep(3)
    lanes = 10
    # A lease of 1 s: three times a second beats and sweeps, of five commands; a claim a second and lane while its
    # doorbell is out; and the last doorbells come back, each with a greeting of three and one BLMOVE.
    assert sum(proxy.counts.values()) - ops < 3 * (3 * 5 + lanes) + 4 * lanes + 10, proxy.counts
    assert p.poll() is None


def cpu_s(p):
    fields = pathlib.Path(f"/proc/{p.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def case_a_lost_reply_while_it_connects(c):
    proxy, p = through(c)
    for word in ("CLIENT", "ROLE", "INFO"):
        done = []
        proxy.rule = lambda command, count: (done.append(1), LOSE)[1] if command == word and not done else PASS
        proxy.cut()
        wait(lambda: done)
        alive(c, word)


def case_an_empty_wire_is_probed(c):
    """A lane's doorbell goes silent: found by its own deadline, the lane is served by then and after."""
    proxy, p = through(c, DR_LANES="noop")
    alive(c, "one")
    done = []
    proxy.rule = lambda command, count: (done.append(1), SILENCE)[1] if command == "BLMOVE" and not done else PASS
    alive(c, "two")
    wait(lambda: done)
    alive(c, "three")
    alive(c, "four")
    assert p.poll() is None


if __name__ == "__main__":
    run(globals(), at_once=4)
