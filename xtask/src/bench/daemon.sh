# The guest's part before `bench list` and `bench holders`: a place for files, and a daemon that listens.

mkdir -p /srv && mount -t tmpfs -o size=90%,nr_inodes=0 tmpfs /srv && mkdir /srv/fds || exit 1
pinwatch run --log warn > /run/daemon.log 2>&1 &
for _ in {1..600}; do
  [ -S /run/pinwatch/pinwatch.sock ] && break
  sleep 0.1
done
[ -S /run/pinwatch/pinwatch.sock ] || { echo "pinwatch does not listen:"; cat /run/daemon.log; exit 1; }

