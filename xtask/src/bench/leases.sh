# The guest's part of `bench leases`: what is done to files without a lease, where nothing may be added, and to files with one.
# Each has a file of its own: one that ever had a lease costs more to open and to close, with or without us.

mount -t tmpfs -o size=90% tmpfs /srv || exit 1
works() {
  measure open-close 200 mkpins files --path /srv/open --what open
  measure truncate 200 mkpins files --path /srv/truncate --what truncate
  measure create-unlink 200 mkpins files --path /srv/unlink --what unlink
  measure lease-drop 100 mkpins files --path /srv/lease --what lease
  measure open-leased 100 mkpins files --path /srv/open-leased --what open-leased
}
each_mode none auto kprobe
exit 0
