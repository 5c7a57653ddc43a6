"""A proxy between a worker and a real Redis, on a unix socket, that does to chosen commands what
networks and servers do: swallows replies, goes silent, closes, answers something else.

    proxy = RedisProxy(folder, real_socket)
    proxy.rule = lambda command, count: LOSE if command == "finish" and count == 1 else PASS

command: the script's name for EVALSHA and EVAL, else the upper-case word; count: how often it has come,
from 1. A rule may also return bytes: they are the answer, and Redis never sees the command.
"""
import contextlib
import hashlib
import pathlib
import socket
import threading

SCRIPTS = pathlib.Path(__file__).resolve().parents[2] / "worker/queue/scripts"
NAMES = {hashlib.sha1(p.read_bytes()).hexdigest(): p.stem for p in SCRIPTS.glob("*.lua")}
PASS, LOSE, SILENCE, CLOSE = "pass", "lose", "silence", "close"


class Gone(Exception):
    pass


class Stream:
    """Whole RESP values, as bytes, off a socket."""

    def __init__(self, sock):
        self.sock, self.buffer = sock, b""

    def more(self):
        part = self.sock.recv(1 << 20)
        if not part:
            raise Gone
        self.buffer += part

    def line(self, at):
        while True:
            end = self.buffer.find(b"\r\n", at)
            if end >= 0:
                return self.buffer[at:end], end + 2
            self.more()

    def end_of(self, at):
        head, at = self.line(at)
        if head[:1] in b"$" and head != b"$-1":
            at += int(head[1:]) + 2
            while len(self.buffer) < at:
                self.more()
        elif head[:1] in b"*>" and head != b"*-1":
            for _ in range(int(head[1:])):
                at = self.end_of(at)
        return at

    def take(self):
        end = self.end_of(0)
        value, self.buffer = self.buffer[:end], self.buffer[end:]
        return value


def words(raw, most=2):
    """The first words of a command."""
    out, at = [], raw.index(b"\r\n") + 2
    for _ in range(min(most, int(raw[1:at - 2]))):
        end = raw.index(b"\r\n", at)
        n = int(raw[at + 1:end])
        out.append(raw[end + 2:end + 2 + n])
        at = end + 4 + n
    return out


def name_of(raw):
    got = words(raw)
    verb = got[0].decode(errors="replace").upper()
    if verb == "EVALSHA":
        return NAMES.get(got[1].decode(), verb)
    if verb == "EVAL":
        return NAMES.get(hashlib.sha1(got[1]).hexdigest(), verb)
    return verb


class RedisProxy:
    def __init__(self, folder, target):
        self.path, self.target = pathlib.Path(folder) / "proxy.sock", str(target)
        self.rule = lambda command, count: PASS
        self.on_accept = lambda count: PASS
        self.counts, self.accepted, self.acted = {}, 0, []
        self.lock = threading.Lock()
        self.open = set()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen(64)
        self.url = f"unix://{self.path}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                self.accepted += 1
                what = self.on_accept(self.accepted)
                if what == CLOSE:
                    client.close()
                elif isinstance(what, bytes):
                    threading.Thread(target=self.babble, args=(client, what), daemon=True).start()
                else:
                    threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def babble(self, client, what):
        """Answers everything with the same bytes."""
        with contextlib.suppress(OSError), client:
            while client.recv(65536):
                client.sendall(what)

    def judge(self, raw):
        command = name_of(raw)
        with self.lock:
            self.counts[command] = self.counts.get(command, 0) + 1
            what = self.rule(command, self.counts[command])
            if what != PASS:
                self.acted.append((command, self.counts[command]))
        return command, what

    def serve(self, client):
        server = socket.socket(socket.AF_UNIX)
        self.open |= {client, server}
        try:
            server.connect(self.target)
            requests, replies = Stream(client), Stream(server)
            while True:
                raw = requests.take()
                command, what = self.judge(raw)
                if what == CLOSE:
                    return
                if isinstance(what, bytes):
                    client.sendall(what)
                    continue
                if what != SILENCE:
                    server.sendall(raw)
                if command == "SUBSCRIBE" and what == PASS:
                    threading.Thread(target=self.relay, args=(server, client), daemon=True).start()
                    self.relay(client, server)
                    return
                if what == PASS:
                    client.sendall(replies.take())
                    continue
                if what == LOSE:  # it was carried out: wait for that, then the connection breaks
                    replies.take()
                    return
                while client.recv(65536):  # half open: the peer answers nothing any more
                    pass
                return
        except (OSError, Gone):
            return
        finally:
            self.open -= {client, server}
            client.close()
            server.close()

    @staticmethod
    def relay(source, target):
        with contextlib.suppress(OSError):
            while True:
                part = source.recv(65536)
                if not part:
                    break
                target.sendall(part)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def cut(self):
        """Every connection breaks; new ones are taken."""
        for s in list(self.open):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.listener.close()
        self.cut()
