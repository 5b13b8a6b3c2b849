//! What a domain is held to: the memory of its guest, and where its threads run.

use reeve_ipc::model::{Domain, MemorySize};

use super::schema::validate;
use super::{defined, dumped, parse};

fn document(elements: &str, devices: &str) -> String {
    format!(
        "<domain type='kvm'><name>n</name>{elements}<os><type>hvm</type><kernel>/k</kernel></os>\
         <devices>{devices}</devices></domain>"
    )
}

/// The document's domain, which is the same when it is printed and defined again.
fn stable(elements: &str, devices: &str) -> Domain {
    let domain = defined(&document(elements, devices));
    let text = dumped(&domain);
    assert_eq!(defined(&text), domain, "{text}");
    validate("domain", &[text]);
    domain
}

/// A memory device of 64 MiB, of which so much is requested.
fn device(requested: &str) -> String {
    format!(
        "<memory model='virtio-mem'><target><size unit='MiB'>64</size><node>0</node>\
         <block unit='MiB'>2</block>{requested}</target></memory>"
    )
}

const fn mib(mebibytes: u32) -> MemorySize {
    MemorySize::mebibytes(mebibytes)
}

#[test]
fn less_memory_than_there_is_is_asked_of_the_guest_and_as_much_or_more_says_nothing() {
    for (current, wanted) in [
        ("", None),
        (
            "<currentMemory unit='MiB'>48</currentMemory>",
            Some(mib(48)),
        ),
        ("<currentMemory unit='MiB'>64</currentMemory>", None),
        ("<currentMemory unit='MiB'>65</currentMemory>", None),
    ] {
        let elements = format!("<memory unit='MiB'>64</memory>{current}");
        let domain = stable(&elements, "");
        assert_eq!(
            (domain.memory, domain.tuning.current_memory),
            (mib(64), wanted)
        );
        let printed = wanted.unwrap_or(mib(64)).bytes() / 1024;
        let printed = format!("<currentMemory unit='KiB'>{printed}</currentMemory>");
        assert!(dumped(&domain).contains(&printed));
    }
}

#[test]
fn a_memory_device_brings_what_is_requested_of_it() {
    for (current, requested, wanted) in [
        ("", "", None),
        ("128", "", None),
        ("64", "0", None),
        ("48", "", Some(48_u32)),
        ("48", "0", Some(48_u32)),
        ("96", "", Some(96)),
        ("", "32", Some(96)),
        ("128", "32", Some(96)),
        ("96", "32", Some(96)),
        ("128", "64", Some(128)),
    ] {
        let tag = |name: &str, text: &str| match text {
            "" => String::new(),
            text => format!("<{name} unit='MiB'>{text}</{name}>"),
        };
        let current = tag("currentMemory", current);
        let elements = format!("<memory unit='MiB'>128</memory>{current}");
        let domain = stable(&elements, &device(&tag("requested", requested)));
        assert_eq!(domain.memory, mib(64));
        let wanted = wanted.map(MemorySize::mebibytes);
        assert_eq!(
            domain.tuning.current_memory, wanted,
            "{elements} {requested}"
        );
    }
}

#[test]
fn two_sizes_that_do_not_agree_are_refused_but_of_a_domain_that_runs() {
    let elements = "<memory unit='MiB'>128</memory><currentMemory unit='MiB'>80</currentMemory>";
    let requested = "<requested unit='MiB'>32</requested>";
    let error = parse(&document(elements, &device(requested))).unwrap_err();
    assert!(error.message.contains("requested"), "{error}");
    assert_eq!(error.code(), 27);
    let more = "<requested unit='MiB'>65</requested>";
    let error = parse(&document(elements, &device(more))).unwrap_err();
    assert!(error.message.contains("more is requested"), "{error}");
    // Its guest is on its way.
    let on_its_way = format!("{requested}<current unit='MiB'>16</current>");
    let domain = stable(elements, &device(&on_its_way));
    assert_eq!(domain.tuning.current_memory, Some(mib(96)));
}

