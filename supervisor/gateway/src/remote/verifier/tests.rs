//! Logins of a client of the same library, and what is no login.

use std::fs::File;
use std::io::{Seek as _, Write as _};

use rsasl::mechanisms::scram::tools::derive_keys;
use rsasl::prelude::SASLClient;
use sha2::Digest as _;

use super::*;

fn users() -> Users {
    let salt = [7; SALT_BYTES];
    let mut salted = GenericArray::default();
    hash_password::<Sha256>(b"pencil", 4096, &salt, &mut salted);
    let (client_key, server_key) = derive_keys::<Sha256>(&salted);
    let user = User {
        name: "alice".to_owned(),
        iterations: 4096,
        salt,
        stored_key: Sha256::digest(client_key).into(),
        server_key: server_key.into(),
    };
    Users {
        unknown: [9; KEY_BYTES],
        users: vec![user],
    }
}

/// A verifier, and what it is asked by.
struct Asks {
    socket: Socket<OwnedFd>,
    door: OwnedFd,
}

impl Asks {
    async fn ask(&self, begins: bool, data: &[u8]) -> Option<SaslAnswer> {
        let data = data.to_vec();
        tell(&self.socket, &SaslRequest { begins, data }).ok()?;
        let mut buffer = [0; ROOM];
        let received = self
            .socket
            .receive(|socket| scm::receive(socket, &mut buffer));
        let (length, _) = received.await.ok()?;
        codec::decode(&buffer[..length]).ok()
    }

    /// Logs in; gives what the server said first, and what became of it.
    async fn log_in(&self, name: &str, password: &str) -> (String, Option<SaslAnswer>) {
        let (name, password) = (name.to_owned(), password.to_owned());
        let config = SASLConfig::with_credentials(None, name, password).unwrap();
        let mechanism = Mechname::parse(MECHANISM.as_bytes()).unwrap();
        let mut client = SASLClient::new(config)
            .start_suggested(&[mechanism])
            .unwrap();
        let mut first = Vec::new();
        client.step(None, &mut first).unwrap();
        let Some(SaslAnswer::Continue(challenge)) = self.ask(true, &first).await else {
            panic!("it does not go on");
        };
        let mut last = Vec::new();
        client.step(Some(&challenge), &mut last).unwrap();
        let answer = self.ask(false, &last).await;
        if let Some(SaslAnswer::Complete(proof)) = &answer {
            // The server has the user's keys.
            client.step(Some(proof), &mut Vec::new()).unwrap();
        }
        let challenge = String::from_utf8(challenge).unwrap();
        let salt = challenge.split_once(",s=").unwrap().1.to_owned();
        (salt, answer)
    }

    fn told(&self) -> Option<FromVerifier> {
        let (bytes, _) = scm::receive_message(self.door.as_fd()).ok()?;
        codec::decode(&bytes).ok()
    }
}

async fn with<T>(work: impl AsyncFnOnce(Asks) -> T) -> (Result<(), VerifierError>, T) {
    with_file(&users().text(), work).await
}

async fn with_file<T>(
    text: &str,
    work: impl AsyncFnOnce(Asks) -> T,
) -> (Result<(), VerifierError>, T) {
    let (ours, theirs) = scm::pair().unwrap();
    let (door, says) = scm::pair().unwrap();
    let mut file: File = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    let asks = Asks {
        socket: Socket::new(ours).unwrap(),
        door,
    };
    tokio::join!(serve(theirs, says, file.into()), work(asks))
}

#[tokio::test]
async fn a_password_that_holds_is_told_and_nothing_else_is() {
    let (end, ()) = with(async |asks: Asks| {
        let (_, answer) = asks.log_in("alice", "wrong").await;
        assert_eq!(answer, Some(SaslAnswer::Failed));
        assert_eq!(asks.told(), None);
        // Not without a beginning.
        assert_eq!(
            asks.ask(false, b"c=biws,r=x,p=eA==").await,
            Some(SaslAnswer::Failed)
        );
        let (_, answer) = asks.log_in("alice", "pencil").await;
        assert!(
            matches!(answer, Some(SaslAnswer::Complete(_))),
            "{answer:?}"
        );
        let user = "alice".to_owned();
        assert_eq!(asks.told(), Some(FromVerifier { user }));
    })
    .await;
    end.unwrap();
}

