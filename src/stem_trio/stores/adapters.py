"""Adapters make the stores of certain URL schemes: the contract, and those of the stores that come with the package."""

from __future__ import annotations

import inspect
import string
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, final

import attrs

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..abc import Broker, ResultBackend

__all__ = ["StemMemoryAdapter", "StemRedisAdapter", "StemSqliteAdapter", "StemStoreAdapter", "scheme_of"]

S = TypeVar("S")

_SCHEME: Final = frozenset(string.ascii_letters + string.digits + "+-.")


def scheme_of(url: object) -> str:
    """The scheme of a URL, in lower case.

    Raises:
        ConfigurationError: it is no URL. The message shows nothing of it: without a scheme, any part may be a secret.
    """
    if not isinstance(url, str):
        raise ConfigurationError(f"the URL of a store must be text, not {type(url).__name__}")
    scheme, separator, _ = url.partition("://")
    if not separator or not scheme or not _SCHEME.issuperset(scheme):
        raise ConfigurationError("the URL of a store begins with a scheme: redis://localhost:6379/0, memory://")
    return scheme.lower()


class StemStoreAdapter:
    """Makes brokers and result backends from URLs of certain schemes. Subclass it to bring a store of your own.

    Set `schemes`, and override `broker`, `backend` or both; what is not overridden is refused. Making a store opens
    nothing: it connects when it is entered. An adapter's errors must show nothing that may be secret, neither of a URL
    nor of an option.

    It is passed as ``adapters=[...]``, or found through the entry point group ``stem_trio.adapters`` of any installed
    package, where an entry may be a class that takes no arguments, or an instance.

    Attributes:
        schemes: the schemes that it serves, in lower case, without ``://``.
    """

    schemes: frozenset[str] = frozenset()

    def broker(self, url: str, **options: Any) -> Broker:  # noqa: ARG002 - for those who override it
        """A broker, not entered yet.

        Args:
            url: a URL of one of the schemes.
            options: what the store takes beside its URL.

        Raises:
            ConfigurationError: there is no broker for this scheme, or URL or options cannot be used.
        """
        raise ConfigurationError(
            f"{scheme_of(url)}:// ({type(self).__qualname__}) has no broker; take one of another URL"
        )

    def backend(self, url: str, **options: Any) -> ResultBackend:  # noqa: ARG002 - for those who override it
        """A result backend, not entered yet.

        Args:
            url: a URL of one of the schemes.
            options: what the store takes beside its URL.

        Raises:
            ConfigurationError: there is no result backend for this scheme, or URL or options cannot be used.
        """
        raise ConfigurationError(
            f"{scheme_of(url)}:// ({type(self).__qualname__}) has no result backend; take one of another URL"
        )

    def pair(self, broker_url: str, backend_url: str, **options: Any) -> tuple[Broker, ResultBackend]:
        """A broker and a result backend that are used together, and may share what they stand on.

        The broker is entered before the backend and left after it: what both share can live in the broker.

        Args:
            broker_url: a URL of one of the schemes.
            backend_url: another one, or the same.
            options: for both. Where the two take different ones, override this to give each its own.

        Raises:
            ConfigurationError: as `broker` and `backend`.
        """
        return self.broker(broker_url, **options), self.backend(backend_url, **options)


@final
@attrs.frozen
class _Maker(Generic[S]):
    """How a store is made, and which options that takes."""

    make: Callable[..., S]
    takes: frozenset[str]


def _options_of(*functions: Callable[..., object]) -> frozenset[str]:
    """The keyword-only parameters of these, so that an option that a store gains is known here at once."""
    return frozenset(
        name
        for function in functions
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    )


