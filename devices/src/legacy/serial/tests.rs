//! Tests of the serial port, after what drivers do to it.

use proptest::prelude::*;

use super::*;
use crate::testing::{RecordConsole, RecordLine, RecordWake};

struct Rig {
    port: Serial,
    line: Arc<RecordLine>,
    output: Arc<RecordConsole>,
    room: Arc<RecordWake>,
}

impl Rig {
    fn new() -> Self {
        let (irq, line) = RecordLine::line();
        let output = Arc::new(RecordConsole::default());
        let room = Arc::new(RecordWake::default());
        let port = Serial::new(irq, output.clone(), room.clone());
        Self {
            port,
            line,
            output,
            room,
        }
    }

    fn read(&mut self, register: u64) -> u8 {
        let mut byte = [0];
        self.port.read(register, &mut byte).unwrap();
        byte[0]
    }

    fn write(&mut self, register: u64, value: u8) {
        self.port.write(register, &[value]).unwrap();
    }
}

/// Linux 6.1 drivers/tty/serial/8250/8250_port.c autoconfig(), down to the type it settles on.
#[test]
fn linux_autoconfig_finds_a_16550a() {
    let mut rig = Rig::new();
    let ier = rig.read(INTERRUPT_ENABLE);
    rig.write(INTERRUPT_ENABLE, 0);
    assert_eq!(rig.read(INTERRUPT_ENABLE) & 0x0f, 0);
    rig.write(INTERRUPT_ENABLE, 0x0f);
    assert_eq!(rig.read(INTERRUPT_ENABLE) & 0x0f, 0x0f);
    rig.write(INTERRUPT_ENABLE, ier);

    let mcr = rig.read(MODEM_CONTROL);
    rig.write(MODEM_CONTROL, MCR_LOOPBACK | 0x0a);
    assert_eq!(rig.read(MODEM_STATUS) & 0xf0, 0x90, "loopback wiring");
    rig.write(MODEM_CONTROL, mcr);

    rig.write(LINE_CONTROL, 0xbf);
    rig.write(INTERRUPT_ID, 0);
    rig.write(LINE_CONTROL, 0);
    rig.write(INTERRUPT_ID, FCR_ENABLE);
    assert_eq!(rig.read(INTERRUPT_ID) >> 6, 3, "a working FIFO");

    // autoconfig_16550a(): none of the chips with more.
    for line_control in [0x80, 0xbf] {
        rig.write(LINE_CONTROL, line_control);
        assert_ne!(rig.read(INTERRUPT_ID), 0, "no extended features register");
    }
    rig.write(LINE_CONTROL, 0);
    for dlab in [0, 0x80] {
        rig.write(LINE_CONTROL, dlab);
        rig.write(INTERRUPT_ID, FCR_ENABLE | 0x20);
        assert_eq!(rig.read(INTERRUPT_ID) >> 5, 6, "no 64-byte FIFO");
    }
    rig.write(LINE_CONTROL, 0);
    rig.write(INTERRUPT_ENABLE, 0x40);
    assert_eq!(rig.read(INTERRUPT_ENABLE), 0, "no unit enable bit");

    // size_fifo(): 256 bytes into the loopback.
    rig.write(INTERRUPT_ID, 0x07);
    rig.write(MODEM_CONTROL, MCR_LOOPBACK);
    rig.write(LINE_CONTROL, 0x80);
    rig.write(DATA, 1);
    rig.write(INTERRUPT_ENABLE, 0);
    rig.write(LINE_CONTROL, 0x03);
    (0..=255).for_each(|byte| rig.write(DATA, byte));
    let mut received = Vec::new();
    while rig.read(LINE_STATUS) & LSR_DATA_READY != 0 {
        received.push(rig.read(DATA));
    }
    assert_eq!(received, (0..16).collect::<Vec<u8>>());
    assert_eq!(
        rig.output.take(),
        b"",
        "loopback does not reach the console"
    );
}

