//! Passwords of remote clients, checked in a process of its own: SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's side.
//!
//! ```text
//!   client ─ AUTH_SASL_* ─► its gateway ─ SaslRequest ─► the verifier ─ FromVerifier {user} ─► the supervisor
//! ```
//!
//! A gateway that a client has taken over before it was let in must have nothing to log in with, and no user's keys to
//! try passwords by. So the file of users is here, in a process that sees of the client a few short messages of SCRAM and
//! serves it alone. The supervisor is told from here, and so not by the gateway, whose password it was.
//!
//! A name that nobody has goes the whole way, with a salt of its own that stays the same, and fails where a wrong
//! password does.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use reeve_ipc::codec;
use reeve_ipc::gateway::{FromVerifier, MAX_LOGINS, MAX_SASL_BYTES, SaslAnswer, SaslRequest};
use reeve_ipc::scm::{self, ScmError};
use reeve_ipc::socket::Socket;
use reeve_ipc::users::{ITERATIONS, KEY_BYTES, SALT_BYTES, User, Users, UsersError};
use rsasl::callback::{Context, Request, SessionCallback, SessionData};
use rsasl::mechanisms::scram::SCRAM_SHA256;
use rsasl::mechanisms::scram::properties::ScramStoredPassword;
use rsasl::mechanisms::scram::tools::hash_password;
use rsasl::prelude::{
    Mechanism, Mechname, Registry, SASLConfig, SASLServer, Session, SessionError, State, Validation,
};
use rsasl::property::{AuthId, AuthzId};
use rsasl::validate::{Validate, ValidationError};
use sha2::Sha256;
use sha2::digest::generic_array::GenericArray;

/// The one mechanism there is: clients of libvirt on Debian 11 and later have it.
pub(crate) const MECHANISM: &str = "SCRAM-SHA-256";
/// And no other, as it says nothing of TLS's keys (`-PLUS`), which libvirt's client cannot.
static MECHANISMS: [Mechanism; 1] = [SCRAM_SHA256];
/// How long the answer to a wrong password takes.
pub(super) const PAUSE: Duration = Duration::from_secs(1);
/// Room for a request.
const ROOM: usize = MAX_SASL_BYTES + 64;

/// Why no password can be checked.
#[derive(Debug, thiserror::Error)]
pub enum VerifierError {
    /// The file.
    #[error("tls_users: {0}")]
    File(String),
    /// Its entries.
    #[error("tls_users: {0}")]
    Users(#[from] UsersError),
    /// The library has not what it was built with.
    #[error("there is no {MECHANISM}")]
    Mechanism,
    /// Whoever asks does not ask as a gateway does.
    #[error("what was asked for is no login")]
    Request,
    /// A socket failed.
    #[error(transparent)]
    Socket(#[from] ScmError),
}

/// Who has logged in, as the library hands it out.
struct LoggedIn;

impl Validation for LoggedIn {
    type Value = String;
}

/// What the library asks.
struct Asked(Users);

impl Asked {
    /// What somebody of that name would have whom there is not: always the same.
    fn nobody(&self, name: &str) -> User {
        let mut salt = [0; SALT_BYTES];
        let whole = self.derive(&format!("salt {name}"));
        for (to, from) in salt.iter_mut().zip(whole) {
            *to = from;
        }
        User {
            name: name.to_owned(),
            iterations: self.iterations(name),
            salt,
            stored_key: self.derive(&format!("stored {name}")),
            server_key: self.derive(&format!("server {name}")),
        }
    }

    /// As many as one of the users has, and not always the same one: a number that only the first has would tell of all
    /// others whether they are there.
    fn iterations(&self, name: &str) -> u32 {
        let users = &self.0.users;
        let whole = self.derive(&format!("iterations {name}"));
        let number = whole
            .first_chunk()
            .map_or(0, |first| u32::from_le_bytes(*first));
        let number = usize::try_from(number).unwrap_or_default();
        let which = number.checked_rem(users.len());
        which
            .and_then(|which| users.get(which))
            .map_or(ITERATIONS, |user| user.iterations)
    }

    /// Bytes that follow from the secret and the text: HMAC, as PBKDF2 of one iteration is.
    fn derive(&self, text: &str) -> [u8; KEY_BYTES] {
        let mut bytes = GenericArray::default();
        hash_password::<Sha256>(&self.0.unknown, 1, text.as_bytes(), &mut bytes);
        bytes.into()
    }
}

impl SessionCallback for Asked {
    fn callback(
        &self,
        _session: &SessionData,
        context: &Context<'_>,
        request: &mut Request<'_>,
    ) -> Result<(), SessionError> {
        let name = context.get_ref::<AuthId>().unwrap_or_default();
        let nobody = self.nobody(name);
        let user = self.0.get(name).unwrap_or(&nobody);
        request.satisfy::<ScramStoredPassword<'_>>(&ScramStoredPassword::new(
            user.iterations,
            &user.salt,
            &user.stored_key,
            &user.server_key,
        ))?;
        Ok(())
    }

    /// The password holds; nobody acts as somebody else.
    fn validate(
        &self,
        _session: &SessionData,
        context: &Context<'_>,
        validate: &mut Validate<'_>,
    ) -> Result<(), ValidationError> {
        let name = context.get_ref::<AuthId>();
        let acts_as = context
            .get_ref::<AuthzId>()
            .filter(|acts_as| !acts_as.is_empty());
        let user = name.and_then(|name| self.0.get(name));
        if let Some(user) = user.filter(|user| acts_as.is_none_or(|acts_as| acts_as == user.name)) {
            validate.finalize::<LoggedIn>(user.name.clone());
        }
        Ok(())
    }
}

