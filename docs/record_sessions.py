"""Runs the commands of the documents again, and writes what they print: blocks of commands.md, pictures of terminals.

python docs/record_sessions.py        needs ssh and ssh-keygen; takes half a minute

A block marked `console` is a command behind `$ ` and its output. The commands run in a directory of their own, beside a
service with docs/sessions.conf. Of long outputs the first lines stay.
"""

import re
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from xml.sax.saxutils import escape

TOP = Path(__file__).resolve().parents[1]
DOCS = TOP / "docs"
PICTURES = DOCS / "pictures"
CONSOLE = re.compile(r"^```console\n\$ (.*)\n(?:(?!```).*\n)*```$", re.M)
LINES, COLUMNS = 16, 240
"""What stays of an output; a line is cut, and ends with an ellipsis."""
FIRST_ROWS = 16
"""Seconds until the service has some rows of each kind."""
TERMINALS = {
    # picture: its commands, the lines and the columns that are shown
    "first-flows.svg": (["make demo"], 14, 118),
    "top.svg": (["ulogd-tw top -c etc/demo.conf"], 16, 118),
    "collector.svg": (["tail -n 2 records.json", "ssh -p 5022 127.0.0.1 'exporters()'"], 14, 118),
    "check.svg": (["ulogd-tw --check -c ulogd.conf"], 22, 118),
}
OLD = """[global]
logfile="/var/log/ulogd.log"
plugin="/usr/lib/x86_64-linux-gnu/ulogd/ulogd_inppkt_NFLOG.so"
stack=log1:NFLOG,base1:BASE,ifi1:IFINDEX,ip2str1:IP2STR,print1:PRINTPKT,emu1:LOGEMU
stack=ct1:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,sys1:SYSLOG

[log1]
group=0
buffersize=150000

[emu1]
file="/var/log/ulogd_syslogemu.log"
sync=1
"""
"""A configuration as it stands on many hosts with ulogd2, with the usual mistake in it."""
_CELL, _LINE, _PAD = 7.25, 17, 14
_COLOURS = {"$": "#8ae234", "~": "#e6e6e6"}


class Service:
    """The service of the sessions, in a directory with what the commands name."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "etc").mkdir()
        (folder / "ulogd.conf").write_text(OLD)
        keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "key"]
        subprocess.run(keygen, cwd=folder, check=True, timeout=60)
        (folder / "key.pub").rename(folder / "keys")
        (folder / "keys").chmod(0o600)
        (folder / "etc" / "ulogd.conf").write_text((DOCS / "sessions.conf").read_text("utf-8"))
        (folder / "etc" / "demo.conf").write_text((TOP / "etc" / "demo.conf").read_text("utf-8"))
        self.running = {name: self._started(name) for name in ("ulogd", "demo")}

    def _started(self, name):
        log = open(self.folder / f"{name}.log", "wb")
        argv = [Path(sys.executable).parent / "ulogd-tw", "-c", f"etc/{name}.conf"]
        return subprocess.Popen(argv, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def end(self):
        """Stop both."""
        for process in self.running.values():
            process.terminate()
            process.wait(60)

    def output(self, command):
        """What a command prints, its errors too."""
        if command == "make demo":
            return (self.folder / "demo.log").read_text("utf-8").replace(f"{self.folder}/", "")
        options = "-q -i key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o IdentitiesOnly=yes"
        run = command.replace("ssh -p 5022", f"ssh {options} -p 5022")
        if re.match(r"ulogd-tw top(?!.*--once)", run):
            run += " --once"
        path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        done = subprocess.run(
            ["bash", "-c", run], cwd=self.folder, env={"PATH": path, "HOME": str(self.folder), "COLUMNS": "140"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, check=False,
        )  # fmt: skip
        return done.stdout.replace(f"{self.folder}/", "")


@contextmanager
def service():
    """A running `Service`, with rows."""
    with tempfile.TemporaryDirectory() as folder:
        made = Service(Path(folder))
        try:
            time.sleep(FIRST_ROWS)
            yield made
        finally:
            made.end()


def shortened(text, lines=LINES, columns=COLUMNS):
    """The first lines of a text, each cut behind a word at a width; `...` stands for the rest."""
    found = [
        line if len(line) <= columns else line[: columns - 4].rpartition(" ")[0] + " ..."
        for line in text.rstrip("\n").splitlines()
    ]
    return found if len(found) <= lines else [*found[: lines - 1], "..."]


def commands(path):
    """The commands of a document's `console` blocks."""
    return CONSOLE.findall(path.read_text("utf-8"))


def renewed(text, outputs):
    """A document with the outputs of `outputs(command)` below its commands."""

    def block(match):
        return "\n".join(["```console", f"$ {match[1]}", *shortened(outputs(match[1])), "```"])

    return CONSOLE.sub(block, text)


def terminal(lines, columns):
    """A picture of a terminal with these lines; those that begin with `$` are typed."""
    width, height = columns * _CELL + 2 * _PAD, len(lines) * _LINE + 2 * _PAD
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}">'
    yield f"<title>{escape(lines[0][2:])}</title>"
    yield f'<rect width="{width:.0f}" height="{height}" rx="8" fill="#1e1e1e"/>'
    yield '<g font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="12" xml:space="preserve">'
    for number, line in enumerate(lines):
        colour = _COLOURS["$" if line.startswith("$ ") else "~"]
        y = _PAD + 12 + number * _LINE
        yield f'<text x="{_PAD}" y="{y}" fill="{colour}">{escape(line)}</text>'
    yield "</g></svg>"


def wrapped(text, columns):
    """The lines of a text as a terminal of this width shows them."""
    for line in text.splitlines():
        yield from [line[at : at + columns] for at in range(0, len(line), columns)] or [""]


def screen(commands_, outputs, lines, columns):
    """The lines of a terminal after these commands; each has an equal share of the lines."""
    share = lines // len(commands_)
    found = []
    for command in commands_:
        found += [f"$ {command}", *list(wrapped(outputs(command), columns))[: share - 1]]
    return found


def main():
    """Write everything anew."""
    with service() as made:
        for path in sorted(DOCS.glob("*.md")):
            text = path.read_text("utf-8")
            path.write_text(renewed(text, made.output), "utf-8")
        for name, (typed, lines, columns) in TERMINALS.items():
            shown = screen(typed, made.output, lines, columns)
            (PICTURES / name).write_text("\n".join(terminal(shown, columns)) + "\n", "utf-8")


if __name__ == "__main__":
    main()
