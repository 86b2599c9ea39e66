"""The wire format, and what a broker hands out."""

from __future__ import annotations

import json
import math
from contextlib import suppress

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stem_trio.envelope import WIRE_VERSION, DeadLetter, Delivery, Envelope, Lease, QueueStats, WaitingTask
from stem_trio.retry import Backoff

from .support import make_delivery, make_envelope

FULL = make_envelope(
    args=msgspec.Raw(b'{"to":"a@b.c"}'),
    headers={"traceparent": "00-1", "x": "ü"},
    meta=msgspec.Raw(b'{"trace":"abc"}'),
    priority=9,
    expires_at=2000.5,
    max_retries=3,
    backoff=Backoff(base=1.0, jitter=0.5),
    visibility_timeout=60.0,
    soft_time_limit=10.0,
    hard_time_limit=20.0,
    max_strikes=1,
    result_ttl=60.0,
    ignore_result=True,
    parent_id="id-0",
    parent_attempt=2,
    root_id="id-00",
)


def test_defaults_are_left_out_on_the_wire():
    """An envelope that says nothing special is short."""
    assert make_envelope().encode() == b'{"v":1,"id":"id-1","name":"mail.send","queue":"mail","created_at":1000.0}'


def test_fields_come_in_their_order():
    """The wire form of an envelope is fixed to the byte: signatures are made of it."""
    assert FULL.encode().decode() == (
        '{"v":1,"id":"id-1","name":"mail.send","queue":"mail","created_at":1000.0,"args":{"to":"a@b.c"},'
        '"headers":{"traceparent":"00-1","x":"ü"},"meta":{"trace":"abc"},"priority":9,"expires_at":2000.5,'
        '"max_retries":3,"backoff":{"base":1.0,"jitter":0.5},"visibility_timeout":60.0,"soft_time_limit":10.0,'
        '"hard_time_limit":20.0,"max_strikes":1,"result_ttl":60.0,"ignore_result":true,"parent_id":"id-0",'
        '"parent_attempt":2,"root_id":"id-00"}'
    )


@pytest.mark.parametrize("envelope", [make_envelope(), FULL], ids=["short", "full"])
def test_decode_is_the_inverse_of_encode(envelope):
    """Nothing is lost or changed on the wire, not even in type."""
    decoded = Envelope.decode(envelope.encode())
    assert decoded == envelope
    for name in Envelope.__struct_fields__:
        assert type(getattr(decoded, name)) is type(getattr(envelope, name)), name


def test_defaults_of_the_wire():
    """What the wire leaves out comes back as documented."""
    assert Envelope.decode(make_envelope().encode()) == make_envelope(
        args=msgspec.Raw(b"{}"),
        headers={},
        meta=msgspec.Raw(b"{}"),
        priority=0,
        expires_at=None,
        max_retries=0,
        backoff=None,
        visibility_timeout=30.0,
        soft_time_limit=None,
        hard_time_limit=None,
        max_strikes=3,
        result_ttl=86_400.0,
        ignore_result=False,
        parent_id=None,
        parent_attempt=None,
        root_id=None,
    )


@pytest.mark.parametrize(
    "raw",
    [
        b"{}",
        b"{ }",
        b'{"a":1}',
        b'{ "a" :\t1 ,\n"b": [ 1,2 ] }',
        '{"ü":"日本 😀"}'.encode(),
        b'{"\\u00fc":"\\ud83d\\ude00"}',
        b'{"n":1.0,"m":1e2,"big":123456789012345678901234567890}',
        b'{"a":1,"a":2}',
        b'{"slash":"\\/"}',
    ],
)
@pytest.mark.parametrize("field", ["args", "meta"])
def test_raw_json_is_kept_byte_for_byte(raw, field):
    """Arguments and meta are never read and written again on the way: blanks, escapes and numbers stay as they are."""
    message = make_envelope(**{field: msgspec.Raw(raw)}).encode()
    assert raw in message
    decoded = Envelope.decode(message)
    assert bytes(getattr(decoded, field)) == raw
    assert decoded.encode() == message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
