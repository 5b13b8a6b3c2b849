use super::{Code, ErrorBody, Origin, WireError};
use crate::wire::frame::Program;
use crate::wire::procedures::find;
use crate::wire::sample::check;
use crate::wire::xdr::{decode, encode};

#[test]
fn codes_and_origins_have_libvirts_numbers() {
    let codes = [
        (Code::InternalError, 1),
        (Code::NoSupport, 3),
        (Code::NoConnect, 5),
        (Code::InvalidArgument, 8),
        (Code::OperationFailed, 9),
        (Code::XmlError, 27),
        (Code::OperationDenied, 29),
        (Code::Rpc, 39),
        (Code::NoDomain, 42),
        (Code::NoNetwork, 43),
        (Code::AuthFailed, 45),
        (Code::NoPool, 49),
        (Code::NoVolume, 50),
        (Code::NoNodeDevice, 53),
        (Code::OperationInvalid, 55),
        (Code::NoInterface, 57),
        (Code::NoNwfilter, 62),
        (Code::NoSecret, 66),
        (Code::ConfigUnsupported, 67),
        (Code::OperationTimeout, 68),
        (Code::NoSnapshot, 72),
        (Code::ArgumentUnsupported, 74),
        (Code::OperationAborted, 78),
        (Code::NoMetadata, 80),
        (Code::OperationUnsupported, 84),
        (Code::AgentUnresponsive, 86),
        (Code::ResourceBusy, 87),
        (Code::AccessDenied, 88),
        (Code::XmlInvalidSchema, 92),
        (Code::DeviceMissing, 99),
        (Code::NoCheckpoint, 103),
        (Code::MultipleDomains, 110),
    ];
    for (code, number) in codes {
        assert_eq!(code.number(), number);
        assert_eq!(Code::from_number(number), Some(code));
    }
    let origins = [
        (Origin::None, 0),
        (Origin::Rpc, 7),
        (Origin::Qemu, 10),
        (Origin::Remote, 13),
        (Origin::Storage, 18),
        (Origin::Network, 19),
        (Origin::Domain, 20),
        (Origin::Nodedev, 22),
        (Origin::Interface, 26),
        (Origin::Secret, 30),
        (Origin::Nwfilter, 33),
        (Origin::DomainSnapshot, 35),
        (Origin::Streams, 38),
        (Origin::DomainCheckpoint, 69),
        (Origin::Ch, 72),
    ];
    for (origin, number) in origins {
        assert_eq!(origin.number(), number);
        assert_eq!(Origin::from_number(number), Some(origin));
    }
    assert_eq!(Code::from_number(0), None);
    assert_eq!(Code::from_number(111), None);
    assert_eq!((1..=110).filter_map(Code::from_number).count(), 110);
}

#[test]
fn every_text_has_one_place_for_what_happened() {
    for code in (1..=110).filter_map(Code::from_number) {
        assert_eq!(code.format().matches('%').count(), 1, "{code:?}");
        assert!(code.format().contains("%s"), "{code:?}");
    }
}

#[test]
fn an_error_goes_over_the_wire_in_libvirts_order() {
    let error = WireError::not_found(Code::NoDomain, "no domain with matching name 'x'");
    let bytes = encode(&error.body()).unwrap();
    assert_eq!(bytes[..8], [0, 0, 0, 42, 0, 0, 0, 10]);
    assert_eq!(bytes[8..12], [0, 0, 0, 1]);
    let text = b"Domain not found: no domain with matching name 'x'";
    assert_eq!(bytes[16..16 + text.len()], text[..]);
    let body: ErrorBody = decode(&bytes).unwrap();
    assert_eq!(body, error.body());
    assert_eq!((body.level, body.int1, body.int2), (2, -1, -1));
    assert_eq!(body.str1.as_deref(), Some("Domain not found: %s"));
    assert_eq!(
        body.str2.as_deref(),
        Some("no domain with matching name 'x'")
    );
}

#[test]
fn an_unknown_procedures_text_begins_as_c_programs_want_it() {
    let error = WireError::unknown_procedure(454);
    assert_eq!((error.code, error.origin), (Code::Rpc, Origin::Rpc));
    assert!(error.message().starts_with("unknown procedure"));
}

#[test]
fn what_is_not_served_is_named_by_its_function() {
    let error = WireError::not_supported(find(Program::Remote, 365).unwrap());
    assert_eq!((error.code.number(), error.origin.number()), (3, 20));
    assert_eq!(
        error.message(),
        "this function is not supported by the connection driver: virDomainGetPerfEvents"
    );
}

#[test]
fn a_read_only_connection_is_told_what_it_may_not_do() {
    let error = WireError::read_only(find(Program::Remote, 12).unwrap());
    assert_eq!((error.code.number(), error.origin.number()), (29, 20));
    assert_eq!(
        error.message(),
        "operation forbidden: read only access prevents virDomainDestroy"
    );
    let secure = WireError::read_only(find(Program::Remote, 14).unwrap());
    assert_eq!(
        secure.message(),
        "operation forbidden: virDomainGetXMLDesc with secure flag"
    );
}

#[test]
fn the_errors_of_a_connection_are_libvirts() {
    let said = |error: WireError| (error.code.number(), error.origin.number(), error.message());
    assert_eq!(
        said(WireError::unknown_program(77, 1)),
        (39, 7, "Cannot find program 77 version 1".to_owned())
    );
    assert_eq!(
        said(WireError::not_open()),
        (
            1,
            7,
            "internal error: hypervisor connection not open".to_owned()
        )
    );
    assert_eq!(
        said(WireError::unknown_uri("ch:///system")),
        (
            5,
            0,
            "no connection driver available for ch:///system".to_owned()
        )
    );
    assert_eq!(said(WireError::not_authenticated()).0, 39);
    assert_eq!(
        said(WireError::not_running()),
        (
            55,
            10,
            "Requested operation is not valid: domain is not running".to_owned()
        )
    );
    assert_eq!(said(WireError::not_found(Code::NoVolume, "x")).1, 18);
}

#[test]
fn a_detail_with_a_percent_sign_is_said_as_it_is() {
    let error = WireError::invalid("100%s of it");
    assert_eq!(
        error.message(),
        "Requested operation is not valid: 100%s of it"
    );
}

#[test]
fn an_error_comes_back_as_it_was() {
    (0..64).for_each(check::<ErrorBody>);
}
