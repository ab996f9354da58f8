//! Just enough of ELF to change sections of an object file in place.

use anyhow::{Context, Result, ensure};

/// A relocatable object of 64 bits, little endian.
pub struct Object {
    pub bytes: Vec<u8>,
}

/// Where a section is.
struct Section {
    /// Of its header.
    header: usize,
    offset: usize,
    size: usize,
}

const HEADER: usize = 64;
/// Bytes of a relocation (`Elf64_Rela`): where, what, addend.
const RELOCATION: usize = 24;

impl Object {
    pub fn new(bytes: &[u8]) -> Result<Self> {
        ensure!(bytes.starts_with(b"\x7fELF\x02\x01"), "this is no ELF object of 64 bits, little endian");
        Ok(Self { bytes: bytes.to_vec() })
    }

    fn number<const N: usize>(&self, at: usize) -> Result<u64> {
        let bytes = self.bytes.get(at..at + N).context("the object is cut off")?;
        Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn at(&self, index: usize) -> Result<Section> {
        let header = self.number::<8>(0x28)? as usize + index * HEADER;
        let (offset, size) =
            (self.number::<8>(header + 24)? as usize, self.number::<8>(header + 32)? as usize);
        Ok(Section { header, offset, size })
    }

    fn section(&self, name: &str) -> Result<Section> {
        let (count, names) = (self.number::<2>(0x3c)? as usize, self.number::<2>(0x3e)? as usize);
        let names = self.at(names)?.offset;
        for index in 0..count {
            let section = self.at(index)?;
            let start = names + self.number::<4>(section.header)? as usize;
            let end = start + name.len();
            if self.bytes.get(start..end) == Some(name.as_bytes()) && self.bytes.get(end) == Some(&0) {
                return Ok(section);
            }
        }
        anyhow::bail!("the object has no section {name}")
    }

    /// Makes a section shorter.
    pub fn resize(&mut self, name: &str, size: u64) -> Result<()> {
        let section = self.section(name)?;
        ensure!(
            size as usize <= section.size,
            "{name} has room for {} bytes, {size} are wanted",
            section.size
        );
        self.bytes[section.header + 32..section.header + 40].copy_from_slice(&size.to_le_bytes());
        Ok(())
    }

    /// Writes into a section.
    pub fn write(&mut self, name: &str, at: u64, what: &[u8]) -> Result<()> {
        let section = self.section(name)?;
        let end = at as usize + what.len();
        ensure!(end <= section.size, "{name} has {} bytes, {end} are wanted", section.size);
        self.bytes[section.offset + at as usize..section.offset + end].copy_from_slice(what);
        Ok(())
    }

    /// Has each of a section's relocations, by where it is, be somewhere else.
    pub fn move_relocations(&mut self, name: &str, moves: &[(u64, u64)]) -> Result<()> {
        let section = self.section(&format!(".rela{name}"))?;
        for at in (section.offset..section.offset + section.size).step_by(RELOCATION) {
            let from = self.number::<8>(at)?;
            let (_, to) = moves.iter().find(|(known, _)| *known == from).context("a relocation too many")?;
            self.bytes[at..at + 8].copy_from_slice(&to.to_le_bytes());
        }
        Ok(())
    }
}
