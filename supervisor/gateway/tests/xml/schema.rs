//! Validity by libvirt's own schemas.

use std::path::Path;
use std::process::Command;

const SCHEMAS: &str = "/usr/share/libvirt/schemas";

/// That each of these documents is valid by that schema, as `domain`.
pub fn validate(schema: &str, documents: &[String]) {
    let schema = Path::new(SCHEMAS).join(format!("{schema}.rng"));
    assert!(
        schema.exists(),
        "libvirt's schemas are not here: apt-get install --no-install-recommends libvirt0 libxml2-utils"
    );
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new("xmllint");
    command
        .args(["--nonet", "--noout", "--relaxng"])
        .arg(&schema);
    for (number, document) in documents.iter().enumerate() {
        let path = directory.path().join(format!("{number}.xml"));
        std::fs::write(&path, document).unwrap();
        command.arg(&path);
    }
    let output = command.output().expect(
        "xmllint is not here: apt-get install --no-install-recommends libvirt0 libxml2-utils",
    );
    if output.status.success() {
        return;
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let failed: Vec<&str> = said
        .lines()
        .filter(|line| !line.ends_with("validates"))
        .take(30)
        .collect();
    let first = (0..documents.len())
        .find(|number| said.contains(&format!("/{number}.xml fails to validate")))
        .and_then(|number| documents.get(number));
    panic!(
        "{}\n{}",
        failed.join("\n"),
        first.map_or("", String::as_str)
    );
}
