"""What an exporter says about itself in options records, by Observation Domain."""

from __future__ import annotations


class ExporterInfo:
    """What is known of one Observation Domain.

    samplers       factor by the sampler's id; under None where the exporter names none
    interfaces     name by index
    applications   name by applicationId (octets)
    flow_keys      by template id: which fields are flow keys, as bits
    statistics     total counters by the process that they are of
    """

    __slots__ = ("samplers", "interfaces", "applications", "flow_keys", "statistics")

    def __init__(self) -> None:
        self.samplers: dict[int | None, float] = {}
        self.interfaces: dict[int, bytes] = {}
        self.applications: dict[bytes, bytes] = {}
        self.flow_keys: dict[int, int] = {}
        self.statistics: dict[tuple, dict[str, int]] = {}

    def __len__(self) -> int:
        return sum(len(getattr(self, name)) for name in self.__slots__)

    @property
    def factor(self) -> float:
        """How many packets stand behind one, where a record does not name its sampler; 1 where that is not clear."""
        if None in self.samplers:
            return self.samplers[None]
        rates = set(self.samplers.values())
        return rates.pop() if len(rates) == 1 else 1.0
