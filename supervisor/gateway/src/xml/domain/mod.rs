//! `<domain>`: to the model and back.
//!
//! What the model holds is printed as libvirt prints it, so that defining what was dumped changes nothing; what
//! is only kept ([`super::kept`]) stands where it stood.

mod cpu;
mod format;
pub(super) mod metadata;
mod parse;
mod tune;

use std::path::Path;

use reeve_ipc::model::{Domain, DomainUuid, MemorySize};
use reeve_ipc::spec::PciSlot;

pub use self::cpu::topology_vcpus;
pub use self::format::format;
pub use self::metadata::{
    element as metadata_element, is_of as is_metadata_of, without as metadata_without,
};
pub(super) use self::parse::ALIAS as NEWEST_MACHINE;
pub use self::parse::parse;
use super::kept::Accepted;

/// What runs a domain, by its path: what a document says of it (`<emulator>`) where nothing else is kept.
pub const EMULATOR: &str = "/usr/libexec/reeve/reeve-worker";

/// What runs the domains of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Hypervisor {
    /// Workers, with KVM.
    #[default]
    Kvm,
    /// Nothing: the test hypervisor.
    Test,
}

impl Hypervisor {
    /// The type of its domains.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Test => "test",
        }
    }
}

/// What a document of a domain does not say itself.
#[derive(Debug, Clone, Copy)]
pub struct Parse<'a> {
    /// The UUID of a domain whose document has none.
    pub uuid: DomainUuid,
    /// Where the sockets of devices are whose path is not said; absolute.
    pub sockets: &'a Path,
    /// Of which type its domains are.
    pub hypervisor: Hypervisor,
}

/// What a document says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// The domain. Neither completed nor accepted yet ([`Domain::complete`], [`Domain::accept`]): the supervisor
    /// does both.
    pub domain: Domain,
    /// What was taken and is not provided, element by element: for a log.
    pub accepted: Vec<Accepted>,
}

/// How a domain is printed.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// What is known of it while it runs; `None` for its definition (`VIR_DOMAIN_XML_INACTIVE`).
    pub live: Option<Live<'a>>,
    /// Secrets are wanted too (`VIR_DOMAIN_XML_SECURE`). No document has any: whoever is to have one is refused
    /// where it is set.
    pub secure: bool,
    /// For another host (`VIR_DOMAIN_XML_MIGRATABLE`): as its definition.
    pub migratable: bool,
    /// As [`Parse::sockets`]: a path there that is not said is not printed either.
    pub sockets: &'a Path,
    /// As [`Parse::hypervisor`].
    pub hypervisor: Hypervisor,
}

/// What is known of a domain that runs.
#[derive(Debug, Clone, Copy)]
pub struct Live<'a> {
    /// Its number.
    pub id: u32,
    /// The terminal of its serial console.
    pub pty: Option<&'a str>,
    /// The memory that it has now.
    pub current_memory: Option<MemorySize>,
    /// What of the memory that can be plugged in is.
    pub plugged: Option<Plugged>,
    /// The names of taps, by the places of their devices.
    pub taps: &'a [(PciSlot, String)],
    /// Whether its guest has a channel open, by the channels' names.
    pub channels: &'a [(String, bool)],
}

impl Live<'_> {
    /// Whether its guest has the channel of that name open, where that is known.
    #[must_use]
    pub fn is_open(&self, channel: &str) -> Option<bool> {
        let mut channels = self.channels.iter();
        let found = channels.find(|(name, _)| name == channel);
        found.map(|(_, open)| *open)
    }

    /// The tap of the device at that place.
    #[must_use]
    pub fn tap(&self, slot: PciSlot) -> Option<&str> {
        let mut taps = self.taps.iter();
        let found = taps.find(|(of, _)| *of == slot);
        found.map(|(_, name)| name.as_str())
    }
}

/// How much of a memory device is plugged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plugged {
    /// What the guest is asked to take.
    pub requested: MemorySize,
    /// What it has taken.
    pub current: MemorySize,
}
