//! Storage pools.

use reeve_ipc::api::blocking::Connection;
use reeve_ipc::api::call::{
    PoolAutostartSet, PoolBuild, PoolDefine, PoolDelete, PoolFilter, PoolGet, PoolList, PoolRef,
    PoolRefresh, PoolStart, PoolStop, PoolUndefine,
};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::api::storage::{PoolDetails, PoolSummary};
use reeve_ipc::model::{Permissions, Pool, PoolUuid};
use reeved::logging::printable;
use serde_json::{Value, json};

use super::show::human;
use super::storage_args::{PoolCommand, PoolDefineArgs, PoolListArgs};
use super::table::{Table, fields};
use super::{CommandError, Output, json as print_json, print};
use crate::args::new_uuid;

pub(super) fn pool(
    connection: &mut Connection,
    out: Output,
    command: PoolCommand,
) -> Result<(), CommandError> {
    use PoolCommand as C;
    let pool = match command {
        C::List(args) => return list(connection, out, &args),
        C::Info(args) => {
            let details = connection.call(PoolGet { pool: args.pool })?;
            return out.value(&details_json(&details), || details_text(&details));
        }
        C::Define(args) => return define(connection, out, args),
        C::Start(args) => {
            let summary = connection.call(PoolStart {
                pool: args.pool,
                build: args.build,
            })?;
            return told(out, &summary);
        }
        C::Build(args) => {
            let pool = args.pool;
            connection.call(PoolBuild { pool: pool.clone() })?;
            pool
        }
        C::Stop(args) => {
            let pool = args.pool;
            connection.call(PoolStop { pool: pool.clone() })?;
            pool
        }
        C::Refresh(args) => {
            let pool = args.pool;
            connection.call(PoolRefresh { pool: pool.clone() })?;
            pool
        }
        C::Autostart(args) => {
            let pool = args.pool;
            connection.call(PoolAutostartSet {
                pool: pool.clone(),
                autostart: !args.off,
            })?;
            pool
        }
        C::Delete(args) => {
            let pool = args.pool;
            connection.call(PoolDelete { pool: pool.clone() })?;
            pool
        }
        C::Undefine(args) => {
            let pool = args.pool;
            connection.call(PoolUndefine { pool: pool.clone() })?;
            pool
        }
    };
    // People are told of failures only.
    match out.json {
        true => print_json(&done(&pool)),
        false => Ok(()),
    }
}

fn told(out: Output, summary: &PoolSummary) -> Result<(), CommandError> {
    match out.json {
        true => {
            let mut value = summary_json(summary);
            value["result"] = json!("ok");
            print_json(&value)
        }
        false => Ok(()),
    }
}

/// What it was called on the command line, and that it was done.
fn done(pool: &PoolRef) -> Value {
    match pool {
        PoolRef::Name(name) => json!({ "name": name, "result": "ok" }),
        PoolRef::Uuid(uuid) => json!({ "uuid": uuid, "result": "ok" }),
        PoolRef::Target(target) => json!({ "target": target, "result": "ok" }),
    }
}

/// Every pool, or those that are active, in the order of names.
fn pools(connection: &mut Connection, all: bool) -> Result<Vec<PoolSummary>, CommandError> {
    let filter = PoolFilter {
        active: (!all).then_some(true),
        ..PoolFilter::default()
    };
    let mut pools: Vec<PoolSummary> = Vec::new();
    loop {
        let after = pools.last().map(|last| last.name.clone());
        let page = connection.call(PoolList { after, filter })?;
        let more = page.more && !page.pools.is_empty();
        pools.extend(page.pools);
        if !more {
            return Ok(pools);
        }
    }
}

