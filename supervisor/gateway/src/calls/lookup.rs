//! From a number, a name or a UUID to a domain.

use std::sync::Arc;

use reeve_ipc::api::call::DomainRef;
use reeve_ipc::model::DomainUuid;
use uuid::Uuid;

use super::Context;
use super::context::handle;
use super::failure::{Code, Failure};
use super::list::is_there;
use crate::wire::types::handles::Domain;
use crate::wire::types::lifecycle::{DomainLookupById, DomainLookupByName, DomainLookupByUuid};

pub(super) async fn by_id(
    context: Arc<Context>,
    call: DomainLookupById,
) -> Result<Domain, Failure> {
    let what = || format!("no domain with matching id {}", call.id);
    let id = u32::try_from(call.id).map_err(|_| Failure::new(Code::NoDomain, what()))?;
    find(&context, DomainRef::Id(id), what).await
}

pub(super) async fn by_name(
    context: Arc<Context>,
    call: DomainLookupByName,
) -> Result<Domain, Failure> {
    let what = || format!("no domain with matching name '{}'", call.name);
    // No domain has a name that none may have.
    let name = call.name.parse();
    let name = name.map_err(|_| Failure::new(Code::NoDomain, what()))?;
    find(&context, DomainRef::Name(name), what).await
}

pub(super) async fn by_uuid(
    context: Arc<Context>,
    call: DomainLookupByUuid,
) -> Result<Domain, Failure> {
    let uuid = Uuid::from_bytes(call.uuid);
    let what = || format!("no domain with matching uuid '{uuid}'");
    find(&context, DomainRef::Uuid(DomainUuid(uuid)), what).await
}

async fn find(
    context: &Context,
    domain: DomainRef,
    what: impl FnOnce() -> String,
) -> Result<Domain, Failure> {
    match context.find(domain).await {
        Ok(details) if is_there(&details.summary) => Ok(handle(&details.summary)),
        Ok(_) => Err(Failure::new(Code::NoDomain, what())),
        Err(failure) if failure.code == Code::NoDomain => Err(Failure::new(Code::NoDomain, what())),
        Err(failure) => Err(failure),
    }
}
