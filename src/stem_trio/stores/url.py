"""Stores by URL: finds the adapter that serves a scheme, and lets it make the store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast, final

import attrs

from ..abc import Broker, ResultBackend
from ..errors import ConfigurationError
from .adapters import StemMemoryAdapter, StemRedisAdapter, StemSqliteAdapter, StemStoreAdapter, scheme_of

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["ENTRY_POINT_GROUP", "StemStoreOverrides", "open_backend", "open_broker", "open_stores"]

ENTRY_POINT_GROUP: Final = "stem_trio.adapters"

_BUILT_IN: Final[tuple[StemStoreAdapter, ...]] = (
    StemMemoryAdapter(),
    StemRedisAdapter(),
    StemSqliteAdapter(),
)
_NO_OPTIONS: Final = frozenset({"self", "url", "broker_url", "backend_url"})
"""What the methods of an adapter call their own parameters."""
_PLANNED: Final = {"postgres": "stores on Postgres", "postgresql": "stores on Postgres"}


def open_broker(url: str, *, adapters: Iterable[StemStoreAdapter] = (), **options: Any) -> Broker:
    """The broker that a URL stands for. It is not entered yet; do so with ``async with``.

    Args:
        url: ``memory://``, ``redis://host:port/db`` and its kin, or what an adapter serves.
        adapters: adapters that serve their schemes before all others.
        options: what the store takes beside its URL, as ``prefix`` or ``tls`` for Redis.

    Raises:
        ConfigurationError: the URL cannot be read, nothing serves its scheme or offers a broker for it, an option has
            no effect, or something has to be installed. Never shows what may be secret.
    """
    adapter, url = _Adapters(adapters).find(url)
    return _broker(adapter, url, options)


def open_backend(url: str, *, adapters: Iterable[StemStoreAdapter] = (), **options: Any) -> ResultBackend:
    """The result backend that a URL stands for. It is not entered yet; do so with ``async with``.

    Args:
        url: as for `open_broker`.
        adapters: adapters that serve their schemes before all others.
        options: what the store takes beside its URL.

    Raises:
        ConfigurationError: as `open_broker`.
    """
    adapter, url = _Adapters(adapters).find(url)
    return _backend(adapter, url, options)


def _hidden(value: object) -> str:
    """A URL by its scheme alone: the rest may hold a password."""
    return f"'{scheme_of(value)}://...'" if isinstance(value, str) else repr(value)


def _url_or(kind: type[Broker | ResultBackend]) -> Any:
    def check(_: object, field: attrs.Attribute[Any], value: object) -> None:
        if value is None or isinstance(value, kind):
            return
        if not isinstance(value, str):
            raise ConfigurationError(
                f"StemStoreOverrides: {field.name} must be a URL or a {kind.__name__}, not {type(value).__name__}"
            )
        scheme_of(value)

    return check


@final
@attrs.frozen(kw_only=True)
class StemStoreOverrides:
    """Stores in place of those that a program's one URL stands for.

    Attributes:
        broker: a URL, or a broker that is not entered yet; None for the program's URL.
        backend: a URL, or a result backend that is not entered yet; None for the program's URL.

    Raises:
        ConfigurationError: one is neither URL nor store.
    """

    broker: str | Broker | None = attrs.field(default=None, repr=_hidden, validator=_url_or(Broker))
    backend: str | ResultBackend | None = attrs.field(default=None, repr=_hidden, validator=_url_or(ResultBackend))


def open_stores(
    url: str | None = None,
    *,
    overrides: StemStoreOverrides | None = None,
    adapters: Iterable[StemStoreAdapter] = (),
    options: Mapping[str, Any] | None = None,
) -> tuple[Broker, ResultBackend]:
    """Broker and result backend of one program, not entered yet. Enter the broker first, and leave it last.

    Where one adapter makes both of them, they may share connections.

    Args:
        url: what both stand on, as far as there are no overrides. None for a SQLite file in the user's data folder,
            which is made if it is not there.
        overrides: other stores, or other URLs.
        adapters: adapters that serve their schemes before all others.
        options: what the stores take beside their URLs; for all that are made here, when one adapter makes them.

    Raises:
        ConfigurationError: as `open_broker`.
    """
    if overrides is None:
        overrides = StemStoreOverrides()
    elif not isinstance(overrides, StemStoreOverrides):
        raise ConfigurationError(f"overrides must be StemStoreOverrides, not {type(overrides).__name__}")
    chosen = _check_options(options)
    if url is None and (overrides.broker is None or overrides.backend is None):
        from .default import default_url  # noqa: PLC0415 - programs that name their stores do not need it

        url = default_url()
    broker = overrides.broker if overrides.broker is not None else url
    backend = overrides.backend if overrides.backend is not None else url
    known = _Adapters(adapters)
    if isinstance(broker, Broker) and isinstance(backend, ResultBackend):
        if chosen:
            raise ConfigurationError("store_options have no effect here: both stores are given; leave them out")
        return broker, backend
    if isinstance(broker, Broker):
        return broker, _backend(*known.find(cast("str", backend)), chosen)
    if isinstance(backend, ResultBackend):
        return _broker(*known.find(cast("str", broker)), chosen), backend
    first, broker_url = known.find(cast("str", broker))
    second, backend_url = known.find(cast("str", backend))
    if first is second:
        made = first.pair(broker_url, backend_url, **chosen)
        for store, kind in zip(made, (Broker, ResultBackend), strict=True):
            _check_kind(first, store, kind)
        return made
    if chosen:
        raise ConfigurationError(
            f"store_options could be meant for {scheme_of(broker_url)}:// or for {scheme_of(backend_url)}://; make one "
            "of the stores with open_broker or open_backend, and pass it in overrides"
        )
    return _broker(first, broker_url, {}), _backend(second, backend_url, {})


def _broker(adapter: StemStoreAdapter, url: str, options: Mapping[str, Any]) -> Broker:
    broker = adapter.broker(url, **options)
    _check_kind(adapter, broker, Broker)
    return broker


def _backend(adapter: StemStoreAdapter, url: str, options: Mapping[str, Any]) -> ResultBackend:
    backend = adapter.backend(url, **options)
    _check_kind(adapter, backend, ResultBackend)
    return backend


def _check_options(options: object) -> dict[str, Any]:
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise ConfigurationError(f"store_options must be a mapping of names to values, not {type(options).__name__}")
    named = dict(cast("Mapping[object, Any]", options))
    for name in named:
        if not isinstance(name, str):
            raise ConfigurationError(f"store_options must have names as keys, not {type(name).__name__}")
        if name in _NO_OPTIONS:
            raise ConfigurationError(f"store_options: {name!r} has no effect here; leave it out")
    return cast("dict[str, Any]", named)


def _check_kind(adapter: StemStoreAdapter, store: object, kind: type) -> None:
    if not isinstance(store, kind):
        raise ConfigurationError(
            f"the adapter {_name(adapter)} has made a {type(store).__name__}, which is no {kind.__name__}"
        )


def _name(adapter: StemStoreAdapter) -> str:
    kind = type(adapter)
    return f"{kind.__module__}.{kind.__qualname__}"


@final
class _Adapters:
    """The adapters there are: explicit ones, then those of this package, then those of installed packages."""

    def __init__(self, adapters: Iterable[StemStoreAdapter]) -> None:
        self._explicit: dict[str, StemStoreAdapter] = {}
        self._installed: _Installed | None = None
        if isinstance(adapters, str | type | StemStoreAdapter) or not isinstance(adapters, Iterable):
            raise ConfigurationError("adapters must be a list of adapters; write adapters=[...]")
        for adapter in adapters:
            self._add(adapter)

    def _add(self, adapter: object) -> None:
        if isinstance(adapter, type) and issubclass(adapter, StemStoreAdapter):
            raise ConfigurationError(f"adapters: {adapter.__qualname__} is a class; pass an instance")
        if not isinstance(adapter, StemStoreAdapter):
            raise ConfigurationError(f"adapters: a {type(adapter).__name__} is no StemStoreAdapter")
        for scheme in _schemes(adapter):
            other = self._explicit.setdefault(scheme, adapter)
            if other is not adapter:
                raise ConfigurationError(
                    f"adapters: {_name(other)} and {_name(adapter)} both serve {scheme}://; leave one of them out"
                )

    def find(self, url: str) -> tuple[StemStoreAdapter, str]:
        """Who serves a URL, and the URL with its scheme in lower case."""
        scheme = scheme_of(url)
        rest = url.partition("://")[2]
        return self._serving(scheme), f"{scheme}://{rest}"

    def _serving(self, scheme: str) -> StemStoreAdapter:
        if scheme in self._explicit:
            return self._explicit[scheme]
        for adapter in _BUILT_IN:
            if scheme in adapter.schemes:
                return adapter
        if self._installed is None:
            self._installed = _Installed()
        installed = self._installed.find(scheme)
        if installed is None:
            raise self._unknown(scheme, self._installed.schemes)
        return installed

    def _unknown(self, scheme: str, installed: Iterable[str]) -> ConfigurationError:
        if scheme in _PLANNED:
            return ConfigurationError(
                f"{scheme}://: {_PLANNED[scheme]} are planned and not there yet; use sqlite:// or redis://"
            )
        import difflib  # noqa: PLC0415 - for this message alone

        built_in = {name for adapter in _BUILT_IN for name in adapter.schemes}
        known = sorted({*built_in, *self._explicit, *installed})
        near = difflib.get_close_matches(scheme, known, n=1)
        guess = f"did you mean {near[0]}://? " if near else ""
        return ConfigurationError(
            f"nothing serves {scheme}://; {guess}Known are {', '.join(known)}; others come with adapters=, or with a "
            f"package that has an entry point in {ENTRY_POINT_GROUP}"
        )


def _schemes(adapter: StemStoreAdapter) -> frozenset[str]:
    schemes: object = adapter.schemes
    names = frozenset(cast("Iterable[object]", schemes)) if isinstance(schemes, set | frozenset) else frozenset()
    if not names or not all(isinstance(name, str) and name == name.lower() and "://" not in name for name in names):
        raise ConfigurationError(
            f"the adapter {_name(adapter)} does not say which schemes it serves; set schemes = frozenset({{'name'}}), "
            "in lower case and without ://"
        )
    return cast("frozenset[str]", names)


@final
class _Installed:
    """The adapters of installed packages. Looked for only when nothing else serves a scheme: it takes a while."""

    def __init__(self) -> None:
        from importlib.metadata import entry_points  # noqa: PLC0415 - more than 1 MiB, which few programs need

        self._found: list[tuple[str, StemStoreAdapter]] = []
        self._broken: list[tuple[str, Exception]] = []
        loaded: list[object] = []
        for entry in entry_points(group=ENTRY_POINT_GROUP):
            # Nothing that a package does here may keep the adapters of another one from being found.
            try:
                value: object = entry.load()
                if any(value is other for other in loaded):
                    continue  # one adapter under several names
                adapter = _adapter(value)
            except Exception as error:  # noqa: BLE001 - reported as soon as somebody might need the adapter
                self._broken.append((_title(entry), error))
            else:
                loaded.append(value)
                self._found.append((_title(entry), adapter))

    @property
    def schemes(self) -> frozenset[str]:
        """What they serve."""
        return frozenset(scheme for _, adapter in self._found for scheme in adapter.schemes)

    def find(self, scheme: str) -> StemStoreAdapter | None:
        """The one that serves a scheme, or None.

        Raises:
            ConfigurationError: several do; or none does, and some could not be loaded.
        """
        serving = [(title, adapter) for title, adapter in self._found if scheme in adapter.schemes]
        if len(serving) > 1:
            raise ConfigurationError(
                f"{' and '.join(title for title, _ in serving)} both serve {scheme}://; uninstall one of them, or say "
                "which one with adapters="
            )
        if serving:
            return serving[0][1]
        if self._broken:
            title, error = self._broken[0]
            raise ConfigurationError(
                f"nothing serves {scheme}://, and {title} could not be loaded: {type(error).__name__}: {error}; mend "
                "or uninstall it"
            ) from error
        return None


def _adapter(value: object) -> StemStoreAdapter:
    adapter = value() if isinstance(value, type) and issubclass(value, StemStoreAdapter) else value
    if not isinstance(adapter, StemStoreAdapter):
        raise ConfigurationError(f"a {type(adapter).__name__} is no StemStoreAdapter")
    _schemes(adapter)
    return adapter


def _title(entry: EntryPoint) -> str:
    package = f" of {entry.dist.name}" if entry.dist is not None else ""
    return f"the entry point {entry.name!r} ({entry.value}){package}"
