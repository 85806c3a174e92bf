"""Does a Ray cluster answer, and does it ask for a token? Asked before Ray is, within seconds and quietly.

Ray itself would try for half a minute and print pages. And the two sides must agree on the token: a process
that shows one to a cluster that asks for none cannot start actors there, the other way round nothing at all.
"""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from study.ray_internals import read_token_mode_again

TIMEOUT_S = 5.0
MODE = "RAY_AUTH_MODE"
CHECK_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"


class ClusterError(Exception):
    """Ray cannot be reached or started, or is too small for a trial."""

    exit_code = 4


def token() -> str | None:
    """Return Ray's token of this user: RAY_AUTH_TOKEN, or the file RAY_AUTH_TOKEN_PATH, or
    ``~/.ray/auth_token``.

    Raises:
        ClusterError: The file cannot be read.
    """
    if value := os.environ.get("RAY_AUTH_TOKEN"):
        return value
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named).expanduser() if named else Path.home() / ".ray" / "auth_token"
    try:
        return path.read_text().strip() or None
    except FileNotFoundError:
        if not named:
            return None
        raise ClusterError(f"RAY_AUTH_TOKEN_PATH names {named!r}, which is not there") from None
    except OSError as error:
        raise ClusterError(f"the token of Ray in {path} cannot be read ({error.strerror})") from None


def check_cluster(address: str) -> None:
    """Make sure that a Ray cluster answers at `address`, and agree with it on the token.

    Args:
        address: ``host:port`` of its control service; ``auto`` and ``local`` are left to Ray.

    Raises:
        ClusterError: No cluster answers within seconds, or it does not accept the token.
    """
    if address in ("auto", "local"):
        return
    if "://" in address:
        raise ClusterError(
            f"address {address!r} is not supported: trials are started from a machine of the cluster; "
            "log in to its head node and pass --address auto, or use `revstudy submit`"
        )
    host, colon, port = address.rpartition(":")
    if not host or not colon or not port.isdigit():
        raise ClusterError(f"address {address!r} is not host:port, such as 10.0.0.1:6379, nor auto")
    if int(port) > 65535:
        raise _no_answer(address, "a port is at most 65535")
    wanted = _asks_for_token(address, _ask_control_service(address))
    agree(address, wanted=wanted, accepted=lambda shown: _ask_control_service(address, shown) == "OK")


def agree(address: str, *, wanted: bool, accepted: Callable[[str], bool]) -> None:
    """Set RAY_AUTH_MODE to what the cluster wants; `accepted` tells whether it takes a token.

    Raises:
        ClusterError: It wants a token and there is none, or it refuses this one, or the user insists on the
            other mode.
    """
    mode = os.environ.get(MODE, "").lower()
    if not wanted:
        if mode == "token":
            raise ClusterError(
                f"the cluster at {address!r} asks for no token, and {MODE}=token is set: start the cluster "
                f"with {MODE}=token and the same token on every node, or unset {MODE}"
            )
        _warn(
            f"the cluster at {address} asks for no token, so whoever reaches it can run code on "
            f"it; `ray get-auth-token --generate`, then start it with {MODE}=token"
        )
        return
    shown = token()
    if shown is None or mode == "disabled":
        why = f"{MODE}=disabled is set" if mode == "disabled" else "there is none here"
        raise ClusterError(
            f"the cluster at {address!r} asks for a token, and {why}: put the cluster's token into "
            "~/.ray/auth_token, or name its file in RAY_AUTH_TOKEN_PATH"
        )
    if not accepted(shown):
        raise ClusterError(
            f"the cluster at {address!r} refuses this user's token: put the cluster's token "
            "(`ray get-auth-token` on its head node) into ~/.ray/auth_token, or name its file in "
            "RAY_AUTH_TOKEN_PATH"
        )
    if mode != "token":
        os.environ[MODE] = "token"
        read_token_mode_again()


def _warn(text: str) -> None:
    """Tell the user at once: the commands that reach a cluster may then be silent for a while."""
    print(f"revstudy: {text}", file=sys.stderr, flush=True)


def ask_http(url: str, shown: str | None = None, timeout_s: float = TIMEOUT_S) -> int:
    """Return the HTTP status with which a dashboard answers: 200, or 401 or 403 if it wants another token.

    Raises:
        ClusterError: Nobody answers; the message says why.
    """
    headers = {"Authorization": f"Bearer {shown}"} if shown else {}
    try:
        request = urllib.request.Request(f"{url}/api/version", headers=headers)
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            if b"ray_version" not in answer.read(10_000):
                raise _no_dashboard(url, "something else answers")
            return int(answer.status)
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return error.code
        raise _no_dashboard(url, f"HTTP status {error.code}") from None
    except Exception as error:  # http.client, socket, ssl, bad addresses: each means the same here
        reason = getattr(error, "reason", error)
        raise _no_dashboard(url, str(reason) or type(error).__name__) from None


def _no_dashboard(url: str, reason: str) -> ClusterError:
    return ClusterError(
        f"no dashboard of a Ray cluster answers at {url!r} ({reason}): check that the cluster runs, and "
        "forward its port 8265 to this machine if need be (`ray dashboard`, `kubectl port-forward`)"
    )


def _asks_for_token(address: str, status: str) -> bool:
    if status == "OK":
        return False
    if status == "UNAUTHENTICATED":
        return True
    reason = {"UNAVAILABLE": "nobody listens, or not Ray", "DEADLINE_EXCEEDED": "no answer in time"}
    raise _no_answer(address, reason.get(status, status))


def _ask_control_service(address: str, shown: str | None = None) -> str:
    """The gRPC status with which Ray's control service answers a call that changes nothing."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    import grpc

    metadata = [("authorization", f"Bearer {shown}")] if shown else []
    # A proxy of the environment is meant for the web.
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(CHECK_ALIVE)(b"", timeout=TIMEOUT_S, metadata=metadata)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"


def _no_answer(address: str, reason: str) -> ClusterError:
    return ClusterError(
        f"no Ray cluster answers at {address!r} ({reason}): "
        "check that `ray start --head` runs there, or leave --address out to run on this machine"
    )
