"""Functions and derived keys of AGGREGATE, against the same worked out one row at a time."""

import math
import statistics
import sys
import textwrap
from collections import defaultdict
from fractions import Fraction
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import examples, given
from tests.unit.plugins.filters.test_aggregate import AggregateCase, batch_of
from ulogd_tw.aggregation import functions
from ulogd_tw.core import types
from ulogd_tw.core.columns import Coded, Octets
from ulogd_tw.core.errors import UlogdError
from ulogd_tw.core.keys import known, registry
from ulogd_tw.core.options import Options
from ulogd_tw.plugins.filters.aggregate import AGGREGATE

ALL = "sum count min max first last or mean".split()
one_row = st.tuples(st.integers(0, 3), st.none() | st.integers(0, 2**40))


def plainly(values):
    """What the functions are of these values, in their order."""
    found = {"count": len(values)}
    if values:
        whole = 0
        for value in values:
            whole |= value
        found |= {"sum": sum(values), "min": min(values), "max": max(values), "first": values[0], "last": values[-1],
                  "or": whole, "mean": sum(values) / len(values)}  # fmt: skip
    return found


class FunctionsTests(AggregateCase):
    """The option functions."""

    def of_groups(self, rows):
        """The columns of the functions by group."""
        found = {}
        for row in rows:
            values = {name.partition("_")[0]: value for name, value in row.items() if name.endswith("_octetDeltaCount")}
            found[row["protocolIdentifier"]] = values
        return found

    @given(st.lists(st.lists(one_row, max_size=20), min_size=1, max_size=5))
    def test_row_by_row(self, batches):
        """However rows come in batches, the functions are those of all values of a group in their order."""
        words = ",".join(f"{name}(octetDeltaCount)" for name in ALL)
        self.make(key="protocolIdentifier", functions=words)
        expected = defaultdict(list)
        for rows in batches:
            for group, value in rows:
                expected[group] += [] if value is None else [value]
            if rows:
                self.give(batch_of([{"protocolIdentifier": group, "octetDeltaCount": value} if value is not None else
                                    {"protocolIdentifier": group} for group, value in rows]))  # fmt: skip
        self.agg.flush()
        found = self.of_groups(self.rows())
        self.assertEqual(set(expected), set(found))
        for group, values in expected.items():
            plain = plainly(values)
            if not values:
                plain.pop("count")
            mean, told = plain.pop("mean", 0.0), found[group].pop("mean", 0.0)
            self.assertTrue(math.isclose(mean, told, rel_tol=1e-12), (mean, told))
            self.assertEqual(plain, found[group])

    def test_types(self):
        """Signed and floating numbers and times keep what they are; min and max of negative ones too."""
        self.make(key="protocolIdentifier",
                  functions="min(mibObjectValueInteger) max(mibObjectValueInteger) max(samplingProbability) "
                            "t=min(flowStartMilliseconds)")  # fmt: skip
        rows = [{"protocolIdentifier": 6, "mibObjectValueInteger": v, "samplingProbability": v / 2,
                 "flowStartMilliseconds": 1000 + v} for v in (-5, -1, -9)]  # fmt: skip
        self.give(batch_of(rows))
        self.agg.flush()
        (row,) = self.rows()
        names = ("min_mibObjectValueInteger", "max_mibObjectValueInteger", "max_samplingProbability", "t")
        self.assertEqual((-9, -1, -0.5, 991), tuple(row[name] for name in names))
        self.assertIs(types.MILLISECONDS, self.keep.batches[0].schema["t"].type)

    def test_distinct(self):
        """How many different values: nearly exact where there are few, to some percent where there are many."""
        self.make(key="protocolIdentifier", functions="d=distinct(sourceIPv4Address) n=distinct(interfaceName)")
        numbers = {6: 3, 17: 100, 1: 50_000}
        for group, n in numbers.items():
            rows = 3 * np.arange(n, dtype=np.uint32) % (3 * n)
            batch = batch_of([{"protocolIdentifier": group, "sourceIPv4Address": 1}]).take(np.zeros(2 * n, np.int64))
            names = Coded(np.arange(2 * n) % 2, (b"eth0", b"eth1"))
            batch = batch.with_columns({known("sourceIPv4Address"): np.concatenate((rows, rows)),
                                        known("interfaceName"): names})  # fmt: skip
            self.give(batch)
        self.agg.flush()
        found = {row["protocolIdentifier"]: row for row in self.rows()}
        self.assertEqual((3, {2}), (found[6]["d"], {row["n"] for row in found.values()}))
        self.assertTrue(abs(found[17]["d"] - 100) <= 6, found[17]["d"])
        self.assertTrue(abs(found[1]["d"] - 50_000) < 50_000 * 0.2, found[1]["d"])

    @given(st.lists(st.integers(0, 2**63), min_size=1, max_size=60), st.sampled_from((0.0, 0.25, 0.5, 0.95, 1.0)))
    def test_quantile(self, values, share):
        """The value below which a share of all lies, to 4.4 %; values of 0 are 0."""
        self.make(key="protocolIdentifier", functions=f"q=quantile(octetDeltaCount, {share})")
        for value in values:
            self.give(batch_of([{"protocolIdentifier": 6, "octetDeltaCount": value}]))
        self.agg.flush()
        (row,) = self.rows()
        exact = sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]
        self.assertTrue(abs(row["q"] - exact) <= exact * 0.0443, (row["q"], exact))

    def test_most_sketches(self):
        """Groups beyond max_sketches have none; the other functions are there."""
        functions = "d=distinct(octetDeltaCount) m=max(octetDeltaCount)"
        self.make(key="protocolIdentifier", functions=functions, max_sketches=2)
        self.give(batch_of([{"protocolIdentifier": n % 4, "octetDeltaCount": n} for n in range(40)]))
        self.agg.flush()
        found = {row["protocolIdentifier"]: row for row in self.rows()}
        self.assertEqual([36, 37, 38, 39], [found[n]["m"] for n in range(4)])
        self.assertEqual([True, True, False, False], ["d" in found[n] for n in range(4)])

    def test_export(self):
        """What is still a value of an element goes out as that."""
        self.make(key="protocolIdentifier", functions="or(tcpControlBits) max(octetDeltaCount)")
        row = {"protocolIdentifier": 6, "octetDeltaCount": 1}
        self.give(batch_of([row | {"tcpControlBits": bits} for bits in (2, 16)]))
        self.agg.flush()
        keys = self.keep.batches[0].schema
        self.assertEqual((((0, 6),), ()), (keys["or_tcpControlBits"].elements, keys["max_octetDeltaCount"].elements))
        self.assertEqual(18, self.rows()[0]["or_tcpControlBits"])

    def test_mistakes(self):
        """What is wrong is said."""
        for text, expected in (
            ("peak(octetDeltaCount)", "there is no function peak"),
            ("maxx(octetDeltaCount)", "did you mean max?"),
            ("max(octetDeltaCont)", "did you mean octetDeltaCount?"),
            ("max(sourceIPv4Address)", "sourceIPv4Address is not a number"),
            ("quantile(octetDeltaCount)", "a quantile has a share"),
            ("quantile(octetDeltaCount,2)", "'2' is not a number between 0 and 1"),
            ("max(octetDeltaCount,0.5)", "a quantile has a share"),
            ("max octetDeltaCount", "is not of the form"),
            ("a=max(octetDeltaCount),a=min(octetDeltaCount)", "two functions are called a"),
            ("octets=max(octetDeltaCount)", "octets is a column already"),
        ):
            plugin = AGGREGATE("a", Options(AGGREGATE.all_options(), {"functions": text}))
            ((option, said),) = plugin.mistakes()
            self.assertEqual(("functions", True), (option, expected in said), said)


