"""The tables of elements are what their script makes of their sources."""

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.core.data import elements
from ulogd_tw.core.types import TYPES

# The head and some lines of IANA's registry, descriptions shortened.
SOURCE = """\
ElementID,Name,Abstract Data Type,Data Type Semantics,Status,Description,Units,Range,References,Requester,Revision,Date
0,Reserved,,,,,,,,[RFC5102],,2013-02-18
1,octetDeltaCount,unsigned64,deltaCounter,current,"Octets since the previous report,
including headers.",octets,,,[RFC5102],0,2013-02-18
65-69,Assigned for NetFlow v9 compatibility,,,,,,,,[RFC5102],,2013-02-18
70,mplsTopLabelStackSection,octetArray,default,current,A label,,,,[RFC5102],1,2014-02-03
"""


class TablesTests(SynchronousTestCase):
    """The tables beside the script, and what it reads."""

    def test_iana(self):
        """IANA's table gives the rows that ours has; what is reserved is left out."""
        rows = list(elements.iana_rows(SOURCE.splitlines(keepends=True)))
        ours = elements.read("ipfix_elements.csv")
        self.assertEqual([row for row in ours if row["element_id"] in ("1", "70")], rows)

    def test_reverse(self):
        """The reverse elements are those of RFC 5103, and no others."""
        made = list(elements.reverse_rows(elements.read("ipfix_elements.csv")))
        held = [row for row in elements.read("enterprise_elements.csv") if row["pen"] == elements.REVERSE_PEN]
        self.assertEqual(held, made)
        names = {row["name"] for row in made}
        self.assertIn("reverseOctetDeltaCount", names)
        self.assertNotIn("reverseObservationDomainId", names)

    def test_sound(self):
        """No element twice, in order, and of types that there are."""
        for name, key, type_ in (
            ("ipfix_elements.csv", ("element_id",), "abstract_data_type"),
            ("enterprise_elements.csv", ("pen", "element_id"), "type"),
            ("netflow_v9_elements.csv", ("field_type",), "type"),
        ):
            rows = elements.read(name)
            numbers = [tuple(int(row[column]) for column in key) for row in rows]
            self.assertEqual(sorted(set(numbers)), numbers, name)
            self.assertEqual(set(), {row[type_] for row in rows} - {*TYPES, "ipv6address"}, name)
