//! How fast a disk may be used (libvirt `<iotune>`), as typed parameters: of bytes and of operations, each of reads,
//! of writes or of both, a rate, what may go beyond it for a while, and for how long.
//!
//! As with libvirt, a rate of a unit sets all three of that unit: what is not among the parameters has none. So do
//! bursts; the seconds of a burst are set one at a time. What is set of neither stays.

use std::sync::Arc;

use reeve_ipc::device::DeviceChange;
use reeve_ipc::model::{DeviceName, Disk, Domain as Definition};
use reeve_ipc::spec::{Burst, DiskThrottle, Rate, Rates};

use super::Context;
use super::context::impact;
use super::devices::change_each;
use super::failure::{Code, Failure, check_flags, invalid_argument};
use super::params::{TEXT, TEXT_OKAY, ULONG, check, text, ulong, within};
use crate::wire::types::params::Param;
use crate::wire::types::tuning as wire;

const UNITS: [&str; 2] = ["bytes", "iops"];
const PARTS: [&str; 3] = ["total", "read", "write"];
/// The most that QEMU takes of anything.
const MOST: u64 = 1_000_000_000_000_000;
/// The bytes that count as one operation. Here each counts as one.
const OPERATION_BYTES: &str = "size_iops_sec";
/// Disks that share one set of limits. Here each has its own.
const GROUP: &str = "group_name";

/// What a parameter says of a part of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Rate,
    Burst,
    Seconds,
}

const ENDS: [End; 3] = [End::Rate, End::Burst, End::Seconds];

impl End {
    const fn suffix(self) -> &'static str {
        match self {
            Self::Rate => "",
            Self::Burst => "_max",
            Self::Seconds => "_max_length",
        }
    }

    fn name(self, unit: &str, part: &str) -> String {
        format!("{part}_{unit}_sec{}", self.suffix())
    }

    fn names(self) -> impl Iterator<Item = String> {
        let units = UNITS.into_iter();
        units.flat_map(move |unit| PARTS.map(|part| self.name(unit, part)))
    }
}

/// A unit's numbers of one kind, in the order of [`PARTS`]; 0 is none.
type Numbers = [u64; PARTS.len()];

/// All numbers of a unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Unit {
    rate: Numbers,
    burst: Numbers,
    seconds: Numbers,
}

const fn parts(rates: Rates) -> [Option<Rate>; PARTS.len()] {
    [rates.total, rates.read, rates.write]
}

impl Unit {
    fn of(rates: Rates) -> Self {
        let burst = |rate: Option<Rate>| rate.and_then(|rate| rate.burst);
        Self {
            rate: parts(rates).map(|rate| rate.map_or(0, |rate| rate.per_second)),
            burst: parts(rates).map(|rate| burst(rate).map_or(0, |burst| burst.per_second)),
            seconds: parts(rates).map(|rate| burst(rate).map_or(0, |burst| burst.seconds.into())),
        }
    }

    const fn numbers(&mut self, end: End) -> &mut Numbers {
        match end {
            End::Rate => &mut self.rate,
            End::Burst => &mut self.burst,
            End::Seconds => &mut self.seconds,
        }
    }

    /// Takes what is said of one kind.
    fn take(&mut self, end: End, unit: &str, params: &[Param]) -> Result<(), Failure> {
        let said = PARTS.map(|part| ulong(params, &end.name(unit, part)));
        if said.iter().all(Option::is_none) {
            return Ok(());
        }
        if end == End::Seconds {
            for (number, said) in self.seconds.iter_mut().zip(said) {
                *number = said.unwrap_or(*number);
            }
            return Ok(());
        }
        let new = said.map(Option::unwrap_or_default);
        let [total, read, write] = new;
        if total > 0 && (read > 0 || write > 0) {
            let why = format!(
                "total and read/write of {unit}_sec{} cannot be set at the same time",
                end.suffix()
            );
            return Err(invalid_argument(why));
        }
        *self.numbers(end) = new;
        Ok(())
    }

    fn rates(&self, unit: &str) -> Result<Rates, Failure> {
        let rate = |index: usize| self.part(index, unit);
        Ok(Rates {
            total: rate(0)?,
            read: rate(1)?,
            write: rate(2)?,
        })
    }

    fn part(&self, index: usize, unit: &str) -> Result<Option<Rate>, Failure> {
        let at = |numbers: &Numbers| numbers.get(index).copied().unwrap_or_default();
        let part = PARTS.get(index).copied().unwrap_or_default();
        let (rate, burst, seconds) = (at(&self.rate), at(&self.burst), at(&self.seconds));
        let name = |end: End| end.name(unit, part);
        let refuse = |why: String| Err(Failure::new(Code::ConfigUnsupported, why));
        if burst == 0 {
            // How long nothing may last is nothing.
            return Ok((rate > 0).then_some(Rate {
                per_second: rate,
                burst: None,
            }));
        }
        let (of_rate, of_burst) = (name(End::Rate), name(End::Burst));
        if rate == 0 {
            return refuse(format!("cannot reset '{of_rate}' when '{of_burst}' is set"));
        }
        if burst < rate {
            return refuse(format!(
                "value '{of_burst}' cannot be smaller than '{of_rate}'"
            ));
        }
        let too_long = || {
            let why = format!("value '{}' is too large: {seconds}", name(End::Seconds));
            invalid_argument(why)
        };
        let seconds = u32::try_from(seconds.max(1)).map_err(|_| too_long())?;
        let burst = Some(Burst {
            per_second: burst,
            seconds,
        });
        Ok(Some(Rate {
            per_second: rate,
            burst,
        }))
    }
}

