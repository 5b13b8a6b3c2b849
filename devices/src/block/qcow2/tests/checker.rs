//! A second opinion on an image in memory, written apart from the code under test: every cluster
//! that is referred to is counted, inside the file, and used for one thing; COPIED means a count
//! of one. qemu-img says the same of a sample; this is quick enough for every crash.

use super::support::{arg, qemu_img_status, scratch};

struct File<'a>(&'a [u8]);

impl File<'_> {
    fn number(&self, offset: u64, bytes: usize) -> Result<u64, String> {
        let part = self
            .0
            .get(offset as usize..offset as usize + bytes)
            .ok_or(format!("read behind the end, at {offset:#x}"))?;
        Ok(part
            .iter()
            .fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    fn table(&self, offset: u64, bytes: u64) -> Result<Vec<u64>, String> {
        let part = self
            .0
            .get(offset as usize..(offset + bytes) as usize)
            .ok_or(format!("table behind the end, at {offset:#x}"))?;
        Ok(part
            .chunks_exact(8)
            .map(|word| u64::from_be_bytes(word.try_into().unwrap()))
            .collect())
    }
}

/// What is wrong with an image, or how many clusters are leaked.
pub(super) fn check(bytes: &[u8]) -> Result<usize, String> {
    let file = File(bytes);
    let cluster_bits = file.number(20, 4)?;
    let cluster = 1_u64 << cluster_bits;
    let version = file.number(4, 4)?;
    let order = if version == 2 { 4 } else { file.number(96, 4)? };
    assert!(order >= 3, "the checker knows whole bytes only");
    let width = 1_u64 << (order - 3);
    let mut used = vec![0_u64; (bytes.len() as u64).div_ceil(cluster) as usize + 1];
    let mut copied: Vec<u64> = Vec::new();
    let mut use_bytes = |offset: u64, len: u64, what: &str| -> Result<(), String> {
        if offset % cluster != 0 {
            return Err(format!("{what} at {offset:#x} is not aligned"));
        }
        if (offset + len).saturating_sub(bytes.len() as u64) >= cluster {
            return Err(format!("{what} at {offset:#x} is behind the end"));
        }
        for number in offset / cluster..(offset + len).div_ceil(cluster) {
            used[number as usize] += 1;
        }
        Ok(())
    };
    use_bytes(0, cluster, "header")?;
    let table = file.number(48, 8)?;
    let table_bytes = file.number(56, 4)? * cluster;
    use_bytes(table, table_bytes, "refcount table")?;
    let mut blocks = Vec::new();
    for block in file.table(table, table_bytes)? {
        blocks.push(block);
        if block != 0 {
            use_bytes(block, cluster, "refcount block")?;
        }
    }
    let active = (file.number(40, 8)?, file.number(36, 4)?);
    let mut tables = vec![active];
    let mut at = file.number(64, 8)?;
    let start = at;
    for _ in 0..file.number(60, 4)? {
        tables.push((file.number(at, 8)?, file.number(at + 8, 4)?));
        let names = file.number(at + 12, 2)? + file.number(at + 14, 2)?;
        at += (40 + file.number(at + 36, 4)? + names).next_multiple_of(8);
    }
    if at != start {
        use_bytes(start, at - start, "snapshot table")?;
    }
    for (l1, l1_size) in tables {
        use_bytes(l1, l1_size * 8, "L1 table")?;
        for raw in file.table(l1, l1_size * 8)? {
            let l2 = raw & 0x00ff_ffff_ffff_fe00;
            if l2 == 0 {
                continue;
            }
            use_bytes(l2, cluster, "L2 table")?;
            if raw >> 63 != 0 && l1 == active.0 {
                copied.push(l2 / cluster);
            }
            for raw in file.table(l2, cluster)? {
                if raw >> 62 & 1 != 0 {
                    let bits = 62 - (cluster_bits - 8);
                    let offset = raw & ((1 << bits) - 1);
                    let sectors = (raw >> bits & ((1 << (cluster_bits - 8)) - 1)) + 1;
                    let first = offset / cluster * cluster;
                    let end = (offset / 512 + sectors) * 512;
                    use_bytes(first, end - first, "compressed cluster")?;
                    continue;
                }
                let data = raw & 0x00ff_ffff_ffff_fe00;
                if data != 0 {
                    use_bytes(data, cluster, "data cluster")?;
                    if raw >> 63 != 0 && l1 == active.0 {
                        copied.push(data / cluster);
                    }
                }
            }
        }
    }
    let per_block = cluster / width;
    let count = |number: u64| -> Result<u64, String> {
        match blocks.get((number / per_block) as usize) {
            None | Some(0) => Ok(0),
            Some(block) => file.number(block + number % per_block * width, width as usize),
        }
    };
    let mut leaks = 0;
    for (number, uses) in used.iter().enumerate() {
        let counted = count(number as u64)?;
        if counted < *uses {
            return Err(format!(
                "cluster {number} is used {uses} times, counted {counted}"
            ));
        }
        leaks += usize::from(counted > *uses);
    }
    for number in copied {
        let counted = count(number)?;
        if counted != 1 {
            return Err(format!("cluster {number} is COPIED and counted {counted}"));
        }
    }
    Ok(leaks)
}

/// The disk's size as qemu-img reads it.
pub(super) fn size_by_qemu(bytes: &[u8]) -> u64 {
    let directory = scratch();
    let path = directory.path().join("image");
    std::fs::write(&path, bytes).unwrap();
    let (_, said) = qemu_img_status(&["info", "-f", "qcow2", "--output=json", arg(&path)]);
    let (_, rest) = said.split_once("\"virtual-size\":").expect("it says so");
    let digits: String = rest
        .trim_start()
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().expect("a number")
}

/// The same by qemu-img.
pub(super) fn check_by_qemu(bytes: &[u8]) -> Result<(), String> {
    let directory = scratch();
    let path = directory.path().join("image");
    std::fs::write(&path, bytes).unwrap();
    // The backing file of those images that have one.
    std::fs::write(directory.path().join("base"), []).unwrap();
    match qemu_img_status(&["check", "-f", "qcow2", arg(&path)]) {
        (Some(0 | 3), _) => Ok(()),
        (status, said) => Err(format!("{status:?}: {said}")),
    }
}
