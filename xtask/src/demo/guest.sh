# The demo's part in the guest, run by bash: $1 is `colour` or `plain`.
# A file is pinned by RDMA, then loses its mapping, its descriptor and its name. Who still knows of it?
# Exits with 0 only if lspins named the file while it was pinned, and nothing after it was released.

bold= dim= off=
[ "$1" = colour ] && bold=$'\e[1m' dim=$'\e[2m' off=$'\e[0m'

heading() { printf '\n%s== %s%s\n' "$bold" "$1" "$off"; }
fail() { printf '\ndemo: %s\n' "$1"; [ ! -s /run/daemon.log ] || tail -n 20 /run/daemon.log; exit 1; }

# Shows a command and what it says; silence is shown too. The answer is kept in $answer.
ask() {
  printf '%s$ %s%s\n' "$dim" "$*" "$off"
  answer=$("$@" 2>&1)
  local status=$?
  if [ -n "$answer" ]; then printf '%s\n' "$answer" | sed 's/^/  /'; else printf '  (nothing, exit status %d)\n' "$status"; fi
  return "$status"
}

# Tells mkpins to do something and waits for its answer.
tell() {
  echo "$1" >&"${mkpins[1]}" || fail "mkpins is gone"
  read -r -t 20 reply <&"${mkpins[0]}" || fail "mkpins did not answer \"$1\""
  [[ $reply == *'"done"'* ]] || fail "mkpins could not $1: $reply"
  printf '  %-9s done\n' "$1"
}

rdma-up || fail "there is no soft-RoCE in this guest"
mkdir -p /srv && mount -t tmpfs -o size=256M tmpfs /srv && mkdir /srv/pool || fail "cannot mount a tmpfs on /srv"

heading "Linux $(uname -r): pinwatch begins to watch"
pinwatch run > /run/daemon.log 2>&1 &
daemon=$!
for _ in {1..300}; do
  [ -S /run/pinwatch/pinwatch.sock ] && break
  kill -0 $daemon 2>/dev/null || fail "pinwatch ended by itself; its log:"
  sleep 0.1
done
[ -S /run/pinwatch/pinwatch.sock ] || fail "pinwatch did not begin to listen within 30 seconds; its log:"
printf '%s$ pinwatch run &%s\n' "$dim" "$off"
sed 's/^/  /' /run/daemon.log

heading "A program gives 64 MiB of /srv/pool/pool.dat to an RDMA device, and lets go of the file"
coproc mkpins { mkpins rdma-mr file --path /srv/pool/pool.dat --length 64M 2>&1; }
read -r -t 30 made <&"${mkpins[0]}" || fail "mkpins said nothing within 30 seconds"
[[ $made == *'"pid"'* ]] || fail "mkpins made no pin: $made"
pid=${made#*\"pid\":}; pid=${pid%%,*}
printf '  %-9s done\n' open mmap register
tell munmap
tell close
tell unlink

heading "Who knows? The device can still write into the 64 MiB"
ask lsof /srv
ask fuser -m /srv
ask grep pool "/proc/$pid/maps"
ask df -h /srv
ask rdma resource show mr
printf '  %s(a size and a process, but of which file?)%s\n' "$dim" "$off"

heading "lspins knows"
ask lspins
[[ $answer == *"/srv/pool/pool.dat (deleted)"* ]] || fail "lspins did not name the file"
ask lspins -t /srv/pool/pool.dat
[ "${answer%%$'\n'*}" = "$pid" ] || fail "lspins -t did not name process $pid"

heading "Released: the table is empty again"
tell release
for _ in {1..50}; do
  lspins > /dev/null 2>&1
  [ $? = 1 ] && break
  sleep 0.1
done
ask lspins -v
[ $? = 1 ] || fail "lspins still lists a pin"
echo exit >&"${mkpins[1]}"
printf '\n'
exit 0
