//! Shares and limits of CPU time, as typed parameters.
//!
//! libvirt's limits are a quota of microseconds in a period of them: of each vCPU, and of the whole domain. So is the
//! model's of each vCPU; that of the whole domain is hundredths of one CPU. What is told is exact; a quota of the
//! whole domain that comes to no whole number of hundredths is refused. Of the model's limit of all vCPUs together
//! nothing is told.

use std::sync::Arc;

use reeve_ipc::api::call::TuningChange;
use reeve_ipc::model::{CpuQuota, Domain as Definition, ResourceLimits};

use super::Context;
use super::context::impact;
use super::failure::{Code, Failure, check_flags, invalid_argument};
use super::params::{LONG, TEXT_OKAY, ULONG, check, long, ulong, within};
use super::pinning::tune;
use crate::wire::types::handles::Domain;
use crate::wire::types::params::{Param, Params};
use crate::wire::types::tuning as wire;

/// What libvirt calls a scheduler of shares and limits.
const KIND: &str = "posix";
const SHARES: &str = "cpu_shares";
/// The limit of each vCPU.
const VCPU: Limit = Limit {
    period: "vcpu_period",
    quota: "vcpu_quota",
};
/// The limit of the whole domain.
const GLOBAL: Limit = Limit {
    period: "global_period",
    quota: "global_quota",
};
const KNOWN: [(&str, &str); 5] = [
    (SHARES, ULONG),
    (VCPU.period, ULONG),
    (VCPU.quota, LONG),
    (GLOBAL.period, ULONG),
    (GLOBAL.quota, LONG),
];
/// The share of a domain of which none is said (cgroup v2, `cpu.weight`).
const DEFAULT_SHARES: u16 = 100;
/// The period that is told wherever a quota in it is exact, in microseconds.
const PERIOD: u64 = 100_000;
/// What a period may be.
const PERIODS: std::ops::RangeInclusive<u64> = 1_000..=1_000_000;
/// No limit.
const UNLIMITED: i64 = -1;

/// The names of a limit's parameters.
#[derive(Debug, Clone, Copy)]
struct Limit {
    period: &'static str,
    quota: &'static str,
}

/// The quota in a period of [`PERIOD`].
fn told(percent: Option<u32>) -> i64 {
    let quota = percent.map(|percent| u64::from(percent) * (PERIOD / 100));
    quota.map_or(UNLIMITED, |quota| i64::try_from(quota).unwrap_or(i64::MAX))
}

impl Limit {
    /// The period that parameters say.
    fn period(self, params: &[Param]) -> Result<Option<u64>, Failure> {
        // Nothing is libvirt's word for what is there.
        let period = ulong(params, self.period).filter(|period| *period != 0);
        if let Some(period) = period.filter(|period| !PERIODS.contains(period)) {
            let (least, most) = (PERIODS.start(), PERIODS.end());
            let name = self.period;
            let why = format!("value of '{name}' is out of range [{least}, {most}]: {period}");
            return Err(invalid_argument(why));
        }
        Ok(period)
    }

    /// A period alone, where nothing is limited in it.
    fn alone(self, period: u64) -> Failure {
        let Self {
            period: name,
            quota,
        } = self;
        let why = format!("{name} {period} without a {quota}: nothing is limited in it");
        Failure::new(Code::ArgumentUnsupported, why)
    }

