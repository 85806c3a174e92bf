"""Object storage beyond what `pyarrow.fs` offers: writes that succeed only if nobody else has written since.

Several processes agree through such writes on who trains a trial, who merges a study's files, and which
manifest counts. S3 does them with the headers ``If-None-Match`` and ``If-Match``, Google Cloud Storage with
generations, Azure with ETags; the package `obstore` speaks all three. The same addresses are understood as
by `pyarrow.fs`: ``s3://bucket/folder?region=eu-west-1&endpoint_override=host:9000&scheme=http``,
``gs://bucket/folder``, ``abfs://container@account.dfs.core.windows.net/folder``.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

CONNECT_S, REQUEST_S, RETRY_S = 5, 20, 40
"""Time allowed for a connection, for one request, and for all tries of a request that is throttled or cut."""
MOST_RETRIES = 12


class ObjectStoreError(OSError):
    """Object storage did not do what it was asked, or cannot do it."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """An object as it was read.

    Attributes:
        name: Its name below the store's root.
        content: Its bytes; empty where only its name was asked for.
        version: What the storage calls this state of it. A write can be made to depend on that.
        modified: When it was last written, by the clock of the storage.
    """

    name: str
    content: bytes
    version: str
    modified: datetime


class Objects:
    """The objects below one address.

    Args:
        address: A URI as `pyarrow.fs.FileSystem.from_uri` understands it.

    Raises:
        ObjectStoreError: The kind of storage has no conditional writes, or the address is wrong.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        with _errors(address):
            self._store = _connect(address)

    def read(self, name: str) -> Stored | None:
        """Return an object with its content and version; None if there is none of this name.

        Raises:
            ObjectStoreError: The storage cannot be read.
        """
        import obstore
        from obstore.exceptions import NotFoundError

        with _errors(self.address):
            try:
                found = obstore.get(self._store, name)
                return Stored(
                    name=name,
                    content=bytes(found.bytes()),
                    version=_version(found.meta),
                    modified=found.meta["last_modified"],
                )
            except (NotFoundError, FileNotFoundError):
                return None

    def write(self, name: str, content: bytes, *, expected: str | None) -> str | None:
        """Write an object if it is as expected, in one step that no other process can come between.

        A request may succeed although its answer is lost. So where the storage says that the object is
        another than expected, and it holds exactly this content, the write counts as done. Contents of
        different writers must differ for this, as they do where each carries the writer's name.

        Args:
            name: Its name below the root.
            content: What it shall hold.
            expected: The version that it must have now, as `read` gave it; None if it must not exist.

        Returns:
            The new version, or None if the object was another than expected: nothing was written then.

        Raises:
            ObjectStoreError: The storage cannot be written.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError, NotFoundError, PreconditionError

        mode: Any = "create" if expected is None else _update(expected)
        with _errors(self.address):
            try:
                return _version(obstore.put(self._store, name, content, mode=mode, use_multipart=False))
            except (AlreadyExistsError, PreconditionError, NotFoundError, FileExistsError, FileNotFoundError):
                found = self.read(name)
                return found.version if found is not None and found.content == content else None

    def put(self, name: str, content: bytes) -> None:
        """Write an object whatever was there; it appears whole or not at all.

        Raises:
            ObjectStoreError: The storage cannot be written.
        """
        import obstore

        with _errors(self.address):
            obstore.put(self._store, name, content)

    def list(self, folder: str) -> list[Stored]:
        """Return the objects of a folder without their content.

        Raises:
            ObjectStoreError: The storage cannot be read.
        """
        import obstore

        with _errors(self.address):
            return [
                Stored(name=meta["path"], content=b"", version=_version(meta), modified=meta["last_modified"])
                for chunk in obstore.list(self._store, folder, chunk_size=1000)
                for meta in chunk
            ]

    def remove(self, name: str) -> None:
        """Remove an object, if it is there, whatever it holds.

        Raises:
            ObjectStoreError: The storage cannot be written.
        """
        import obstore
        from obstore.exceptions import NotFoundError

        with _errors(self.address):
            try:
                obstore.delete(self._store, name)
            except (NotFoundError, FileNotFoundError):
                return

    def now(self, folder: str) -> datetime:
        """Return the time by the clock of the storage: that of an object which is written to `folder` and
        removed.

        Raises:
            ObjectStoreError: The storage cannot be written.
        """
        name = f"{folder}/.now-{uuid.uuid4().hex}"
        self.write(name, b"now", expected=None)
        try:
            found = self.read(name)
        finally:
            self.remove(name)
        if found is None:
            raise ObjectStoreError(f"{self.address}: an object that was just written cannot be read")
        return found.modified

    def check(self) -> None:
        """Make sure that this storage honours conditional writes; some servers ignore the condition.

        Raises:
            ObjectStoreError: It does not, or it cannot be written.
        """
        name = f".condition-{uuid.uuid4().hex}"
        first = self.write(name, b"one", expected=None)
        try:
            again = self.write(name, b"two", expected=None)
            second = self.write(name, b"three", expected=first)
            stale = self.write(name, b"four", expected=first)
        finally:
            self.remove(name)
        if first is None or second is None or again is not None or stale is not None:
            raise ObjectStoreError(
                f"{self.address}: this storage ignores the condition of a conditional write (If-None-Match, "
                "If-Match), so two runs could train the same trial; use storage that honours it, or a folder"
            )


@lru_cache(maxsize=16)
def objects_at(address: str) -> Objects:
    """Return the objects below an address. A process connects once.

    Raises:
        ObjectStoreError: As `Objects` says.
    """
    return Objects(address)


def _connect(address: str) -> Any:
    parts = urlsplit(address)
    options = dict(parse_qsl(parts.query))
    kinds: dict[str, Callable[..., Any]] = {
        "s3": _s3, "gs": _gcs, "gcs": _gcs, "abfs": _azure, "abfss": _azure
    }  # fmt: skip
    if parts.scheme not in kinds:
        raise ObjectStoreError(
            f"{address}: storage of the kind {parts.scheme!r} has no conditional writes here, without which "
            "two runs could train the same trial; use a folder that all machines share, or s3, gs or abfs"
        )
    how = {
        "client_options": {
            "allow_http": options.get("scheme") == "http",
            "connect_timeout": timedelta(seconds=CONNECT_S),
            "timeout": timedelta(seconds=REQUEST_S),
        },
        "retry_config": {"max_retries": MOST_RETRIES, "retry_timeout": timedelta(seconds=RETRY_S)},
    }
    return kinds[parts.scheme](parts, options, how)


def _s3(parts: Any, options: dict[str, str], how: dict[str, Any]) -> Any:
    from obstore.store import S3Store

    bucket = parts.hostname or ""
    config: dict[str, Any] = {"bucket": bucket}
    if override := options.get("endpoint_override") or os.environ.get("AWS_ENDPOINT_URL"):
        config["endpoint"] = (
            override if "://" in override else f"{options.get('scheme', 'https')}://{override}"
        )
        how["client_options"]["allow_http"] = config["endpoint"].startswith("http://")
    if parts.username:
        config["access_key_id"] = unquote(parts.username)
        config["secret_access_key"] = unquote(parts.password or "")
    elif "AWS_ACCESS_KEY_ID" not in os.environ and _has_aws_profile():
        how["credential_provider"] = _aws_profile()
    region = options.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region is None and "endpoint" not in config:
        from pyarrow import fs

        region = fs.resolve_s3_region(bucket)
    config["region"] = region or "us-east-1"
    store: Callable[..., Any] = S3Store
    return store(prefix=_prefix(parts.path), config=config, **how)


def _has_aws_profile() -> bool:
    named = os.environ.get("AWS_SHARED_CREDENTIALS_FILE")
    return (Path(named) if named else Path.home() / ".aws" / "credentials").is_file()


def _aws_profile() -> Any:
    """The credentials of the user's profile, which `pyarrow` reads by itself."""
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        raise ObjectStoreError(
            "the credentials in ~/.aws/credentials are read through boto3, which is not installed; "
            "pip install boto3, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from None
    return Boto3CredentialProvider()


def _gcs(parts: Any, options: dict[str, str], how: dict[str, Any]) -> Any:
    from obstore.store import GCSStore

    config: dict[str, Any] = {"bucket": parts.hostname or ""}
    if override := options.get("endpoint_override"):
        config["base_url"] = f"{options.get('scheme', 'https')}://{override}"
    if parts.username == "anonymous":
        config["skip_signature"] = True
    store: Callable[..., Any] = GCSStore
    return store(prefix=_prefix(parts.path), config=config, **how)


def _azure(parts: Any, options: dict[str, str], how: dict[str, Any]) -> Any:
    from obstore.store import AzureStore

    account = (parts.hostname or "").partition(".")[0]
    container, path = unquote(parts.username or ""), parts.path
    if not container:  # abfs://account.dfs.core.windows.net/container/folder
        container, _, path = path.lstrip("/").partition("/")
    config: dict[str, Any] = {"account_name": account, "container_name": container}
    if parts.password:
        config["account_key"] = unquote(parts.password)
    store: Callable[..., Any] = AzureStore
    return store(prefix=_prefix(path), config=config, **how)


def _prefix(path: str) -> str | None:
    return unquote(path).strip("/") or None


def _version(meta: Any) -> str:
    """ETag and version as one word; Google Cloud Storage needs the version, the others the ETag."""
    return f"{meta.get('e_tag') or ''}\n{meta.get('version') or ''}"


def _update(version: str) -> dict[str, str]:
    e_tag, _, number = version.partition("\n")
    return {name: value for name, value in (("e_tag", e_tag), ("version", number)) if value}


@contextmanager
def _errors(address: str) -> Iterator[None]:
    """Turn what `obstore` raises into an `ObjectStoreError` of one line."""
    from obstore.exceptions import BaseError

    try:
        yield
    except ObjectStoreError:
        raise
    except (BaseError, OSError, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ObjectStoreError(f"{address}: {(lines or [type(error).__name__])[0][:300]}") from None
