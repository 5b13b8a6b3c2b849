//! Every procedure that libvirt's clients may call or be sent, in one table: its number, its name, the
//! function of the public API it stands for, who may call it, and whether we serve it.
//!
//! The table is the truth for three things: what a call that is not served is answered with, what a
//! read-only connection may not do, and the list in `docs/libvirt-procedures.md`.
//!
//! Numbers are unique and complete at compile time: [`find`] is an array lookup.

mod connect;
mod devices;
mod domain;
mod events;
mod markdown;
mod network;
mod other;
mod reason;
mod state;
mod storage;
#[cfg(test)]
mod tests;

pub use markdown::markdown;

use super::frame::Program;

/// One procedure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Procedure {
    /// Its number in its program, from 1.
    pub number: i32,
    /// Its name in the protocol.
    pub name: &'static str,
    /// The function it stands for, as error texts name it; for an event, the event's id.
    pub api: &'static str,
    /// Whether it is called or sent.
    pub role: Role,
    /// Whether we serve it.
    pub state: State,
}

/// Whether a procedure is called by clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// By clients.
    Call(Access, Rank),
    /// It is sent to clients; a call is answered as an unknown procedure's.
    Event,
}

/// Which connections may call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// All.
    Read,
    /// Those that may write.
    Write,
    /// Those that may write, if any of these flags is set in the call.
    WriteIf(u32),
}

/// Whether it may take long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    /// It answers at once, whatever a domain does: such calls overtake others.
    High,
    /// It may wait for a domain.
    Low,
}

/// Whether it is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is.
    Served,
    /// It never will be, and why.
    Unsupported(&'static str),
    /// Not yet; it comes with this.
    ToCome(&'static str),
}

impl Procedure {
    /// Whether a client may call it at all.
    #[must_use]
    pub const fn is_call(&self) -> bool {
        matches!(self.role, Role::Call(..))
    }

    /// Whether a read-only connection may not call it with these flags. What depends on other
    /// arguments is its handler's: `virDomainInterfaceAddresses` through the guest agent.
    #[must_use]
    pub const fn needs_write(&self, flags: u32) -> bool {
        match self.role {
            Role::Call(Access::Write, _) => true,
            Role::Call(Access::WriteIf(mask), _) => flags & mask != 0,
            Role::Call(Access::Read, _) | Role::Event => false,
        }
    }

    /// Whether it answers at once.
    #[must_use]
    pub const fn is_high(&self) -> bool {
        matches!(self.role, Role::Call(_, Rank::High))
    }
}

const fn call_row(
    number: i32,
    name: &'static str,
    api: &'static str,
    access: Access,
    rank: Rank,
    state: State,
) -> Procedure {
    Procedure {
        number,
        name,
        api,
        role: Role::Call(access, rank),
        state,
    }
}

const fn event_row(number: i32, name: &'static str, api: &'static str, state: State) -> Procedure {
    Procedure {
        number,
        name,
        api,
        role: Role::Event,
        state,
    }
}

/// Rows of procedures that are called.
macro_rules! call_table {
    ($($number:literal $name:ident $api:ident ($access:expr, $rank:expr) => $state:expr;)*) => {
        [$(call_row($number, stringify!($name), stringify!($api), $access, $rank, $state)),*]
    };
}

/// The rows of one file.
macro_rules! call_rows {
    ($($row:tt)*) => {
        pub(super) const ROWS: &[super::Procedure] = &super::call_table! { $($row)* };
        use super::call_row;
    };
}

/// Rows of events.
macro_rules! event_rows {
    ($($number:literal $name:ident $api:ident => $state:expr;)*) => {
        pub(super) const ROWS: &[super::Procedure] =
            &[$(super::event_row($number, stringify!($name), stringify!($api), $state)),*];
    };
}

use {call_rows, call_table, event_rows};

/// How many numbers the main program has.
const REMOTE: usize = 453;

static REMOTE_PROCEDURES: [Procedure; REMOTE] = table(&[
    connect::ROWS,
    domain::ROWS,
    state::ROWS,
    events::ROWS,
    storage::ROWS,
    network::ROWS,
    devices::ROWS,
]);
static QEMU_PROCEDURES: [Procedure; 7] = table(&[other::QEMU, other::QEMU_EVENTS]);
static LXC_PROCEDURES: [Procedure; 1] = table(&[other::LXC]);
static ADMIN_PROCEDURES: [Procedure; 19] = table(&[other::ADMIN_CALLS]);

/// The procedures of a program in the order of their numbers, which begin with 1 and leave none out.
/// None for [`Program::Keepalive`], whose two are no procedures.
#[must_use]
pub fn all(program: Program) -> &'static [Procedure] {
    match program {
        Program::Remote => &REMOTE_PROCEDURES,
        Program::Qemu => &QEMU_PROCEDURES,
        Program::Lxc => &LXC_PROCEDURES,
        Program::Admin => &ADMIN_PROCEDURES,
        Program::Keepalive => &[],
    }
}

/// The procedure with this number.
#[must_use]
pub fn find(program: Program, number: i32) -> Option<&'static Procedure> {
    let index = usize::try_from(number.checked_sub(1)?).ok()?;
    all(program).get(index)
}

/// Puts rows in the order of their numbers. Does not compile if a number from 1 to `N` is not there,
/// is there twice, or is beyond.
#[expect(
    clippy::indexing_slicing,
    clippy::cast_sign_loss,
    reason = "runs in the compiler alone, where a number beyond is an error of compilation"
)]
const fn table<const N: usize>(parts: &[&[Procedure]]) -> [Procedure; N] {
    let none = event_row(0, "", "", State::Served);
    let mut table = [none; N];
    let mut part = 0;
    while part < parts.len() {
        let mut row = 0;
        while row < parts[part].len() {
            let procedure = parts[part][row];
            let index = procedure.number as usize - 1;
            assert!(table[index].number == 0, "a number is there twice");
            table[index] = procedure;
            row += 1;
        }
        part += 1;
    }
    let mut index = 0;
    while index < N {
        assert!(table[index].number != 0, "a number is not there");
        index += 1;
    }
    table
}
