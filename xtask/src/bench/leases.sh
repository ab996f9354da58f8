# The guest's part of `bench leases`: what is done to files without a lease, where nothing may be added, and to files with one.

mount -t tmpfs -o size=90% tmpfs /srv || exit 1
works() {
  measure open-close 200 mkpins files --path /srv/file --what open
  measure truncate 200 mkpins files --path /srv/file --what truncate
  measure create-unlink 200 mkpins files --path /srv/file --what unlink
  measure lease-drop 100 mkpins files --path /srv/file --what lease
  measure open-leased 100 mkpins files --path /srv/file --what open-leased
}
each_mode
exit 0