/// What parameters make of the limits of a disk.
fn changed(throttle: DiskThrottle, params: &[Param]) -> Result<DiskThrottle, Failure> {
    let rates = |unit: &str, rates: Rates| {
        let mut numbers = Unit::of(rates);
        for end in ENDS {
            numbers.take(end, unit, params)?;
        }
        numbers.rates(unit)
    };
    let [bytes, iops] = UNITS;
    Ok(DiskThrottle {
        bytes: rates(bytes, throttle.bytes)?,
        requests: rates(iops, throttle.requests)?,
    })
}

/// Refuses what there is not here, and numbers that are too large.
fn known(params: &[Param]) -> Result<(), Failure> {
    let mut names: Vec<String> = ENDS.into_iter().flat_map(End::names).collect();
    names.push(OPERATION_BYTES.to_owned());
    let known = names.iter().map(|name| (name.as_str(), ULONG));
    let known: Vec<_> = known.chain([(GROUP, TEXT)]).collect();
    check(params, &known)?;
    let refuse = |why: String| Err(Failure::new(Code::ArgumentUnsupported, why));
    if ulong(params, OPERATION_BYTES).is_some_and(|bytes| bytes > 0) {
        return refuse(format!(
            "parameter '{OPERATION_BYTES}' not supported: each operation counts as one"
        ));
    }
    if text(params, GROUP).is_some_and(|name| !name.is_empty()) {
        return refuse(format!(
            "parameter '{GROUP}' not supported: each disk has limits of its own"
        ));
    }
    match names.iter().any(|name| ulong(params, name) > Some(MOST)) {
        true => refuse(format!(
            "block I/O throttle limit value must be no more than {MOST}"
        )),
        false => Ok(()),
    }
}

/// The disk that `path` means, by its target or its file.
fn find<'a>(definition: &'a Definition, path: &str) -> Result<&'a Disk, Failure> {
    let mut disks = definition.devices.disks.iter();
    let meant = |disk: &&Disk| {
        let image = disk.image.as_ref();
        disk.target.as_str() == path || image.is_some_and(|image| image.path.as_os_str() == path)
    };
    disks.find(meant).ok_or_else(|| {
        let path: String = path.chars().take(256).collect();
        invalid_argument(format!("disk '{path}' was not found in the domain config"))
    })
}

/// All parameters, as libvirt orders them.
fn parameters(throttle: DiskThrottle) -> Vec<Param> {
    let units = || {
        let rates = [throttle.bytes, throttle.requests];
        UNITS.into_iter().zip(rates.map(Unit::of))
    };
    let of = |end: End| {
        let numbers = units().flat_map(move |(unit, mut numbers)| {
            let names = PARTS.map(|part| end.name(unit, part));
            names.into_iter().zip(*numbers.numbers(end))
        });
        numbers.map(|(name, number)| Param::new(name, number))
    };
    let mut params: Vec<_> = of(End::Rate).chain(of(End::Burst)).collect();
    params.push(Param::new(OPERATION_BYTES, 0_u64));
    params.push(Param::new(GROUP, ""));
    params.extend(of(End::Seconds));
    params
}

pub(super) async fn get(
    context: Arc<Context>,
    call: wire::DomainGetBlockIoTune,
) -> Result<wire::BlockIoTune, Failure> {
    let flags = impact::ANY | TEXT_OKAY;
    check_flags(call.flags, flags, "virDomainGetBlockIoTune")?;
    let definition = context.meant(&call.domain, call.flags).await?;
    let throttle = match &call.disk {
        Some(path) => find(&definition, path)?.throttle,
        // Asked with room for none, a client need not say of which.
        None if call.nparams == 0 => DiskThrottle::default(),
        None => {
            return Err(invalid_argument(
                "disk in virDomainGetBlockIoTune must not be NULL",
            ));
        }
    };
    let mut params = parameters(throttle);
    if call.flags & TEXT_OKAY == 0 {
        params.retain(|param| param.field != GROUP);
    }
    let (params, nparams) = within(params, call.nparams);
    Ok(wire::BlockIoTune {
        params: params.into(),
        nparams,
    })
}