#[test]
fn threads_that_are_no_vcpus_run_where_they_are_pinned() {
    let elements = "<memory unit='MiB'>64</memory><vcpu>2</vcpu>\
        <cputune><vcpupin vcpu='1' cpuset='3'/><emulatorpin cpuset='0-3,^2'/></cputune>";
    let domain = stable(elements, "");
    let emulator = domain.tuning.emulator_cpus.as_ref().unwrap();
    assert_eq!(emulator.to_string(), "0-1,3");
    assert!(dumped(&domain).contains("<emulatorpin cpuset='0-1,3'/>"));
    let alone = "<memory unit='MiB'>64</memory><cputune><emulatorpin cpuset='0'/></cputune>";
    assert!(stable(alone, "").pinning.is_empty());
}

#[test]
fn where_a_domain_runs_is_where_all_its_threads_do_that_are_not_pinned_by_themselves() {
    let elements = "<memory unit='MiB'>64</memory><vcpu cpuset='1'>2</vcpu>\
        <cputune><vcpupin vcpu='1' cpuset='3'/></cputune>";
    let domain = stable(elements, "");
    let pins: Vec<String> = domain
        .pinning
        .iter()
        .map(|pin| pin.cpus.to_string())
        .collect();
    assert_eq!(pins.len(), 2);
    let of = |vcpu: u32| domain.pinning.iter().find(|pin| pin.vcpu == vcpu).unwrap();
    assert_eq!(of(0).cpus.to_string(), "1");
    assert_eq!(of(1).cpus.to_string(), "3");
    assert_eq!(domain.tuning.emulator_cpus.unwrap().to_string(), "1");
    let own = "<memory unit='MiB'>64</memory><vcpu cpuset='1'>2</vcpu>\
        <cputune><emulatorpin cpuset='2'/></cputune>";
    let emulator = stable(own, "").tuning.emulator_cpus.unwrap();
    assert_eq!(emulator.to_string(), "2");
}

#[test]
fn shares_and_bounds_of_block_devices_are_read_and_written() {
    let elements = "<memory unit='MiB'>64</memory><blkiotune><weight>800</weight>\
        <device><path>/dev/sda</path><weight>1000</weight></device>\
        <device><path>/dev/sdb</path><read_bytes_sec>10000</read_bytes_sec>\
        <write_bytes_sec>0</write_bytes_sec><write_iops_sec>20000</write_iops_sec></device></blkiotune>";
    let domain = stable(elements, "");
    let block = &domain.tuning.block;
    assert_eq!((block.weight, block.devices.len()), (Some(800), 2));
    assert_eq!(block.devices[0].weight, Some(1000));
    assert_eq!(block.devices[1].read_bytes, Some(10_000));
    assert_eq!(block.devices[1].write_bytes, None);
    assert_eq!(block.devices[1].write_operations, Some(20_000));
    for wrong in [
        "<weight>70000</weight>",
        "<device><weight>1</weight></device>",
        "<device><path>/dev/a</path><speed>1</speed></device>",
    ] {
        let elements = format!("<memory unit='MiB'>64</memory><blkiotune>{wrong}</blkiotune>");
        assert!(parse(&document(&elements, "")).is_err(), "{wrong}");
    }
}

#[test]
fn the_nodes_of_memory_are_read_and_written() {
    let of = |memory: &str| {
        format!("<memory unit='MiB'>64</memory><numatune><memory {memory}/></numatune>")
    };
    for mode in ["strict", "preferred", "interleave", "restrictive"] {
        let domain = stable(&of(&format!("mode='{mode}' nodeset='1'")), "");
        let nodes = domain.tuning.memory_nodes.as_ref().unwrap();
        assert_eq!(nodes.nodes.to_string(), "1");
        let wanted = format!("<memory mode='{mode}' nodeset='1'/>");
        assert!(dumped(&domain).contains(&wanted));
    }
    let left_out = stable(&of("mode='strict' nodeset='0-3,^2'"), "");
    let nodes = left_out.tuning.memory_nodes.unwrap().nodes;
    assert_eq!(nodes.to_string(), "0-1,3");
    for wrong in [
        "mode='strict'",
        "mode='nothing' nodeset='0'",
        "mode='strict' placement='auto'",
        "nodeset='x'",
    ] {
        assert!(parse(&document(&of(wrong), "")).is_err(), "{wrong}");
    }
}
