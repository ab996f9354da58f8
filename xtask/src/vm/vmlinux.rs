//! Taking the plain kernel out of a compressed image: booted by PVH it needs no decompressor in the guest, which saves
//! seconds without hardware virtualisation.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

use crate::process::command;

const ELF: &[u8] = b"\x7fELF";

/// A compression that kernels use: its first bytes and the program that undoes it.
const FORMATS: &[(&[u8], &str)] = &[
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x02!L\x18", "lz4"),
    (b"\x1f\x8b\x08", "gzip"),
];

/// Writes the kernel inside the image `vmlinuz` to `target`.
///
/// # Errors
/// When no known compression in it holds an ELF file.
pub fn extract(vmlinuz: &Path, target: &Path) -> Result<()> {
    let image = std::fs::read(vmlinuz).with_context(|| format!("cannot read {}", vmlinuz.display()))?;
    for (offset, program) in candidates(&image) {
        let kernel = decompress(program, image.get(offset..).unwrap_or_default())?;
        if kernel.starts_with(ELF) {
            return std::fs::write(target, kernel)
                .with_context(|| format!("cannot write {}", target.display()));
        }
    }
    bail!("no kernel found in {}: none of zstd, xz, lz4 and gzip leads to one", vmlinuz.display())
}

/// Places where a compressed stream may begin, with the program that would undo it.
fn candidates(image: &[u8]) -> impl Iterator<Item = (usize, &'static str)> {
    FORMATS.iter().flat_map(move |(magic, program)| {
        let places = image.windows(magic.len()).enumerate();
        places.filter(move |(_, bytes)| bytes == magic).map(|(offset, _)| (offset, *program))
    })
}

/// What `program` makes of `input`. Its status says nothing here: behind the stream other bytes follow, which it takes
/// for an error after having written all.
fn decompress(program: &str, input: &[u8]) -> Result<Vec<u8>> {
    let mut child = command(program)
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let mut out = Vec::new();
    std::thread::scope(|scope| {
        if let Some(mut stdin) = stdin {
            // It closes its input at the end of the stream; that is no failure.
            scope.spawn(move || stdin.write_all(input).ok());
        }
        stdout.map(|mut stdout| stdout.read_to_end(&mut out))
    });
    child.wait().with_context(|| format!("cannot wait for {program}"))?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_places_of_known_magics() {
        let mut image = vec![0; 10];
        image.extend(b"\xfd7zXZ\x00rest");
        image.extend(b"\x1f\x8b\x08");
        assert_eq!(candidates(&image).collect::<Vec<_>>(), [(10, "xz"), (20, "gzip")]);
        assert_eq!(candidates(b"").count(), 0);
    }

    #[test]
    fn takes_the_stream_that_holds_an_elf_with_bytes_before_and_behind() {
        let folder = std::env::temp_dir();
        let (image, kernel) = (
            folder.join(format!("xtask-z-{}", std::process::id())),
            folder.join(format!("xtask-k-{}", std::process::id())),
        );
        let compressed = std::process::Command::new("sh")
            .args(["-c", "printf '\\177ELFkernel' | gzip -c"])
            .output()
            .unwrap()
            .stdout;
        std::fs::write(&image, [b"head\x1f\x8b\x08no".as_slice(), &compressed, b"tail"].concat()).unwrap();
        extract(&image, &kernel).unwrap();
        assert_eq!(std::fs::read(&kernel).unwrap(), b"\x7fELFkernel");
        std::fs::write(&image, b"nothing").unwrap();
        assert!(extract(&image, &kernel).is_err());
        std::fs::remove_file(image).unwrap();
        std::fs::remove_file(kernel).unwrap();
    }
}
