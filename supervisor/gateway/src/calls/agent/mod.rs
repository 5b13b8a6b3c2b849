//! The guest's agent (QEMU's, on the channel `org.qemu.guest_agent.0`): what it is asked, and what it says.
//!
//! What an agent says is its guest's word for itself. It is passed on within the bounds of the protocol, and
//! nothing here depends on it.

mod asked;
pub(super) mod keys;
mod link;
pub(super) mod power;
mod text;
mod told;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use reeve_ipc::api::call::{DomainChannel, Operation};
use reeve_ipc::api::figures::FigureGroups;
use reeve_ipc::api::view::{AgentTimeout, DomainState};
use reeve_ipc::device::DeviceFigures;
use reeve_ipc::model::DeviceName;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};

pub(super) use self::asked::{
    command, freeze, get_time, hostname, reboot, set_password, set_time, set_timeout, set_vcpus,
    shutdown, thaw, trim, vcpu_count, vcpus,
};
use self::link::{Link, silent};
pub(super) use self::told::{addresses, file_systems, guest_info, told_vcpus};
use super::Context;
use super::context::reference;
use super::failure::{Code, Failure, check_flags};
use crate::wire::types::device::DomainOpenChannel;
use crate::wire::types::handles::Domain;

/// The channel that an agent listens on.
pub(crate) const CHANNEL: &str = "org.qemu.guest_agent.0";
/// How long an agent may take over its first answer (libvirt `QEMU_AGENT_WAIT_TIME`).
const FIRST: Duration = Duration::from_secs(5);
/// How long it may take over all others, where nobody says. libvirt waits for ever.
const PATIENCE: Duration = Duration::from_secs(120);
/// For ever, which is an hour: meanwhile nobody else has the channel.
const FOREVER: Duration = Duration::from_secs(3600);
/// How long it may take to refuse what it does not answer when it does it.
const REFUSAL: Duration = Duration::from_secs(2);
/// Characters of what an agent says of an error.
const MAX_WORDS: usize = 256;

/// What an agent says of a question.
#[derive(Debug, Deserialize)]
struct Answer<T> {
    #[serde(rename = "return")]
    value: Option<T>,
    error: Option<Refusal>,
}

/// Why it does not do it.
#[derive(Debug, Default, Deserialize)]
struct Refusal {
    #[serde(default)]
    class: String,
    #[serde(default)]
    desc: String,
}

impl Refusal {
    /// Whether the agent does not know the question, or may not answer it.
    fn is_unknown(&self) -> bool {
        matches!(self.class.as_str(), "CommandNotFound" | "CommandDisabled")
    }

    fn failure(&self, name: &str) -> Failure {
        let words: String = self.desc.chars().take(MAX_WORDS).collect();
        let words = words.escape_debug();
        let why = format!("unable to execute QEMU agent command '{name}': {words}");
        Failure::new(Code::InternalError, why)
    }
}

/// That a domain has no channel for one.
pub(super) fn not_configured() -> Failure {
    let why = "QEMU guest agent is not configured";
    Failure::new(Code::ArgumentUnsupported, why)
}

/// Connects to the channel of that name of a domain that runs.
async fn connect(context: &Context, of: &Domain, channel: &str) -> Result<OwnedFd, Failure> {
    let open = DomainChannel {
        domain: reference(of),
        channel: channel.to_owned(),
    };
    let (_, mut fds) = match context.asked(open).await {
        Ok(answer) => answer,
        Err(error) => {
            let operation = Operation::DomainChannel;
            return context.said(of, operation, error.into()).await;
        }
    };
    let none = || Failure::new(Code::InternalError, "the supervisor sent no channel");
    fds.pop().ok_or_else(none)
}

/// Whether a domain runs and its agent listens, as far as can be seen without asking it.
async fn reachable(context: &Context, of: &Domain) -> Result<(), Failure> {
    let groups = FigureGroups {
        devices: true,
        ..FigureGroups::default()
    };
    let figures = context.active_figures(of, groups).await?;
    if !matches!(
        figures.summary.state,
        DomainState::Running(_) | DomainState::ShuttingDown
    ) {
        return Err(Failure::not_running());
    }
    let mut devices = figures.devices.iter();
    let agent = |name: &DeviceName| matches!(name, DeviceName::Channel(name) if name == CHANNEL);
    let channel = devices.find(|device| agent(&device.device));
    let channel = channel.ok_or_else(not_configured)?;
    if let DeviceFigures::Port(port) = channel.figures {
        if !port.guest_open {
            let why = "QEMU guest agent is not connected";
            return Err(Failure::new(Code::AgentUnresponsive, why));
        }
    }
    Ok(())
}

/// How long the agent of a domain may take over an answer, as was said of that domain, and else [`PATIENCE`].
async fn patience(context: &Context, of: &Domain) -> Result<Duration, Failure> {
    let said = context.details(of).await?.agent_timeout;
    Ok(said.map_or(PATIENCE, patience_of))
}

