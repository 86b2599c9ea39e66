"""Configuration by environment variables: one table of them, and what is read from it.

Whatever is set has an effect or is refused; nothing is replaced by a default because it could not be read. All problems
are reported together, without showing what may be secret.
"""

from __future__ import annotations

import logging
import os
import warnings
from typing import TYPE_CHECKING, Any, Final, final
from urllib.parse import parse_qsl, quote

import attrs

from ._variables import VARIABLES
from .errors import ConfigurationError, InvalidEnvironmentError
from .signing import PayloadSigner, SigningConfig
from .stores.adapters import scheme_of
from .worker.worker import DEFAULT_CONCURRENCY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .keys import SigningKey

__all__ = ["StemConfig", "TlsConfig", "UnknownVariableWarning"]

_PREFIX: Final = "STEM_"
_TLS_SCHEMES: Final = ("rediss", "rediss+sentinel")

_BY_NAME: Final = {variable.name: variable for variable in VARIABLES}
_SIGNING_KEYS: Final = ("STEM_SIGNING_KEYS", "STEM_SIGNING_PRIVATE_KEYS", "STEM_SIGNING_PUBLIC_KEYS")

_logger = logging.getLogger(__name__)


@final
class UnknownVariableWarning(UserWarning):
    """A variable is set whose name begins with ``STEM_``, and that nothing reads."""


@final
@attrs.frozen(kw_only=True)
class TlsConfig:
    """How to talk TLS with stores whose URL asks for it.

    Attributes:
        ca_cert: file of the certificate authorities to trust; None for the system's.
        client_cert: file of the client's certificate.
        client_key: file of its key.
        allow_insecure: whether any certificate of the server will do.
    """

    ca_cert: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    allow_insecure: bool = False

    def applied_to(self, url: str) -> str:
        """A store's URL with these settings as options in its query; unchanged when the URL is not one of TLS.

        Raises:
            ConfigurationError: the URL says something else about one of them.
        """
        if scheme_of(url) not in _TLS_SCHEMES:
            return url
        base, _, fragment = url.partition("#")
        query = base.partition("?")[2]
        there = dict(parse_qsl(query, keep_blank_values=True))
        wanted = {
            "ssl_ca_certs": self.ca_cert,
            "ssl_certfile": self.client_cert,
            "ssl_keyfile": self.client_key,
            "ssl_cert_reqs": "none" if self.allow_insecure else None,
        }
        added: list[str] = []
        for name, value in wanted.items():
            if value is not None and there.get(name, value) != value:
                raise ConfigurationError(f"{scheme_of(url)}://...: its {name} is another; say it in one place")
            if value is not None and name not in there:
                added.append(f"{name}={quote(value, safe='/')}")
        if not added:
            return url
        joined = base + ("&" if query else "" if base.endswith("?") else "?") + "&".join(added)
        return f"{joined}#{fragment}" if fragment else joined


def _hidden(url: str | None) -> str:
    return "None" if url is None else f"'{scheme_of(url)}://...'"


