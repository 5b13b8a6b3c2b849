//! Virtual networks: what libvirt's users know by `virsh net-list`.
//!
//! What lives here: the rules of networks, one actor for each, and who is connected to them. What may not: sockets
//! and access (`api`), the form of what is kept (`store`), links, rules and processes of the host
//! (`crate::host::network`, asked for through [`host::NetworkHost`]).

pub mod host;
