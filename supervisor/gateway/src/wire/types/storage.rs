//! Storage pools and volumes. Sizes are in bytes.

use super::OBJECTS_MAX;
use super::handles::{Pool, Uuid, Volume};
use crate::wire::call::calls;
use crate::wire::xdr::List;

calls! { Remote;
    /// How many pools are active.
    ConnectNumOfStoragePools = 71 {} -> i32;
    /// Their names, at most so many.
    ConnectListStoragePools = 72 { maxnames: i32 } -> List<String, OBJECTS_MAX>;
    /// How many pools are not.
    ConnectNumOfDefinedStoragePools = 73 {} -> i32;
    /// Their names, at most so many.
    ConnectListDefinedStoragePools = 74 { maxnames: i32 } -> List<String, OBJECTS_MAX>;
    /// What pools of a type could be made of, as a document.
    ConnectFindStoragePoolSources = 75 { kind: String, source: Option<String>, flags: u32 } -> String;
    /// Makes a pool and starts it: 1 builds it first, 2 over what is there, 4 not over it.
    StoragePoolCreateXml = 76 { xml: String, flags: u32 } -> Pool;
    /// Defines a pool.
    StoragePoolDefineXml = 77 { xml: String, flags: u32 } -> Pool;
    /// Starts it: 1 builds it first, 2 over what is there, 4 not over it.
    StoragePoolCreate = 78 { pool: Pool, flags: u32 } -> ();
    /// Makes its directory.
    StoragePoolBuild = 79 { pool: Pool, flags: u32 } -> ();
    /// Stops it; what it holds stays.
    StoragePoolDestroy = 80 { pool: Pool } -> ();
    /// Removes its directory.
    StoragePoolDelete = 81 { pool: Pool, flags: u32 } -> ();
    /// Forgets its definition.
    StoragePoolUndefine = 82 { pool: Pool } -> ();
    /// Looks what volumes there are.
    StoragePoolRefresh = 83 { pool: Pool, flags: u32 } -> ();
    /// One by its name.
    StoragePoolLookupByName = 84 { name: String } -> Pool;
    /// One by its UUID.
    StoragePoolLookupByUuid = 85 { uuid: Uuid } -> Pool;
    /// The one that a volume is in.
    StoragePoolLookupByVolume = 86 { volume: Volume } -> Pool;
    /// State (0 inactive, 1 building, 2 running, 3 degraded, 4 inaccessible) and sizes.
    StoragePoolGetInfo = 87 { pool: Pool }
        => PoolInfo { state: u8, capacity: u64, allocation: u64, available: u64 };
    /// Its document.
    StoragePoolGetXmlDesc = 88 { pool: Pool, flags: u32 } -> String;
    /// Whether it is started with the host.
    StoragePoolGetAutostart = 89 { pool: Pool } -> bool;
    /// Whether it is started with the host.
    StoragePoolSetAutostart = 90 { pool: Pool, autostart: bool } -> ();
    /// How many volumes it has.
    StoragePoolNumOfVolumes = 91 { pool: Pool } -> i32;
    /// Their names, at most so many.
    StoragePoolListVolumes = 92 { pool: Pool, maxnames: i32 } -> List<String, OBJECTS_MAX>;
    /// Makes a volume.
    StorageVolCreateXml = 93 { pool: Pool, xml: String, flags: u32 } -> Volume;
    /// Deletes it.
    StorageVolDelete = 94 { volume: Volume, flags: u32 } -> ();
    /// One of a pool by its name.
    StorageVolLookupByName = 95 { pool: Pool, name: String } -> Volume;
    /// One of any pool by its key.
    StorageVolLookupByKey = 96 { key: String } -> Volume;
    /// One of any pool by its path.
    StorageVolLookupByPath = 97 { path: String } -> Volume;
    /// What it is (0 file, 1 block device, 2 directory) and sizes.
    StorageVolGetInfo = 98 { volume: Volume } => VolumeInfo { kind: u8, capacity: u64, allocation: u64 };
    /// Its document.
    StorageVolGetXmlDesc = 99 { volume: Volume, flags: u32 } -> String;
    /// Its path.
    StorageVolGetPath = 100 { volume: Volume } -> String;
    /// Makes a volume with what another has.
    StorageVolCreateXmlFrom = 125 { pool: Pool, xml: String, from: Volume, flags: u32 } -> Volume;
    /// Whether it is active.
    StoragePoolIsActive = 154 { pool: Pool } -> bool;
    /// Whether it has a definition.
    StoragePoolIsPersistent = 155 { pool: Pool } -> bool;
    /// Overwrites it with zeros.
    StorageVolWipe = 165 { volume: Volume, flags: u32 } -> ();
    /// Writes into it what comes as a stream; a length of 0 is all of it. 1: with holes.
    StorageVolUpload = 208 { volume: Volume, offset: u64, length: u64, flags: u32 } -> ();
    /// What is in it, as a stream; a length of 0 is all of it. 1: with holes.
    StorageVolDownload = 209 { volume: Volume, offset: u64, length: u64, flags: u32 } -> ();
    /// Overwrites it by a rule: 0 zeros.
    StorageVolWipePattern = 259 { volume: Volume, algorithm: u32, flags: u32 } -> ();
    /// Makes it as large: 1 with all blocks, 2 by so much more, 4 or less.
    StorageVolResize = 260 { volume: Volume, capacity: u64, flags: u32 } -> ();
    /// All pools that the flags leave, or how many.
    ConnectListAllStoragePools = 281 { need_results: bool, flags: u32 }
        => PoolList { pools: List<Pool, OBJECTS_MAX>, ret: u32 };
    /// All volumes of a pool, or how many.
    StoragePoolListAllVolumes = 282 { pool: Pool, need_results: bool, flags: u32 }
        => VolumeList { volumes: List<Volume, OBJECTS_MAX>, ret: u32 };
    /// What it is and sizes; 1: how large the file is, in place of what it takes.
    StorageVolGetInfoFlags = 378 { volume: Volume, flags: u32 } -> VolumeInfo;
    /// The pool with this directory.
    StoragePoolLookupByTargetPath = 391 { path: String } -> Pool;
    /// The document of what pools can be.
    ConnectGetStoragePoolCapabilities = 403 { flags: u32 } -> String;
}
