//! Streams to and from volumes.

use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;

use tempfile::TempDir;

use super::harness::{Client, bytes as encoded};
use super::storage::{host, pool, volume};
use super::store::FULL;
use crate::wire::call::Call;
use crate::wire::frame::{Hole, Kind, Program, STREAM_CHUNK, Status};
use crate::wire::types::connect::ConnectGetType;
use crate::wire::types::handles::Volume;
use crate::wire::types::storage::{StorageVolDownload, StorageVolUpload};
use crate::wire::xdr::decode;

const OK: u32 = 0;
const ERROR: u32 = 1;
const CONTINUE: u32 = 2;

/// A client with a volume of so many bytes, each what its place says.
fn with_volume(bytes: usize) -> (Client, TempDir, Volume, PathBuf) {
    let (mut client, directory) = host();
    let pool = pool(&mut client, "images", directory.path());
    let size = u64::try_from(bytes).unwrap();
    let volume = volume(&mut client, &pool, "a.raw", size);
    let path = directory.path().join("a.raw");
    std::fs::write(&path, contents(bytes)).unwrap();
    (client, directory, volume, path)
}

fn contents(bytes: usize) -> Vec<u8> {
    let places = 0..bytes;
    places
        .map(|place| u8::try_from(place / 1000 % 251).unwrap())
        .collect()
}

fn download(client: &mut Client, volume: &Volume, offset: u64, length: u64) -> u32 {
    let serial = client.send(&StorageVolDownload {
        volume: volume.clone(),
        offset,
        length,
        flags: 0,
    });
    client.answer(serial).reply::<StorageVolDownload>();
    serial
}

/// The next packet of a stream: its status and data.
fn said<C: Call>(client: &mut Client, serial: u32) -> (Status, Vec<u8>) {
    let got = client.answer(serial);
    assert_eq!(
        (got.header.kind, got.header.procedure),
        (Kind::Stream, C::NUMBER)
    );
    (got.header.status, got.payload)
}

/// All that a download says until its end.
fn downloaded(client: &mut Client, serial: u32) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let (status, data) = said::<StorageVolDownload>(client, serial);
        assert_eq!(status, Status::Continue);
        if data.is_empty() {
            return all;
        }
        assert!(data.len() <= STREAM_CHUNK);
        all.extend(data);
    }
}

#[test]
fn a_download_is_all_bytes_an_empty_packet_and_the_client_ends_it() {
    let bytes = 3 * STREAM_CHUNK + 5;
    let (mut client, _directory, volume, _) = with_volume(bytes);
    let serial = download(&mut client, &volume, 0, 0);
    assert!(downloaded(&mut client, serial) == contents(bytes));
    client.silence(50);
    client.stream_of::<StorageVolDownload>(serial, OK, b"");
    let over = (Status::Ok, Vec::new());
    assert_eq!(said::<StorageVolDownload>(&mut client, serial), over);
    let serial = download(&mut client, &volume, 1000, 2000);
    assert_eq!(downloaded(&mut client, serial), contents(3000)[1000..]);
}

#[test]
fn a_download_that_its_client_has_enough_of_ends() {
    for status in [OK, ERROR] {
        let (mut client, _directory, volume, _) = with_volume(64 << 20);
        let serial = download(&mut client, &volume, 0, 0);
        said::<StorageVolDownload>(&mut client, serial);
        client.stream_of::<StorageVolDownload>(serial, status, b"");
        let mut packets = 0;
        loop {
            match said::<StorageVolDownload>(&mut client, serial) {
                (Status::Continue, data) => assert!(!data.is_empty()),
                (Status::Ok, data) => break assert!(data.is_empty()),
                (Status::Error, _) => panic!("it failed"),
            }
            packets += 1;
            assert!(packets < 64, "it does not end");
        }
        client.silence(50);
        assert_eq!(client.ask(&ConnectGetType {}), "QEMU");
    }
}

#[test]
fn a_client_that_does_not_read_lets_a_download_wait_and_gets_it_all_later() {
    let bytes = 24 << 20;
    let (mut client, _directory, volume, path) = with_volume(bytes);
    let serial = download(&mut client, &volume, 0, 0);
    std::thread::sleep(std::time::Duration::from_millis(300));
    // What was not read by now is read when the client does.
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let last = u64::try_from(bytes - 1).unwrap();
    file.write_all_at(&[252], last).unwrap();
    let all = downloaded(&mut client, serial);
    assert_eq!(all.len(), bytes);
    assert_eq!(all.last(), Some(&252), "it was not made to wait");
}

