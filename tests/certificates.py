"""Certificates for tests, made with `cryptography`: a CA, and what it signs."""

import datetime
import ipaddress
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

DAY = datetime.timedelta(days=1)
USES = {"client": x509.ExtendedKeyUsageOID.CLIENT_AUTH, "server": x509.ExtendedKeyUsageOID.SERVER_AUTH}


class CA:
    """A certificate authority in a directory; `above` has signed it, or it stands for itself. `file` is its own."""

    def __init__(self, directory, name="ca", above=None):
        self.directory = Path(directory).absolute()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.key = ec.generate_private_key(ec.SECP256R1())
        signer = above or self
        builder = self._builder(self.name, signer.name, self.key.public_key(), -DAY, 3650 * DAY)
        builder = builder.add_extension(x509.BasicConstraints(True, None), True)
        self.certificate = builder.sign(signer.key, hashes.SHA256())
        self.above = [self.certificate, *above.above] if above else []
        self.file = self._write(f"{name}.pem", pem(self.certificate))

    def _builder(self, subject, issuer, key, begins, ends):
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number(), now + begins, now + ends)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key)
        builder = builder.add_extension(identifier, False)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return builder.add_extension(authority, False) if issuer == self.name and subject != issuer else builder

    def _write(self, name, octets, mode=0o644):
        """A file that takes the place of another in one step; its path as text."""
        path, fresh = self.directory / name, self.directory / f"{name}.new"
        fresh.unlink(missing_ok=True)
        fresh.touch(mode)
        fresh.write_bytes(octets)
        os.replace(fresh, path)
        return str(path)

    def issue(self, file, *names, begins=-DAY, ends=90 * DAY, use=None, common_name="", strong=True):
        """A certificate for DNS names and addresses, and its key, as ``FILE.pem`` and ``FILE.key``: their paths."""
        key = ec.generate_private_key(ec.SECP256R1()) if strong else rsa.generate_private_key(65537, 1024)
        subject = [x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)] if common_name else []
        builder = self._builder(x509.Name(subject), self.name, key.public_key(), begins, ends)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(list(map(_name, names))), not subject)
        if use:
            builder = builder.add_extension(x509.ExtendedKeyUsage([USES[use]]), False)
        certificate = builder.sign(self.key, hashes.SHA256())
        octets = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        key_file = self._write(f"{file}.key", octets, 0o600)
        return self._write(f"{file}.pem", b"".join(map(pem, [certificate, *self.above]))), key_file


IN_DOCUMENTS = "/etc/ulogd/tls"
"""Where the certificates of documents and examples are."""


def with_certificates(case, text):
    """A configuration of the documents, with files that the how-to makes in the place of those in /etc/ulogd/tls."""
    if IN_DOCUMENTS not in text:
        return text
    ca = CA(case.mktemp())
    ca.issue("collector.example", "collector.example")
    ca.issue("router.example", "router.example")
    ca._write("office-ca.pem", pem(ca.certificate))
    return text.replace(IN_DOCUMENTS, str(ca.directory))


def _name(text):
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def pem(certificate):
    """A certificate as it stands in a file."""
    return certificate.public_bytes(serialization.Encoding.PEM)