/// The whole work of a verifier: the logins that are asked for on `socket`, against the users of `file`, until one
/// holds, which is told at `door`. Nobody who asks is an end in good order.
///
/// # Errors
/// [`VerifierError`].
pub async fn serve(socket: OwnedFd, door: OwnedFd, file: OwnedFd) -> Result<(), VerifierError> {
    let socket = Socket::new(socket).map_err(|_| VerifierError::Socket(ScmError::Closed))?;
    // The file can be long: it is nobody's to have read who does not log in.
    let Some(mut request) = next(&socket).await? else {
        return Ok(());
    };
    let config = config(&file)?;
    let mut login = None;
    let mut begun = 0;
    loop {
        if request.begins {
            begun += 1;
            if begun > MAX_LOGINS {
                tokio::time::sleep(PAUSE).await;
                return match tell(&socket, &SaslAnswer::Failed) {
                    Ok(()) | Err(ScmError::Closed) => Ok(()),
                    Err(error) => Err(error.into()),
                };
            }
            login = Some(begin(&config)?);
        }
        let answer = match login.take() {
            Some(begun) if is_scram(request.begins, &request.data) => step(begun, &request.data),
            _ => Step::Failed,
        };
        let (answer, is_over) = match answer {
            Step::Goes(next, data) => {
                login = Some(next);
                (SaslAnswer::Continue(data), false)
            }
            Step::Holds(user, data) => {
                // Before its gateway knows: that waits for what the supervisor says to it.
                tell(&door, &FromVerifier { user })?;
                (SaslAnswer::Complete(data), true)
            }
            Step::Failed => {
                tokio::time::sleep(PAUSE).await;
                (SaslAnswer::Failed, false)
            }
        };
        match tell(&socket, &answer) {
            Ok(()) if is_over => return Ok(()),
            Ok(()) => {}
            Err(ScmError::Closed) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        request = match next(&socket).await? {
            Some(request) => request,
            None => return Ok(()),
        };
    }
}

/// What logins are checked by: the users of the file.
fn config(file: &OwnedFd) -> Result<Arc<SASLConfig>, VerifierError> {
    let text = super::credentials::read(file).map_err(VerifierError::File)?;
    let text =
        String::from_utf8(text).map_err(|_| VerifierError::File("it is no text".to_owned()))?;
    let asked = Asked(Users::parse(&text)?);
    SASLConfig::builder()
        .with_registry(Registry::with_mechanisms(&MECHANISMS))
        .with_callback(asked)
        .map_err(|_| VerifierError::Mechanism)
}

/// What is asked next; `None` where nobody asks any more.
async fn next(socket: &Socket<OwnedFd>) -> Result<Option<SaslRequest>, VerifierError> {
    let mut buffer = [0; ROOM];
    let received = socket
        .receive(|socket| scm::receive(socket, &mut buffer))
        .await;
    let length = match received {
        Ok((length, _)) => length,
        Err(ScmError::Closed) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let request = codec::decode(buffer.get(..length).unwrap_or_default());
    request.map(Some).map_err(|_| VerifierError::Request)
}

fn tell(socket: &impl AsFd, words: &impl serde::Serialize) -> Result<(), ScmError> {
    let bytes = codec::encode(words).map_err(|_| ScmError::Oversized)?;
    scm::send(socket.as_fd(), &bytes, &[])
}

fn begin(config: &Arc<SASLConfig>) -> Result<Session<LoggedIn>, VerifierError> {
    let mechanism = Mechname::parse(MECHANISM.as_bytes()).map_err(|_| VerifierError::Mechanism)?;
    SASLServer::new(Arc::clone(config))
        .start_suggested(mechanism)
        .map_err(|_| VerifierError::Mechanism)
}

/// Where a login is after a message.
enum Step {
    Goes(Session<LoggedIn>, Vec<u8>),
    Holds(String, Vec<u8>),
    Failed,
}

/// Whether a message is made of attributes, as the library takes for granted: it looks at the first two bytes of each part
/// whether or not there are two. What the first message begins with is of another form (RFC 5801, 4).
fn is_scram(is_first: bool, data: &[u8]) -> bool {
    let is_attribute = |part: &[u8]| part.get(1) == Some(&b'=');
    let mut parts = data.split(|byte| *byte == b',');
    if is_first {
        let binding = parts.next().unwrap_or_default();
        let acts_as = parts.next().unwrap_or_default();
        let is_binding = matches!(binding, b"n" | b"y") || binding.starts_with(b"p=");
        if !is_binding || !(acts_as.is_empty() || is_attribute(acts_as)) {
            return false;
        }
    }
    parts.all(is_attribute)
}

fn step(mut login: Session<LoggedIn>, data: &[u8]) -> Step {
    let mut answer = Vec::new();
    // A login that ended in an error is never gone on with.
    match login.step(Some(data), &mut answer) {
        Ok(State::Running) => Step::Goes(login, answer),
        Ok(State::Finished(_)) => match login.validation() {
            Some(user) => Step::Holds(user, answer),
            None => Step::Failed,
        },
        Err(_) => Step::Failed,
    }
}

#[cfg(test)]
mod tests;
