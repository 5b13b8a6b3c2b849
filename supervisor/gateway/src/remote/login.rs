//! libvirt's protocol as far as a client that has not logged in may speak it: how it may say who it is
//! (`REMOTE_PROC_AUTH_LIST`, 66) and SASL (`REMOTE_PROC_AUTH_SASL_INIT` to `_STEP`, 67 to 69).
//!
//! What it says in SASL goes to the verifier as it is, in messages of a bounded number and size. Bytes are read up to the
//! end of a packet and no further, so that a session finds its own from the first.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use reeve_ipc::codec;
use reeve_ipc::gateway::{MAX_LOGINS, MAX_SASL_BYTES, SaslAnswer, SaslRequest};
use reeve_ipc::scm;
use reeve_ipc::socket::Socket;

use super::stream::Stream;
use super::verifier::MECHANISM;
use crate::calls::failure::{Code, Failure, Origin};
use crate::wire::call::Call as _;
use crate::wire::frame::{self, Assembler, Header, Kind, LENGTH_MIN, Program, VERSION};
use crate::wire::types::connect as wire;
use crate::wire::xdr::{Encode, List, XdrError, decode};

/// `VIR_NET_SERVER_SERVICE_AUTH_SASL`.
const SASL: i32 = 1;
/// The longest packet: a message of SASL, of which each byte is a word, and the name of a mechanism.
const MAX_PACKET: usize = LENGTH_MIN + 4 * MAX_SASL_BYTES + 256;
/// The most packets.
const MAX_PACKETS: usize = 32;
/// Room for the verifier's answer.
const ROOM: usize = MAX_SASL_BYTES + 64;

