"""The token that clients show, for HTTP and gRPC alike, and what protects a service without one from web pages."""

import hmac
import ipaddress
import logging
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from toolchain.base.files import MAX_SECRET_BYTES, open_file
from toolchain.errors import InputError
from toolchain.serve.protocol import Reason, RefusedError

log = logging.getLogger("toolchain")

# Characters of a token. 16 random letters and digits cannot be guessed over a network.
MIN_TOKEN_LENGTH = 16


def read_token(path: Path) -> str:
    """Return the token in a file.

    Raises:
        InputError: the file cannot be read, or its content is not a token.
    """
    try:
        with open_file(path) as file:
            token = file.read(MAX_SECRET_BYTES).decode("ascii").strip()
            found = os.fstat(file.fileno())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}. Give a file that contains the token.") from error
    except UnicodeDecodeError:
        raise InputError(f"{path}: the token is not ASCII. Use letters, digits and punctuation.") from None
    if len(token) < MIN_TOKEN_LENGTH or not all("!" <= character <= "~" for character in token):
        raise InputError(
            f"{path}: the token is not one word of at least {MIN_TOKEN_LENGTH} letters, digits and punctuation marks. "
            "Make one: openssl rand -hex 32."
        )
    if found.st_mode & stat.S_IROTH and found.st_uid == os.getuid():  # a mounted secret has another owner
        log.warning("%s: every user of this machine can read the token. Run: chmod 600 %s", path, path)
    return token


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach `host`. A name other than localhost counts as reachable by others."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_authorized(headers: Mapping[bytes, bytes], token: str) -> bool:
    """Return whether a request's headers contain the token. The time it takes reveals nothing about the token."""
    scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
    return hmac.compare_digest(given.strip(), token.encode()) and scheme.lower() == b"bearer"


def check_origin(headers: Mapping[bytes, bytes], *, changes: bool, public: bool) -> None:
    """Refuse a request that a page of another web site sent from a browser on this machine.

    A page can send requests to 127.0.0.1, and it can read the responses if its own name leads there (DNS rebinding).
    Such a name is one of the public DNS, which has a dot. A service that is `public` may have such a name of its own.
    A request that `changes` nothing is harmless if its response cannot be read.

    A browser that does not say whether the site is another one (Sec-Fetch-Site) still names the site in Origin. A
    service that is `public` does not compare that with Host, which a proxy in front may have replaced.

    Raises:
        RefusedError: the browser says that another site sent the request, or Host is a name of the public DNS.
    """
    host, origin = _name(headers.get(b"host", b"")), headers.get(b"origin", b"")
    is_other = origin != b"" and _name(origin) != host  # file://, which has no name, is another site too
    site = headers.get(b"sec-fetch-site", b"cross-site" if is_other and not public else b"")
    if changes and site == b"cross-site":
        raise RefusedError(Reason.FORBIDDEN, "a page of another web site sent this request")
    if not public and _is_public(host):
        raise RefusedError(
            Reason.FORBIDDEN,
            "this service has no token and answers only under a name of this machine, such as localhost. "
            "Start it with --token-file to use another name.",
        )


def _name(header: bytes) -> str:
    """Return the name or the address in a header Host or Origin, without a scheme and a port."""
    host = header.decode("ascii", "replace").rpartition("://")[2]
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return name.strip("[]").rstrip(".").lower()


def _is_public(name: str) -> bool:
    """Return whether a name has a dot, is not an address, and is not below localhost."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return "." in name and not name.endswith(".localhost")
    return False
