# SPDX-License-Identifier: Apache-2.0
# See service.sh: the part that runs as root below the container's systemd. Waits are for conditions, with a
# deadline; a sleep is only the pause between two looks.
set -u
cd /carvq-test || exit 1
unit=carvqd.service socket=/run/carvq/carvqd.sock control=/run/carvq/control.sock
n=0 failed=0

# result NAME STATUS
result() {
  n=$((n + 1))
  if [ "$2" = 0 ]; then echo "ok $n - $1"; return; fi
  failed=1
  echo "not ok $n - $1"
  systemctl status --no-pager --lines 5 $unit 2>&1 | sed 's/^/# /'
}
# check NAME COMMAND..., refuse NAME COMMAND...: that it succeeds, that it fails.
check() {
  local name=$1 status
  shift
  "$@" >/tmp/out 2>&1
  status=$?
  result "$name" $status
  [ $status = 0 ] || sed 's/^/# /' /tmp/out
}
refuse() { local name=$1; shift; ! "$@" >/tmp/out 2>&1; result "$name" $?; }
# within SECONDS COMMAND...: until it succeeds.
within() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    [ $SECONDS -lt $deadline ] || return 1
    sleep 0.02
  done
}
as() { local user=$1; shift; setpriv --reuid "$user" --regid "$user" --init-groups "$@"; }
property() { systemctl show --value -p "$1" $unit; }
has() { [[ $(property "$1") =~ $2 ]]; }
is() { [ "$(property "$1")" = "$2" ]; }
owner() { [ "$(stat -c '%U:%G %a' "$1")" = "$2" ]; }
journal_has() { journalctl --sync && journalctl -q -o json "$@" | grep -q .; }
# Overrides of the unit, such as a watchdog that barks sooner.
drop_in() {
  mkdir -p /run/systemd/system/$unit.d
  printf '[Service]\n%s\n' "$1" >/run/systemd/system/$unit.d/test.conf
  systemctl daemon-reload
}

# ---- Installation, as a package or an administrator does it

cat >/run/sysusers-test.conf <<'USERS'
u member - - /
u operator - - /
u stranger - - /
m member carvq
m operator carvq-admin
USERS
ldconfig
systemd-sysusers >/dev/null 2>&1 && systemd-sysusers /run/sysusers-test.conf >/dev/null 2>&1 && systemd-tmpfiles --create carvqd.conf
result "users and folders are made" $?
check "the folder of tables can be published to before the first start" owner /var/lib/carvq "carvqd:carvqd 755"
install -m 644 first.carvq /var/lib/carvq/
touch /var/tmp/carvq-test-host /root/carvq-test-home
chmod 711 /root

check "carvqd.socket can be enabled and started" systemctl enable --now carvqd.socket
check "... and brings the control socket" systemctl is-active carvqd-control.socket
check "... also at the next boot" systemctl is-enabled carvqd-control.socket
check "lookups are for the group carvq" owner $socket "root:carvq 660"
check "control is for the group carvq-admin" owner $control "root:carvq-admin 660"
check "no daemon runs yet" is ActiveState inactive

# ---- Clients

refuse "a stranger may not connect" as stranger ./test-service-client lookup first
check "... and starts nothing" is ActiveState inactive
check "a member's lookup starts the daemon" as member ./test-service-client lookup first
check "the daemon is ready" is ActiveState active
check "it runs in the slice of the tables" is Slice carvq.slice
refuse "a stranger may still not connect" as stranger ./test-service-client lookup first
check "an operator may use carvqctl" as operator carvqctl tables
refuse "a member may not" as member carvqctl tables
refuse "... nor a stranger" as stranger carvqctl tables
carvqctl status --json 2>/dev/null | grep -q "\"socket_path\": *\"$socket\""
result "carvqctl status names the socket that was passed" $?