/// serial8250_do_startup(): the tests for UART_BUG_THRE and UART_BUG_TXEN find a sound port.
#[test]
fn enabling_the_transmitter_interrupt_reports_it_each_time() {
    let mut rig = Rig::new();
    for _ in 0..2 {
        rig.write(INTERRUPT_ENABLE, IER_TRANSMITTER_EMPTY);
        assert!(rig.line.is_high());
        assert_eq!(rig.read(INTERRUPT_ID), IIR_TRANSMITTER_EMPTY);
        assert!(!rig.line.is_high(), "reading IIR withdraws it");
        assert_eq!(rig.read(INTERRUPT_ID), IIR_NONE);
        rig.write(INTERRUPT_ENABLE, 0);
    }
}

#[test]
fn output_reaches_the_console_and_the_transmitter_asks_for_more() {
    let mut rig = Rig::new();
    rig.write(INTERRUPT_ID, FCR_ENABLE);
    rig.write(INTERRUPT_ENABLE, IER_TRANSMITTER_EMPTY);
    rig.read(INTERRUPT_ID);
    rig.line.take_edges();
    for byte in *b"0123456789abcdef" {
        assert_eq!(
            rig.read(LINE_STATUS) & LSR_TRANSMITTER_EMPTY,
            LSR_TRANSMITTER_EMPTY
        );
        rig.write(DATA, byte);
    }
    assert_eq!(rig.output.take(), b"0123456789abcdef");
    assert_eq!(rig.line.take_edges(), 1, "one interrupt for a FIFO load");
    assert_eq!(
        rig.read(INTERRUPT_ID),
        IIR_FIFO_ENABLED | IIR_TRANSMITTER_EMPTY
    );
    assert!(!rig.line.is_high());
}

#[test]
fn a_masked_transmitter_interrupt_does_not_raise_the_line() {
    let mut rig = Rig::new();
    rig.write(DATA, b'x');
    assert!(!rig.line.is_high());
    assert_eq!(rig.read(INTERRUPT_ID), IIR_NONE);
}

#[test]
fn input_interrupts_by_trigger_level_or_timeout_until_it_is_read() {
    for (control, trigger) in [(0x01, 1), (0x41, 4), (0x81, 8), (0xc1, 14)] {
        let mut rig = Rig::new();
        rig.write(INTERRUPT_ID, control);
        rig.write(INTERRUPT_ENABLE, IER_RECEIVED);
        for count in 1..=16 {
            assert_eq!(rig.port.enqueue(&[count]), 1);
            let cause = if count >= trigger {
                IIR_RECEIVED
            } else {
                IIR_TIMEOUT
            };
            assert_eq!(rig.read(INTERRUPT_ID), IIR_FIFO_ENABLED | cause);
            assert!(rig.line.is_high());
        }
        for count in 1..=16 {
            assert!(rig.line.is_high());
            assert_eq!(rig.read(LINE_STATUS) & LSR_DATA_READY, LSR_DATA_READY);
            assert_eq!(rig.read(DATA), count);
        }
        assert!(!rig.line.is_high());
        assert_eq!(rig.read(LINE_STATUS), LSR_TRANSMITTER_EMPTY);
        assert_eq!(rig.read(INTERRUPT_ID), IIR_FIFO_ENABLED | IIR_NONE);
    }
}

#[test]
fn a_flood_of_input_is_held_back_and_no_byte_is_lost() {
    let mut rig = Rig::new();
    rig.write(INTERRUPT_ID, FCR_ENABLE);
    let flood: Vec<u8> = (0..=255).collect();
    let (mut sent, mut received) = (0, Vec::new());
    while sent < flood.len() {
        let accepted = rig.port.enqueue(&flood[sent..]);
        assert_eq!(accepted, 16);
        sent += accepted;
        assert_eq!(rig.port.enqueue(b"!"), 0);
        while rig.read(LINE_STATUS) & LSR_DATA_READY != 0 {
            assert_eq!(rig.room.take(), 0);
            received.push(rig.read(DATA));
        }
        assert_eq!(rig.room.take(), 1, "told once, when the FIFO is empty");
    }
    assert_eq!(received, flood);
}

