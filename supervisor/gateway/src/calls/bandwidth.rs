//! How fast an interface may be used (libvirt `<bandwidth>`), as typed parameters: to the guest and from it, an
//! average and a peak in KiB a second, and how many KiB may go at the peak.

use std::sync::Arc;

use reeve_ipc::api::figures::FigureGroups;
use reeve_ipc::api::view::DeviceStats;
use reeve_ipc::device::DeviceChange;
use reeve_ipc::model::{DeviceName, Domain as Definition, Nic};
use reeve_ipc::spec::{MacAddress, Rate};

use super::Context;
use super::context::impact;
use super::devices::change_each;
use super::failure::{Code, Failure, check_flags, invalid_argument};
use super::params::{TEXT_OKAY, UINT, check, told_within, uint};
use crate::wire::types::handles::Domain;
use crate::wire::types::params::Param;
use crate::wire::types::tuning as wire;
use crate::xml::device::{Bandwidth, bandwidth_of, rate_of};

const AVERAGE: &str = "average";
const PEAK: &str = "peak";
const BURST: &str = "burst";
/// What an interface to the guest is promised of what others leave. Nobody can promise it here.
const FLOOR: &str = "inbound.floor";
pub(super) const INBOUND: &str = "inbound";
pub(super) const OUTBOUND: &str = "outbound";

fn known() -> Vec<String> {
    let names = |way: &str| [AVERAGE, PEAK, BURST].map(|of| format!("{way}.{of}"));
    let mut known = Vec::from(names(INBOUND));
    known.push(FLOOR.to_owned());
    known.extend(names(OUTBOUND));
    known
}

/// What parameters make of one way: `None` where they do not say.
fn changed(way: &str, params: &[Param]) -> Result<Option<Option<Rate>>, Failure> {
    let number = |of: &str| uint(params, &format!("{way}.{of}"));
    let (average, peak, burst) = (number(AVERAGE), number(PEAK), number(BURST));
    if average.is_none() && peak.is_none() && burst.is_none() {
        return Ok(None);
    }
    if average.is_none() {
        // Which is no wish to have no limit.
        let why = format!("{way}.average is mandatory");
        return Err(invalid_argument(why));
    }
    let number = |number: Option<u32>| u64::from(number.unwrap_or_default());
    let bandwidth = Bandwidth {
        average: number(average),
        peak: number(peak),
        burst: number(burst),
    };
    let rate = rate_of(bandwidth).map_err(|why| invalid_argument(format!("{way}: {why}")))?;
    Ok(Some(rate))
}

/// The parameters of one way.
pub(super) fn parameters(way: &str, rate: Option<Rate>) -> Vec<Param> {
    let Bandwidth {
        average,
        peak,
        burst,
    } = rate.map(bandwidth_of).unwrap_or_default();
    let param = |of: &str, kib: u64| {
        let kib = u32::try_from(kib).unwrap_or(u32::MAX);
        Param::new(format!("{way}.{of}"), kib)
    };
    let mut params = vec![
        param(AVERAGE, average),
        param(PEAK, peak),
        param(BURST, burst),
    ];
    if way == INBOUND {
        params.push(Param::new(FLOOR, 0_u32));
    }
    params
}

/// The interface that `device` means, by its address or its name on the host: the one that it is to have, or that
/// it has.
fn find<'a>(
    definition: &'a Definition,
    present: &[DeviceStats],
    device: &str,
) -> Result<&'a Nic, Failure> {
    let address: Option<MacAddress> = device.parse().ok();
    let named = present
        .iter()
        .find(|present| present.host.as_deref() == Some(device));
    let meant = |nic: &&Nic| {
        let by_address = address.is_some() && nic.mac == address;
        let by_name = nic
            .target
            .as_ref()
            .is_some_and(|name| name.as_str() == device);
        let name = nic.mac.map(DeviceName::Nic);
        let by_place = named.is_some_and(|named| Some(&named.device) == name.as_ref());
        by_address || by_name || by_place
    };
    let mut nics = definition.devices.nics.iter();
    nics.find(meant).ok_or_else(|| {
        let device: String = device.chars().take(256).collect();
        invalid_argument(format!("'{device}' is not a known interface"))
    })
}

