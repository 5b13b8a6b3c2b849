//! What a network filter may say.

use super::api::nwfilter_samples::{nwfilter, reference};
use crate::codec;
use crate::model::{
    FieldValue, FilterChain, FilterEntry, FilterLayer, FilterParameter, FilterRule,
    MAX_FILTER_ENTRIES, MAX_FILTER_PARAMETERS, MAX_NWFILTER_BYTES, Nwfilter, NwfilterError,
    RuleField as F, RuleMatch, RuleProtocol,
};

fn with_rule(change: impl FnOnce(&mut FilterRule)) -> Result<(), NwfilterError> {
    let mut filter = nwfilter();
    if let Some(FilterEntry::Rule(rule)) = filter.entries.get_mut(1) {
        change(rule);
    }
    filter.validate()
}

fn with(change: impl FnOnce(&mut Nwfilter)) -> Result<(), NwfilterError> {
    let mut filter = nwfilter();
    change(&mut filter);
    filter.validate()
}

#[test]
fn every_value_is_read_as_it_is_written() {
    let samples = [
        (F::SourceMac, "52:54:0:1:2:A", "52:54:00:01:02:0a"),
        (F::SourceIp, "192.0.2.5", "192.0.2.5"),
        (F::SourceIpMask, "255.255.255.0", "24"),
        (F::SourceIpMask, "32", "32"),
        (F::SourceIpv6, "FE80::1", "fe80::1"),
        (F::SourceIpv6Mask, "ffff:ffff::", "32"),
        (F::ProtocolId, "0x806", "arp"),
        (F::ProtocolId, "2054", "arp"),
        (F::ProtocolId, "0x835", "0x835"),
        (F::ProtocolId, "IPv6", "ipv6"),
        (F::Opcode, "request_reverse", "Request_Reverse"),
        (F::Opcode, "77", "77"),
        (F::Protocol, "17", "udp"),
        (F::Protocol, "0x2f", "0x2f"),
        (F::SourcePort, "0x44", "0x44"),
        (F::SourcePort, "68", "68"),
        (F::Gratuitous, "yes", "true"),
        (F::VlanId, "4095", "4095"),
        (F::State, "NEW,ESTABLISHED", "NEW,ESTABLISHED"),
        (F::Comment, "a <b> 'c'", "a <b> 'c'"),
        (F::Comment, "$5", "$5"),
        (F::Comment, "\u{fffd}\u{1fffe}", "\u{fffd}\u{1fffe}"),
        (F::SourceMac, "$MAC", "$MAC"),
        (F::SourceMac, "$ MAC[@0]", "$MAC"),
        (F::SourceIp, "$IP[@12]", "$IP[@12]"),
        (F::SourceIp, "$IP[ 3 ]", "$IP[3]"),
    ];
    for (field, text, written) in samples {
        let value = field.parse(text).unwrap();
        assert_eq!(field.text(&value), written, "{text}");
        assert_eq!(field.parse(written).unwrap(), value, "{text}");
    }
    let refused = [
        (F::SourceMac, "52:54:00:01:02"),
        (F::SourceMac, "52:54:00:01:02:003"),
        (F::SourceMac, "52:54:00:01:02:+3"),
        (F::SourceIp, "fe80::1"),
        (F::SourceIp, "192.0.2.256"),
        (F::SourceIpMask, "33"),
        (F::SourceIpMask, "255.0.255.0"),
        (F::SourceIpv6Mask, "129"),
        (F::ProtocolId, "0x5ff"),
        (F::ProtocolId, "+2054"),
        (F::Opcode, "65536"),
        (F::Protocol, "256"),
        (F::SourcePort, "0x10000"),
        (F::SourcePort, "-1"),
        (F::SourcePort, ""),
        (F::VlanId, "4096"),
        (F::Dscp, "64"),
        (F::State, ""),
        (F::State, "a\nb"),
        (F::Comment, "a\nb"),
        (F::Comment, "a\u{fffe}"),
        (F::Comment, "\u{ffff}b"),
        (F::SourceIp, "$"),
        (F::SourceIp, "$IP["),
        (F::SourceIp, "$IP[x]"),
        (F::SourceIp, "$IP[]"),
        (F::SourceIp, "$IP[70000]"),
        (F::SourceIp, "$I P"),
        (F::SourceIp, "$IP[0]x"),
    ];
    for (field, text) in refused {
        assert!(field.parse(text).is_err(), "{} {text}", field.name());
    }
    let long = "a".repeat(257);
    assert!(F::Comment.parse(&long).is_err());
}

