//! What a network's server has lent, as dnsmasq keeps it (dnsmasq(8), `--dhcp-leasefile`).
//!
//! ```text
//!   1764515000 52:54:00:12:34:56 192.168.122.77 guest 01:52:54:00:12:34:56     expiry, link, address, name, client
//!   duid 00:01:00:01:30:f1:52:54:00:be:d7:03:aa:bb                             of the server; IPv6 follows
//!   1764515000 1193046 fd00::77 guest 00:03:00:01:52:54:00:12:34:56            expiry, IAID, address, name, DUID
//! ```
//!
//! Names and ids are what guests say of themselves: nothing of a line is believed but its form, and a line that has
//! another is passed over, for no guest is to hide what others have. The supervisor does not read it: whoever asks
//! is given a descriptor. The server writes it anew in place, so that a reader may meet a part of it.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use crate::model::MAX_HOST_NAME_BYTES;
use crate::spec::MacAddress;

/// The most bytes of a book that are read; what is behind them is passed over.
pub const MAX_BYTES: usize = 1024 * 1024;
/// The most lines of one that are read.
pub const MAX_LINES: usize = 65_536;
/// The most bytes of a line that is read; what is longer is passed over.
pub const MAX_LINE_BYTES: usize = 1024;
/// The most bytes of an id: 255 of them in hexadecimal.
const MAX_ID_BYTES: usize = 3 * 255;

/// An address that a network's server has lent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Until when, in seconds since 1970; `None` for good.
    pub expiry_unix_s: Option<u64>,
    /// To whom, by its address on the link; of IPv6 the one that its id names, where it names one.
    pub mac: Option<MacAddress>,
    /// What.
    pub address: IpAddr,
    /// What it calls itself: letters, digits, `-`, `_` and dots.
    pub hostname: Option<String>,
    /// What else it goes by: bytes in hexadecimal with colons; of IPv6 its DUID.
    pub client_id: Option<String>,
    /// Of IPv6, for which of its interfaces (RFC 8415 §4.2): digits.
    pub iaid: Option<String>,
}

/// Why a book is not read.
#[derive(Debug, thiserror::Error)]
pub enum LeasesError {
    /// The descriptor.
    #[error("cannot read what is lent: {0}")]
    Read(#[from] Errno),
}

/// Reads a book from where its descriptor stands to its end, or as far as it is read: what is lent still at
/// `now_unix_s`, in its order.
///
/// # Errors
/// [`LeasesError`].
pub fn read(book: BorrowedFd<'_>, now_unix_s: u64) -> Result<Vec<Lease>, LeasesError> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = match rustix::io::read(book, &mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        bytes.extend_from_slice(buffer.get(..length).unwrap_or_default());
        if bytes.len() >= MAX_BYTES {
            break;
        }
    }
    Ok(parse(&bytes, now_unix_s))
}

/// As [`read`], of what was read.
#[must_use]
pub fn parse(bytes: &[u8], now_unix_s: u64) -> Vec<Lease> {
    let mut leases = Vec::new();
    let bytes = bytes.get(..MAX_BYTES).unwrap_or(bytes);
    // What no line ends is being written, or cut.
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    for line in lines.take(MAX_LINES) {
        let line = line
            .strip_suffix(b"\n")
            .filter(|line| line.len() <= MAX_LINE_BYTES);
        let line = line.and_then(|line| std::str::from_utf8(line).ok());
        let lease = line.and_then(lease);
        let lasts = |lease: &Lease| lease.expiry_unix_s.is_none_or(|expiry| expiry > now_unix_s);
        leases.extend(lease.filter(lasts));
    }
    leases
}