coproc CLIENT { as member ./test-service-client drain first 2>/tmp/client.err; }
exec {from_client}<&"${CLIENT[0]}" {to_client}>&"${CLIENT[1]}" # bash forgets its own when the client ends
read -r line <&$from_client && [ "$line" = open ] &&
  within 10 has StatusText '^Serving 1 table \(first\) to 1 client, kernels [a-z0-9+]+, event loop (io_uring|epoll \(.*\))$'
result "systemctl status shows tables, clients, kernels and event loop" $?
systemctl status --no-pager --lines 0 $unit | sed 's/^/# /'

# ---- Reload

pid=$(property MainPID)
install -m 644 second.carvq /var/lib/carvq/.second.tmp && mv /var/lib/carvq/.second.tmp /var/lib/carvq/second.carvq
check "the service can be reloaded" systemctl reload $unit
check "... and then has the new table" as member ./test-service-client lookup second
check "... in its status" within 10 has StatusText '^Serving 2 tables \((first, second|second, first)\) to 1 client,'
check "... and is ready" within 10 is SubState running
[ "$pid" = "$(property MainPID)" ]
result "... and the same process" $?
rm /var/lib/carvq/first.carvq
systemctl reload $unit
check "... and no longer a table whose file is gone" within 10 has StatusText '^Serving 1 table \(second\)'
refuse "... which cannot be opened" as member ./test-service-client lookup first

head -c 100 second.carvq >/var/lib/carvq/.bad && mv /var/lib/carvq/.bad /var/lib/carvq/bad.carvq
refuse "a reload that refuses a table fails" systemctl reload $unit
check "... which carvqctl tells" eval 'carvqctl tables | grep -q "bad.*/var/lib/carvq/bad.carvq"'
check "... and the service runs on" as member ./test-service-client lookup second
rm /var/lib/carvq/bad.carvq
check "... until it is gone" systemctl reload $unit

# The kernel tells owners alone what of a file is in memory, and the tables are root's.
carvqctl stats second --json | grep -q '"cached_bytes": [1-9]'
result "root learns what of a table is in the page cache" $?
carvqctl stats second --prometheus | grep -q '^carvq_table_page_cache_bytes{.*} [1-9]'
result "... and so does root's monitor" $?

# ---- The journal

check "the journal has fields: TABLE" within 10 journal_has _SYSTEMD_UNIT=$unit TABLE=second PRIORITY=6
as member ./test-service-client insult
check "... CLIENT_PID, CLIENT_UID" within 10 journal_has _SYSTEMD_UNIT=$unit CLIENT_UID="$(id -u member)" PRIORITY=4
journalctl -q -o json _SYSTEMD_UNIT=$unit CLIENT_UID="$(id -u member)" | grep -q '"CLIENT_PID":"[1-9]'
result "... of the client, as seen from here" $?

# ---- Sandbox: what holds for the process that runs, and what a program in its place may do, even if it were root

grep -qx 'NoNewPrivs:	1' /proc/$pid/status && grep -qx 'Seccomp:	2' /proc/$pid/status &&
  ! grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb):' /proc/$pid/status | grep -qv '	0*$'
result "the daemon has no capabilities and a filter of system calls" $?
[ "$(stat -c %U /proc/$pid)" = carvqd ] && [ "$(stat -Lc %i /proc/$pid/ns/net)" != "$(stat -Lc %i /proc/1/ns/net)" ]
result "... is nobody else's user, and in a network of its own" $?
refuse "... in which not even root can write outside" touch /proc/$pid/root/etc/carvq-probe
refuse "... or to the tables" touch /proc/$pid/root/var/lib/carvq/probe
check "... but to its own folder" touch /proc/$pid/root/run/carvqd/probe
writable=$(awk '$6 ~ /^rw/ { rw[$5] = 1 } $6 ~ /^ro/ { delete rw[$5] } END { for (i in rw) print i }' /proc/$pid/mountinfo | grep -v ^/run/host/ | sort | xargs)
[ "$writable" = "/dev/pts /proc /run/carvqd /tmp /var/tmp" ]
result "nothing else is mounted for writing" $?
echo "# $writable"
grep -q 'hidepid=invisible.*subset=pid' /proc/$pid/mountinfo
result "other processes cannot be seen" $?

