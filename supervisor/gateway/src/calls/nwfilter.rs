//! Network filters, and which interfaces they are on.
//!
//! A filter is found by the UUID of its handle, a binding by the name of its interface. What is wrong is said by
//! libvirt's driver of network filters. The test hypervisor has none, as libvirt's test driver, and refuses the calls
//! as one that nobody serves.

use std::sync::Arc;

use reeve_ipc::api::call::{
    Call as ApiCall, NwfilterBindingList, NwfilterDefine, NwfilterGet, NwfilterList, NwfilterRef,
    NwfilterUndefine,
};
use reeve_ipc::api::nwfilter::{NwfilterBinding, NwfilterSummary};
use reeve_ipc::model::{InterfaceName, Nwfilter, NwfilterName, NwfilterUuid};
use uuid::Uuid;

use super::Context;
use super::define::drawn;
use super::failure::{Code, Failure, Origin, said_by};
use super::list::{count, most};
use crate::wire::call::Call;
use crate::wire::frame::Program;
use crate::wire::procedures;
use crate::wire::types::OBJECTS_MAX;
use crate::wire::types::handles;
use crate::wire::types::network as wire;
use crate::wire::xdr::List;
use crate::xml::{self, XmlErrorKind};

/// A document is only taken if it is valid (libvirt `VIR_NWFILTER_DEFINE_VALIDATE`).
const VALIDATE: u32 = 1;

fn as_nwfilter(failure: Failure) -> Failure {
    said_by(Origin::Nwfilter, failure)
}

fn check_flags(flags: u32, known: u32, function: &str) -> Result<(), Failure> {
    super::failure::check_flags(flags, known, function).map_err(as_nwfilter)
}

/// Calls the supervisor for a procedure.
async fn call<P: Call, C: ApiCall + Clone>(
    context: &Context,
    call: C,
) -> Result<C::Answer, Failure> {
    context.call(call).await.map_err(|failure| {
        let procedure = procedures::find(Program::Remote, P::NUMBER);
        match (failure.code, procedure) {
            (Code::OperationUnsupported, Some(procedure)) => Failure::not_supported(procedure),
            _ => as_nwfilter(failure),
        }
    })
}

fn handle(filter: &NwfilterSummary) -> handles::Nwfilter {
    handles::Nwfilter {
        name: filter.name.as_str().to_owned(),
        uuid: *filter.uuid.0.as_bytes(),
    }
}

const fn reference(filter: &handles::Nwfilter) -> NwfilterRef {
    NwfilterRef::Uuid(NwfilterUuid(Uuid::from_bytes(filter.uuid)))
}

/// What libvirt says of a handle whose filter is not there.
fn absent(filter: &handles::Nwfilter) -> Failure {
    let (uuid, name) = (Uuid::from_bytes(filter.uuid), &filter.name);
    let why = format!("no nwfilter with matching uuid '{uuid}' ({name})");
    Failure::not_found(Code::NoNwfilter, why)
}

/// Every filter, by name.
async fn filters<P: Call>(context: &Context) -> Result<Vec<NwfilterSummary>, Failure> {
    let mut all: Vec<NwfilterSummary> = Vec::new();
    loop {
        let after: Option<NwfilterName> = all.last().map(|last| last.name.clone());
        let page = call::<P, _>(context, NwfilterList { after }).await?;
        let more = page.more && !page.filters.is_empty();
        all.extend(page.filters);
        if !more {
            return Ok(all);
        }
    }
}

pub(super) async fn how_many(
    context: Arc<Context>,
    _: wire::ConnectNumOfNwfilters,
) -> Result<i32, Failure> {
    let all = filters::<wire::ConnectNumOfNwfilters>(&context).await?;
    Ok(count(all.len()))
}

