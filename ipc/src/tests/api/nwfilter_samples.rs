//! One of each call about network filters and of each answer.

use uuid::Uuid;

use crate::api::call::{
    AnswerBody as Answer, Call, NwfilterBindingList, NwfilterBindingPage, NwfilterDefine,
    NwfilterGet, NwfilterList, NwfilterPage, NwfilterRef, NwfilterUndefine,
};
use crate::api::message::{CallId, FromClient, ToClient};
use crate::api::nwfilter::{NwfilterBinding, NwfilterSummary};
use crate::model::{
    DomainUuid, FieldValue, FilterEntry, FilterParameter, FilterReference, FilterRule, Nwfilter,
    NwfilterUuid, RuleAction, RuleDirection, RuleField, RuleMatch, RuleProtocol, Variable,
    VariableElement,
};

fn uuid() -> NwfilterUuid {
    NwfilterUuid(Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10))
}

pub(in crate::tests) fn reference() -> FilterReference {
    let parameter = |value: &str| FilterParameter {
        name: "IP".to_owned(),
        value: value.to_owned(),
    };
    FilterReference {
        filter: "clean-traffic".parse().unwrap(),
        parameters: vec![parameter("192.0.2.5"), parameter("192.0.2.6")],
    }
}

/// A filter that has something of everything.
pub(in crate::tests) fn nwfilter() -> Nwfilter {
    let variable = |name: &str, element| {
        FieldValue::Variable(Variable {
            name: name.to_owned(),
            element,
        })
    };
    let rule = |direction, action, protocol, fields: Vec<(RuleField, FieldValue)>| {
        let fields = fields.into_iter();
        FilterEntry::Rule(FilterRule {
            action,
            direction,
            priority: -400,
            stateless: true,
            protocol,
            negated: false,
            fields: fields
                .map(|(field, value)| RuleMatch { field, value })
                .collect(),
        })
    };
    use RuleField as F;
    Nwfilter {
        name: "own".parse().unwrap(),
        uuid: uuid(),
        chain: "ipv4-own".parse().unwrap(),
        priority: -710,
        entries: vec![
            FilterEntry::Reference(reference()),
            rule(
                RuleDirection::InOut,
                RuleAction::Return,
                Some(RuleProtocol::Ip),
                vec![
                    (F::SourceMac, FieldValue::Mac([0x52, 0x54, 0, 1, 2, 3])),
                    (F::SourceIp, variable("IP", VariableElement::Each(1))),
                    (F::DestinationIp, variable("IP", VariableElement::One(2))),
                    (F::DestinationIpMask, FieldValue::Number(24)),
                    (F::Protocol, FieldValue::Number(17)),
                    (F::SourcePort, FieldValue::Hex(0x44)),
                    (F::Comment, FieldValue::Text("why".to_owned())),
                ],
            ),
            rule(
                RuleDirection::In,
                RuleAction::Reject,
                Some(RuleProtocol::AllIpv6),
                vec![(F::SourceIpv6, FieldValue::Ip("fe80::1".parse().unwrap()))],
            ),
            rule(RuleDirection::Out, RuleAction::Drop, None, Vec::new()),
        ],
    }
}

fn call<C: Call>(call: C) -> FromClient {
    FromClient::Call {
        id: CallId(7),
        body: call.into_body(),
    }
}

/// The calls.
pub(super) fn calls() -> Vec<(&'static str, FromClient)> {
    let by_name = || NwfilterRef::Name("own".parse().unwrap());
    vec![
        ("list network filters", {
            call(NwfilterList {
                after: Some("own".parse().unwrap()),
            })
        }),
        ("get a network filter", {
            call(NwfilterGet { filter: by_name() })
        }),
        ("get a network filter by its UUID", {
            call(NwfilterGet {
                filter: NwfilterRef::Uuid(uuid()),
            })
        }),
        ("define a network filter", {
            call(NwfilterDefine {
                filter: Box::new(nwfilter()),
                only_new: true,
            })
        }),
        ("undefine a network filter", {
            call(NwfilterUndefine { filter: by_name() })
        }),
        ("list bindings of network filters", {
            call(NwfilterBindingList {
                after: Some("vnet0".parse().unwrap()),
            })
        }),
    ]
}

fn reply(answer: Answer) -> ToClient {
    ToClient::Reply {
        id: CallId(7),
        result: Ok(answer),
    }
}

/// The answers.
pub(super) fn answers() -> Vec<(&'static str, ToClient)> {
    let summary = || NwfilterSummary {
        name: "own".parse().unwrap(),
        uuid: uuid(),
    };
    let binding = NwfilterBinding {
        interface: "vnet0".parse().unwrap(),
        domain: DomainUuid(Uuid::from_u128(5)),
        name: "web".parse().unwrap(),
        mac: "52:54:00:01:02:03".parse().unwrap(),
        filter: reference(),
    };
    vec![
        ("network filters", {
            reply(Answer::NwfilterList(NwfilterPage {
                filters: vec![summary()],
                more: true,
            }))
        }),
        ("network filter", {
            reply(Answer::NwfilterGet(Box::new(nwfilter())))
        }),
        ("network filter defined", {
            reply(Answer::NwfilterDefine(summary()))
        }),
        ("network filter undefined", {
            reply(Answer::NwfilterUndefine(()))
        }),
        ("bindings of network filters", {
            reply(Answer::NwfilterBindingList(NwfilterBindingPage {
                bindings: vec![binding],
                more: true,
            }))
        }),
    ]
}
