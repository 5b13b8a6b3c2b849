//! The uncompressed ELF kernel out of a bzImage (Documentation/arch/x86/boot.rst: `setup_sects`,
//! `payload_offset`, `payload_length`), and the check that it can be entered by PVH.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// Legacy LZ4, as the kernel's build makes it: this magic, then blocks with their size before them.
const LZ4_LEGACY: [u8; 4] = 0x184c_2102_u32.to_le_bytes();
const LZ4_BLOCK: usize = 8 << 20;
/// Name "Xen", type 18: the physical entry point of PVH (xen/interface/elfnote.h).
const PVH_NOTE: u32 = 18;

/// Takes the ELF image out of a bzImage.
pub fn vmlinux(bzimage: &[u8]) -> Result<Vec<u8>> {
    ensure!(bzimage.get(0x202..0x206) == Some(b"HdrS"), "not a bzImage");
    let setup_sectors = match bzimage[0x1f1] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (setup_sectors + 1) * 512 + field(bzimage, 0x248)?;
    let length = field(bzimage, 0x24c)?;
    // The last four bytes of the payload are the size of what it holds.
    let payload = start
        .checked_add(length)
        .and_then(|end| bzimage.get(start..end))
        .context("truncated bzImage")?;
    ensure!(payload.len() > 8, "empty payload");
    let (packed, size) = payload.split_at(payload.len() - 4);
    let size = field(size, 0)?;
    let elf = match packed {
        [a, b, c, d, rest @ ..] if [*a, *b, *c, *d] == LZ4_LEGACY => lz4(rest, size)?,
        [0xfd, b'7', b'z', ..] => tool("xz", packed)?,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => tool("zstd", packed)?,
        [0x1f, 0x8b, ..] => tool("gzip", packed)?,
        _ => bail!("unknown compression of the kernel"),
    };
    ensure!(
        elf.len() == size,
        "the kernel has {} bytes, should have {size}",
        elf.len()
    );
    ensure!(
        elf.starts_with(b"\x7fELF"),
        "the bzImage holds no ELF kernel"
    );
    Ok(elf)
}

/// Whether an ELF kernel carries the PVH entry point. Looks for the note itself, not by the headers:
/// enough for a kernel we just unpacked.
#[must_use]
pub fn has_pvh_note(elf: &[u8]) -> bool {
    [4_u32, 8].into_iter().any(|size| {
        let mut note = Vec::new();
        for word in [4, size, PVH_NOTE] {
            note.extend_from_slice(&word.to_le_bytes());
        }
        note.extend_from_slice(b"Xen\0");
        elf.chunks_exact(4).enumerate().any(|(index, word)| {
            word == b"Xen\0" && index >= 3 && elf.get(index * 4 - 12..index * 4 + 4) == Some(&note)
        })
    })
}

fn field(bytes: &[u8], offset: usize) -> Result<usize> {
    let bytes = bytes.get(offset..offset + 4).context("truncated")?;
    Ok(usize::try_from(u32::from_le_bytes(bytes.try_into()?))?)
}

fn lz4(mut blocks: &[u8], size: usize) -> Result<Vec<u8>> {
    let mut elf = Vec::with_capacity(size);
    while elf.len() < size {
        let length = field(blocks, 0)?;
        let block = blocks.get(4..4 + length).context("truncated LZ4 block")?;
        elf.extend(lz4_flex::block::decompress(block, LZ4_BLOCK)?);
        blocks = &blocks[4 + length..];
    }
    Ok(elf)
}

/// Decompresses through a tool; what follows the compressed data is ignored.
fn tool(name: &str, packed: &[u8]) -> Result<Vec<u8>> {
    let mut file = tempfile::tempfile()?;
    std::io::Write::write_all(&mut file, packed)?;
    std::io::Seek::rewind(&mut file)?;
    let output = Command::new(name)
        .args(["-dc"])
        .stdin(Stdio::from(file))
        .output()
        .with_context(|| format!("the kernel is packed with {name}, which is not installed"))?;
    Ok(output.stdout)
}
