//! A domain on disk: saved, restored and dumped; and of snapshots what clients ask whether there are any or not.

use super::OBJECTS_MAX;
use super::handles::{Checkpoint, Domain, Snapshot};
use super::params::Params;
use crate::wire::call::calls;
use crate::wire::xdr::List;

/// The most parameters of a saved file.
const PARAMS_MAX: usize = 64;

calls! { Remote;
    /// Writes what it has in memory to a file.
    DomainCoreDump = 53 { domain: Domain, to: String, flags: u32 } -> ();
    /// Goes on from a file.
    DomainRestore = 54 { from: String } -> ();
    /// Stops it and keeps it in a file.
    DomainSave = 55 { domain: Domain, to: String } -> ();
    /// Stops it and keeps it, to go on from where it was at the next start.
    DomainManagedSave = 182 { domain: Domain, flags: u32 } -> ();
    /// Whether it is kept.
    DomainHasManagedSaveImage = 183 { domain: Domain, flags: u32 } -> bool;
    /// Forgets what is kept.
    DomainManagedSaveRemove = 184 { domain: Domain, flags: u32 } -> ();
    /// How many snapshots it has.
    DomainSnapshotNum = 187 { domain: Domain, flags: u32 } -> i32;
    /// Names of its snapshots, at most so many.
    DomainSnapshotListNames = 188 { domain: Domain, maxnames: i32, flags: u32 } -> List<String, OBJECTS_MAX>;
    /// One of its snapshots by its name.
    DomainSnapshotLookupByName = 189 { domain: Domain, name: String, flags: u32 } -> Snapshot;
    /// Whether one of its snapshots is the current one.
    DomainHasCurrentSnapshot = 190 { domain: Domain, flags: u32 } -> bool;
    /// The current one.
    DomainSnapshotCurrent = 191 { domain: Domain, flags: u32 } -> Snapshot;
    /// Stops it and keeps it in a file, with another document.
    DomainSaveFlags = 232 { domain: Domain, to: String, xml: Option<String>, flags: u32 } -> ();
    /// Goes on from a file, with another document.
    DomainRestoreFlags = 233 { from: String, xml: Option<String>, flags: u32 } -> ();
    /// The document in a file.
    DomainSaveImageGetXmlDesc = 235 { file: String, flags: u32 } -> String;
    /// Changes the document in a file.
    DomainSaveImageDefineXml = 236 { file: String, xml: String, flags: u32 } -> ();
    /// All its snapshots, or how many.
    DomainListAllSnapshots = 274 { domain: Domain, need_results: bool, flags: u32 }
        => SnapshotList { snapshots: List<Snapshot, OBJECTS_MAX>, ret: i32 };
    /// Writes what it has in memory to a file of a format.
    DomainCoreDumpWithFormat = 334 { domain: Domain, to: String, format: u32, flags: u32 } -> ();
    /// The document of what is kept.
    DomainManagedSaveGetXmlDesc = 388 { domain: Domain, flags: u32 } -> String;
    /// Changes the document of what is kept.
    DomainManagedSaveDefineXml = 389 { domain: Domain, xml: Option<String>, flags: u32 } -> ();
    /// All its checkpoints, or how many.
    DomainListAllCheckpoints = 413 { domain: Domain, need_results: bool, flags: u32 }
        => CheckpointList { checkpoints: List<Checkpoint, OBJECTS_MAX>, ret: i32 };
    /// Stops it and keeps it in a file.
    DomainSaveParams = 440 { domain: Domain, params: Params<PARAMS_MAX>, flags: u32 } -> ();
    /// Goes on from a file.
    DomainRestoreParams = 441 { params: Params<PARAMS_MAX>, flags: u32 } -> ();
}
