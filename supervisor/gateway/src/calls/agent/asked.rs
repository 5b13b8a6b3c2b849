//! What an agent is asked to do.

use std::sync::Arc;

use reeve_ipc::api::call::DomainAgentTimeoutSet;
use reeve_ipc::api::view::AgentTimeout;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::text::object_line;
use super::{Answer, Context, FIRST, PATIENCE, ask, converse, patience_of, tell};
use crate::calls::context::reference;
use crate::calls::failure::{Code, Failure, check_flags, invalid_argument};
use crate::wire::types::guest as wire;
use crate::wire::types::handles::Domain;
use crate::wire::types::qemu::QemuDomainAgentCommand;

/// Whether an answer is a refusal.
#[derive(Deserialize)]
struct Refused {
    error: Option<IgnoredAny>,
}

/// How long an agent may take (libvirt `virDomainAgentResponseTimeoutValues`, and of a command the same).
fn timeout(said: i32) -> Result<AgentTimeout, Failure> {
    const BLOCK: i32 = -2;
    const DEFAULT: i32 = -1;
    match said {
        BLOCK => Ok(AgentTimeout::Block),
        DEFAULT => Ok(AgentTimeout::Default),
        seconds => u32::try_from(seconds)
            .map(AgentTimeout::Seconds)
            .map_err(|_| {
                let why = format!("guest agent timeout '{seconds}' is less than the minimum '-2'");
                invalid_argument(why)
            }),
    }
}

/// It holds for whoever asks the agent of that domain from now on, and no agent need be there.
pub(in crate::calls) async fn set_timeout(
    context: Arc<Context>,
    call: wire::DomainAgentSetResponseTimeout,
) -> Result<i32, Failure> {
    check_flags(call.flags, 0, "virDomainAgentSetResponseTimeout")?;
    let set = DomainAgentTimeoutSet {
        domain: reference(&call.domain),
        timeout: timeout(call.timeout)?,
    };
    context.of(&call.domain, set).await?;
    Ok(0)
}

/// A command as somebody else worded it, and the answer as it came.
pub(in crate::calls) async fn command(
    context: Arc<Context>,
    call: QemuDomainAgentCommand,
) -> Result<Option<String>, Failure> {
    check_flags(call.flags, 0, "virDomainQemuAgentCommand")?;
    let patience = patience_of(timeout(call.timeout)?);
    let no_command = || invalid_argument("the command is no object of JSON");
    // As one line, whatever it was.
    let line = object_line(call.command.as_bytes()).ok_or_else(no_command)?;
    let answer = converse(&context, &call.domain, &line, Some(patience)).await?;
    let no_answer = || Failure::new(Code::InternalError, "the guest's agent says no JSON");
    let answer = object_line(&answer).ok_or_else(no_answer)?;
    let said: Answer<IgnoredAny> = match serde_json::from_str::<Refused>(&answer) {
        Ok(Refused { error: None }) => return Ok(Some(answer)),
        // Whatever form the refusal has.
        _ => serde_json::from_str(&answer).unwrap_or(Answer {
            value: None,
            error: None,
        }),
    };
    let refusal = said.error.unwrap_or_default();
    Err(refusal.failure("of the client"))
}

/// The guest is to power off.
pub(in crate::calls) async fn shutdown(context: &Context, of: &Domain) -> Result<(), Failure> {
    let mode = json!({ "mode": "powerdown" });
    tell(context, of, "guest-shutdown", mode).await
}

/// The guest is to boot again.
pub(in crate::calls) async fn reboot(context: &Context, of: &Domain) -> Result<(), Failure> {
    let mode = json!({ "mode": "reboot" });
    tell(context, of, "guest-shutdown", mode).await
}

pub(in crate::calls) async fn get_time(
    context: Arc<Context>,
    call: wire::DomainGetTime,
) -> Result<wire::GuestTime, Failure> {
    const SECOND: i64 = 1_000_000_000;
    check_flags(call.flags, 0, "virDomainGetTime")?;
    let time: i64 = ask(&context, &call.domain, "guest-get-time", Value::Null).await?;
    Ok(wire::GuestTime {
        seconds: time.div_euclid(SECOND),
        nseconds: u32::try_from(time.rem_euclid(SECOND)).unwrap_or(0),
    })
}

pub(in crate::calls) async fn set_time(
    context: Arc<Context>,
    call: wire::DomainSetTime,
) -> Result<(), Failure> {
    /// To that of its clock that runs while it is off.
    const SYNC: u32 = 1;
    check_flags(call.flags, SYNC, "virDomainSetTime")?;
    let time = match call.flags & SYNC {
        0 => {
            let time = call.seconds.checked_mul(1_000_000_000);
            let time = time.and_then(|time| time.checked_add(call.nseconds.into()));
            let too_late = || {
                let why = format!("Time '{}' is too big for guest agent", call.seconds);
                invalid_argument(why)
            };
            json!({ "time": time.ok_or_else(too_late)? })
        }
        _ => Value::Null,
    };
    ask::<IgnoredAny>(&context, &call.domain, "guest-set-time", time).await?;
    Ok(())
}

