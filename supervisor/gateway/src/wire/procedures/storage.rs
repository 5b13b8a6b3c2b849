//! Storage pools and volumes.

use super::Access::{Read, Write};
use super::Rank::{High, Low};
use super::State::ToCome;
use super::call_rows;
use super::reason::FRONT_DOOR;

call_rows! {
    71 CONNECT_NUM_OF_STORAGE_POOLS virConnectNumOfStoragePools (Read, High) => ToCome(FRONT_DOOR);
    72 CONNECT_LIST_STORAGE_POOLS virConnectListStoragePools (Read, High) => ToCome(FRONT_DOOR);
    73 CONNECT_NUM_OF_DEFINED_STORAGE_POOLS virConnectNumOfDefinedStoragePools (Read, High) => ToCome(FRONT_DOOR);
    74 CONNECT_LIST_DEFINED_STORAGE_POOLS virConnectListDefinedStoragePools (Read, High) => ToCome(FRONT_DOOR);
    75 CONNECT_FIND_STORAGE_POOL_SOURCES virConnectFindStoragePoolSources (Write, Low) => ToCome(FRONT_DOOR);
    76 STORAGE_POOL_CREATE_XML virStoragePoolCreateXML (Write, Low) => ToCome(FRONT_DOOR);
    77 STORAGE_POOL_DEFINE_XML virStoragePoolDefineXML (Write, High) => ToCome(FRONT_DOOR);
    78 STORAGE_POOL_CREATE virStoragePoolCreate (Write, Low) => ToCome(FRONT_DOOR);
    79 STORAGE_POOL_BUILD virStoragePoolBuild (Write, Low) => ToCome(FRONT_DOOR);
    80 STORAGE_POOL_DESTROY virStoragePoolDestroy (Write, High) => ToCome(FRONT_DOOR);
    81 STORAGE_POOL_DELETE virStoragePoolDelete (Write, Low) => ToCome(FRONT_DOOR);
    82 STORAGE_POOL_UNDEFINE virStoragePoolUndefine (Write, High) => ToCome(FRONT_DOOR);
    83 STORAGE_POOL_REFRESH virStoragePoolRefresh (Write, Low) => ToCome(FRONT_DOOR);
    84 STORAGE_POOL_LOOKUP_BY_NAME virStoragePoolLookupByName (Read, High) => ToCome(FRONT_DOOR);
    85 STORAGE_POOL_LOOKUP_BY_UUID virStoragePoolLookupByUUID (Read, High) => ToCome(FRONT_DOOR);
    86 STORAGE_POOL_LOOKUP_BY_VOLUME virStoragePoolLookupByVolume (Read, High) => ToCome(FRONT_DOOR);
    87 STORAGE_POOL_GET_INFO virStoragePoolGetInfo (Read, High) => ToCome(FRONT_DOOR);
    88 STORAGE_POOL_GET_XML_DESC virStoragePoolGetXMLDesc (Read, High) => ToCome(FRONT_DOOR);
    89 STORAGE_POOL_GET_AUTOSTART virStoragePoolGetAutostart (Read, High) => ToCome(FRONT_DOOR);
    90 STORAGE_POOL_SET_AUTOSTART virStoragePoolSetAutostart (Write, High) => ToCome(FRONT_DOOR);
    91 STORAGE_POOL_NUM_OF_VOLUMES virStoragePoolNumOfVolumes (Read, High) => ToCome(FRONT_DOOR);
    92 STORAGE_POOL_LIST_VOLUMES virStoragePoolListVolumes (Read, High) => ToCome(FRONT_DOOR);
    93 STORAGE_VOL_CREATE_XML virStorageVolCreateXML (Write, Low) => ToCome(FRONT_DOOR);
    94 STORAGE_VOL_DELETE virStorageVolDelete (Write, Low) => ToCome(FRONT_DOOR);
    95 STORAGE_VOL_LOOKUP_BY_NAME virStorageVolLookupByName (Read, High) => ToCome(FRONT_DOOR);
    96 STORAGE_VOL_LOOKUP_BY_KEY virStorageVolLookupByKey (Read, High) => ToCome(FRONT_DOOR);
    97 STORAGE_VOL_LOOKUP_BY_PATH virStorageVolLookupByPath (Read, High) => ToCome(FRONT_DOOR);
    98 STORAGE_VOL_GET_INFO virStorageVolGetInfo (Read, High) => ToCome(FRONT_DOOR);
    99 STORAGE_VOL_GET_XML_DESC virStorageVolGetXMLDesc (Read, High) => ToCome(FRONT_DOOR);
    100 STORAGE_VOL_GET_PATH virStorageVolGetPath (Read, High) => ToCome(FRONT_DOOR);
    125 STORAGE_VOL_CREATE_XML_FROM virStorageVolCreateXMLFrom (Write, Low) => ToCome(FRONT_DOOR);
    154 STORAGE_POOL_IS_ACTIVE virStoragePoolIsActive (Read, High) => ToCome(FRONT_DOOR);
    155 STORAGE_POOL_IS_PERSISTENT virStoragePoolIsPersistent (Read, High) => ToCome(FRONT_DOOR);
    165 STORAGE_VOL_WIPE virStorageVolWipe (Write, Low) => ToCome(FRONT_DOOR);
    208 STORAGE_VOL_UPLOAD virStorageVolUpload (Write, Low) => ToCome(FRONT_DOOR);
    209 STORAGE_VOL_DOWNLOAD virStorageVolDownload (Write, Low) => ToCome(FRONT_DOOR);
    259 STORAGE_VOL_WIPE_PATTERN virStorageVolWipePattern (Write, Low) => ToCome(FRONT_DOOR);
    260 STORAGE_VOL_RESIZE virStorageVolResize (Write, Low) => ToCome(FRONT_DOOR);
    281 CONNECT_LIST_ALL_STORAGE_POOLS virConnectListAllStoragePools (Read, High) => ToCome(FRONT_DOOR);
    282 STORAGE_POOL_LIST_ALL_VOLUMES virStoragePoolListAllVolumes (Read, High) => ToCome(FRONT_DOOR);
    368 CONNECT_STORAGE_POOL_EVENT_REGISTER_ANY virConnectStoragePoolEventRegisterAny (Read, High) => ToCome(FRONT_DOOR);
    369 CONNECT_STORAGE_POOL_EVENT_DEREGISTER_ANY virConnectStoragePoolEventDeregisterAny (Read, High) => ToCome(FRONT_DOOR);
    378 STORAGE_VOL_GET_INFO_FLAGS virStorageVolGetInfoFlags (Read, High) => ToCome(FRONT_DOOR);
    391 STORAGE_POOL_LOOKUP_BY_TARGET_PATH virStoragePoolLookupByTargetPath (Read, High) => ToCome(FRONT_DOOR);
    403 CONNECT_GET_STORAGE_POOL_CAPABILITIES virConnectGetStoragePoolCapabilities (Read, Low) => ToCome(FRONT_DOOR);
}
