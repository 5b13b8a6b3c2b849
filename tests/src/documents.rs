//! What holds for every document of libvirt's that a daemon prints, in whichever test: it is valid by libvirt's own
//! schemas, and what it defines comes back as it was, as the same text, when that is defined again.
//!
//! A harness hands in what its clients print ([`Documents::printed`]). At the daemon's end the domains and pools
//! that are left are dumped in every view too, and all of it is checked ([`Documents::check`]). A text is checked
//! once in each process of tests.
//!
//! That is when a test is over, with what it has to say itself: a fault is printed then, and the process of tests
//! fails at its end ([`fails_at_end`]).

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::sync_channel;
use std::sync::{LazyLock, Mutex, Once, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use uuid::Uuid;

use crate::virsh::{REAL, over};

/// Where libvirt's schemas are, of Debian's `libvirt0`.
const SCHEMAS: &str = "/usr/share/libvirt/schemas";
/// What a document's outermost element is, and the schema that it is valid by.
const ROOTS: &[(&str, &str)] = &[
    ("domain", "domain"),
    ("domainCapabilities", "domaincaps"),
    ("capabilities", "capability"),
    ("cpu", "cpu"),
    ("device", "nodedev"),
    ("filter", "nwfilter"),
    ("filterbinding", "nwfilterbinding"),
    ("pool", "storagepool"),
    ("storagepoolCapabilities", "storagepoolcaps"),
    ("volume", "storagevol"),
];
/// What virsh prints between the answers to its commands.
const BETWEEN: &str = "---of-the-next---";
/// How long virsh or xmllint may take.
const LIMIT: Duration = Duration::from_secs(120);

/// What has been checked: by which schema, and the text.
static CHECKED: LazyLock<Mutex<HashSet<(&str, String)>>> = LazyLock::new(Mutex::default);

/// How a program is started where the daemon's clients are.
type Start = Box<dyn Fn(&str) -> Command + Send + Sync>;

/// The documents of one daemon.
pub struct Documents {
    start: Start,
    printed: Mutex<Vec<Document>>,
}

/// One of them.
#[derive(Debug, Clone)]
struct Document {
    /// Of which connection.
    uri: String,
    /// What printed it.
    command: String,
    root: &'static str,
    schema: &'static str,
    text: String,
}

impl fmt::Debug for Documents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Documents").finish_non_exhaustive()
    }
}

impl Default for Documents {
    fn default() -> Self {
        Self {
            start: Box::new(|program| Command::new(program)),
            printed: Mutex::default(),
        }
    }
}

impl Documents {
    /// From now on virsh and xmllint are started so.
    pub fn start_by(&mut self, start: impl Fn(&str) -> Command + Send + Sync + 'static) {
        self.start = Box::new(start);
    }

    /// Takes what a command printed on a connection to `uri`, as `test:///default`: the documents in it are checked
    /// later.
    pub fn printed(&self, uri: &str, command: &str, text: &str) {
        // What a client would send, and does not; and what it writes anew in its own way.
        if command.contains("--print-xml") || command.contains("--xpath") {
            return;
        }
        let found = documents(text).into_iter().map(|(root, schema, text)| {
            let (uri, command) = (uri.to_owned(), command.to_owned());
            Document {
                uri,
                command,
                root,
                schema,
                text,
            }
        });
        self.list().extend(found);
    }

