//! A definition in the user's editor: nothing that was typed is lost to an error, and nothing that
//! somebody else did meanwhile to the editor.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::Command;

use reeve_ipc::api::blocking::Connection;
use reeve_ipc::api::call::{DomainAutostartSet, DomainDefinitionGet, DomainRef};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::api::view::DomainDefinition;

use super::file::{self, DefinitionFile};
use super::{CommandError, Output, define, say};

pub(super) fn edit(
    connection: &mut Connection,
    out: Output,
    domain: &DomainRef,
) -> Result<(), CommandError> {
    let definition = kept(connection, domain)?;
    let before = file::write(&DefinitionFile::from(&definition))?;
    let temporary = std::env::temp_dir().join(format!(
        "reeve-{}-{}.toml",
        definition.domain.uuid,
        std::process::id()
    ));
    file::create_private(&temporary, &before)?;
    let result = match rounds(connection, &temporary, &before, &definition) {
        Ok(result) => {
            let _ = std::fs::remove_file(&temporary);
            result
        }
        Err(error) => {
            let error = Box::new(error);
            let more = format!("your text is kept in {}", temporary.display());
            return Err(CommandError::And { error, more });
        }
    };
    let name = definition.domain.name;
    let value =
        serde_json::json!({ "name": name, "uuid": definition.domain.uuid, "result": result });
    out.value(&value, || format!("domain '{name}' {result}\n"))
}

fn kept(connection: &mut Connection, domain: &DomainRef) -> Result<DomainDefinition, CommandError> {
    let kept = connection.call(DomainDefinitionGet {
        domain: domain.clone(),
        persistent: true,
    })?;
    Ok(*kept)
}

fn rounds(
    connection: &mut Connection,
    path: &Path,
    before: &str,
    definition: &DomainDefinition,
) -> Result<&'static str, CommandError> {
    loop {
        run_editor(path)?;
        let text = std::fs::read_to_string(path);
        let text = text.map_err(CommandError::own("cannot read what was edited"))?;
        if text == before {
            return Ok("unchanged");
        }
        match send(connection, &text, path, definition) {
            Ok(()) => return Ok("edited"),
            // No other text would mend that.
            Err(error @ CommandError::Changed(_)) => return Err(error),
            Err(error) if ask_again(&error)? => {}
            Err(error) => return Err(error),
        }
    }
}

fn send(
    connection: &mut Connection,
    text: &str,
    path: &Path,
    definition: &DomainDefinition,
) -> Result<(), CommandError> {
    let file = file::parse(text, path)?;
    check_unchanged(connection, definition)?;
    let (domain, order) = define::resolve(connection, file)?;
    let (name, uuid) = (&definition.domain.name, definition.domain.uuid);
    if domain.uuid != uuid {
        return Err(CommandError::Own(format!(
            "domain '{name}': an edited definition keeps its UUID, {uuid}; 'reeve define --file' \
             makes another domain"
        )));
    }
    define::send(connection, domain, order, false)?;
    if order.is_none() && definition.autostart.is_some() {
        connection.call(DomainAutostartSet {
            domain: DomainRef::Uuid(uuid),
            order: None,
        })?;
    }
    Ok(())
}

/// That what is kept is what the editor was given. An editor is open for minutes; between this and
/// the definition that is sent there is only a moment, which the API cannot close.
fn check_unchanged(
    connection: &mut Connection,
    before: &DomainDefinition,
) -> Result<(), CommandError> {
    let name = &before.domain.name;
    let why = match kept(connection, &DomainRef::Uuid(before.domain.uuid)) {
        Ok(now) if now == *before => return Ok(()),
        Ok(_) => format!(
            "the definition of '{name}' was changed while you edited it, and is left as it is now: \
             'reeve edit' it again"
        ),
        Err(error) if error.is_refused_as(ApiErrorCode::NoDomain) => format!(
            "domain '{name}' was undefined while you edited it: 'reeve define --file' brings it back"
        ),
        Err(error) => return Err(error),
    };
    Err(CommandError::Changed(why))
}

/// Whether the user wants another try; whoever has no terminal does not.
fn ask_again(error: &CommandError) -> Result<bool, CommandError> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    say(&error.to_string());
    let _ = write!(std::io::stderr(), "Edit again? [Y/n] ");
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    let length = read.map_err(CommandError::own("cannot read an answer"))?;
    Ok(length > 0 && !answer.trim_start().to_lowercase().starts_with('n'))
}

fn run_editor(path: &Path) -> Result<(), CommandError> {
    let chosen = ["VISUAL", "EDITOR"]
        .into_iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|editor| !editor.trim().is_empty());
    let editor = chosen.unwrap_or_else(|| "vi".to_owned());
    // An editor may have arguments of its own, as in EDITOR='code --wait'.
    let status = Command::new("/bin/sh")
        .arg("-c")
        .arg(format!("exec {editor} \"$1\""))
        .arg("editor")
        .arg(path)
        .status()
        .map_err(CommandError::own("cannot run the editor"))?;
    if status.success() {
        Ok(())
    } else {
        Err(CommandError::Own(format!(
            "the editor '{editor}' failed ({status}); set EDITOR to another"
        )))
    }
}
