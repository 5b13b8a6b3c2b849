//! The header of a packet (virtio 1.3 §5.10.6), read once and checked by whoever uses it.

/// Bytes of a header.
pub(super) const HEADER_BYTES: usize = 44;
/// The most bytes behind one, either way.
pub(super) const MAX_DATA: usize = 64 * 1024;

/// `VIRTIO_VSOCK_TYPE_STREAM`.
pub(super) const STREAM: u16 = 1;
/// `VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE`: receives no more.
pub(super) const SHUTDOWN_RECEIVE: u32 = 1;
/// `VIRTIO_VSOCK_SHUTDOWN_F_SEND`: sends no more.
pub(super) const SHUTDOWN_SEND: u32 = 2;
/// Both.
pub(super) const SHUTDOWN_BOTH: u32 = SHUTDOWN_RECEIVE | SHUTDOWN_SEND;

/// What a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Request,
    Response,
    Reset,
    Shutdown,
    Data,
    CreditUpdate,
    CreditRequest,
    /// One that there is not.
    Unknown,
}

impl Op {
    fn decode(value: u16) -> Self {
        match value {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Reset,
            4 => Self::Shutdown,
            5 => Self::Data,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            _ => Self::Unknown,
        }
    }

    fn encode(self) -> u16 {
        match self {
            Self::Unknown => 0,
            Self::Request => 1,
            Self::Response => 2,
            Self::Reset => 3,
            Self::Shutdown => 4,
            Self::Data => 5,
            Self::CreditUpdate => 6,
            Self::CreditRequest => 7,
        }
    }
}

/// A header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) source_cid: u64,
    pub(super) destination_cid: u64,
    pub(super) source_port: u32,
    pub(super) destination_port: u32,
    /// Bytes of data that follow.
    pub(super) len: u32,
    /// The kind of socket.
    pub(super) kind: u16,
    pub(super) op: Op,
    pub(super) flags: u32,
    /// Bytes that the sender can hold.
    pub(super) buf_alloc: u32,
    /// Bytes that it has passed on, modulo 2³².
    pub(super) fwd_cnt: u32,
}

impl Header {
    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> Self {
        let mut rest = &bytes[..];
        Self {
            source_cid: u64::from_le_bytes(take(&mut rest)),
            destination_cid: u64::from_le_bytes(take(&mut rest)),
            source_port: u32::from_le_bytes(take(&mut rest)),
            destination_port: u32::from_le_bytes(take(&mut rest)),
            len: u32::from_le_bytes(take(&mut rest)),
            kind: u16::from_le_bytes(take(&mut rest)),
            op: Op::decode(u16::from_le_bytes(take(&mut rest))),
            flags: u32::from_le_bytes(take(&mut rest)),
            buf_alloc: u32::from_le_bytes(take(&mut rest)),
            fwd_cnt: u32::from_le_bytes(take(&mut rest)),
        }
    }

    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let fields = (self.source_cid.to_le_bytes().into_iter())
            .chain(self.destination_cid.to_le_bytes())
            .chain(self.source_port.to_le_bytes())
            .chain(self.destination_port.to_le_bytes())
            .chain(self.len.to_le_bytes())
            .chain(self.kind.to_le_bytes())
            .chain(self.op.encode().to_le_bytes())
            .chain(self.flags.to_le_bytes())
            .chain(self.buf_alloc.to_le_bytes())
            .chain(self.fwd_cnt.to_le_bytes());
        let mut bytes = [0; HEADER_BYTES];
        for (slot, byte) in bytes.iter_mut().zip(fields) {
            *slot = byte;
        }
        bytes
    }
}

/// The next field of a header; its fields are as long as it is.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let Some((field, behind)) = rest.split_first_chunk() else {
        return [0; N];
    };
    *rest = behind;
    *field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_the_bytes_of_the_specification() {
        let header = Header {
            source_cid: 3,
            destination_cid: 2,
            source_port: 0x0102_0304,
            destination_port: 5,
            len: 6,
            kind: STREAM,
            op: Op::Data,
            flags: 7,
            buf_alloc: 8,
            fwd_cnt: 9,
        };
        let bytes = header.encode();
        assert_eq!(
            bytes,
            [
                3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 4, 3, 2, 1, 5, 0, 0, 0, 6, 0, 0, 0,
                1, 0, 5, 0, 7, 0, 0, 0, 8, 0, 0, 0, 9, 0, 0, 0
            ]
        );
        assert_eq!(Header::decode(&bytes), header);
    }
}