pub(super) async fn names(
    context: Arc<Context>,
    of: wire::ConnectListNwfilters,
) -> Result<List<String, OBJECTS_MAX>, Failure> {
    let all = filters::<wire::ConnectListNwfilters>(&context).await?;
    let names = all.iter().map(|filter| filter.name.as_str().to_owned());
    Ok(names.take(most(of.maxnames).min(OBJECTS_MAX)).collect())
}

pub(super) async fn all(
    context: Arc<Context>,
    of: wire::ConnectListAllNwfilters,
) -> Result<wire::NwfilterList, Failure> {
    check_flags(of.flags, 0, "virConnectListAllNWFilters")?;
    let found = filters::<wire::ConnectListAllNwfilters>(&context).await?;
    let ret = u32::try_from(found.len()).unwrap_or(u32::MAX);
    let filters = match of.need_results {
        true => found.iter().map(handle).collect(),
        false => List::default(),
    };
    Ok(wire::NwfilterList { filters, ret })
}

/// The filter of that reference; there is none by what was asked for otherwise.
async fn find<P: Call>(
    context: &Context,
    filter: NwfilterRef,
    absent: impl FnOnce() -> Failure,
) -> Result<Nwfilter, Failure> {
    match call::<P, _>(context, NwfilterGet { filter }).await {
        Ok(filter) => Ok(*filter),
        Err(failure) if failure.code == Code::NoNwfilter => Err(absent()),
        Err(failure) => Err(failure),
    }
}

fn handle_of(filter: &Nwfilter) -> handles::Nwfilter {
    handles::Nwfilter {
        name: filter.name.as_str().to_owned(),
        uuid: *filter.uuid.0.as_bytes(),
    }
}

pub(super) async fn by_name(
    context: Arc<Context>,
    of: wire::NwfilterLookupByName,
) -> Result<handles::Nwfilter, Failure> {
    let absent = || {
        let why = format!("no nwfilter with matching name '{}'", of.name);
        Failure::not_found(Code::NoNwfilter, why)
    };
    // No filter has a name that none may have.
    let reference = NwfilterRef::Name(of.name.parse().map_err(|_| absent())?);
    let found = find::<wire::NwfilterLookupByName>(&context, reference, absent).await?;
    Ok(handle_of(&found))
}

pub(super) async fn by_uuid(
    context: Arc<Context>,
    of: wire::NwfilterLookupByUuid,
) -> Result<handles::Nwfilter, Failure> {
    let uuid = Uuid::from_bytes(of.uuid);
    let why = format!("no nwfilter with matching uuid '{uuid}'");
    let absent = || Failure::not_found(Code::NoNwfilter, why);
    let reference = NwfilterRef::Uuid(NwfilterUuid(uuid));
    let found = find::<wire::NwfilterLookupByUuid>(&context, reference, absent).await?;
    Ok(handle_of(&found))
}

pub(super) async fn xml_desc(
    context: Arc<Context>,
    of: wire::NwfilterGetXmlDesc,
) -> Result<String, Failure> {
    check_flags(of.flags, 0, "virNWFilterGetXMLDesc")?;
    let absent = || absent(&of.filter);
    let filter = find::<wire::NwfilterGetXmlDesc>(&context, reference(&of.filter), absent).await?;
    Ok(xml::nwfilter::format_nwfilter(&filter))
}

async fn define_with<P: Call>(
    context: &Context,
    text: &str,
    flags: u32,
) -> Result<handles::Nwfilter, Failure> {
    let uuid = NwfilterUuid(drawn()?);
    let filter = xml::nwfilter::parse_nwfilter(text, uuid).map_err(|error| match error.kind {
        XmlErrorKind::Invalid if flags & VALIDATE != 0 => {
            Failure::new(Code::XmlInvalidSchema, error.message)
        }
        _ => error.into(),
    });
    let define = NwfilterDefine {
        filter: Box::new(filter.map_err(as_nwfilter)?),
        only_new: false,
    };
    let defined = call::<P, _>(context, define).await.map_err(|failure| {
        // As libvirt says that filters would refer to one another, and that one cannot be put in its place.
        match failure.code {
            Code::OperationInvalid => Failure {
                code: Code::OperationFailed,
                ..failure
            },
            _ => failure,
        }
    })?;
    Ok(handle(&defined))
}