pub(super) async fn set(
    context: Arc<Context>,
    call: wire::DomainSetBlockIoTune,
) -> Result<(), Failure> {
    check_flags(call.flags, impact::ANY, "virDomainSetBlockIoTune")?;
    let params = &call.params.0;
    known(params)?;
    change_each(&context, &call.domain, call.flags, |definition| {
        let disk = find(definition, &call.disk)?;
        let throttle = changed(disk.throttle, params)?;
        let change = DeviceChange::DiskThrottle(throttle);
        let name = DeviceName::Disk(disk.target.clone());
        Ok((throttle != disk.throttle).then_some((name, change)))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(numbers: &[(&str, u64)]) -> Vec<Param> {
        let numbers = numbers.iter();
        numbers
            .map(|(name, number)| Param::new(*name, *number))
            .collect()
    }

    fn after(throttle: DiskThrottle, numbers: &[(&str, u64)]) -> DiskThrottle {
        changed(throttle, &params(numbers)).unwrap()
    }

    /// Those that are not 0.
    fn told(throttle: DiskThrottle) -> Vec<(String, u64)> {
        let numbers = parameters(throttle).into_iter().filter_map(|param| {
            let number = ulong(std::slice::from_ref(&param), &param.field)?;
            (number > 0).then_some((param.field, number))
        });
        numbers.collect()
    }

    fn owned(numbers: &[(&str, u64)]) -> Vec<(String, u64)> {
        let numbers = numbers.iter();
        numbers
            .map(|(name, number)| ((*name).to_owned(), *number))
            .collect()
    }

    #[test]
    fn what_is_told_is_what_was_set() {
        let set = [
            ("total_bytes_sec", 1_000),
            ("read_iops_sec", 10),
            ("write_iops_sec", 20),
            ("total_bytes_sec_max", 2_000),
            ("total_bytes_sec_max_length", 5),
        ];
        let throttle = after(DiskThrottle::default(), &set);
        assert_eq!(told(throttle), owned(&set));
        assert_eq!(changed(throttle, &parameters(throttle)), Ok(throttle));
        assert_eq!(parameters(throttle).len(), 20);
    }

    #[test]
    fn a_rate_sets_all_of_its_unit_and_nothing_else() {
        let before = after(
            DiskThrottle::default(),
            &[
                ("read_bytes_sec", 5),
                ("write_bytes_sec", 6),
                ("total_iops_sec", 7),
            ],
        );
        let throttle = after(before, &[("total_bytes_sec", 9)]);
        let wanted = [("total_bytes_sec", 9), ("total_iops_sec", 7)];
        assert_eq!(told(throttle), owned(&wanted));
        assert_eq!(
            told(after(throttle, &[("write_bytes_sec", 0)])),
            owned(&wanted[1..])
        );
        assert_eq!(after(throttle, &[]), throttle);
    }

    #[test]
    fn a_burst_lasts_a_second_where_nothing_is_said_and_as_long_as_is_said_later() {
        let first = [("total_iops_sec", 7), ("total_iops_sec_max", 8)];
        let throttle = after(DiskThrottle::default(), &first);
        let one = [first[0], first[1], ("total_iops_sec_max_length", 1)];
        assert_eq!(told(throttle), owned(&one));
        let throttle = after(throttle, &[("total_iops_sec_max_length", 4)]);
        let four = [first[0], first[1], ("total_iops_sec_max_length", 4)];
        assert_eq!(told(throttle), owned(&four));
        assert_eq!(
            told(after(throttle, &[("total_iops_sec_max", 0)])),
            owned(&first[..1])
        );
    }

    #[test]
    fn what_contradicts_itself_or_is_too_much_is_refused_by_its_name() {
        for (numbers, name) in [
            (
                vec![("total_bytes_sec", 1), ("read_bytes_sec", 1)],
                "of bytes_sec cannot",
            ),
            (
                vec![("total_iops_sec_max", 1), ("write_iops_sec_max", 1)],
                "of iops_sec_max cannot",
            ),
            (
                vec![("read_bytes_sec_max", 1)],
                "'read_bytes_sec_max' is set",
            ),
            (
                vec![("read_bytes_sec", 2), ("read_bytes_sec_max", 1)],
                "cannot be smaller",
            ),
            (
                vec![
                    ("read_bytes_sec", 2),
                    ("read_bytes_sec_max", 2),
                    ("read_bytes_sec_max_length", 1 << 40),
                ],
                "read_bytes_sec_max_length",
            ),
        ] {
            let failure = changed(DiskThrottle::default(), &params(&numbers)).unwrap_err();
            assert!(failure.message().contains(name), "{}", failure.message());
        }
        for (param, name) in [
            (Param::new("size_iops_sec", 1_u64), "size_iops_sec"),
            (Param::new("group_name", "g"), "group_name"),
            (Param::new("group_name", 1_u64), "group_name"),
            (Param::new("total_bytes_sec", MOST + 1), "no more than"),
            (Param::new("total_bytes", 1_u64), "total_bytes"),
        ] {
            let failure = known(&[param]).unwrap_err();
            assert!(failure.message().contains(name), "{}", failure.message());
        }
        assert_eq!(known(&parameters(DiskThrottle::default())), Ok(()));
    }
}
