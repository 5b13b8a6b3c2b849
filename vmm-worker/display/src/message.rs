//! What a client sends (RFC 6143, 7.1 to 7.5), taken apart: the only place where a stranger's bytes are looked at.
//!
//! A message is taken when all of it is there; the longest has [`MAX_BYTES`]. Text that a client has copied is not a part
//! of its message: its length is given, and whoever reads drops as many bytes.

use crate::canvas::Area;
use crate::pixel::{FormatError, PixelFormat};

/// The longest message.
pub const MAX_BYTES: usize = 4 + 4 * MAX_ENCODINGS as usize;
/// How many encodings a client may name.
const MAX_ENCODINGS: u16 = 256;
/// The longest text it may copy.
pub const MAX_TEXT_BYTES: u32 = 16 << 20;

/// What the client is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// To say its version.
    Version,
    /// To choose a security type.
    Security,
    /// To answer a challenge.
    Response,
    /// To say whether it shares.
    Init,
    /// Anything.
    Running,
}

/// Versions that differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The server chooses the security type.
    V3,
    /// The client chooses it, and is not told that all is well when that is none.
    V7,
    /// And it is.
    V8,
}

/// How rectangles are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// As they are.
    #[default]
    Raw,
    /// In a stream of zlib's.
    Zrle,
}

/// What a client says that it understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Encodings {
    /// The first of those that there are.
    pub rectangles: Encoding,
    /// It can be told that the picture has another size.
    pub desktop_size: bool,
    /// It can say which key it is, beside what is on it.
    pub extended_keys: bool,
}

/// A message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// 7.1.1.
    Version(Version),
    /// 7.1.2: a type of any number.
    Security(u8),
    /// 7.2.2.
    Response([u8; 16]),
    /// 7.3.1.
    Init {
        /// Others may stay.
        shared: bool,
    },
    /// 7.5.1.
    SetPixelFormat(PixelFormat),
    /// 7.5.2.
    SetEncodings(Encodings),
    /// 7.5.3.
    UpdateRequest {
        /// Only what has changed.
        incremental: bool,
        /// Of this.
        area: Area,
    },
    /// 7.5.4, and QEMU's with the key's own number.
    Key {
        /// It goes down.
        pressed: bool,
        /// What is on it, as X has it.
        keysym: u32,
        /// Which it is, as a PC's keyboard of 1983 has it; 0 if that is not known.
        scan_code: u32,
    },
    /// 7.5.5.
    Pointer {
        /// By number, from bit 0.
        buttons: u8,
        /// From the left.
        x: u16,
        /// From the top.
        y: u16,
    },
    /// 7.5.6: so many bytes follow, to be dropped.
    CutText(u32),
}

/// Bytes that are no message; the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// No version of this protocol.
    #[error("a client says no version of RFB")]
    Version,
    /// A message of an unknown type.
    #[error("a client sends a message of type {0}")]
    Type(u8),
    /// More than there is room for.
    #[error("a client names {0} encodings")]
    Encodings(u16),
    /// More than is dropped.
    #[error("a client copies a text of {0} bytes")]
    Text(u32),
    /// A format that cannot be served.
    #[error(transparent)]
    Format(#[from] FormatError),
}

const TYPE_SET_PIXEL_FORMAT: u8 = 0;
const TYPE_SET_ENCODINGS: u8 = 2;
const TYPE_UPDATE_REQUEST: u8 = 3;
const TYPE_KEY: u8 = 4;
const TYPE_POINTER: u8 = 5;
const TYPE_CUT_TEXT: u8 = 6;
const TYPE_QEMU: u8 = 255;
const QEMU_KEY: u8 = 0;

/// Encodings and what else is said in their list.
pub(crate) mod number {
    pub(crate) const RAW: i32 = 0;
    pub(crate) const ZRLE: i32 = 16;
    pub(crate) const DESKTOP_SIZE: i32 = -223;
    pub(crate) const EXTENDED_KEY: i32 = -258;
}

/// Fields from the front of a message; `None` where it ends.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }
}