/// The devices that are there, by whose names on the host interfaces are found; none of a domain that is off.
pub(super) async fn present(context: &Context, of: &Domain) -> Vec<DeviceStats> {
    let groups = FigureGroups {
        devices: true,
        ..FigureGroups::default()
    };
    let figures = context.figures(of, groups).await;
    figures.map_or_else(|_| Vec::new(), |figures| figures.devices)
}

pub(super) async fn get(
    context: Arc<Context>,
    call: wire::DomainGetInterfaceParameters,
) -> Result<wire::TuneParams, Failure> {
    let flags = impact::ANY | TEXT_OKAY;
    check_flags(call.flags, flags, "virDomainGetInterfaceParameters")?;
    let definition = context.meant(&call.domain, call.flags).await?;
    let (inbound, outbound) = match call.nparams {
        // How many there are is asked of no interface in particular.
        0 => (None, None),
        _ => {
            let present = present(&context, &call.domain).await;
            let nic = find(&definition, &present, &call.device)?;
            (nic.inbound, nic.outbound)
        }
    };
    let mut params = parameters(INBOUND, inbound);
    params.extend(parameters(OUTBOUND, outbound));
    Ok(told_within(params, call.nparams))
}

pub(super) async fn set(
    context: Arc<Context>,
    call: wire::DomainSetInterfaceParameters,
) -> Result<(), Failure> {
    check_flags(call.flags, impact::ANY, "virDomainSetInterfaceParameters")?;
    let params = &call.params.0;
    let names = known();
    let names: Vec<_> = names.iter().map(|name| (name.as_str(), UINT)).collect();
    check(params, &names)?;
    if uint(params, FLOOR).is_some_and(|floor| floor > 0) {
        let why = format!(
            "Invalid use of 'floor' on interface {}: nothing is promised to one alone",
            call.device
        );
        return Err(Failure::new(Code::ConfigUnsupported, why));
    }
    let (inbound, outbound) = (changed(INBOUND, params)?, changed(OUTBOUND, params)?);
    let present = present(&context, &call.domain).await;
    change_each(&context, &call.domain, call.flags, |definition| {
        let nic = find(definition, &present, &call.device)?;
        let before = (nic.inbound, nic.outbound);
        let after = (inbound.unwrap_or(before.0), outbound.unwrap_or(before.1));
        let change = DeviceChange::NicRates {
            inbound: after.0,
            outbound: after.1,
        };
        let name = nic.mac.map(DeviceName::Nic).filter(|_| after != before);
        Ok(name.map(|name| (name, change)))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(numbers: &[(&str, u32)]) -> Vec<Param> {
        let numbers = numbers.iter();
        numbers
            .map(|(name, number)| Param::new(*name, *number))
            .collect()
    }

    #[test]
    fn what_is_told_makes_the_same_rate() {
        for numbers in [
            vec![("inbound.average", 1_000)],
            vec![("inbound.average", 1_000), ("inbound.peak", 2_000)],
            vec![
                ("inbound.average", 10),
                ("inbound.peak", 20),
                ("inbound.burst", 60),
            ],
        ] {
            let rate = changed(INBOUND, &params(&numbers)).unwrap().unwrap();
            assert!(rate.is_some());
            let told = parameters(INBOUND, rate);
            assert_eq!(changed(INBOUND, &told), Ok(Some(rate)), "{told:?}");
        }
        assert_eq!(parameters(OUTBOUND, None).len(), 3);
    }

    #[test]
    fn nothing_is_no_limit_and_what_is_not_said_stays() {
        let nothing = params(&[("inbound.average", 0), ("inbound.peak", 0)]);
        assert_eq!(changed(INBOUND, &nothing), Ok(Some(None)));
        assert_eq!(changed(OUTBOUND, &nothing), Ok(None));
        let peak = params(&[("inbound.peak", 5)]);
        assert!(changed(INBOUND, &peak).is_err(), "it takes no limit away");
    }
}
