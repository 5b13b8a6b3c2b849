//! `reeve edit`: with editors that change, break, fail, and change their mind.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use reeve_tests::reeve::Reeve;

use super::{Cli, PATIENCE};

impl Cli {
    /// An editor that is this shell script; its file is `$1`. A shell reads it, rather than the kernel
    /// execute it: a test beside this one that forks may still have it open for writing.
    fn editor(&self, script: &str) -> Result<String> {
        let path = self.path("editor");
        std::fs::write(&path, format!("{script}\n"))?;
        Ok(format!("sh {}", path.display()))
    }

    fn edit(&self, name: &str, script: &str) -> Result<Output> {
        let editor = self.editor(script)?;
        let mut command = self.daemon.reeve_command(&["edit", name])?;
        let command = command
            .env("TMPDIR", self.files.path())
            .env_remove("VISUAL")
            .env("EDITOR", editor);
        Ok(command.output()?)
    }

    /// Texts that are kept for their author.
    fn kept(&self) -> Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(self.files.path())?;
        let paths = entries.map(|entry| Ok(entry?.path()));
        let paths: Result<Vec<PathBuf>> = paths.collect();
        let of_ours = |path: &PathBuf| path.to_string_lossy().contains("reeve-");
        Ok(paths?.into_iter().filter(of_ours).collect())
    }
}

#[test]
fn a_change_is_kept_and_no_change_is_none() -> Result<()> {
    let cli = Cli::start()?;
    cli.define("web")?;
    let output = cli.edit("web", "true")?;
    ensure!(output.status.success());
    assert_eq!(output.stdout, b"domain 'web' unchanged\n");
    let output = cli.edit(
        "web",
        "sed -i 's/^memory.*/memory = \"64M\"\\nautostart = 4/' \"$1\"",
    )?;
    ensure!(output.status.success());
    assert_eq!(output.stdout, b"domain 'web' edited\n");
    let info = cli.json(&["info", "web"])?;
    assert_eq!(info["memory_bytes"], 64 << 20);
    assert_eq!(info["autostart"], 4);
    // A line that is gone is a setting that is gone.
    ensure!(
        cli.edit("web", "sed -i /^autostart/d \"$1\"")?
            .status
            .success()
    );
    ensure!(cli.json(&["info", "web"])?["autostart"].is_null());
    ensure!(cli.kept()?.is_empty(), "{:?}", cli.kept()?);
    Ok(())
}

#[test]
fn an_invalid_change_loses_neither_the_text_nor_the_definition() -> Result<()> {
    let cli = Cli::start()?;
    cli.define("web")?;
    let before = cli.json(&["inspect", "web"])?;
    for (script, why) in [
        ("sed -i 's/^memory.*/memory = 3q # mine/' \"$1\"", "line 5"),
        (
            "sed -i 's/^memory.*/memory = \"3\" # mine/' \"$1\"",
            "2M to 32T",
        ),
        ("sed -i 's/^cpus.*/cpus = 0 # mine/' \"$1\"", "0 vCPUs"),
        (
            "sed -i 's/^name.*/name = \"other\" # mine/' \"$1\"",
            "rename that one",
        ),
        (
            "sed -i 's/^kernel.*//;s/^memory/kernel = \"vmlinuz\" # mine\\nmemory/' \"$1\"",
            "'vmlinuz' must be an absolute path",
        ),
        (
            "sed -i 's/^uuid.*/uuid = \"6f1f9b0e-3c62-4a8d-9c1f-0c8a2f3f7a10\" # mine/;\
             s/^name.*/name = \"n\"/' \"$1\"",
            "keeps its UUID",
        ),
        ("echo 'colour = \"red\" # mine' >> \"$1\"", "colour"),
        ("echo '# mine' >> \"$1\"; exit 3", "failed"),
    ] {
        let output = cli.edit("web", script)?;
        let errors = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(1), "{script}");
        let path = kept_at(&errors, why).with_context(|| script.to_owned())?;
        let text = std::fs::read_to_string(&path)?;
        ensure!(text.contains("# mine"), "{text}");
        assert_eq!(std::fs::metadata(&path)?.permissions().mode() & 0o077, 0);
        std::fs::remove_file(path)?;
        assert_eq!(cli.json(&["inspect", "web"])?, before, "{script}");
    }
    ensure!(cli.kept()?.is_empty(), "nothing else is left");
    Ok(())
}

