"""Keys and signatures: what is covered, what is refused, and that no secret shows."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import pickle
import re
import sys
import traceback
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization as ser
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings

from stem_trio import (
    ConfigurationError,
    PayloadSigner,
    SignatureInvalidError,
    SigningConfig,
    SigningError,
    SigningKey,
)
from stem_trio import keys as keys_module
from stem_trio.envelope import WIRE_VERSION, Envelope, Signature
from stem_trio.signing import signed_bytes

from .support import make_delivery, make_envelope
from .test_envelope import FULL, envelopes

SECRET = bytes(range(32))
OTHER_SECRET = bytes(range(1, 33))
PRIVATE = bytes(range(100, 132))
DOCS = Path(__file__).parents[2] / "docs" / "security.md"


def text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def public_of(private: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def hmac_signer(**options) -> PayloadSigner:
    return PayloadSigner([SigningKey.hmac_sha256("k1", SECRET)], **options)


def ed25519_signer(**options) -> PayloadSigner:
    return PayloadSigner([SigningKey.ed25519("e1", PRIVATE)], **options)


SIGNERS = pytest.mark.parametrize("signer", [hmac_signer(), ed25519_signer()], ids=["hmac", "ed25519"])


def refusal(signer: PayloadSigner, envelope: Envelope) -> str:
    """Why a signer refuses an envelope."""
    with pytest.raises(SignatureInvalidError) as caught:
        signer.verify(envelope)
    assert caught.value.task_id == envelope.id
    return caught.value.problem


def wire(envelope: Envelope) -> Envelope:
    """The envelope as it comes out of a store."""
    return Envelope.decode(envelope.encode())


# --- what is covered ----------------------------------------------------------------------------------------------


@SIGNERS
@pytest.mark.parametrize("envelope", [make_envelope(), FULL], ids=["short", "full"])
def test_signed_and_verified(signer, envelope):
    """G16: a signature is valid here, and behind any number of stores."""
    signed = signer.sign(envelope)
    for _ in range(3):
        signer.verify(signed)
        signed = wire(signed)
    assert msgspec.structs.replace(signed, signature=None) == envelope


@settings(deadline=None, max_examples=25)
@given(envelopes)
def test_any_envelope(envelope):
    """G16: whatever an envelope holds, its signature survives the wire."""
    signer = hmac_signer()
    signer.verify(wire(signer.sign(envelope, due_at=1.5)))


def values_of(kind) -> list:
    """Two different values of a type of field."""
    inspect = msgspec.inspect
    match kind:
        case inspect.UnionType():
            return [None, *(value for inner in kind.types for value in values_of(inner))]
        case inspect.NoneType():
            return []
        case inspect.StrType():
            return ["x", "y"]
        case inspect.BoolType():
            return [True, False]
        case inspect.IntType():
            return [0, 1, 2]
        case inspect.FloatType():
            return [0.0, 1.5, 2.5]
        case inspect.RawType():
            return [msgspec.Raw(b'{"x":1}'), msgspec.Raw(b'{"x": 1}')]
        case inspect.DictType():
            return [{"x": "1"}, {"x": "2"}, {"y": "1"}, {}]
        case inspect.StructType():
            first = {field.name: values_of(field.type)[-2] for field in kind.fields}
            changed = [first | {field.name: values_of(field.type)[-1]} for field in kind.fields]
            return [kind.cls(**fields) for fields in (first, *changed)]
    raise AssertionError(f"this test has no values of {kind}: add some")


FIELDS = [field for field in msgspec.inspect.type_info(Envelope).fields if field.name != "signature"]


@SIGNERS
@pytest.mark.parametrize("field", FIELDS, ids=[field.name for field in FIELDS])
def test_every_field_is_covered(signer, field):
    """G16: no field of an envelope, those of tomorrow included, can be changed, added or taken away."""
    values = values_of(field.type)
    assert len(values) >= 2
    for base in (make_envelope(), FULL):
        for value in values:
            original = msgspec.structs.replace(base, **{field.name: value})
            signed = signer.sign(original)
            signer.verify(travelled(signed))
            others = [other for other in [*values, getattr(base, field.name)] if other != value]
            assert others
            for other in others:
                forged = msgspec.structs.replace(signed, **{field.name: other})
                assert "does not match" in refusal(signer, travelled(forged))


def travelled(envelope: Envelope) -> Envelope:
    """The envelope behind a store; the versions that this program cannot read stay before it."""
    return wire(envelope) if envelope.v <= WIRE_VERSION else envelope


def test_signature_is_the_last_field():
    """Whoever writes the wire form by hand puts it at the end."""
    assert Envelope.__struct_fields__[-1] == "signature"


@SIGNERS
def test_the_signature_itself_is_covered(signer):
    """G16: nor can the due time beside the signature be changed, nor a byte of it."""
    signed = signer.sign(FULL, due_at=5.0)
    signature = signed.signature
    value = signature.value
    changes = [{"due_at": 6.0}, {"due_at": None}, {"value": b""}, {"value": value[:-1]}, {"value": value + b"\0"}]
    changes += [
        {"value": value[:place] + bytes([value[place] ^ bit]) + value[place + 1 :]}
        for place in range(len(value))
        for bit in (1, 128)
    ]
    for change in changes:
        forged = msgspec.structs.replace(signed, signature=msgspec.structs.replace(signature, **change))
        assert "does not match" in refusal(signer, forged)
    signer.verify(signed)


def test_any_byte_on_the_wire():
    """G16: of the bytes in a store, none can be changed, removed or added so that something else is accepted."""
    signer = hmac_signer()
    original = signer.sign(FULL, due_at=5.0)
    message = original.encode()
    mutants = {message[:place] + message[place + 1 :] for place in range(len(message))}
    mutants |= {message[:end] for end in range(len(message))}
    for mask in (0x01, 0x02, 0x10, 0x20, 0x80):
        for place in range(len(message)):
            mutants.add(message[:place] + bytes([message[place] ^ mask]) + message[place + 1 :])
    for extra in (b" ", b"0", b'"', b"{", b",", b"\0"):
        mutants |= {message[:place] + extra + message[place:] for place in range(len(message) + 1)}
    mutants.discard(message)
    refused = same = garbage = 0
    for mutant in mutants:
        try:
            decoded = Envelope.decode(mutant)
        except msgspec.DecodeError:
            garbage += 1
            continue
        try:
            signer.verify(decoded)
        except SignatureInvalidError:
            refused += 1
        else:
            # Blanks between fields, and bits that base64 does not use: what is run is what was signed.
            assert decoded == original, mutant
            assert decoded.encode() == message, mutant
            same += 1
    assert refused > 1000
    assert garbage > 1000
    assert 0 < same < 200


# --- what is refused ----------------------------------------------------------------------------------------------


def test_unsigned():
    """G16: where signatures are required, which is the default, a task without one is refused."""
    assert refusal(hmac_signer(), FULL) == "is not signed"
    hmac_signer(required=False).verify(FULL)


@pytest.mark.parametrize("required", [True, False])
def test_wrong_is_refused_in_any_mode(required):
    """G16: not requiring signatures does not mean to accept wrong ones."""
    signer = hmac_signer(required=required)
    signed = signer.sign(FULL)
    assert "does not match" in refusal(signer, msgspec.structs.replace(signed, name="other"))
    stranger = PayloadSigner([SigningKey.hmac_sha256("stranger", OTHER_SECRET)])
    assert refusal(signer, stranger.sign(FULL)) == "is signed with the key 'stranger', which is unknown"
    namesake = PayloadSigner([SigningKey.hmac_sha256("k1", OTHER_SECRET)])
    assert "does not match" in refusal(signer, namesake.sign(FULL))


def test_swapped_signatures():
    """G16: a signature belongs to one task."""
    signer = hmac_signer()
    one, two = signer.sign(make_envelope(id="one")), signer.sign(make_envelope(id="two"))
    assert "does not match" in refusal(signer, msgspec.structs.replace(one, signature=two.signature))


def test_the_key_says_the_algorithm():
    """G16: a message cannot have a public key used as a shared secret, nor choose another algorithm at all."""
    public = public_of(PRIVATE)
    verifier = PayloadSigner([SigningKey.ed25519_public("e1", public)])
    forger = PayloadSigner([SigningKey.hmac_sha256("e1", public)])
    assert "is not signed by ed25519" in refusal(verifier, forger.sign(FULL))
    forged = forger.sign(FULL)
    claimed = msgspec.structs.replace(forged.signature, algorithm="ed25519")
    assert "does not match" in refusal(verifier, msgspec.structs.replace(forged, signature=claimed))
    for name in ("none", "", "hmac-sha512", "HMAC-SHA256"):
        signed = hmac_signer().sign(FULL)
        other = msgspec.structs.replace(signed.signature, algorithm=name)
        assert "is not signed by hmac-sha256" in refusal(
            hmac_signer(), msgspec.structs.replace(signed, signature=other)
        )


def test_another_key_of_the_same_secret():
    """The id of the key is covered too."""
    signer = PayloadSigner([SigningKey.hmac_sha256("k1", SECRET), SigningKey.hmac_sha256("k2", SECRET)], active="k1")
    signed = signer.sign(FULL)
    other = msgspec.structs.replace(signed, signature=msgspec.structs.replace(signed.signature, key="k2"))
    assert "does not match" in refusal(signer, other)


def test_signatures_are_for_envelopes_only():
    """G16: what is signed begins with a line that nothing else begins with."""
    signed = hmac_signer().sign(FULL)
    bare = hmac.digest(SECRET, signed_bytes(signed).partition(b"\n")[2], "sha256")
    assert signed.signature.value != bare
    forged = msgspec.structs.replace(signed, signature=msgspec.structs.replace(signed.signature, value=bare))
    assert "does not match" in refusal(hmac_signer(), forged)
    with pytest.raises(ValueError, match="no signature"):
        signed_bytes(FULL)


@pytest.mark.parametrize("key", ["k" * 10_000, "\n\x1b[31m", ""])
def test_what_a_forger_writes_stays_small(key):
    """Ids come from whoever wrote the message: errors quote them, and not all of them."""
    forged = make_envelope(id="i" * 10_000, signature=Signature(key=key, algorithm="hmac-sha256", value=b"x"))
    with pytest.raises(SignatureInvalidError) as caught:
        hmac_signer().verify(forged)
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


def test_comparison_takes_constant_time(monkeypatch):
    """G16: digests are compared by `hmac.compare_digest`, and by nothing else."""
    compared = []

    def compare(one, two):
        compared.append((one, two))
        return True

    signed = hmac_signer().sign(FULL)
    forged = msgspec.structs.replace(signed, signature=msgspec.structs.replace(signed.signature, value=b"wrong"))
    monkeypatch.setattr(keys_module.hmac, "compare_digest", compare)
    hmac_signer().verify(forged)  # only what `compare` says counts
    assert compared == [(signed.signature.value, b"wrong")]


# --- handed out as signed -----------------------------------------------------------------------------------------


def test_only_from_its_own_queue():
    """G16: a task that is put into another queue, before other workers, is refused."""
    signer = hmac_signer()
    delivery = make_delivery(signer.sign(FULL))
    signer.verify_delivery(delivery)
    moved = msgspec.structs.replace(delivery.lease, queue="elsewhere")
    with pytest.raises(SignatureInvalidError, match="another queue"):
        signer.verify_delivery(msgspec.structs.replace(delivery, lease=moved))


@pytest.mark.parametrize(
    ("due_at", "claimed_at", "deliveries", "fresh"),
    [
        (None, 1000.0, 1, True),
        (None, 1060.0, 1, True),
        (None, 1061.0, 1, False),
        (None, 940.0, 1, True),  # clocks differ
        (None, 939.0, 1, False),
        (5000.0, 5060.0, 1, True),
        (5000.0, 5061.0, 1, False),
        (5000.0, 1060.0, 1, False),
        (None, 9999.0, 2, True),
    ],
)
def test_freshness(due_at, claimed_at, deliveries, fresh):
    """G16: the age counts from the due time to the first hand-out; later hand-outs are not held to it."""
    signer = hmac_signer(max_age=timedelta(minutes=1))
    assert signer.max_age == 60.0
    signed = signer.sign(make_envelope(created_at=1000.0), due_at=due_at)
    delivery = make_delivery(signed, claimed_at=claimed_at, deliveries=deliveries)
    if fresh:
        signer.verify_delivery(delivery)
    else:
        with pytest.raises(SignatureInvalidError, match=r"outside of the 60 s allowed"):
            signer.verify_delivery(delivery)
    hmac_signer().verify_delivery(delivery)  # no bound, no matter


def test_unsigned_deliveries_where_none_is_required():
    """Nothing is known of their age or queue that could be trusted."""
    hmac_signer(required=False, max_age=1).verify_delivery(make_delivery(FULL, claimed_at=1e9))
    with pytest.raises(SignatureInvalidError):
        hmac_signer().verify_delivery(make_delivery(FULL))


# --- signers ------------------------------------------------------------------------------------------------------


def test_rotation():
    """G16: what either key has signed is valid while both are known."""
    old, new = SigningKey.hmac_sha256("k1", SECRET), SigningKey.ed25519("k2", PRIVATE)
    both = PayloadSigner([old, new], active="k2")
    assert both.active == "k2"
    assert both.keys == (old, new)
    before, after = PayloadSigner([old]).sign(FULL), both.sign(FULL)
    assert (before.signature.key, after.signature.key) == ("k1", "k2")
    both.verify(before)
    both.verify(after)
    both.verify(both.sign(before))
    assert "unknown" in refusal(PayloadSigner([new]), before)
    assert "unknown" in refusal(PayloadSigner([old]), after)


def test_public_keys_verify_only():
    """G16: with public keys only, a worker can verify, and nobody can sign with what it has."""
    verifier = PayloadSigner([SigningKey.ed25519_public("e1", public_of(PRIVATE))])
    assert verifier.active is None
    verifier.verify(ed25519_signer().sign(FULL))
    with pytest.raises(SigningError, match="public keys only"):
        verifier.sign(FULL)
    with pytest.raises(SigningError, match="cannot sign"):
        verifier.keys[0].sign(b"x")


def test_from_configuration():
    """`maybe` makes what is configured, or nothing."""
    assert PayloadSigner.maybe(None) is None
    key = SigningKey.hmac_sha256("k1", SECRET)
    signer = PayloadSigner.maybe(SigningConfig(keys=(key,)))
    assert (signer.active, signer.required, signer.max_age) == ("k1", True, None)
    signer = PayloadSigner.maybe(SigningConfig(keys=(key,), active="k1", required=False, max_age=5.0))
    assert (signer.active, signer.required, signer.max_age) == ("k1", False, 5.0)


K1, K2 = SigningKey.hmac_sha256("k1", SECRET), SigningKey.hmac_sha256("k2", OTHER_SECRET)
PUBLIC = SigningKey.ed25519_public("p", public_of(PRIVATE))


@pytest.mark.parametrize(
    ("keys", "options", "message"),
    [
        ([], {}, "keys: there are none; give at least one"),
        ([K1, K1], {}, "keys: two have the id 'k1'; give one of them another"),
        ([SECRET], {}, "keys: must be SigningKey objects"),
        ([K1, K2], {}, "active: several keys can sign .'k1', 'k2'.; name the one"),
        ([K1], {"active": "k9"}, "active: is the id of none of the keys; name one of k1"),
        ([PUBLIC], {"active": "p"}, "active: key 'p' is a public key, which cannot sign"),
        ([K1], {"required": "yes"}, "required='yes': must be True or False"),
        ([K1], {"max_age": 0}, "max_age=0: must be more than 0"),
        ([K1], {"max_age": "5s"}, "max_age='5s': must be a finite number"),
    ],
)
def test_signers_that_cannot_be(keys, options, message):
    """What is wrong with a signer is said by name, when it is made."""
    with pytest.raises(ConfigurationError, match=message):
        PayloadSigner(keys, **options)


# --- keys ---------------------------------------------------------------------------------------------------------


def pem(private: bytes) -> tuple[str, str]:
    """A private key, and its public one, as PEM."""
    key = Ed25519PrivateKey.from_private_bytes(private)
    hidden = key.private_bytes(ser.Encoding.PEM, ser.PrivateFormat.PKCS8, ser.NoEncryption()).decode()
    shown = key.public_key().public_bytes(ser.Encoding.PEM, ser.PublicFormat.SubjectPublicKeyInfo).decode()
    return hidden, shown


def test_forms_of_a_secret():
    """Bytes, and base64 of them, are the same key."""
    message = b"m"
    forms = [SECRET, text(SECRET)]
    assert len({SigningKey.hmac_sha256("k", form).sign(message) for form in forms}) == 1
    assert SigningKey.hmac_sha256("k", SECRET).sign(message) == hmac.new(SECRET, message, hashlib.sha256).digest()
    assert SigningKey.hmac_sha256("k", SECRET).public is None


def test_forms_of_an_ed25519_key():
    """Bytes, base64 and PEM of a key are the same key; its public half verifies what it signs."""
    hidden, shown = pem(PRIVATE)
    public = public_of(PRIVATE)
    signatures = {
        SigningKey.ed25519("k", form).sign(b"m")
        for form in (PRIVATE, text(PRIVATE), hidden, hidden.encode(), f"\n {hidden}")
    }
    [signature] = signatures
    Ed25519PublicKey.from_public_bytes(public).verify(signature, b"m")
    for form in (public, text(public), shown, shown.encode()):
        key = SigningKey.ed25519_public("k", form)
        assert key.verifies(b"m", signature)
        assert not key.verifies(b"n", signature)
        assert not key.verifies(b"m", b"")
        assert (key.can_sign, key.public, key.algorithm) == (False, public, "ed25519")
    assert SigningKey.ed25519("k", PRIVATE).public == public


EC = generate_private_key(SECP256R1())
EC_PEM = EC.private_bytes(ser.Encoding.PEM, ser.PrivateFormat.PKCS8, ser.NoEncryption())
EC_PUBLIC_PEM = EC.public_key().public_bytes(ser.Encoding.PEM, ser.PublicFormat.SubjectPublicKeyInfo)
LOCKED_PEM = Ed25519PrivateKey.from_private_bytes(PRIVATE).private_bytes(
    ser.Encoding.PEM, ser.PrivateFormat.PKCS8, ser.BestAvailableEncryption(b"pw")
)
TELLTALE = "telltale-telltale-telltale-telltale-telltale"


@pytest.mark.parametrize(
    ("make", "id", "material", "message"),
    [
        ("hmac_sha256", "k", b"", "secret: has 0 bytes; use at least 32"),
        ("hmac_sha256", "k", "", "secret: has 0 bytes; use at least 32"),
        ("hmac_sha256", "k", b"telltale", "secret: has 8 bytes; use at least 32"),
        ("hmac_sha256", "k", bytes(31), "secret: has 31 bytes"),
        ("hmac_sha256", "k", TELLTALE, "secret: is text that is not base64"),
        ("hmac_sha256", "k", "tellt\xe4le", "secret: is text that is not base64"),
        ("hmac_sha256", "k", 7, "secret: must be bytes, or text in base64, not int"),
        ("hmac_sha256", TELLTALE + "+=", SECRET, "id: must be 1 to 64 letters"),
        ("hmac_sha256", "", SECRET, "id: must be"),
        ("hmac_sha256", "a:b", SECRET, "id: must be"),
        ("hmac_sha256", "a,b", SECRET, "id: must be"),
        ("hmac_sha256", "k" * 65, SECRET, "id: must be"),
        ("hmac_sha256", b"k", SECRET, "id: must be"),
        ("ed25519", "k", b"telltale", "private: has 8 bytes; an Ed25519 key has 32"),
        ("ed25519", "k", bytes(64), "private: has 64 bytes"),
        ("ed25519", "k", TELLTALE, "private: is text that is not base64"),
        ("ed25519", "k", f"-----BEGIN {TELLTALE}", "private: is no PEM private key"),
        ("ed25519", "k", LOCKED_PEM, "private: is no PEM private key without password"),
        ("ed25519", "k", EC_PEM, "private: is a PEM key of another algorithm"),
        ("ed25519", "k", pem(PRIVATE)[1], "private: is no PEM private key"),
        ("ed25519_public", "k", bytes(31), "public: has 31 bytes"),
        ("ed25519_public", "k", None, "public: must be bytes, or text in base64, not NoneType"),
        ("ed25519_public", "k", EC_PUBLIC_PEM, "public: is a PEM key of another algorithm"),
        ("ed25519_public", "k", pem(PRIVATE)[0], "public: is no PEM public key"),
    ],
)
def test_keys_that_cannot_be(make, id, material, message):
    """A key that is too weak, or is none, is refused by the name of the field, and never shown."""
    with pytest.raises(ConfigurationError, match=f"signing key: {re.escape(message)}") as caught:
        getattr(SigningKey, make)(id, material)
    shown = "".join(traceback.format_exception(caught.value))
    assert "telltale" not in shown.lower().replace("test_", "")
    assert "PRIVATE KEY-----" not in shown


@pytest.mark.parametrize("make", ["ed25519", "ed25519_public"])
def test_without_cryptography(make, monkeypatch):
    """HMAC works without the extra; Ed25519 says what to install."""
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    with pytest.raises(ConfigurationError, match=r"needs the package cryptography; install stem-trio\[signing\]"):
        getattr(SigningKey, make)("k", bytes(32))
    hmac_signer().verify(hmac_signer().sign(FULL))


def test_no_secret_shows():
    """G16: neither keys nor signers nor their configuration show a secret, whoever prints, dumps or pickles them."""
    hidden = [SECRET, PRIVATE]
    forms = [form for raw in hidden for form in (repr(raw)[2:-1], text(raw), raw.hex())]
    key, private = SigningKey.hmac_sha256("k1", SECRET), SigningKey.ed25519("e1", PRIVATE)
    config = SigningConfig(keys=(key, private), active="k1")
    signer = PayloadSigner.maybe(config)
    for thing in (key, private, config, signer):
        for shown in (repr(thing), str(thing), f"{thing}"):
            assert not [form for form in forms if form in shown]
        with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
            pickle.dumps(thing)
    for one in (key, private):
        for name in (*SigningKey.__slots__, "public"):
            assert getattr(one, name) not in hidden
    assert repr(key) == "<SigningKey k1 hmac-sha256>"
    assert repr(PUBLIC) == "<SigningKey p ed25519 verifies only>"
    assert repr(signer) == "<PayloadSigner k1, e1; signs with k1; required>"
    assert repr(PayloadSigner([PUBLIC], required=False)) == "<PayloadSigner p; verifies only; not required>"


# --- other languages ----------------------------------------------------------------------------------------------


def vectors() -> list[dict]:
    """The test vectors of the documentation."""
    [block] = re.findall(r"^```json\n(\[.*?)^```", DOCS.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return json.loads(block)


def test_there_are_vectors():
    """Of both algorithms."""
    assert {vector["algorithm"] for vector in vectors()} == {"hmac-sha256", "ed25519"}
    assert len(vectors()) >= 4


@pytest.mark.parametrize("vector", vectors(), ids=lambda vector: vector["title"])
def test_vectors(vector):
    """G16: the vectors of the documentation are right, by this package and by the bare primitives."""
    message, key = vector["signed"].encode(), base64.b64decode(vector["key"])
    if vector["algorithm"] == "hmac-sha256":
        signer = PayloadSigner([SigningKey.hmac_sha256(vector["key_id"], vector["key"])])
        value = hmac.new(key, message, hashlib.sha256).digest()
    else:
        signer = PayloadSigner([SigningKey.ed25519(vector["key_id"], vector["key"])])
        value = Ed25519PrivateKey.from_private_bytes(key).sign(message)
        assert text(public_of(key)) == vector["public"]
    assert text(value) == vector["value"]
    envelope = Envelope.decode(vector["message"].encode())
    assert envelope.encode().decode() == vector["message"]
    assert signed_bytes(envelope) == message
    signer.verify(envelope)
    due_at = envelope.signature.due_at
    assert signer.sign(msgspec.structs.replace(envelope, signature=None), due_at=due_at) == envelope
    # What the page says of how one becomes the other, taken at its word.
    line, _, body = vector["signed"].partition("\n")
    assert line == "stem-trio envelope signature 1"
    assert body.endswith("}}")
    assert body[:-2] + f',"value":"{vector["value"]}"' + "}}" == vector["message"]
