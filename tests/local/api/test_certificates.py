"""The authority and the certificates that it signs."""

from __future__ import annotations

import datetime
import socket
import ssl
import stat
import threading

import pytest
from cryptography import x509

from byoa.local.api.certificates import CONTEXTS, Authority


def _handshake(authority, host, *, trust=None, name=None):
    """The peer certificate (DER) that a client who trusts `trust` accepts for `name`."""
    client_context = ssl.create_default_context(cafile=str(trust or authority.certificate))
    client_context.verify_flags |= ssl.VERIFY_X509_STRICT
    context = authority.context(host)
    one, two = socket.socketpair()

    def serve():
        try:
            with context.wrap_socket(two, server_side=True) as tls:
                tls.recv(1)
        except OSError:
            pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with one, client_context.wrap_socket(one, server_hostname=name or host) as tls:
            return tls.getpeercert(binary_form=True)
    finally:
        one.close()
        thread.join(10)
        two.close()


@pytest.mark.parametrize("host", [
    "sts.us-west-2.amazonaws.com", "127.0.0.1",
    "a-bucket-with-quite-a-long-name-0123456789-0123456789-012345.s3.us-west-2.amazonaws.com"])
def test_a_strict_client_accepts_the_certificate_of_the_host(tmp_path, host):
    certificate = x509.load_der_x509_certificate(_handshake(Authority(tmp_path / "ca"), host))
    now = datetime.datetime.now(datetime.timezone.utc)
    assert certificate.not_valid_before_utc < now - datetime.timedelta(hours=1)
    assert now < certificate.not_valid_after_utc < now + datetime.timedelta(days=398)


def test_a_certificate_is_good_for_its_own_host_only(tmp_path):
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(Authority(tmp_path / "ca"), "sts.us-west-2.amazonaws.com",
                   name="iam.amazonaws.com")


def test_another_authority_is_not_trusted(tmp_path):
    other = Authority(tmp_path / "other").certificate
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(Authority(tmp_path / "ca"), "iam.amazonaws.com", trust=other)


def test_the_key_is_its_owner_s_only(tmp_path):
    authority = Authority(tmp_path / "ca")
    assert authority.certificate.is_file()
    assert stat.S_IMODE((tmp_path / "ca" / "ca.key").stat().st_mode) == 0o600
    assert b"PRIVATE" not in authority.certificate.read_bytes()


def test_the_authority_outlives_its_process_and_is_shared(tmp_path):
    first = Authority(tmp_path / "ca").certificate.read_bytes()
    second = Authority(tmp_path / "ca")
    assert second.certificate.read_bytes() == first
    _handshake(second, "iam.amazonaws.com")


def test_two_that_start_at_once_agree_on_one_authority(tmp_path):
    authorities = [Authority(tmp_path / "ca") for _ in range(6)]
    threads = [threading.Thread(target=lambda a=a: a.certificate) for a in authorities]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for authority in authorities:
        _handshake(authority, "iam.amazonaws.com", trust=tmp_path / "ca" / "ca.pem")


@pytest.mark.parametrize("damage", ["missing key", "foreign key", "no certificate"])
def test_a_damaged_authority_is_replaced(tmp_path, damage):
    before = Authority(tmp_path / "ca").certificate.read_bytes()
    key, pem = tmp_path / "ca" / "ca.key", tmp_path / "ca" / "ca.pem"
    if damage == "missing key":
        key.unlink()
    elif damage == "foreign key":
        Authority(tmp_path / "other").certificate.touch()
        key.write_bytes((tmp_path / "other" / "ca.key").read_bytes())
    else:
        pem.write_text("nothing")
    authority = Authority(tmp_path / "ca")
    assert authority.certificate.read_bytes() != before
    _handshake(authority, "iam.amazonaws.com")


def test_an_authority_that_is_about_to_expire_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr("byoa.local.api.certificates.CA_DAYS", 300)
    old = Authority(tmp_path / "ca").certificate.read_bytes()
    monkeypatch.undo()
    assert Authority(tmp_path / "ca").certificate.read_bytes() != old


def test_contexts_are_kept_per_host_and_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("byoa.local.api.certificates.CONTEXTS", 3)
    authority = Authority(tmp_path / "ca")
    first = authority.context("a.amazonaws.com")
    assert authority.context("A.amazonaws.com") is first
    for name in "bcd":
        authority.context(f"{name}.amazonaws.com")
    assert len(authority._contexts) == 3
    assert authority.context("a.amazonaws.com") is not first
    assert CONTEXTS >= 64
