//! The table as a document.

use std::fmt::Write;

use super::{Access, Procedure, Role, State, all};
use crate::wire::frame::Program;

/// What `docs/libvirt-procedures.md` holds.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "# Procedures of libvirt's protocol\n\n\
         Generated from the table in `supervisor/gateway/src/wire/procedures`. To write it anew:\n\n\
         \x20   REEVE_WRITE_DOCS=1 cargo test -p reeve-gateway --lib the_document_is_the_table\n\n\
         A procedure that is not served is answered with error 3, \"this function is not supported by the \
         connection driver\"; a number beyond the table with error 39, \"unknown procedure\". *Writes* marks \
         what a read-only connection is refused.\n",
    );
    let programs = [
        ("Main program", Program::Remote),
        ("QEMU's program", Program::Qemu),
        ("LXC's program", Program::Lxc),
        ("The daemon's own program", Program::Admin),
    ];
    for (title, program) in programs {
        section(&mut text, title, all(program));
    }
    text
}

fn section(text: &mut String, title: &str, procedures: &[Procedure]) {
    let count =
        |wanted: fn(State) -> bool| procedures.iter().filter(|row| wanted(row.state)).count();
    let served = count(|state| state == State::Served);
    let unsupported = count(|state| matches!(state, State::Unsupported(_)));
    let to_come = count(|state| matches!(state, State::ToCome(_)));
    let _ = write!(
        text,
        "\n## {title}\n\n{} procedures: {served} served, {unsupported} not supported by design, {to_come} to come.\n\n\
         | number | procedure | function or event | access | state |\n|---|---|---|---|---|\n",
        procedures.len(),
    );
    for row in procedures {
        let access = match row.role {
            Role::Call(Access::Read, _) => "reads",
            Role::Call(Access::Write, _) => "writes",
            Role::Call(Access::WriteIf(_), _) => "writes, with some flags",
            Role::Event => "event",
        };
        let _ = write!(
            text,
            "| {} | {} | {} | {access} | ",
            row.number, row.name, row.api
        );
        let _ = match row.state {
            State::Served => writeln!(text, "served |"),
            State::Unsupported(reason) => writeln!(text, "not supported: {reason} |"),
            State::ToCome(with) => writeln!(text, "to come, with {with} |"),
        };
    }
}
