"""An S3 server on loopback for tests: moto's, one request at a time, with throttling and cut connections.

moto checks the condition of a conditional write and then writes; between two threads that would be a race
that S3 does not have. So requests are taken one after another.

    python -m tests.s3_server --port 0 --bucket results --errors 0.05 --seed 1
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_EC2_METADATA_DISABLED": "true",
}
SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code>'
    b"<Message>Reduce your request rate</Message></Error>"
)


class Faulty:
    """moto's server behind a lock; a share of the requests is throttled or cut off."""

    def __init__(self, errors: str, seed: int) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        self._app: Callable[..., Iterable[bytes]] = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        self._errors = errors
        self._random = random.Random(seed)

    def _share(self) -> float:
        """The share of requests that fail now: a number, or what a file says."""
        with contextlib.suppress(ValueError):
            return float(self._errors)
        with contextlib.suppress(OSError, ValueError):
            return float(Path(self._errors).read_text())
        return 0.0

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request of WSGI."""
        with self._lock:
            fault = (
                self._random.choice(("throttled", "cut", "lost"))
                if self._random.random() < self._share()
                else ""
            )
            if fault == "throttled":
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                start_response("503 Slow Down", [("Content-Type", "application/xml")])
                return [SLOW_DOWN]
            if fault == "cut":
                raise ConnectionAbortedError("cut before it counted")
            body = list(self._app(environ, start_response))
            if fault == "lost":
                raise ConnectionAbortedError("cut after it counted")
            return body


def main() -> None:
    """Serve until killed; the port is the first line of standard output."""
    from werkzeug.serving import WSGIRequestHandler, make_server

    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--errors", default="0", help="share of requests that fail, or a file that holds it")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    class Handler(WSGIRequestHandler):
        """Quiet; an exception closes the connection without an answer."""

        protocol_version = "HTTP/1.1"

        def log(self, type: str, message: str, *args: Any) -> None:
            """Say nothing."""

        def run_wsgi(self) -> None:
            """Answer, or cut the connection."""
            try:
                super().run_wsgi()
            except ConnectionError:
                self.close_connection = True

        def connection_dropped(self, error: BaseException, environ: Any = None) -> None:
            """Cut the connection."""
            self.close_connection = True

    server = make_server(
        "127.0.0.1",
        arguments.port,
        Faulty(arguments.errors, arguments.seed),
        threaded=True,
        request_handler=Handler,
    )
    print(server.port, flush=True)
    server.serve_forever()


@contextlib.contextmanager
def s3_server(bucket: str = "results", *, errors: float | Path = 0.0, seed: int = 0) -> Iterator[str]:
    """Start a server in a process of its own; the URI of a bucket on it, as `pyarrow.fs` takes it.

    `errors` is the share of requests that fail, or a file that holds it and may change. Credentials for the
    server are set in this process's environment while it runs.
    """
    from pyarrow import fs

    command = [sys.executable, "-m", "tests.s3_server", "--errors", str(errors), "--seed", str(seed)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    before = {name: os.environ.get(name) for name in CREDENTIALS}
    os.environ.update(CREDENTIALS)
    try:
        assert process.stdout is not None
        endpoint = f"127.0.0.1:{int(process.stdout.readline())}"
        query = f"endpoint_override={endpoint}&scheme=http&region=us-east-1"
        files = fs.S3FileSystem(
            endpoint_override=endpoint, scheme="http", region="us-east-1", allow_bucket_creation=True
        )
        files.create_dir(bucket)
        yield f"s3://{bucket}/store?{query}"
    finally:
        process.kill()
        process.wait()
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


if __name__ == "__main__":
    main()
