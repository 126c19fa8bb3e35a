"""Certificates and keys for TLS: read from files, checked, read again after changes, and made into contexts.

Both ends show a certificate and verify the other's: TLS 1.2 and later, cipher suites with forward secrecy and
authenticated encryption only. Names are those of the subjectAltName; a Common Name counts for nothing (RFC 9525).
"""

from __future__ import annotations

import ipaddress
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL, crypto

from ulogd_tw.core.errors import StartError
from ulogd_tw.core.regular_file import open_regular
from ulogd_tw.transports.errors import TlsError
from ulogd_tw.transports.tls.layer import Layer, last_words, told, verified

CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL:!eNULL"
"""Of (D)TLS 1.2: those of TLS 1.3 are all of this kind."""
DTLS1_2_VERSION = 0xFEFD
ENDS_SOON = 14 * 86400
"""Seconds before the end of our certificate from which the log warns of it."""
_IN_DIRECTORY = (".pem", ".crt", ".cer")
_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.(?!-)[A-Za-z0-9_-]{1,63})*\.?")


def wrong_name(name: str) -> str:
    """Why this can be no name of a peer in a certificate; nothing where it can."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        if "*" in name:
            return f"{name}: a name has no * here (a certificate may have one)"
        if not _NAME.fullmatch(name) or re.fullmatch(r"[0-9.]+", name):
            return f"{name} is neither a host name nor an IP address"
    return ""


@dataclass(frozen=True)
class Files:
    """Paths of the certificates: the trusted ones (a file or a directory), our own with its chain, our key.

    An empty `private_key` means that the key is in the file of `cert`. Without `verify` nobody is trusted and `ca` is
    not read.
    """

    ca: str
    cert: str
    private_key: str = ""
    verify: bool = True

    @property
    def key(self) -> str:
        return self.private_key or self.cert

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """(option, what is wrong with it), for every file."""
        if self.verify and not self.ca:
            yield (
                "ca",
                "must be given for TLS: the certificates of the CAs that sign the peers, a file or a directory",
            )
        elif self.verify and (text := _fault(read_trusted, self.ca)):
            yield "ca", text
        if not self.cert:
            yield "cert", "must be given for TLS: our certificate, followed by the intermediate certificates"
            return
        wrong = _fault(read_chain, self.cert)
        if wrong:
            yield "cert", wrong
            if self.key == self.cert:
                return
        wrong_key = _fault(read_key, self.key)
        if wrong_key:
            yield "private_key", wrong_key
        elif not wrong and (text := _fault(self._pair)):
            yield "private_key", text

    def _pair(self) -> tuple[list[x509.Certificate], Any]:
        """The chain and the key of its first certificate. Raises TlsError."""
        chain, key = read_chain(self.cert), read_key(self.key)
        if _public(chain[0].public_key()) != _public(key.public_key()):
            raise TlsError(f"{self.key} is not the key of the certificate in {self.cert}")
        return chain, key

    def signature(self) -> tuple[Any, ...]:
        """Another one when a file has changed."""
        return tuple(_stamp(path) for path in (*_files_of(self.ca), self.cert, self.key) if path)

    def context(self, server: bool, datagrams: bool = False) -> tuple[SSL.Context, x509.Certificate]:
        """A context of what the files have now, for TLS or DTLS, and our certificate. Raises TlsError."""
        chain, key = self._pair()
        trusted = read_trusted(self.ca) if self.verify else []
        try:
            made = SSL.Context(SSL.DTLS_METHOD if datagrams else SSL.TLS_METHOD)
            made.set_min_proto_version(DTLS1_2_VERSION if datagrams else SSL.TLS1_2_VERSION)
            if datagrams:
                made.set_max_proto_version(DTLS1_2_VERSION)
                made.set_options(SSL.OP_NO_QUERY_MTU)
            _fill(made, chain, key, trusted, server, self.verify)
            return made, chain[0]
        except SSL.Error as error:  # a key too short, a curve that OpenSSL does not take
            raise TlsError(f"{self.cert}: {last_words(error)}") from None


def _fill(made: SSL.Context, chain: list[Any], key: Any, trusted: list[Any], server: bool, verify: bool) -> None:
    made.set_cipher_list(CIPHERS)
    made.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_TICKET)
    made.use_certificate(crypto.X509.from_cryptography(chain[0]))
    for further in chain[1:]:
        made.add_extra_chain_cert(crypto.X509.from_cryptography(further))
    made.use_privatekey(crypto.PKey.from_cryptography_key(key))
    made.check_privatekey()
    store = made.get_cert_store()
    assert store is not None
    for certificate in trusted:
        store.add_cert(crypto.X509.from_cryptography(certificate))
    # Each certificate in `ca` is trusted as it is, even an intermediate CA.
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    mode = SSL.VERIFY_PEER | (SSL.VERIFY_FAIL_IF_NO_PEER_CERT if server else 0)
    made.set_verify(mode if verify else SSL.VERIFY_NONE, verified)
    made.set_info_callback(told)
    # Resuming a session would skip the verification. Without stateless tickets (OP_NO_TICKET) and without a cache a
    # ticket opens nothing; TLS 1.3 sends them all the same, and a client learns from them that it was accepted.
    made.set_session_id(b"ulogd_tw")
    made.set_session_cache_mode(SSL.SESS_CACHE_OFF)


class Credentials:
    """Our identity and the trusted peers: a context that follows its files.

    `names`: a peer must have one of them; none: any trusted certificate. `say` takes news for the administrator, as
    text. `datagrams`: for DTLS.
    """

    def __init__(
        self,
        files: Files,
        server: bool,
        names: tuple[str, ...] = (),
        say: Callable[[str], None] = lambda text: None,
        datagrams: bool = False,
    ) -> None:
        self.files = files
        self.datagrams = datagrams
        self.server = server
        self.names = names
        self._say = say
        self._context: SSL.Context | None = None
        self._seen: tuple[Any, ...] = ()

    def open(self) -> None:
        """Read the files. Raises TlsError."""
        self._seen = self.files.signature()
        self._context, ours = self.files.context(self.server, self.datagrams)
        left = ours.not_valid_after_utc.timestamp() - time.time()
        if left < ENDS_SOON:
            ends = ours.not_valid_after_utc.strftime("%Y-%m-%d %H:%M UTC")
            self._say(f"our certificate in {self.files.cert} {'ends' if left > 0 else 'has ended'} on {ends}")

    def opened(self) -> Self:
        """The same, with its files read. Raises StartError."""
        try:
            self.open()
        except TlsError as error:
            raise StartError(f"TLS: {error}") from None
        return self

    def reload(self) -> None:
        """Read the files anew; where one is of no use, what was read before goes on."""
        try:
            self.open()
        except TlsError as error:
            self._say(f"the previous certificates stay in use: {error}")
        else:
            self._say(f"certificates have been read again from {self.files.cert}")

    def layer(self) -> Layer:
        """One end of a new connection, after a look whether files have changed. `open` was called before."""
        return Layer(self.context(), self.server, self.names)

    def context(self) -> SSL.Context:
        """The context of the files as they are now, or of the last usable ones."""
        if self.files.signature() != self._seen:
            self.reload()
        assert self._context is not None
        return self._context


# --- files ----------------------------------------------------------------------------------------------------------


def read_trusted(path: str) -> list[x509.Certificate]:
    """The certificates of a file, or of every .pem, .crt and .cer file in a directory. Raises TlsError."""
    if not os.path.isdir(path):
        return read_chain(path)
    files = _files_of(path)
    if not files:
        raise TlsError(f"{path} has no file whose name ends in {', '.join(_IN_DIRECTORY)}")
    return [certificate for file in files for certificate in read_chain(file)]


def read_chain(path: str) -> list[x509.Certificate]:
    """The certificates of a file in PEM form, one at least. Raises TlsError."""
    try:
        return x509.load_pem_x509_certificates(_octets(path))
    except ValueError:
        raise TlsError(f"{path} has no certificate in PEM form (-----BEGIN CERTIFICATE-----)") from None


def read_key(path: str) -> Any:
    """A private key in PEM form, in a file that only its owner can read. Raises TlsError."""
    octets = _octets(path, private=True)
    try:
        return serialization.load_pem_private_key(octets, None)
    except TypeError:
        raise TlsError(
            f"{path} is encrypted, and a service cannot ask for the passphrase: "
            f"openssl pkey -in {path} -out {path}.plain writes it without one"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise TlsError(f"{path} has no private key in PEM form (-----BEGIN PRIVATE KEY-----)") from None


def _octets(path: str, private: bool = False) -> bytes:
    try:
        with open_regular(path) as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if private and mode & 0o077:
                raise TlsError(f"users other than its owner can read {path} (mode {mode:04o}): chmod 600 {path}")
            return file.read()
    except OSError as error:
        raise TlsError(f"{path}: {error.strerror or error}") from None


def _files_of(path: str) -> list[str]:
    """The file itself, or those of a directory."""
    try:
        names = sorted(os.listdir(path))
    except OSError:
        return [path]
    return [os.path.join(path, name) for name in names if name.endswith(_IN_DIRECTORY)]


def _stamp(path: str) -> tuple[Any, ...]:
    try:
        found = os.stat(path)
    except OSError as error:
        return path, error.errno
    return path, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _fault(read: Callable[..., Any], *words: Any) -> str:
    try:
        read(*words)
    except TlsError as error:
        return str(error)
    return ""


def _public(key: Any) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
