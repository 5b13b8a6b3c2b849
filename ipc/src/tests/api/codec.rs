//! What the decoder refuses of the native API's messages, and that it gives back what the encoder took.

use proptest::prelude::*;

use super::arbitrary;
use super::samples::from_client;
use super::supervisor_samples::to_client;
use crate::MAX_MESSAGE_BYTES;
use crate::api::MAX_PAGE;
use crate::api::call::{AnswerBody, CallBody, DomainDefine, DomainPage};
use crate::api::host::{
    HostNode, HostPages, MAX_CPU_FLAGS, MAX_HOST_NODES, MAX_HOST_TEXT_BYTES, MAX_PAGE_SIZES,
};
use crate::api::message::{CallId, FromClient, ToClient};
use crate::api::view::{DomainDefinition, DomainSummary};
use crate::codec::{CodecError, decode, encode};
use crate::model::{
    BootSource, CpuSet, Domain, DomainName, KernelBoot, MAX_DESCRIPTION_BYTES, MAX_HOST_CPUS,
    MAX_METADATA_BYTES, MAX_TITLE_BYTES, MemorySize, MetadataElement, ModelError, VcpuPin, Vcpus,
};

/// The varint of `u64::MAX`: the longest length a message can claim.
const HUGE: [u8; 9] = [253, 255, 255, 255, 255, 255, 255, 255, 255];

fn samples() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let from = from_client();
    let from = from.iter().map(|(_, message)| encode(message).unwrap());
    let to = to_client();
    let to = to.iter().map(|(_, message)| encode(message).unwrap());
    (from.collect(), to.collect())
}

#[test]
fn every_message_cut_at_any_length_is_refused() {
    let (from, to) = samples();
    for bytes in from {
        for length in 0..bytes.len() {
            assert!(decode::<FromClient>(&bytes[..length]).is_err(), "{bytes:?}");
        }
    }
    for bytes in to {
        for length in 0..bytes.len() {
            assert!(decode::<ToClient>(&bytes[..length]).is_err(), "{bytes:?}");
        }
    }
}

#[test]
fn any_byte_behind_a_whole_message_is_refused() {
    let (from, to) = samples();
    for mut bytes in from {
        bytes.push(0);
        let error = decode::<FromClient>(&bytes).unwrap_err();
        assert!(matches!(error, CodecError::TrailingBytes(1)), "{error}");
    }
    for mut bytes in to {
        bytes.push(0);
        let error = decode::<ToClient>(&bytes).unwrap_err();
        assert!(matches!(error, CodecError::TrailingBytes(1)), "{error}");
    }
}

#[test]
fn a_length_beyond_the_message_is_refused() {
    for before in [
        &[0, 1][..],                // Hello.client
        &[1, 7, 2],                 // LogFilterSet.filter
        &[1, 7, 3, 1],              // DomainList.after
        &[1, 7, 4, 0],              // DomainGet.domain
        &[1, 7, 7],                 // DomainDefine.definition.name
        &[1, 7, 19, 0, 1, b'x', 2], // DomainLabelSet.label.metadata.uri
    ] {
        let mut bytes = before.to_vec();
        bytes.extend(HUGE);
        let result = decode::<FromClient>(&bytes);
        assert!(matches!(result, Err(CodecError::Malformed(_))), "{bytes:?}");
    }
    for before in [
        &[0, 1][..],          // Welcome.build
        &[1, 0],              // Refused.message
        &[2, 7, 0, 0],        // SupervisorInfo.build
        &[2, 7, 0, 1],        // ConfigReload: a list
        &[2, 7, 0, 3],        // DomainPage.domains: a list
        &[2, 7, 1, 0],        // Reply.error.message
        &[3, 1, 1, 0, 1, 16], // Event.uuid, cut
    ] {
        let mut bytes = before.to_vec();
        bytes.extend(HUGE);
        assert!(decode::<ToClient>(&bytes).is_err(), "{bytes:?}");
    }
}

