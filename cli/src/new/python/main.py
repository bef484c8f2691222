"""The function `{{name}}`: counts. Each key has a count of its own.

It follows the HTTP profile: the runtime sends each invocation as a JSON POST, with the states of the key, and the answer
is either a result with what to write, or a rejection. Everything an answer says happens in one transaction with the rest
of the flow, or not at all.
"""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def add(invocation):
    """Adds to the count; the count never goes below zero."""
    by = (invocation["payload"] or {}).get("by", 1)
    count = (invocation["states"].get("count") or 0) + by
    if count < 0:
        return {"reject": {"reason": "below-zero", "detail": f"{invocation['key']}: {count}"}}
    return {"result": count, "writes": {"count": count}}


def get(invocation):
    """The count now."""
    return {"result": invocation["states"].get("count") or 0}


HANDLERS = {"add": add, "get": get}


class Worker(BaseHTTPRequestHandler):
    """One POST, one step of an invocation."""

    protocol_version = "HTTP/1.1"  # keeps the connection open between steps
    wbufsize = -1  # headers and body leave together; apart, the second would wait 40 ms for an acknowledgement
    disable_nagle_algorithm = True

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        try:
            invocation = json.loads(body)
            status, answer = 200, HANDLERS[invocation["handler"]](invocation)
        except Exception as error:  # a mistake in this code: the flow fails, and says why
            status, answer = 500, {"error": repr(error)}
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        """The runtime keeps the outcomes; a line for each request would only be noise."""


if __name__ == "__main__":
    # Where the runtime expects this worker.
    host, port = os.environ.get("TANDEM_WORKER_ADDRESS", "127.0.0.1:9000").rsplit(":", 1)
    ThreadingHTTPServer((host, int(port)), Worker).serve_forever()
