"""Speaks to an engine child of roomscribe as the box does: see appliance/src/engine/protocol.rs."""

import json
import struct
import subprocess

RATE_HZ = 16_000


class Engine:
    """A child with its model loaded; `arguments` are those of `roomscribe engine`."""

    def __init__(self, roomscribe, *arguments):
        command = [roomscribe, "engine", *map(str, arguments)]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.number = 0
        _, hello, _ = self._read()
        assert hello == "ready", hello

    def _read(self):
        number, json_bytes, binary_bytes = struct.unpack("<3I", self.child.stdout.read(12))
        return number, json.loads(self.child.stdout.read(json_bytes)), self.child.stdout.read(binary_bytes)

    def ask(self, request, pcm):
        """The reply and its binary part; `pcm` is 16-bit samples at 16 kHz, as bytes."""
        self.number += 1
        asked = json.dumps(request).encode()
        self.child.stdin.write(struct.pack("<3I", self.number, len(asked), len(pcm)) + asked + pcm)
        self.child.stdin.flush()
        number, reply, binary = self._read()
        assert number == self.number and "failed" not in reply, "the engine failed"
        return reply, binary

    def close(self):
        self.child.stdin.close()
        self.child.wait()
