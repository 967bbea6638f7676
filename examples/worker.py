"""A worker in another language: proteus run -n 4 --listen 127.0.0.1:8080 -- python3 examples/worker.py

It knows two conventions and nothing of the master: the listening socket is descriptor 3 (LISTEN_FDS),
and SIGTERM means: stop accepting, finish the request in hand, exit.
"""

import http.server
import os
import signal
import socket
import threading


class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"hello from pid {os.getpid()}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(http.server.HTTPServer):
    def __init__(self, listener):
        super().__init__(None, Hello, bind_and_activate=False)
        self.socket = listener


def notify(message):
    """sd_notify: tells the master that this worker serves."""
    name = os.environ.get("NOTIFY_SOCKET")
    if name:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(message, "\0" + name[1:] if name.startswith("@") else name)


server = Server(socket.socket(fileno=3))
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
notify(b"READY=1")
# The socket is shared: another worker may take the connection that woke this one.
server.socket.setblocking(False)
server.serve_forever()
