"""A real exporter: pmacctd's nfprobe, to our collector and to nfcapd. The totals must agree."""

import subprocess

from tests.live.test_softflowd import NAMES, TwoCollectors

CONFIG = """
daemonize: false
pcap_savefile: {path}
plugins: nfprobe
nfprobe_receiver: 127.0.0.1:{port}
nfprobe_version: {version}
aggregate: src_host, dst_host, src_port, dst_port, proto
"""


class NfprobeTests(TwoCollectors):
    """nfprobe, which reads the capture to its end."""

    names = dict.fromkeys((9, 10), ("flowStartMilliseconds", "flowEndMilliseconds", *NAMES[2:]))
    numbered = (9, 10)
    absolute = (5, 9)

    def export(self, path, port, version):
        config = path.with_name(f"nfprobe{version}.conf")
        config.write_text(CONFIG.format(path=path, port=port, version=version))
        subprocess.run(["pmacctd", "-f", config], capture_output=True, timeout=60, check=False)

    def test_totals_equal_those_of_nfcapd(self):
        """IPFIX, v9 and v5."""
        self.compare("pmacctd")
