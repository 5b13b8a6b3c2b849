//! Bytes of a guest's disk and of its memory, as a program in Python reads them by libvirt's functions.

use anyhow::{Context, Result, ensure};
use reeve_tests::lab::assets;
use reeve_tests::reeve::Reeve;

use super::host::{Host, guest};

/// Prints a sum of what `virDomainBlockPeek` gives, and what `virDomainMemoryPeek` does where the segments of
/// the kernel's file say that a text of it is: the guest's kernel stays where it was loaded.
const PROGRAM: &str = "
import hashlib, libvirt, struct, sys
image, text = open(sys.argv[1], 'rb').read(), sys.argv[2].encode()
at = image.index(text)
first, = struct.unpack_from('<Q', image, 0x20)
size, count = struct.unpack_from('<HH', image, 0x36)
for header in range(first, first + size * count, size):
    kind, _, offset, _, physical, length = struct.unpack_from('<IIQQQQ', image, header)
    if kind == 1 and offset <= at < offset + length:
        address = physical + at - offset
domain = libvirt.open().lookupByName('lab')
print(hashlib.md5(domain.blockPeek('vda', 4096, 65536)).hexdigest())
print(domain.memoryPeek(address, len(text), libvirt.VIR_MEMORY_PHYSICAL).decode())
";

/// What a guest reads of its disk and says of its kernel, the client reads from outside.
pub fn python_sees_what_the_guest_does(host: &Host, console: &mut Reeve) -> Result<()> {
    let version = guest(console, "cat /proc/version")?;
    let sum = guest(
        console,
        "dd if=/dev/vda bs=4k skip=1 count=16 iflag=direct 2>/dev/null | md5sum",
    )?;
    let mut python = host.client("python3");
    python
        .args(["-c", PROGRAM])
        .arg(&assets().vmlinux)
        .arg(&version);
    let seen = host.output(&mut python)?;
    let (disk, memory) = seen.split_once('\n').context("two lines")?;
    ensure!(
        sum.starts_with(disk),
        "{sum} in the guest, {disk} in Python"
    );
    ensure!(
        memory == version,
        "{version} in the guest, {memory} in Python"
    );
    Ok(())
}
