//! What a kernel boots from, made of its Debian packages: the plain kernel, an initramfs with the few modules that reach
//! the root, and all useful modules as a read-only image.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::vmlinux;
use crate::apt::sources::Mirrors;
use crate::apt::tree::{squash, unpack};
use crate::cache::{Cache, key, progress, remove};
use crate::kernels::lock::LockedKernel;
use crate::process::{command, find_program, output, run_logged};

/// Changes with the steps below, so that images of an older recipe are not used.
const RECIPE: &str = "3";
const MEGABYTES: u64 = 2500;
const INIT: &str = include_str!("guest/init");

/// Modules that the initramfs loads to reach the root file system and the shares.
const BOOT_MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "squashfs",
    "overlay",
    "9pnet_virtio",
    "9p",
    "virtio_console",
    "crc32c_generic",
];

/// Drivers of real hardware, which no guest has: they are most of a kernel's modules.
const LEFT_OUT: &[&str] = &[
    "sound",
    "net/bluetooth",
    "net/can",
    "net/mac80211",
    "net/wireless",
    "drivers/accel",
    "drivers/bluetooth",
    "drivers/comedi",
    "drivers/gpu",
    "drivers/hid",
    "drivers/hwmon",
    "drivers/iio",
    "drivers/infiniband/hw",
    "drivers/input",
    "drivers/isdn",
    "drivers/leds",
    "drivers/media/dvb-*",
    "drivers/media/firewire",
    "drivers/media/i2c",
    "drivers/media/pci",
    "drivers/media/platform",
    "drivers/media/radio",
    "drivers/media/rc/keymaps",
    "drivers/media/spi",
    "drivers/media/tuners",
    "drivers/media/usb",
    "drivers/mfd",
    "drivers/mtd",
    "drivers/net/can",
    "drivers/net/ethernet",
    "drivers/net/wireless",
    "drivers/net/wwan",
    "drivers/platform",
    "drivers/power",
    "drivers/staging",
    "drivers/thunderbolt",
    "drivers/usb",
];

/// A kernel ready to boot.
#[derive(Debug, Clone)]
pub struct Image {
    /// The plain kernel, booted by PVH.
    pub vmlinux: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
    /// The modules, decompressed, as a read-only image.
    pub modules: PathBuf,
}

/// The cache name of a kernel's image.
pub fn name(kernel: &LockedKernel) -> String {
    format!("kernels/{}-{}", kernel.key, key([RECIPE, INIT, &kernel.fingerprint()]))
}

/// The image of `kernel`, prepared when it is not there.
///
/// # Errors
/// When a package cannot be fetched any more, or a step fails.
pub fn ensure(cache: &Cache, mirrors: &Mirrors, kernel: &LockedKernel) -> Result<Image> {
    let folder = cache.make(&name(kernel), MEGABYTES, |folder| {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        Build { cache, mirrors, kernel, folder, root: folder.join("root") }.all()
    })?;
    Ok(Image {
        vmlinux: folder.join("vmlinux"),
        initramfs: folder.join("initramfs"),
        modules: folder.join("modules.squashfs"),
    })
}

/// One preparation: `folder` will hold the image, `root` holds the unpacked packages meanwhile.
struct Build<'a> {
    cache: &'a Cache,
    mirrors: &'a Mirrors,
    kernel: &'a LockedKernel,
    folder: &'a Path,
    root: PathBuf,
}

