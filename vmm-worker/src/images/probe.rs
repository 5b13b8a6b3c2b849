//! What the first bytes of a file look like, in the order and by the marks that libvirt goes by
//! (`src/storage_file/storage_file_probe.c`), so that its users are told the same.
//!
//! Nothing here decides how a disk is opened: that is always stated.

use std::os::fd::BorrowedFd;

use reeve_devices::block::qcow2::{HeaderFacts, read_header};
use reeve_ipc::api::storage::{OtherFormat, VolumeFormat};
use reeve_ipc::error::truncate;
use reeve_ipc::image::{BackingNote, ImageFacts, MAX_FORMAT_BYTES, MAX_WORDS_BYTES};
use reeve_ipc::model::{Qcow2Compat, Qcow2Options};

/// Bytes that are looked at: those of an ISO 9660 volume descriptor are the last.
const LOOKED_AT: usize = 33 << 10;
/// Where a file system of ISO 9660 has its mark.
const ISO_MARK: usize = 32_769;
/// The script that a compressed loop image begins with.
const CLOOP: &[u8] =
    b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n";

/// Looks at a file.
pub(super) fn probe(file: BorrowedFd<'_>) -> ImageFacts {
    let mut bytes = vec![0; LOOKED_AT];
    let mut length = 0;
    while let Some(rest) = bytes.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut *rest, length as u64)) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(errno) => {
                return ImageFacts {
                    unreadable: Some(words(format!("it cannot be read: {errno}"))),
                    ..ImageFacts::of(VolumeFormat::Raw)
                };
            }
        }
    }
    bytes.truncate(length);
    let bytes = Bytes(&bytes);
    match format(bytes) {
        VolumeFormat::Qcow2 => match read_header(file) {
            Ok(facts) => qcow2(facts),
            Err(error) => ImageFacts {
                unreadable: Some(words(error.to_string())),
                ..ImageFacts::of(VolumeFormat::Qcow2)
            },
        },
        format => ImageFacts {
            size: size(bytes, &format),
            encrypted: format == VolumeFormat::Other(OtherFormat::Luks),
            ..ImageFacts::of(format)
        },
    }
}

fn qcow2(facts: HeaderFacts) -> ImageFacts {
    ImageFacts {
        size: Some(facts.virtual_size),
        backing: facts.backing_file.map(|name| BackingNote {
            name,
            format: facts.backing_format.map(|mut format| {
                truncate(&mut format, MAX_FORMAT_BYTES);
                format
            }),
        }),
        qcow2: Some(Qcow2Options {
            compat: match facts.version {
                2 => Qcow2Compat::V2,
                _ => Qcow2Compat::V3,
            },
            // 9 to 21, as the header was checked.
            cluster_bytes: 1 << facts.cluster_bits.min(31),
            lazy_refcounts: facts.lazy_refcounts,
        }),
        encrypted: facts.encrypted,
        // A copy of the image alone would be a second one upon the same data.
        unreadable: facts
            .external_data_file
            .then(|| words("its data is in another file, which is not supported".to_owned())),
        ..ImageFacts::of(VolumeFormat::Qcow2)
    }
}

#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn at(self, offset: usize, mark: &[u8]) -> bool {
        self.0
            .get(offset..)
            .is_some_and(|rest| rest.starts_with(mark))
    }

    fn array<const N: usize>(self, offset: usize) -> Option<[u8; N]> {
        self.0.get(offset..)?.first_chunk().copied()
    }

    fn big(self, offset: usize) -> Option<u32> {
        self.array(offset).map(u32::from_be_bytes)
    }

    fn little(self, offset: usize) -> Option<u32> {
        self.array(offset).map(u32::from_le_bytes)
    }

    fn little16(self, offset: usize) -> Option<u16> {
        self.array(offset).map(u16::from_le_bytes)
    }
}

fn format(bytes: Bytes<'_>) -> VolumeFormat {
    use OtherFormat as O;
    let version = |number: Option<u32>, known: &[u32]| number.is_some_and(|n| known.contains(&n));
    let other = [
        (
            O::Bochs,
            bytes.at(0, b"Bochs Virtual HD Image") && version(bytes.little(64), &[0x2_0000]),
        ),
        (O::Cloop, bytes.at(0, CLOOP)),
        (O::Cow, bytes.at(0, b"OOOM") && version(bytes.big(4), &[2])),
        (
            O::Luks,
            bytes.at(0, b"LUKS\xba\xbe") && matches!(bytes.array(6), Some([0, 1 | 2])),
        ),
        (
            O::Qcow,
            bytes.at(0, b"QFI\xfb") && version(bytes.big(4), &[1]),
        ),
        (O::Qed, bytes.at(0, b"QED\0")),
        (
            O::Vdi,
            bytes.at(64, &[0x7f, 0x10, 0xda, 0xbe]) && version(bytes.little(68), &[0x1_0001]),
        ),
        (
            O::Vmdk,
            bytes.at(0, b"KDMV") && version(bytes.little(4), &[1, 2, 3]),
        ),
        (
            O::Vpc,
            bytes.at(0, b"conectix") && version(bytes.big(12), &[0x1_0000]),
        ),
        (
            O::Ploop,
            (bytes.at(0, b"WithoutFreeSpace") || bytes.at(0, b"WithouFreSpacExt"))
                && version(bytes.little(16), &[2]),
        ),
    ];
    if bytes.at(0, b"QFI\xfb") && version(bytes.big(4), &[2, 3]) {
        return VolumeFormat::Qcow2;
    }
    if let Some((other, _)) = other.into_iter().find(|(_, is)| *is) {
        return VolumeFormat::Other(other);
    }
    match bytes.at(ISO_MARK, b"CD001") {
        true => VolumeFormat::Iso,
        false => VolumeFormat::Raw,
    }
}

/// The disk's size as the header says it, where that is simple.
fn size(bytes: Bytes<'_>, format: &VolumeFormat) -> Option<u64> {
    use OtherFormat as O;
    let VolumeFormat::Other(other) = format else {
        return None;
    };
    let big = |offset| bytes.array(offset).map(u64::from_be_bytes);
    let little = |offset| bytes.array(offset).map(u64::from_le_bytes);
    let sectors = |count: Option<u64>| count.and_then(|count| count.checked_mul(512));
    match other {
        O::Qcow => big(24),
        O::Qed => little(48),
        O::Vdi => little(64 + 5 * 4 + 256 + 7 * 4),
        O::Vpc => big(48),
        O::Vmdk => sectors(little(12)),
        O::Cow => big(4 + 4 + 1024 + 4),
        O::Ploop => sectors(little(36)),
        O::Bochs => bytes
            .little16(64 + 2)
            .and_then(|_| little(64 + 4 + 4 + 4 + 4)),
        O::Cloop | O::Dmg | O::Luks => None,
    }
}

fn words(mut why: String) -> String {
    truncate(&mut why, MAX_WORDS_BYTES);
    why
}