probe="/carvq-test/test-service-probe /var/lib/carvq/second.carvq"
sed -e 's,^Type=.*,Type=oneshot,' -e "s,^ExecStart=.*,ExecStart=$probe\nStandardOutput=file:/run/carvqd-probe.out," \
  -e '/^\(User\|Group\|Sockets\|StateDirectory\|RuntimeDirectory\|WatchdogSec\|Restart\)=/d' \
  "$(property FragmentPath)" >/run/systemd/system/carvqd-probe.service
systemctl daemon-reload
systemctl start carvqd-probe.service
line=
while IFS= read -r next; do
  line=$next n=$((n + 1))
  case $line in not*) failed=1 ;; esac
  echo "${line/ok -/ok $n -}"
done </run/carvqd-probe.out
[[ $line == *"no program that was written"* ]]
result "the sandbox was tried to the end" $?

# ---- Restart: clients go on, one of them with a table that has no name any more

kill -STOP "$pid" # so that all of it is still there
echo >&$to_client
read -r line <&$from_client && [ "$line" = submitted ] && systemctl restart $unit
read -r line <&$from_client && [ "$line" = answered ]
result "systemctl restart: lookups in flight are answered" $?
[ "$pid" != "$(property MainPID)" ]
result "... by another process" $?
check "... and the store is empty" is NFileDescriptorStore 0

mkfifo /tmp/load.in
as member ./test-service-client load second /var/lib/carvq/second.carvq 4 </tmp/load.in >/tmp/load.out 2>&1 &
load=$!
exec {to_load}>/tmp/load.in
check "four clients look up" within 20 grep -qx open /tmp/load.out
restarted=0
for _ in 1 2 3 4 5; do
  systemctl reset-failed $unit # else the limit of starts would be met
  systemctl restart $unit && is NFileDescriptorStore 0 && [[ $(property StatusText) == *" to 5 clients,"* ]] &&
    restarted=$((restarted + 1))
done
[ $restarted = 5 ]
result "systemctl restart under load, five times, keeps all clients" $?
echo >&$to_load
wait $load
result "... and no lookup fails or is wrong" $?
sed 's/^/# /' /tmp/load.out

# ---- The end

systemctl stop $unit 2>/dev/null
read -t 20 -r line <&$from_client && [ "$line" = drained ]
result "systemctl stop: a client sees the end" $?
sed 's/^/# /' /tmp/client.err
check "... and the daemon ends well" is Result success
check "... and is away" is ActiveState inactive
check "the next lookup starts it again" as member ./test-service-client lookup second

# ---- The watchdog

drop_in 'WatchdogSec=1s'
systemctl restart $unit
pid=$(property MainPID)
kill -STOP "$pid"
check "a daemon that is stopped is killed and comes back" within 20 is NRestarts 1
check "... ready" within 20 is ActiveState active
journal_has -u $unit -g 'Watchdog timeout'
result "... because of the watchdog" $?
check "... and serves" as member ./test-service-client lookup second
check "... as another process" [ "$pid" != "$(property MainPID)" ]
coproc STALL { exec python3 stall-thread.py "$(property MainPID)" carvqd-worker 2>&1; }
read -r line <&"${STALL[0]}" && [ "$line" = stalled ] && within 20 is NRestarts 2
result "so is one of which a worker is stuck" $?
check "... which it tells" within 10 journal_has _SYSTEMD_UNIT=$unit PRIORITY=4 -g 'worker [0-9]+ gives no sign of life'
check "... and serves" as member ./test-service-client lookup second

echo "1..$n"
exit $failed
