//! Ports of bridges of Open vSwitch (libvirt `<virtualport type='openvswitch'>`), by its database.
//!
//! A port is one transaction: it is in the database with whose it is and of which tap, or it is not there at all. So
//! the database is where it is recorded, and whoever comes after this supervisor finds it there. It goes when its tap
//! does, whatever ended that: the keeper hears of links that go, and looks again at what it could not remove.
//!
//! | `external_ids` of its `Interface` | |
//! |---|---|
//! | `attached-mac`, `iface-id`, `vm-id`, `iface-status`, `port-profile` | as libvirt writes them, for controllers |
//! | `reeve-owner` | the run directory of the supervisor that made it |
//! | `reeve-tap` | the number of its tap: another by the same name is another's |
//! | `reeve-boot` | the boot that the number is of: the database survives one, and no tap does |
//!
//! What lives here: what is asked of the database, and when. What may not: taps and their filters.

mod database;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reeve_ipc::model::{DomainUuid, InterfaceName, OpenVswitchPort, Vlan};
use reeve_ipc::spec::MacAddress;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{RecvFlags, recv};
use serde_json::{Map, Value, json};

pub use self::database::DatabaseError;
use self::database::{PATIENCE, transact};
use super::netlink;
use super::process::boot_id;
use super::tap::TapId;

/// Where Debian's listens.
pub const DATABASE: &str = "/run/openvswitch/db.sock";
/// `RTMGRP_LINK`: interfaces.
const LINKS: u32 = 1;
/// More than any event has.
const EVENT_BYTES: usize = 32 << 10;
/// How long the keeper waits until it looks again at ports that it could not remove.
const PAUSE: Duration = Duration::from_secs(5);
/// And where there is nothing to look at.
const LONG_PAUSE: Duration = Duration::from_secs(60);
/// What of the time for all is for the last of it.
const LAST: Duration = Duration::from_millis(500);

/// Why an interface has no port of a bridge of Open vSwitch. One line: what failed, on what, what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenVswitchError {
    /// Not by whom it was asked.
    #[error(
        "a port of a bridge of Open vSwitch is for reeved to make: have it start the domain, not 'reeve run'"
    )]
    NoDatabase,
    /// The host keeps its guests apart.
    #[error(
        "Open vSwitch isolates no port of '{0}' by itself, and the guests of this host are kept apart \
         (multi_tenant): give the network interface a bridge of the kernel"
    )]
    Tenants(InterfaceName),
    /// No such bridge.
    #[error("there is no bridge '{0}' of Open vSwitch; make it with 'ovs-vsctl add-br {0}'")]
    NoBridge(InterfaceName),
    /// A port of somebody else.
    #[error(
        "Open vSwitch has a port '{0}' that is not Reeve's: give the network interface another target"
    )]
    Taken(String),
    /// The database.
    #[error(
        "'{tap}' is no port, or not as it is wanted, of the bridge '{bridge}' of Open vSwitch: {error}"
    )]
    Database {
        /// The tap.
        tap: String,
        /// The bridge.
        bridge: InterfaceName,
        /// Why.
        error: DatabaseError,
    },
    /// The switch did not take it.
    #[error("Open vSwitch does not take '{tap}' as a port of the bridge '{bridge}': {why}")]
    Switch {
        /// The tap.
        tap: String,
        /// The bridge.
        bridge: InterfaceName,
        /// In its own words.
        why: String,
    },
}

/// Whose a port is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wearer<'a> {
    /// The tap that becomes the port.
    pub(crate) tap: &'a TapId,
    /// The guest's address on it.
    pub(crate) mac: MacAddress,
    /// The domain, where it is known.
    pub(crate) domain: Option<DomainUuid>,
}

/// The ports of one supervisor. Cheap to clone. The default has no database: it is that of a caller without a daemon.
#[derive(Debug, Clone, Default)]
pub(crate) struct OpenVswitch(Option<Arc<Switch>>);

#[derive(Debug)]
struct Switch {
    database: PathBuf,
    /// Whose ports are this supervisor's.
    owner: String,
    /// The keeper runs.
    kept: Mutex<bool>,
}

impl OpenVswitch {
    /// Of a supervisor with that run directory, which speaks to the database at that socket once it is asked for a
    /// port.
    pub(crate) fn new(database: PathBuf, run: &Path) -> Self {
        Self(Some(Arc::new(Switch {
            database,
            owner: run.display().to_string(),
            kept: Mutex::new(false),
        })))
    }

    /// Removes what earlier supervisors left, soon, and what taps leave that they made, as these go. For the start of a
    /// daemon.
    pub(crate) fn sweep(&self) {
        if let Some(switch) = &self.0 {
            // It may come later than this daemon, with what an earlier boot left in it.
            switch.keep();
        }
    }

