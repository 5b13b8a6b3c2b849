//! Filters as they are kept, and what comes of them.

use reeve_ipc::api::call::NwfilterRef;
use reeve_ipc::api::error::ApiErrorCode;
use reeve_ipc::model::{
    FilterChain, FilterEntry, FilterParameter, FilterReference, FilterRule, Nwfilter, NwfilterUuid,
    RuleAction, RuleDirection, RuleField, RuleMatch, RuleProtocol,
};
use reeve_ipc::spec::MacAddress;
use uuid::Uuid;

use super::book::Book;
use super::instance::InstanceError;
use super::registry::Nwfilters;
use super::{book::SharedBook, shipped};
use crate::host::filter::TapFilters;
use crate::store::NwfilterStore;

/// A rule of which fields are said as in a document.
pub(crate) fn rule(
    action: RuleAction,
    direction: RuleDirection,
    protocol: RuleProtocol,
    fields: &[(&str, &str)],
) -> FilterEntry {
    let field = |(name, text): &(&str, &str)| {
        let field = protocol.field(name).unwrap();
        let value = field.parse(text).unwrap();
        RuleMatch { field, value }
    };
    FilterEntry::Rule(FilterRule {
        action,
        direction,
        priority: 500,
        stateless: false,
        protocol: Some(protocol),
        negated: false,
        fields: fields.iter().map(field).collect(),
    })
}

pub(crate) fn reference(filter: &str, parameters: &[(&str, &str)]) -> FilterReference {
    let parameter = |(name, value): &(&str, &str)| FilterParameter {
        name: (*name).to_owned(),
        value: (*value).to_owned(),
    };
    FilterReference {
        filter: filter.parse().unwrap(),
        parameters: parameters.iter().map(parameter).collect(),
    }
}

pub(crate) fn filter(name: &str, uuid: u128, entries: Vec<FilterEntry>) -> Nwfilter {
    Nwfilter {
        name: name.parse().unwrap(),
        uuid: NwfilterUuid(Uuid::from_u128(uuid)),
        chain: FilterChain::root(),
        priority: 0,
        entries,
    }
}

/// Filters that have something of everything.
pub(crate) fn samples() -> Vec<Nwfilter> {
    let ip = [
        ("srcmacaddr", "$MAC"),
        ("srcipaddr", "$IP[@1]"),
        ("dstipaddr", "10.0.0.0"),
        ("dstipmask", "255.0.0.0"),
        ("protocol", "udp"),
        ("dstportstart", "0x35"),
        ("comment", "it's a <comment>"),
    ];
    let mut negated = rule(
        RuleAction::Drop,
        RuleDirection::InOut,
        RuleProtocol::Stp,
        &[("root-cost", "1"), ("root-cost-hi", "7")],
    );
    if let FilterEntry::Rule(rule) = &mut negated {
        rule.negated = true;
        rule.stateless = true;
        rule.priority = -7;
    }
    let tcp = [("state", "NEW,ESTABLISHED"), ("flags", "SYN/ALL")];
    let mut second = filter(
        "second",
        11,
        vec![rule(
            RuleAction::Reject,
            RuleDirection::In,
            RuleProtocol::Tcp,
            &tcp,
        )],
    );
    second.chain = "ipv4-own".parse().unwrap();
    second.priority = -699;
    let first = [
        rule(
            RuleAction::Accept,
            RuleDirection::Out,
            RuleProtocol::Ip,
            &ip,
        ),
        FilterEntry::Reference(reference(
            "second",
            &[("IP", "192.0.2.1"), ("IP", "192.0.2.2")],
        )),
        negated,
    ];
    vec![second, filter("first", 12, first.to_vec())]
}

fn mac() -> MacAddress {
    MacAddress::try_from([0x52, 0x54, 0, 1, 2, 3]).unwrap()
}

fn book(filters: Vec<Nwfilter>) -> Book {
    let mut book = Book::default();
    let all = shipped::all().into_iter().chain(filters);
    all.for_each(|filter| book.insert(filter));
    book
}

fn texts(book: &Book, of: &FilterReference, field: RuleField) -> Vec<String> {
    let placed = book.instantiate(of, mac()).unwrap();
    let values = placed.iter().filter_map(|it| it.rule.value(field));
    values.map(|value| field.text(value)).collect()
}

