//! What an interface gets: the rules of its filter and of all that this refers to, each with its variables replaced.
//!
//! As in libvirt, what an interface says of a variable goes before what a reference between filters says of it, and
//! variables of one iterator in a rule go through their values side by side, those of different ones through every
//! combination. How much may come of it is bounded: a filter of a few lines can stand for any number of rules.

use std::collections::BTreeMap;
use std::net::IpAddr;

use reeve_ipc::model::{
    FieldValue, FilterChain, FilterEntry, FilterParameter, FilterReference, FilterRule,
    NwfilterName, RuleDirection, RuleField, RuleMatch, RuleProtocol, Variable, VariableElement,
};
use reeve_ipc::spec::MacAddress;

use super::book::Book;

/// How many filters deep references may go.
const MAX_DEPTH: usize = 16;
/// How many references may be followed for one interface.
const MAX_REFERENCES: usize = 256;
/// How many rules an interface may get, before those of both directions are counted twice.
pub(crate) const MAX_RULES: usize = 1024;
/// The variable for the guest's Ethernet address.
const MAC: &str = "MAC";
/// The variable for the guest's addresses of IPv4, which libvirt learns where nobody says them.
const IP: &str = "IP";

/// A rule in its chain, of which no value is a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) chain: FilterChain,
    /// That of the chain.
    pub(crate) priority: i16,
    pub(crate) rule: FilterRule,
}

/// Why an interface cannot have its filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InstanceError {
    /// It is not there.
    #[error("referenced filter '{0}' is missing")]
    Missing(NwfilterName),
    /// Nobody says the guest's address.
    #[error(
        "filter '{0}' needs the guest's address: addresses are not learned, so give the <filterref> of the interface a \
         <parameter name='IP' value='...'/>"
    )]
    Address(NwfilterName),
    /// Nobody says what a variable stands for.
    #[error(
        "cannot instantiate filter '{filter}' due to unresolvable variables or unavailable list elements: {variable}"
    )]
    Variable {
        /// The filter.
        filter: NwfilterName,
        /// The variable.
        variable: String,
    },
    /// What it stands for is no value of the field.
    #[error("filter '{filter}': {variable}: {why}")]
    Value {
        /// The filter.
        filter: NwfilterName,
        /// The variable.
        variable: String,
        /// What is wrong with its value.
        why: String,
    },
    /// Lists of several lengths.
    #[error(
        "filter '{0}': cardinality of list items must be the same for processing them in parallel"
    )]
    Lengths(NwfilterName),
    /// A rule that looks at connections.
    #[error(
        "filter '{filter}' has a rule of '{protocol}', by which libvirt follows connections: such a filter can be defined \
         and not used; write it with 'ip' or 'ipv6'"
    )]
    Connections {
        /// The filter.
        filter: NwfilterName,
        /// Its protocol.
        protocol: &'static str,
    },
    /// Something that the kernel has no way to look at.
    #[error("filter '{filter}' has a rule with {what}, which is not provided")]
    Unsupported {
        /// The filter.
        filter: NwfilterName,
        /// What.
        what: &'static str,
    },
    /// Too deep.
    #[error("filter '{0}': references go deeper than {MAX_DEPTH} filters")]
    Depth(NwfilterName),
    /// Too many.
    #[error("filter '{0}': more than {MAX_REFERENCES} references are to be followed")]
    References(NwfilterName),
    /// Too many.
    #[error("filter '{0}': more than {MAX_RULES} rules come of it")]
    Rules(NwfilterName),
}

type Values = BTreeMap<String, Vec<String>>;

impl Book {
    /// The rules that an interface gets which refers to a filter, in the order in which they are said.
    pub(crate) fn instantiate(
        &self,
        reference: &FilterReference,
        mac: MacAddress,
    ) -> Result<Vec<Placed>, InstanceError> {
        let mut values = listed(&reference.parameters);
        values
            .entry(MAC.to_owned())
            .or_insert_with(|| vec![mac.to_string()]);
        let mut instance = Instance {
            book: self,
            references: 0,
            placed: Vec::new(),
        };
        instance.follow(&reference.filter, &values, 0)?;
        Ok(instance.placed)
    }
}

fn listed(parameters: &[FilterParameter]) -> Values {
    let mut values = Values::new();
    for FilterParameter { name, value } in parameters {
        values.entry(name.clone()).or_default().push(value.clone());
    }
    values
}

struct Instance<'a> {
    book: &'a Book,
    references: usize,
    placed: Vec<Placed>,
}

