"""The contracts of stores, as far as they are code."""

from __future__ import annotations

import inspect

import pytest

from stem_trio import abc, retry
from stem_trio.abc import Broker, JointStore, ResultBackend, Store

OFFERS = {"answers_within", "join"}
"""What a store may do better than by default, and need not."""

METHODS = [
    (contract, name)
    for contract in (Store, Broker, ResultBackend, JointStore)
    for name in sorted(contract.__abstractmethods__)
    if name in vars(contract)
]


@pytest.mark.parametrize("contract", [Store, Broker, ResultBackend, JointStore])
def test_contracts_are_abstract(contract):
    """A store that leaves something out cannot be made."""
    with pytest.raises(TypeError, match="abstract"):
        contract()


def test_there_is_nothing_optional_in_a_contract():
    """Whatever a contract names has to be written: there is no default that silently does nothing."""
    for contract in (Store, Broker, ResultBackend, JointStore):
        public = {name for name in vars(contract) if not name.startswith("_")}
        assert public - OFFERS <= contract.__abstractmethods__


@pytest.mark.parametrize(("contract", "name"), METHODS)
def test_every_method_is_documented_and_async(contract, name):
    """A method is awaited, or gives what is entered with `async with`; what it does is written down."""
    method = vars(contract)[name]
    assert inspect.getdoc(method)
    assert inspect.iscoroutinefunction(method) or "AbstractAsyncContextManager" in str(method.__annotations__["return"])


def test_strategies_are_part_of_the_contracts():
    """Everything that third parties implement can be imported from one place."""
    assert abc.RetryStrategy is retry.RetryStrategy
    assert all(hasattr(abc, name) for name in abc.__all__)
