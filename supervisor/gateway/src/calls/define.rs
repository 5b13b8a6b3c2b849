//! Documents of domains: defined, created, printed.

use std::sync::Arc;

use reeve_ipc::api::call::{DomainCreate, DomainDefine, DomainDefinitionGet};
use reeve_ipc::api::figures::FigureGroups;
use reeve_ipc::api::view::{DeviceStats, DomainSummary};
use reeve_ipc::device::DeviceFigures;
use reeve_ipc::model::{DeviceName, Domain as Definition, DomainUuid, MemorySize};
use reeve_ipc::spec::PciSlot;
use uuid::Uuid;

use super::Context;
use super::context::{handle, reference};
use super::failure::{Code, Failure, Origin, check_flags};
use super::lifecycle::start;
use super::storage::volumes;
use crate::wire::types::handles::Domain;
use crate::wire::types::inspect::DomainGetXmlDesc;
use crate::wire::types::lifecycle as wire;
use crate::xml::domain::{Hypervisor, Live, Parse, Parsed, Plugged, View};
use crate::xml::{self, XmlErrorKind};

/// Of which type a connection's domains are.
pub(super) fn hypervisor(context: &Context) -> Hypervisor {
    match super::connect::is_test(context) {
        true => Hypervisor::Test,
        false => Hypervisor::Kvm,
    }
}

/// A UUID for a domain whose document has none. By the system call itself: the crate `getrandom` looks for it by
/// `dlsym`, does not find it in a static binary, and opens a file, which nobody can here.
pub(super) fn drawn() -> Result<Uuid, Failure> {
    let mut bytes = [0; 16];
    let failed = |errno: rustix::io::Errno| {
        Failure::new(Code::InternalError, format!("no random number: {errno}"))
    };
    let length = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    match length.map_err(failed)? {
        16 => Ok(uuid::Builder::from_random_bytes(bytes).into_uuid()),
        _ => Err(failed(rustix::io::Errno::IO)),
    }
}

/// What a document says. Strict in any case: whether a client asks for its validation makes no difference but
/// in the code of a refusal.
async fn parse(context: &Context, text: &str, validate: bool) -> Result<Box<Definition>, Failure> {
    let text = &*volumes::in_documents(context, text).await?;
    let how = Parse {
        uuid: DomainUuid(drawn()?),
        sockets: context.sockets().await?,
        hypervisor: hypervisor(context),
    };
    let Parsed { domain, accepted } =
        xml::domain::parse(text, &how).map_err(|error| match error.kind {
            XmlErrorKind::Invalid if validate => {
                Failure::new(Code::XmlInvalidSchema, error.message)
            }
            _ => error.into(),
        })?;
    for element in accepted {
        let (path, why) = (&element.path, element.reason);
        tracing::info!(domain = %domain.name, path, "taken and not provided: {why}");
    }
    Ok(Box::new(domain))
}

async fn define(context: &Context, text: &str, validate: bool) -> Result<Domain, Failure> {
    let definition = parse(context, text, validate).await?;
    let define = DomainDefine {
        definition,
        only_new: false,
    };
    let defined = context.call(define).await.map_err(of_document);
    Ok(handle(&defined?))
}

/// The supervisor's refusal of a definition, which here is a document's.
fn of_document(failure: Failure) -> Failure {
    match failure.code {
        Code::InvalidArgument => Failure::unsupported_configuration(failure.detail),
        _ => failure,
    }
}

pub(super) async fn define_xml(
    context: Arc<Context>,
    call: wire::DomainDefineXml,
) -> Result<Domain, Failure> {
    define(&context, &call.xml, false).await
}

pub(super) async fn define_xml_flags(
    context: Arc<Context>,
    call: wire::DomainDefineXmlFlags,
) -> Result<Domain, Failure> {
    const VALIDATE: u32 = 1;
    check_flags(call.flags, VALIDATE, "virDomainDefineXMLFlags")?;
    define(&context, &call.xml, call.flags & VALIDATE != 0).await
}