#[test]
fn a_chain_begins_with_its_layer() {
    let samples = [
        ("root", FilterLayer::Root, 0),
        ("mac", FilterLayer::Mac, -800),
        ("ipv4-ip", FilterLayer::Ipv4, -700),
        ("rarp", FilterLayer::Rarp, -400),
        ("arp.mac_1:2", FilterLayer::Arp, -500),
    ];
    for (name, layer, priority) in samples {
        let chain: FilterChain = name.parse().unwrap();
        assert_eq!(chain.layer(), layer, "{name}");
        assert_eq!(chain.layer().priority(), priority, "{name}");
    }
    for bad in [
        "",
        "rooted",
        "ip",
        "x-mac",
        "mac ip",
        "ipv4-abcdefghi",
        "mac/x",
    ] {
        assert!(bad.parse::<FilterChain>().is_err(), "{bad}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    assert_eq!(nwfilter().validate(), Ok(()));
    assert_eq!(
        with(|it| it.priority = 1001),
        Err(NwfilterError::Priority(1001))
    );
    assert_eq!(
        with_rule(|it| it.priority = -1001),
        Err(NwfilterError::Priority(-1001))
    );
    let push = |field: F, value: FieldValue| {
        with_rule(move |it| it.fields.push(RuleMatch { field, value }))
    };
    let twice = push(F::SourceMac, FieldValue::Mac([0; 6]));
    assert_eq!(twice, Err(NwfilterError::Twice("srcmacaddr")));
    let other = push(F::ArpSourceIp, FieldValue::Number(1));
    assert!(
        matches!(other, Err(NwfilterError::Field { .. })),
        "{other:?}"
    );
    // What no text says comes by no wire.
    let wrong = push(F::DestinationPort, FieldValue::Number(70_000));
    assert!(
        matches!(wrong, Err(NwfilterError::Value { .. })),
        "{wrong:?}"
    );
    let wrong = push(F::DestinationPort, FieldValue::Text("80".to_owned()));
    assert!(wrong.is_err());
    let wrong = with_rule(|it| it.fields[0].value = FieldValue::Text("$MAC".to_owned()));
    assert!(wrong.is_err());
    let mask = push(F::DestinationMacMask, FieldValue::Mac([255; 6]));
    assert!(matches!(mask, Err(NwfilterError::Needs { .. })), "{mask:?}");
    let ports = with_rule(|it| it.fields.retain(|it| it.field != F::Protocol));
    assert!(
        matches!(ports, Err(NwfilterError::Needs { .. })),
        "{ports:?}"
    );
    let nothing = with_rule(|it| it.protocol = None);
    assert_eq!(nothing, Err(NwfilterError::NoProtocol));
}

#[test]
fn what_is_too_much_is_refused_and_what_is_not_fits_a_message() {
    let many = |count| with(move |it| it.entries = vec![it.entries[3].clone(); count]);
    assert_eq!(many(MAX_FILTER_ENTRIES), Ok(()));
    let refused = many(MAX_FILTER_ENTRIES + 1);
    assert_eq!(refused, Err(NwfilterError::Entries(MAX_FILTER_ENTRIES + 1)));
    let mut reference = reference();
    reference.parameters = vec![reference.parameters[0].clone(); MAX_FILTER_PARAMETERS + 1];
    assert!(matches!(
        reference.validate(),
        Err(NwfilterError::Parameters(_))
    ));
    for (name, value) in [
        ("", "a"),
        ("A-B", "a"),
        ("A", ""),
        ("A", "a/b"),
        ("A", "a b"),
    ] {
        reference.parameters = vec![FilterParameter {
            name: name.to_owned(),
            value: value.to_owned(),
        }];
        assert!(reference.validate().is_err(), "{name} {value}");
    }
    // As much of everything as is taken, and one more.
    let mut filter = nwfilter();
    let (rule, mut count) = (filter.entries[1].clone(), 0);
    while filter.validate().is_ok() {
        filter.entries.push(rule.clone());
        count += 1;
    }
    assert!(matches!(filter.validate(), Err(NwfilterError::Size(_))));
    filter.entries.pop();
    assert!(count > 50, "{count}");
    assert!(codec::encode(&filter).unwrap().len() < MAX_NWFILTER_BYTES);
}

#[test]
fn every_protocol_has_each_of_its_names_once() {
    for protocol in RuleProtocol::ALL {
        assert_eq!(protocol.name().parse(), Ok(*protocol));
        for field in protocol.fields() {
            assert_eq!(protocol.field(field.name()), Some(*field), "{protocol:?}");
        }
    }
    let of_frames = RuleProtocol::ALL.iter().filter(|it| it.is_of_frames());
    assert_eq!(of_frames.count(), 7);
}
