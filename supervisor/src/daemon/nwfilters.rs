//! The calls about network filters: from their arguments to the filters, and back.

use reeve_ipc::api::call::{AnswerBody, CallBody};
use reeve_ipc::api::error::{ApiError, ApiErrorCode};

use super::Daemon;
use crate::api::Answer;
use crate::nwfilter::Nwfilters;

type Made = Result<AnswerBody, ApiError>;

fn now(made: Made) -> Answer {
    Answer::Now(made.map(|answer| (answer, Vec::new())))
}

/// Asks for what may wait for the disk or the kernel.
fn later(work: impl FnOnce() -> Made + Send + 'static) -> Answer {
    Answer::Later(Box::pin(async move {
        let made = tokio::task::spawn_blocking(work).await;
        let made = made.map_err(|_| {
            ApiError::new(
                ApiErrorCode::Host,
                "the thread that changed a network filter failed",
            )
        });
        made?.map(|answer| (answer, Vec::new()))
    }))
}

impl Daemon {
    /// Answers `call`, if it is about network filters.
    #[expect(
        clippy::result_large_err,
        reason = "not an error: the call, for whoever serves it"
    )]
    pub(super) fn of_nwfilters(&self, call: CallBody) -> Result<Answer, CallBody> {
        use AnswerBody as A;
        use CallBody as C;
        let asked = matches!(
            call,
            C::NwfilterList(_)
                | C::NwfilterGet(_)
                | C::NwfilterDefine(_)
                | C::NwfilterUndefine(_)
                | C::NwfilterBindingList(_)
        );
        let Some(filters) = self.nwfilters.clone().filter(|_| asked) else {
            return match asked {
                // As libvirt's test driver.
                true => Ok(now(Err(ApiError::new(
                    ApiErrorCode::Unsupported,
                    "the test hypervisor has no network filters",
                )))),
                false => Err(call),
            };
        };
        let filters: Nwfilters = filters;
        Ok(match call {
            C::NwfilterList(list) => {
                later(move || Ok(A::NwfilterList(filters.page(list.after.as_ref()))))
            }
            C::NwfilterGet(get) => later(move || {
                let filter = filters.get(&get.filter)?;
                Ok(A::NwfilterGet(Box::new(filter)))
            }),
            C::NwfilterDefine(define) => later(move || {
                let summary = filters.define(*define.filter, define.only_new)?;
                Ok(A::NwfilterDefine(summary))
            }),
            C::NwfilterUndefine(undefine) => later(move || {
                filters.undefine(&undefine.filter)?;
                Ok(A::NwfilterUndefine(()))
            }),
            C::NwfilterBindingList(list) => later(move || {
                let page = filters.bindings(list.after.as_ref());
                Ok(A::NwfilterBindingList(page))
            }),
            call => return Err(call),
        })
    }
}
