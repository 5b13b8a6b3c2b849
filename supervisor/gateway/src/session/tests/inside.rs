//! Bytes and sizes of what is inside of a domain, an interrupt, and jobs that there are not.

use reeve_ipc::api::call::{AnswerBody, CallBody, DiskSize, PeekAt};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::device::DeviceChange;

use super::harness::{Act, Client, handle};
use super::one::{One, definition};
use crate::wire::types::handles::Domain;
use crate::wire::types::{device, inspect};

const DISKS: &str = "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>\
    <source file='/d.qcow2'/><target dev='vda' bus='virtio'/></disk>\
    <disk type='file' device='cdrom'><target dev='vdb' bus='virtio'/><readonly/></disk>";

/// A client of a domain, each byte of which is the number of its place.
fn host(running: bool) -> (Client, Domain) {
    let one = match running {
        true => One::running(definition("", DISKS)),
        false => One::off(definition("", DISKS)),
    };
    let id = if running { 5 } else { -1 };
    let mut one = one;
    let client = Client::open(move |call| match call {
        CallBody::DomainPeek(peek) => {
            assert!((1..=32 << 10).contains(&peek.length));
            let from = match peek.at {
                PeekAt::Memory => 0,
                PeekAt::Disk(_) => 1,
            };
            if peek.offset > 1 << 30 {
                return Act::Fail(ApiErrorCode::Worker, "no memory of the guest's");
            }
            let place = |index: u32| (from + peek.offset + u64::from(index)).to_le_bytes()[0];
            Act::Answer(AnswerBody::DomainPeek(
                (0..peek.length).map(place).collect(),
            ))
        }
        CallBody::DomainDiskSizeGet(_) => Act::Answer(AnswerBody::DomainDiskSizeGet(DiskSize {
            capacity: 3,
            allocation: 1,
            physical: 2,
        })),
        CallBody::DomainNmiInject(_) => Act::Answer(AnswerBody::DomainNmiInject(())),
        CallBody::DomainDeviceUpdate(_) => Act::Answer(AnswerBody::DomainDeviceUpdate(())),
        call => one.act(call),
    });
    (client, handle("a", id))
}

fn memory(domain: &Domain, offset: u64, size: u32, flags: u32) -> inspect::DomainMemoryPeek {
    inspect::DomainMemoryPeek {
        domain: domain.clone(),
        offset,
        size,
        flags,
    }
}

fn block(domain: &Domain, path: &str, size: u32) -> inspect::DomainBlockPeek {
    inspect::DomainBlockPeek {
        domain: domain.clone(),
        path: path.to_owned(),
        offset: 10,
        size,
        flags: 0,
    }
}

#[test]
fn storage_that_is_slow_is_asked_again() {
    let mut one = One::running(definition("", DISKS));
    let mut late = 2;
    let mut client = Client::open(move |call| match call {
        CallBody::DomainPeek(_) if late > 0 => {
            late -= 1;
            Act::Fail(ApiErrorCode::Timeout, "storage has not read it in time")
        }
        CallBody::DomainPeek(_) => Act::Answer(AnswerBody::DomainPeek(vec![7; 3])),
        call => one.act(call),
    });
    let read = client.ask(&block(&handle("a", 5), "vda", 3));
    assert_eq!(read.0, [7; 3]);
}

#[test]
fn bytes_come_whole_however_many_are_asked_for() {
    let (mut client, domain) = host(true);
    let wanted: Vec<u8> = (0..100_000_u32)
        .map(|place| (7 + place).to_le_bytes()[0])
        .collect();
    assert_eq!(client.ask(&memory(&domain, 7, 100_000, 2)).0, wanted);
    for path in ["vda", "/d.qcow2"] {
        assert_eq!(client.ask(&block(&domain, path, 2)).0, [11, 12]);
    }
    assert!(client.ask(&memory(&domain, 0, 0, 2)).0.is_empty());
    for (call, code) in [
        (memory(&domain, 0, 1, 1), 74),
        (memory(&domain, 0, 1, 0), 8),
        (memory(&domain, 0, 1, 3), 8),
        (memory(&domain, 0, 5 << 20, 2), 8),
        (memory(&domain, u64::MAX, 2, 2), 8),
        (memory(&domain, 2 << 30, 2, 2), 1),
    ] {
        assert_eq!(client.refused(&call).code, code, "{call:?}");
    }
    for path in ["vdz", "vdb"] {
        assert_eq!(client.refused(&block(&domain, path, 1)).code, 8);
    }
    let (mut client, domain) = host(false);
    assert_eq!(client.refused(&memory(&domain, 0, 1, 2)).code, 55);
    assert_eq!(client.refused(&block(&domain, "vda", 1)).code, 55);
}

#[test]
fn a_disk_has_its_sizes_and_gets_another() {
    let (mut client, domain) = host(true);
    let info = |path: &str| inspect::DomainGetBlockInfo {
        domain: domain.clone(),
        path: path.to_owned(),
        flags: 0,
    };
    let told = client.ask(&info("vda"));
    assert_eq!((told.capacity, told.allocation, told.physical), (3, 1, 2));
    assert!(client.refused(&info("vdb")).message.contains("source"));
    assert!(client.refused(&info("x")).message.contains("not assigned"));
    let resize = |size, flags| device::DomainBlockResize {
        domain: domain.clone(),
        disk: "/d.qcow2".to_owned(),
        size,
        flags,
    };
    client.ask(&resize(8, 0));
    client.ask(&resize(4096, 1));
    assert_eq!(client.refused(&resize(u64::MAX, 0)).code, 82);
    let seen = client.supervisor.seen.lock().unwrap();
    let sizes = seen.iter().filter_map(|call| match call {
        CallBody::DomainDeviceUpdate(update) => Some(update.change),
        _ => None,
    });
    let size = |bytes| DeviceChange::DiskSize {
        bytes: Some(bytes),
        shrink: true,
    };
    assert_eq!(sizes.collect::<Vec<_>>(), [size(8192), size(4096)]);
}

#[test]
fn an_interrupt_is_sent_and_no_job_is_there() {
    let (mut client, domain) = host(true);
    let nmi = |flags| device::DomainInjectNmi {
        domain: domain.clone(),
        flags,
    };
    client.ask(&nmi(0));
    assert_eq!(client.refused(&nmi(1)).code, 8);
    let info = inspect::DomainGetJobInfo {
        domain: domain.clone(),
    };
    assert_eq!(client.ask(&info).kind, 0);
    let stats = |domain: &Domain, flags| inspect::DomainGetJobStats {
        domain: domain.clone(),
        flags,
    };
    assert_eq!(client.ask(&stats(&domain, 0)).kind, 0);
    let abort = inspect::DomainAbortJob { domain };
    let said = client.refused(&abort);
    assert_eq!(said.code, 55);
    assert!(said.message.contains("no job is active"), "{said:?}");
    let (mut client, domain) = host(false);
    assert_eq!(client.refused(&stats(&domain, 0)).code, 55);
    assert_eq!(client.ask(&stats(&domain, 1)).kind, 0);
}
