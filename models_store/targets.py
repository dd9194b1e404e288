"""Which URLs the service calls on somebody's behalf: none that reaches into the network it stands in."""

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from models_store.errors import TargetRefused

MAX_URL_CHARACTERS = 2000
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # global by itself, and an IPv4 address behind it

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Rules:
    """What the operator allows beyond https to public addresses."""

    http: bool = False
    private_networks: bool = False


@dataclass(frozen=True)
class Target:
    """A URL taken apart; `path` has the query with it."""

    secure: bool
    host: str
    port: int
    path: str


def parse(url: str, rules: Rules) -> Target:
    """Take a URL apart. Raises TargetRefused, also for a numeric host that is not public."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise TargetRefused(f"not a URL: {error}") from error
    if parts.scheme not in ("https", "http") or not parts.hostname or len(url) > MAX_URL_CHARACTERS:
        raise TargetRefused("not a URL such as https://example.org/hook")
    if parts.scheme == "http" and not rules.http:
        raise TargetRefused("only https:// is called from here")
    if parts.username is not None or parts.password is not None:
        raise TargetRefused("user and password in the URL are not sent")
    if any(not 0x21 <= ord(character) <= 0x7E for character in url):
        raise TargetRefused("a URL consists of visible ASCII characters")
    secure = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    target = Target(secure, parts.hostname, port or (443 if secure else 80), path)
    try:
        numeric = socket.getaddrinfo(target.host, target.port, flags=socket.AI_NUMERICHOST, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return target  # a name: looked up when it is called
    _check([str(entry[4][0]) for entry in numeric], rules)
    return target


def resolve(target: Target, rules: Rules) -> str:
    """The address to connect to: looked up once, and refused unless every address of the name is public.

    Raises TargetRefused, and OSError where the name is unknown.
    """
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise TargetRefused(f"{target.host} is no host name") from error
    addresses = [str(entry[4][0]) for entry in found]
    _check(addresses, rules)
    return addresses[0]


def _check(addresses: list[str], rules: Rules) -> None:
    for text in addresses:
        address = ipaddress.ip_address(text.partition("%")[0])
        if not rules.private_networks and not _public(address):
            raise TargetRefused("its address is not a public one")


def _public(address: Address) -> bool:
    inner = _embedded(address)
    if inner is not None:
        return _public(inner)
    return address.is_global and not address.is_multicast


def _embedded(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour
