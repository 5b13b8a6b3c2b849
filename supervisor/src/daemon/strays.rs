//! Workers of this instance that no run-time status tells of: it could not be read, or the run
//! directory was wiped while no supervisor ran.
//!
//! Nobody can reach such a worker: what it is bound to and where it listens stood in its status. Its
//! guest may be somebody's all the same, so it is left alone and told of; its uid is given to nobody
//! while it lives.

use std::time::Duration;

use crate::host::identity::Identities;

/// How long what dies with its supervisor may take: gateways, and readers of images.
const DYING: Duration = Duration::from_millis(200);

/// Looks for them after everything that can be was taken up, and logs each; the lines.
pub(super) fn tell(identities: &Identities) -> Vec<String> {
    let mut strays = identities.strays();
    if !strays.is_empty() {
        std::thread::sleep(DYING);
        let now = identities.strays();
        strays.retain(|stray| now.contains(stray));
    }
    let lines = strays.into_iter().map(|(pid, uid)| {
        format!(
            "process {pid} with uid {uid} is a worker whose run-time status is missing or was not \
             loaded: it goes on unsupervised; put its status back and restart reeved, or end it with \
             'kill -9 {pid}' and remove what is left of its status"
        )
    });
    lines.inspect(|line| tracing::error!("{line}")).collect()
}
