//! An ELF kernel by PVH: its entry point is named by a Xen note.
//!
//! The whole file is judged before its first byte is loaded: the class and machine, every segment's
//! place in the file and in memory, overlaps between segments, the note. A segment is loaded at its
//! physical address. Memory past a segment's file bytes is not written: it is zero already.

use std::ops::Range;

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::{BootError, LoadedKernel, Source};
use crate::arch::x86_64::layout;
use crate::memory::GuestMemory;

/// ELF64 file header (ELF specification, figure 1-3, in its 64-bit form).
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct FileHeader {
    ident: [u8; 16],
    kind: U16,
    machine: U16,
    version: U32,
    entry: U64,
    program_offset: U64,
    section_offset: U64,
    flags: U32,
    header_size: U16,
    program_entry_size: U16,
    program_count: U16,
    section_entry_size: U16,
    section_count: U16,
    section_names: U16,
}

/// ELF64 program header.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct ProgramHeader {
    kind: U32,
    flags: U32,
    offset: U64,
    virtual_address: U64,
    physical_address: U64,
    file_size: U64,
    memory_size: U64,
    alignment: U64,
}

/// Header of a note, followed by its name and its descriptor, each padded.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct NoteHeader {
    name_size: U32,
    descriptor_size: U32,
    kind: U32,
}

const CLASS_64: u8 = 2;
const DATA_LITTLE_ENDIAN: u8 = 1;
const KIND_EXEC: u16 = 2;
const KIND_DYN: u16 = 3;
const MACHINE_386: u16 = 3;
const MACHINE_ARM: u16 = 40;
const MACHINE_X86_64: u16 = 62;
const MACHINE_AARCH64: u16 = 183;
const MACHINE_RISCV: u16 = 243;
const SEGMENT_LOAD: u32 = 1;
const SEGMENT_NOTE: u32 = 4;
/// `XEN_ELFNOTE_PHYS32_ENTRY`: the 32-bit entry point of PVH.
const NOTE_PHYS32_ENTRY: u32 = 18;
const NOTE_NAME: &[u8] = b"Xen\0";

/// A `vmlinux` has five segments, so that this bound on the work is far off.
const MAX_SEGMENTS: u16 = 64;
/// A `vmlinux` has half a KiB of notes.
const MAX_NOTES: usize = 64 << 10;

/// One piece of the file with its place in memory.
struct Segment {
    offset: u64,
    file_size: usize,
    memory: Range<u64>,
}

/// Judges and loads the image.
pub(super) fn load<S: Source + ?Sized>(
    image: &S,
    length: u64,
    memory: &GuestMemory,
) -> Result<LoadedKernel, BootError> {
    let header = read_header(image)?;
    let mut segments: Vec<Segment> = Vec::new();
    let mut entry = None;
    for program in read_program_headers(image, &header)? {
        match program.kind.get() {
            SEGMENT_LOAD if program.memory_size.get() != 0 => {
                let segment = segment(&program, length, memory)?;
                if segments
                    .iter()
                    .any(|other| overlap(&other.memory, &segment.memory))
                {
                    return Err(BootError::Malformed("segments overlap in memory"));
                }
                segments.push(segment);
            }
            SEGMENT_NOTE if entry.is_none() => entry = find_entry(image, &program)?,
            _ => {}
        }
    }
    let entry = entry.ok_or(BootError::NoPvhNote)?;
    if !segments
        .iter()
        .any(|segment| segment.memory.contains(&entry))
    {
        return Err(BootError::Malformed(
            "its entry point is outside its segments",
        ));
    }
    for segment in &segments {
        image
            .load_at(
                segment.offset,
                memory.map_ref(),
                segment.memory.start,
                segment.file_size,
            )
            .map_err(BootError::reading("a segment"))?;
    }
    // The initrd goes above all segments below the gap; those above 4 GiB are not in its way.
    let low = |range: &&Segment| range.memory.start < layout::MMIO_GAP_START;
    let start = segments.iter().map(|segment| segment.memory.start).min();
    let end = segments
        .iter()
        .filter(low)
        .map(|segment| segment.memory.end)
        .max();
    let start = start.unwrap_or(layout::KERNEL_MIN);
    Ok(LoadedKernel {
        entry,
        memory: start..end.unwrap_or(start),
        initrd_max: layout::MMIO_GAP_START - 1,
        setup: None,
    })
}

/// Reads and judges the file header.
fn read_header<S: Source + ?Sized>(image: &S) -> Result<FileHeader, BootError> {
    let mut header = FileHeader::new_zeroed();
    // What kind of ELF it is decides before how long its header must be.
    let mut ident = [0; 20];
    image
        .read_at(0, &mut ident)
        .map_err(BootError::reading("its file header"))?;
    let [.., machine_low, machine_high] = ident;
    let [_, _, _, _, class, data, ..] = ident;
    if data != DATA_LITTLE_ENDIAN {
        return Err(BootError::WrongArchitecture("a big-endian machine"));
    }
    match u16::from_le_bytes([machine_low, machine_high]) {
        MACHINE_X86_64 if class == CLASS_64 => {}
        MACHINE_X86_64 | MACHINE_386 => return Err(BootError::WrongArchitecture("32-bit x86")),
        MACHINE_ARM => return Err(BootError::WrongArchitecture("32-bit arm")),
        MACHINE_AARCH64 => return Err(BootError::WrongArchitecture("arm64")),
        MACHINE_RISCV => return Err(BootError::WrongArchitecture("riscv")),
        _ => return Err(BootError::WrongArchitecture("another machine")),
    }
    image
        .read_at(0, header.as_mut_bytes())
        .map_err(BootError::reading("its file header"))?;
    if !matches!(header.kind.get(), KIND_EXEC | KIND_DYN) {
        return Err(BootError::Malformed("an ELF file, but no executable"));
    }
    if usize::from(header.program_entry_size.get()) != size_of::<ProgramHeader>() {
        return Err(BootError::Malformed("size of its program headers"));
    }
    if header.program_count.get() > MAX_SEGMENTS {
        return Err(BootError::Malformed("too many program headers"));
    }
    Ok(header)
}