    fn list(&self) -> std::sync::MutexGuard<'_, Vec<Document>> {
        self.printed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks all that was printed; and, of a daemon that serves at `socket`, every domain and pool that there is.
    /// Pools are undefined by that.
    ///
    /// # Errors
    /// A document is not valid, or becomes another by being defined: with its command, and its text.
    pub fn check(&self, socket: Option<&Path>) -> Result<()> {
        let mut uris: BTreeSet<String> = self.list().iter().map(|it| it.uri.clone()).collect();
        let known = !uris.insert(REAL.to_owned());
        for uri in socket.iter().flat_map(|_| &uris) {
            let socket = socket.context("no socket")?;
            let found = self.dump_all(uri, socket);
            // A daemon may serve the other connections only.
            if uri != REAL || known {
                found.with_context(|| format!("the documents of {uri}"))?;
            }
        }
        let mut all = std::mem::take(&mut *self.list());
        {
            let mut checked = CHECKED.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|it| checked.insert((it.schema, it.text.clone())));
        }
        self.validate(&all)?;
        for uri in socket.iter().flat_map(|_| &uris) {
            let socket = socket.context("no socket")?;
            let of = |root| {
                all.iter()
                    .filter(move |it| it.uri == *uri && it.root == root)
            };
            self.define_again(uri, socket, DOMAIN, &of("domain").collect::<Vec<_>>())?;
            let pools: Vec<&Document> = of("pool").collect();
            self.define_again(uri, socket, POOL, &pools)?;
        }
        Ok(())
    }

    /// What virsh prints for each of these commands; what it complains of.
    fn virsh(
        &self,
        uri: &str,
        socket: &Path,
        commands: &[String],
    ) -> Result<(Vec<String>, String)> {
        let uri = over(uri, socket);
        let between = format!("; echo {BETWEEN}; ");
        let mut virsh = (self.start)("virsh");
        virsh
            .args(["-q", "-c", &uri, &commands.join(&between)])
            .env("LC_ALL", "C")
            .stdin(Stdio::null());
        let output = output(&mut virsh).with_context(|| format!("virsh {commands:?}"))?;
        let said = String::from_utf8(output.stdout)?;
        // Quiet as it is, it ends no line after such a word.
        let each: Vec<String> = said.split(BETWEEN).map(str::to_owned).collect();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            each.len() == commands.len(),
            "virsh {commands:?}: {said}{complaint}"
        );
        Ok((each, complaint))
    }

    /// Dumps what there is, in every view.
    fn dump_all(&self, uri: &str, socket: &Path) -> Result<()> {
        let lists = [
            "list --all --uuid".to_owned(),
            "pool-list --all --name".to_owned(),
        ];
        let (lists, complaint) = self.virsh(uri, socket, &lists)?;
        ensure!(complaint.is_empty(), "{complaint}");
        let names = |list: usize| {
            let names = lists.get(list).map_or("", String::as_str).lines();
            names.map(str::trim).filter(|name| !name.is_empty())
        };
        let mut commands = vec!["capabilities".to_owned(), "domcapabilities".to_owned()];
        for uuid in names(0) {
            for view in ["", " --inactive", " --security-info", " --migratable"] {
                commands.push(format!("dumpxml {uuid}{view}"));
            }
        }
        for name in names(1) {
            for view in ["", " --inactive"] {
                commands.push(format!("pool-dumpxml '{name}'{view}"));
            }
        }
        let (texts, _) = self.virsh(uri, socket, &commands)?;
        for (command, text) in commands.iter().zip(texts) {
            self.printed(uri, command, &text);
        }
        Ok(())
    }

    /// Checks that each is valid.
    fn validate(&self, all: &[Document]) -> Result<()> {
        let mut schemas: BTreeMap<&str, Vec<&Document>> = BTreeMap::new();
        for document in all {
            schemas.entry(document.schema).or_default().push(document);
        }
        let directory = tempfile::tempdir()?;
        for (schema, documents) in schemas {
            let mut command = (self.start)("xmllint");
            command
                .args(["--nonet", "--noout", "--relaxng"])
                .arg(Path::new(SCHEMAS).join(format!("{schema}.rng")));
            for (number, document) in documents.iter().enumerate() {
                let path = directory.path().join(format!("{schema}{number}.xml"));
                fs::write(&path, &document.text)?;
                command.arg(&path);
            }
            let output = output(&mut command).with_context(|| format!("xmllint by {schema}"))?;
            if output.status.success() {
                continue;
            }
            let said = String::from_utf8_lossy(&output.stderr);
            let fails =
                |number: &usize| !said.contains(&format!("/{schema}{number}.xml validates"));
            let first = (0..documents.len()).find(fails);
            let first = first.and_then(|number| documents.get(number));
            let (what, text) = first.map_or(("", ""), |it| (&it.command, &it.text));
            let why = said.lines().filter(|line| !line.ends_with(" validates"));
            let why: Vec<&str> = why.take(20).collect();
            bail!(
                "a document is not valid by {schema}.rng: {what}: {}\n{text}",
                why.join("\n")
            );
        }
        Ok(())
    }

    /// Checks that what each defines comes back as the same text when that is defined; and a definition at once.
    fn define_again(
        &self,
        uri: &str,
        socket: &Path,
        kind: Kind,
        documents: &[&Document],
    ) -> Result<()> {
        if documents.is_empty() {
            return Ok(());
        }
        let directory = tempfile::tempdir()?;
        let mut texts = Vec::new();
        let mut first = Vec::new();
        for (number, document) in documents.iter().enumerate() {
            let text = match kind.renamed {
                true => renamed(&document.text, number),
                false => document.text.clone(),
            };
            if !kind.renamed {
                let name = inside(&text, "name").context("no name")?;
                first.push(format!("{}destroy '{name}'", kind.prefix));
                first.push(format!("{}undefine '{name}'", kind.prefix));
            }
            texts.push(text);
        }
        if !first.is_empty() {
            self.virsh(uri, socket, &first)?;
        }
        for round in 1..=2 {
            let mut commands = Vec::new();
            for (number, text) in texts.iter().enumerate() {
                let name = inside(text, "name").context("no name")?;
                let path = directory.path().join(format!("{round}-{number}.xml"));
                fs::write(&path, text)?;
                let prefix = kind.prefix;
                commands.push(format!("{prefix}define {}", path.display()));
                commands.push(format!("{prefix}dumpxml '{name}' --inactive"));
                commands.push(format!("{prefix}undefine '{name}'"));
            }
            let (said, complaint) = self.virsh(uri, socket, &commands)?;
            for (number, document) in documents.iter().enumerate() {
                let Document { command, text, .. } = document;
                let dumped = said.get(3 * number + 1).map(|text| self::documents(text));
                let dumped = dumped.and_then(|all| all.into_iter().next());
                let Some((_, _, dumped)) = dumped else {
                    bail!("{command}: it does not define (round {round}): {complaint}\n{text}");
                };
                let sent = texts.get_mut(number).context("a text")?;
                let is_definition = round == 2 || (kind.renamed && !is_live(text));
                ensure!(
                    !is_definition || dumped == *sent,
                    "{command}: it is another when it is defined (round {round}):\n{sent}\n{dumped}"
                );
                *sent = dumped;
            }
        }
        Ok(())
    }
}

