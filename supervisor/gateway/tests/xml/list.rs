//! The closed list and its table in the docs.

use reeve_gateway::xml::kept;

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/libvirt-xml.md");

#[test]
fn the_docs_have_the_list_as_it_is() {
    let docs = std::fs::read_to_string(DOCS).unwrap();
    let table = kept::table();
    assert!(
        docs.contains(&table),
        "docs/libvirt-xml.md has another list of what is accepted without being provided; it is:\n{table}"
    );
}
