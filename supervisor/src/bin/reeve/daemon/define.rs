//! Definitions: from options or files to the daemon, and back.

use std::path::Path;

use reeve_ipc::api::blocking::{CallError, Connection};
use reeve_ipc::api::call::{
    DomainAutostartSet, DomainCreate, DomainDefine, DomainDefinitionGet, DomainGet, DomainRef,
};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::api::view::DomainSummary;
use reeve_ipc::model::{Domain, DomainUuid};

use super::args::{CreateArgs, DefineArgs, DefinitionArgs, ExportArgs, ImportArgs};
use super::file::{self, DefinitionFile};
use super::life::{options, stay};
use super::show::summary_json;
use super::{CommandError, Output, json_text, print};
use crate::args::new_uuid;

/// The definition that the arguments say; one without a UUID keeps that of its name, or gets a new
/// one.
fn definition(
    connection: &mut Connection,
    args: &DefinitionArgs,
) -> Result<(Domain, Option<u32>), CommandError> {
    let file = match (&args.file, &args.name) {
        (Some(path), _) => file::read(path)?,
        (None, Some(name)) => {
            let mut file = DefinitionFile::from_options(name.clone(), &args.guest);
            file.anchor(Path::new(""))?;
            file
        }
        (None, None) => return Err(CommandError::Own("name a domain, or a --file".to_owned())),
    };
    resolve(connection, file)
}

pub(super) fn resolve(
    connection: &mut Connection,
    mut file: DefinitionFile,
) -> Result<(Domain, Option<u32>), CommandError> {
    let autostart = file.autostart;
    let name = file.name.clone();
    if let Some((what, path)) = file.relative() {
        return Err(CommandError::Own(format!(
            "domain '{name}': the {what} '{}' must be an absolute path",
            path.display()
        )));
    }
    let uuid = match file.uuid {
        Some(uuid) => uuid,
        None => {
            let known = connection.call(DomainGet {
                domain: DomainRef::Name(file.name.clone()),
            });
            match known {
                Ok(details) => details.summary.uuid,
                Err(error) if is_no_domain(&error) => {
                    let uuid = new_uuid().map_err(CommandError::own("cannot make a UUID"))?;
                    DomainUuid(uuid)
                }
                Err(error) => return Err(error.into()),
            }
        }
    };
    let domain = file.domain(uuid);
    // As the daemon would; one that fits no message would not even come to it.
    domain
        .accept()
        .map_err(|error| CommandError::Own(format!("domain '{}': {error}", domain.name)))?;
    Ok((domain, autostart))
}

/// Any other refusal says nothing of whether there is one.
pub(super) fn is_no_domain(error: &CallError) -> bool {
    error
        .refused()
        .is_some_and(|refused| refused.code == ApiErrorCode::NoDomain)
}

pub(super) fn define(
    connection: &mut Connection,
    out: Output,
    args: &DefineArgs,
) -> Result<(), CommandError> {
    let (domain, autostart) = definition(connection, &args.definition)?;
    keep(connection, out, domain, autostart, args.new)
}

fn keep(
    connection: &mut Connection,
    out: Output,
    domain: Domain,
    autostart: Option<u32>,
    only_new: bool,
) -> Result<(), CommandError> {
    let summary = send(connection, domain, autostart, only_new)?;
    told(out, &summary, "defined")
}

/// Defines, and marks for the start with the host.
pub(super) fn send(
    connection: &mut Connection,
    domain: Domain,
    autostart: Option<u32>,
    only_new: bool,
) -> Result<DomainSummary, CommandError> {
    let mut summary = connection.call(DomainDefine {
        definition: Box::new(domain),
        only_new,
    })?;
    if autostart.is_some() && autostart != summary.autostart {
        connection.call(DomainAutostartSet {
            domain: DomainRef::Uuid(summary.uuid),
            order: autostart,
        })?;
        summary.autostart = autostart;
    }
    Ok(summary)
}

fn told(out: Output, summary: &DomainSummary, what: &str) -> Result<(), CommandError> {
    out.value(&summary_json(summary), || {
        format!("domain '{}' {what}, UUID {}\n", summary.name, summary.uuid)
    })
}

pub(super) fn create(
    connection: &mut Connection,
    out: Output,
    args: &CreateArgs,
) -> Result<(), CommandError> {
    let (domain, _) = definition(connection, &args.definition)?;
    let summary = connection.call(DomainCreate {
        definition: Box::new(domain),
        options: options(&args.how),
    })?;
    told(out, &summary, "started")?;
    stay(connection, &[DomainRef::Uuid(summary.uuid)], &args.how)
}

pub(super) fn export(
    connection: &mut Connection,
    out: Output,
    args: &ExportArgs,
) -> Result<(), CommandError> {
    let definition = connection.call(DomainDefinitionGet {
        domain: args.domain.clone(),
        persistent: !args.live,
    })?;
    let definition = DefinitionFile::from(&*definition);
    let text = match out.json {
        true => json_text(&definition)?,
        false => file::write(&definition)?,
    };
    match &args.file {
        Some(path) if path.as_path() != Path::new("-") => {
            file::replace(path, &text).map_err(Into::into)
        }
        _ => print(&text),
    }
}

pub(super) fn import(
    connection: &mut Connection,
    out: Output,
    args: &ImportArgs,
) -> Result<(), CommandError> {
    let (domain, autostart) = resolve(connection, file::read(&args.file)?)?;
    keep(connection, out, domain, autostart, args.new)
}
