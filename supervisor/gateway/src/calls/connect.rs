//! Opening a connection, and what it is then.

use std::sync::Arc;

use reeve_ipc::api::call::{HostInfoGet, TestHypervisorUse};
use reeve_ipc::api::client::Client;
use reeve_ipc::api::host::{HostDriver, HostInfo};
use reeve_ipc::changes::Changes;

use super::Context;
use super::failure::{Code, Failure, Origin, invalid_argument};
use crate::wire::types::connect as wire;
use crate::wire::xdr::List;

/// The client answers keepalives, and is to be asked them.
pub(crate) const KEEPALIVE: i32 = 10;
/// The version of libvirt whose daemon this one is like: 9.0.0.
const LIBRARY_VERSION: u64 = 9_000_000;
/// The version of QEMU that a client of it may take this hypervisor for: what it looks for in QEMU's
/// newer versions is here or is refused by name.
const QEMU_VERSION: u64 = 9_000_000;
/// That of libvirt's own test hypervisor.
const TEST_VERSION: u64 = 2;
/// A URI of the hypervisor that only looks like one.
const TEST_URI: &str = "test:///default";
/// How URIs of it begin, with a path behind.
const TEST_SCHEME: &str = "test:///";
/// The URI that an empty one means.
const DEFAULT_URI: &str = "qemu:///system";
/// URIs that are served whatever runs domains here.
const URIS: [&str; 3] = [DEFAULT_URI, "qemu:///session", "reeve:///system"];

/// Whether a feature is there (libvirt `VIR_DRV_FEATURE_*`): typed parameters with text, keepalive, events and
/// close callbacks of a connection's own, and the order of arguments in network updates. There is no migration
/// yet, no call takes descriptors, and what a newer client asks for is not there either.
pub(crate) const fn supports(feature: i32) -> bool {
    matches!(feature, 9 | KEEPALIVE | 14 | 15 | 16)
}

/// How a client may say who it is: the supervisor knows already (unix(7), `SO_PEERCRED`).
pub(crate) fn authentications() -> List<i32, 20> {
    const NONE: i32 = 0;
    List(vec![NONE])
}

/// Opens a connection: by which URI, and how.
pub(crate) async fn open(
    api: Client,
    changes: Arc<Changes>,
    call: wire::ConnectOpen,
    read_only: bool,
) -> Result<Context, Failure> {
    const READ_ONLY: u32 = 1;
    let name = call.name.unwrap_or_default();
    let read_only = read_only || call.flags & READ_ONLY != 0;
    let wanted = name.split('?').next().unwrap_or_default();
    let mut context = Context::new(api, changes, wanted.to_owned(), read_only);
    if URIS.contains(&wanted) {
        return Ok(context);
    }
    match wanted {
        "" => {
            let uri = match context.call(HostInfoGet {}).await?.driver {
                HostDriver::Test => TEST_URI,
                HostDriver::Kvm => DEFAULT_URI,
            };
            uri.clone_into(&mut context.uri);
            Ok(context)
        }
        // Before anything else is asked.
        TEST_URI => match context.call(TestHypervisorUse {}).await {
            Ok(()) => Ok(context),
            // It is turned off.
            Err(failure) if failure.code == Code::OperationUnsupported => {
                Err(Failure::of(Origin::None, Code::NoConnect, name))
            }
            Err(failure) => Err(failure),
        },
        // In the words of libvirt's own.
        TEST_SCHEME => {
            let why = "testOpen: supply a path or use test:///default";
            Err(Failure::of(Origin::Test, Code::InvalidArgument, why))
        }
        _ if wanted.starts_with(TEST_SCHEME) => {
            let why = format!("{wanted}: no file is read for a client; use {TEST_URI}");
            Err(Failure::of(Origin::None, Code::NoConnect, why))
        }
        _ => Err(Failure::of(Origin::None, Code::NoConnect, name)),
    }
}

pub(super) fn is_test(context: &Context) -> bool {
    context.uri == TEST_URI
}

pub(super) async fn kind(
    context: Arc<Context>,
    _: wire::ConnectGetType,
) -> Result<String, Failure> {
    let kind = if is_test(&context) { "Test" } else { "QEMU" };
    Ok(kind.to_owned())
}

pub(super) async fn version(
    context: Arc<Context>,
    _: wire::ConnectGetVersion,
) -> Result<u64, Failure> {
    Ok(match is_test(&context) {
        true => TEST_VERSION,
        false => QEMU_VERSION,
    })
}

pub(super) async fn library_version(
    _: Arc<Context>,
    _: wire::ConnectGetLibVersion,
) -> Result<u64, Failure> {
    Ok(LIBRARY_VERSION)
}

pub(super) async fn uri(context: Arc<Context>, _: wire::ConnectGetUri) -> Result<String, Failure> {
    Ok(context.uri.clone())
}

/// The socket is one of this host.
pub(super) async fn is_secure(_: Arc<Context>, _: wire::ConnectIsSecure) -> Result<bool, Failure> {
    Ok(true)
}

/// What the host is.
pub(super) async fn host(context: &Context) -> Result<Box<HostInfo>, Failure> {
    context.call(HostInfoGet {}).await
}

pub(super) async fn hostname(
    context: Arc<Context>,
    _: wire::ConnectGetHostname,
) -> Result<String, Failure> {
    Ok(host(&context).await?.hostname)
}

pub(super) async fn max_vcpus(
    context: Arc<Context>,
    call: wire::ConnectGetMaxVcpus,
) -> Result<i32, Failure> {
    let kind = call.kind.unwrap_or_default();
    let known = ["", "kvm", "qemu"];
    // The test hypervisor asks for no type, as libvirt's.
    if !is_test(&context) && !known.iter().any(|known| kind.eq_ignore_ascii_case(known)) {
        return Err(invalid_argument(format!("unknown type '{kind}'")));
    }
    let most = host(&context).await?.max_vcpus;
    Ok(i32::try_from(most).unwrap_or(i32::MAX))
}
