//! `<filter>`, `<filterref>` wherever it stands, and `<filterbinding>`.
//!
//! What a rule says is read by the names of the model's fields, which are libvirt's attributes: an attribute that the
//! element does not have is refused, where libvirt passes it over.

use reeve_ipc::api::nwfilter::NwfilterBinding;
use reeve_ipc::model::{
    DEFAULT_RULE_PRIORITY, FilterChain, FilterEntry, FilterParameter, FilterReference, FilterRule,
    Nwfilter, NwfilterName, NwfilterUuid, RuleMatch, RuleProtocol,
};

use super::XmlError;
use super::element::{Element, document};
use super::write::Writer;

/// Reads a filter; one whose document has no UUID gets that one.
///
/// # Errors
/// [`XmlError`].
pub fn parse_nwfilter(text: &str, uuid: NwfilterUuid) -> Result<Nwfilter, XmlError> {
    let document = document(text)?;
    let root = Element::any_root(&document);
    if root.name() != "filter" {
        // As libvirt says it.
        let found: String = root.local_name().chars().take(64).collect();
        let why = format!("unknown root element '{found}' for nw filter");
        return Err(XmlError::invalid(why));
    }
    root.known(&["name", "chain", "priority"])?;
    let name = root.attribute("name").ok_or_else(|| {
        // In libvirt's words.
        XmlError::invalid("filter has no name")
    })?;
    let name = NwfilterName::try_from(name.to_owned()).map_err(|error| root.invalid(error))?;
    let chain: FilterChain = root.parsed("chain")?.unwrap_or_else(FilterChain::root);
    let mut filter = Nwfilter {
        name,
        uuid,
        priority: root
            .parsed("priority")?
            .unwrap_or_else(|| chain.layer().priority()),
        chain,
        entries: Vec::new(),
    };
    let mut has_uuid = false;
    for child in root.children() {
        match child.name() {
            "uuid" if has_uuid => return Err(child.invalid("there is a UUID already")),
            "uuid" => {
                filter.uuid = NwfilterUuid(child.value()?);
                has_uuid = true;
            }
            "rule" => filter.entries.push(FilterEntry::Rule(rule(child)?)),
            "filterref" => {
                let reference = parse_reference(child)?;
                filter.entries.push(FilterEntry::Reference(reference));
            }
            _ => return Err(child.not_provided()),
        }
    }
    let valid = filter.validate();
    valid.map_err(|error| root.invalid(error))?;
    Ok(filter)
}

fn rule(element: Element<'_>) -> Result<FilterRule, XmlError> {
    element.known(&["action", "direction", "priority", "statematch"])?;
    let missing = |name| element.invalid(format!("rule node requires {name} attribute"));
    let mut rule = FilterRule {
        action: element.parsed("action")?.ok_or_else(|| missing("action"))?,
        direction: element
            .parsed("direction")?
            .ok_or_else(|| missing("direction"))?,
        priority: element.parsed("priority")?.unwrap_or(DEFAULT_RULE_PRIORITY),
        stateless: match element.attribute("statematch") {
            Some(word) => word == "0" || word.eq_ignore_ascii_case("false"),
            None => false,
        },
        protocol: None,
        negated: false,
        fields: Vec::new(),
    };
    for child in element.children() {
        if rule.protocol.is_some() {
            return Err(child.unsupported("a rule names one protocol"));
        }
        let Ok(protocol) = child.name().parse::<RuleProtocol>() else {
            return Err(child.not_provided());
        };
        child.no_children()?;
        rule.protocol = Some(protocol);
        let known: Vec<&str> = protocol.fields().iter().map(|field| field.name()).collect();
        let known: Vec<&str> = known.into_iter().chain(["match"]).collect();
        child.known(&known)?;
        for field in protocol.fields() {
            if let Some(text) = child.attribute(field.name()) {
                let value = field.parse(text).map_err(|error| child.invalid(error))?;
                rule.fields.push(RuleMatch {
                    field: *field,
                    value,
                });
            }
        }
        // Of nothing there is nothing else.
        rule.negated = child.switch("match")? == Some(false) && !rule.fields.is_empty();
    }
    Ok(rule)
}