#[test]
fn every_shipped_filter_is_one_and_finds_those_that_it_refers_to() {
    let all = shipped::all();
    assert_eq!(all.len(), shipped::COUNT);
    let book = book(Vec::new());
    for filter in &all {
        filter.validate().unwrap();
        for reference in filter.references() {
            assert!(
                book.get(&reference.filter).is_some(),
                "{:?}",
                reference.filter
            );
        }
        let parameters = [
            ("IP", "192.0.2.5"),
            ("IPV6", "2001:db8::5"),
            ("GATEWAY_MAC", "52:54:00:00:00:01"),
            (
                "DHCPSERVER",
                if filter.name.as_str().contains("v6") {
                    "fe80::1"
                } else {
                    "192.0.2.1"
                },
            ),
        ];
        let of = reference(filter.name.as_str(), &parameters);
        assert!(
            !book.instantiate(&of, mac()).unwrap().is_empty(),
            "{}",
            filter.name
        );
    }
}

#[test]
fn an_address_that_nobody_says_is_asked_for_by_name() {
    let book = book(Vec::new());
    let refused = |of: &FilterReference| book.instantiate(of, mac()).unwrap_err();
    let error = refused(&reference("clean-traffic", &[]));
    assert!(matches!(error, InstanceError::Address(_)), "{error}");
    assert!(
        error.to_string().contains("<parameter name='IP'"),
        "{error}"
    );
    let error = refused(&reference("allow-dhcp-server", &[]));
    assert!(error.to_string().contains("$DHCPSERVER"), "{error}");
    let error = refused(&reference("nova-base", &[]));
    assert_eq!(
        error.to_string(),
        "referenced filter 'nova-base' is missing"
    );
    let error = refused(&reference("clean-traffic", &[("IP", "fe80::1")]));
    assert!(matches!(error, InstanceError::Value { .. }), "{error}");
}

#[test]
fn lists_go_side_by_side_or_through_every_combination() {
    let out = |fields: &[(&str, &str)]| {
        vec![rule(
            RuleAction::Accept,
            RuleDirection::Out,
            RuleProtocol::Ip,
            fields,
        )]
    };
    let source = [("srcipaddr", "$A"), ("dstipaddr", "$B")];
    let crossed = [("srcipaddr", "$A[@1]"), ("dstipaddr", "$B[@2]")];
    let one = [("srcipaddr", "$A[1]")];
    let book = book(vec![
        filter("together", 1, out(&source)),
        filter("crossed", 2, out(&crossed)),
        filter("one", 3, out(&one)),
    ]);
    let lists = [
        ("A", "192.0.2.1"),
        ("A", "192.0.2.2"),
        ("B", "10.0.0.1"),
        ("B", "10.0.0.2"),
    ];
    let together = texts(
        &book,
        &reference("together", &lists),
        RuleField::DestinationIp,
    );
    assert_eq!(together, ["10.0.0.1", "10.0.0.2"]);
    let crossed = texts(&book, &reference("crossed", &lists), RuleField::SourceIp);
    assert_eq!(
        crossed,
        ["192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.2"]
    );
    assert_eq!(
        texts(&book, &reference("one", &lists), RuleField::SourceIp),
        ["192.0.2.2"]
    );
    let uneven = reference("together", &lists[..3]);
    let error = book.instantiate(&uneven, mac()).unwrap_err();
    assert!(matches!(error, InstanceError::Lengths(_)), "{error}");
    let short = reference("one", &lists[..1]);
    assert!(book.instantiate(&short, mac()).is_err());
}

#[test]
fn what_an_interface_says_goes_before_what_a_filter_says() {
    let uses = vec![FilterEntry::Reference(reference(
        "no-ip-spoofing",
        &[("IP", "192.0.2.1")],
    ))];
    let book = book(vec![filter("own", 1, uses)]);
    let of = |parameters: &[(&str, &str)]| {
        texts(&book, &reference("own", parameters), RuleField::SourceIp)
    };
    assert_eq!(of(&[]), ["0.0.0.0", "192.0.2.1"]);
    assert_eq!(of(&[("IP", "192.0.2.9")]), ["0.0.0.0", "192.0.2.9"]);
}

