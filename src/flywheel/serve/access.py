"""Who may ask: bearer tokens with a scope each, and without tokens whoever sits at this very machine."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal

from flywheel.errors import ConfigError
from flywheel.serve.refusals import Refusal

Scope = Literal["rank", "ingest", "open"]
SHORTEST = 16
VARIABLES = {"rank": "FLYWHEEL_RANK_TOKEN", "ingest": "FLYWHEEL_INGEST_TOKEN"}
HERE = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, repr=False)
class Tokens:
    """The token of each scope; "" where there is none. Once there is one, a scope without is closed.

    Raises:
        ConfigError: a token is short, or holds what a header cannot.
    """

    rank: str = ""
    ingest: str = ""

    def __post_init__(self) -> None:
        for scope, name in VARIABLES.items():
            token = getattr(self, scope)
            if token and not (len(token) >= SHORTEST and token.isascii() and token.isprintable() and " " not in token):
                why = f"a token is at least {SHORTEST} printable ASCII characters without a space"
                raise ConfigError(f"{name} is no token", why=why, next='export it as "$(openssl rand -hex 32)"')

    def __bool__(self) -> bool:
        return bool(self.rank or self.ingest)


def check_binding(host: str, tokens: Tokens) -> None:
    """Refuse to answer other machines without knowing whom.

    Raises:
        ConfigError: `host` is not this machine's own, and there are no tokens.
    """
    if not (tokens or is_loopback(host)):
        names = " and ".join(VARIABLES.values())
        raise ConfigError(f"{host} is open to other machines", why="there are no tokens", next=f"export {names}")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself.

    >>> is_loopback("localhost"), is_loopback("::1"), is_loopback("0.0.0.0"), is_loopback("example.org")
    (True, True, False, False)
    """
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class Access:
    """Checks each request's headers against the tokens there are."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = {scope: getattr(tokens, scope).encode() for scope in VARIABLES}
        self._open = not tokens

    def check(self, headers: Mapping[bytes, bytes], scope: Scope) -> None:
        """Let whoever asks through.

        Without tokens only the machine's own names are answered to, so that no page in a browser can pose as it.

        Raises:
            Refusal: 401 without a token that is known, 403 with one that is for something else, or a foreign host.
        """
        if self._open:
            host = headers.get(b"host", b"").decode("latin-1")
            if host.rpartition(":")[0] not in HERE and host not in HERE:
                why = "without tokens only localhost is answered to"
                raise Refusal(403, f"host {host[:80]!r} is not known here", why=why, where="host")
        elif scope != "open":
            self._check_token(headers.get(b"authorization", b""), scope)

    def _check_token(self, given: bytes, scope: Scope) -> None:
        kind, _, token = given.partition(b" ")
        known = [name for name, own in self._tokens.items() if own and hmac.compare_digest(own, token)]
        if kind.lower() != b"bearer" or not known:
            fix = f"send authorization: Bearer <the {scope} token>"
            raise Refusal(401, "no token that is known", next=fix, headers={"www-authenticate": "Bearer"})
        if scope not in known:
            raise Refusal(403, f"this token is for {known[0]}, not for {scope}", where="authorization")
