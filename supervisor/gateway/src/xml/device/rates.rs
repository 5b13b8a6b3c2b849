//! How much of something may be used in a second, in libvirt's words for it: `<bandwidth>` in KiB, `<rate>` of an
//! entropy device in bytes a period.

use reeve_ipc::spec::{Burst, Rate};

use super::super::XmlError;
use super::super::element::Element;
use super::super::write::Writer;

const KIB: u64 = 1024;

/// What libvirt says of one way of an interface; 0 where it says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// KiB a second in the long run.
    pub average: u64,
    /// KiB a second for a while.
    pub peak: u64,
    /// KiB that may go at the peak.
    pub burst: u64,
}

/// The rate that is meant. A burst lasts whole seconds.
///
/// # Errors
/// What is too large.
pub fn rate_of(bandwidth: Bandwidth) -> Result<Option<Rate>, &'static str> {
    let bytes = |kib: u64, why| match kib.checked_mul(KIB) {
        Some(bytes) => Ok(Some(bytes).filter(|bytes| *bytes > 0)),
        None => Err(why),
    };
    let Some(per_second) = bytes(bandwidth.average, "'average' is too large")? else {
        // libvirt takes 0 for no limit.
        return Ok(None);
    };
    let peak = bytes(bandwidth.peak, "'peak' is too large")?;
    let burst = bytes(bandwidth.burst, "'burst' is too large")?;
    if peak.is_none() && burst.is_none() {
        return Ok(Some(Rate {
            per_second,
            burst: None,
        }));
    }
    let peak = peak.unwrap_or(per_second);
    let seconds = burst.map_or(1, |burst| burst.div_ceil(peak));
    let seconds = u32::try_from(seconds).map_err(|_| "the burst is too long")?;
    Ok(Some(Rate {
        per_second,
        burst: Some(Burst {
            per_second: peak,
            seconds,
        }),
    }))
}

/// What libvirt says of a rate, in whole KiB.
#[must_use]
pub fn bandwidth_of(rate: Rate) -> Bandwidth {
    let peak = rate.burst.map_or(0, |burst| burst.per_second.div_ceil(KIB));
    let seconds = rate.burst.map_or(0, |burst| burst.seconds);
    Bandwidth {
        average: rate.per_second.div_ceil(KIB),
        peak,
        burst: peak.saturating_mul(seconds.into()),
    }
}

/// `<inbound>` or `<outbound>`: `average` and `peak` in KiB a second, `burst` in KiB that may go at the peak.
pub(in super::super) fn bandwidth(element: Element<'_>) -> Result<Option<Rate>, XmlError> {
    element.known(&["average", "peak", "burst"])?;
    element.no_children()?;
    let kib = |name| Ok::<_, XmlError>(element.parsed::<u64>(name)?.unwrap_or_default());
    let bandwidth = Bandwidth {
        average: kib("average")?,
        peak: kib("peak")?,
        burst: kib("burst")?,
    };
    rate_of(bandwidth).map_err(|why| element.invalid(why))
}

/// Whether `<bandwidth>` can say it.
pub(in super::super) fn is_bandwidth(rate: Rate) -> bool {
    // As libvirt's schema has them.
    let fits = |kib: u64| kib <= u64::from(u32::MAX);
    let whole = |bytes: u64| bytes % KIB == 0 && fits(bytes / KIB);
    let burst = rate.burst;
    whole(rate.per_second)
        && burst.is_none_or(|burst| {
            whole(burst.per_second)
                && fits((burst.per_second / KIB).saturating_mul(burst.seconds.into()))
        })
}

/// Writes one that it can say.
pub(in super::super) fn write_bandwidth(writer: &mut Writer, name: &str, rate: Rate) {
    let tag = writer.tag(name).attribute("average", rate.per_second / KIB);
    let burst = rate.burst;
    let tag = tag.optional("peak", burst.map(|burst| burst.per_second / KIB));
    let amount = burst.map(|burst| (burst.per_second / KIB).saturating_mul(burst.seconds.into()));
    tag.optional("burst", amount).empty();
}

/// `<rate bytes='...' period='...'/>` of an entropy device; the period is in milliseconds.
pub(super) fn rng(element: Element<'_>) -> Result<Rate, XmlError> {
    element.known(&["bytes", "period"])?;
    element.no_children()?;
    element.required("bytes")?;
    let bytes: u64 = element.parsed("bytes")?.unwrap_or_default();
    let period: u64 = element.parsed("period")?.unwrap_or(1000);
    if period == 0 {
        return Err(element.invalid("a period is at least 1 ms"));
    }
    let per_second = bytes.saturating_mul(1000) / period;
    Ok(Rate {
        // Less than one a second is none of the model's.
        per_second: per_second.max(u64::from(bytes > 0)),
        burst: None,
    })
}

/// Whether `<rate>` can say it.
pub(in super::super) fn is_rng(rate: Rate) -> bool {
    rate.burst.is_none() && rate.per_second <= u64::MAX / 1000
}