#[test]
fn few_lines_cannot_stand_for_many_rules() {
    let fields = [
        ("srcipaddr", "$A[@1]"),
        ("dstipaddr", "$A[@2]"),
        ("srcmacaddr", "$M[@3]"),
    ];
    let many = rule(
        RuleAction::Drop,
        RuleDirection::InOut,
        RuleProtocol::Ip,
        &fields,
    );
    let twice = |name: &str| {
        let entry = FilterEntry::Reference(reference(name, &[]));
        vec![entry.clone(), entry]
    };
    let mut filters = vec![filter("many", 1, vec![many])];
    // Each refers twice to the next: at depth n there are 2^n.
    for number in 0..20_u128 {
        let (own, next) = (format!("deep{number}"), format!("deep{}", number + 1));
        filters.push(filter(&own, 100 + number, twice(&next)));
    }
    filters.push(filter("deep20", 300, Vec::new()));
    let thousand = (0..500).map(|_| FilterEntry::Reference(reference("deep20", &[])));
    filters.push(filter("thousand", 301, thousand.collect()));
    let book = book(filters);
    let addresses: Vec<String> = (1..=40).map(|last| format!("192.0.2.{last}")).collect();
    let macs: Vec<String> = (1..=40)
        .map(|last| format!("52:54:00:00:00:{last:02x}"))
        .collect();
    let mut parameters: Vec<(&str, &str)> = addresses.iter().map(|it| ("A", it.as_str())).collect();
    parameters.extend(macs.iter().map(|it| ("M", it.as_str())));
    let of = |name: &str, parameters: &[(&str, &str)]| {
        book.instantiate(&reference(name, parameters), mac())
            .unwrap_err()
    };
    // 40 * 40 * 40.
    let error = of("many", &parameters);
    assert!(matches!(error, InstanceError::Rules(_)), "{error}");
    let error = of("deep0", &[]);
    assert!(matches!(error, InstanceError::Depth(_)), "{error}");
    let error = of("deep8", &[]);
    assert!(matches!(error, InstanceError::References(_)), "{error}");
    let error = of("thousand", &[]);
    assert!(matches!(error, InstanceError::References(_)), "{error}");
}

