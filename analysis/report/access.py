"""Who may ask the server: this machine's browser, at this machine's own pages, with the token.

Every user of a machine can reach its loopback address. So the address that the server prints carries a secret
token, as Jupyter's does; from the first visit on the browser sends it as a cookie. A program sends it in the
address, or as ``Authorization: Bearer TOKEN``.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

HOST = "127.0.0.1"
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def new_token() -> str:
    """A secret of 192 bits that can stand in an address."""
    return secrets.token_urlsafe(24)


@web.middleware
async def this_machine_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Lets in what names this machine as its host, and comes from no page of another origin."""
    name = request.host.rpartition(":")[0] or request.host
    if name not in (HOST, "localhost"):
        return _refused(403, "This server answers to 127.0.0.1 and localhost alone.")
    origin = request.headers.get("Origin")
    if origin is not None and origin != f"http://{request.host}":
        return _refused(403, "This server answers its own pages alone.")
    return await handler(request)


def token_only(token: str) -> Middleware:
    """Lets in who knows the token, by its address, a cookie, or the header ``Authorization``."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        # Cookies are shared by all ports of an address: the name tells two servers apart.
        cookie = f"revstudy-{request.host.rpartition(':')[2]}"
        if _same(token, request.query.get("token")):
            answer = await handler(request)
            answer.set_cookie(cookie, token, httponly=True, samesite="Strict", path="/")
            return answer
        scheme, _, sent = request.headers.get("Authorization", "").partition(" ")
        if _same(token, request.cookies.get(cookie)) or (scheme.lower() == "bearer" and _same(token, sent)):
            return await handler(request)
        return _refused(
            401,
            "This page needs the token of its server: open the address that `revstudy serve` printed "
            f"(http://{HOST}:…/?token=…), or send the token as `Authorization: Bearer TOKEN`.",
        )

    return check


def _same(token: str, sent: str | None) -> bool:
    """Whether the token was sent, in a time that tells nothing of how much of it was right."""
    return sent is not None and hmac.compare_digest(token.encode(), sent.strip().encode(errors="replace"))


def _refused(status: int, text: str) -> web.Response:
    return web.json_response({"error": text}, status=status, headers=HEADERS)
