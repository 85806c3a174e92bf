"""A server of a store in a process of its own, as the command line starts it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


class Server:
    """``revstudy serve`` of a store, on a free port."""

    def __init__(self, store: Path):
        self.store = store
        command = [sys.executable, "-m", "study.cli", "serve", "--store", str(store), "--port", "0", "--json"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.told = json.loads("".join(iter(self._process.stdout.readline, "}\n")) + "}")

    @property
    def url(self) -> str:
        """The address of the report, with the token."""
        return self.told["url"]

    @property
    def console(self) -> str:
        """The address of the console."""
        return self.told["console"]

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(timeout=30)