fn list(connection: &mut Connection, out: Output, args: &PoolListArgs) -> Result<(), CommandError> {
    let pools = pools(connection, args.all)?;
    if out.json {
        let values: Vec<Value> = pools.iter().map(summary_json).collect();
        return print_json(&values);
    }
    if args.quiet {
        let names = pools
            .iter()
            .map(|pool| printable(pool.name.as_str()) + "\n");
        return print(&names.collect::<String>());
    }
    let mut table = Table::new(&["NAME", "STATE", "AUTOSTART", "VOLUMES", "TARGET"]);
    for pool in &pools {
        table.row(vec![
            pool.name.to_string(),
            pool.state.name().to_owned(),
            if pool.autostart { "yes" } else { "no" }.to_owned(),
            match pool.state.is_active() {
                true => pool.volumes.to_string(),
                false => "-".to_owned(),
            },
            pool.target.display().to_string(),
        ]);
    }
    print(&table.render())
}

fn define(
    connection: &mut Connection,
    out: Output,
    args: PoolDefineArgs,
) -> Result<(), CommandError> {
    let uuid = match args.uuid {
        Some(uuid) => uuid,
        None => {
            let pool = PoolRef::Name(args.name.clone());
            match connection.call(PoolGet { pool }) {
                Ok(details) => details.summary.uuid.0,
                Err(error)
                    if error
                        .refused()
                        .is_some_and(|error| error.code == ApiErrorCode::NoPool) =>
                {
                    let drawn = new_uuid();
                    drawn.map_err(|error| {
                        CommandError::Own(format!("cannot make a UUID: {error}"))
                    })?
                }
                Err(error) => return Err(error.into()),
            }
        }
    };
    // As people name a directory: it begins where they are.
    let target = std::path::absolute(&args.directory)
        .map_err(|error| CommandError::Own(format!("cannot resolve the directory: {error}")))?;
    let pool = Pool {
        name: args.name,
        uuid: PoolUuid(uuid),
        // Without a slash at its end.
        target: target.components().collect(),
        permissions: Permissions {
            mode: args.mode,
            owner: args.owner,
            group: args.group,
        },
    };
    let summary = connection.call(PoolDefine {
        pool: Box::new(pool),
        only_new: args.new,
    })?;
    told(out, &summary)
}

/// A pool in a list, with keys that stay.
fn summary_json(pool: &PoolSummary) -> Value {
    json!({
        "name": pool.name,
        "uuid": pool.uuid,
        "state": pool.state.name(),
        "persistent": pool.persistent,
        "autostart": pool.autostart,
        "target": pool.target,
        "volumes": pool.volumes,
    })
}

fn details_json(details: &PoolDetails) -> Value {
    let mut value = summary_json(&details.summary);
    if let Value::Object(fields) = &mut value {
        let sizes = details.sizes;
        let bytes = [
            ("capacity_bytes", sizes.map(|sizes| sizes.capacity)),
            ("allocation_bytes", sizes.map(|sizes| sizes.allocation)),
            ("available_bytes", sizes.map(|sizes| sizes.available)),
        ];
        for (key, bytes) in bytes {
            fields.insert(key.to_owned(), json!(bytes));
        }
        fields.insert("passed_over".to_owned(), json!(details.passed_over));
        fields.insert("redefined".to_owned(), json!(details.next.is_some()));
    }
    value
}

fn details_text(details: &PoolDetails) -> String {
    let summary = &details.summary;
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let mut lines = vec![
        ("Name", summary.name.to_string()),
        ("UUID", summary.uuid.to_string()),
        ("State", summary.state.name().to_owned()),
        ("Target", summary.target.display().to_string()),
        ("Persistent", yes(summary.persistent)),
        ("Autostart", yes(summary.autostart)),
    ];
    if details.next.is_some() {
        lines.push(("Redefined", "from its next start on".to_owned()));
    }
    if summary.state.is_active() {
        lines.push(("Volumes", summary.volumes.to_string()));
    }
    if details.passed_over > 0 {
        lines.push(("Passed over", details.passed_over.to_string()));
    }
    if let Some(sizes) = details.sizes {
        lines.push(("Capacity", human(sizes.capacity)));
        lines.push(("Allocation", human(sizes.allocation)));
        lines.push(("Available", human(sizes.available)));
    }
    fields(&lines)
}