    /// What is made of a limit of each vCPU, which has been `before`, by parameters: `None` where they do not say.
    fn quota(
        self,
        params: &[Param],
        before: Option<CpuQuota>,
    ) -> Result<Option<Option<CpuQuota>>, Failure> {
        let period = self.period(params)?;
        let of = |quota: u64, period: u64| CpuQuota {
            quota_us: quota,
            period_us: u32::try_from(period).unwrap_or(u32::MAX),
        };
        let Some(quota) = long(params, self.quota) else {
            return match (period, before) {
                (None | Some(PERIOD), None) | (None, Some(_)) => Ok(None),
                (Some(period), Some(before)) => Ok(Some(Some(of(before.quota_us, period)))),
                (Some(period), None) => Err(self.alone(period)),
            };
        };
        let Ok(quota @ 1..) = u64::try_from(quota) else {
            return Ok(Some(None));
        };
        if !CpuQuota::QUOTAS.contains(&quota) {
            let (least, most) = (CpuQuota::QUOTAS.start(), CpuQuota::QUOTAS.end());
            let name = self.quota;
            let why = format!("value of '{name}' is out of range [{least}, {most}]: {quota}");
            return Err(invalid_argument(why));
        }
        let now = before.map_or(PERIOD, |before| before.period_us.into());
        Ok(Some(Some(of(quota, period.unwrap_or(now)))))
    }

    /// What is made of the limit by parameters: `None` where they do not say.
    fn change(self, params: &[Param]) -> Result<Option<Option<u32>>, Failure> {
        let period = self.period(params)?;
        let Some(quota) = long(params, self.quota) else {
            return match period {
                Some(period) if period != PERIOD => Err(self.alone(period)),
                _ => Ok(None),
            };
        };
        let Ok(quota @ 1..) = u64::try_from(quota) else {
            return Ok(Some(None));
        };
        let period = period.unwrap_or(PERIOD);
        let hundredths = u128::from(quota) * 100;
        let whole = (hundredths % u128::from(period) == 0)
            .then(|| u32::try_from(hundredths / u128::from(period)).ok());
        let not_whole = || {
            let name = self.quota;
            let why = format!(
                "{name} {quota} in a period of {period} is no whole number of hundredths of a CPU"
            );
            Failure::new(Code::ArgumentUnsupported, why)
        };
        whole
            .flatten()
            .map(|percent| Some(Some(percent)))
            .ok_or_else(not_whole)
    }

    /// The parameters of a limit of each vCPU.
    fn exact(self, quota: Option<CpuQuota>) -> [Param; 2] {
        let period = quota.map_or(PERIOD, |quota| quota.period_us.into());
        let quota = quota.map(|quota| i64::try_from(quota.quota_us).unwrap_or(i64::MAX));
        [
            Param::new(self.period, period),
            Param::new(self.quota, quota.unwrap_or(UNLIMITED)),
        ]
    }

    fn params(self, percent: Option<u32>) -> [Param; 2] {
        [
            Param::new(self.period, PERIOD),
            Param::new(self.quota, told(percent)),
        ]
    }
}

/// All parameters of a domain.
fn parameters(definition: &Definition) -> Vec<Param> {
    let ResourceLimits {
        cpu_percent,
        cpu_weight,
        ..
    } = definition.limits;
    let shares = u64::from(cpu_weight.unwrap_or(DEFAULT_SHARES));
    let [vcpu_period, vcpu_quota] = VCPU.exact(definition.tuning.vcpu_quota);
    let [global_period, global_quota] = GLOBAL.params(cpu_percent);
    vec![
        Param::new(SHARES, shares),
        vcpu_period,
        vcpu_quota,
        global_period,
        global_quota,
    ]
}

/// What parameters change of a domain.
fn changes(params: &[Param], definition: &Definition) -> Result<Vec<TuningChange>, Failure> {
    let mut changes = Vec::new();
    if let Some(shares) = ulong(params, SHARES) {
        let weight = u16::try_from(shares).ok();
        let weight = weight.filter(|weight| (1..=10_000).contains(weight));
        let out = || {
            invalid_argument(format!(
                "value of '{SHARES}' is out of range [1, 10000]: {shares}"
            ))
        };
        changes.push(TuningChange::CpuWeight(Some(weight.ok_or_else(out)?)));
    }
    let each = VCPU.quota(params, definition.tuning.vcpu_quota)?;
    changes.extend(each.map(TuningChange::VcpuQuota));
    let global = GLOBAL.change(params)?;
    changes.extend(global.map(TuningChange::CpuPercent));
    Ok(changes)
}

