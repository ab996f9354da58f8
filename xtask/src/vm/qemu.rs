//! QEMU's arguments for a guest: pure, from what is wanted and where things are.

use std::path::Path;

use super::rundir::RunDir;
use super::{Guest, Prepared};

/// Kernel arguments of every guest: quiet, quick to boot, no mitigations to emulate, gone at a panic, and soon to say that a CPU
/// stands still.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off nokaslr tsc=reliable \
    no_timer_check cryptomgr.notests random.trust_cpu=on rcupdate.rcu_expedited=1 \
    rcupdate.rcu_cpu_stall_timeout=10 audit=0 apparmor=0 selinux=0 \
    8250.nr_uarts=1 nowatchdog secretmem.enable=1";

const NVDIMM_MIB: u64 = 514;

/// How the guest's console and output reach the host.
pub enum Terminal<'a> {
    /// The command's output on QEMU's standard output, the console in a file.
    Recorded(&'a Path),
    /// The console on QEMU's own terminal.
    Interactive,
}

/// All arguments.
pub fn arguments(guest: &Guest, prepared: &Prepared, run: &RunDir, terminal: &Terminal<'_>) -> Vec<String> {
    let image = &prepared.image;
    let mut all = Arguments(Vec::new());
    let machine = if guest.nvdimm > 0 { "q35,nvdimm=on" } else { "q35" };
    all.add("-nodefaults -no-user-config -display none -no-reboot -machine").push(machine);
    if guest.icount {
        all.add("-accel tcg,thread=single,tb-size=512 -icount shift=0 -smp 1");
    } else {
        all.add("-accel tcg,thread=multi,tb-size=512 -smp").push(&guest.cpus.max(1).to_string());
    }
    all.add("-cpu max,la57=off -device isa-debug-exit,iobase=0xf4,iosize=0x04");
    if guest.iommu {
        // Before the devices behind it.
        all.add("-device intel-iommu,intremap=off,caching-mode=on -device edu");
    }
    all.memory(guest, run);
    all.add("-kernel").push(&image.vmlinux.display().to_string());
    all.add("-initrd").push(&image.initramfs.display().to_string());
    all.drive("root", &prepared.rootfs).drive("modules", &image.modules);
    if let Some(headers) = &prepared.headers {
        all.drive("compiler", &headers.compiler).drive("headers", &headers.headers);
    }
    all.share("vm", &run.shared());
    if let Some(share) = &guest.share {
        all.share("share", share);
    }
    // After our own disks: the guest finds those by their order.
    for device in &guest.devices {
        all.add("-device").push(device);
    }
    match terminal {
        Terminal::Recorded(console) => {
            all.add("-chardev").push(&format!("file,id=console,path={}", escaped(console)));
            all.add("-serial chardev:console");
            // Not "stdio": that one takes the end of its (empty) input for the end of the connection.
            all.add("-chardev file,id=output,path=/proc/self/fd/1");
            all.add("-device virtio-serial-pci -device virtserialport,chardev=output,name=output");
        }
        Terminal::Interactive => {
            all.add("-chardev stdio,id=console,signal=off -serial chardev:console");
        }
    }
    let iommu = if guest.iommu { " intel_iommu=on" } else { "" };
    all.add("-append").push(&format!("{KERNEL_ARGUMENTS}{iommu} {}", guest.append));
    all.0
}

struct Arguments(Vec<String>);

impl Arguments {
    fn add(&mut self, words: &str) -> &mut Self {
        self.0.extend(words.split_whitespace().map(str::to_owned));
        self
    }

    fn push(&mut self, word: &str) -> &mut Self {
        self.0.push(word.to_owned());
        self
    }

    fn memory(&mut self, guest: &Guest, run: &RunDir) {
        let wanted = match (guest.memory, guest.nvdimm) {
            (0, 0) => 1024,
            (0, _) => 2560,
            (memory, _) => memory,
        };
        if guest.nvdimm == 0 {
            self.add("-m").push(&wanted.to_string());
            return;
        }
        let most = u64::from(wanted) + u64::from(guest.nvdimm) * 1024 + 1024;
        self.add("-m").push(&format!("{wanted},slots={},maxmem={most}M", guest.nvdimm + 1));
        for number in 0..guest.nvdimm {
            let file = escaped(&run.nvdimm(number));
            self.add("-object").push(&format!(
                "memory-backend-file,id=mem{number},share=on,mem-path={file},size={NVDIMM_MIB}M"
            ));
            self.add("-device").push(&format!("nvdimm,memdev=mem{number},id=nvdimm{number},label-size=2M"));
        }
    }

    fn drive(&mut self, id: &str, file: &Path) -> &mut Self {
        self.add("-drive").push(&format!("if=none,id={id},format=raw,readonly=on,file={}", escaped(file)));
        self.add("-device").push(&format!("virtio-blk-pci,drive={id},serial={id}"))
    }

    fn share(&mut self, tag: &str, folder: &Path) {
        self.add("-fsdev")
            .push(&format!("local,id={tag},security_model=none,multidevs=remap,path={}", escaped(folder)));
        self.add("-device").push(&format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}"));
    }
}

/// A comma ends a value in QEMU's options, two are one.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_paths_are_doubled() {
        assert_eq!(escaped(Path::new("/a,b/c")), "/a,,b/c");
    }
}
