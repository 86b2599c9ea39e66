"""Signs envelopes, and verifies them before anything in them is believed.

What is signed is the wire form of the envelope with its signature in place as the last field, all but the `value`,
behind a line that says what is being signed. Nothing that changes while a task lives is in it, so that a signature
stays valid through renewal, release, retry, and replay of a dead letter. ``docs/security.md`` has the exact form, with
vectors for producers in other languages, and says what is not protected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import attrs
import msgspec

from ._validate import duration
from .envelope import Signature
from .errors import ConfigurationError, InvalidOptionError, SignatureInvalidError, SigningError
from .keys import SigningKey

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta
    from typing import Self

    from .envelope import Delivery, Envelope

__all__ = ["PayloadSigner", "SigningConfig", "SigningKey", "signed_bytes"]

_DOMAIN: Final = b"stem-trio envelope signature 1\n"


def signed_bytes(envelope: Envelope) -> bytes:
    """What the signature of an envelope is made over; `value` is left out, the rest of its signature is covered.

    Raises:
        ValueError: the envelope has no signature, not even one without value.
    """
    signature = envelope.signature
    if signature is None:
        raise ValueError("the envelope has no signature")
    bare = Signature(key=signature.key, algorithm=signature.algorithm, due_at=signature.due_at)
    return _DOMAIN + msgspec.structs.replace(envelope, signature=bare).encode()


@final
@attrs.frozen(kw_only=True)
class SigningConfig:
    """What a `PayloadSigner` is made of, as `StemConfig` reads it from the environment; see there for the fields."""

    keys: tuple[SigningKey, ...]
    active: str | None = None
    required: bool = True
    max_age: float | None = None


@final
class PayloadSigner:
    """Signs envelopes with one key, and verifies those that were signed with any of its keys.

    Given to a producer it signs each task. Given to a worker it verifies each delivery, and signs what handlers
    enqueue. With public keys only it verifies, and refuses to sign.

    Args:
        keys: all keys whose signatures are valid. Keep an old one among them until no task that it signed is left.
        active: id of the key to sign with; by default the only one that can sign, if there is one.
        required: refuse tasks that are not signed. Without it anybody can leave the signature out: for the time in
            which producers learn to sign, and no longer.
        max_age: seconds (or timedelta) that may pass between when a task was due first (when it was made, if without
            delay) and when it is first handed out, by the store's clock. Later hand-outs, after a retry, release,
            replay or lost lease, are not held to it; `TaskOptions.expires`, which is signed, bounds those. Has to
            exceed the longest backlog and the difference of the clocks. Default None: no bound.

    Raises:
        ConfigurationError: there are no keys, two have the same id, or `active` names none that can sign.
        InvalidOptionError: `required` or `max_age` is not legal.
    """

    __slots__ = ("_active", "_keys", "_max_age", "_required")

    def __init__(
        self,
        keys: Iterable[SigningKey],
        *,
        active: str | None = None,
        required: bool = True,
        max_age: float | timedelta | None = None,
    ) -> None:
        self._keys: dict[str, SigningKey] = {}
        for key in keys:
            if not isinstance(key, SigningKey):
                raise ConfigurationError("keys: must be SigningKey objects; make them with SigningKey.hmac_sha256(...)")
            if key.id in self._keys:
                raise ConfigurationError(f"keys: two have the id {key.id!r}; give one of them another id")
            self._keys[key.id] = key
        if not self._keys:
            raise ConfigurationError("keys: there are none; give at least one, or no signer")
        self._active = _active(self._keys, active)
        if not isinstance(required, bool):
            raise InvalidOptionError("required", required, "must be True or False")
        self._required = required
        self._max_age = None if max_age is None else duration("max_age", max_age, positive=True)

    def __repr__(self) -> str:
        signs = f"signs with {self._active.id}" if self._active is not None else "verifies only"
        mode = "required" if self._required else "not required"
        return f"<PayloadSigner {', '.join(self._keys)}; {signs}; {mode}>"

    @classmethod
    def maybe(cls, config: SigningConfig | None) -> Self | None:
        """A signer as it is configured; None when signing is not.

        Raises:
            ConfigurationError: as the class.
        """
        if config is None:
            return None
        return cls(config.keys, active=config.active, required=config.required, max_age=config.max_age)

    @property
    def required(self) -> bool:
        """Whether tasks that are not signed are refused."""
        return self._required

    @property
    def max_age(self) -> float | None:
        """Seconds that may pass between due time and first hand-out; None for no bound."""
        return self._max_age

    @property
    def active(self) -> str | None:
        """Id of the key that it signs with; None when it only verifies."""
        return None if self._active is None else self._active.id

    @property
    def keys(self) -> tuple[SigningKey, ...]:
        """The keys whose signatures are valid."""
        return tuple(self._keys.values())

    def sign(self, envelope: Envelope, *, due_at: float | None = None) -> Envelope:
        """The envelope with a signature, in place of one that it may have.

        Args:
            envelope: what to sign.
            due_at: when it is to be handed out first, seconds since the epoch; None when at once.

        Raises:
            SigningError: there are only keys to verify with.
        """
        key = self._active
        if key is None:
            raise SigningError("this signer has public keys only; give producers one with a private key")
        bare = Signature(key=key.id, algorithm=key.algorithm, due_at=due_at)
        unsigned = msgspec.structs.replace(envelope, signature=bare)
        value = key.sign(_DOMAIN + unsigned.encode())
        return msgspec.structs.replace(unsigned, signature=msgspec.structs.replace(bare, value=value))

    def verify(self, envelope: Envelope) -> None:
        """Check the signature of an envelope; decodes nothing of it.

        Raises:
            SignatureInvalidError: it has none although one is required, or one that is not valid.
        """
        signature = envelope.signature
        if signature is None:
            if self._required:
                raise SignatureInvalidError(envelope.id, "is not signed")
            return
        key = self._keys.get(signature.key)
        if key is None:
            raise SignatureInvalidError(envelope.id, f"is signed with the key {signature.key!r:.80}, which is unknown")
        # The key decides. A message that could choose would have a public key used as a secret.
        if signature.algorithm != key.algorithm:
            raise SignatureInvalidError(envelope.id, f"is not signed by {key.algorithm}, as key {key.id!r} demands")
        if not key.verifies(signed_bytes(envelope), signature.value):
            raise SignatureInvalidError(envelope.id, f"does not match its signature with key {key.id!r}")

    def verify_delivery(self, delivery: Delivery) -> None:
        """Check an envelope as it was handed out: its signature, that it came from its own queue, and in time.

        Raises:
            SignatureInvalidError: as `verify`; it was moved to another queue; or it is older than `max_age`.
        """
        envelope = delivery.envelope
        self.verify(envelope)
        signature = envelope.signature
        if signature is None:
            return
        if delivery.lease.queue != envelope.queue:
            raise SignatureInvalidError(envelope.id, "is signed for another queue than it was found in")
        if self._max_age is not None and delivery.deliveries <= 1:
            due_at = signature.due_at if signature.due_at is not None else envelope.created_at
            age = delivery.claimed_at - due_at
            if abs(age) > self._max_age:
                raise SignatureInvalidError(
                    envelope.id,
                    f"was handed out {age:.3g} s after it was due, outside of the {self._max_age:g} s allowed",
                )


def _active(keys: dict[str, SigningKey], active: str | None) -> SigningKey | None:
    signing = [key for key in keys.values() if key.can_sign]
    if active is None:
        if len(signing) > 1:
            names = ", ".join(repr(key.id) for key in signing)
            raise ConfigurationError(f"active: several keys can sign ({names}); name the one to use")
        return signing[0] if signing else None
    # What was passed is not shown: it may be a key, passed in the wrong place.
    key = keys.get(active)
    if key is None:
        raise ConfigurationError("active: is the id of none of the keys; name one of " + ", ".join(keys))
    if not key.can_sign:
        raise ConfigurationError(f"active: key {key.id!r} is a public key, which cannot sign; give its private key")
    return key
