"""Where alerts arrive: an HTTP and an SMTP server in threads of the test, with TLS by a CA of the test's own."""
import asyncio
import contextlib
import email
import email.policy
import http.server
import json
import logging
import pathlib
import ssl
import subprocess
import threading
import warnings

from aiosmtpd.smtp import SMTP, AuthResult

for name in "mail.log", "asyncio":  # what clients do here on purpose is no news
    logging.getLogger(name).setLevel(logging.CRITICAL + 1)
warnings.filterwarnings("ignore", module="aiosmtpd")


class CA:
    """ca.pem vouches for server.pem, whose names are localhost and 127.0.0.1."""

    def __init__(self, folder):
        self.dir = pathlib.Path(folder)
        self.dir.mkdir()
        self.file = self.dir / "ca.pem"
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        self.openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test CA")
        self.openssl("req", *key[:-2], "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
        (self.dir / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        self.openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                     "-days", "2", "-extfile", "names", "-out", "server.pem")

    def openssl(self, *words):
        subprocess.run(["openssl", *words], cwd=self.dir, check=True, capture_output=True)

    def context(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.dir / "server.pem", self.dir / "server.key")
        return context


class Webhook:
    """mode: ok, slow (no answer until it changes), cut, garbage, redirect (to /elsewhere), or a status."""

    def __init__(self, ca=None):
        sink = self
        self.mode, self.requests, self.released, self.tries = "ok", [], threading.Event(), 0

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                sink.tries += 1
                sink.answer(self, body)

            def do_GET(self):
                sink.requests.append({"path": self.path, "json": None})
                self.send_error(404)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *args: None
        if ca:
            self.server.socket = ca.context().wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.url = f"{'https' if ca else 'http'}://127.0.0.1:{self.port}/hook/with-a-token"
        threading.Thread(target=self.server.serve_forever, daemon=True, kwargs={"poll_interval": 0.02}).start()

    def answer(self, handler, body):
        mode = self.mode
        if mode == "slow":
            self.released.wait()
            handler.close_connection = True
        elif mode == "cut":
            handler.close_connection = True
        elif mode == "garbage":
            handler.wfile.write(b"\x00\x01 what?\r\n\r\n")
            handler.close_connection = True
        elif mode == "redirect":
            handler.send_response(302)
            handler.send_header("Location", f"{self.url.rsplit('/', 2)[0]}/elsewhere")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
        else:
            if mode == "ok":
                self.requests.append({"path": handler.path, "headers": dict(handler.headers), "raw": body,
                                      "json": json.loads(body)})
            handler.send_response(200 if mode == "ok" else mode)
            handler.send_header("Content-Length", "0")
            handler.end_headers()

    def notices(self):
        return [r["json"] for r in list(self.requests) if r["json"]]

    def close(self):
        self.mode = "cut"
        self.released.set()
        self.server.shutdown()
        self.server.server_close()


class Mail:
    """An SMTP server that takes mail after a login only, over TLS: implicit, or by STARTTLS."""

    def __init__(self, ca=None, implicit=False, user="robot", password="mail secret"):
        self.mails, self.refuse, self.hold_quit, self.quits = [], None, False, 0
        self.user, self.password = user.encode(), password.encode()
        self.loop = asyncio.new_event_loop()
        self.go_on = asyncio.Event()
        context = ca.context() if ca else None

        def smtp():
            return SMTP(self, tls_context=None if implicit else context, require_starttls=bool(ca and not implicit),
                        authenticator=self.check, auth_required=bool(ca), auth_require_tls=not implicit,
                        loop=self.loop)

        def serve():
            asyncio.set_event_loop(self.loop)
            self.server = self.loop.run_until_complete(self.loop.create_server(
                smtp, "127.0.0.1", 0, ssl=context if implicit else None))
            ready.set()
            self.loop.run_forever()
        ready = threading.Event()
        self.thread = threading.Thread(target=serve, daemon=True)
        self.thread.start()
        ready.wait()
        port = self.server.sockets[0].getsockname()[1]
        self.url = f"{'smtps' if implicit else 'smtp'}://localhost:{port}"

    def check(self, server, session, envelope, mechanism, data):
        return AuthResult(success=(data.login, data.password) == (self.user, self.password), handled=False)

    async def handle_RCPT(self, server, session, envelope, address, options):
        if self.refuse:
            return self.refuse
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        parsed = email.message_from_bytes(envelope.content, policy=email.policy.default)
        self.mails.append({"from": envelope.mail_from, "to": envelope.rcpt_tos, "message": parsed,
                           "raw": envelope.content, "subject": parsed["Subject"], "text": parsed.get_content()})
        return "250 taken"

    async def handle_QUIT(self, server, session, envelope):
        self.quits += 1
        if self.hold_quit:
            await self.go_on.wait()
        return "221 bye"

    def close(self):
        async def end():
            self.go_on.set()
            self.server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            self.loop.stop()
        self.loop.call_soon_threadsafe(lambda: self.loop.create_task(end()))
        self.thread.join(5)


@contextlib.contextmanager
def sinks(c, **env):
    """Both, over TLS, and the settings of every later worker of the case that point to them."""
    ca = CA(c.dir / "ca")
    hook, mail = Webhook(ca), Mail(ca)
    c.settings |= {"DR_ALERT_WEBHOOK_URL": hook.url, "DR_ALERT_WEBHOOK_SECRET": "hook secret",
                   "DR_ALERT_ALLOW_PRIVATE": "true", "DR_ALERT_CA_FILE": ca.file, "DR_ALERT_SMTP_URL": mail.url,
                   "DR_ALERT_SMTP_USER": "robot", "DR_ALERT_SMTP_PASSWORD": "mail secret",
                   "DR_ALERT_MAIL_FROM": "dr@example.org", "DR_ALERT_MAIL_TO": "ops@example.org,night@example.org",
                   **env}
    try:
        yield hook, mail
    finally:
        hook.close()
        mail.close()