numbers = st.one_of(
    st.integers(0, 2**20),
    st.integers(2**53 - 50, 2**53 + 50),
    st.integers(2**64 - 100, 2**64 - 1),
    st.integers(0, 2**64 - 1),
)


class SpreadOfValuesTests(AggregateCase):
    """variance and stddev, against the exact arithmetic of the standard library."""

    functions = "v=variance(octetDeltaCount) s=stddev(octetDeltaCount)"

    def found(self):
        return {row["protocolIdentifier"]: (row.get("v"), row.get("s")) for row in self.rows()}

    def assertSpread(self, groups):
        """Of each group variance and deviation are those of its values (Fractions: without rounding)."""
        found = self.found()
        self.assertEqual(set(groups), set(found))
        for group, values in groups.items():
            if not values:
                self.assertEqual((None, None), found[group])
                continue
            exact = statistics.pvariance([Fraction(value) for value in values])
            variance, deviation = found[group]
            self.assertTrue(math.isclose(variance, exact, rel_tol=1e-9), (variance, float(exact), values))
            self.assertTrue(math.isclose(deviation, math.sqrt(exact), rel_tol=1e-9), (deviation, values))

    def test_three_values(self):
        """Octets 1, 2 and 4: their mean is 7/3, the mean of the squares 7, so the variance 14/9."""
        self.make(key="protocolIdentifier", functions=self.functions)
        self.give(batch_of([{"protocolIdentifier": 6, "octetDeltaCount": n} for n in (1, 2, 4)]))
        self.agg.flush()
        ((variance, deviation),) = self.found().values()
        self.assertEqual((1.5556, 1.2472), (round(variance, 4), round(deviation, 4)))
        schema = self.keep.batches[0].schema
        self.assertEqual([(types.FLOAT64, "octets^2"), (types.FLOAT64, "octets")],
                         [(schema[name].type, schema[name].unit) for name in "vs"])  # fmt: skip
        self.assertEqual([(), ()], [schema[name].elements for name in "vs"])

    def test_of_numpy(self):
        """A hundred groups with a thousand values each, as NumPy has them."""
        self.make(key="protocolIdentifier", functions=self.functions)
        random = np.random.default_rng(7)
        groups, values = random.integers(0, 100, 100_000), random.integers(0, 2**32, 100_000, np.uint64)
        row = batch_of([{"protocolIdentifier": 0, "octetDeltaCount": 0}]).take(np.zeros(100_000, np.int64))
        row = row.with_columns({known("protocolIdentifier"): groups.astype(np.uint8), known("octetDeltaCount"): values})
        for first in range(0, 100_000, 10_000):
            self.give(row.take(slice(first, first + 10_000)))
        self.agg.flush()
        for group, (variance, deviation) in self.found().items():
            part = values[groups == group].astype(np.float64)
            self.assertTrue(np.isclose(variance, part.var(), rtol=1e-12), (variance, part.var()))
            self.assertTrue(np.isclose(deviation, part.std(), rtol=1e-12), (deviation, part.std()))

    @given(st.lists(st.lists(st.tuples(st.integers(0, 2), st.none() | numbers), max_size=12), min_size=1, max_size=5))
    def test_row_by_row(self, batches):
        """However rows come in batches, also of values that differ by less than a float tells apart."""
        self.make(key="protocolIdentifier", functions=self.functions)
        groups = defaultdict(list)
        for rows in batches:
            self.give_all(rows, groups)
        self.agg.flush()
        self.assertSpread(groups)

    def give_all(self, rows, groups):
        """Give rows (group, value) in one batch, and note them."""
        for group, value in rows:
            groups[group] += [] if value is None else [value]
        if rows:
            self.give(batch_of([{"protocolIdentifier": group} | ({} if value is None else {"octetDeltaCount": value})
                                for group, value in rows]))  # fmt: skip

    @given(st.lists(st.tuples(st.integers(0, 40), numbers), min_size=1, max_size=80))
    def test_tables_are_merged(self, rows):
        """A window adds up its intervals, and fold the groups that are put together: nothing of the spread is lost."""
        self.make(key="protocolIdentifier", functions=self.functions, interval=10, window=20)
        groups = defaultdict(list)
        for place, (group, value) in enumerate(rows):
            groups[group].append(value)
            at = 100.0 if place < len(rows) // 2 else 110.0
            self.give(batch_of([{"protocolIdentifier": group, "octetDeltaCount": value}], now=at))
        self.agg.flush()
        whole = [batch for batch in self.keep.batches if batch.columns["interval_start"][0] == 100]
        self.keep.batches = whole
        self.assertSpread(groups)

    @examples(50)
    @given(st.lists(st.tuples(st.integers(0, 40), numbers), min_size=30, max_size=120))
    def test_folded(self, rows):
        """Groups that are folded into the rest bring the spread of their values along."""
        self.make(key="protocolIdentifier", functions=self.functions, max_keys=8, overflow="fold")
        groups = defaultdict(list)
        for group, value in rows:
            groups[group].append(value)
            self.give(batch_of([{"protocolIdentifier": group, "octetDeltaCount": value}]))
        self.agg.flush()
        rest = [row for row in self.rows() if "protocolIdentifier" not in row]
        kept = {row["protocolIdentifier"]: row["flows"] for row in self.rows() if "protocolIdentifier" in row}
        # a group that was folded may come again with its later rows: those are its last ones
        others = [value for group, values in groups.items() for value in values[: len(values) - kept.get(group, 0)]]
        if others:
            exact = statistics.pvariance([Fraction(value) for value in others])
            self.assertTrue(math.isclose(rest[0]["v"], exact, rel_tol=1e-9), (rest[0]["v"], float(exact)))

    @given(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=40))
    def test_floats(self, values):
        """Of floating numbers as NumPy has it, but for rounding beside the largest value."""
        self.make(key="protocolIdentifier", functions="v=variance(samplingProbability)")
        for value in values:
            self.give(batch_of([{"protocolIdentifier": 6, "samplingProbability": value}]))
        self.agg.flush()
        (row,) = self.rows()
        rounding = (max(map(abs, values)) * 1e-7) ** 2
        self.assertTrue(abs(row["v"] - np.var(values)) <= rounding + 1e-9 * np.var(values), (row["v"], np.var(values)))

    def test_narrow_and_wide(self):
        """One key in several widths and beyond 2**63, as exporters send it, has one spread."""
        self.make(key="protocolIdentifier", functions=self.functions)
        groups = {6: [200, 70_000, 2**63 + 5, 3]}
        held = (types.UNSIGNED8, types.UNSIGNED32, types.UNSIGNED64, types.UNSIGNED16)
        for value, type_ in zip(groups[6], held, strict=True):
            row = {"protocolIdentifier": 6, "octetDeltaCount": value}
            self.give(batch_of([row], octetDeltaCount=type_))
        self.agg.flush()
        self.assertSpread(groups)