fn read_program_headers<S: Source + ?Sized>(
    image: &S,
    header: &FileHeader,
) -> Result<Vec<ProgramHeader>, BootError> {
    let count = usize::from(header.program_count.get());
    let mut programs = Vec::with_capacity(count);
    programs.resize_with(count, ProgramHeader::new_zeroed);
    image
        .read_at(
            header.program_offset.get(),
            programs.as_mut_slice().as_mut_bytes(),
        )
        .map_err(BootError::reading("its program headers"))?;
    Ok(programs)
}

/// Judges a loadable segment: its bytes are in the file, its memory is RAM of a kernel.
fn segment(
    program: &ProgramHeader,
    length: u64,
    memory: &GuestMemory,
) -> Result<Segment, BootError> {
    let (offset, file_size) = (program.offset.get(), program.file_size.get());
    if offset.checked_add(file_size).is_none_or_beyond(length) {
        return Err(BootError::Truncated("a segment"));
    }
    if program.memory_size.get() < file_size {
        return Err(BootError::Malformed(
            "a segment is larger in the file than in memory",
        ));
    }
    let start = program.physical_address.get();
    let end = start.saturating_add(program.memory_size.get());
    let low = layout::KERNEL_MIN..memory.low_end();
    let in_low = start >= low.start && end <= low.end;
    let in_high = memory.regions().any(|region| {
        region.guest_address >= layout::MMIO_GAP_END
            && start >= region.guest_address
            && end - region.guest_address <= region.size
    });
    if !in_low && !in_high {
        // The common mistake, a machine too small for its kernel, gets the better message.
        return Err(if (low.start..layout::MMIO_GAP_START).contains(&start) {
            BootError::KernelTooLarge {
                needed: end,
                available: low.end,
            }
        } else {
            BootError::Misplaced { start, end }
        });
    }
    let file_size =
        usize::try_from(file_size).map_err(|_| BootError::Malformed("size of a segment"))?;
    Ok(Segment {
        offset,
        file_size,
        memory: start..end,
    })
}

/// Looks for the PVH entry point in a segment of notes.
fn find_entry<S: Source + ?Sized>(
    image: &S,
    program: &ProgramHeader,
) -> Result<Option<u64>, BootError> {
    let size = usize::try_from(program.file_size.get())
        .ok()
        .filter(|size| *size <= MAX_NOTES)
        .ok_or(BootError::Malformed("its notes are too long"))?;
    let mut notes = vec![0; size];
    image
        .read_at(program.offset.get(), &mut notes)
        .map_err(BootError::reading("its notes"))?;
    // Notes are padded to 4 bytes, in newer files and where the segment says so to 8.
    let padding = if program.alignment.get() == 8 { 8 } else { 4 };

    let mut rest: &[u8] = &notes;
    while let Ok((note, after)) = NoteHeader::read_from_prefix(rest) {
        let Some((name, descriptor, next)) = split_note(&note, rest.len(), after, padding) else {
            return Err(BootError::Malformed("a note is longer than its segment"));
        };
        if note.kind.get() == NOTE_PHYS32_ENTRY && name == NOTE_NAME {
            return match *descriptor {
                // The entry is a 32-bit address, stored as 4 bytes, or as 8 by a 64-bit kernel.
                [a, b, c, d] | [a, b, c, d, 0, 0, 0, 0] => {
                    Ok(Some(u64::from(u32::from_le_bytes([a, b, c, d]))))
                }
                _ => Err(BootError::Malformed("its PVH note")),
            };
        }
        rest = next;
    }
    Ok(None)
}

/// Splits a note into name, descriptor and what follows it. Paddings count from the note's start;
/// the last note of a segment may lack its padding.
fn split_note<'a>(
    note: &NoteHeader,
    whole: usize,
    after: &'a [u8],
    padding: usize,
) -> Option<(&'a [u8], &'a [u8], &'a [u8])> {
    let header = size_of::<NoteHeader>();
    let name_size = usize::try_from(note.name_size.get()).ok()?;
    let descriptor_size = usize::try_from(note.descriptor_size.get()).ok()?;
    let name = after.get(..name_size)?;
    let descriptor_start = header
        .checked_add(name_size)?
        .checked_next_multiple_of(padding)?
        .checked_sub(header)?;
    let descriptor_end = descriptor_start.checked_add(descriptor_size)?;
    let descriptor = after.get(descriptor_start..descriptor_end)?;
    let next = header
        .checked_add(descriptor_end)?
        .checked_next_multiple_of(padding)?
        .min(whole);
    Some((name, descriptor, after.get(next.checked_sub(header)?..)?))
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

/// `checked_add` results against a bound.
trait Bound {
    /// No value (it overflowed), or one beyond `bound`.
    fn is_none_or_beyond(&self, bound: u64) -> bool;
}

impl Bound for Option<u64> {
    fn is_none_or_beyond(&self, bound: u64) -> bool {
        match self {
            Some(value) => *value > bound,
            None => true,
        }
    }
}
