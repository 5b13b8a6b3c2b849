//! Storage pools and volumes.

use super::Access::{Read, Write};
use super::Rank::{High, Low};
use super::State::{Served, Unsupported};
use super::call_rows;
use super::reason::NO_SOURCES;

call_rows! {
    71 CONNECT_NUM_OF_STORAGE_POOLS virConnectNumOfStoragePools (Read, High) => Served;
    72 CONNECT_LIST_STORAGE_POOLS virConnectListStoragePools (Read, High) => Served;
    73 CONNECT_NUM_OF_DEFINED_STORAGE_POOLS virConnectNumOfDefinedStoragePools (Read, High) => Served;
    74 CONNECT_LIST_DEFINED_STORAGE_POOLS virConnectListDefinedStoragePools (Read, High) => Served;
    75 CONNECT_FIND_STORAGE_POOL_SOURCES virConnectFindStoragePoolSources (Write, Low) => Unsupported(NO_SOURCES);
    76 STORAGE_POOL_CREATE_XML virStoragePoolCreateXML (Write, Low) => Served;
    77 STORAGE_POOL_DEFINE_XML virStoragePoolDefineXML (Write, High) => Served;
    78 STORAGE_POOL_CREATE virStoragePoolCreate (Write, Low) => Served;
    79 STORAGE_POOL_BUILD virStoragePoolBuild (Write, Low) => Served;
    80 STORAGE_POOL_DESTROY virStoragePoolDestroy (Write, High) => Served;
    81 STORAGE_POOL_DELETE virStoragePoolDelete (Write, Low) => Served;
    82 STORAGE_POOL_UNDEFINE virStoragePoolUndefine (Write, High) => Served;
    83 STORAGE_POOL_REFRESH virStoragePoolRefresh (Write, Low) => Served;
    84 STORAGE_POOL_LOOKUP_BY_NAME virStoragePoolLookupByName (Read, High) => Served;
    85 STORAGE_POOL_LOOKUP_BY_UUID virStoragePoolLookupByUUID (Read, High) => Served;
    86 STORAGE_POOL_LOOKUP_BY_VOLUME virStoragePoolLookupByVolume (Read, High) => Served;
    87 STORAGE_POOL_GET_INFO virStoragePoolGetInfo (Read, High) => Served;
    88 STORAGE_POOL_GET_XML_DESC virStoragePoolGetXMLDesc (Read, High) => Served;
    89 STORAGE_POOL_GET_AUTOSTART virStoragePoolGetAutostart (Read, High) => Served;
    90 STORAGE_POOL_SET_AUTOSTART virStoragePoolSetAutostart (Write, High) => Served;
    91 STORAGE_POOL_NUM_OF_VOLUMES virStoragePoolNumOfVolumes (Read, High) => Served;
    92 STORAGE_POOL_LIST_VOLUMES virStoragePoolListVolumes (Read, High) => Served;
    93 STORAGE_VOL_CREATE_XML virStorageVolCreateXML (Write, Low) => Served;
    94 STORAGE_VOL_DELETE virStorageVolDelete (Write, Low) => Served;
    95 STORAGE_VOL_LOOKUP_BY_NAME virStorageVolLookupByName (Read, High) => Served;
    96 STORAGE_VOL_LOOKUP_BY_KEY virStorageVolLookupByKey (Read, High) => Served;
    97 STORAGE_VOL_LOOKUP_BY_PATH virStorageVolLookupByPath (Read, High) => Served;
    98 STORAGE_VOL_GET_INFO virStorageVolGetInfo (Read, High) => Served;
    99 STORAGE_VOL_GET_XML_DESC virStorageVolGetXMLDesc (Read, High) => Served;
    100 STORAGE_VOL_GET_PATH virStorageVolGetPath (Read, High) => Served;
    125 STORAGE_VOL_CREATE_XML_FROM virStorageVolCreateXMLFrom (Write, Low) => Served;
    154 STORAGE_POOL_IS_ACTIVE virStoragePoolIsActive (Read, High) => Served;
    155 STORAGE_POOL_IS_PERSISTENT virStoragePoolIsPersistent (Read, High) => Served;
    165 STORAGE_VOL_WIPE virStorageVolWipe (Write, Low) => Served;
    208 STORAGE_VOL_UPLOAD virStorageVolUpload (Write, Low) => Served;
    209 STORAGE_VOL_DOWNLOAD virStorageVolDownload (Write, Low) => Served;
    259 STORAGE_VOL_WIPE_PATTERN virStorageVolWipePattern (Write, Low) => Served;
    260 STORAGE_VOL_RESIZE virStorageVolResize (Write, Low) => Served;
    281 CONNECT_LIST_ALL_STORAGE_POOLS virConnectListAllStoragePools (Read, High) => Served;
    282 STORAGE_POOL_LIST_ALL_VOLUMES virStoragePoolListAllVolumes (Read, High) => Served;
    368 CONNECT_STORAGE_POOL_EVENT_REGISTER_ANY virConnectStoragePoolEventRegisterAny (Read, High) => Served;
    369 CONNECT_STORAGE_POOL_EVENT_DEREGISTER_ANY virConnectStoragePoolEventDeregisterAny (Read, High) => Served;
    378 STORAGE_VOL_GET_INFO_FLAGS virStorageVolGetInfoFlags (Read, High) => Served;
    391 STORAGE_POOL_LOOKUP_BY_TARGET_PATH virStoragePoolLookupByTargetPath (Read, High) => Served;
    403 CONNECT_GET_STORAGE_POOL_CAPABILITIES virConnectGetStoragePoolCapabilities (Read, Low) => Served;
}
