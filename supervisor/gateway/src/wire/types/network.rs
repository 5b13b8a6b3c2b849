//! Networks; and of what else the host has what clients ask at their start: lists, and look-ups that find nothing
//! where there is nothing.

use super::handles::{
    Interface, Network, NetworkPort, NodeDevice, Nwfilter, NwfilterBinding, Secret, Uuid,
};
use super::params::Params;
use super::{NODE_DEVICES_MAX, OBJECTS_MAX};
use crate::wire::call::{calls, record};
use crate::wire::xdr::List;

record! {
    /// A lease: when it ends (s since 1970), an address of IPv4 (0) or IPv6 (1), and whose it is.
    #[derive(Eq)]
    DhcpLease {
        interface: String,
        expiry: i64,
        kind: i32,
        mac: Option<String>,
        iaid: Option<String>,
        address: String,
        prefix: u32,
        hostname: Option<String>,
        client_id: Option<String>,
    }
}

calls! { Remote;
    /// Names of those that are not active, at most so many.
    ConnectListDefinedNetworks = 36 { maxnames: i32 } -> List<String, OBJECTS_MAX>;
    /// Names of those that are active, at most so many.
    ConnectListNetworks = 38 { maxnames: i32 } -> List<String, OBJECTS_MAX>;
    /// Starts it.
    NetworkCreate = 39 { network: Network } -> ();
    /// Makes a network and starts it.
    NetworkCreateXml = 40 { xml: String } -> Network;
    /// Defines a network.
    NetworkDefineXml = 41 { xml: String } -> Network;
    /// Stops it.
    NetworkDestroy = 42 { network: Network } -> ();
    /// Its document.
    NetworkGetXmlDesc = 43 { network: Network, flags: u32 } -> String;
    /// Whether it is started with the host.
    NetworkGetAutostart = 44 { network: Network } -> bool;
    /// The bridge it is on.
    NetworkGetBridgeName = 45 { network: Network } -> String;
    /// One by its name.
    NetworkLookupByName = 46 { name: String } -> Network;
    /// One by its UUID.
    NetworkLookupByUuid = 47 { uuid: Uuid } -> Network;
    /// Whether it is started with the host.
    NetworkSetAutostart = 48 { network: Network, autostart: bool } -> ();
    /// Forgets its definition.
    NetworkUndefine = 49 { network: Network } -> ();
    /// How many are not active.
    ConnectNumOfDefinedNetworks = 50 {} -> i32;
    /// How many are active.
    ConnectNumOfNetworks = 52 {} -> i32;
    /// How many devices of a capability the host has.
    NodeNumOfDevices = 111 { capability: Option<String>, flags: u32 } -> i32;
    /// Their names, at most so many.
    NodeListDevices = 112 { capability: Option<String>, maxnames: i32, flags: u32 }
        -> List<String, NODE_DEVICES_MAX>;
    /// A device by its name.
    NodeDeviceLookupByName = 113 { name: String } -> NodeDevice;
    /// How many interfaces the host has.
    ConnectNumOfInterfaces = 126 {} -> i32;
    /// Their names, at most so many.
    ConnectListInterfaces = 127 { maxnames: i32 } -> List<String, OBJECTS_MAX>;
    /// An interface by its name.
    InterfaceLookupByName = 128 { name: String } -> Interface;
    /// An interface by its MAC address.
    InterfaceLookupByMacString = 129 { mac: String } -> Interface;
    /// An interface's document; 1: as it is defined, rather than as it is.
    InterfaceGetXmlDesc = 130 { interface: Interface, flags: u32 } -> String;
    /// How many interfaces the host has that are down.
    ConnectNumOfDefinedInterfaces = 137 {} -> i32;
    /// Their names, at most so many.
    ConnectListDefinedInterfaces = 138 { maxnames: i32 } -> List<String, OBJECTS_MAX>;
    /// Whether an interface is up.
    InterfaceIsActive = 156 { interface: Interface } -> bool;
    /// How many secrets there are.
    ConnectNumOfSecrets = 139 {} -> i32;
    /// Their UUIDs as text, at most so many.
    ConnectListSecrets = 140 { maxuuids: i32 } -> List<String, OBJECTS_MAX>;
    /// A secret by its UUID.
    SecretLookupByUuid = 141 { uuid: Uuid } -> Secret;
    /// A secret by what it is for.
    SecretLookupByUsage = 147 { usage_type: i32, usage_id: String } -> Secret;
    /// Whether it is active.
    NetworkIsActive = 152 { network: Network } -> bool;
    /// Whether it has a definition.
    NetworkIsPersistent = 153 { network: Network } -> bool;
    /// A filter by its name.
    NwfilterLookupByName = 175 { name: String } -> Nwfilter;
    /// A filter by its UUID.
    NwfilterLookupByUuid = 176 { uuid: Uuid } -> Nwfilter;
    /// Its document.
    NwfilterGetXmlDesc = 177 { filter: Nwfilter, flags: u32 } -> String;
    /// How many filters there are.
    ConnectNumOfNwfilters = 178 {} -> i32;
    /// Their names, at most so many.
    ConnectListNwfilters = 179 { maxnames: i32 } -> List<String, OBJECTS_MAX>;
    /// Defines a filter.
    NwfilterDefineXml = 180 { xml: String } -> Nwfilter;
    /// Forgets its definition.
    NwfilterUndefine = 181 { filter: Nwfilter } -> ();
    /// All networks that the flags leave, or how many.
    ConnectListAllNetworks = 283 { need_results: bool, flags: u32 }
        => NetworkList { networks: List<Network, OBJECTS_MAX>, ret: u32 };
    /// All interfaces that the flags leave, or how many.
    ConnectListAllInterfaces = 284 { need_results: bool, flags: u32 }
        => InterfaceList { interfaces: List<Interface, OBJECTS_MAX>, ret: u32 };
    /// All devices of the host that the flags leave, or how many.
    ConnectListAllNodeDevices = 285 { need_results: bool, flags: u32 }
        => NodeDeviceList { devices: List<NodeDevice, NODE_DEVICES_MAX>, ret: u32 };
    /// All filters, or how many.
    ConnectListAllNwfilters = 286 { need_results: bool, flags: u32 }
        => NwfilterList { filters: List<Nwfilter, OBJECTS_MAX>, ret: u32 };
    /// All secrets that the flags leave, or how many.
    ConnectListAllSecrets = 287 { need_results: bool, flags: u32 }
        => SecretList { secrets: List<Secret, OBJECTS_MAX>, ret: u32 };
    /// Changes a section of its document: 1 modify, 2 delete, 3 add last, 4 add first. Flags: 1 of the
    /// active network, 2 of its definition.
    NetworkUpdate = 291 {
        network: Network,
        command: u32,
        section: u32,
        parent_index: i32,
        xml: String,
        flags: u32,
    } -> ();
    /// Its leases, all or one MAC address's, or how many.
    NetworkGetDhcpLeases = 341 { network: Network, mac: Option<String>, need_results: bool, flags: u32 }
        => DhcpLeases { leases: List<DhcpLease, 65_536>, ret: u32 };
    /// The filter on the port of that name.
    NwfilterBindingLookupByPortDev = 397 { name: String } -> NwfilterBinding;
    /// The document of a filter on a port.
    NwfilterBindingGetXmlDesc = 398 { binding: NwfilterBinding, flags: u32 } -> String;
    /// All filters on ports, or how many.
    ConnectListAllNwfilterBindings = 401 { need_results: bool, flags: u32 }
        => NwfilterBindingList { bindings: List<NwfilterBinding, OBJECTS_MAX>, ret: u32 };
    /// All its ports, or how many.
    NetworkListAllPorts = 404 { network: Network, need_results: bool, flags: u32 }
        => NetworkPortList { ports: List<NetworkPort, OBJECTS_MAX>, ret: u32 };
    /// A port by its UUID.
    NetworkPortLookupByUuid = 405 { network: Network, uuid: Uuid } -> NetworkPort;
    /// Makes a port.
    NetworkPortCreateXml = 406 { network: Network, xml: String, flags: u32 } -> NetworkPort;
    /// What may go through a port, or asked with room for none, how many parameters that has.
    NetworkPortGetParameters = 407 { port: NetworkPort, nparams: i32, flags: u32 }
        => PortParams { params: Params<16>, nparams: i32 };
    /// What may go through a port.
    NetworkPortSetParameters = 408 { port: NetworkPort, params: Params<16>, flags: u32 } -> ();
    /// A port's document.
    NetworkPortGetXmlDesc = 409 { port: NetworkPort, flags: u32 } -> String;
    /// Takes a port away.
    NetworkPortDelete = 410 { port: NetworkPort, flags: u32 } -> ();
    /// Defines a filter; 1: only if the document is valid.
    NwfilterDefineXmlFlags = 431 { xml: String, flags: u32 } -> Nwfilter;
    /// Defines a network; 1: only if the document is valid.
    NetworkDefineXmlFlags = 432 { xml: String, flags: u32 } -> Network;
    /// Makes a network and starts it; 1: only if the document is valid.
    NetworkCreateXmlFlags = 437 { xml: String, flags: u32 } -> Network;
    /// The description (0), the title (1), or an element of a namespace (2). Flags: 1 of the active network, 2 of
    /// its definition.
    NetworkSetMetadata = 444 {
        network: Network,
        kind: i32,
        metadata: Option<String>,
        key: Option<String>,
        uri: Option<String>,
        flags: u32,
    } -> ();
    /// The description (0), the title (1), or an element of a namespace (2).
    NetworkGetMetadata = 445 { network: Network, kind: i32, uri: Option<String>, flags: u32 } -> String;
}