impl Build<'_> {
    fn all(&self) -> Result<()> {
        progress(&format!("fetching kernel {} from {}", self.kernel.version, self.kernel.suite));
        for package in &self.kernel.packages {
            let deb = self.folder.join("package.deb");
            self.kernel.fetch(self.cache, self.mirrors, package, &deb)?;
            self.unpack(&deb)?;
            remove(&deb)?;
        }
        progress("preparing its modules and its initramfs");
        let (release, modules) = self.modules()?;
        let places = [
            self.root.join("boot").join(format!("vmlinuz-{release}")),
            modules.join("vmlinuz"),
            modules.join("vmlinuz.unsigned"),
        ];
        let Some(vmlinuz) = places.iter().find(|path| path.exists()) else {
            bail!("the packages of kernel {} have no vmlinuz", self.kernel.version);
        };
        vmlinux::extract(vmlinuz, &self.folder.join("vmlinux"))?;
        for name in ["vmlinuz", "vmlinuz.unsigned", "System.map", "config", "build", "source"] {
            remove(&modules.join(name))?;
        }
        self.initramfs(&release)?;
        let image = self.folder.join("modules.squashfs");
        squash(&modules, &image, "the kernel's modules", &self.log("squash"))?;
        remove(&self.root)
    }

    fn log(&self, step: &str) -> PathBuf {
        self.cache.log(&format!("kernel-{}-{step}", self.kernel.key))
    }

    fn unpack(&self, deb: &Path) -> Result<()> {
        let left_out = LEFT_OUT.iter().map(|folder| format!("*/kernel/{folder}"));
        let left_out: Vec<String> = ["./usr/share".to_owned()].into_iter().chain(left_out).collect();
        unpack(deb, &self.root, &left_out, "the kernel", &self.log("unpack"))
    }

    /// Puts the modules under `lib/modules` of `root`, decompressed (to do that in the guest is slow) and indexed.
    fn modules(&self) -> Result<(String, PathBuf)> {
        let parents = [self.root.join("lib/modules"), self.root.join("usr/lib/modules")];
        let found =
            parents.iter().find_map(|parent| Some(fs::read_dir(parent).ok()?.flatten().next()?.path()));
        let folder = found
            .with_context(|| format!("the packages of kernel {} have no modules", self.kernel.version))?;
        let release = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if folder.starts_with(&parents[1]) {
            // depmod and modprobe look in lib/modules.
            let moved = self.root.join("lib");
            fs::create_dir_all(&moved).with_context(|| format!("cannot create {}", moved.display()))?;
            fs::rename(&parents[1], &parents[0]).context("cannot move the kernel's modules")?;
        }
        let folder = parents[0].join(&release);
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let mut decompress = command("sh");
        let script = r#"find "$1" -name '*.ko.xz' -print0 | xargs -0r -n32 -P"$2" xz -d
            find "$1" -name '*.ko.zst' -print0 | xargs -0r -n32 -P"$2" zstd -dq --rm"#;
        decompress.args(["-ec", script, "sh"]).arg(&folder).arg(cpus.to_string());
        run_logged(&mut decompress, "decompress the kernel's modules", &self.log("decompress"))?;
        let mut depmod = command("depmod");
        depmod.arg("-b").arg(&self.root).arg(&release);
        run_logged(&mut depmod, "index the kernel's modules", &self.log("depmod"))?;
        Ok((release, folder))
    }

    fn initramfs(&self, release: &str) -> Result<()> {
        let tree = self.root.join("initramfs");
        for folder in ["bin", "dev", "proc", "sys", "new", "lower", "modules"] {
            let folder = tree.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let busybox = find_program("busybox").context("busybox was there at set-up and is gone")?;
        copy(&busybox, &tree.join("bin/busybox"))?;
        let mut list: Vec<String> = Vec::new();
        for module in BOOT_MODULES {
            let mut modprobe = command("modprobe");
            modprobe.arg("-d").arg(&self.root).args(["-S", release, "--show-depends", module]);
            // Not every kernel has each of them as a module: what is missing is built in or has gone.
            let Ok(lines) = output(&mut modprobe, "find a module") else { continue };
            for path in lines.lines().filter_map(|line| line.strip_prefix("insmod ")).map(str::trim) {
                let name = path.rsplit('/').next().unwrap_or(path).to_owned();
                if !list.contains(&name) {
                    copy(Path::new(path), &tree.join("modules").join(&name))?;
                    list.push(name);
                }
            }
        }
        let write = |name: &str, text: &str| {
            let path = tree.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        write("modules/order", &(list.join("\n") + "\n"))?;
        write("init", INIT)?;
        let mut pack = command("sh");
        pack.args(["-ec", r#"cd "$1"; chmod 755 init; find . | cpio -o -H newc --quiet > "$2""#, "sh"]);
        pack.arg(&tree).arg(self.folder.join("initramfs"));
        run_logged(&mut pack, "pack the initramfs", &self.log("initramfs"))
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}
