//! The figures of many domains in one answer, for clients that look every few seconds.
//!
//! ```text
//!   views of the domains ──► the kernel's books of each worker ──► its devices, of its worker ──► one page
//!   (wakes no actor)         (no worker is asked)                  (all at once, 500 ms at most)
//! ```
//! A domain without a worker costs a look at its published view. One that is named twice is told of once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use reeve_ipc::MAX_MESSAGE_BYTES;
use reeve_ipc::api::MAX_PAGE;
use reeve_ipc::api::call::{AnswerBody, DomainFiguresList};
use reeve_ipc::api::error::{ApiError, ApiErrorCode};
use reeve_ipc::api::figures::{DomainFigures, FigureGroups, FiguresOf, FiguresPage};
use reeve_ipc::api::view::DeviceStats;
use reeve_ipc::device::{DeviceFigures, DeviceReport};
use reeve_ipc::model::Domain;
use reeve_ipc::spec::PciSlot;
use tokio::task::JoinSet;

use super::Daemon;
use crate::api::Answer;
use crate::domain::actor::SessionId;
use crate::domain::driver::{CallFailure, Later};
use crate::domain::registry;
use crate::domain::shell::View;

/// How long a worker may take to tell of its devices.
const PATIENCE: Duration = Duration::from_millis(500);
/// Room for everything of a page but its domains.
const PAGE_MARGIN: usize = 4096;
/// What figures take at most beside the summary, the vCPUs and the devices.
const FIGURES_BYTES: usize = 64;
/// What a vCPU takes at most.
const VCPU_BYTES: usize = 48;
/// What a device takes at most beside its name on the host: its own name, its place, and figures.
const DEVICE_BYTES: usize = 320;

/// Which domains a page is of.
struct Chosen {
    views: Vec<Arc<View>>,
    /// How many were named, with those that do not exist.
    of: usize,
    more: bool,
    /// For each view, how many were named up to it.
    upto: Vec<usize>,
}

impl Chosen {
    /// Leaves out those for which there is no room by what is known of them, one in any case, so that neither the
    /// kernel nor a worker is asked of what nobody is told.
    fn fit(&mut self, groups: FigureGroups) {
        let mut room = MAX_MESSAGE_BYTES - PAGE_MARGIN;
        let fits = self.views.iter().take_while(|view| {
            let left = room.checked_sub(expected(view, groups));
            room = left.unwrap_or(0);
            left.is_some()
        });
        let fits = fits.count().max(1);
        if fits < self.views.len() {
            self.views.truncate(fits);
            self.cut(fits);
        }
    }

    /// Those behind the first `told` are for another page.
    fn cut(&mut self, told: usize) {
        self.more = true;
        let last = told.checked_sub(1).and_then(|last| self.upto.get(last));
        self.of = last.copied().unwrap_or(0);
    }
}

impl Daemon {
    pub(super) fn figures(self: &Arc<Self>, session: SessionId, list: DomainFiguresList) -> Answer {
        let DomainFiguresList { of, groups } = list;
        let mut chosen = match self.chosen(of) {
            Ok(chosen) => chosen,
            Err(error) => return Answer::Now(Err(error)),
        };
        chosen.fit(groups);
        let workers = chosen.views.iter().filter(|view| view.instance.is_some());
        let workers = workers.count();
        let books = groups.usage || groups.vcpus;
        // What one process used is a few short reads of memory that the kernel has; a thread would take longer to
        // wake. A worker's threads are as many as it has vCPUs.
        let at_once = !books || (workers == 1 && !groups.vcpus);
        if workers == 0 || (at_once && !groups.devices) {
            let views = std::mem::take(&mut chosen.views);
            let page = page(chosen, views.iter().map(|view| read(view, groups)));
            return Answer::Now(Ok((page, Vec::new())));
        }
        let books = self.looks.books.clone();
        Answer::Later(Box::pin(async move {
            let reports = asked(&chosen.views, groups).await;
            let build = move || {
                let views = std::mem::take(&mut chosen.views);
                let views = views.iter().zip(reports);
                let figures = views.map(|(view, reports)| {
                    let mut figures = read(view, groups);
                    if let Some(reports) = reports {
                        figures.devices = device_stats(view, &reports);
                        figures.answered = true;
                    }
                    figures
                });
                page(chosen, figures)
            };
            let answer = match at_once {
                true => build(),
                false => books.look(session, build).await?,
            };
            Ok((answer, Vec::new()))
        }))
    }

