//! Messages of the control queues (virtio 1.3 §5.3.6.2).

/// Bytes of a message without what follows it.
pub(super) const HEADER_BYTES: usize = 8;
/// The longest name of a port.
pub const MAX_NAME_BYTES: usize = 255;
/// The longest message.
pub(super) const MAX_BYTES: usize = HEADER_BYTES + MAX_NAME_BYTES;

const DEVICE_READY: u16 = 0;
const PORT_ADD: u16 = 1;
const PORT_REMOVE: u16 = 2;
const PORT_READY: u16 = 3;
const CONSOLE_PORT: u16 = 4;
const RESIZE: u16 = 5;
const PORT_OPEN: u16 = 6;
const PORT_NAME: u16 = 7;

/// What a driver says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FromDriver {
    /// It can, or cannot, use several ports.
    DeviceReady(bool),
    /// It can, or cannot, use this one.
    PortReady(bool),
    /// Somebody in the guest has opened it, or closed it.
    PortOpen(bool),
}

impl FromDriver {
    /// The port and what is said of it; `None` for what no driver says.
    pub(super) fn decode(bytes: [u8; HEADER_BYTES]) -> Option<(u32, Self)> {
        let [i0, i1, i2, i3, e0, e1, v0, v1] = bytes;
        let value = u16::from_le_bytes([v0, v1]) != 0;
        let message = match u16::from_le_bytes([e0, e1]) {
            DEVICE_READY => Self::DeviceReady(value),
            PORT_READY => Self::PortReady(value),
            PORT_OPEN => Self::PortOpen(value),
            _ => return None,
        };
        Some((u32::from_le_bytes([i0, i1, i2, i3]), message))
    }
}

/// What a driver is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ToDriver<'a> {
    /// There is this port.
    Add,
    /// There is no longer.
    Remove,
    /// It is a console.
    Console,
    /// Its size in characters.
    Resize {
        /// In a line.
        columns: u16,
        /// Lines.
        rows: u16,
    },
    /// Somebody on the host has opened it, or closed it.
    Open(bool),
    /// Its name, of at most [`MAX_NAME_BYTES`].
    Name(&'a str),
}

impl ToDriver<'_> {
    /// The bytes to be said of `port`, and how many they are.
    pub(super) fn encode(self, port: u32) -> ([u8; MAX_BYTES], usize) {
        let (event, value) = match self {
            Self::Add => (PORT_ADD, 1),
            Self::Remove => (PORT_REMOVE, 1),
            Self::Console => (CONSOLE_PORT, 1),
            Self::Resize { .. } => (RESIZE, 0),
            Self::Open(open) => (PORT_OPEN, u16::from(open)),
            Self::Name(_) => (PORT_NAME, 1),
        };
        let mut size = [0; 4];
        let rest = match self {
            Self::Resize { columns, rows } => {
                let ([c0, c1], [r0, r1]) = (columns.to_le_bytes(), rows.to_le_bytes());
                size = [c0, c1, r0, r1];
                &size[..]
            }
            // Without a NUL: §5.3.6.2.
            Self::Name(name) => name.as_bytes(),
            _ => &size[..0],
        };
        let mut bytes = [0; MAX_BYTES];
        let all = (port.to_le_bytes().into_iter())
            .chain(event.to_le_bytes())
            .chain(value.to_le_bytes())
            .chain(rest.iter().copied());
        let mut len = 0;
        for (slot, byte) in bytes.iter_mut().zip(all) {
            *slot = byte;
            len += 1;
        }
        (bytes, len)
    }
}