#[test]
fn nobody_is_woken_who_was_not_refused() {
    let mut rig = Rig::new();
    rig.port.enqueue(b"a");
    rig.read(DATA);
    assert_eq!(rig.room.take(), 0);
}

#[test]
fn clearing_the_fifo_and_leaving_loopback_make_room() {
    let mut rig = Rig::new();
    rig.write(INTERRUPT_ID, FCR_ENABLE);
    assert_eq!(rig.port.enqueue(&[0; 20]), 16);
    rig.write(INTERRUPT_ID, FCR_ENABLE | FCR_CLEAR_RECEIVER);
    assert_eq!(rig.room.take(), 1);
    rig.write(MODEM_CONTROL, MCR_LOOPBACK);
    assert_eq!(rig.port.enqueue(b"x"), 0);
    assert_eq!(rig.room.take(), 0);
    rig.write(MODEM_CONTROL, 0);
    assert_eq!(rig.room.take(), 1);
}

#[test]
fn overrun_is_reported_first_and_cleared_by_reading_it() {
    let mut rig = Rig::new();
    rig.write(MODEM_CONTROL, MCR_LOOPBACK);
    rig.write(INTERRUPT_ENABLE, IER_MASK);
    rig.write(DATA, 1);
    rig.write(DATA, 2);
    assert_eq!(rig.read(INTERRUPT_ID), IIR_LINE_STATUS);
    assert_eq!(
        rig.read(LINE_STATUS),
        LSR_TRANSMITTER_EMPTY | LSR_OVERRUN | LSR_DATA_READY
    );
    assert_eq!(
        rig.read(LINE_STATUS),
        LSR_TRANSMITTER_EMPTY | LSR_DATA_READY
    );
    assert_eq!(rig.read(INTERRUPT_ID), IIR_RECEIVED);
    assert_eq!(
        rig.read(DATA),
        2,
        "without a FIFO the newer character stays"
    );
}

#[test]
fn modem_deltas_interrupt_once() {
    let mut rig = Rig::new();
    assert_eq!(rig.read(MODEM_STATUS), MSR_DCD | MSR_DSR | MSR_CTS);
    rig.write(INTERRUPT_ENABLE, IER_MODEM_STATUS);
    rig.write(MODEM_CONTROL, MCR_LOOPBACK | MCR_OUT1);
    assert_eq!(rig.read(INTERRUPT_ID), IIR_MODEM_STATUS);
    assert!(rig.line.is_high());
    assert_eq!(
        rig.read(MODEM_STATUS),
        MSR_RI | 0x0b,
        "RI rises without a delta"
    );
    assert!(!rig.line.is_high());
    rig.write(MODEM_CONTROL, MCR_LOOPBACK);
    assert_eq!(rig.read(MODEM_STATUS), 0x04, "RI falls with one");
}

#[test]
fn divisor_and_scratch_are_plain_storage() {
    let mut rig = Rig::new();
    rig.write(LINE_CONTROL, LCR_DLAB | 0x03);
    rig.write(DATA, 0x34);
    rig.write(INTERRUPT_ENABLE, 0x12);
    assert_eq!((rig.read(DATA), rig.read(INTERRUPT_ENABLE)), (0x34, 0x12));
    rig.write(LINE_CONTROL, 0x03);
    assert_eq!(rig.read(INTERRUPT_ENABLE), 0);
    rig.write(SCRATCH, 0xa5);
    assert_eq!(rig.read(SCRATCH), 0xa5);
    assert_eq!(rig.output.take(), b"");
}

#[test]
fn wide_accesses_are_bytes_at_rising_ports() {
    let mut rig = Rig::new();
    rig.port.write(LINE_CONTROL, &[0x03, MCR_DTR]).unwrap();
    let mut data = [0; 2];
    rig.port.read(LINE_CONTROL, &mut data).unwrap();
    assert_eq!(data, [0x03, MCR_DTR]);
}