/// A login that holds, whose client does not know that yet.
#[derive(Debug)]
pub(super) struct LoggedIn {
    header: Header,
    data: Vec<u8>,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoginError {
    #[error("it left before it had logged in")]
    Left,
    #[error("its password does not hold, or there is no user of that name")]
    Wrong,
    #[error("what it sent is no packet of libvirt's protocol, or too much")]
    Packet,
    #[error("its connection failed: {0}")]
    Socket(#[from] io::Error),
    #[error("no password can be checked; what its process said is in the log")]
    Verifier,
}

impl From<XdrError> for LoginError {
    fn from(_: XdrError) -> Self {
        Self::Packet
    }
}

/// Has the client log in.
///
/// # Errors
/// [`LoginError`]; the connection is to be ended.
pub(super) async fn log_in(stream: &mut Stream, verifier: OwnedFd) -> Result<LoggedIn, LoginError> {
    let verifier = Socket::new(verifier)?;
    let (mut begun, mut failures) = (0, 0);
    for _ in 0..MAX_PACKETS {
        let bytes = match packet(stream).await {
            // As clients do that were told that it was wrong.
            Err(LoginError::Left) if failures > 0 => return Err(LoginError::Wrong),
            result => result?,
        };
        let mut assembler = Assembler::default();
        assembler.push(&bytes);
        let packet = assembler.take().map_err(|_| LoginError::Packet)?;
        let packet = packet.ok_or(LoginError::Packet)?;
        let header = packet.header;
        match header.kind {
            Kind::Call => {}
            // Nothing that has to be answered: a client asks whether there is anybody once it has opened.
            Kind::Message => continue,
            _ => return Err(LoginError::Packet),
        }
        let asked = match asked(header, packet.payload) {
            Ok(asked) => asked,
            Err(failure) => {
                fail(stream, header, &failure).await?;
                continue;
            }
        };
        match asked {
            Asked::Ways => answer(stream, header, &List::<i32, 20>(vec![SASL])).await?,
            Asked::Mechanisms => answer(stream, header, &MECHANISM.to_owned()).await?,
            Asked::Close => {
                answer(stream, header, &()).await?;
                return Err(LoginError::Left);
            }
            Asked::Login(request) => {
                begun += u32::from(request.begins);
                match ask(&verifier, &request).await? {
                    SaslAnswer::Complete(data) => return Ok(LoggedIn { header, data }),
                    SaslAnswer::Continue(data) => {
                        answer(stream, header, &reply(false, data)).await?;
                    }
                    SaslAnswer::Failed => {
                        failures += 1;
                        fail(stream, header, &refused()).await?;
                        // The verifier ends with one that is too many.
                        if failures >= MAX_LOGINS || begun > MAX_LOGINS {
                            return Err(LoginError::Wrong);
                        }
                    }
                }
            }
        }
    }
    Err(LoginError::Packet)
}

impl LoggedIn {
    /// Tells the client that it is in.
    ///
    /// # Errors
    /// [`LoginError`].
    pub(super) async fn tell(self, stream: &mut Stream) -> Result<(), LoginError> {
        answer(stream, self.header, &reply(true, self.data)).await
    }

    /// Tells it that it is not let in all the same.
    ///
    /// # Errors
    /// [`LoginError`].
    pub(super) async fn refuse(self, stream: &mut Stream) -> Result<(), LoginError> {
        fail(stream, self.header, &refused()).await
    }
}

/// What a client may ask for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Ways,
    Mechanisms,
    Login(SaslRequest),
    Close,
}

/// What a call asks for.
///
/// # Errors
/// What is to be said of it.
fn asked(header: Header, payload: &[u8]) -> Result<Asked, Failure> {
    if header.program != Program::Remote.number() || header.version != VERSION {
        return Err(Failure::unknown_program(header.program, header.version));
    }
    let undecodable = |error: XdrError| Failure::undecodable(&error);
    let (begins, nil, data) = match header.procedure {
        wire::AuthList::NUMBER => return Ok(Asked::Ways),
        wire::AuthSaslInit::NUMBER => return Ok(Asked::Mechanisms),
        wire::ConnectClose::NUMBER => return Ok(Asked::Close),
        wire::AuthSaslStart::NUMBER => {
            let call: wire::AuthSaslStart = decode(payload).map_err(undecodable)?;
            if call.mechanism != MECHANISM {
                let why = format!("there is {MECHANISM} alone");
                return Err(Failure::of(Origin::Rpc, Code::AuthFailed, why));
            }
            (true, call.nil, call.data.0)
        }
        wire::AuthSaslStep::NUMBER => {
            let call: wire::AuthSaslStep = decode(payload).map_err(undecodable)?;
            (false, call.nil, call.data.0)
        }
        _ => return Err(Failure::not_authenticated()),
    };
    // Every message of SCRAM that a client sends says something.
    if nil || data.is_empty() || data.len() > MAX_SASL_BYTES {
        return Err(refused());
    }
    Ok(Asked::Login(SaslRequest { begins, data }))
}

fn refused() -> Failure {
    let why = "the password does not hold, or the user may not come";
    Failure::of(Origin::Rpc, Code::AuthFailed, why)
}

fn reply(complete: bool, data: Vec<u8>) -> wire::SaslAnswer {
    wire::SaslAnswer {
        complete,
        nil: false,
        data: data.into(),
    }
}

async fn answer<R: Encode>(
    stream: &mut Stream,
    header: Header,
    reply: &R,
) -> Result<(), LoginError> {
    let mut packet = Vec::new();
    frame::reply(&mut packet, header, reply)?;
    Ok(stream.send(&packet).await?)
}

async fn fail(stream: &mut Stream, header: Header, failure: &Failure) -> Result<(), LoginError> {
    let mut packet = Vec::new();
    frame::failure(&mut packet, header, &failure.body())?;
    Ok(stream.send(&packet).await?)
}

/// Asks the verifier.
async fn ask(verifier: &Socket<OwnedFd>, request: &SaslRequest) -> Result<SaslAnswer, LoginError> {
    let bytes = codec::encode(request).map_err(|_| LoginError::Packet)?;
    scm::send(verifier.as_fd(), &bytes, &[]).map_err(|_| LoginError::Verifier)?;
    let mut buffer = [0; ROOM];
    let (length, _) = verifier
        .receive(|verifier| scm::receive(verifier, &mut buffer))
        .await
        .map_err(|_| LoginError::Verifier)?;
    codec::decode(buffer.get(..length).unwrap_or_default()).map_err(|_| LoginError::Verifier)
}

/// The bytes of the next packet.
async fn packet(stream: &mut Stream) -> Result<Vec<u8>, LoginError> {
    let mut bytes = vec![0; 4];
    fill(stream, &mut bytes, 0).await?;
    let length = <[u8; 4]>::try_from(&bytes[..]).map_or(0, u32::from_be_bytes);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if !(LENGTH_MIN..=MAX_PACKET).contains(&length) {
        return Err(LoginError::Packet);
    }
    bytes.resize(length, 0);
    fill(stream, &mut bytes, 4).await?;
    Ok(bytes)
}

/// Reads all of `bytes` behind the first `at`.
async fn fill(stream: &mut Stream, bytes: &mut [u8], mut at: usize) -> Result<(), LoginError> {
    while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
        match stream.try_read(rest)? {
            Some(0) => return Err(LoginError::Left),
            Some(length) => at += length,
            None => drop(stream.readable().await?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::call::Call;

    fn asked_by<C: Call>(call: &C) -> Result<Asked, i32> {
        let mut packet = Vec::new();
        frame::call(&mut packet, 7, call).unwrap();
        let mut assembler = Assembler::default();
        assembler.push(&packet);
        let packet = assembler.take().unwrap().unwrap();
        asked(packet.header, packet.payload).map_err(|failure| failure.body().code)
    }

    #[test]
    fn only_a_login_is_taken_from_whoever_has_not_logged_in() {
        /// `VIR_ERR_AUTH_FAILED`, `VIR_ERR_RPC`.
        const FAILED: i32 = 45;
        assert_eq!(asked_by(&wire::AuthList {}), Ok(Asked::Ways));
        assert_eq!(asked_by(&wire::AuthSaslInit {}), Ok(Asked::Mechanisms));
        assert_eq!(asked_by(&wire::ConnectClose {}), Ok(Asked::Close));
        let start = |mechanism: &str, nil, length| wire::AuthSaslStart {
            mechanism: mechanism.to_owned(),
            nil,
            data: vec![b'n'; length].into(),
        };
        let login = Asked::Login(SaslRequest {
            begins: true,
            data: vec![b'n'; 5],
        });
        assert_eq!(asked_by(&start(MECHANISM, false, 5)), Ok(login));
        for wrong in [
            start("PLAIN", false, 5),
            start("SCRAM-SHA-1", false, 5),
            start(MECHANISM, true, 0),
            start(MECHANISM, false, 0),
            start(MECHANISM, false, MAX_SASL_BYTES + 1),
        ] {
            assert_eq!(asked_by(&wrong), Err(FAILED));
        }
        let open = wire::ConnectOpen {
            name: None,
            flags: 0,
        };
        let refused = asked_by(&open).unwrap_err();
        assert_eq!(refused, Failure::not_authenticated().body().code);
        assert!(asked_by(&wire::ConnectGetHostname {}).is_err());
        assert!(asked_by(&wire::AuthPolkit {}).is_err());
    }
}