/// Reads that a filter is to be applied. As libvirt writes them, parameters are in the order of their names.
pub(super) fn parse_reference(element: Element<'_>) -> Result<FilterReference, XmlError> {
    element.known(&["filter"])?;
    let filter = element.required("filter")?;
    let filter = NwfilterName::try_from(filter.to_owned());
    let mut reference = FilterReference {
        filter: filter.map_err(|error| element.invalid(error))?,
        parameters: Vec::new(),
    };
    for parameter in element.children() {
        if parameter.name() != "parameter" {
            return Err(parameter.not_provided());
        }
        parameter.known(&["name", "value"])?;
        parameter.no_children()?;
        reference.parameters.push(FilterParameter {
            name: parameter.required("name")?.to_owned(),
            value: parameter.required("value")?.to_owned(),
        });
    }
    reference.parameters.sort_by(|a, b| a.name.cmp(&b.name));
    let valid = reference.validate();
    valid.map_err(|error| element.invalid(error))?;
    Ok(reference)
}

/// Writes it.
pub(super) fn format_reference(writer: &mut Writer, reference: &FilterReference) {
    let tag = writer
        .tag("filterref")
        .attribute("filter", &reference.filter);
    if reference.parameters.is_empty() {
        return tag.empty();
    }
    tag.open();
    for FilterParameter { name, value } in &reference.parameters {
        let tag = writer.tag("parameter").attribute("name", name);
        tag.attribute("value", value).empty();
    }
    writer.close("filterref");
}

/// The document of a filter.
#[must_use]
pub fn format_nwfilter(filter: &Nwfilter) -> String {
    let mut writer = Writer::new();
    let priority = Some(filter.priority).filter(|priority| *priority != 0);
    let tag = writer.tag("filter").attribute("name", &filter.name);
    let tag = tag.attribute("chain", &filter.chain);
    // Nothing said is the usual of the chain, which of the root chain is nothing.
    let zero = filter.chain.layer().priority() != 0 && filter.priority == 0;
    tag.optional("priority", priority.or(zero.then_some(0)))
        .open();
    writer.text("uuid", filter.uuid);
    for entry in &filter.entries {
        match entry {
            FilterEntry::Reference(reference) => format_reference(&mut writer, reference),
            FilterEntry::Rule(rule) => format_rule(&mut writer, rule),
        }
    }
    writer.close("filter");
    writer.finish()
}

fn format_rule(writer: &mut Writer, rule: &FilterRule) {
    let tag = writer.tag("rule").attribute("action", rule.action);
    let tag = tag.attribute("direction", rule.direction);
    let tag = tag.attribute("priority", rule.priority);
    let tag = tag.optional("statematch", rule.stateless.then_some("false"));
    let Some(protocol) = rule.protocol else {
        return tag.empty();
    };
    tag.open();
    let negated = rule.negated.then_some("no");
    let mut tag = writer.tag(protocol.name()).optional("match", negated);
    for field in protocol.fields() {
        if let Some(value) = rule.value(*field) {
            tag = tag.attribute(field.name(), field.text(value));
        }
    }
    tag.empty();
    writer.close("rule");
}

/// The document of a filter on an interface.
#[must_use]
pub fn format_binding(binding: &NwfilterBinding) -> String {
    let mut writer = Writer::new();
    writer.tag("filterbinding").open();
    writer.tag("owner").open();
    writer.text("name", &binding.name);
    writer.text("uuid", binding.domain);
    writer.close("owner");
    writer
        .tag("portdev")
        .attribute("name", &binding.interface)
        .empty();
    writer.tag("mac").attribute("address", binding.mac).empty();
    format_reference(&mut writer, &binding.filter);
    writer.close("filterbinding");
    writer.finish()
}
