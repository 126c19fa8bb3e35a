"""Make tables of this folder anew from their sources, by hand: see README.md beside it.

python ulogd_tw/core/data/elements.py iana FILE     ipfix_elements.csv from IANA's own table
python ulogd_tw/core/data/elements.py reverse       the reverse elements in enterprise_elements.csv
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

HERE = Path(__file__).parent
IANA = ("element_id", "name", "abstract_data_type", "semantics", "units", "range")
ENTERPRISE = ("pen", "element_id", "name", "type")
REVERSE_PEN = "29305"

# RFC 5103 section 6.1: these describe no direction of a flow. 148, 149, 210 and 239 are of the same kind.
NOT_REVERSIBLE = frozenset(map(str, (
    40, 41, 42, 130, 131, 137, 145, 148, 149, 163, 164, 165, 166, 167, 168, 173, 210, 211, 212, 213, 214, 215, 216, 217,
    239,
)))  # fmt: skip

Row = dict[str, str]


def iana_rows(source: Iterable[str]) -> Iterator[Row]:
    """Our rows of IANA's table; it names ranges of reserved numbers and elements without a type, too."""
    for row in csv.DictReader(source):
        if row["ElementID"].isdecimal() and row["Abstract Data Type"]:
            yield {
                "element_id": row["ElementID"],
                "name": row["Name"],
                "abstract_data_type": row["Abstract Data Type"],
                "semantics": row["Data Type Semantics"],
                "units": row["Units"],
                "range": row["Range"],
            }


def reverse_rows(iana: Iterable[Row]) -> Iterator[Row]:
    """The reverse element of each that has one (RFC 5103 section 6.1)."""
    for row in iana:
        if row["element_id"] not in NOT_REVERSIBLE:
            name = "reverse" + row["name"][0].upper() + row["name"][1:]
            yield {
                "pen": REVERSE_PEN,
                "element_id": row["element_id"],
                "name": name,
                "type": row["abstract_data_type"],
            }


def read(name: str) -> list[Row]:
    """The rows of a table of this folder."""
    with open(HERE / name, newline="") as file:
        return list(csv.DictReader(file))


def _write(name: str, columns: tuple[str, ...], rows: list[Row]) -> None:
    """Replace a table, and print the rows that are new, gone or different."""
    before = {tuple(row.values()) for row in read(name)}
    after = {tuple(row[column] for column in columns) for row in rows}
    for sign, some in (("-", before - after), ("+", after - before)):
        print(*(f"{sign} {','.join(row)}" for row in sorted(some)), sep="\n")
    with open(HERE / name, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main(words: list[str]) -> int:
    """Do what the command line says; the exit status."""
    match words:
        case ["iana", path]:
            with open(path, newline="") as file:
                _write("ipfix_elements.csv", IANA, list(iana_rows(file)))
        case ["reverse"]:
            others = [row for row in read("enterprise_elements.csv") if row["pen"] != REVERSE_PEN]
            rows = [*others, *reverse_rows(read("ipfix_elements.csv"))]
            _write("enterprise_elements.csv", ENTERPRISE, sorted(rows, key=lambda row: int(row["pen"])))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