#[test]
fn an_unknown_variant_is_refused_at_every_level() {
    for bytes in [
        &[2, 1, 0][..],       // message
        &[1, 7, 90],          // call
        &[1, 7, 4, 3, 0],     // domain reference
        &[1, 7, 6, 3],        // the same
        &[1, 7, 3, 2, 0],     // option
        &[1, 7, 3, 0, 2],     // bool
        &[1, 7, 21, 2, 1, 2], // log
    ] {
        assert!(decode::<FromClient>(bytes).is_err(), "{bytes:?}");
    }
    assert!(
        decode::<FromClient>(&[1, 7, 21, 2, 1, 1]).is_ok(),
        "the line above is one byte off this"
    );
    for bytes in [
        &[4, 0][..],    // message
        &[0, 1, 0, 2],  // access
        &[1, 26, 0],    // code
        &[2, 7, 0, 91], // answer
        &[2, 7, 2, 0],  // result
    ] {
        assert!(decode::<ToClient>(bytes).is_err(), "{bytes:?}");
    }
    assert!(decode::<ToClient>(&[0, 1, 0, 1]).is_ok());
    assert!(decode::<ToClient>(&[1, 25, 0]).is_ok());
}

#[test]
fn what_the_model_does_not_allow_is_no_message() {
    let text = |body: &[u8], text: &[u8]| {
        let mut bytes = vec![1, 7];
        bytes.extend(body);
        bytes.push(u8::try_from(text.len()).unwrap());
        bytes.extend(text);
        decode::<FromClient>(&bytes)
    };
    assert!(text(&[4, 0], b"web").is_ok());
    for name in [&b""[..], b" ", b".", b"..", b"a/b", b"a\nb", b"\xff", b"\0"] {
        assert!(text(&[4, 0], name).is_err(), "{name:?}");
    }
    let define = |domain: &Domain| {
        let body = CallBody::DomainDefine(DomainDefine {
            definition: Box::new(domain.clone()),
            only_new: false,
        });
        let id = CallId(7);
        encode(&FromClient::Call { id, body }).unwrap()
    };
    let domain = super::samples::bare_domain();
    let good = define(&domain);
    // Its vCPUs stand behind the envelope, the name and the UUID, and the machine.
    let vcpus = 3 + 3 + 17 + 1;
    assert_eq!(good[vcpus], 1);
    let mut none = good.clone();
    none[vcpus] = 0;
    assert!(decode::<FromClient>(&none).is_err(), "no vCPU");
    let mut many = good;
    many.splice(vcpus..=vcpus, [252, 255, 255, 255, 255]);
    assert!(decode::<FromClient>(&many).is_err(), "too many vCPUs");
}

#[test]
fn the_largest_definition_and_the_largest_page_fit_a_message() {
    let mut domain = super::samples::domain();
    let longest = |bytes: usize| Some("x".repeat(bytes));
    domain.name = DomainName::try_from("n".repeat(255)).unwrap();
    domain.labels.title = longest(MAX_TITLE_BYTES);
    domain.labels.description = longest(MAX_DESCRIPTION_BYTES);
    domain.labels.metadata = vec![MetadataElement {
        uri: "u".to_owned(),
        content: "x".repeat(MAX_METADATA_BYTES - 1),
    }];
    domain.limits.memory = Some(domain.max_memory());
    domain.limits.memory_and_swap = domain.limits.memory;
    domain.validate().unwrap();
    let body = CallBody::DomainDefine(DomainDefine {
        definition: Box::new(domain),
        only_new: false,
    });
    let message = FromClient::Call {
        id: CallId(u64::MAX),
        body,
    };
    let bytes = encode(&message).unwrap();
    assert!(bytes.len() < MAX_MESSAGE_BYTES * 3 / 4, "{}", bytes.len());
    assert_eq!(decode::<FromClient>(&bytes).unwrap(), message);

    let one = DomainSummary {
        title: None,
        ..super::supervisor_samples::summary()
    };
    let page = DomainPage {
        domains: vec![one; MAX_PAGE],
        more: true,
    };
    let reply = ToClient::Reply {
        id: CallId(u64::MAX),
        result: Ok(AnswerBody::DomainList(page)),
    };
    assert_eq!(decode::<ToClient>(&encode(&reply).unwrap()).unwrap(), reply);
}