    /// Makes a tap a port, and waits until the switch has taken it. May take as long as the database does, twice.
    ///
    /// # Errors
    /// [`OpenVswitchError`]; there is no port then, or none once the tap is gone.
    pub(crate) fn add(
        &self,
        wearer: Wearer<'_>,
        port: &OpenVswitchPort,
    ) -> Result<(), OpenVswitchError> {
        let switch = self.0.as_ref().ok_or(OpenVswitchError::NoDatabase)?;
        // Before there is a port: whatever comes of this, it goes with its tap.
        switch.keep();
        switch.add(wearer, port)
    }
}

impl OpenVswitch {
    /// Gives the port of a tap the tags that `port` has.
    ///
    /// # Errors
    /// [`OpenVswitchError`]; it has those that it had, unless the database does not answer.
    pub(crate) fn set_tags(
        &self,
        tap: &str,
        port: &OpenVswitchPort,
    ) -> Result<(), OpenVswitchError> {
        let switch = self.0.as_ref().ok_or(OpenVswitchError::NoDatabase)?;
        let row = Value::Object(tags(port.vlan.as_ref()));
        let update =
            json!({ "op": "update", "table": "Port", "where": [["name", "==", tap]], "row": row });
        let told = json!({ "op": "mutate", "table": "Open_vSwitch", "where": [],
            "mutations": [["next_cfg", "+=", 1]] });
        let failed = |error| OpenVswitchError::Database {
            tap: tap.to_owned(),
            bridge: port.bridge.clone(),
            error,
        };
        let done = transact(&switch.database, vec![update, told], soon()).map_err(failed)?;
        let changed = done
            .first()
            .and_then(|result| result.get("count"))
            .and_then(Value::as_u64);
        match changed {
            Some(1..) => Ok(()),
            _ => Err(OpenVswitchError::Switch {
                tap: tap.to_owned(),
                bridge: port.bridge.clone(),
                why: "somebody has removed it".to_owned(),
            }),
        }
    }
}

/// Until when what is asked for now is to be done.
fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// What a port has of tags (ovs-vswitchd.conf.db(5), `Port`).
fn tags(vlan: Option<&Vlan>) -> Map<String, Value> {
    let none = || json!(["set", []]);
    let (mut tag, mut trunks, mut mode) = (none(), none(), none());
    if let Some(vlan) = vlan {
        if let Some((id, tagged)) = vlan.tags.iter().find_map(|tag| Some((tag.id, tag.native?))) {
            mode = Value::from(if tagged {
                "native-tagged"
            } else {
                "native-untagged"
            });
            tag = Value::from(id);
        }
        if vlan.trunk {
            let ids: Vec<u16> = vlan.tags.iter().map(|tag| tag.id).collect();
            trunks = json!(["set", ids]);
        } else if let Some(first) = vlan.tags.first() {
            tag = Value::from(first.id);
        }
    }
    let mut row = Map::new();
    row.insert("tag".to_owned(), tag);
    row.insert("trunks".to_owned(), trunks);
    row.insert("vlan_mode".to_owned(), mode);
    row
}

/// The rows of an answer to `select`.
fn rows(result: Option<&Value>) -> &[Value] {
    let rows = result.and_then(|result| result.get("rows"));
    rows.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A text among the pairs of a map.
fn of_map<'a>(row: &'a Value, column: &str, key: &str) -> Option<&'a str> {
    let map = row.get(column)?.as_array()?;
    let pairs = map.get(1)?.as_array()?.iter();
    let mut pairs = pairs.filter_map(Value::as_array);
    let pair = pairs.find(|pair| pair.first().and_then(Value::as_str) == Some(key))?;
    pair.get(1)?.as_str()
}

