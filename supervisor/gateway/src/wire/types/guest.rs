//! What the guest itself is asked, through its agent or otherwise.

use super::handles::Domain;
use super::params::Params;
use crate::wire::call::{calls, record};
use crate::wire::xdr::List;

/// The most file systems, and disks of one.
const FILE_SYSTEMS_MAX: usize = 256;

/// The most interfaces, and addresses of one.
const INTERFACES_MAX: usize = 2_048;

record! {
    /// An address: of IPv4 (0) or IPv6 (1).
    #[derive(Eq)]
    IpAddress { kind: i32, address: String, prefix: u32 }
}

record! {
    /// An interface within a guest.
    #[derive(Eq)]
    GuestInterface {
        name: String,
        hwaddr: Option<String>,
        addresses: List<IpAddress, INTERFACES_MAX>,
    }
}

record! {
    /// A file system within a guest, and the disks it is on.
    #[derive(Eq)]
    FileSystem {
        mountpoint: String,
        name: String,
        fstype: String,
        aliases: List<String, FILE_SYSTEMS_MAX>,
    }
}

calls! { Remote;
    /// The guest's name.
    DomainGetHostname = 277 { domain: Domain, flags: u32 } -> String;
    /// Gives back what file systems do not use.
    DomainFstrim = 294 { domain: Domain, mountpoint: Option<String>, minimum: u64, flags: u32 } -> ();
    /// Sends a signal to a process.
    DomainSendProcessSignal = 295 { domain: Domain, pid: i64, signal: u32, flags: u32 } -> ();
    /// Holds writes to file systems; how many.
    DomainFsfreeze = 335 { domain: Domain, mountpoints: List<String, FILE_SYSTEMS_MAX>, flags: u32 } -> i32;
    /// Lets them go on; how many.
    DomainFsthaw = 336 { domain: Domain, mountpoints: List<String, FILE_SYSTEMS_MAX>, flags: u32 } -> i32;
    /// The guest's time.
    DomainGetTime = 337 { domain: Domain, flags: u32 } => GuestTime { seconds: i64, nseconds: u32 };
    /// Sets the guest's time.
    DomainSetTime = 338 { domain: Domain, seconds: i64, nseconds: u32, flags: u32 } -> ();
    /// The guest's file systems.
    DomainGetFsinfo = 349 { domain: Domain, flags: u32 }
        => FileSystems { info: List<FileSystem, FILE_SYSTEMS_MAX>, ret: u32 };
    /// The guest's addresses, by the leases (0), the agent (1) or the host's ARP table (2).
    DomainInterfaceAddresses = 353 { domain: Domain, source: u32, flags: u32 }
        -> List<GuestInterface, INTERFACES_MAX>;
    /// Sets a password.
    DomainSetUserPassword = 357 {
        domain: Domain,
        user: Option<String>,
        password: Option<String>,
        flags: u32,
    } -> ();
    /// The guest's vCPUs.
    DomainGetGuestVcpus = 371 { domain: Domain, flags: u32 } -> Params<64>;
    /// Takes the guest's vCPUs on line or off.
    DomainSetGuestVcpus = 372 { domain: Domain, cpumap: String, state: i32, flags: u32 } -> ();
    /// What the agent knows, of the kinds whose bits are set, or of all.
    DomainGetGuestInfo = 418 { domain: Domain, types: u32, flags: u32 } -> Params<2_048>;
    /// How long the agent may take, in s; -2 for ever, -1 as long as usual, 0 not at all.
    DomainAgentSetResponseTimeout = 420 { domain: Domain, timeout: i32, flags: u32 } -> i32;
    /// The keys by which a user may log in.
    DomainAuthorizedSshKeysGet = 424 { domain: Domain, user: String, flags: u32 } -> List<String, 2_048>;
    /// Sets, adds or removes such keys.
    DomainAuthorizedSshKeysSet = 425 {
        domain: Domain,
        user: String,
        keys: List<String, 2_048>,
        flags: u32,
    } -> ();
}
