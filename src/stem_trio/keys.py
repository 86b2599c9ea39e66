"""Keys for signing envelopes. What a key does is bound to it when it is made; nothing shows its secret."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from typing import TYPE_CHECKING, Any, Final, final

from .errors import ConfigurationError, SigningError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ALGORITHMS", "ED25519", "HMAC_SHA256", "SigningKey"]

HMAC_SHA256: Final = "hmac-sha256"
ED25519: Final = "ed25519"
ALGORITHMS: Final = (HMAC_SHA256, ED25519)

_MIN_SECRET: Final = 32
_ED25519_SIZE: Final = 32
# Ids travel with each task, stand in lists in the environment, and come up in messages and logs.
_ID: Final = re.compile(r"[A-Za-z0-9._/-]{1,64}")
_PEM: Final = b"-----BEGIN"


@final
class SigningKey:
    """One key, for one algorithm. Made by the class methods; equal to nothing but itself.

    Attributes:
        id: what envelopes call it.
        algorithm: ``"hmac-sha256"`` or ``"ed25519"``.
    """

    # The secret lives in these functions only: not in an attribute that a debugger, a repr or a dump of fields shows.
    __slots__ = ("_check", "_public", "_sign", "algorithm", "id")

    def __init__(
        self,
        id: str,
        algorithm: str,
        *,
        sign: Callable[[bytes], bytes] | None,
        check: Callable[[bytes, bytes], bool],
        public: bytes | None = None,
    ) -> None:
        self.id: Final = id
        self.algorithm: Final = algorithm
        self._sign = sign
        self._check = check
        self._public = public

    def __repr__(self) -> str:
        return f"<SigningKey {self.id} {self.algorithm}{'' if self.can_sign else ' verifies only'}>"

    @property
    def can_sign(self) -> bool:
        """Whether it can sign; any key can verify."""
        return self._sign is not None

    @property
    def public(self) -> bytes | None:
        """The 32 bytes of the public key; None for a shared secret."""
        return self._public

    @classmethod
    def hmac_sha256(cls, id: str, secret: bytes | str) -> SigningKey:
        """A secret that producers and workers share: whoever can verify can sign.

        Args:
            id: up to 64 letters, digits and ``. _ / -``.
            secret: at least 32 random bytes, or these as base64 text.

        Raises:
            ConfigurationError: one of them cannot be used. Never shows it.
        """
        _check_id(id)
        raw = _raw("secret", secret)
        if len(raw) < _MIN_SECRET:
            raise _problem("secret", f"has {len(raw)} bytes; use at least {_MIN_SECRET} random ones")

        def sign(message: bytes) -> bytes:
            return hmac.digest(raw, message, "sha256")

        def check(message: bytes, value: bytes) -> bool:
            return hmac.compare_digest(hmac.digest(raw, message, "sha256"), value)

        return cls(id, HMAC_SHA256, sign=sign, check=check)

    @classmethod
    def ed25519(cls, id: str, private: bytes | str) -> SigningKey:
        """A private key, for producers. Needs ``stem-trio[signing]``.

        Args:
            id: up to 64 letters, digits and ``. _ / -``.
            private: the 32 bytes of the key, these as base64 text, or PEM (PKCS #8, not encrypted).

        Raises:
            ConfigurationError: one of them cannot be used, or the package ``cryptography`` is missing. Never shows it.
        """
        _check_id(id)
        primitives, serialization = _cryptography()
        raw = _pem_or_raw("private", private)
        if raw.startswith(_PEM):
            try:
                key = serialization.load_pem_private_key(raw, password=None)
            except Exception as error:  # noqa: BLE001 - of several classes, with messages that may tell of the key
                raise _problem("private", f"is no PEM private key without password ({type(error).__name__})") from None
            if not isinstance(key, primitives.Ed25519PrivateKey):
                raise _problem("private", "is a PEM key of another algorithm; make an Ed25519 key")
        else:
            key = primitives.Ed25519PrivateKey.from_private_bytes(_sized("private", raw))
        public = key.public_key()
        return cls(id, ED25519, sign=key.sign, check=_ed25519_check(public), public=public.public_bytes_raw())

    @classmethod
    def ed25519_public(cls, id: str, public: bytes | str) -> SigningKey:
        """A public key, for workers: it verifies, and cannot sign. Needs ``stem-trio[signing]``.

        Args:
            id: up to 64 letters, digits and ``. _ / -``.
            public: the 32 bytes of the key, these as base64 text, or PEM.

        Raises:
            ConfigurationError: one of them cannot be used, or the package ``cryptography`` is missing.
        """
        _check_id(id)
        primitives, serialization = _cryptography()
        raw = _pem_or_raw("public", public)
        if raw.startswith(_PEM):
            try:
                key = serialization.load_pem_public_key(raw)
            except Exception as error:  # noqa: BLE001 - of several classes
                raise _problem("public", f"is no PEM public key ({type(error).__name__})") from None
            if not isinstance(key, primitives.Ed25519PublicKey):
                raise _problem("public", "is a PEM key of another algorithm; make an Ed25519 key")
        else:
            key = primitives.Ed25519PublicKey.from_public_bytes(_sized("public", raw))
        return cls(id, ED25519, sign=None, check=_ed25519_check(key), public=key.public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """The signature of a message.

        Raises:
            SigningError: it is a public key.
        """
        if self._sign is None:
            raise SigningError(f"key {self.id!r} is a public key: it verifies, and cannot sign; use the private key")
        return self._sign(message)

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Whether this is the signature of the message. Takes the same time for every wrong one."""
        return self._check(message, signature)


def _check_id(id: object) -> None:
    # Not shown: who mixes up the arguments passes the secret here.
    if not isinstance(id, str) or _ID.fullmatch(id) is None:
        raise _problem("id", "must be 1 to 64 letters, digits and . _ / -")


def _raw(field: str, value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise _problem(field, f"must be bytes, or text in base64, not {type(value).__name__}")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise _problem(field, "is text that is not base64 (standard alphabet, padded with =)") from None


def _pem_or_raw(field: str, value: object) -> bytes:
    if isinstance(value, str) and value.lstrip().startswith(_PEM.decode()):
        return value.lstrip().encode()
    return _raw(field, value)


def _sized(field: str, raw: bytes) -> bytes:
    if len(raw) != _ED25519_SIZE:
        raise _problem(field, f"has {len(raw)} bytes; an Ed25519 key has {_ED25519_SIZE}")
    return raw


def _problem(field: str, problem: str) -> ConfigurationError:
    return ConfigurationError(f"signing key: {field}: {problem}")


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - optional
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 - optional
    except ImportError:
        raise ConfigurationError(
            "signing key: algorithm: ed25519 needs the package cryptography; install stem-trio[signing]"
        ) from None
    return ed25519, serialization


def _ed25519_check(public: Any) -> Callable[[bytes, bytes], bool]:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - optional

    def check(message: bytes, value: bytes) -> bool:
        try:
            public.verify(value, message)
        except InvalidSignature:
            return False
        return True

    return check
