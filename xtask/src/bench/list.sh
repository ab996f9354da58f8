# The guest's part of `bench list`, run by bash with -icount: $1 pins against as many descriptors. Prints
# `elapsed WHAT ROWS MICROSECONDS`.

count=$1

# Elapsed microseconds of a command, the least of three.
clock() {
  local what=$1 least= start took rows
  shift
  rows=$("$@" 2>/dev/null | wc -l)
  for _ in 1 2 3; do
    start=${EPOCHREALTIME/./}
    "$@" > /dev/null 2>&1
    took=$((${EPOCHREALTIME/./} - start))
    if [ -z "$least" ] || [ "$took" -lt "$least" ]; then least=$took; fi
  done
  echo "elapsed $what $rows $least"
}

echo "pinwatch listens; making $count pins"
coproc many { mkpins many --count "$count" --path /srv/pinned 2>&1; }
pins=${many[0]}
read -r -t 600 line <&"$pins" && [[ $line == *'"count"'* ]] || { echo "mkpins many: ${line:-no answer}"; exit 1; }
echo "the pins are made"
clock lspins lspins -j
mkfifo /run/orders
mkpins fds --count "$count" --dir /srv/fds < /run/orders > /run/fds 2>&1 &
pid=$!
exec 8> /run/orders
for _ in {1..600}; do
  grep -q '"count"' /run/fds && break
  kill -0 $pid 2>/dev/null || { echo "mkpins fds:"; cat /run/fds; exit 1; }
  sleep 1
done
echo "as many descriptors are open"
clock lsof lsof -p "$pid"
exit 0
