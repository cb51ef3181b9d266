"""Signs and checks with ed25519 (RFC 8032): the one room that meets ``cryptography``."""

from __future__ import annotations

import base64
import re

KIND = "ed25519:"
"""How a public key begins in the config."""

LENGTH = 32
"""Bytes of a key, public or secret."""


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


def is_key_name(text: str) -> bool:
    """Return whether a key may be called so: its name stands in records, configs and messages."""
    return _NAME.fullmatch(text) is not None


class NotKey(ValueError):
    """A text is not the key that it should be; nothing of it is in the message."""


def public_key(text: str) -> bytes:
    """Return the 32 bytes of a public key of the config: ``ed25519:`` and base64. Raises NotKey."""
    if not text.startswith(KIND):
        raise NotKey(f"a public key begins with {KIND}")
    return _decoded(text.removeprefix(KIND), "a public key")


def secret_key(text: str) -> bytes:
    """Return the 32 bytes of a secret key, written in base64. Raises NotKey."""
    return _decoded(text.strip(), "the signing key")


def _decoded(text: str, what: str) -> bytes:
    try:
        found = base64.b64decode(text, validate=True)
    except ValueError:
        found = b""
    if len(found) != LENGTH:
        raise NotKey(f"{what} is {LENGTH} bytes in base64, which this is not")
    return found


def encode_secret(secret: bytes) -> str:
    """Return a secret key, 32 bytes by chance, as :func:`secret_key` reads it."""
    return base64.b64encode(secret).decode("ascii")


def public_of(secret: bytes) -> str:
    """Return the public key that belongs to a secret one, as the config has it."""
    raw = _private(secret).public_key().public_bytes_raw()
    return KIND + base64.b64encode(raw).decode("ascii")


def sign(message: bytes, secret: bytes) -> bytes:
    """Return the signature of *message*."""
    signature: bytes = _private(secret).sign(message)
    return signature


def _private(secret: bytes):  # type: ignore[no-untyped-def]  # noqa: ANN202 - the library is loaded late
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    return Ed25519PrivateKey.from_private_bytes(secret)


def is_signed(message: bytes, signature: bytes, public: bytes) -> bool:
    """Return whether *signature* is that of *message* by the holder of the *public* key's secret."""
    # Loaded only by those who ask a remote: it takes 20 ms.
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
