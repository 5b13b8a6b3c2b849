//! The report at the end of a run: one line for people, or one JSON object.

use std::fmt;
use std::time::Duration;

use reeve_ipc::event::CrashReport;
use reeve_ipc::model::Domain;
use reeved::domain::worker::{DeathCause, Facts, View};
use reeved::host::confinement::NAMESPACES;
use reeved::host::identity::Level;
use serde::Serialize;
use serde_json::{Value, json};

use super::session::Reason;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The guest powered off, or stopped as it was told.
    PoweredOff,
    /// The guest asked for a reset that ends it.
    Reset,
    /// The guest was destroyed on request.
    Destroyed,
    /// The guest crashed.
    Crashed,
    /// The worker died.
    WorkerDied,
}

/// Everything about a finished run.
#[derive(Debug, Serialize)]
pub struct Report {
    name: String,
    uuid: String,
    outcome: Outcome,
    exit_code: u8,
    detail: String,
    crash: Option<Value>,
    machine: &'static str,
    vcpus: u32,
    memory_bytes: u64,
    boot_protocol: Option<String>,
    resets: u64,
    /// From the accepted start to the machine that stands.
    start_ms: f64,
    /// From the accepted start to the guest's first byte.
    start_to_output_ms: Option<f64>,
    /// From the accepted start to the process gone.
    total_ms: f64,
    confinement: ConfinementReport,
}

#[derive(Debug, Serialize)]
struct ConfinementReport {
    level: Level,
    uid: u32,
    namespaces: [&'static str; 7],
    landlock_abi: Option<u32>,
    seccomp: &'static str,
    limits: Value,
    cgroup: Option<String>,
}

/// The moments of a run, from the accepted start.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub started: Duration,
    pub first_output: Option<Duration>,
    pub total: Duration,
}

impl Report {
    /// Puts a report together.
    pub fn new(
        domain: &Domain,
        facts: &Facts,
        view: &View,
        boot_protocol: Option<String>,
        cause: &DeathCause,
        reason: Option<&Reason>,
        times: Times,
    ) -> Self {
        let outcome = outcome(cause);
        let detail = match (outcome, reason) {
            (Outcome::Destroyed, Some(reason)) => format!("destroyed: {reason}"),
            _ => cause.to_string(),
        };
        let crash = match cause {
            DeathCause::GuestCrashed(report) => Some(crash(report)),
            _ => None,
        };
        let limits = domain.limits;
        Self {
            name: domain.name.as_str().to_owned(),
            uuid: domain.uuid.to_string(),
            outcome,
            exit_code: exit_code(outcome, reason),
            detail,
            crash,
            machine: domain.machine.name(),
            vcpus: domain.vcpus.count(),
            memory_bytes: domain.memory.bytes(),
            boot_protocol,
            resets: view.resets,
            start_ms: milliseconds(times.started),
            start_to_output_ms: times.first_output.map(milliseconds),
            total_ms: milliseconds(times.total),
            confinement: ConfinementReport {
                level: facts.level,
                uid: facts.uid,
                namespaces: NAMESPACES,
                landlock_abi: view.jail.map(|jail| jail.landlock_abi),
                seccomp: "a filter for each thread role",
                limits: if limits.any() {
                    json!({
                        "memory_bytes": limits.memory.map(reeve_ipc::model::MemorySize::bytes),
                        "cpu_percent": limits.cpu_percent,
                        "pids": limits.pids,
                    })
                } else {
                    json!("none set")
                },
                cgroup: facts.cgroup.as_ref().map(|path| path.display().to_string()),
            },
        }
    }

    /// The exit code of the command.
    pub const fn exit_code(&self) -> u8 {
        self.exit_code
    }

    /// The object as one line of JSON, with its newline.
    pub fn json(&self) -> String {
        // Plain data with string keys always has a JSON form.
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }
}

fn outcome(cause: &DeathCause) -> Outcome {
    match cause {
        DeathCause::PoweredOff | DeathCause::Stopped => Outcome::PoweredOff,
        DeathCause::Reset => Outcome::Reset,
        DeathCause::Destroyed => Outcome::Destroyed,
        DeathCause::GuestCrashed(_) => Outcome::Crashed,
        DeathCause::Denied(_)
        | DeathCause::Violation(_)
        | DeathCause::Failed { .. }
        | DeathCause::Signal(_) => Outcome::WorkerDied,
    }
}

fn exit_code(outcome: Outcome, reason: Option<&Reason>) -> u8 {
    match outcome {
        Outcome::PoweredOff | Outcome::Reset => 0,
        Outcome::Crashed => 3,
        Outcome::WorkerDied => 4,
        Outcome::Destroyed => reason.map_or(0, Reason::exit_code),
    }
}

fn crash(report: &CrashReport) -> Value {
    json!({
        "vcpu": report.vcpu,
        "cause": report.cause.to_string(),
        "registers": report.registers.as_ref().map(|registers| registers.to_string()),
    })
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let confinement = &self.confinement;
        write!(
            f,
            "'{}': {}, after {} ms",
            self.name, self.detail, self.total_ms
        )?;
        if let Some(first) = self.start_to_output_ms {
            write!(f, " (first output after {first} ms)")?;
        }
        match self.resets {
            0 => {}
            1 => f.write_str(", 1 reset")?,
            resets => write!(f, ", {resets} resets")?,
        }
        write!(
            f,
            "; confined at level {}: uid {}, {} namespaces, ",
            confinement.level,
            confinement.uid,
            confinement.namespaces.len()
        )?;
        if let Some(abi) = confinement.landlock_abi {
            write!(f, "Landlock ABI {abi}, ")?;
        }
        match &confinement.cgroup {
            Some(cgroup) => write!(f, "seccomp, limits in cgroup {cgroup}"),
            None => write!(f, "seccomp, no limits set"),
        }
    }
}
