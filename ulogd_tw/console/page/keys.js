// Keys of flows: what people call them, how their values are shown, and the term of MATCH for a value.

const NAMES = {
  sourceAddress: "source address", destinationAddress: "destination address", sourceTransportPort: "source port",
  destinationTransportPort: "destination port", protocolIdentifier: "protocol", bgpSourceAsNumber: "source AS",
  bgpDestinationAsNumber: "destination AS", ingressInterface: "interface in", egressInterface: "interface out",
  ipClassOfService: "class of service", tcpControlBits: "TCP flags", exporter: "exporter", applicationName: "application",
  ip: "address, either side", port: "port, either side", as: "AS, either side", if: "interface, either side",
};
const PROTOCOLS = { 1: "ICMP", 2: "IGMP", 6: "TCP", 17: "UDP", 41: "IPv6", 47: "GRE", 50: "ESP", 51: "AH", 58: "ICMPv6", 89: "OSPF", 132: "SCTP" };
const SERVICES = {
  20: "ftp-data", 21: "ftp", 22: "ssh", 23: "telnet", 25: "smtp", 53: "domain", 67: "dhcp", 80: "http", 110: "pop3", 123: "ntp",
  143: "imap", 161: "snmp", 179: "bgp", 389: "ldap", 443: "https", 445: "smb", 465: "smtps", 500: "isakmp", 514: "syslog",
  587: "submission", 636: "ldaps", 853: "dns-tls", 993: "imaps", 995: "pop3s", 1194: "openvpn", 1433: "mssql", 3306: "mysql",
  3389: "rdp", 4500: "ipsec-nat", 4739: "ipfix", 5060: "sip", 5432: "postgresql", 6379: "redis", 8080: "http-alt", 51820: "wireguard",
};
const EITHER = { ip: ["sourceAddress", "destinationAddress"], port: ["sourceTransportPort", "destinationTransportPort"],
  as: ["bgpSourceAsNumber", "bgpDestinationAsNumber"], if: ["ingressInterface", "egressInterface"] };
const NOT_KEYS = /Count$|Milliseconds$|Microseconds$|Nanoseconds$|Seconds$|^(octets|packets|flows|interval_start|interval_end|arrival|record_kind)$|Id$|SysUpTime|^raw\.|^oob\.time|Total/;

/** The key of a name such as sourceAddress/24:48, and what follows the slash. */
export const parted = (name) => { const [base, ...rest] = name.split("/"); return [base, rest.join("/")]; };

/** What people call a key. */
export function title(name) {
  const [base, rest] = parted(name);
  const known = NAMES[base] || base;
  return rest ? `${known} /${rest}` : known;
}

/** The keys that flows can be grouped by, from the keys of the outputs of a store. */
export function groupable(store) {
  const raw = store.outputs.filter((output) => !output.rollup);
  const found = {};
  for (const output of raw.length ? raw : store.outputs) {
    const by = raw.length ? null : output.rollup.by;
    for (const [name, type] of Object.entries(output.keys || {})) if (by ? by.includes(name) : !NOT_KEYS.test(name)) found[name] = type;
  }
  const names = [];
  for (const [name, type] of Object.entries(found)) {
    names.push(name);
    if (type === "address" && !name.includes("/")) names.push(`${name}/24:48`, `${name}/16:32`);
  }
  for (const [word, sides] of Object.entries(EITHER)) if (sides.every((side) => side in found)) names.push(word);
  return { names, types: found };
}

/** The first picture's dimension. Ports are none: of flows of one direction half have a client's as their destination. */
export function first(names) {
  const wanted = ["applicationName", "sourceAddress", "destinationAddress", "protocolIdentifier", "exporter"];
  return wanted.find((name) => names.includes(name)) || names[0] || "";
}

/** A value of a key as text. */
export function text(name, value) {
  if (value === null || value === undefined) return "none";
  const [base, rest] = parted(name);
  if (base === "protocolIdentifier" && !rest) return PROTOCOLS[value] || String(value);
  if (base.endsWith("TransportPort") || base === "port") {
    if (rest) return `${value} to ${Number(value) + Number(rest) - 1}`;
    return SERVICES[value] ? `${value} ${SERVICES[value]}` : String(value);
  }
  if (/^bgp.*AsNumber$/.test(base) || base === "as") return `AS${value}`;
  if (base === "tcpControlBits" && !rest) return "CEUAPRSF".split("").map((letter, at) => (value >> (7 - at)) & 1 ? letter : ".").join("");
  if (rest && /Address$|^ip$|^exporter$/.test(base)) return `${value}/${length(rest, value)}`;
  return String(value);
}

const length = (rest, value) => { const [four, six] = rest.split(":"); return String(value).includes(":") ? six || four : four; };
const quoted = (value) => `"${String(value).replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;

/** The term of MATCH for the rows of a group with this value. */
export function term(name, value, type) {
  const [base, rest] = parted(name);
  if (base in EITHER) return base === "if" ? `if ${value}` : base === "as" ? `as ${value}` : rest ? `net ${value}/${length(rest, value)}` : `${base} ${value}`;
  if (value === null || value === undefined) return `not exists ${base}`;
  if (rest && type !== "unsigned") return `${base} in [${value}/${length(rest, value)}]`;
  if (rest) return `${base} >= ${value} and ${base} < ${Number(value) + Number(rest)}`;
  return `${base} == ${type === "text" ? quoted(value) : value}`;
}

/** A filter with one more term. */
export function narrowed(match, more) {
  const before = match.trim();
  if (!before || before === "any") return more;
  return / or /.test(before) ? `(${before}) and ${more}` : `${before} and ${more}`;
}
