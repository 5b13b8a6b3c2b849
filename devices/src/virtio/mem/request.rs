//! Requests of a driver (§5.15.6): what each says, and what it is answered.

use super::MemControl;
use crate::memory::blocks::{Run, Standing};

/// Bytes of a request (`struct virtio_mem_req`).
pub(super) const REQUEST_BYTES: usize = 24;
/// Bytes of an answer (`struct virtio_mem_resp`).
pub(super) const ANSWER_BYTES: usize = 10;

/// `VIRTIO_MEM_REQ_*`.
const PLUG: u16 = 0;
const UNPLUG: u16 = 1;
const UNPLUG_ALL: u16 = 2;
const STATE: u16 = 3;

/// `VIRTIO_MEM_STATE_*`.
const PLUGGED: u16 = 0;
const UNPLUGGED: u16 = 1;
const MIXED: u16 = 2;

/// A request as it was copied from the guest: no field is checked but by [`answer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    kind: u16,
    address: u64,
    blocks: u16,
}

/// What a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// `ACK`: it was done.
    Done,
    /// `ACK` of a question: how the blocks stand.
    Standing(Standing),
    /// `NACK`: more than the host requests.
    Refused,
    /// `BUSY`: the host cannot do it now.
    Busy,
    /// `ERROR`: no such request, no such blocks, or some of them are so already.
    Wrong,
}

impl Request {
    pub(super) fn decode(bytes: &[u8; REQUEST_BYTES]) -> Self {
        let [
            t0,
            t1,
            _,
            _,
            _,
            _,
            _,
            _,
            address @ ..,
            n0,
            n1,
            _,
            _,
            _,
            _,
            _,
            _,
        ] = bytes;
        Self {
            kind: u16::from_le_bytes([*t0, *t1]),
            address: u64::from_le_bytes(*address),
            blocks: u16::from_le_bytes([*n0, *n1]),
        }
    }

    /// How many blocks carrying it out may change, at most.
    pub(super) fn cost(self, control: &MemControl) -> u64 {
        match self.kind {
            PLUG | UNPLUG => u64::from(self.blocks),
            UNPLUG_ALL => {
                let info = control.info();
                info.plugged_bytes / info.block_bytes
            }
            _ => 0,
        }
    }

    fn run(self, control: &MemControl) -> Option<Run> {
        control.blocks().run(self.address, self.blocks.into())
    }
}

impl Answer {
    pub(super) fn encode(self) -> [u8; ANSWER_BYTES] {
        let (kind, state): (u16, u16) = match self {
            Self::Done => (0, 0),
            Self::Standing(Standing::Plugged) => (0, PLUGGED),
            Self::Standing(Standing::Unplugged) => (0, UNPLUGGED),
            Self::Standing(Standing::Mixed) => (0, MIXED),
            Self::Refused => (1, 0),
            Self::Busy => (2, 0),
            Self::Wrong => (3, 0),
        };
        let ([k0, k1], [s0, s1]) = (kind.to_le_bytes(), state.to_le_bytes());
        [k0, k1, 0, 0, 0, 0, 0, 0, s0, s1]
    }
}

/// Does what `request` wants, wholly or not at all.
pub(super) fn answer(request: Request, control: &MemControl) -> Answer {
    match request.kind {
        PLUG => plug(request, control),
        UNPLUG => unplug(request, control),
        UNPLUG_ALL => done(control.unplug_all()),
        STATE => match request.run(control) {
            Some(run) => Answer::Standing(control.blocks().standing(&run)),
            None => Answer::Wrong,
        },
        _ => Answer::Wrong,
    }
}

fn plug(request: Request, control: &MemControl) -> Answer {
    let Some(run) = request.run(control) else {
        return Answer::Wrong;
    };
    let info = control.info();
    if info.plugged_bytes.saturating_add(run.len) > info.requested_bytes {
        return Answer::Refused;
    }
    match control.blocks().standing(&run) {
        Standing::Unplugged => done(control.plug(&run)),
        Standing::Plugged | Standing::Mixed => Answer::Wrong,
    }
}

fn unplug(request: Request, control: &MemControl) -> Answer {
    let Some(run) = request.run(control) else {
        return Answer::Wrong;
    };
    match control.blocks().standing(&run) {
        Standing::Plugged => done(control.unplug(&run)),
        Standing::Unplugged | Standing::Mixed => Answer::Wrong,
    }
}

fn done(result: std::io::Result<()>) -> Answer {
    match result {
        Ok(()) => Answer::Done,
        Err(error) => {
            tracing::warn!(%error, "blocks of guest memory could not be plugged or unplugged");
            Answer::Busy
        }
    }
}
