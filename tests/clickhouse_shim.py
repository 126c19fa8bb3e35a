"""Today's ClickHouse, the engine of chdb, behind as much of ClickHouse's HTTP interface as an output needs.

    python clickhouse_shim.py PORT DIRECTORY

It imports nothing of ours, since chdb may be in an environment of its own. Settings in a request's arguments apply to
its statement. One statement runs at a time. It must be killed by SIGKILL: chdb crashes at SIGTERM.
"""

import gzip
import os
import re
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from chdb import session

NOT_SETTINGS = {"query", "database", "query_id", "default_format"}
ENGINE = session.Session(sys.argv[2])
LOCK = threading.Lock()


def decoded(body, encoding):
    """The body of a request."""
    if encoding == "gzip":
        return gzip.decompress(body)
    if encoding == "lz4":
        import lz4.frame

        return lz4.frame.decompress(body)
    if encoding == "zstd":
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj().decompress(body)
    return body


def insert(statement, settings, body):
    """INSERT ... FORMAT Native, whose rows are `body`."""
    start, format_ = re.fullmatch(r"(?s)(.+?)\s+FORMAT\s+(\w+)\s*", statement).groups()
    with tempfile.NamedTemporaryFile(suffix=".in") as file:
        file.write(body)
        file.flush()
        return ENGINE.query(f"{start} FROM INFILE '{file.name}' {settings} FORMAT {format_}", "TSV")


def done(arguments, body):
    """The answer to one request."""
    settings = ", ".join(f"{name} = '{value}'" for name, value in arguments.items() if name not in NOT_SETTINGS)
    settings = f"SETTINGS {settings}" if settings else ""
    statement = arguments.get("query", "")
    with LOCK:
        ENGINE.query(f"USE {arguments.get('database') or 'default'}")
        if statement.upper().startswith("INSERT") and body:
            found = insert(statement, settings, body)
        else:
            found = ENGINE.query(statement or body.decode(), "TSV")
    return found.bytes() if found is not None else b""


class Request(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        """Answer one statement."""
        arguments = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            answer, status, code = done(arguments, decoded(body, self.headers.get("Content-Encoding"))), 200, ""
        except Exception as error:
            code = re.search(r"Code: (\d+)", str(error))
            answer, status, code = str(error).encode(), 500, code[1] if code else "0"
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        if code:
            self.send_header("X-ClickHouse-Exception-Code", code)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        """Say nothing."""


if __name__ == "__main__":
    try:
        ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Request).serve_forever()
    finally:
        os._exit(0)