pub(super) async fn define(
    context: Arc<Context>,
    of: wire::NwfilterDefineXml,
) -> Result<handles::Nwfilter, Failure> {
    define_with::<wire::NwfilterDefineXml>(&context, &of.xml, 0).await
}

pub(super) async fn define_flags(
    context: Arc<Context>,
    of: wire::NwfilterDefineXmlFlags,
) -> Result<handles::Nwfilter, Failure> {
    check_flags(of.flags, VALIDATE, "virNWFilterDefineXMLFlags")?;
    define_with::<wire::NwfilterDefineXmlFlags>(&context, &of.xml, of.flags).await
}

pub(super) async fn undefine(
    context: Arc<Context>,
    of: wire::NwfilterUndefine,
) -> Result<(), Failure> {
    let filter = reference(&of.filter);
    let undefined = call::<wire::NwfilterUndefine, _>(&context, NwfilterUndefine { filter }).await;
    undefined.map_err(|failure| match failure.code {
        Code::NoNwfilter => absent(&of.filter),
        _ => failure,
    })
}

/// Every interface that has a filter, by name.
async fn bound<P: Call>(context: &Context) -> Result<Vec<NwfilterBinding>, Failure> {
    let mut all: Vec<NwfilterBinding> = Vec::new();
    loop {
        let after: Option<InterfaceName> = all.last().map(|last| last.interface.clone());
        let page = call::<P, _>(context, NwfilterBindingList { after }).await?;
        let more = page.more && !page.bindings.is_empty();
        all.extend(page.bindings);
        if !more {
            return Ok(all);
        }
    }
}

fn binding_handle(binding: &NwfilterBinding) -> handles::NwfilterBinding {
    handles::NwfilterBinding {
        port_device: binding.interface.as_str().to_owned(),
        filter: binding.filter.filter.as_str().to_owned(),
    }
}

async fn find_bound<P: Call>(context: &Context, name: &str) -> Result<NwfilterBinding, Failure> {
    let mut all = bound::<P>(context).await?.into_iter();
    let found = all.find(|binding| binding.interface.as_str() == name);
    found.ok_or_else(|| {
        let why = format!("no nwfilter binding for port dev '{name}'");
        Failure::not_found(Code::NoNwfilterBinding, why)
    })
}

pub(super) async fn bindings(
    context: Arc<Context>,
    of: wire::ConnectListAllNwfilterBindings,
) -> Result<wire::NwfilterBindingList, Failure> {
    check_flags(of.flags, 0, "virConnectListAllNWFilterBindings")?;
    let found = bound::<wire::ConnectListAllNwfilterBindings>(&context).await?;
    let ret = u32::try_from(found.len()).unwrap_or(u32::MAX);
    let bindings = match of.need_results {
        true => found.iter().map(binding_handle).collect(),
        false => List::default(),
    };
    Ok(wire::NwfilterBindingList { bindings, ret })
}

pub(super) async fn binding(
    context: Arc<Context>,
    of: wire::NwfilterBindingLookupByPortDev,
) -> Result<handles::NwfilterBinding, Failure> {
    let found = find_bound::<wire::NwfilterBindingLookupByPortDev>(&context, &of.name).await?;
    Ok(binding_handle(&found))
}

pub(super) async fn binding_xml_desc(
    context: Arc<Context>,
    of: wire::NwfilterBindingGetXmlDesc,
) -> Result<String, Failure> {
    check_flags(of.flags, 0, "virNWFilterBindingGetXMLDesc")?;
    let name = &of.binding.port_device;
    let found = find_bound::<wire::NwfilterBindingGetXmlDesc>(&context, name).await?;
    Ok(xml::nwfilter::format_binding(&found))
}
