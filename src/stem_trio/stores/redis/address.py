"""Where a Redis server is, and how to get in: read from a URL, kept so that secrets cannot leak."""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING, Any, Final, final
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

import attrs

from ..._validate import integer
from ...errors import ConfigurationError, InvalidOptionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redis.credentials import CredentialProvider

__all__ = ["RedisAddress", "Tls", "parse_address", "redact"]

_SCHEMES: Final = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")
_SENTINEL_PORT: Final = 26379
_PORT: Final = 6379

_USED: Final = frozenset({"host", "port", "path", "username", "password", "db", "client_name", "protocol"})
_CLIENT_NAME: Final = re.compile(r"[!-~]+")
_FALSE: Final = ("0", "F", "FALSE", "N", "NO")
_TLS_OPTIONS: Final = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname", "ssl_cert_reqs"})


def redact(url: str) -> str:
    """A URL without its user and password, and without its query, for messages."""
    if "://" not in url:
        return "the URL"  # without a scheme, what stands where is anybody's guess
    try:
        parts = urlsplit(url)
    except ValueError:
        return "the URL"
    hosts = parts.netloc.rpartition("@")[2]
    if _ends_early(url) or not all(_has_good_port(host) for host in hosts.split(",")):
        return f"{parts.scheme}://..."
    return f"{parts.scheme}://{hosts}{parts.path}"


def _ends_early(url: str) -> bool:
    """Whether a ``/``, ``?`` or ``#`` in the password ends what should hold user, password and host.

    What is then taken for host and port is the beginning of a secret, and must not be shown as such.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    if ":" not in parts.netloc or "@" in parts.netloc:
        return False
    options = (option.partition("=")[0] for option in parts.query.split("&"))
    return any("@" in text for text in (parts.path, parts.fragment, *options))


def _has_good_port(host: str) -> bool:
    _, colon, port = host.rpartition("]")[2].partition(":")
    return not colon or (port.isascii() and port.isdigit())


@final
@attrs.frozen(kw_only=True)
class Tls:
    """How to talk TLS.

    Attributes:
        ca_certs: file of the certificate authorities to trust; None for the system's.
        certfile: file of the client's certificate.
        keyfile: file of its key.
        verify: whether the server's certificate is checked.
        check_hostname: whether it must name the host.
    """

    ca_certs: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    verify: bool = True
    check_hostname: bool = True

    def context(self) -> ssl.SSLContext:
        """The context for a connection.

        Raises:
            ConfigurationError: a file cannot be read, or its content cannot be used.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca_certs)
            context.check_hostname = self.check_hostname and self.verify
            if not self.verify:
                context.verify_mode = ssl.CERT_NONE
            if self.certfile is not None:
                context.load_cert_chain(self.certfile, self.keyfile)
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(str(name) for name in (self.ca_certs, self.certfile, self.keyfile) if name)
            raise ConfigurationError(f"TLS for Redis cannot be set up with {files}: {error}") from error
        return context


@final
@attrs.frozen(kw_only=True)
class RedisAddress:
    """Where a server is, and how to get in.

    Attributes:
        host: its name or address.
        port: its port.
        path: of a unix socket, in place of host and port.
        db: number of the database.
        username: ACL user.
        password: its password.
        credentials: asks for user and password at each connection, in their place.
        client_name: what the server shows the connection as.
        tls: how to talk TLS; None for no TLS.
        sentinels: hosts and ports to ask for the master, in place of host and port.
        service: name of the master that sentinels know.
        sentinel_username: ACL user at the sentinels.
        sentinel_password: its password.
    """

    host: str = "localhost"
    port: int = _PORT
    path: str | None = None
    db: int = 0
    username: str | None = None
    password: str | None = attrs.field(default=None, repr=False)
    credentials: CredentialProvider | None = attrs.field(default=None, repr=False)
    client_name: str | None = None
    tls: Tls | None = None
    sentinels: tuple[tuple[str, int], ...] = ()
    service: str | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = attrs.field(default=None, repr=False)

    @property
    def label(self) -> str:
        """What messages call it."""
        if self.sentinels:
            return f"master {self.service!r} of " + ", ".join(f"{host}:{port}" for host, port in self.sentinels)
        return self.path if self.path is not None else f"{self.host}:{self.port}"


def parse_address(
    url: str,
    *,
    db: int | None = None,
    credentials: CredentialProvider | None = None,
    tls: Tls | None = None,
    client_name: str | None = None,
) -> RedisAddress:
    """Read a URL: ``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://`` or ``rediss+sentinel://``.

    Sentinels are written ``redis+sentinel://user:password@host1:26379,host2/service/0``, with
    ``sentinel_username`` and ``sentinel_password`` in the query.

    Args:
        url: the URL, as redis-py reads it.
        db: number of the database, over the URL's.
        credentials: asks for user and password, over the URL's.
        tls: TLS, over the URL's options of that name.
        client_name: over the URL's.

    Raises:
        ConfigurationError: the URL cannot be read, or has an option that has no effect here. Never shows a secret.
    """
    scheme = url.partition("://")[0]
    if "://" not in url or scheme not in _SCHEMES:
        raise ConfigurationError(f"{redact(url)}: its scheme is not one of Redis; use {', '.join(_SCHEMES)}")
    if _ends_early(url):
        raise ConfigurationError(
            f"{scheme}://...: there is an @ after the end of the host; in user and password write %2F for /, %3F for "
            "?, %23 for # and %40 for @"
        )
    address = _parse_sentinel(url) if scheme.endswith("+sentinel") else _parse_plain(url)
    changes: dict[str, Any] = {
        name: value
        for name, value in (("db", db), ("credentials", credentials), ("tls", tls), ("client_name", client_name))
        if value is not None
    }
    if db is not None:
        integer("db", db)
    if tls is not None and address.path is not None:
        raise InvalidOptionError("tls", tls, "has no effect on a unix socket; leave it out")
    address = attrs.evolve(address, **changes)
    if address.client_name is not None and not _CLIENT_NAME.fullmatch(address.client_name):
        raise InvalidOptionError("client_name", address.client_name, "must be printable ASCII without blanks")
    return address