fn lease(line: &str) -> Option<Lease> {
    let mut words = line.split(' ');
    let (expiry, who, address) = (words.next()?, words.next()?, words.next()?);
    let (name, id) = (words.next()?, words.next()?);
    if words.next().is_some() {
        return None;
    }
    let expiry: u64 = expiry.parse().ok()?;
    let address: IpAddr = address.parse().ok()?;
    let client_id = kept(id, MAX_ID_BYTES, |c| c.is_ascii_hexdigit() || c == ':');
    let (mac, iaid) = match address {
        // Of a link that is no Ethernet its type stands before it, and it is no such address.
        IpAddr::V4(_) => (who.parse().ok(), None),
        IpAddr::V6(_) => (
            client_id.as_deref().and_then(mac_of),
            // `T` stands before that of a temporary address.
            kept(who, 10, |c| c.is_ascii_digit()),
        ),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    Some(Lease {
        expiry_unix_s: Some(expiry).filter(|expiry| *expiry > 0),
        mac,
        address,
        hostname: kept(name, MAX_HOST_NAME_BYTES, plain),
        client_id,
        iaid,
    })
}

/// What of a word may be there; `None` where nothing is left. A star is nothing.
fn kept(word: &str, most: usize, may_be: impl Fn(char) -> bool) -> Option<String> {
    let kept: String = word.chars().filter(|c| may_be(*c)).take(most).collect();
    Some(kept).filter(|kept| !kept.is_empty())
}

/// The Ethernet address that an id names: DUID-LLT or DUID-LL of hardware type 1 (RFC 8415 §11).
fn mac_of(duid: &str) -> Option<MacAddress> {
    let mut bytes = Vec::new();
    for byte in duid.split(':') {
        bytes.push(u8::from_str_radix(byte, 16).ok()?);
    }
    let mac = match bytes.as_slice() {
        [0, 1, 0, 1, _, _, _, _, mac @ ..] | [0, 3, 0, 1, mac @ ..] => mac,
        _ => return None,
    };
    let mac: [u8; 6] = mac.try_into().ok()?;
    MacAddress::try_from(mac).ok()
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};
    use std::os::fd::AsFd as _;

    use super::*;

    const NOW: u64 = 1_764_515_000;

    fn leases(text: &str) -> Vec<Lease> {
        parse(text.as_bytes(), NOW)
    }

    #[test]
    fn what_is_lent_is_read_of_both_families() {
        let text = "1764515001 52:54:00:12:34:56 192.168.122.77 guest 01:52:54:00:12:34:56\n\
                    0 52:54:00:12:34:57 192.168.122.78 * *\n\
                    duid 00:01:00:01:30:f1:52:54:00:be:d7:03:aa:bb\n\
                    1764515001 1193046 fd00::77 guest 00:03:00:01:52:54:00:12:34:56\n\
                    1764515001 T7 fd00::78 * 00:04:aa\n";
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.rewind().unwrap();
        let found = read(file.as_fd(), NOW).unwrap();
        assert_eq!(found, leases(text));
        let [first, second, third, fourth] = found.as_slice() else {
            panic!("{found:?}");
        };
        let mac: MacAddress = "52:54:00:12:34:56".parse().unwrap();
        assert_eq!(
            *first,
            Lease {
                expiry_unix_s: Some(NOW + 1),
                mac: Some(mac),
                address: "192.168.122.77".parse().unwrap(),
                hostname: Some("guest".to_owned()),
                client_id: Some("01:52:54:00:12:34:56".to_owned()),
                iaid: None,
            }
        );
        assert_eq!(second.expiry_unix_s, None);
        assert_eq!((&second.hostname, &second.client_id), (&None, &None));
        assert_eq!(third.mac, Some(mac));
        assert_eq!(third.iaid.as_deref(), Some("1193046"));
        assert_eq!((fourth.mac, fourth.iaid.as_deref()), (None, Some("7")));
    }

    #[test]
    fn what_has_expired_is_left_out() {
        let line = |expiry: u64| format!("{expiry} 52:54:00:12:34:56 10.0.0.2 a *\n");
        assert!(leases(&line(NOW)).is_empty() && leases(&line(NOW - 1)).is_empty());
        assert_eq!(leases(&line(NOW + 1)).len(), 1);
    }

    #[test]
    fn of_what_guests_call_themselves_only_characters_of_names_are_kept() {
        let found = leases("0 52:54:00:12:34:56 10.0.0.2 a<b>\u{1b}[1m'é.c 01:zz;02\n");
        assert_eq!(found[0].hostname.as_deref(), Some("ab1m.c"));
        assert_eq!(found[0].client_id.as_deref(), Some("01:02"));
        let found = leases(&format!("0 06-52:54 10.0.0.2 {} *\n", "a".repeat(900)));
        assert_eq!(found[0].hostname.as_ref().map(String::len), Some(253));
        assert_eq!(found[0].mac, None, "it is no Ethernet address");
    }

    #[test]
    fn no_line_hides_others() {
        let good = "0 52:54:00:12:34:56 10.0.0.2 a *\n";
        let long = format!(
            "0 52:54:00:12:34:56 10.0.0.3 {} *",
            "a".repeat(MAX_LINE_BYTES)
        );
        for bad in [
            "",
            " ",
            "x 52:54:00:12:34:56 10.0.0.3 a *",
            "-1 52:54:00:12:34:56 10.0.0.3 a *",
            "0 52:54:00:12:34:56 10.0.0.300 a *",
            "0 52:54:00:12:34:56 10.0.0.3 a",
            "0 52:54:00:12:34:56 10.0.0.3 a b *",
            "\0\0\0",
            &long,
        ] {
            assert_eq!(leases(&format!("{good}{bad}\n{good}")).len(), 2, "{bad:?}");
        }
        let bytes = [good.as_bytes(), b"0 \xff\xfe\n", good.as_bytes()].concat();
        assert_eq!(parse(&bytes, NOW).len(), 2);
    }

    #[test]
    fn a_line_that_is_being_written_is_not_read() {
        let good = "0 52:54:00:12:34:56 10.0.0.2 a *\n";
        assert_eq!(
            leases(&format!("{good}0 52:54:00:12:34:56 10.0.0.3 a *")).len(),
            1
        );
        assert!(leases("").is_empty());
    }

    #[test]
    fn what_is_beyond_the_bounds_hides_nothing_that_is_within() {
        let good = "0 52:54:00:12:34:56 10.0.0.2 a *\n";
        let read_back = |text: &str| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file.rewind().unwrap();
            let found = read(file.as_fd(), NOW).unwrap();
            assert_eq!(found, leases(text));
            found.len()
        };
        let many = good.repeat(MAX_BYTES / good.len() + 9);
        assert!(many.len() > MAX_BYTES);
        assert_eq!(read_back(&many), MAX_BYTES / good.len());
        let long = format!("{good}{}", "a".repeat(MAX_BYTES));
        assert_eq!(read_back(&long), 1);
        let lines = format!("{good}{}{good}", "\n".repeat(MAX_LINES - 1));
        assert_eq!(read_back(&lines), 1);
        let directory = std::fs::File::open("/").unwrap();
        assert!(matches!(
            read(directory.as_fd(), NOW),
            Err(LeasesError::Read(_))
        ));
    }
}