/// What an event tells of changes of a machine that runs. Of what libvirt has no word for, nothing.
pub(crate) fn tuned(changes: &[TuningChange]) -> Vec<Param> {
    let named = |[period, quota]: [Param; 2], scope: &str| {
        [
            Param {
                field: format!("cputune.{scope}_period"),
                ..period
            },
            Param {
                field: format!("cputune.{scope}_quota"),
                ..quota
            },
        ]
    };
    let mut params = Vec::new();
    for change in changes {
        match change {
            TuningChange::VcpuCpus {
                vcpu,
                cpus: Some(cpus),
            } => {
                let field = format!("cputune.vcpupin{vcpu}");
                params.push(Param::new(field, cpus.to_string()));
            }
            TuningChange::EmulatorCpus(Some(cpus)) => {
                params.push(Param::new("cputune.emulatorpin", cpus.to_string()));
            }
            TuningChange::CpuPercent(percent) => {
                params.extend(named(GLOBAL.params(*percent), "global"));
            }
            TuningChange::VcpuQuota(quota) => {
                params.extend(named(VCPU.exact(*quota), "vcpu"));
            }
            TuningChange::CpuWeight(weight) => {
                let shares = u64::from(weight.unwrap_or(DEFAULT_SHARES));
                params.push(Param::new("cputune.cpu_shares", shares));
            }
            _ => {}
        }
    }
    params
}

pub(super) async fn kind(
    context: Arc<Context>,
    call: wire::DomainGetSchedulerType,
) -> Result<wire::SchedulerType, Failure> {
    context.summary(&call.domain).await?;
    Ok(wire::SchedulerType {
        kind: KIND.to_owned(),
        nparams: i32::try_from(KNOWN.len()).unwrap_or(i32::MAX),
    })
}

async fn get_of<const MAX: usize>(
    context: &Context,
    of: &Domain,
    room: i32,
    flags: u32,
) -> Result<Params<MAX>, Failure> {
    let definition = context.meant(of, flags).await?;
    Ok(within(parameters(&definition), room).0.into())
}

pub(super) async fn get(
    context: Arc<Context>,
    call: wire::DomainGetSchedulerParameters,
) -> Result<<wire::DomainGetSchedulerParameters as crate::wire::call::Call>::Reply, Failure> {
    get_of(&context, &call.domain, call.nparams, 0).await
}

pub(super) async fn get_flags(
    context: Arc<Context>,
    call: wire::DomainGetSchedulerParametersFlags,
) -> Result<<wire::DomainGetSchedulerParametersFlags as crate::wire::call::Call>::Reply, Failure> {
    let known = impact::ANY | TEXT_OKAY;
    check_flags(call.flags, known, "virDomainGetSchedulerParametersFlags")?;
    get_of(&context, &call.domain, call.nparams, call.flags).await
}

async fn set_of(
    context: &Context,
    of: &Domain,
    params: &[Param],
    flags: u32,
) -> Result<(), Failure> {
    check(params, &KNOWN)?;
    tune(context, of, flags, |definition| changes(params, definition)).await
}

pub(super) async fn set(
    context: Arc<Context>,
    call: wire::DomainSetSchedulerParameters,
) -> Result<(), Failure> {
    set_of(&context, &call.domain, &call.params.0, 0).await
}