#[test]
fn a_rule_that_could_match_nothing_is_refused_where_it_is_used() {
    let udp = [
        ("protocol", "$PROTOCOL"),
        ("dstportstart", "$FIRST"),
        ("dstportend", "200"),
    ];
    let own = filter(
        "own",
        7,
        vec![rule(
            RuleAction::Drop,
            RuleDirection::In,
            RuleProtocol::Ip,
            &udp,
        )],
    );
    let book = book(vec![own]);
    let with = |protocol: &str, first: &str| {
        let parameter = |name: &str, value: &str| FilterParameter {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let reference = FilterReference {
            filter: "own".parse().unwrap(),
            parameters: vec![parameter("PROTOCOL", protocol), parameter("FIRST", first)],
        };
        book.instantiate(&reference, mac())
            .map_err(|error| error.to_string())
    };
    assert_eq!(with("udp", "100").map(|rules| rules.len()), Ok(1));
    for (protocol, first, part) in [
        ("udp", "201", "ends before it begins"),
        ("icmp", "100", "ports of a protocol that has none"),
    ] {
        let refused = with(protocol, first).unwrap_err();
        assert!(refused.contains(part), "{refused}");
    }
}

#[test]
fn a_rule_of_connections_is_kept_and_not_used() {
    let book = book(samples());
    let error = book
        .instantiate(&reference("second", &[]), mac())
        .unwrap_err();
    assert!(
        matches!(
            error,
            InstanceError::Connections {
                protocol: "tcp",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn those_that_use_a_filter_are_itself_and_all_that_reach_it_also_where_it_is_not_there() {
    let to = |names: &[&str]| {
        let entries = names.iter().map(|name| reference(name, &[]));
        entries.map(FilterEntry::Reference).collect::<Vec<_>>()
    };
    let mut book = Book::default();
    let filters = [
        ("top", &["left", "right", "left"][..]),
        ("left", &["bottom"]),
        ("right", &["bottom", "other"]),
        ("other", &["absent"]),
        ("alone", &[]),
        // No definition makes one, but what was kept may.
        ("ring", &["gnir"]),
        ("gnir", &["ring"]),
    ];
    for ((name, names), number) in filters.into_iter().zip(1..) {
        book.insert(filter(name, number, to(names)));
    }
    let users = |of: &str| {
        let of = of.parse().unwrap();
        let users = book.users(&of);
        let reaching = book.all().map(|filter| &filter.name);
        let mut reaching: Vec<_> = reaching.filter(|from| book.refers(from, &of)).collect();
        reaching.push(&of);
        reaching.sort();
        reaching.dedup();
        assert_eq!(users.iter().copied().collect::<Vec<_>>(), reaching);
        let names = users.into_iter().map(|name| name.as_str().to_owned());
        names.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(users("bottom"), "bottom left right top");
    assert_eq!(users("absent"), "absent other right top");
    assert_eq!(users("alone"), "alone");
    assert_eq!(users("top"), "top");
    assert_eq!(users("ring"), "gnir ring");
}

fn opened(state: &std::path::Path) -> Nwfilters {
    let store = NwfilterStore::open(state).unwrap();
    let filters = Nwfilters::new(SharedBook::default(), TapFilters::default(), store.into());
    assert!(filters.load().unwrap().refused.is_empty());
    filters
}

fn by_name(name: &str) -> NwfilterRef {
    NwfilterRef::Name(name.parse().unwrap())
}

#[test]
fn what_is_defined_and_undefined_stays_so() {
    let state = tempfile::tempdir().unwrap();
    let filters = opened(state.path());
    assert_eq!(filters.page(None).filters.len(), shipped::COUNT);
    for sample in samples() {
        filters.define(sample, true).unwrap();
    }
    let mut own = filters.get(&by_name("allow-arp")).unwrap();
    own.entries.clear();
    filters.define(own.clone(), false).unwrap();
    filters.undefine(&by_name("clean-traffic-gateway")).unwrap();
    filters.undefine(&by_name("first")).unwrap();
    let filters = opened(state.path());
    assert_eq!(filters.page(None).filters.len(), shipped::COUNT);
    assert_eq!(filters.get(&by_name("allow-arp")).unwrap(), own);
    assert_eq!(filters.get(&by_name("second")).unwrap(), samples()[0]);
    for gone in ["clean-traffic-gateway", "first"] {
        let error = filters.get(&by_name(gone)).unwrap_err();
        assert_eq!(error.code, ApiErrorCode::NoNwfilter);
    }
    // It comes back when somebody defines it.
    let again = shipped::all();
    let again = again
        .iter()
        .find(|it| it.name.as_str() == "clean-traffic-gateway");
    filters.define(again.unwrap().clone(), true).unwrap();
    assert_eq!(
        opened(state.path()).page(None).filters.len(),
        shipped::COUNT + 1
    );
}

#[test]
fn what_collides_or_loops_is_refused() {
    let state = tempfile::tempdir().unwrap();
    let filters = opened(state.path());
    let refused = |filter: Nwfilter| filters.define(filter, false).unwrap_err();
    let to = |name: &str| vec![FilterEntry::Reference(reference(name, &[]))];
    let error = refused(filter("allow-arp", 1, Vec::new()));
    assert_eq!(error.code, ApiErrorCode::NwfilterExists);
    filters.define(filter("a", 1, to("b")), false).unwrap();
    let error = refused(filter("other", 1, Vec::new()));
    assert!(
        error.message.contains("same UUID but different name ('a')"),
        "{error}"
    );
    let error = refused(filter("self", 2, to("self")));
    assert_eq!(error.message, "filter would introduce a loop");
    filters.define(filter("b", 3, to("c")), false).unwrap();
    let error = refused(filter("c", 4, to("a")));
    assert_eq!(error.message, "filter would introduce a loop");
    // As libvirt: another filter may refer to what is not there.
    filters.undefine(&by_name("b")).unwrap();
    let error = filters.undefine(&by_name("b")).unwrap_err();
    assert_eq!(error.code, ApiErrorCode::NoNwfilter);
}
