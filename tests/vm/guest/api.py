"""svd's Varlink interface by one connection: where starting svctl each time would take too long."""

import json
import os
import socket


class Refused(Exception):
    """svd's answer is an error."""


class Svd:
    def __init__(self):
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.connect("/run/svctl/svd.sock")

    def ask(self, method, **parameters):
        """The parameters of the answer, and the descriptors that came with it."""
        self.connection.sendall(json.dumps({"method": f"io.svctl.{method}", "parameters": parameters}).encode() + b"\0")
        text, files = b"", []
        while not text.endswith(b"\0"):
            part, some, _, _ = socket.recv_fds(self.connection, 65536, 8)
            assert part, "svd has closed the connection"
            text += part
            files += some
        answer = json.loads(text[:-1])
        if "error" in answer:
            raise Refused(str(answer))
        return answer["parameters"], files

    def call(self, method, **parameters):
        return self.ask(method, **parameters)[0]

    def dump(self, pool):
        _, files = self.ask("Dump", pool=pool)
        with open(files[0], encoding="utf-8") as f:
            f.seek(0)
            return f.read()
