//! What can be judged of a filter without any other.

use super::field::{RuleField, RuleProtocol};
use super::{
    FieldValue, FilterEntry, FilterParameter, FilterReference, FilterRule, MAX_FILTER_ENTRIES,
    MAX_NWFILTER_BYTES, Nwfilter, NwfilterError, check_parameters,
};

/// What a decoder counts for all but texts and lists, at most.
const FIXED_BYTES: usize = 512;
/// What it counts for an entry, a field or a parameter but its texts, at most.
const ELEMENT_BYTES: usize = 64;

impl Nwfilter {
    /// Looks at all that can be judged without other filters.
    ///
    /// # Errors
    /// [`NwfilterError`] names the first thing that is wrong.
    pub fn validate(&self) -> Result<(), NwfilterError> {
        if self.entries.len() > MAX_FILTER_ENTRIES {
            return Err(NwfilterError::Entries(self.entries.len()));
        }
        priority(self.priority)?;
        for entry in &self.entries {
            match entry {
                FilterEntry::Rule(rule) => rule.validate()?,
                FilterEntry::Reference(reference) => reference.validate()?,
            }
        }
        match self.bytes() {
            bytes if bytes > MAX_NWFILTER_BYTES => Err(NwfilterError::Size(bytes)),
            _ => Ok(()),
        }
    }

    fn bytes(&self) -> usize {
        let entries = self.entries.iter().map(|entry| match entry {
            FilterEntry::Rule(rule) => ELEMENT_BYTES + rule.bytes(),
            FilterEntry::Reference(reference) => ELEMENT_BYTES + reference.bytes(),
        });
        FIXED_BYTES + self.name.as_str().len() + entries.sum::<usize>()
    }

    /// The filters that it refers to itself.
    pub fn references(&self) -> impl Iterator<Item = &FilterReference> {
        self.entries.iter().filter_map(|entry| match entry {
            FilterEntry::Reference(reference) => Some(reference),
            FilterEntry::Rule(_) => None,
        })
    }
}

fn priority(priority: i16) -> Result<(), NwfilterError> {
    match priority {
        -1000..=1000 => Ok(()),
        other => Err(NwfilterError::Priority(other.into())),
    }
}

impl FilterReference {
    /// Looks at its parameters.
    ///
    /// # Errors
    /// [`NwfilterError`].
    pub fn validate(&self) -> Result<(), NwfilterError> {
        check_parameters(&self.parameters)
    }

    /// What a decoder counts for it, at most.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let parameter = |parameter: &FilterParameter| {
            ELEMENT_BYTES + parameter.name.len() + parameter.value.len()
        };
        self.filter.as_str().len() + self.parameters.iter().map(parameter).sum::<usize>()
    }
}

impl FilterRule {
    fn bytes(&self) -> usize {
        let fields = self.fields.iter().map(|it| {
            ELEMENT_BYTES
                + match &it.value {
                    FieldValue::Text(text) => text.len(),
                    FieldValue::Variable(variable) => variable.name.len(),
                    _ => 0,
                }
        });
        fields.sum()
    }

    /// The value of a field.
    #[must_use]
    pub fn value(&self, field: RuleField) -> Option<&FieldValue> {
        let mut fields = self.fields.iter();
        fields.find(|it| it.field == field).map(|it| &it.value)
    }

    fn validate(&self) -> Result<(), NwfilterError> {
        priority(self.priority)?;
        let Some(protocol) = self.protocol else {
            return match self.fields.is_empty() && !self.negated {
                true => Ok(()),
                false => Err(NwfilterError::NoProtocol),
            };
        };
        for (index, it) in self.fields.iter().enumerate() {
            if !protocol.fields().contains(&it.field) {
                return Err(NwfilterError::Field {
                    protocol: protocol.name(),
                    field: it.field.name(),
                });
            }
            let earlier = self.fields.iter().take(index);
            if earlier.clone().any(|other| other.field == it.field) {
                return Err(NwfilterError::Twice(it.field.name()));
            }
            // What comes by the wire may be what no text is.
            if it.field.parse(&it.field.text(&it.value))? != it.value {
                return Err(NwfilterError::Value {
                    field: it.field.name(),
                    value: it.field.text(&it.value),
                    kind: it.field.kind().described(),
                });
            }
        }
        self.needs(protocol)
    }

    /// That what is said with another is said with it.
    fn needs(&self, protocol: RuleProtocol) -> Result<(), NwfilterError> {
        use RuleField as F;
        const PAIRS: [(F, F); 13] = [
            (F::SourceMacMask, F::SourceMac),
            (F::DestinationMacMask, F::DestinationMac),
            (F::SourceIpMask, F::SourceIp),
            (F::DestinationIpMask, F::DestinationIp),
            (F::SourceIpv6Mask, F::SourceIpv6),
            (F::DestinationIpv6Mask, F::DestinationIpv6),
            (F::SourcePortEnd, F::SourcePort),
            (F::DestinationPortEnd, F::DestinationPort),
            (F::TypeEnd, F::Type),
            (F::CodeEnd, F::Code),
            (F::RootAddressMask, F::RootAddress),
            (F::SenderAddressMask, F::SenderAddress),
            (F::IpSetFlags, F::IpSet),
        ];
        let says = |field| self.value(field).is_some();
        for (field, needs) in PAIRS {
            if says(field) && !says(needs) {
                let (field, needs) = (field.name(), needs.name());
                return Err(NwfilterError::Needs { field, needs });
            }
        }
        let ports = says(F::SourcePort) || says(F::DestinationPort);
        let has_ports = match self.value(F::Protocol) {
            Some(FieldValue::Variable(_)) => true,
            Some(value) => matches!(value.number(), Some(6 | 17 | 33 | 132 | 136)),
            None => false,
        };
        if matches!(protocol, RuleProtocol::Ip | RuleProtocol::Ipv6) && ports && !has_ports {
            return Err(NwfilterError::Needs {
                field: "a port",
                needs: "a protocol that has ports: tcp, udp, udplite or sctp",
            });
        }
        Ok(())
    }
}
