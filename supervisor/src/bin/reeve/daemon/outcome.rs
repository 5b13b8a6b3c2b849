//! The same done to each of several domains: all are tried, each failure is told.

use reeve_ipc::api::blocking::Connection;
use reeve_ipc::api::call::{DomainGet, DomainRef};
use serde_json::{Map, Value, json};

use super::{CommandError, Output, json as print_json};

/// What became of each.
#[derive(Debug)]
pub(super) struct Outcomes {
    /// One object for each domain; none without `--json`.
    entries: Vec<Value>,
    result: Result<(), CommandError>,
}

impl Outcomes {
    /// Prints them for programs; people are told of failures only.
    pub(super) fn tell(self, out: Output) -> Result<(), CommandError> {
        if out.json {
            print_json(&self.entries)?;
        }
        self.result
    }
}

/// Does `act` to each; what it returns is told of a domain beside its name and UUID.
pub(super) fn each(
    connection: &mut Connection,
    out: Output,
    domains: &[DomainRef],
    mut act: impl FnMut(&mut Connection, &DomainRef) -> Result<Option<Value>, CommandError>,
) -> Outcomes {
    let mut entries = Vec::new();
    let mut done = Vec::new();
    let mut failed = Vec::new();
    let mut rest = domains.iter();
    while let Some(domain) = rest.next() {
        // Before: what is destroyed or undefined may not be found afterwards.
        let who = if out.json {
            identity(connection, domain)
        } else {
            Map::new()
        };
        match act(connection, domain) {
            Ok(more) => {
                entries.push(entry(who, more, None));
                done.push(domain);
            }
            // A refusal is of one object.
            Err(CommandError::Call(error)) if error.refused().is_some() => {
                let error = CommandError::Call(error);
                entries.push(entry(who, None, Some(&error)));
                if domains.len() > 1 && !out.json {
                    super::say(&error.to_string());
                }
                failed.push(error);
            }
            // Without a connection none can be helped.
            Err(error) => {
                entries.push(entry(who, None, Some(&error)));
                let left: Vec<&DomainRef> = rest.collect();
                let not_tried = CommandError::NotTried;
                entries.extend(
                    left.iter()
                        .map(|domain| entry(reference(domain), None, Some(&not_tried))),
                );
                let result = if domains.len() == 1 {
                    Err(error)
                } else {
                    let done = account(&done, domain, &left);
                    let error = Box::new(error);
                    Err(CommandError::Midway { error, done })
                };
                return Outcomes { entries, result };
            }
        }
    }
    let all = domains.len();
    let result = match failed.len() {
        0 => Ok(()),
        1 if all == 1 => failed.pop().map_or(Ok(()), Err),
        failed => Err(CommandError::Some { failed, all }),
    };
    Outcomes { entries, result }
}

/// What was done when it ended, so that nobody has to find out.
fn account(done: &[&DomainRef], during: &DomainRef, left: &[&DomainRef]) -> String {
    let list = |domains: &[&DomainRef]| {
        let names = domains.iter().map(|domain| domain.to_string());
        names.collect::<Vec<_>>().join(", ")
    };
    let mut text = match done {
        [] => "none was done before".to_owned(),
        done => format!("done before: {}", list(done)),
    };
    text.push_str(&format!("; perhaps done: {during}"));
    if !left.is_empty() {
        text.push_str(&format!("; not tried: {}", list(left)));
    }
    text
}

/// Name and UUID of a domain, as far as they are known.
pub(super) fn identity(connection: &mut Connection, domain: &DomainRef) -> Map<String, Value> {
    let get = DomainGet {
        domain: domain.clone(),
    };
    // Whatever stands in the way, the command itself meets it, and tells it.
    let Ok(details) = connection.call(get) else {
        return reference(domain);
    };
    let mut who = Map::new();
    who.insert("name".to_owned(), json!(details.summary.name));
    who.insert("uuid".to_owned(), json!(details.summary.uuid));
    who
}

/// What it was called on the command line.
fn reference(domain: &DomainRef) -> Map<String, Value> {
    let (key, value) = match domain {
        DomainRef::Name(name) => ("name", json!(name)),
        DomainRef::Uuid(uuid) => ("uuid", json!(uuid)),
        DomainRef::Id(id) => ("id", json!(id)),
    };
    std::iter::once((key.to_owned(), value)).collect()
}

/// One object: who, what is known of it, and how it went.
pub(super) fn entry(
    mut who: Map<String, Value>,
    more: Option<Value>,
    error: Option<&CommandError>,
) -> Value {
    if let Some(Value::Object(more)) = more {
        who.extend(more);
    }
    let result = if error.is_none() { "ok" } else { "error" };
    who.insert("result".to_owned(), json!(result));
    if let Some(error) = error {
        who.insert("error".to_owned(), error.json());
    }
    Value::Object(who)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use reeve_ipc::api::blocking::CallError;

    use super::*;

    #[test]
    fn a_connection_that_ends_among_several_leaves_an_account() {
        let name = |name: &str| DomainRef::Name(name.parse().unwrap());
        let (a, b, c) = (name("a"), name("b"), name("c"));
        let midway = |done: &[&DomainRef], left: &[&DomainRef]| {
            let error = CommandError::Midway {
                error: Box::new(CommandError::Call(CallError::Closed)),
                done: account(done, &b, left),
            };
            error.at(Path::new("/run/s")).to_string()
        };
        let line = midway(&[&a], &[&c]);
        assert!(line.contains("the supervisor at /run/s closed"), "{line}");
        assert!(
            line.ends_with("; done before: 'a'; perhaps done: 'b'; not tried: 'c'"),
            "{line}"
        );
        let line = midway(&[], &[]);
        assert!(
            line.ends_with("; none was done before; perhaps done: 'b'"),
            "{line}"
        );
    }
}