pub(in crate::calls) async fn freeze(
    context: Arc<Context>,
    call: wire::DomainFsfreeze,
) -> Result<i32, Failure> {
    check_flags(call.flags, 0, "virDomainFSFreeze")?;
    let (name, arguments) = match call.mountpoints.0.as_slice() {
        [] => ("guest-fsfreeze-freeze", Value::Null),
        some => ("guest-fsfreeze-freeze-list", json!({ "mountpoints": some })),
    };
    ask(&context, &call.domain, name, arguments).await
}

/// All that are frozen, whatever is named: the agent knows no other way.
pub(in crate::calls) async fn thaw(
    context: Arc<Context>,
    call: wire::DomainFsthaw,
) -> Result<i32, Failure> {
    check_flags(call.flags, 0, "virDomainFSThaw")?;
    ask(&context, &call.domain, "guest-fsfreeze-thaw", Value::Null).await
}

pub(in crate::calls) async fn trim(
    context: Arc<Context>,
    call: wire::DomainFstrim,
) -> Result<(), Failure> {
    check_flags(call.flags, 0, "virDomainFSTrim")?;
    if call.mountpoint.is_some() {
        let why = "Specifying mount point is not supported for now";
        return Err(Failure::new(Code::ArgumentUnsupported, why));
    }
    let minimum = json!({ "minimum": call.minimum });
    ask::<IgnoredAny>(&context, &call.domain, "guest-fstrim", minimum).await?;
    Ok(())
}

pub(in crate::calls) async fn set_password(
    context: Arc<Context>,
    call: wire::DomainSetUserPassword,
) -> Result<(), Failure> {
    const ENCRYPTED: u32 = 1;
    check_flags(call.flags, ENCRYPTED, "virDomainSetUserPassword")?;
    let null = |name: &str| {
        let why = format!("{name} in virDomainSetUserPassword must not be NULL");
        invalid_argument(why)
    };
    let user = call.user.ok_or_else(|| null("user"))?;
    let password = call.password.ok_or_else(|| null("password"))?;
    let arguments = json!({
        "crypted": call.flags & ENCRYPTED != 0,
        "username": user,
        "password": base64(password.as_bytes()),
    });
    ask::<IgnoredAny>(&context, &call.domain, "guest-set-user-password", arguments).await?;
    Ok(())
}

/// Bytes as text (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let byte = |index: usize| u32::from(three.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for (digit, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let index = usize::try_from(bits >> shift & 63).unwrap_or(0);
            let there = digit <= three.len();
            let digit = DIGITS.get(index).filter(|_| there);
            text.push(digit.map_or('=', |digit| char::from(*digit)));
        }
    }
    text
}

#[derive(Deserialize)]
struct HostName {
    #[serde(rename = "host-name")]
    name: String,
}

pub(in crate::calls) async fn hostname(
    context: Arc<Context>,
    call: wire::DomainGetHostname,
) -> Result<String, Failure> {
    const LEASE: u32 = 1;
    const AGENT: u32 = 2;
    check_flags(call.flags, LEASE | AGENT, "virDomainGetHostname")?;
    if call.flags & LEASE != 0 {
        context.active(&call.domain).await?;
        if call.flags & AGENT == 0 {
            // There are no networks that lease addresses.
            let why = format!("no hostname found for domain {}", call.domain.name);
            return Err(Failure::new(Code::NoHostname, why));
        }
        let why = "flags 'VIR_DOMAIN_GET_HOSTNAME_LEASE' and 'VIR_DOMAIN_GET_HOSTNAME_AGENT' are mutually exclusive";
        return Err(invalid_argument(why));
    }
    let told: HostName = ask(&context, &call.domain, "guest-get-host-name", Value::Null).await?;
    Ok(told.name)
}

/// A vCPU as the guest has it.
#[derive(Debug, Deserialize)]
pub(in crate::calls) struct GuestVcpu {
    #[serde(rename = "logical-id")]
    pub(in crate::calls) id: u32,
    pub(in crate::calls) online: bool,
    #[serde(rename = "can-offline", default)]
    pub(in crate::calls) can_offline: bool,
}

/// The vCPUs as the guest has them.
pub(in crate::calls) async fn vcpus(
    context: &Context,
    of: &Domain,
) -> Result<Vec<GuestVcpu>, Failure> {
    ask(context, of, "guest-get-vcpus", Value::Null).await
}

/// How many of them it uses.
pub(in crate::calls) async fn vcpu_count(context: &Context, of: &Domain) -> Result<i32, Failure> {
    let vcpus = vcpus(context, of).await?;
    let online = vcpus.iter().filter(|vcpu| vcpu.online).count();
    Ok(i32::try_from(online).unwrap_or(i32::MAX))
}

/// Has the guest use these vCPUs, or not.
pub(in crate::calls) async fn set_vcpus(
    context: &Context,
    of: &Domain,
    which: &[(u32, bool)],
) -> Result<(), Failure> {
    let vcpus: Vec<Value> = which
        .iter()
        .map(|(id, online)| json!({ "logical-id": id, "online": online }))
        .collect();
    let arguments = json!({ "vcpus": vcpus });
    let done: usize = ask(context, of, "guest-set-vcpus", arguments).await?;
    match done == which.len() {
        true => Ok(()),
        false => {
            let why = "failed to set state of some guest vcpus";
            Err(Failure::new(Code::InternalError, why))
        }
    }
}

const _: () = assert!(FIRST.as_secs() < PATIENCE.as_secs());

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn bytes_are_said_as_the_standard_says() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xFB, 0xFF, 0xFE]), "+//+");
    }
}
