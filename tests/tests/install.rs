//! What `packaging/install` puts where, staged: from a build, and from the tarball; and what
//! `tools/install` installs where the linters are missing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use reeve_tests::reeve::product;

/// What must be there below the prefix, with its mode; manual pages beside these there may be more.
const BELOW_PREFIX: [(&str, u32); 20] = [
    ("bin/reeve", 0o755),
    ("sbin/reeved", 0o755),
    ("libexec/reeve/reeve-worker", 0o755),
    ("libexec/reeve/reeve-gateway", 0o755),
    ("lib/systemd/system/reeve-domains.service", 0o644),
    ("lib/systemd/system/reeve-guests.service", 0o644),
    ("lib/systemd/system/reeved.service", 0o644),
    ("lib/sysusers.d/reeve.conf", 0o644),
    ("share/man/man1/reeve.1", 0o644),
    ("share/man/man1/reeve-shutdown.1", 0o644),
    ("share/man/man8/reeved.8", 0o644),
    ("share/man/man5/reeve.toml.5", 0o644),
    ("share/bash-completion/completions/reeve", 0o644),
    ("share/zsh/vendor-completions/_reeve", 0o644),
    ("share/fish/vendor_completions.d/reeve.fish", 0o644),
    ("share/doc/reeve/README.md", 0o644),
    ("share/doc/reeve/CHANGELOG.md", 0o644),
    ("share/doc/reeve/admin.md", 0o644),
    ("share/doc/reeve/security.md", 0o644),
    ("share/doc/reeve/apparmor-profile", 0o644),
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs a script under a umask that lets nobody else read; what it prints.
fn run(script: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new("sh")
        .args(["-c", "umask 077; exec \"$@\"", "sh"])
        .arg(script)
        .args(arguments)
        .output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{}: {}: {errors}",
        script.display(),
        output.status
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// Every file below `root` with its mode, every directory with a slash behind it.
fn tree(root: &Path) -> Result<BTreeMap<String, u32>> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            let metadata = path.symlink_metadata()?;
            let mut name = path.strip_prefix(root)?.display().to_string();
            if metadata.is_dir() {
                name.push('/');
                directories.push(path);
            }
            found.insert(name, metadata.permissions().mode() & 0o7777);
        }
    }
    Ok(found)
}

/// That a staged tree is whole, that nothing is in it that does not belong, and that it works.
fn check(staged: &Path, prefix: &str) -> Result<()> {
    let tree = tree(staged)?;
    let below = prefix.trim_start_matches('/');
    let mut expected = vec![("etc/reeve/reeve.toml".to_owned(), 0o644)];
    expected.extend(
        BELOW_PREFIX
            .iter()
            .map(|(name, mode)| (format!("{below}/{name}"), *mode)),
    );
    for (name, mode) in &expected {
        let found = tree.get(name).with_context(|| format!("no {name}"))?;
        ensure!(found == mode, "{name}: mode {found:o}");
    }
    for (name, mode) in &tree {
        let is_page = name.starts_with(&format!("{below}/share/man/man"));
        if name.ends_with('/') {
            ensure!(*mode == 0o755, "{name}: mode {mode:o}");
        } else if is_page {
            ensure!(*mode == 0o644, "{name}: mode {mode:o}");
        } else {
            ensure!(
                expected.iter().any(|(known, _)| known == name),
                "{name} is one too many"
            );
        }
    }
    for unit in ["reeved", "reeve-guests", "reeve-domains"] {
        let path = staged.join(below).join("lib/systemd/system");
        let text = fs::read_to_string(path.join(format!("{unit}.service")))?;
        for line in text.lines().filter(|line| line.starts_with("Exec")) {
            let (_, command) = line.split_once('=').context("a command")?;
            let program = command.split(' ').next().unwrap_or_default();
            if program.contains("reeve") {
                ensure!(program.starts_with(prefix), "{unit}: {line}");
                ensure!(
                    tree.contains_key(program.trim_start_matches('/')),
                    "{unit}: {line}"
                );
            }
        }
    }
    let configuration = staged.join("etc/reeve/reeve.toml").display().to_string();
    let reeved = staged.join(below).join("sbin/reeved");
    run(&reeved, &["--check-config", "--config", &configuration])?;
    run(&staged.join(below).join("bin/reeve"), &["--version"])?;
    Ok(())
}