class DeclarationTests(SynchronousTestCase):
    """What a function has to declare; functions of other packages."""

    WHOLE = """
        import numpy as np
        from ulogd_tw.aggregation.functions import NUMBERS, Function
        from ulogd_tw.core import types
        from ulogd_tw.core.keys import Key


        class Range(Function):
            "The greatest value less the least one."

            name = "range"
            help = "greatest less least value"
            kinds = NUMBERS
            merged_by = "max"
            bounded = False
            width = 2
            state_type = "d"
            ufunc = np.maximum

            @classmethod
            def result_key(cls, name, of):
                return Key(name, types.FLOAT64, (), of.unit)

            def initial(self):
                return -np.inf

            def take(self, entries, column):
                np.maximum.at(self.values, 2 * entries, column.astype(np.float64))
                np.maximum.at(self.values, 2 * entries + 1, -column.astype(np.float64))

            def result(self, first, stop):
                return self.values[2 * first : 2 * stop].reshape(-1, 2).sum(axis=1)
        """

    def package(self, source, point="range = foreign_range:Range"):
        """Put a package with this module and entry point onto the path until the test ends."""
        folder = Path(self.mktemp()).absolute()
        (folder / "foreign-1.0.dist-info").mkdir(parents=True)
        (folder / "foreign_range.py").write_text(textwrap.dedent(source))
        info = folder / "foreign-1.0.dist-info"
        info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n")
        info.joinpath("entry_points.txt").write_text(f"[ulogd_tw.aggregate_functions]\n{point}\n")
        sys.path.insert(0, str(folder))
        self.addCleanup(sys.path.remove, str(folder))
        self.addCleanup(sys.modules.pop, "foreign_range", None)

    def mistake(self, text):
        """What is wrong with these functions."""
        ((option, said),) = AGGREGATE("a", Options(AGGREGATE.all_options(), {"functions": text})).mistakes()
        self.assertEqual("functions", option)
        return said

    def test_of_another_package(self):
        """It is used by its name; `ulogd-tw top` merges it as it declares."""
        self.package(self.WHOLE)
        case = AggregateCase()
        agg = case.make(key="protocolIdentifier", functions="r=range(octetDeltaCount)")
        case.give(batch_of([{"protocolIdentifier": 6, "octetDeltaCount": n} for n in (50, 7, 90)]))
        agg.flush()
        self.assertEqual([83.0], [row["r"] for row in case.rows()])
        self.assertEqual("max", agg.together["r"])
        self.assertIn("range", self.mistake("rang(octetDeltaCount)"))

    def test_incomplete(self):
        """Whatever is missing in a declaration is said, and the function is not there."""
        for line, expected in (
            ('    name = "range"\n', "name is not declared"),
            ('    help = "greatest less least value"\n', "help is not declared"),
            ("    kinds = NUMBERS\n", "kinds is not declared"),
            ('    merged_by = "max"\n', "merged_by is not declared"),
            ("    bounded = False\n", "bounded is not declared"),
            ("    ufunc = np.maximum\n", "ufunc or the method join is missing"),
            ("def result_key", "the method result_key is missing"),
            ("def take", "the method take is missing"),
            ("def result(", "the method result is missing"),
        ):
            text = textwrap.dedent(self.WHOLE)
            self.assertIn(line, text)
            text = text.replace(line, "def x_" + line[4:] if line.startswith("def") else "")
            namespace = {"__name__": "foreign_range"}
            exec(text, namespace)
            error = self.assertRaises(UlogdError, functions.register, namespace["Range"])
            self.assertIn(expected, str(error))
            self.assertIn("foreign_range.Range", str(error))
            self.assertNotIn("range", functions.names())

    def test_impossible(self):
        """Values that nothing can be made of, a second function of one name, and what is no function."""
        for old, new, expected in (
            ('merged_by = "max"', 'merged_by = "maximum"', "merged_by has to be one of sum, min, max, avg"),
            ("kinds = NUMBERS", 'kinds = ("number",)', "kinds has to be some of"),
            ("bounded = False", "bounded = None", "bounded has to be True or False"),
            ('name = "range"', 'name = "sum"', "there is a function sum already"),
        ):
            namespace = {"__name__": "foreign_range"}
            exec(textwrap.dedent(self.WHOLE).replace(old, new), namespace)
            self.assertIn(expected, str(self.assertRaises(UlogdError, functions.register, namespace["Range"])))
        self.assertIn("is not a function", str(self.assertRaises(UlogdError, functions.check, int)))

    def test_broken_package(self):
        """A package that cannot be loaded, or lacks something, is a mistake of the configuration that says so."""
        self.package(self.WHOLE.replace("bounded = False", ""))
        self.assertIn("bounded is not declared", self.mistake("range(octetDeltaCount)"))

    def test_absent_package(self):
        self.package("raise OSError('no libfoo')")
        said = self.mistake("range(octetDeltaCount)")
        self.assertIn("the function range cannot be loaded from foreign_range:Range: OSError: no libfoo", said)

    def test_other_name(self):
        self.package(self.WHOLE, "spread = foreign_range:Range")
        self.assertIn("its entry point must have the same name", self.mistake("spread(octetDeltaCount)"))

    def test_text(self):
        """The text of the option names every function of this package."""
        text = next(option.meaning for option in AGGREGATE.options if option.name == "functions")
        for name in functions.names():
            self.assertRegex(text, rf"\b{name}\b")


