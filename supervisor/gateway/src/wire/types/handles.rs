//! What a client holds of an object and sends back with every call about it. All of it is the client's
//! word: an object is found by its UUID or name, and the rest is not believed.

use crate::wire::call::record;

/// Sixteen bytes as they are.
pub type Uuid = [u8; 16];

record! {
    /// A domain. Its id is -1 while it is shut off, and clients act on that.
    #[derive(Eq)]
    Domain { name: String, uuid: Uuid, id: i32 }
}

record! {
    /// A network.
    #[derive(Eq)]
    Network { name: String, uuid: Uuid }
}

record! {
    /// A storage pool.
    #[derive(Eq)]
    Pool { name: String, uuid: Uuid }
}

record! {
    /// A storage volume: its pool's name, its own, and a key that is its alone on this host.
    #[derive(Eq)]
    Volume { pool: String, name: String, key: String }
}

record! {
    /// An interface of the host.
    #[derive(Eq)]
    Interface { name: String, mac: String }
}

record! {
    /// A device of the host.
    #[derive(Eq)]
    NodeDevice { name: String }
}

record! {
    /// A network filter.
    #[derive(Eq)]
    Nwfilter { name: String, uuid: Uuid }
}

record! {
    /// A network filter on a port.
    #[derive(Eq)]
    NwfilterBinding { port_device: String, filter: String }
}

record! {
    /// A secret.
    #[derive(Eq)]
    Secret { uuid: Uuid, usage_type: i32, usage_id: String }
}

record! {
    /// A snapshot of a domain.
    #[derive(Eq)]
    Snapshot { name: String, domain: Domain }
}

record! {
    /// A checkpoint of a domain.
    #[derive(Eq)]
    Checkpoint { name: String, domain: Domain }
}

record! {
    /// A port of a network.
    #[derive(Eq)]
    NetworkPort { network: Network, uuid: Uuid }
}