#[test]
fn an_installation_is_whole_and_readable_and_keeps_a_configuration() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let built = product("reeve")?;
    let built = built.parent().context("a directory")?.display().to_string();
    let install = source().join("packaging/install");
    for prefix in ["/usr/local", "/usr"] {
        let staged = directory.path().join(prefix.replace('/', "_"));
        let text = staged.display().to_string();
        let arguments = ["--bin", &built, "--destdir", &text, "--prefix", prefix];
        let printed = run(&install, &arguments)?;
        ensure!(printed.is_empty(), "staged, and told to start: {printed}");
        // The staging directory itself is the caller's.
        check(&staged, prefix)?;
        let configuration = staged.join("etc/reeve/reeve.toml");
        fs::write(&configuration, "max_clients = 7\n")?;
        run(&install, &arguments)?;
        ensure!(fs::read_to_string(&configuration)? == "max_clients = 7\n");
        check(&staged, prefix)?;
    }
    Ok(())
}

#[test]
fn what_the_tarball_holds_installs() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let built = product("reeve")?;
    let built = built.parent().context("a directory")?.display().to_string();
    let out = directory.path().join("dist").display().to_string();
    let arguments = ["--bin", &built, "--version", "0.0.1", "--out", &out];
    let printed = run(&source().join("packaging/build-dist"), &arguments)?;
    let tarball = printed.lines().last().context("a name")?;
    ensure!(tarball.ends_with("/reeve-0.0.1-x86_64-linux.tar.gz"));
    let unpacked = directory.path().join("unpacked").display().to_string();
    fs::create_dir(&unpacked)?;
    run(Path::new("tar"), &["-C", &unpacked, "-xzf", tarball])?;
    let install = Path::new(&unpacked).join("reeve-0.0.1-x86_64-linux/packaging/install");
    let staged = directory.path().join("staged");
    run(&install, &["--destdir", &staged.display().to_string()])?;
    check(&staged, "/usr/local")
}

/// A `cargo` without components until somebody adds them with `rustup`, which notes what it was asked.
const CARGO: &str = "#!/bin/sh\n[ -e \"$0.$1\" ]\n";
const RUSTUP: &str = "#!/bin/sh
here=$(dirname \"$0\")
echo \"$@\" >>\"$here/asked\"
for component in \"$@\"; do
    case $component in rustfmt) touch \"$here/cargo.fmt\" ;; clippy) touch \"$here/cargo.clippy\" ;; esac
done
";

#[test]
fn the_linters_are_installed_where_they_are_missing() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = |name: &str| directory.path().join(name);
    let rustc = "#!/bin/sh\necho rustc 1.99.0\n";
    for (name, text) in [("cargo", CARGO), ("rustup", RUSTUP), ("rustc", rustc)] {
        fs::write(file(name), text)?;
        fs::set_permissions(file(name), fs::Permissions::from_mode(0o755))?;
    }
    let path = std::env::var("PATH")?;
    let install = |what: &[&str]| -> Result<String> {
        let output = Command::new(source().join("tools/install"))
            .args(what)
            .env("PATH", format!("{}:{path}", directory.path().display()))
            .output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{what:?}: {errors}");
        Ok(String::from_utf8(output.stdout)?)
    };
    install(&[])?;
    ensure!(!file("asked").exists(), "a build needs no linters");
    let printed = install(&["lint"])?;
    ensure!(
        printed.contains("rustup component add rustfmt clippy"),
        "{printed}"
    );
    ensure!(fs::read_to_string(file("asked"))? == "component add rustfmt clippy\n");
    ensure!(install(&["lint"])?.is_empty(), "they are there already");
    fs::remove_file(file("cargo.clippy"))?;
    install(&["lint"])?;
    ensure!(fs::read_to_string(file("asked"))?.ends_with("\ncomponent add clippy\n"));
    Ok(())
}
