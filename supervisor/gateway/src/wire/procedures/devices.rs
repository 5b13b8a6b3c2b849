//! Devices of the host, and secrets.

use super::Access::{Read, Write};
use super::Rank::{High, Low};
use super::State::{Served, ToCome};
use super::call_rows;
use super::reason::{NEWER, NODE_DEVICES, SECRETS};

call_rows! {
    111 NODE_NUM_OF_DEVICES virNodeNumOfDevices (Read, High) => Served;
    112 NODE_LIST_DEVICES virNodeListDevices (Read, High) => Served;
    113 NODE_DEVICE_LOOKUP_BY_NAME virNodeDeviceLookupByName (Read, High) => Served;
    114 NODE_DEVICE_GET_XML_DESC virNodeDeviceGetXMLDesc (Read, Low) => ToCome(NODE_DEVICES);
    115 NODE_DEVICE_GET_PARENT virNodeDeviceGetParent (Read, High) => ToCome(NODE_DEVICES);
    116 NODE_DEVICE_NUM_OF_CAPS virNodeDeviceNumOfCaps (Read, High) => ToCome(NODE_DEVICES);
    117 NODE_DEVICE_LIST_CAPS virNodeDeviceListCaps (Read, High) => ToCome(NODE_DEVICES);
    118 NODE_DEVICE_DETTACH virNodeDeviceDettach (Write, Low) => ToCome(NODE_DEVICES);
    119 NODE_DEVICE_RE_ATTACH virNodeDeviceReAttach (Write, Low) => ToCome(NODE_DEVICES);
    120 NODE_DEVICE_RESET virNodeDeviceReset (Write, Low) => ToCome(NODE_DEVICES);
    123 NODE_DEVICE_CREATE_XML virNodeDeviceCreateXML (Write, Low) => ToCome(NODE_DEVICES);
    124 NODE_DEVICE_DESTROY virNodeDeviceDestroy (Write, High) => ToCome(NODE_DEVICES);
    139 CONNECT_NUM_OF_SECRETS virConnectNumOfSecrets (Read, High) => Served;
    140 CONNECT_LIST_SECRETS virConnectListSecrets (Read, High) => Served;
    141 SECRET_LOOKUP_BY_UUID virSecretLookupByUUID (Read, High) => Served;
    142 SECRET_DEFINE_XML virSecretDefineXML (Write, High) => ToCome(SECRETS);
    143 SECRET_GET_XML_DESC virSecretGetXMLDesc (Read, High) => ToCome(SECRETS);
    144 SECRET_SET_VALUE virSecretSetValue (Write, High) => ToCome(SECRETS);
    145 SECRET_GET_VALUE virSecretGetValue (Write, High) => ToCome(SECRETS);
    146 SECRET_UNDEFINE virSecretUndefine (Write, High) => ToCome(SECRETS);
    147 SECRET_LOOKUP_BY_USAGE virSecretLookupByUsage (Read, High) => Served;
    285 CONNECT_LIST_ALL_NODE_DEVICES virConnectListAllNodeDevices (Read, High) => Served;
    287 CONNECT_LIST_ALL_SECRETS virConnectListAllSecrets (Read, High) => Served;
    297 NODE_DEVICE_LOOKUP_SCSI_HOST_BY_WWN virNodeDeviceLookupSCSIHostByWWN (Read, High) => ToCome(NODE_DEVICES);
    301 NODE_DEVICE_DETACH_FLAGS virNodeDeviceDetachFlags (Write, Low) => ToCome(NODE_DEVICES);
    374 CONNECT_NODE_DEVICE_EVENT_REGISTER_ANY virConnectNodeDeviceEventRegisterAny (Read, High) => ToCome(NODE_DEVICES);
    375 CONNECT_NODE_DEVICE_EVENT_DEREGISTER_ANY virConnectNodeDeviceEventDeregisterAny (Read, High) => ToCome(NODE_DEVICES);
    380 CONNECT_SECRET_EVENT_REGISTER_ANY virConnectSecretEventRegisterAny (Read, High) => ToCome(SECRETS);
    381 CONNECT_SECRET_EVENT_DEREGISTER_ANY virConnectSecretEventDeregisterAny (Read, High) => ToCome(SECRETS);
    428 NODE_DEVICE_DEFINE_XML virNodeDeviceDefineXML (Write, Low) => ToCome(NODE_DEVICES);
    429 NODE_DEVICE_UNDEFINE virNodeDeviceUndefine (Write, High) => ToCome(NODE_DEVICES);
    430 NODE_DEVICE_CREATE virNodeDeviceCreate (Write, High) => ToCome(NODE_DEVICES);
    433 NODE_DEVICE_GET_AUTOSTART virNodeDeviceGetAutostart (Write, High) => ToCome(NODE_DEVICES);
    434 NODE_DEVICE_SET_AUTOSTART virNodeDeviceSetAutostart (Write, High) => ToCome(NODE_DEVICES);
    435 NODE_DEVICE_IS_PERSISTENT virNodeDeviceIsPersistent (Read, High) => ToCome(NODE_DEVICES);
    436 NODE_DEVICE_IS_ACTIVE virNodeDeviceIsActive (Read, High) => ToCome(NODE_DEVICES);
    447 NODE_DEVICE_UPDATE virNodeDeviceUpdate (Write, Low) => ToCome(NEWER);
}