/// What a client prints, in a while.
fn output(command: &mut Command) -> Result<Output> {
    let client = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let client = client
        .spawn()
        .context("it does not start: run tests/lab/install")?;
    let pid = Pid::from_child(&client);
    let (tell, told) = sync_channel(1);
    std::thread::spawn(move || tell.send(client.wait_with_output()));
    match told.recv_timeout(LIMIT) {
        Ok(output) => Ok(output?),
        Err(_) => {
            let _ = kill_process(pid, Signal::KILL);
            bail!("it takes more than {} s", LIMIT.as_secs())
        }
    }
}

/// Prints a fault of the documents that a test has had printed, and has the process of tests fail at its end: a test
/// is over by then, and whether it has failed, and why, is not known here and must be told all the same.
pub fn fails_at_end(fault: &anyhow::Error) {
    static ONCE: Once = Once::new();
    let test = std::thread::current();
    let fault = format!("{}: {fault:#}", test.name().unwrap_or("a test"));
    let _ = writeln!(std::io::stderr(), "{fault}");
    let mut faults = FAULTS.lock().unwrap_or_else(PoisonError::into_inner);
    faults.push(fault);
    ONCE.call_once(|| {
        // SAFETY: the function is there as long as the process, and does not unwind.
        #[expect(unsafe_code, reason = "only libc tells that the process ends")]
        let noted = unsafe { libc::atexit(fail) };
        assert!(noted == 0, "no room for what is done at the end");
    });
}

/// The faults so far.
static FAULTS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The end of a process that would be a success but for its documents, or fails anyway.
extern "C" fn fail() {
    let faults = FAULTS.lock().unwrap_or_else(PoisonError::into_inner);
    for fault in &*faults {
        let _ = writeln!(
            std::io::stderr(),
            "of the documents that were printed: {fault}"
        );
    }
    std::process::abort();
}

/// What can be defined.
#[derive(Debug, Clone, Copy)]
struct Kind {
    /// What its commands begin with.
    prefix: &'static str,
    /// Whether it is defined beside the one that it is of, under a name and a UUID of its own.
    renamed: bool,
}

const DOMAIN: Kind = Kind {
    prefix: "",
    renamed: true,
};
/// No two pools have one directory.
const POOL: Kind = Kind {
    prefix: "pool-",
    renamed: false,
};