impl Switch {
    fn add(
        &self,
        Wearer { tap, mac, domain }: Wearer<'_>,
        port: &OpenVswitchPort,
    ) -> Result<(), OpenVswitchError> {
        let name = tap.name.as_str();
        let failed = |error| OpenVswitchError::Database {
            tap: name.to_owned(),
            bridge: port.bridge.clone(),
            error,
        };
        let bridge = port.bridge.as_str();
        let deadline = soon();
        let found = transact(
            &self.database,
            vec![
                json!({ "op": "select", "table": "Bridge", "where": [["name", "==", bridge]], "columns": ["name"] }),
                json!({ "op": "select", "table": "Interface", "where": [["name", "==", name]],
                        "columns": ["external_ids"] }),
            ],
            deadline,
        )
        .map_err(failed)?;
        if rows(found.first()).is_empty() {
            return Err(OpenVswitchError::NoBridge(port.bridge.clone()));
        }
        for row in rows(found.get(1)) {
            // One of ours by that name is of a tap that is gone.
            if of_map(row, "external_ids", "reeve-owner") != Some(&self.owner) {
                return Err(OpenVswitchError::Taken(name.to_owned()));
            }
            self.remove(name, &[], deadline).map_err(failed)?;
        }
        let tap_number = tap.index.unwrap_or_default().to_string();
        let of_tap = [
            json!(["reeve-tap", tap_number]),
            json!(["reeve-boot", boot_id()]),
        ];
        let mut ids = vec![
            json!(["attached-mac", mac.to_string()]),
            json!(["iface-status", "active"]),
            json!(["reeve-owner", self.owner]),
        ];
        ids.extend(of_tap.iter().cloned());
        ids.extend(
            port.interface_id
                .map(|id| json!(["iface-id", id.to_string()])),
        );
        ids.extend(domain.map(|uuid| json!(["vm-id", uuid.0.to_string()])));
        let profile = port.profile.as_ref();
        ids.extend(profile.map(|profile| json!(["port-profile", profile])));
        let mut row = tags(port.vlan.as_ref());
        row.insert("name".to_owned(), Value::from(name));
        row.insert("interfaces".to_owned(), json!(["named-uuid", "interface"]));
        let made = transact(
            &self.database,
            vec![
                json!({ "op": "insert", "table": "Interface", "uuid-name": "interface",
                        "row": { "name": name, "external_ids": ["map", ids] } }),
                json!({ "op": "insert", "table": "Port", "uuid-name": "port", "row": row }),
                json!({ "op": "mutate", "table": "Bridge", "where": [["name", "==", bridge]],
                        "mutations": [["ports", "insert", ["set", [["named-uuid", "port"]]]]] }),
                json!({ "op": "mutate", "table": "Open_vSwitch", "where": [],
                        "mutations": [["next_cfg", "+=", 1]] }),
                json!({ "op": "select", "table": "Open_vSwitch", "where": [], "columns": ["next_cfg"] }),
            ],
            deadline,
        )
        .map_err(failed)?;
        let taken = self.taken(name, &made, deadline);
        let why = match taken {
            Ok(None) => return Ok(()),
            Ok(Some(why)) => OpenVswitchError::Switch {
                tap: name.to_owned(),
                bridge: port.bridge.clone(),
                why,
            },
            Err(error) => failed(error),
        };
        // Else the keeper does, once the tap is gone.
        let _ = self.remove(name, &of_tap, Instant::now() + LAST);
        Err(why)
    }

    /// Waits until the switch has done what the database says, and gives why it has not taken the port.
    fn taken(
        &self,
        name: &str,
        made: &[Value],
        deadline: Instant,
    ) -> Result<Option<String>, DatabaseError> {
        let configuration = rows(made.get(4)).first();
        let configuration = configuration.and_then(|row| row.get("next_cfg"));
        let configuration = configuration.and_then(Value::as_i64);
        let configuration = configuration.ok_or(DatabaseError::Protocol)?;
        // Less than is waited for an answer.
        let left = deadline.saturating_duration_since(Instant::now());
        let patience = left.saturating_sub(LAST).as_millis();
        let patience = u64::try_from(patience).unwrap_or_default();
        let done = transact(
            &self.database,
            vec![
                json!({ "op": "wait", "table": "Open_vSwitch", "where": [["cur_cfg", ">=", configuration]],
                        "columns": ["db_version"], "until": "!=", "rows": [], "timeout": patience }),
                json!({ "op": "select", "table": "Interface", "where": [["name", "==", name]],
                        "columns": ["error", "ofport"] }),
            ],
            deadline,
        );
        let done = match done {
            Err(DatabaseError::Refused(_)) => {
                return Ok(Some("ovs-vswitchd has not answered".to_owned()));
            }
            done => done?,
        };
        let Some(row) = rows(done.get(1)).first() else {
            return Ok(Some("somebody has removed it".to_owned()));
        };
        if let Some(error) = row.get("error").and_then(Value::as_str) {
            return Ok(Some(
                error
                    .chars()
                    .filter(|c| !c.is_control())
                    .take(200)
                    .collect(),
            ));
        }
        let number = row.get("ofport").and_then(Value::as_i64);
        Ok(match number {
            Some(number) if number > 0 => None,
            _ => Some("it has given it no number".to_owned()),
        })
    }

