"""The address of a chat server and the key for it."""

import ipaddress
import os
from urllib.parse import urlsplit, urlunsplit

from weight_edit.errors import UsageError
from weight_edit.redaction import KEY_VARIABLES, cleaned, remember, weakness

PATH = "/chat/completions"


def base_address(url: str) -> str:
    """The server's address without what every request adds; an address without a path gets `/v1`.

    Raises:
        UsageError: no address of a server, or one with a password or other settings in it.
    """
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"{_plain(url)} is no address of a server: {error}", option="endpoint") from None
    if parts.password or parts.username:
        for secret in filter(None, (parts.password, parts.username)):
            remember(secret)
        raise UsageError(
            f"the address of the server {host} has a name or a password in it; leave them out, and put the key into "
            f"the environment variable {KEY_VARIABLES[0]}",
            option="endpoint",
        )
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError(
            f"{_plain(url)} is no address of a server; write it as http://127.0.0.1:8000/v1", option="endpoint"
        )
    if parts.query or parts.fragment:
        raise UsageError(
            f"the address of the server {host} ends in settings (after ? or #), which are not sent; leave them out",
            option="endpoint",
        )
    path = parts.path.rstrip("/").removesuffix(PATH).rstrip("/") or "/v1"
    named = f"[{host}]" if ":" in host else host
    return urlunsplit((parts.scheme, named if port is None else f"{named}:{port}", path, "", ""))


def is_local(address: str) -> bool:
    """Whether an address is this machine's own."""
    host = urlsplit(address).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def key_for(address: str) -> str | None:
    """The key from the environment; None where there is none that may be sent to the address.

    `WEIGHT_EDIT_API_KEY` was set for this tool and goes wherever the user sends it. `OPENAI_API_KEY` was set for
    another service, and goes to no other machine unencrypted.

    Raises:
        UsageError: it has a character that none can have; the message has no part of it.
    """
    name = next((name for name in KEY_VARIABLES if cleaned(os.environ.get(name, ""))), None)
    if name is None or (name != KEY_VARIABLES[0] and not (address.startswith("https:") or is_local(address))):
        return None
    key = cleaned(os.environ[name])
    wrong = weakness(key)
    if wrong is not None:
        raise UsageError(f"the key in the environment variable {name} cannot be sent: {wrong}; copy it again, whole")
    remember(key)
    return key


def key_advice(address: str) -> str:
    """What to do about a key that a server asks for."""
    if key_for(address) is not None:
        return "see whether it is this server's and still valid"
    if any(cleaned(os.environ.get(name, "")) for name in KEY_VARIABLES):
        return f"OPENAI_API_KEY is not sent unencrypted to another machine; set {KEY_VARIABLES[0]} to send a key there"
    return f"put one into the environment variable {KEY_VARIABLES[0]} (or OPENAI_API_KEY)"


def _plain(url: str) -> str:
    """An address that may be shown: what stands before an @ may be a password."""
    return repr(url.rpartition("@")[2][:100])