/// Takes the first message from `bytes`, which are what a client at `stage` has sent; gives it and its length. `None` if
/// not all of it is there.
///
/// # Errors
/// [`ProtocolError`].
pub fn parse(stage: Stage, bytes: &[u8]) -> Result<Option<(Message, usize)>, ProtocolError> {
    let mut fields = Fields(bytes);
    let message = match stage {
        Stage::Version => fields.take().map(version).transpose()?,
        Stage::Security => fields.u8().map(Message::Security),
        Stage::Response => fields.take().map(Message::Response),
        Stage::Init => fields.u8().map(|shared| Message::Init {
            shared: shared != 0,
        }),
        Stage::Running => running(&mut fields).transpose()?,
    };
    Ok(message.map(|message| (message, bytes.len() - fields.0.len())))
}

fn version(bytes: [u8; 12]) -> Result<Message, ProtocolError> {
    let [
        b'R',
        b'F',
        b'B',
        b' ',
        b'0',
        b'0',
        b'3',
        b'.',
        minor @ ..,
        b'\n',
    ] = bytes
    else {
        return Err(ProtocolError::Version);
    };
    let version = match &minor {
        b"008" => Version::V8,
        b"007" => Version::V7,
        // 7.1.1: what is not known is the oldest.
        minor if minor.iter().all(u8::is_ascii_digit) => Version::V3,
        _ => return Err(ProtocolError::Version),
    };
    Ok(Message::Version(version))
}

fn running(fields: &mut Fields<'_>) -> Option<Result<Message, ProtocolError>> {
    Some(Ok(match fields.u8()? {
        TYPE_SET_PIXEL_FORMAT => {
            let [_, _, _] = fields.take()?;
            match PixelFormat::parse(&fields.take()?) {
                Ok(format) => Message::SetPixelFormat(format),
                Err(error) => return Some(Err(error.into())),
            }
        }
        TYPE_SET_ENCODINGS => {
            let [_] = fields.take()?;
            let count = fields.u16()?;
            if count > MAX_ENCODINGS {
                return Some(Err(ProtocolError::Encodings(count)));
            }
            Message::SetEncodings(encodings(fields, count)?)
        }
        TYPE_UPDATE_REQUEST => Message::UpdateRequest {
            incremental: fields.u8()? != 0,
            area: Area {
                x: fields.u16()?,
                y: fields.u16()?,
                width: fields.u16()?,
                height: fields.u16()?,
            },
        },
        TYPE_KEY => {
            let pressed = fields.u8()? != 0;
            let [_, _] = fields.take()?;
            Message::Key {
                pressed,
                keysym: fields.u32()?,
                scan_code: 0,
            }
        }
        TYPE_POINTER => Message::Pointer {
            buttons: fields.u8()?,
            x: fields.u16()?,
            y: fields.u16()?,
        },
        TYPE_CUT_TEXT => {
            let [_, _, _] = fields.take()?;
            match fields.u32()? {
                len @ ..=MAX_TEXT_BYTES => Message::CutText(len),
                len => return Some(Err(ProtocolError::Text(len))),
            }
        }
        TYPE_QEMU => match fields.u8()? {
            QEMU_KEY => Message::Key {
                pressed: fields.u16()? != 0,
                keysym: fields.u32()?,
                scan_code: fields.u32()?,
            },
            _ => return Some(Err(ProtocolError::Type(TYPE_QEMU))),
        },
        other => return Some(Err(ProtocolError::Type(other))),
    }))
}

