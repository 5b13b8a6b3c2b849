//! A connection itself: opening and closing it, who its client is, what can be asked of it, and the
//! hypervisor's capabilities.

use super::params::Params;
use crate::wire::call::calls;
use crate::wire::xdr::{CharList, List};

/// The most ways to say who one is.
const AUTH_MAX: usize = 20;

/// The most data in one step of SASL.
const SASL_MAX: usize = 65_536;

/// The most documents to find a CPU for.
const BASELINE_MAX: usize = 256;

calls! { Remote;
    /// The first call but those that may come before. The name is a URI without its transport and is
    /// never NULL from a C client, which sends "" for none; the only flag the server heeds is 1, read-only.
    ConnectOpen = 1 { name: Option<String>, flags: u32 } -> ();
    /// The last call.
    ConnectClose = 2 {} -> ();
    /// The hypervisor's name.
    ConnectGetType = 3 {} -> String;
    /// The hypervisor's version: a million for each major, a thousand for each minor.
    ConnectGetVersion = 4 {} -> u64;
    /// How many vCPUs a domain of this type may have.
    ConnectGetMaxVcpus = 5 { kind: Option<String> } -> i32;
    /// The document of what the host can do.
    ConnectGetCapabilities = 7 {} -> String;
    /// The host's name.
    ConnectGetHostname = 59 {} -> String;
    /// Whether the server has a feature: 1, or 0.
    ConnectSupportsFeature = 60 { feature: i32 } -> i32;
    /// How one may say who one is, best first: 0 not at all, 1 SASL, 2 polkit.
    AuthList = 66 {} -> List<i32, AUTH_MAX>;
    /// The mechanisms of SASL there are, comma separated.
    AuthSaslInit = 67 {} -> String;
    /// Begins with SASL. `nil` says that there is no data, not even empty.
    AuthSaslStart = 68 { mechanism: String, nil: bool, data: CharList<SASL_MAX> }
        => SaslAnswer { complete: bool, nil: bool, data: CharList<SASL_MAX> };
    /// Goes on with SASL.
    AuthSaslStep = 69 { nil: bool, data: CharList<SASL_MAX> } -> SaslAnswer;
    /// Asks polkit.
    AuthPolkit = 70 {} -> i32;
    /// The URI that the server would have chosen.
    ConnectGetUri = 110 {} -> String;
    /// A configuration of the hypervisor's own as a document.
    ConnectDomainXmlFromNative = 135 { format: String, config: String, flags: u32 } -> String;
    /// A document as a configuration of the hypervisor's own.
    ConnectDomainXmlToNative = 136 { format: String, xml: String, flags: u32 } -> String;
    /// Whether nobody can listen.
    ConnectIsSecure = 149 {} -> bool;
    /// The version of libvirt that the server has the calls of.
    ConnectGetLibVersion = 157 {} -> u64;
    /// How the host's CPU compares: -1 error, 0 incompatible, 1 the same, 2 it can do more.
    ConnectCompareCpu = 158 { xml: String, flags: u32 } -> i32;
    /// A CPU that all of these can be.
    ConnectBaselineCpu = 162 { cpus: List<String, BASELINE_MAX>, flags: u32 } -> String;
    /// The host's tables of itself, as a document.
    ConnectGetSysinfo = 203 { flags: u32 } -> String;
    /// The models of CPUs there are, or how many.
    ConnectGetCpuModelNames = 312 { arch: String, need_results: bool, flags: u32 }
        => CpuModelNames { models: List<String, 8_192>, ret: i32 };
    /// The document of what a domain can have, for what is given.
    ConnectGetDomainCapabilities = 342 {
        emulator: Option<String>,
        arch: Option<String>,
        machine: Option<String>,
        virt_type: Option<String>,
        flags: u32,
    } -> String;
    /// Asks to be told why the connection ends, when the server ends it.
    ConnectRegisterCloseCallback = 360 {} -> ();
    /// Asks no more.
    ConnectUnregisterCloseCallback = 361 {} -> ();
    /// How the CPU of such domains compares.
    ConnectCompareHypervisorCpu = 393 {
        emulator: Option<String>,
        arch: Option<String>,
        machine: Option<String>,
        virt_type: Option<String>,
        cpu: String,
        flags: u32,
    } -> i32;
    /// A CPU for such domains that all of these can be.
    ConnectBaselineHypervisorCpu = 394 {
        emulator: Option<String>,
        arch: Option<String>,
        machine: Option<String>,
        virt_type: Option<String>,
        cpus: List<String, BASELINE_MAX>,
        flags: u32,
    } -> String;
    /// Who is on the other side of the client, which is a proxy then.
    ConnectSetIdentity = 419 { params: Params<20>, flags: u32 } -> ();
}