    /// Removes a port of that name, which is one of ours, and of the tap of which `of_tap` has pairs.
    fn remove(&self, name: &str, of_tap: &[Value], deadline: Instant) -> Result<(), DatabaseError> {
        let mut own = vec![json!(["reeve-owner", self.owner])];
        own.extend(of_tap.iter().cloned());
        let found = transact(
            &self.database,
            vec![
                json!({ "op": "select", "table": "Interface",
                        "where": [["name", "==", name], ["external_ids", "includes", ["map", own]]],
                        "columns": ["_uuid"] }),
                json!({ "op": "select", "table": "Port", "where": [["name", "==", name]], "columns": ["_uuid"] }),
            ],
            deadline,
        )?;
        let interface = rows(found.first()).first().and_then(|row| row.get("_uuid"));
        let port = rows(found.get(1)).first().and_then(|row| row.get("_uuid"));
        let (Some(interface), Some(port)) = (interface, port) else {
            return Ok(());
        };
        // Where another by its name was made meanwhile, it is not that one which goes.
        let same = json!({ "op": "wait", "table": "Port", "timeout": 0,
            "where": [["_uuid", "==", port]], "columns": ["interfaces"], "until": "==",
            "rows": [{ "interfaces": ["set", [interface]] }] });
        let gone = json!({ "op": "mutate", "table": "Bridge", "where": [["ports", "includes", ["set", [port]]]],
            "mutations": [["ports", "delete", ["set", [port]]]] });
        let told = json!({ "op": "mutate", "table": "Open_vSwitch", "where": [],
            "mutations": [["next_cfg", "+=", 1]] });
        transact(&self.database, vec![same, gone, told], deadline).map(drop)
    }

    /// Starts the keeper, which goes on until there is nobody else who has this.
    fn keep(self: &Arc<Self>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if *kept {
            return;
        }
        let switch = Arc::downgrade(self);
        let listen = netlink::socket(None).and_then(|links| {
            rustix::net::bind(&links, &SocketAddrNetlink::new(0, LINKS))?;
            Ok(links)
        });
        let links = match listen {
            Ok(links) => links,
            Err(errno) => {
                tracing::error!("ports of Open vSwitch are not removed with their taps: {errno}");
                return;
            }
        };
        let keeping = move || {
            let mut event = vec![0; EVENT_BYTES];
            while let Some(switch) = switch.upgrade() {
                let all = switch.look();
                drop(switch);
                let mut fds = [PollFd::new(&links, PollFlags::IN)];
                let pause = Timespec::try_from(if all { LONG_PAUSE } else { PAUSE }).ok();
                let _ = poll(&mut fds, pause.as_ref());
                // What is heard is that something changed: what, the database and the kernel say.
                while recv(&links, &mut *event, RecvFlags::DONTWAIT).is_ok() {}
            }
        };
        let thread = std::thread::Builder::new().name("switch-ports".to_owned());
        match thread.spawn(keeping) {
            Ok(_) => *kept = true,
            Err(error) => {
                tracing::error!("ports of Open vSwitch are not removed with their taps: {error}");
            }
        }
    }

    /// Removes the ports whose taps are gone; whether all are.
    fn look(&self) -> bool {
        let own = json!(["map", [["reeve-owner", self.owner]]]);
        let found = transact(
            &self.database,
            vec![json!({ "op": "select", "table": "Interface",
                "where": [["external_ids", "includes", own]], "columns": ["name", "external_ids"] })],
            soon(),
        );
        let found = match found {
            Ok(found) => found,
            // Of a host without it; where it comes, so do links of its own, which are heard of.
            Err(DatabaseError::Connect(Errno::NOENT)) => return true,
            Err(error) => {
                tracing::debug!("ports of Open vSwitch cannot be looked at: {error}");
                return false;
            }
        };
        let mut all = true;
        for row in rows(found.first()) {
            let name = row.get("name").and_then(Value::as_str);
            let number = of_map(row, "external_ids", "reeve-tap");
            let index = number.and_then(|number| number.parse::<i32>().ok());
            let (Some(name), Some(index)) = (name, index) else {
                continue;
            };
            let tap = TapId {
                name: name.to_owned(),
                index: Some(index),
            };
            let boot = of_map(row, "external_ids", "reeve-boot");
            let gone = match tap.now() {
                // Of another boot it is another's number, and may well be one by its name.
                _ if boot.is_some_and(|boot| boot != boot_id()) => true,
                Ok(now) => now.name != tap.name,
                Err(errno) => matches!(errno, Errno::NODEV | Errno::NXIO),
            };
            if !gone {
                continue;
            }
            let mut of_tap = vec![json!(["reeve-tap", number])];
            of_tap.extend(boot.map(|boot| json!(["reeve-boot", boot])));
            if let Err(error) = self.remove(name, &of_tap, soon()) {
                tracing::warn!(
                    tap = name,
                    "its port of Open vSwitch is left for now: {error}"
                );
                all = false;
            }
        }
        all
    }
}

#[cfg(test)]
mod tests;
