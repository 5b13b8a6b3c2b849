//! Documents that nobody means well with: none ends this process, and what passes is what it says.

use std::path::Path;

use proptest::prelude::*;
use reeve_gateway::xml::{device, storage};
use reeve_ipc::model::{Devices, DomainUuid, PoolUuid};

use super::{dumped, parse, sockets};

/// Every reader of documents.
fn read(text: &str) {
    if let Ok(parsed) = parse(text) {
        let mut domain = parsed.domain;
        if domain.complete().is_ok() && domain.validate().is_ok() {
            let text = dumped(&domain);
            let again = parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert_eq!(dumped(&again.domain), text);
        }
    }
    let _ = device::parse(text, DomainUuid(uuid::Uuid::nil()), sockets());
    let _ = device::identify(text, &Devices::default());
    if let Ok(pool) = storage::parse_pool(text, PoolUuid(uuid::Uuid::nil())) {
        let first = storage::format_pool(&pool, None);
        let again = storage::parse_pool(&first, PoolUuid(uuid::Uuid::nil()))
            .unwrap_or_else(|error| panic!("{error}\n{first}"));
        assert_eq!(storage::format_pool(&again, None), first);
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
}

const NAMES: [&str; 44] = [
    "domain",
    "name",
    "uuid",
    "memory",
    "vcpu",
    "os",
    "type",
    "kernel",
    "devices",
    "disk",
    "source",
    "target",
    "driver",
    "interface",
    "mac",
    "controller",
    "address",
    "alias",
    "metadata",
    "cpu",
    "feature",
    "clock",
    "timer",
    "features",
    "console",
    "serial",
    "channel",
    "memballoon",
    "stats",
    "rng",
    "backend",
    "rate",
    "vsock",
    "cid",
    "filesystem",
    "backingStore",
    "format",
    "iotune",
    "reeve:domain",
    "boot",
    "pool",
    "volume",
    "path",
    "permissions",
];
const ATTRIBUTES: [&str; 12] = [
    "type",
    "dev",
    "bus",
    "name",
    "file",
    "slot",
    "address",
    "model",
    "mode",
    "unit",
    "xmlns:reeve",
    "xmlns",
];
const VALUES: [&str; 16] = [
    "kvm",
    "file",
    "vda",
    "virtio",
    "0x05",
    "-1",
    "99999999999999999999",
    "",
    "pci",
    "urn:x-reeve:domain:1",
    "52:54:00:00:00:01",
    "bridge",
    "none",
    "host-model",
    "&lt;",
    "unix",
];

fn tree() -> impl Strategy<Value = String> {
    let attribute = (
        prop::sample::select(&ATTRIBUTES[..]),
        prop::sample::select(&VALUES[..]),
    );
    let name = prop::sample::select(&NAMES[..]);
    let open = (
        name,
        prop::collection::btree_map(
            attribute.prop_map(|(a, _)| a),
            prop::sample::select(&VALUES[..]),
            0..4,
        ),
    )
        .prop_map(|(name, attributes)| {
            let attributes: String = attributes
                .iter()
                .map(|(name, value)| format!(" {name}='{value}'"))
                .collect();
            (name, attributes)
        });
    let leaf = open.clone().prop_flat_map(|(name, attributes)| {
        prop::sample::select(&VALUES[..])
            .prop_map(move |text| format!("<{name}{attributes}>{text}</{name}>"))
    });
    leaf.prop_recursive(5, 60, 8, move |inner| {
        (open.clone(), prop::collection::vec(inner, 0..8)).prop_map(
            |((name, attributes), children)| {
                format!("<{name}{attributes}>{}</{name}>", children.concat())
            },
        )
    })
}

const SEEDS: [&str; 8] = [
    include_str!("../data/virt-install-kernel.xml"),
    include_str!("../data/virt-install-usb2-vnc.xml"),
    include_str!("../data/virt-manager-wizard.xml"),
    include_str!("../data/nova.xml"),
    include_str!("../data/libvirt-live.xml"),
    include_str!("../data/everything.xml"),
    include_str!("../data/pool.xml"),
    include_str!("../data/volume.xml"),
];

/// A seed of which parts are gone, doubled or another's.
fn mutated() -> impl Strategy<Value = String> {
    let edit = (
        any::<prop::sample::Index>(),
        0..60_usize,
        prop::option::of(any::<prop::sample::Index>()),
    );
    (
        prop::sample::select(&SEEDS[..]),
        prop::collection::vec(edit, 1..6),
    )
        .prop_map(|(seed, edits)| {
            let mut text: Vec<u8> = seed.as_bytes().to_vec();
            for (at, length, from) in edits {
                let at = at.index(text.len().max(1));
                let end = text.len().min(at + length);
                let with: Vec<u8> = match from {
                    Some(from) => {
                        let start = from.index(seed.len());
                        seed.as_bytes()[start..seed.len().min(start + length)].to_vec()
                    }
                    None => Vec::new(),
                };
                text.splice(at.min(end)..end, with);
            }
            String::from_utf8_lossy(&text).into_owned()
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_tree_is_read_or_refused(tree in tree()) {
        read(&tree);
        read(&format!("<domain type='kvm'><name>a</name><memory>65536</memory><os><type>hvm</type>\
            <kernel>/k</kernel></os><devices>{tree}</devices>{tree}</domain>"));
    }

    #[test]
    fn any_mutation_is_read_or_refused(text in mutated()) {
        read(&text);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        read(&text);
    }
}

#[test]
fn what_costs_more_than_its_bytes_is_refused_at_once() {
    let start = std::time::Instant::now();
    let attributes: String = (0..300_000).map(|n| format!(" a{n}=''")).collect();
    let namespaces: String = (0..100_000)
        .map(|n| format!("<a xmlns:n{n}='u'>"))
        .collect();
    for text in [
        "<a>".repeat(1_000_000),
        format!("<a{attributes}/>"),
        namespaces,
        "<a/>".repeat(1_000_000),
        format!("<domain>{}</domain>", "<!-- -->".repeat(400_000)),
        format!("<domain>{}", "&amp;".repeat(800_000)),
        "<![CDATA[".repeat(400_000),
        " ".repeat(4 << 20),
        "x".repeat(5 << 20),
    ] {
        assert_eq!(parse(&text).unwrap_err().code(), 35);
    }
    // Each is a pass over the bytes.
    assert!(
        start.elapsed() < std::time::Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
}