@final
@attrs.frozen(kw_only=True)
class StemConfig:
    """What a program is told from outside. None stands for what `StemClient`, `StemApp` and `Worker` do by themselves.

    Attributes:
        broker_url: where tasks go, with what `tls` says in it. May hold a password.
        backend_url: where statuses are, likewise; None for the broker's URL.
        signing: what to make a `PayloadSigner` of, see `PayloadSigner.maybe`.
        tls: how to talk TLS; already part of the URLs.
        queues: what a worker claims from.
        concurrency: how many handlers a worker runs at once.
        prefetch: deliveries that a worker may hold beyond those that run.
        heartbeat_interval: seconds between a worker's signs of life.
        store_timeout: seconds that one call to a store may take.

    Raises:
        ConfigurationError: a URL is none, or says something else of TLS than `tls`.
    """

    broker_url: str = attrs.field(repr=_hidden)
    backend_url: str | None = attrs.field(default=None, repr=_hidden)
    signing: SigningConfig | None = None
    tls: TlsConfig | None = None
    queues: tuple[str, ...] | None = None
    concurrency: int | None = None
    prefetch: int | None = None
    heartbeat_interval: float | None = None
    store_timeout: float | None = None

    def __attrs_post_init__(self) -> None:
        # Checked even without TLS, so that a repr cannot fail.
        tls = self.tls if self.tls is not None else TlsConfig()
        object.__setattr__(self, "broker_url", tls.applied_to(self.broker_url))
        if self.backend_url is not None:
            object.__setattr__(self, "backend_url", tls.applied_to(self.backend_url))

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> StemConfig:
        """Read the variables that are documented. Blanks around a value do not count; an empty one is a problem.

        Args:
            environ: where to read from. Default `os.environ`.

        Raises:
            InvalidEnvironmentError: something is missing or wrong. It lists everything, and shows no secret.

        Warns:
            UnknownVariableWarning: a name begins with ``STEM_`` and is none of the table.
        """
        source = os.environ if environ is None else environ
        for name in sorted(source):
            if name.startswith(_PREFIX) and name not in _BY_NAME:
                import difflib  # noqa: PLC0415 - for this message alone

                near = difflib.get_close_matches(name, _BY_NAME, n=1)
                guess = f"; did you mean {near[0]}?" if near else ""
                warnings.warn(f"{name} is set, and nothing reads it{guess}", UnknownVariableWarning, stacklevel=2)
        reader = _Reader(source)
        config = reader.config()
        if config is None:
            raise InvalidEnvironmentError(reader.problems)
        if config.tls is not None and config.tls.allow_insecure:
            _logger.warning("STEM_TLS_ALLOW_INSECURE is set: whoever answers at a store's address is trusted")
        return config

    def client_options(self) -> dict[str, Any]:
        """What a `StemClient` or `Stem` takes of it, as keyword arguments, less what is not set.

        Raises:
            ConfigurationError: a signer cannot be made of `signing`.
        """
        options = {"store_timeout": self.store_timeout, "signer": PayloadSigner.maybe(self.signing)}
        return {name: value for name, value in options.items() if value is not None}

    def worker_options(self) -> dict[str, Any]:
        """What a `StemApp` or `Worker` takes of it, as keyword arguments, less what is not set.

        Raises:
            ConfigurationError: a signer cannot be made of `signing`.
        """
        options = {
            "queues": self.queues,
            "concurrency": self.concurrency,
            "prefetch": self.prefetch,
            "heartbeat_interval": self.heartbeat_interval,
        }
        return {name: value for name, value in options.items() if value is not None} | self.client_options()