fn busy_port() -> Rig {
    let mut rig = Rig::new();
    rig.write(LINE_CONTROL, 0x83);
    rig.write(DATA, 1);
    rig.write(INTERRUPT_ENABLE, 0);
    rig.write(LINE_CONTROL, 0x03);
    rig.write(INTERRUPT_ID, 0xc1);
    rig.write(MODEM_CONTROL, 0x0b);
    rig.write(SCRATCH, 0x5a);
    rig.write(INTERRUPT_ENABLE, 0x05);
    rig.write(DATA, b'>');
    rig.port.enqueue(b"ok");
    rig
}

const GOLDEN: [u8; 27] = [
    0x05, 0xc1, 0x03, 0x0b, 0x00, 0x00, 0x5a, 0x01, 0x00, 0x01, 0x02, b'o', b'k', 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0,
];

#[test]
fn version_1_state_is_these_bytes() {
    assert_eq!(busy_port().port.save(), GOLDEN);
    let mut rig = Rig::new();
    rig.port.restore(1, &GOLDEN).unwrap();
    assert!(rig.line.is_high(), "the line is driven as it was");
    assert_eq!(rig.read(INTERRUPT_ID), IIR_FIFO_ENABLED | IIR_TIMEOUT);
    assert_eq!((rig.read(DATA), rig.read(DATA)), (b'o', b'k'));
    assert_eq!(rig.read(SCRATCH), 0x5a);
}

#[test]
fn impossible_state_is_refused_and_changes_nothing() {
    let mut rig = busy_port();
    let refuse = |rig: &mut Rig, at: usize, value: u8, field| {
        let mut bytes = GOLDEN;
        bytes[at] = value;
        assert_eq!(
            rig.port.restore(1, &bytes),
            Err(StateError::Invalid { field })
        );
    };
    refuse(&mut rig, 0, 0x10, "interrupt_enable");
    refuse(&mut rig, 1, 0x03, "fifo_control");
    refuse(&mut rig, 1, 0xc0, "fifo_control");
    refuse(&mut rig, 1, 0x00, "received_len");
    refuse(&mut rig, 3, 0x20, "modem_control");
    refuse(&mut rig, 4, 0x02, "overrun");
    refuse(&mut rig, 5, 0x10, "modem_deltas");
    refuse(&mut rig, 9, 0xff, "transmitter_pending");
    refuse(&mut rig, 10, 17, "received_len");
    refuse(&mut rig, 10, 1, "received");
    assert_eq!(
        rig.port.restore(1, &GOLDEN[..26]),
        Err(StateError::Truncated)
    );
    assert!(rig.port.restore(2, &GOLDEN).is_err());
    assert_eq!(rig.port.save(), GOLDEN);
}

#[test]
fn reset_withdraws_interrupts_and_input() {
    let mut rig = busy_port();
    rig.port.reset();
    assert!(!rig.line.is_high());
    assert_eq!(rig.port.save(), Rig::new().port.save());
}

proptest! {
    #[test]
    fn any_access_sequence_leaves_a_state_that_can_be_restored(
        steps in proptest::collection::vec((0u64..8, any::<bool>(), any::<u8>()), 0..300),
    ) {
        let mut rig = Rig::new();
        for (register, is_write, value) in steps {
            match (register, is_write, value) {
                (3, true, 0xf0..) => drop(rig.port.enqueue(&[value; 40])),
                (_, true, _) => rig.write(register, value),
                (_, false, _) => drop(rig.read(register)),
            }
            prop_assert_eq!(rig.line.is_high(), rig.port.registers.interrupt_cause() != IIR_NONE);
            prop_assert!(rig.port.registers.fifo.len() <= rig.port.registers.capacity());
        }
        let saved = rig.port.save();
        let mut other = Rig::new();
        other.port.restore(1, &saved).unwrap();
        prop_assert_eq!(other.port.save(), saved);
        prop_assert_eq!(other.line.is_high(), rig.line.is_high());
    }
}
