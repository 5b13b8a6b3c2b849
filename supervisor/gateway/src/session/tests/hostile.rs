//! Clients that keep to nothing: each loses its own connection, at most.

use std::io::Write as _;
use std::time::Duration;

use proptest::prelude::*;
use reeve_ipc::api::Access;
use reeve_ipc::api::call::CallBody;

use super::harness::{Act, Client, bytes};
use crate::session::SessionError;
use crate::wire::call::Call;
use crate::wire::types::connect;

fn nothing(call: &CallBody) -> Act {
    panic!("the supervisor is asked {call:?}")
}

#[test]
fn a_length_that_no_packet_has_ends_the_connection() {
    for length in [0_u32, 10, 27, 40_000_000, u32::MAX] {
        let mut client = Client::with(Access::ReadWrite, nothing);
        client.write(&length.to_be_bytes());
        assert_eq!(client.next(), None);
        let end = client.end().unwrap_err();
        assert!(matches!(end, SessionError::Frame(_)), "{end}");
    }
}

#[test]
fn a_packet_may_come_a_byte_at_a_time() {
    let mut client = Client::with(Access::ReadWrite, nothing);
    let mut packet = Vec::new();
    let open = connect::ConnectOpen {
        name: Some("qemu:///system".to_owned()),
        flags: 0,
    };
    crate::wire::frame::call(&mut packet, 7, &open).unwrap();
    for byte in packet {
        client.write(&[byte]);
        std::thread::sleep(Duration::from_millis(1));
    }
    client.answer(7).reply::<connect::ConnectOpen>();
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_packet_is_gone() {
    let mut client = Client::with(Access::ReadWrite, nothing);
    client.write(&[0, 0, 0, 60, 0x20, 0, 0x80]);
    client.socket.shutdown(std::net::Shutdown::Both).unwrap();
    client.end().unwrap();
}

#[test]
fn a_client_that_leaves_while_it_is_owed_an_answer_is_gone() {
    let mut client = Client::open(|_| Act::Hold);
    let domain = super::harness::handle("a", 5);
    client.send(&crate::wire::types::lifecycle::DomainShutdown { domain });
    client.supervisor.holds(1);
    client.socket.shutdown(std::net::Shutdown::Both).unwrap();
    client.end().unwrap();
}

#[test]
fn replies_of_a_client_and_packets_of_no_stream_are_nothing() {
    let mut client = Client::open(nothing);
    for kind in [1, 2, 3, 5, 6] {
        let status = if kind == 3 { 2 } else { 0 };
        client.packet(0x2000_8086, 1, 201, kind, 77, status, &[0; 12]);
    }
    assert_eq!(client.ask(&connect::ConnectGetType {}), "QEMU");
}

#[test]
fn a_flood_of_pings_that_nobody_reads_is_not_kept() {
    let mut client = Client::with(Access::ReadWrite, nothing);
    client.socket.set_nonblocking(true).unwrap();
    let ping: Vec<u8> = [28_u32, 0x6b65_6570, 1, 1, 2, 0, 0]
        .iter()
        .flat_map(|word| word.to_be_bytes())
        .collect();
    let flood = ping.repeat(1000);
    let (mut sent, mut stalled) = (0_usize, 0);
    // It ends because no more is read: the answers are not taken.
    while stalled < 100 {
        match client.socket.write(&flood) {
            Ok(length) => {
                sent += length;
                stalled = 0;
            }
            Err(_) => {
                stalled += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        assert!(sent < 64 << 20, "everything is read");
    }
    client.socket.set_nonblocking(false).unwrap();
    // Read again, it goes on; a packet may have been cut by us.
    client
        .socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let mut answered = 0_usize;
    let mut buffer = [0; 65536];
    while answered < sent / 28 * 28 {
        answered += std::io::Read::read(&mut client.socket, &mut buffer).unwrap();
    }
    assert_eq!(answered, sent / 28 * 28);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn arguments_at_random_are_answered_one_way_or_another(
        numbers in prop::collection::vec((-2_i32..460, prop::collection::vec(any::<u8>(), 0..120)), 1..20),
    ) {
        let mut client = Client::open(|_| Act::Fail(
            reeve_ipc::api::error::ApiErrorCode::Unsupported,
            "nothing is done here",
        ));
        let leaves = [connect::ConnectClose::NUMBER, 201];
        let numbers = numbers.into_iter().filter(|(number, _)| !leaves.contains(number));
        let mut owed: Vec<u32> = numbers
            .map(|(number, payload)| client.send_raw(0x2000_8086, 1, number, &payload))
            .collect();
        while !owed.is_empty() {
            let got = client.next().expect("the connection has ended");
            prop_assert!(owed.contains(&got.header.serial));
            owed.retain(|serial| *serial != got.header.serial);
        }
    }
}

#[test]
fn a_call_of_many_bytes_is_taken() {
    let mut client = Client::open(nothing);
    let mut long = bytes(&connect::ConnectSupportsFeature { feature: 14 });
    long.resize(4 << 20, 0);
    let serial = client.send_raw(0x2000_8086, 1, 60, &long);
    client
        .answer(serial)
        .reply::<connect::ConnectSupportsFeature>();
}