pub(super) async fn set_flags(
    context: Arc<Context>,
    call: wire::DomainSetSchedulerParametersFlags,
) -> Result<(), Failure> {
    let known = impact::ANY;
    check_flags(call.flags, known, "virDomainSetSchedulerParametersFlags")?;
    set_of(&context, &call.domain, &call.params.0, call.flags).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_a_limit_makes_the_same_limit() {
        for percent in [1, 33, 50, 100, 150, 12_345, 1_000_000] {
            let params = GLOBAL.params(Some(percent));
            assert_eq!(
                GLOBAL.change(&params),
                Ok(Some(Some(percent))),
                "{params:?}"
            );
            // The quota alone, in the period that was told.
            assert_eq!(GLOBAL.change(&params[1..]), Ok(Some(Some(percent))));
        }
        assert_eq!(GLOBAL.change(&GLOBAL.params(None)), Ok(Some(None)));
        for unlimited in [0, -1, i64::MIN] {
            let params = [Param::new("global_quota", unlimited)];
            assert_eq!(GLOBAL.change(&params), Ok(Some(None)));
        }
    }

    #[test]
    fn a_quota_of_each_vcpu_is_kept_as_it_is_and_each_half_of_it_changes_alone() {
        let each = |quota_us, period_us| {
            Some(CpuQuota {
                quota_us,
                period_us,
            })
        };
        let set = |before, numbers: &[(&str, i64)]| {
            let params: Vec<_> = numbers
                .iter()
                .map(|(name, number)| match u64::try_from(*number) {
                    Ok(period) if *name == "vcpu_period" => Param::new(*name, period),
                    _ => Param::new(*name, *number),
                })
                .collect();
            VCPU.quota(&params, before)
        };
        let odd = each(12_345, 54_321);
        assert_eq!(VCPU.quota(&VCPU.exact(odd), None), Ok(Some(odd)));
        assert_eq!(VCPU.quota(&VCPU.exact(None), odd), Ok(Some(None)));
        assert_eq!(
            set(odd, &[("vcpu_quota", 2_000)]),
            Ok(Some(each(2_000, 54_321)))
        );
        assert_eq!(
            set(odd, &[("vcpu_period", 2_000)]),
            Ok(Some(each(12_345, 2_000)))
        );
        assert_eq!(
            set(None, &[("vcpu_quota", 2_000)]),
            Ok(Some(each(2_000, 100_000)))
        );
        assert_eq!(set(None, &[("vcpu_period", 100_000)]), Ok(None));
        for (wrong, code) in [
            (("vcpu_period", 50_000), Code::ArgumentUnsupported),
            (("vcpu_quota", 999), Code::InvalidArgument),
            (("vcpu_quota", i64::MAX), Code::InvalidArgument),
            (("vcpu_period", 999), Code::InvalidArgument),
        ] {
            let failure = set(None, &[wrong]).unwrap_err();
            assert_eq!(failure.code, code, "{wrong:?}");
            assert!(failure.message().contains(wrong.0), "{}", failure.message());
        }
    }

    #[test]
    fn what_cannot_be_kept_is_refused_by_its_name() {
        let refused = |params: &[Param], name: &str| {
            let failure = GLOBAL.change(params).unwrap_err();
            assert!(failure.message().contains(name), "{}", failure.message());
            failure.code
        };
        let quota = |quota: i64| Param::new("global_quota", quota);
        let period = |period: u64| Param::new("global_period", period);
        let unsupported = Code::ArgumentUnsupported;
        assert_eq!(refused(&[quota(12_345)], "global_quota 12345"), unsupported);
        assert_eq!(refused(&[quota(i64::MAX)], "global_quota"), unsupported);
        assert_eq!(refused(&[period(50_000)], "global_period"), unsupported);
        let invalid = Code::InvalidArgument;
        assert_eq!(refused(&[period(999)], "global_period"), invalid);
        assert_eq!(refused(&[period(1_000_001)], "global_period"), invalid);
        // What is there already, nothing, and both together are well.
        assert_eq!(GLOBAL.change(&[period(100_000)]), Ok(None));
        assert_eq!(GLOBAL.change(&[period(0)]), Ok(None));
        let both = [period(50_000), quota(12_500)];
        assert_eq!(GLOBAL.change(&both), Ok(Some(Some(25))));
    }
}
