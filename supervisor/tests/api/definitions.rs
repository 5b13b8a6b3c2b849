//! Definitions at the edge: what is taken can be given back, and what cannot is refused at once.

use std::path::PathBuf;

use reeve_ipc::api::call::{DomainDefine, DomainDefinitionGet, SupervisorInfoGet};
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::model::{
    BootSource, CpuSet, Domain, KernelBoot, MAX_DESCRIPTION_BYTES, MAX_METADATA_BYTES,
    MAX_TITLE_BYTES, MetadataElement, VcpuPin, Vcpus,
};

use super::harness::{Instance, code, domain, named};

fn give_back(instance: &Instance, definition: &Domain) {
    let mut connection = instance.connect();
    let kept = connection.call(DomainDefine {
        definition: Box::new(definition.clone()),
        only_new: false,
    });
    match kept {
        Ok(_) => {
            let returned = connection.call(DomainDefinitionGet {
                domain: named(definition.name.as_str()),
                persistent: true,
            });
            assert_eq!(&returned.unwrap().domain, definition);
        }
        Err(error) => {
            assert!(definition.validate().is_err(), "{error}");
            // One that fits no message at all costs its client the connection.
            if let Some(code) = code(&error) {
                assert_eq!(code, ApiErrorCode::InvalidArgument, "{error}");
            }
        }
    }
}

#[test]
fn whatever_definition_is_taken_can_be_given_back() {
    let instance = Instance::start("");
    // A path, and CPU sets, as large as a message can say.
    for bytes in [4000, 40_000, 65_000, 65_300, 65_400] {
        let mut definition = domain(&format!("p{bytes}"));
        definition.boot = BootSource::Kernel(KernelBoot {
            kernel: PathBuf::from(format!("/{}", "k".repeat(bytes))),
            initrd: None,
            command_line: String::new(),
        });
        give_back(&instance, &definition);
    }
    let scattered: Vec<String> = (0..2000).map(|cpu| (cpu * 2).to_string()).collect();
    let scattered: CpuSet = scattered.join(",").parse().unwrap();
    for pins in 1..12 {
        let mut definition = domain(&format!("c{pins}"));
        definition.vcpus = Vcpus::try_from(64).unwrap();
        definition.max_vcpus = definition.vcpus;
        definition.pinning = (0..pins)
            .map(|vcpu| VcpuPin {
                vcpu,
                cpus: scattered.clone(),
            })
            .collect();
        give_back(&instance, &definition);
    }
}

#[test]
fn the_largest_labels_are_taken_and_given_back() {
    let mut instance = Instance::start("");
    let mut definition = domain("large");
    // Control characters are the longest in JSON.
    definition.labels.title = Some("\u{1}".repeat(MAX_TITLE_BYTES));
    definition.labels.description = Some("\u{1}".repeat(MAX_DESCRIPTION_BYTES));
    definition.labels.metadata = vec![MetadataElement {
        uri: "u".to_owned(),
        content: "\u{1}".repeat(MAX_METADATA_BYTES - 1),
    }];
    definition.validate().unwrap();
    give_back(&instance, &definition);
    instance.crash();
    let returned = instance.connect().call(DomainDefinitionGet {
        domain: named("large"),
        persistent: true,
    });
    assert_eq!(returned.unwrap().domain, definition);
}

#[test]
fn a_directory_full_of_damaged_records_is_told_in_a_message_that_fits() {
    let mut instance = Instance::start("");
    for number in 0..1000 {
        let name = format!("{}.json", uuid::Uuid::from_u128(number));
        std::fs::write(instance.state().join("domains").join(name), "{").unwrap();
    }
    instance.crash();
    let info = instance.connect().call(SupervisorInfoGet {}).unwrap();
    assert!(info.refused.len() > 10, "{:?}", info.refused);
    let last = info.refused.last().unwrap();
    assert!(last.contains("more"), "{last}");
}
