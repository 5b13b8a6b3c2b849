//! The calls about virtual networks: from their arguments to the networks, and back.

use reeve_ipc::api::call::{AnswerBody, CallBody, NetworkPage, NetworkRef, Operation};
use reeve_ipc::api::error::{ApiError, ApiErrorCode};

use super::Daemon;
use crate::api::Answer;
use crate::network::Networks;
use crate::network::handle::{Change, Request};

type Made = Result<AnswerBody, ApiError>;

fn now(made: Made) -> Answer {
    Answer::Now(made.map(|answer| (answer, Vec::new())))
}

fn later<W: Future<Output = Made> + Send + 'static>(work: W) -> Answer {
    Answer::Later(Box::pin(async move {
        work.await.map(|answer| (answer, Vec::new()))
    }))
}

impl Daemon {
    /// Answers `call`, if it is about virtual networks.
    #[expect(
        clippy::result_large_err,
        reason = "not an error: the call, for whoever serves it"
    )]
    pub(super) fn of_networks(&self, call: CallBody) -> Result<Answer, CallBody> {
        use AnswerBody as A;
        use CallBody as C;
        let Some(networks) = self.networks.clone() else {
            return without_networks(call);
        };
        let ask = |network: NetworkRef, request: Request, answer: AnswerBody| {
            let networks: Networks = networks.clone();
            later(async move {
                networks.ask(&network, request).await?;
                Ok(answer)
            })
        };
        Ok(match call {
            C::NetworkList(list) => {
                let page = networks.page(list.after.as_ref(), list.filter);
                now(Ok(A::NetworkList(page)))
            }
            C::NetworkGet(get) => now(networks.get(&get.network).map(A::NetworkGet)),
            C::NetworkDefinitionGet(get) => now(networks
                .definition(&get.network, get.persistent)
                .map(|network| A::NetworkDefinitionGet(Box::new(network)))),
            C::NetworkDefine(call) => later(async move {
                let summary = networks.define(*call.network, call.only_new).await?;
                Ok(A::NetworkDefine(summary))
            }),
            C::NetworkCreate(call) => later(async move {
                let summary = networks.create(*call.network).await?;
                Ok(A::NetworkCreate(summary))
            }),
            C::NetworkStart(call) => later(async move {
                let summary = networks.ask(&call.network, Request::Start).await?;
                Ok(A::NetworkStart(summary))
            }),
            C::NetworkStop(call) => ask(call.network, Request::Stop, A::NetworkStop(())),
            C::NetworkUndefine(call) => {
                ask(call.network, Request::Undefine, A::NetworkUndefine(()))
            }
            C::NetworkAutostartSet(call) => {
                let request = Request::Autostart(call.autostart);
                ask(call.network, request, A::NetworkAutostartSet(()))
            }
            C::NetworkUpdate(call) => {
                let request = Request::Change {
                    change: Change::Part(call.edit),
                    live: call.live,
                    persistent: call.persistent,
                };
                ask(call.network, request, A::NetworkUpdate(()))
            }
            C::NetworkLabelSet(call) => {
                let request = Request::Change {
                    change: Change::Label(call.label),
                    live: call.live,
                    persistent: call.persistent,
                };
                ask(call.network, request, A::NetworkLabelSet(()))
            }
            C::NetworkLeasesGet(get) => Answer::Later(Box::pin(async move {
                let book = networks.leases(&get.network).await?;
                let answer = A::NetworkLeasesGet(book.is_some());
                Ok((answer, book.into_iter().collect()))
            })),
            C::NetworkPortList(list) => now(networks
                .ports(&list.network, list.after)
                .map(A::NetworkPortList)),
            other => return Err(other),
        })
    }
}

/// Answers `call` where there are no networks and can be none, if it is about them.
#[expect(
    clippy::result_large_err,
    reason = "not an error: the call, for whoever serves it"
)]
fn without_networks(call: CallBody) -> Result<Answer, CallBody> {
    use CallBody as C;
    let refused = |operation: Operation, code, why: &str| {
        let message = format!("cannot {}: {why}", operation.name());
        Ok(Answer::Now(Err(ApiError::new(code, message))))
    };
    let operation = call.operation();
    match call {
        C::NetworkList(_) => {
            let page = NetworkPage {
                networks: Vec::new(),
                more: false,
            };
            Ok(now(Ok(AnswerBody::NetworkList(page))))
        }
        C::NetworkGet(_)
        | C::NetworkDefinitionGet(_)
        | C::NetworkLeasesGet(_)
        | C::NetworkPortList(_) => {
            let why = "there are no networks here";
            refused(operation, ApiErrorCode::NoNetwork, why)
        }
        C::NetworkDefine(_)
        | C::NetworkCreate(_)
        | C::NetworkStart(_)
        | C::NetworkStop(_)
        | C::NetworkUndefine(_)
        | C::NetworkAutostartSet(_)
        | C::NetworkUpdate(_)
        | C::NetworkLabelSet(_) => {
            let why = "the test hypervisor has no virtual networks";
            refused(operation, ApiErrorCode::Unsupported, why)
        }
        other => Err(other),
    }
}
