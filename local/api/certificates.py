"""byoa's own certificate authority, and a certificate for each AWS host that the proxy plays.

The authority lives in `$BYOA_HOME/ca`: its key is readable by its owner only. Hosts' certificates
are made on demand and share one key that never leaves the process's private directory.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import ipaddress
import os
import secrets
import ssl
import tempfile
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

CA_DAYS = 3650
HOST_DAYS = 397  # the longest that browsers and Java accept of a host's certificate
RENEW_DAYS = 400  # a CA that would not outlive its hosts' certificates is replaced
CONTEXTS = 256  # hosts whose TLS contexts are kept

__all__ = ["Authority"]


class Authority:
    """The authority in `directory`, made when it is not there yet."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = threading.Lock()
        self._contexts: OrderedDict[str, ssl.SSLContext] = OrderedDict()
        self._loaded: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None = None
        self._host_key: ec.EllipticCurvePrivateKey | None = None

    @property
    def certificate(self) -> Path:
        """The authority's certificate (PEM), for clients to trust."""
        path = self.directory / "ca.pem"
        with self._lock:
            self._load()
        return path

    def context(self, host: str) -> ssl.SSLContext:
        """A server's TLS context for `host`, with a certificate in its name."""
        host = host.lower()
        with self._lock:
            context = self._contexts.pop(host, None)
            if context is None:
                context = self._issue(host)
            self._contexts[host] = context
            while len(self._contexts) > CONTEXTS:
                self._contexts.popitem(last=False)
            return context

    def _load(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        if self._loaded is None:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(self.directory / "lock", "w") as lock:
                # `byoa env` and the server may both be the first.
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._loaded = self._read() or self._create()
        return self._loaded

    def _read(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None:
        """What is stored; None where it is missing, unreadable, about to expire or no pair."""
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            stored = (self.directory / "ca.key").read_bytes()
            certificate = x509.load_pem_x509_certificate((self.directory / "ca.pem").read_bytes())
            key = load_pem_private_key(stored, password=None)
        except (OSError, ValueError):
            return None
        until = certificate.not_valid_after_utc - _now()
        if until < datetime.timedelta(days=RENEW_DAYS):
            return None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            return None
        return (certificate, key) if key.public_key() == certificate.public_key() else None

    def _create(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID

        key = ec.generate_private_key(ec.SECP256R1())
        # The serial in the name keeps a replaced authority from being taken for this one.
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "byoa"),
                x509.NameAttribute(
                    NameOID.COMMON_NAME, f"byoa local authority {secrets.token_hex(4)}"
                ),
            ]
        )
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        certificate = (
            _builder(name, name, key.public_key(), CA_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(ca=True), critical=True)
            .add_extension(identifier, critical=False)
            .sign(key, hashes.SHA256())
        )
        # The key first: a certificate on disk always has its key.
        _write(self.directory / "ca.key", _private_pem(key), 0o600)
        _write(self.directory / "ca.pem", _pem(certificate), 0o644)
        return certificate, key

    def _issue(self, host: str) -> ssl.SSLContext:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

        authority, authority_key = self._load()
        if self._host_key is None:
            self._host_key = ec.generate_private_key(ec.SECP256R1())
        key = self._host_key
        # A common name has 64 characters at most; clients read the alternative name.
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])])
        certificate = (
            _builder(subject, authority.subject, key.public_key(), HOST_DAYS)
            .add_extension(x509.SubjectAlternativeName([_alternative(host)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(ca=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()),
                critical=False,
            )
            .sign(authority_key, hashes.SHA256())
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        # `ssl` reads certificates from files only; this one is gone again at once.
        with tempfile.TemporaryDirectory(prefix="byoa-tls-") as private:
            path = Path(private) / "host.pem"
            _write(path, _private_pem(key) + _pem(certificate) + _pem(authority), 0o600)
            context.load_cert_chain(path)
        return context


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    from cryptography import x509

    start = _now() - datetime.timedelta(days=1)  # containers' clocks may be behind
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=days))
    )


def _usage(*, ca: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(host: str) -> x509.GeneralName:
    from cryptography import x509

    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(host))
    return x509.DNSName(host)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def _pem(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, data: bytes, mode: int) -> None:
    """Write whole or not at all; the file never exists with a wider mode than `mode`."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