fn upload(client: &mut Client, volume: &Volume, offset: u64, length: u64) -> u32 {
    let serial = client.send(&StorageVolUpload {
        volume: volume.clone(),
        offset,
        length,
        flags: 0,
    });
    client.answer(serial).reply::<StorageVolUpload>();
    serial
}

#[test]
fn an_upload_is_written_where_it_belongs_before_its_end_is_answered() {
    let bytes = 2 << 20;
    let (mut client, _directory, volume, path) = with_volume(bytes);
    let serial = upload(&mut client, &volume, 4096, 0);
    let new = vec![9; bytes - 4096];
    for packet in new.chunks(STREAM_CHUNK) {
        client.stream_of::<StorageVolUpload>(serial, CONTINUE, packet);
    }
    client.stream_of::<StorageVolUpload>(serial, OK, b"");
    let over = (Status::Ok, Vec::new());
    assert_eq!(said::<StorageVolUpload>(&mut client, serial), over);
    let written = std::fs::read(&path).unwrap();
    assert!(written[..4096] == contents(4096) && written[4096..] == new);
}

#[test]
fn an_upload_of_more_than_there_is_room_for_fails() {
    let (mut client, _directory, volume, path) = with_volume(10_000);
    let serial = upload(&mut client, &volume, 0, 5000);
    client.stream_of::<StorageVolUpload>(serial, CONTINUE, &[9; 5000]);
    client.stream_of::<StorageVolUpload>(serial, CONTINUE, &[9; 1]);
    let got = client.answer(serial);
    assert_eq!(got.header.kind, Kind::Stream);
    let error = got.error();
    assert_eq!((error.code, error.domain), (38, 38));
    assert!(error.message.contains("No space left"), "{}", error.message);
    // What is still on its way is nothing any more.
    client.stream_of::<StorageVolUpload>(serial, CONTINUE, &[9; 5000]);
    client.stream_of::<StorageVolUpload>(serial, OK, b"");
    assert_eq!(client.ask(&ConnectGetType {}), "QEMU");
    let written = std::fs::read(&path).unwrap();
    assert_eq!(written.len(), 10_000);
    assert!(written[5000..] == contents(10_000)[5000..]);
}

#[test]
fn an_upload_may_be_given_up() {
    let (mut client, _directory, volume, path) = with_volume(10_000);
    let serial = upload(&mut client, &volume, 0, 0);
    client.stream_of::<StorageVolUpload>(serial, CONTINUE, &[9; 10]);
    client.stream_of::<StorageVolUpload>(serial, ERROR, b"");
    let over = (Status::Ok, Vec::new());
    assert_eq!(said::<StorageVolUpload>(&mut client, serial), over);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 10_000);
}

#[test]
fn an_upload_that_its_volume_did_not_take_fails_at_its_end_with_the_reason() {
    // Whatever its length says, the file is full when it is asked to be on stable storage.
    let (mut client, _directory, volume, _) = with_volume(20_000);
    let serial = upload(&mut client, &volume, FULL, 0);
    client.stream_of::<StorageVolUpload>(serial, CONTINUE, &[9; 10]);
    client.stream_of::<StorageVolUpload>(serial, OK, b"");
    // Once more is not the end of it.
    client.stream_of::<StorageVolUpload>(serial, OK, b"");
    let error = client.answer(serial).error();
    assert_eq!((error.code, error.domain), (38, 38));
    assert!(error.message.contains("No space left"), "{}", error.message);
    client.silence(50);
}

#[test]
fn what_there_is_not_is_refused_before_a_stream_is_there() {
    let (mut client, _directory, volume, _) = with_volume(10);
    let call = |offset, flags| StorageVolDownload {
        volume: volume.clone(),
        offset,
        length: 0,
        flags,
    };
    assert_eq!(client.refused(&call(0, 2)).code, 8);
    assert_eq!(client.refused(&call(11, 0)).code, 8);
    let none = StorageVolUpload {
        volume: Volume {
            name: "none".to_owned(),
            ..volume
        },
        offset: 0,
        length: 0,
        flags: 0,
    };
    let refused = client.refused(&none);
    assert_eq!((refused.code, refused.domain), (50, 18));
}