pub(super) async fn create_xml(
    context: Arc<Context>,
    call: wire::DomainCreateXml,
) -> Result<Domain, Failure> {
    let known = start::PAUSED | start::AUTO_DESTROY | start::VALIDATE | start::RESET_NVRAM;
    let options = start::options(call.flags, known, "virDomainCreateXML")?;
    let validate = call.flags & start::VALIDATE != 0;
    let definition = parse(&context, &call.xml, validate).await?;
    let name = definition.name.clone();
    let create = DomainCreate {
        definition,
        options,
    };
    let created = context.call(create).await;
    let created = created.map_err(|failure| match failure.code {
        Code::OperationInvalid => Failure::invalid(format!("domain '{name}' is already active")),
        _ => of_document(start::refused(failure)),
    });
    Ok(handle(&created?))
}

/// How a document is printed (libvirt `virDomainXMLFlags`).
mod print {
    pub(super) const SECURE: u32 = 1;
    pub(super) const INACTIVE: u32 = 2;
    /// The CPU is printed as it is in any case.
    pub(super) const UPDATE_CPU: u32 = 4;
    pub(super) const MIGRATABLE: u32 = 8;
}

pub(super) async fn xml_desc(
    context: Arc<Context>,
    call: DomainGetXmlDesc,
) -> Result<String, Failure> {
    let known = print::SECURE | print::INACTIVE | print::UPDATE_CPU | print::MIGRATABLE;
    check_flags(call.flags, known, "virDomainGetXMLDesc")?;
    let secure = call.flags & print::SECURE != 0;
    let migratable = call.flags & print::MIGRATABLE != 0;
    if context.read_only && (secure || migratable) {
        let why = "virDomainGetXMLDesc with secure flag";
        return Err(Failure::of(Origin::Domain, Code::OperationDenied, why));
    }
    let summary = context.summary(&call.domain).await?;
    let active = summary.state.is_active();
    let live = active && call.flags & print::INACTIVE == 0;
    // Of a transient domain there is only the one.
    let persistent = active && !live && summary.persistent;
    let get = DomainDefinitionGet {
        domain: reference(&call.domain),
        persistent,
    };
    let sockets = context.sockets().await?;
    let definition = context.of(&call.domain, get).await?.domain;
    let devices = match live {
        true => figures(&context, &call.domain).await,
        false => Vec::new(),
    };
    let (taps, channels) = (taps(&devices), channels(&devices));
    let view = View {
        live: live
            .then(|| alive(&summary, &devices, &taps, &channels))
            .flatten(),
        secure,
        migratable,
        sockets,
        hypervisor: hypervisor(&context),
    };
    Ok(xml::domain::format(&definition, &view))
}

/// The devices, with what the worker says of them where it answers. No guest is asked.
async fn figures(context: &Context, of: &Domain) -> Vec<DeviceStats> {
    let groups = FigureGroups {
        devices: true,
        ..FigureGroups::default()
    };
    let figures = context.figures(of, groups).await;
    figures.map_or_else(|_| Vec::new(), |figures| figures.devices)
}

/// The names of taps, by the places of their devices.
fn taps(devices: &[DeviceStats]) -> Vec<(PciSlot, String)> {
    let nics = devices
        .iter()
        .filter(|device| matches!(device.device, DeviceName::Nic(_)));
    nics.filter_map(|device| Some((device.slot, device.host.clone()?)))
        .collect()
}

/// Whether the guest has each channel open.
fn channels(devices: &[DeviceStats]) -> Vec<(String, bool)> {
    let channels = devices
        .iter()
        .filter_map(|device| match (&device.device, &device.figures) {
            (DeviceName::Channel(name), DeviceFigures::Port(port)) => {
                Some((name.clone(), port.guest_open))
            }
            _ => None,
        });
    channels.collect()
}

/// What a document says of a domain while it runs.
fn alive<'a>(
    summary: &DomainSummary,
    devices: &[DeviceStats],
    taps: &'a [(PciSlot, String)],
    channels: &'a [(String, bool)],
) -> Option<Live<'a>> {
    let plugged = devices.iter().find_map(|device| match device.figures {
        DeviceFigures::Memory(figures) => Some(Plugged {
            requested: MemorySize(figures.requested_bytes),
            current: MemorySize(figures.plugged_bytes),
        }),
        _ => None,
    });
    Some(Live {
        id: summary.id?,
        pty: None,
        current_memory: Some(summary.current_memory),
        plugged,
        taps,
        channels,
    })
}