impl Instance<'_> {
    fn follow(
        &mut self,
        name: &NwfilterName,
        values: &Values,
        depth: usize,
    ) -> Result<(), InstanceError> {
        let Some(filter) = self.book.get(name) else {
            return Err(InstanceError::Missing(name.clone()));
        };
        if depth >= MAX_DEPTH {
            return Err(InstanceError::Depth(name.clone()));
        }
        self.references += 1;
        if self.references > MAX_REFERENCES {
            return Err(InstanceError::References(name.clone()));
        }
        for entry in &filter.entries {
            match entry {
                FilterEntry::Reference(reference) => {
                    let mut own = listed(&reference.parameters);
                    own.extend(values.clone());
                    self.follow(&reference.filter, &own, depth + 1)?;
                }
                FilterEntry::Rule(rule) => {
                    usable(name, rule)?;
                    for rule in replaced(name, rule, values)? {
                        sound(name, &rule)?;
                        if self.placed.len() >= MAX_RULES {
                            return Err(InstanceError::Rules(name.clone()));
                        }
                        self.placed.push(Placed {
                            chain: filter.chain.clone(),
                            priority: filter.priority,
                            rule,
                        });
                    }
                }
            }
        }
        Ok(())
    }
}

/// That frames can be looked at so.
fn usable(filter: &NwfilterName, rule: &FilterRule) -> Result<(), InstanceError> {
    if let Some(protocol) = rule.protocol.filter(|protocol| !protocol.is_of_frames()) {
        return Err(InstanceError::Connections {
            filter: filter.clone(),
            protocol: protocol.name(),
        });
    }
    let gratuitous = rule.value(RuleField::Gratuitous);
    let gratuitous = gratuitous.is_some_and(|value| value.number() != Some(0));
    let ports = [RuleField::SourcePort, RuleField::DestinationPort];
    let ports = ports.iter().any(|port| rule.value(*port).is_some());
    let kinds = [RuleField::Type, RuleField::Code];
    let kinds = rule.protocol == Some(RuleProtocol::Ipv6)
        && kinds.iter().any(|kind| rule.value(*kind).is_some());
    let turned = rule.protocol == Some(RuleProtocol::Stp)
        && rule.direction == RuleDirection::InOut
        && rule.value(RuleField::SourceMac).is_some();
    let what = match gratuitous {
        true => "gratuitous='true'",
        false if rule.negated && ports => "ports and match='no'",
        false if rule.negated && kinds => "type or code and match='no'",
        false if turned => "srcmacaddr of spanning trees in both directions",
        false => return Ok(()),
    };
    let filter = filter.clone();
    Err(InstanceError::Unsupported { filter, what })
}

/// That a rule whose variables have their values is about frames that there can be: one that matches nothing would be
/// as good as none, and nobody would know.
fn sound(filter: &NwfilterName, rule: &FilterRule) -> Result<(), InstanceError> {
    /// TCP, UDP, DCCP, SCTP, UDP-Lite.
    const WITH_PORTS: [u32; 5] = [6, 17, 33, 132, 136];
    use RuleField as F;
    const RANGES: [(F, F); 12] = [
        (F::SourcePort, F::SourcePortEnd),
        (F::DestinationPort, F::DestinationPortEnd),
        (F::Type, F::TypeEnd),
        (F::Code, F::CodeEnd),
        (F::RootPriority, F::RootPriorityEnd),
        (F::RootCost, F::RootCostEnd),
        (F::SenderPriority, F::SenderPriorityEnd),
        (F::Port, F::PortEnd),
        (F::Age, F::AgeEnd),
        (F::MaxAge, F::MaxAgeEnd),
        (F::HelloTime, F::HelloTimeEnd),
        (F::ForwardDelay, F::ForwardDelayEnd),
    ];
    let number = |field| rule.value(field)?.number();
    let ends_early = RANGES.iter().any(|(first, last)| {
        let last = number(*last);
        last.is_some_and(|last| number(*first).is_none_or(|first| last < first))
    });
    let ports = [F::SourcePort, F::DestinationPort];
    let ports = ports.iter().any(|port| rule.value(*port).is_some());
    let protocol = number(F::Protocol);
    let what = if ends_early {
        "a range that ends before it begins"
    } else if ports && !protocol.is_some_and(|protocol| WITH_PORTS.contains(&protocol)) {
        "ports of a protocol that has none"
    } else {
        return Ok(());
    };
    let filter = filter.clone();
    Err(InstanceError::Unsupported { filter, what })
}

