"""WebSocket frames, written and read by RFC 6455 section 5.2 alone."""

from __future__ import annotations

import struct

from lab import Lab, Wire

FIN, TEXT, BINARY, CLOSE, PING, PONG = 0x80, 1, 2, 8, 9, 10

MASK = b"\x37\xfa\x21\x3d"

ASK = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


def frame(first: int, payload: bytes = b"", mask: bytes = MASK) -> bytes:
    """A client's frame; an empty mask leaves it unmasked, against the rules."""
    bit = 0x80 if mask else 0
    if len(payload) < 126:
        length = struct.pack(">B", bit | len(payload))
    elif len(payload) < 65536:
        length = struct.pack(">BH", bit | 126, len(payload))
    else:
        length = struct.pack(">BQ", bit | 127, len(payload))
    if mask:
        key = mask * (len(payload) // 4 + 1)
        payload = bytes(a ^ b for a, b in zip(payload, key, strict=False))
    return bytes([first]) + length + mask + payload


def close(code: int, reason: str = "") -> bytes:
    """A client's close."""
    return frame(FIN | CLOSE, struct.pack(">H", code) + reason.encode())


class Peer:
    """A client of a WebSocket that an application of a lab has been asked for."""

    def __init__(
        self, lab: Lab, name: str, headers: str = "", more: bytes = b"", target: str = "/"
    ) -> None:
        """Connect, and shake hands; `more` goes out with the request."""
        self.wire: Wire = lab.connect()
        self.wire.send(lab.request(name, target=target, headers=ASK + headers) + more)
        self.head = self.wire.head()
        assert self.head.status == 101, self.head
        assert self.head["Sec-WebSocket-Accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

    def __enter__(self) -> Peer:
        """Return the client."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Drop the connection."""
        self.wire.socket.close()

    def send(self, message: str | bytes) -> None:
        """Send a message."""
        text = isinstance(message, str)
        payload = message.encode() if text else message
        self.wire.send(frame(FIN | (TEXT if text else BINARY), payload))

    def frame(self) -> tuple[int, bytes]:
        """The next frame: its first byte, and its payload."""
        first, second = self.wire.exactly(2)
        assert second < 0x80, "a server does not mask"
        length = second
        if second == 126:
            (length,) = struct.unpack(">H", self.wire.exactly(2))
        elif second == 127:
            (length,) = struct.unpack(">Q", self.wire.exactly(8))
        return first, self.wire.exactly(length)

    def receive(self) -> str | bytes:
        """The next message."""
        first, payload = self.frame()
        assert first in (FIN | TEXT, FIN | BINARY), (first, payload)
        return payload.decode() if first == FIN | TEXT else payload

    def expect_close(self, code: int, answer: bool = True) -> str:
        """A close with this code, and the end of the connection once it is answered; the reason."""
        first, payload = self.frame()
        assert (first, struct.unpack(">H", payload[:2])) == (FIN | CLOSE, (code,)), payload
        if answer:
            self.wire.send(close(code))
        assert self.wire.closed()
        return payload[2:].decode()