/// The documents in what a command printed, each with its outermost element and its schema: from a line that
/// begins with one to the line of its end.
fn documents(text: &str) -> Vec<(&'static str, &'static str, String)> {
    let mut found = Vec::new();
    let mut open: Option<(&'static str, &'static str, String)> = None;
    for line in text.lines() {
        let begins = |(root, _): &&(&str, &str)| {
            let rest = line
                .strip_prefix('<')
                .and_then(|rest| rest.strip_prefix(root));
            rest.is_some_and(|rest| rest.starts_with([' ', '>', '/']))
        };
        if open.is_none() {
            let known = ROOTS.iter().find(begins);
            open = known.map(|&(root, schema)| (root, schema, String::new()));
        }
        let Some((root, schema, mut text)) = open.take() else {
            continue;
        };
        let alone = text.is_empty() && line.ends_with("/>");
        text += line;
        text += "\n";
        if alone || line.trim_end().ends_with(&format!("</{root}>")) {
            found.push((root, schema, text));
        } else {
            open = Some((root, schema, text));
        }
    }
    found
}

/// What is in the first element of that name.
fn inside<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (inside, _) = rest.split_once(&format!("</{name}>"))?;
    Some(inside)
}

/// The document of a domain with another name and UUID.
fn renamed(text: &str, number: usize) -> String {
    let mut text = text.to_owned();
    let values = [
        ("name", format!("defined-again-{number}")),
        ("uuid", Uuid::new_v4().to_string()),
    ];
    for (element, value) in values {
        if let Some(old) = inside(&text, element) {
            let old = format!("<{element}>{old}</{element}>");
            text = text.replacen(&old, &format!("<{element}>{value}</{element}>"), 1);
        }
    }
    text
}

/// Whether it is of a domain as it runs, and no definition.
fn is_live(text: &str) -> bool {
    text.lines()
        .next()
        .is_some_and(|line| line.contains(" id="))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use anyhow::{anyhow, ensure};

    use super::{Documents, documents, fails_at_end, is_live, renamed};

    /// Says that it is the test below, started by itself, and whether that fails by itself.
    const FAILS: &str = "REEVE_TEST_OF_FAULTS_FAILS";

    #[test]
    fn a_fault_fails_the_process_of_tests_and_hides_no_failure_of_a_test() -> anyhow::Result<()> {
        if let Ok(fails) = std::env::var(FAILS) {
            fails_at_end(&anyhow!("the fault of a document"));
            ensure!(fails != "yes", "the failure of the test");
            return Ok(());
        }
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        for fails in ["yes", "no"] {
            let output = Command::new(std::env::current_exe()?)
                .args(["--exact", &name])
                .env(FAILS, fails)
                .output()?;
            let said = String::from_utf8_lossy(&output.stdout);
            let complaint = String::from_utf8_lossy(&output.stderr);
            ensure!(!output.status.success(), "{fails}: {said}");
            ensure!(complaint.contains("the fault of a document"), "{complaint}");
            ensure!(
                said.contains("the failure of the test") == (fails == "yes"),
                "{said}"
            );
        }
        Ok(())
    }

    #[test]
    fn documents_are_found_in_what_is_printed() {
        let text = "Some words\n<domain type='kvm' id='1'>\n  <name>a</name>\n  <cpu mode='x'/>\n</domain>\n\n\
                    <domainCapabilities>\n</domainCapabilities>\n<volume type='file'/>\n<other/>\n";
        let found = documents(text);
        let roots: Vec<&str> = found.iter().map(|(_, schema, _)| *schema).collect();
        assert_eq!(roots, ["domain", "domaincaps", "storagevol"]);
        assert!(found[0].2.starts_with("<domain") && found[0].2.ends_with("</domain>\n"));
        assert!(is_live(&found[0].2) && renamed(&found[0].2, 7).contains("<name>defined-again-7<"));
    }

    #[test]
    fn one_that_is_not_valid_is_named_with_its_command() {
        let kept = Documents::default();
        kept.printed(
            "test:///default",
            "pool-dumpxml good",
            "<pool type='dir'>\n<name>a</name><target><path>/a</path></target>\n</pool>\n",
        );
        kept.printed(
            "test:///default",
            "pool-dumpxml bad",
            "<pool type='dir'>\n<surprise/>\n</pool>\n",
        );
        let error = kept.check(None).unwrap_err().to_string();
        assert!(
            error.contains("pool-dumpxml bad") && error.contains("<surprise/>"),
            "{error}"
        );
        assert!(!error.contains("pool-dumpxml good"), "{error}");
    }
}
