"""server.py PORT TLS_PORT CERTIFICATE KEY - an HTTP/1.1 service that behaves as it is asked to and remembers who asked.

/t/TEST/BEHAVIOUR takes any method and records the request under TEST; GET /log/TEST gives what was recorded, as JSON.

  ok, landed                       200
  garbage                          200, random bytes under a wrong content type
  status/CODE                      CODE
  redirect                         302 to /t/TEST/landed
  drip                             200 and a long body, one byte every 200 ms
  fail/CODE/TIMES                  CODE for the first TIMES requests of TEST, then 200
  retry-after/CODE/TIMES/SECONDS   the same, with a Retry-After
  poison/TEXT                      400 when the body contains TEXT, else 200
  poison-with/CODE/TEXT            CODE when it does; with 0, nothing until the client leaves
  once                             200 for a connection's first request; at its second it is closed without an answer
  reset                            the connection is reset without an answer
  hang                             nothing, until the client leaves
  slow/MS                          200 after MS milliseconds
  kept                             200, once it has written the request to `kept.jsonl` in its folder; a request whose
                                   Idempotency-Key stands there already is not written again. While there is a file
                                   `answer` in the folder, the status in it and nothing is written.
"""

import base64
import json
import os
import socket
import ssl
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

DRIP_BYTES = 1_000_000
DRIP_PAUSE = 0.2

KEPT = "kept.jsonl"
ANSWER = "answer"

lock = threading.Lock()
logs = {}
kept = set()


class Service(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        """A client that leaves is nothing to report."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are written one after the other: without this the second waits for the client's acknowledgement.
    disable_nagle_algorithm = True
    # An exchange lives as long as its connection.
    used = False

    def __getattr__(self, name):
        """Every method is served alike."""
        if name.startswith("do_"):
            return self.serve
        raise AttributeError(name)

    def log_message(self, *_):
        pass

    def serve(self):
        body = self.read_body()
        words = [unquote(word) for word in urlsplit(self.path).path.split("/")[1:]]
        if words[0] == "log" and len(words) == 2:
            with lock:
                text = json.dumps(logs.get(words[1], []))
            return self.answer(200, text.encode(), "application/json")
        if words[0] != "t" or len(words) < 3:
            return self.answer(404, b"only /t/TEST/BEHAVIOUR and /log/TEST are served here")
        entry = self.record(words[1], body)
        try:
            answered = self.behave(words[1], words[2], words[3:], entry["order"], body)
        except (OSError, ssl.SSLError):
            answered, self.close_connection = False, True
        if answered:
            with lock:
                entry["answered"] = time.monotonic()

    def record(self, test, body):
        with lock:
            log = logs.setdefault(test, [])
            entry = {
                "order": len(log),
                "method": self.command,
                "path": self.path,
                "headers": [[name.lower(), value] for name, value in self.headers.items()],
                "body": base64.b64encode(body).decode(),
                "client_port": self.client_address[1],
                "tls": isinstance(self.connection, ssl.SSLSocket),
                "arrived": time.monotonic(),
                "answered": None,
            }
            log.append(entry)
        return entry

    def behave(self, test, behaviour, words, order, body):
        """Answers as asked; says whether a whole answer went out."""
        match behaviour, words:
            case ("ok" | "landed"), []:
                return self.answer(200)
            case "garbage", []:
                return self.answer(200, os.urandom(512), "image/png")
            case "status", [code]:
                return self.answer(int(code))
            case "kept", []:
                return self.keep(body)
            case "redirect", []:
                return self.answer(302, headers=[("Location", f"/t/{test}/landed")])
            case "drip", []:
                return self.drip()
            case "fail", [code, times]:
                return self.answer(int(code) if order < int(times) else 200)
            case "retry-after", [code, times, seconds]:
                if order >= int(times):
                    return self.answer(200)
                return self.answer(int(code), headers=[("Retry-After", seconds)])
            case "poison", [text]:
                return self.answer(400 if text.encode() in body else 200)
            case "poison-with", ["0", text] if text.encode() in body:
                return self.hang()
            case "poison-with", [code, text]:
                return self.answer(int(code) if text.encode() in body else 200)
            case "once", []:
                if self.used:
                    self.close_connection = True
                    return False
                self.used = True
                return self.answer(200)
            case "reset", []:
                return self.reset()
            case "hang", []:
                return self.hang()
            case "slow", [milliseconds]:
                time.sleep(int(milliseconds) / 1000)
                return self.answer(200)
        return self.answer(501, b"there is no such behaviour")

    def answer(self, code, body=b'{"ok":true}', kind="application/json", headers=()):
        bare = code in (204, 304) or code < 200
        self.send_response(code)
        for name, value in headers:
            self.send_header(name, value)
        if not bare:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not bare and self.command != "HEAD":
            self.wfile.write(body)
        return True

    def keep(self, body):
        key = self.headers.get("Idempotency-Key")
        with lock:
            if os.path.exists(ANSWER):
                with open(ANSWER) as file:
                    return self.answer(int(file.read()))
            if key is None or key not in kept:
                with open(KEPT, "a") as file:
                    file.write(json.dumps({"key": key, "body": json.loads(body)}) + "\n")
                kept.add(key)
        return self.answer(200)

    def hang(self):
        while self.connection.recv(1024):
            pass
        self.close_connection = True
        return False

    def drip(self):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(DRIP_BYTES))
        self.end_headers()
        for _ in range(DRIP_BYTES):
            self.wfile.write(b" ")
            time.sleep(DRIP_PAUSE)
        return True

    def reset(self):
        # Lingering for no time turns the close into a reset.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        # The reader shares the socket, which is closed when both are.
        self.rfile.close()
        self.connection.close()
        return False

    def read_body(self):
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while length := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(length)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body


def main():
    port, tls_port, certificate, key = sys.argv[1:]
    if os.path.exists(KEPT):
        with open(KEPT) as file:
            kept.update(json.loads(line)["key"] for line in file)
    secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    secure.load_cert_chain(certificate, key)
    secure.set_alpn_protocols(["http/1.1"])
    tls = Service(("127.0.0.1", int(tls_port)), Exchange)
    # The handshake is left to the connection's own thread: here it would keep others from being accepted.
    tls.socket = secure.wrap_socket(tls.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=tls.serve_forever, daemon=True).start()
    Service(("127.0.0.1", int(port)), Exchange).serve_forever()


main()