/// How long a client is to wait that waits so.
fn patience_of(timeout: AgentTimeout) -> Duration {
    match timeout {
        AgentTimeout::Block => FOREVER,
        AgentTimeout::Default => FIRST,
        AgentTimeout::Seconds(seconds) => Duration::from_secs(seconds.into()).min(FOREVER),
    }
}

/// Begins a conversation with the agent of a domain that runs, which may take so long over the first answer.
async fn open(context: &Context, of: &Domain, first: Duration) -> Result<Link, Failure> {
    reachable(context, of).await?;
    if first.is_zero() {
        // No agent has answered before it is asked.
        return Err(silent());
    }
    let mut link = Link::new(connect(context, of, CHANNEL).await?)?;
    link.sync(first).await?;
    Ok(link)
}

/// Asks by a line, and gives the line of the answer, which may take as long as the client says of this one, or else as
/// was said of the domain.
async fn converse(
    context: &Context,
    of: &Domain,
    line: &str,
    own: Option<Duration>,
) -> Result<Vec<u8>, Failure> {
    let said = patience(context, of).await?;
    let patience = own.unwrap_or(said);
    let mut link = open(context, of, FIRST.min(said).min(patience)).await?;
    let talk = async {
        link.send(format!("{line}\n").as_bytes()).await?;
        link.line().await
    };
    let answered = tokio::time::timeout(patience, talk).await;
    answered.unwrap_or_else(|_| Err(silent()))
}

fn question(name: &str, arguments: &Value) -> String {
    match arguments {
        Value::Null => json!({ "execute": name }),
        arguments => json!({ "execute": name, "arguments": arguments }),
    }
    .to_string()
}

/// Asks for something; `None` where the agent does not know it.
async fn ask_if<T: DeserializeOwned>(
    context: &Context,
    of: &Domain,
    name: &str,
    arguments: Value,
) -> Result<Result<T, Refusal>, Failure> {
    let line = converse(context, of, &question(name, &arguments), None).await?;
    let wrong = |_| {
        let why = format!("the guest's agent answers '{name}' with what is no answer");
        Failure::new(Code::InternalError, why)
    };
    let answer: Answer<T> = serde_json::from_slice(&line).map_err(wrong)?;
    match answer {
        Answer {
            error: Some(refusal),
            ..
        } => Ok(Err(refusal)),
        Answer {
            value: Some(value), ..
        } => Ok(Ok(value)),
        Answer { .. } => {
            let why = format!("the guest's agent says nothing to '{name}'");
            Err(Failure::new(Code::InternalError, why))
        }
    }
}

/// Asks for something.
async fn ask<T: DeserializeOwned>(
    context: &Context,
    of: &Domain,
    name: &str,
    arguments: Value,
) -> Result<T, Failure> {
    let answer = ask_if(context, of, name, arguments).await?;
    answer.map_err(|refusal| refusal.failure(name))
}

/// Asks for what is not answered when it is done.
async fn tell(context: &Context, of: &Domain, name: &str, arguments: Value) -> Result<(), Failure> {
    let first = FIRST.min(patience(context, of).await?);
    let mut link = open(context, of, first).await?;
    let line = question(name, &arguments);
    link.send(format!("{line}\n").as_bytes()).await?;
    // It may end, and its guest with it.
    let Ok(Ok(line)) = tokio::time::timeout(REFUSAL, link.line()).await else {
        return Ok(());
    };
    match serde_json::from_slice::<Answer<IgnoredAny>>(&line) {
        Ok(Answer {
            error: Some(refusal),
            ..
        }) => Err(refusal.failure(name)),
        _ => Ok(()),
    }
}

/// The host's end of a channel, for a stream: of the first where none is named.
pub(crate) async fn open_channel(
    context: Arc<Context>,
    call: DomainOpenChannel,
) -> Result<OwnedFd, Failure> {
    /// Nobody is thrown out: whoever comes later waits.
    const FORCE: u32 = 1;
    check_flags(call.flags, FORCE, "virDomainOpenChannel")?;
    context.active(&call.domain).await?;
    let devices = context.definition(&call.domain, false).await?.devices;
    let named = call.name.as_deref();
    let by_alias = named.and_then(|name| crate::xml::device::alias::resolve(name, &devices));
    let mut channels = devices.channels.iter();
    let found = channels.find(|channel| match named {
        None => true,
        Some(name) => {
            let device = DeviceName::Channel(channel.name.clone());
            channel.name == name || by_alias.as_ref() == Some(&device)
        }
    });
    let missing = || {
        let name = named.unwrap_or_default();
        Failure::new(Code::InternalError, format!("cannot find channel {name}"))
    };
    let name = found.ok_or_else(missing)?.name.clone();
    connect(&context, &call.domain, &name).await
}