#[tokio::test]
async fn a_name_that_nobody_has_goes_the_whole_way_with_a_salt_of_its_own() {
    let mut salts = Vec::new();
    for name in ["bob", "bob", "carol"] {
        let (end, salt) = with(async |asks: Asks| {
            let (salt, answer) = asks.log_in(name, "pencil").await;
            assert_eq!(answer, Some(SaslAnswer::Failed));
            assert_eq!(asks.told(), None);
            salt
        })
        .await;
        end.unwrap();
        salts.push(salt);
    }
    assert_eq!(salts[0], salts[1]);
    assert_ne!(salts[0], salts[2]);
    assert!(salts[0].ends_with(",i=4096"), "{salts:?}");
}

#[tokio::test]
async fn the_file_is_read_for_whoever_logs_in() {
    // One that is wrong as soon as it is read.
    let (end, ()) = with_file("", async |_asks: Asks| ()).await;
    end.unwrap();
    let log_in = async |asks: Asks| asks.ask(true, b"n,,n=alice,r=x").await;
    let (end, answer) = with_file("", log_in).await;
    assert!(
        matches!(end, Err(VerifierError::Users(UsersError::NoSecret))),
        "{end:?}"
    );
    assert_eq!(answer, None);
}

#[tokio::test]
async fn parts_of_a_message_that_are_too_short_are_a_login_that_failed() {
    let (end, ()) = with(async |asks: Asks| {
        for short in [&b"n,,"[..], b"n,a,n=x,r=y", b"n,,n"] {
            assert_eq!(asks.ask(true, short).await, Some(SaslAnswer::Failed));
        }
    })
    .await;
    end.unwrap();
    for last in [&b"c=biws,"[..], b"c=biws,r=x,p=eA==,", b"c"] {
        let (end, ()) = with(async |asks: Asks| {
            let answer = asks.ask(true, b"n,,n=alice,r=x").await;
            assert!(
                matches!(answer, Some(SaslAnswer::Continue(_))),
                "{answer:?}"
            );
            assert_eq!(asks.ask(false, last).await, Some(SaslAnswer::Failed));
        })
        .await;
        end.unwrap();
    }
    // Nor is there a message without what the mechanism begins with, or with nothing behind it but that.
    for (is_first, data, expected) in [
        (true, &b"n,,n=alice,r=x"[..], true),
        (true, b"y,a=alice,n=alice,r=x", true),
        (true, b"p=tls-unique,,n=alice,r=x", true),
        (true, b"", false),
        (true, b"n=,,n=alice,r=x", false),
        (false, b"", false),
        (false, b"c=biws,r=x,p=eA==", true),
    ] {
        assert_eq!(is_scram(is_first, data), expected, "{data:?}");
    }
}

#[test]
fn iterations_of_names_that_nobody_has_are_those_of_all_users() {
    let mut users = users();
    let first = users.users[0].clone();
    users.users.push(User {
        name: "bob".to_owned(),
        iterations: ITERATIONS,
        ..first
    });
    let asked = Asked(users);
    let numbers: Vec<u32> = (0..64)
        .map(|number| asked.nobody(&format!("user{number}")).iterations)
        .collect();
    for expected in [4096, ITERATIONS] {
        assert!(numbers.contains(&expected), "{numbers:?}");
    }
    assert_eq!(asked.nobody("user0").iterations, numbers[0]);
}

#[tokio::test]
async fn logins_are_counted_and_what_is_none_is_refused() {
    let (end, ()) = with(async |asks: Asks| {
        // Who acts as somebody else, binds to a channel there is not, or says what is no SCRAM.
        for wrong in [
            &b"p=tls-unique,,n=alice,r=x"[..],
            b"n,,m=x,n=alice,r=x",
            b"\xff\x00",
        ] {
            assert_eq!(asks.ask(true, wrong).await, Some(SaslAnswer::Failed));
        }
        let one_more = asks.ask(true, b"n,,n=alice,r=x").await;
        assert_eq!(one_more, Some(SaslAnswer::Failed));
        assert_eq!(asks.ask(true, b"n,,n=alice,r=x").await, None);
        assert_eq!(asks.told(), None);
    })
    .await;
    // Any client can have it so, and it is nothing for a log.
    end.unwrap();
}
