"""Endpoint strings that begin with ``sctp:``, see `ulogd_tw.transports.sctp.endpoints`.

Every program that parses an endpoint string imports this file, so nothing heavy is imported here.
"""

from twisted.internet.interfaces import IStreamClientEndpointStringParserWithReactor, IStreamServerEndpointStringParser
from twisted.plugin import IPlugin
from zope.interface import implementer


@implementer(IPlugin, IStreamServerEndpointStringParser, IStreamClientEndpointStringParserWithReactor)
class SCTPEndpoints:
    """Both directions."""

    prefix = "sctp"

    def parseStreamServer(self, reactor, *arguments, **keywords):
        """``sctp:PORT`` with keywords."""
        from ulogd_tw.transports.sctp import endpoints

        return endpoints.server(reactor, *arguments, **keywords)

    def parseStreamClient(self, reactor, *arguments, **keywords):
        """``sctp:HOST:PORT`` with keywords."""
        from ulogd_tw.transports.sctp import endpoints

        return endpoints.client(reactor, *arguments, **keywords)


sctp = SCTPEndpoints()