    fn chosen(&self, of: FiguresOf) -> Result<Chosen, ApiError> {
        match of {
            FiguresOf::All { after, active_only } => {
                let (views, more) = self.registry.some(after.as_ref(), active_only, MAX_PAGE);
                Ok(Chosen {
                    upto: vec![0; views.len()],
                    views,
                    of: 0,
                    more,
                })
            }
            FiguresOf::Named(names) if names.len() > MAX_PAGE => Err(ApiError::new(
                ApiErrorCode::InvalidArgument,
                format!(
                    "figures of {} domains: at most {MAX_PAGE} can be named",
                    names.len()
                ),
            )),
            FiguresOf::Named(names) => {
                let found = names.iter().zip(1..);
                let found =
                    found.filter_map(|(name, upto)| Some((self.registry.view(name).ok()?, upto)));
                let (views, upto) = each_once(found);
                Ok(Chosen {
                    views,
                    upto,
                    of: names.len(),
                    more: false,
                })
            }
        }
    }
}

/// Without those that were named before, by whichever name: a worker is asked once.
fn each_once(found: impl Iterator<Item = (Arc<View>, usize)>) -> (Vec<Arc<View>>, Vec<usize>) {
    let mut seen = BTreeSet::new();
    let once = found.filter(|(view, _)| seen.insert(view.details.summary.uuid.0));
    once.unzip()
}

/// What can be told of a domain without its worker.
fn read(view: &View, groups: FigureGroups) -> DomainFigures {
    let instance = view.instance.as_ref();
    let usage = instance.filter(|_| groups.usage);
    let vcpus = instance.filter(|_| groups.vcpus);
    let domain = view.live.as_deref();
    let domain = domain.or_else(|| Some(&view.record.as_deref()?.domain));
    let domain = domain.filter(|_| groups.devices);
    DomainFigures {
        summary: view.details.summary.clone(),
        // Of a worker that is gone by now there is nothing to tell.
        usage: usage.and_then(|instance| instance.usage().ok()),
        vcpus: vcpus.map_or_else(Vec::new, |instance| instance.vcpu_figures()),
        devices: domain.map_or_else(Vec::new, |domain| known_devices(view, domain)),
        answered: false,
    }
}

/// What each worker says of its devices; `None` where there is none, or it says nothing in time.
async fn asked(views: &[Arc<View>], groups: FigureGroups) -> Vec<Option<Vec<DeviceReport>>> {
    let mut reports: Vec<Option<Vec<DeviceReport>>> = views.iter().map(|_| None).collect();
    if !groups.devices {
        return reports;
    }
    let asks = views.iter().enumerate().filter_map(|(index, view)| {
        let ask = view.instance.as_ref()?.device_figures();
        Some(async move { (index, in_time(ask).await) })
    });
    let mut tasks: JoinSet<_> = asks.collect();
    while let Some(told) = tasks.join_next().await {
        let told = told.ok();
        let place = told.and_then(|(index, told)| Some((reports.get_mut(index)?, told)));
        if let Some((place, told)) = place {
            *place = told;
        }
    }
    reports
}

async fn in_time(ask: Later<Result<Vec<DeviceReport>, CallFailure>>) -> Option<Vec<DeviceReport>> {
    tokio::time::timeout(PATIENCE, ask).await.ok()?.ok()
}

/// As many as fit, in their order; none behind them is looked at.
fn page(mut chosen: Chosen, all: impl Iterator<Item = DomainFigures>) -> AnswerBody {
    let mut room = MAX_MESSAGE_BYTES - PAGE_MARGIN;
    let mut domains = Vec::with_capacity(chosen.upto.len());
    for mut figures in all {
        if domains.is_empty() {
            shrink(&mut figures, room);
        }
        let Some(left) = room.checked_sub(size(&figures)) else {
            chosen.cut(domains.len());
            break;
        };
        room = left;
        domains.push(figures);
    }
    AnswerBody::DomainFiguresList(FiguresPage {
        domains,
        of: u32::try_from(chosen.of).unwrap_or(u32::MAX),
        more: chosen.more,
    })
}

