"""What is no question is refused with what to write instead."""

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.flows import made
from tests.unit.flows.made import HOUR, flow
from tests.unit.flows.test_asking import StoreCase
from ulogd_tw.flows import questions
from ulogd_tw.flows.errors import QuestionError

_MISTAKES = (
    ({"by": "srcip,,"}, "^by: member 2 of 3 is empty; remove a comma"),
    ({"by": ["srcip", " "]}, "^by: member 2 of 2 is empty"),
    ({"by": ","}, "^by is empty; name one or more"),
    ({"sums": "octets,", "by": "srcip"}, "^sums: member 2 of 2 is empty"),
    ({"columns": "octets,,packets"}, "^columns: member 2 of 3 is empty"),
    ({"columns": [""]}, "^columns is empty"),
    ({"order": "", "by": "srcip"}, "^order is empty; name a column"),
    ({"order": "+", "by": "srcip"}, "^order is empty; name a column"),
    ({"order": "+-octets", "by": "srcip"}, r"^\+-octets is no column to order by; there are sourceAddress"),
    ({"by": "srcip/33"}, "^sourceAddress/33: an IPv4 prefix has at most 32 bits; write sourceAddress/32:33"),
    ({"by": "ip/64"}, "write sourceAddress/32:64 for the first 64 bits of IPv6"),
    ({"by": "srcip/129"}, "^sourceAddress/129: a prefix has 0 to 32 bits, in IPv6 0 to 128"),
    ({"by": "srcip/24:200"}, "^sourceAddress/24:200: a prefix has 0 to 32 bits, in IPv6 0 to 128"),
    ({"by": "sourceIPv6Address/129"}, "^sourceIPv6Address/129: a prefix has"),
    ({"by": "srcip/24:"}, "write a number after the slash"),
    ({"by": "srcip/\u0663"}, "write a number after the slash"),
    ({"by": "dstport/0"}, "^destinationTransportPort/0: the number after the slash must be 1 or more"),
)


class MistakesTests(SynchronousTestCase):
    """Parts of a question that mean nothing."""

    def test_refused(self):
        """Each is an error that names the part and its remedy."""
        for body, expected in _MISTAKES:
            with self.assertRaisesRegex(QuestionError, expected, msg=str(body)):
                questions.of(body)

    def test_taken(self):
        """The nearest ones that mean something are taken."""
        for by in ("srcip/32", "srcip/32:33", "srcip/24:128", "sourceIPv6Address/64", "dstport/1", "srcip , dstip"):
            self.assertTrue(questions.of({"by": by}).by, by)
        question = questions.of({"by": "srcip/24", "order": "-srcip/24"})
        self.assertEqual("sourceAddress/24", questions.ordered(question))


class StoredKeysTests(StoreCase):
    """Keys of a roll-up that a question may not spell so."""

    def test_one_prefix_of_both_families(self):
        """A roll-up of AGGREGATE by sourceAddress/64 answers a question by sourceAddress/32:64."""
        by = ("sourceAddress/64",)
        rows = [flow(1000) | {by[0]: made.address("2001:db8:0:1::")}]
        described = {"interval": 3600, "by": list(by), "time": "flow", "lateness": 60}
        made.write(self.place / "net", made.rolled(rows, by, HOUR), (*by, *made.SUMS), described, "net")
        found = self.groups("net", by="srcip/32:64", sums="octets")
        self.assertEqual({("2001:db8:0:1::",): [100]}, found)
