"""Template Records: their octets read and written, and what is refused."""

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.ipfix import wire
from ulogd_tw.core.errors import MessageError
from ulogd_tw.ipfix.template import (
    VARIABLE,
    Field,
    Template,
    Unusable,
    Withdrawal,
    encode_record,
    parse_set,
)

fields = st.lists(
    st.builds(
        Field, st.one_of(st.just(0), st.integers(1, (1 << 32) - 1)), st.integers(0, 0x7FFF), st.integers(0, 65535)
    ),
    min_size=1,
    max_size=8,
).filter(lambda fields: any(f.length for f in fields))
idents = st.integers(256, 65535)


@st.composite
def templates(draw, options):
    """A template, or an options template."""
    found = tuple(draw(fields))
    return Template(draw(idents), found, draw(st.integers(1, len(found))) if options else 0)


def written(template):
    """The octets of a template, by the writer of the tests."""
    specifiers = [(f.ident, f.length, f.pen) if f.pen else (f.ident, f.length) for f in template.fields]
    if template.scopes:
        return wire.options_template(template.ident, template.scopes, *specifiers)
    return wire.template(template.ident, *specifiers)


class ParseTests(SynchronousTestCase):
    """parse_set: what a Template Set says."""

    def test_rfc7011(self):
        """Appendix A.2.1 and A.4.1, and an enterprise element as in figure G."""
        self.assertEqual(
            [Template(256, tuple(Field(0, i, 4) for i in (8, 12, 15, 2, 1)))],
            parse_set(2, bytes.fromhex("0100000500080004000c0004000f00040002000400010004")),
        )
        self.assertEqual(
            [Template(258, (Field(0, 141, 4), Field(0, 41, 2), Field(0, 42, 2)), 1)],
            parse_set(3, bytes.fromhex("010200030001008d000400290002002a00020000")),
        )
        self.assertEqual(
            [Template(257, (Field(0, 8, 4), Field(12345, 15, 4)))],
            parse_set(2, bytes.fromhex("0101000200080004800f000400003039")),
        )

    def test_sizes(self):
        """The least size of a record counts one octet for each variable field."""
        template = Template(256, (Field(0, 1, 8), Field(0, 82, VARIABLE), Field(0, 4, 1), Field(0, 83, VARIABLE)))
        self.assertEqual((11, True, False), (template.least_octets, template.variable, template.options))
        template = Template(256, (Field(0, 1, 8),), 1)
        self.assertEqual((8, False, True), (template.least_octets, template.variable, template.options))

    @given(st.lists(templates(options=False), min_size=1, max_size=4), st.integers(0, 7))
    def test_templates(self, found, padding):
        """What another writer wrote is read as it was meant, padding left out; our writer writes the same octets."""
        body = b"".join(map(written, found))
        self.assertEqual(found, parse_set(2, body + bytes(padding)))
        self.assertEqual(body, b"".join(map(encode_record, found)))

    @given(st.lists(templates(options=True), min_size=1, max_size=4), st.integers(0, 7))
    def test_options_templates(self, found, padding):
        """The same for options templates."""
        body = b"".join(map(written, found))
        self.assertEqual(found, parse_set(3, body + bytes(padding)))

    @given(st.booleans().flatmap(lambda options: templates(options)), st.data())
    def test_cut(self, template, data):
        """A record that is cut anywhere is refused, unless only padding is left of it."""
        body = written(template)
        cut = data.draw(st.integers(4, len(body) - 1))
        with self.assertRaises(MessageError) as caught:
            parse_set(3 if template.scopes else 2, body[:cut])
        self.assertEqual("template", caught.exception.reason)
        self.assertEqual([], parse_set(2, body[: min(cut, 3)]))

    @given(st.sampled_from((2, 3)), st.binary(max_size=60))
    def test_anything(self, set_id, body):
        """Whatever octets come: templates, withdrawals, unusable ones, or MessageError."""
        try:
            found = parse_set(set_id, body)
        except MessageError as error:
            self.assertEqual("template", error.reason)
        else:
            for one in found:
                self.assertIsInstance(one, Template | Withdrawal | Unusable)
                if not isinstance(one, Unusable):
                    self.assertTrue(isinstance(one, Withdrawal) or one.least_octets > 0)
                    self.assertTrue(one.ident > 255 or one == Withdrawal(set_id, set_id == 3))

    def test_withdrawals(self):
        """Single ones, all of a kind, several in a set with templates between them."""
        body = bytes.fromhex("0100000000020000") + wire.template(300, (4, 1)) + bytes.fromhex("ffff00000000")
        self.assertEqual(
            [Withdrawal(256, False), Withdrawal(2, False), Template(300, (Field(0, 4, 1),)), Withdrawal(65535, False)],
            parse_set(2, body),
        )
        self.assertEqual([Withdrawal(3, True), Withdrawal(256, True)], parse_set(3, bytes.fromhex("0003000001000000")))

    def test_refused(self):
        """Withdrawal of the other kind's all, ids below 256, scopes of 0 and too many, records of no octets."""
        for set_id, body in (
            (2, "00030000"), (3, "00020000"), (2, "00ff0000"), (2, "0000000001000000"), (2, "00ff000100040001"),
            (3, "01000001" "0000" "00040001"), (3, "01000001" "0002" "00040001"), (2, "01000001" "00040000"),
        ):  # fmt: skip
            with self.subTest(set_id=set_id, body=body):
                good = wire.options_template(300, 1, (4, 1)) if set_id == 3 else wire.template(300, (4, 1))
                found = parse_set(set_id, bytes.fromhex(body) + good)
                self.assertEqual([Unusable(int(body[:4], 16), found[0].why)], found[:1])
                self.assertEqual([300] if int(body[:4], 16) else [], [one.ident for one in found[1:]])