fn encodings(fields: &mut Fields<'_>, count: u16) -> Option<Encodings> {
    let mut rectangles = None;
    let mut found = Encodings::default();
    for _ in 0..count {
        match fields.take().map(i32::from_be_bytes)? {
            number::RAW => rectangles = rectangles.or(Some(Encoding::Raw)),
            number::ZRLE => rectangles = rectangles.or(Some(Encoding::Zrle)),
            number::DESKTOP_SIZE => found.desktop_size = true,
            number::EXTENDED_KEY => found.extended_keys = true,
            _ => {}
        }
    }
    found.rectangles = rectangles.unwrap_or_default();
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(stage: Stage, bytes: &[u8]) -> Result<Message, ProtocolError> {
        // A part of it is no message yet, and what comes behind it does not matter.
        for len in 0..bytes.len() {
            assert!(!matches!(parse(stage, &bytes[..len]), Ok(Some(_))), "{len}");
        }
        let longer = [bytes, &[0xff; 3]].concat();
        let (message, len) = parse(stage, &longer)?.expect("all of it is there");
        assert_eq!(len, bytes.len());
        Ok(message)
    }

    #[test]
    fn versions_are_told_apart() {
        let say = |text: &str| whole(Stage::Version, text.as_bytes());
        assert_eq!(say("RFB 003.008\n"), Ok(Message::Version(Version::V8)));
        assert_eq!(say("RFB 003.007\n"), Ok(Message::Version(Version::V7)));
        assert_eq!(say("RFB 003.003\n"), Ok(Message::Version(Version::V3)));
        assert_eq!(say("RFB 003.889\n"), Ok(Message::Version(Version::V3)));
        for text in [
            "RFB 004.001\n",
            "GET / HTTP/1",
            "RFB 003.00x\n",
            "RFB 003.0080",
        ] {
            assert_eq!(say(text), Err(ProtocolError::Version));
        }
    }

    #[test]
    fn a_message_has_its_fields() {
        let say = |bytes: &[u8]| whole(Stage::Running, bytes);
        let area = Area {
            x: 1,
            y: 2,
            width: 3,
            height: 0x405,
        };
        assert_eq!(
            say(&[3, 1, 0, 1, 0, 2, 0, 3, 4, 5]),
            Ok(Message::UpdateRequest {
                incremental: true,
                area
            })
        );
        let key = |pressed, keysym, scan_code| Message::Key {
            pressed,
            keysym,
            scan_code,
        };
        assert_eq!(
            say(&[4, 1, 9, 9, 0, 0, 0xff, 0x0d]),
            Ok(key(true, 0xff0d, 0))
        );
        let extended = [255, 0, 0, 0, 0, 0, 0, 0x61, 0, 0, 0, 0x1e];
        assert_eq!(say(&extended), Ok(key(false, 0x61, 0x1e)));
        let pointer = Message::Pointer {
            buttons: 5,
            x: 0x102,
            y: 3,
        };
        assert_eq!(say(&[5, 5, 1, 2, 0, 3]), Ok(pointer));
        assert_eq!(say(&[6, 0, 0, 0, 0, 0, 1, 0]), Ok(Message::CutText(256)));
        let format = [&[0, 9, 9, 9][..], &PixelFormat::OFFERED.wire()].concat();
        assert_eq!(
            say(&format),
            Ok(Message::SetPixelFormat(PixelFormat::OFFERED))
        );
        assert_eq!(whole(Stage::Init, &[2]), Ok(Message::Init { shared: true }));
        assert_eq!(whole(Stage::Security, &[9]), Ok(Message::Security(9)));
        assert_eq!(
            whole(Stage::Response, &[7; 16]),
            Ok(Message::Response([7; 16]))
        );
    }

    #[test]
    fn the_first_encoding_that_there_is_counts() {
        let say = |numbers: &[i32]| {
            let count = u16::try_from(numbers.len()).unwrap();
            let mut bytes = vec![2, 0];
            bytes.extend(count.to_be_bytes());
            bytes.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
            match whole(Stage::Running, &bytes) {
                Ok(Message::SetEncodings(encodings)) => encodings,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(say(&[]), Encodings::default());
        assert_eq!(say(&[7, 16, 0]).rectangles, Encoding::Zrle);
        assert_eq!(say(&[0, 16]).rectangles, Encoding::Raw);
        let all = say(&[-258, 5, -223, 16]);
        assert!(all.extended_keys && all.desktop_size);
        assert_eq!(say(&[1; 256]).rectangles, Encoding::Raw);
    }

    #[test]
    fn what_would_take_too_much_is_refused_by_its_head() {
        let say = |bytes: &[u8]| parse(Stage::Running, bytes);
        assert_eq!(say(&[2, 0, 1, 1]), Err(ProtocolError::Encodings(257)));
        let text = [&[6, 0, 0, 0][..], &(MAX_TEXT_BYTES + 1).to_be_bytes()].concat();
        assert_eq!(say(&text), Err(ProtocolError::Text(MAX_TEXT_BYTES + 1)));
        for unknown in [1, 7, 150, 248, 251] {
            assert_eq!(say(&[unknown]), Err(ProtocolError::Type(unknown)));
        }
        assert_eq!(say(&[255, 1]), Err(ProtocolError::Type(255)));
    }
}
