
# The guest's part of `bench scrape`, run by bash with -icount: what a scrape costs the daemon with few pins and with $1 pins
# over $2 files, and what one costs node_exporter. Prints `scraped WHAT SERIES NANOSECONDS`: CPU time of the server for one; and
# `scraping NANOSECONDS SECONDS`: CPU time of the daemon while it has $1 pins and is scraped every 15 s, passes over them included.
# `memory WHAT KIB`: the daemon's memory (PSS) at the start and with $1 pins.

count=$1 files=$2
URL=http://127.0.0.1:9746/metrics
SCRAPES=20

# Nanoseconds that all threads of a process have run.
spent() {
  local sum=0 ran rest
  for task in /proc/"$1"/task/*; do
    read -r ran rest < "$task/schedstat" && sum=$((sum + ran))
  done
  echo "$sum"
}

# The median of so many scrapes, after one that is not counted. A second apart, so that none gets another's answer. Between
# scrapes the daemon makes passes over all pins: one that falls into a scrape's time is not of that scrape. `scraping` has them.
scrape() {
  local what=$1 pid=$2 url=$3 before series
  curl -s -m 60 -o /run/scraped "$url" || { echo "$what does not answer"; return; }
  series=$(grep -vc '^#' /run/scraped)
  local each=()
  for _ in $(seq $SCRAPES); do
    sleep 1
    before=$(spent "$pid")
    curl -s -m 60 -H 'Accept-Encoding: gzip' -o /dev/null "$url"
    each+=($(($(spent "$pid") - before)))
  done
  echo "$what, each: ${each[*]}"
  echo "scraped $what $series $(printf '%s\n' "${each[@]}" | sort -n | sed -n "$((SCRAPES / 2))p")"
}

# What it costs to be scraped every 15 s while nothing changes, for a minute.
scraping() {
  local before began=$EPOCHREALTIME
  before=$(spent "$daemon")
  for _ in {1..4}; do
    sleep 15
    curl -s -m 60 -H 'Accept-Encoding: gzip' -o /dev/null "$URL"
  done
  echo "scraping $(($(spent "$daemon") - before)) $(((${EPOCHREALTIME/./} - ${began/./}) / 1000000))"
}

daemon=$(pgrep -x pinwatch)
make() {
  mkdir -p /srv/pinned
  coproc many { mkpins many --count "$1" --files "$2" --dir /srv/pinned 2>&1; }
  pins=${many[0]}
  read -r -t 900 line <&"$pins" && [[ $line == *'"count"'* ]] || { echo "mkpins many: ${line:-no answer}"; exit 1; }
  # Until the daemon has looked at them: the totals are those of now.
  for _ in {1..600}; do
    curl -s -m 60 "$URL" | grep -q "^pinwatch_map_entries{map=\"pins\"} $1\$" && return
    sleep 1
  done
  echo "the daemon does not count $1 pins"
  exit 1
}

memory() {
  echo "memory $1 $(awk '$1 == "Pss:" { print $2 }' "/proc/$daemon/smaps_rollup")"
}

memory start
make 100 10
scrape few "$daemon" "$URL"
kill "$many_PID"; wait "$many_PID" 2>/dev/null
make "$count" "$files"
scrape many "$daemon" "$URL"
scraping
memory many
prometheus-node-exporter --web.listen-address=127.0.0.1:9100 > /run/node.log 2>&1 &
node=$!
for _ in {1..300}; do
  curl -s -o /dev/null http://127.0.0.1:9100/ && break
  sleep 1
done
scrape node_exporter "$node" http://127.0.0.1:9100/metrics
exit 0
