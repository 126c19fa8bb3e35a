# What the container of test_systemd does, each step with its output in /seen/NAME. Runs as a unit of the systemd there.

mkdir -p /seen
step() { exec >"/seen/$1" 2>&1; }
state() { systemctl show "${1:-ulogd-tw}" -p ActiveState,SubState,StatusText,MainPID,NRestarts,NFileDescriptorStore,Result; }
# within 20 seconds
until_true() { local n; for n in $(seq 200); do "$@" && return; sleep 0.1; done; echo "never: $*"; return 1; }
main_pid() { systemctl show ulogd-tw -p MainPID --value; }
is_other() { local now; now=$(main_pid); [ "$now" != "$1" ] && [ "$now" != 0 ] && systemctl --quiet is-active ulogd-tw; }
# 2,000 packets of NetFlow v5 with one flow each, over 4 seconds; their numbers begin at $1
sends_flows() { python3 -c 'import socket, struct, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for n in range(int(sys.argv[1]), int(sys.argv[1]) + 2000):
    now = int(time.time())
    s.sendto(struct.pack(">HHIIIIHH", 5, 1, 9000, now, 0, n, 0, 0) + bytes(48), ("127.0.0.1", 4740))
    time.sleep(0.002)' "$1"; }

step install
dpkg --install /package/first.deb; echo "status $?"

step installed
until_true systemctl --quiet is-active ulogd-tw
state
systemctl is-enabled ulogd-tw
ps -o user= -p "$(main_pid)"
ls -l /usr/sbin/ulogd-tw
ulogd-tw --version
ulogd-tw status; echo "status $?"
systemd-analyze security --no-pager ulogd-tw | tail -1

step ready
systemctl restart ulogd-tw
# the sockets are there as soon as the start is said to be done
ss -lun 'sport = :4739' | tail -n +2
state

step status
systemctl status --no-pager ulogd-tw

step query
ulogd-tw query 'select count(*) as n from agg1'; echo "status $?"
ulogd-tw query --json "select * from read_text('/etc/passwd')"; echo "status $?"

step journal
printf '[global]\nstack=nobody\nstack=d:DEMO,j:JSON\n[j]\nfile="/var/log/ulogd/odd/d.json"\nno_such=1\n' >/etc/ulogd-tw/odd.conf
systemctl start ulogd-tw@odd
journalctl --no-pager -o json -u ulogd-tw@odd _TRANSPORT=stdout

step template
state ulogd-tw@odd
ls -d /run/ulogd-tw-odd /var/lib/ulogd/odd /var/log/ulogd/odd
systemctl stop ulogd-tw@odd
journalctl --no-pager -o cat -u ulogd-tw@odd

step restart
# without the list of plugins Twisted imports what deletes the variables of the store
rm /opt/ulogd-tw/lib/python3*/site-packages/twisted/plugins/dropin.cache
cat >/etc/ulogd-tw/loss.conf <<END
[global]
state_dir="/var/lib/ulogd/loss/state"
stats_file="/var/lib/ulogd/loss/stats.json"
stack=c:COLLECTOR,a:AGGREGATE,j:JSON
[c]
listen="udp:127.0.0.1:4740"
[a]
key="exporter"
interval=1
[j]
file="/var/log/ulogd/loss/flows.json"
END
systemctl start ulogd-tw@loss
sends_flows 0 &
sleep 1
systemctl restart ulogd-tw@loss; echo "status $?"
wait
state ulogd-tw@loss
sleep 1
systemctl stop ulogd-tw@loss
python3 -c 'import json
print("flows", sum(json.loads(line)["flows"] for line in open("/var/log/ulogd/loss/flows.json")))'

step reload
before=$(main_pid)
sed -i s/interval=60/interval=30/ /etc/ulogd-tw.conf
systemctl reload ulogd-tw; echo "status $?"
sleep 2
state
journalctl --no-pager -o cat -u ulogd-tw | tail -5
[ "$before" = "$(main_pid)" ] && echo same process

step logrotate
echo '{}' >>/var/log/ulogd/flows.json
chown ulogd: /var/log/ulogd/flows.json
logrotate --force /etc/logrotate.d/ulogd-tw; echo "status $?"
until_true test -e /var/log/ulogd/flows.json
ls /var/log/ulogd

# beside the next step: killed while flows come, which are the first in the new file
systemctl start ulogd-tw@loss
sends_flows 2000 &
sender=$!
(sleep 1.5; systemctl kill --signal=KILL ulogd-tw@loss) &

step watchdog
mkdir -p /run/systemd/system/ulogd-tw.service.d
printf '[Service]\nWatchdogSec=4\nRestartSec=0\n' >/run/systemd/system/ulogd-tw.service.d/test.conf
systemctl daemon-reload
systemctl restart ulogd-tw
first=$(main_pid)
sleep 6
[ "$first" = "$(main_pid)" ] && echo lives
kill -STOP "$first"
until_true is_other "$first" && echo started again
journalctl --no-pager -o cat -u ulogd-tw | grep -i watchdog
rm -r /run/systemd/system/ulogd-tw.service.d
systemctl daemon-reload

step killed
wait "$sender"
until_true systemctl --quiet is-active ulogd-tw@loss
sleep 1
state ulogd-tw@loss
systemctl stop ulogd-tw@loss
python3 -c 'import json
found = json.load(open("/var/lib/ulogd/loss/stats.json"))["instances"]
lost = {name: one["lost"] for name, one in found.items() if one["lost"]}
stored = sum(json.loads(line)["flows"] for line in open("/var/log/ulogd/loss/flows.json"))
print("stored", stored, "lost", lost)
print("stored and lost", stored + sum(sum(one.values()) for one in lost.values()))'

step wrong
cp /etc/ulogd-tw.conf /kept.conf
echo 'stack=nobody:KNOWS,j:JSON' >/etc/ulogd-tw/wrong.conf
sed -i '1i [global]' /etc/ulogd-tw/wrong.conf
systemctl start ulogd-tw@wrong; echo "status $?"
systemctl stop ulogd-tw@wrong
journalctl --no-pager -o json -u ulogd-tw@wrong _TRANSPORT=stdout

step upgrade
echo '# mine' >>/etc/ulogd-tw.conf
before=$(main_pid)
dpkg --install /package/second.deb; echo "status $?"
until_true systemctl --quiet is-active ulogd-tw
[ "$before" != "$(main_pid)" ] && echo another process
tail -1 /etc/ulogd-tw.conf
dpkg-query -W -f '${Version}\n' ulogd-tw
state

step stop
systemctl stop ulogd-tw; echo "status $?"
state
journalctl --no-pager -o cat -u ulogd-tw | tail -3

step remove
systemctl start ulogd-tw
dpkg --remove ulogd-tw; echo "status $?"
systemctl is-active ulogd-tw
ls -d /etc/ulogd-tw.conf /var/lib/ulogd /opt/ulogd-tw

step purge
dpkg --purge ulogd-tw; echo "status $?"
find / -xdev '(' -path /proc -o -path /sys -o -path /work -o -path /package -o -path /seen -o -path /root ')' -prune -o -newer /seen/install -name '*ulogd*' -print | grep -v /var/log/journal
getent passwd ulogd
exit 0
