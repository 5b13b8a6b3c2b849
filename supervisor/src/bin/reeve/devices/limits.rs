//! Rates of a device that is there: `--throttle`, `--rates`.

use std::str::FromStr;

use reeve_ipc::model::MemorySize;
use reeve_ipc::spec::{Burst, DiskThrottle, Rate, Rates};

use super::list::List;

/// `PER-SECOND[:BURST[:SECONDS]]`, with K, M and the like as sizes have them.
struct RateText(Rate);

impl FromStr for RateText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            let size = text.parse::<MemorySize>();
            size.map(MemorySize::bytes)
                .map_err(|error| error.to_string())
        };
        let mut parts = text.split(':');
        let per_second = number(parts.next().unwrap_or_default())?;
        let burst = match (parts.next(), parts.next(), parts.next()) {
            (None, ..) => None,
            (Some(burst), seconds, None) => Some(Burst {
                per_second: number(burst)?,
                seconds: seconds
                    .unwrap_or("1")
                    .parse()
                    .map_err(|_| format!("'{text}' has no number of seconds"))?,
            }),
            _ => return Err(format!("'{text}' is not PER-SECOND[:BURST[:SECONDS]]")),
        };
        Ok(Self(Rate { per_second, burst }))
    }
}

fn rate(list: &mut List, key: &str) -> Result<Option<Rate>, String> {
    Ok(list.take::<RateText>(key)?.map(|text| text.0))
}

/// That something is limited, unless nothing is to be.
fn check(none: bool, any: bool) -> Result<(), String> {
    match (none, any) {
        (true, true) => Err("none is without any other".to_owned()),
        (false, false) => Err("write a limit, or none".to_owned()),
        _ => Ok(()),
    }
}

/// What a disk may be used; what is not said is not limited.
pub fn throttle(text: &str) -> Result<DiskThrottle, String> {
    let mut list = List::read(text);
    let none = list.flag("none");
    let mut rates = |unit: &str| {
        Ok::<_, String>(Rates {
            total: rate(&mut list, &format!("total-{unit}"))?,
            read: rate(&mut list, &format!("read-{unit}"))?,
            write: rate(&mut list, &format!("write-{unit}"))?,
        })
    };
    let throttle = DiskThrottle {
        bytes: rates("bytes")?,
        requests: rates("iops")?,
    };
    list.end()?;
    check(none, throttle.any()).map(|()| throttle)
}

/// What a network interface may be used: to the guest, and from it.
pub fn rates(text: &str) -> Result<(Option<Rate>, Option<Rate>), String> {
    let mut list = List::read(text);
    let none = list.flag("none");
    let rates = (rate(&mut list, "inbound")?, rate(&mut list, "outbound")?);
    list.end()?;
    check(none, rates.0.is_some() || rates.1.is_some()).map(|()| rates)
}

/// `up` or `down`.
pub fn link(text: &str) -> Result<bool, String> {
    match text {
        "up" => Ok(true),
        "down" => Ok(false),
        other => Err(format!("'{other}' is neither up nor down")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_with_their_bursts() {
        let limits = throttle("total-bytes=10M:20M:5,read-iops=100,write-iops=50:60").unwrap();
        let burst = |per_second, seconds| {
            Some(Burst {
                per_second,
                seconds,
            })
        };
        assert_eq!(
            limits.bytes.total,
            Some(Rate {
                per_second: 10 << 20,
                burst: burst(20 << 20, 5)
            })
        );
        assert_eq!(limits.requests.read.map(|rate| rate.per_second), Some(100));
        assert_eq!(limits.requests.write.unwrap().burst, burst(60, 1));
        assert_eq!(throttle("none"), Ok(DiskThrottle::default()));
        let (inbound, outbound) = rates("outbound=1K").unwrap();
        assert_eq!((inbound, outbound.unwrap().per_second), (None, 1024));
        assert_eq!(rates("none"), Ok((None, None)));
    }

    #[test]
    fn what_is_no_limit_is_refused() {
        for text in [
            "",
            "none,read-iops=1",
            "bytes=1",
            "read-iops=x",
            "read-iops=1:2:3:4",
        ] {
            assert!(throttle(text).is_err(), "{text}");
        }
        for text in ["", "inbound=", "inbound=1:1:x", "none,outbound=1"] {
            assert!(rates(text).is_err(), "{text}");
        }
        assert!(link("on").is_err());
    }
}
