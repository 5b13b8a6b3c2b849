//! Domains come, go and change state: lists and look-ups, define, create, start, suspend, stop, undefine, and
//! what a definition says of itself.

use super::DOMAINS_MAX;
use super::handles::{Domain, Uuid};
use crate::wire::call::calls;
use crate::wire::xdr::List;

calls! { Remote;
    /// Starts it. Says nothing: a client that wants its id looks it up.
    DomainCreate = 9 { domain: Domain } -> ();
    /// Makes a domain and starts it.
    DomainCreateXml = 10 { xml: String, flags: u32 } -> Domain;
    /// Defines a domain, or a running one anew.
    DomainDefineXml = 11 { xml: String } -> Domain;
    /// Ends it now.
    DomainDestroy = 12 { domain: Domain } -> ();
    /// Names of those that do not run, at most so many.
    ConnectListDefinedDomains = 21 { maxnames: i32 } -> List<String, DOMAINS_MAX>;
    /// One that runs, by its id.
    DomainLookupById = 22 { id: i32 } -> Domain;
    /// One by its name.
    DomainLookupByName = 23 { name: String } -> Domain;
    /// One by its UUID.
    DomainLookupByUuid = 24 { uuid: Uuid } -> Domain;
    /// How many do not run.
    ConnectNumOfDefinedDomains = 25 {} -> i32;
    /// Asks the guest to start anew.
    DomainReboot = 27 { domain: Domain, flags: u32 } -> ();
    /// Its vCPUs go on.
    DomainResume = 28 { domain: Domain } -> ();
    /// Whether it is started with the host.
    DomainSetAutostart = 29 { domain: Domain, autostart: bool } -> ();
    /// Asks the guest to end.
    DomainShutdown = 33 { domain: Domain } -> ();
    /// Its vCPUs stop.
    DomainSuspend = 34 { domain: Domain } -> ();
    /// Forgets its definition.
    DomainUndefine = 35 { domain: Domain } -> ();
    /// Ids of those that run, at most so many.
    ConnectListDomains = 37 { maxids: i32 } -> List<i32, DOMAINS_MAX>;
    /// How many run.
    ConnectNumOfDomains = 51 {} -> i32;
    /// Starts it: 1 paused, 2 until the connection ends, 4 without its saved state, 8 forced.
    DomainCreateWithFlags = 196 { domain: Domain, flags: u32 } -> Domain;
    /// Forgets its definition: 1 with its saved state, 2 with its snapshots, 4 with its NVRAM, 8 without.
    DomainUndefineFlags = 231 { domain: Domain, flags: u32 } -> ();
    /// Ends it now, or (1) only if that hurts nothing.
    DomainDestroyFlags = 234 { domain: Domain, flags: u32 } -> ();
    /// Presses its reset button.
    DomainReset = 245 { domain: Domain, flags: u32 } -> ();
    /// Asks the guest to end: 0 in any way, 1 ACPI, 2 agent, 4 init, 8 signal, 16 paravirtual.
    DomainShutdownFlags = 258 { domain: Domain, flags: u32 } -> ();
    /// Puts the guest to sleep.
    DomainPmSuspendForDuration = 261 { domain: Domain, target: u32, duration: u64, flags: u32 } -> ();
    /// Sets (or, without text, removes) the description (0), the title (1), or an element of a namespace (2).
    DomainSetMetadata = 264 {
        domain: Domain,
        kind: i32,
        metadata: Option<String>,
        key: Option<String>,
        uri: Option<String>,
        flags: u32,
    } -> ();
    /// The description (0), the title (1), or an element of a namespace (2).
    DomainGetMetadata = 265 { domain: Domain, kind: i32, uri: Option<String>, flags: u32 } -> String;
    /// Wakes the guest.
    DomainPmWakeup = 267 { domain: Domain, flags: u32 } -> ();
    /// All domains that the flags leave, or how many. The flags are pairs; none of a pair, or both, leave all.
    ConnectListAllDomains = 273 { need_results: bool, flags: u32 }
        => DomainList { domains: List<Domain, DOMAINS_MAX>, ret: u32 };
    /// Makes a domain and starts it, with files that came with the call.
    DomainCreateXmlWithFiles = 309 { xml: String, flags: u32 } -> Domain;
    /// Starts it, with files that came with the call.
    DomainCreateWithFiles = 310 { domain: Domain, flags: u32 } -> Domain;
    /// Defines a domain; 1: only if the document is valid.
    DomainDefineXmlFlags = 350 { xml: String, flags: u32 } -> Domain;
    /// Gives it a name.
    DomainRename = 358 { domain: Domain, name: Option<String>, flags: u32 } -> i32;
    /// What is done (`action`) on power-off (0), reboot (1) or crash (2).
    DomainSetLifecycleAction = 390 { domain: Domain, kind: u32, action: u32, flags: u32 } -> ();
}