def _parse_plain(url: str) -> RedisAddress:
    try:
        parts = _read_plain(url)
    except ValueError as error:
        # Its message can hold the URL, hence the password.
        raise ConfigurationError(f"{redact(url)}: not a Redis URL ({type(error).__name__})") from None
    _refuse_unknown(url, parts)
    if parts.get("protocol", 3) != 3:
        raise ConfigurationError(f"{redact(url)}: protocol must be 3, or left out")
    return RedisAddress(
        host=parts.get("host", "localhost"),
        port=parts.get("port", _PORT),
        path=parts.get("path") if url.startswith("unix://") else None,
        db=parts.get("db", 0),
        username=parts.get("username"),
        password=parts.get("password"),
        client_name=parts.get("client_name"),
        tls=_tls(url, parts) if url.startswith("rediss://") else None,
    )


def _read_plain(url: str) -> dict[str, Any]:
    """Everything that a URL says, by name: its query, and over that what stands before the query.

    Raises:
        ConfigurationError: the database is no number.
        ValueError: something else cannot be read.
    """
    parts = urlsplit(url)
    found: dict[str, Any] = {name: values[0] for name, values in parse_qs(parts.query).items()}
    for name in found.keys() & {"db", "port", "protocol"}:
        found[name] = int(found[name])
    if "ssl_check_hostname" in found:
        found["ssl_check_hostname"] = found["ssl_check_hostname"].upper() not in _FALSE
    if parts.username:
        found["username"] = unquote(parts.username)
    if parts.password:
        found["password"] = unquote(parts.password)
    if parts.scheme == "unix":
        if parts.path:
            found["path"] = unquote(parts.path)
        return found
    if parts.hostname:
        found["host"] = unquote(parts.hostname)
    if parts.port:
        found["port"] = parts.port
    if database := parts.path.strip("/"):
        if not database.isdecimal():
            raise ConfigurationError(f"{redact(url)}: what follows the host is the number of a database")
        found.setdefault("db", int(database))
    return found


def _refuse_unknown(url: str, parts: Mapping[str, Any]) -> None:
    allowed = _USED | (_TLS_OPTIONS if url.startswith("rediss") else frozenset())
    if unknown := sorted(parts.keys() - allowed):
        raise ConfigurationError(f"{redact(url)}: the option {unknown[0]!r} has no effect here; leave it out")


def _tls(url: str, parts: Mapping[str, Any]) -> Tls:
    requirement = str(parts.get("ssl_cert_reqs", "required")).lower()
    if requirement not in ("required", "none"):
        raise ConfigurationError(f"{redact(url)}: ssl_cert_reqs must be 'required' or 'none'")
    check = parts.get("ssl_check_hostname", True)
    return Tls(
        ca_certs=parts.get("ssl_ca_certs"),
        certfile=parts.get("ssl_certfile"),
        keyfile=parts.get("ssl_keyfile"),
        verify=requirement == "required",
        check_hostname=check if isinstance(check, bool) else str(check).lower() in ("1", "true", "yes"),
    )


def _parse_sentinel(url: str) -> RedisAddress:
    try:
        parts = urlsplit(url)
        login, _, hosts = parts.netloc.rpartition("@")
        username, _, password = login.partition(":")
        sentinels = tuple(_host_and_port(entry) for entry in hosts.split(",") if entry)
        path = [unquote(part) for part in parts.path.split("/") if part]
        query = dict(parse_qsl(parts.query))
        db = int(path[1]) if len(path) > 1 else 0
    except ValueError:
        raise ConfigurationError(f"{redact(url)}: not a Redis Sentinel URL") from None
    if not sentinels or not path or len(path) > 2:
        raise ConfigurationError(f"{redact(url)}: write redis+sentinel://host1:port,host2:port/service/db")
    sentinel_username = query.pop("sentinel_username", None)
    sentinel_password = query.pop("sentinel_password", None)
    _refuse_unknown(url, query)
    return RedisAddress(
        db=db,
        username=unquote(username) or None,
        password=unquote(password) or None,
        client_name=query.get("client_name"),
        tls=_tls(url, query) if url.startswith("rediss") else None,
        sentinels=sentinels,
        service=path[0],
        sentinel_username=sentinel_username,
        sentinel_password=sentinel_password,
    )


def _host_and_port(entry: str) -> tuple[str, int]:
    # An IPv6 address stands in brackets, as in any URL.
    parts = urlsplit(f"//{entry}")
    if not parts.hostname:
        raise ValueError("no host")
    return parts.hostname, parts.port or _SENTINEL_PORT
