//! The keys by which a user of the guest may log in, which its agent keeps (`authorized_keys`).

use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use super::{Context, ask};
use crate::calls::failure::{Failure, check_flags, invalid_argument};
use crate::wire::types::guest as wire;
use crate::wire::xdr::List;

/// The most keys of one answer.
const MANY: usize = 2_048;

#[derive(Deserialize)]
struct Keys {
    keys: Vec<String>,
}

pub(in crate::calls) async fn get(
    context: Arc<Context>,
    call: wire::DomainAuthorizedSshKeysGet,
) -> Result<List<String, MANY>, Failure> {
    check_flags(call.flags, 0, "virDomainAuthorizedSSHKeysGet")?;
    let user = json!({ "username": call.user });
    let told: Keys = ask(
        &context,
        &call.domain,
        "guest-ssh-get-authorized-keys",
        user,
    )
    .await?;
    Ok(told.keys.into_iter().take(MANY).collect())
}

/// Keys come in the place of those that are there, or with the flags beside them, or go.
pub(in crate::calls) async fn set(
    context: Arc<Context>,
    call: wire::DomainAuthorizedSshKeysSet,
) -> Result<(), Failure> {
    const APPEND: u32 = 1;
    const REMOVE: u32 = 2;
    check_flags(call.flags, APPEND | REMOVE, "virDomainAuthorizedSSHKeysSet")?;
    let (append, remove) = (call.flags & APPEND != 0, call.flags & REMOVE != 0);
    if append && remove {
        let why = "flags 'VIR_DOMAIN_AUTHORIZED_SSH_KEYS_SET_APPEND' and \
                   'VIR_DOMAIN_AUTHORIZED_SSH_KEYS_SET_REMOVE' are mutually exclusive";
        return Err(invalid_argument(why));
    }
    let keys = &call.keys.0;
    if keys.is_empty() && (append || remove) {
        let why = "keys in virDomainAuthorizedSSHKeysSet must not be NULL";
        return Err(invalid_argument(why));
    }
    let (name, arguments) = match remove {
        true => {
            let arguments = json!({ "username": call.user, "keys": keys });
            ("guest-ssh-remove-authorized-keys", arguments)
        }
        false => {
            let arguments = json!({ "username": call.user, "keys": keys, "reset": !append });
            ("guest-ssh-add-authorized-keys", arguments)
        }
    };
    ask::<IgnoredAny>(&context, &call.domain, name, arguments).await?;
    Ok(())
}
