"""The options of every client of Kafka, and librdkafka's properties for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ulogd_tw.core.libraries import install, is_there
from ulogd_tw.core.options import Option, boolean, one_of, text, words
from ulogd_tw.core.paths import input_file
from ulogd_tw.storing.passwords import PASS_FILE, mistaken_password, password_of

LIBRARY = "confluent_kafka"
STATISTICS_S = 5
"""Seconds between two statistics of librdkafka."""
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_OURS = ("bootstrap.servers", "group.id", "enable.auto.commit", "enable.auto.offset.store", "message.timeout.ms")
"""Properties that would break what is promised if they were set by hand."""

CLIENT = (
    Option("brokers", words, None, "Brokers to begin with, such as \"kafka1:9092 kafka2:9092\"; they tell the others.",
           mandatory=True),
    Option("topic", text, None, "Name of the topic.", mandatory=True),
    Option("tls", boolean, False, "1: connect over TLS, and verify the brokers' certificates and names."),
    Option("ssl_ca", input_file, "", "File with the CAs of the brokers' certificates (PEM), for tls. Empty: those of "
           "the system."),
    Option("ssl_cert", input_file, "", "File with our certificate for the brokers (PEM). Empty: none."),
    Option("ssl_key", input_file, "", "File with the private key of ssl_cert (PEM)."),
    Option("user", text, "", "User name at the brokers, by SASL. Empty: no SASL."),
    Option("pass", text, "", "Password of the user."),
    PASS_FILE,
    Option("mechanism", one_of(*_MECHANISMS), "SCRAM-SHA-512", "Mechanism of SASL. PLAIN sends the password as it is: "
           "set tls, too."),
    Option("properties", words, (), "Further properties of librdkafka, such as "
           "\"linger.ms=20 client.rack=a\"."),
)  # fmt: skip
"""Options of inputs and outputs of Kafka."""


def mistakes(config: Any, name: str) -> Iterator[tuple[str, str]]:
    """What is wrong with the common options of a plugin of this name."""
    if not is_there(LIBRARY):
        yield "brokers", f"{name} needs {LIBRARY}: {install(LIBRARY)}"
    yield from mistaken_password(config)
    if config.user and not config.pass_ and not config.pass_file:
        yield "user", "has no password; set pass_file="
    if (config.pass_ or config.pass_file) and not config.user:
        yield "user", "is missing, but there is a password; set user="
    if not config.tls:
        for option in ("ssl_ca", "ssl_cert", "ssl_key"):
            if getattr(config, option):
                yield option, "has no effect without tls=1"
    if bool(config.ssl_cert) != bool(config.ssl_key):
        yield "ssl_cert", "needs ssl_key, and ssl_key needs it"
    yield from _mistaken_properties(config.properties)


def _mistaken_properties(properties: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for word in properties:
        name, equals, _ = word.partition("=")
        if not equals:
            yield "properties", f"{word} is not NAME=VALUE"
        elif name in _OURS:
            yield "properties", f"{name} is set by this program; leave it out"


def remarks(config: Any) -> Iterator[tuple[str, str]]:
    """What works, but may be a mistake."""
    if config.user and config.mechanism == "PLAIN" and not config.tls:
        yield "mechanism", "the password crosses the network as it is; set tls=1"


def common(config: Any, instance: str) -> dict[str, Any]:
    """The properties of a client. Raises OSError where pass_file cannot be read."""
    found: dict[str, Any] = {
        "bootstrap.servers": ",".join(config.brokers),
        "client.id": f"ulogd-tw-{instance}",
        "statistics.interval.ms": STATISTICS_S * 1000,
        "log_level": 0,
        "reconnect.backoff.max.ms": 2000,
        "security.protocol": ("SASL_" if config.user else "") + ("SSL" if config.tls else "PLAINTEXT"),
    }
    if config.tls:
        files = {"ssl.ca.location": "ssl_ca", "ssl.certificate.location": "ssl_cert", "ssl.key.location": "ssl_key"}
        found |= {name: path for name, option in files.items() if (path := getattr(config, option))}
    if config.user:
        password = password_of(config.pass_file).decode() if config.pass_file else config.pass_
        found |= {"sasl.mechanism": config.mechanism, "sasl.username": config.user, "sasl.password": password}
    return found


def further(config: Any) -> dict[str, str]:
    """The properties of the option properties."""
    return {name: value for name, _, value in (word.partition("=") for word in config.properties)}
