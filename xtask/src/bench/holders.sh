# The guest's part of `bench holders`, run by bash with -icount: 1,000 pins on ten rings, and processes with descriptors that
# keep nothing. Prints `elapsed WHAT ROWS MICROSECONDS`.

# Elapsed microseconds of a complete listing, the least of five.
clock() {
  local what=$1 least= start took rows
  rows=$(lspins -J | grep -o '"id":' | wc -l)
  for _ in 1 2 3 4 5; do
    start=${EPOCHREALTIME/./}
    lspins -j > /dev/null 2>&1
    took=$((${EPOCHREALTIME/./} - start))
    if [ -z "$least" ] || [ "$took" -lt "$least" ]; then least=$took; fi
  done
  echo "elapsed $what $rows $least"
}

# Processes with so many descriptors each.
with() {
  mkfifo "/run/orders-$1"
  mkpins fds --processes "$1" --count "$2" --dir /srv/fds < "/run/orders-$1" > "/run/fds-$1" 2>&1 &
  last=$!
  exec {orders}> "/run/orders-$1"
  for _ in {1..1200}; do
    grep -q '"count"' "/run/fds-$1" && return
    kill -0 $last 2>/dev/null || break
    sleep 0.1
  done
  echo "mkpins fds:"
  cat "/run/fds-$1"
  exit 1
}

without() {
  exec {orders}>&-
  wait $last
}

coproc many { mkpins many --count 1000 --rings 10 --path /srv/pinned 2>&1; }
pins=${many[0]}
read -r -t 600 line <&"$pins" && [[ $line == *'"count"'* ]] || { echo "mkpins many: ${line:-no answer}"; exit 1; }
clock alone
with 10 100
clock ten
without
with 200 100
clock two-hundred
without
with 1 20000
clock idle-20000
without
exit 0