/// Says that there are so many zeros.
fn hole<C: Call>(client: &mut Client, serial: u32, length: i64, flags: u32) {
    let remote = Program::Remote.number();
    let payload = encoded(&Hole { length, flags });
    client.packet(remote, 1, C::NUMBER, 6, serial, CONTINUE, &payload);
}

#[test]
fn a_download_with_holes_tells_of_them_and_reads_the_rest() {
    const BLOCK: usize = 1 << 20;
    let (mut client, _directory, volume, path) = with_volume(0);
    let file = std::fs::File::create(&path).unwrap();
    // A hole, data, a longer hole, data, and a hole at its end.
    let size = 64 * BLOCK;
    file.set_len(u64::try_from(size).unwrap()).unwrap();
    let data = contents(BLOCK);
    for block in [1, 40] {
        let place = u64::try_from(block * BLOCK).unwrap();
        file.write_all_at(&data, place).unwrap();
    }
    let serial = client.send(&StorageVolDownload {
        volume,
        offset: 0,
        length: 0,
        flags: 1,
    });
    client.answer(serial).reply::<StorageVolDownload>();
    let (mut all, mut sent) = (Vec::new(), 0);
    loop {
        let got = client.answer(serial);
        assert_eq!(got.header.status, Status::Continue);
        match got.header.kind {
            Kind::StreamHole => {
                let Hole { length, flags } = decode(&got.payload).unwrap();
                assert_eq!(flags, 0);
                all.resize(all.len() + usize::try_from(length).unwrap(), 0);
            }
            Kind::Stream if got.payload.is_empty() => break,
            kind => {
                assert_eq!(kind, Kind::Stream);
                sent += got.payload.len();
                all.extend(got.payload);
            }
        }
    }
    client.stream_of::<StorageVolDownload>(serial, OK, b"");
    let over = (Status::Ok, Vec::new());
    assert_eq!(said::<StorageVolDownload>(&mut client, serial), over);
    assert!(all == std::fs::read(&path).unwrap());
    assert_eq!(sent, 2 * BLOCK);
}

#[test]
fn an_upload_with_holes_leaves_zeros_where_something_was_and_takes_no_room() {
    let bytes = 8 << 20;
    let (mut client, _directory, volume, path) = with_volume(bytes);
    let upload = |client: &mut Client, flags| {
        let serial = client.send(&StorageVolUpload {
            volume: volume.clone(),
            offset: 1 << 20,
            length: 0,
            flags,
        });
        client.answer(serial).reply::<StorageVolUpload>();
        serial
    };
    let before = std::fs::metadata(&path).unwrap().blocks();
    let serial = upload(&mut client, 1);
    client.stream_of::<StorageVolUpload>(serial, CONTINUE, &[9; 4096]);
    hole::<StorageVolUpload>(&mut client, serial, 4 << 20, 0);
    client.stream_of::<StorageVolUpload>(serial, CONTINUE, &[8; 4096]);
    hole::<StorageVolUpload>(&mut client, serial, 0, 0);
    client.stream_of::<StorageVolUpload>(serial, OK, b"");
    let over = (Status::Ok, Vec::new());
    assert_eq!(said::<StorageVolUpload>(&mut client, serial), over);
    let mut wanted = contents(bytes);
    let (from, length) = (1 << 20, 4 << 20);
    wanted[from..from + 4096].fill(9);
    wanted[from + 4096..][..length].fill(0);
    wanted[from + 4096 + length..][..4096].fill(8);
    assert!(std::fs::read(&path).unwrap() == wanted);
    let after = std::fs::metadata(&path).unwrap().blocks();
    assert!(after <= before, "{before} {after}");

    // More of them than there is room for, none that make sense, and where none were offered.
    for (flags, length, hole_flags) in [(1, 7 << 20 | 1, 0), (1, -1, 0), (1, 1, 1), (0, 1, 0)] {
        let serial = upload(&mut client, flags);
        hole::<StorageVolUpload>(&mut client, serial, length, hole_flags);
        let got = client.answer(serial);
        assert_eq!(got.header.kind, Kind::Stream);
        let error = got.error();
        let code = if length > 1 { 38 } else { 39 };
        assert_eq!(error.code, code, "{length}: {}", error.message);
    }
    assert!(std::fs::read(&path).unwrap() == wanted);
}
