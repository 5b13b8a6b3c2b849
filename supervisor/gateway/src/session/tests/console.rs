//! A console's stream, between a client and a descriptor that a test holds the other end of.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use reeve_ipc::api::call::{AnswerBody, CallBody, ConsoleStream};
use reeve_ipc::api::view::{DomainState, RunningReason, ShutOffReason};

use super::harness::{Act, Client, PATIENCE, handle};
use crate::calls::testing::details;
use crate::wire::frame::{Kind, Status};
use crate::wire::types::connect::ConnectGetType;
use crate::wire::types::device::DomainOpenConsole;

const OK: u32 = 0;
const ERROR: u32 = 1;
const CONTINUE: u32 = 2;

/// The workers' ends of consoles, as they are opened.
type Workers = Arc<Mutex<Vec<UnixStream>>>;

/// A client of a host whose domain `a` runs.
fn host() -> (Client, Workers) {
    let workers = Workers::default();
    let theirs = Arc::clone(&workers);
    let client = Client::open(move |call| match call {
        CallBody::DomainGet(get) => {
            let a = reeve_ipc::model::DomainUuid(crate::calls::testing::uuid_of("a"));
            let state = match get.domain {
                reeve_ipc::api::call::DomainRef::Uuid(uuid) if uuid == a => {
                    DomainState::Running(RunningReason::Booted)
                }
                _ => DomainState::ShutOff(ShutOffReason::Unknown),
            };
            Act::Answer(AnswerBody::DomainGet(details("a", state)))
        }
        CallBody::DomainConsole(console) => {
            assert!(console.input);
            let (ours, given) = UnixStream::pair().unwrap();
            ours.set_read_timeout(Some(PATIENCE)).unwrap();
            theirs.lock().unwrap().push(ours);
            let answer = AnswerBody::DomainConsole(ConsoleStream { position: 0 });
            Act::Fds(answer, vec![given.into()])
        }
        other => panic!("the supervisor is asked {other:?}"),
    });
    (client, workers)
}

fn open(client: &mut Client, workers: &Workers) -> (u32, UnixStream) {
    let domain = handle("a", 5);
    let serial = client.send(&DomainOpenConsole {
        domain,
        device: None,
        flags: 0,
    });
    client.answer(serial).reply::<DomainOpenConsole>();
    let worker = workers.lock().unwrap().pop().unwrap();
    (serial, worker)
}

/// The next packet of a stream: its status and data.
fn said(client: &mut Client, serial: u32) -> (Status, Vec<u8>) {
    let got = client.answer(serial);
    assert_eq!((got.header.kind, got.header.procedure), (Kind::Stream, 201));
    (got.header.status, got.payload)
}

/// So many bytes of a stream.
fn data(client: &mut Client, serial: u32, count: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < count {
        let (status, data) = said(client, serial);
        assert_eq!(status, Status::Continue);
        assert!(!data.is_empty() && data.len() <= 262_120);
        all.extend(data);
    }
    all
}

#[test]
fn bytes_pass_both_ways_and_the_client_ends_it() {
    let (mut client, workers) = host();
    let (serial, mut worker) = open(&mut client, &workers);
    worker.write_all(b"login: ").unwrap();
    assert_eq!(data(&mut client, serial, 7), b"login: ");
    client.stream(serial, CONTINUE, b"root\n");
    let mut typed = [0; 5];
    worker.read_exact(&mut typed).unwrap();
    assert_eq!(&typed, b"root\n");
    client.stream(serial, CONTINUE, b"last");
    client.stream(serial, OK, b"");
    assert_eq!(said(&mut client, serial), (Status::Ok, Vec::new()));
    let mut rest = Vec::new();
    worker.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"last");
    // It is over: what still comes for it is nothing.
    client.stream(serial, CONTINUE, b"x");
    client.stream(serial, OK, b"");
    assert_eq!(client.ask(&ConnectGetType {}), "QEMU");
}

#[test]
fn a_console_that_ends_is_an_empty_packet_and_the_client_says_the_rest() {
    let (mut client, workers) = host();
    let (serial, mut worker) = open(&mut client, &workers);
    worker.write_all(b"halted\n").unwrap();
    drop(worker);
    assert_eq!(data(&mut client, serial, 7), b"halted\n");
    assert_eq!(said(&mut client, serial), (Status::Continue, Vec::new()));
    client.stream(serial, CONTINUE, b"anybody?");
    client.stream(serial, OK, b"");
    assert_eq!(said(&mut client, serial), (Status::Ok, Vec::new()));
    client.silence(100);
}

