//! What is in the files of virtual networks: a definition, or how an active one stands. JSON, of one version.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::shape::{NetworkFile, ShapeError};
use super::{NetworkPhase, NetworkRecord, NetworkStatus};
use crate::network::host::NetworkResources;
use crate::store::schema::{SchemaError, pretty, read, schema_of};

/// The version that is written of both.
const SCHEMA: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordFile {
    schema: u32,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    autostart: bool,
    network: NetworkFile,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StatusFile {
    schema: u32,
    /// The boot that what is made is of.
    boot_id: String,
    phase: PhaseWord,
    network: NetworkFile,
    resources: NetworkResources,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PhaseWord {
    Starting,
    Active,
    Stopping,
}

/// Why a file is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum NetworkSchemaError {
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error("it has schema {0}, and this reeved knows {SCHEMA}")]
    Version(u32),
    #[error(transparent)]
    Shape(#[from] ShapeError),
    #[error("it names no UUID")]
    NoUuid,
}

/// What a status names whatever its version is, as far as it is said where it always was.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Remains {
    /// The boot that what is made is of.
    pub(super) boot_id: Option<String>,
    network: Named,
    resources: Left,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Left {
    bridge: Option<String>,
    server: Option<Numbered>,
}

#[derive(Debug, Deserialize)]
struct Numbered {
    pid: u32,
}

impl Remains {
    /// Of a text that is no status which this build knows.
    pub(super) fn of(text: &[u8]) -> Self {
        serde_json::from_slice(text).unwrap_or_default()
    }

    /// What of it is left on the host, in words that follow why the file is refused.
    pub(super) fn words(&self) -> String {
        let quoted = |text: &String| format!("'{}'", text.escape_debug());
        let name = self.network.name.as_ref();
        let name = name.map_or_else(
            || "a network".to_owned(),
            |name| format!("network {}", quoted(name)),
        );
        let bridge = self.resources.bridge.as_ref();
        let bridge = bridge.map(|bridge| format!("bridge {}", quoted(bridge)));
        let server = self.resources.server.as_ref();
        let server = server.map(|server| format!("dnsmasq, process {}", server.pid));
        let left: Vec<String> = bridge.into_iter().chain(server).collect();
        let left = match left.as_slice() {
            [] => "what it says is made".to_owned(),
            left => left.join(" and "),
        };
        format!(
            "{left} of {name} stays on the host as it is: the reeved that wrote the file takes it away; or remove it \
             ('ip link delete', 'kill'), and then the file"
        )
    }
}

fn check(text: &[u8]) -> Result<(), NetworkSchemaError> {
    match schema_of(text)? {
        SCHEMA => Ok(()),
        other => Err(NetworkSchemaError::Version(other)),
    }
}

fn network(file: NetworkFile) -> Result<reeve_ipc::model::Network, NetworkSchemaError> {
    if !file.has_uuid() {
        return Err(NetworkSchemaError::NoUuid);
    }
    Ok(file.into_network(Uuid::nil())?)
}

/// The text of a record.
pub(super) fn encode(record: &NetworkRecord) -> Result<Vec<u8>, SchemaError> {
    pretty(&RecordFile {
        schema: SCHEMA,
        autostart: record.autostart,
        network: (&record.network).into(),
    })
}

/// The record that a text is of.
pub(super) fn decode(text: &[u8]) -> Result<NetworkRecord, NetworkSchemaError> {
    check(text)?;
    let file: RecordFile = read(text)?;
    Ok(NetworkRecord {
        network: network(file.network)?,
        autostart: file.autostart,
    })
}

/// The text of a status.
pub(super) fn encode_status(status: &NetworkStatus) -> Result<Vec<u8>, SchemaError> {
    pretty(&StatusFile {
        schema: SCHEMA,
        boot_id: status.boot_id.clone(),
        phase: match status.phase {
            NetworkPhase::Starting => PhaseWord::Starting,
            NetworkPhase::Active => PhaseWord::Active,
            NetworkPhase::Stopping => PhaseWord::Stopping,
        },
        network: (&status.network).into(),
        resources: status.resources.clone(),
    })
}

/// The status that a text is of.
pub(super) fn decode_status(text: &[u8]) -> Result<NetworkStatus, NetworkSchemaError> {
    check(text)?;
    let file: StatusFile = read(text)?;
    Ok(NetworkStatus {
        boot_id: file.boot_id,
        phase: match file.phase {
            PhaseWord::Starting => NetworkPhase::Starting,
            PhaseWord::Active => NetworkPhase::Active,
            PhaseWord::Stopping => NetworkPhase::Stopping,
        },
        network: network(file.network)?,
        resources: file.resources,
    })
}