@final
class _Reader:
    """Reads one environment, and collects what is wrong with it.

    Attributes:
        problems: what is wrong, by the order of the table, and then what does not fit together.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.problems: list[str] = []
        self._values: dict[str, Any] = {}
        self._bad: set[str] = set()
        for variable in VARIABLES:
            if variable.name not in environ:
                continue
            text = environ[variable.name].strip()
            if variable.instead is not None:
                self._problem(variable.name, f"has no effect here: {variable.instead}; unset it")
            elif variable.read is None:
                continue
            elif not text:
                self._problem(variable.name, "is empty; give it a value, or unset it")
            else:
                try:
                    self._values[variable.name] = variable.read(text)
                except ValueError as error:
                    shown = "" if variable.secret else f"{text!r:.100}: "
                    self._problem(variable.name, f"{shown}{error}")

    def _problem(self, name: str, problem: str) -> None:
        self._bad.add(name)
        self.problems.append(f"{name}: {problem}")

    def _get(self, name: str) -> Any:
        return self._values.get(name)

    def config(self) -> StemConfig | None:
        """What was read; None when there are problems."""
        if "STEM_BROKER_URL" not in self._values and "STEM_BROKER_URL" not in self._bad:
            self._problem("STEM_BROKER_URL", "is not set; give the URL of the broker, as redis://localhost:6379/0")
        signing = self._signing()
        tls = self._tls()
        if self.problems:
            return None
        concurrency = self._get("STEM_WORKER_CONCURRENCY")
        multiplier = self._get("STEM_PREFETCH_MULTIPLIER")
        return StemConfig(
            broker_url=self._get("STEM_BROKER_URL"),
            backend_url=self._get("STEM_RESULT_BACKEND_URL"),
            signing=signing,
            tls=tls,
            queues=self._get("STEM_WORKER_QUEUES"),
            concurrency=concurrency,
            prefetch=None if multiplier is None else (multiplier - 1) * (concurrency or DEFAULT_CONCURRENCY),
            heartbeat_interval=self._get("STEM_HEARTBEAT_INTERVAL"),
            store_timeout=self._get("STEM_STORE_TIMEOUT"),
        )

    # --- what has to fit together ---------------------------------------------------------------------------------

    def _signing(self) -> SigningConfig | None:
        keys = self._keys()
        if any(name in self._bad for name in _SIGNING_KEYS):
            return None  # what the other variables are to fit is not known
        if not keys:
            # Not merely unsigned: somebody wanted signatures, and would not get them.
            for name in self._values:
                if name.startswith("STEM_SIGNING_"):
                    self._problem(name, f"has no effect without keys; set one of {', '.join(_SIGNING_KEYS)}")
            return None
        required = self._get("STEM_SIGNING_REQUIRED")
        return SigningConfig(
            keys=tuple(keys.values()),
            active=self._active(keys),
            required=True if required is None else required,
            max_age=self._get("STEM_SIGNING_MAX_AGE"),
        )

    def _keys(self) -> dict[str, SigningKey]:
        keys: dict[str, SigningKey] = {}
        for name in _SIGNING_KEYS:
            for number, key in enumerate(self._get(name) or (), 1):
                other = keys.setdefault(key.id, key)
                # A private key stands for its public one, which may be listed too.
                if other is not key and (key.can_sign or other.public != key.public):
                    self._problem(name, f"entry {number}: has the id of another key; give each an id of its own")
        return keys

    def _active(self, keys: Mapping[str, SigningKey]) -> str | None:
        wanted, algorithm = self._get("STEM_SIGNING_ACTIVE_KEY"), self._get("STEM_SIGNING_ALGORITHM")
        if {"STEM_SIGNING_ACTIVE_KEY", "STEM_SIGNING_ALGORITHM"} & self._bad:
            return None
        if wanted is not None:
            key = keys.get(wanted)
            if key is None:
                self._problem(
                    "STEM_SIGNING_ACTIVE_KEY", "is the id of none of the keys; name one of " + ", ".join(keys)
                )
            elif not key.can_sign:
                self._problem("STEM_SIGNING_ACTIVE_KEY", "names a public key, which cannot sign; give its private key")
            elif algorithm not in (None, key.algorithm):
                self._problem("STEM_SIGNING_ALGORITHM", f"the active key is for {key.algorithm}; name that, or another")
            return str(wanted)
        signing = [key for key in keys.values() if key.can_sign]
        fitting = [key for key in signing if algorithm in (None, key.algorithm)]
        if algorithm is not None and not fitting and (signing or all(k.algorithm != algorithm for k in keys.values())):
            self._problem("STEM_SIGNING_ALGORITHM", f"none of the keys can sign by {algorithm}; add one, or unset it")
        if len(fitting) > 1:
            names = ", ".join(key.id for key in fitting)
            self._problem("STEM_SIGNING_ACTIVE_KEY", f"is not set, and several keys can sign; name one of {names}")
        return fitting[0].id if fitting else None

    def _tls(self) -> TlsConfig | None:
        tls = TlsConfig(
            ca_cert=self._get("STEM_TLS_CA_CERT"),
            client_cert=self._get("STEM_TLS_CLIENT_CERT"),
            client_key=self._get("STEM_TLS_CLIENT_KEY"),
            allow_insecure=self._get("STEM_TLS_ALLOW_INSECURE") or False,
        )
        pair = ("STEM_TLS_CLIENT_CERT", "STEM_TLS_CLIENT_KEY")
        for name, other in (pair, pair[::-1]):
            if name in self._values and other not in self._values and other not in self._bad:
                self._problem(name, f"has no effect without {other}; set that too")
        if tls.allow_insecure and tls.ca_cert is not None:
            self._problem("STEM_TLS_CA_CERT", "has no effect with STEM_TLS_ALLOW_INSECURE; unset one of them")
        if tls == TlsConfig():
            return None
        urls = {name: self._get(name) for name in ("STEM_BROKER_URL", "STEM_RESULT_BACKEND_URL")}
        known = {name: url for name, url in urls.items() if url is not None}
        if known and not self._bad & urls.keys() and all(scheme_of(url) not in _TLS_SCHEMES for url in known.values()):
            used = next(name for name in self._values if name.startswith("STEM_TLS_"))
            self._problem(used, "no URL asks for TLS; write rediss:// for redis://, or unset the STEM_TLS_ variables")
        for name, url in known.items():
            try:
                tls.applied_to(url)
            except ConfigurationError as error:
                self._problem(name, str(error))
        return tls