/// Every second CPU is off, the others are in turn of each node, and every text is as long as can be.
#[test]
fn the_largest_host_fits_a_message() {
    let nodes = u32::try_from(MAX_HOST_NODES).unwrap();
    let text = || "x".repeat(MAX_HOST_TEXT_BYTES);
    let of = |numbers: Vec<u32>| {
        let ranges: Vec<_> = numbers.into_iter().map(|cpu| (cpu, cpu)).collect();
        CpuSet::try_from(ranges).unwrap()
    };
    let online = || (0..MAX_HOST_CPUS).filter(|cpu| cpu % 2 == 0);
    let page = HostPages {
        size_bytes: u64::MAX,
        count: u64::MAX,
    };
    let mut host = super::supervisor_samples::host();
    host.hostname = text();
    host.cpu.vendor = text();
    host.cpu.name = text();
    host.cpu.flags = vec!["f".repeat(16); MAX_CPU_FLAGS];
    host.kvm_lacks = Some(text());
    host.online = of(online().collect());
    host.present = CpuSet::try_from(vec![(0, MAX_HOST_CPUS - 1)]).unwrap();
    host.possible = host.present.clone();
    host.nodes = (0..nodes)
        .map(|node| HostNode {
            node,
            cpus: Some(of(online().filter(|cpu| cpu / 2 % nodes == node).collect())),
            memory: MemorySize(u64::MAX),
            distances: vec![255; MAX_HOST_NODES],
            pages: vec![page; MAX_PAGE_SIZES],
        })
        .collect();
    let reply = ToClient::Reply {
        id: CallId(u64::MAX),
        result: Ok(AnswerBody::HostInfoGet(Box::new(host))),
    };
    assert_eq!(decode::<ToClient>(&encode(&reply).unwrap()).unwrap(), reply);
}

#[test]
fn a_definition_that_is_valid_fits_a_message_whatever_it_is_made_of() {
    let scattered: Vec<String> = (0..600).map(|cpu| (cpu * 2).to_string()).collect();
    let scattered: CpuSet = scattered.join(",").parse().unwrap();
    let mut refused = 0;
    for pins in 0..16 {
        for path in [10, 20_000, 60_000] {
            let mut domain = super::samples::bare_domain();
            domain.max_vcpus = Vcpus::try_from(16).unwrap();
            domain.boot = BootSource::Kernel(KernelBoot {
                kernel: "k".repeat(path).into(),
                initrd: None,
                command_line: String::new(),
            });
            domain.pinning = (0..pins)
                .map(|vcpu| VcpuPin {
                    vcpu,
                    cpus: scattered.clone(),
                })
                .collect();
            if let Err(error) = domain.validate() {
                assert!(matches!(error, ModelError::Size(_)), "{error}");
                refused += 1;
                continue;
            }
            let definition = DomainDefinition {
                domain,
                autostart: Some(u32::MAX),
            };
            let reply = ToClient::Reply {
                id: CallId(u64::MAX),
                result: Ok(AnswerBody::DomainDefinitionGet(Box::new(definition))),
            };
            let bytes = encode(&reply).unwrap();
            assert_eq!(decode::<ToClient>(&bytes).unwrap(), reply);
        }
    }
    assert!((1..48).contains(&refused), "{refused} are refused");
}

proptest! {
    #[test]
    fn what_a_client_says_is_decoded_as_it_was_encoded(message in arbitrary::from_client()) {
        let bytes = encode(&message).unwrap();
        prop_assert_eq!(decode::<FromClient>(&bytes).unwrap(), message);
    }

    #[test]
    fn what_a_supervisor_says_is_decoded_as_it_was_encoded(message in arbitrary::to_client()) {
        let bytes = encode(&message).unwrap();
        prop_assert_eq!(decode::<ToClient>(&bytes).unwrap(), message);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = decode::<FromClient>(&bytes);
        let _ = decode::<ToClient>(&bytes);
    }

    #[test]
    fn a_call_with_one_byte_altered_is_refused_or_means_something_whole(
        message in arbitrary::from_client(),
        place in any::<proptest::sample::Index>(),
        value in any::<u8>(),
    ) {
        let mut bytes = encode(&message).unwrap();
        let place = place.index(bytes.len());
        bytes[place] = value;
        if let Ok(other) = decode::<FromClient>(&bytes) {
            let again = encode(&other).unwrap();
            prop_assert_eq!(decode::<FromClient>(&again).unwrap(), other);
        }
    }

    #[test]
    fn an_answer_with_one_byte_altered_is_refused_or_means_something_whole(
        message in arbitrary::to_client(),
        place in any::<proptest::sample::Index>(),
        value in any::<u8>(),
    ) {
        let mut bytes = encode(&message).unwrap();
        let place = place.index(bytes.len());
        bytes[place] = value;
        if let Ok(other) = decode::<ToClient>(&bytes) {
            let again = encode(&other).unwrap();
            prop_assert_eq!(decode::<ToClient>(&again).unwrap(), other);
        }
    }
}