class DerivedTests(AggregateCase):
    """Keys with a prefix or a step."""

    def test_prefixes(self):
        """Addresses of both families, each cut to its own length; the column is named as it was written."""
        self.make(key="sourceAddress/24:48")
        four = [{"sourceIPv4Address": 0x0A000000 + n, "octetDeltaCount": 1} for n in (1, 2, 256)]
        six = [{"sourceIPv6Address": (0x20010DB8 << 96) + (n << 64), "octetDeltaCount": 1} for n in (1, 2, 1 << 16)]
        self.give(batch_of(four))
        self.give(batch_of(six, sourceIPv6Address=types.IPV6))
        self.agg.flush()
        found = {row["sourceAddress/24:48"]: row["flows"] for row in self.rows()}
        self.assertEqual({0x0A000000: 2, 0x0A000100: 1, 0x20010DB8 << 96: 2, (0x20010DB8 << 96) + (1 << 80): 1}, found)

    def test_mapped_prefixes(self):
        """An address within ::ffff:0:0/96 is an IPv4 address, cut as one; its neighbours are not."""
        self.make(key="sourceAddress/24:48")
        mapped, other = 0xFFFF << 32, 0xFFFE << 32
        six = [{"sourceIPv6Address": high + low, "octetDeltaCount": 1}
               for high in (mapped, other) for low in (0xC0000201, 0xC00002FE, 0xC0000301)]  # fmt: skip
        self.give(batch_of(six, sourceIPv6Address=types.IPV6))
        self.agg.flush()
        found = {row["sourceAddress/24:48"]: row["flows"] for row in self.rows()}
        self.assertEqual({mapped + 0xC0000200: 2, mapped + 0xC0000300: 1, 0: 3}, found)

    def test_steps(self):
        """Numbers and times, rounded down; widths of the wire do not matter."""
        self.make(key="destinationTransportPort/1024,flowStartMilliseconds/60000")
        for port, type_ in ((80, types.UNSIGNED16), (443, types.UNSIGNED8), (8080, types.UNSIGNED16)):
            rows = [{"destinationTransportPort": port % 256, "flowStartMilliseconds": 119_999}]
            rows[0]["destinationTransportPort"] = port if type_ is types.UNSIGNED16 else port % 256
            self.give(batch_of(rows, destinationTransportPort=type_))
        self.agg.flush()
        names = ("destinationTransportPort/1024", "flowStartMilliseconds/60000", "flows")
        self.assertEqual([(0, 60_000, 2), (7168, 60_000, 1)],
                         sorted(tuple(row[name] for name in names) for row in self.rows()))  # fmt: skip

    def test_labels(self):
        """Rows of one MPLS label are one group, whatever traffic class and bottom bit stand beside it."""
        self.make(key="mplsTopLabelStackSection")
        labels = (b"\0\4\x51", b"\0\4\x5e", b"\0\4\x60")
        self.give(batch_of([{"mplsTopLabelStackSection": label, "octetDeltaCount": 1} for label in labels]))
        self.agg.flush()
        found = {row["mplsTopLabelStackSection"]: row["flows"] for row in self.rows()}
        self.assertEqual({b"\0\4\x50": 2, b"\0\4\x60": 1}, found)

    def test_applications(self):
        """Rows of one application are one group, in however many octets its id came."""
        self.make(key="applicationId")
        ids = (b"\x0d\0\1\xc5", b"\x0d\0\0\0\1\xc5", b"\x0d\1\xc5", b"\x03\0\0\x50")
        for ident in ids:
            self.give(batch_of([{"applicationId": ident, "octetDeltaCount": 1}]))
        self.agg.flush()
        found = {row["applicationId"]: row["flows"] for row in self.rows()}
        self.assertEqual({b"\x0d\0\1\xc5": 3, b"\x03\0\0\x50": 1}, found)

    def test_mistakes(self):
        for text, expected in (
            ("sourceAddress/", "write a number after the slash"),
            ("sourceIPv4Address/33", "a prefix has 0 to 32 bits"),
            ("sourceAddress/24:129", "a prefix has 0 to 32 bits"),
            ("octetDeltaCount/0", "the number after the slash must be 1 or more"),
            ("interfaceName/5", "is neither an address nor a number"),
            ("protocolIdentifier/256", "too large for protocolIdentifier"),
            ("sourceAdress/24", "did you mean sourceAddress?"),
        ):
            plugin = AGGREGATE("a", Options(AGGREGATE.all_options(), {"key": text}))
            ((option, said),) = plugin.mistakes()
            self.assertEqual(("key", True), (option, expected in said), said)


