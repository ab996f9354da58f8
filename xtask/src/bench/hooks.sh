# The guest's part of `bench hooks`: making and releasing pins, and reading with O_DIRECT. $1 is one more mode, or empty.

rdma-up && mount -t tmpfs -o size=90% tmpfs /srv && modprobe brd rd_nr=1 rd_size=65536 || exit 1
works() {
  measure dio-4K 200 mkpins dio --path /dev/ram0
  measure io_uring-4K 50 mkpins insns --kind io_uring file --path /srv/small --length 4K
  measure io_uring-1M 20 mkpins insns --kind io_uring file --path /srv/small --length 1M
  measure io_uring-256M 2 mkpins insns --kind io_uring file --path /srv/large --length 256M
  measure rdma-mr-4K 50 mkpins insns --kind rdma-mr file --path /srv/small --length 4K
  measure rdma-mr-256M 2 mkpins insns --kind rdma-mr file --path /srv/large --length 256M
}
each_mode none auto unclaimed kprobe $1
exit 0
