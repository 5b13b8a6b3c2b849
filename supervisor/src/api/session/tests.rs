//! In which order the calls of two clients are served that are there at once.

use std::sync::{Mutex, RwLock};

use reeve_ipc::api::call::{DomainList, EventsSubscribe};
use reeve_ipc::api::error::ApiError;
use reeve_ipc::api::event::EventKind;
use reeve_ipc::api::view::JobKind;
use reeve_ipc::model::DomainUuid;

use super::super::access::Policy;
use super::super::doors::Doors;
use super::super::{Limits, Served};
use super::*;
use crate::domain::driver::Later;
use crate::domain::world::EventSink;

/// Writes down who was served.
#[derive(Debug, Default)]
struct Books {
    served: Mutex<Vec<SessionId>>,
}

impl Serve for Books {
    fn serve(self: Arc<Self>, session: SessionId, _: CallBody) -> Answer {
        self.served.lock().unwrap().push(session);
        let why = "there is nothing".to_owned();
        Answer::Now(Err(ApiError::new(ApiErrorCode::Unsupported, why)))
    }

    fn session_ended(self: Arc<Self>, _: SessionId) {}

    fn clients(&self, _: u32) {}

    fn test_hypervisor(self: Arc<Self>) -> Later<Result<Served<Self>, ApiError>> {
        let why = "there is none".to_owned();
        Box::pin(async move { Err(ApiError::new(ApiErrorCode::Unsupported, why)) })
    }
}

fn shared() -> Arc<Shared<Books>> {
    Arc::new(Shared {
        service: Arc::new(Books::default()),
        events: Arc::new(EventLog::new(1)),
        policy: Arc::new(RwLock::new(Policy {
            own_uid: rustix::process::geteuid().as_raw(),
            read_write_group: None,
            read_only_group: None,
        })),
        limits: Arc::new(RwLock::new(Limits::default())),
        doors: Doors::default(),
    })
}

/// The client's end of a session that is served from now on, to which it has sent so many calls.
fn client(shared: &Arc<Shared<Books>>, calls: u64) -> OwnedFd {
    let list = || {
        CallBody::DomainList(DomainList {
            after: None,
            active_only: false,
        })
    };
    asking(shared, (0..calls).map(|_| list()))
}

/// As [`client`], with calls of its own.
fn asking(shared: &Arc<Shared<Books>>, calls: impl Iterator<Item = CallBody>) -> OwnedFd {
    let (ours, theirs) = scm::pair().unwrap();
    let peer = Peer::of(&ours).unwrap();
    let send = |message: &FromClient| {
        let bytes = codec::encode(message).unwrap();
        scm::send(theirs.as_fd(), &bytes, &[]).unwrap();
    };
    send(&FromClient::Hello {
        api: API,
        client: "test".to_owned(),
    });
    for (id, body) in (0..).zip(calls) {
        let id = CallId(id);
        send(&FromClient::Call { id, body });
    }
    let entry = shared.admit(peer, Access::ReadOnly).unwrap();
    tokio::spawn(entry.attend(NoRights::new(ours), None));
    theirs
}

async fn order(clients: &[u64]) -> Vec<SessionId> {
    let shared = shared();
    let ends: Vec<OwnedFd> = clients
        .iter()
        .map(|calls| client(&shared, *calls))
        .collect();
    let all: u64 = clients.iter().sum();
    let served = || shared.service.served.lock().unwrap().clone();
    while (served().len() as u64) < all {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(ends);
    served()
}

#[tokio::test]
async fn a_call_waits_for_one_of_each_other_client_and_not_for_all_that_it_has_sent() {
    let order = order(&[30, 1, 2]).await;
    let (flood, one, two) = (SessionId(1), SessionId(2), SessionId(3));
    let before = |of: SessionId, nth: usize| {
        let mut places = order.iter().enumerate().filter(|(_, id)| **id == of);
        let (place, _) = places.nth(nth).unwrap();
        order.iter().take(place).filter(|id| **id == flood).count()
    };
    assert!(before(one, 0) <= 2 && before(two, 0) <= 2, "{order:?}");
    assert!(before(two, 1) <= 4, "{order:?}");
}

#[tokio::test]
async fn one_that_is_alone_is_served_whatever_it_has_sent() {
    assert_eq!(order(&[40]).await, [SessionId(1); 40]);
}

#[tokio::test]
async fn an_event_that_fits_no_message_is_left_out_and_ends_nobody() {
    let shared = shared();
    let subscribe = CallBody::EventsSubscribe(EventsSubscribe { after: None });
    let end = asking(&shared, [subscribe].into_iter());
    let end = Socket::new(end).unwrap();
    let next = async || {
        let (bytes, _) = end.receive(scm::receive_message).await.unwrap();
        codec::decode::<ToClient>(&bytes).unwrap()
    };
    assert!(matches!(next().await, ToClient::Welcome { .. }));
    let subscribed = next().await;
    assert!(
        matches!(subscribed, ToClient::Reply { result: Ok(_), .. }),
        "{subscribed:?}"
    );
    let message = "x".repeat(MAX_MESSAGE_BYTES);
    let job = JobKind::Tune;
    let (uuid, name) = (DomainUuid(uuid::Uuid::nil()), "web".parse().unwrap());
    for kind in [EventKind::JobFailed { job, message }, EventKind::Undefined] {
        shared.events.domain_event(uuid, &name, kind);
    }
    let ToClient::Event { cursor, .. } = next().await else {
        panic!("no event");
    };
    assert_eq!(cursor.number, 2);
}