#[test]
fn a_client_may_give_a_stream_up() {
    let (mut client, workers) = host();
    let (serial, mut worker) = open(&mut client, &workers);
    client.stream(serial, ERROR, b"");
    assert_eq!(said(&mut client, serial), (Status::Ok, Vec::new()));
    assert_eq!(worker.read(&mut [0]).unwrap(), 0);
}

#[test]
fn two_streams_are_told_apart_by_their_serials() {
    let (mut client, workers) = host();
    let (first, mut one) = open(&mut client, &workers);
    let (second, mut two) = open(&mut client, &workers);
    two.write_all(b"two").unwrap();
    assert_eq!(data(&mut client, second, 3), b"two");
    one.write_all(b"one").unwrap();
    assert_eq!(data(&mut client, first, 3), b"one");
}

#[test]
fn a_client_that_does_not_read_makes_the_console_wait_and_gets_it_all_later() {
    let (mut client, workers) = host();
    let (serial, mut worker) = open(&mut client, &workers);
    worker.set_nonblocking(true).unwrap();
    let mut written = 0_usize;
    let mut stalled = 0;
    while stalled < 50 {
        match worker.write(&[7; 4096]) {
            Ok(length) => {
                written += length;
                stalled = 0;
            }
            Err(_) => {
                stalled += 1;
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
        assert!(written < 16 << 20, "it is not made to wait");
    }
    assert_eq!(data(&mut client, serial, written).len(), written);
}

#[test]
fn a_guest_that_does_not_read_ends_its_own_stream_and_holds_nothing_else_up() {
    let (mut client, workers) = host();
    let (clogged, worker) = open(&mut client, &workers);
    let (other, mut reads) = open(&mut client, &workers);
    let packet = [9; 65_000];
    let mut refused = None;
    // More than the stream and the socket behind it hold.
    for _ in 0..64 {
        client.stream(clogged, CONTINUE, &packet);
        // Calls and the other stream go on all the while.
        let call = client.send(&ConnectGetType {});
        let mut got = client.next().unwrap();
        if got.header.serial == clogged {
            refused = Some(got.error());
            got = client.next().unwrap();
        }
        assert_eq!(got.header.serial, call);
    }
    let refused = refused.expect("nothing bounds what is held for the guest");
    assert_eq!((refused.code, refused.domain), (9, 38), "{refused:?}");
    client.stream(other, CONTINUE, b"hello");
    let mut typed = [0; 5];
    reads.read_exact(&mut typed).unwrap();
    assert_eq!(&typed, b"hello");
    // Its descriptor is closed.
    let mut worker = worker;
    let mut rest = Vec::new();
    worker.read_to_end(&mut rest).unwrap();
    assert!(rest.len() <= super::super::streams::MOST + (1 << 20));
}

#[test]
fn a_domain_that_does_not_run_and_a_console_that_there_is_not_are_refused() {
    let (mut client, workers) = host();
    let off = DomainOpenConsole {
        domain: handle("b", -1),
        device: None,
        flags: 0,
    };
    assert_eq!(client.refused(&off).code, 55);
    let device = Some("serial7".to_owned());
    let none = DomainOpenConsole {
        domain: handle("a", 5),
        device,
        flags: 0,
    };
    assert_eq!(client.refused(&none).code, 1);
    let device = Some("serial0".to_owned());
    client.ask(&DomainOpenConsole {
        domain: handle("a", 5),
        device,
        flags: 3,
    });
    assert_eq!(workers.lock().unwrap().len(), 1);
}

#[test]
fn there_are_only_so_many_streams() {
    let (mut client, workers) = host();
    let most = crate::session::streams::MAX_STREAMS;
    let _open: Vec<_> = (0..most).map(|_| open(&mut client, &workers)).collect();
    let call = DomainOpenConsole {
        domain: handle("a", 5),
        device: None,
        flags: 0,
    };
    assert_eq!(client.refused(&call).code, 9);
}

#[test]
fn a_stream_ends_with_its_connection() {
    let (mut client, workers) = host();
    let (_, mut worker) = open(&mut client, &workers);
    client.socket.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(worker.read(&mut [0]).unwrap(), 0);
    client.end().unwrap();
}
