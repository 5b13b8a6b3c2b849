//! Any bytes as what a client sends: cut as the first says, taken apart into packets, and the arguments
//! of each read by its procedure's number. Refused, or written again to bytes that mean the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reeve_gateway::wire::error::WireError;
use reeve_gateway::wire::frame::{Assembler, Packet, Program, failure};
use reeve_gateway::wire::procedures::find;
use reeve_gateway::wire::types::arguments;

fuzz_target!(|bytes: &[u8]| {
    let Some((cut, bytes)) = bytes.split_first() else {
        return;
    };
    let mut assembler = Assembler::default();
    for piece in bytes.chunks(usize::from(*cut) + 1) {
        assembler.push(piece);
        loop {
            match assembler.take() {
                Ok(Some(packet)) => read(&packet),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
});

fn read(packet: &Packet<'_>) {
    let Some(program) = Program::from_number(packet.header.program) else {
        return;
    };
    let number = packet.header.procedure;
    let answer = match arguments(program, number, packet.payload) {
        None => find(program, number).map(WireError::not_supported),
        Some(Err(error)) => Some(WireError::undecodable(&error)),
        Some(Ok(again)) => {
            assert_eq!(arguments(program, number, &again), Some(Ok(again)));
            None
        }
    };
    let answer = answer.unwrap_or_else(|| WireError::unknown_procedure(number));
    let mut out = Vec::new();
    failure(&mut out, packet.header, &answer.body()).expect("an error fits a packet");
}
