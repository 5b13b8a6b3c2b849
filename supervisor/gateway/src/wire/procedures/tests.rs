use std::path::Path;

use super::{Access, Rank, Role, State, all, find, markdown};
use crate::wire::frame::Program;

#[test]
fn every_number_up_to_the_last_has_its_row() {
    for (program, last) in [
        (Program::Remote, 453),
        (Program::Qemu, 7),
        (Program::Lxc, 1),
        (Program::Admin, 19),
        (Program::Keepalive, 0),
    ] {
        for number in 1..=last {
            assert_eq!(find(program, number).unwrap().number, number);
        }
        for number in [i32::MIN, -1, 0, last + 1, i32::MAX] {
            assert_eq!(find(program, number), None);
        }
    }
}

#[test]
fn names_are_unique_and_functions_are_functions() {
    for program in [Program::Remote, Program::Qemu, Program::Lxc, Program::Admin] {
        let mut names: Vec<_> = all(program).iter().map(|row| row.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all(program).len());
        for row in all(program) {
            assert!(
                row.api.starts_with(if row.is_call() { "vir" } else { "" }),
                "{row:?}"
            );
            assert!(row.api.to_lowercase().starts_with("vir"), "{row:?}");
        }
    }
}

#[test]
fn rows_say_what_libvirt_says() {
    let row = |number| *find(Program::Remote, number).unwrap();
    assert_eq!(
        (row(1).name, row(1).api),
        ("CONNECT_OPEN", "virConnectOpen")
    );
    assert_eq!(row(12).role, Role::Call(Access::Write, Rank::High));
    assert_eq!(row(118).api, "virNodeDeviceDettach");
    assert_eq!(row(212).role, Role::Call(Access::Read, Rank::High));
    assert_eq!(row(318).role, Role::Event);
    assert_eq!(row(443).name, "DOMAIN_FD_ASSOCIATE");
}

#[test]
fn a_document_with_secrets_needs_write_access_and_one_without_does_not() {
    let description = find(Program::Remote, 14).unwrap();
    assert!(description.needs_write(1));
    assert!(description.needs_write(8));
    assert!(!description.needs_write(2 | 4));
    assert!(find(Program::Remote, 9).unwrap().needs_write(0));
    assert!(find(Program::Remote, 145).unwrap().needs_write(0));
}

#[test]
fn containers_are_not_supported_by_design() {
    let row = find(Program::Lxc, 1).unwrap();
    assert!(matches!(row.state, State::Unsupported(_)));
}

#[test]
fn the_document_is_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/libvirt-procedures.md");
    if std::env::var_os("REEVE_WRITE_DOCS").is_some() {
        std::fs::write(&path, markdown()).unwrap();
    }
    let document = std::fs::read_to_string(&path).unwrap();
    assert!(
        document == markdown(),
        "{} is not what the table says",
        path.display()
    );
}