class SpreadTests(AggregateCase):
    """time=spread: counters divided among the intervals of a flow's time."""

    def by_interval(self):
        self.agg.flush()
        found = defaultdict(lambda: [0, 0, 0])
        for row in self.rows():
            sums = found[row["interval_start"]]
            for place, name in enumerate(("octets", "packets", "flows")):
                sums[place] += row.get(name, 0)
        return dict(found)

    def test_shares(self):
        """By the time in each interval; the flow counts where it ends."""
        self.make(key="protocolIdentifier", time="spread", interval=60, functions="n=count(octetDeltaCount)")
        row = {"protocolIdentifier": 6, "flowStartMilliseconds": 90_000, "flowEndMilliseconds": 209_999,
               "octetDeltaCount": 1200, "packetDeltaCount": 4}  # fmt: skip
        self.give(batch_of([row], now=210.0))
        self.assertEqual({60: [300, 1, 0], 120: [600, 2, 0], 180: [300, 1, 1]}, self.by_interval())
        self.assertEqual({60: None, 120: None, 180: 1}, {row["interval_start"]: row.get("n") for row in self.rows()})

    @given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 2 * 10**6), st.none() | st.integers(0, 2**60)),
                    min_size=1, max_size=20))  # fmt: skip
    def test_nothing_is_lost(self, flows):
        """All intervals together have what came, to the octet; each flow once; in no interval outside its time."""
        self.make(key="protocolIdentifier", time="spread", interval=60, lateness=10_000)
        rows = []
        for start, duration, octets in flows:
            row = {"protocolIdentifier": 6, "flowStartMilliseconds": start, "flowEndMilliseconds": start + duration}
            rows.append(row if octets is None else row | {"octetDeltaCount": octets})
        self.give(batch_of(rows, now=3000.0))
        found = self.by_interval()
        self.assertEqual(sum(f[2] or 0 for f in flows), sum(octets for octets, _, _ in found.values()))
        self.assertEqual(len(flows), sum(n for _, _, n in found.values()))
        inside = {60 * n for start, more, _ in flows for n in range(start // 60_000, (start + more) // 60_000 + 1)}
        self.assertEqual(inside, set(found))

    def test_odd_times(self):
        """A flow that ends before it starts, one that lasts for years, and one without a start."""
        self.make(key="protocolIdentifier", time="spread", interval=60)
        year = 366 * 86_400_000
        rows = [{"flowStartMilliseconds": 10 * year, "flowEndMilliseconds": 9 * year, "octetDeltaCount": 5},
                {"flowStartMilliseconds": 0, "flowEndMilliseconds": 9 * year, "octetDeltaCount": 10**12},
                {"flowEndMilliseconds": 9 * year, "octetDeltaCount": 7}]  # fmt: skip
        self.give(batch_of([row | {"protocolIdentifier": 6} for row in rows], now=9 * year / 1000))
        found = self.by_interval()
        octets, flows = (sum(sums[place] for sums in found.values()) for place in (0, 2))
        self.assertEqual((1440, 10**12 + 12, 3), (len(found), octets, flows))


class TopTests(AggregateCase):
    """top=: the largest groups of an interval."""

    def test_top(self):
        """The largest, in their order; all others are one row without keys; the sums stay."""
        self.make(key="protocolIdentifier", top=2, by="octets", interval=60)
        rows = [{"protocolIdentifier": n, "octetDeltaCount": octets, "packetDeltaCount": 1,
                 "flowStartMilliseconds": 1000 + n, "flowEndMilliseconds": 2000 + n}
                for n, octets in enumerate((5, 100, 7, 50, 1))]  # fmt: skip
        self.give(batch_of(rows, now=130.0))
        self.agg.flush()
        found = self.rows()
        self.assertEqual([(1, 100), (3, 50), (None, 13)], [(r.get("protocolIdentifier"), r["octets"]) for r in found])
        others = {"flows": 3, "packets": 3, "octets": 13, "first_ms": 1000, "last_ms": 2004, "interval_start": 120}
        self.assertEqual(others, found[2])

    @given(st.lists(st.tuples(st.integers(0, 12), st.none() | st.integers(0, 5), st.booleans()), max_size=60),
           st.integers(1, 6))  # fmt: skip
    def test_any(self, rows, most):
        """At most so many groups of all kinds, none of the others larger; nothing is missing in the sums."""
        self.make(key="protocolIdentifier,sourceTransportPort", top=most)
        sums = defaultdict(int)
        for group, octets, port in rows:
            row = {"protocolIdentifier": group} | ({"sourceTransportPort": 9} if port else {})
            self.give(batch_of([row if octets is None else row | {"octetDeltaCount": octets}]))
            sums[group, port] += octets or 0
        self.agg.flush()
        found = self.rows()
        self.assertEqual((sum(sums.values()), len(rows)),
                         (sum(r.get("octets", 0) for r in found), sum(r["flows"] for r in found)))  # fmt: skip
        groups = [row for row in found if "protocolIdentifier" in row]
        self.assertEqual(min(most, len(sums)), len(groups))
        kept = sorted((row.get("octets", 0) for row in groups), reverse=True)
        self.assertEqual(sorted(sums.values(), reverse=True)[: len(kept)], kept)

    def test_mistakes(self):
        plugin = AGGREGATE("a", Options(AGGREGATE.all_options(), {"top": 5, "by": "octet"}))
        ((option, said),) = plugin.mistakes()
        self.assertEqual(("by", True), (option, "is none of flows, packets, octets" in said))


class EqualValuesTests(AggregateCase):
    """Values that are equal make one group, however they came."""

    def groups(self, name):
        self.agg.flush()
        found = defaultdict(int)
        for row in self.rows():
            found[row.get(name)] += row["octets"]
        return dict(found)

    def test_padding(self):
        """A text with NULs behind it is the same text, of fixed and variable length, coded or not."""
        self.make(key="userName", functions="d=distinct(userName)", interval=60)
        for values in ([b"alice\0\0\0", b"alice", b"bob\0"], [b"alice\0", b"", b"\0\0"], [b"bob", b"al\0ice"]):
            rows = batch_of([{"octetDeltaCount": 1}] * len(values))
            self.give(rows.with_columns({known("userName"): Octets.of(values)}))
            codes = Coded(np.arange(len(values)), values)
            self.give(rows.with_columns({known("userName"): codes}))
        self.assertEqual({b"alice": 6, b"bob": 4, b"": 4, b"al\0ice": 2}, self.groups("userName"))
        self.assertEqual({1}, {row["d"] for row in self.rows()})

    def test_octets_keep_theirs(self):
        """NULs at the end of octets are part of the value."""
        self.make(key="dataLinkFrameSection")
        rows = batch_of([{"octetDeltaCount": 1}] * 2)
        self.give(rows.with_columns({known("dataLinkFrameSection"): Octets.of([b"\1\0", b"\1"])}))
        self.assertEqual({b"\1\0": 1, b"\1": 1}, self.groups("dataLinkFrameSection"))

    def test_change(self):
        """Padding is no change of a key."""
        self.make(key="userName,protocolIdentifier", change="userName")
        rows = batch_of([{"octetDeltaCount": 1, "protocolIdentifier": 6}] * 2)
        self.give(rows.with_columns({known("userName"): Octets.of([b"alice", b"alice\0"])}))
        self.agg.wake(2000.0)
        self.agg.flush()
        self.assertEqual([(b"alice", 2)], [(row["userName"], row["flows"]) for row in self.rows()])

    def test_distinct_of_numbers(self):
        """Zeros of both signs and all NaNs are one value each; a number is one value in every width."""
        self.make(key="protocolIdentifier", functions="d=distinct(samplingProbability) n=distinct(octetDeltaCount)")
        for value in (0.0, -0.0, math.nan, -math.nan, 1.5):
            self.give(batch_of([{"protocolIdentifier": 6, "samplingProbability": value, "octetDeltaCount": 7}]))
        self.give(batch_of([{"protocolIdentifier": 6, "octetDeltaCount": 7}], octetDeltaCount=types.UNSIGNED8))
        self.agg.flush()
        self.assertEqual([(3, 1)], [(row["d"], row["n"]) for row in self.rows()])

    def test_vocabularies(self):
        """A key that two enterprises have an element for is one key (httpHost of CERT and of Flowmon)."""
        self.make(key="httpHost")
        for element in ((39499, 1), (6871, 117), (39499, 1)):
            key = registry.element(*element)
            self.assertEqual("httpHost", key.name)
            self.give(batch_of([{"octetDeltaCount": 1}]).with_columns({key: Octets.of([b"a.example"])}))
        self.assertEqual({b"a.example": 3}, self.groups("httpHost"))
        self.assertEqual([((39499, 1),)], [batch.schema["httpHost"].elements for batch in self.keep.batches])
