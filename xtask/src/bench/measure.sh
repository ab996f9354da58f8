# The guest's part before `bench hooks` and `bench leases`, run by bash with -icount, where a nanosecond is an instruction: the
# same work without a daemon, then with each way of hooking. Prints `measured WORK MODE INSTRUCTIONS` (of one round), nothing
# else on standard output that begins so.

runs=5

# What kernel threads have worked, in nanoseconds: Linux 6.1 undoes io_uring buffers in them.
workers() {
  local total=0 dir name ns rest
  for dir in /proc/[0-9]*; do
    { read -r name < "$dir/comm" && [[ $name == kworker* ]] && read -r ns rest < "$dir/schedstat"; } 2>/dev/null || continue
    total=$((total + ns))
  done
  echo "$total"
}

# WORK ROUNDS COMMAND...: one warm-up, then the least of some runs: timer ticks and other kernel work only ever add.
measure() {
  local work=$1 rounds=$2 line before cpu worked all=() run
  shift 2
  coproc loop { exec "$@" 2>&1; }
  local pid=$loop_PID in=${loop[0]} out=${loop[1]}
  for ((run = 0; run <= runs + 1; run++)); do
    [ "$run" = 0 ] || { before=$(workers); echo "go $rounds" >&"$out"; }
    read -r -t 300 line <&"$in" || line="no answer within 300 s"
    if [ "$run" = 0 ]; then
      [[ $line == *'"ready":true'* ]] && continue
    elif [[ $line == *'"cpu_ns":'* ]]; then
      cpu=${line#*\"cpu_ns\":}
      cpu=${cpu%%[!0-9]*}
      worked=$(($(workers) - before))
      # Less than nothing: a kernel thread ended, and took its count along.
      [ "$run" = 1 ] || [ "$worked" -lt 0 ] || all+=($((cpu + worked)))
      continue
    fi
    echo "cannot measure $work $mode: $line"
    kill "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
    return
  done
  echo exit >&"$out"
  wait "$pid" 2>/dev/null
  [ ${#all[@]} != 0 ] || { echo "cannot measure $work $mode: kernel threads came and went in each run"; return; }
  mapfile -t all < <(printf '%s\n' "${all[@]}" | sort -n)
  echo "measured $work $mode $((all[0] / rounds))"
}

# Runs `works`, which measures, in each of the modes that are named: none; ways of hooking; what bpftrace takes to count by
# process the calls of the functions that are hooked for unclaimed pins.
each_mode() {
  local daemon
  for mode; do
    daemon=
    if [ "$mode" = bpftrace ]; then
      bpftrace -e 'kprobe:pin_user_pages,kprobe:pin_user_pages_fast,kprobe:pin_user_pages_remote,kprobe:pin_user_pages_unlocked { @[comm, pid] = count(); } BEGIN { printf("counting\n"); }' > /run/bpftrace.log 2>&1 &
      daemon=$!
      for _ in {1..600}; do
        grep -q counting /run/bpftrace.log && break
        sleep 0.1
      done
      grep -q counting /run/bpftrace.log || { echo "bpftrace does not count:"; cat /run/bpftrace.log; exit 1; }
    elif [ "$mode" != none ]; then
      case $mode in
        unclaimed) options="--attach auto --unclaimed on" ;;
        *) options="--attach $mode --unclaimed off" ;;
      esac
      pinwatch run $options --log warn > /run/daemon.log 2>&1 &
      daemon=$!
      for _ in {1..600}; do
        [ -S /run/pinwatch/pinwatch.sock ] && break
        sleep 0.1
      done
      [ -S /run/pinwatch/pinwatch.sock ] || { echo "pinwatch run $options does not listen:"; cat /run/daemon.log; exit 1; }
    fi
    works
    if [ -n "$daemon" ]; then
      # It ends as by Ctrl-C, which bpftrace waits for.
      kill -INT "$daemon" && wait "$daemon"
      rm -f /run/pinwatch/pinwatch.sock
    fi
  done
}