/// About how many bytes the figures of a domain will take.
fn expected(view: &View, groups: FigureGroups) -> usize {
    let domain = view.live.as_deref();
    let domain = domain.or_else(|| Some(&view.record.as_deref()?.domain));
    let devices = domain.filter(|_| groups.devices);
    let devices = devices.map_or_else(Vec::new, |domain| known_devices(view, domain));
    let vcpus = domain.filter(|_| groups.vcpus && view.instance.is_some());
    let vcpus = vcpus.map_or(0, |domain| domain.vcpus.count());
    let vcpus = usize::try_from(vcpus)
        .unwrap_or(0)
        .saturating_mul(VCPU_BYTES);
    let devices: usize = devices.iter().map(device_size).sum();
    registry::size(&view.details.summary) + FIGURES_BYTES + vcpus + devices
}

/// One that fits no message, as of a thousand vCPUs and paths as long as can be, is told without what makes it
/// so large.
fn shrink(figures: &mut DomainFigures, room: usize) {
    if size(figures) > room {
        figures
            .devices
            .iter_mut()
            .for_each(|device| device.host = None);
    }
    if size(figures) > room {
        figures.vcpus.clear();
    }
}

/// The most bytes that figures take in a message.
fn size(figures: &DomainFigures) -> usize {
    let devices: usize = figures.devices.iter().map(device_size).sum();
    let vcpus = figures.vcpus.len() * VCPU_BYTES;
    registry::size(&figures.summary) + FIGURES_BYTES + vcpus + devices
}

fn device_size(device: &DeviceStats) -> usize {
    DEVICE_BYTES + device.host.as_ref().map_or(0, String::len)
}

/// What a device is called on the host, where that is another name than here: the tap of a network interface,
/// the file of a disk.
fn on_host(domain: &Domain, taps: &[(PciSlot, String)], slot: PciSlot) -> Option<String> {
    if let Some((_, tap)) = taps.iter().find(|(of, _)| *of == slot) {
        return Some(tap.clone());
    }
    let mut disks = domain.devices.disks.iter();
    let disk = disks.find(|disk| disk.address == Some(slot))?;
    Some(disk.image.as_ref()?.path.display().to_string())
}

/// Devices without figures.
fn known_devices(view: &View, domain: &Domain) -> Vec<DeviceStats> {
    let mut devices = domain.devices.placed();
    devices.sort_unstable_by_key(|(place, _)| *place);
    let known = devices.into_iter().map(|(place, device)| DeviceStats {
        device,
        slot: place.slot,
        host: match place.port {
            None => on_host(domain, &view.taps, place.slot),
            Some(_) => None,
        },
        figures: DeviceFigures::None,
    });
    known.collect()
}

/// What a worker says of the devices that its domain has. Of others it may say what it likes.
pub(super) fn device_stats(view: &View, reports: &[DeviceReport]) -> Vec<DeviceStats> {
    let Some(domain) = &view.live else {
        return Vec::new();
    };
    let memory = domain.memory.bytes();
    let pluggable = domain.pluggable().map_or(0, |memory| memory.bytes);
    let mut devices = domain.devices.placed();
    devices.sort_unstable_by_key(|(place, _)| *place);
    let stats = devices.into_iter().filter_map(|(place, device)| {
        let slot = place.slot;
        let report = reports.iter().find(|report| report.slot == slot)?;
        let mut figures = report.figures;
        if let DeviceFigures::Balloon(balloon) = &mut figures {
            balloon.actual_bytes = balloon.actual_bytes.min(memory);
        }
        if let DeviceFigures::Memory(figures) = &mut figures {
            figures.most_bytes = figures.most_bytes.min(pluggable);
            figures.plugged_bytes = figures.plugged_bytes.min(pluggable);
            figures.requested_bytes = figures.requested_bytes.min(pluggable);
        }
        let mut host = on_host(domain, &view.taps, slot);
        if let Some(number) = place.port {
            let DeviceFigures::Ports(ports) = figures else {
                return None;
            };
            figures = DeviceFigures::Port(ports.port(number)?);
            let alone = domain.devices.only_at(place);
            host = alone
                .sockets()
                .next()
                .map(|(_, path)| path.display().to_string());
        }
        Some(DeviceStats {
            device,
            slot,
            host,
            figures,
        })
    });
    stats.collect()
}

#[cfg(test)]
mod tests;