#[test]
fn on_a_terminal_the_same_text_is_edited_again() -> Result<()> {
    let cli = Cli::start()?;
    cli.define("web")?;
    // Broken the first time; the second finds what it wrote then.
    let editor = cli.editor(
        "if grep -q broken \"$1\"; then sed -i 's/.*broken.*/memory = \"64M\"/' \"$1\"; \
         else sed -i 's/^memory.*/memory = broken/' \"$1\"; fi",
    )?;
    let mut reeve = Reeve::command()?
        .arg("edit")
        .arg("web")
        .env("REEVE_SOCKET", &cli.daemon.socket().display().to_string())
        .env("TMPDIR", &cli.files.path().display().to_string())
        .env("VISUAL", &editor)
        .on_terminal()
        .spawn()?;
    reeve.expect("Edit again? [Y/n] ", PATIENCE)?;
    reeve.send(b"\n")?;
    reeve.expect("domain 'web' edited", PATIENCE)?;
    assert_eq!(cli.json(&["info", "web"])?["memory_bytes"], 64 << 20);
    ensure!(cli.kept()?.is_empty());
    Ok(())
}

/// Where a text is kept, as the one line says it that also says why.
fn kept_at(errors: &str, why: &str) -> Result<PathBuf> {
    assert_eq!(errors.lines().count(), 1, "{errors}");
    ensure!(errors.contains(why), "no '{why}' in: {errors}");
    let (_, path) = errors
        .trim_end()
        .rsplit_once("; your text is kept in ")
        .with_context(|| errors.to_owned())?;
    Ok(PathBuf::from(path))
}

#[test]
fn a_definition_that_somebody_removed_meanwhile_is_told() -> Result<()> {
    let cli = Cli::start()?;
    cli.refused(&["edit", "none"], &["no domain 'none'"])?;
    ensure!(cli.kept()?.is_empty());
    cli.define("web")?;
    let reeve = reeve_tests::reeve::product("reeve")?;
    let script = format!("{} undefine web; echo '# mine' >> \"$1\"", reeve.display());
    let output = cli.edit("web", &script)?;
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr)?;
    let path = kept_at(&errors, "'web' was undefined while you edited it")?;
    ensure!(std::fs::read_to_string(&path)?.contains("# mine"));
    assert_eq!(cli.ok(&["list", "-aq"])?, "", "it is not brought back");
    // The line says how to.
    cli.ok(&["define", "--file", &path.display().to_string()])?;
    assert_eq!(cli.ok(&["list", "-aq"])?, "web\n");
    Ok(())
}

#[test]
fn a_definition_that_somebody_changed_meanwhile_is_left_so() -> Result<()> {
    let cli = Cli::start()?;
    let reeve = reeve_tests::reeve::product("reeve")?;
    let reeve = reeve.display();
    for meanwhile in [
        format!("{reeve} define web --memory 48M"),
        format!("{reeve} autostart web --order 9"),
        format!("{reeve} rename web web2"),
    ] {
        cli.define("web")?;
        let script =
            format!("{meanwhile} > /dev/null; sed -i 's/^memory.*/memory = \"64M\"/' \"$1\"");
        let output = cli.edit("web", &script)?;
        assert_eq!(output.status.code(), Some(1), "{meanwhile}");
        let errors = String::from_utf8(output.stderr)?;
        let path = kept_at(&errors, "was changed while you edited it")?;
        ensure!(std::fs::read_to_string(&path)?.contains("64M"));
        let list = cli.json(&["list", "-a"])?;
        ensure!(list[0]["memory_bytes"] != 64 << 20, "{meanwhile}: {list}");
    }
    Ok(())
}