raw_objects = st.builds(
    lambda value, indent, ascii_only: msgspec.Raw(json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()),
    st.dictionaries(st.text(), json_values, max_size=2),
    st.sampled_from([None, 0, 1, "\t"]),
    st.booleans(),
)
seconds = st.floats(min_value=0.0, max_value=1e12)
envelopes = st.builds(
    Envelope,
    v=st.sampled_from([0, WIRE_VERSION]),
    id=st.text(),
    name=st.text(),
    queue=st.text(),
    created_at=seconds,
    args=raw_objects,
    headers=st.dictionaries(st.text(), st.text(), max_size=4),
    meta=raw_objects,
    priority=st.integers(0, 9),
    expires_at=st.none() | seconds,
    max_retries=st.integers(0, 2**40),
    backoff=st.none() | st.builds(Backoff, base=seconds, factor=seconds, max=seconds, jitter=seconds),
    # Both the very object that is the default, and numbers that only equal it.
    visibility_timeout=st.just(make_envelope().visibility_timeout) | st.just(float("30")) | seconds,
    soft_time_limit=st.none() | seconds,
    hard_time_limit=st.none() | seconds,
    max_strikes=st.integers(1, 2**40),
    result_ttl=seconds,
    ignore_result=st.booleans(),
    parent_id=st.none() | st.text(),
    parent_attempt=st.none() | st.integers(0, 2**40),
    root_id=st.none() | st.text(),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # how fast is the machine's own affair
@given(envelopes)
def test_round_trip(envelope):
    """Any envelope survives the wire, and what was decoded encodes to the same bytes: signatures stay valid."""
    message = envelope.encode()
    decoded = Envelope.decode(message)
    assert decoded == envelope
    assert decoded.encode() == message
    assert bytes(decoded.args) == bytes(envelope.args)
    assert bytes(decoded.meta) == bytes(envelope.meta)


@settings(deadline=None)
@given(st.binary())
def test_any_bytes_decode_or_are_refused(message):
    """Whatever stands in a queue, decoding it raises nothing but what it says."""
    with suppress(msgspec.DecodeError):
        Envelope.decode(message)


def changed(**fields):
    """A wire message with some fields replaced, or with None removed."""
    document = json.loads(make_envelope().encode()) | fields
    return json.dumps({name: value for name, value in document.items() if value is not None}).encode()


def test_fields_of_a_later_program_are_passed_over():
    """Within one wire version fields may be added."""
    assert Envelope.decode(changed(added_later=[1, 2])) == make_envelope()


@pytest.mark.parametrize("version", [0, WIRE_VERSION])
def test_wire_versions_that_are_read(version):
    """Messages up to this program's version are read."""
    assert Envelope.decode(changed(v=version)).v == version


@pytest.mark.parametrize("version", [WIRE_VERSION + 1, 1000])
def test_newer_wire_versions_are_refused(version):
    """A message that this program cannot understand is refused, not guessed at."""
    with pytest.raises(msgspec.DecodeError, match=f"wire version {version}, this program reads up to {WIRE_VERSION}"):
        Envelope.decode(changed(v=version))


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"garbage",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe",
        make_envelope().encode()[:-1],
        make_envelope().encode() + b"x",
        changed(id=None),
        changed(name=None),
        changed(queue=None),
        changed(created_at=None),
        changed(id=7),
        changed(created_at="now"),
        changed(priority="high"),
        changed(v="1"),
        changed(headers={"a": 1}),
        changed(headers=[]),
        changed(backoff=3),
        changed(id="X").replace(b"X", b"\xff"),
        changed(args="X").replace(b'"X"', b"[" * 100_000 + b"]" * 100_000),
    ],
)
def test_garbage_is_refused(message):
    """What is no envelope is refused with the one error that callers expect, however it is broken."""
    with pytest.raises(msgspec.DecodeError):
        Envelope.decode(message)


@pytest.mark.parametrize("kind", [Envelope, Lease, Delivery, QueueStats, WaitingTask, DeadLetter])
def test_records_are_immutable_and_made_by_name(kind):
    """Records can be shared, for nobody changes them; and no two of their fields are mistaken for each other."""
    assert kind.__struct_config__.frozen
    with pytest.raises(TypeError, match="positional"):
        kind("a")


def test_no_two_envelopes_share_their_headers():
    """The default headers belong to one envelope alone."""
    one, two = make_envelope(), make_envelope()
    assert one.headers is not two.headers


def test_delivery_state_is_not_in_the_envelope():
    """Attempt, deliveries, strikes and lease stay outside of what is signed."""
    assert not {"attempt", "deliveries", "strikes", "lease", "not_before"} & set(Envelope.__struct_fields__)
    assert make_delivery(attempt=2, deliveries=5, strikes=1).envelope.encode() == make_envelope().encode()


def test_defaults_of_leases_and_deliveries():
    """A lease needs no receipt, and a delivery is not revoked unless said so."""
    assert Lease(task_id="a", queue="q", token=1, duration=1.0, deadline=math.inf).receipt == ""
    assert make_delivery().revoked is None


def test_unfinished_tasks():
    """Everything but dead letters is still to be finished."""
    assert QueueStats(ready=1, delayed=20, leased=300, dead=4000).unfinished == 321