class _OwnAdapter(StemStoreAdapter, ABC):
    """An adapter of a store of this package, which knows the options of its stores.

    Args:
        options: for each store that it makes; those of a single call go over them.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options

    @abstractmethod
    def _makers(self) -> tuple[_Maker[Broker], _Maker[ResultBackend]]:
        """How broker and backend are made."""

    def broker(self, url: str, **options: Any) -> Broker:
        """See `StemStoreAdapter.broker`."""
        maker = self._makers()[0]
        self._check(url, options, maker.takes)
        return maker.make(url, **self._choose(maker, options))

    def backend(self, url: str, **options: Any) -> ResultBackend:
        """See `StemStoreAdapter.backend`."""
        maker = self._makers()[1]
        self._check(url, options, maker.takes)
        return maker.make(url, **self._choose(maker, options))

    def pair(self, broker_url: str, backend_url: str, **options: Any) -> tuple[Broker, ResultBackend]:
        """See `StemStoreAdapter.pair`. Each store gets the options that it takes."""
        broker, backend = self._makers()
        self._check(broker_url, options, broker.takes | backend.takes)
        return (
            broker.make(broker_url, **self._choose(broker, options)),
            backend.make(backend_url, **self._choose(backend, options)),
        )

    def _check(self, url: str, options: Mapping[str, Any], takes: frozenset[str]) -> None:
        broker, backend = self._makers()
        known = broker.takes | backend.takes
        # Named without their values, which may be credentials.
        if unknown := sorted((options.keys() - takes) | (self._options.keys() - known)):
            there_are = ", ".join(sorted(takes))
            raise ConfigurationError(
                f"{scheme_of(url)}://: the option {unknown[0]!r} has no effect here; there are {there_are}"
            )

    def _choose(self, maker: _Maker[Any], options: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in {**self._options, **options}.items() if name in maker.takes}


@final
class StemMemoryAdapter(_OwnAdapter):
    """Makes stores in memory, of ``memory://``. Each call makes new ones; to share one, pass the store itself.

    Args:
        options: those of `InMemoryBroker` and `InMemoryResultBackend`.
    """

    schemes = frozenset({"memory"})

    def _makers(self) -> tuple[_Maker[Broker], _Maker[ResultBackend]]:
        from .memory import InMemoryBroker, InMemoryResultBackend  # noqa: PLC0415 - nor need it have these in memory

        return (
            _Maker(_in_memory(InMemoryBroker), _options_of(InMemoryBroker)),
            _Maker(_in_memory(InMemoryResultBackend), _options_of(InMemoryResultBackend)),
        )


def _in_memory(kind: Callable[..., S]) -> Callable[..., S]:
    def make(url: str, **options: Any) -> S:
        if url.partition("://")[2]:
            raise ConfigurationError("memory://: what follows has no effect, leave it out; memory has no addresses")
        return kind(**options)

    return make


@final
class StemRedisAdapter(_OwnAdapter):
    """Makes stores on Redis or Valkey, of ``redis://``, ``rediss://``, ``unix://`` and ``redis+sentinel://``.

    Needs ``pip install "stem-trio[redis]"``.

    Args:
        options: those of `RedisBroker` and `RedisResultBackend`, and of their `connect`: ``tls``, ``credentials``,
            ``prefix``, ``db`` and others.
    """

    schemes = frozenset({"redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel"})

    def _makers(self) -> tuple[_Maker[Broker], _Maker[ResultBackend]]:
        # Only now: a program that uses no Redis need not have what it takes.
        from .redis import RedisBroker, RedisResultBackend  # noqa: PLC0415 - see above

        return (
            _Maker(RedisBroker.connect, _options_of(RedisBroker, RedisBroker.connect)),
            _Maker(RedisResultBackend.connect, _options_of(RedisResultBackend, RedisResultBackend.connect)),
        )

    def pair(self, broker_url: str, backend_url: str, **options: Any) -> tuple[Broker, ResultBackend]:
        """See `StemStoreAdapter.pair`. In the same database of the same server, both use the same connections."""
        from .redis.store import RedisStore  # noqa: PLC0415 - as above

        broker, backend = super().pair(broker_url, backend_url, **options)
        assert isinstance(broker, RedisStore)
        assert isinstance(backend, RedisStore)
        backend.borrow(broker)
        return broker, backend


@final
class StemSqliteAdapter(_OwnAdapter):
    """Makes stores on a file of SQLite, of ``sqlite:///relative.db`` and ``sqlite:////absolute/file.db``.

    Args:
        options: those of the broker and the result backend in `stem_trio.stores.sqlite`.
    """

    schemes = frozenset({"sqlite"})

    def _makers(self) -> tuple[_Maker[Broker], _Maker[ResultBackend]]:
        # Only now: a Python need not have been built with SQLite.
        from .sqlite import SqliteBroker, SqliteResultBackend  # noqa: PLC0415 - see above

        # Stores on one file share its connection by themselves.
        return (
            _Maker(SqliteBroker, _options_of(SqliteBroker)),
            _Maker(SqliteResultBackend, _options_of(SqliteResultBackend)),
        )
