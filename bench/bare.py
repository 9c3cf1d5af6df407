"""Writing to as many sockets as there are, and nothing else: what fan-out is compared with.

A GET is answered with the head of a stream and kept; the body of a POST is written to all who are kept, in a loop.
"""

import os
import select
import signal
import socket
import sys

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nd\r\nretry: 1000\n\n\r\n"
)
DONE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def serve() -> None:
    """Until told to end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    kept: dict[int, socket.socket] = {}
    told: list[int] = []
    print(listener.getsockname()[1], flush=True)
    while True:
        for place, _ in poll.poll():
            if place == listener.fileno():
                connection, _ = listener.accept()
                kept[connection.fileno()] = connection
                poll.register(connection, select.EPOLLIN)
                continue
            request = os.read(place, 64 << 10)
            if not request:
                if place in told:
                    told.remove(place)
                kept.pop(place).close()
            elif request.startswith(b"GET "):
                os.write(place, HEAD)
                told.append(place)
            else:
                frame = _body(kept[place], request)
                for reader in told:
                    os.write(reader, frame)
                os.write(place, DONE)


def _body(connection: socket.socket, request: bytes) -> bytes:
    head, _, body = request.partition(b"\r\n\r\n")
    start = head.index(b"Content-Length: ") + 16
    size = int(head[start:].partition(b"\r\n")[0])
    while len(body) < size:
        body += connection.recv(size - len(body))
    return body
