//! Any text as each of libvirt's documents: refused, or what is printed of it is read again and printed the
//! same.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use reeve_gateway::xml::domain::{self, Hypervisor, Parse, View};
use reeve_gateway::xml::network::{self, Section};
use reeve_gateway::xml::{device, nwfilter, storage};
use reeve_ipc::model::{Devices, DomainUuid, EditCommand, NetworkUuid, NwfilterUuid, PoolUuid};

fuzz_target!(|text: &str| {
    let uuid = DomainUuid(uuid::Uuid::from_u128(1));
    let sockets = Path::new("/run/reeve");
    let how = Parse {
        uuid,
        sockets,
        hypervisor: Hypervisor::Kvm,
    };
    let view = View {
        live: None,
        secure: false,
        migratable: false,
        sockets,
        hypervisor: Hypervisor::Kvm,
    };
    if let Ok(parsed) = domain::parse(text, &how) {
        let mut domain = parsed.domain;
        if domain.complete().is_ok() && domain.validate().is_ok() {
            let first = domain::format(&domain, &view);
            let again = domain::parse(&first, &how).expect("what was printed can be read");
            assert_eq!(domain::format(&again.domain, &view), first);
        }
    }
    let _ = device::parse(text, uuid, sockets);
    let _ = device::identify(text, &Devices::default());
    if let Ok(pool) = storage::parse_pool(text, PoolUuid(uuid::Uuid::nil())) {
        let first = storage::format_pool(&pool, None);
        let again = storage::parse_pool(&first, PoolUuid(uuid::Uuid::nil()))
            .expect("what was printed can be read");
        assert_eq!(storage::format_pool(&again, None), first);
    }
    let nil = NetworkUuid(uuid::Uuid::nil());
    if let Ok(found) = network::parse_network(text, nil) {
        if found.validate().is_ok() {
            let first = network::format_network(&found, None);
            let again = network::parse_network(&first, nil).expect("what was printed can be read");
            assert_eq!(network::format_network(&again, None), first);
        }
    }
    let nil = NwfilterUuid(uuid::Uuid::nil());
    if let Ok(found) = nwfilter::parse_nwfilter(text, nil) {
        let first = nwfilter::format_nwfilter(&found);
        let again = nwfilter::parse_nwfilter(&first, nil).expect("what was printed can be read");
        assert_eq!(again, found);
    }
    let sections = [
        Section::DhcpHost,
        Section::DhcpRange,
        Section::ForwardInterface,
        Section::PortGroup,
        Section::DnsHost,
        Section::DnsText,
        Section::DnsService,
    ];
    for section in sections {
        let _ = network::parse_part(text, section, EditCommand::Delete, None, "n");
    }
    if let Ok(disks) = storage::disk_volumes(text) {
        let paths = vec![Path::new("/v"); disks.len()];
        let with = storage::with_disk_paths(text, &disks, &paths);
        // It is none any more where a path was said as well.
        let left = storage::disk_volumes(&with).unwrap_or_default();
        assert!(left.is_empty(), "{with}");
    }
    if let Ok(document) = storage::parse_volume(text) {
        let _ = document.clone().copied(None);
        let _ = document.made();
    }
});
