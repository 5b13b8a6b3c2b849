//! What is logged about one domain also goes into that domain's own file.
//!
//! Every event that names a domain and its UUID, as all of them do, is taken; at level INFO and above,
//! whatever the daemon's own log shows.

use std::fmt::{self, Write as _};

use reeve_ipc::model::{DomainName, DomainUuid};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use uuid::Uuid;

use super::LogFiles;

/// What workers' lines are logged as.
const WORKER_TARGET: &str = "reeve_worker";

/// The layer.
#[derive(Debug)]
pub(super) struct DomainLines {
    files: LogFiles,
}

impl DomainLines {
    pub(super) fn new(files: LogFiles) -> Self {
        Self { files }
    }
}

impl<S: Subscriber> Layer<S> for DomainLines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if *metadata.level() > Level::INFO {
            return;
        }
        let mut line = Line::default();
        event.record(&mut line);
        let (Some(name), Some(uuid)) = (line.name, line.uuid) else {
            return;
        };
        let source = if metadata.target() == WORKER_TARGET {
            "worker"
        } else {
            "reeved"
        };
        let level = match *metadata.level() {
            Level::ERROR => "error: ",
            Level::WARN => "warning: ",
            _ => "",
        };
        let text = format!("{level}{}{}", line.message, line.rest);
        self.files.line(&name, uuid, source, text);
    }
}

/// One event taken apart.
#[derive(Debug, Default)]
struct Line {
    name: Option<DomainName>,
    uuid: Option<DomainUuid>,
    message: String,
    rest: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "domain" => self.name = format!("{value:?}").parse().ok(),
            "uuid" => {
                let uuid = Uuid::try_parse(&format!("{value:?}"));
                self.uuid = uuid.ok().map(DomainUuid);
            }
            "message" => self.message = format!("{value:?}"),
            name => {
                let _ = write!(self.rest, " {name}={value:?}");
            }
        }
    }
}