/// The rules that a rule is of which each variable has a value.
fn replaced(
    filter: &NwfilterName,
    rule: &FilterRule,
    values: &Values,
) -> Result<Vec<FilterRule>, InstanceError> {
    let variables = rule.fields.iter().filter_map(|it| match &it.value {
        FieldValue::Variable(variable) => Some(variable),
        _ => None,
    });
    let mut lengths: BTreeMap<u16, usize> = BTreeMap::new();
    for variable in variables {
        let known = values
            .get(&variable.name)
            .filter(|known| match variable.element {
                VariableElement::Each(_) => !known.is_empty(),
                VariableElement::One(number) => known.len() > usize::from(number),
            });
        let Some(known) = known else {
            return Err(match variable.name.as_str() {
                IP => InstanceError::Address(filter.clone()),
                _ => InstanceError::Variable {
                    filter: filter.clone(),
                    variable: variable.to_string(),
                },
            });
        };
        if let VariableElement::Each(iterator) = variable.element {
            match lengths.insert(iterator, known.len()) {
                Some(other) if other != known.len() => {
                    return Err(InstanceError::Lengths(filter.clone()));
                }
                _ => {}
            }
        }
    }
    let mut all: usize = 1;
    for length in lengths.values() {
        all = all.saturating_mul(*length);
    }
    if all > MAX_RULES {
        return Err(InstanceError::Rules(filter.clone()));
    }
    let mut rules = Vec::with_capacity(all);
    for number in 0..all {
        let mut rest = number;
        let mut places = BTreeMap::new();
        for (iterator, length) in &lengths {
            // None is of no length.
            places.insert(*iterator, rest.checked_rem(*length).unwrap_or(0));
            rest = rest.checked_div(*length).unwrap_or(0);
        }
        let mut rule = rule.clone();
        for RuleMatch { field, value } in &mut rule.fields {
            if let FieldValue::Variable(variable) = value {
                *value = said(filter, *field, variable, &places, values)?;
            }
        }
        rules.push(rule);
    }
    Ok(rules)
}

fn said(
    filter: &NwfilterName,
    field: RuleField,
    variable: &Variable,
    places: &BTreeMap<u16, usize>,
    values: &Values,
) -> Result<FieldValue, InstanceError> {
    let place = match variable.element {
        VariableElement::Each(iterator) => places.get(&iterator).copied().unwrap_or(0),
        VariableElement::One(number) => number.into(),
    };
    let known = values.get(&variable.name);
    let text = known.and_then(|known| known.get(place));
    let Some(text) = text else {
        return Err(InstanceError::Variable {
            filter: filter.clone(),
            variable: variable.to_string(),
        });
    };
    field.parse(text).map_err(|error| InstanceError::Value {
        filter: filter.clone(),
        variable: variable.to_string(),
        why: error.to_string(),
    })
}

impl Placed {
    /// The same for frames from the guest, of a rule for both ways: what is said of where they come from is looked for
    /// in where they go, and the other way round.
    pub(crate) fn turned(&self) -> Self {
        let mut turned = self.clone();
        for it in &mut turned.rule.fields {
            it.field = other_end(self.rule.protocol, it.field);
        }
        turned
    }
}

fn other_end(protocol: Option<RuleProtocol>, field: RuleField) -> RuleField {
    use RuleField as F;
    // libvirt's schema lets a rule of spanning trees say no more of the destination than the protocol does.
    if protocol == Some(RuleProtocol::Stp) {
        return field;
    }
    const PAIRS: [(F, F); 10] = [
        (F::SourceMac, F::DestinationMac),
        (F::SourceMacMask, F::DestinationMacMask),
        (F::SourceIp, F::DestinationIp),
        (F::SourceIpMask, F::DestinationIpMask),
        (F::SourceIpv6, F::DestinationIpv6),
        (F::SourceIpv6Mask, F::DestinationIpv6Mask),
        (F::SourcePort, F::DestinationPort),
        (F::SourcePortEnd, F::DestinationPortEnd),
        (F::ArpSourceMac, F::ArpDestinationMac),
        (F::ArpSourceIp, F::ArpDestinationIp),
    ];
    let find = |(one, other): &(F, F)| match field {
        field if field == *one => Some(*other),
        field if field == *other => Some(*one),
        _ => None,
    };
    PAIRS.iter().find_map(find).unwrap_or(field)
}

/// The bytes of an address.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
